"""What the panel does: says whether it can run, runs, cancels, shows the results."""

from __future__ import annotations

from typing import Any

import slicer
from MRIDeepToolsLib import nodes
from MRIDeepToolsLib.model_widgets import OWN_WEIGHTS
from MRIDeepToolsLib.run_panel import RunPanel
from MRIDeepToolsLib.widgets import show_lines
from slicer.i18n import tr as _

from .results import ResultsPanel
from .run import ROBUST_MODEL, SegmentOptions, SegmentRun, needed_models
from .scan_checks import scan_notes, why_not

__all__ = ["Panel"]


class Panel(RunPanel):
    """Behaviour of the panel.

    Parameters
    ----------
    ui : child widgets of ``SynthSegment.ui``.
    logic : SynthSegmentLogic.

    """

    task = "segment"
    hidden_models = (ROBUST_MODEL,)

    def __init__(self, ui: Any, logic: Any) -> None:
        super().__init__(ui, logic)
        self.results = ResultsPanel(ui)
        for section in (ui.inputsCollapsibleButton, ui.advancedCollapsibleButton):
            section.connect("contentsCollapsed(bool)", self.update)  # not all rows of a section are always shown
        self.update()

    def update(self) -> None:
        """Bring everything in line with the parameters."""
        parameters, ui = self.parameters, self.ui
        self.models.show_about()
        if parameters is None:
            self.apply.set_ready(_("Choose a scan."))
            return
        ui.weightsLabel.visible = ui.weightsPathLineEdit.visible = self.own_weights
        self.models.choose(parameters.model)
        ui.modelComboBox.enabled = not parameters.robust
        ui.volumesSelector.enabled = parameters.makeVolumes
        ui.scoresSelector.enabled = parameters.makeScores
        ui.posteriorsSelector.enabled = parameters.makePosteriors and not self._all_time_points
        volume = parameters.inputVolume
        ui.allTimePointsCheckBox.visible = _is_sequence(volume)
        reason = why_not(volume)
        show_lines(ui.inputNoteLabel, [] if reason else scan_notes(volume, ct=parameters.ct))
        self.apply.set_ready(reason or self.why_not_weights(), self.what_comes_first())
        self.results.show(
            parameters.resultSegmentation,
            parameters.resultVolumes,
            parameters.resultScores,
            parameters.resultChart,
            parameters.resultWarnings,
        )

    @property
    def failure_text(self) -> str:
        """What the dialog says when something unforeseen happens."""
        return _("The scan could not be labelled.")

    @property
    def own_weights(self) -> bool:
        """True when weights of the person's own are chosen; the robust chain has none."""
        return super().own_weights and not self.scene_parameters.robust

    @property
    def _all_time_points(self) -> bool:
        return self.scene_parameters.allTimePoints and _is_sequence(self.scene_parameters.inputVolume)

    def needed_models(self) -> list[Any]:
        """Return the facts of the models that a run needs and that are not on this computer."""
        return needed_models(self._options(), self._models)

    def make_run(self) -> SegmentRun:
        """Return the run that the panel describes, not started."""
        parameters = self.scene_parameters
        return SegmentRun(
            parameters.inputVolume,
            self._options(),
            segmentation=parameters.segmentation,
            volumes=parameters.volumesTable if parameters.makeVolumes else None,
            scores=parameters.scoresTable if parameters.makeScores else None,
            posteriors=parameters.posteriors if parameters.makePosteriors else None,
            all_time_points=self._all_time_points,
            on_progress=self.progress.progress,
            on_log=self.progress.log,
            on_done=self._done,
        )

    def _options(self) -> SegmentOptions:
        parameters = self.scene_parameters
        return SegmentOptions(
            model="" if parameters.model == OWN_WEIGHTS else parameters.model,
            weights=self.ui.weightsPathLineEdit.currentPath if self.own_weights else "",
            parcels=parameters.parcels,
            robust=parameters.robust,
            ct=parameters.ct,
            fast=parameters.fast,
            grid=parameters.grid.value,
            volumes=parameters.makeVolumes,
            scores=parameters.makeScores,
            posteriors=parameters.makePosteriors and not self._all_time_points,
        )

    def take_outputs(self, outputs: Any) -> None:
        """Remember and show what a run made."""
        parameters = self.scene_parameters
        with slicer.util.NodeModify(parameters):
            parameters.resultSegmentation, parameters.resultVolumes = outputs.segmentation, outputs.volumes
            parameters.resultScores, parameters.resultChart = outputs.scores, outputs.chart
            parameters.resultWarnings = outputs.warnings
        if parameters.showResult and parameters.inputVolume is not None:
            slicer.util.setSliceViewerLayers(background=parameters.inputVolume)


def _is_sequence(volume: Any) -> bool:
    sequence, _browser = nodes.sequence_of(volume)
    return sequence is not None and sequence.GetNumberOfDataNodes() > 1
