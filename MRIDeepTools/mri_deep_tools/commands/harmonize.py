"""``mri-deep-tools harmonize``: T1w scans of any site in the style of one reference scanner; one scan or a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CancelledError, MRIDeepToolsError
from ..progress import Progress
from .failures import as_told
from .harmonize_jobs import IMAGES, Job, plan_jobs
from .options import add_common_options
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..harmonize.predict import HarmonizationResult, Harmonizer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="a T1w scan, a DICOM series, a folder of scans, or a table"
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the harmonized scan, or a folder")
    group = parser.add_argument_group("model")
    weights = group.add_mutually_exclusive_group()
    weights.add_argument(
        "--model", metavar="NAME", help="see `mri-deep-tools models list` (default: iguane, or iguane-lite)"
    )
    weights.add_argument(
        "--weights", type=Path, metavar="FILE", help="weights of your own: .h5, .safetensors, or a folder"
    )
    _add_stage_options(parser.add_argument_group("stages"))
    _add_output_options(parser.add_argument_group("outputs"))
    add_common_options(parser)


def _add_stage_options(group: Any) -> None:
    group.add_argument(
        "--preprocessed", action="store_true", help="INPUT went through the published preparation: only harmonize it"
    )
    mask = group.add_mutually_exclusive_group()
    mask.add_argument("--mask", type=Path, metavar="FILE", help="brain mask on the grid of INPUT (default: found)")
    mask.add_argument("--hd-bet", action="store_true", help="find the brain with HD-BET, which must be installed")
    mask.add_argument("--skull-stripped", action="store_true", help="INPUT shows the brain alone, on a background of 0")
    group.add_argument(
        "--no-bias-correction", dest="bias_correction", action="store_false", help="leave the bias field (N4) alone"
    )
    place = group.add_mutually_exclusive_group()
    place.add_argument("--registered", action="store_true", help="INPUT lies in MNI space: do not register it")
    place.add_argument("--transform", type=Path, metavar="FILE", help="rigid ITK transform to use, template to INPUT")
    group.add_argument("--template", type=Path, metavar="FILE", help="brain to register to; fsl = that in $FSLDIR")
    group.add_argument("--age", type=float, metavar="YEARS", help="warn where the model was not made for this age")
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
    group.add_argument("--figures", type=Path, metavar="CSV", help="table of the figures, one row per scan")
    group.add_argument("--hide-names", action="store_true", help="no file names in the records")


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Harmonize the scans that the command line names.

    Raises
    ------
    MRIDeepToolsError : for one scan its own error; for several, at the end, which of them failed.

    """
    from dataclasses import fields

    from ..harmonize.predict import HarmonizeOptions, Harmonizer

    jobs = plan_jobs(args)
    harmonizer = Harmonizer(
        HarmonizeOptions(**{item.name: getattr(args, item.name) for item in fields(HarmonizeOptions)})
    )
    check_outputs(
        [path for job in jobs for path in _files_of(job)] + ([args.figures] if args.figures else []),
        [path for job in jobs for path in _inputs_of(args, job)],
        overwrite=args.overwrite,
    )
    rows: list[dict[str, Any]] = []
    failed = []
    for index, job in enumerate(jobs):
        progress.item(index, len(jobs))
        try:
            rows.append(_one(args, harmonizer, job, progress))
        except KeyboardInterrupt:
            kept = f"the results of {index} of {len(jobs)} scans are complete and are kept"
            raise CancelledError("Cancelled", kept if index else "nothing was written") from None
        except Exception as error:
            told = as_told(error)
            if len(jobs) == 1 or isinstance(error, BrokenPipeError) or told.code in ("weights", "dependency"):
                raise
            failed.append(job.scan.name)
            progress.warn(f"{job.scan.name} failed: {told}")
    if args.figures and rows:
        _write_figures(args.figures, rows)
    if failed:
        names = ", ".join(failed[:5]) + (" and more" if len(failed) > 5 else "")
        raise MRIDeepToolsError(f"{len(failed)} of {len(jobs)} scans failed ({names})", "see the warnings above")


