"""Directions: the published order in which a subset is chosen, and sets that are spread evenly over the sphere."""

from __future__ import annotations

import functools

import numpy as np

from ..errors import RequestError

__all__ = [
    "angles_between",
    "choose_context",
    "electrostatic_energy",
    "even_directions",
    "max_min_order",
    "same_axis_angle",
    "spread_order",
]

_ITERATIONS = 600


def angles_between(vectors: np.ndarray) -> np.ndarray:
    """Return the angles (n, n) in radians, float32, between vectors (n, 3); opposite ones are pi apart.

    This is the published distance: a direction and its opposite count as far apart, though they measure the same.
    """
    unit = np.asarray(vectors, dtype=np.float32)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return np.arccos(np.clip(unit @ unit.T, -1, 1))


def max_min_order(
    vectors: np.ndarray, q_in: int, q_out: int, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Return the published order of directions: alternating subsets of ``q_in`` and ``q_out``, each spread by itself.

    A subset begins with the lowest index that is left (with a ``generator``: a random one) and takes again and again
    the direction whose nearest chosen neighbour is farthest; ties go to the lowest index. What is left over follows in
    ascending order.

    Parameters
    ----------
    vectors :
        Directions (n, 3).
    q_in, q_out :
        Sizes of the subsets.
    generator :
        Draws the first direction of each subset.

    Returns
    -------
    Indices (n,), int64.

    """
    distances, left = angles_between(vectors), np.ones(len(vectors), dtype=bool)
    order: list[int] = []
    for _ in range(len(vectors) // (q_in + q_out)):
        for size in (q_in, q_out):
            available = np.flatnonzero(left)
            start = available[0] if generator is None else generator.choice(available)
            picked = _spread(distances, left, int(start), size)
            left[picked] = False
            order += picked
    return np.array([*order, *np.flatnonzero(left)], dtype=np.int64)


def _spread(distances: np.ndarray, left: np.ndarray, start: int, size: int) -> list[int]:
    picked, allowed = [start], left.copy()
    allowed[start] = False
    nearest = distances[:, start].copy()
    while len(picked) < size:
        best = int(np.argmax(np.where(allowed, nearest, 0)))
        picked.append(best)
        allowed[best] = False
        nearest = np.minimum(nearest, distances[:, best])
    return picked


def spread_order(vectors: np.ndarray) -> np.ndarray:
    """Return all directions (n, 3) in the order in which a spread subset would take them, beginning with the first."""
    count = len(vectors)
    return np.array(_spread(angles_between(vectors), np.ones(count, dtype=bool), 0, count), dtype=np.int64)


def choose_context(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return which ``count`` of the directions (n, 3) a network is given, in the order in which it reads them.

    All of them in their own order when there are exactly ``count``; else the first subset of the published order.

    Raises
    ------
    RequestError : there are fewer than ``count``.

    """
    if len(vectors) < count:
        raise RequestError(f"{count} directions are needed and {len(vectors)} were measured", "choose a smaller model")
    if len(vectors) == count:
        return np.arange(count)
    return np.array(_spread(angles_between(vectors), np.ones(len(vectors), dtype=bool), 0, count))


def even_directions(count: int) -> np.ndarray:
    """Return ``count`` unit vectors (count, 3), float64, spread evenly over the sphere of axes; always the same.

    They minimise the energy of electric charges that sit at both ends of each axis (Jones, Horsfield and Simmons,
    Magn Reson Med 42, 1999), beginning from a spiral. Of each axis the end with positive z is given.

    Raises
    ------
    RequestError : ``count`` is not from 1 to 1000.

    """
    if not 1 <= count <= 1000:
        raise RequestError(f"{count} directions cannot be made", "ask for 1 to 1000")
    return _even(count).copy()


def electrostatic_energy(vectors: np.ndarray) -> float:
    """Return the energy of unit charges at both ends of each axis (n, 3): the sum over pairs of 1 / distance.

    The two ends of one axis are a pair too (1/2 each), so that the number compares with that of 2n charges on the
    sphere (Thomson's problem), of which this is the symmetric case.
    """
    unit = np.asarray(vectors, dtype=np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    ends = np.concatenate([unit, -unit])
    rows, columns = np.triu_indices(len(ends), 1)
    return float((1 / np.linalg.norm(ends[rows] - ends[columns], axis=1)).sum())


@functools.lru_cache(maxsize=8)
def _even(count: int) -> np.ndarray:
    from scipy.optimize import minimize

    height = 1 - (np.arange(count) + 0.5) / count  # a spiral over the upper half
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - height**2)
    spiral = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)

    def energy(flat: np.ndarray) -> tuple[float, np.ndarray]:
        free = flat.reshape(count, 3)
        length = np.linalg.norm(free, axis=1, keepdims=True)
        unit = free / length
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, 0)
        near = np.maximum(2 - 2 * cosine, 1e-12) ** -0.5
        far = np.maximum(2 + 2 * cosine, 1e-12) ** -0.5
        np.fill_diagonal(near, 0)
        np.fill_diagonal(far, 0)
        slope = (near**3 - far**3) @ unit
        slope -= (slope * unit).sum(axis=1, keepdims=True) * unit
        return float((near + far).sum() / 2), (slope / length).ravel()

    found = spiral
    if count > 1:
        found = minimize(energy, spiral.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS}).x
    unit = found.reshape(count, 3)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    unit = np.where(unit[:, 2:] < 0, -unit, unit)
    return np.asarray(unit[np.lexsort((unit[:, 1], unit[:, 0], -np.round(unit[:, 2], 6)))])


def same_axis_angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angles (n, m) in degrees between the axes of vectors (n, 3) and (m, 3); opposites are one axis."""
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (np.asarray(first), np.asarray(second)))
    return np.degrees(np.arccos(np.clip(np.abs(a @ b.T), 0, 1)))
