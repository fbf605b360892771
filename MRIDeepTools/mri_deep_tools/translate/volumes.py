"""Slices of a scan for a network of two-dimensional images, and the way back to the scan's own grid.

The rules are those of SynDiff's data (Özbey et al., arXiv 2207.08208, section IV, and its authors in public threads):
axial slices with the face up, each volume divided by its mean, then by one constant of the contrast so that values lie
in 0..1, and that mapped to -1..1. Training sets from volumes and translation use the same functions.

A slice has the axes (rows, columns) of a picture: axial slices run from front to back and from the patient's right to
left, coronal and sagittal ones from top to bottom. Slices are counted along the body, from the bottom, the back, or the
left, from 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import InputError, RequestError
from ..geometry import Chain, Grid, Reorient, Resample, Step
from ..volume import Volume

__all__ = [
    "AXES",
    "BACKGROUND",
    "Axis",
    "SliceStack",
    "Window",
    "check_scan",
    "foreground",
    "head_mask",
    "intensity_divisor",
    "place_window",
    "slice_numbers",
    "slice_scan",
]

Axis = Literal["axial", "coronal", "sagittal"]
AXES: dict[str, str] = {"axial": "PLS", "coronal": "ILA", "sagittal": "IPR"}
"""Body direction of rows, columns and slice numbers."""
BACKGROUND = -1.0
SPACING_TOLERANCE = 0.05
"""Voxel sides within this share of the model's are left alone (specification of the method, 10.2)."""
_PERCENTILE, _BRIGHT = 99.9, 0.9
_FOREGROUND = 0.1
_EMPTY = 0.001


@dataclass(frozen=True, eq=False)
class SliceStack:
    """The slices of a scan, as the network takes them, and the way back.

    Attributes
    ----------
    values : (N, H, W) float32 in [-1, 1].
    filled : (N,) bool, slices that show more than background.
    scan : the volume that they come from.
    way : from the scan's grid to (H, W, N).
    grid : of the slices, (H, W, N).

    """

    values: np.ndarray
    filled: np.ndarray
    scan: Volume
    way: Chain
    grid: Grid

    def back(self, values: np.ndarray) -> Volume:
        """Return values (N, H, W), any type of floating point, on the scan's own grid as float32; 0 outside."""
        turned = Volume(np.ascontiguousarray(np.moveaxis(values, 0, -1), dtype=np.float32), self.grid.affine)
        return self.scan.with_data(self.way.undo(turned, kind="linear").data.astype(np.float32, copy=False))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask (X, Y, Z) of the scan's grid on that of the slices, (N, H, W) bool."""
        moved = self.way.apply(self.scan.with_data(mask.astype(np.float32)))
        return np.moveaxis(moved.data > 0.5, -1, 0)


def check_scan(volume: Volume, name: str) -> Volume:
    """Return a scan whose values can be translated, as they are.

    Raises
    ------
    InputError : it has several frames, no real values, one slice, or the same value everywhere.

    """
    if volume.data.ndim == 4:
        if volume.data.shape[3] > 1:
            raise InputError(
                f"{name} has {volume.data.shape[3]} frames or channels", "give one volume (extract one frame first)"
            )
        volume = volume.with_data(volume.data[..., 0])
    if volume.data.dtype.kind not in "biuf":
        raise InputError(f"{name} holds values of type {volume.data.dtype}, not real numbers", "give one MR scan")
    if volume.data.dtype == np.bool_:
        volume = volume.with_data(volume.data.astype(np.uint8))
    if volume.data.dtype.kind == "f" and not np.isfinite(volume.data).all():
        volume = volume.with_data(np.nan_to_num(volume.data, nan=0.0, posinf=0.0, neginf=0.0))
    if min(volume.shape3) < 1 or volume.data.min() == volume.data.max():
        raise InputError(f"{name} shows nothing: all its voxels have the same value", "check the file")
    return volume


def intensity_divisor(
    data: np.ndarray, constant: float | None, *, region: np.ndarray | None = None, name: str = "the scan"
) -> float:
    """Return the intensity that becomes 1.

    Parameters
    ----------
    data : (X, Y, Z) of any real type.
    constant : the largest value of this contrast in units of the mean (K); None takes the 99.9th percentile of the
        volume as 0.9, for models whose constant is not known.
    region : (X, Y, Z) bool, where the mean (or percentile) is taken; None is the whole volume, background included.
    name : of the scan, for errors.

    Raises
    ------
    InputError : the mean is not positive. RequestError : ``constant`` is not positive.

    """
    values = data if region is None else data[region]
    if constant is not None and not 0 < constant < np.inf:
        raise RequestError(f"the intensity constant must be above 0, not {constant:g}", "give a positive number")
    measured = float(values.mean(dtype=np.float64)) if values.size else 0.0
    divisor = measured * constant if constant is not None else float(np.percentile(values, _PERCENTILE)) / _BRIGHT
    if not (divisor > 0 and measured > 0):
        what = f"the mean of {name} is {measured:.3g}"
        raise InputError(what, "give a scan with positive intensities on a dark background")
    return divisor


def foreground(data: np.ndarray) -> np.ndarray:
    """Return where a scan is brighter than a tenth of its 99.9th percentile, bool of the same shape."""
    return np.asarray(data > _FOREGROUND * float(np.percentile(data, _PERCENTILE)))


def head_mask(volume: Volume) -> np.ndarray:
    """Return the head (or the brain of a stripped scan), (X, Y, Z) bool: largest bright piece, without holes."""
    from scipy.ndimage import binary_closing, binary_dilation, binary_fill_holes, label

    closed = binary_closing(np.pad(foreground(volume.data), 3), iterations=3)
    pieces, count = label(closed)
    if count > 1:
        closed = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    for axis in range(3):
        for index in range(closed.shape[axis]):  # slice by slice, so that the nose and the ears do not open the head
            plane = np.moveaxis(closed, axis, 0)[index]
            plane[:] = binary_fill_holes(plane)
    return np.asarray(binary_dilation(closed)[3:-3, 3:-3, 3:-3])


