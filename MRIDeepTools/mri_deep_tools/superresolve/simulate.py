"""Thick-slice scans made from isotropic ones, in two ways.

``as_trained`` is the published way: every k-th slice is kept, without blur, and stretched back to the full number of
voxels by a cubic spline whose first and last samples are the first and last kept slices (so the volume is stretched
by up to k - 1 voxels along the axis). :func:`acquire` is what a scanner does: each slice averages over its thickness
with a profile, slices may have gaps between them, and the affine says where they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, RequestError
from ..volume import Volume

__all__ = [
    "DIRECTIONS",
    "FACTORS",
    "PROFILES",
    "SliceStack",
    "acquire",
    "array_axis",
    "as_trained",
    "stretch_matrix",
    "weights_of_slices",
]

DIRECTIONS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Array axis across the slices in the published program, whose volumes have the axes L, A, S."""
FACTORS = (2, 3, 4, 5)
"""Published factors of slice thickness."""
PROFILES = ("gaussian", "box")

_FWHM = 2 * math.sqrt(2 * math.log(2))
_FINE = 16  # samples per voxel at which a profile is integrated
_BEYOND = 1.25  # half-widths of a Gaussian profile, in FWHM, that are taken into account


def array_axis(volume: Volume, direction: str) -> int:
    """Return the array axis across slices of an anatomical direction; RequestError for another word."""
    if direction not in DIRECTIONS:
        raise RequestError(f"there is no direction {direction!r}", f"use one of {', '.join(DIRECTIONS)}")
    letters = {"sagittal": "RL", "coronal": "AP", "axial": "SI"}[direction]
    return next(axis for axis, code in enumerate(volume.axcodes) if code in letters)


# ------------------------------------------------------------------------------------------------- the published way


def stretch_matrix(kept: int, size: int) -> np.ndarray:
    """Return the cubic spline interpolation from ``kept`` samples to ``size`` as a matrix (size, kept), float64.

    Output o lies at position o (kept - 1) / (size - 1); beyond both ends the samples are mirrored.
    """
    from scipy.ndimage import map_coordinates, spline_filter1d

    coefficients = spline_filter1d(np.eye(kept), order=3, axis=0, mode="mirror")
    places = np.arange(size) * ((kept - 1) / (size - 1))
    columns = [
        map_coordinates(coefficients[:, k], places[None], order=3, mode="mirror", prefilter=False) for k in range(kept)
    ]
    return np.stack(columns, axis=1)


def as_trained(data: np.ndarray, axis: int, factor: int, start: int = 0) -> np.ndarray:
    """Drop slices and stretch the rest, as the published network's training data were made.

    Parameters
    ----------
    data : (X, Y, Z).
    axis : array axis across the slices.
    factor : every ``factor``-th slice is kept.
    start : first slice that is kept.

    Returns
    -------
    float64, same shape.

    Raises
    ------
    RequestError : a factor below 1, or a start beyond it.
    InputError : fewer than two slices would be kept.

    """
    if factor < 1 or not 0 <= start < max(factor, 1):
        raise RequestError(
            f"factor {factor} with start {start} keeps no regular slices", "use a start below the factor"
        )
    size = data.shape[axis]
    kept = np.moveaxis(data, axis, -1)[..., start::factor].astype(np.float64)
    if kept.shape[-1] < 2:
        raise InputError(f"{size} slices are too few to keep every {factor}th", "use a smaller factor")
    matrix = stretch_matrix(kept.shape[-1], size)
    return np.ascontiguousarray(np.moveaxis(kept @ matrix.T, -1, axis))


# ------------------------------------------------------------------------------------------------- the physical way


