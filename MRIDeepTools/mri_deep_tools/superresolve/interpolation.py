"""Whether a scan with small voxels was interpolated from thick slices, judged from its spectrum.

A scan that was measured isotropically has about as much fine detail along one axis as along the others. Interpolation
adds none: along the slices, detail ends at about half the sampling frequency of the slices. Where one axis lacks detail
that the two others have, that frequency tells the spacing roughly. Curvature tells it exactly: it is largest at the
measured slices, so its mean over a plane goes up and down with their spacing (A. Gallagher, Detection of linear and
cubic interpolation in JPEG compressed images, CRV 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volume import Volume

__all__ = ["Interpolated", "find_interpolation"]

_SMALLEST = 24  # voxels along an axis; shorter ones tell too little
_LOSS = 0.1  # share of the other axes' detail (amplitude) below which an axis has lost it
_LEAST_MM, _MOST_MM = 1.6, 8.0
_NYQUIST = 0.5
_RANGE = (0.85, 2.3)  # the spacing over the rough one, which is too small for linear interpolation above all
_STRONG, _FUNDAMENTAL = 6.0, 0.3  # a peak over the median; a lower frequency that is this strong is no overtone


@dataclass(frozen=True)
class Interpolated:
    """A guess: array axis across the slices, and their spacing in mm."""

    axis: int
    spacing_mm: float


def find_interpolation(volume: Volume) -> Interpolated | None:
    """Return from which slices a scan was interpolated, or None where no axis lacks what the others have.

    Parameters
    ----------
    volume : (X, Y, Z), voxels of about the same size on all sides.

    """
    if min(volume.shape3) < _SMALLEST:
        return None
    sizes = np.array(volume.spacing)
    frequencies = np.linspace(0.02, 0.98, 97) * _NYQUIST / sizes.max()  # cycles per mm that all axes have
    detail = np.stack([_amplitudes(volume.data, axis, sizes[axis], frequencies) for axis in range(3)])
    if not (np.isfinite(detail).all() and detail.min() > 0):
        return None
    detail /= detail[:, frequencies < 0.1 * frequencies[-1]].mean(axis=1, keepdims=True)
    losses = [detail[axis] / np.delete(detail, axis, axis=0).min(axis=0) for axis in range(3)]
    axis = int(np.argmin([np.median(loss[len(loss) // 2 :]) for loss in losses]))
    cut = _cut_off(losses[axis], frequencies)
    if cut is None:
        return None
    spacing = _spacing(volume.data, axis, float(sizes[axis]), 1 / (2 * cut))
    return Interpolated(axis, spacing) if _LEAST_MM <= spacing <= _MOST_MM else None


def _amplitudes(data: np.ndarray, axis: int, size_mm: float, frequencies: np.ndarray) -> np.ndarray:
    """Return the mean amplitude of lines along an axis at some frequencies (cycles per mm)."""
    lines = np.moveaxis(data, axis, -1).reshape(-1, data.shape[axis]).astype(np.float32)
    lines = lines[np.ptp(lines, axis=1) > 0]
    if len(lines) < 16:
        return np.full(len(frequencies), np.nan)
    lines = lines[:: max(1, len(lines) // 4000)]
    window = np.hanning(lines.shape[1]).astype(np.float32)
    spectrum = np.sqrt((np.abs(np.fft.rfft((lines - lines.mean(axis=1, keepdims=True)) * window)) ** 2).mean(axis=0))
    return np.asarray(np.interp(frequencies, np.fft.rfftfreq(lines.shape[1], size_mm), spectrum))


def _cut_off(loss: np.ndarray, frequencies: np.ndarray) -> float | None:
    """Return the frequency from which on detail is lost: half-way down; None where it is not lost for good."""
    lost = np.flatnonzero(loss < _LOSS)
    if not len(lost):
        return None
    half = np.flatnonzero(loss[: lost[0] + 1] < np.sqrt(_LOSS))
    return float(frequencies[half[0]])


def _spacing(data: np.ndarray, axis: int, size_mm: float, rough_mm: float) -> float:
    """Return the spacing of the slices in mm from the rhythm of curvature along an axis, to 0.1 mm."""
    from scipy.ndimage import uniform_filter1d

    lines = np.moveaxis(data, axis, -1).astype(np.float32)
    curvature = np.abs(np.diff(lines, 2, axis=-1)).reshape(-1, lines.shape[-1] - 2).mean(axis=0)
    head = np.flatnonzero(curvature > 0.2 * curvature.max())
    rhythm = np.log(curvature[head[0] : head[-1] + 1] + 1e-9)
    rhythm -= uniform_filter1d(rhythm, 2 * round(rough_mm / size_mm) + 3, mode="nearest")
    count = 4096
    strength = np.abs(np.fft.rfft(rhythm * np.hanning(len(rhythm)), count))
    frequencies = np.fft.rfftfreq(count, size_mm)
    near = (frequencies >= 1 / (_RANGE[1] * rough_mm)) & (frequencies <= 1 / (_RANGE[0] * rough_mm))
    peaks = np.where(near, strength, 0.0)
    if not near.any() or peaks.max() < _STRONG * np.median(strength):
        return round(2 * 1.2 * rough_mm) / 2
    top = int(peaks.argmax())
    half = top // 2
    around = slice(max(half - 8, 0), half + 9)
    if near[half] and peaks[around].max() > _FUNDAMENTAL * peaks[top]:
        top = around.start + int(peaks[around].argmax())
    return float(round(1 / frequencies[top], 1))
