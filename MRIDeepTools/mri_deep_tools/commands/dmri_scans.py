"""``mri-deep-tools simulate dmri``: diffusion scans of a phantom, with the truth beside them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, RequestError
from ..progress import Progress
from .options import add_common_options, positive
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..dmriupsample.gradients import GradientTable
    from ..dmriupsample.simulate import SimulatedScan
    from ..volume import Volume

__all__ = ["add_action", "run"]

TRUTH = ("mask", "fa", "md", "directions")
_SIZE, _SPACING = (32, 36, 30), 5.0


def add_action(actions: Any) -> None:
    """Add the action to those of ``simulate``."""
    dmri = actions.add_parser(
        "dmri",
        help="diffusion scans of a phantom with known truth",
        epilog="Beside OUTPUT are written its gradients (.bval and .bvec; a NRRD holds them itself), the mask, FA and "
        "MD (mm^2/s) of the signal without noise, the fibres (unit vectors in world space times their share of the "
        "voxel), and a record.",
    )
    dmri.add_argument("output", type=Path, metavar="OUTPUT", help="the scan, 4-D")
    dmri.add_argument("--labels", type=Path, metavar="FILE", help="label map with the anatomy (default: built in)")
    dmri.add_argument(
        "--spacing", type=float, metavar="MM", help="size of voxels (default: 5 built in; 2 with a label map)"
    )
    dmri.add_argument(
        "--size", type=positive, nargs=3, metavar="N", help="grid of the built-in anatomy (default: 32 36 30)"
    )
    dmri.add_argument("--shells", type=float, nargs="+", metavar="B", help="b-values (default: 1000)")
    dmri.add_argument(
        "--directions", type=positive, nargs="+", metavar="N", help="evenly spread ones per shell (default: 30)"
    )
    dmri.add_argument("--b0", type=positive, metavar="N", help="volumes at b = 0 (default: 1)")
    dmri.add_argument("--bvecs", type=Path, metavar="FILE", help="FSL's directions to use in place of even ones")
    dmri.add_argument("--bvals", type=Path, metavar="FILE", help="FSL's b-values that belong to them")
    dmri.add_argument(
        "--fibre-model", choices=("multi-tensor", "ball-and-stick"), default="multi-tensor", help="of white matter"
    )
    dmri.add_argument("--fibres", type=int, choices=(1, 2, 3), default=3, help="most in a voxel (default: 3)")
    dmri.add_argument(
        "--snr", type=float, default=20.0, help="white matter at b = 0 over Rician noise; 0: no noise (default: 20)"
    )
    dmri.add_argument("--noise-free", type=Path, metavar="FILE", help="write the scan without noise, too")
    dmri.add_argument("--seed", type=int, default=0, help="of noise, fibres and directions (default: 0)")
    add_common_options(dmri)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Make the scan.

    Raises
    ------
    MRIDeepToolsError : a wrong request, unreadable files, an output that cannot be written.

    """
    from ..dmriupsample.output import companion_paths
    from ..dmriupsample.simulate import simulate_dmri
    from ..provenance import sidecar_path
    from ..volume import is_image_path

    if not is_image_path(args.output):
        raise RequestError(f"{args.output.name} does not end in an image suffix", "use .nii.gz or .nrrd")
    _check(args)
    companions, truth = companion_paths(args.output), _truth_paths(args.output)
    extra = [args.noise_free] if args.noise_free else []
    outputs = [args.output, *companions, *truth.values(), *extra, sidecar_path(args.output)]
    inputs = [path for path in (args.labels, args.bvecs, args.bvals) if path is not None]
    check_outputs(outputs, inputs, overwrite=args.overwrite)
    with progress.stage("simulate"):
        phantom = _phantom(args, progress)
        scan = simulate_dmri(
            phantom,
            _scheme(args, phantom.affine),
            model=args.fibre_model,
            snr=args.snr,
            seed=args.seed,
            tick=progress.update,
        )
    with progress.stage("write"):
        _write(args, companions, truth, inputs, scan, progress)
    if not args.quiet and args.progress != "json":
        size = " x ".join(map(str, scan.mask.shape3))
        sys.stdout.write(f"{len(scan.table)} volumes of {size} voxels -> {args.output.name}\n")
    progress.result(outputs=[str(path) for path in outputs], seed=args.seed)


