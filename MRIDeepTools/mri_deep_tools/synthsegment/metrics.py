"""Numbers that compare two label maps, or two methods: overlap, surface distances, paired test, effect size.

Plain arrays in, plain arrays out. With ``compatible=True`` each function gives what the original evaluation of
SynthSeg (Billot et al., Medical Image Analysis 86, 2023, 102789) gives, its known faults included; without it a
structure that is absent counts as unknown (NaN) instead of as a number made up for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import RequestError

__all__ = ["SurfaceDistances", "cohens_d", "dice_scores", "label_counts", "paired_test", "surface_distances"]

Alternative = Literal["two-sided", "greater", "less"]
_DICE_EPSILON = 1e-5  # in the published denominator
_EXACT_TEST_LIMIT = 50  # pairs up to which the exact distribution of the signed-rank statistic is used


class SurfaceDistances(NamedTuple):
    """Distances between two surfaces, in the unit of the spacing that was given."""

    hausdorff: float
    hausdorff_99: float
    hausdorff_95: float
    mean: float


def label_counts(labels: NDArray[np.integer], codes: Sequence[int]) -> NDArray[np.int64]:
    """Return the number of voxels of each code in an integer array of any shape."""
    values, counts = np.unique(labels, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return np.array([found.get(int(code), 0) for code in codes], dtype=np.int64)


def dice_scores(
    truth: NDArray[np.integer], segmentation: NDArray[np.integer], codes: Sequence[int], *, compatible: bool = False
) -> NDArray[np.float64]:
    """Return the hard Dice score of each code.

    Parameters
    ----------
    truth, segmentation :
        Integer arrays of one shape.
    codes :
        Labels to score.
    compatible :
        Add 1e-5 to the denominator, so that a label absent from both scores 0 instead of NaN.

    Returns
    -------
    (len(codes),) float64, 0 to 1; NaN where the label is in neither map.

    """
    _check_shapes(truth, segmentation)
    both = label_counts(truth[truth == segmentation], codes)
    total = label_counts(truth, codes) + label_counts(segmentation, codes)
    if compatible:
        return 2.0 * both / (total + _DICE_EPSILON)
    return np.divide(2.0 * both, total, out=np.full(len(codes), np.nan), where=total > 0)


def surface_distances(
    truth: NDArray[np.bool_],
    segmentation: NDArray[np.bool_],
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    compatible: bool = False,
) -> SurfaceDistances:
    """Return how far apart the surfaces of two masks lie.

    A surface is the set of mask voxels that share a face with the outside. Distances run from each surface voxel
    of one mask to the nearest of the other. The Hausdorff distance and its 99th and 95th percentiles are taken over
    both directions pooled; the mean distance is the average of the two directed means.

    Parameters
    ----------
    truth, segmentation :
        (X, Y, Z) boolean arrays of one shape.
    spacing :
        Voxel size along each axis; (1, 1, 1) gives distances in voxels, mm give mm.
    compatible :
        As published: the last plane of the common bounding box is left out along each axis, voxels at the
        border of the box have no outside there, and a missing mask gives max(X, Y, Z) (times the largest spacing).

    Returns
    -------
    Four distances in the unit of ``spacing``; NaN when a mask is empty.

    """
    _check_shapes(truth, segmentation)
    if len(spacing) != truth.ndim:
        raise RequestError(f"spacing has {len(spacing)} values for {truth.ndim} axes")
    missing = float(max(truth.shape)) * max(spacing) if compatible else float("nan")
    box = _bounding_box(truth | segmentation, drop_last=compatible)
    directed = None
    if box is not None and truth.any() and segmentation.any():
        measure = _published_distances if compatible else _directed_distances
        directed = measure(truth[box], segmentation[box], np.asarray(spacing, np.float64))
    if directed is None:
        return SurfaceDistances(missing, missing, missing, missing)
    pooled = np.concatenate(directed)
    p99, p95 = np.percentile(pooled, [99, 95])
    mean = (directed[0].mean() + directed[1].mean()) / 2
    return SurfaceDistances(float(pooled.max()), float(p99), float(p95), float(mean))


def paired_test(
    x: ArrayLike,
    y: ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    structures: Sequence[int] | None = None,
    compatible: bool = False,
) -> NDArray[np.float64]:
    """Return p-values of the Wilcoxon signed-rank test, per structure and for the mean over structures.

    Parameters
    ----------
    x, y :
        (structures, subjects) scores of two methods on the same subjects; NaN pairs are left out.
    alternative :
        "greater" asks whether x tends to be larger than y.
    structures :
        Rows to evaluate; all when None.
    compatible :
        Always the normal approximation, as the published program computes it; otherwise the exact
        distribution for up to 50 pairs without ties or zeros.

    Returns
    -------
    (evaluated structures + 1,) float64; the last entry tests the mean over the evaluated structures. NaN where
    no two subjects differ.

    """
    first, second = _paired_arrays(x, y)
    if alternative not in ("two-sided", "greater", "less"):
        raise RequestError(f"unknown alternative {alternative!r}", "use two-sided, greater or less")
    if structures is not None:
        first, second = first[list(structures)], second[list(structures)]
    unknown = np.isnan(first) | np.isnan(second)
    first, second = np.where(unknown, np.nan, first), np.where(unknown, np.nan, second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # subjects without any score have no mean
        rows = [*zip(first, second, strict=True), (np.nanmean(first, axis=0), np.nanmean(second, axis=0))]
    return np.array([_signed_rank(a, b, alternative, compatible) for a, b in rows])


def cohens_d(x: ArrayLike, y: ArrayLike, *, compatible: bool = False) -> NDArray[np.float64]:
    """Return Cohen's d of each structure: (mean x - mean y) over the pooled standard deviation.

    Parameters
    ----------
    x, y :
        (structures, subjects) scores; NaN entries are left out. The numbers of subjects may differ.
    compatible :
        Put population variances (ddof 0) into the pooled formula, as published, instead of sample variances.

    Returns
    -------
    (structures,) float64; NaN where the pooled deviation is 0 or fewer than two scores are known on each side.

    """
    first, second = np.atleast_2d(np.asarray(x, np.float64)), np.atleast_2d(np.asarray(y, np.float64))
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise RequestError(f"scores of shape {first.shape} and {second.shape} do not list the same structures")
    return np.array(
        [_cohens_d(a[~np.isnan(a)], b[~np.isnan(b)], compatible) for a, b in zip(first, second, strict=True)]
    )


def _cohens_d(x: NDArray[np.float64], y: NDArray[np.float64], compatible: bool) -> float:
    if min(len(x), len(y)) < 2:
        return float("nan")
    ddof = 0 if compatible else 1
    spread = (len(x) - 1) * x.var(ddof=ddof) + (len(y) - 1) * y.var(ddof=ddof)
    deviation = float(np.sqrt(spread / (len(x) + len(y) - 2)))
    return float((x.mean() - y.mean()) / deviation) if deviation > 0 else float("nan")


def _signed_rank(x: NDArray[np.float64], y: NDArray[np.float64], alternative: Alternative, compatible: bool) -> float:
    from scipy.stats import wilcoxon

    difference = (x - y)[~np.isnan(x - y)]
    if not np.any(difference):
        return float("nan")
    size = np.abs(difference)
    plain = bool(np.all(size > 0)) and len(np.unique(size)) == len(size)
    exact = plain and len(size) <= _EXACT_TEST_LIMIT and not compatible
    result = wilcoxon(difference, alternative=alternative, method="exact" if exact else "approx")
    return float(result.pvalue)


def _paired_arrays(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.atleast_2d(np.asarray(x, np.float64)), np.atleast_2d(np.asarray(y, np.float64))
    if first.shape != second.shape or first.ndim != 2:
        message = f"scores of shape {first.shape} and {second.shape} cannot be paired"
        raise RequestError(
            message, "give two tables of structures by subjects with the same subjects in the same order"
        )
    return first, second


def _check_shapes(first: NDArray, second: NDArray) -> None:
    if first.shape != second.shape:
        raise RequestError(f"label maps of shape {first.shape} and {second.shape} cannot be compared")


def _bounding_box(mask: NDArray[np.bool_], *, drop_last: bool) -> tuple[slice, ...] | None:
    """Return the box around a mask, None when there is none; ``drop_last`` leaves out its last planes."""
    from scipy.ndimage import find_objects

    found = find_objects(mask.astype(np.uint8))
    if not found or found[0] is None:
        return None
    return tuple(slice(part.start, part.stop - int(drop_last)) for part in found[0])


def _directed_distances(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances from the surface of each mask to that of the other; beyond the array is outside."""
    from scipy.ndimage import binary_erosion
    from scipy.spatial import cKDTree

    points = [np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in (first, second)]
    forth, _ = cKDTree(points[1]).query(points[0])
    back, _ = cKDTree(points[0]).query(points[1])
    return np.asarray(forth, np.float64), np.asarray(back, np.float64)


def _published_distances(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the same with the published rules; None when the cropped box leaves one mask without a surface."""
    from scipy.ndimage import distance_transform_edt

    if not first.size:
        return None
    edges = [distance_transform_edt(mask) == 1 for mask in (first, second)]
    if not all(edge.any() for edge in edges):
        return None
    to_first, to_second = (distance_transform_edt(~edge, sampling=spacing) for edge in edges)
    return to_second[edges[0]], to_first[edges[1]]
