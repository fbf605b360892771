"""``mri-deep-tools evaluate dmri``: predicted diffusion volumes against the true ones."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..progress import Progress
from .options import add_common_options
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..dmriupsample.evaluate import DmriEvaluation

__all__ = ["add_action", "run"]

_COLUMNS = ("mae_in", "rmse_in", "percent_in", "mae_out", "rmse_out")
_TENSOR_COLUMNS = ("fa_error", "md_error", "angle_degrees")


def add_action(actions: Any) -> None:
    """Add the action to the parser of ``evaluate``."""
    parser = actions.add_parser("dmri", help="errors of predicted diffusion volumes, and of FA, MD and main direction")
    kinds = "with FSL gradients of its name beside it (.bval, .bvec), a MRtrix table (.b), or a diffusion NRRD"
    parser.add_argument("truth", type=Path, metavar="TRUTH", help=f"true scan, {kinds}")
    parser.add_argument("found", type=Path, metavar="SCAN", help="scan to judge, likewise; matched by direction")
    parser.add_argument("csv", type=Path, metavar="CSV", help="one row per volume, then their mean and tensor errors")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="inside (default: where the true signal is high)")
    for who in ("truth", "found"):
        what = "TRUTH" if who == "truth" else "SCAN"
        for kind in ("bvecs", "bvals", "grad"):
            parser.add_argument(f"--{who}-{kind}", metavar="FILE", help=f"gradients of {what}")
    add_common_options(parser)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Compare two scans.

    Raises
    ------
    MRIDeepToolsError : as :func:`mri_deep_tools.dmriupsample.evaluate.evaluate_scans` says, and for unreadable input.

    """
    from ..dmriupsample.evaluate import evaluate_scans
    from ..dmriupsample.scan import read_scan
    from ..volume import read_volume

    table = args.csv if args.csv.suffix.lower() == ".csv" else args.csv.with_name(f"{args.csv.name}.csv")
    inputs = [path for path in (args.truth, args.found, args.mask) if path is not None]
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path.name} does not exist", "check the path of the input")
    check_outputs([table], inputs, overwrite=args.overwrite)
    progress.plan([("read", 1.0), ("score", 3.0)])
    with progress.stage("read"):
        scans = [
            read_scan(
                getattr(args, who),
                bvecs=getattr(args, f"{who}_bvecs"),
                bvals=getattr(args, f"{who}_bvals"),
                gradients=getattr(args, f"{who}_grad"),
                progress=progress,
            )
            for who in ("truth", "found")
        ]
        mask = None if args.mask is None else read_volume(args.mask, on_warning=progress.warn)
    with progress.stage("score"):
        outcome = evaluate_scans(scans[0], scans[1], mask)
    if outcome.unmatched:
        listed = ", ".join(map(str, outcome.unmatched))
        progress.warn(f"volumes {listed} of {args.found.name} have no counterpart in {args.truth.name}")
    if outcome.note:
        progress.warn(outcome.note)
    _write(outcome, table)
    if not args.quiet and args.progress != "json":
        sys.stdout.write(_summary(outcome))
    means = {name: outcome.mean(name) for name in _COLUMNS}
    tensors = None if outcome.tensors is None else outcome.tensors.as_record()
    finite = {name: value for name, value in means.items() if math.isfinite(value)}
    progress.result(outputs=[table.name], volumes=len(outcome.volumes), **finite, tensors=tensors)


def _write(outcome: DmriEvaluation, table: Path) -> None:
    rows: list[dict[str, Any]] = [row.as_row() for row in outcome.volumes]
    mean: dict[str, Any] = {"volume": "mean"} | {name: outcome.mean(name) for name in _COLUMNS}
    if outcome.tensors is not None:
        values = (outcome.tensors.fa, outcome.tensors.md, outcome.tensors.angle_degrees)
        mean |= dict(zip(_TENSOR_COLUMNS, values, strict=True))
    with OutputSet() as files, files.path(table).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*rows[0], *_TENSOR_COLUMNS], restval="")
        writer.writeheader()
        writer.writerows([*rows, mean])


def _summary(outcome: DmriEvaluation) -> str:
    told = (
        f"{len(outcome.volumes)} volumes: mean absolute error {outcome.mean('mae_in'):.4g} inside the mask "
        f"({outcome.mean('percent_in'):.2f} % of the signal), {outcome.mean('mae_out'):.4g} outside\n"
    )
    if outcome.tensors is not None:
        item = outcome.tensors
        told += f"FA {item.fa:.4f}, MD {item.md:.3e} mm^2/s, main direction {item.angle_degrees:.2f} degrees off\n"
    return told
