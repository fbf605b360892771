"""``mri-deep-tools superresolve``: a thick-slice T2w scan and a T1w scan of one person to a 1 mm isotropic T2w."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CancelledError, InputError, RequestError
from ..progress import Progress
from .options import add_common_options
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..superresolve.predict import SuperResolutionResult, SuperResolver

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    kinds = "an image file, or a folder with one DICOM series"
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the result, or a folder for it")
    parser.add_argument("--t2", type=Path, required=True, metavar="FILE", help=f"thick-slice T2w scan: {kinds}")
    parser.add_argument("--t1", type=Path, metavar="FILE", help=f"isotropic T1w scan, where there is one: {kinds}")
    _add_model_options(parser.add_argument_group("model"))
    _add_geometry_options(parser.add_argument_group("geometry"))
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument("--interpolated", type=Path, metavar="FILE", help="the T2w scan interpolated, to compare")
    outputs.add_argument(
        "--honesty", type=Path, metavar="FILE", help="map of the result, reduced to the measured slices, minus these"
    )
    outputs.add_argument("--report", type=Path, metavar="HTML", help="a page with pictures, checks and provenance")
    outputs.add_argument(
        "--intensities", choices=("scan", "unit"), default="scan", help="those of the T2w scan, or 0..1 as published"
    )
    outputs.add_argument("--hide-names", action="store_true", help="no file names in the records")
    add_common_options(parser)


def _add_model_options(group: Any) -> None:
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--model", metavar="NAME", help="(default: baby-ai, or superresolve-lite)")
    weights.add_argument("--weights", type=Path, metavar="FILE", help="weights of your own (.pth or .safetensors)")
    group.add_argument(
        "--window",
        choices=("uniform", "gaussian"),
        default="uniform",
        help="blending of patches (default: as published)",
    )


def _add_geometry_options(group: Any) -> None:
    group.add_argument("--registered", action="store_true", help="the scans lie in one space already: do not register")
    group.add_argument("--template", type=Path, metavar="FILE", help="work in the frame of this 1 mm image")
    group.add_argument("--space", choices=("native", "template"), default="native", help="of the result")
    group.add_argument(
        "--resampling",
        choices=("geometric", "as-trained"),
        default="geometric",
        help="of the T2w scan along its slices: by its affine, or with the published stretch",
    )
    group.add_argument(
        "--slice-direction", choices=("axial", "coronal", "sagittal"), help="(default: that of the largest voxel side)"
    )
    group.add_argument("--slice-thickness", type=float, metavar="MM", help="(default: what the header says)")
    group.add_argument(
        "--slice-spacing", type=float, metavar="MM", help="of the slices that an interpolated T2w scan was made from"
    )


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Super-resolve one pair.

    Raises
    ------
    MRIDeepToolsError : as :func:`mri_deep_tools.superresolve.superresolve` says; an output that cannot be written.

    """
    from ..provenance import sidecar_path
    from ..superresolve.predict import SuperResolver

    given = [path for path in (args.t2, args.t1, args.template) if path is not None]
    for path in given:
        if not path.exists():
            raise InputError(f"{path.name} does not exist", "check the path of the input")
    image = _output(args)
    options = _engine_options(args)
    resolver = SuperResolver(**options)
    extra = {name: path for name in ("interpolated", "honesty") if (path := getattr(args, name)) is not None}
    for name, path in extra.items():
        _require_image(path, f"--{name}")
    if args.report is not None and args.report.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"--report {args.report.name} does not end in .html", "name a .html file")
    outputs = [image, sidecar_path(image), *extra.values(), *([args.report] if args.report else [])]
    check_outputs(outputs, given, overwrite=args.overwrite)
    try:
        result = resolver.superresolve(args.t2, args.t1, progress)
    except KeyboardInterrupt:
        raise CancelledError("Cancelled", "nothing was written") from None
    _write(args, resolver, result, image, extra, progress)


def _output(args: argparse.Namespace) -> Path:
    """Return the path of the result; in a folder, a name that says that it is synthetic."""
    from ..volume import is_image_path, split_suffix

    path: Path = args.output
    if is_image_path(path) and not path.is_dir():
        return path
    if path.suffix and not path.is_dir():
        _require_image(path, "OUTPUT")
    stem, suffix = split_suffix(args.t2) if not args.t2.is_dir() else (args.t2.resolve().name, ".nii.gz")
    if args.compatible:
        stem = stem.replace("T2w", "T2w_reconstructed") if "T2w" in stem else f"{stem}_reconstructed"
    else:
        stem = f"{stem.removesuffix('_T2w')}_desc-synthetic_T2w"
    return path / f"{stem}{suffix}"


