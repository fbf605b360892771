"""A digital phantom for diffusion: anatomy from a label map or built in, fibres that bend and cross, and their truth.

The fibres are three smooth families around the centre of the white matter: arches between the sides, a fan that rises
from the brain-stem, and arches from front to back. Where two or three are strong, they cross. All fields are functions
of the place in mm, so that the same anatomy on another grid, rotated or coarser, has the same fibres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError, RequestError
from ..volume import Source, Volume
from .signals import S0_FLUID, S0_GREY, Tissue

__all__ = ["Phantom", "built_in_labels", "make_phantom"]

WHITE = (2, 41, 7, 46, 16, 28, 60, 77, 85, *range(251, 256))
GREY = (3, 42, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54, 25, 57, 26, 58, *range(1000, 3000))
FLUID = (4, 43, 5, 44, 14, 15, 24, 30, 62, 72, 136, 137, 163, 164)
"""Labels of FreeSurfer and SynthSeg by class; any other label counts as outside the brain."""

_WEAK = 0.2  # a fibre with a smaller share of the white matter is left out
_MASK = 0.5  # share of brain in a voxel from which on it belongs to the mask
_WAVES = 8


@dataclass(frozen=True)
class Phantom:
    """Tissue on a grid.

    Attributes
    ----------
    mask : (X, Y, Z) bool; the rest of the grid has no signal.
    tissue : of the voxels of the mask, in order; fibre axes in world space (RAS), strongest first.
    affine : (4, 4).

    """

    mask: np.ndarray
    tissue: Tissue
    affine: np.ndarray


def built_in_labels(shape: tuple[int, int, int] = (32, 36, 30), spacing: float = 5.0) -> Volume:
    """Return a small head made of ellipsoids, with labels as SynthSeg's: cortex, white matter, ventricles, thalami.

    Parameters
    ----------
    shape :
        Grid; the head fills it but for a border.
    spacing :
        Size of a voxel in mm.

    Raises
    ------
    RequestError : fewer than 12 voxels along an axis.

    """
    if min(shape) < 12:
        raise RequestError(f"a phantom of {' x '.join(map(str, shape))} voxels is too small", "use 12 or more each way")
    half = (np.array(shape) - 1) / 2
    places = np.meshgrid(*[(np.arange(n) - h) / (h - 1) for n, h in zip(shape, half, strict=True)], indexing="ij")
    x, y, z = places
    labels = np.zeros(shape, dtype=np.int32)
    radius = np.sqrt(x**2 + y**2 + z**2)
    left = x < 0
    labels[radius <= 1.0] = 24
    labels[radius <= 0.95] = 42
    labels[(radius <= 0.95) & left] = 3
    labels[radius <= 0.8] = 41
    labels[(radius <= 0.8) & left] = 2
    for sign, ventricle, thalamus in ((-1, 4, 10), (1, 43, 49)):
        labels[((x - sign * 0.14) / 0.09) ** 2 + (y / 0.45) ** 2 + ((z - 0.12) / 0.16) ** 2 <= 1] = ventricle
        labels[((x - sign * 0.2) / 0.14) ** 2 + ((y + 0.1) / 0.22) ** 2 + ((z + 0.18) / 0.14) ** 2 <= 1] = thalamus
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -half * spacing
    return Volume(labels, affine, Source("phantom", "phantom"))


def make_phantom(labels: Volume, spacing: float | None = None, fibres: int = 3, seed: int = 0) -> Phantom:
    """Return a phantom with the anatomy of a label map.

    Parameters
    ----------
    labels :
        (X, Y, Z) codes of FreeSurfer or SynthSeg.
    spacing :
        Size of the phantom's voxels in mm, which then hold several tissues each; None: those of the label map.
    fibres :
        Most fibres in a voxel, 1 to 3.
    seed :
        Fixes how fibres bend, where they cross, and how tissues vary.

    Raises
    ------
    InputError : the label map holds no white matter.
    RequestError : a number that makes no sense.

    """
    if not 1 <= fibres <= 3:
        raise RequestError(f"{fibres} fibres in a voxel are not offered", "use 1 to 3")
    fractions, affine = _fractions(labels, spacing)
    total = fractions.sum(axis=-1)
    mask = total >= _MASK
    inside = fractions[mask] / total[mask][:, None]
    if not (inside[:, 0] > _MASK).any():
        name = labels.source.file_name or "the label map"
        raise InputError(f"{name} holds no white matter", "give a label map with FreeSurfer or SynthSeg labels")
    world = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    white = inside[:, 0] > _MASK
    centre = world[white].mean(axis=0)
    size = np.sqrt(np.square(world[white] - centre).sum(axis=1).mean())
    return Phantom(mask, _tissue((world - centre) / size, inside, fibres, seed), affine)


def _fractions(labels: Volume, spacing: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares (X, Y, Z, 3) of white matter, grey matter and fluid, and the grid's affine."""
    from ..geometry import Grid, resample_to

    if labels.data.ndim != 3:
        raise InputError(f"{labels.source.file_name or 'the label map'} is not 3-D", "give one label map")
    if spacing is None:
        classes = [np.isin(labels.data, codes) for codes in (WHITE, GREY, FLUID)]
        return np.stack(classes, axis=-1).astype(np.float32), labels.affine
    if not (np.isfinite(spacing) and 0.5 <= spacing <= 20):
        raise RequestError(f"voxels of {spacing:g} mm are not offered", "use 0.5 to 20 mm")
    from scipy.ndimage import gaussian_filter

    grid = Grid.of(labels).with_spacing(spacing)
    blur = [0.5 * np.sqrt(max((spacing / own) ** 2 - 1, 0)) for own in labels.spacing]
    parts = []
    for codes in (WHITE, GREY, FLUID):
        share = gaussian_filter(np.isin(labels.data, codes).astype(np.float32), blur)
        parts.append(resample_to(Volume(share, labels.affine), grid.shape3, grid.affine, order=1).data)
    return np.clip(np.stack(parts, axis=-1), 0, 1), grid.affine


