"""NIfTI-1 and NIfTI-2 in single files: header checks, choice between sform and qform, scaling; and clean writing.

The header's meaning follows the NIfTI-1.1 definition (Cox et al. 2004, nifti1.h). Rules where it leaves a choice:

* the sform is used if its code is positive, else the qform if its code is positive, else the voxel sizes alone;
* a singular sform gives way to a qform that can be used, with a warning;
* ``scl_slope`` of 0, NaN or infinity means that values are not scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ._affine import (
    MAX_VOXEL_MM,
    MIN_VOXEL_MM,
    SFORM_QFORM_TOLERANCE_MM,
    SFORM_QFORM_TOLERANCE_VOXELS,
    SPACING_TOLERANCE,
    corner_distance,
    format_sizes,
    is_regular,
    spacing_of,
)
from ._formats import Raw, Remarks, Source, plan_frames, to_rows
from ._stream import DataStream
from .errors import GeometryError, InputError

_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_REFUSED = {
    0: ("no data type", "save it again with a data type"),
    1: ("1-bit data", "convert it to 8-bit integers"),
    32: ("complex data", "take the magnitude first"),
    128: ("RGB colours", "convert it to one grey value per voxel"),
    1536: ("128-bit floating-point data", "convert it to 32-bit floating-point"),
    1792: ("complex data", "take the magnitude first"),
    2048: ("complex data", "take the magnitude first"),
    2304: ("RGBA colours", "convert it to one grey value per voxel"),
}
_UNITS = {1: ("m", 1000.0), 3: ("um", 0.001)}
_GZIP = b"\x1f\x8b"
_SCALING_BLOCK = 1 << 20
_FLOAT32_STEP = 1 / 8  # float32 is enough when its rounding is below this share of one integer step


def read_nifti(path: Path, ndim: int | None, frame: int, remarks: Remarks) -> Raw:
    """Read a NIfTI file; see :func:`mri_deep_tools.volume.read_volume`."""
    compressed = path.name.lower().endswith(".gz")
    with DataStream(path, compressed=compressed) as stream:
        check_compression(path, compressed)
        header = _read_header(stream)
        sizes = _sizes(header, path.name)
        shape, skip = plan_frames(sizes, ndim, frame, remarks)
        dtype = _dtype(header, path.name)
        total = prod(sizes) * dtype.itemsize
        text = f"{' x '.join(map(str, sizes))} values of {dtype.itemsize * 8} bits"
        offset = _data_offset(header, remarks)
        stream.check_capacity(offset + total, text)
        stream.skip(offset - len(header.binaryblock) + skip * dtype.itemsize)
        data = stream.array(shape, dtype)
        if compressed:
            stream.skip(total - skip * dtype.itemsize - data.nbytes)
            stream.drain()
    forms = _choose_forms(header, sizes[:3], remarks)
    slope = _scaling(header, remarks)
    facts = Source(
        format="nifti",
        dtype=dtype.newbyteorder("=").name,
        qform_code=forms.qform_code,
        sform_code=forms.sform_code,
        header_spacing=forms.header_spacing,
        units=forms.units,
        qform=None if forms.qform is None else to_rows(forms.qform),
    )
    return Raw(data if slope is None else _scaled(data, *slope), forms.affine, facts)


def check_compression(path: Path, compressed: bool) -> None:
    """Raise InputError when a file's first bytes and its name disagree about compression."""
    with path.open("rb") as file:
        start = file.read(16)
    if compressed and start[:2] != _GZIP:
        page = start.lstrip()[:1] == b"<"
        hint = "it looks like a web page: download it again" if page else "copy it again, or drop .gz from its name"
        raise InputError(f"{path.name} is not a gzip file", hint)
    if not compressed and start[:2] == _GZIP:
        raise InputError(f"{path.name} is compressed but its name does not end in .gz", "rename it")


