"""A first estimate between measured slices without a network: detail of the T1w scan, then what slices tell beyond it.

Where T1w and T2w intensities go together in a neighbourhood, the T1w detail that thick slices would hide is added in
that proportion (a local linear model, as in the guided filter of He et al., IEEE TPAMI 35 (2013) 1397). What the
estimate then still lacks of the measured slices is given back to it (one step of back-projection, Irani and Peleg,
CVGIP 53 (1991) 231). A residual network starts from here; see ``ResUNetSpec.start``.
"""

from __future__ import annotations

import numpy as np

from ..volume import Volume
from .honesty import measured_slices, parallel_axis, slice_grid
from .preprocess import Scaling
from .simulate import weights_of_slices

__all__ = ["guided_start"]

_NEAR = 1.5  # voxels, standard deviation of the neighbourhood in the plane
_ACROSS = 0.6  # of the slice thickness, the same across slices where that is more
_FLOOR = 1e-3  # variance of the T1w (on 0..1) below which it guides nothing
_STEEPEST = 3.0  # largest change of T2w per change of T1w, both on 0..1


def guided_start(interpolated: Volume, scan: Volume, axis: int, thickness_mm: float, t1: Volume | None) -> Volume:
    """Return the first estimate on the grid of ``interpolated``, float32, T2w intensities.

    Parameters
    ----------
    interpolated : the T2w scan on a grid whose axes are parallel to its own, 1 mm.
    scan, axis, thickness_mm : the measured slices, their array axis, and their thickness.
    t1 : the T1w scan on the same grid; None for slices alone.

    """
    slices = _Slices(interpolated, scan, axis, thickness_mm)
    data = interpolated.data.astype(np.float32)
    if t1 is not None and (t1.data > 0).any():
        data = data + slices.detail(t1, interpolated)
    return interpolated.with_data(np.maximum(slices.corrected(data), 0, dtype=np.float32))


class _Slices:
    """Measured slices, and the way between them and a grid that is parallel to them."""

    def __init__(self, grid: Volume, scan: Volume, axis: int, thickness_mm: float) -> None:
        self.across = parallel_axis(grid, scan, axis)
        places, affine = slice_grid(grid, scan, axis, self.across)
        shape = list(grid.shape3)
        voxel, size = grid.spacing[self.across], shape[self.across]
        shape[self.across] = len(places)
        self.thickness = thickness_mm / voxel
        self.measured = self._last(measured_slices(scan, tuple(shape), affine))
        self.reduce = weights_of_slices(size, voxel, (places + 0.5) * voxel, thickness_mm).astype(np.float32)
        self.spread = _spread_matrix(places, size).astype(np.float32)

    def _last(self, data: np.ndarray) -> np.ndarray:
        """Return a volume whose last axis runs across the slices."""
        return np.moveaxis(data, self.across, -1).astype(np.float32)

    def detail(self, t1: Volume, t2: Volume) -> np.ndarray:
        """Return the T1w detail that slices hide, in T2w intensities, on the grid of both."""
        scalings = Scaling.of(t1.data), Scaling.of(t2.data)
        guide = self._last((t1.data - scalings[0].low) / scalings[0].span)
        seen = self._last((t2.data - scalings[1].low) / scalings[1].span)
        hidden = guide @ self.reduce.T @ self.spread.T
        steep = np.clip(self._proportion(hidden, seen), -_STEEPEST, _STEEPEST)
        added = self._around(steep) * (guide - hidden) * np.float32(scalings[1].span)
        return np.moveaxis(added, -1, self.across)

    def _proportion(self, hidden: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return the slope of the local regression of the T2w on the equally blurred T1w."""
        mean = self._around(hidden)
        covariance = self._around(hidden * seen) - mean * self._around(seen)
        return np.asarray(covariance / (self._around(hidden * hidden) - mean * mean + _FLOOR))

    def _around(self, data: np.ndarray) -> np.ndarray:
        from scipy.ndimage import gaussian_filter

        sigma = (_NEAR, _NEAR, max(_NEAR, _ACROSS * self.thickness))
        return np.asarray(gaussian_filter(data, sigma, mode="nearest", truncate=3.0))

    def corrected(self, data: np.ndarray) -> np.ndarray:
        """Return data with the difference to the measured slices spread over them; once, for more sharpens noise."""
        last = self._last(data)
        missing = self.measured - last @ self.reduce.T
        return np.moveaxis(last + missing @ self.spread.T, -1, self.across)


def _spread_matrix(places: np.ndarray, size: int) -> np.ndarray:
    """Return the cubic spline from samples at even ``places`` (voxels) to all voxels, (size, samples), float64."""
    from scipy.ndimage import map_coordinates, spline_filter1d

    count = len(places)
    step = (places[-1] - places[0]) / (count - 1)
    inside = np.clip((np.arange(size) - places[0]) / step, 0, count - 1)
    coefficients = spline_filter1d(np.eye(count), order=3, axis=0, mode="mirror")
    columns = [
        map_coordinates(coefficients[:, k], inside[None], order=3, mode="mirror", prefilter=False) for k in range(count)
    ]
    return np.stack(columns, axis=1)
