"""How good a model is on images that it has not seen: its translations against the truth, or its cycles.

With pairs, each contrast is translated and compared with the true image (AxonDeepSynth's 1_2 and 2_1). Without pairs,
each is translated there and back and compared with itself (1_2_1 and 2_1_2), which says less: what is wrong in
between may be undone on the way back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, RequestError
from .dataset import ContrastPairs
from .engine import TranslationEngine
from .metrics import ImageScores, grey_scores
from .weights import load_direction, load_facts, model_folder

__all__ = ["ModelJudge", "ModelScore"]


@dataclass(frozen=True)
class ModelScore:
    """Scores of one image: which way it was taken, as ``T1_T2`` or ``T1_T2_T1``, its number, and whose it is."""

    way: str
    number: int
    subject: str
    scores: ImageScores


class ModelJudge:
    """A model's generators and a set that it is judged on.

    Parameters
    ----------
    model : a model folder, or the name of a model of the list.
    data : an HDF5 set, or a folder of sets.
    split : train, val or test, when ``data`` is a folder.
    paired : image k of both contrasts shows the same, so that translations have a truth; otherwise cycles are judged.
    seed : of all draws, which are the same for the same seed.
    epoch : of the model; None takes what its ``model.json`` names, else the last.
    device, dtype : where and how the generators run.

    Raises
    ------
    InputError : the set cannot be read, lacks a contrast, or its images are larger than a square of the model's size.
    WeightsError : the model lacks a direction.

    """

    def __init__(
        self,
        model: str | Path,
        data: str | Path,
        *,
        split: str = "test",
        paired: bool = False,
        seed: int = 42,
        epoch: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.contrasts = load_facts(model_folder(model)).contrasts
        directions = [load_direction(model, name, epoch) for name in self.contrasts]
        size = int(directions[0].info["image_size"])
        self.pairs = ContrastPairs(data, self.contrasts, size, training=False, split=split, paired=paired)
        self.paired, self.seed = paired, seed
        self._to = {way.target: TranslationEngine(way, device, dtype) for way in directions}

    def __len__(self) -> int:
        """Return the number of scores."""
        return sum(self.pairs.counts)

    def scores(self, count: int | None = None) -> Iterator[ModelScore]:
        """Yield the scores of every image, or of the first ``count`` of each contrast.

        Raises
        ------
        RequestError : ``count`` is below 1. InputError : images of one pair have no contrast at all.

        """
        if count is not None and count < 1:
            raise RequestError(f"{count} images cannot be judged", "judge 1 or more")
        for k, source in enumerate(self.contrasts):
            target = self.contrasts[1 - k]
            subjects = self.pairs.source.subjects(source)
            way = f"{source}_{target}" if self.paired else f"{source}_{target}_{source}"
            draws = torch.Generator().manual_seed(self.seed)
            for number in range(min(count or self.pairs.counts[k], self.pairs.counts[k])):
                images = self.pairs.sample(number)
                made = self._to[target].run(images[k][None], draws)
                truth = images[1 - k]
                if not self.paired:
                    made, truth = self._to[source].run(made, draws), images[k]
                yield ModelScore(way, number, subjects[number], grey_scores(_array(truth), _array(made[0])))


def _array(image: Tensor) -> np.ndarray:
    values = image.detach().cpu().float().numpy()
    if not np.isfinite(values).all():
        raise InputError("the model makes values that are not finite", "choose another epoch, or --precision fp32")
    return values
