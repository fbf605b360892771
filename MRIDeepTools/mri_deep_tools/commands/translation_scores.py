"""``mri-deep-tools evaluate translation``: PSNR, SSIM and L1 of translated scans or pictures against true ones."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GeometryError, InputError, RequestError
from ..progress import Progress
from .options import add_common_options
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    import numpy as np

__all__ = ["add_action", "run"]

RULES = ("mean", "max", "none")
SCORES = ("psnr_db", "ssim", "l1")
_UNITS = {"mean": "mean of the image", "max": "largest value of the image", "none": "data range"}
_MAPPING = "translated_to_original_paths.json"


def add_action(actions: Any) -> None:
    """Add the action to those of ``evaluate``."""
    scores = actions.add_parser("translation", help="PSNR, SSIM and L1 of translated scans or pictures")
    scores.add_argument("truth", type=Path, metavar="TRUTH", help="true scan or picture, or a folder of them")
    scores.add_argument("found", type=Path, metavar="TRANSLATED", help="translated one, or folder, on the same grid")
    scores.add_argument("csv", type=Path, metavar="CSV", help="one row per pair, then mean and standard deviation")
    scores.add_argument(
        "--divide-by",
        choices=RULES,
        help="what both are divided by before they are compared: their own mean (as in SynDiff's training; its peak is "
        "the largest value of the truth), their own largest value (as in its test), or none (as AxonDeepSynth does "
        "with pictures, whose data range is 255); default: mean for scans, none for pictures",
    )
    scores.add_argument("--data-range", type=float, metavar="X", help="largest possible difference, with none")
    scores.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="of scans: voxels of the masked scores (default: above a tenth of the truth's 99.9th percentile)",
    )
    add_common_options(scores)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Score all pairs and write the table.

    Raises
    ------
    MRIDeepToolsError : unreadable files, sizes or grids that differ, a table that cannot be written.

    """
    table = args.csv if args.csv.suffix.lower() == ".csv" else args.csv.with_name(f"{args.csv.name}.csv")
    pictures = _are_pictures(args)
    rule = args.divide_by or ("none" if pictures else "mean")
    _check(args, rule, pictures)
    pairs = _picture_pairs(args, progress) if pictures else _scan_pairs(args, progress)
    check_outputs([table], [args.truth, args.found], overwrite=args.overwrite)
    progress.plan([("score", 1.0)])
    rows: list[dict[str, Any]] = []
    for index, (truth, found) in enumerate(pairs):
        progress.item(index, len(pairs))
        with progress.stage("score"):
            score = _picture_scores if pictures else _scan_scores
            rows.append({"name": found.name, **score(args, rule, truth, found, progress)})
    unit = "grey value range" if pictures and rule == "none" else _UNITS[rule]
    _write(table, rows, unit)
    means = {key: _mean([row[key] for row in rows]) for key in rows[0] if key.startswith(SCORES)}
    if not args.quiet and args.progress != "json":
        sys.stdout.write(
            f"{len(rows)} pairs: PSNR {means['psnr_db']:.2f} dB, SSIM {means['ssim']:.4f}, L1 {means['l1']:.4g} "
            f"(unit: {unit})\n"
        )
    progress.result(outputs=[table.name], **{key: value for key, value in means.items() if math.isfinite(value)})


def _check(args: argparse.Namespace, rule: str, pictures: bool) -> None:
    """Refuse options that contradict one another."""
    if args.data_range is not None and rule != "none":
        raise RequestError(f"--data-range does not go with division by the {rule}", "add --divide-by none")
    if args.data_range is not None and not (math.isfinite(args.data_range) and args.data_range > 0):
        raise RequestError(f"the data range must be positive, not {args.data_range:g}")
    if rule == "none" and args.data_range is None and not pictures:
        raise RequestError("scans that are compared as they are need a data range", "give --data-range")
    if args.mask is not None and pictures:
        raise RequestError("--mask is for scans", "leave it out")
    if args.mask is not None and not args.mask.exists():
        raise InputError(f"{args.mask.name} does not exist", "check the path of the mask")


# ------------------------------------------------------------------------------------------------------------ the pairs


def _are_pictures(args: argparse.Namespace) -> bool:
    """Say whether pictures are compared; both sides must be of one kind."""
    from ..translate.pictures import is_picture_path, list_pictures
    from ..volume import list_images

    kinds = []
    for path in (args.truth, args.found):
        if not path.exists():
            raise InputError(f"{path.name} does not exist", "give two files, or two folders")
        listed = path.is_dir() and bool(list_pictures(path)) and not list_images(path)
        kinds.append(listed or (path.is_file() and is_picture_path(path)))
    if kinds[0] != kinds[1]:
        raise RequestError(f"{args.truth.name} and {args.found.name} are not of one kind", "give scans or pictures")
    return kinds[0]


def _scan_pairs(args: argparse.Namespace, progress: Progress) -> list[tuple[Path, Path]]:
    from ..synthsegment.evaluate import match_files

    return match_files(args.truth, args.found, on_warning=progress.warn)


