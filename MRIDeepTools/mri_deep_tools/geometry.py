"""Grids, and the steps from one to another; each step can be undone, so that results return to the scan they came from.

A grid is a size (X, Y, Z) and an affine from voxel indices to RAS mm. ``apply`` takes a volume on the grid a step was
made for and returns it on the step's other grid; ``undo`` brings something on that other grid back. World coordinates
of what is in the voxels never change. Tolerances on geometry are named here and explained in ``_affine.py``.

::

    turn = Reorient.to_ras(scan)
    upright = turn.apply(scan)
    pad = Pad((4, 4, 4), (4, 4, 4))
    there = Chain((turn, pad))
    labels = there.undo(segment(there.apply(scan)), kind="label")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ._affine import (
    AFFINE_ATOL,
    ALIGNED_TOLERANCE_VOXELS,
    DICOM_POSITION_TOLERANCE_MM,
    DICOM_POSITION_TOLERANCE_VOXELS,
    DICOM_SPACING_TOLERANCE,
    FIELD_OF_VIEW_MARGIN,
    MAX_VOXEL_MM,
    MIN_VOXEL_MM,
    SAME_GRID_TOLERANCE_MM,
    SFORM_QFORM_TOLERANCE_MM,
    SFORM_QFORM_TOLERANCE_VOXELS,
    SHEAR_NEGLIGIBLE,
    SHEAR_TOLERANCE,
    SINGULAR_TOLERANCE,
    SNAP_TOLERANCE_VOXELS,
    SPACING_TOLERANCE,
    all_orientations,
    axcodes_of,
    check_affine,
    corner_distance,
    oblique_degrees,
    ras_axes,
    ras_flips,
    spacing_of,
    voxel_to_world,
    world_to_voxel,
)
from ._grid import Grid, Triple, resample_argmax, resample_to, same_grid, sampled, triple
from ._resample import grid_matrix
from .errors import GeometryError, RequestError
from .volume import Volume

__all__ = [
    "AFFINE_ATOL",
    "ALIGNED_TOLERANCE_VOXELS",
    "DICOM_POSITION_TOLERANCE_MM",
    "DICOM_POSITION_TOLERANCE_VOXELS",
    "DICOM_SPACING_TOLERANCE",
    "FIELD_OF_VIEW_MARGIN",
    "MAX_VOXEL_MM",
    "MIN_VOXEL_MM",
    "SAME_GRID_TOLERANCE_MM",
    "SFORM_QFORM_TOLERANCE_MM",
    "SFORM_QFORM_TOLERANCE_VOXELS",
    "SHEAR_NEGLIGIBLE",
    "SHEAR_TOLERANCE",
    "SINGULAR_TOLERANCE",
    "SNAP_TOLERANCE_VOXELS",
    "SPACING_TOLERANCE",
    "Chain",
    "Crop",
    "Grid",
    "Kind",
    "Pad",
    "Reorient",
    "Resample",
    "Step",
    "all_orientations",
    "axcodes_of",
    "check_affine",
    "corner_distance",
    "oblique_degrees",
    "ras_axes",
    "resample_argmax",
    "resample_to",
    "same_grid",
    "spacing_of",
    "voxel_to_world",
    "world_to_voxel",
]

Kind = Literal["label", "linear", "posterior"]
"""What is brought back by ``undo``: codes (nearest voxel), intensities (linear), or class posteriors (linear, with
channel 0, the background, at 1 where nothing is known)."""


@runtime_checkable
class Step(Protocol):
    """A way from one grid to another, and back; immutable."""

    def apply(self, volume: Volume) -> Volume:
        """Take a volume to the step's other grid."""
        ...

    def undo(self, volume: Volume, *, kind: Kind = "linear", fill: float = 0) -> Volume:
        """Bring a volume on the other grid back; ``fill`` stands where nothing is known."""
        ...


