"""Shape operations on masks and gradients of images (section 5, step 8; section 6.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf

from .draws import Draws

__all__ = ["ball", "dilate", "erode", "random_morphology", "sobel_magnitude"]


def ball(radius: int) -> torch.Tensor:
    """Return the (2r+1)^3 float32 kernel of voxels at Euclidean distance <= radius of the centre."""
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    return (x.square() + y.square() + z.square() <= radius**2).float()


def dilate(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Dilate (X, Y, Z) bool by a ball."""
    kernel = ball(radius).to(mask.device)
    return nnf.conv3d(mask[None, None].float(), kernel[None, None], padding=radius)[0, 0] > 0.01


def erode(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Erode (X, Y, Z) bool by a ball; the outside of the array counts as foreground."""
    return ~dilate(~mask.bool(), radius)


def random_morphology(
    mask: torch.Tensor, draws: Draws, *, probability: float, min_radius: int = 1, max_radius: int = 1
) -> torch.Tensor:
    """Dilate or erode a mask with total probability ``probability`` (half each), by a ball of random radius."""
    signed = draws.uniform(-1.0, 1.0)
    threshold = 1 - probability + 0.001
    radius = min_radius + draws.integer(max_radius - min_radius + 1)
    if signed > threshold:
        return dilate(mask, radius)
    if signed < -threshold:
        return erode(mask, radius)
    return mask.bool()


def sobel_magnitude(image: torch.Tensor) -> torch.Tensor:
    """Return the gradient magnitude of (X, Y, Z) by [1, 0, -1] x [1, 2, 1] x [1, 2, 1] with zero padding."""
    smooth = torch.tensor([1.0, 2.0, 1.0], device=image.device)
    edge = torch.tensor([1.0, 0.0, -1.0], device=image.device)
    total = torch.zeros_like(image)
    for axis in range(3):
        parts = [smooth, smooth, smooth]
        parts[axis] = edge
        kernel = parts[0].view(3, 1, 1) * parts[1].view(1, 3, 1) * parts[2].view(1, 1, 3)
        total += nnf.conv3d(image[None, None], kernel[None, None], padding=1)[0, 0].square()
    return total.sqrt()
