"""Examples of single voxels with simulated signals, drawn on the fly, for the 1D network.

An example has many voxels that share their directions. Tissues, fibre crossings, diffusivities, partial volume, noise
and scale vary from voxel to voxel; directions come as people have them: a subset of a measured scheme, chosen by the
published rule (:func:`.directions.choose_context`), or few directions that were spread evenly by whoever measured them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .directions import choose_context, even_directions
from .signals import S0_FLUID, S0_GREY, Tissue, expected_magnitude, rician, tissue_signal

__all__ = ["Example", "VoxelRecipe", "draw_example"]

_SCHEMES = (12, 15, 20, 25, 30, 32, 45, 60, 64, 90)
_BRIGHT = 0.75  # typical 99th percentile of a shell's volumes where white matter gives 1 at b = 0


@dataclass
class VoxelRecipe:
    """How simulated voxels are drawn (keys under ``simulation`` of ``train dmri-rcnn``)."""

    directions: list[int] = field(
        default_factory=lambda: [6, 10], metadata={"help": "numbers of measured directions, one drawn per example"}
    )
    targets: int = field(default=8, metadata={"help": "wanted directions per example"})
    voxels: int = field(default=64, metadata={"help": "voxels per example"})
    shell: float = field(default=1000.0, metadata={"help": "b-value, s/mm^2"})
    shell_spread: float = field(default=30.0, metadata={"help": "largest deviation of b-values from it"})
    snr: list[float] = field(
        default_factory=lambda: [7.0, 50.0], metadata={"help": "smallest and largest; white matter at b = 0 over noise"}
    )
    white: float = field(default=0.5, metadata={"help": "share of voxels of white matter alone"})
    grey: float = field(default=0.2, metadata={"help": "share of voxels of grey matter alone"})
    fluid: float = field(default=0.05, metadata={"help": "share of voxels of fluid alone; the rest is mixed"})
    subset: float = field(default=0.5, metadata={"help": "share of examples with a subset of a larger scheme"})
    expected: bool = field(
        default=True, metadata={"help": "targets are expected magnitudes; false: drawn with noise like the context"}
    )


@dataclass(frozen=True)
class Example:
    """Voxels that share their directions.

    Attributes
    ----------
    context, target : (q_in, V) and (q_out, V) float32, about 0 to 1.
    bvecs_in, bvecs_out : (q, 3) float32 unit vectors.

    """

    context: np.ndarray
    bvecs_in: np.ndarray
    bvecs_out: np.ndarray
    target: np.ndarray


def draw_example(recipe: VoxelRecipe, generator: np.random.Generator, directions: int | None = None) -> Example:
    """Return an example; ``directions`` fixes the number of measured ones."""
    count = directions or int(generator.choice(recipe.directions))
    given, wanted = _directions(count, recipe, generator)
    vectors = np.concatenate([given, wanted])
    bvals = recipe.shell + recipe.shell_spread * generator.uniform(-1, 1, len(vectors))
    signal = tissue_signal(bvals, vectors, _tissue(recipe, generator)).T  # (q, V)
    low, high = np.log(recipe.snr[0]), np.log(recipe.snr[1])
    sigma = 1 / np.exp(generator.uniform(low, high, recipe.voxels))
    measured = rician(signal[:count], sigma, generator)
    target = signal[count:]
    target = expected_magnitude(target, sigma) if recipe.expected else rician(target, sigma, generator)
    scale = generator.uniform(0.6, 1.25, recipe.voxels) / _BRIGHT  # receive field, and how bright the brightest is
    return Example(*(a.astype(np.float32) for a in (measured * scale, given, wanted, target * scale)))


def _directions(count: int, recipe: VoxelRecipe, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return measured and wanted directions."""
    wanted = generator.standard_normal((recipe.targets, 3))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    if generator.random() >= recipe.subset:
        given = _scheme(count, generator)
        return given[generator.permutation(count)], wanted
    sizes = [size for size in _SCHEMES if size > count]
    scheme = _scheme(int(generator.choice(sizes)), generator) if sizes else _scheme(2 * count, generator)
    picked = choose_context(scheme, count)
    left = np.setdiff1d(np.arange(len(scheme)), picked)
    own = generator.permutation(left)[: recipe.targets // 2]  # some targets are directions of the same scheme
    wanted[: len(own)] = scheme[own]
    return scheme[picked], wanted


def _scheme(count: int, generator: np.random.Generator) -> np.ndarray:
    """Return evenly spread directions, turned, a little disturbed, with ends of axes as schemes have them."""
    from scipy.spatial.transform import Rotation

    vectors = _even(count)
    if generator.random() < 0.6:  # whichever ends; else those of a half sphere
        vectors = vectors * np.where(generator.random(count) < 0.5, -1.0, 1.0)[:, None]
    turn = Rotation.random(random_state=np.random.RandomState(generator.integers(2**31)))
    vectors = turn.apply(vectors) + generator.uniform(0, 0.12) * generator.standard_normal((count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors[generator.permutation(count)])


@functools.lru_cache(maxsize=64)
def _even(count: int) -> np.ndarray:
    return even_directions(count)


def _tissue(recipe: VoxelRecipe, generator: np.random.Generator) -> Tissue:
    """Return the tissue of the voxels."""
    count = recipe.voxels

    def between(low: float, high: float, shape: Sequence[int] = (count,)) -> np.ndarray:
        return generator.uniform(low, high, shape)

    pure = [recipe.white, recipe.grey, recipe.fluid]
    kind = generator.choice(4, count, p=[*pure, 1 - sum(pure)])
    fractions = np.where((kind == 3)[:, None], generator.dirichlet([0.8, 0.8, 0.35], count), np.eye(4)[kind][:, :3])
    axes = generator.standard_normal((count, 3, 3))
    axes /= np.linalg.norm(axes, axis=2, keepdims=True)
    fibres = generator.choice(3, count, p=[0.45, 0.4, 0.15]) + 1
    shares = between(0.15, 1, (count, 3)) * (np.arange(3) < fibres[:, None])
    shares /= shares.sum(axis=1, keepdims=True)
    s0 = np.stack([np.ones(count), between(0.8, 1.2) * S0_GREY, between(0.6, 1.4) * S0_FLUID], axis=1)
    return Tissue(
        fractions=fractions,
        axes=axes,
        shares=shares,
        along=between(1.2e-3, 2.1e-3),
        across=between(0.15e-3, 0.7e-3),
        grey=between(0.65e-3, 1.0e-3),
        fluid=between(2.6e-3, 3.2e-3),
        s0=s0,
    )
