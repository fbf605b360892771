"""NRRD and MetaImage files through SimpleITK, which keeps world coordinates in LPS; here they are RAS.

The data behind the header are checked by this module before ITK reads them and after it wrote them: ITK returns
garbage for damaged compressed MetaImage data, and does not notice a disk that fills up while it writes an NRRD.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ._affine import spacing_of
from ._atomic import atomic_path, final_name
from ._formats import Raw, Remarks, Source, split_suffix, take_frames
from ._stream import DataStream, incomplete, out_of_memory, require_room, unreadable
from .errors import InputError, MRIDeepToolsError, OutOfMemoryError, OutputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""World coordinates of ITK and DICOM to those of NIfTI, and back."""

_HEADER_LIMIT = 1 << 20
_COLOUR_KINDS = ("rgb", "rgba", "hsv", "xyz", "3-color", "4-color")


@dataclass(frozen=True)
class _Payload:
    """Where the values of a file are: None as ``path`` when they are spread over several files."""

    path: Path | None
    offset: int
    encoding: str  # "raw", "gzip" (also zlib), or another name that is left to ITK
    oriented: bool


def read_itk(path: Path, ndim: int | None, frame: int, remarks: Remarks) -> Raw:
    """Read an NRRD or MetaImage file; see :func:`mri_deep_tools.volume.read_volume`."""
    import SimpleITK as sitk  # noqa: N813

    nrrd = split_suffix(path)[1] in (".nrrd", ".nhdr")
    payload = _find_payload(path, nrrd)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise InputError(f"{path.name} has a header that cannot be read", "convert or download it again") from None
    _refuse_pixels(reader, remarks)
    nbytes = prod(reader.GetSize()) * reader.GetNumberOfComponents() * _item_bytes(reader)
    _check_payload(payload, nbytes, path.name)
    require_room(2 * nbytes, path.name)
    image = run_itk(reader.Execute, path.name, nbytes)
    data = take_frames(array_of(image), ndim, frame, remarks)
    if not payload.oriented:
        remarks.warn("has no orientation; its axes are taken to run to the left, the back and the top")
    spacing = tuple(float(size) for size in image.GetSpacing()[:3])
    facts = Source(
        format="nrrd" if nrrd else "mha",
        dtype=data.dtype.name,
        header_spacing=(spacing[0], spacing[1], spacing[2]) if len(spacing) == 3 else None,
    )
    return Raw(data, affine_of(image), facts)


def run_itk(action: Any, name: str, nbytes: int = 0) -> Any:
    """Call a SimpleITK reader; memory that runs out and unreadable data become the errors of this package."""
    try:
        return action()
    except MemoryError:
        raise out_of_memory(name, nbytes) from None
    except RuntimeError as error:
        if "alloc" in str(error).lower():
            raise out_of_memory(name, nbytes) from None
        raise incomplete(name) from None


def array_of(image: Any) -> np.ndarray:
    """Return the values of a SimpleITK image as (X, Y, Z), (X, Y, Z, C) or, for two axes, (X, Y)."""
    import SimpleITK as sitk  # noqa: N813

    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        return np.moveaxis(array.T, 0, -1)
    return array.T


def affine_of(image: Any) -> np.ndarray:
    """Return the affine to RAS mm, float64 (4, 4), of a SimpleITK image with three or four axes."""
    count = image.GetDimension()
    affine = np.eye(4)
    direction = np.array(image.GetDirection(), dtype=np.float64).reshape(count, count)[:3, :3]
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ affine


def _refuse_pixels(reader: Any, remarks: Remarks) -> None:
    """Raise InputError for complex numbers and colours."""
    import SimpleITK as sitk  # noqa: N813

    kind = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    if "complex" in kind:
        raise InputError(f"{remarks.name} holds complex data, which cannot be used", "take the magnitude first")
    if reader.GetNumberOfComponents() == 1:
        return
    stated = reader.GetMetaData("NRRD_kinds[pixel]").lower() if reader.HasMetaDataKey("NRRD_kinds[pixel]") else ""
    bytes_of_colour = reader.GetNumberOfComponents() in (3, 4) and "8-bit unsigned" in kind and stated != "list"
    if stated.startswith(_COLOUR_KINDS) or bytes_of_colour:
        raise InputError(f"{remarks.name} holds RGB colours, which cannot be used", "convert it to grey values")


def _item_bytes(reader: Any) -> int:
    import SimpleITK as sitk  # noqa: N813

    text = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    bits = re.search(r"(\d+)-bit", text)
    return int(bits[1]) // 8 if bits else 1


# ----------------------------------------------------------------------------------------------------- data integrity


def _find_payload(path: Path, nrrd: bool) -> _Payload:
    """Read the text header and return where the data are.

    Raises
    ------
    InputError : the file is missing, empty, or not of this format.

    """
    try:
        with path.open("rb") as file:
            text = file.read(_HEADER_LIMIT)
    except OSError as error:
        raise unreadable(path.name, error) from None
    if not text:
        raise InputError(f"{path.name} is empty (0 bytes)", "copy or download it again")
    return _nrrd_payload(path, text) if nrrd else _meta_payload(path, text)


