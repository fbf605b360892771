"""Random rotations and shifts of training images, for the harmonization and the prediction networks alike.

Roca et al., Medical Image Analysis 99 (2025) 103388. Images are (X, Y, Z) with a background of exactly -1, which is how
trainings tell brain from background. The published rotation interpolates with cubic splines across the edge of the
brain, which leaves thousands of background voxels a little above -1: they then count as brain. Here the mask is rotated
as well and -1 is written outside it; ``compatible`` keeps the published behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["BACKGROUND", "augment", "rotate", "shift"]

BACKGROUND = -1.0
LARGEST_ANGLE = 10.0  # degrees
LARGEST_SHIFT = 5  # voxels
ROTATED = 0.5  # share of images
PLANES = ((0, 1), (0, 2), (1, 2))
_DARKEST = np.nextafter(np.float32(BACKGROUND), np.float32(0))


def augment(image: np.ndarray, rng: np.random.Generator, *, compatible: bool = False) -> np.ndarray:
    """Rotate half of the images by up to 10 degrees in a random plane, and shift all by up to 5 voxels per axis.

    Parameters
    ----------
    image : (X, Y, Z), background -1.
    rng : all draws come from it, the same number of them whatever is drawn.
    compatible : let the rotation leak, as published.

    """
    chance, angle = rng.random(), rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE)
    plane = PLANES[rng.integers(len(PLANES))]
    offsets = rng.integers(-LARGEST_SHIFT, LARGEST_SHIFT + 1, size=3)
    if chance < ROTATED:
        image = rotate(image, plane, float(angle), compatible=compatible)
    return shift(image, offsets.tolist())


def rotate(image: np.ndarray, plane: Sequence[int], angle: float, *, compatible: bool = False) -> np.ndarray:
    """Rotate (X, Y, Z) by ``angle`` degrees in the plane of two axes, with cubic splines; float32, same shape.

    Unless ``compatible``, the background stays exactly -1 and the brain stays above it.
    """
    from scipy import ndimage

    axes = (int(plane[0]), int(plane[1]))
    image = image.astype(np.float32, copy=False)
    turned = ndimage.rotate(image, angle, axes=axes, reshape=False, mode="constant", cval=BACKGROUND)
    if compatible:
        return np.asarray(turned)
    mask = (image > BACKGROUND).astype(np.uint8)
    inside = ndimage.rotate(mask, angle, axes=axes, reshape=False, order=0, mode="constant", cval=0) > 0
    return np.where(inside, np.maximum(turned, _DARKEST), np.float32(BACKGROUND))


def shift(image: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
    """Move (X, Y, Z) by whole voxels, towards larger indices where positive; -1 comes in. A new array."""
    out = np.full_like(image, BACKGROUND)
    source, target = [], []
    for offset, side in zip(offsets, image.shape, strict=True):
        step = int(np.clip(offset, -side, side))
        source.append(slice(max(-step, 0), side - max(step, 0)))
        target.append(slice(max(step, 0), side - max(-step, 0)))
    out[tuple(target)] = image[tuple(source)]
    return out