def slice_scan(
    scan: Volume,
    divisor: float,
    *,
    axis: Axis = "axial",
    spacing_mm: float | Sequence[float] | None = None,
    head: np.ndarray | None = None,
) -> SliceStack:
    """Cut a scan into slices.

    Parameters
    ----------
    scan : (X, Y, Z).
    divisor : the intensity that becomes 1; see :func:`intensity_divisor`. What is brighter is clipped.
    axis : direction in which slices follow each other.
    spacing_mm : pixel side of the model in mm, or (along rows, along columns) as its (height, width) of a pixel; slices
        are resampled linearly when theirs differs by more than 5 percent. None leaves them alone.
    head : (X, Y, Z) bool; slices without any of it count as empty. None uses :func:`foreground`.

    Returns
    -------
    All slices, empty ones too (``filled`` says which).

    """
    if axis not in AXES:
        raise RequestError(f"unknown slice axis {axis!r}", f"use one of {', '.join(AXES)}")
    steps: list[Step] = [Reorient.to(scan, AXES[axis])]
    turned = steps[0].apply(scan)
    shown = steps[0].apply(scan.with_data(foreground(scan.data) if head is None else head)).data
    if spacing_mm is not None:
        wanted = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (2,))
        own = np.array(turned.spacing)
        if not (np.isfinite(wanted).all() and wanted.min() > 0):
            raise RequestError(f"a pixel side of {spacing_mm} mm is not positive", "give millimetres")
        if (np.abs(own[:2] / wanted - 1) > SPACING_TOLERANCE).any():
            steps.append(Resample.to_spacing(turned, (*wanted, own[2])))
            turned = steps[1].apply(turned.with_data(turned.data.astype(np.float32)))
    values = np.moveaxis(turned.data, -1, 0).astype(np.float32) / np.float32(divisor)
    values = np.ascontiguousarray(np.clip(values, 0, 1) * 2 - 1)
    share = shown.reshape(-1, shown.shape[2]).mean(axis=0)
    filled = share > (_EMPTY if head is None else 0)
    return SliceStack(values, filled, scan, Chain(tuple(steps)), Grid.of(turned))


def slice_numbers(request: str | None, count: int) -> range:
    """Return the slices of a request such as ``"40:60"`` (60 excluded), ``"40:"``, ``"::5"`` or ``"50"``.

    Raises
    ------
    RequestError : it cannot be read, or names no slice of ``count``.

    """
    if request is None:
        return range(count)
    hint = f"write FIRST:END such as 40:60, from 0 to {count}"
    parts = request.split(":")
    if len(parts) > 3 or not all(re.fullmatch(r"-?\d+|", part.strip()) for part in parts) or not any(parts):
        raise RequestError(f"cannot read the slices {request!r}", hint)
    numbers = [int(part) if part.strip() else None for part in parts]
    if len(parts) == 1:
        first = numbers[0] or 0
        numbers = [first, first + 1 or None]
    if len(numbers) == 3 and numbers[2] is not None and numbers[2] < 1:
        raise RequestError(f"cannot read the slices {request!r}", "the step must be 1 or more")
    chosen = range(count)[slice(*numbers)]
    if not chosen:
        raise RequestError(f"the slices {request!r} name none of the {count} slices", hint)
    return chosen


# ----------------------------------------------------------------------------------------------------------- the window


@dataclass(frozen=True)
class Window:
    """Where the square that the network sees lies on a slice: what is cut out, and the margins around it.

    Attributes
    ----------
    rows, columns : (start, stop) on the slice.
    above, left : margins of background before what is cut out; the rest of ``shape`` comes after.
    shape : (height, width) that the network sees.

    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    above: int
    left: int
    shape: tuple[int, int]

    def cut(self, slices: np.ndarray) -> np.ndarray:
        """Return (N, H, W) as (N, *shape), background in the margins."""
        out = np.full((len(slices), *self.shape), BACKGROUND, dtype=np.float32)
        out[self._inside()] = slices[:, slice(*self.rows), slice(*self.columns)]
        return out

    def paste(self, squares: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Return (N, *self.shape) as (N, *shape), background where the network saw nothing."""
        out = np.full((len(squares), *shape), BACKGROUND, dtype=np.float32)
        out[:, slice(*self.rows), slice(*self.columns)] = squares[self._inside()]
        return out

    def _inside(self) -> tuple[slice, slice, slice]:
        high, wide = self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]
        return slice(None), slice(self.above, self.above + high), slice(self.left, self.left + wide)


def place_window(stack: SliceStack, size: int) -> Window | None:
    """Return the window of ``size`` pixels a side for all slices of a stack.

    Slices that are smaller are padded around their centre (of an odd margin the larger half comes after); of larger
    ones the part around the head is taken. None where the head itself does not fit: then the slices need tiles.
    """
    shown = (stack.values > 2 * _FOREGROUND * _BRIGHT - 1)[stack.filled].any(axis=0)
    ends: list[tuple[int, int]] = []
    margins: list[int] = []
    for axis in range(2):
        count = shown.shape[axis]
        if count <= size:
            ends.append((0, count))
            margins.append((size - count) // 2)
            continue
        used = np.flatnonzero(shown.any(axis=1 - axis))
        first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
        if last - first > size:
            return None
        start = min(max((first + last - size) // 2, 0), count - size)
        ends.append((start, start + size))
        margins.append(0)
    return Window(ends[0], ends[1], margins[0], margins[1], (size, size))
