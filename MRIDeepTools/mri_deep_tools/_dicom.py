"""A folder with one DICOM series, read with GDCM through SimpleITK; nothing but values and geometry is kept.

ITK stacks slices by their position and takes the first gap for all of them. So the positions are checked here: gaps
must be equal, slices parallel, and the stack upright, or the volume would lie elsewhere than its slices say.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._affine import (
    DICOM_POSITION_TOLERANCE_MM,
    DICOM_POSITION_TOLERANCE_VOXELS,
    DICOM_SPACING_TOLERANCE,
    SHEAR_TOLERANCE,
)
from ._formats import Raw, Remarks, Source, take_frames
from ._itk import LPS_TO_RAS, array_of, run_itk
from ._stream import incomplete, require_room
from .errors import GeometryError, InputError

_POSITION, _ORIENTATION, _SPACING, _SERIES_NUMBER = "0020|0032", "0020|0037", "0028|0030", "0020|0011"
_STORAGE_CLASS = b"\x02\x00\x02\x00UI"  # tag of the storage class in the file's preamble
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_IMAGES = ("11.", "66", "88.", "104.", "481.2", "481.3", "481.5", "9.")  # states, raw data, reports, plans
_CONVERT = "convert it to NIfTI with dcm2niix"
_PARALLEL = 1e-3  # direction cosines of slices of one stack agree within this


@dataclass(frozen=True)
class _Slice:
    """Place of one slice: position (3,) and axes (2, 3) in LPS mm, size and spacing in the plane."""

    position: np.ndarray
    axes: np.ndarray
    size: tuple[int, int]
    spacing: tuple[float, float]


def read_dicom(folder: Path, ndim: int | None, frame: int, remarks: Remarks) -> Raw:
    """Read the only DICOM series in a folder (not its subfolders).

    Raises
    ------
    InputError : no series, several series, a single slice, several volumes at one place, colours, damaged files.
    GeometryError : slices are missing, not parallel, or shifted against each other (gantry tilt).

    """
    with _quiet():
        files = _series_files(folder)
        order: Sequence[int] | np.ndarray = range(len(files))
        if len(files) == 1:
            slices = _frames(files[0], remarks)
            normal = np.cross(*slices[0].axes)
            order = np.argsort([one.position @ normal for one in slices], kind="stable")
            slices = [slices[k] for k in order]
        else:
            slices = [_place(Path(file), remarks.name) for file in files]
        affine = _stack_affine(slices, remarks)
        nbytes = 2 * 4 * len(slices) * slices[0].size[0] * slices[0].size[1]
        require_room(nbytes, remarks.name)
        image = _read_series(files, remarks, nbytes)
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"{remarks.name} holds colour images, which cannot be used", "choose the series with the scan")
    array = array_of(image)
    if len(files) == 1:
        array = np.asfortranarray(array[:, :, order])
    data = take_frames(array, ndim, frame, remarks)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    sizes = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    return Raw(data, affine, Source(format="dicom", dtype=data.dtype.name, header_spacing=sizes))


def _series_files(folder: Path) -> list[str]:
    import SimpleITK as sitk  # noqa: N813

    series = [str(uid) for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))]
    if not series:
        raise InputError(f"{folder.name} is a folder without a DICOM series", "name the folder with the slices")
    stacks = [[str(file) for file in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)] for uid in series]
    if len(stacks) > 1:
        found = sorted((_series_number(files[0]), len(files)) for files in stacks)
        text = ", ".join(f"number {number} with {count} files" for number, count in found)
        raise InputError(
            f"{folder.name} holds {len(stacks)} DICOM series ({text})", "put the one you want into a folder of its own"
        )
    _refuse_damaged(folder, {Path(file).name for file in stacks[0]})
    return stacks[0]


def _refuse_damaged(folder: Path, used: set[str]) -> None:
    """Raise InputError for a DICOM image that GDCM left out because it is cut short; the stack would lack a slice."""
    for path in sorted(folder.iterdir()):
        if path.name in used or path.name.startswith(".") or not path.is_file():
            continue
        with path.open("rb") as file:
            start = file.read(1024)
        tag = start.find(_STORAGE_CLASS)
        if start[128:132] != b"DICM" or tag < 0:
            continue
        begin = tag + len(_STORAGE_CLASS) + 2
        kind = (
            start[begin : begin + int.from_bytes(start[begin - 2 : begin], "little")].rstrip(b"\0 ").decode("latin-1")
        )
        if kind.startswith(_STORAGE) and not kind[len(_STORAGE) :].startswith(_NO_IMAGES):
            raise incomplete(folder.name, f"{path.name} cannot be read")


def _header(file: str, name: str) -> Any:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise incomplete(name, f"{Path(file).name} cannot be read") from None
    return reader


def _series_number(file: str) -> str:
    reader = _header(file, Path(file).parent.name)
    return reader.GetMetaData(_SERIES_NUMBER).strip() if reader.HasMetaDataKey(_SERIES_NUMBER) else "?"


def _place(file: Path, name: str) -> _Slice:
    reader = _header(str(file), name)
    numbers = {}
    for key, count in ((_POSITION, 3), (_ORIENTATION, 6)):
        text = reader.GetMetaData(key) if reader.HasMetaDataKey(key) else ""
        try:
            numbers[key] = np.array([float(part) for part in text.split("\\")])
        except ValueError:
            numbers[key] = np.empty(0)
        if numbers[key].size != count:
            raise GeometryError(f"{name}: {file.name} does not say where its slice lies", _CONVERT)
    size, spacing = reader.GetSize(), reader.GetSpacing()
    if len(size) > 2 and size[2] > 1:
        raise InputError(f"{name} holds several multi-frame files", _CONVERT)
    return _Slice(numbers[_POSITION], numbers[_ORIENTATION].reshape(2, 3), (size[0], size[1]), (spacing[0], spacing[1]))


def _stack_affine(slices: Sequence[_Slice], remarks: Remarks) -> np.ndarray:
    """Return the affine to RAS mm of a stack of slices that are in the order of the third axis."""
    first, name = slices[0], remarks.name
    if any(one.size != first.size or not np.allclose(one.spacing, first.spacing, rtol=1e-3) for one in slices):
        raise InputError(f"{name} has slices of different sizes in one series", _CONVERT)
    if any(np.abs(one.axes - first.axes).max() > _PARALLEL for one in slices):
        raise InputError(f"{name} has slices that are not parallel (a localizer?)", "choose the series with the scan")
    steps = np.diff(np.array([one.position for one in slices]), axis=0)
    gaps = steps @ np.cross(first.axes[0], first.axes[1])
    usual = float(np.median(gaps))
    if np.abs(gaps).min() <= DICOM_SPACING_TOLERANCE * np.abs(gaps).max():
        raise InputError(f"{name} has several images at the same place (time points or echoes)", _CONVERT)
    wrong = np.flatnonzero(np.abs(gaps / usual - 1) > DICOM_SPACING_TOLERANCE)
    places = np.concatenate([[0.0], np.cumsum(gaps)])
    apart = float(np.abs(places - np.linspace(0.0, places[-1], len(places))).max())
    if apart > min(DICOM_POSITION_TOLERANCE_MM, DICOM_POSITION_TOLERANCE_VOXELS * abs(usual)):
        raise GeometryError(
            f"{name} has unequal slice gaps: {abs(gaps[wrong[0]]):.4g} mm after slice {wrong[0] + 1}, "
            f"{abs(usual):.4g} mm elsewhere ({wrong.size} of {gaps.size} gaps differ)",
            "look for missing or extra slices",
        )
    if wrong.size:
        remarks.warn(f"slices lie up to {apart:.2g} mm off even gaps of {abs(usual):.4g} mm; even gaps are used")
    step = (slices[-1].position - first.position) / (len(slices) - 1)
    tilt = np.abs(first.axes @ step).max() / np.linalg.norm(step)
    if tilt > SHEAR_TOLERANCE:
        raise GeometryError(
            f"{name} was taken with a tilted gantry ({np.degrees(np.arcsin(tilt)):.1f} degrees)",
            _CONVERT,
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.axes[0] * first.spacing[0], first.axes[1] * first.spacing[1]
    affine[:3, 2], affine[:3, 3] = step, first.position
    return LPS_TO_RAS @ affine


def _read_series(files: Sequence[str], remarks: Remarks, nbytes: int) -> Any:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames(list(files))
    return run_itk(reader.Execute, remarks.name, nbytes)


def _frames(file: str, remarks: Remarks) -> list[_Slice]:
    """Return the places of the frames of a multi-frame file, in their order.

    GDCM takes the first and last frame for the whole stack, and SimpleITK does not give nested tags, so the plane
    positions are looked up in the file itself; unless each frame has one, the file is refused.
    """
    path = Path(file)
    size = _header(file, remarks.name).GetSize()
    if len(size) < 3 or size[2] < 2:
        raise InputError(f"{remarks.name} holds a single DICOM slice, not a volume", "copy the whole series")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        positions = _numbers_of(content, b"\x20\x00\x32\x00", 3)
        axes = _numbers_of(content, b"\x20\x00\x37\x00", 6)
        spacings = _numbers_of(content, b"\x28\x00\x30\x00", 2)
    if len(positions) != size[2] or len(axes) not in (1, size[2]) or not spacings:
        raise GeometryError(
            f"{remarks.name}: {path.name} does not say where each of its {size[2]} frames lies", _CONVERT
        )
    if np.ptp(np.array(spacings), axis=0).max() > 0:
        raise InputError(f"{remarks.name} has frames of different spacings in one file", _CONVERT)
    axes = axes * size[2] if len(axes) == 1 else axes
    plane = (size[0], size[1]), (float(spacings[0][1]), float(spacings[0][0]))
    return [_Slice(place, turn.reshape(2, 3), *plane) for place, turn in zip(positions, axes, strict=True)]


def _numbers_of(content: mmap.mmap, tag: bytes, count: int) -> list[np.ndarray]:
    """Return the values of every decimal-string element with ``tag`` (little endian, explicit or implicit type)."""
    found = []
    for match in re.finditer(re.escape(tag) + rb"(?:DS(..)|(..)\0\0)", content, re.DOTALL):
        length = int.from_bytes(match[1] or match[2], "little")
        parts = content[match.end() : match.end() + length].strip(b" \0").split(b"\\")
        with suppress(ValueError):
            numbers = np.array([float(part) for part in parts])
            if numbers.size == count:
                found.append(numbers)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ITK's warnings about files that are no images off the terminal; errors are raised all the same."""
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
