"""The tables that an evaluation gives: scores per subject and structure, their summary, and comparisons; as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .labels import LABELS

__all__ = ["DISTANCES", "METRICS", "WHOLE", "Comparison", "Evaluation", "PairScores", "structure_name", "write_rows"]

WHOLE = -1
"""The code under which the last row stands: all labels above 0 together."""

DISTANCES: tuple[str, ...] = tuple(
    f"{name}_{unit}"
    for unit in ("mm", "voxels")
    for name in ("hausdorff", "hausdorff_99", "hausdorff_95", "mean_distance")
)
METRICS: tuple[str, ...] = ("dice", *DISTANCES, "truth_volume_mm3", "segmentation_volume_mm3")
"""Names of the measures; the unit is part of the name, Dice has none."""


def structure_name(code: int) -> str:
    """Return the name of a label, ``label N`` when the table does not have it."""
    if code == WHOLE:
        return "whole structure"
    return LABELS[code].name if code in LABELS else f"label {code}"


@dataclass(frozen=True)
class PairScores:
    """Scores of one segmentation. Every array has one entry per label, in order, and a last one for ``WHOLE``."""

    subject: str
    labels: tuple[int, ...]
    scores: dict[str, NDArray[np.float64]]
    truth: str = ""
    """Name of the true label map: tells the subject where segmentations of several methods have their own names."""

    def __getitem__(self, metric: str) -> NDArray[np.float64]:
        """Return the (len(labels) + 1,) values of a measure; see ``METRICS``."""
        return self.scores[metric]

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes of the rows: the labels and ``WHOLE``."""
        return (*self.labels, WHOLE)

    def mean(self, metric: str = "dice") -> float:
        """Return the mean over structures, without background and whole; unknown values are left out."""
        keep = np.array([code not in (0, WHOLE) for code in self.codes])
        values = self.scores[metric][keep]
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float("nan")

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per structure: subject, label, structure and the measures."""
        return [
            {"subject": self.subject, "label": "all" if code == WHOLE else code, "structure": structure_name(code)}
            | {metric: values[index] for metric, values in self.scores.items()}
            for index, code in enumerate(self.codes)
        ]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of segmentations of the same labels."""

    pairs: tuple[PairScores, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def labels(self) -> tuple[int, ...]:
        """The evaluated labels."""
        return self.pairs[0].labels

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the segmentations, in the order of the columns of :meth:`table`."""
        return tuple(pair.subject for pair in self.pairs)

    def table(self, metric: str = "dice") -> NDArray[np.float64]:
        """Return a measure as (labels + 1, subjects) float64; the last row is the whole structure."""
        return np.stack([pair[metric] for pair in self.pairs], axis=1)

    def mean(self, metric: str = "dice") -> float:
        """Return the mean over subjects of the mean over structures (without background and whole)."""
        values = np.array([pair.mean(metric) for pair in self.pairs])
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float("nan")

    def summary(self) -> list[dict[str, Any]]:
        """Return one dictionary per structure: mean, standard deviation (n - 1) and count of every measure."""
        tables = {metric: self.table(metric) for metric in self.pairs[0].scores}
        rows: list[dict[str, Any]] = []
        for index, code in enumerate(self.pairs[0].codes):
            row: dict[str, Any] = {"label": "all" if code == WHOLE else code, "structure": structure_name(code)}
            for metric, table in tables.items():
                known = table[index][~np.isnan(table[index])]
                row[f"{metric}_mean"] = known.mean() if known.size else np.nan
                row[f"{metric}_sd"] = known.std(ddof=1) if known.size > 1 else np.nan
                row[f"{metric}_count"] = known.size
            rows.append(row)
        return rows

    def write_csv(self, path: Path) -> tuple[Path, Path]:
        """Write the scores of every subject to ``path`` and the summary beside it (``*_summary.csv``)."""
        summary = path.with_name(f"{path.stem}_summary.csv")
        write_rows(path, (row for pair in self.pairs for row in pair.rows()))
        write_rows(summary, self.summary())
        return path, summary


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same subjects: per structure, p-value and effect size of their difference."""

    metric: str
    labels: tuple[int, ...]
    p_values: NDArray[np.float64]
    """(labels + 1,) Wilcoxon signed-rank test; the last entry is the mean over structures other than background."""
    effect_sizes: NDArray[np.float64]
    """(labels + 1,) Cohen's d, first minus second; the last entry likewise."""
    means: NDArray[np.float64]
    """(labels + 1, 2) mean over subjects for the first and the second method."""

    def write_csv(self, path: Path) -> Path:
        """Write one row per structure."""
        names = [*(structure_name(code) for code in self.labels), "mean over structures"]
        write_rows(
            path,
            (
                {
                    "label": "mean" if index == len(self.labels) else self.labels[index],
                    "structure": name,
                    f"{self.metric}_first_mean": self.means[index, 0],
                    f"{self.metric}_second_mean": self.means[index, 1],
                    "wilcoxon_p": self.p_values[index],
                    "cohens_d": self.effect_sizes[index],
                }
                for index, name in enumerate(names)
            ),
        )
        return path


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write dictionaries with the same keys as CSV; unknown values become ``n/a``."""
    from ..volume import atomic_path

    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(stream, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow({key: _cell(value) for key, value in row.items()})


def _cell(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return "n/a" if np.isnan(value) else f"{value:.9g}"
    return value
