"""From network posteriors to labels and volumes: smoothing, clean-up, normalisation, arg-max, parcels.

Posteriors are held channel first, (C, X, Y, Z) float32, RAS-ordered, and are changed in place, since they are the
largest thing in memory. Rules and thresholds are those of Billot et al. (2023); see the functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Box",
    "argmax_channels",
    "bounding_box",
    "channel_volumes",
    "hard_labels",
    "keep_brain_",
    "keep_structures_",
    "largest_component",
    "normalise_",
    "smooth_",
    "smooth_planes",
    "smoothing_weights",
    "threshold_",
]

Box = tuple[slice, slice, slice]

BRAIN_THRESHOLD = 0.25  # a voxel is brain when its foreground posteriors add up to more than this
STRUCTURE_THRESHOLD = 0.25  # and belongs to a structure when one of its channels exceeds this
FAST_THRESHOLD = 0.2  # what replaces the clean-up of structures in fast and robust mode
SMOOTHING_SIGMA = 0.5  # voxels

_DUST_FACTOR = np.float32(2.0**64)
_SLAB_BYTES = 2 << 20  # pieces that stay in the processor's cache


def _slabs(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ranges of planes of a float32 array (X, Y, Z) whose piece is about ``_SLAB_BYTES``."""
    step = max(1, _SLAB_BYTES // max(1, 4 * shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def smoothing_weights(sigma: float = SMOOTHING_SIGMA) -> np.ndarray:
    """Return the normalised 1-D Gaussian weights, 2 * int(ceil(2.5 sigma) / 2) + 1 of them, as published."""
    half = int(np.ceil(2.5 * sigma) / 2)
    weights = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def smooth_(posteriors: np.ndarray, factor: float = 1.0) -> None:
    """Convolve each channel with a 3x3x3 Gaussian (sigma 0.5), zero outside, in place, and multiply by ``factor``.

    ``posteriors`` is (C, X, Y, Z) float32. Values dip at the array's border, as published.
    """
    import torch
    import torch.nn.functional as F

    with torch.inference_mode():
        for channel in posteriors:
            x = torch.from_numpy(channel)
            before = x.new_zeros((1, *x.shape[1:]))
            for start, stop in _slabs(x.shape):
                planes = torch.cat([before, F.pad(x[start : stop + 1], (0,) * 5 + (int(stop == len(x)),))])
                before = x[stop - 1 : stop].clone()
                x[start:stop] = smooth_planes(planes, factor)


def smooth_planes(planes: Tensor, factor: float = 1.0) -> Tensor:
    """Smooth (..., n + 2, Y, Z) planes, of which the first and the last are neighbours only; returns (..., n, Y, Z)."""
    import torch.nn.functional as F

    side, centre, _ = smoothing_weights().tolist()
    ratio = side / centre
    x = F.pad(planes, (1, 1, 1, 1))
    x = x[..., 1:-1].add(x[..., :-2] + x[..., 2:], alpha=ratio)
    x = x[..., 1:-1, :].add(x[..., :-2, :] + x[..., 2:, :], alpha=ratio)
    x = x[..., 1:-1, :, :].add(x[..., :-2, :, :] + x[..., 2:, :, :], alpha=ratio)
    return x.mul_(centre**3 * factor)


def bounding_box(mask: np.ndarray) -> Box | None:
    """Return the smallest box that holds every true voxel of a (X, Y, Z) mask, or None when there is none."""
    box = []
    for axes in ((1, 2), (0, 2), (0, 1)):
        hit = np.flatnonzero(mask.any(axis=axes))
        if not len(hit):
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return box[0], box[1], box[2]


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the 6-connected component with most voxels (bool); of equal ones the first in scan order.

    An empty mask comes back empty.
    """
    from scipy.ndimage import label

    box = bounding_box(mask)
    result = np.zeros(mask.shape, dtype=bool)
    if box is not None:
        labels, count = label(mask[box])
        if count == 1:
            result[box] = mask[box]
        else:
            result[box] = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return result


def keep_brain_(posteriors: np.ndarray) -> Box:
    """Zero all foreground outside the largest component of brain, and return the box of what is left.

    Where no voxel is brain, all foreground becomes zero and the box is empty.
    """
    mask = np.empty(posteriors.shape[1:], dtype=bool)
    for start, stop in _slabs(mask.shape):
        total = posteriors[1, start:stop].copy()
        for channel in posteriors[2:]:
            total += channel[start:stop]
        mask[start:stop] = total > BRAIN_THRESHOLD
    kept = largest_component(mask)
    box = bounding_box(kept)
    if box is None:
        posteriors[1:] = 0
        return slice(0, 0), slice(0, 0), slice(0, 0)
    x, y, z = box
    for channel in posteriors[1:]:
        channel[: x.start], channel[x.stop :] = 0, 0
        channel[x, : y.start], channel[x, y.stop :] = 0, 0
        channel[x, y, : z.start], channel[x, y, z.stop :] = 0, 0
        channel[box] *= kept[box]
    return box


def keep_structures_(posteriors: np.ndarray, classes: Sequence[int], box: Box) -> None:
    """Keep, of each class of channels, the largest component above the threshold; ``classes`` 0 is left alone.

    Voxels of a class at or below the threshold become zero even where they touch the component. Only ``box`` is
    looked at: the foreground must be zero outside.
    """
    for number in sorted(set(classes) - {0}):
        channels = [index for index, value in enumerate(classes) if value == number]
        mask = posteriors[(channels[0], *box)] > STRUCTURE_THRESHOLD
        for channel in channels[1:]:
            mask |= posteriors[(channel, *box)] > STRUCTURE_THRESHOLD
        kept = largest_component(mask)
        for channel in channels:
            posteriors[(channel, *box)] *= kept


def threshold_(posteriors: np.ndarray, box: Box) -> None:
    """Zero every foreground posterior at or below 0.2 inside ``box`` (fast and robust mode)."""
    for channel in posteriors[1:]:
        piece = channel[box]
        piece *= piece > FAST_THRESHOLD


def normalise_(posteriors: np.ndarray, *, compatible: bool = False) -> None:
    """Divide by the sum over channels. A voxel that lost every channel becomes background.

    ``compatible`` leaves such voxels not-a-number, as the published program does.
    """
    for start, stop in _slabs(posteriors.shape[1:]):
        total = posteriors[0, start:stop].copy()
        for channel in posteriors[1:]:
            total += channel[start:stop]
        empty = total == 0
        dust = (total < np.finfo(total.dtype).tiny) & ~empty  # the reciprocal would be infinite
        if dust.any():
            total[dust] *= _DUST_FACTOR
            for channel in posteriors:
                channel[start:stop][dust] *= _DUST_FACTOR
        if empty.any() and not compatible:
            posteriors[0, start:stop][empty] = 1
            total[empty] = 1
        with np.errstate(invalid="ignore", divide="ignore"):
            np.reciprocal(total, out=total)
            for channel in posteriors:
                channel[start:stop] *= total


def argmax_channels(posteriors: np.ndarray) -> np.ndarray:
    """Return the channel of the highest posterior, (X, Y, Z) uint8; of equal ones the lowest, NaN counts as none."""
    shape = posteriors.shape[1:]
    result = np.zeros(shape, dtype=np.uint8)
    for start, stop in _slabs(shape):
        best, index = posteriors[0, start:stop].copy(), result[start:stop]
        for number, channel in enumerate(posteriors[1:], start=1):
            piece = channel[start:stop]
            higher = piece > best
            if higher.any():
                np.copyto(index, number, where=higher)
                np.maximum(best, piece, out=best)
    return result


def hard_labels(posteriors: np.ndarray, codes: Sequence[int]) -> np.ndarray:
    """Return the label code of the highest posterior, (X, Y, Z) int32."""
    return np.asarray(codes, dtype=np.int32)[argmax_channels(posteriors)]


def channel_volumes(posteriors: np.ndarray, voxel_volume: float) -> np.ndarray:
    """Return the soft volume of channels 1 and up: sum of posteriors times mm^3 per voxel, float64, not rounded."""
    sums = [float(channel.sum(axis=(1, 2)).astype(np.float64).sum()) for channel in posteriors[1:]]
    return np.asarray(sums) * voxel_volume
