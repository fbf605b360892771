"""How like the truth a translation is: the published figures of SynDiff and AxonDeepSynth, and those of cycles.

Three published programs count differently, and their figures must not be mixed:

* ``validation_scores``: SynDiff's training loop. Each image is divided by its own mean, so that a wrong overall
  brightness costs nothing; the peak is the largest value of the truth. L1 is in units of the mean.
* ``script_psnr``: SynDiff's test script. Each image is divided by its own maximum; the peak is that of the translation.
* ``grey_scores``: AxonDeepSynth. Images are compared as they are on the scale 0..1, with a data range of 1.

Images are (..., H, W) float in [-1, 1], as the networks give them, in NumPy or on the CPU. PSNR is in dB, infinite for
equal images; L1 and SSIM have no unit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..errors import GeometryError, InputError
from ..superresolve.metrics import psnr, ssim_map

__all__ = ["ImageScores", "cycle_scores", "grey_scores", "script_psnr", "ssim_2d", "unit_scale", "validation_scores"]

_WINDOW = 7


@dataclass(frozen=True)
class ImageScores:
    """PSNR in dB, SSIM, and mean absolute difference (L1) of images on 0..1."""

    psnr: float
    ssim: float
    l1: float

    def as_row(self) -> dict[str, float]:
        """Return the scores by name."""
        return asdict(self)


def unit_scale(image: np.ndarray) -> np.ndarray:
    """Return [-1, 1] as [0, 1], float64."""
    return (np.asarray(image, dtype=np.float64) + 1) / 2


def validation_scores(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """Return L1 and PSNR (dB) as SynDiff's training loop computes them after each epoch.

    Parameters
    ----------
    real, fake : images of one batch, [-1, 1].

    Raises
    ------
    GeometryError : shapes differ. InputError : an image is background everywhere, so that it has no mean.

    """
    a, b = _pair(real, fake)
    means = float(a.mean()), float(b.mean())
    if min(means) <= 0:
        raise InputError("an image is black everywhere, so that it cannot be divided by its mean", "leave it out")
    a, b = a / means[0], b / means[1]
    mse = float(np.mean((a - b) ** 2))
    return float(np.abs(a - b).mean()), psnr(mse, float(a.max()))


def script_psnr(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the PSNR (dB) of SynDiff's test script: both divided by their maximum, the peak that of the translation.

    Raises
    ------
    GeometryError : shapes differ. InputError : an image is background everywhere.

    """
    a, b = _pair(real, fake)
    if min(a.max(), b.max()) <= 0:
        raise InputError("an image is black everywhere, so that it cannot be divided by its maximum", "leave it out")
    a, b = a / a.max(), b / b.max()
    return psnr(float(np.mean((a - b) ** 2)), float(b.max()))


def grey_scores(real: np.ndarray, fake: np.ndarray, *, compatible: bool = False) -> ImageScores:
    """Return the scores of AxonDeepSynth: PSNR, SSIM and L1 on 0..1 with a data range of 1.

    Parameters
    ----------
    compatible : take SSIM of the first image alone, as published, not the mean over the images.

    Raises
    ------
    GeometryError : shapes differ. InputError : images are smaller than 7 pixels, the window of SSIM.

    """
    a, b = _pair(real, fake)
    difference = a - b
    mse = float(np.mean(difference**2))
    planes = a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])
    count = 1 if compatible else len(planes[0])
    ssim = float(np.mean([ssim_2d(x, y) for x, y in zip(planes[0][:count], planes[1][:count], strict=True)]))
    return ImageScores(psnr(mse, 1.0), ssim, float(np.abs(difference).mean()))


def cycle_scores(source: np.ndarray, there_and_back: np.ndarray) -> ImageScores:
    """Return how much of a source is left after it was translated into the other contrast and back.

    Without paired images this is all that can be measured. A cycle may be perfect while the translation between is
    wrong (structures hidden in it, or moved there and back), so it only ranks checkpoints of one training.
    """
    return grey_scores(source, there_and_back)


def ssim_2d(real: np.ndarray, fake: np.ndarray, data_range: float = 1.0) -> float:
    """Return the structural similarity of two images (H, W): uniform windows of 7 x 7, 3 pixels of the border left out.

    Raises
    ------
    InputError : a side is below 7 pixels.

    """
    if min(real.shape) < _WINDOW:
        sides = f"{real.shape[1]} x {real.shape[0]}"
        raise InputError(f"SSIM needs images of at least {_WINDOW} pixels a side, not {sides}", "leave them out")
    inner = (slice(_WINDOW // 2, -(_WINDOW // 2)),) * 2
    return float(ssim_map(real, fake, data_range)[inner].mean())


def _pair(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both images on [0, 1]."""
    a, b = unit_scale(real), unit_scale(fake)
    if a.shape != b.shape or a.ndim < 2 or not a.size:
        raise GeometryError(f"images of {a.shape} and {b.shape} values cannot be compared")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("an image has values that are not finite", "leave it out")
    return a, b
