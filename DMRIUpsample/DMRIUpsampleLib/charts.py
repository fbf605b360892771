"""The chart of the errors: one line per method over the directions that were left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from MRIDeepToolsLib.hierarchy import unique_name
from slicer.i18n import tr as _

__all__ = ["errors_chart"]

_COLOURS = ((0.90, 0.45, 0.05), (0.25, 0.50, 0.75), (0.16, 0.62, 0.29), (0.55, 0.55, 0.55))


def errors_chart(table: Any, name: str, keep: Callable[[Any], Any]) -> Any:
    """Return a chart of a table of errors: text in the first column, numbers in percent in the others.

    Series that a chart of this table had before are replaced. ``keep`` is told each new node.
    """
    old = [one for one in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode") if one.GetTableNodeID() == table.GetID()]
    identities = {series.GetID() for series in old}
    charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    chart = next((one for one in charts if identities & set(_series_of(one))), None)
    if chart is None:
        chart = keep(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", unique_name(f"{name} - {_('chart')}")))
    chart.RemoveAllPlotSeriesNodeIDs()
    for series in old:
        slicer.mrmlScene.RemoveNode(series)
    content = table.GetTable()
    for number in range(1, content.GetNumberOfColumns()):
        title = content.GetColumnName(number)
        series = keep(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", title))
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetPlotType(series.PlotTypeLine)
        series.SetYColumnName(title)
        series.SetLabelColumnName(content.GetColumnName(0))
        series.SetMarkerStyle(series.MarkerStyleCircle)
        series.SetColor(*_COLOURS[(number - 1) % len(_COLOURS)])
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(_("Error of directions that were left out"))
    chart.SetTitleVisibility(True)
    chart.SetLegendVisibility(True)
    chart.SetXAxisTitle(content.GetColumnName(0))
    chart.SetYAxisTitle(_("mean absolute error (% of the signal)"))
    return chart


def _series_of(chart: Any) -> list[str]:
    return [chart.GetNthPlotSeriesNodeID(number) for number in range(chart.GetNumberOfPlotSeriesNodes())]
