"""``mri-deep-tools evaluate similarity``: MSE, PSNR, SSIM and NRMSE of volumes against the truth."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GeometryError, InputError
from ..progress import Progress
from .options import add_common_options
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    import numpy as np

    from ..superresolve.metrics import Similarity
    from ..volume import Volume

__all__ = ["add_action", "run"]

SCORES = ("mse", "psnr", "ssim", "nrmse")


def add_action(actions: Any) -> None:
    """Add the action to those of ``evaluate``."""
    scores = actions.add_parser("similarity", help="MSE, PSNR, SSIM and NRMSE of volumes against the truth")
    scores.add_argument("truth", type=Path, metavar="TRUTH", help="true scan, or a folder of them")
    scores.add_argument("found", type=Path, metavar="SCAN", help="scan or folder to judge, on the grids of the truth")
    scores.add_argument("csv", type=Path, metavar="CSV", help="one row per pair, then mean and standard deviation")
    scores.add_argument("--mask", type=Path, metavar="FILE", help="count these voxels in the masked scores, too")
    scores.add_argument(
        "--data-range",
        type=float,
        metavar="X",
        help="largest possible difference; intensities are then compared as they are (default: each scan is scaled "
        "to 0..1 by its own 1st and 99th percentile, as published, and the data range is 1)",
    )
    add_common_options(scores)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Score all pairs and write the table.

    Raises
    ------
    MRIDeepToolsError : unreadable scans, grids that differ, a table that cannot be written.

    """
    from ..superresolve.metrics import mean_similarity
    from ..synthsegment.evaluate import match_files
    from ..volume import read_volume

    table = args.csv if args.csv.suffix.lower() == ".csv" else args.csv.with_name(f"{args.csv.name}.csv")
    pairs = match_files(args.truth, args.found, on_warning=progress.warn)
    if args.mask is not None and not args.mask.exists():
        raise InputError(f"{args.mask.name} does not exist", "check the path of the mask")
    check_outputs([table], [args.truth, args.found], overwrite=args.overwrite)
    mask = None if args.mask is None else read_volume(args.mask, on_warning=progress.warn)
    rows, whole, inner = [], [], []
    progress.plan([("score", 1.0)])
    for index, (truth, found) in enumerate(pairs):
        progress.item(index, len(pairs))
        with progress.stage("score"):
            score, masked = _score(args, truth, found, mask, progress)
        rows.append({"name": found.name} | _row(score, masked))
        whole.append(score)
        inner.append(masked)
    for name in ("mean", "std"):
        columns = [key for key in rows[0] if key not in ("name", "data_range")]
        summary = {key: _summary(name, [row[key] for row in rows[: len(pairs)]]) for key in columns}
        rows.append({"name": name, "data_range": rows[0]["data_range"], **summary})
    with OutputSet() as files, files.path(table).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    means = mean_similarity(whole)
    if not args.quiet and args.progress != "json":
        sys.stdout.write(
            f"{len(pairs)} pairs: PSNR {means['psnr']:.2f} dB, SSIM {means['ssim']:.4f}, NRMSE {means['nrmse']:.4f} "
            f"(data range {whole[0].data_range:g}); within the mask PSNR {mean_similarity(inner)['psnr']:.2f} dB\n"
        )
    progress.result(outputs=[table.name], **{key: value for key, value in means.items() if math.isfinite(value)})


def _summary(name: str, values: list[float]) -> float:
    import numpy as np

    with np.errstate(invalid="ignore"):
        return float(np.mean(values) if name == "mean" else np.std(values))


def _row(score: Similarity, masked: Similarity) -> dict[str, Any]:
    row: dict[str, Any] = {"data_range": score.data_range}
    row |= {key: getattr(score, key) for key in SCORES}
    return row | {f"{key}_masked": getattr(masked, key) for key in SCORES}


def _score(
    args: argparse.Namespace, truth_path: Path, found_path: Path, mask: Volume | None, progress: Progress
) -> tuple[Similarity, Similarity]:
    """Return the scores of one pair over all voxels, and within the mask (default: where the truth is above 0)."""
    from ..geometry import same_grid
    from ..superresolve.metrics import similarity
    from ..volume import read_volume

    truth = read_volume(truth_path, on_warning=progress.warn)
    found = read_volume(found_path, on_warning=progress.warn)
    for other in (found, *([mask] if mask is not None else [])):
        if not same_grid(truth, other):
            raise GeometryError(
                f"{other.source.file_name} does not lie on the grid of {truth_path.name}", "resample it first"
            )
    inside = (truth.data if mask is None else mask.data) > 0
    if args.data_range is not None:
        a, b, data_range = truth.data, found.data, float(args.data_range)
    else:
        a, b, inside, data_range = *_scaled(args, truth, found, inside), 1.0
    whole = similarity(a, b, data_range=data_range)
    return whole, similarity(a, b, data_range=data_range, mask=inside)


def _scaled(
    args: argparse.Namespace, truth: Volume, found: Volume, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale both scans by their own percentiles; with ``--compatible`` with the published margins around them."""
    from ..superresolve.preprocess import Scaling, pad_volume

    if args.compatible:
        truth, found = pad_volume(truth)[0], pad_volume(found)[0]
        inside = pad_volume(truth.with_affine(inside, truth.affine))[0].data
    a, b = (Scaling.of(volume.data, volume.source.file_name).apply(volume.data) for volume in (truth, found))
    return a, b, inside
