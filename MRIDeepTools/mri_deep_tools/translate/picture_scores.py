"""Scores of segmented pictures: Dice, intersection over union and the confusion matrix, per class and picture.

AxonDeepSynth scores axons and myelin in masks of grey levels: each mask is stretched so that its largest value is 255;
axon is above 200, myelin 100 to 200. A mask without axons is stretched as well, so that its myelin counts as axon;
that is kept for ``compatible`` only. By default grey levels are taken as they are, and label maps of the codes 0, 1, 2
as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .handover_data import list_cases
from .pictures import PICTURE_SUFFIXES, read_picture

__all__ = ["AXON_CODES", "PictureScore", "class_masks", "match_pictures", "score_pair", "summary_rows"]

AXON_CODES: Mapping[str, int] = {"myelin": 1, "axon": 2}
"""Codes of the published data sets of nnU-Net."""

_AXON_ABOVE, _MYELIN_FROM, _WHITE = 200, 100, 255
_LARGEST_CODE = 2
MEASURES = ("dice", "iou", "sensitivity", "precision")


@dataclass(frozen=True)
class PictureScore:
    """One class of one picture: pixels that are in both, in the result only, in the truth only, in neither."""

    picture: str
    name: str
    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        """2 |A and B| / (|A| + |B|); NaN where the class is in neither."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """|A and B| / |A or B|; NaN where the class is in neither."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def sensitivity(self) -> float:
        """Share of the true pixels that were found; NaN where there are none."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the found pixels that are true; NaN where none was found."""
        return _ratio(self.tp, self.tp + self.fp)

    def row(self) -> dict[str, Any]:
        """Return the row of the table."""
        counts = {"tp": self.tp, "fp": self.fp, "fn": self.fn, "tn": self.tn}
        return {"image": self.picture, "class": self.name} | {key: getattr(self, key) for key in MEASURES} | counts


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def class_masks(
    picture: NDArray[np.uint8], codes: Mapping[str, int] | None = None, *, compatible: bool = False
) -> dict[str, NDArray[np.bool_]]:
    """Return where each class is.

    Parameters
    ----------
    picture : (H, W) grey levels, or codes of a label map.
    codes : classes by name; None: axon and myelin, from grey levels or from the codes 1 (myelin) and 2 (axon).
    compatible : as published, grey levels stretched by the picture's own maximum.

    Returns
    -------
    Boolean (H, W) arrays by the name of the class.

    """
    if codes is not None:
        return {name: picture == code for name, code in codes.items()}
    largest = int(picture.max(initial=0))
    if not compatible and largest <= _LARGEST_CODE:
        return {name: picture == code for name, code in AXON_CODES.items()}
    levels = picture * (_WHITE / largest) if compatible and largest else picture.astype(np.float64)
    return {"myelin": (levels >= _MYELIN_FROM) & (levels <= _AXON_ABOVE), "axon": levels > _AXON_ABOVE}


def score_pair(
    truth: Path, found: Path, codes: Mapping[str, int] | None = None, *, compatible: bool = False
) -> list[PictureScore]:
    """Score one picture against its truth, class by class.

    Raises
    ------
    InputError : a file cannot be read, or the two differ in size.

    """
    first, second = read_picture(truth, labels=True), read_picture(found, labels=True)
    if first.shape != second.shape:
        raise InputError(
            f"{found.name} has {second.shape[0]}x{second.shape[1]} pixels, "
            f"{truth.name} {first.shape[0]}x{first.shape[1]}",
            "bring both to one size",
        )
    true, made = (class_masks(item, codes, compatible=compatible) for item in (first, second))
    scores = []
    for name, a in true.items():
        b = made[name]
        tp, fp, fn = (int(np.count_nonzero(mask)) for mask in (a & b, ~a & b, a & ~b))
        scores.append(PictureScore(found.name, name, tp, fp, fn, a.size - tp - fp - fn))
    return scores


def match_pictures(truth: Path, found: Path, warn: Callable[[str], None]) -> list[tuple[Path, Path]]:
    """Return pairs of one name, with or without nnU-Net's ``_0000``, or the pair of two files.

    Raises
    ------
    InputError : something is missing, or no names agree.

    """
    if not truth.is_dir() and not found.is_dir():
        return [(truth, found)]
    if not truth.is_dir() or not found.is_dir():
        for path in (truth, found):
            if not path.exists():
                raise InputError(f"{path.name} does not exist", "check the path")
        raise InputError(f"{truth.name} and {found.name} are a folder and a file", "give two folders or two files")
    trues, founds = (
        {case.name: case.files[0] for case in list_cases(path, PICTURE_SUFFIXES)} for path in (truth, found)
    )
    both = sorted(trues.keys() & founds.keys())
    if not both:
        raise InputError(f"no picture of {found.name} has the name of one in {truth.name}", "give both the same names")
    for names, folder in ((trues.keys() - founds.keys(), found), (founds.keys() - trues.keys(), truth)):
        if names:
            warn(f"{folder.name} lacks {len(names)} of the other's pictures, first {sorted(names)[0]}; left out")
    return [(trues[name], founds[name]) for name in both]


def summary_rows(scores: Sequence[PictureScore]) -> list[dict[str, Any]]:
    """Return one row per class: mean and standard deviation (n - 1) over pictures, and the scores of all pixels."""
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(score.name for score in scores):
        own = [score for score in scores if score.name == name]
        row: dict[str, Any] = {"class": name, "images": len(own)}
        for measure in MEASURES:
            values = np.array([getattr(score, measure) for score in own])
            known = values[~np.isnan(values)]
            row[f"{measure}_mean"] = float(known.mean()) if known.size else float("nan")
            row[f"{measure}_sd"] = float(known.std(ddof=1)) if known.size > 1 else float("nan")
        totals = {key: sum(getattr(score, key) for score in own) for key in ("tp", "fp", "fn", "tn")}
        pooled = PictureScore("all", name, **totals)
        rows.append(row | {f"{measure}_pooled": getattr(pooled, measure) for measure in MEASURES} | totals)
    return rows