def _nrrd_payload(path: Path, text: bytes) -> _Payload:
    if not text.startswith(b"NRRD"):
        raise InputError(f"{path.name} is not an NRRD file", "check what it is")
    end = re.search(rb"\r?\n\r?\n", text)
    head = text[: end.start()] if end else text
    pairs = (line.split(b":", 1) for line in head.splitlines() if b":" in line and not line.startswith(b"#"))
    fields = {key.strip().lower().decode("latin-1"): value.strip().decode("latin-1") for key, value in pairs}
    encoding = {"raw": "raw", "gz": "gzip", "gzip": "gzip"}.get(fields.get("encoding", "").lower(), "other")
    oriented = "space directions" in fields
    name = fields.get("data file", fields.get("datafile", ""))
    if name:
        skips = any(fields.get(key, "0") != "0" for key in ("line skip", "lineskip", "byte skip", "byteskip"))
        return _detached(path, name, "other" if skips else encoding, oriented)
    if end is None:
        raise incomplete(path.name)
    return _Payload(path, end.end(), encoding, oriented)


def _meta_payload(path: Path, text: bytes) -> _Payload:
    last = re.search(rb"(?mi)^\s*ElementDataFile\s*=\s*(.*?)\s*?\r?\n", text + b"\n")
    if not last:
        if re.search(rb"(?mi)^\s*(ObjectType|NDims)\s*=", text):
            raise incomplete(path.name)
        raise InputError(f"{path.name} is not a MetaImage file", "check what it is")
    head, name = text[: last.start()].lower(), last[1].decode("utf-8", "replace")
    compressed = re.search(rb"(?m)^\s*compresseddata\s*=\s*true", head) is not None
    oriented = re.search(rb"(?m)^\s*(transformmatrix|rotation|orientation)\s*=", head) is not None
    encoding = "gzip" if compressed else "raw"
    if re.search(rb"(?m)^\s*(binarydata\s*=\s*false|headersize\s*=\s*(?!0\s*$))", head):
        encoding = "other"
    if name.upper() == "LOCAL":
        return _Payload(path, min(last.end(), len(text)), encoding, oriented)
    return _detached(path, name, encoding, oriented)


def _detached(path: Path, name: str, encoding: str, oriented: bool) -> _Payload:
    """Return the payload of a header with its data in another file, which must be there."""
    if name.upper().startswith("LIST") or "%" in name:
        return _Payload(None, 0, "other", oriented)
    data = path.parent / name
    if not data.is_file():
        raise InputError(f"{path.name} needs the data file {Path(name).name}, which is not there", "copy both files")
    return _Payload(data, 0, encoding, oriented)


def _check_payload(payload: _Payload, nbytes: int, name: str) -> None:
    """Raise when fewer than ``nbytes`` bytes are there, or compressed ones do not match their checksum."""
    if payload.path is None or payload.encoding == "other":
        return
    with DataStream(payload.path, compressed=payload.encoding == "gzip", start=payload.offset) as stream:
        stream.name = name
        stream.check_capacity(nbytes, f"{nbytes:,} bytes of data")
        if stream.compressed:
            stream.skip(nbytes)
            stream.drain()


# ------------------------------------------------------------------------------------------------------------ writing


def image_from(data: np.ndarray, affine: np.ndarray) -> Any:
    """Return a SimpleITK image (channels as vector components) from an array (X, Y, Z[, C]) and an affine to RAS mm."""
    import SimpleITK as sitk  # noqa: N813

    order = (2, 1, 0, 3)[: data.ndim]
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(order)), isVector=data.ndim == 4)
    lps, sizes = LPS_TO_RAS @ affine, np.array(spacing_of(affine))
    image.SetSpacing(sizes.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / sizes).ravel().tolist())
    return image


def write_itk(data: np.ndarray, affine: np.ndarray, path: Path, dtype: np.dtype, description: str = "") -> None:
    """Write NRRD or MetaImage with compressed data in the same file, whatever the suffix.

    A description becomes the key ``Description`` of the header.

    Raises
    ------
    OutputError : ITK could not write all of it.

    """
    import SimpleITK as sitk  # noqa: N813

    nrrd = split_suffix(path)[1] in (".nrrd", ".nhdr")
    name = final_name(path)
    with atomic_path(path, suffix=".nrrd" if nrrd else ".mha") as temporary:
        try:
            image = image_from(data.astype(dtype, copy=False), affine)
            if description:
                image.SetMetaData("Description", " ".join(description.split()).encode("ascii", "replace").decode())
            sitk.WriteImage(image, os.fspath(temporary), useCompression=True, compressionLevel=1)
            _check_payload(_find_payload(temporary, nrrd), data.size * dtype.itemsize, temporary.name)
        except MemoryError:
            raise OutOfMemoryError(f"{name} cannot be written: not enough memory", "write NIfTI instead") from None
        except (RuntimeError, InputError) as error:
            if isinstance(error, MRIDeepToolsError) and not isinstance(error, InputError):
                raise
            raise OutputError(
                f"{name} cannot be written: the disk is full or does not take it",
                "free some space",
            ) from None
