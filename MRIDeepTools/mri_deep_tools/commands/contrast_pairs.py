"""``mri-deep-tools simulate contrast-pairs``: a T1w and a T2w scan of each simulated person, for ``train baby-ai``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, RequestError
from ..progress import Progress
from .configured import add_config_options, configured, wanted
from .options import add_common_options, positive
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..superresolve.simulate_pairs import PairConfig

__all__ = ["add_action", "run"]


@dataclass(frozen=True)
class _Job:
    labels: Path
    seed: int
    t1: Path
    t2: Path


def add_action(actions: Any) -> None:
    """Add the action to those of ``simulate``."""
    pairs = actions.add_parser("contrast-pairs", help="T1w and T2w scans of simulated people from label maps")
    pairs.add_argument("labels", nargs="?", type=Path, metavar="LABELS", help="label map, or a folder of them")
    pairs.add_argument("output", nargs="?", type=Path, metavar="FOLDER", help="gets sub-NAME_run-001..._T1w and _T2w")
    pairs.add_argument("--number", type=positive, default=1, metavar="N", help="people per label map (default: 1)")
    pairs.add_argument("--seed", type=int, default=0, help="fixes every draw (default: 0)")
    pairs.add_argument("--suffix", choices=(".nii.gz", ".nii"), default=".nii.gz", help="(default: .nii.gz)")
    add_config_options(pairs)
    add_common_options(pairs)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Draw the pairs.

    Raises
    ------
    MRIDeepToolsError : a wrong request, an unreadable map, an output that cannot be written.

    """
    from ..provenance import sidecar_path
    from ..superresolve.simulate_pairs import PairConfig

    config = configured(PairConfig(), wanted(args), args)
    if args.print_config:
        from ..config import render_config

        sys.stdout.write(render_config(config))
        return
    if args.labels is None or args.output is None:
        raise RequestError("LABELS and FOLDER are needed", "see `mri-deep-tools simulate contrast-pairs --help`")
    jobs = _jobs(args)
    outputs = [path for job in jobs for scan in (job.t1, job.t2) for path in (scan, sidecar_path(scan))]
    check_outputs(outputs, [job.labels for job in jobs], overwrite=args.overwrite)
    for index, job in enumerate(jobs):
        progress.item(index, len(jobs))
        _draw(args, config, job, progress)


def _jobs(args: argparse.Namespace) -> list[_Job]:
    """Return what is drawn from what; every person has a seed of its own."""
    from ..volume import is_image_path, list_images, split_suffix

    if not args.labels.exists():
        raise InputError(f"{args.labels.name} does not exist", "check the path of the label map")
    if is_image_path(args.output) and not args.output.is_dir():
        raise RequestError(f"a pair does not fit into one file, {args.output.name}", "name a folder")
    maps = list_images(args.labels) if args.labels.is_dir() else [args.labels]
    if not maps:
        raise InputError(f"the folder {args.labels.name} holds no label maps", "give a label map, or a folder of them")
    jobs: list[_Job] = []
    for path in maps:
        stem = "".join(letter for letter in split_suffix(path)[0] if letter.isalnum())
        for number in range(args.number):
            name = f"sub-{stem}_run-{number + 1:03d}"  # one anatomy is one subject, so a split keeps it together
            scans = (args.output / f"{name}_desc-synthetic_{kind}{args.suffix}" for kind in ("T1w", "T2w"))
            jobs.append(_Job(path, args.seed + len(jobs), *scans))
    return jobs


def _draw(args: argparse.Namespace, config: PairConfig, job: _Job, progress: Progress) -> None:
    import numpy as np

    from ..provenance import make_record, sidecar_path, write_sidecar
    from ..superresolve.simulate_pairs import simulate_pair
    from ..volume import read_volume, write_volume

    before = progress.seconds.get("simulate", 0.0)
    with progress.stage("simulate"):
        pair = simulate_pair(read_volume(job.labels, on_warning=progress.warn), job.seed, config)
    with OutputSet() as files:
        for path, scan in ((job.t1, pair.t1), (job.t2, pair.t2)):
            temporary = files.path(path)
            write_volume(scan, temporary, dtype=np.float32, description="MRI Deep Tools SYNTHETIC")
            record = make_record(
                "simulate contrast-pairs",
                [job.labels],
                options={**asdict(config), "seed": job.seed},
                seconds={"simulate": progress.seconds["simulate"] - before},
                outputs={path: temporary},
                warnings=progress.warnings,
                geometry={"output": scan},
                synthetic=True,
                roles={job.labels: "labels", path: "image"},
            )
            record["Drawn"] = pair.drawn
            write_sidecar(files.path(sidecar_path(path)), record)
    if not args.quiet and args.progress != "json":
        sys.stdout.write(f"{job.labels.name} -> {job.t1.name}, {job.t2.name}\n")
    progress.result(outputs=[str(job.t1), str(job.t2)], seed=job.seed)
