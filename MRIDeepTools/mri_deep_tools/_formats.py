"""What all readers and writers of image files share: suffixes, the record of what a file said, frames, remarks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from .errors import InputError, RequestError

FORMATS = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".mgz": "mgz",
    ".mgh": "mgz",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "mha",
    ".mhd": "mha",
    ".npz": "npz",
}
"""Format of each image suffix."""

SUFFIXES = tuple(FORMATS)
"""Suffixes of image files that can be read and written; a folder with one DICOM series can be read too."""

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Source:
    """What the file said from which a volume came; never a folder, a name of a person, or a DICOM tag.

    Attributes
    ----------
    name : file name without image suffixes; the folder's name for a DICOM series.
    file_name : file name.
    format : "nifti", "mgz", "nrrd", "mha", "npz", "dicom" or "array".
    dtype : data type on disk, as NumPy names it.
    qform_code, sform_code : NIfTI codes of the two forms; None where the format has none.
    header_spacing : voxel sizes in mm as the header states them (pixdim, delta), which may differ from the affine's.
    units : unit of the affine in the file, "mm" unless the header named another (the affine here is in mm always).
    notes : repairs done and warnings given while reading.
    affine : the affine as it was used, by rows; tells the writer whether the grid is still the file's.
    qform : the qform of a NIfTI file whose code is positive, by rows, in mm.

    """

    name: str = ""
    file_name: str = ""
    format: str = "array"
    dtype: str = ""
    qform_code: int | None = None
    sform_code: int | None = None
    header_spacing: tuple[float, float, float] | None = None
    units: str = "mm"
    notes: tuple[str, ...] = ()
    affine: Matrix | None = None
    qform: Matrix | None = None


@dataclass
class Remarks:
    """Collects what is worth knowing about a file: notes for the record, warnings for the person too."""

    name: str
    on_warning: Callable[[str], None] | None = None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a remark for the record."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Keep a remark and tell it with the file's name."""
        self.notes.append(text)
        message = f"{self.name}: {text}"
        if self.on_warning is not None:
            self.on_warning(message)
        else:
            warnings.warn(message, UserWarning, stacklevel=2)


@dataclass(frozen=True)
class Raw:
    """What a reader hands over: array (X, Y, Z) or (X, Y, Z, C), affine to RAS mm, and the facts for the record."""

    data: np.ndarray
    affine: np.ndarray
    facts: Source


def split_suffix(path: str | Path) -> tuple[str, str]:
    """Return the file name without its image suffix, and that suffix in lower case ("" for other files)."""
    name = Path(path).name
    lower = name.lower()
    for suffix in SUFFIXES:
        if lower.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def is_image_path(path: str | Path) -> bool:
    """Say whether the name of ``path`` ends like an image file."""
    return bool(split_suffix(path)[1])


def list_images(folder: str | Path) -> list[Path]:
    """Return the image files of a folder (not of its subfolders), sorted by name; hidden files are left out.

    Raises
    ------
    InputError : the folder does not exist or cannot be read.

    """
    folder = Path(folder)
    try:
        found = [path for path in folder.iterdir() if is_image_path(path) and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder.name} is not a folder that can be read ({error.strerror})", "check it") from None
    return sorted(path for path in found if path.is_file())


def to_rows(affine: np.ndarray) -> Matrix:
    """Return a matrix as nested tuples."""
    return tuple(tuple(float(value) for value in row) for row in affine)


def plan_frames(sizes: Sequence[int], ndim: int | None, frame: int, remarks: Remarks) -> tuple[tuple[int, ...], int]:
    """Decide what is read of an array of ``sizes``.

    Returns
    -------
    shape : (X, Y, Z) or (X, Y, Z, C).
    skip : number of values, in Fortran order, before the first one that is read.

    Raises
    ------
    InputError : fewer than three axes, a single slice (where one volume is wanted), or more than four axes.
    RequestError : no such frame.

    """
    name, text = remarks.name, " x ".join(str(n) for n in sizes)
    if any(n < 1 for n in sizes):
        raise InputError(f"{name} is empty: its size is {text}", "check how it was made")
    if len(sizes) < 3 or (ndim == 3 and min(sizes[:3]) == 1):
        raise InputError(f"{name} is one slice ({text}), not a volume", "give a 3-D scan")
    shape, frames = tuple(sizes[:3]), [n for n in sizes[3:] if n > 1]
    if len(frames) > 1:
        raise InputError(f"{name} has {len(sizes)} axes ({text})", "give a file with 3 axes, or 4 with the frames last")
    count = frames[0] if frames else 1
    if ndim is None or ndim == 4:
        if len(sizes) > 4:
            remarks.note(f"axes of length 1 left out of {text}")
        return (*shape, count) if len(sizes) > 3 or ndim == 4 else shape, 0
    if len(sizes) > 3 and count == 1:
        remarks.note(f"axes of length 1 left out of {text}")
    if not 0 <= frame < count:
        raise RequestError(f"{name} has no frame {frame}", f"it has {count} (numbered from 0)")
    if count > 1:
        remarks.warn(f"has {count} frames (axis 4 of {text}); frame {frame} is used")
    return shape, frame * prod(shape)


def take_frames(data: np.ndarray, ndim: int | None, frame: int, remarks: Remarks) -> np.ndarray:
    """Apply :func:`plan_frames` to an array that is in memory."""
    shape, skip = plan_frames(data.shape, ndim, frame, remarks)
    flat = data.reshape(*data.shape[:3], -1)
    if len(shape) == 4:
        return flat
    return np.array(flat[..., skip // prod(shape)], order="F") if flat.shape[3] > 1 else flat[..., 0]
