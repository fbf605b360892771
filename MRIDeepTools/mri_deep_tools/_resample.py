"""Interpolation between grids: the numbers behind :mod:`mri_deep_tools.geometry`.

A grid covers its voxels to their outer faces, half a voxel beyond the outermost centres. There the value of the edge
voxel holds; further out the fill value stands. Where two grids have parallel axes (whatever their order, direction and
spacing) linear interpolation is done axis by axis, which costs a few additions per voxel; else SciPy does it in 3-D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ._affine import ALIGNED_TOLERANCE_VOXELS, FIELD_OF_VIEW_MARGIN, SNAP_TOLERANCE_VOXELS

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class AxisMap:
    """Where the samples of one target axis fall on one source axis.

    Attributes
    ----------
    lower, upper : (n,) indices of the source voxels on both sides.
    weight : (n,) float32 share of ``upper``.
    inside : (n,) whether the sample is within the source's field of view.

    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray
    inside: np.ndarray

    def part(self, span: slice) -> AxisMap:
        """Return the map of some of the samples."""
        return AxisMap(self.lower[span], self.upper[span], self.weight[span], self.inside[span])

    def shifted(self, start: int) -> AxisMap:
        """Return the map onto a source that is cropped at ``start``."""
        return AxisMap(self.lower - start, self.upper - start, self.weight, self.inside)

    def touching(self, span: slice) -> slice:
        """Return the samples that draw on source voxels in ``span``; empty when there are none."""
        hit = np.flatnonzero(self.inside & (self.upper >= span.start) & (self.lower < span.stop))
        return slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0)


@dataclass(frozen=True)
class Aligned:
    """A mapping between grids with parallel axes: ``axes[t]`` is the source axis of target axis t, ``maps[t]`` how."""

    axes: tuple[int, int, int]
    maps: tuple[AxisMap, AxisMap, AxisMap]


def grid_matrix(affine: np.ndarray, target_affine: np.ndarray) -> np.ndarray:
    """Return the (4, 4) matrix from voxel indices of the target grid to those of the source grid."""
    return np.linalg.solve(np.asarray(affine, dtype=np.float64), np.asarray(target_affine, dtype=np.float64))


def aligned_mapping(matrix: np.ndarray, shape: Sequence[int], target_shape: Sequence[int]) -> Aligned | None:
    """Return the mapping when the grids have parallel axes, else None.

    Parallel means that leaving out the cross terms moves no target voxel by more than ``ALIGNED_TOLERANCE_VOXELS``.
    """
    linear = matrix[:3, :3]
    axes = [int(k) for k in np.abs(linear).argmax(axis=0)]
    if sorted(axes) != [0, 1, 2]:
        return None
    cross = np.abs(linear) * (np.array(target_shape[:3]) - 1)
    cross[axes, range(3)] = 0
    if cross.sum(axis=1).max() > ALIGNED_TOLERANCE_VOXELS:
        return None
    # the cross terms are shared out evenly around the middle of the grid
    middle = linear @ ((np.array(target_shape[:3]) - 1) / 2) + matrix[:3, 3]
    maps = []
    for axis, source_axis in enumerate(axes):
        steps = np.arange(target_shape[axis]) - (target_shape[axis] - 1) / 2
        maps.append(axis_map(linear[source_axis, axis] * steps + middle[source_axis], shape[source_axis]))
    return Aligned((axes[0], axes[1], axes[2]), (maps[0], maps[1], maps[2]))


def axis_map(positions: np.ndarray, length: int) -> AxisMap:
    """Return the map of samples at ``positions`` (n,), in voxels of a source axis of ``length`` voxels."""
    nearest = np.rint(positions)
    snapped = np.where(np.abs(positions - nearest) <= SNAP_TOLERANCE_VOXELS, nearest, positions)
    margin = FIELD_OF_VIEW_MARGIN + SNAP_TOLERANCE_VOXELS
    inside = (snapped >= -margin) & (snapped <= length - 1 + margin)
    clipped = np.clip(snapped, 0, length - 1)
    lower = np.floor(clipped).astype(np.intp)
    weight = (clipped - lower).astype(np.float32)
    return AxisMap(lower, np.minimum(lower + 1, length - 1), weight, inside)


