"""The report of a super-resolution: comparison pictures, slice geometry, honesty check."""

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
    from ..volume import Volume
    from .honesty import HonestyCheck
    from .predict import SuperResolutionResult

__all__ = ["comparison_png", "honesty_png", "profile_png", "write_superresolution_report"]

METHOD = (
    "A convolutional network made this image from a T2w scan with thick slices and, where one was given, a T1w scan of "
    "the same person. "
    "What lies between the measured slices was not measured: it is what the network holds likely. Fine structures, and "
    "lesions above all, may be missing or invented."
)
_PLANES = ("sagittal", "coronal", "axial")
_WINDOW = (1.0, 99.5)


def write_superresolution_report(
    path: str | Path, result: SuperResolutionResult, *, record: Mapping[str, Any] | None = None
) -> Path:
    """Write the page; see :func:`mri_deep_tools.report.write_report` for what it may raise."""
    sections: list[Section] = [Text("This image is synthetic", [METHOD], level="doubtful")]
    with tempfile.TemporaryDirectory() as folder:
        picture = comparison_png(result.interpolated, result.image, Path(folder) / "comparison.png")
        alt = (
            "Sagittal, coronal and axial slices: the interpolated scan above, the result in the middle, the difference"
        )
        sections.append(
            Picture("Interpolation and result", picture, alt, "Look for structures that only the result shows.")
        )
        if result.honesty is not None:
            sections += _honesty_sections(result.honesty, Path(folder))
        facts: dict[str, Any] = {} if result.slices is None else {"T2w scan": result.slices.words()}
        if result.overlap is None:
            facts["T1w scan"] = "none was given"
        else:
            facts["Overlap of the heads after alignment"] = f"{result.overlap:.3f}"
            facts["Normalised mutual information"] = f"{result.mutual_information:.3f}"
        sections.append(KeyValues("The two scans", facts))
        return write_report(path, title="Super-resolved T2w scan", sections=sections, record=record)


def _honesty_sections(honesty: HonestyCheck, folder: Path) -> list[Section]:
    level, told = "doubtful" if honesty.doubtful_slices else "", honesty.words()
    told = f"{told[0].upper()}{told[1:]}."
    rows = [
        [str(index + 1), None if value != value else 100 * value / honesty.data_range]
        for index, value in enumerate(honesty.rms_per_slice)
    ]
    return [
        Text("Does the result agree with what was measured?", [told], level=level),  # type: ignore[arg-type]
        Picture(
            "Result, reduced to the measured slices, minus these",
            honesty_png(honesty, folder / "honesty.png"),
            "Map of differences in three planes; red: the result is brighter than measured, blue: darker",
            "Where colour gathers, the result contradicts the measurement.",
        ),
        Picture(
            "Difference per slice",
            profile_png(honesty, folder / "profile.png"),
            "Root mean square difference of each measured slice, as a line over the number of the slice",
            "A peak is a slice in which the result departs from the measurement more than elsewhere; those named above "
            "are marked.",
        ),
        Table(
            "Difference per slice in numbers",
            [Column("Slice"), Column("RMS difference", "% of the range", digits=2)],
            rows,
            folded=True,
        ),
    ]


def comparison_png(before: Volume, after: Volume, path: str | Path) -> Path:
    """Draw two volumes on one grid and their difference in three planes through the middle; write a PNG file.

    Raises
    ------
    DependencyError : matplotlib is missing.

    """
    difference = after.data.astype(np.float32) - before.data
    shown = before.data[before.data > 0]
    low, high = np.percentile(shown, _WINDOW) if shown.size else (0.0, 1.0)
    limit = 0.25 * max(float(high - low), 1e-6)
    rows = [
        ("interpolated", before.data, "gray", float(low), float(high)),
        ("result (synthetic)", after.data, "gray", float(low), float(high)),
        ("result - interpolated", difference, "RdBu_r", -limit, limit),
    ]
    return _draw(rows, after, Path(path))


def honesty_png(honesty: HonestyCheck, path: str | Path) -> Path:
    """Draw the map of the honesty check in three planes; write a PNG file."""
    limit = 0.1 * honesty.data_range
    rows = [("reduced result - measured", honesty.difference.data, "RdBu_r", -limit, limit)]
    return _draw(rows, honesty.difference, Path(path))


def profile_png(honesty: HonestyCheck, path: str | Path) -> Path:
    """Draw the difference of each measured slice in percent of the intensity range; write a PNG file."""
    figure = _figure((10, 2.6), "white")
    axes = figure.add_subplot()
    share = 100 * np.array(honesty.rms_per_slice) / honesty.data_range
    numbers = np.arange(1, len(share) + 1)
    axes.plot(numbers, share, "-o", color="#2a6f97", markersize=3)
    doubtful = list(honesty.doubtful_slices)
    axes.plot(numbers[doubtful], share[doubtful], "o", color="#d13b3b", markersize=7)
    axes.set_xlabel("slice")
    axes.set_ylabel("RMS difference (% of range)")
    axes.set_xlim(0.5, len(share) + 0.5)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return Path(path)


def _figure(size: tuple[float, float], colour: str) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("pictures need matplotlib", REPORT_HINT) from error
    figure = Figure(figsize=size, facecolor=colour)
    FigureCanvasAgg(figure)
    return figure


def _draw(rows: list[tuple[str, np.ndarray, str, float, float]], grid: Volume, path: Path) -> Path:
    figure = _figure((10, 3.4 * len(rows)), "black")
    middle = [n // 2 for n in grid.shape3]
    for row, (title, data, colours, low, high) in enumerate(rows):
        for column in range(3):
            axes = figure.add_subplot(len(rows), 3, 3 * row + column + 1)
            plane = np.take(data, middle[column], axis=column)
            across, up = (grid.spacing[k] for k in range(3) if k != column)
            axes.imshow(plane.T, cmap=colours, vmin=low, vmax=high, origin="lower", aspect=up / across)
            axes.set_axis_off()
            axes.set_title(f"{title}, {_name_of(grid, column)}", color="white", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110, facecolor="black")
    return path


def _name_of(grid: Volume, axis: int) -> str:
    return _PLANES["RLAPSI".index(grid.axcodes[axis]) // 2]