def _require_image(path: Path, what: str) -> None:
    from ..volume import SUFFIXES, is_image_path

    if not is_image_path(path):
        known = ", ".join(SUFFIXES)
        raise RequestError(f"{what} {path.name} does not end in an image suffix", f"use one of {known}")


def _engine_options(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import fields

    from ..superresolve.predict import SuperResolveOptions

    return {item.name: getattr(args, item.name) for item in fields(SuperResolveOptions)}


def _write(
    args: argparse.Namespace,
    resolver: SuperResolver,
    result: SuperResolutionResult,
    image: Path,
    extra: dict[str, Path],
    progress: Progress,
) -> None:
    """Put all files in place together."""
    import numpy as np

    from ..provenance import sidecar_path, write_sidecar
    from ..volume import write_volume

    note = f"MRI Deep Tools {result.model} SYNTHETIC"[:79]
    kind = np.float64 if args.compatible else np.float32
    with progress.stage("write"), OutputSet() as files:
        made = {image: files.path(image)}
        write_volume(result.image, made[image], dtype=kind, description=note)
        if "interpolated" in extra:
            made[extra["interpolated"]] = files.path(extra["interpolated"])
            write_volume(result.interpolated, made[extra["interpolated"]], dtype=np.float32)
        if "honesty" in extra and result.honesty is not None:
            made[extra["honesty"]] = files.path(extra["honesty"])
            write_volume(result.honesty.difference, made[extra["honesty"]], dtype=np.float32, description=note)
        elif "honesty" in extra:
            progress.warn(f"{extra['honesty'].name} was not written: the measured slices are not known")
        record = _record(args, resolver, result, made, progress)
        write_sidecar(files.path(sidecar_path(image)), record)
        if args.report is not None:
            from ..superresolve.report import write_superresolution_report

            write_superresolution_report(files.path(args.report), result, record=record)
    _tell(args, result, image, made, progress)


def _record(
    args: argparse.Namespace,
    resolver: SuperResolver,
    result: SuperResolutionResult,
    made: dict[Path, Path],
    progress: Progress,
) -> dict[str, Any]:
    from ..provenance import make_record, model_use

    record = make_record(
        "superresolve",
        [path for path in (args.t2, args.t1, args.template) if path is not None],
        model_use(result.model if args.weights is None else result.weights, result.weights),
        device=result.device,
        options=resolver.options.told(),
        seconds=result.seconds,
        peak_memory_bytes=result.peak_memory_bytes,
        warnings=progress.warnings,
        outputs=list(made.values()),
        precision=result.precision,
        threads=result.threads,
        geometry={"output": result.image},
        synthetic=True,
        hide_names=args.hide_names,
    )
    if not args.hide_names:
        for entry, path in zip(record["Outputs"], made, strict=True):
            entry["Name"] = path.name
    record["Slices"] = None if result.slices is None else result.slices.as_record()
    record["Honesty"] = None if result.honesty is None else _finite(result.honesty.as_record())
    record["Alignment"] = None if result.t2_to_t1 is None else _alignment(args, result)
    return record


def _alignment(args: argparse.Namespace, result: SuperResolutionResult) -> dict[str, Any]:
    """Return how the two scans lie to each other."""
    matrix: Any = result.t2_to_t1
    return {
        "T2wToT1wRasMm": [[round(float(value), 6) for value in row] for row in matrix],
        "Registered": "given" if args.registered else "rigid, by this program",
        "RotationDegrees": round(_rotation_degrees(matrix), 3),
        "HeadOverlap": round(result.overlap or 0.0, 4),
        "MutualInformation": round(result.mutual_information or 0.0, 4),
    }


def _rotation_degrees(matrix: Any) -> float:
    return math.degrees(math.acos(min(max((float(matrix[:3, :3].trace()) - 1) / 2, -1.0), 1.0)))


def _finite(value: Any) -> Any:
    """Return a value in which numbers that JSON lacks (NaN, infinity) are null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tell(
    args: argparse.Namespace,
    result: SuperResolutionResult,
    image: Path,
    made: dict[Path, Path],
    progress: Progress,
) -> None:
    if not args.quiet and args.progress != "json":
        lines = [f"{args.t2.name}: {result.slices.words() if result.slices else 'slices unknown'}"]
        if result.honesty is not None:
            lines.append(f"Check: {result.honesty.words()}")
        lines.append(f"Synthetic 1 mm T2w in {sum(result.seconds.values()):.0f} s -> {image.name}")
        sys.stdout.write("\n".join([*lines, ""]))
    progress.result(
        outputs=[str(path) for path in made] + ([str(args.report)] if args.report else []),
        slices=None if result.slices is None else result.slices.as_record(),
        honesty=None if result.honesty is None else _finite(result.honesty.as_record()),
        model=result.model,
        synthetic=True,
    )
