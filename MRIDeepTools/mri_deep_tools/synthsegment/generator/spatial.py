"""Spatial deformation: affine, diffeomorphic field, resizing and flipping (section 5, step 1 to 3).

Positions are voxel coordinates. All resizing is corner-aligned: output index i reads input position i * old / new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import ArrayLike

__all__ = [
    "affine_matrix",
    "flip_labels",
    "integrate_velocity",
    "pull_back_positions",
    "resize_linear",
    "resize_nearest",
    "sample_linear",
    "sample_nearest",
]


def rotation_matrix(degrees: ArrayLike) -> np.ndarray:
    """Return Rx @ Ry @ Rz for three angles in degrees."""
    cx, cy, cz = np.cos(np.deg2rad(degrees))
    sx, sy, sz = np.sin(np.deg2rad(degrees))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return x @ y @ z


def shearing_matrix(values: ArrayLike) -> np.ndarray:
    """Return a matrix with ones on the diagonal and six off-diagonal entries in row-major order."""
    matrix = np.eye(3)
    matrix[~np.eye(3, dtype=bool)] = values
    return matrix


def affine_matrix(
    rotation: ArrayLike | None = None,
    shearing: ArrayLike | None = None,
    scaling: ArrayLike | None = None,
    translation: ArrayLike | None = None,
) -> np.ndarray:
    """Return the (4, 4) matrix scaling @ shearing @ rotation with a translation in voxels; None leaves a part out."""
    matrix = np.eye(4)
    linear = np.eye(3)
    if scaling is not None:
        linear = linear @ np.diag(np.asarray(scaling, float))
    if shearing is not None:
        linear = linear @ shearing_matrix(shearing)
    if rotation is not None:
        linear = linear @ rotation_matrix(rotation)
    matrix[:3, :3] = linear
    if translation is not None:
        matrix[:3, 3] = translation
    return matrix


def _positions(old: int, new: int, device: torch.device) -> torch.Tensor:
    return torch.arange(new, device=device, dtype=torch.float32) * (old / new)


def resize_linear(volume: torch.Tensor, shape: Sequence[int], extent: Sequence[int] | None = None) -> torch.Tensor:
    """Resize the last three axes of (..., X, Y, Z) linearly, clamped at the border.

    ``extent`` is the length that each axis stands for when it differs from its number of samples.
    """
    for axis, new in zip((-3, -2, -1), shape, strict=True):
        old = volume.shape[axis]
        span = old if extent is None else extent[axis]
        if span == new == old:
            continue
        position = _positions(span, new, volume.device).clamp(max=old - 1)
        low = position.floor()
        weight = position - low
        low_index = low.long()
        high_index = (low_index + 1).clamp(max=old - 1)
        form = [1] * volume.ndim
        form[axis] = new
        weight = weight.view(form)
        below = volume.index_select(axis, low_index)
        volume = torch.lerp(below, volume.index_select(axis, high_index), weight)
    return volume


def resize_nearest(volume: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resize the last three axes of (..., X, Y, Z) by nearest neighbour (ties to even), clamped at the border."""
    for axis, new in zip((-3, -2, -1), shape, strict=True):
        old = volume.shape[axis]
        if old != new:
            index = _positions(old, new, volume.device).round().clamp(0, old - 1).long()
            volume = volume.index_select(axis, index)
    return volume


def sample_nearest(volume: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Read (X, Y, Z) at positions (3, ...) by nearest neighbour (ties to even), clamped at the border."""
    _, height, depth = volume.shape
    index = torch.zeros(positions.shape[1:], dtype=torch.long, device=volume.device)
    for axis, stride in enumerate((height * depth, depth, 1)):
        index += positions[axis].round().clamp_(0, volume.shape[axis] - 1).long() * stride
    return volume.reshape(-1)[index]


def sample_linear(volume: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Read (C, X, Y, Z) at positions (3, X', Y', Z') linearly, clamped at the border; in the dtype of the volume."""
    sizes = torch.tensor(volume.shape[1:], dtype=positions.dtype, device=positions.device).view(3, 1, 1, 1)
    grid = positions * (2 / (sizes - 1).clamp(min=1)) - 1
    grid = grid.flip(0).permute(1, 2, 3, 0)[None].to(volume.dtype)
    return nnf.grid_sample(volume[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]


def identity_grid(shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the (3, X, Y, Z) voxel coordinates of a grid."""
    axes = [torch.arange(n, device=device, dtype=torch.float32) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def integrate_velocity(velocity: torch.Tensor, steps: int = 7) -> torch.Tensor:
    """Integrate a stationary velocity field (3, X, Y, Z) in voxels by scaling and squaring."""
    grid = identity_grid(velocity.shape[1:], velocity.device)
    field = velocity / 2**steps
    for _ in range(steps):
        field = field + sample_linear(field, grid + field)
    return field


def half_shape(shape: Sequence[int], small: Sequence[int]) -> list[int]:
    """Return the grid on which a velocity field is integrated: half of the image, never below the small field."""
    return [max(int(n / 2), s) for n, s in zip(shape, small, strict=True)]


def small_shape(shape: Sequence[int], scale: float) -> list[int]:
    """Return the shape of a small random field: ceil(n * scale) per axis."""
    return [math.ceil(n * scale) for n in shape]


def field_from_velocity(small: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Turn a small random velocity (3, x, y, z) into a displacement (3, X, Y, Z); values are not rescaled."""
    half = resize_linear(small, half_shape(shape, small.shape[1:]))
    return resize_linear(integrate_velocity(half), shape)


def pull_back_positions(
    shape: Sequence[int], affine: np.ndarray | None, field: torch.Tensor | None, device: torch.device
) -> torch.Tensor:
    """Return the positions (3, X, Y, Z) that each output voxel p reads: c + A (p - c + u(p)) + t, c = (shape-1)/2."""
    grid = identity_grid(shape, device)
    if field is not None:
        grid = grid + field
    if affine is None:
        return grid
    centre = torch.tensor([(n - 1) / 2 for n in shape], device=device, dtype=torch.float32)
    linear = torch.as_tensor(affine[:3, :3], dtype=torch.float32, device=device)
    shift = torch.as_tensor(affine[:3, 3], dtype=torch.float32, device=device)
    offset = centre + shift - linear @ centre
    return (linear @ grid.reshape(3, -1)).reshape(grid.shape) + offset.view(3, 1, 1, 1)


def flip_labels(labels: torch.Tensor, swap: torch.Tensor) -> torch.Tensor:
    """Mirror a label map along its first axis (R-L) and exchange left and right values by a lookup table."""
    return swap[labels.flip(0).long()].to(labels.dtype)
