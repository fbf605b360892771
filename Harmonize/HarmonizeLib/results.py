"""The part of the panel that shows what a run made: views to compare, figures, tissues, charts."""

from __future__ import annotations

from typing import Any

import slicer
from MRIDeepToolsLib.linked_views import LinkedViews, match_window
from MRIDeepToolsLib.widgets import show_lines
from slicer.i18n import tr as _

__all__ = ["MAP_OPACITY", "PAIR", "VIEWS", "ResultsPanel", "show_comparison"]

VIEWS = LinkedViews(58320, 5832, ("HarmonizeBefore", "HarmonizeAfter", "HarmonizeChange"))
PAIR = LinkedViews(58321, VIEWS.group, VIEWS.names[:2])
"""For a translation without a map over its result."""
MAP_OPACITY = 0.6
FIGURES_TAB, TISSUES_TAB = range(2)


def show_comparison(before: Any, result: Any, change: Any, factor: float = 1.0, contrast: str = "") -> bool:
    """Show before, after, and the change over the result, in linked views; False without a main window.

    After a translation into ``contrast`` the map over the result is the standard deviation of the samples.

    Parameters
    ----------
    before, result, change : volume nodes; ``change`` may be None.
    factor : from the intensities of ``before`` to those of ``result``, so that equal tissue looks equally bright.

    """
    if contrast:  # other contrasts have windows of their own
        labels = (_("Scan"), _("Synthetic {contrast}").format(contrast=contrast), _("Uncertainty"))
        if change is None:
            return PAIR.show((before, result), labels[:2])
    else:
        match_window(before, result, factor)
        labels = (_("Before"), _("After (synthetic)"), _("Change"))
    shown = VIEWS.show((before, result, result), labels)
    return shown and VIEWS.overlay(2, change, MAP_OPACITY)


class ResultsPanel:
    """Shows the nodes of the last run; it follows what the scene remembers, so it comes back with the scene.

    Parameters
    ----------
    ui : child widgets of the module's panel.

    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._compared: tuple[Any, Any, Any, float, str] = (None, None, None, 1.0, "")
        self._charts: tuple[Any, Any] = (None, None)
        self._warnings: list[str] = []
        self._shown: tuple[Any, ...] | None = None
        ui.compareButton.connect("clicked(bool)", self.compare)
        ui.histogramButton.connect("clicked(bool)", lambda: self.show_chart(0))
        ui.jointButton.connect("clicked(bool)", lambda: self.show_chart(1))
        ui.resultsCollapsibleButton.connect("contentsCollapsed(bool)", self._show_rows)

    def show(self, parameters: Any) -> None:
        """Show what the parameters remember of the last run. Without any result the section closes."""
        nodes = (parameters.madeBefore, parameters.madeResult, parameters.madeChangeMap)
        made = (*nodes, parameters.madeFactor, parameters.madeContrast)
        charts, warnings = (parameters.madeHistogram, parameters.madeJoint), list(parameters.madeWarnings)
        shown = (made, parameters.madeFigures, parameters.madeTissues, charts, warnings)
        if shown == self._shown:
            return
        self._shown, self._compared, self._charts, self._warnings = shown, made, charts, warnings
        ui, some = self._ui, made[1] is not None
        ui.compareButton.enabled = some
        ui.histogramButton.enabled, ui.jointButton.enabled = (chart is not None for chart in charts)
        tables = (ui.figuresTableView, parameters.madeFigures), (ui.tissuesTableView, parameters.madeTissues)
        for view, table in tables:
            view.setMRMLTableNode(table)
            if table is not None:
                view.resizeColumnsToContents()
        ui.resultsTabs.setCurrentIndex(FIGURES_TAB)
        ui.resultsTabs.setTabEnabled(TISSUES_TAB, parameters.madeTissues is not None)
        ui.resultsCollapsibleButton.enabled = some
        ui.resultsCollapsibleButton.collapsed = not some
        self._show_rows()

    def compare(self) -> None:
        """Show before, after and change side by side."""
        show_comparison(*self._compared)

    def show_chart(self, number: int) -> None:
        """Show the histogram (0) or the joint histogram (1) in a layout that has room for a chart."""
        if self._charts[number] is not None:
            slicer.modules.plots.logic().ShowChartInLayout(self._charts[number])

    def _show_rows(self) -> None:
        """Show the rows that the last run has; a translation has no figures of a change."""
        show_lines(self._ui.warningsLabel, self._warnings)
        for widget in (self._ui.histogramButton, self._ui.jointButton, self._ui.resultsTabs):
            widget.visible = not self._compared[-1]
