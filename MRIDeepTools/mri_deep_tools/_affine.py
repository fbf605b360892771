"""Affines: what they say, when two are the same, and which ones can be used. All tolerances on geometry live here.

An affine is a (4, 4) float64 matrix that takes voxel indices (i, j, k, 1) to world coordinates (x, y, z, 1) in mm,
x to the right, y to the front, z to the top (RAS). Column k of its upper left 3x3 block is the step along axis k.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

import numpy as np

from .errors import GeometryError

AFFINE_ATOL = 1e-4
"""Two entries of an affine are equal within this: float32 headers round an origin of 1000 mm by 6e-5 mm."""

SAME_GRID_TOLERANCE_MM = 1e-3
"""Two grids are the same when no corner moves by more: ten times the rounding of a float32 or six-digit header."""

SHEAR_NEGLIGIBLE = 1e-5
"""Largest cosine between two axes that is left alone: float32 rounding gives 1e-7, headers of five decimals 1e-5."""

SHEAR_TOLERANCE = 1e-2
"""Largest cosine between two axes that is repaired (0.57 degrees); beyond it the image is truly sheared. ITK and
Slicer refuse more than about 2e-4, so nothing between the two limits may be written as it was read."""

SINGULAR_TOLERANCE = 1e-3
"""Smallest volume of the box spanned by the three unit axes; below it they do not span space."""

MIN_VOXEL_MM = 1e-3
"""Smallest voxel size taken for real; below it the header is in other units."""

MAX_VOXEL_MM = 100.0
"""Largest voxel size taken for real."""

SFORM_QFORM_TOLERANCE_MM = 0.1
"""sform and qform agree when no corner of the image differs by more: a tenth of a usual voxel."""

SFORM_QFORM_TOLERANCE_VOXELS = 0.5
"""... and by no more than half of the smallest voxel, for microscopic grids."""

SPACING_TOLERANCE = 1e-2
"""Relative difference of voxel sizes between header and affine that is worth a warning."""

ALIGNED_TOLERANCE_VOXELS = 1e-3
"""Two grids have parallel axes when treating them so moves no voxel by more than this share of a voxel."""

SNAP_TOLERANCE_VOXELS = 1e-4
"""A sample this close to a voxel centre is taken from the voxel itself, so that equal grids give equal values."""

FIELD_OF_VIEW_MARGIN = 0.5
"""A grid covers half a voxel beyond its outermost voxel centres; there the edge value holds, beyond it nothing is
known and the fill value stands."""

DICOM_SPACING_TOLERANCE = 1e-2
"""Relative deviation of one slice gap from the median gap that is looked into; scanners write 1e-4 mm or finer."""

DICOM_POSITION_TOLERANCE_MM = 0.1
"""A slice may lie this far from its place in an even stack (coarsely rounded positions), with a warning ..."""

DICOM_POSITION_TOLERANCE_VOXELS = 0.1
"""... but not farther than this share of the gap between slices."""


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Return the voxel sizes in mm: the lengths of the three columns of ``affine``."""
    sizes = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(sizes[0]), float(sizes[1]), float(sizes[2])