def _check(args: argparse.Namespace) -> None:
    """Refuse options that contradict one another."""
    if args.labels is not None and args.size is not None:
        raise RequestError("--size is for the built-in anatomy", "with --labels, use --spacing")
    if (args.bvecs is None) != (args.bvals is None):
        raise RequestError("directions and b-values belong together", "give both --bvecs and --bvals, or neither")
    if args.bvecs is not None and (args.shells or args.directions or args.b0):
        raise RequestError("a scheme was given by files and by numbers", "drop --shells, --directions and --b0")


def _truth_paths(output: Path) -> dict[str, Path]:
    from ..volume import split_suffix

    stem, suffix = split_suffix(output)
    return {name: output.with_name(f"{stem}_{name}{suffix}") for name in TRUTH}


def _phantom(args: argparse.Namespace, progress: Progress) -> Any:
    from ..dmriupsample.phantom import built_in_labels, make_phantom
    from ..volume import read_volume

    if args.labels is None:
        labels = built_in_labels(tuple(args.size or _SIZE), args.spacing or _SPACING)
        return make_phantom(labels, None, args.fibres, args.seed)
    if not args.labels.exists():
        raise InputError(f"{args.labels.name} does not exist", "check the path of the label map")
    labels = read_volume(args.labels, on_warning=progress.warn)
    return make_phantom(labels, args.spacing or 2.0, args.fibres, args.seed)


def _scheme(args: argparse.Namespace, affine: Any) -> GradientTable:
    from ..dmriupsample.gradients import read_bvals, read_fsl
    from ..dmriupsample.simulate import even_scheme

    if args.bvecs is not None:
        return read_fsl(args.bvecs, args.bvals, affine, len(read_bvals(args.bvals)), 0.0)
    return even_scheme(args.shells or [1000.0], args.directions or [30], args.b0 or 1, args.seed)


def _write(
    args: argparse.Namespace,
    companions: tuple[Path, ...],
    truth: dict[str, Path],
    inputs: list[Path],
    scan: SimulatedScan,
    progress: Progress,
) -> None:
    """Write all files together."""
    from ..dmriupsample.output import write_image
    from ..provenance import make_record, sidecar_path, write_sidecar
    from ..volume import write_volume

    with OutputSet() as files:
        images: dict[Path, Volume] = {args.output: scan.image}
        if args.noise_free:
            images[args.noise_free] = scan.clean
        written = {path: files.path(path) for path in (*images, *companions, *truth.values())}
        for path, image in images.items():
            write_image(written[path], image, scan.table, "MRI Deep Tools simulated diffusion")
        if companions:
            scan.table.write_fsl(written[companions[0]], written[companions[1]], scan.image.affine)
        for name, path in truth.items():
            write_volume(getattr(scan, name), written[path], intent="label" if name == "mask" else "none")
        names = ("spacing", "size", "shells", "directions", "b0", "fibre_model", "fibres", "snr", "seed")
        record = make_record(
            "simulate dmri",
            inputs,
            options={name: getattr(args, name) for name in names} | {"sigma": scan.sigma},
            seconds=progress.seconds,
            outputs=written,
            warnings=progress.warnings,
            geometry={"output": scan.image},
            synthetic=True,
            roles={path: name for name, path in truth.items()}
            | {path: path.suffix.removeprefix(".") + "s" for path in companions}
            | dict.fromkeys(images, "image"),
        )
        write_sidecar(files.path(sidecar_path(args.output)), record)
