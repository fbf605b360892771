"""Damped spherical harmonics as the starting point of a network that learns what they lack, in torch and by batches.

The published networks predict volumes from nothing. A network may instead add to a prediction by spherical harmonics
of order 2 whose second order is damped by Laplace-Beltrami regularisation (Descoteaux et al., Magn Reson Med 58, 2007):
it then begins where the baseline ends. The damping keeps six crowded directions from being extrapolated without limit.
"""

from __future__ import annotations

import math

import torch

__all__ = ["damped_matrix", "predict_damped"]

_PENALTY = 36.0  # l^2 (l + 1)^2 of l = 2


def _basis(vectors: torch.Tensor) -> torch.Tensor:
    """Return the six orthonormal real harmonics of orders 0 and 2, (..., n, 6) float64, of vectors (..., n, 3)."""
    unit = vectors.double()
    x, y, z = (unit / unit.norm(dim=-1, keepdim=True).clamp_min(1e-12)).unbind(-1)
    a = math.sqrt(15 / (4 * math.pi))
    zero = torch.full_like(x, math.sqrt(1 / (4 * math.pi)))
    axial = math.sqrt(5 / (16 * math.pi)) * (3 * z * z - 1)
    return torch.stack([zero, a * x * y, a * y * z, axial, a * x * z, a / 2 * (x * x - y * y)], dim=-1)


def damped_matrix(bvecs_in: torch.Tensor, bvecs_out: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the matrices (..., n_out, n_in), float64, that take measured signals to predicted ones.

    Parameters
    ----------
    bvecs_in, bvecs_out :
        (..., n, 3); only the directions count.
    smoothing :
        Weight of the Laplace-Beltrami penalty, above 0; 0.006 is customary.

    """
    given, wanted = _basis(bvecs_in), _basis(bvecs_out)
    penalty = torch.full((6,), smoothing * _PENALTY, dtype=torch.float64, device=given.device)
    penalty[0] = 0
    normal = given.mT @ given + torch.diag(penalty)
    return wanted @ torch.linalg.solve(normal, given.mT)


def predict_damped(
    images: torch.Tensor, bvecs_in: torch.Tensor, bvecs_out: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Return volumes (B, q_out, x, y, z) from volumes (B, q_in, x, y, z) and directions (B, q, 3) of both."""
    matrix = damped_matrix(bvecs_in, bvecs_out, smoothing).to(images.dtype)
    return (matrix @ images.flatten(2)).unflatten(2, images.shape[2:])
