"""How a scan was acquired: slice direction, spacing, thickness and gap, read from the file or said by the person.

Spacing comes from the affine; the thickness from DICOM (0018,0050) or from the BIDS sidecar beside an image file.
Where neither tells it, slices are taken to touch, and the record says that this is assumed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, RequestError
from ..volume import Volume, split_suffix
from .simulate import DIRECTIONS, array_axis

__all__ = [
    "ISOTROPIC_RATIO",
    "SliceGeometry",
    "check_stack",
    "detect_slices",
    "read_thickness",
    "understand_slices",
]

ISOTROPIC_RATIO = 1.25
"""A scan whose largest voxel side is less than this many times the next one has no thick slices."""

_THICKNESS = "0018|0050"
_SAME_MM = 0.05
_INTERLEAVED = 1.15  # neighbours differ more than second neighbours by this factor: motion between two passes


@dataclass(frozen=True)
class SliceGeometry:
    """Slices of a scan.

    Attributes
    ----------
    axis : array axis across the slices.
    direction : ``axial``, ``coronal`` or ``sagittal``, the nearest.
    count : number of slices.
    spacing_mm : between the centres of neighbouring slices.
    thickness_mm : of a slice.
    in_plane_mm : voxel sizes within a slice.
    told_by : who says the thickness: ``DICOM``, ``sidecar``, ``request`` or ``assumed``.
    oblique_degrees : between the axes and the body's.

    """

    axis: int
    direction: str
    count: int
    spacing_mm: float
    thickness_mm: float
    in_plane_mm: tuple[float, float]
    told_by: str
    oblique_degrees: float = 0.0

    @property
    def gap_mm(self) -> float:
        """Return the distance between slices; negative where they overlap."""
        return self.spacing_mm - self.thickness_mm

    def words(self) -> str:
        """Return the geometry in a sentence for a person."""
        gap = self.gap_mm
        if abs(gap) < _SAME_MM:
            between = "without gaps"
        else:
            between = f"with gaps of {gap:.2g} mm" if gap > 0 else f"overlapping by {-gap:.2g} mm"
        source = " (thickness assumed)" if self.told_by == "assumed" else ""
        plane = " x ".join(f"{size:.3g}" for size in self.in_plane_mm)
        return (
            f"{self.count} {self.direction} slices of {self.thickness_mm:.3g} mm every {self.spacing_mm:.3g} mm, "
            f"{between}{source}; {plane} mm in the plane"
        )

    def as_record(self) -> dict[str, Any]:
        """Return the numbers for the sidecar."""
        return {
            "Words": self.words(),
            "Direction": self.direction,
            "ArrayAxis": self.axis,
            "Slices": self.count,
            "SpacingMm": round(self.spacing_mm, 4),
            "ThicknessMm": round(self.thickness_mm, 4),
            "GapMm": round(self.gap_mm, 4),
            "InPlaneMm": [round(size, 4) for size in self.in_plane_mm],
            "ThicknessToldBy": self.told_by,
            "ObliqueDegrees": round(self.oblique_degrees, 3),
        }


def detect_slices(
    volume: Volume,
    path: str | Path | None = None,
    *,
    direction: str | None = None,
    thickness_mm: float | None = None,
    spacing_mm: float | None = None,
) -> SliceGeometry | None:
    """Return how a scan was acquired, or None where its voxels are isotropic and nothing else is said.

    Parameters
    ----------
    volume : (X, Y, Z) scan.
    path : where it was read from, to look for the thickness.
    direction, thickness_mm, spacing_mm : what the person says instead; ``spacing_mm`` (with ``direction``) is for a
        scan that was interpolated to isotropic voxels from thick slices.

    Raises
    ------
    RequestError : sizes that are not positive, or a direction that contradicts the voxels.

    """
    for name, value in (("thickness", thickness_mm), ("spacing", spacing_mm)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RequestError(f"the slice {name} must be above 0 mm, not {value}")
    sizes = np.array(volume.spacing)
    axis = int(sizes.argmax())
    if direction is not None:
        axis = array_axis(volume, direction)
    thick = bool(sizes[axis] >= ISOTROPIC_RATIO * np.delete(sizes, axis).max())
    if not thick and spacing_mm is None:
        if direction is not None and sizes.max() >= ISOTROPIC_RATIO * np.sort(sizes)[1]:
            raise RequestError(
                f"the slices are not {direction}: voxels are {', '.join(f'{size:.3g}' for size in sizes)} mm",
                "leave the direction out, or correct it",
            )
        return None
    between = float(sizes[axis]) if spacing_mm is None else spacing_mm
    told_by = "request"
    if thickness_mm is None:
        found, told_by = read_thickness(path) if path is not None else (None, "assumed")
        thickness_mm = found if found is not None else between
    plane = np.delete(sizes, axis)
    count = round(volume.shape3[axis] * float(sizes[axis]) / between)
    words = next(name for name in DIRECTIONS if array_axis(volume, name) == axis)
    return SliceGeometry(
        axis, words, count, between, thickness_mm, (float(plane[0]), float(plane[1])), told_by, volume.oblique_degrees
    )


def understand_slices(
    volume: Volume,
    path: str | Path | None,
    name: str,
    *,
    direction: str | None = None,
    thickness_mm: float | None = None,
    spacing_mm: float | None = None,
    registered: bool = False,
) -> tuple[SliceGeometry | None, list[str]]:
    """Return how a scan was acquired, also where it was interpolated since, and what a person should know about it.

    Parameters
    ----------
    volume, path, direction, thickness_mm, spacing_mm : as for :func:`detect_slices`.
    name : of the scan, for the sentences.
    registered : the scan is on the grid of another one, so isotropic voxels are no reason to refuse it.

    Raises
    ------
    RequestError : isotropic voxels, and no sign of slices: there is nothing to do. InputError : too few slices.

    """
    found = detect_slices(volume, path, direction=direction, thickness_mm=thickness_mm, spacing_mm=spacing_mm)
    notes = []
    if found is None:
        guess = _guess(volume, path, direction, thickness_mm)
        if guess is not None:
            found = guess
            notes.append(
                f"{name} looks as if it was interpolated from {guess.direction} slices about {guess.spacing_mm:.3g} mm "
                "apart, and is taken as such; if that is wrong, say --slice-direction and --slice-spacing"
            )
        elif registered:
            notes.append(
                f"how {name} was acquired is not known, so the result is not checked against its slices; say "
                "--slice-direction and --slice-spacing"
            )
        else:
            sizes = ", ".join(f"{size:.3g}" for size in volume.spacing)
            raise RequestError(
                f"{name} has isotropic voxels ({sizes} mm) already, so there is nothing to do",
                "if it was interpolated from thick slices, give the scan as it was acquired, or say --slice-direction "
                "and --slice-spacing",
            )
    return found, [*notes, *(check_stack(volume, found, name) if found is not None else [])]


def _guess(
    volume: Volume, path: str | Path | None, direction: str | None, thickness_mm: float | None
) -> SliceGeometry | None:
    """Return the slices that a scan with isotropic voxels seems to be interpolated from."""
    from .interpolation import find_interpolation

    guess = find_interpolation(volume)
    if guess is None or (direction is not None and array_axis(volume, direction) != guess.axis):
        return None
    word = next(name for name in DIRECTIONS if array_axis(volume, name) == guess.axis)
    return detect_slices(volume, path, direction=word, thickness_mm=thickness_mm, spacing_mm=guess.spacing_mm)


def read_thickness(path: str | Path) -> tuple[float | None, str]:
    """Return the slice thickness in mm that a DICOM series or a BIDS sidecar states, and who told it."""
    path = Path(path)
    if path.is_dir():
        return _from_dicom(path)
    sidecar = path.with_name(f"{split_suffix(path)[0]}.json")
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        value = float(content["SliceThickness"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, "assumed"
    return (value, "sidecar") if math.isfinite(value) and value > 0 else (None, "assumed")


def _from_dicom(folder: Path) -> tuple[float | None, str]:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        for series in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
            reader.SetFileName(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series)[0])
            reader.ReadImageInformation()
            if reader.HasMetaDataKey(_THICKNESS):
                value = float(reader.GetMetaData(_THICKNESS))
                if math.isfinite(value) and value > 0:
                    return value, "DICOM"
    except (RuntimeError, ValueError):
        return None, "assumed"
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
    return None, "assumed"


def check_stack(volume: Volume, geometry: SliceGeometry, name: str) -> list[str]:
    """Return warnings about slices that a person should look at: gaps, overlap, motion between two passes.

    Raises
    ------
    InputError : fewer than three slices.

    """
    if geometry.count < 3:
        raise InputError(f"{name} has {geometry.count} slices, too few to fill in between", "give a whole volume")
    notes = []
    if geometry.gap_mm > geometry.thickness_mm + _SAME_MM:
        notes.append(
            f"{name}: the gaps ({geometry.gap_mm:.2g} mm) are larger than the slices ({geometry.thickness_mm:.2g} mm); "
            "most of what the result shows between slices was never measured"
        )
    elif geometry.gap_mm < -_SAME_MM:
        notes.append(f"{name}: the slices overlap by {-geometry.gap_mm:.2g} mm")
    if volume.shape3[geometry.axis] == geometry.count and _interleaved_motion(volume.data, geometry.axis):
        notes.append(
            f"{name}: neighbouring slices differ more than every second ones, as when a person moved between two "
            "passes of an interleaved scan; the result cannot be better than the slices"
        )
    return notes


def _interleaved_motion(data: np.ndarray, axis: int) -> bool:
    """Say whether slices are more alike at a distance of two than as neighbours, in the middle of the stack."""
    stack = np.moveaxis(data, axis, 0).astype(np.float32)
    quarter = len(stack) // 4
    stack = stack[quarter : len(stack) - quarter]
    if len(stack) < 5:
        return False
    near = float(np.abs(stack[1:-1] - 0.5 * (stack[:-2] + stack[2:])).mean())
    far = float(np.abs(stack[2:] - stack[:-2]).mean())
    return far > 0 and near > _INTERLEAVED * far
