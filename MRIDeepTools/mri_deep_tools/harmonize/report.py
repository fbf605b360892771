"""The report of a harmonization: before and after, the change as a map, histograms, the stages and their figures."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DependencyError
from ..overlay import REPORT_HINT
from ..report import Column, KeyValues, Picture, Section, Table, Text, write_report

if TYPE_CHECKING:
    from .predict import HarmonizationResult

__all__ = ["comparison_png", "histograms_png", "write_harmonization_report"]

METHOD = (
    "A network changed the intensities of this brain towards those of one reference scanner (IGUANe). It was trained "
    "without pairs of scans, so nothing guarantees that it leaves anatomy alone: look at the map of the change, above "
    "all near lesions, which the training data do not show."
)


def write_harmonization_report(
    path: str | Path, result: HarmonizationResult, *, record: Mapping[str, Any] | None = None
) -> Path:
    """Write the page; see :func:`mri_deep_tools.report.write_report` for what it may raise."""
    sections: list[Section] = [Text("These intensities were made by a network", [METHOD], level="doubtful")]
    with tempfile.TemporaryDirectory() as folder:
        before, after = result.prepared.data * (500 / _median(result)), result.harmonized.data
        sections.append(
            Picture(
                "Before, after, and the change",
                comparison_png(before, after, Path(folder) / "comparison.png"),
                "Sagittal, coronal and axial slices: the normalised scan above, the result in the middle, the change "
                "below",
                "All in template space; grey values of both scans are shown alike. Red: brighter than before, blue: "
                "darker.",
            )
        )
        sections.append(
            Picture(
                "Histograms",
                histograms_png(result, Path(folder) / "histograms.png"),
                "Left: histograms of the brain before and after. Right: joint histogram",
                "Where the joint histogram is a narrow band, the change is one of contrast; width means that equal "
                "intensities were changed differently.",
            )
        )
        sections.append(KeyValues("How much was changed", _facts(result)))
        if result.tissues:
            sections.append(_tissue_table(result.tissues))
        sections.append(KeyValues("Stages", result.stages))
        return write_report(path, title="Harmonized T1w scan", sections=sections, record=record)


def _median(result: HarmonizationResult) -> float:
    """Return what the brain median of the prepared image is near: 500, or 1 for images normalised to that."""
    return 500.0 if float(np.median(result.prepared.data[result.prepared.data > 0])) > 10 else 1.0


def _facts(result: HarmonizationResult) -> dict[str, str]:
    figures = result.figures
    facts = {
        "Mean change": f"{figures.mean:+.1f} (brain median before: 500)",
        "Mean absolute change": f"{figures.mean_absolute:.1f}",
        "Largest change": f"{figures.largest:.1f}",
        "Correlation with the input": f"{figures.correlation:.4f}",
        "Structural similarity with the input": f"{figures.structural_similarity:.4f}",
    }
    if result.registration is not None:
        facts["Registration: correlation with the template"] = f"{result.registration.correlation:.3f}"
        facts["Registration: overlap with the template"] = f"{result.registration.overlap:.3f}"
    return facts


def _tissue_table(tissues: Mapping[str, Mapping[str, float]]) -> Table:
    before, after = tissues["before_mm3"], tissues["after_mm3"]
    rows = [
        [
            name,
            before[name] / 1000,
            after[name] / 1000,
            100 * (after[name] / before[name] - 1) if before[name] else None,
        ]
        for name in before
    ]
    columns = [
        Column("Tissue"),
        Column("Before", "ml", digits=1),
        Column("After", "ml", digits=1),
        Column("Change", "%", digits=1),
    ]
    return Table("Tissue volumes, by segmentation of both", columns, rows)


def comparison_png(before: np.ndarray, after: np.ndarray, path: str | Path) -> Path:
    """Draw two images (X, Y, Z), X towards the left, and their difference in three planes; write a PNG file.

    Raises
    ------
    DependencyError : matplotlib is not installed.

    """
    figure = _figure((9.0, 9.0))
    difference = after - before
    top = float(np.percentile(np.concatenate([before[before > 0], after[before > 0]]), 99.5))
    limit = max(float(np.percentile(np.abs(difference[before > 0]), 99)), 1e-6)
    middle = [int(np.median(axis)) for axis in np.nonzero(before > 0)]
    rows = ((before, "gray", 0, top), (after, "gray", 0, top), (difference, "RdBu_r", -limit, limit))
    for row, (name, (image, colours, low, high)) in enumerate(zip(("before", "after", "change"), rows, strict=True)):
        # X runs to the left, so as stored the patient's right stands on the left of the picture
        slices = (image[middle[0]], image[:, middle[1]], image[:, :, middle[2]])
        for column, plane in enumerate(slices):
            axes = figure.add_subplot(3, 3, 3 * row + column + 1)
            shown = axes.imshow(plane.T, origin="lower", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            axes.set_axis_off()
            if not column:
                axes.text(0.02, 0.98, name, transform=axes.transAxes, color="#888", fontsize=9, va="top")
            else:
                axes.text(0.02, 0.02, "R", transform=axes.transAxes, color="#888", fontsize=8)
        figure.colorbar(shown, ax=figure.axes[-1], shrink=0.8)
    return _save(figure, path)


def histograms_png(result: HarmonizationResult, path: str | Path) -> Path:
    """Draw the histograms before and after, and the joint one; write a PNG file (DependencyError as above)."""
    figures = result.figures
    figure = _figure((9.0, 3.6))
    plain = figure.add_subplot(1, 2, 1)
    plain.stairs(figures.before, figures.edges, label="before", color="#4477aa")
    plain.stairs(figures.after, figures.edges, label="after", color="#cc6677")
    plain.set_xlabel("intensity")
    plain.set_yticks([])
    plain.legend(frameon=False)
    joint = figure.add_subplot(1, 2, 2)
    extent = (float(figures.edges[0]), float(figures.edges[-1])) * 2
    joint.imshow(np.log1p(figures.joint.T), origin="lower", extent=extent, cmap="viridis")
    joint.plot(extent[:2], extent[:2], color="white", linewidth=0.6)
    joint.set_xlabel("before")
    joint.set_ylabel("after")
    return _save(figure, path)


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("reports need matplotlib", REPORT_HINT) from error
    return Figure(figsize=size, layout="constrained")


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    figure.savefig(path, dpi=110)
    return path
