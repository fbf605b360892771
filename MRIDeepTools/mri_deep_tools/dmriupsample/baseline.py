"""Spherical harmonics: the published baseline, and a method of its own that needs no weights.

The signal of a shell is fitted by real even spherical harmonics with least squares and evaluated in the wanted
directions. The space of even polynomials of degree L on the sphere is the same whatever basis spans it, so the
products of degree L of the three coordinates serve; for L = 2 these are x^2, y^2, z^2, xy, xz, yz.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

from ..errors import RequestError

__all__ = ["coefficients_of", "condition_of", "sh_matrix", "sh_predict"]

_WORST_CONDITION = 1e6
_ROWS = 1 << 16


def coefficients_of(order: int) -> int:
    """Return the number of coefficients of even spherical harmonics up to ``order``: 6 for 2, 15 for 4."""
    return (order + 1) * (order + 2) // 2


def _design(vectors: np.ndarray, order: int) -> np.ndarray:
    """Return the design matrix (n, coefficients), float64; only the directions of the vectors count."""
    unit = np.asarray(vectors, dtype=np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return np.stack([unit[:, list(axes)].prod(axis=1) for axes in combinations_with_replacement(range(3), order)], 1)


def condition_of(vectors: np.ndarray, order: int = 2) -> float:
    """Return the condition number of the fit: large where directions crowd or lie on a plane."""
    return float(np.linalg.cond(_design(vectors, order)))


def sh_matrix(bvecs_in: np.ndarray, bvecs_out: np.ndarray, order: int = 2) -> np.ndarray:
    """Return the matrix (n_out, n_in), float64, that takes measured signals to predicted ones.

    Parameters
    ----------
    bvecs_in, bvecs_out :
        Directions (n, 3); they need not be of unit length.
    order :
        Even; 2 is the published baseline.

    Raises
    ------
    RequestError : too few directions, or directions that do not determine the fit (all on one plane, for instance).

    """
    if order < 2 or order % 2:
        raise RequestError(f"the order of spherical harmonics must be 2, 4, 6, ..., not {order}")
    if len(bvecs_in) < coefficients_of(order):
        raise RequestError(
            f"spherical harmonics of order {order} need {coefficients_of(order)} directions, not {len(bvecs_in)}",
            "give more measured directions, or a lower order" if order > 2 else "give more measured directions",
        )
    if condition_of(bvecs_in, order) > _WORST_CONDITION:
        raise RequestError(
            f"the {len(bvecs_in)} measured directions do not determine spherical harmonics of order {order}",
            "directions on one plane or cone are not enough; use other measured directions",
        )
    return np.asarray(_design(bvecs_out, order) @ np.linalg.pinv(_design(bvecs_in, order)))


def sh_predict(data: np.ndarray, bvecs_in: np.ndarray, bvecs_out: np.ndarray, order: int = 2) -> np.ndarray:
    """Return predicted signals (..., n_out), float32, from measured ones (..., n_in); raises like :func:`sh_matrix`.

    Predictions can be negative. Sums are taken in float64.
    """
    matrix = sh_matrix(bvecs_in, bvecs_out, order).T
    flat = data.reshape(-1, data.shape[-1])
    out = np.empty((flat.shape[0], matrix.shape[1]), dtype=np.float32)
    for start in range(0, len(flat), _ROWS):
        out[start : start + _ROWS] = flat[start : start + _ROWS].astype(np.float64) @ matrix
    return out.reshape(*data.shape[:-1], matrix.shape[1])
