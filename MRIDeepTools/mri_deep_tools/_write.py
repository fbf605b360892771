"""Writers of image files: fresh headers, data in blocks, the same bytes for the same content."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._affine import SAME_GRID_TOLERANCE_MM, corner_distance
from ._atomic import final_name
from ._formats import Source
from ._mgh import MGH_DTYPES, mgh_header
from ._nifti import affine_of_sizes
from .errors import OutputError

_GZIP_LEVEL = 1  # a label map of 256^3 voxels takes 0.4 s; the highest level takes ten times that for a third less
_BLOCK_BYTES = 128 << 20  # several channels at a time, since channels often vary fastest in memory
_SCANNER, _ALIGNED = 1, 2  # NIFTI_XFORM_SCANNER_ANAT, NIFTI_XFORM_ALIGNED_ANAT
_INTENT_LABEL = 1002
_INT16_AXIS = 32767
_MGH_WIDER = {"int8": "int16", "uint32": "int32", "int64": "int32", "uint64": "int32", "float64": "float32"}


def storage_type(data: np.ndarray, dtype: Any, *, label: bool, suffix: str, path: Path) -> np.dtype:
    """Return the type in which ``data`` is stored.

    Without ``dtype``: bool as uint8, floating-point as float32, 64-bit and unsigned 32-bit integers as int32, other
    integers as they are; label maps as int32. MGH has no 8-bit signed integers: they become int16.

    Raises
    ------
    OutputError : values do not fit into the type, or the format does not have the type.

    """
    if dtype is not None:
        chosen = np.dtype(dtype)
    elif label:
        chosen = np.dtype(np.int32)
    elif data.dtype == np.bool_:
        chosen = np.dtype(np.uint8)
    elif data.dtype.kind == "f":
        chosen = np.dtype(np.float32)
    else:
        chosen = np.dtype(np.int32) if data.dtype.itemsize == 8 or data.dtype == np.uint32 else data.dtype
    if suffix in (".mgz", ".mgh") and chosen not in MGH_DTYPES:
        if dtype is not None or chosen.name not in _MGH_WIDER:
            raise OutputError(f"{final_name(path)} cannot hold {chosen.name}", "use float32 or int32")
        chosen = np.dtype(_MGH_WIDER[chosen.name])
    if chosen.kind not in "iuf" or chosen == np.float16 or chosen.itemsize > 8:
        raise OutputError(f"{final_name(path)} cannot hold values of type {chosen.name}", "use float32 or int32")
    _check_values(data, chosen, path)
    return chosen


def _check_values(data: np.ndarray, chosen: np.dtype, path: Path) -> None:
    """Raise when a value would change by more than rounding."""
    if chosen.kind == "f" or not data.size or np.can_cast(data.dtype, chosen, "safe"):
        return
    limits = np.iinfo(chosen)
    low, high = data.min(), data.max()
    if not (low >= limits.min and high <= limits.max):  # also when NaN
        raise OutputError(
            f"{final_name(path)} cannot hold values from {low:g} to {high:g} as {chosen.name}",
            "choose a wider type",
        )
    if data.dtype.kind == "f" and any(not np.array_equal(part, np.rint(part)) for part in _parts(data)):
        raise OutputError(
            f"{final_name(path)} cannot hold fractional values as {chosen.name}", "choose a floating-point type"
        )


def write_nifti(
    data: np.ndarray, affine: np.ndarray, source: Source, path: Path, dtype: np.dtype, description: str, label: bool
) -> None:
    """Write a single-file NIfTI-1 (NIfTI-2 where an axis is longer than 32767).

    Units are mm; sform and qform both hold ``affine``. On the grid of the file it came from the codes are that file's,
    and so is the qform where the two forms differed; elsewhere both codes are 2 (aligned), or 1 (scanner) for an
    unchanged affine from a format without codes.
    """
    import nibabel as nib

    header: Any = nib.Nifti1Header() if max(data.shape) <= _INT16_AXIS else nib.Nifti2Header()
    header.set_data_shape(data.shape)
    header.set_data_dtype(dtype)
    header.set_xyzt_units("mm")
    (sform, sform_code), (qform, qform_code) = _forms(data.shape, affine, source)
    header.set_qform(qform, code=qform_code)
    header.set_sform(sform, code=sform_code)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = len(header.binaryblock) + 4
    header["magic"] = b"n+1" if len(header.binaryblock) == 348 else header["magic"]
    header["descrip"] = " ".join(description.split()).encode("ascii", "replace")[:79]
    if label:
        header["intent_code"] = _INTENT_LABEL
    compressed = path.name.lower().endswith(".gz")
    with _open(path, compressed) as stream:
        stream.write(header.binaryblock + bytes(4))
        for part in _parts(data, dtype):
            stream.write(_bytes_of(part))


def _forms(shape: tuple[int, ...], affine: np.ndarray, source: Source) -> list[tuple[np.ndarray, int]]:
    """Return (matrix, code) of sform and qform for a grid that may or may not be that of its source."""
    known = None if source.affine is None else np.array(source.affine)
    if known is None or corner_distance(shape, affine, known) > SAME_GRID_TOLERANCE_MM:
        return [(affine, _ALIGNED), (affine, _ALIGNED)]
    if source.sform_code is None or source.qform_code is None:
        return [(known, _SCANNER), (known, _SCANNER)]
    codes = [code if 0 <= code <= 5 else _ALIGNED for code in (source.sform_code, source.qform_code)]
    if codes == [0, 0] and not np.allclose(known, affine_of_sizes(shape, source.header_spacing or (1, 1, 1))):
        return [(known, _ALIGNED), (known, _ALIGNED)]
    return [(known, codes[0]), (known if source.qform is None else np.array(source.qform), codes[1])]


def write_mgh(data: np.ndarray, affine: np.ndarray, path: Path, dtype: np.dtype) -> None:
    """Write an MGH file, compressed when the name ends in .mgz."""
    with _open(path, path.name.lower().endswith(".mgz")) as stream:
        stream.write(mgh_header(data.shape, dtype, affine))
        for part in _parts(data, dtype.newbyteorder(">")):
            stream.write(_bytes_of(part))
        stream.write(bytes(20))  # repetition time, flip angle, echo time, inversion time, field of view: not known


def write_npz(data: np.ndarray, affine: np.ndarray, path: Path, dtype: np.dtype) -> None:
    """Write the arrays ``vol_data`` and ``affine``."""
    with path.open("wb") as file:
        np.savez_compressed(file, vol_data=np.ascontiguousarray(data, dtype=dtype), affine=affine)


def _parts(data: np.ndarray, dtype: np.dtype | None = None) -> Iterator[np.ndarray]:
    """Yield the array in blocks along its last axis; the bytes of each block are in Fortran order of the whole."""
    dtype = data.dtype if dtype is None else dtype
    step = max(1, _BLOCK_BYTES * data.shape[-1] // max(1, data.size * dtype.itemsize))
    for start in range(0, data.shape[-1], step):
        yield np.ascontiguousarray(data[..., start : start + step].T, dtype=dtype)


def _bytes_of(part: np.ndarray) -> memoryview:
    return part.reshape(-1).view(np.uint8).data


@contextmanager
def _open(path: Path, compressed: bool) -> Iterator[IO[bytes]]:
    """Open a file for writing; a compressed one holds neither name nor time, so equal content gives equal bytes."""
    with path.open("wb") as file:
        if not compressed:
            yield file
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as stream:
            yield stream  # type: ignore[misc]