def linear_aligned(source: np.ndarray, maps: Sequence[AxisMap]) -> np.ndarray:
    """Return samples of ``source``, whose axes are in the order of the target, as a new floating-point array.

    Samples beyond the field of view hold the nearest edge value. The axis that shrinks most goes first.
    """
    spans = [slice(int(m.lower.min()), int(m.upper.max()) + 1) for m in maps]
    values = source[tuple(spans)]
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32)
    order = sorted(range(3), key=lambda axis: len(maps[axis].lower) / values.shape[axis])
    for axis in order:
        values = _blend(values, maps[axis].shifted(spans[axis].start), axis)
    return values if values.base is None and values.flags.writeable else values.copy()


def _blend(values: np.ndarray, samples: AxisMap, axis: int) -> np.ndarray:
    """Interpolate along one axis."""
    if not samples.weight.any():
        count = values.shape[axis]
        if len(samples.lower) == count and np.array_equal(samples.lower, np.arange(count)):
            return values
        return values.take(samples.lower, axis=axis)
    out = values.take(samples.lower, axis=axis)
    step = values.take(samples.upper, axis=axis)
    step -= out
    step *= samples.weight.reshape([-1 if k == axis else 1 for k in range(3)])
    out += step
    return out


def nearest_aligned(source: np.ndarray, maps: Sequence[AxisMap]) -> np.ndarray:
    """Return the values of the nearest voxels of ``source`` (axes in target order); halves go to the higher index."""
    picks = [np.where(m.weight >= 0.5, m.upper, m.lower) for m in maps]
    return source[np.ix_(*picks)]


def fill_outside(values: np.ndarray, maps: Sequence[AxisMap], fill: float) -> None:
    """Put ``fill`` where samples are beyond the field of view, in place."""
    for axis, samples in enumerate(maps):
        if not samples.inside.all():
            np.moveaxis(values, axis, 0)[~samples.inside] = fill


def interpolate(
    source: np.ndarray, matrix: np.ndarray, target_shape: Sequence[int], order: int, fill: float
) -> np.ndarray:
    """Return ``source`` (X, Y, Z) sampled on a grid.

    Parameters
    ----------
    source : any integer or floating-point type.
    matrix : (4, 4), voxel index of the target to voxel index of ``source``.
    target_shape : (X, Y, Z).
    order : 0 nearest (type kept), 1 linear, 3 cubic B-spline (float32; float64 for float64).
    fill : value beyond the field of view.

    """
    mapping = aligned_mapping(matrix, source.shape, target_shape) if order in (0, 1) else None
    if mapping is not None:
        turned = source.transpose(mapping.axes)
        values = (nearest_aligned if order == 0 else linear_aligned)(turned, mapping.maps)
        fill_outside(values, mapping.maps, fill)
        return values
    values = sample_scipy(source, matrix, (0, 0, 0), target_shape, order)
    for start in range(0, target_shape[0], _SLAB_PLANES):
        slab = values[start : start + _SLAB_PLANES]
        slab[~inside_mask(matrix, (start, 0, 0), slab.shape, source.shape)] = fill
    return values


_SLAB_PLANES = 16


def sample_scipy(
    source: np.ndarray, matrix: np.ndarray, start: Sequence[int], shape: Sequence[int], order: int
) -> np.ndarray:
    """Sample a box of the target grid that begins at voxel ``start``; beyond the source its edge values go on."""
    from scipy.ndimage import affine_transform

    offset = matrix[:3, :3] @ np.asarray(start, dtype=np.float64) + matrix[:3, 3]
    if order == 0:
        kind = source.dtype
    else:
        kind = np.dtype(np.float64 if source.dtype == np.float64 else np.float32)
    source = source.astype(np.float32) if source.dtype == np.float16 else source
    out = np.empty(tuple(shape), dtype=kind)
    affine_transform(source, matrix[:3, :3], offset, output=out, order=order, mode="nearest", output_shape=tuple(shape))
    return out