def _tissue(place: np.ndarray, fractions: np.ndarray, fibres: int, seed: int) -> Tissue:
    """Return the tissue at places (V, 3), in units of the white matter's size around its centre."""
    generator = np.random.default_rng([seed, 77])
    axes, shares = _fibres(place, fibres, generator)

    def varied(mean: float, part: float) -> np.ndarray:
        return mean * (1 + part * np.tanh(_field(place, generator)))

    along, across = varied(1.7e-3, 0.12), varied(0.35e-3, 0.25)
    grey, fluid = varied(0.8e-3, 0.1), np.full(len(place), 3e-3)
    s0 = np.broadcast_to(np.array([1.0, S0_GREY, S0_FLUID]), fractions.shape)
    return Tissue(fractions, axes, shares, along, across, grey, fluid, s0)


def _fibres(place: np.ndarray, fibres: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return axes (V, K, 3) and shares (V, K), strongest first; absent fibres have share 0."""
    x, y, z = place.T
    zero = np.zeros_like(x)
    families = np.stack(
        [
            np.stack([z + 0.5, zero, -x], axis=1),
            np.stack([x, y + 0.1, z + 2.0], axis=1),
            np.stack([zero, z + 0.4, -y], axis=1),
        ],
        axis=1,
    )
    strength = np.stack([1.6 * np.exp(-((x / 0.5) ** 2)), 0.8 + zero, 1.4 * np.exp(-(((np.abs(x) - 0.8) / 0.35) ** 2))])
    bend = np.stack([[_field(place, generator) for _ in range(3)] for _ in range(3)])  # (family, component, V)
    families = families / np.linalg.norm(families, axis=2, keepdims=True).clip(1e-6) + 0.25 * bend.transpose(2, 0, 1)
    axes = families / np.linalg.norm(families, axis=2, keepdims=True).clip(1e-6)
    weight = np.exp(1.5 * (strength + 0.5 * np.stack([_field(place, generator) for _ in range(3)]))).T
    weight /= weight.sum(axis=1, keepdims=True)
    order = np.argsort(-weight, axis=1)[:, :fibres]
    axes, weight = np.take_along_axis(axes, order[..., None], 1), np.take_along_axis(weight, order, 1)
    weight[:, 1:][weight[:, 1:] < _WEAK] = 0
    return axes, weight / weight.sum(axis=1, keepdims=True)


def _field(place: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return a smooth random function of the place, about 0 with deviation 1: a sum of waves."""
    waves = generator.normal(0, 2.5, (_WAVES, 3))
    phases = generator.uniform(0, 2 * np.pi, _WAVES)
    return np.asarray(np.sin(place @ waves.T + phases).sum(axis=1) / np.sqrt(_WAVES / 2))
