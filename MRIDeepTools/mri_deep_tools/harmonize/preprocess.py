"""The published preparation of a skull-stripped brain: median normalisation, crop, and the intensities of the networks.

Grid: the FSL MNI152 1 mm grid, 182 x 218 x 182 voxels, X towards the left. Stored intensities have a brain median of
500 and a background of exactly 0; a network sees x / 500 - 1 in the brain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..geometry import Crop, Grid

__all__ = [
    "MEDIAN",
    "TEMPLATE_GRID",
    "crop_box",
    "from_network",
    "median_normalise",
    "to_network",
]

MEDIAN = 500.0
TEMPLATE_GRID = Grid((182, 218, 182), np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]]))

# Per axis: size of the grid, size wanted, least margin that is centred, and the window used when the brain is larger.
_AXES = ((182, 160, 11, 3, 176), (218, 192, 13, 5, 208), (182, 160, 11, 3, 176))


def crop_box(data: np.ndarray) -> Crop:
    """Return the published crop of an image (182, 218, 182) by its margins of zeros.

    160 x 192 x 160 voxels; on an axis where the brain does not fit, the fixed central 176 or 208, which may cut it.

    Raises
    ------
    InputError : another size, or nothing but zeros.

    """
    if data.shape != TEMPLATE_GRID.shape:
        sides = "x".join(map(str, data.shape))
        raise InputError(f"an image of {sides} voxels is not on the template's grid", "register it first")
    content = data != 0
    if not content.any():
        raise InputError("the registered image holds no brain", "check the brain mask and the registration")
    start, stop = [], []
    for axis, numbers in enumerate(_AXES):
        planes = np.flatnonzero(content.any(axis=tuple(k for k in range(3) if k != axis)))
        first, size = _window(int(planes[0]), numbers[0] - 1 - int(planes[-1]), numbers)
        start.append(first)
        stop.append(first + size)
    return Crop((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]), TEMPLATE_GRID.shape)


def median_normalise(data: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Scale an image so that its median where ``mask`` > 0 is 500; float32, and the median it had.

    Raises
    ------
    InputError : the mask is empty, or the median is not positive.

    """
    inside = data[mask > 0]
    median = float(np.median(inside.astype(np.float64))) if inside.size else 0.0
    if not median > 0:
        raise InputError("the median inside the brain mask is not positive", "check the image and the mask")
    return (data / np.float64(median) * MEDIAN).astype(np.float32), median


def to_network(data: np.ndarray, unit: float = MEDIAN, background: float = 0.0) -> np.ndarray:
    """Return what a network sees of a prepared image: x / unit - 1 where x > 0, ``background`` elsewhere; float32."""
    values = (data.astype(np.float64) / unit - 1.0).astype(np.float32)
    values[~(data > 0)] = background
    return values


def from_network(made: np.ndarray, data: np.ndarray, unit: float = MEDIAN) -> np.ndarray:
    """Return stored intensities of a network's output; 0 outside the brain of ``data``, never negative; float32."""
    values = ((made.astype(np.float64) + 1.0) * unit).astype(np.float32)
    values[~(data > 0)] = 0
    return np.maximum(values, 0, out=values)


def _window(before: int, after: int, numbers: Sequence[int]) -> tuple[int, int]:
    """Return first voxel and size of an axis whose margins of zeros are ``before`` and ``after``."""
    count, size, centred, fallback, fallback_size = numbers
    if before + after < count - size:
        return fallback, fallback_size
    if before < centred:
        return before, size
    return (count - size - after if after < centred else centred), size
