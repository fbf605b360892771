"""Choose the checkpoint of a training that segments held-out scans best.

As in the published work (Billot et al., Medical Image Analysis 86, 2023, 102789): every checkpoint segments every
validation scan, and the epoch with the highest mean Dice score, background excluded, is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, RequestError
from .evaluate import evaluate_pair
from .scores import Evaluation, write_rows

if TYPE_CHECKING:
    from ..progress import Progress
    from ..volume import Volume

__all__ = ["CheckpointScore", "Selection", "epoch_of", "list_checkpoints", "select_checkpoint"]

Predict = Callable[[Path, Path], "Volume"]
"""Called with a checkpoint and an image, gives the label map."""


@dataclass(frozen=True)
class CheckpointScore:
    """How well one checkpoint did: mean Dice over subjects and structures, background excluded, and all scores."""

    checkpoint: Path
    epoch: int
    mean_dice: float
    evaluation: Evaluation


@dataclass(frozen=True)
class Selection:
    """All checkpoints in order of epoch, and the best of them."""

    scores: tuple[CheckpointScore, ...]
    best: CheckpointScore

    def write_csv(self, path: Path) -> Path:
        """Write one row per checkpoint: file name, epoch, mean Dice, whether it was chosen."""
        rows = (
            {
                "checkpoint": score.checkpoint.name,
                "epoch": score.epoch,
                "mean_dice": score.mean_dice,
                "selected": "yes" if score is self.best else "no",
            }
            for score in self.scores
        )
        write_rows(path, rows)
        return path


def epoch_of(checkpoint: Path) -> int:
    """Return the last number in a checkpoint's name (``dice_012.ckpt`` -> 12); RequestError when there is none."""
    numbers = re.findall(r"\d+", checkpoint.name.split(".")[0])
    if not numbers:
        raise RequestError(f"{checkpoint.name}: no epoch number in the name", "name checkpoints like dice_012.ckpt")
    return int(numbers[-1])


def list_checkpoints(folder: Path, *, phase: str = "dice", step: int = 1) -> list[Path]:
    """Return the checkpoints of a training phase in order of epoch, every ``step``-th of them.

    Names begin with the phase and end with the epoch before the suffix: ``dice_001.ckpt``, ``dice_001.h5``.
    """
    if step < 1:
        raise RequestError(f"the step between checkpoints is {step}", "give 1 or more")
    pattern = re.compile(rf"{re.escape(phase)}\D*\d+\.[A-Za-z0-9.]+")
    found = sorted((path for path in folder.glob(f"{phase}*") if pattern.fullmatch(path.name)), key=epoch_of)
    if not found:
        raise InputError(f"{folder.name}: no checkpoint of the phase {phase!r} in this folder", "check the folder")
    return found[::step]


def select_checkpoint(
    checkpoints: Sequence[Path],
    predict: Predict,
    images: Sequence[Path],
    truths: Sequence[Path],
    labels: Sequence[int],
    *,
    compatible: bool = False,
    resample: bool = False,
    csv_path: Path | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Segment every image with every checkpoint and choose the one with the highest mean Dice.

    Parameters
    ----------
    checkpoints :
        Files, see :func:`list_checkpoints`.
    predict :
        Gives the label map, a (X, Y, Z) :class:`Volume`, of an image for a checkpoint. The published
        validation runs it without flip averaging, smoothing or clean-up.
    images, truths :
        Validation scans and their true label maps, parallel.
    labels :
        Codes to score; background (0) may be among them and does not count.
    compatible :
        Published scoring, where a structure absent from truth and prediction counts as 0 instead of not at all.
    resample :
        Allow predictions on another grid than the truth.
    csv_path :
        Table to write, one row per checkpoint.
    progress :
        Receives progress.

    Returns
    -------
    :class:`Selection`; among equals the earliest epoch wins.

    """
    if not checkpoints or not images:
        raise RequestError("nothing to select from", "give at least one checkpoint and one validation scan")
    if len(images) != len(truths):
        raise RequestError(f"{len(images)} images and {len(truths)} true label maps cannot be paired")
    ordered = sorted(checkpoints, key=epoch_of)
    scores = []
    for index, checkpoint in enumerate(ordered):
        if progress is not None:
            progress.item(index, len(ordered))
        evaluation = _evaluate_checkpoint(checkpoint, predict, images, truths, labels, compatible, resample, progress)
        scores.append(CheckpointScore(checkpoint, epoch_of(checkpoint), evaluation.mean("dice"), evaluation))
    known = [score for score in scores if score.mean_dice == score.mean_dice]
    if not known:
        raise InputError("the validation scans hold none of the labels", "check the labels and the true label maps")
    selection = Selection(tuple(scores), max(known, key=lambda score: score.mean_dice))
    if csv_path is not None:
        selection.write_csv(csv_path)
    return selection


def _evaluate_checkpoint(
    checkpoint: Path,
    predict: Predict,
    images: Sequence[Path],
    truths: Sequence[Path],
    labels: Sequence[int],
    compatible: bool,
    resample: bool,
    progress: Progress | None,
) -> Evaluation:
    from ..volume import read_volume

    pairs = []
    for done, (image, truth) in enumerate(zip(images, truths, strict=True)):
        if progress is not None:
            progress.update(done / len(images))
        found, expected = predict(checkpoint, image), read_volume(truth)
        pairs.append(evaluate_pair(expected, found, labels, compatible=compatible, resample=resample, distances=False))
    return Evaluation(tuple(pairs))
