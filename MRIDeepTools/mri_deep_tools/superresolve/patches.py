"""Overlapping cubes: where they lie, how a network runs over them in batches, and how its answers are averaged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..errors import RequestError
from .preprocess import PATCH, STRIDE

__all__ = ["WINDOWS", "Predictor", "count_overlaps", "patch_starts", "patch_window", "reconstruct"]

Predictor = Callable[[np.ndarray], np.ndarray]
"""Maps cubes (N, 2, P, P, P) float32 to cubes (N, P, P, P) float32."""

WINDOWS = ("uniform", "gaussian")
_SIGMA = 3 / 16  # of the side of a cube: a patch fades to 3 % where it ends, and no ramp is steep
_FLOOR = 1e-3  # least weight, so that every voxel has one


def patch_starts(shape: Sequence[int], patch: int = PATCH, stride: int = STRIDE) -> list[tuple[int, int, int]]:
    """Return the first voxels of all whole patches in a volume, first axis slowest; 1573 for (192, 224, 192)."""
    first, second, third = (range(0, n - patch + 1, stride) for n in shape[:3])
    return list(itertools.product(first, second, third))


def count_overlaps(shape: Sequence[int], patch: int = PATCH, stride: int = STRIDE) -> np.ndarray:
    """Return how many patches cover each voxel, int64 (X, Y, Z)."""
    counts = []
    for n in shape[:3]:
        along = np.zeros(n, dtype=np.int64)
        for start in range(0, n - patch + 1, stride):
            along[start : start + patch] += 1
        counts.append(along)
    return np.asarray(counts[0][:, None, None] * counts[1][:, None] * counts[2])


def patch_window(kind: str, patch: int = PATCH) -> np.ndarray:
    """Return the weights of a patch, float64 (P, P, P): ``uniform`` as published, ``gaussian`` without seams.

    Raises
    ------
    RequestError : another kind.

    """
    if kind not in WINDOWS:
        raise RequestError(f"there is no window {kind!r}", f"use one of {', '.join(WINDOWS)}")
    if kind == "uniform":
        return np.ones((patch,) * 3)
    distance = (np.arange(patch) - (patch - 1) / 2) / (_SIGMA * patch)
    along = np.maximum(np.exp(-0.5 * distance**2), _FLOOR)
    return np.asarray(along[:, None, None] * along[:, None] * along)


def reconstruct(
    predict: Predictor,
    channels: np.ndarray,
    *,
    patch: int = PATCH,
    stride: int = STRIDE,
    batch: int = 8,
    window: str = "uniform",
    reuse_empty: bool = True,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Run a network over all patches and average its answers.

    Parameters
    ----------
    predict : the network.
    channels : (2, X, Y, Z), T1w and thick-slice T2w on 0..1.
    patch, stride : side of the cubes and step between them.
    batch : cubes at a time.
    window : see :func:`patch_window`.
    reuse_empty : compute cubes that are 0 in both channels once; their answers are all the same.
    progress : called with the share that is done; an exception it raises ends the work.

    Returns
    -------
    float64 (X, Y, Z); 0 where no whole patch lies, as published.

    """
    shape = channels.shape[1:]
    weights = patch_window(window, patch)
    total, weight = np.zeros(shape), np.zeros(shape)
    starts = patch_starts(shape, patch, stride)
    empty = _empty(channels, starts, patch) if reuse_empty else [False] * len(starts)
    busy = [start for start, blank in zip(starts, empty, strict=True) if not blank]
    blanks = [start for start, blank in zip(starts, empty, strict=True) if blank]
    for start, answer in _answers(predict, channels, busy, patch, batch, progress):
        _add(total, weight, start, answer, weights)
    if blanks:
        answer = predict(np.zeros((1, 2, patch, patch, patch), dtype=np.float32))[0]
        for start in blanks:
            _add(total, weight, start, answer, weights)
    weight[weight == 0] = 1
    total /= weight
    return total


def _answers(
    predict: Predictor,
    channels: np.ndarray,
    starts: Sequence[tuple[int, int, int]],
    patch: int,
    batch: int,
    progress: Callable[[float], None] | None,
) -> Iterator[tuple[tuple[int, int, int], np.ndarray]]:
    """Yield every start with the network's answer."""
    for index in range(0, len(starts), batch):
        group = starts[index : index + batch]
        cubes = np.stack([channels[:, x : x + patch, y : y + patch, z : z + patch] for x, y, z in group])
        yield from zip(group, predict(cubes.astype(np.float32, copy=False)), strict=True)
        if progress is not None:
            progress((index + len(group)) / len(starts))


def _add(
    total: np.ndarray, weight: np.ndarray, start: tuple[int, int, int], answer: np.ndarray, weights: np.ndarray
) -> None:
    box = tuple(slice(first, first + side) for first, side in zip(start, weights.shape, strict=True))
    total[box] += answer * weights
    weight[box] += weights


def _empty(channels: np.ndarray, starts: Sequence[tuple[int, int, int]], patch: int) -> list[bool]:
    """Return which patches are 0 in both channels."""
    full = np.asarray(channels.any(axis=0))
    return [not full[x : x + patch, y : y + patch, z : z + patch].any() for x, y, z in starts]
