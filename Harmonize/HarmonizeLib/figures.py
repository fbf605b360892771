"""What was changed, as tables and charts: figures, tissue volumes, histograms before and after, joint histogram."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from MRIDeepToolsLib import nodes
from slicer.i18n import tr as _

__all__ = ["figures_table", "histogram_chart", "joint_chart", "prediction_table", "tissues_table"]

POINTS = 3000
"""Voxels drawn in the joint histogram."""
CURVE_BINS, LEAST_IN_BIN = 60, 30
_BEFORE, _AFTER = (0.45, 0.50, 0.58), (0.16, 0.61, 0.29)
_JOINT = (0.25, 0.50, 0.75)

Keep = Callable[[Any], Any]
"""Takes a new node, which is to be removed again when a later step fails, and returns it."""


def figures_table(record: Mapping[str, Any], folder: Path, name: str, keep: Keep) -> Any:
    """Return a table of the figures of the change and of the registration, each with its unit.

    Parameters
    ----------
    record : the core's record of the run.
    folder : for a file on the way.
    name : of the node.
    keep : see :data:`Keep`.

    """
    change, fit = record.get("Change") or {}, record.get("Registration") or {}
    unit = _("of 500")
    known = [
        (_("Correlation, before and after"), change.get("Correlation"), "", 4),
        (_("Structural similarity"), change.get("StructuralSimilarity"), "", 4),
        (_("Mean absolute change"), change.get("MeanAbsolute"), unit, 1),
        (_("Mean change"), change.get("Mean"), unit, 1),
        (_("Root mean square of the change"), change.get("RootMeanSquare"), unit, 1),
        (_("Largest change"), change.get("Largest"), unit, 0),
        (_("Brain median of the scan"), record.get("BrainMedianBefore"), "", 1),
        (_("Correlation with the template"), fit.get("Correlation"), "", 3),
        (_("Overlap with the template"), fit.get("Overlap"), "", 3),
        (_("Turned against the template"), fit.get("RotationDegrees"), _("degrees"), 1),
        (_("Shifted against the template"), fit.get("TranslationMm"), "mm", 1),
    ]
    rows = [(title, f"{float(value):.{digits}f}", unit) for title, value, unit, digits in known if value is not None]
    return _table(folder / "figures.csv", (_("Figure"), _("Value"), _("Unit")), rows, name, keep)


def prediction_table(rows: Sequence[Sequence[str]], folder: Path, name: str, keep: Keep) -> Any:
    """Return a table of a prediction; ``rows`` are figure, value and unit."""
    return _table(folder / "prediction-table.csv", (_("Figure"), _("Value"), _("Unit")), rows, name, keep)


def tissues_table(record: Mapping[str, Any], folder: Path, name: str, keep: Keep) -> Any:
    """Return a table of tissue volumes before and after; None where they were not compared."""
    tissues = record.get("TissueVolumes") or {}
    before, after = tissues.get("before_mm3") or {}, tissues.get("after_mm3") or {}
    rows = []
    for tissue in (item for item in before if item in after):
        first, second = float(before[tissue]), float(after[tissue])
        share = f"{100 * (second - first) / first:.2f}" if first > 0 else ""
        rows.append((nodes.display_name(tissue), f"{first:.0f}", f"{second:.0f}", share))
    titles = (_("Tissue"), f"{_('Before')} (mm^3)", f"{_('After')} (mm^3)", f"{_('Difference')} (%)")
    return _table(folder / "tissues.csv", titles, rows, name, keep) if rows else None


def histogram_chart(record: Mapping[str, Any], folder: Path, name: str, keep: Keep) -> tuple[Any, Any]:
    """Return table and chart of the brain's intensities before and after; (None, None) without a histogram."""
    found = (record.get("Change") or {}).get("Histogram") or {}
    before, after = found.get("Before") or [], found.get("After") or []
    if not before or len(before) != len(after) or not sum(before) or not sum(after):
        return None, None
    step = (float(found["To"]) - float(found["From"])) / len(before)
    centres = [float(found["From"]) + (number + 0.5) * step for number in range(len(before))]
    rows = [
        (f"{centre:.2f}", f"{100 * first / sum(before):.4f}", f"{100 * second / sum(after):.4f}")
        for centre, first, second in zip(centres, before, after)  # noqa: B905 - Python 3.9
    ]
    titles = (_("Intensity"), f"{_('Before')} (%)", f"{_('After')} (%)")
    table = _table(folder / "histogram.csv", titles, rows, name, keep)
    series = [
        _series(table, 0, 1, _("Before"), _BEFORE, keep),
        _series(table, 0, 2, _("After (synthetic)"), _AFTER, keep),
    ]
    axes = (_("Intensity (brain median before = 500)"), _("% of the brain"))
    chart = _chart(series, name, _("Intensities of the brain"), axes, keep)
    chart.SetYAxisRangeAuto(False)  # leaves room for the legend
    chart.SetYAxisRange(0.0, 130.0 * max(max(before) / sum(before), max(after) / sum(after)))
    return table, chart


