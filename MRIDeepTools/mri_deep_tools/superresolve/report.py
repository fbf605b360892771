"""The report of a super-resolution: comparison pictures, slice geometry, honesty check."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DependencyError
from ..overlay import REPORT_HINT
from ..planes import Shown, planes_png, window_of
from ..report import Column, KeyValues, Picture, Section, Table, Text, write_report

if TYPE_CHECKING:
    from ..volume import Volume
    from .predict import SuperResolutionResult

__all__ = ["TITLE", "comparison_png", "honesty_png", "profile_png", "sections", "write_superresolution_report"]

TITLE = "Super-resolved T2w scan"
METHOD = (
    "A convolutional network made this image from a T2w scan with thick slices and, where one was given, a T1w scan of "
    "the same person. "
    "What lies between the measured slices was not measured: it is what the network holds likely. Fine structures, and "
    "lesions above all, may be missing or invented."
)


def write_superresolution_report(path: str | Path, result: SuperResolutionResult, *, record: Mapping[str, Any]) -> Path:
    """Write the page from the record of the run; see :func:`mri_deep_tools.report.write_report` for its errors."""
    images = {"image": result.image, "interpolated": result.interpolated}
    if result.honesty is not None:
        images["honesty"] = result.honesty.difference
    with tempfile.TemporaryDirectory() as folder:
        made = sections(record, images, Path(folder))
        return write_report(path, title=TITLE, sections=made, record=record)


def sections(record: Mapping[str, Any], images: Mapping[str, Volume], folder: Path) -> list[Section]:
    """Return what the page of a super-resolution shows: the same during the run and from the sidecar.

    Parameters
    ----------
    record :
        With ``Slices``, ``Honesty`` and ``Alignment``.
    images :
        ``image``, ``interpolated`` (or ``t2``, which is interpolated here), ``honesty``, as far as they are there.
    folder :
        For the pictures.

    """
    made: list[Section] = [Text("This image is synthetic", [METHOD], level="doubtful")]
    before = _interpolated(record, images)
    if "image" in images and before is not None:
        picture = comparison_png(before, images["image"], folder / "comparison.png")
        alt = "Axial, coronal and sagittal slices: the interpolated scan on the left, the result, the difference"
        caption = "Look for structures that only the result shows. Red: brighter than by interpolation, blue: darker."
        made.append(Picture("Interpolation and result", picture, alt, caption))
    elif "image" in images:
        shown = [Shown("result (synthetic)", images["image"], *window_of(images["image"]))]
        made.append(Picture("Result", planes_png(shown, folder / "image.png"), "Three planes of the result"))
    if record.get("Honesty"):
        made += _honesty_sections(record["Honesty"], images.get("honesty"), folder)
    slices, found = record.get("Slices"), record.get("Alignment")
    facts: dict[str, Any] = {} if not slices else {"T2w scan": slices["Words"]}
    if not found:
        facts["T1w scan"] = "none was given"
    else:
        facts["Overlap of the heads after alignment"] = f"{found['HeadOverlap']:.3f}"
        facts["Normalised mutual information"] = f"{found['MutualInformation']:.3f}"
    made.append(KeyValues("The two scans", facts))
    return made


def _interpolated(record: Mapping[str, Any], images: Mapping[str, Volume]) -> Volume | None:
    """Return the T2w scan on the grid of the result: as it was saved, or resampled here."""
    from ..geometry import resample_to

    if "interpolated" in images or "image" not in images or "t2" not in images:
        return images.get("interpolated")
    if record.get("Options", {}).get("space") == "template" or record.get("Options", {}).get("compatible"):
        return None  # the result lies elsewhere, or has other intensities
    image = images["image"]
    return resample_to(images["t2"], image.shape3, image.affine, order=3)


def _honesty_sections(honesty: Mapping[str, Any], difference: Volume | None, folder: Path) -> list[Section]:
    level, told, span = "doubtful" if honesty["DoubtfulSlices"] else "", honesty["Words"], honesty["DataRange"]
    told = f"{told[0].upper()}{told[1:]}."
    rows = [
        [str(index + 1), None if value is None else 100 * value / span]
        for index, value in enumerate(honesty["RmsPerSlice"])
    ]
    made: list[Section] = [
        Text("Does the result agree with what was measured?", [told], level=level),  # type: ignore[arg-type]
    ]
    if difference is not None:
        made.append(
            Picture(
                "Result, reduced to the measured slices, minus these",
                honesty_png(difference, span, folder / "honesty.png"),
                "Map of differences in three planes; red: the result is brighter than measured, blue: darker",
                "Where colour gathers, the result contradicts the measurement.",
            )
        )
    return [
        *made,
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
    """Draw two volumes on one grid and their difference in three planes; write a PNG file.

    Raises
    ------
    DependencyError : matplotlib is missing.

    """
    difference = after.with_data(after.data.astype(np.float32) - before.data)
    low, high = window_of(before)
    limit = 0.25 * max(high - low, 1e-6)
    images = [
        Shown("interpolated", before, low, high),
        Shown("result (synthetic)", after, low, high),
        Shown("difference", difference, -limit, limit, "RdBu_r", "intensity of the scan"),
    ]
    return planes_png(images, path)


def honesty_png(difference: Volume, data_range: float, path: str | Path) -> Path:
    """Draw the map of the honesty check in three planes; write a PNG file."""
    limit = 0.1 * data_range
    shown = Shown("reduced result minus measured", difference, -limit, limit, "RdBu_r", "intensity of the scan")
    return planes_png([shown], path)


def profile_png(honesty: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the difference of each measured slice in percent of the intensity range; write a PNG file."""
    figure = _figure((10, 2.6), "white")
    axes = figure.add_subplot()
    share = 100 * np.array(honesty["RmsPerSlice"], dtype=np.float64) / honesty["DataRange"]
    numbers = np.arange(1, len(share) + 1)
    axes.plot(numbers, share, "-o", color="#2a6f97", markersize=3)
    doubtful = list(honesty["DoubtfulSlices"])
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
