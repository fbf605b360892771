"""The part of the panel that shows what a run made: volumes with their directions, maps, errors in words."""

from __future__ import annotations

from typing import Any

import slicer
from MRIDeepToolsLib.diffusion import gradients_of
from MRIDeepToolsLib.diffusion_files import B0_LIMIT
from MRIDeepToolsLib.widgets import coloured, show_lines
from slicer.i18n import tr as _

from .run import PREDICTED

__all__ = ["ResultsPanel", "volume_words"]

ERRORS_TAB = 1
_KINDS = {"good": "good", "doubtful": "warning"}


class ResultsPanel:
    """Shows the nodes of the last run; it follows what the scene remembers, so it comes back with the scene.

    Parameters
    ----------
    ui : child widgets of the module's panel.

    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._volume: Any = None
        self._maps: dict[str, Any] = {}
        self._chart: Any = None
        self._warnings: list[str] = []
        self._shown: Any = None
        ui.volumeSlider.connect("valueChanged(double)", self._choose_volume)
        ui.showScanButton.connect("clicked(bool)", lambda: show_in_slices(self._volume))
        ui.showFAButton.connect("clicked(bool)", lambda: show_in_slices(self._maps.get("fa")))
        ui.showMDButton.connect("clicked(bool)", lambda: show_in_slices(self._maps.get("md")))
        ui.showChartButton.connect("clicked(bool)", self.show_chart)
        ui.resultsCollapsibleButton.connect("contentsCollapsed(bool)", self._show_warnings)

    def show(self, parameters: Any) -> None:
        """Show what the last run made; without any result the section closes."""
        nodes = (parameters.madeResult, parameters.madeFA, parameters.madeMD, parameters.madeErrors)
        words = (parameters.madeVerdict, parameters.madeLevel, tuple(parameters.madeWarnings))
        filled = nodes[3].GetTable().GetMTime() if nodes[3] is not None and nodes[3].GetTable() is not None else 0
        if (nodes, filled, parameters.madeChart, words) == self._shown:
            return
        self._shown = (nodes, filled, parameters.madeChart, words)
        self._volume, self._chart = parameters.madeResult, parameters.madeChart
        self._maps = {"fa": parameters.madeFA, "md": parameters.madeMD}
        ui, errors = self._ui, parameters.madeErrors
        ui.errorsTableView.setMRMLTableNode(errors)
        if errors is not None:
            ui.errorsTableView.resizeColumnsToContents()
        verdict = parameters.madeVerdict
        ui.verdictLabel.text = coloured(verdict, _KINDS.get(parameters.madeLevel, "")) if verdict else ""
        ui.verdictLabel.visible = bool(verdict)
        ui.resultsTabs.setTabEnabled(ERRORS_TAB, errors is not None or bool(verdict))
        ui.showChartButton.enabled = self._chart is not None
        ui.showScanButton.enabled = ui.saveButton.enabled = self._volume is not None
        ui.showFAButton.enabled = self._maps["fa"] is not None
        ui.showMDButton.enabled = self._maps["md"] is not None
        self._fill_slider()
        self._warnings = list(parameters.madeWarnings)
        some = any(node is not None for node in nodes)
        ui.resultsCollapsibleButton.enabled = some
        ui.resultsCollapsibleButton.collapsed = not some
        self._show_warnings()

    def show_chart(self) -> None:
        """Show the chart of the errors in a layout that has room for one."""
        if self._chart is not None:
            slicer.modules.plots.logic().ShowChartInLayout(self._chart)

    def _show_warnings(self) -> None:
        show_lines(self._ui.warningsLabel, self._warnings)

    def _fill_slider(self) -> None:
        slider, count = self._ui.volumeSlider, 0 if self._volume is None else self._volume.GetNumberOfGradients()
        slider.enabled = count > 0
        slider.maximum = max(count - 1, 0)
        display = None if self._volume is None else self._volume.GetDisplayNode()
        slider.value = 0 if display is None else display.GetDiffusionComponent()
        self._tell_volume()

    def _choose_volume(self) -> None:
        display = None if self._volume is None else self._volume.GetDisplayNode()
        if display is not None:
            display.SetDiffusionComponent(int(self._ui.volumeSlider.value))
        self._tell_volume()

    def _tell_volume(self) -> None:
        number = int(self._ui.volumeSlider.value)
        known = self._volume is not None and number < self._volume.GetNumberOfGradients()
        self._ui.volumeWordsLabel.text = volume_words(self._volume, number) if known else ""


def volume_words(node: Any, number: int) -> str:
    """Return what a volume of a result is: measured or predicted, its b-value, its direction."""
    bvals, world = gradients_of(node)
    if bvals[number] <= B0_LIMIT:
        return _("Measured, b = 0.")
    predicted = str(number) in (node.GetAttribute(PREDICTED) or "").split()
    text = _("Predicted, synthetic: {direction}.") if predicted else _("Measured: {direction}.")
    right, front, up = (f"{value:+.2f}" for value in world[number])
    direction = _("b = {b:.0f}, direction {right} right, {front} front, {up} up")
    return text.format(direction=direction.format(b=bvals[number], right=right, front=front, up=up))


def show_in_slices(volume: Any) -> None:
    """Show a volume in the slice views."""
    if volume is not None:
        slicer.util.setSliceViewerLayers(background=volume)
