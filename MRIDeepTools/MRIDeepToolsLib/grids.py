"""Grids of volumes and of files: affine (voxel index to RAS, mm) and shape, read, checked and compared.

Indices are in the order i, j, k (columns, rows, slices); the affine is the IJK-to-RAS matrix of Slicer, which is the
affine of NIfTI.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vtk

from .errors import GeometryError, GeometryMismatchError, ResultError
from .i18n import _

__all__ = ["Grid", "check_complete", "check_exportable", "file_geometry", "node_geometry", "require_same_grid"]

Matrix = tuple[tuple[float, ...], ...]

SAME_GRID_MM = 1e-3
"""Two grids are the same when no corner of the volume lies further apart than this."""
ORTHOGONAL = 1e-4
"""Largest cosine between two axes that still counts as a right angle; images of medical formats must have such."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume are: ``affine`` (4 x 4, voxel index to RAS in mm) and ``shape`` (i, j, k)."""

    affine: Matrix
    shape: tuple[int, int, int]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along i, j, k."""
        return tuple(math.sqrt(sum(self.affine[row][axis] ** 2 for row in range(3))) for axis in range(3))

    @property
    def oblique_cosine(self) -> float:
        """Largest cosine between two axes: 0 for right angles."""
        columns = [[self.affine[row][axis] for row in range(3)] for axis in range(3)]
        lengths = self.spacing
        return max(
            abs(sum(a * b for a, b in zip(columns[m], columns[n], strict=True))) / (lengths[m] * lengths[n])
            for m, n in ((0, 1), (0, 2), (1, 2))
        )

    def to_world(self, index: Sequence[float]) -> tuple[float, ...]:
        """Return the position (RAS, mm) of a voxel index."""
        return tuple(sum(a * x for a, x in zip(row, (*index, 1.0), strict=True)) for row in self.affine[:3])

    def corners(self) -> list[tuple[float, ...]]:
        """Return the positions of the eight corner voxels (RAS, mm)."""
        i, j, k = (n - 1 for n in self.shape)
        return [self.to_world((a, b, c)) for a in (0, i) for b in (0, j) for c in (0, k)]

    def distance_mm(self, other: Grid) -> float:
        """Return how far the corners of two grids of the same shape lie apart at most."""
        return max(math.dist(a, b) for a, b in zip(self.corners(), other.corners(), strict=True))

    def describe(self) -> str:
        """Return shape and spacing in words."""
        size = " x ".join(str(n) for n in self.shape)
        return f"{size}, {' x '.join(f'{length:.3g}' for length in self.spacing)} mm"


def node_geometry(volume: Any) -> Grid:
    """Return the grid of a volume node in its own space: the parent transform is not applied.

    Raises
    ------
    GeometryError : the volume holds no image.

    """
    image = volume.GetImageData() if volume is not None else None
    if image is None or min(image.GetDimensions()) < 1:
        raise GeometryError(_("The volume holds no image."))
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    affine = tuple(tuple(matrix.GetElement(row, column) for column in range(4)) for row in range(4))
    return Grid(affine, tuple(image.GetDimensions()))


def check_exportable(volume: Any, grid: Grid) -> None:
    """Refuse a volume whose anatomy a file cannot hold: no volume, a sheared grid, or a transform that bends space.

    Raises
    ------
    GeometryError : with a sentence that says what to do.

    """
    if not all(math.isfinite(value) for row in grid.affine for value in row) or min(grid.spacing) <= 0:
        raise GeometryError(_("The volume has no usable position in space: its spacing is zero or not a number."))
    if grid.oblique_cosine > ORTHOGONAL:
        raise GeometryError(
            _(
                "The axes of the volume are not at right angles (a tilted CT, or a hardened affine transform), which "
                "image files cannot hold. Resample it first, with the module Resample Scalar/Vector/DWI Volume."
            )
        )
    transform = volume.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise GeometryError(
            _(
                "The volume is under a non-linear transform. Harden the transform (module Transforms) and use the "
                "result, or take the volume out of the transform."
            )
        )


def require_same_grid(found: Grid, wanted: Grid, what: str) -> None:
    """Check that a result lies on the grid of its reference.

    Raises
    ------
    GeometryMismatchError : another shape, or a corner lies more than 0.001 mm away.

    """
    if found.shape != wanted.shape:
        text = _("{what} has another size ({found}) than the input ({wanted}), so it was not imported.")
        raise GeometryMismatchError(text.format(what=what, found=found.describe(), wanted=wanted.describe()))
    distance = found.distance_mm(wanted)
    # NIfTI stores its matrix in single precision: positions far from the origin are rounded.
    far = max(abs(value) for corner in wanted.corners() for value in corner)
    if not distance <= SAME_GRID_MM + 1e-6 * far:
        text = _("{what} lies {distance:.3g} mm away from the input, so it was not imported.")
        raise GeometryMismatchError(text.format(what=what, distance=distance))


# ------------------------------------------------------------------------------------------------------ NIfTI header


def file_geometry(path: str | Path) -> Grid:
    """Return the grid of a NIfTI-1 or NIfTI-2 file (``.nii``, ``.nii.gz``) from its header; further axes are ignored.

    Raises
    ------
    ResultError : the file is missing or is no NIfTI file.

    """
    return _read_header(Path(path))[0]


def check_complete(path: str | Path) -> None:
    """Check that a NIfTI file holds as many bytes as its header promises; Slicer would read a shorter one silently.

    Raises
    ------
    ResultError : the file is missing, no NIfTI file, or cut short.

    """
    path = Path(path)
    _grid_of_file, promised = _read_header(path)
    size = path.stat().st_size
    if path.name.lower().endswith(".gz"):
        with path.open("rb") as stream:
            stream.seek(max(0, size - 4))
            # The last four bytes of a gzip file are the size of its content, modulo 2^32.
            complete = stream.read(4) == struct.pack("<I", promised & 0xFFFFFFFF)
    else:
        complete = size >= promised
    if not complete:
        raise ResultError(_("The file {name} is cut short; is the disk full?").format(name=path.name))


def _read_header(path: Path) -> tuple[Grid, int]:
    """Return the grid of a NIfTI file and the size that its content must have, in bytes."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            header = stream.read(540)
    except (OSError, EOFError) as error:
        raise ResultError(_("{name} cannot be read.").format(name=path.name)) from error
    for order in "<>":
        size = struct.unpack_from(order + "i", header)[0] if len(header) >= 348 else 0
        if size == 348:
            return _nifti(header, order, _NIFTI1)
        if size == 540 and len(header) == 540:
            return _nifti(header, order, _NIFTI2)
    raise ResultError(_("{name} is not a NIfTI file.").format(name=path.name))


