"""Pairs for training from a packed file of many sites; see :mod:`.dataset`.

Roca et al., Medical Image Analysis 99 (2025) 103388. Without age ranges, the shuffled images of the reference and of a
source are taken side by side until the shorter list ends, then both are shuffled again. With age ranges, each pair
comes from one range, drawn with the probability of :mod:`.bias_sampling`; every range has endless shuffled streams.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, RequestError
from .augmentation import BACKGROUND, augment
from .bias_sampling import age_groups, sampling_probabilities
from .dataset import Contents, read_contents, read_image
from .losses import masked
from .visits import Pair

__all__ = ["PackedPairs"]

_BLOCK = 4096  # age ranges are drawn in blocks, so that any pair can be reached quickly
_SCORED = 4  # held-out images per site that are scored
_PERCENT = np.arange(1, 100)


@dataclass(frozen=True)
class _Group:
    """Images of the reference and of a source among which pairs are made."""

    ref: np.ndarray
    src: np.ndarray


class PackedPairs:
    """A :class:`~.visits.PairSource` of a packed file.

    Parameters
    ----------
    path : packed file.
    reference : name of the reference site; all others are sources, in the order of their first image.
    seed : of the pairs and of the augmentation.
    age_bins : edges of age ranges; empty for pairs of any ages.
    augmentation : see :mod:`.augmentation`.
    validation : share of the persons kept out of the training.

    Raises
    ------
    InputError : no packed file. RequestError : no such reference, a site without images, ages that do not fit.

    """

    def __init__(
        self,
        path: Path,
        reference: str,
        *,
        seed: int = 1,
        age_bins: Sequence[float] = (),
        augmentation: Literal["kept", "published", "none"] = "kept",
        validation: float = 0.0,
    ) -> None:
        self.contents, self.reference, self.seed = read_contents(path), reference, seed
        self.augmentation = augmentation
        sites = list(dict.fromkeys(self.contents.sites))
        if reference not in sites:
            raise RequestError(
                f"there is no site {reference!r} in {path.name}", f"set 'reference' to one of {', '.join(sites)}"
            )
        if len(sites) < 2:
            raise RequestError("there is no source site beside the reference", "add images of other sites")
        self.names = tuple(site for site in sites if site != reference)
        self.held = _held_out(self.contents, validation, seed)
        self._refs = self._of(reference)
        self._groups: list[list[_Group]] = []
        self._shares: list[np.ndarray | None] = []
        for name in self.names:
            groups, shares = self._grouped(name, list(age_bins))
            self._groups.append(groups)
            self._shares.append(shares)
        at = {(s, p): n for n, (s, p) in enumerate(zip(self.contents.sites, self.contents.subjects, strict=True))}
        self._truth_of = {n: at[reference, p] for (s, p), n in at.items() if (reference, p) in at}
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._file: h5py.File | None = None
        self._owner = 0

    def pair(self, site: int, number: int, visit: int) -> Pair:
        """Return pair ``number`` of a site, augmented each on its own; the truth moves with the source."""
        ref, src = self._numbers(site, number)
        truth = self._truth_of.get(src)
        made = self._image(src, [site, number, 1])
        return Pair(
            self._image(ref, [site, number, 0]),
            made,
            None if truth is None else self._image(truth, [site, number, 1]),
        )

    def traveller(self, site: int, number: int, visit: int) -> Pair:
        """Return a person who was scanned at a site and at the reference site; RequestError when there is none."""
        if site < 0:
            ref = int(self._refs[np.random.default_rng([self.seed, 5, number]).integers(len(self._refs))])
            image = self._image(ref, [0, number, 2])
            return Pair(image, image, image)
        mine = [int(n) for n in self._of(self.names[site]) if int(n) in self._truth_of]
        if not mine:
            raise RequestError(
                f"nobody was scanned at {self.names[site]} and at {self.reference}",
                "fill the column subject, or set paired_visits to 0",
            )
        chosen = mine[int(np.random.default_rng([self.seed, 6, site, number]).integers(len(mine)))]
        truth = self._image(self._truth_of[chosen], [site, number, 2])
        return Pair(truth, self._image(chosen, [site, number, 2]), truth)

    def score(self, universal: Callable[[Tensor], Tensor], visit: int) -> float | None:
        """Return minus how far held-out images stay from the reference style, and from their own anatomy.

        The style is the mean curve of percentiles 1 to 99 of the reference's brains (its held-out ones where there are
        any): the mean absolute difference to it is counted, and 1 minus the correlation with the input image.
        """
        held = {name: np.flatnonzero(self.held & (np.array(self.contents.sites) == name)) for name in self.names}
        if not any(len(numbers) for numbers in held.values()):
            return None
        refs = np.flatnonzero(self.held & (np.array(self.contents.sites) == self.reference))
        refs = (refs if len(refs) else self._refs)[: 4 * _SCORED]
        curves = [_percentiles(self._raw(int(n))) for n in refs]
        wanted, losses = np.mean(curves, axis=0), []
        for numbers in held.values():
            for number in numbers[:_SCORED]:
                image = self._raw(int(number))
                inside, mask = masked(torch.from_numpy(image)[None, None])
                made = np.where(image > BACKGROUND, (universal(inside) * mask)[0, 0].numpy(), BACKGROUND)
                brain = image > BACKGROUND
                style = np.abs(_percentiles(made, brain) - wanted).mean()
                flat = not np.ptp(made[brain]) > 0 or not np.ptp(image[brain]) > 0
                alike = 0.0 if flat else np.corrcoef(made[brain], image[brain])[0, 1]
                losses.append(style + 1 - alike)
        return -float(np.mean(losses))

    def _of(self, site: str) -> np.ndarray:
        found = np.flatnonzero((np.array(self.contents.sites) == site) & ~self.held)
        if not len(found):
            raise RequestError(f"the site {site!r} has no images for training", "give more, or a smaller validation")
        return found

    def _grouped(self, name: str, bins: list[float]) -> tuple[list[_Group], np.ndarray | None]:
        """Return the groups of a source, and their probabilities when there are age ranges."""
        refs, srcs, ages = self._refs, self._of(name), self.contents.ages
        if not bins:
            return [_Group(refs, srcs)], None
        shares = sampling_probabilities(ages[refs], ages[srcs], bins)
        first, second = age_groups(ages[refs], bins), age_groups(ages[srcs], bins)
        return [_Group(refs[first == k], srcs[second == k]) for k in range(len(bins) - 1)], shares / shares.sum()

    def _numbers(self, site: int, number: int) -> tuple[int, int]:
        """Return the images of a pair."""
        shares = self._shares[site]
        if shares is None:
            group, (turn, place) = self._groups[site][0], (0, 0)
            turn, place = divmod(number, min(len(group.ref), len(group.src)))
            orders = [self._order(site, 0, kind, turn, len(v)) for kind, v in enumerate((group.ref, group.src))]
            return int(group.ref[orders[0][place]]), int(group.src[orders[1][place]])
        chosen, before = self._range(site, number, shares)
        group, found = self._groups[site][chosen], []
        for kind, images in enumerate((group.ref, group.src)):
            turn, place = divmod(before, len(images))
            found.append(int(images[self._order(site, chosen, kind, turn, len(images))[place]]))
        return found[0], found[1]

    def _order(self, site: int, group: int, kind: int, turn: int, count: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 1, site, group, kind, turn]).permutation(count)

    def _range(self, site: int, number: int, shares: np.ndarray) -> tuple[int, int]:
        """Return the age range of a pair, and how many pairs before it were of that range."""
        ranges, counts = self._drawn.get(site, (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)))
        while len(ranges) <= number:
            block = np.random.default_rng([self.seed, 2, site, len(ranges) // _BLOCK])
            ranges = np.concatenate([ranges, block.choice(len(shares), size=_BLOCK, p=shares)])
            counts = np.zeros_like(ranges)
            for k in range(len(shares)):
                mine = ranges == k
                counts[mine] = np.arange(mine.sum())
            self._drawn[site] = ranges, counts
        return int(ranges[number]), int(counts[number])

    def _raw(self, number: int) -> np.ndarray:
        if self._file is None or self._owner != os.getpid():  # a worker process needs a file of its own
            self._file, self._owner = h5py.File(self.contents.path, "r"), os.getpid()
        return read_image(self._file, number)

    def _image(self, number: int, key: list[int]) -> Tensor:
        image = self._raw(number)
        if self.augmentation != "none":
            rng = np.random.default_rng([self.seed, 3, *key])
            image = augment(image, rng, compatible=self.augmentation == "published")
        return torch.from_numpy(np.ascontiguousarray(image))


def _held_out(contents: Contents, share: float, seed: int) -> np.ndarray:
    """Return which images are of persons kept for the score, (N,) bool."""
    if not 0 <= share < 1:
        raise RequestError(f"a share of {share:g} of the persons cannot be kept", "set 'validation' to 0 to below 1")
    persons = list(dict.fromkeys(contents.subjects))
    if not persons:
        raise InputError(f"{contents.path.name} holds no images", "pack it again")
    drawn = np.random.default_rng([seed, 4]).permutation(len(persons))[: int(share * len(persons))]
    kept = {persons[index] for index in drawn}
    return np.array([subject in kept for subject in contents.subjects])


def _percentiles(image: np.ndarray, brain: np.ndarray | None = None) -> np.ndarray:
    inside = image[image > BACKGROUND if brain is None else brain]
    return np.asarray(np.percentile(inside, _PERCENT))
