"""From a scan to the network's input: 1 mm grid, RAS axes, optional crop, intensities in 0 to 1, zero padding.

The published rules (Billot et al. 2023, program version 2.0) are kept to the last rounding of a grid length, since a
voxel more or less shifts every label. Nothing is rotated: an oblique scan keeps its axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, RequestError
from ..geometry import Reorient
from ..volume import Volume

__all__ = [
    "MIN_SIZE",
    "Prepared",
    "centre_crop",
    "pad_margins",
    "prepare",
    "resample_to_spacing",
    "rescale_intensities",
    "round_up",
    "sample_positions",
]

MIN_SIZE = 128  # voxels; smaller volumes are padded to this
MULTIPLE = 32  # the network halves its grid four times
SPACING_TOLERANCE = 0.05  # mm; closer to the target than this is left alone
CT_WINDOW = (0.0, 80.0)  # Hounsfield units
PERCENTILES = (0.5, 99.5)
BLUR = 0.25  # sigma in target voxels before samples are dropped

Corner = tuple[int, int, int]


@dataclass(frozen=True)
class Prepared:
    """A network input and how it came about.

    Attributes
    ----------
    image : (X, Y, Z) float32, axes nearest to RAS, values 0 to 1, sides multiples of 32.
    affine : (4, 4), voxel of ``image`` to RAS mm.
    working : the scan on the working grid in its own axis order, intensities as read (float32).
    reorient : the step from ``working``'s axis order to RAS; its inverse brings results back.
    full_shape : RAS-ordered shape of ``working``.
    crop : (start, stop) of the crop within ``full_shape``, or None.
    pad : (start, stop) of the scan (after crop) within ``image``.
    voxel_volume : mm^3 of one voxel of the working grid, for soft volumes.
    resampled : whether ``working`` has another grid than the scan.

    """

    image: np.ndarray
    affine: np.ndarray
    working: Volume
    reorient: Reorient
    full_shape: Corner
    crop: tuple[Corner, Corner] | None
    pad: tuple[Corner, Corner]
    voxel_volume: float
    resampled: bool

    @property
    def full_affine(self) -> np.ndarray:
        """Return the affine (4, 4) of the full RAS-ordered volume, before crop and padding."""
        return self.reorient.apply(self.working).affine

    @property
    def inside_affine(self) -> np.ndarray:
        """Return the affine (4, 4) of the (cropped) scan without its padding."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.asarray(self.pad[0])
        return affine

    @property
    def inside(self) -> tuple[slice, slice, slice]:
        """Return where the scan lies in the padded array."""
        (x0, y0, z0), (x1, y1, z1) = self.pad
        return slice(x0, x1), slice(y0, y1), slice(z0, z1)

    @property
    def patch(self) -> tuple[slice, slice, slice]:
        """Return where the (cropped) scan lies in the full RAS-ordered volume."""
        (x0, y0, z0), (x1, y1, z1) = self.crop or ((0, 0, 0), self.full_shape)
        return slice(x0, x1), slice(y0, y1), slice(z0, z1)


def round_up(size: int, multiple: int = MULTIPLE) -> int:
    """Return the smallest multiple that is at least ``size``."""
    return math.ceil(size / multiple) * multiple


