"""Pairs of isotropic T1w and T2w scans for training, their split, and patches with thick slices made on the fly.

Every sample is a function of the seed and of its number, so a training that was stopped goes on with the same samples.
"""

from __future__ import annotations

import csv
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import GeometryError, InputError, RequestError
from ..geometry import resample_to, same_grid
from ..volume import Volume, is_image_path, read_volume, split_suffix
from .guided import guided_start
from .patches import patch_starts
from .preprocess import Scaling, pad_volume, padded_shape
from .simulate import SliceStack, acquire, array_axis, as_trained

__all__ = ["Pair", "PatchSource", "Recipe", "find_pairs", "split_pairs"]


@dataclass(frozen=True)
class Pair:
    """An isotropic T1w and T2w scan of one person on one grid."""

    subject: str
    t1: Path
    t2: Path


@dataclass(frozen=True)
class Recipe:
    """How samples are made; the defaults are the published ones.

    Attributes
    ----------
    directions, factors : thick slices that each pair is given; ``factors`` in voxels, or in mm with ``physical``.
    simulation : ``as-trained`` (published) or ``physical``; see :mod:`.simulate`.
    gap : largest gap between slices as a share of their thickness, drawn evenly from 0 on (``physical`` only).
    order : ``published`` takes all patches of one volume after the other, in an order drawn once; ``random`` mixes
        patches of several volumes, each around a voxel of the head.
    patch, stride : side of the cubes, and the step between them in the published order.
    mix, patches_per_volume : volumes that are drawn from at a time, and patches before the next one (``random``).
    t1_dropout : share of samples without T1w (0 in its place).
    start : what the network is given as T2w, ``interpolated`` or ``guided`` (``physical`` only); see :mod:`.guided`.
    noise : largest Rician noise of the slices as a share of the bright intensities (``physical`` only).
    seed : of all draws.

    """

    directions: tuple[str, ...] = ("axial", "coronal", "sagittal")
    factors: tuple[float, ...] = (2, 3, 4, 5)
    simulation: str = "as-trained"
    gap: float = 0.0
    order: str = "published"
    patch: int = 32
    stride: int = 16
    mix: int = 4
    patches_per_volume: int = 256
    t1_dropout: float = 0.0
    start: str = "interpolated"
    noise: float = 0.0
    seed: int = 1


def find_pairs(place: str | Path) -> list[Pair]:
    """Return the pairs of a table or a folder, sorted by the names of the T2w files.

    Parameters
    ----------
    place : a ``.csv`` or ``.tsv`` file with the columns ``subject`` (optional), ``t1`` and ``t2``, paths relative to
        it; or a folder in which, anywhere below, ``X_T1w`` lies beside ``X_T2w``.

    Raises
    ------
    InputError : nothing is there, or a file is missing.

    """
    place = Path(place)
    if not place.exists():
        raise InputError(f"{place.name} does not exist", "name a table or a folder of pairs")
    pairs = _from_folder(place) if place.is_dir() else _from_table(place)
    if not pairs:
        raise InputError(f"{place.name} holds no pairs of T1w and T2w scans", "name files X_T1w and X_T2w")
    for path in (path for pair in pairs for path in (pair.t1, pair.t2)):
        if not path.exists():
            raise InputError(f"{path.name}, named in {place.name}, does not exist", "correct the table")
    return sorted(pairs, key=lambda pair: pair.t2.name)


def _from_folder(folder: Path) -> list[Pair]:
    pairs = []
    for t2 in folder.rglob("*_T2w.*"):
        stem, suffix = split_suffix(t2)
        t1 = t2.with_name(f"{stem.removesuffix('_T2w')}_T1w{suffix}")
        if is_image_path(t2) and t1.exists():
            pairs.append(Pair(_subject(stem), t1, t2))
    return pairs


def _from_table(table: Path) -> list[Pair]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t" if table.suffix.lower() == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"{table.name} cannot be read as a table", "write CSV in UTF-8") from None
    if rows and not {"t1", "t2"} <= set(rows[0]):
        raise InputError(f"{table.name} lacks the columns t1 and t2", "write subject,t1,t2 into its first line")
    return [
        Pair(row.get("subject") or _subject(Path(row["t2"]).name), table.parent / row["t1"], table.parent / row["t2"])
        for row in rows
    ]


