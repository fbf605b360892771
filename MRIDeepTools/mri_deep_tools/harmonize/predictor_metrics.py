"""How good predictions are: errors of a number, discrimination of two classes, each with a bootstrap interval.

Persons, not scans, are drawn for the intervals, since several scans of one person are no independent evidence. The
measures are those that studies of brain age and of diagnosis report: MAE and R2, area under the ROC curve and balanced
accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

__all__ = ["Measure", "classification_measures", "regression_measures"]

Figures = dict[str, float]
BOOTSTRAPS = 2000
CONFIDENCE = 0.95
THRESHOLD = 0.5


@dataclass(frozen=True)
class Measure:
    """A measure with its confidence interval; NaN where it is not defined."""

    name: str
    value: float
    low: float
    high: float


def regression_measures(
    truth: Sequence[float], found: Sequence[float], persons: Sequence[str] | None = None, *, seed: int = 1
) -> list[Measure]:
    """Return MAE, RMSE, mean error (found minus true), R2 and Pearson's r.

    Parameters
    ----------
    truth, found : true and predicted numbers, in the same order.
    persons : who each scan shows; None: every scan is a person of its own.
    seed : of the bootstrap.

    Raises
    ------
    InputError : fewer than two scans.

    """
    true, made = np.asarray(truth, np.float64), np.asarray(found, np.float64)
    return _with_intervals(lambda rows: _errors(true[rows], made[rows]), len(true), persons, seed)


def classification_measures(
    truth: Sequence[bool], found: Sequence[float], persons: Sequence[str] | None = None, *, seed: int = 1
) -> list[Measure]:
    """Return AUC, balanced accuracy, sensitivity, specificity, accuracy and the Brier score.

    Parameters
    ----------
    truth : whether each scan is of the positive class.
    found : probability of the positive class; from 0.5 on it is predicted.
    persons, seed : as in :func:`regression_measures`.

    Raises
    ------
    InputError : fewer than two scans, or only one class.

    """
    true, made = np.asarray(truth, bool), np.asarray(found, np.float64)
    if len(true) >= 2 and true.all() | (~true).all():
        raise InputError("all scans are of one class", "give scans of both")
    return _with_intervals(lambda rows: _discrimination(true[rows], made[rows]), len(true), persons, seed)


def auc(truth: np.ndarray, found: np.ndarray) -> float:
    """Return the probability that a positive scan has the higher value than a negative one; ties count half."""
    from scipy.stats import rankdata

    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return np.nan
    ranks = rankdata(found)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _errors(true: np.ndarray, made: np.ndarray) -> Figures:
    error = made - true
    spread = float(((true - true.mean()) ** 2).sum())
    both = float(np.sqrt(spread * ((made - made.mean()) ** 2).sum()))
    covariance = float(((true - true.mean()) * (made - made.mean())).sum())
    return {
        "MAE": float(np.abs(error).mean()),
        "RMSE": float(np.sqrt((error**2).mean())),
        "mean error": float(error.mean()),
        "R2": 1 - float((error**2).sum()) / spread if spread else np.nan,
        "Pearson r": covariance / both if both else np.nan,
    }


def _discrimination(true: np.ndarray, made: np.ndarray) -> Figures:
    chosen = made >= THRESHOLD
    sensitivity = float(chosen[true].mean()) if true.any() else np.nan
    specificity = float((~chosen[~true]).mean()) if (~true).any() else np.nan
    return {
        "AUC": auc(true, made),
        "balanced accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "accuracy": float((chosen == true).mean()),
        "Brier score": float(((made - true) ** 2).mean()),
    }


def _with_intervals(
    figures: Callable[[np.ndarray], Figures], count: int, persons: Sequence[str] | None, seed: int
) -> list[Measure]:
    """Return figures of all rows, with the percentiles of figures of persons drawn with replacement."""
    if count < 2:
        raise InputError(f"{count} scans have both a prediction and a truth", "give two or more")
    whole = figures(np.arange(count))
    names = list(persons) if persons is not None else [str(index) for index in range(count)]
    groups = [np.flatnonzero(np.asarray(names) == name) for name in dict.fromkeys(names)]
    rng = np.random.default_rng(seed)
    draws = [
        figures(np.concatenate([groups[index] for index in rng.integers(len(groups), size=len(groups))]))
        for _ in range(BOOTSTRAPS)
    ]
    tail = 100 * (1 - CONFIDENCE) / 2
    measures = []
    for name, value in whole.items():
        values = np.array([draw[name] for draw in draws])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, [tail, 100 - tail]) if values.size and len(groups) > 1 else (np.nan, np.nan)
        measures.append(Measure(name, value, float(low), float(high)))
    return measures
