"""The scans of the demonstration: the ICBM 152 template, and what it might look like in a hurried clinical protocol.

The template is the ICBM 152 nonlinear symmetric one of 2009 that the package nilearn carries, a real T1-weighted
average of 152 adults without skull. Copyright (C) 1993-2020 Louis Collins, McConnell Brain Imaging Centre, Montreal
Neurological Institute, McGill University; it may be used, copied, modified and distributed for any purpose without
fee, provided that this notice is kept, and comes without any warranty.
"""

from __future__ import annotations

import warnings

import numpy as np

from .errors import DependencyError, RequestError
from .volume import Source, Volume

__all__ = ["other_site", "template_scan", "thick_slices", "without_t1_contrast"]


def template_scan() -> Volume:
    """Return the template: (197, 233, 189) int16, 1 mm, axes R, A, S, background 0, brain up to 1000.

    Raises
    ------
    DependencyError : nilearn is not installed.

    """
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError as error:
        raise DependencyError(
            "the demonstration needs nilearn, which carries the template",
            'install it with: pip install "mri-deep-tools[demo]"',
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about nilearn's own future
        image = load_mni152_template(resolution=1)
    data = np.asarray(image.dataobj, dtype=np.float64)
    scaled = np.rint(1000.0 * data / data.max()).astype(np.int16)
    return Volume(scaled, image.affine, Source("icbm152_T1w", "icbm152_T1w.nii.gz"))


def without_t1_contrast(volume: Volume) -> Volume:
    """Return a scan whose contrast is turned round, like T2: fluid bright, grey matter between, white matter dark.

    White matter gets 0.3 of the intensity of fluid; the background stays 0.
    """
    brain = volume.data > 0
    low, high = np.percentile(volume.data[brain], (1, 99))
    position = np.clip((volume.data - low) / (high - low), 0.0, 1.0)
    values = np.where(brain, 1000.0 - 700.0 * position, 0.0)
    return volume.with_data(np.rint(values).astype(np.int16))


def thick_slices(volume: Volume, thickness: int) -> Volume:
    """Return the scan with slices ``thickness`` times as thick along the last axis, each the mean of those it covers.

    What does not fill a whole slice at the end is left out.

    Raises
    ------
    RequestError : ``thickness`` is below 1 or larger than the scan.

    """
    x, y, z = volume.shape3
    if not 1 <= thickness <= z:
        raise RequestError(f"slices {thickness} times as thick cannot be made of {z} slices")
    count = z // thickness
    blocks = volume.data[:, :, : count * thickness].reshape(x, y, count, thickness)
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, 2] * (thickness - 1) / 2
    affine[:3, 2] *= thickness
    return volume.with_affine(np.rint(blocks.mean(axis=3)).astype(volume.data.dtype), affine)


def other_site(volume: Volume, seed: int = 0) -> Volume:
    """Return the scan as another scanner might have taken it: contrast, bias field, resolution and noise differ.

    Parameters
    ----------
    volume : brain on a background of 0.
    seed : of the noise.

    """
    from scipy.ndimage import gaussian_filter

    brain = volume.data > 0
    top = float(np.percentile(volume.data[brain], 99))
    values = (np.clip(volume.data / top, 0, 1.2) ** 1.5) * 1000.0
    x, y, z = (np.linspace(-1, 1, n) for n in volume.shape3)
    field = np.exp(0.2 * (0.6 * x[:, None, None] + 0.8 * y[:, None] - 0.5 * z + 0.7 * y[:, None] * z))
    blurred = gaussian_filter(values * field, [0.5 / size for size in volume.spacing])
    noise = np.random.default_rng(seed).normal(0, 15, (2, *volume.shape3))
    noisy = np.hypot(blurred + noise[0], noise[1])
    return volume.with_data(np.rint(np.where(brain, np.maximum(noisy, 1), 0)).astype(np.int16))