def _read_header(stream: DataStream) -> Any:
    import nibabel as nib

    start = stream.read(4)
    for order in "<>":
        size = int(np.frombuffer(start, dtype=f"{order}i4")[0])
        if size in (348, 540):
            kind = nib.Nifti1Header if size == 348 else nib.Nifti2Header
            header = kind(start + stream.read(size - 4), endianness=order, check=False)
            break
    else:
        raise InputError(f"{stream.name} is not a NIfTI file", "check what it is")
    magic = bytes(header["magic"].item())[:3]
    if magic in (b"ni1", b"ni2"):
        raise InputError(f"{stream.name} is half of a .hdr/.img pair", "convert it to a single .nii file")
    if magic not in (b"n+1", b"n+2"):
        raise InputError(f"{stream.name} is not a NIfTI file (Analyze?)", "convert it to NIfTI")
    return header


def _sizes(header: Any, name: str) -> tuple[int, ...]:
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        raise InputError(f"{name} has a damaged header ({count} axes)", "convert or download it again")
    sizes = tuple(int(n) for n in header["dim"][1 : count + 1])
    if min(sizes) < 0:
        raise InputError(f"{name} has a damaged header (size {' x '.join(map(str, sizes))})", "convert it again")
    return sizes


def _dtype(header: Any, name: str) -> np.dtype:
    code = int(header["datatype"])
    if code in _DTYPES:
        return np.dtype(_DTYPES[code]).newbyteorder(header.endianness)
    what, hint = _REFUSED.get(code, (f"the unknown data type {code}", "convert it to NIfTI again"))
    raise InputError(f"{name} holds {what}, which cannot be used", hint)


def _data_offset(header: Any, remarks: Remarks) -> int:
    least = len(header.binaryblock) + 4
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or offset < least:
        remarks.note(f"vox_offset {offset:g} taken as {least}")
        return least
    return int(offset)


# ------------------------------------------------------------------------------------------------------- orientation


@dataclass(frozen=True)
class _Forms:
    """The affine in use, and what both forms of the header said; matrices are (4, 4) to RAS mm."""

    affine: np.ndarray
    sform_code: int
    qform_code: int
    qform: np.ndarray | None
    header_spacing: tuple[float, float, float]
    units: str


def _choose_forms(header: Any, shape: tuple[int, ...], remarks: Remarks) -> _Forms:
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    sform = np.asarray(header.get_sform(), dtype=np.float64) if sform_code > 0 else None
    qform = _qform(header, pixdim, remarks) if qform_code > 0 else None
    if sform is not None and qform is not None and not is_regular(sform):
        remarks.warn("the sform is singular or not finite; the qform is used")
        sform, sform_code = None, 0
    affine = sform if sform is not None else qform
    if affine is None:
        if sform_code <= 0 < qform_code:
            raise GeometryError(f"{remarks.name} has a qform that cannot be used", "repair its orientation")
        affine = affine_of_sizes(shape, _usable_sizes(pixdim, remarks))
        sform_code = qform_code = 0
        remarks.warn(
            "has no orientation (sform and qform code 0); the first axis is taken to run from right to left, the "
            "second to the front and the third to the top, so left and right may be swapped"
        )
    units, scale = _unit_scale(header, affine, remarks)
    if scale != 1:
        to_mm = np.diag([scale, scale, scale, 1.0])
        affine, qform = to_mm @ affine, None if qform is None else to_mm @ qform
    if sform is not None and qform is not None:
        _compare_forms(shape, affine, qform, (sform_code, qform_code), remarks)
    spacing = _header_spacing(pixdim * scale, affine, remarks)
    return _Forms(affine, max(sform_code, 0), max(qform_code, 0), qform, spacing, units)


