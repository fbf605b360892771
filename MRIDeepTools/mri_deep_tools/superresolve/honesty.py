"""The honesty check: the result, reduced again to the slices that were measured, against those slices.

Whatever a network adds between slices, averaging its result over the thickness of each measured slice must give that
slice back. The difference is shown as a map, per slice, and as one PSNR. Agreement does not prove that what lies
between the slices is true; disagreement proves that something was changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..geometry import voxel_to_world, world_to_voxel
from ..volume import Volume
from .metrics import psnr
from .simulate import weights_of_slices

__all__ = ["HonestyCheck", "check_honesty", "measured_slices", "parallel_axis", "slice_grid"]

_DOUBTFUL = 3.0  # slices whose error is this many times the median are named


@dataclass(frozen=True)
class HonestyCheck:
    """What the check found.

    Attributes
    ----------
    difference : reduced result minus measured slices, float32, T2w intensities, on the slices' grid.
    psnr_db : of the reduced result within the head, data range ``data_range``.
    interpolation_psnr_db : the same for the interpolated scan that the network was given.
    data_range : 1st to 99th percentile of the scan.
    rms_per_slice : root mean squared difference of each slice within the head, T2w intensities; NaN without head.
    doubtful_slices : indices from 0 of slices whose difference is far above the others'.

    """

    difference: Volume
    psnr_db: float
    interpolation_psnr_db: float
    data_range: float
    rms_per_slice: tuple[float, ...]
    doubtful_slices: tuple[int, ...]

    def words(self) -> str:
        """Return the finding in a sentence."""
        text = (
            f"averaged over the measured slices, the result agrees with them to {self.psnr_db:.1f} dB "
            f"(plain interpolation: {self.interpolation_psnr_db:.1f} dB; range {self.data_range:.4g})"
        )
        if self.doubtful_slices:
            named = ", ".join(str(index + 1) for index in self.doubtful_slices[:8])
            text += f"; look at slice {named}" + (" and more" if len(self.doubtful_slices) > 8 else "")
        return text

    def as_record(self) -> dict[str, Any]:
        """Return the numbers for the sidecar."""
        return {
            "Words": self.words(),
            "PsnrDb": self.psnr_db,
            "InterpolationPsnrDb": self.interpolation_psnr_db,
            "DataRange": self.data_range,
            "RmsPerSlice": list(self.rms_per_slice),
            "DoubtfulSlices": list(self.doubtful_slices),
        }


def check_honesty(
    result: Volume,
    interpolated: Volume,
    scan: Volume,
    axis: int,
    thickness_mm: float,
    data_range: float,
    *,
    profile: str = "gaussian",
) -> HonestyCheck:
    """Reduce a result to the measured slices and compare.

    Parameters
    ----------
    result : (X, Y, Z) on a grid whose axes are parallel to those of ``scan``.
    interpolated : the scan on the grid of ``result``, as the network was given it.
    scan : the measured slices.
    axis : array axis of ``scan`` across the slices.
    thickness_mm, profile : of the slices.
    data_range : intensities from dark to bright, for PSNR.

    Returns
    -------
    The check; its map lies on the grid of ``result`` in the plane and on the slices across it, so that in-plane voxel
    sizes other than those of ``scan`` are not held against the result.

    """
    across = parallel_axis(result, scan, axis)
    places, affine = slice_grid(result, scan, axis, across)
    voxel = result.spacing[across]
    weights = weights_of_slices(result.shape3[across], voxel, (places + 0.5) * voxel, thickness_mm, profile)
    reduced, plain = (
        np.moveaxis(np.moveaxis(volume.data, across, -1).astype(np.float64) @ weights.T, -1, across)
        for volume in (result, interpolated)
    )
    measured = measured_slices(scan, reduced.shape, affine)
    head = measured > 0.1 * data_range
    difference = reduced - measured
    squares = np.where(head, difference**2, np.nan)
    per_slice = _per_slice(squares, across)
    mse = float(np.nanmean(squares)) if head.any() else float(np.mean(difference**2))
    plain_mse = float(np.mean((plain - measured)[head] ** 2)) if head.any() else float(np.mean((plain - measured) ** 2))
    usual = float(np.nanmedian(per_slice)) if np.isfinite(per_slice).any() else 0.0
    with np.errstate(invalid="ignore"):
        doubtful = np.flatnonzero(per_slice > max(_DOUBTFUL * usual, 0.02 * data_range))
    return HonestyCheck(
        difference=scan.with_affine(difference.astype(np.float32), affine),
        psnr_db=psnr(mse, data_range),
        interpolation_psnr_db=psnr(plain_mse, data_range),
        data_range=float(data_range),
        rms_per_slice=tuple(float(value) for value in per_slice),
        doubtful_slices=tuple(int(index) for index in doubtful),
    )


def parallel_axis(result: Volume, scan: Volume, axis: int) -> int:
    """Return the axis of ``result`` that runs across the slices."""
    normal = np.array(scan.affine[:3, axis]) / scan.spacing[axis]
    cosines = np.abs(normal @ (result.affine[:3, :3] / np.array(result.spacing)))
    return int(cosines.argmax())


def slice_grid(result: Volume, scan: Volume, axis: int, across: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where slices lie along the result's axis (voxels), and the affine of the grid of the reduced result."""
    middle = (np.array(scan.shape3, dtype=np.float64) - 1) / 2
    ends = np.stack([middle, middle])
    ends[:, axis] = [0, scan.shape3[axis] - 1]
    places = world_to_voxel(result.affine, voxel_to_world(scan.affine, ends))[:, across]
    inside = np.linspace(places[0], places[1], scan.shape3[axis])
    affine = np.array(result.affine)
    step = (places[1] - places[0]) / (scan.shape3[axis] - 1)
    affine[:3, 3] += affine[:3, across] * places[0]
    affine[:3, across] *= step
    return inside, affine


def measured_slices(scan: Volume, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return the slices with the in-plane voxels of the result."""
    from ..geometry import resample_to

    return np.asarray(resample_to(scan, shape, affine, order=3).data, dtype=np.float64)


def _per_slice(squares: np.ndarray, across: int) -> np.ndarray:
    flat = np.moveaxis(squares, across, 0).reshape(squares.shape[across], -1)
    counted = np.isfinite(flat).sum(axis=1)
    sums = np.nansum(flat, axis=1)
    return np.sqrt(np.where(counted > 0, sums / np.maximum(counted, 1), np.nan))