def _one(args: argparse.Namespace, harmonizer: Harmonizer, job: Job, progress: Progress) -> dict[str, Any]:
    """Harmonize one scan, put all its files in place together, and return its row of figures."""
    import numpy as np

    from ..provenance import write_sidecar
    from ..registration import write_transform
    from ..volume import write_volume

    result = harmonizer.harmonize(job.scan, progress, mask=job.mask, age=job.age)
    note = f"SYNTHETIC: harmonized by {result.model}, research use only"[:79]
    images = {"save_preprocessed": result.prepared, "save_mask": result.mask, "change": result.change}
    with progress.stage("write"), OutputSet() as files:
        made = {job.image: files.path(job.image)}
        write_volume(result.image, made[job.image], dtype=np.float32, description=note)
        for name in (name for name in IMAGES if name in job.extra):
            volume, path = images[name], job.extra[name]
            if volume is not None:
                made[path] = files.path(path)
                kind, intent = (np.uint8, "label") if name == "save_mask" else (np.float32, "none")
                write_volume(volume, made[path], dtype=kind, intent=intent, description=_notes(name, result.model))
        if "save_transform" in job.extra and result.registration is not None:
            path = job.extra["save_transform"]
            made[path] = files.path(path)
            write_transform(made[path], result.registration.matrix)
        record = _record(args, harmonizer, job, result, made)
        write_sidecar(files.path(_sidecar(job.image)), record)
        if "report" in job.extra:
            from ..harmonize.report import write_harmonization_report

            write_harmonization_report(files.path(job.extra["report"]), result, record=record)
    report = [job.extra["report"]] if "report" in job.extra else []
    _tell(args, job, result, [*made, *report], progress)
    return _row(job, result)


def _notes(name: str, model: str) -> str:
    return f"SYNTHETIC: change made by {model}, research use only"[:79] if name == "change" else ""


def _files_of(job: Job) -> list[Path]:
    return [job.image, _sidecar(job.image), *job.extra.values()]


def _inputs_of(args: argparse.Namespace, job: Job) -> list[Path]:
    return [path for path in (job.scan, job.mask or args.mask, args.transform, args.template) if path]


def _roles(args: argparse.Namespace, job: Job) -> dict[Path, str]:
    """Return what each input and output is, for the record."""
    read = {job.mask or args.mask: "mask", args.transform: "transform", args.template: "template", job.scan: "scan"}
    made = {path: name.removeprefix("save_") for name, path in job.extra.items()}
    return {path: role for path, role in (read | made | {job.image: "image"}).items() if path}


_COLUMNS = {
    "Mean": "mean change (of 500)",
    "MeanAbsolute": "mean absolute change (of 500)",
    "RootMeanSquare": "root mean square change (of 500)",
    "Largest": "largest change (of 500)",
    "Correlation": "correlation",
    "StructuralSimilarity": "structural similarity",
}
"""Figures of the record as columns of a table; changes are in units of a brain median of 500."""


def _row(job: Job, result: HarmonizationResult) -> dict[str, Any]:
    """Return the figures of one scan as a row of a table."""
    from .segment_tables import subject_name

    row: dict[str, Any] = {"scan": subject_name(job.scan), "model": result.model, "median before": result.median}
    found = {name: value for name, value in result.figures.as_record().items() if not isinstance(value, dict)}
    row |= {_COLUMNS.get(name, name): value for name, value in found.items()}
    if result.registration is not None:
        row |= {"overlap": result.registration.overlap, "template correlation": result.registration.correlation}
    for when, volumes in (result.tissues or {}).items():
        row |= {f"{name} {when.removesuffix('_mm3')} (mm^3)": value for name, value in volumes.items()}
    return {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()}


def _write_figures(path: Path, rows: list[dict[str, Any]]) -> None:
    from .segment_tables import write_csv

    with OutputSet() as files:
        write_csv(files.path(path), rows)


def _record(
    args: argparse.Namespace, harmonizer: Harmonizer, job: Job, result: HarmonizationResult, made: dict[Path, Path]
) -> dict[str, Any]:
    from ..provenance import make_record, model_use

    record = make_record(
        "harmonize",
        [path for path in _inputs_of(args, job) if path.exists()],
        model_use(result.model if args.weights is None else result.weights, result.weights),
        device=result.device,
        options=harmonizer.options.told(),
        seconds=result.seconds,
        peak_memory_bytes=result.peak_memory_bytes,
        warnings=result.warnings,
        outputs=made,
        precision=result.precision,
        threads=result.threads,
        geometry={"output": result.image},
        synthetic=True,
        hide_names=args.hide_names,
        roles=_roles(args, job),
    )
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
        "Scale": round(found.scale, 4),
    }
    return record


def _tell(
    args: argparse.Namespace, job: Job, result: HarmonizationResult, outputs: list[Path], progress: Progress
) -> None:
    if not args.quiet and args.progress != "json":
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
        sys.stdout.write(f"{job.scan.name}: {result.figures.words()} -> {job.image.name}\nStages: {times}\n")
    progress.result(
        scan=job.scan.name,
        outputs=[str(path) for path in outputs],
        change={name: value for name, value in result.figures.as_record().items() if name != "Histogram"},
        stages=result.stages,
        model=result.model,
        synthetic=True,
    )


def _sidecar(image: Path) -> Path:
    from ..provenance import sidecar_path

    return sidecar_path(image)
