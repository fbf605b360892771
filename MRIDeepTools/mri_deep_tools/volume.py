"""Volumes: arrays with their place in the world, read from and written to the image formats of the field.

World coordinates are RAS in mm. Arrays have the axes of their file (X fastest in the file), so that nothing is turned
or resampled on the way in; :mod:`mri_deep_tools.geometry` does that, and undoes it.

What reading decides, always with a note in ``Volume.source.notes`` and a warning where a person should know:

* NIfTI: the sform is used if its code is positive, else the qform, else voxel sizes alone (with a warning). A file
  whose forms differ by more than 0.1 mm at a corner is read by its sform, with a warning. Lengths in m or um become mm.
* Axes that are off right angles by up to a cosine of 0.01 are made orthogonal; beyond that it is an error.
* Scale factors are applied, except a slope of 0, NaN or infinity, which means "none".
* NaN and infinite values become 0, with a warning that counts them.
* Left-handed and oblique grids are kept as they are.

What writing decides: headers are fresh and carry the affine, mm, a description if one is given, and nothing that an
input's header had, apart from the codes of sform and qform while the grid is still that input's; files appear whole or
not at all; equal content gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ._affine import axcodes_of, check_affine, oblique_degrees, spacing_of
from ._atomic import atomic_path, check_output_path, final_name, remove_stale
from ._formats import FORMATS, SUFFIXES, Raw, Remarks, Source, is_image_path, list_images, split_suffix, to_rows
from ._stream import unreadable
from .errors import GeometryError, InputError, OutputError, RequestError

__all__ = [
    "SUFFIXES",
    "Source",
    "Volume",
    "atomic_path",
    "check_output_path",
    "is_image_path",
    "list_images",
    "read_volume",
    "remove_stale",
    "split_suffix",
    "write_volume",
]


@dataclass(frozen=True, eq=False)
class Volume:
    """An array and its place in the world.

    Attributes
    ----------
    data : (X, Y, Z), or (X, Y, Z, C) with C channels or frames; any integer or floating-point type.
    affine : (4, 4) float64, voxel index to RAS mm; cannot be changed in place.
    source : what the file said from which this came.

    """

    data: np.ndarray
    affine: np.ndarray
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        """Check shapes; copy the affine.

        Raises
        ------
        InputError : the array does not have 3 or 4 axes.
        GeometryError : the affine is not a finite 4x4 matrix.

        """
        data, affine = np.asarray(self.data), np.array(self.affine, dtype=np.float64)
        if data.ndim not in (3, 4):
            raise InputError(f"a volume has 3 or 4 axes, not {data.ndim}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("the affine of a volume must be a finite 4x4 matrix")
        affine.setflags(write=False)
        object.__setattr__(self, "data", data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("=")))
        object.__setattr__(self, "affine", affine)

    @property
    def shape3(self) -> tuple[int, int, int]:
        """Number of voxels along the three axes of space."""
        return self.data.shape[0], self.data.shape[1], self.data.shape[2]

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel sizes in mm, from the affine."""
        return spacing_of(self.affine)

    @cached_property
    def axcodes(self) -> tuple[str, str, str]:
        """Direction of each array axis: ("R", "A", "S") runs to the right, the front and the top."""
        return axcodes_of(self.affine)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of a voxel in mm^3."""
        return abs(float(np.linalg.det(self.affine[:3, :3])))

    @property
    def is_left_handed(self) -> bool:
        """Whether the axes form a left-handed system (negative determinant)."""
        return float(np.linalg.det(self.affine[:3, :3])) < 0

    @property
    def oblique_degrees(self) -> float:
        """Largest angle between an array axis and its nearest body axis."""
        return oblique_degrees(self.affine)

    def with_data(self, data: np.ndarray) -> Volume:
        """Return other values on the same grid; channels may be added or left out.

        Raises
        ------
        GeometryError : ``data`` does not have this volume's size.

        """
        if data.shape[:3] != self.shape3:
            raise GeometryError(f"values of shape {data.shape} do not fit on a grid of {self.shape3}")
        return Volume(data, self.affine, self.source)

    def with_affine(self, data: np.ndarray, affine: np.ndarray) -> Volume:
        """Return values on another grid that keep the record of their source."""
        return Volume(data, affine, self.source)


def read_volume(
    path: str | Path,
    *,
    ndim: int | None = 3,
    frame: int = 0,
    dtype: Any = None,
    on_warning: Callable[[str], None] | None = None,
) -> Volume:
    """Read an image file, or a folder with one DICOM series.

    Parameters
    ----------
    path : .nii, .nii.gz, .mgz, .mgh, .nrrd, .nhdr, .mha, .mhd, .npz (array ``vol_data``), or a folder.
    ndim : 3 for one volume (of a file with several frames ``frame`` is taken, with a warning), 4 for (X, Y, Z, C)
        always, None for whichever of the two the file has.
    frame : index from 0 of the frame that is taken when ``ndim`` is 3.
    dtype : type of the values (rounded for an integer type); None keeps that of the file (scaled values become
        float32, or float64 where float32 would lose digits).
    on_warning : receives warnings, each with the file's name; they go to :mod:`warnings` if it is None.

    Raises
    ------
    InputError : missing, empty, cut short, damaged, of another format, 2-D, 5-D, colour or complex.
    GeometryError : an affine that cannot be used.
    OutOfMemoryError : the values do not fit into memory.
    RequestError : no such frame.

    """
    path = Path(path)
    if ndim not in (None, 3, 4):
        raise RequestError(f"ndim must be 3, 4 or None, not {ndim}")
    remarks = Remarks(path.name or path.absolute().name, on_warning)
    raw = _reader_of(path)(path, ndim, frame, remarks)
    affine, repairs = check_affine(raw.affine, remarks.name, raw.data.shape)
    for repair in repairs:
        remarks.warn(repair)
    data = _finite(raw.data, remarks)
    if dtype is not None:
        whole = np.dtype(dtype).kind in "iu" and data.dtype.kind == "f"
        data = (np.rint(data) if whole else data).astype(dtype, copy=False)
    source = replace(
        raw.facts,
        name=split_suffix(path)[0] if not path.is_dir() else remarks.name,
        file_name=remarks.name,
        header_spacing=raw.facts.header_spacing or spacing_of(affine),
        notes=tuple(remarks.notes),
        affine=to_rows(affine),
    )
    return Volume(data, affine, source)


def write_volume(
    volume: Volume,
    path: str | Path,
    *,
    dtype: Any = None,
    overwrite: bool = True,
    description: str = "",
    intent: str = "none",
) -> Path:
    """Write a volume; the suffix of ``path`` names the format.

    Parameters
    ----------
    volume : what to write.
    path : .nii, .nii.gz, .mgz, .mgh, .nrrd, .nhdr, .mha, .mhd or .npz; missing folders are made.
    dtype : type on disk. None: float32 for floating-point values, int32 for label maps and for 64-bit integers, uint8
        for bool, other integers as they are.
    overwrite : whether an existing file may be replaced.
    description : short ASCII text for the header (NIfTI, NRRD and MetaImage).
    intent : "label" for label maps, else "none".

    Returns
    -------
    ``path``

    Raises
    ------
    OutputError : the values do not fit into the type, or the place cannot be written to.
    GeometryError : the affine is sheared or singular.
    RequestError : unknown suffix or intent, or the file exists.

    """
    from ._write import storage_type

    path = Path(path)
    suffix = split_suffix(path)[1]
    name = final_name(path)
    if not suffix:
        raise RequestError(f"{name} does not end in an image suffix", f"use one of {', '.join(SUFFIXES)}")
    if intent not in ("none", "label"):
        raise RequestError(f"unknown intent {intent!r}", "use label or none")
    if not overwrite and path.exists():
        raise RequestError(f"{name} exists already", "choose another name or allow overwriting (--overwrite)")
    if not volume.data.size:
        raise OutputError(f"{name} would be empty: its size is {volume.data.shape}")
    affine, _ = check_affine(volume.affine, name, volume.shape3)
    kind = storage_type(volume.data, dtype, label=intent == "label", suffix=suffix, path=path)
    with atomic_path(path) as temporary:
        _write(volume, affine, temporary, kind, description, intent == "label")
    return path


def _reader_of(path: Path) -> Callable[[Path, int | None, int, Remarks], Raw]:
    """Return the reader for a path; modules of formats are imported when they are needed."""
    try:
        if path.is_dir():
            from ._dicom import read_dicom

            return read_dicom
        path.stat()
    except OSError as error:
        raise unreadable(path.name, error) from None
    kind = FORMATS.get(split_suffix(path)[1])
    if kind == "nifti":
        from ._nifti import read_nifti

        return read_nifti
    if kind == "mgz":
        from ._mgh import read_mgh

        return read_mgh
    if kind == "npz":
        from ._npz import read_npz

        return read_npz
    if kind in ("nrrd", "mha"):
        from ._itk import read_itk

        return read_itk
    hint = "for DICOM name the folder with the series" if path.suffix.lower() in (".dcm", ".ima") else ""
    raise InputError(
        f"{path.name} is not an image file by its name", hint or f"use a file that ends in one of {', '.join(SUFFIXES)}"
    )


def _finite(data: np.ndarray, remarks: Remarks) -> np.ndarray:
    """Put 0 where values are NaN or infinite, and count them."""
    if data.dtype.kind != "f":
        return data
    if not data.flags.writeable:
        data = data.copy(order="K")
    count = 0
    for index in range(data.shape[-1]):
        part = data[..., index]
        bad = ~np.isfinite(part)
        if bad.any():
            part[bad] = 0
            count += int(bad.sum())
    if count:
        remarks.warn(f"{count} of {data.size} voxels are NaN or infinite and were set to 0")
    return data


def _write(volume: Volume, affine: np.ndarray, path: Path, dtype: np.dtype, description: str, label: bool) -> None:
    """Write to a temporary path in the format of its suffix."""
    from ._write import write_mgh, write_nifti, write_npz

    kind = FORMATS[split_suffix(path)[1]]
    if kind == "nifti":
        write_nifti(volume.data, affine, volume.source, path, dtype, description, label)
    elif kind == "mgz":
        write_mgh(volume.data, affine, path, dtype)
    elif kind == "npz":
        write_npz(volume.data, affine, path, dtype)
    else:
        from ._itk import write_itk

        write_itk(volume.data, affine, path, dtype, description)
