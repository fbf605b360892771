"""``mri-deep-tools simulate denoiser-pairs``: training pairs for the denoiser of the robust chain."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..progress import Progress
from .options import add_common_options, positive
from .outputs import OutputSet, check_outputs

__all__ = ["add_action", "run"]


def add_action(actions: Any) -> None:
    """Add the action to those of ``simulate``."""
    pairs = actions.add_parser(
        "denoiser-pairs", help="noisy and true group maps from scans with label maps, through S1 of the robust chain"
    )
    pairs.add_argument("images", type=Path, metavar="IMAGES", help="folder of scans")
    pairs.add_argument("labels", type=Path, metavar="LABELS", help="folder of their label maps, in the same order")
    pairs.add_argument("output", type=Path, metavar="OUTPUT", help="folder; gets the folders noisy and true")
    pairs.add_argument("--weights", type=Path, required=True, metavar="FILE", help="weights of S1 (.h5, .safetensors)")
    pairs.add_argument("--number", type=positive, default=10_000, metavar="N", help="pairs (default: 10000)")
    pairs.add_argument("--seed", type=int, default=0, help="fixes every draw (default: 0)")
    add_common_options(pairs)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Write the pairs; those of an interrupted run are kept unless ``--overwrite`` is given.

    Raises
    ------
    MRIDeepToolsError : unreadable data, weights without S1, outputs that exist.

    """
    from ..inference import set_threads
    from ..synthsegment.denoiser_pairs import make_pair
    from ..synthsegment.generator.draws import Draws
    from ..synthsegment.training_maps import load_maps, load_pairs

    network = _first_stage(args.weights)
    data = load_pairs(args.images, load_maps(args.labels), "supervised")
    finals = [
        (args.output / "noisy" / f"pair_{n + 1:05d}.nii.gz", args.output / "true" / f"pair_{n + 1:05d}.nii.gz")
        for n in range(args.number)
    ]
    check_outputs([path for pair in finals for path in pair], [], overwrite=args.overwrite)
    set_threads(args.threads)
    progress.plan([("pair", 1.0)])
    for index, (noisy_path, true_path) in enumerate(finals):
        progress.item(index, len(finals))
        with progress.stage("pair"):
            draws = Draws(args.seed + index)
            pair = data[draws.integer(len(data))]
            noisy, true = make_pair(pair, network, draws)
            with OutputSet() as files:
                _write(noisy, pair.map.voxel_size, files.path(noisy_path))
                _write(true, pair.map.voxel_size, files.path(true_path))
    if not args.quiet and args.progress != "json":
        sys.stdout.write(f"{len(finals)} pairs are in {args.output.name}\n")
    progress.result(outputs=[str(args.output)])


def _write(groups: Any, voxel_size: tuple[float, float, float], path: Path) -> None:
    import numpy as np

    from ..volume import Volume, write_volume

    write_volume(Volume(groups, np.diag([*voxel_size, 1.0])), path, intent="label")


def _first_stage(path: Path) -> Any:
    """Return S1: a U-Net from one channel to the five groups."""
    from ..synthsegment.network import UNet, build_network
    from ..synthsegment.weights import load_states

    state = load_states(path).get("unet")
    network = None if state is None else build_network(state)
    if not isinstance(network, UNet) or (network.spec.in_channels, network.spec.out_channels) != (1, 5):
        raise WeightsError(f"{path.name} does not hold S1 of the robust chain", "give synthseg_robust_2.0.h5")
    return network
