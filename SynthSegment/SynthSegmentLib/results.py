"""The part of the panel that shows what a run made: segments, volumes with a chart, quality scores in words."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from MRIDeepToolsLib.tables import score_level
from MRIDeepToolsLib.widgets import coloured, level_colour, show_lines
from slicer.i18n import tr as _

__all__ = ["ResultsPanel"]

SEGMENTS_TAB, VOLUMES_TAB, SCORES_TAB = range(3)
_KINDS = {"good": "good", "look": "warning", "poor": "error"}


class ResultsPanel:
    """Shows the nodes of the last run; it follows what the scene remembers, so it comes back with the scene.

    Parameters
    ----------
    ui : child widgets of the module's panel.

    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._segmentation: Any = None
        self._chart: Any = None
        self._warnings: list[str] = []
        self._shown: tuple[Any, ...] | None = None
        ui.showAllButton.connect("clicked(bool)", lambda: self._show_segments(True))
        ui.hideAllButton.connect("clicked(bool)", lambda: self._show_segments(False))
        ui.showChartButton.connect("clicked(bool)", self.show_chart)
        ui.resultsCollapsibleButton.connect("contentsCollapsed(bool)", self._show_warnings)
        self.show(None, None, None, None, [])

    def show(self, segmentation: Any, volumes: Any, scores: Any, chart: Any, warnings: list[str]) -> None:
        """Show nodes; None for what there is not. Without any result the section closes."""
        filled = scores.GetTable().GetMTime() if scores is not None and scores.GetTable() is not None else 0
        shown = (segmentation, volumes, scores, filled, chart, tuple(warnings))
        if shown == self._shown:
            return
        self._shown = shown
        self._segmentation, self._chart = segmentation, chart
        ui = self._ui
        ui.segmentsTableView.setSegmentationNode(segmentation)
        ui.show3DButton.setSegmentationNode(segmentation)
        ui.volumesTableView.setMRMLTableNode(volumes)
        if volumes is not None:
            ui.volumesTableView.resizeColumnsToContents()
        self._fill_scores(scores)
        tabs = ui.resultsTabs
        tabs.setCurrentIndex(SEGMENTS_TAB)
        tabs.setTabEnabled(VOLUMES_TAB, volumes is not None)
        tabs.setTabEnabled(SCORES_TAB, scores is not None)
        ui.showChartButton.enabled = chart is not None
        for button in (ui.show3DButton, ui.showAllButton, ui.hideAllButton):
            button.enabled = segmentation is not None
        self._warnings = list(warnings)
        some = any(node is not None for node in (segmentation, volumes, scores))
        ui.resultsCollapsibleButton.enabled = some
        ui.resultsCollapsibleButton.collapsed = not some
        self._show_warnings()

    def show_chart(self) -> None:
        """Show the chart of the volumes in a layout that has room for one."""
        if self._chart is not None:
            slicer.modules.plots.logic().ShowChartInLayout(self._chart)

    def _show_warnings(self) -> None:
        show_lines(self._ui.warningsLabel, self._warnings)

    def _show_segments(self, visible: bool) -> None:
        display = self._segmentation.GetDisplayNode() if self._segmentation is not None else None
        if display is not None:
            display.SetAllSegmentsVisibility(visible)

    def _fill_scores(self, scores: Any) -> None:
        """Fill the table of scores and the sentence above it."""
        table = self._ui.scoresTableWidget
        table.setRowCount(0)
        rows = _rows(scores)
        table.setRowCount(len(rows))
        for number, (group, score, words) in enumerate(rows):
            kind = _KINDS[score_level(score)]
            for column, text in enumerate((group, f"{score:.2f}", _short_words(score))):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(words)
                if column:
                    item.setForeground(qt.QBrush(qt.QColor(level_colour(kind))))
                table.setItem(number, column, item)
        table.resizeColumnsToContents()
        poor = [group for group, score, _words in rows if score_level(score) != "good"]
        if not rows:
            sentence = _("The scores of all time points are in the table {name}.")
            text = coloured(sentence.format(name=scores.GetName())) if scores is not None else ""
        elif poor:
            sentence = _("{count} of {total} groups need a look: {names}.")
            text = coloured(sentence.format(count=len(poor), total=len(rows), names=", ".join(poor)), "warning")
        else:
            text = coloured(_("All groups of structures can be expected to be good."), "good")
        self._ui.scoresSummaryLabel.text = text


def _short_words(score: float) -> str:
    return {"good": _("Good"), "look": _("Look closely"), "poor": _("Poor, correct it")}[score_level(score)]


def _rows(scores: Any) -> list[tuple[str, float, str]]:
    """Return group, score and words of a scores table of one scan; nothing for a table of another form."""
    content = scores.GetTable() if scores is not None else None
    if content is None or content.GetNumberOfColumns() != 3 or not content.GetColumn(1).IsA("vtkDataArray"):
        return []
    rows = []
    for row in range(content.GetNumberOfRows()):
        group, score, words = (content.GetValue(row, column) for column in range(3))
        rows.append((group.ToString(), score.ToDouble(), words.ToString()))
    return rows
