"""Files of diffusion scans: NIfTI with FSL's b-values and directions, MRtrix tables, NRRD.

Values and gradients only; what becomes of them in the scene is in :mod:`.diffusion`.

FSL's directions are along the voxel axes of the image, with the first component reversed where these axes are
right-handed (positive determinant of the affine). World space is RAS, as in NIfTI and in Slicer.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vtk

from .errors import NodeError, ResultError
from .grids import Grid, check_complete, file_geometry
from .i18n import _

__all__ = [
    "B0_LIMIT",
    "fsl_frame",
    "is_diffusion_nrrd",
    "is_nifti",
    "read_fsl",
    "read_nifti_series",
    "read_world_table",
    "write_fsl",
    "write_nifti",
    "write_nrrd",
]

B0_LIMIT = 50.0
"""b-value (s/mm^2) up to which a volume counts as not diffusion-weighted, as in the core; scanners write 5 for 0."""
_UNIT_TOLERANCE = 0.05
_VOLUMES_AT_ONCE = 16  # neither one pass over the values per volume, nor a second copy of the whole

# NIfTI datatype -> NumPy's name, and the other way round.
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_CODES = {name: code for code, name in _TYPES.items()}
_NRRD_TYPES = {
    **{"i1": "signed char", "u1": "unsigned char", "i2": "short", "u2": "unsigned short", "i4": "int"},
    **{"u4": "unsigned int", "f4": "float", "f8": "double"},
}


def is_nifti(path: str | Path) -> bool:
    """Return True for a name that ends as those of NIfTI files do."""
    return str(path).lower().endswith((".nii", ".nii.gz"))


def is_diffusion_nrrd(path: str | Path) -> bool:
    """Return True for an NRRD file whose header holds b-values."""
    try:
        with Path(path).open("rb") as stream:
            header = stream.read(1 << 20).partition(b"\n\n")[0]
    except OSError:
        return False
    return header.startswith(b"NRRD") and b"DWMRI_b-value:=" in header


def fsl_frame(grid: Grid) -> Any:
    """Return the matrix (3, 3) that takes FSL's directions (columns) of an image on this grid to world space (RAS)."""
    import numpy as np

    axes = np.array(grid.affine)[:3, :3] / np.array(grid.spacing)
    return axes * np.array([-1.0 if np.linalg.det(axes) > 0 else 1.0, 1.0, 1.0])


# -------------------------------------------------------------------------------------------------------------- tables


def read_fsl(bvals: str | Path, bvecs: str | Path, grid: Grid, count: int) -> tuple[Any, Any]:
    """Return b-values (n,), s/mm^2, and world directions (n, 3), zeros where there is none, of FSL's two files.

    The directions may stand in three rows, as FSL writes them, or in three columns.

    Raises
    ------
    NodeError : unreadable files, another number of rows than the ``count`` volumes, no numbers, no unit vectors.

    """
    import numpy as np

    values, vectors = _numbers(bvals), _numbers(bvecs)
    name = Path(bvals).name
    if min(values.shape) != 1:
        raise NodeError(_("{name} is no list of b-values: one row or one column is needed.").format(name=name))
    values = values.ravel()
    if not np.isfinite(values).all() or values.min() < 0:
        raise NodeError(_("{name} holds b-values that are negative or no numbers.").format(name=name))
    if 3 not in vectors.shape:
        text = _("{name} holds no directions: three rows or three columns are needed.")
        raise NodeError(text.format(name=Path(bvecs).name))
    vectors = vectors.T if vectors.shape[0] == 3 else vectors
    for path, number in ((bvals, len(values)), (bvecs, len(vectors))):
        if number != count:
            text = _("{name} has {number} entries for {count} volumes; choose files that belong together.")
            raise NodeError(text.format(name=Path(path).name, number=number, count=count))
    return values, _unit(vectors, values, Path(bvecs).name) @ fsl_frame(grid).T


def read_world_table(path: str | Path, count: int) -> tuple[Any, Any]:
    """Return b-values (n,) and world directions (n, 3) of a MRtrix table that the core wrote: rows ``x y z b``.

    Raises
    ------
    ResultError : the table is missing or does not fit.

    """
    try:
        table = _numbers(path)
    except NodeError as error:
        raise ResultError(str(error)) from error
    if table.shape != (count, 4):
        text = _("The gradient table has {rows} rows, but the result has {count} volumes.")
        raise ResultError(text.format(rows=len(table), count=count))
    return table[:, 3], table[:, :3]


