"""Charts of tables."""

from __future__ import annotations

from typing import Any

import slicer

from .errors import NodeError
from .hierarchy import unique_name
from .i18n import _
from .volumes import new_node

__all__ = ["volumes_chart"]


def volumes_chart(table_node: Any, name: str, node: Any = None) -> Any:
    """Return a bar chart of a table of volumes, as made by :func:`.tables.import_volumes_table`.

    A chart made before for the same table is used again. The chart is not shown: that is up to the module.

    Raises
    ------
    NodeError : the table has no text column followed by a column of numbers.

    """
    labels, values = _columns(table_node)
    series = _series_of(table_node) or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", unique_name(name))
    series.SetAndObserveTableNodeID(table_node.GetID())
    series.SetPlotType(series.PlotTypeBar)
    series.SetYColumnName(values)
    series.SetLabelColumnName(labels)
    series.SetColor(0.25, 0.5, 0.75)
    with new_node("vtkMRMLPlotChartNode", name, node or _chart_of(series)) as chart:
        chart.RemoveAllPlotSeriesNodeIDs()
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        chart.SetTitle(name)
        chart.SetTitleVisibility(True)
        chart.SetLegendVisibility(False)
        chart.SetXAxisTitle(labels)
        unit = table_node.GetColumnUnitLabel(values)
        chart.SetYAxisTitle(f"{values} ({unit})" if unit else values)
    return chart


def _columns(table: Any) -> tuple[str, str]:
    """Return the names of the first column and of the first column of numbers."""
    content = table.GetTable()
    for number in range(1, content.GetNumberOfColumns()):
        if content.GetColumn(number).IsA("vtkDataArray"):
            return content.GetColumnName(0), content.GetColumnName(number)
    raise NodeError(_("The table has no column of numbers to draw."))


def _series_of(table: Any) -> Any:
    found = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    return next((item for item in found if item.GetTableNodeID() == table.GetID()), None)


def _chart_of(series: Any) -> Any:
    charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    return next((item for item in charts if item.GetPlotSeriesNodeID() == series.GetID()), None)