def _picture_pairs(args: argparse.Namespace, progress: Progress) -> list[tuple[Path, Path]]:
    """Match pictures by name, or by the names of the originals that a translation wrote down beside its pictures."""
    from ..translate.pictures import list_pictures

    if not args.truth.is_dir() and not args.found.is_dir():
        return [(args.truth, args.found)]
    if not (args.truth.is_dir() and args.found.is_dir()):
        raise RequestError("one input is a folder and the other a file", "give two files or two folders")
    truths = {path.stem: path for path in list_pictures(args.truth)}
    originals = _originals(args.found / _MAPPING)
    pairs = []
    found = list_pictures(args.found)
    for path in found:
        truth = truths.get(path.stem) or truths.get(originals.get(path.name, ""))
        if truth is not None:
            pairs.append((truth, path))
    if not pairs:
        raise InputError("no picture has the name of one in the other folder", "give pairs the same name")
    if len(pairs) < max(len(found), len(truths)):
        progress.warn(f"{len(found) + len(truths) - 2 * len(pairs)} pictures have no partner and were left out")
    return pairs


def _originals(path: Path) -> dict[str, str]:
    """Return the stem of the original of each translated picture, where that was written down."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {Path(new).name: Path(old).stem for new, old in found.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path.name} cannot be read", "remove it, or translate again") from error


# ----------------------------------------------------------------------------------------------------------- the scores


def _picture_scores(
    args: argparse.Namespace, rule: str, truth: Path, found: Path, progress: Progress
) -> dict[str, float]:
    import numpy as np

    from ..superresolve.metrics import psnr
    from ..translate.metrics import ssim_2d
    from ..translate.pictures import read_picture

    real, fake = (read_picture(p, on_warning=progress.warn).astype(np.float64) for p in (truth, found))
    if real.shape != fake.shape:
        sizes = [f"{image.shape[1]} x {image.shape[0]}" for image in (real, fake)]
        raise InputError(f"{truth.name} has {sizes[0]} pixels, {found.name} {sizes[1]}", "bring them to one size")
    a, b, peak = _scaled(real, fake, rule, args.data_range or 255.0, (truth.name, found.name))
    mse = float(np.mean((a - b) ** 2))
    return {"psnr_db": psnr(mse, peak), "ssim": ssim_2d(a, b, peak), "l1": float(np.abs(a - b).mean())}


def _scan_scores(args: argparse.Namespace, rule: str, truth: Path, found: Path, progress: Progress) -> dict[str, float]:
    import numpy as np

    from ..geometry import same_grid
    from ..superresolve.metrics import similarity
    from ..translate.volumes import foreground
    from ..volume import read_volume

    real = read_volume(truth, on_warning=progress.warn)
    fake = read_volume(found, on_warning=progress.warn)
    mask = None if args.mask is None else read_volume(args.mask, on_warning=progress.warn)
    for other, name in ((fake, found.name), (mask, args.mask and args.mask.name)):
        if other is not None and not same_grid(real, other):
            raise GeometryError(f"{name} does not lie on the grid of {truth.name}", "resample it first")
    inside = foreground(real.data) if mask is None else mask.data > 0  # the air of a real scan is not 0
    names = (truth.name, found.name)
    a, b, peak = _scaled(
        real.data.astype(np.float64), fake.data.astype(np.float64), rule, args.data_range or 1.0, names
    )
    row: dict[str, float] = {}
    for ending, region in (("", None), ("_masked", inside)):
        score = similarity(a, b, data_range=peak, mask=region)
        difference = np.abs(a - b)
        row |= {f"psnr_db{ending}": score.psnr, f"ssim{ending}": score.ssim}
        row[f"l1{ending}"] = float((difference if region is None else difference[region]).mean())
    return row


def _scaled(
    real: np.ndarray, fake: np.ndarray, rule: str, data_range: float, names: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return both images in the unit of the rule, and the peak of PSNR and SSIM in that unit."""
    if rule == "none":
        return real / data_range, fake / data_range, 1.0
    sizes = [float(image.mean() if rule == "mean" else image.max()) for image in (real, fake)]
    for size, name in zip(sizes, names, strict=True):
        if not size > 0:
            raise InputError(f"the {rule} of {name} is {size:g}; it cannot be divided by it", "use --divide-by none")
    a, b = real / sizes[0], fake / sizes[1]
    return a, b, float((a if rule == "mean" else b).max())


# ------------------------------------------------------------------------------------------------------------ the table


def _write(table: Path, rows: list[dict[str, Any]], unit: str) -> None:
    """Write the rows with their unit, then mean and standard deviation."""
    columns = [key for key in rows[0] if key != "name"]
    found = [
        *rows,
        *(
            {"name": name, **{key: rule([row[key] for row in rows]) for key in columns}}
            for name, rule in (("mean", _mean), ("std", _std))
        ),
    ]
    with OutputSet() as files, files.path(table).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["name", *columns, "l1_unit"])
        writer.writeheader()
        writer.writerows({**row, "l1_unit": unit} for row in found)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


def _std(values: list[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values)) if math.isfinite(mean) else math.nan