def write_fsl(bvals: Path, bvecs: Path, values: Any, world: Any, grid: Grid) -> None:
    """Write FSL's files for an image on this grid: one row of b-values, three rows of directions."""
    vectors = (world @ fsl_frame(grid)).T + 0.0  # no negative zeros
    bvals.write_text(" ".join(f"{value:.6g}" for value in values) + "\n", encoding="ascii")
    lines = [" ".join(f"{value:.9f}" for value in row) for row in vectors]
    bvecs.write_text("\n".join(lines) + "\n", encoding="ascii")


def _numbers(path: str | Path) -> Any:
    """Return the numbers of a text file as a matrix; comments begin with #."""
    import numpy as np

    name = Path(path).name
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NodeError(_("{name} cannot be read as a text file.").format(name=name)) from error
    rows = [line.split("#")[0].replace(",", " ").split() for line in text.splitlines()]
    try:
        numbers = [[float(word) for word in row] for row in rows if row]
    except ValueError as error:
        raise NodeError(_("{name} holds something that is not a number.").format(name=name)) from error
    if not numbers or len({len(row) for row in numbers}) != 1:
        raise NodeError(_("{name} is empty, or its rows differ in length.").format(name=name))
    return np.array(numbers)


def _unit(vectors: Any, values: Any, name: str) -> Any:
    """Return unit vectors, zeros where the volume is not weighted."""
    import numpy as np

    weighted = values > B0_LIMIT
    length = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(weighted & ~(length > 1e-3))  # also what is not a number
    if bad.size:
        text = _("{name}: volume {number} is diffusion-weighted but has no direction.")
        raise NodeError(text.format(name=name, number=int(bad[0])))
    if weighted.any() and np.abs(length[weighted] - 1).max() > _UNIT_TOLERANCE:
        raise NodeError(_("{name}: the directions are not of unit length.").format(name=name))
    return np.where(weighted[:, None], vectors / np.where(weighted, length, 1.0)[:, None], 0.0)


# -------------------------------------------------------------------------------------------------------------- images


def read_nifti_series(path: str | Path) -> tuple[Any, Grid]:
    """Return the values (k, j, i, n) and the grid of a NIfTI file with several volumes.

    Values with a scale factor become float32.

    Raises
    ------
    ResultError : the file is missing, cut short, of another format, or its values are no numbers.

    """
    import numpy as np

    path = Path(path)
    check_complete(path)
    grid = file_geometry(path)
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        header = stream.read(540)
        order = "<" if struct.unpack_from("<i", header)[0] in (348, 540) else ">"
        first = struct.unpack_from(order + "i", header)[0] == 348
        dim = struct.unpack_from(order + ("8h" if first else "8q"), header, 40 if first else 16)
        code = struct.unpack_from(order + "h", header, 70 if first else 12)[0]
        slope, inter = struct.unpack_from(order + ("2f" if first else "2d"), header, 112 if first else 176)
        start = int(struct.unpack_from(order + ("f" if first else "q"), header, 108 if first else 168)[0])
        if code not in _TYPES:
            raise ResultError(_("{name} holds colours or complex numbers.").format(name=path.name))
        count = max(1, math.prod(dim[4 : 1 + max(3, min(dim[0], 7))]))
        stream.seek(start)
        kind = np.dtype(order + _TYPES[code])
        if path.name.lower().endswith(".gz"):
            values = np.frombuffer(stream.read(math.prod((*grid.shape, count)) * kind.itemsize), kind)
        else:
            values = np.fromfile(stream, kind, math.prod((*grid.shape, count)))
    stored = values.reshape(count, *reversed(grid.shape))
    values = np.empty((*stored.shape[1:], count), dtype=kind.newbyteorder("="))
    for k in range(len(values)):  # slice by slice, which stays in the cache
        values[k] = np.moveaxis(stored[:, k], 0, -1)
    if math.isfinite(slope) and slope != 0 and (slope, inter) != (1, 0):
        values = (values * np.float64(slope) + np.float64(inter)).astype(np.float32)
    elif kind.kind in "iu" and kind.itemsize == 8:
        values = values.astype(np.float64)
    return values, grid