def joint_chart(before: Any, after: Any, folder: Path, name: str, keep: Keep) -> tuple[list[Any], Any]:
    """Return tables and chart of the joint histogram: voxels as points, and what is typical after for each before.

    Parameters
    ----------
    before, after : intensities of the same voxels (numpy arrays of one axis, brain median before = 500).
    folder, name, keep : as for :func:`figures_table`.

    Returns
    -------
    ([], None) where there are too few voxels.

    """
    import numpy as np

    if len(before) < LEAST_IN_BIN:
        return [], None
    chosen = np.random.default_rng(0).permutation(len(before))[:POINTS]
    points = [(f"{a:.1f}", f"{b:.1f}") for a, b in zip(before[chosen], after[chosen])]  # noqa: B905 - Python 3.9
    titles = (_("Before"), _("After"))
    cloud = _table(folder / "joint.csv", titles, points, name, keep)
    edges = np.linspace(*np.percentile(before, (0.5, 99.5)), CURVE_BINS + 1)
    places = np.digitize(before, edges) - 1
    rows = []
    for number in range(CURVE_BINS):
        inside = after[places == number]
        if len(inside) >= LEAST_IN_BIN:
            centre = (edges[number] + edges[number + 1]) / 2
            rows.append((f"{centre:.1f}", f"{np.median(inside):.1f}", f"{centre:.1f}"))
    tables, series = [cloud], [_series(cloud, 0, 1, _("Voxels"), _JOINT, keep, points=True)]
    if len(rows) > 1:
        titles = (_("Before"), _("Typical after"), _("Unchanged"))
        tables.append(_table(folder / "curve.csv", titles, rows, f"{name} - {_('curve')}", keep))
        series.append(_series(tables[1], 0, 2, _("Unchanged"), _BEFORE, keep))
        series.append(_series(tables[1], 0, 1, _("Typical after"), _AFTER, keep))
    axes = (_("Before (brain median = 500)"), _("After (synthetic)"))
    return tables, _chart(series, name, _("Intensity of the same voxels, before and after"), axes, keep)


def _table(path: Path, titles: Sequence[str], rows: Sequence[Sequence[str]], name: str, keep: Keep) -> Any:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([titles, *rows])
    return keep(nodes.import_table(path, name))


def _series(
    table: Any, x: int, y: int, name: str, colour: tuple[float, float, float], keep: Keep, *, points: bool = False
) -> Any:
    series = keep(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name))
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetPlotType(series.PlotTypeScatter)
    series.SetXColumnName(table.GetColumnName(x))
    series.SetYColumnName(table.GetColumnName(y))
    series.SetMarkerStyle(series.MarkerStyleCircle if points else series.MarkerStyleNone)
    series.SetLineStyle(series.LineStyleNone if points else series.LineStyleSolid)
    series.SetMarkerSize(3)
    series.SetLineWidth(2)
    series.SetColor(*colour)
    series.SetOpacity(0.35 if points else 1.0)
    return series


def _chart(series: Sequence[Any], name: str, title: str, axes: tuple[str, str], keep: Keep) -> Any:
    chart = keep(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", name))
    for item in series:
        chart.AddAndObservePlotSeriesNodeID(item.GetID())
    chart.SetTitle(title)
    chart.SetTitleVisibility(True)
    chart.SetLegendVisibility(True)
    chart.SetXAxisTitle(axes[0])
    chart.SetYAxisTitle(axes[1])
    return chart
