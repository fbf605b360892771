"""What a harmonization changed: figures and histograms of the brain before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Change", "describe_change", "structural_similarity"]

BINS, JOINT_BINS = 100, 50  # of what is drawn; of the joint histogram in the record
_WINDOW_SIGMA = 1.5  # voxels; Wang et al., IEEE Transactions on Image Processing 13(4) (2004)
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True)
class Change:
    """Figures over the brain, in units of a brain median of 500 before.

    Attributes
    ----------
    mean, mean_absolute, rms, largest : of (after - before).
    correlation : Pearson's, of before and after.
    structural_similarity : mean over the brain, Gaussian window of 1.5 voxels.
    edges : (101,) borders of the bins of all histograms.
    before, after : (100,) counts.
    joint : (100, 100) counts, before by after.

    """

    mean: float
    mean_absolute: float
    rms: float
    largest: float
    correlation: float
    structural_similarity: float
    edges: np.ndarray
    before: np.ndarray
    after: np.ndarray
    joint: np.ndarray

    def as_record(self) -> dict[str, Any]:
        """Return the figures and the histograms as JSON types; the joint one as rows of numbers, before by after."""
        figures = {
            "Mean": self.mean,
            "MeanAbsolute": self.mean_absolute,
            "RootMeanSquare": self.rms,
            "Largest": self.largest,
            "Correlation": self.correlation,
            "StructuralSimilarity": self.structural_similarity,
        }
        edges = {"From": float(self.edges[0]), "To": float(self.edges[-1]), "Bins": len(self.before)}
        counts = {"Before": self.before.tolist(), "After": self.after.tolist()}
        pairs = self.joint.reshape(JOINT_BINS, BINS // JOINT_BINS, JOINT_BINS, BINS // JOINT_BINS).sum((1, 3))
        joint = {"JointBins": JOINT_BINS, "Joint": [" ".join(map(str, row)) for row in pairs.tolist()]}
        return {name: round(value, 6) for name, value in figures.items()} | {"Histogram": edges | counts | joint}

    def words(self) -> str:
        """Return the figures as a sentence."""
        return (
            f"mean absolute change {self.mean_absolute:.1f} of 500, correlation {self.correlation:.3f}, "
            f"structural similarity {self.structural_similarity:.3f}"
        )


def describe_change(before: np.ndarray, after: np.ndarray) -> Change:
    """Compare two images (X, Y, Z) on one grid where ``before`` > 0."""
    brain = before > 0
    a, b = before[brain].astype(np.float64), after[brain].astype(np.float64)
    difference = b - a
    top = float(max(np.percentile(a, 99.9), np.percentile(b, 99.9)))
    edges = np.linspace(0, top, BINS + 1)
    first, second = np.clip(a, 0, top), np.clip(b, 0, top)
    joint, _, _ = np.histogram2d(first, second, bins=(edges, edges))
    varied = a.std() > 0 and b.std() > 0
    return Change(
        mean=float(difference.mean()),
        mean_absolute=float(np.abs(difference).mean()),
        rms=float(np.sqrt((difference**2).mean())),
        largest=float(np.abs(difference).max()),
        correlation=float(np.corrcoef(a, b)[0, 1]) if varied else 0.0,
        structural_similarity=structural_similarity(before, after, brain, top),
        edges=edges,
        before=np.histogram(first, edges)[0],
        after=np.histogram(second, edges)[0],
        joint=joint.astype(np.int64),
    )


def structural_similarity(first: np.ndarray, second: np.ndarray, where: np.ndarray, data_range: float) -> float:
    """Return the mean structural similarity over the voxels ``where`` (X, Y, Z), Gaussian window, in float32."""
    from scipy.ndimage import gaussian_filter

    def smooth(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, _WINDOW_SIGMA, truncate=3.5)

    a, b = first.astype(np.float32) / data_range, second.astype(np.float32) / data_range
    mean_a, mean_b = smooth(a), smooth(b)
    variance = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = _K1**2, _K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast = (2 * covariance + c2) / (variance + c2)
    return float((luminance * contrast)[where].mean())
