"""The part of the panel that shows what a run made: views to compare, the check in words, differences per slice."""

from __future__ import annotations

from typing import Any

import slicer
from MRIDeepToolsLib.widgets import coloured, sentence, show_lines

from .comparison import overlay_map, show_comparison

__all__ = ["ResultsPanel"]


class ResultsPanel:
    """Shows the nodes of the last run; it follows what the scene remembers, so it comes back with the scene.

    Parameters
    ----------
    ui : child widgets of the module's panel.

    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._volumes: tuple[Any, Any, Any] = (None, None, None)
        self._map: Any = None
        self._chart: Any = None
        self._warnings: list[str] = []
        self._shown: tuple[Any, ...] | None = None
        ui.compareButton.connect("clicked(bool)", self.compare)
        ui.mapButton.connect("toggled(bool)", self._map_toggled)
        ui.showChartButton.connect("clicked(bool)", self.show_chart)
        ui.resultsCollapsibleButton.connect("contentsCollapsed(bool)", self._show_warnings)

    def show(self, parameters: Any) -> None:
        """Show what the parameters remember of the last run. Without any result the section closes."""
        volumes = (parameters.madeInput, parameters.madeInterpolated, parameters.madeResult)
        check, warnings = parameters.madeCheck, list(parameters.madeWarnings)
        shown = (volumes, parameters.madeHonestyMap, parameters.madeTable, parameters.madeChart, check, warnings)
        if shown == self._shown:
            return
        self._shown, self._volumes, self._warnings = shown, volumes, warnings
        self._map, self._chart = parameters.madeHonestyMap, parameters.madeChart
        ui, some = self._ui, volumes[2] is not None
        ui.checkLabel.text = coloured(sentence(check))
        ui.checkLabel.visible = bool(check)
        ui.compareButton.enabled = some
        ui.mapButton.checked = False
        ui.mapButton.enabled = some and self._map is not None
        ui.showChartButton.enabled = self._chart is not None
        ui.slicesTableView.setMRMLTableNode(parameters.madeTable)
        ui.resultsCollapsibleButton.enabled = some
        ui.resultsCollapsibleButton.collapsed = not some
        self._show_warnings()

    def compare(self) -> None:
        """Show scan, interpolation and result side by side."""
        show_comparison(*self._volumes, _direction(self._volumes[0]))
        overlay_map(self._map, self._ui.mapButton.checked)

    def show_chart(self) -> None:
        """Show the chart of differences in a layout that has room for one."""
        if self._chart is not None:
            slicer.modules.plots.logic().ShowChartInLayout(self._chart)

    def _map_toggled(self, on: bool) -> None:
        if on:
            self.compare()
        else:
            overlay_map(self._map, False)

    def _show_warnings(self) -> None:
        show_lines(self._ui.warningsLabel, self._warnings)


def _direction(scan: Any) -> str:
    """Return across which direction a volume's slices lie, by its largest spacing."""
    if scan is None:
        return "axial"
    spacing = scan.GetSpacing()
    directions = [[0.0] * 3 for _row in range(3)]
    scan.GetIJKToRASDirections(directions)
    axis = max(range(3), key=lambda index: spacing[index])
    normal = [abs(row[axis]) for row in directions]
    return ("sagittal", "coronal", "axial")[normal.index(max(normal))]
