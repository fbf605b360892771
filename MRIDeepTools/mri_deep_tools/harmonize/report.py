"""The report of a harmonization: before and after, the change as a map, histograms, the stages and their figures."""

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
    from .predict import HarmonizationResult

__all__ = ["TITLE", "comparison_png", "histograms_png", "sections", "write_harmonization_report"]

TITLE = "Harmonized T1w scan"
METHOD = (
    "A network changed the intensities of this brain towards those of one reference scanner. Nothing guarantees that "
    "it leaves anatomy alone: look at the map of the change, above all near lesions, which the training data do not "
    "show."
)
_TRAINING = {
    "iguane": "The network was trained without pairs of scans of one person (IGUANe).",
    "iguane-lite": (
        "The network was trained on simulated sites alone, with a paired term: the same simulated person as another "
        "site shows it was the target."
    ),
}
_UNIT = "intensity (brain median before: 500)"


def write_harmonization_report(
    path: str | Path, result: HarmonizationResult, *, record: Mapping[str, Any] | None = None
) -> Path:
    """Write the page; see :func:`mri_deep_tools.report.write_report` for what it may raise."""
    told = {
        "Stages": result.stages,
        "Change": result.figures.as_record(),
        "TissueVolumes": result.tissues,
        "Models": [{"Name": result.model}],
        **(record or {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        made = sections(told, {"image": result.image, "change": result.change}, Path(folder))
        return write_report(path, title=TITLE, sections=made, record=record)


def sections(record: Mapping[str, Any], images: Mapping[str, Volume], folder: Path) -> list[Section]:
    """Return what the page of a harmonization shows: the same during the run and from the sidecar.

    Parameters
    ----------
    record :
        With ``Stages``, ``Change``, ``TissueVolumes``, ``Registration``.
    images :
        ``image``, and ``change`` or ``scan`` on any grid; without the first there is no picture.
    folder :
        For the pictures.

    """
    name = next((model["Name"] for model in record.get("Models", ())), "")
    words = [METHOD, _TRAINING[name]] if name in _TRAINING else [METHOD]
    made: list[Section] = [Text("These intensities were made by a network", words, level="doubtful")]
    if "image" in images:
        made.append(_picture(record, images, folder))
    histogram = record["Change"]["Histogram"]
    made.append(
        Picture(
            "Histograms",
            histograms_png(histogram, folder / "histograms.png"),
            "Left: histograms of the brain before and after. Right: joint histogram",
            "Where the joint histogram is a narrow band, the change is one of contrast; width means that equal "
            "intensities were changed differently.",
        )
    )
    made.append(KeyValues("How much was changed", _facts(record)))
    if record.get("TissueVolumes"):
        made.append(_tissue_table(record["TissueVolumes"]))
    made.append(KeyValues("Stages", record["Stages"]))
    return made


def _picture(record: Mapping[str, Any], images: Mapping[str, Volume], folder: Path) -> Picture:
    after = images["image"]
    if "change" in images:
        before, words = after.with_data(after.data - images["change"].data), "The normalised scan"
    elif "scan" in images:
        before, words = (
            _scan_there(record, images["scan"], after),
            "The scan, scaled, without correction of its bias field",
        )
    else:
        shown = [Shown("after", after, *window_of(after))]
        caption = "The harmonized scan; the map of the change was not saved (--change), and the scan was not found."
        return Picture("After", planes_png(shown, folder / "after.png"), "Three planes of the result", caption)
    return Picture(
        "Before, after, and the change",
        comparison_png(before, after, folder / "comparison.png"),
        "Axial, coronal and sagittal slices: the scan before on the left, the result in the middle, the change",
        f"{words}, the result, and their difference, on the grid of the result. Grey values of both are shown alike. "
        "Red: brighter than before, blue: darker.",
    )


def _scan_there(record: Mapping[str, Any], scan: Volume, after: Volume) -> Volume:
    """Return the scan on the grid of the result, scaled to a brain median of 500, where the result is not 0."""
    from ..geometry import resample_to, same_grid
    from ..volume import Volume

    found, place = record.get("Registration"), scan
    if found and not same_grid(scan, after):
        place = Volume(scan.data, np.linalg.inv(np.array(found["TemplateToScanRasMm"])) @ scan.affine)
    data = np.asarray(resample_to(place, after.shape3, after.affine, order=1).data, np.float32)
    return after.with_data(np.where(after.data > 0, data * (500 / (record.get("BrainMedianBefore") or 500)), 0))


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    change, found = record["Change"], record.get("Registration")
    facts = {
        "Mean change": f"{change['Mean']:+.1f} (brain median before: 500)",
        "Mean absolute change": f"{change['MeanAbsolute']:.1f}",
        "Largest change": f"{change['Largest']:.1f}",
        "Correlation with the input": f"{change['Correlation']:.4f}",
        "Structural similarity with the input": f"{change['StructuralSimilarity']:.4f}",
    }
    if found:
        facts["Registration: correlation with the template"] = f"{found['Correlation']:.3f}"
        facts["Registration: overlap with the template"] = f"{found['Overlap']:.3f}"
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


def comparison_png(before: Volume, after: Volume, path: str | Path) -> Path:
    """Draw two images on one grid and their difference in three planes; write a PNG file.

    Raises
    ------
    DependencyError : matplotlib is not installed.

    """
    seen = (np.asarray(before.data) != 0) | (np.asarray(after.data) != 0)
    change = after.with_data(np.where(seen, np.asarray(after.data, np.float32) - before.data, np.nan))
    low, high = window_of(before, after)
    inside = np.abs(change.data[before.data > 0])
    limit = max(float(np.percentile(inside, 99)) if inside.size else 0.0, 1e-6)
    images = [
        Shown("before", before, low, high),
        Shown("after (synthetic)", after, low, high),
        Shown("change", change, -limit, limit, "RdBu_r", _UNIT),
    ]
    return planes_png(images, path)


def histograms_png(histogram: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the histograms of a record before and after, and the joint one; write a PNG file (errors as above)."""
    edges = np.linspace(histogram["From"], histogram["To"], histogram["Bins"] + 1)
    both = np.array([[int(count) for count in row.split()] for row in histogram["Joint"]], dtype=np.float64)
    figure = _figure((9.0, 3.6))
    plain = figure.add_subplot(1, 2, 1)
    plain.stairs(histogram["Before"], edges, label="before", color="#4477aa")
    plain.stairs(histogram["After"], edges, label="after", color="#cc6677")
    plain.set_xlabel(_UNIT)
    plain.set_ylabel("voxels")
    plain.set_ylim(bottom=0)
    plain.legend(frameon=False)
    joint = figure.add_subplot(1, 2, 2)
    extent = (float(edges[0]), float(edges[-1])) * 2
    joint.imshow(np.log1p(both.T), origin="lower", extent=extent, cmap="viridis")
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
