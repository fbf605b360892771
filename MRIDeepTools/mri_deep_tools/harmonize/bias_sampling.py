"""Pairs of like age: with which probability each age range is drawn, so that two sites show the same ages.

Roca et al., Medical Image Analysis 99 (2025) 103388.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import RequestError

__all__ = ["age_groups", "sampling_probabilities"]


def age_groups(ages: Sequence[float] | np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Return the range of each age, (N,) int64: range i holds edges[i] <= age < edges[i + 1].

    Ages beyond the first and the last edge belong to the ranges at the ends.

    Raises
    ------
    RequestError : fewer than two edges, or edges that do not rise; an age that is not a number.

    """
    bins = np.asarray(edges, dtype=np.float64)
    if bins.ndim != 1 or bins.size < 2 or not (np.diff(bins) > 0).all():
        raise RequestError("the edges of the age ranges must rise, two at least", "correct age_bins")
    values = np.asarray(ages, dtype=np.float64)
    if not np.isfinite(values).all():
        raise RequestError("bias sampling needs the age of every image", "fill the column age, or set age_bins to []")
    return np.digitize(values, bins[1:-1]).astype(np.int64)


def sampling_probabilities(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, edges: Sequence[float]
) -> np.ndarray:
    """Return the probability of each age range, (ranges,) float64, for pairs from two sites with these ages.

    Ranges are settled from the scarcest to the richest: where one site has more images in a range than the other, its
    share falls to that of the other, and what it loses goes to its ranges that are not settled, in proportion.

    Raises
    ------
    RequestError : a site without images; edges or ages as for :func:`age_groups`; no range that both sites have.

    """
    if not len(first) or not len(second):
        raise RequestError("a site has no images", "correct the table")
    ranges = len(edges) - 1
    counts = [np.bincount(age_groups(ages, edges), minlength=ranges) for ages in (first, second)]
    if not (np.minimum(*counts) > 0).any():
        raise RequestError("the two sites share no age range", "use wider ranges, or set age_bins to []")
    shares = [count / count.sum() for count in counts]
    settled = np.zeros(ranges, dtype=bool)
    for number in np.argsort(np.minimum(*counts))[:-1]:
        settled[number] = True
        richer = 0 if counts[0][number] > counts[1][number] else 1
        share, wanted = shares[richer], shares[1 - richer][number]
        surplus, share[number] = share[number] - wanted, wanted
        left = ~settled
        if share[left].sum() > 0:
            share[left] += surplus * share[left] / share[left].sum()
    return shares[0]
