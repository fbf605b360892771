"""``mri-deep-tools simulate thick-slices``: scans with thick slices from isotropic ones, of known truth."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, RequestError
from ..progress import Progress
from .options import add_common_options
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..volume import Volume

__all__ = ["add_action", "run"]

DIRECTIONS = ("axial", "coronal", "sagittal")
_WHOLE = 0.02  # as much may a thickness in voxels differ from a whole number


@dataclass(frozen=True)
class _Job:
    source: Path
    output: Path
    direction: str
    thickness: float


def add_action(actions: Any) -> None:
    """Add the action to those of ``simulate``."""
    slices = actions.add_parser("thick-slices", help="scans with thick slices from isotropic ones")
    slices.add_argument("input", type=Path, metavar="INPUT", help="isotropic scan, or a folder of them")
    slices.add_argument("output", type=Path, metavar="OUTPUT", help="the thick-slice scan; a folder for several")
    slices.add_argument("--thickness", type=float, nargs="+", default=[4.0], metavar="MM", help="(default: 4)")
    slices.add_argument(
        "--direction", choices=DIRECTIONS, nargs="+", default=["axial"], help="of the slices (default: axial)"
    )
    slices.add_argument(
        "--method",
        choices=("physical", "as-trained"),
        default="physical",
        help="physical: slices average over their thickness and keep their own grid; as-trained: every k-th slice is "
        "kept and the rest stretched back to the full grid, as the published network was trained",
    )
    slices.add_argument("--gap", type=float, default=0.0, metavar="MM", help="between slices, physical (default: 0)")
    slices.add_argument("--profile", choices=("gaussian", "box"), default="gaussian", help="of a slice, physical")
    slices.add_argument("--noise", type=float, default=0.0, help="Rician, share of the bright intensities, physical")
    slices.add_argument("--start", type=int, default=0, metavar="N", help="first slice that is kept, as-trained")
    slices.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    add_common_options(slices)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Make all scans.

    Raises
    ------
    MRIDeepToolsError : a wrong request, an unreadable scan, an output that cannot be written.

    """
    from ..provenance import sidecar_path

    for value in args.thickness:
        if not (math.isfinite(value) and value > 0):
            raise RequestError(f"the slice thickness must be above 0 mm, not {value}")
    if args.method == "as-trained" and (args.gap or args.noise or args.profile != "gaussian"):
        raise RequestError("gap, profile and noise are for --method physical", "drop them, or that method")
    if args.method == "physical" and args.start:
        raise RequestError("--start is for --method as-trained", "drop it")
    jobs = _jobs(args)
    outputs = [path for job in jobs for path in (job.output, sidecar_path(job.output))]
    check_outputs(outputs, [job.source for job in jobs], overwrite=args.overwrite)
    for index, job in enumerate(jobs):
        progress.item(index, len(jobs))
        _make(args, job, args.seed + index, progress)


def _jobs(args: argparse.Namespace) -> list[_Job]:
    """Return what to make from what; several results need a folder."""
    from ..volume import is_image_path, list_images

    if not args.input.exists():
        raise InputError(f"{args.input.name} does not exist", "check the path of the input")
    sources = list_images(args.input) if args.input.is_dir() else [args.input]
    sources = sources or [args.input]  # a folder without images may be a DICOM series
    wanted = [(source, way, size) for source in sources for way in args.direction for size in args.thickness]
    if is_image_path(args.output) and not args.output.is_dir():
        if len(wanted) > 1:
            raise RequestError(f"{len(wanted)} scans do not fit into {args.output.name}", "name a folder")
        return [_Job(wanted[0][0], args.output, *wanted[0][1:])]
    return [_Job(source, _place(args, source, way, size), way, size) for source, way, size in wanted]


def _place(args: argparse.Namespace, source: Path, direction: str, thickness: float) -> Path:
    """Return the path in the output folder; with ``--compatible`` the published folders and names."""
    from ..volume import split_suffix

    stem, suffix = split_suffix(source) if not source.is_dir() else (source.resolve().name, ".nii.gz")
    size = f"{thickness:g}"
    if args.compatible:
        name = f"{direction}_T2w_LR{size}"
        stem = stem.replace("T2w", name) if "T2w" in stem else f"{stem}_{name}"
        return Path(args.output) / direction / f"LR{size}" / f"{stem}{suffix}"
    name = f"acq-{direction}{size.replace('.', 'p')}mm"
    head, mark, tail = stem.rpartition("_")
    stem = f"{head}_{name}_{tail}" if mark and tail in ("T1w", "T2w") else f"{stem}_{name}"
    return Path(args.output) / f"{stem}{suffix}"


def _make(args: argparse.Namespace, job: _Job, seed: int, progress: Progress) -> None:
    import numpy as np

    from ..provenance import make_record, sidecar_path, write_sidecar
    from ..volume import read_volume, write_volume

    before = progress.seconds.get("simulate", 0.0)
    with progress.stage("simulate"):
        scan = read_volume(job.source, on_warning=progress.warn)
        thick, spacing = _thick(args, job, scan, seed)
    with OutputSet() as files:
        temporary = files.path(job.output)
        kind = np.float64 if args.compatible else np.float32
        write_volume(thick, temporary, dtype=kind, description="MRI Deep Tools simulated thick slices")
        record = make_record(
            "simulate thick-slices",
            [job.source],
            options={
                "method": args.method,
                "direction": job.direction,
                "thickness": job.thickness,
                **{name: getattr(args, name) for name in ("gap", "profile", "noise", "start")},
                "seed": seed,
            },
            seconds={"simulate": progress.seconds["simulate"] - before},
            outputs={job.output: temporary},
            warnings=progress.warnings,
            geometry={"output": thick},
            synthetic=True,
            roles={job.source: "scan", job.output: "image"},
        )
        record |= {"SliceThickness": job.thickness, "SpacingBetweenSlices": spacing}
        write_sidecar(files.path(sidecar_path(job.output)), record)
    if not args.quiet and args.progress != "json":
        sys.stdout.write(f"{job.source.name}, {job.direction} {job.thickness:g} mm -> {job.output.name}\n")
    progress.result(outputs=[str(job.output)], direction=job.direction, thickness_mm=job.thickness)


def _thick(args: argparse.Namespace, job: _Job, scan: Volume, seed: int) -> tuple[Volume, float]:
    """Return the thick-slice scan and the distance between its slices in mm."""
    from ..superresolve.simulate import DIRECTIONS as PUBLISHED_AXES
    from ..superresolve.simulate import SliceStack, acquire, array_axis, as_trained

    axis = PUBLISHED_AXES[job.direction] if args.compatible else array_axis(scan, job.direction)
    if args.method == "physical":
        stack = SliceStack(axis, job.thickness, job.thickness + args.gap, args.profile)
        return acquire(scan, stack, noise=args.noise, seed=seed), stack.spacing_mm
    voxels = job.thickness / scan.spacing[axis]
    factor = round(voxels)
    if factor < 2 or abs(voxels - factor) > _WHOLE:
        raise RequestError(
            f"{job.thickness:g} mm are {voxels:.3g} voxels of {job.source.name}; as-trained keeps every k-th slice",
            "choose a thickness of 2 or more whole voxels, or --method physical",
        )
    return scan.with_data(as_trained(scan.data, axis, factor, args.start)), factor * scan.spacing[axis]
