"""Gradient tables: b-values (s/mm^2) and directions in world space (RAS), from and to the conventions of the field.

* FSL ``bvec``: along the voxel axes of the image, with the first component negated where the image's axes are
  right-handed (positive determinant of the affine).
* MRtrix table: rows ``x y z b`` in world space (RAS).
* NRRD (DWMRI): stored gradient times measurement frame, in the space of the header (LPS mostly); the length of a
  gradient is the square root of its share of the nominal b-value.

An oblique or flipped scan is right when the world directions are: tensors fitted with them stand in world space.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, OutputError, RequestError
from ..geometry import spacing_of

__all__ = [
    "B0_LIMIT",
    "GradientTable",
    "fsl_frame",
    "read_bvals",
    "read_bvecs",
    "read_fsl",
    "read_mrtrix",
    "read_nrrd_table",
    "target_table",
]

B0_LIMIT = 50.0
"""Volumes with b up to this (s/mm^2) count as not diffusion-weighted; scanners write 5 for 0."""
_LENGTH_TOLERANCE = 0.05
_HEADER_LIMIT = 1 << 20


@dataclass(frozen=True)
class GradientTable:
    """One row per volume.

    Attributes
    ----------
    bvals : (n,) float64, s/mm^2.
    world : (n, 3) float64 unit vectors in RAS; zeros where nothing is weighted.
    raw : (n, 3) float32 as the FSL file had them; None for tables from elsewhere.

    """

    bvals: np.ndarray
    world: np.ndarray
    raw: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of volumes."""
        return len(self.bvals)

    @property
    def is_b0(self) -> np.ndarray:
        """(n,) bool: not diffusion-weighted."""
        return np.asarray(self.bvals <= B0_LIMIT)

    def pick(self, which: np.ndarray) -> GradientTable:
        """Return the rows with these indices."""
        return GradientTable(self.bvals[which], self.world[which], None if self.raw is None else self.raw[which])

    def joined(self, other: GradientTable) -> GradientTable:
        """Return this table with the rows of another below it."""
        return GradientTable(np.concatenate([self.bvals, other.bvals]), np.concatenate([self.world, other.world]))

    def fsl(self, affine: np.ndarray) -> np.ndarray:
        """Return FSL's bvecs (n, 3), float64, for an image with this affine."""
        return self.world @ fsl_frame(affine)

    def write_fsl(self, bvals: Path, bvecs: Path, affine: np.ndarray) -> None:
        """Write FSL's two files (one row of b-values; three rows of directions). OutputError when that fails."""
        vectors = self.fsl(affine).T + 0.0  # no negative zeros
        try:
            bvals.write_text(" ".join(f"{value:.6g}" for value in self.bvals) + "\n", encoding="ascii")
            rows = [" ".join(f"{value:.9f}" for value in row) for row in vectors]
            bvecs.write_text("\n".join(rows) + "\n", encoding="ascii")
        except OSError as error:
            raise OutputError(f"the gradient table cannot be written ({error.strerror})", "check the folder") from None

    def write_mrtrix(self, path: Path) -> None:
        """Write a MRtrix table: rows ``x y z b`` in world space. OutputError when that fails."""
        rows = [" ".join(f"{value:.9f}" for value in row) for row in self.world + 0.0]
        lines = [f"{row} {value:.6g}" for row, value in zip(rows, self.bvals, strict=True)]
        try:
            path.write_text("\n".join(lines) + "\n", encoding="ascii")
        except OSError as error:
            raise OutputError(f"the gradient table cannot be written ({error.strerror})", "check the folder") from None


def fsl_frame(affine: np.ndarray) -> np.ndarray:
    """Return the matrix (3, 3) that takes FSL's bvec (column) of an image to world space: unit axes, first negated
    where their system is right-handed.
    """
    axes = np.asarray(affine, dtype=np.float64)[:3, :3] / np.array(spacing_of(affine))
    return axes * np.array([-1.0 if np.linalg.det(axes) > 0 else 1.0, 1.0, 1.0])


# -------------------------------------------------------------------------------------------------------------- reading


def read_bvals(path: str | Path) -> np.ndarray:
    """Return the b-values (n,), float64, of a text file in one row or one column. Raises InputError."""
    values = _numbers(Path(path))
    if min(values.shape) != 1:
        raise InputError(
            f"{Path(path).name} is no list of b-values: it has {values.shape[0]} rows", "give FSL's bval file"
        )
    flat = values.ravel()
    if not np.isfinite(flat).all() or flat.min() < 0:
        raise InputError(f"{Path(path).name} has b-values that are negative or no numbers", "check the file")
    return flat


