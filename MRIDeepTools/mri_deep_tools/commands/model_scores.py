"""``mri-deep-tools evaluate translation-model``: a model on images that it has not seen, against truth or by cycles."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..progress import Progress
from .options import add_common_options, positive
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..translate.model_scores import ModelScore

__all__ = ["add_action", "run"]

COLUMNS = ("psnr_db", "ssim", "l1")


def add_action(actions: Any) -> None:
    """Add the action to those of ``evaluate``."""
    scores = actions.add_parser("translation-model", help="PSNR, SSIM and L1 of a translation model on a set of images")
    scores.add_argument("weights", metavar="MODEL", help="model folder, or name of a model")
    scores.add_argument("data", type=Path, metavar="SET", help="set of `translate-dataset`, or folder of its parts")
    scores.add_argument("csv", type=Path, metavar="CSV", help="one row per image, then mean and standard deviation")
    scores.add_argument("--part", choices=("train", "val", "test"), default="test", help="of a folder (default: test)")
    scores.add_argument(
        "--paired",
        action="store_true",
        help="image k of both contrasts shows the same: compare with the truth (default: there and back again)",
    )
    scores.add_argument("--number", type=positive, metavar="N", help="of each contrast the first N images only")
    scores.add_argument("--epoch", type=int, metavar="E", help="of the model (default: what it names, else the last)")
    scores.add_argument("--seed", type=int, default=42, help="of the translation (default: 42)")
    add_common_options(scores)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Translate the images and write the table.

    Raises
    ------
    MRIDeepToolsError : a model or a set that cannot be used, a table that cannot be written.

    """
    from ..inference import pick_device, pick_precision, set_threads
    from ..translate.model_scores import ModelJudge

    table = args.csv if args.csv.suffix.lower() == ".csv" else args.csv.with_name(f"{args.csv.name}.csv")
    if not args.data.exists():
        raise InputError(f"{args.data.name} does not exist", "give a set of `translate-dataset`")
    device = pick_device(args.device)
    threads = set_threads(args.threads)
    judge = ModelJudge(
        args.weights,
        args.data,
        split=args.part,
        paired=args.paired,
        seed=args.seed,
        epoch=args.epoch,
        device=device,
        dtype=pick_precision(args.precision, device),
    )
    check_outputs([table], [args.data], overwrite=args.overwrite)
    progress.device(str(device), threads=threads)
    progress.plan([("score", 1.0)])
    found: list[ModelScore] = []
    total = sum(min(args.number or count, count) for count in judge.pairs.counts)
    with progress.stage("score"):
        for score in judge.scores(args.number):
            found.append(score)
            progress.update(len(found) / total)
    means = _write(table, found)
    if not args.quiet and args.progress != "json":
        for way, mean in means.items():
            sys.stdout.write(
                f"{way}: PSNR {mean['psnr_db']:.2f} dB, SSIM {mean['ssim']:.4f}, L1 {mean['l1']:.4f} of the range\n"
            )
    finite = {
        f"{way}_{key}": value for way, mean in means.items() for key, value in mean.items() if math.isfinite(value)
    }
    progress.result(outputs=[table.name], **finite)


def _write(table: Path, found: list[ModelScore]) -> dict[str, dict[str, float]]:
    """Write all rows, then mean and standard deviation of each way; return the means."""
    rows: list[dict[str, Any]] = []
    for item in found:
        values = (item.scores.psnr, item.scores.ssim, item.scores.l1)
        names = {"way": item.way, "image": item.number, "subject": item.subject}
        rows.append(names | dict(zip(COLUMNS, values, strict=True)))
    means: dict[str, dict[str, float]] = {}
    summary: list[dict[str, Any]] = []
    for way in dict.fromkeys(item.way for item in found):
        chosen = [row for row in rows if row["way"] == way]
        means[way] = {key: _mean([row[key] for row in chosen]) for key in COLUMNS}
        spread = {key: _std([row[key] for row in chosen]) for key in COLUMNS}
        summary.append({"way": way, "image": "mean", "subject": "", **means[way]})
        summary.append({"way": way, "image": "std", "subject": "", **spread})
    with OutputSet() as files, files.path(table).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["way", "image", "subject", *COLUMNS])
        writer.writeheader()
        writer.writerows(rows + summary)
    return means


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


def _std(values: list[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values)) if math.isfinite(mean) else math.nan
