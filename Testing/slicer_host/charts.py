"""Pictures of charts: the plot series of a chart node drawn by VTK, as Slicer's plot view does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_TITLE_SIZE, _LABEL_SIZE = 15, 12


def chart_view(path: Path, chart_node: Any, size: tuple[int, int] = (640, 420)) -> Path:
    """Write a PNG of a chart.

    Args:
        path: the file; its folder is made.
        chart_node: vtkMRMLPlotChartNode whose series are scatter plots (points or lines) or line plots.
        size: width and height in pixels.
    """
    import vtk

    from .render import _save, require_rendering

    require_rendering()
    view = vtk.vtkContextView()
    window = view.GetRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(4)
    window.SetSize(*size)
    view.GetRenderer().SetBackground(1.0, 1.0, 1.0)
    chart = vtk.vtkChartXY()
    view.GetScene().AddItem(chart)
    chart.SetTitle(chart_node.GetTitle())
    chart.GetTitleProperties().SetFontSize(_TITLE_SIZE)
    chart.SetShowLegend(bool(chart_node.GetLegendVisibility()))
    for axis, title in (
        (vtk.vtkAxis.BOTTOM, chart_node.GetXAxisTitle()),
        (vtk.vtkAxis.LEFT, chart_node.GetYAxisTitle()),
    ):
        chart.GetAxis(axis).SetTitle(title)
        chart.GetAxis(axis).GetTitleProperties().SetFontSize(_LABEL_SIZE)
    if not chart_node.GetYAxisRangeAuto():
        chart.GetAxis(vtk.vtkAxis.LEFT).SetBehavior(vtk.vtkAxis.FIXED)
        chart.GetAxis(vtk.vtkAxis.LEFT).SetRange(*chart_node.GetYAxisRange())
    for number in range(chart_node.GetNumberOfPlotSeriesNodes()):
        _add_series(vtk, chart, chart_node.GetNthPlotSeriesNode(number))
    try:
        _save(window, path)
    finally:
        window.Finalize()
    return path


def _add_series(vtk: Any, chart: Any, series: Any) -> None:
    """Draw one series in its colour, with its markers and its line."""
    points = series.GetLineStyle() == series.LineStyleNone
    plot = chart.AddPlot(vtk.vtkChart.POINTS if points else vtk.vtkChart.LINE)
    plot.SetInputData(series.GetTableNode().GetTable())
    plot.SetInputArray(1, series.GetYColumnName())
    if series.GetPlotType() == series.PlotTypeScatter:
        plot.SetInputArray(0, series.GetXColumnName())
    else:
        plot.SetUseIndexForXSeries(True)  # the other kinds count the rows
    plot.SetLabel(series.GetName())
    colour = [round(255 * value) for value in (*series.GetColor(), series.GetOpacity())]
    plot.SetColor(*colour)
    plot.SetWidth(series.GetLineWidth())
    if points:
        plot.SetMarkerStyle(vtk.vtkPlotPoints.CIRCLE)
        plot.SetMarkerSize(series.GetMarkerSize())