def read_bvecs(path: str | Path, count: int | None = None) -> np.ndarray:
    """Return directions (n, 3), float32, of a text file of three rows or three columns.

    A square file is read as FSL writes it, three rows.

    Raises
    ------
    InputError : not three rows or columns, values that are no numbers, or another number than ``count``.

    """
    name, values = Path(path).name, _numbers(Path(path))
    if 3 not in values.shape:
        rows, columns = values.shape
        raise InputError(f"{name} has {rows} rows and {columns} columns; three of either are needed", "check the file")
    vectors = values.T if values.shape[0] == 3 else values
    if count is not None and len(vectors) != count:
        raise InputError(
            f"{name} has {len(vectors)} directions for {count} volumes", "give the files that belong together"
        )
    return np.asarray(vectors, dtype=np.float32)


def read_fsl(
    bvecs: str | Path, bvals: str | Path | None, affine: np.ndarray, count: int, shell: float
) -> GradientTable:
    """Return the table of FSL files for an image of ``count`` volumes; without b-values all volumes have b ``shell``.

    Raises
    ------
    InputError : unreadable files, another number of rows than volumes, NaN, or a weighted volume without direction.

    """
    raw = read_bvecs(bvecs, count)
    if bvals is None:
        values = np.full(count, float(shell))
    else:
        values = read_bvals(bvals)
        if len(values) != count:
            raise InputError(
                f"{Path(bvals).name} has {len(values)} b-values for {count} volumes",
                "give the files that belong together",
            )
    world = _unit(raw.astype(np.float64), values, Path(bvecs).name) @ fsl_frame(affine).T
    return GradientTable(values, world, raw)


def read_mrtrix(path: str | Path, count: int | None = None) -> GradientTable:
    """Return the table of a MRtrix file: rows ``x y z b`` in world space; lengths other than 1 scale the b-value.

    Raises
    ------
    InputError : not four columns, NaN, or another number of rows than ``count``.

    """
    name, values = Path(path).name, _numbers(Path(path))
    if values.shape[1] != 4:
        raise InputError(f"{name} has {values.shape[1]} columns; a MRtrix gradient table has four", "check the file")
    if count is not None and len(values) != count:
        raise InputError(f"{name} has {len(values)} rows for {count} volumes", "give the files that belong together")
    vectors, bvals = values[:, :3], values[:, 3]
    if not np.isfinite(bvals).all() or bvals.min() < 0:
        raise InputError(f"{name} has b-values that are negative or no numbers", "check the file")
    length = np.linalg.norm(vectors, axis=1)
    scaled = (np.abs(length - 1) > 0.01) & (length > 0)
    bvals = np.where(scaled, bvals * length**2, bvals)
    return GradientTable(bvals, _unit(vectors, bvals, name, tolerance=np.inf))


def read_nrrd_table(path: str | Path, count: int | None = None) -> GradientTable:
    """Return the table in the header of a diffusion-weighted NRRD file.

    Raises
    ------
    InputError : no such table, a kind that is not read (B-matrices), or another number than ``count`` volumes.

    """
    path = Path(path)
    fields, keys = _nrrd_header(path)
    nominal = float(keys.get("DWMRI_b-value", "nan"))
    if not np.isfinite(nominal):
        raise InputError(f"{path.name} has no gradient table (DWMRI_b-value)", "give --bvecs and --bvals")
    if any(key.startswith("DWMRI_B-matrix") for key in keys):
        raise InputError(f"{path.name} has B-matrices, which are not read", "convert it with gradients")
    rows: dict[int, np.ndarray] = {}
    for key, text in keys.items():
        match = re.fullmatch(r"DWMRI_gradient_(\d+)", key)
        if match:
            first = int(match[1])
            for index in range(first, first + int(keys.get(f"DWMRI_NEX_{match[1]}", "1"))):
                rows[index] = _triple(text, path.name)
    stored = np.array([rows[index] for index in sorted(rows)]).reshape(-1, 3)
    if count is not None and len(stored) != count:
        raise InputError(f"{path.name} has {len(stored)} gradients for {count} volumes", "check the file")
    frame = np.array(
        [_triple(text, path.name) for text in re.findall(r"\(([^)]*)\)", fields.get("measurement frame", ""))]
    )
    turned = stored if frame.size == 0 else stored @ frame.reshape(3, 3)  # the header lists columns
    turned = turned * _to_ras(fields.get("space", ""), path.name)
    longest = np.linalg.norm(stored, axis=1).max(initial=0) or 1.0
    bvals = nominal * (np.linalg.norm(stored, axis=1) / longest) ** 2
    return GradientTable(bvals, _unit(turned, bvals, path.name, tolerance=np.inf))