@dataclass(frozen=True)
class Reorient:
    """Order and direction of array axes; no interpolation, and no copy of the values.

    Attributes
    ----------
    axes : array axis of the input that becomes axis 0, 1, 2.
    flips : whether that axis is reversed.

    """

    axes: Triple
    flips: tuple[bool, bool, bool]

    @classmethod
    def to_ras(cls, volume: Volume | Grid) -> Reorient:
        """Return the step to the axis order and directions nearest to right, anterior, superior.

        Axis k of the result is the input axis with the largest entry in column k of the absolute inverse affine (an
        axis claimed twice gives its last claim to the axis left out), reversed when its own direction is negative:
        the published rule of SynthSeg (Billot et al. 2023), which leaves obliqueness in place.
        """
        axes = ras_axes(volume.affine)
        return cls(axes, ras_flips(volume.affine, axes))

    @classmethod
    def to(cls, volume: Volume | Grid, axcodes: str | Sequence[str]) -> Reorient:
        """Return the step to axes in the given directions, such as ``"LPS"``.

        Raises
        ------
        RequestError : not one letter out of each of R/L, A/P and S/I.

        """
        wanted = "".join(axcodes).upper()
        if wanted not in all_orientations():
            raise RequestError(f"{wanted!r} is no orientation", "use one letter of each of R/L, A/P and S/I")
        upright = cls.to_ras(volume)
        world = ["RLAPSI".index(letter) // 2 for letter in wanted]
        axes = [upright.axes[w] for w in world]
        flips = [upright.flips[w] != (letter in "LPI") for w, letter in zip(world, wanted, strict=True)]
        return cls((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    def apply(self, volume: Volume) -> Volume:
        """Permute, then flip."""
        data = np.transpose(volume.data, (*self.axes, *range(3, volume.data.ndim)))
        affine = np.array(volume.affine)
        affine[:, :3] = affine[:, list(self.axes)]
        return _flipped(volume.with_affine(data, affine), self.flips)

    def undo(self, volume: Volume, *, kind: Kind = "linear", fill: float = 0) -> Volume:
        """Flip, then permute back; exact for every kind."""
        flipped = _flipped(volume, self.flips)
        back = [self.axes.index(k) for k in range(3)]
        affine = np.array(flipped.affine)
        affine[:, :3] = affine[:, back]
        return flipped.with_affine(np.transpose(flipped.data, (*back, *range(3, volume.data.ndim))), affine)


@dataclass(frozen=True)
class Crop:
    """A box out of a larger grid.

    Attributes
    ----------
    start, stop : first voxel, and the voxel after the last one, of the box.
    shape : size of the grid before cropping.

    """

    start: Triple
    stop: Triple
    shape: Triple

    def __post_init__(self) -> None:
        """Check that the box is in the grid (RequestError if not)."""
        if not all(0 <= a < b <= n for a, b, n in zip(self.start, self.stop, self.shape, strict=True)):
            raise RequestError(f"the box {self.start} to {self.stop} does not lie in a grid of {self.shape}")

    @classmethod
    def centre(cls, shape: Sequence[int], size: Sequence[int]) -> Crop:
        """Return the crop to ``size`` voxels around the centre; axes that are shorter stay as they are."""
        start = [max((n - t) // 2, 0) for n, t in zip(shape, size, strict=False)]
        stop = [min(a + t, n) for a, t, n in zip(start, size, shape, strict=False)]
        return cls(triple(start), triple(stop), triple(shape))

    def apply(self, volume: Volume) -> Volume:
        """Cut the box out (a view of the values)."""
        _require_shape(volume, self.shape, "crop")
        box = tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return volume.with_affine(volume.data[box], _moved(volume.affine, self.start))

    def undo(self, volume: Volume, *, kind: Kind = "linear", fill: float = 0) -> Volume:
        """Put the box back into a grid of the full size that holds ``fill`` elsewhere."""
        _require_shape(volume, triple([b - a for a, b in zip(self.start, self.stop, strict=True)]), "crop's box")
        after = [n - b for n, b in zip(self.shape, self.stop, strict=True)]
        return _padded(volume, self.start, after, _fill_of(volume, kind, fill))


@dataclass(frozen=True)
class Pad:
    """Margins around a grid.

    Attributes
    ----------
    before, after : voxels added below and above, per axis.
    value : what the margins hold.

    """

    before: Triple
    after: Triple
    value: float = 0

    def __post_init__(self) -> None:
        """Check that margins are not negative (RequestError if they are)."""
        if min(*self.before, *self.after) < 0:
            raise RequestError(f"margins must not be negative: {self.before}, {self.after}")

    @classmethod
    def to_shape(cls, shape: Sequence[int], size: Sequence[int], value: float = 0) -> Pad:
        """Return the padding to at least ``size`` voxels; of an odd margin the larger half comes after."""
        margin = [max(t - n, 0) for n, t in zip(shape, size, strict=False)]
        return cls(triple([m // 2 for m in margin]), triple([m - m // 2 for m in margin]), value)

    def apply(self, volume: Volume) -> Volume:
        """Add the margins."""
        return _padded(volume, self.before, self.after, np.full(1, self.value))

    def undo(self, volume: Volume, *, kind: Kind = "linear", fill: float = 0) -> Volume:
        """Take the margins off (a view of the values)."""
        shape = volume.shape3
        stop = [n - b for n, b in zip(shape, self.after, strict=True)]
        return Crop(self.before, triple(stop), shape).apply(volume)


@dataclass(frozen=True, eq=False)
class Resample:
    """Interpolation from one grid to another.

    Attributes
    ----------
    source, target : the two grids.
    order : 0 nearest, 1 linear, 3 cubic; of ``apply``.

    """

    source: Grid
    target: Grid
    order: int = 1

    @classmethod
    def to_spacing(cls, volume: Volume, spacing: float | Sequence[float], order: int = 1) -> Resample:
        """Return the step to other voxel sizes in mm over the same box."""
        grid = Grid.of(volume)
        return cls(grid, grid.with_spacing(spacing), order)

    def apply(self, volume: Volume) -> Volume:
        """Sample on the target grid; 0 beyond the field of view."""
        _require_grid(volume, self.source, "source")
        return resample_to(volume, self.target.shape, self.target.affine, order=self.order)

    def undo(self, volume: Volume, *, kind: Kind = "linear", fill: float = 0) -> Volume:
        """Sample on the source grid: the nearest code for labels, linear otherwise."""
        _require_grid(volume, self.target, "target")
        matrix = grid_matrix(volume.affine, self.source.affine)
        values = _fill_of(volume, kind, fill)
        data = sampled(volume.data, matrix, self.source.shape, 0 if kind == "label" else 1, values)
        return volume.with_affine(data, self.source.affine)


@dataclass(frozen=True)
class Chain:
    """Several steps, applied in order and undone in reverse order."""

    steps: tuple[Step, ...]

    def apply(self, volume: Volume) -> Volume:
        """Apply all steps."""
        for step in self.steps:
            volume = step.apply(volume)
        return volume

    def undo(self, volume: Volume, *, kind: Kind = "linear", fill: float = 0) -> Volume:
        """Undo all steps, the last one first."""
        for step in reversed(self.steps):
            volume = step.undo(volume, kind=kind, fill=fill)
        return volume


def _moved(affine: np.ndarray, start: Sequence[int]) -> np.ndarray:
    """Return the affine of a grid whose first voxel is voxel ``start`` of this one."""
    moved = np.array(affine)
    moved[:3, 3] = voxel_to_world(affine, start)
    return moved


def _flipped(volume: Volume, flips: Sequence[bool]) -> Volume:
    data = volume.data[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    affine = np.array(volume.affine)
    for axis in range(3):
        if flips[axis]:
            affine[:3, 3] += affine[:3, axis] * (volume.shape3[axis] - 1)
            affine[:3, axis] *= -1
    return volume.with_affine(data, affine)


def _padded(volume: Volume, before: Sequence[int], after: Sequence[int], values: np.ndarray) -> Volume:
    """Add margins that hold ``values``: one for all channels, or one per channel."""
    shape = tuple(a + n + b for a, n, b in zip(before, volume.shape3, after, strict=True))
    data = np.empty((*shape, *volume.data.shape[3:]), dtype=volume.data.dtype)
    data[...] = values if values.size > 1 else values.item()
    data[tuple(slice(a, a + n) for a, n in zip(before, volume.shape3, strict=True))] = volume.data
    return volume.with_affine(data, _moved(volume.affine, [-a for a in before]))


def _fill_of(volume: Volume, kind: Kind, fill: float) -> np.ndarray:
    """Return one value, or one per channel for posteriors: there the background is certain where nothing is known."""
    if kind not in ("label", "linear", "posterior"):
        raise RequestError(f"unknown kind {kind!r}", "use label, linear or posterior")
    if kind != "posterior" or volume.data.ndim == 3:
        return np.full(1, fill)
    values = np.full(volume.data.shape[3], fill, dtype=np.float64)
    values[0] = 1
    return values


def _require_shape(volume: Volume, shape: Triple, what: str) -> None:
    if volume.shape3 != shape:
        raise GeometryError(f"a volume of {volume.shape3} voxels does not fit the {what} of {shape}")


def _require_grid(volume: Volume, grid: Grid, what: str) -> None:
    if not same_grid(volume, grid):
        raise GeometryError(f"a volume of {volume.shape3} voxels does not lie on the {what} grid of {grid.shape}")
