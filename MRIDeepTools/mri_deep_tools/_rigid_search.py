"""The coarse half of a rigid registration: which way up is the brain, whatever the header says.

Both images are smoothed and sampled coarsely, so that one comparison costs less than a millisecond. A net of rotations
over all of SO(3) is tried with a few translations each, the best are improved by Nelder and Mead's method, and the one
that is best on a finer grid wins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from ._affine import spacing_of
from .geometry import Grid, Reorient, resample_to
from .volume import Volume

__all__ = ["Coarse", "coarse_search", "normalised_information", "pose_matrix"]

COARSE_MM, FINE_MM = 12.0, 6.0
ROTATIONS = 720  # neighbours are about 25 degrees apart
SHIFT_MM = 28.0  # a field of view that cuts the brain moves its centre by so much
KEPT = 14  # candidates that are improved
FINALISTS = 4
BINS = 24


@dataclass(frozen=True)
class Coarse:
    """A smoothed image on a coarse grid: values (X, Y, Z), its affine to RAS mm, and the centre of its content."""

    values: np.ndarray
    inverse: np.ndarray
    points: np.ndarray
    centre: np.ndarray

    @classmethod
    def of(cls, volume: Volume, spacing: float) -> Coarse:
        """Smooth and sample; ``points`` (N, 3) are the world positions of the grid around the content."""
        upright = Reorient.to_ras(volume).apply(volume)
        data = upright.data.astype(np.float32)
        sigmas = [max(spacing / 2 / size, 0.01) for size in spacing_of(upright.affine)]
        upright = upright.with_data(gaussian_filter(data, sigmas, truncate=2.5, mode="nearest"))
        grid = Grid.of(upright).with_spacing([max(spacing, size) for size in spacing_of(upright.affine)])
        values = resample_to(upright, grid.shape, grid.affine).data
        index = np.indices(grid.shape).reshape(3, -1).T
        weights = np.clip(values, 0, np.percentile(values, 99)).ravel().astype(np.float64)
        world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        centre = (world * weights[:, None]).sum(0) / max(weights.sum(), 1e-12)
        return cls(values, np.linalg.inv(grid.affine), world, centre)

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values at world points (N, 3), and which points lie in the field of view."""
        voxels = points @ self.inverse[:3, :3].T + self.inverse[:3, 3]
        inside = np.all((voxels > -0.6) & (voxels < np.array(self.values.shape) - 0.4), axis=1)
        return map_coordinates(self.values, voxels.T, order=1, mode="nearest"), inside


