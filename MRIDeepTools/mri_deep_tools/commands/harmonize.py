"""``mri-deep-tools harmonize``: T1w scans of any site in the style of one reference scanner; one scan or a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CancelledError, InputError, MRIDeepToolsError, RequestError
from ..progress import Progress
from .failures import as_told
from .options import add_common_options
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..harmonize.predict import HarmonizationResult, Harmonizer

__all__ = ["add_arguments", "run"]

_IMAGES = ("save_preprocessed", "save_mask", "change")
_ENDING = "_desc-harmonized"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("input", type=Path, metavar="INPUT", help="a T1w scan, a DICOM series, or a folder of scans")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the harmonized scan, or a folder")
    group = parser.add_argument_group("model")
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--model", metavar="NAME", help="see `mri-deep-tools models list` (default: iguane)")
    weights.add_argument("--weights", type=Path, metavar="FILE", help="weights of your own (.h5 or .safetensors)")
    _add_stage_options(parser.add_argument_group("stages"))
    _add_output_options(parser.add_argument_group("outputs"))
    add_common_options(parser)


def _add_stage_options(group: Any) -> None:
    group.add_argument(
        "--preprocessed", action="store_true", help="INPUT went through the published preparation: only harmonize it"
    )
    mask = group.add_mutually_exclusive_group()
    mask.add_argument("--mask", type=Path, metavar="FILE", help="brain mask on the grid of INPUT (default: found)")
    mask.add_argument("--skull-stripped", action="store_true", help="INPUT shows the brain alone, on a background of 0")
    group.add_argument(
        "--no-bias-correction", dest="bias_correction", action="store_false", help="leave the bias field (N4) alone"
    )
    place = group.add_mutually_exclusive_group()
    place.add_argument("--registered", action="store_true", help="INPUT lies in MNI space: do not register it")
    place.add_argument("--transform", type=Path, metavar="FILE", help="rigid ITK transform to use, template to INPUT")
    group.add_argument("--template", type=Path, metavar="FILE", help="brain to register to (default: ICBM 152 2009a)")
    group.add_argument(
        "--unchecked", action="store_true", help="warn only, where registration or contrast are implausible"
    )


def _add_output_options(group: Any) -> None:
    group.add_argument("--space", choices=("native", "template"), default="native", help="(default: native)")
    group.add_argument(
        "--keep-head", action="store_true", help="put the brain back into its head, mixed over 3 mm inside its border"
    )
    group.add_argument("--save-preprocessed", type=Path, metavar="FILE", help="what the network was given")
    group.add_argument("--save-mask", type=Path, metavar="FILE", help="the brain mask, on the grid of INPUT")
    group.add_argument("--save-transform", type=Path, metavar="FILE", help="template to INPUT, for ITK and 3D Slicer")
    group.add_argument("--change", type=Path, metavar="FILE", help="map of result minus normalised INPUT")
    group.add_argument("--tissues", action="store_true", help="compare tissue volumes before and after")
    group.add_argument("--report", type=Path, metavar="HTML", help="a page with pictures, histograms and provenance")
    group.add_argument("--hide-names", action="store_true", help="no file names in the records")


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Harmonize the scans that the command line names.

    Raises
    ------
    MRIDeepToolsError : for one scan its own error; for several, at the end, which of them failed.

    """
    from dataclasses import fields

    from ..harmonize.predict import HarmonizeOptions, Harmonizer

    jobs = _jobs(args)
    extra = _extra_outputs(args, many=len(jobs) > 1)
    harmonizer = Harmonizer(
        HarmonizeOptions(**{item.name: getattr(args, item.name) for item in fields(HarmonizeOptions)})
    )
    inputs = [scan for scan, _ in jobs] + [path for path in (args.mask, args.transform, args.template) if path]
    check_outputs(
        [path for _, image in jobs for path in (image, _sidecar(image))] + list(extra.values()),
        inputs,
        overwrite=args.overwrite,
    )
    failed = []
    for index, (scan, image) in enumerate(jobs):
        progress.item(index, len(jobs))
        try:
            _one(args, harmonizer, scan, image, extra, progress)
        except KeyboardInterrupt:
            kept = f"the results of {index} of {len(jobs)} scans are complete and are kept"
            raise CancelledError("Cancelled", kept if index else "nothing was written") from None
        except Exception as error:
            told = as_told(error)
            if len(jobs) == 1 or isinstance(error, BrokenPipeError) or told.code in ("weights", "dependency"):
                raise
            failed.append(scan.name)
            progress.warn(f"{scan.name} failed: {told}")
    if failed:
        names = ", ".join(failed[:5]) + (" and more" if len(failed) > 5 else "")
        raise MRIDeepToolsError(f"{len(failed)} of {len(jobs)} scans failed ({names})", "see the warnings above")


def _jobs(args: argparse.Namespace) -> list[tuple[Path, Path]]:
    """Return pairs of scan and result; a folder with images is a folder of scans, else one DICOM series."""
    from ..volume import SUFFIXES, is_image_path, list_images, split_suffix

    scan, output = args.input, args.output
    if not scan.exists():
        raise InputError(f"{scan.name} does not exist", "check the path of the input")
    scans = list_images(scan) if scan.is_dir() else []
    if not scans:
        if is_image_path(output) and not output.is_dir():
            return [(scan, output)]
        if output.suffix and not output.is_dir():
            known = ", ".join(SUFFIXES)
            raise RequestError(f"OUTPUT {output.name} does not end in an image suffix", f"use one of {known}")
        return [(scan, output / _name(scan))]
    if is_image_path(output) and not output.is_dir():
        raise RequestError(f"INPUT is a folder of scans, so OUTPUT must be one too, not {output.name}", "name a folder")
    fresh = [path for path in scans if not split_suffix(path)[0].replace("_T1w", "").endswith(_ENDING)]
    return [(path, output / _name(path)) for path in fresh]