def voxel_to_world(affine: np.ndarray, voxels: Any) -> np.ndarray:
    """Return the RAS positions in mm, float64 (..., 3), of voxel indices (..., 3)."""
    affine = np.asarray(affine, dtype=np.float64)
    return np.asarray(voxels, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def world_to_voxel(affine: np.ndarray, points: Any) -> np.ndarray:
    """Return the (fractional) voxel indices, float64 (..., 3), of RAS positions (..., 3) in mm."""
    return voxel_to_world(np.linalg.inv(np.asarray(affine, dtype=np.float64)), points)


def corners(shape: Sequence[int]) -> np.ndarray:
    """Return the voxel indices (8, 3) of the eight outermost voxels of a grid of ``shape`` (X, Y, Z)."""
    return np.array(list(product(*[(0, n - 1) for n in shape[:3]])), dtype=np.float64)


def corner_distance(shape: Sequence[int], first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest distance in mm between the places two affines give to the corners of a grid of ``shape``."""
    points = corners(shape)
    return float(np.linalg.norm(voxel_to_world(first, points) - voxel_to_world(second, points), axis=1).max())


def shear_of(affine: np.ndarray) -> float:
    """Return the largest absolute cosine between two columns of ``affine``: 0 for right angles, 1 for parallel."""
    directions = _directions(affine)
    gram = np.abs(directions.T @ directions)
    return float(max(gram[0, 1], gram[0, 2], gram[1, 2]))


def is_regular(affine: np.ndarray) -> bool:
    """Say whether ``affine`` is finite and its axes span space."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all() or min(spacing_of(affine)) == 0.0:
        return False
    return abs(float(np.linalg.det(_directions(affine)))) >= SINGULAR_TOLERANCE


def check_affine(
    affine: Any, name: str = "affine", shape: Sequence[int] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return an affine whose axes are at right angles, and notes on what was repaired.

    A shear up to ``SHEAR_TOLERANCE`` is removed by taking the nearest rotation (polar decomposition of the unit axes);
    voxel sizes stay, and with ``shape`` (X, Y, Z) the centre of the image stays too, else the first voxel.

    Parameters
    ----------
    affine : (4, 4), voxel index to RAS mm.
    name : file name for the messages.
    shape : size of the grid, for the centre and for stating how far the corners move.

    Raises
    ------
    GeometryError : not 4x4, not finite, singular, voxel sizes out of all reason, or sheared beyond the tolerance.

    """
    matrix = np.array(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise GeometryError(f"{name} has an affine of shape {matrix.shape}, not (4, 4)")
    if not np.isfinite(matrix).all():
        raise GeometryError(f"{name} has an affine with NaN or infinite entries", _HINT)
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > AFFINE_ATOL:
        raise GeometryError(f"{name} has an affine whose last row is not 0 0 0 1", _HINT)
    matrix[3] = 0, 0, 0, 1
    if not is_regular(matrix):
        raise GeometryError(f"{name} has a singular affine: its axes do not span space", _HINT)
    sizes = spacing_of(matrix)
    if min(sizes) < MIN_VOXEL_MM or max(sizes) > MAX_VOXEL_MM:
        raise GeometryError(
            f"{name} says its voxels measure {format_sizes(sizes)} mm",
            "check the units in its header",
        )
    shear = shear_of(matrix)
    if shear <= SHEAR_NEGLIGIBLE:
        return matrix, ()
    if shear > SHEAR_TOLERANCE:
        raise GeometryError(
            f"{name} has axes that are not at right angles (largest cosine {shear:.4g}, allowed {SHEAR_TOLERANCE:g})",
            "resample it onto an orthogonal grid first",
        )
    repaired = _nearest_orthogonal(matrix, shape)
    moved = f", which moves its corners by at most {corner_distance(shape, matrix, repaired):.3g} mm" if shape else ""
    return repaired, (f"axes were not quite at right angles (largest cosine {shear:.2g}) and were made so{moved}",)


def ras_axes(affine: np.ndarray) -> tuple[int, int, int]:
    """Return, for each world axis (R, A, S), the array axis that feeds it.

    It is the axis with the largest entry in that column of the absolute inverse affine; when an axis is claimed more
    than once, its last claim gives way to the axis that was left out.
    """
    inverse = np.abs(np.linalg.inv(np.asarray(affine, dtype=np.float64))[:3, :3])
    axes = [int(k) for k in np.argmax(inverse, axis=0)]
    for missing in range(3):
        if missing not in axes:
            claimed = max(sorted(set(axes)), key=axes.count)
            axes[max(w for w in range(3) if axes[w] == claimed)] = missing
    return axes[0], axes[1], axes[2]


def ras_flips(affine: np.ndarray, axes: Sequence[int]) -> tuple[bool, bool, bool]:
    """Return, for each world axis, whether the array axis ``axes[w]`` that feeds it runs against it."""
    matrix = np.asarray(affine, dtype=np.float64)
    return bool(matrix[0, axes[0]] < 0), bool(matrix[1, axes[1]] < 0), bool(matrix[2, axes[2]] < 0)


def axcodes_of(affine: np.ndarray) -> tuple[str, str, str]:
    """Return the direction of each array axis as a letter: ("L", "P", "S") runs to the left, the back and the top."""
    axes = ras_axes(affine)
    flips = ras_flips(affine, axes)
    codes = ["", "", ""]
    for world, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        codes[axis] = "RAS"[world] if not flip else "LPI"[world]
    return codes[0], codes[1], codes[2]


def oblique_degrees(affine: np.ndarray) -> float:
    """Return the largest angle in degrees between an array axis and the body axis nearest to it."""
    nearest = np.abs(_directions(affine)).max(axis=0).min()
    return float(np.degrees(np.arccos(np.clip(nearest, -1.0, 1.0))))


def all_orientations() -> tuple[str, ...]:
    """Return the 48 ways in which array axes can lie along body axes: "RAS", "LAS", ..., "IPL"."""
    pairs = [("R", "L"), ("A", "P"), ("S", "I")]
    return tuple("".join(code) for order in permutations(pairs) for code in product(*order))


def format_sizes(sizes: Sequence[float] | np.ndarray) -> str:
    """Return voxel sizes as text: ``0.94 x 0.94 x 1.5``."""
    return " x ".join(f"{size:.4g}" for size in sizes)


_HINT = "repair the orientation in its header (sform, qform)"


def _directions(affine: np.ndarray) -> np.ndarray:
    """Return the three columns of the affine at unit length, (3, 3)."""
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    return matrix / np.linalg.norm(matrix, axis=0)


def _nearest_orthogonal(matrix: np.ndarray, shape: Sequence[int] | None) -> np.ndarray:
    """Replace the unit axes by the nearest orthogonal ones; handedness and voxel sizes stay."""
    left, _, right = np.linalg.svd(_directions(matrix))
    fixed = matrix.copy()
    fixed[:3, :3] = (left @ right) * np.array(spacing_of(matrix))
    if shape is not None:
        centre = (np.array(shape[:3], dtype=np.float64) - 1) / 2
        fixed[:3, 3] += voxel_to_world(matrix, centre) - voxel_to_world(fixed, centre)
    return fixed