def pose_matrix(pose: np.ndarray, fixed_centre: np.ndarray, moving_centre: np.ndarray) -> np.ndarray:
    """Return the (4, 4) matrix, fixed to moving RAS mm, of (rotation vector in radians, translation in mm)."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(pose[:3]).as_matrix()
    matrix[:3, 3] = moving_centre + pose[3:] - matrix[:3, :3] @ fixed_centre
    return matrix


def similarity(first: np.ndarray, second: np.ndarray, inside: np.ndarray, metric: str) -> float:
    """Return how alike two samples are where both are known, 0 to 1, less where little is known."""
    share = float(inside.mean())
    if share < 0.2:
        return 0.0
    a, b = first[inside], second[inside]
    value = _correlation(a, b) if metric == "correlation" else normalised_information(a, b)
    return value * min(1.0, share / 0.8) ** 0.5


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return max(float(a @ b) / scale, 0.0) if scale > 0 else 0.0


def normalised_information(a: np.ndarray, b: np.ndarray) -> float:
    """Return the entropy coefficient 2 I(a; b) / (H(a) + H(b))."""
    counts = np.bincount(_binned(a) * BINS + _binned(b), minlength=BINS * BINS).reshape(BINS, BINS)
    p = counts / counts.sum()
    marginal = _entropy(p.sum(0)) + _entropy(p.sum(1))
    return 2 * (marginal - _entropy(p.ravel())) / marginal if marginal > 0 else 0.0


def _binned(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return np.minimum((values - low) * (BINS / max(high - low, 1e-12)), BINS - 1).astype(np.intp)


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def rotation_net(count: int) -> np.ndarray:
    """Return rotation vectors (count, 3) spread evenly over all rotations, the identity first.

    Super-Fibonacci spirals (Alexa, CVPR 2022): evenly spread unit quaternions from two irrational steps.
    """
    from scipy.spatial.transform import Rotation

    phi, psi = math.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(count) + 0.5
    t, d = s / count, 2 * math.pi * s
    r, big = np.sqrt(t), np.sqrt(1 - t)
    quaternions = np.stack(
        [r * np.sin(d / phi), r * np.cos(d / phi), big * np.sin(d / psi), big * np.cos(d / psi)], axis=1
    )
    vectors = Rotation.from_quat(quaternions).as_rotvec()
    return np.concatenate([np.zeros((1, 3)), vectors])


class _Matcher:
    """Compares two images at one coarseness."""

    def __init__(self, moving: Volume, fixed: Volume, spacing: float, metric: str) -> None:
        self.moving, self.fixed, self.metric = Coarse.of(moving, spacing), Coarse.of(fixed, spacing), metric
        # Bone and air around a brain without skull say nothing: keep the box of the content with a margin.
        values = self.fixed.values.ravel()
        content = self.fixed.points[values > 0.1 * np.percentile(values, 99)]
        low, high = content.min(0) - 1.5 * spacing, content.max(0) + 1.5 * spacing
        keep = np.all((self.fixed.points >= low) & (self.fixed.points <= high), axis=1)
        self.points, self.values = self.fixed.points[keep], values[keep]

    def score(self, matrix: np.ndarray) -> float:
        """Return the similarity under a matrix from fixed to moving world."""
        return similarity(self.values, *self.moving.at(self.points @ matrix[:3, :3].T + matrix[:3, 3]), self.metric)


def coarse_search(
    moving: Volume, fixed: Volume, metric: str, *, any_orientation: bool = True
) -> tuple[np.ndarray, Any]:
    """Return the best (4, 4) matrix from fixed to moving RAS mm, good to a few mm and degrees, and its score.

    Without ``any_orientation`` the axes of the header are trusted to about 40 degrees.
    """
    from scipy.optimize import minimize

    coarse, fine = (_Matcher(moving, fixed, spacing, metric) for spacing in (COARSE_MM, FINE_MM))
    centres = coarse.fixed.centre, coarse.moving.centre
    rotations = rotation_net(ROTATIONS)
    if not any_orientation:
        rotations = rotations[np.linalg.norm(rotations, axis=1) < math.radians(40)]
    shifts = np.concatenate([np.zeros((1, 3)), SHIFT_MM * np.eye(3), -SHIFT_MM * np.eye(3)])
    header = np.concatenate([np.zeros(3), centres[0] - centres[1]])  # the header's own positions, unmoved
    starts = [np.concatenate([r, s]) for r in rotations for s in shifts] + [header]
    scores = np.array([coarse.score(pose_matrix(start, *centres)) for start in starts])

    def improved(
        matcher: _Matcher, start: np.ndarray, radians: float, mm: float, steps: int
    ) -> tuple[float, np.ndarray]:
        simplex = np.concatenate([start[None], start + np.diag([radians] * 3 + [mm] * 3)])
        options = {"initial_simplex": simplex, "maxfev": steps, "xatol": 1e-3, "fatol": 1e-5}
        found = minimize(
            lambda pose: -matcher.score(pose_matrix(pose, *centres)), start, method="Nelder-Mead", options=options
        )
        return -float(found.fun), found.x

    kept = [starts[i] for i in _distinct(np.argsort(-scores), starts, KEPT)]
    refined = [improved(coarse, start, 0.25, 12.0, 160) for start in [*kept, header]]
    refined.sort(key=lambda item: -item[0])
    poses = [pose for _, pose in refined]
    finalists = [poses[i] for i in _distinct(np.arange(len(poses)), poses, FINALISTS)]
    score, best = max((improved(fine, pose, 0.12, 6.0, 220) for pose in finalists), key=lambda item: item[0])
    return pose_matrix(best, *centres), score


def _distinct(order: np.ndarray, poses: list[np.ndarray], count: int) -> list[int]:
    """Return the first ``count`` of an order that differ from one another by 15 degrees or 15 mm."""
    from scipy.spatial.transform import Rotation

    chosen: list[int] = []
    for index in order:
        turn = Rotation.from_rotvec(poses[index][:3])
        near = (
            (turn * Rotation.from_rotvec(poses[other][:3]).inv()).magnitude() < math.radians(15)
            and np.linalg.norm(poses[index][3:] - poses[other][3:]) < 15
            for other in chosen
        )
        if not any(near):
            chosen.append(int(index))
        if len(chosen) == count:
            break
    return chosen