def _nrrd_header(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the fields and the key-value pairs of the text header."""
    try:
        with path.open("rb") as file:
            text = file.read(_HEADER_LIMIT)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})", "check the file") from None
    head = re.split(rb"\r?\n\r?\n", text, maxsplit=1)[0].decode("latin-1")
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for line in head.splitlines()[1:]:
        if line.startswith("#"):
            continue
        if ":=" in line:
            key, value = line.split(":=", 1)
            keys[key.strip()] = value.strip()
        elif ":" in line:
            key, value = line.split(":", 1)
            fields[key.strip().lower()] = value.strip()
    return fields, keys


def _triple(text: str, name: str) -> np.ndarray:
    try:
        values = np.array([float(word) for word in re.split(r"[\s,]+", text.strip())])
    except ValueError:
        values = np.empty(0)
    if values.shape != (3,):
        raise InputError(f"{name} has a gradient that is not three numbers ({text.strip()[:40]})", "check its header")
    return values


def _to_ras(space: str, name: str) -> np.ndarray:
    """Return the signs that take a space of an NRRD header to RAS."""
    known = {"ras": "ras", "right-anterior-superior": "ras", "lps": "lps", "left-posterior-superior": "lps"}
    known |= {"las": "las", "left-anterior-superior": "las"}
    code = known.get(space.lower())
    if code is None:
        raise InputError(
            f"{name} has gradients in the space {space or 'that it does not name'}", "convert it to LPS or RAS"
        )
    return np.array([1.0 if letter in "ras" else -1.0 for letter in code])


def _unit(vectors: np.ndarray, bvals: np.ndarray, name: str, tolerance: float = _LENGTH_TOLERANCE) -> np.ndarray:
    """Return unit vectors, zeros for volumes that are not weighted; complain where a weighted one has no direction."""
    weighted = bvals > B0_LIMIT
    if not np.isfinite(vectors[weighted]).all():
        bad = int(np.flatnonzero(weighted & ~np.isfinite(vectors).all(axis=1))[0])
        raise InputError(f"{name}: the direction of volume {bad} is not a number", "correct or remove that volume")
    length = np.linalg.norm(np.nan_to_num(vectors), axis=1)
    missing = np.flatnonzero(weighted & (length < 1e-3))
    if missing.size:
        raise InputError(
            f"{name}: volume {missing[0]} has b = {bvals[missing[0]]:g} but no direction",
            "check that bvals and bvecs match",
        )
    off = np.abs(length[weighted] - 1)
    if off.size and off.max() > tolerance:
        raise InputError(
            f"{name}: directions are not of unit length (one has {length[weighted][off.argmax()]:.3g})",
            "normalise them, or check that it is a file of directions",
        )
    safe = np.where(length < 1e-3, 1.0, length)
    return np.where(weighted[:, None], np.nan_to_num(vectors) / safe[:, None], 0.0)


def _numbers(path: Path) -> np.ndarray:
    """Return the numbers of a text file as a matrix; comments begin with #."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not a text file", "give a text file of numbers") from None
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})", "check the file") from None
    lines = [line.split("#")[0].replace(",", " ").split() for line in text.splitlines()]
    lines = [words for words in lines if words]
    try:
        rows = [[float(word) for word in words] for words in lines]
    except ValueError as error:
        raise InputError(f"{path.name} holds something that is not a number ({error})", "check the file") from None
    if not rows or len({len(row) for row in rows}) != 1:
        raise InputError(f"{path.name} is empty, or its rows differ in length", "check the file")
    return np.array(rows)


def target_table(vectors: np.ndarray, shell: float, affine: np.ndarray, name: str = "the targets") -> GradientTable:
    """Return the table of wanted FSL directions (n, 3) of an image with this affine, at b ``shell``.

    Raises
    ------
    RequestError : a direction is zero or not a number.

    """
    if not np.isfinite(vectors).all() or (np.linalg.norm(vectors, axis=1) < 1e-3).any():
        raise RequestError(f"{name} hold a direction that is zero or not a number", "correct the file")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    bvals = np.full(len(vectors), float(shell))
    return GradientTable(bvals, unit.astype(np.float64) @ fsl_frame(affine).T, np.asarray(vectors, dtype=np.float32))