def prepare(
    volume: Volume,
    *,
    spacing: float | None = 1.0,
    crop: Sequence[int] | None = None,
    ct: bool = False,
    min_size: int | Sequence[int] = MIN_SIZE,
    multiple: int = MULTIPLE,
    compatible: bool = False,
) -> Prepared:
    """Make the network input of a 3-D scan.

    Parameters
    ----------
    volume : (X, Y, Z), any axis order and voxel size, numbers of any type.
    spacing : voxel size of the network's grid, mm; None leaves every scan on its own grid.
    crop : sides of a centred crop in voxels of that grid, RAS order, each rounded up to ``multiple``.
    ct : clip intensities to 0..80 Hounsfield units.
    min_size : least side of the padded input; with ``crop`` the crop's sides take its place.
    compatible : take voxel sizes from the header rather than the affine, and accept images without contrast.

    Raises
    ------
    InputError : not 3-D, or without contrast.
    RequestError : ``crop`` is not three positive numbers.

    """
    if volume.data.ndim != 3:
        raise InputError(f"{volume.source.name or 'the image'} has {volume.data.ndim} axes, not 3", "give one volume")
    header = volume.source.header_spacing if compatible else None
    sizes = np.asarray(header if header is not None else volume.spacing, dtype=np.float64)
    target = sizes if spacing is None else np.full(3, float(spacing))
    resampled = bool(np.any(np.abs(sizes - target) > SPACING_TOLERANCE))
    working = resample_to_spacing(volume, float(target[0])) if resampled else volume
    reorient = Reorient.to_ras(working)
    oriented = reorient.apply(working)
    full_shape = _corner(oriented.data.shape)
    box = None if crop is None else centre_crop(full_shape, crop, multiple)
    start, stop = box or ((0, 0, 0), full_shape)
    data = oriented.data[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    data = rescale_intensities(data, ct=ct, name=volume.source.name, allow_constant=compatible)
    low, high, padded = pad_margins(data.shape, crop if crop is not None else min_size, multiple)
    image = np.zeros(padded, dtype=np.float32)
    image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = data
    affine = oriented.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (np.asarray(start) - np.asarray(low))
    if resampled:
        voxel_volume, working = float(target[0]) ** 3, working.with_data(working.data.astype(np.float32))
    else:
        voxel_volume = float(np.prod(sizes)) if compatible else volume.voxel_volume_mm3
    return Prepared(image, affine, working, reorient, full_shape, box, (low, high), voxel_volume, resampled)


def _corner(values: Sequence[int] | np.ndarray) -> Corner:
    return int(values[0]), int(values[1]), int(values[2])


# ------------------------------------------------------------------------------------------------------ resampling


def sample_positions(count: int, factor: float) -> np.ndarray:
    """Return where, in input voxels, the samples of the new grid lie; ``factor`` = old over new voxel size.

    The number of samples follows the floating-point steps of the published program and is sometimes one more than
    the extent rounded up.
    """
    start, step = -(factor - 1) / (2 * factor), 1 / factor
    stop = start + step * math.ceil(count * factor)
    return np.clip(np.arange(start, stop, step), 0, count - 1)


def resample_to_spacing(volume: Volume, spacing: float = 1.0) -> Volume:
    """Resample a 3-D volume linearly to ``spacing`` mm on all axes, blurring the axes that lose samples.

    Returns float64 data in the input's axis order. The field of view is kept: the affine's origin moves by half the
    difference of the voxel sizes.
    """
    factors = np.linalg.norm(volume.affine[:3, :3], axis=0) / spacing
    data = volume.data
    for axis in np.argsort(factors):  # axes that shrink come first; the order does not change the result
        data = _resample_axis(data, int(axis), float(factors[axis]))
    affine = volume.affine.copy()
    affine[:3, :3] /= factors
    affine[:3, 3] -= affine[:3, :3] @ (0.5 * (factors - 1))
    return Volume(np.ascontiguousarray(data), affine, volume.source)


def _resample_axis(data: np.ndarray, axis: int, factor: float) -> np.ndarray:
    """Blur and interpolate along one axis, in slabs across another so that little is held twice."""
    from scipy.ndimage import gaussian_filter1d

    positions = sample_positions(data.shape[axis], factor)
    low = np.minimum(positions.astype(np.intp), max(data.shape[axis] - 2, 0))
    high = np.minimum(low + 1, data.shape[axis] - 1)
    shape = [-1 if k == axis else 1 for k in range(3)]
    weight = (positions - low).reshape(shape)
    result = np.empty([len(positions) if k == axis else n for k, n in enumerate(data.shape)], dtype=np.float64)
    across = 0 if axis != 0 else 1
    for start in range(0, data.shape[across], 16):
        index = tuple(slice(start, start + 16) if k == across else slice(None) for k in range(3))
        piece = data[index].astype(np.float64)
        if factor <= 1:
            piece = gaussian_filter1d(piece, BLUR / factor, axis=axis)
        first, second = np.take(piece, low, axis=axis), np.take(piece, high, axis=axis)
        result[index] = first * (1 - weight) + second * weight
    return result


# --------------------------------------------------------------------------------------- crop, intensities, padding


def centre_crop(shape: Sequence[int], crop: Sequence[int], multiple: int = MULTIPLE) -> tuple[Corner, Corner]:
    """Return (start, stop) of a centred crop whose sides are ``crop`` rounded up to ``multiple``."""
    if len(crop) != 3 or any(int(side) != side or side < 1 for side in crop):
        raise RequestError(f"crop must be three positive whole numbers, not {tuple(crop)}")
    target = [round_up(int(side), multiple) for side in crop]
    start = [max(int((n - t) / 2), 0) for n, t in zip(shape, target, strict=True)]
    stop = [min(a + t, n) for a, t, n in zip(start, target, shape, strict=True)]
    return _corner(start), _corner(stop)


def rescale_intensities(
    data: np.ndarray, *, ct: bool = False, name: str = "", allow_constant: bool = False
) -> np.ndarray:
    """Map the 0.5 and 99.5 percentiles to 0 and 1, clipping beyond; float64, same shape.

    An image without contrast raises InputError, or becomes all zeros with ``allow_constant``.
    """
    values = data.astype(np.float64)
    if ct:
        np.clip(values, *CT_WINDOW, out=values)
    low, high = np.percentile(values, PERCENTILES)
    if not high > low:
        if allow_constant:
            return np.zeros_like(values)
        hint = "check that the right file was chosen" + (" and that it is a CT in Hounsfield units" if ct else "")
        raise InputError(f"{name or 'the image'} has no contrast: nearly all voxels have the value {low:g}", hint)
    np.clip(values, low, high, out=values)
    values -= low
    values /= high - low
    return values


def pad_margins(
    shape: Sequence[int], min_size: int | Sequence[int], multiple: int = MULTIPLE
) -> tuple[Corner, Corner, Corner]:
    """Return (start, stop, padded shape): where an array of ``shape`` goes in its padded version."""
    least = [min_size] * 3 if isinstance(min_size, int) else list(min_size)
    padded = [max(round_up(n, multiple), round_up(int(m), multiple)) for n, m in zip(shape, least, strict=True)]
    start = [(p - n) // 2 for p, n in zip(padded, shape, strict=True)]
    return _corner(start), _corner([a + n for a, n in zip(start, shape, strict=True)]), _corner(padded)
