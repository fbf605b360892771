"""Cutting a volume into patches that touch the mask, and putting results back, as published (no overlap).

Each axis is padded with zeros to the next multiple of the patch edge, the smaller half in front; patches are numbered
with the first axis slowest. The zeros take part in the statistics of the network's spatial normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["PatchGrid"]


@dataclass(frozen=True)
class PatchGrid:
    """Where the patches of a volume lie.

    Parameters
    ----------
    mask :
        (X, Y, Z); patches without a non-zero voxel are left out.
    edge :
        Edge of a patch in voxels.

    """

    mask: np.ndarray
    edge: int = 10
    padding: tuple[tuple[int, int], ...] = field(init=False)
    kept: np.ndarray = field(init=False)
    """For each patch in raster order, whether it touches the mask."""

    def __post_init__(self) -> None:
        """Lay the grid."""
        total = [-n % self.edge for n in self.mask.shape]
        object.__setattr__(self, "padding", tuple((p // 2, p - p // 2) for p in total))
        blocks = self._blocks(np.pad(self.mask != 0, self.padding)[..., None])
        object.__setattr__(self, "kept", blocks.any(axis=(1, 2, 3, 4)))

    def __len__(self) -> int:
        """Return the number of patches that are kept."""
        return int(self.kept.sum())

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of patches along each axis."""
        return tuple((n + sum(p)) // self.edge for n, p in zip(self.mask.shape, self.padding, strict=True))

    def take(self, data: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return patches (P, C, x, y, z) of an array (X, Y, Z, C); ``which`` numbers the kept patches from 0."""
        numbers = np.flatnonzero(self.kept)[which]
        out = np.zeros((len(numbers), data.shape[3], *[self.edge] * 3), dtype=data.dtype)
        for patch, number in zip(out, numbers, strict=True):
            source, inner = self._place(int(number))
            patch[(slice(None), *inner)] = np.moveaxis(data[source], 3, 0)
        return out

    def put(self, out: np.ndarray, patches: np.ndarray, which: np.ndarray) -> None:
        """Write patches (P, C, x, y, z) into an array (X, Y, Z, C); what lies in the padding is dropped."""
        for patch, number in zip(patches, np.flatnonzero(self.kept)[which], strict=True):
            source, inner = self._place(int(number))
            out[source] = np.moveaxis(patch[(slice(None), *inner)], 0, 3)

    def _place(self, number: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return what a patch covers of the volume, and which part of the patch that is."""
        source, inner = [], []
        for index, n, (before, _) in zip(
            np.unravel_index(number, self.counts), self.mask.shape, self.padding, strict=True
        ):
            start = int(index) * self.edge - before
            low, high = max(start, 0), min(start + self.edge, n)
            source.append(slice(low, high))
            inner.append(slice(low - start, high - start))
        return tuple(source), tuple(inner)

    def _blocks(self, padded: np.ndarray) -> np.ndarray:
        a, b, c = self.counts
        edge = self.edge
        blocks = padded.reshape(a, edge, b, edge, c, edge, -1).transpose(0, 2, 4, 1, 3, 5, 6)
        return blocks.reshape(a * b * c, edge, edge, edge, -1)
