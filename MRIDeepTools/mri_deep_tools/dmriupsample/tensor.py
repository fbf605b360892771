"""Diffusion tensors through DIPY, in world space: FA, MD and main direction, and how two fits differ.

Directions are given in RAS, so the tensors' axes are in RAS whatever way the image is stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .gradients import B0_LIMIT, GradientTable
from .masks import require_dipy

__all__ = ["TensorDifference", "TensorMaps", "axis_angle", "compare_tensors", "fit_tensors"]

_ANISOTROPIC = 0.2  # FA from which a voxel has a main direction worth comparing
_ROWS = 50_000


@dataclass(frozen=True)
class TensorMaps:
    """Per voxel: fractional anisotropy (V,), mean diffusivity (V,) in mm^2/s, main direction (V, 3) in RAS."""

    fa: np.ndarray
    md: np.ndarray
    direction: np.ndarray

    def volume(self, name: str, mask: np.ndarray) -> np.ndarray:
        """Return ``fa`` or ``md`` as a map (X, Y, Z), float32, 0 outside the mask the voxels came from."""
        out = np.zeros(mask.shape, dtype=np.float32)
        out[mask] = getattr(self, name)
        return out


@dataclass(frozen=True)
class TensorDifference:
    """Means over voxels of absolute differences: FA, MD (mm^2/s), and the angle of the main directions (degrees).

    The angle is taken where the reference has an FA above 0.2; NaN where there is no such voxel.
    """

    fa: float
    md: float
    angle_degrees: float
    voxels: int

    def as_record(self) -> dict[str, float | None]:
        """Return the numbers for JSON."""
        angle = None if np.isnan(self.angle_degrees) else self.angle_degrees
        return {"FA": self.fa, "MD": self.md, "AngleDegrees": angle, "Voxels": self.voxels}


def fit_tensors(signal: np.ndarray, table: GradientTable) -> TensorMaps:
    """Fit tensors by weighted least squares.

    Parameters
    ----------
    signal :
        (V, n) voxels with volumes; values at or below 0 are raised to the smallest positive one.
    table :
        One row per volume; at least one without diffusion weighting and six directions.

    Raises
    ------
    InputError : volumes without weighting, or directions, are missing.
    DependencyError : DIPY is not installed.

    """
    if not table.is_b0.any():
        raise InputError("tensors cannot be fitted: there is no b = 0 volume", "keep the b = 0 volumes of the scan")
    if int((~table.is_b0).sum()) < 6:
        raise InputError("tensors cannot be fitted: fewer than six directions", "use more directions")
    dti, gradients = require_dipy("reconst.dti"), require_dipy("core.gradients")
    grid = gradients.gradient_table(
        np.where(table.is_b0, 0.0, table.bvals),
        bvecs=np.where(table.is_b0[:, None], 0.0, table.world),
        b0_threshold=B0_LIMIT,
    )
    positive = signal[signal > 0]
    floor = float(positive.min()) if positive.size else 1.0
    model = dti.TensorModel(grid, fit_method="WLS", min_signal=floor)
    parts = [signal[start : start + _ROWS] for start in range(0, len(signal), _ROWS)]
    fits = [model.fit(np.maximum(np.asarray(part, dtype=np.float64), floor)) for part in parts]
    if not fits:
        return TensorMaps(np.zeros(0), np.zeros(0), np.zeros((0, 3)))
    return TensorMaps(
        np.concatenate([np.nan_to_num(fit.fa) for fit in fits]),
        np.concatenate([np.nan_to_num(fit.md) for fit in fits]),
        np.concatenate([np.nan_to_num(fit.evecs[..., 0]) for fit in fits]),
    )


def axis_angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angles (V,) in degrees between the axes of unit vectors (V, 3); opposites are one axis."""
    return np.degrees(np.arccos(np.clip(np.abs((first * second).sum(axis=1)), 0, 1)))


def compare_tensors(truth: TensorMaps, found: TensorMaps) -> TensorDifference:
    """Return how far a fit is from the reference, over all voxels."""
    directed = truth.fa > _ANISOTROPIC
    angle = axis_angle(truth.direction[directed], found.direction[directed])
    return TensorDifference(
        fa=float(np.abs(truth.fa - found.fa).mean()) if truth.fa.size else float("nan"),
        md=float(np.abs(truth.md - found.md).mean()) if truth.md.size else float("nan"),
        angle_degrees=float(angle.mean()) if directed.any() else float("nan"),
        voxels=int(truth.fa.size),
    )
