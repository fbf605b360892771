"""Pairs of images of two contrasts for training and validation, each a function of the seed and of its number.

Özbey et al., arXiv 2207.08208, and the loader of AxonDeepSynth: an epoch has as many items as the larger contrast has
images; item i shows image i mod n of each contrast, in an order that is drawn anew for every epoch; a random square is
cut out of each image and turned over with probability 1/2 along each axis. Where ours differs, ``compatible`` gives
the original:

* images of a pair share order, square and flips when ``paired`` (the original draws them separately, so that its pairs
  do not match);
* validation shows the square in the middle in a fixed order (the original: a random one, in a random order);
* smaller images are padded, slices of scans with background and pictures with their mirror image (the original stops).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError, RequestError
from .dataset_sources import ImageSource, open_images, require_contrasts
from .tiles import centre_crop

__all__ = ["ContrastPairs"]

_BACKGROUND = -1.0


class ContrastPairs(Dataset[tuple[Tensor, Tensor]]):
    """Images of two contrasts, (1, S, S) float32 in [-1, 1] each.

    Parameters
    ----------
    source : an open set, or a path for :func:`open_images`.
    contrasts : names of contrast 1 and 2.
    size : side S of the square in pixels.
    training : random squares, flips and order; otherwise the square in the middle in the order of the file.
    split : train, val or test, when ``source`` is a folder.
    paired : image k of both contrasts shows the same.
    flips : whether images are turned over in training. None: pictures are, as in AxonDeepSynth; slices of scans are
        not, as in SynDiff.
    seed : of all draws.
    compatible : the published rules.
    on_warning : receives a message when images must be padded.

    Attributes
    ----------
    epoch : number of the epoch that ``self[i]`` gives, from 0; see :meth:`set_epoch`.

    Raises
    ------
    InputError : a set that cannot be read, that lacks a contrast, or whose contrasts do not match when ``paired``.
    RequestError : names that are equal, or a side below 1.

    """

    def __init__(
        self,
        source: ImageSource | str | Path,
        contrasts: Sequence[str],
        size: int,
        *,
        training: bool = True,
        split: str = "train",
        paired: bool = False,
        flips: bool | None = None,
        seed: int = 1,
        compatible: bool = False,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self.contrasts = require_contrasts(contrasts)
        if size < 1:
            raise RequestError(f"images must have at least 1 pixel, not {size}")
        if isinstance(source, (str, Path)):
            source = open_images(source, self.contrasts, split=split)
        self.source = source
        self.size, self.training, self.paired = size, training, paired
        self.seed, self.compatible, self.epoch = seed, compatible, 0
        self._orders = [(-1, np.empty(0, dtype=np.intp))] * 2
        self.counts = tuple(len(self.source.shapes(name)) for name in self.contrasts)
        self.facts = {name: self.source.facts(name) for name in self.contrasts}
        slices = any(facts.get("slice_axis") for facts in self.facts.values())
        self.flips = training and (not slices if flips is None else flips)
        if paired and self.counts[0] != self.counts[1]:
            raise InputError(
                f"{self.source.name} has {self.counts[0]} images of {self.contrasts[0]} and {self.counts[1]} of "
                f"{self.contrasts[1]}, which are no pairs",
                "train without pairs, or make a set of pairs",
            )
        for name in self.contrasts:
            self._tell_of_small_images(name, on_warning or (lambda message: None))

    def __len__(self) -> int:
        """Return the number of items of an epoch."""
        return max(self.counts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return item ``index`` of the epoch that is set; IndexError beyond its end, which ends a plain loop."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.sample(self.epoch * len(self) + index)

    def model_facts(self) -> dict[str, Any]:
        """Return what a model that is trained with these images must say of them in its ``model.json``.

        The names are those of :class:`.weights.ModelFacts`: contrasts, image_size, rule, region,
        constants, in_plane_spacing_mm and slice_axis. Pictures have the rule ``bytes``.
        """
        first = self.facts[self.contrasts[0]]
        found = {"contrasts": list(self.contrasts), "image_size": self.size, "rule": first.get("rule", "bytes")}
        found["region"] = first.get("region", "volume")
        constants = {name: facts["constant"] for name, facts in self.facts.items() if "constant" in facts}
        spacing, axis = first.get("in_plane_spacing_mm"), first.get("slice_axis")
        return found | {"constants": constants, "in_plane_spacing_mm": spacing, "slice_axis": axis}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that ``self[i]`` gives."""
        self.epoch = epoch

    def sample(self, number: int) -> tuple[Tensor, Tensor]:
        """Return item ``number`` of all epochs, counted from 0: the same on every machine, in any order."""
        epoch, index = divmod(number, len(self))
        shared = self._draws(epoch, index, 0)
        images = []
        for k, name in enumerate(self.contrasts):
            image = self.source.image(name, self._order(epoch, k)[index % self.counts[k]])
            together = self.paired and not self.compatible
            images.append(self._square(image, name, shared if together else self._draws(epoch, index, k)))
        return images[0], images[1]

    def _draws(self, epoch: int, index: int, contrast: int) -> np.ndarray:
        """Return four numbers in [0, 1): row, column, and the two flips."""
        return np.random.default_rng((self.seed, 1, epoch, index, contrast)).random(4)

    def _order(self, epoch: int, contrast: int) -> np.ndarray:
        """Return the order of a contrast's images in an epoch; the last one is kept."""
        shuffled = not self.paired if self.compatible else self.training
        if not shuffled:
            return np.arange(self.counts[contrast])
        if self._orders[contrast][0] != epoch:
            stream = 0 if self.paired else contrast
            draws = np.random.default_rng((self.seed, 2, epoch, stream))
            self._orders[contrast] = (epoch, draws.permutation(self.counts[contrast]))
        return self._orders[contrast][1]

    def _square(self, image: np.ndarray, name: str, draws: np.ndarray) -> Tensor:
        """Cut the square out of an image, padded where it is too small, and turn it over."""
        size = (self.size, self.size)
        image = self._padded(image, name)
        if self.training or self.compatible:
            start = [int(draw * (n - self.size + 1)) for draw, n in zip(draws, image.shape, strict=False)]
            square = centre_crop(image, size, start)
        else:
            square = centre_crop(image, size)
        if self.flips:
            square = square[:: -1 if draws[2] < 0.5 else 1, :: -1 if draws[3] < 0.5 else 1]
        return torch.from_numpy(np.ascontiguousarray(square))[None]

    def _padded(self, image: np.ndarray, name: str) -> np.ndarray:
        """Add margins around an image that is smaller than the square; of an odd margin the larger half comes after."""
        margins = [max(self.size - n, 0) for n in image.shape]
        if not any(margins):
            return image
        width = [(margin // 2, margin - margin // 2) for margin in margins]
        if self.facts[name].get("slice_axis"):
            return np.pad(image, width, constant_values=_BACKGROUND)
        return np.pad(image, width, mode="symmetric")

    def _tell_of_small_images(self, name: str, warn: Callable[[str], None]) -> None:
        shapes = self.source.shapes(name)
        small = sum(min(shape) < self.size for shape in shapes)
        if not small:
            return
        what = f"{small} of {len(shapes)} images of {name} in {self.source.name} are smaller than {self.size} pixels"
        if self.compatible:
            raise InputError(what, "choose a smaller size, or leave --compatible out, so that they are padded")
        margin = "background" if self.facts[name].get("slice_axis") else "their mirror image"
        warn(f"{what}; they are padded with {margin}")