def _qform(header: Any, pixdim: np.ndarray, remarks: Remarks) -> np.ndarray | None:
    """Return the qform (method 2 of the standard), or None when its numbers cannot be used."""
    from nibabel.spatialimages import HeaderDataError

    fixed = header.copy()
    fixed["pixdim"][0] = -1 if float(header["pixdim"][0]) == -1 else 1  # 0 means 1
    fixed["pixdim"][1:4] = pixdim
    try:
        affine = np.asarray(fixed.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        affine = np.full((4, 4), np.nan)
    if is_regular(affine):
        return affine
    remarks.note("the qform cannot be used (voxel size 0 or a quaternion that is no rotation)")
    return None


def affine_of_sizes(shape: Sequence[int], sizes: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the affine of a file without orientation: x to the left, y front, z top, origin in the middle.

    This is what nibabel, and thus the published pipelines, take such a file for.
    """
    affine = np.diag([-sizes[0], sizes[1], sizes[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape[:3]) - 1) / 2)
    return affine


def _usable_sizes(pixdim: np.ndarray, remarks: Remarks) -> np.ndarray:
    good = np.isfinite(pixdim) & (pixdim > 0)
    if not good.all():
        remarks.warn("voxel sizes missing in the header are taken as 1 mm")
    return np.where(good, pixdim, 1.0)


def _unit_scale(header: Any, affine: np.ndarray, remarks: Remarks) -> tuple[str, float]:
    """Return the unit's name and its length in mm; a unit that makes no sense for the numbers is not believed."""
    code = int(header["xyzt_units"]) & 7
    if code not in _UNITS or not is_regular(affine):
        return "mm", 1.0
    unit, scale = _UNITS[code]
    sizes = np.array(spacing_of(affine)) * scale
    if sizes.min() < MIN_VOXEL_MM or sizes.max() > MAX_VOXEL_MM:
        remarks.warn(f"the header says lengths are in {unit}, which is not plausible; they are taken as mm")
        return "mm", 1.0
    remarks.warn(f"lengths in {unit} are converted to mm")
    return unit, scale


def _compare_forms(
    shape: tuple[int, ...], sform: np.ndarray, qform: np.ndarray, codes: tuple[int, int], remarks: Remarks
) -> None:
    if not is_regular(sform):
        return
    apart = corner_distance(shape, sform, qform)
    if apart > min(SFORM_QFORM_TOLERANCE_MM, SFORM_QFORM_TOLERANCE_VOXELS * min(spacing_of(sform))):
        remarks.warn(
            f"sform (code {codes[0]}) and qform (code {codes[1]}) differ by up to {apart:.3g} mm at the corners; "
            "the sform is used"
        )


def _header_spacing(pixdim: np.ndarray, affine: np.ndarray, remarks: Remarks) -> tuple[float, float, float]:
    """Return the voxel sizes of the header, or those of the affine where the header's are no sizes."""
    sizes = np.array(spacing_of(affine)) if is_regular(affine) else np.ones(3)
    good = np.isfinite(pixdim) & (pixdim > 0)
    if not good.all():
        remarks.note("voxel sizes missing in the header are taken from the affine")
    elif (np.abs(pixdim / sizes - 1) > SPACING_TOLERANCE).any():
        remarks.warn(
            f"the header states voxels of {format_sizes(pixdim)} mm, its affine {format_sizes(sizes)} mm; "
            "positions follow the affine"
        )
    chosen = np.where(good, pixdim, sizes)
    return float(chosen[0]), float(chosen[1]), float(chosen[2])


# ----------------------------------------------------------------------------------------------------------- scaling


def _scaling(header: Any, remarks: Remarks) -> tuple[float, float] | None:
    """Return slope and intercept, or None when the values stand as they are."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    offset = intercept if np.isfinite(intercept) else 0.0
    if slope == 0 or not np.isfinite(slope):
        text = f"scl_slope is {slope:g}: values are not scaled"
        if offset != 0 or np.isinf(slope):
            remarks.warn(f"{text}, and scl_inter {offset:g} is not added")
        else:
            remarks.note(text)  # the usual way to say so
        return None
    if not np.isfinite(intercept):
        remarks.warn(f"scl_inter is {intercept:g} and is not added")
    return None if (slope, offset) == (1.0, 0.0) else (slope, offset)


def _scaled(data: np.ndarray, slope: float, offset: float) -> np.ndarray:
    """Return ``data * slope + offset``, computed in float64 and kept as float32 where that loses nothing."""
    flat = data.reshape(-1, order="F")
    exact = data.dtype == np.float64
    if data.dtype.kind in "iu":
        largest = max(abs(float(flat.min()) * slope + offset), abs(float(flat.max()) * slope + offset))
        exact = float(np.spacing(np.float32(largest))) > abs(slope) * _FLOAT32_STEP
    out = np.empty(flat.shape, dtype=np.float64 if exact else np.float32)
    for start in range(0, flat.size, _SCALING_BLOCK):
        part = slice(start, start + _SCALING_BLOCK)
        out[part] = flat[part] * np.float64(slope) + offset
    return out.reshape(data.shape, order="F")
