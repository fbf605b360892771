"""Bias field correction as ANTs' N4BiasFieldCorrection does it with a mask and its defaults, through SimpleITK.

Tustison et al., IEEE Transactions on Medical Imaging 29(6) (2010). Two things make SimpleITK's answer that of ANTs: a
convergence threshold of 0, so that all iterations are made, and the linear map of the corrected brain back to the
range that it had.
"""

from __future__ import annotations

import numpy as np

from .._itk import image_from
from ..errors import InputError
from ..volume import Volume

__all__ = ["correct_bias"]

SHRINK = 4
ITERATIONS = (50, 50, 50, 50)
CONTROL_POINTS = 4  # a mesh of 1 x 1 x 1 with splines of order 3
FWHM, NOISE, BINS = 0.15, 0.01, 200


def correct_bias(volume: Volume, mask: np.ndarray, threads: int | None = None) -> Volume:
    """Return the volume without its bias field inside the mask, as it was outside; float32.

    Parameters
    ----------
    volume : (X, Y, Z).
    mask : (X, Y, Z), brain where > 0.
    threads : of ITK; None leaves them alone.

    Raises
    ------
    InputError : the mask is empty, too thin, or covers no positive values.

    """
    import SimpleITK as sitk  # noqa: N813

    data, inside = volume.data.astype(np.float32), mask > 0
    image = image_from(data, volume.affine)
    region = image_from(inside.astype(np.uint8), volume.affine)
    if inside.any() and not np.ptp(data[inside]) > 0:
        raise InputError("the image is the same everywhere inside the brain mask", "check the image and the mask")
    factors = [min(SHRINK, side) for side in volume.shape3]
    small, small_region = sitk.Shrink(image, factors), sitk.Shrink(region, factors)
    if not sitk.GetArrayViewFromImage(small_region).any():
        raise InputError("the brain mask is empty or too thin for the bias correction", "check the mask")
    filter_ = sitk.N4BiasFieldCorrectionImageFilter()
    filter_.SetMaximumNumberOfIterations(list(ITERATIONS))
    filter_.SetConvergenceThreshold(0.0)
    filter_.SetNumberOfControlPoints([CONTROL_POINTS] * 3)
    filter_.SetSplineOrder(3)
    filter_.SetBiasFieldFullWidthAtHalfMaximum(FWHM)
    filter_.SetWienerFilterNoise(NOISE)
    filter_.SetNumberOfHistogramBins(BINS)
    if threads:
        filter_.SetNumberOfThreads(threads)
    try:
        filter_.Execute(small, small_region)
        field = sitk.GetArrayFromImage(filter_.GetLogBiasFieldAsImage(image)).T
    except RuntimeError:
        raise InputError("the bias field cannot be estimated", "check that the mask covers the brain") from None
    return volume.with_data(_applied(data, inside, field))


def _applied(data: np.ndarray, inside: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Divide by the field inside the mask and map the result to the range that was there."""
    before = data[inside].astype(np.float64)
    after = before / np.exp(field[inside].astype(np.float64))
    low, high = before.min(), before.max()
    span = after.max() - after.min()
    if not (np.isfinite(span) and span > 0):
        raise InputError("the bias field cannot be estimated", "check that the mask covers the brain")
    out = data.copy()
    out[inside] = high - (high - low) / span * (after.max() - after)
    return out
