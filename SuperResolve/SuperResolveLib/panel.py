"""What the panel does: tells how the slices lie, says whether it can run, runs, cancels, shows the results."""

from __future__ import annotations

import json
from typing import Any

import qt
import slicer
from MRIDeepToolsLib.errors import GlueError
from MRIDeepToolsLib.model_widgets import OWN_WEIGHTS
from MRIDeepToolsLib.run_panel import RunPanel
from MRIDeepToolsLib.widgets import abandon, coloured, sentence, show_lines
from slicer.i18n import tr as _

from .comparison import show_comparison
from .pair_checks import why_not_pair
from .results import ResultsPanel
from .run import SuperResolveOptions, SuperResolveRun, describe, needed_models, plain_words

__all__ = ["Panel"]

_WAIT_MS = 300  # after the last change, before the core is asked about the slices


class Panel(RunPanel):
    """Behaviour of the panel.

    Parameters
    ----------
    ui : child widgets of ``SuperResolve.ui``.
    logic : SuperResolveLogic.

    """

    task = "superresolve"
    weights_setting = "superresolveWeights"

    def __init__(self, ui: Any, logic: Any) -> None:
        super().__init__(ui, logic)
        self.results = ResultsPanel(ui)
        self.describing: Any = None
        """The job that asks the core about the slices; None while none runs."""
        self._described: Any = None
        self._refusal = ""
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.connect("timeout()", self._describe)
        for section in (ui.slicesCollapsibleButton, ui.advancedCollapsibleButton):
            section.connect("contentsCollapsed(bool)", self.update)  # not all rows of a section are always shown
        self.update()

    # ------------------------------------------------------------------------------------------------ following state

    def update(self) -> None:
        """Bring everything in line with the parameters."""
        parameters, ui = self.parameters, self.ui
        self.models.show_about()
        if parameters is None:
            self.apply.set_ready(_("Choose a T2w scan with thick slices."))
            return
        ui.weightsLabel.visible = ui.weightsPathLineEdit.visible = self.own_weights
        self.models.choose(parameters.model)
        ui.interpolatedSelector.enabled = parameters.makeInterpolated
        ui.honestySelector.enabled = parameters.makeHonestyMap
        ui.templateSpaceCheckBox.enabled = parameters.template is not None
        reason = self._why_not()
        self._watch_slices(bool(reason))
        self.apply.set_ready(reason or self._refusal or self.why_not_weights(), self.what_comes_first())
        self.results.show(parameters)

    def _why_not(self) -> str:
        parameters = self.scene_parameters
        return why_not_pair(
            parameters.inputVolume, parameters.guideVolume, parameters.template, aligned=parameters.aligned
        )

    def _watch_slices(self, unusable: bool) -> None:
        """Ask about the slices when the scan, or what the person says of it, has changed."""
        parameters = self.parameters
        volume = parameters.inputVolume
        if unusable or not self._set_up:
            self._forget_slices()
            return
        known = (volume.GetID(), volume.GetImageData().GetMTime(), volume.GetSpacing(), *self._options().slice_words())
        if known == self._described:
            return
        self._forget_slices()
        self._described = known
        self.ui.slicesLabel.text = coloured(_("Looking at the slices..."), "quiet")
        self._timer.start()

    def _forget_slices(self) -> None:
        self._timer.stop()
        if self.describing is not None:
            abandon(self.describing)
        self.describing, self._described, self._refusal = None, None, ""
        self.ui.slicesLabel.text = ""
        show_lines(self.ui.slicesNoteLabel, [])

    def _describe(self) -> None:
        if self.parameters is None or self.parameters.inputVolume is None:
            return
        try:
            self.describing = describe(self.parameters.inputVolume, self._options(), self._slices_known)
        except GlueError as error:
            self.describing, self.ui.slicesLabel.text = None, coloured(str(error), "warning")

    def _slices_known(self, outcome: Any) -> None:
        """Show how the core takes the slices, or why it would refuse the scan."""
        self.describing = None
        try:
            found = json.loads(outcome.output) if outcome.ok else {}
        except ValueError:
            found = {}
        notes = [plain_words(str(text)) for text in found.get("Warnings") or []]
        words = str(found.get("Words") or "")
        self._refusal = "" if outcome.ok else plain_words(outcome.sentence)
        kind = "warning" if self._refusal else ""
        self.ui.slicesLabel.text = coloured(sentence(words or self._refusal), kind)
        show_lines(self.ui.slicesNoteLabel, notes)
        self.update()

    def bind(self, parameters: Any) -> None:
        """Follow other parameters; None for none."""
        if parameters is None:
            self._forget_slices()
        super().bind(parameters)

    # -------------------------------------------------------------------------------------------------------- running

    @property
    def failure_text(self) -> str:
        """What the dialog says when something unforeseen happens."""
        return _("The scan could not be super-resolved.")

    def needed_models(self) -> list[Any]:
        """Return the facts of the models that a run needs and that are not on this computer."""
        return needed_models(self._options(), self._models)

    def make_run(self) -> SuperResolveRun:
        """Return the run that the panel describes, not started."""
        parameters = self.scene_parameters
        return SuperResolveRun(
            parameters.inputVolume,
            parameters.guideVolume,
            self._options(),
            template=parameters.template,
            result=parameters.result,
            interpolated=parameters.interpolated if parameters.makeInterpolated else None,
            honesty=parameters.honestyMap if parameters.makeHonestyMap else None,
            on_progress=self.progress.progress,
            on_log=self.progress.log,
            on_done=self._done,
        )

    def _options(self) -> SuperResolveOptions:
        parameters = self.scene_parameters
        return SuperResolveOptions(
            model="" if parameters.model == OWN_WEIGHTS else parameters.model,
            weights=self.ui.weightsPathLineEdit.currentPath if self.own_weights else "",
            direction=parameters.sliceDirection.value,
            thickness=parameters.sliceThickness,
            spacing=parameters.sliceSpacing,
            aligned=parameters.aligned,
            smooth_blend=parameters.smoothBlend,
            in_template_space=parameters.inTemplateSpace and parameters.template is not None,
            interpolated=parameters.makeInterpolated,
            honesty=parameters.makeHonestyMap,
        )

    def take_outputs(self, outputs: Any) -> None:
        """Remember and show what a run made."""
        parameters = self.scene_parameters
        with slicer.util.NodeModify(parameters):
            parameters.madeInput = parameters.inputVolume
            parameters.madeResult, parameters.madeInterpolated = outputs.result, outputs.interpolated
            parameters.madeHonestyMap, parameters.madeTable = outputs.honesty, outputs.table
            parameters.madeChart = outputs.chart
            parameters.madeCheck, parameters.madeWarnings = outputs.check, outputs.warnings
        if parameters.showResult:
            show_comparison(parameters.inputVolume, outputs.interpolated, outputs.result, outputs.slice_direction)

    def close(self) -> None:
        """End what runs; the panel is going away."""
        self._forget_slices()
        super().close()