@dataclass(frozen=True)
class SliceStack:
    """Slices along one axis of a volume.

    Attributes
    ----------
    axis : array axis across the slices.
    thickness_mm : full width at half maximum of the profile.
    spacing_mm : from one slice's centre to the next one's; the gap is ``spacing_mm - thickness_mm``.
    profile : ``gaussian`` or ``box``.

    """

    axis: int
    thickness_mm: float
    spacing_mm: float
    profile: str = "gaussian"

    def __post_init__(self) -> None:
        """Check the numbers (RequestError)."""
        if self.axis not in (0, 1, 2):
            raise RequestError(f"there is no axis {self.axis}", "use 0, 1 or 2")
        for name, value in (("thickness", self.thickness_mm), ("spacing", self.spacing_mm)):
            if not (math.isfinite(value) and value > 0):
                raise RequestError(f"the slice {name} must be above 0 mm, not {value}")
        if self.profile not in PROFILES:
            raise RequestError(f"there is no slice profile {self.profile!r}", f"use one of {', '.join(PROFILES)}")

    @property
    def gap_mm(self) -> float:
        """Return the distance between neighbouring slices; negative where they overlap."""
        return self.spacing_mm - self.thickness_mm


def weights_of_slices(
    size: int, voxel_mm: float, centres_mm: np.ndarray, thickness_mm: float, profile: str = "gaussian"
) -> np.ndarray:
    """Return how much each voxel along an axis counts in each slice, float64 (slices, size), rows adding up to 1.

    Parameters
    ----------
    size, voxel_mm : number and size of the voxels.
    centres_mm : (slices,) centres of the slices, from the first face of the first voxel.
    thickness_mm, profile : see :class:`SliceStack`.

    """
    fine = (np.arange(size * _FINE) + 0.5) * (voxel_mm / _FINE)
    distance = np.abs(fine[None] - np.asarray(centres_mm, dtype=np.float64)[:, None])
    if profile == "box":
        step = voxel_mm / _FINE
        response = np.clip((thickness_mm / 2 - distance) / step + 0.5, 0, 1)
    else:
        response = np.exp(-0.5 * (distance * (_FWHM / thickness_mm)) ** 2) * (distance < _BEYOND * thickness_mm)
    weights = response.reshape(len(distance), size, _FINE).sum(axis=2)
    sums = weights.sum(axis=1, keepdims=True)
    nearest = np.clip((np.asarray(centres_mm) / voxel_mm).astype(int), 0, size - 1)
    weights[sums[:, 0] == 0, nearest[sums[:, 0] == 0]] = 1  # a slice thinner than the samples, or beyond the volume
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def acquire(volume: Volume, stack: SliceStack, *, noise: float = 0.0, seed: int = 0) -> Volume:
    """Take thick slices of a volume as a scanner would, on a grid of their own.

    Parameters
    ----------
    volume : (X, Y, Z).
    stack : how the slices lie; as many as fit are centred in the volume.
    noise : standard deviation of Rician noise, as a share of the 99th percentile of the values above 0.
    seed : of the noise.

    Returns
    -------
    float32 volume with one voxel per slice along the axis.

    Raises
    ------
    InputError : fewer than two slices fit. RequestError : negative noise.

    """
    if noise < 0:
        raise RequestError(f"noise must not be negative, not {noise}")
    voxel, size = volume.spacing[stack.axis], volume.shape3[stack.axis]
    count = int((size * voxel - max(stack.thickness_mm - stack.spacing_mm, 0)) / stack.spacing_mm + 1e-6)
    if count < 2:
        raise InputError(
            f"slices {stack.spacing_mm:.4g} mm apart do not fit twice into {size * voxel:.4g} mm", "use thinner slices"
        )
    first = (size * voxel - (count - 1) * stack.spacing_mm) / 2
    centres = first + stack.spacing_mm * np.arange(count)
    weights = weights_of_slices(size, voxel, centres, stack.thickness_mm, stack.profile)
    thick = np.moveaxis(np.moveaxis(volume.data, stack.axis, -1).astype(np.float64) @ weights.T, -1, stack.axis)
    if noise:
        thick = _rician(thick, noise, seed)
    affine = np.array(volume.affine)
    step = affine[:3, stack.axis] / voxel
    affine[:3, 3] += step * (first - voxel / 2)
    affine[:3, stack.axis] = step * stack.spacing_mm
    return volume.with_affine(np.ascontiguousarray(thick, dtype=np.float32), affine)


def _rician(data: np.ndarray, noise: float, seed: int) -> np.ndarray:
    above = data[data > 0]
    sigma = noise * (float(np.percentile(above, 99)) if above.size else 1.0)
    real, imaginary = np.random.default_rng(seed).normal(0, sigma, (2, *data.shape))
    return np.asarray(np.hypot(data + real, imaginary))
