"""Cortical parcellation (S3): 68 Desikan-Killiany parcels inside the cortex of a finished segmentation.

Billot et al., PNAS 120(9) (2023). The 69 posteriors are never held for the whole volume: they are smoothed, normalised,
summed and reduced to the best parcel a few planes at a time. What the way back to the scan's own grid needs, posteriors
in and beside the cortex, is kept in half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .engine import UNetEngine
from .labels import PARCEL_CODES
from .postprocess import Box, smooth_planes

__all__ = ["CORTEX_CODES", "ParcelStore", "Parcels", "paint_parcels", "parcellate"]

CORTEX_CODES = (3, 42)
_PLANES = 8  # planes that are worked on at a time
_CHUNK = 1 << 16  # points of one interpolation


@dataclass(frozen=True)
class ParcelStore:
    """Parcel posteriors near the cortex: ``rows`` (X, Y, Z) int32, -1 = none; ``values`` (n, 68) float16."""

    rows: np.ndarray
    values: np.ndarray

    def best(self, points: np.ndarray) -> np.ndarray:
        """Return the parcel channel (1 to 68) at voxel coordinates (n, 3) after linear interpolation; 0 = none near."""
        result = np.zeros(len(points), dtype=np.uint8)
        limit = np.asarray(self.rows.shape) - 1
        for start in range(0, len(points), _CHUNK):
            at = np.clip(points[start : start + _CHUNK], 0, limit)
            low = np.minimum(at.astype(np.intp), np.maximum(limit - 1, 0))
            fraction = (at - low).astype(np.float32)
            total = np.zeros((len(at), self.values.shape[1]), dtype=np.float32)
            for corner in np.ndindex(2, 2, 2):
                weight = np.prod(np.where(corner, fraction, 1 - fraction), axis=1)
                x, y, z = np.minimum(low + corner, limit).T
                rows = self.rows[x, y, z]
                hit = rows >= 0
                total[hit] += weight[hit, None] * self.values[rows[hit]]
            best = total.argmax(axis=1)
            result[start : start + _CHUNK] = np.where(total.any(axis=1), best + 1, 0)
        return result


@dataclass(frozen=True)
class Parcels:
    """Result of the parcellation on the segmentation's grid.

    ``channels`` (X, Y, Z) uint8: parcel channel inside the cortex, 0 elsewhere and where no parcel has any posterior;
    ``sums`` (68,) float64: posteriors summed over the volume, in voxels; ``store``: for other grids, when kept.
    """

    channels: np.ndarray
    sums: np.ndarray
    store: ParcelStore | None


def parcellate(
    engine: UNetEngine,
    image: np.ndarray,
    cortex: np.ndarray,
    labels: np.ndarray,
    inside: Box,
    *,
    smooth: bool = True,
    keep: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Parcels:
    """Run the parcellation network.

    Parameters
    ----------
    engine : of the network with 3 inputs and 69 outputs.
    image : (X, Y, Z) float32 network input, padded.
    cortex : (X, Y, Z) bool, padded grid: where the arg-max of the segmentation network is cortex.
    labels : final labels on the unpadded grid; parcels go where they are 3 or 42.
    inside : where the unpadded grid lies in the padded one.
    smooth : smooth the posteriors (the published program does not when quality scores are asked for as well).
    keep : keep posteriors near the cortex for :meth:`ParcelStore.best`.

    """
    reducer = _Reducer(np.isin(labels, CORTEX_CODES), inside, keep=keep)
    tensor = torch.from_numpy(image)
    mask = torch.from_numpy(cortex)
    stream = _PlaneStream(len(PARCEL_CODES), image.shape, smooth=smooth, take=reducer)
    engine.run(torch.stack([tensor, (~mask).float(), mask.float()]), stream, progress)
    return reducer.result()


def paint_parcels(labels: np.ndarray, channels: np.ndarray) -> None:
    """Replace cortex labels by parcel codes where a parcel channel is given, in place."""
    hit = channels > 0
    labels[hit] = np.asarray(PARCEL_CODES, dtype=labels.dtype)[channels[hit]]


class _PlaneStream:
    """Takes logits voxel by voxel, in order, and hands on smoothed posteriors of whole planes."""

    def __init__(
        self, count: int, shape: tuple[int, ...], *, smooth: bool, take: Callable[[int, Tensor], None]
    ) -> None:
        self._size, self._plane, self._smooth, self._take = shape[0], shape[1] * shape[2], smooth, take
        self._raw = torch.zeros(count, _PLANES + 2, *shape[1:])  # one plane before, the planes, one plane after
        self._flat = self._raw.flatten(1)
        self._base = 0  # number of the first plane to hand on; it lies at position 1

    def __call__(self, start: int, stop: int, logits: Tensor) -> None:
        """Take logits (C, stop - start) of flattened voxels."""
        values = torch.softmax(logits, dim=0).cpu()
        while start < stop:
            at = start - (self._base - 1) * self._plane
            count = min(stop - start, self._flat.shape[1] - at)
            self._flat[:, at : at + count] = values[:, :count]
            values, start = values[:, count:], start + count
            if at + count == self._flat.shape[1]:
                self._flush(_PLANES)
                self._raw[:, :2] = self._raw[:, -2:].clone()
                self._base += _PLANES
        if stop == self._size * self._plane and self._base < self._size:
            left = self._size - self._base
            self._raw[:, left + 1 :] = 0
            self._flush(left)
            self._base = self._size

    def _flush(self, count: int) -> None:
        planes = self._raw[:, : count + 2]
        self._take(self._base, smooth_planes(planes) if self._smooth else planes[:, 1:-1].clone())


class _Reducer:
    """Turns posteriors of planes into sums, best parcels and, when asked, stored values."""

    def __init__(self, mask: np.ndarray, inside: Box, *, keep: bool) -> None:
        from scipy.ndimage import binary_dilation

        self._mask, self._inside = mask, inside
        self._channels = np.zeros(mask.shape, dtype=np.uint8)
        self._sums = np.zeros(len(PARCEL_CODES) - 1)
        self._near = binary_dilation(mask, np.ones((3, 3, 3), dtype=bool)) if keep else None
        self._kept: list[np.ndarray] = []

    def __call__(self, first: int, planes: Tensor) -> None:
        """Take posteriors (69, n, Y, Z) of padded planes ``first`` and on."""
        x, y, z = self._inside
        start, stop = max(first, x.start), min(first + planes.shape[1], x.stop)
        if start >= stop:
            return
        values = planes[:, start - first : stop - first, y, z]
        rows = slice(start - x.start, stop - x.start)
        mask = torch.from_numpy(self._mask[rows])
        values[0] = (~mask).float()
        total = values.sum(dim=0)
        values = values[1:] / torch.where(total > 0, total, 1.0)
        self._sums += values.sum(dim=(2, 3)).double().sum(dim=1).numpy()
        inside = values[:, mask]
        best = torch.where(inside.amax(dim=0) > 0, inside.argmax(dim=0) + 1, 0)
        self._channels[rows][mask.numpy()] = best.to(torch.uint8).numpy()
        if self._near is not None:
            self._kept.append(values[:, torch.from_numpy(self._near[rows])].T.half().contiguous().numpy())

    def result(self) -> Parcels:
        """Return everything taken so far."""
        store = None
        if self._near is not None:
            rows = np.full(self._near.shape, -1, dtype=np.int32)
            rows[self._near] = np.arange(np.count_nonzero(self._near), dtype=np.int32)
            store = ParcelStore(rows, np.concatenate(self._kept))
        return Parcels(self._channels, self._sums, store)