def _name(scan: Path) -> str:
    from ..volume import split_suffix

    stem, suffix = (scan.resolve().name, ".nii.gz") if scan.is_dir() else split_suffix(scan)
    tail = "_T1w" if stem.endswith("_T1w") else ""
    return f"{stem.removesuffix('_T1w')}{_ENDING}{tail}{suffix or '.nii.gz'}"


def _extra_outputs(args: argparse.Namespace, *, many: bool) -> dict[str, Path]:
    """Return the files asked for beside the result, after a look at their names."""
    from ..registration import TRANSFORM_SUFFIXES
    from ..volume import SUFFIXES, is_image_path

    names = (*_IMAGES, "save_transform", "report")
    extra = {name: path for name in names if (path := getattr(args, name)) is not None}
    for name, path in extra.items():
        option = f"--{name.replace('_', '-')}"
        if many or (args.preprocessed and name in ("save_mask", "save_transform")):
            why = "INPUT is a folder of scans" if many else "a preprocessed image has none"
            raise RequestError(f"{option} cannot be written: {why}", "leave it out")
        allowed = {"save_transform": TRANSFORM_SUFFIXES, "report": (".html", ".htm")}.get(name)
        fits = is_image_path(path) if allowed is None else path.suffix.lower() in allowed
        if not fits:
            raise RequestError(f"{option} {path.name} has the wrong suffix", f"use {', '.join(allowed or SUFFIXES)}")
    return extra


def _one(
    args: argparse.Namespace,
    harmonizer: Harmonizer,
    scan: Path,
    image: Path,
    extra: dict[str, Path],
    progress: Progress,
) -> None:
    """Harmonize one scan and put all its files in place together."""
    import numpy as np

    from ..provenance import write_sidecar
    from ..registration import write_transform
    from ..volume import write_volume

    result = harmonizer.harmonize(scan, progress)
    note = f"MRI Deep Tools {result.model} harmonized"[:79]
    images = {"save_preprocessed": result.prepared, "save_mask": result.mask, "change": result.change}
    with progress.stage("write"), OutputSet() as files:
        made = {image: files.path(image)}
        write_volume(result.image, made[image], dtype=np.float32, description=note)
        for name in (name for name in _IMAGES if name in extra):
            volume = images[name]
            if volume is not None:
                made[extra[name]] = files.path(extra[name])
                kind, intent = (np.uint8, "label") if name == "save_mask" else (np.float32, "none")
                write_volume(volume, made[extra[name]], dtype=kind, intent=intent)
        if "save_transform" in extra and result.registration is not None:
            made[extra["save_transform"]] = files.path(extra["save_transform"])
            write_transform(made[extra["save_transform"]], result.registration.matrix)
        record = _record(args, harmonizer, scan, result, made)
        write_sidecar(files.path(_sidecar(image)), record)
        if args.report is not None:
            from ..harmonize.report import write_harmonization_report

            write_harmonization_report(files.path(args.report), result, record=record)
    _tell(args, scan, image, result, [*made, *([args.report] if args.report else [])], progress)


def _record(
    args: argparse.Namespace, harmonizer: Harmonizer, scan: Path, result: HarmonizationResult, made: dict[Path, Path]
) -> dict[str, Any]:
    from ..provenance import make_record, model_use

    given = [path for path in (args.mask, args.transform, args.template) if path]
    record = make_record(
        "harmonize",
        [scan, *given],
        model_use(result.model if args.weights is None else result.weights, result.weights),
        device=result.device,
        options=harmonizer.options.told(),
        seconds=result.seconds,
        peak_memory_bytes=result.peak_memory_bytes,
        warnings=result.warnings,
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
    record["Stages"] = result.stages
    record["BrainMedianBefore"] = result.median
    record["Change"] = result.figures.as_record()
    record["TissueVolumes"] = result.tissues
    found = result.registration
    record["Registration"] = found and {
        "TemplateToScanRasMm": [[round(float(value), 6) for value in row] for row in found.matrix],
        "RotationDegrees": round(found.rotation_degrees, 3),
        "TranslationMm": round(found.translation_mm, 3),
        "Correlation": round(found.correlation, 4),
        "MutualInformation": round(found.mutual_information, 4),
        "Overlap": round(found.overlap, 4),
    }
    return record


def _tell(
    args: argparse.Namespace,
    scan: Path,
    image: Path,
    result: HarmonizationResult,
    outputs: list[Path],
    progress: Progress,
) -> None:
    if not args.quiet and args.progress != "json":
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
        sys.stdout.write(f"{scan.name}: {result.figures.words()} -> {image.name}\nStages: {times}\n")
    progress.result(
        scan=scan.name,
        outputs=[str(path) for path in outputs],
        change={name: value for name, value in result.figures.as_record().items() if name != "Histogram"},
        stages=result.stages,
        model=result.model,
        synthetic=True,
    )


def _sidecar(image: Path) -> Path:
    from ..provenance import sidecar_path

    return sidecar_path(image)
