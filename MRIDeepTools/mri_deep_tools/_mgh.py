"""FreeSurfer's MGH and MGZ files."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ._affine import spacing_of
from ._formats import Raw, Remarks, Source, plan_frames
from ._nifti import check_compression
from ._stream import DataStream
from .errors import InputError

_HEADER_BYTES, _DATA_OFFSET, _FOOTER = 90, 284, bytes(20)
_DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
MGH_DTYPES = {np.dtype(code).newbyteorder("="): number for number, code in _DTYPES.items()}
"""Type numbers of the NumPy types that an MGH file can hold."""


def read_mgh(path: Path, ndim: int | None, frame: int, remarks: Remarks) -> Raw:
    """Read an MGH or MGZ file; see :func:`mri_deep_tools.volume.read_volume`."""
    from nibabel.freesurfer.mghformat import MGHHeader

    compressed = path.name.lower().endswith(".mgz")
    with DataStream(path, compressed=compressed) as stream:
        check_compression(path, compressed)
        header = MGHHeader(stream.read(_HEADER_BYTES) + _FOOTER, check=False)
        sizes = _sizes(header, path.name)
        code = int(header["type"])
        if code not in _DTYPES:
            raise InputError(f"{path.name} has the unknown data type {code}", "convert it with mri_convert")
        dtype = np.dtype(_DTYPES[code])
        shape, skip = plan_frames(sizes, ndim, frame, remarks)
        total = prod(sizes) * dtype.itemsize
        stream.check_capacity(_DATA_OFFSET + total, f"{prod(sizes):,} values of {dtype.itemsize} bytes")
        stream.skip(_DATA_OFFSET - _HEADER_BYTES + skip * dtype.itemsize)
        data = stream.array(shape, dtype)
        stream.skip(total - skip * dtype.itemsize - data.nbytes)
        stream.drain()
    affine = _affine(header, remarks)
    delta = tuple(float(size) for size in header["delta"])
    facts = Source(format="mgz", dtype=data.dtype.name, header_spacing=(delta[0], delta[1], delta[2]))
    return Raw(data, affine, facts)


def _sizes(header: Any, name: str) -> tuple[int, ...]:
    sizes = tuple(int(n) for n in header["dims"])
    if int(header["version"]) != 1 or min(sizes) < 0:
        raise InputError(f"{name} is not an MGH file", "check what it is")
    return sizes[:3] if sizes[3] == 1 else sizes


def _affine(header: Any, remarks: Remarks) -> np.ndarray:
    if not int(header["goodRASFlag"]):
        remarks.warn("has no orientation; FreeSurfer's coronal default (left, inferior, anterior) is assumed")
        header["delta"] = 1
        header["Mdc"] = [[-1, 0, 0], [0, 0, -1], [0, 1, 0]]
        header["Pxyz_c"] = 0
    steps = np.asarray(header["Mdc"], dtype=np.float64).T * np.asarray(header["delta"], dtype=np.float64)
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = np.asarray(header["Pxyz_c"], dtype=np.float64) - steps @ (np.array(header["dims"][:3]) / 2)
    return affine


def mgh_header(shape: tuple[int, ...], dtype: np.dtype, affine: np.ndarray) -> bytes:
    """Return the 284 bytes before the data of an MGH file: fresh, with the affine, and nothing else."""
    from nibabel.freesurfer.mghformat import MGHHeader

    header = MGHHeader()
    header["dims"] = (*shape, 1)[:4]
    header["type"] = MGH_DTYPES[dtype]
    header["goodRASFlag"] = 1
    sizes = np.array(spacing_of(affine))
    header["delta"] = sizes
    header["Mdc"] = (affine[:3, :3] / sizes).T
    header["Pxyz_c"] = affine[:3, :3] @ (np.array(shape[:3]) / 2) + affine[:3, 3]
    return header.binaryblock[:_HEADER_BYTES].ljust(_DATA_OFFSET, b"\0")