def write_nifti(path: Path, values: Any, grid: Grid) -> None:
    """Write values (k, j, i) or (k, j, i, n) as NIfTI-1 with equal sform and qform; compressed for ``.nii.gz``."""
    import numpy as np

    values = np.asarray(values)
    kind = values.dtype.str[1:]
    spacing = grid.spacing
    axes = np.array(grid.affine)[:3, :3] / np.array(spacing)
    handed = -1.0 if np.linalg.det(axes) < 0 else 1.0
    quaternion = [0.0] * 4
    vtk.vtkMath.Matrix3x3ToQuaternion((axes * [1.0, 1.0, handed]).tolist(), quaternion)
    if quaternion[0] < 0:  # NIfTI keeps three of the four numbers and takes the first to be positive
        quaternion = [-value for value in quaternion]
    count = values.shape[3] if values.ndim == 4 else 1
    header = bytearray(352)
    put = struct.pack_into
    put("<i", header, 0, 348)
    put("<8h", header, 40, values.ndim, *grid.shape, count, 1, 1, 1)
    put("<2h", header, 70, _CODES[kind], 8 * values.dtype.itemsize)
    put("<8f", header, 76, handed, *spacing, 1, 1, 1, 1)
    put("<3f", header, 108, 352.0, 1.0, 0.0)
    put("<B", header, 123, 2)  # mm
    put("<2h", header, 252, 1, 1)  # scanner
    put("<6f", header, 256, *quaternion[1:], *(row[3] for row in grid.affine[:3]))
    put("<12f", header, 280, *(value for row in grid.affine[:3] for value in row))
    header[344:348] = b"n+1\0"
    series = values if values.ndim == 4 else values[..., None]
    with gzip.open(path, "wb", compresslevel=3) if path.name.lower().endswith(".gz") else path.open("wb") as stream:
        stream.write(header)
        for first in range(0, count, _VOLUMES_AT_ONCE):
            volumes = np.moveaxis(series[..., first : first + _VOLUMES_AT_ONCE], -1, 0)
            stream.write(np.ascontiguousarray(volumes, dtype=f"<{kind}").tobytes())


def write_nrrd(path: Path, values: Any, grid: Grid, bvals: Any = None, world: Any = None) -> None:
    """Write values (k, j, i), or (k, j, i, n) with their gradients, as a plain NRRD in RAS with all digits.

    Parameters
    ----------
    path : the file.
    values : of a type that NRRD knows.
    grid : where the voxels are.
    bvals, world : (n,) and (n, 3): b-values and unit directions in RAS, which make it a diffusion-weighted NRRD.

    """
    import numpy as np

    values = np.asarray(values)
    kind = values.dtype.str[1:]
    affine = np.array(grid.affine)
    series = values.ndim == 4
    axes = " ".join(_vector(affine[:3, axis]) for axis in range(3))
    lines = [
        "NRRD0005",
        f"type: {_NRRD_TYPES[kind]}",
        f"dimension: {values.ndim}",
        "space: right-anterior-superior",
        "sizes: " + " ".join(str(size) for size in (*values.shape[3:], *grid.shape)),
        f"space directions: {'none ' if series else ''}{axes}",
        f"kinds: {'list ' if series else ''}domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {_vector(affine[:3, 3])}",
    ]
    if bvals is not None:
        lines += ["measurement frame: (1,0,0) (0,1,0) (0,0,1)", "modality:=DWMRI", *_gradient_keys(bvals, world)]
    with path.open("wb") as stream:
        stream.write(("\n".join(lines) + "\n\n").encode("ascii"))
        np.ascontiguousarray(values, dtype=f"<{kind}").tofile(stream)


def _gradient_keys(bvals: Any, world: Any) -> list[str]:
    """Return the keys of NRRD: the largest b-value, and gradients as long as the square root of their share of it."""
    largest = float(max(bvals)) or 1.0
    rows = [[component * math.sqrt(b / largest) for component in vector] for b, vector in zip(bvals, world)]  # noqa: B905
    keys = [f"DWMRI_gradient_{index:04d}:={x!r} {y!r} {z!r}" for index, (x, y, z) in enumerate(_floats(rows))]
    return [f"DWMRI_b-value:={largest!r}", *keys]


def _floats(rows: Sequence[Sequence[Any]]) -> list[tuple[float, ...]]:
    return [tuple(float(value) for value in row) for row in rows]


def _vector(values: Any) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"
