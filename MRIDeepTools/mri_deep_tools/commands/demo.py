"""``mri-deep-tools demo``: every task on sample data with bundled models, and a page that shows the results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import Progress
from .demo_tasks import TASKS
from .options import add_common_options
from .outputs import OutputSet, check_outputs
from .segment_jobs import Job, Plan

if TYPE_CHECKING:
    from ..report import Section
    from ..synthsegment.predict import SegmentationResult
    from ..volume import Volume

__all__ = ["add_arguments", "run"]

THICKNESS_MM = 5
NAMES = {
    "icbm152_T1w": "T1-weighted template of 152 adults, 1 mm",
    "icbm152_desc-simulated_T2w": f"The same brain with turned-round contrast and {THICKNESS_MM} mm slices, simulated",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("output", type=Path, metavar="OUTPUT_DIR", help="folder for the results; made if need be")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--model", metavar="NAME", help="segmentation model (default: synthseg-lite, the bundled one)")
    weights.add_argument("--weights", metavar="PATH", help="weights of your own")
    add_common_options(parser)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Make the sample scans, segment them, and write pictures and the report.

    Raises
    ------
    MRIDeepToolsError : a missing extra or model, an output that exists or cannot be written.

    """
    from ..models import model_status
    from ..synthsegment.predict import Segmenter
    from .segment_run import Batch

    folder: Path = args.output
    jobs = [
        Job(folder / f"{name}.nii.gz", folder / f"{name}_dseg.nii.gz", volumes=folder / "volumes.csv") for name in NAMES
    ]
    pictures = [folder / f"{name}_overlay.png" for name in NAMES]
    report = folder / "report.html"
    tasks = [task for task in TASKS if model_status(task.model) == "bundled"]
    pages = [folder / task.folder / "report.html" for task in tasks]
    check_outputs([*(job.scan for job in jobs), *pictures, report, *pages], [], overwrite=args.overwrite)
    segmenter = Segmenter(
        model=None if args.weights else args.model or "synthseg-lite",
        weights=args.weights,
        compatible=args.compatible,
        device=args.device,
        threads=args.threads,
        precision=args.precision,
    )
    scans = _write_scans([job.scan for job in jobs])
    results: list[SegmentationResult] = []
    batch = Batch(
        Plan(tuple(jobs), shared_tables=True),
        segmenter,
        progress,
        options={"model": args.model or "synthseg-lite", "parcellation": False},
        on_result=results.append,
    )
    batch.check(overwrite=args.overwrite)
    batch.run()
    more = [section for task in tasks for section in task.run(folder / task.folder, args, progress)]
    with OutputSet() as files:
        drawn = [
            _draw(scan, result, files.path(path)) for scan, result, path in zip(scans, results, pictures, strict=True)
        ]
        record = json.loads(jobs[0].labels.with_name(f"{next(iter(NAMES))}_dseg.json").read_text(encoding="utf-8"))
        _write_page(files.path(report), results, drawn, record, more)
    if not args.quiet and args.progress != "json":
        sys.stdout.write(f"{_volumes_text(results)}\nThe report is {report}\n")
    progress.result(outputs=[str(path) for path in (*(job.labels for job in jobs), *pictures, report, *pages)])


def _write_scans(paths: Sequence[Path]) -> list[Volume]:
    """Make the sample scans and write them."""
    from ..sample_scans import template_scan, thick_slices, without_t1_contrast
    from ..volume import write_volume

    template = template_scan()
    scans = [template, thick_slices(without_t1_contrast(template), THICKNESS_MM)]
    with OutputSet() as files:
        for path, scan in zip(paths, scans, strict=True):
            write_volume(scan, files.path(path), description="ICBM 152 2009 (C) L. Collins, McGill")
    return scans


def _draw(scan: Volume, result: SegmentationResult, path: Path) -> Path:
    from ..overlay import overlay_png

    synthetic = scan.spacing[2] != 1.0
    return overlay_png(scan, result.labels, path, title=list(NAMES.values())[synthetic], synthetic=synthetic)


def _write_page(
    path: Path,
    results: Sequence[SegmentationResult],
    pictures: Sequence[Path],
    record: dict[str, Any],
    more: Sequence[Section],
) -> None:
    from ..report import Picture, Text, write_report
    from ..synthsegment.report import volume_tables

    sections: list[Section] = [
        Text(
            "Segmentation",
            [
                "A template brain was segmented twice: as it is, and as a scan of another contrast with thick slices "
                "that was simulated from it. No scan of a patient is involved. The same network did both, without "
                "being told what it sees.",
                "Volumes of the two should agree; thick slices blur small structures.",
            ],
        )
    ]
    for title, result, picture in zip(NAMES.values(), results, pictures, strict=True):
        alt = "Axial, coronal and sagittal slices with the segmented structures in colour."
        sections.append(Picture(title, picture, alt, f"{sum(result.seconds.values()):.0f} s on {result.device}"))
    sections.append(_comparison(results))
    sections += more
    sections += volume_tables(results[0].volumes_mm3)
    write_report(
        path, title="MRI Deep Tools: demonstration", subtitle=results[0].model, sections=sections, record=record
    )


def _comparison(results: Sequence[SegmentationResult]) -> Section:
    """Return the table of both volumes of each structure and their difference."""
    from ..report import Column, Table

    first, second = (result.volumes_mm3 for result in results)
    rows: list[list[Any]] = []
    for name, volume in first.items():
        change = 100 * (second[name] - volume) / volume if volume else None
        rows.append([name, volume / 1000, second[name] / 1000, change])
    columns = [
        Column("Structure"),
        Column("1 mm", "ml", digits=2),
        Column("thick slices", "ml", digits=2),
        Column("Difference", "%", digits=1),
    ]
    return Table("Volumes of both scans", columns, rows)


def _volumes_text(results: Sequence[SegmentationResult]) -> str:
    """Return the volumes of both scans as a table for the terminal."""
    first, second = (result.volumes_mm3 for result in results)
    width = max(map(len, first))
    lines = [f"{name:<{width}}  {volume / 1000:9.2f}  {second[name] / 1000:12.2f}" for name, volume in first.items()]
    return "\n".join([f"{'volume in ml':<{width}}  {'1 mm':>9}  {'thick slices':>12}", *lines])
