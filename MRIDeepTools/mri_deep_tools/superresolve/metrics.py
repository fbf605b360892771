"""Likeness of a volume to the truth: MSE, PSNR, SSIM and NRMSE, equal to the published evaluation.

The data range is always stated: 1 for the published comparison of normalised volumes, or given. Published scores
count the background, which flatters PSNR and SSIM; with a mask the same formulas are taken over it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import GeometryError, InputError, RequestError

__all__ = ["Similarity", "mean_similarity", "nrmse", "psnr", "similarity", "ssim", "ssim_map"]

_WINDOW = 7  # voxels, uniform
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True)
class Similarity:
    """Scores of one volume: mean squared error, PSNR in dB, SSIM (3-D), NRMSE (Euclidean), and the data range."""

    mse: float
    psnr: float
    ssim: float
    nrmse: float
    data_range: float

    def as_row(self) -> dict[str, float]:
        """Return the scores by name."""
        return asdict(self)


def psnr(mse: float, data_range: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite for equal volumes."""
    return math.inf if mse == 0 else 10 * math.log10(data_range**2 / mse)


def nrmse(truth: np.ndarray, mse: float) -> float:
    """Return the root mean squared error over the root mean square of the truth."""
    energy = float(np.mean(np.square(truth, dtype=np.float64)))
    if energy == 0:
        return 0.0 if mse == 0 else math.inf
    return math.sqrt(mse / energy)


def ssim_map(truth: np.ndarray, found: np.ndarray, data_range: float = 1.0) -> np.ndarray:
    """Return the structural similarity at every voxel (Wang et al. 2004) in windows of 7^3, float64 (X, Y, Z).

    Sample covariance, K1 = 0.01, K2 = 0.03. Values within 3 voxels of the border rest on mirrored data.

    Raises
    ------
    InputError : a side is shorter than the window.

    """
    from scipy.ndimage import uniform_filter

    if min(truth.shape) < _WINDOW:
        raise InputError(f"SSIM needs at least {_WINDOW} voxels along each axis, not {truth.shape}", "leave it out")
    a, b = truth.astype(np.float64), found.astype(np.float64)
    mean_a, mean_b = uniform_filter(a, _WINDOW), uniform_filter(b, _WINDOW)
    count = _WINDOW**a.ndim
    sample = count / (count - 1)
    var_a = sample * (uniform_filter(a * a, _WINDOW) - mean_a * mean_a)
    var_b = sample * (uniform_filter(b * b, _WINDOW) - mean_b * mean_b)
    cov = sample * (uniform_filter(a * b, _WINDOW) - mean_a * mean_b)
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    upper = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return np.asarray(upper / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))


def ssim(truth: np.ndarray, found: np.ndarray, data_range: float = 1.0, mask: np.ndarray | None = None) -> float:
    """Return the mean structural similarity without the 3 voxels at each border, within ``mask`` if it is given."""
    inner = (slice(_WINDOW // 2, -(_WINDOW // 2)),) * 3
    values = ssim_map(truth, found, data_range)[inner]
    if mask is not None:
        values = values[mask[inner]]
    return float(values.mean()) if values.size else math.nan


def similarity(
    truth: np.ndarray, found: np.ndarray, *, data_range: float = 1.0, mask: np.ndarray | None = None
) -> Similarity:
    """Compare a volume with the truth.

    Parameters
    ----------
    truth, found : (X, Y, Z), real numbers; computed in float64.
    data_range : largest possible difference; 1 for volumes on 0..1.
    mask : (X, Y, Z) bool; None counts every voxel, background included, as published.

    Raises
    ------
    GeometryError : shapes differ. InputError : the mask is empty, or a side is below 7 voxels.
    RequestError : the data range is not positive.

    """
    if truth.shape != found.shape or (mask is not None and mask.shape != truth.shape):
        raise GeometryError(f"volumes of {truth.shape} and {found.shape} voxels cannot be compared")
    if not (math.isfinite(data_range) and data_range > 0):
        raise RequestError(f"the data range must be positive, not {data_range}")
    if mask is not None and not mask.any():
        raise InputError("the mask is empty", "give another mask")
    a, b = truth.astype(np.float64), found.astype(np.float64)
    inside = (a, b) if mask is None else (a[mask], b[mask])
    mse = float(np.mean((inside[0] - inside[1]) ** 2))
    return Similarity(mse, psnr(mse, data_range), ssim(a, b, data_range, mask), nrmse(inside[0], mse), data_range)


def mean_similarity(scores: Sequence[Similarity]) -> dict[str, float]:
    """Return means over volumes, and the population standard deviation of PSNR, as in the published tables."""
    if not scores:
        raise RequestError("there are no scores to average")
    names = ("mse", "psnr", "ssim", "nrmse")
    means = {name: float(np.mean([getattr(score, name) for score in scores])) for name in names}
    return means | {"psnr_std": float(np.std([score.psnr for score in scores]))}
