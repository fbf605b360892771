"""Grids, and values taken from one grid to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ._affine import (
    MIN_VOXEL_MM,
    SAME_GRID_TOLERANCE_MM,
    check_affine,
    corner_distance,
    spacing_of,
    voxel_to_world,
)
from ._resample import argmax_on_grid, grid_matrix, interpolate
from .errors import RequestError
from .volume import Volume

Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Grid:
    """Size (X, Y, Z) and affine (4, 4), float64, voxel index to RAS mm."""

    shape: Triple
    affine: np.ndarray

    @classmethod
    def of(cls, volume: Volume) -> Grid:
        """Return the grid of a volume."""
        return cls(volume.shape3, volume.affine)

    @property
    def shape3(self) -> Triple:
        """The same as ``shape``; a volume has it too."""
        return self.shape

    def with_spacing(self, spacing: float | Sequence[float]) -> Grid:
        """Return a grid of other voxel sizes (mm) that covers the same box with its first corner in place.

        The number of voxels is rounded up (a hundredth of a voxel is forgiven), so the last voxel may overhang.
        """
        sizes = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (3,))
        if not (np.isfinite(sizes).all() and sizes.min() >= MIN_VOXEL_MM):
            raise RequestError(f"voxel sizes must be at least {MIN_VOXEL_MM} mm")
        ratio = sizes / np.array(spacing_of(self.affine))
        counts = np.maximum(np.ceil(np.array(self.shape) / ratio - 0.01), 1).astype(int)
        affine = np.array(self.affine)
        affine[:3, :3] = self.affine[:3, :3] * ratio
        affine[:3, 3] = voxel_to_world(self.affine, (ratio - 1) / 2)
        return Grid((int(counts[0]), int(counts[1]), int(counts[2])), affine)


def resample_to(
    volume: Volume, shape: Sequence[int], affine: np.ndarray, *, order: int = 1, fill: float = 0.0
) -> Volume:
    """Return a volume's values at the voxels of another grid; nothing is smoothed first where the grid is coarser.

    Parameters
    ----------
    volume : (X, Y, Z) or (X, Y, Z, C).
    shape, affine : the other grid; affine to RAS mm.
    order : 0 nearest voxel (type kept), 1 linear, 3 cubic B-spline (float32; float64 for float64).
    fill : value beyond the field of view, which ends half a voxel beyond the outermost voxel centres.

    Raises
    ------
    GeometryError : ``affine`` is singular or not finite. RequestError : another order, or an empty grid.

    """
    if order not in (0, 1, 3):
        raise RequestError(f"interpolation order must be 0, 1 or 3, not {order}")
    target = checked_grid(shape, affine)
    data = sampled(volume.data, grid_matrix(volume.affine, target.affine), target.shape, order, np.full(1, fill))
    return volume.with_affine(data, target.affine)


def resample_argmax(
    posteriors: np.ndarray,
    affine: np.ndarray,
    target_shape: Sequence[int],
    target_affine: np.ndarray,
    channel_labels: Sequence[int],
    *,
    slab: int | None = None,
    outside: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Return the labels on another grid: posteriors interpolated linearly, then the largest one taken.

    Channels are interpolated one after the other, by slabs of the target, each only where it may win; besides the
    result one slab is held. Smoother than moving the labels themselves, and right below the size of a voxel.

    Parameters
    ----------
    posteriors : (X, Y, Z, C) floating-point, not negative; any memory layout.
    affine : (4, 4) of ``posteriors``, voxel index to RAS mm.
    target_shape, target_affine : the other grid.
    channel_labels : C codes.
    slab : planes of the first target axis per slab; None chooses about two million voxels.
    outside : code beyond the field of view; None takes that of channel 0.
    progress : called with the share that is done (0 to 1); an exception it raises ends the work.

    Returns
    -------
    int32 (X, Y, Z) of ``target_shape``; ties go to the lower channel.

    Raises
    ------
    RequestError : the number of codes is not that of the channels. GeometryError : an affine that cannot be used.

    """
    codes = np.asarray(channel_labels, dtype=np.int32)
    if posteriors.ndim != 4 or codes.shape != posteriors.shape[3:]:
        raise RequestError(f"{codes.size} labels do not fit posteriors of shape {posteriors.shape}")
    target = checked_grid(target_shape, target_affine)
    matrix = grid_matrix(checked_grid(posteriors.shape, affine).affine, target.affine)
    beyond = len(codes) if outside is not None and outside not in codes.tolist() else 0
    if outside is not None and not beyond:
        beyond = codes.tolist().index(outside)
    index = argmax_on_grid(posteriors, matrix, target.shape, slab=slab, outside=beyond, progress=progress)
    return codes[index] if beyond < len(codes) else np.append(codes, np.int32(outside or 0))[index]


def same_grid(first: Volume | Grid, second: Volume | Grid, tolerance_mm: float = SAME_GRID_TOLERANCE_MM) -> bool:
    """Say whether two volumes or grids have the same size and no corner apart by more than ``tolerance_mm``."""
    if first.shape3 != second.shape3:
        return False
    return corner_distance(first.shape3, first.affine, second.affine) <= tolerance_mm


def triple(values: Sequence[int]) -> Triple:
    return int(values[0]), int(values[1]), int(values[2])


def checked_grid(shape: Sequence[int], affine: np.ndarray) -> Grid:
    matrix, _ = check_affine(affine, "the target grid", shape)
    if min(shape[:3]) < 1:
        raise RequestError(f"a grid of {tuple(shape[:3])} voxels is empty")
    return Grid(triple(shape), matrix)


def sampled(data: np.ndarray, matrix: np.ndarray, shape: Triple, order: int, fill: np.ndarray) -> np.ndarray:
    """Sample one volume or each channel."""
    if data.dtype == np.bool_:
        data = data.view(np.uint8)
    if data.ndim == 3:
        return interpolate(data, matrix, shape, order, float(fill[0]))
    fills = np.broadcast_to(fill, data.shape[3:])
    out = None
    for channel in range(data.shape[3]):
        values = interpolate(data[..., channel], matrix, shape, order, float(fills[channel]))
        if out is None:
            out = np.empty((*shape, data.shape[3]), dtype=values.dtype, order="F")
        out[..., channel] = values
    return out if out is not None else np.empty((*shape, 0), dtype=data.dtype)