# Format and place of the fields: dim, pixdim, qform and sform codes, quaternion with offset, rows of the sform, bits
# per voxel, offset of the voxels.
_NIFTI1 = (("8h", 40), ("8f", 76), ("2h", 252), ("6f", 256), ("12f", 280), ("h", 72), ("f", 108))
_NIFTI2 = (("8q", 16), ("8d", 104), ("2i", 344), ("6d", 352), ("12d", 400), ("h", 14), ("q", 168))


def _nifti(header: bytes, order: str, fields: Sequence[tuple[str, int]]) -> tuple[Grid, int]:
    dim, sizes, codes, quaternion, rows, bits, start = (
        struct.unpack_from(order + kind, header, place) for kind, place in fields
    )
    voxels = math.prod(dim[1 : 1 + max(0, min(dim[0], 7))])
    return _grid(dim, sizes, *codes, quaternion, rows), int(start[0]) + voxels * bits[0] // 8


def _grid(
    dim: Sequence[int],
    pixdim: Sequence[float],
    qform: int,
    sform: int,
    quaternion: Sequence[float],
    rows: Sequence[float],
) -> Grid:
    shape = tuple(int(n) if dim[0] >= axis else 1 for axis, n in enumerate(dim[1:4], 1))
    if sform > 0:
        affine = (tuple(rows[0:4]), tuple(rows[4:8]), tuple(rows[8:12]))
    elif qform > 0:
        affine = _from_quaternion(pixdim, quaternion)
    else:
        affine = tuple(tuple(pixdim[row + 1] if row == column else 0.0 for column in range(4)) for row in range(3))
    return Grid((*affine, (0.0, 0.0, 0.0, 1.0)), shape)


def _from_quaternion(pixdim: Sequence[float], quaternion: Sequence[float]) -> Matrix:
    b, c, d, *offset = quaternion
    a = math.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    rotation = (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c),
    )
    sizes = (pixdim[1], pixdim[2], pixdim[3] * (-1.0 if pixdim[0] < 0 else 1.0))
    scaled = [[value * size for value, size in zip(row, sizes, strict=True)] for row in rotation]
    return tuple((*row, shift) for row, shift in zip(scaled, offset, strict=True))
