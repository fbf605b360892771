"""Resolution: how a scan of thicker slices or larger voxels looks on the fine grid (section 5, step 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import ArrayLike

from .draws import Draws
from .spatial import resize_linear

__all__ = ["blur", "blurring_sigma", "draw_resolution", "gaussian_kernel", "mimic_acquisition"]

SIGMA_JITTER = 1.03
P_MINIMUM = 0.05
P_ALL_AXES = 0.1


def gaussian_kernel(sigma: float, max_sigma: float | None = None) -> np.ndarray:
    """Return a normalised 1-D Gaussian of 2 * int(ceil(2.5 * max_sigma) / 2) + 1 taps."""
    half = int(math.ceil(2.5 * (sigma if max_sigma is None else max_sigma)) / 2)
    x = np.arange(-half, half + 1, dtype=np.float64)
    kernel = np.exp(-0.5 * (x / max(sigma, 1e-6)) ** 2)
    return kernel / kernel.sum()


def blur(image: torch.Tensor, sigma: Sequence[float], max_sigma: Sequence[float] | None = None) -> torch.Tensor:
    """Blur (X, Y, Z) with a separable Gaussian (sigma in voxels per axis) and zero padding."""
    result = image[None, None]
    for axis, value in enumerate(sigma):
        kernel = gaussian_kernel(value, None if max_sigma is None else max_sigma[axis])
        if kernel.size == 1:
            continue
        form = [1, 1, 1, 1, 1]
        form[axis + 2] = kernel.size
        weight = torch.as_tensor(kernel, dtype=image.dtype, device=image.device).view(form)
        padding = [0, 0, 0]
        padding[axis] = kernel.size // 2
        result = nnf.conv3d(result, weight, padding=padding)
    return result[0, 0]


def blurring_sigma(
    current: ArrayLike,
    target: ArrayLike,
    thickness: ArrayLike | None = None,
    factor: float | None = None,
) -> np.ndarray:
    """Return the blur, in voxels of the current grid, that stands for a coarser acquisition.

    sigma = 0.75 * d / current with d = min(target, thickness), and 0.5 where d equals the current voxel size; a given
    ``factor`` takes the place of 0.75 everywhere. All sizes in mm.
    """
    now = np.asarray(current, float)
    size = np.asarray(target, float)
    if thickness is not None:
        size = np.minimum(size, np.asarray(thickness, float))
    if factor is not None:
        return factor * size / now
    return np.where(size == now, 0.5, 0.75 * size / now)


def draw_resolution(
    minimum: ArrayLike, max_iso: float, max_aniso: float, draws: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a resolution and a slice thickness per axis, in mm.

    With probability 0.05 the finest; else with probability 0.1 each axis on its own in U(min, max_iso); else one random
    axis in U(min, max_aniso). The thickness is U(min, resolution).
    """
    finest = np.asarray(minimum, float)
    resolution = finest.copy()
    if not draws.chance(P_MINIMUM):
        if draws.chance(P_ALL_AXES):
            resolution = draws.array(finest, max_iso)
        else:
            axis = draws.integer(3)
            resolution[axis] = draws.uniform(finest[axis], max_aniso)
    return resolution, draws.array(finest, resolution)


def jitter(sigma: np.ndarray, draws: Draws) -> np.ndarray:
    """Multiply each sigma by U(1/1.03, 1.03)."""
    return sigma * draws.array(np.full(3, 1 / SIGMA_JITTER), SIGMA_JITTER)


def _nearest_index(count: int, low: int, device: torch.device) -> torch.Tensor:
    # One sample beyond the last one (it lands on the last voxel) closes the final interval, as in the original.
    position = torch.arange(low + 1, device=device, dtype=torch.float32) / (low / count)
    return position.clamp(0, count).round().clamp(max=count - 1).long()


def acquired_shape(shape: Sequence[int], current: Sequence[float], resolution: Sequence[float]) -> list[int]:
    """Return how many samples an acquisition takes per axis: int(n * current / resolution), at least 1."""
    return [max(int(n * c / r), 1) for n, c, r in zip(shape, current, resolution, strict=True)]


def mimic_acquisition(
    image: torch.Tensor,
    current: Sequence[float],
    resolution: Sequence[float],
    output_shape: Sequence[int],
    noise_std: float = 0.0,
    draws: Draws | None = None,
) -> torch.Tensor:
    """Take samples of (X, Y, Z) at a coarser resolution (mm) and bring them back linearly to ``output_shape``."""
    low = acquired_shape(image.shape, current, resolution)
    for axis, count in enumerate(low):
        if count != image.shape[axis]:
            image = image.index_select(axis, _nearest_index(image.shape[axis], count, image.device))
    if noise_std > 0 and draws is not None:
        image = image + noise_std * draws.noise(image.shape)
    return resize_linear(image, output_shape, low)


def distance_to_samples(
    shape: Sequence[int], current: Sequence[float], resolution: Sequence[float], output_shape: Sequence[int]
) -> torch.Tensor:
    """Return the distance in mm of every output voxel to the nearest acquired sample, (X, Y, Z) float32."""
    low = acquired_shape(shape, current, resolution)
    squares = []
    for axis, (count, size) in enumerate(zip(low, resolution, strict=True)):
        position = torch.arange(output_shape[axis], dtype=torch.float32) / (output_shape[axis] / count)
        position = position.clamp(0, count)
        part = torch.minimum(position - position.floor(), position.ceil() - position) * size
        form = [1, 1, 1]
        form[axis] = -1
        squares.append(part.square().view(form))
    return (squares[0] + squares[1] + squares[2]).sqrt()