def _subject(name: str) -> str:
    found = re.search(r"sub-([A-Za-z0-9]+)", name)
    return found[1] if found else split_suffix(name)[0]


def split_pairs(
    pairs: Sequence[Pair], train: float, validation: float, by: str = "subject"
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Return training, validation and test pairs: the first, the next and the last of the sorted list.

    Parameters
    ----------
    train, validation : shares; the published ones are 0.70 and 0.15.
    by : ``subject`` keeps all scans of a person together; ``file`` is the published split.

    Raises
    ------
    RequestError : shares that leave no training data, or another way to split.

    """
    if by not in ("subject", "file"):
        raise RequestError(f"pairs cannot be split by {by!r}", "use subject or file")
    keys = [pair.subject if by == "subject" else str(index) for index, pair in enumerate(pairs)]
    unique = list(dict.fromkeys(keys))
    first, second = int(train * len(unique)), int(round(train + validation, 9) * len(unique))
    parts = unique[:first], unique[first:second], unique[second:]
    if not parts[0]:
        raise RequestError(f"{len(unique)} {by}s leave none for training", "give more data or a larger share")
    found = [[pair for pair, key in zip(pairs, keys, strict=True) if key in set(part)] for part in parts]
    return found[0], found[1], found[2]


class PatchSource:
    """Samples by number: (input (2, P, P, P), target (1, P, P, P)) float32.

    Parameters
    ----------
    pairs : isotropic scans; each is used with every direction and factor of the recipe.
    recipe : how samples are made.

    """

    def __init__(self, pairs: Sequence[Pair], recipe: Recipe) -> None:
        self.pairs, self.recipe = list(pairs), recipe
        self.volumes = [
            (index, direction, factor)
            for index in range(len(self.pairs))
            for direction in recipe.directions
            for factor in recipe.factors
        ]
        self._order = np.random.default_rng([recipe.seed, 0]).permutation(len(self.volumes))
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._shapes: list[tuple[int, int, int]] | None = None
        self._ends: np.ndarray | None = None
        self._heads: dict[tuple[int, int], np.ndarray] = {}

    def padded_shapes(self) -> list[tuple[int, int, int]]:
        """Return the padded grid size of each pair; reads every T2w scan once."""
        if self._shapes is None:
            self._shapes = [padded_shape(read_volume(pair.t2).shape3, *self._cube()) for pair in self.pairs]
        return self._shapes

    def padded_shape(self) -> tuple[int, int, int]:
        """Return the largest padded grid."""
        x, y, z = (max(sides) for sides in zip(*self.padded_shapes(), strict=True))
        return x, y, z

    def patches_per_epoch(self) -> int:
        """Return the number of patches of all volumes, empty ones included, as published."""
        counts = [len(patch_starts(shape, *self._cube())) for shape in self.padded_shapes()]
        return sum(counts) * len(self.recipe.directions) * len(self.recipe.factors)

    def _cube(self) -> tuple[int, int]:
        return self.recipe.patch, self.recipe.stride

    def _varies(self) -> bool:
        """Say whether the slices of a volume are drawn anew at every visit."""
        return bool(self.recipe.gap or self.recipe.noise)

    def sample(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return sample ``number`` (from 0, without end)."""
        stack, start, rng = self._ordered(number) if self.recipe.order == "published" else self._drawn(number)
        x, y, z = start
        side = self.recipe.patch
        cube = stack[:, x : x + side, y : y + side, z : z + side].copy()
        if self.recipe.t1_dropout and rng.random() < self.recipe.t1_dropout:
            cube[0], cube[1] = 0, cube[-1]
        return cube[:2], cube[2:3]

    def _ordered(self, number: int) -> tuple[np.ndarray, tuple[int, int, int], np.random.Generator]:
        """Return volume, patch and draws in the published order; an epoch takes every patch of every volume once."""
        if self._ends is None:
            counts = [len(patch_starts(shape, *self._cube())) for shape in self.padded_shapes()]
            self._ends = np.cumsum([counts[self.volumes[volume][0]] for volume in self._order])
        place = number % int(self._ends[-1])
        visit = int(np.searchsorted(self._ends, place, side="right"))
        stack = self._stack(int(self._order[visit]), 0)
        starts = patch_starts(stack.shape[1:], *self._cube())
        start = starts[place - (int(self._ends[visit - 1]) if visit else 0)]
        return stack, start, np.random.default_rng([self.recipe.seed, 1, number])

    def _drawn(self, number: int) -> tuple[np.ndarray, tuple[int, int, int], np.random.Generator]:
        """Return volume, patch and draws of the random order."""
        recipe = self.recipe
        slot, turn = number % recipe.mix, number // recipe.mix
        visit = turn // recipe.patches_per_volume * recipe.mix + slot
        volume = int(np.random.default_rng([recipe.seed, 2, visit]).integers(len(self.volumes)))
        stack = self._stack(volume, visit)
        rng = np.random.default_rng([recipe.seed, 3, number])
        head = self._heads[volume, visit if self._varies() else 0]
        centre = np.unravel_index(int(head[rng.integers(len(head))]), stack.shape[1:])
        corner = [
            int(np.clip(int(c) - rng.integers(recipe.patch), 0, n - recipe.patch))
            for c, n in zip(centre, stack.shape[1:], strict=True)
        ]
        return stack, (corner[0], corner[1], corner[2]), rng

    def _stack(self, volume: int, visit: int) -> np.ndarray:
        """Return T1w, T2w to begin with, isotropic T2w, and the second without help of the first; (4, X, Y, Z) float32.

        All are padded and on 0..1.
        """
        key = (volume, visit if self._varies() else 0)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        index, direction, factor = self.volumes[volume]
        pair = self.pairs[index]
        t1, t2 = read_volume(pair.t1), read_volume(pair.t2)
        if not same_grid(t1, t2):
            raise GeometryError(f"{pair.t1.name} and {pair.t2.name} do not lie on one grid", "register them first")
        begun, alone = self._begun(t2, t1, direction, factor, key[1])
        padded = [pad_volume(scan, *self._cube())[0].data for scan in (t1, begun, t2, alone)]
        names = pair.t1.name, *[pair.t2.name] * 3
        scalings = [Scaling.of(data, name) for data, name in zip(padded, names, strict=True)]
        if self.recipe.start == "guided":
            scalings[2] = scalings[1]  # what is to be added to the estimate must not depend on the truth's range
        stack = np.stack([scaling.apply(data) for scaling, data in zip(scalings, padded, strict=True)])
        stack = stack.astype(np.float32)
        self._cache[key] = stack
        self._heads[key] = np.flatnonzero(stack[2] > 0)
        while len(self._cache) > max(self.recipe.mix, 1):
            gone, _ = self._cache.popitem(last=False)
            self._heads.pop(gone, None)
        return stack

    def _begun(self, t2: Volume, t1: Volume, direction: str, factor: float, visit: int) -> tuple[Volume, Volume]:
        """Return the thick-slice scan on the grid of the isotropic one, with the help of the T1w and without it."""
        axis, recipe = array_axis(t2, direction), self.recipe
        if recipe.simulation == "as-trained":
            thick = t2.with_data(as_trained(t2.data, axis, int(factor)))
            return thick, thick
        rng = np.random.default_rng([recipe.seed, 4, visit])
        share, noise = rng.random() * recipe.gap, rng.random() * recipe.noise
        stack = SliceStack(axis, float(factor), float(factor) * (1 + share))
        slices = acquire(t2, stack, noise=noise, seed=int(rng.integers(1 << 31)))
        thick = resample_to(slices, t2.shape3, t2.affine, order=3)
        if recipe.start == "interpolated":
            return thick, thick
        alone = guided_start(thick, slices, axis, float(factor), None) if recipe.t1_dropout else thick
        return guided_start(thick, slices, axis, float(factor), t1), alone