def inside_mask(
    matrix: np.ndarray, start: Sequence[int], shape: Sequence[int], source_shape: Sequence[int]
) -> np.ndarray:
    """Return which voxels of a box of the target grid lie within the field of view of the source, bool ``shape``."""
    steps = [np.arange(n, dtype=np.float64) + s for s, n in zip(start, shape, strict=True)]
    margin = FIELD_OF_VIEW_MARGIN + SNAP_TOLERANCE_VOXELS
    mask = np.ones(tuple(shape), dtype=bool)
    for axis, length in enumerate(source_shape):
        row = matrix[axis]
        place = row[0] * steps[0][:, None, None] + row[1] * steps[1][:, None] + row[2] * steps[2] + row[3]
        mask &= (place >= -margin) & (place <= length - 1 + margin)
    return mask


# ------------------------------------------------------------------------------- arg-max of interpolated posteriors


def argmax_on_grid(
    posteriors: np.ndarray,
    matrix: np.ndarray,
    target_shape: Sequence[int],
    *,
    slab: int | None = None,
    outside: int = 0,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Interpolate every channel linearly and return the index of the largest, without holding them all.

    A channel can only win where one of the voxels around a sample has at least the share ``least sum of a voxel /
    number of channels`` of it, because the winner of a weighted mean is at least its average. So each channel is
    interpolated in the box of such voxels alone, which for a label map is a small part of the image.

    Parameters
    ----------
    posteriors : (X, Y, Z, C) floating-point, not negative (negative values cost the short cut, not the result).
    matrix : (4, 4), voxel index of the target to voxel index of ``posteriors``.
    target_shape : (X, Y, Z).
    slab : planes of the target's first axis that are worked on together; None chooses.
    outside : index beyond the field of view.
    progress : called with the share that is done; an exception it raises ends the work.

    Returns
    -------
    uint8 or uint16 (X, Y, Z); ties go to the lower index.

    """
    boxes = _boxes_of_winners(posteriors)
    mapping = aligned_mapping(matrix, posteriors.shape, target_shape)
    out = np.zeros(tuple(target_shape), dtype=np.uint8 if posteriors.shape[3] <= 256 else np.uint16)
    slab = slab or max(1, _SLAB_VOXELS // max(1, target_shape[1] * target_shape[2]))
    for start in range(0, target_shape[0], slab):
        stop = min(start + slab, target_shape[0])
        if mapping is not None:
            _argmax_aligned(posteriors, mapping, boxes, slice(start, stop), outside, out[start:stop])
        else:
            _argmax_oblique(posteriors, matrix, boxes, start, outside, out[start:stop])
        if progress is not None:
            progress(stop / target_shape[0])
    return out


_SLAB_VOXELS = 1 << 21


def _boxes_of_winners(posteriors: np.ndarray) -> list[Box | None]:
    """Return for each channel the box of voxels where it may win, None for nowhere."""
    shape = posteriors.shape
    front = np.empty((shape[0], shape[1], shape[3]), dtype=np.float32)  # largest value along the third axis
    side = np.full((shape[2], shape[3]), -np.inf, dtype=np.float32)  # largest value along the other two
    least, negative = np.inf, False
    step = max(1, _SLAB_VOXELS // max(1, shape[1] * shape[2] * shape[3] // 8))
    ones = np.ones(shape[3], dtype=np.float32)
    for start in range(0, shape[0], step):
        block = posteriors[start : start + step]
        block = block.astype(np.float32) if block.dtype != np.float32 else block
        front[start : start + step] = block.max(axis=2)
        side = np.maximum(side, block.max(axis=(0, 1)))
        sums = block @ ones if block.flags.c_contiguous else block.sum(axis=-1)
        least = min(least, float(sums.min()))
        negative = negative or bool(block.min() < 0)
    if negative:
        return [(slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))] * shape[3]
    floor = max(least / shape[3] * 0.999, float(np.finfo(np.float32).tiny))
    profiles = (front.max(axis=1), front.max(axis=0), side)
    return [_box([profile[:, c] >= floor for profile in profiles]) for c in range(shape[3])]


def _box(hits: Sequence[np.ndarray]) -> Box | None:
    if not all(hit.any() for hit in hits):
        return None
    places = [np.flatnonzero(hit) for hit in hits]
    spans = [slice(int(place[0]), int(place[-1]) + 1) for place in places]
    return spans[0], spans[1], spans[2]


def _argmax_aligned(
    posteriors: np.ndarray,
    mapping: Aligned,
    boxes: Sequence[Box | None],
    span: slice,
    outside: int,
    out: np.ndarray,
) -> None:
    """Fill ``out``, the planes ``span`` of the target, for grids with parallel axes."""
    maps = [mapping.maps[0].part(span), mapping.maps[1], mapping.maps[2]]
    turned = posteriors.transpose(*mapping.axes, 3)
    best = np.full(out.shape, -np.inf, dtype=np.float32)
    for channel, box in enumerate(boxes):
        if box is None:
            continue
        region = tuple(m.touching(box[axis]) for m, axis in zip(maps, mapping.axes, strict=True))
        if any(part.start == part.stop for part in region):
            continue
        values = linear_aligned(turned[..., channel], [m.part(part) for m, part in zip(maps, region, strict=True)])
        _keep_larger(values, channel, best[region], out[region])
    fill_outside(out, maps, outside)


def _argmax_oblique(
    posteriors: np.ndarray, matrix: np.ndarray, boxes: Sequence[Box | None], start: int, outside: int, out: np.ndarray
) -> None:
    """Fill ``out``, planes of the target from ``start`` on, for grids with other axes."""
    best = np.full(out.shape, -np.inf, dtype=np.float32)
    inverse = np.linalg.inv(matrix)
    for channel, box in enumerate(boxes):
        region = None if box is None else _reach(box, inverse, start, out.shape, posteriors.shape)
        if region is None:
            continue
        corner = (start + region[0].start, region[1].start, region[2].start)
        size = [part.stop - part.start for part in region]
        values = sample_scipy(posteriors[..., channel], matrix, corner, size, 1)
        _keep_larger(values, channel, best[region], out[region])
    out[~inside_mask(matrix, (start, 0, 0), out.shape, posteriors.shape[:3])] = outside


def _reach(box: Box, inverse: np.ndarray, start: int, shape: Sequence[int], source_shape: Sequence[int]) -> Box | None:
    """Return the part of a slab of the target that draws on the voxels of ``box``, None for no part."""
    # a voxel is drawn on by samples less than one voxel away; at an edge also by those in the margin, which is nearer
    low = np.array([part.start - 1 for part in box], dtype=np.float64)
    high = np.array([part.stop for part in box], dtype=np.float64)
    points = np.array([[(low, high)[(corner >> axis) & 1][axis] for axis in range(3)] for corner in range(8)])
    placed = points @ inverse[:3, :3].T + inverse[:3, 3] - (start, 0, 0)
    first = np.clip(np.floor(placed.min(axis=0)), 0, shape).astype(int)
    last = np.clip(np.ceil(placed.max(axis=0)) + 1, 0, shape).astype(int)
    if (first >= last).any():
        return None
    return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])


def _keep_larger(values: np.ndarray, channel: int, best: np.ndarray, out: np.ndarray) -> None:
    """Update the running maximum and its channel where ``values`` are larger; arrays of one shape, in place."""
    larger = values > best
    np.copyto(best, values, where=larger)
    np.copyto(out, channel, where=larger, casting="unsafe")
