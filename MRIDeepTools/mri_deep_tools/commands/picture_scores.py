"""``mri-deep-tools evaluate image-segmentation``: Dice, IoU and confusion matrix of segmented pictures."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..progress import Progress
from .options import add_common_options
from .outputs import OutputSet, check_outputs

__all__ = ["add_action", "run"]

_SHOWN = ("dice_mean", "dice_sd", "iou_mean", "dice_pooled")


def add_action(actions: Any) -> None:
    """Add the action to those of ``evaluate``."""
    scores = actions.add_parser(
        "image-segmentation",
        help="Dice, IoU and confusion matrix of segmented pictures (PNG, TIFF, BMP)",
        epilog="Without --labels, axon and myelin are scored: in grey masks axon is above 200 and myelin 100 to 200, "
        "in label maps myelin is 1 and axon 2. With --compatible each mask is stretched to 255 first, as published.",
    )
    scores.add_argument("truth", type=Path, metavar="TRUTH", help="true mask, or a folder of them")
    scores.add_argument("found", type=Path, metavar="SEGMENTATION", help="mask to judge, or a folder of the same names")
    scores.add_argument("csv", type=Path, metavar="CSV", help="one row per picture and class; *_summary.csv beside it")
    scores.add_argument(
        "--labels", nargs="+", metavar="NAME=CODE", help="classes of label maps, as in --labels myelin=1 axon=2"
    )
    add_common_options(scores)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Score all pairs and write the two tables.

    Raises
    ------
    MRIDeepToolsError : unreadable pictures, sizes that differ, tables that cannot be written.

    """
    from ..synthsegment.scores import write_rows
    from ..translate.picture_scores import match_pictures, score_pair, summary_rows

    table = args.csv if args.csv.suffix.lower() == ".csv" else args.csv.with_name(f"{args.csv.name}.csv")
    summary = table.with_name(f"{table.stem}_summary.csv")
    codes = _codes(args.labels) if args.labels else None
    if codes is not None and args.compatible:
        raise RequestError("--labels and --compatible exclude each other", "leave one out")
    pairs = match_pictures(args.truth, args.found, progress.warn)
    check_outputs([table, summary], [args.truth, args.found], overwrite=args.overwrite)
    scores = []
    with progress.stage("score"):
        for index, (truth, found) in enumerate(pairs):
            scores += score_pair(truth, found, codes, compatible=args.compatible)
            progress.update((index + 1) / len(pairs))
    rows = summary_rows(scores)
    with OutputSet() as files:
        write_rows(files.path(table), (score.row() for score in scores))
        write_rows(files.path(summary), rows)
    if not args.quiet and args.progress != "json":
        sys.stdout.write(_shown(rows))
    progress.result(
        outputs=[table.name, summary.name],
        dice={row["class"]: row["dice_mean"] if math.isfinite(row["dice_mean"]) else None for row in rows},
    )


def _codes(words: list[str]) -> dict[str, int]:
    codes: dict[str, int] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name or not (text.isascii() and text.isdigit()) or name in codes:
            raise RequestError(f"--labels {word} is not a new NAME=CODE", "write for instance --labels myelin=1 axon=2")
        codes[name] = int(text)
    return codes


def _shown(rows: list[dict[str, Any]]) -> str:
    width = max(len("class"), *(len(row["class"]) for row in rows))
    lines = [f"{'class':<{width}}" + "".join(f"{key.replace('_', ' '):>13}" for key in _SHOWN)]
    lines += [f"{row['class']:<{width}}" + "".join(f"{row[key]:>13.4f}" for key in _SHOWN) for row in rows]
    return "\n".join([*lines, ""])
