"""Examples for training by number, so that a run that was stopped goes on with the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ..errors import InputError, RequestError
from ..progress import Progress
from .directions import max_min_order
from .packing import PackOptions, pack_subjects
from .shells import XMAX
from .signals import rician
from .subjects import find_subjects
from .voxels import Example, VoxelRecipe, draw_example

if TYPE_CHECKING:
    from .train import DmriTrainingConfig

__all__ = ["Batch", "PackedSource", "SimulatedSource", "Source"]


@dataclass(frozen=True)
class Batch:
    """Examples: (B, q_in, x, y, z), (B, q_in, 3), (B, q_out, 3), (B, q_out, x, y, z), float32."""

    images: torch.Tensor
    bvecs_in: torch.Tensor
    bvecs_out: torch.Tensor
    target: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        parts = (self.images, self.bvecs_in, self.bvecs_out, self.target)
        return Batch(*(part.to(device, non_blocking=True) for part in parts))


class Source(Protocol):
    """Where examples come from; each is a function of the seed and its number."""

    @property
    def kinds(self) -> list[int]:
        """Numbers of measured directions that occur."""

    def share(self, size: int) -> None:
        """Take ``size`` as the number of examples of a batch, all processes together."""

    def __len__(self) -> int:
        """Return the number of examples of an epoch; 0: there is no end."""

    def batch(self, numbers: list[int]) -> Batch:
        """Return the examples with these numbers (from 0, without end)."""

    def groups(self, size: int, limit: int = 0) -> list[list[int]]:
        """Return the numbers of an epoch, or of its first ``limit`` examples, in batches."""


class SimulatedSource:
    """Voxels drawn as a recipe says; all examples of a batch have the same number of measured directions."""

    def __init__(self, recipe: VoxelRecipe, seed: int, size: int) -> None:
        if not recipe.directions or min(recipe.directions) < 1 or recipe.targets < 1 or recipe.voxels < 1:
            raise RequestError("a simulated example needs directions, targets and voxels", "set them to 1 or more")
        if len(recipe.snr) != 2 or not 0 < recipe.snr[0] <= recipe.snr[1]:
            raise RequestError("snr is not two numbers above 0, smallest first", "set simulation.snr")
        if min(recipe.white, recipe.grey, recipe.fluid) < 0 or recipe.white + recipe.grey + recipe.fluid > 1:
            raise RequestError(
                "the shares of tissues do not fit together", "let white, grey and fluid sum to 1 or less"
            )
        self.recipe, self.seed, self.size = recipe, seed, size

    @classmethod
    def pair(cls, config: DmriTrainingConfig) -> tuple[SimulatedSource, SimulatedSource]:
        """Return the sources of training and validation; their draws have nothing in common."""
        return cls(config.simulation, config.run.seed, config.batch), cls(config.simulation, -1, config.batch)

    def share(self, size: int) -> None:
        """Let ``size`` examples after each other have the same number of measured directions."""
        self.size = size

    @property
    def kinds(self) -> list[int]:
        """Numbers of measured directions that occur."""
        return sorted(set(self.recipe.directions))

    def __len__(self) -> int:
        """Return 0: there is no end."""
        return 0

    def batch(self, numbers: list[int]) -> Batch:
        """Return examples; the first number decides how many directions they have."""
        kinds = self.recipe.directions
        key = [self.seed] if self.seed >= 0 else [0, 1]
        first = np.random.default_rng([*key, 1, numbers[0] // self.size])
        count = int(first.choice(kinds)) if self.seed >= 0 else kinds[numbers[0] // self.size % len(kinds)]
        return _batch([draw_example(self.recipe, np.random.default_rng([*key, 2, n]), count) for n in numbers])

    def groups(self, size: int, limit: int = 0) -> list[list[int]]:
        """Return the numbers of the validation examples, in batches of one kind."""
        count = max(1, (limit or 128) // self.size)
        return [list(range(k * self.size, (k + 1) * self.size)) for k in range(count)]


def _batch(examples: list[Example]) -> Batch:
    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(example, name) for example in examples]))

    images, target = (stacked(name)[..., None, None] for name in ("context", "target"))
    return Batch(images, stacked("bvecs_in"), stacked("bvecs_out"), target)


@dataclass(frozen=True)
class Recipe:
    """How examples are made from packed subjects; the defaults are those of a published training.

    Attributes
    ----------
    shells : joined in this order.
    measured, wanted : sizes of the two sets of directions.
    percentile : scale by the 99th percentile of part and shell, not by :data:`.shells.XMAX`.
    reorder, random_starts : see :func:`.directions.max_min_order`; without ``reorder`` the order is that of the file.
    shuffle : mix the examples of an epoch.
    sign_flips, noise : augmentation; share of directions turned round, largest deviation of noise in scaled units.
    seed : of all draws.

    """

    shells: tuple[int, ...]
    measured: int
    wanted: int
    percentile: bool = False
    reorder: bool = True
    random_starts: bool = True
    shuffle: bool = True
    sign_flips: float = 0.0
    noise: float = 0.0
    seed: int = 1


@dataclass(frozen=True)
class _Run:
    """Consecutive examples: the patches of one part and shell, each with all its sets of directions."""

    part: str
    shell: int
    patches: int
    sets: int

    def __len__(self) -> int:
        return self.patches * self.sets


class PackedSource:
    """Examples from a packed file (:mod:`.packing`): part after part, shell, patch, set of directions.

    Raises
    ------
    InputError : the file cannot be read, or its parts have too few directions for one set.

    """

    def __init__(self, path: str | Path, recipe: Recipe, subjects: Sequence[str] | None = None) -> None:
        self.path, self.recipe = Path(path), recipe
        self._file: Any = None
        self.runs = [
            _Run(name, shell, *self._size(group, shell))
            for name, group in self._opened().items()
            if subjects is None or str(group.attrs["subject"]) in subjects
            for shell in recipe.shells
        ]
        self._ends = np.cumsum([len(run) for run in self.runs])
        if not self.runs or not self._ends[-1]:
            need = recipe.measured + recipe.wanted
            raise InputError(f"no subject has {need} directions on a shell", "lower measured or wanted")

    @classmethod
    def pair(cls, config: DmriTrainingConfig, progress: Progress) -> tuple[PackedSource, PackedSource | None]:
        """Return the sources of training and validation, packing the subjects if need be."""
        place = Path(config.data)
        options = PackOptions(
            tuple(config.shells),
            config.tolerance,
            patches=config.dims == 3 or config.norm == "instance",
            frame=config.frame,
            crop=config.crop,
            cut=config.octants,
        )
        if place.suffix.lower() not in (".h5", ".hdf5"):
            place = pack_subjects(find_subjects(place), options, Path(config.run.output) / "packed.h5", progress)
        names = subjects_of(place)
        held = _held_out(names, config.validation, config.validation_share)
        kept = [name for name in names if name not in held]
        if not kept:
            raise RequestError("no subjects are left for training", "keep fewer for validation")
        recipe = Recipe(
            shells=tuple(config.shells),
            measured=config.measured,
            wanted=config.wanted,
            percentile=config.scaling == "percentile",
            **{n: getattr(config, n) for n in ("reorder", "random_starts", "shuffle", "sign_flips", "noise")},
            seed=config.run.seed,
        )
        still = Recipe(recipe.shells, recipe.measured, recipe.wanted, recipe.percentile, reorder=False, shuffle=False)
        return cls(place, recipe, kept), cls(place, still, held) if held else None

    def share(self, size: int) -> None:
        """Change nothing: an example does not depend on its batch."""

    @property
    def kinds(self) -> list[int]:
        """Numbers of measured directions that occur."""
        return [self.recipe.measured]

    def __len__(self) -> int:
        """Return the number of examples of an epoch."""
        return int(self._ends[-1])

    def batch(self, numbers: list[int]) -> Batch:
        """Return examples; those of one epoch come in an order of their own."""
        examples = [self.example(number) for number in numbers]
        return Batch(*(torch.from_numpy(np.stack(parts)) for parts in zip(*examples, strict=True)))

    def groups(self, size: int, limit: int = 0) -> list[list[int]]:
        """Return the numbers of an epoch, or of ``limit`` examples spread over it, in batches."""
        count = min(limit or len(self), len(self))
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int).tolist()
        return [chosen[start : start + size] for start in range(0, count, size)]

    def example(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return context (q_in, x, y, z), its directions, the wanted ones, and their volumes, scaled; float32."""
        recipe = self.recipe
        epoch, place = divmod(number, len(self))
        if recipe.shuffle:
            place = int(_permutation(recipe.seed, epoch, len(self))[place])
        index = int(np.searchsorted(self._ends, place, side="right"))
        run = self.runs[index]
        patch, which = divmod(place - (int(self._ends[index - 1]) if index else 0), run.sets)
        group = self._opened()[run.part]
        order, vectors = self._order(epoch, index), group["bvec"][:]
        start, middle = which * (recipe.measured + recipe.wanted), recipe.measured
        picked = order[start : start + recipe.measured + recipe.wanted]
        xmax = group.attrs[f"percentile_{run.shell}"] if recipe.percentile else XMAX[run.shell]
        volumes = group["dmri"][patch][picked] / np.float32(xmax)
        context, given, wanted = volumes[:middle], vectors[picked[:middle]], vectors[picked[middle:]]
        if recipe.sign_flips or recipe.noise:
            context, given, wanted = self._augmented(number, context, given, wanted)
        return context, given, wanted, volumes[middle:]

    def _augmented(
        self, number: int, context: np.ndarray, given: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Turn directions round, which changes no signal, and add noise to what is measured."""
        recipe, generator = self.recipe, np.random.default_rng([self.recipe.seed, 3, number])
        signs = [np.where(generator.random((len(v), 1)) < recipe.sign_flips, -1, 1) for v in (given, wanted)]
        if recipe.noise:
            context = rician(context, generator.uniform(0, recipe.noise), generator)
        return tuple(a.astype(np.float32) for a in (context, given * signs[0], wanted * signs[1]))  # type: ignore

    def _order(self, epoch: int, index: int) -> np.ndarray:
        """Return the order, in an epoch, of the volumes of a run, as indices into its part."""
        recipe, run = self.recipe, self.runs[index]
        group = self._opened()[run.part]
        volumes = group[f"volumes_{run.shell}"][:]
        if not recipe.reorder:
            return np.asarray(volumes)
        generator = np.random.default_rng([recipe.seed, 2, epoch, index]) if recipe.random_starts else None
        vectors = group["bvec"][:][volumes]
        return np.asarray(volumes[max_min_order(vectors, recipe.measured, recipe.wanted, generator)])

    def _size(self, group: Any, shell: int) -> tuple[int, int]:
        if f"volumes_{shell}" not in group:
            raise InputError(f"{self.path.name} was packed without b = {shell}", "pack it again, or correct the shells")
        sets = len(group[f"volumes_{shell}"]) // (self.recipe.measured + self.recipe.wanted)
        return int(group["dmri"].shape[0]), sets

    def _opened(self) -> Any:
        if self._file is None:
            self._file = _open(self.path)
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind: each process opens its own."""
        return {**self.__dict__, "_file": None}


def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path.name} cannot be read as a packed file ({error})", "pack the subjects again") from None


def subjects_of(path: Path) -> list[str]:
    """Return the names of the subjects of a packed file, sorted. Raises InputError."""
    with _open(path) as file:
        if "key" not in file.attrs:
            raise InputError(f"{path.name} is no packed file of diffusion subjects", "name a table, or pack it again")
        return sorted({str(group.attrs["subject"]) for group in file.values()})


def _held_out(names: list[str], wanted: Sequence[str], share: float) -> list[str]:
    """Return the subjects that are kept for validation."""
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise RequestError(f"there is no subject {unknown[0]}", f"choose from {', '.join(names[:8])}")
    if wanted:
        return list(wanted)
    count = round(share * len(names)) if 0 < share < 1 else 0
    return names[len(names) - count :]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 1, epoch]).permutation(count)
