"""What the panel does: says whether it can run, runs, cancels, shows the results."""

from __future__ import annotations

from typing import Any

import slicer
from MRIDeepToolsLib import core_info, nodes, settings, setup_core
from MRIDeepToolsLib.errors import GlueError
from MRIDeepToolsLib.jobs import CoreJob
from MRIDeepToolsLib.model_widgets import OWN_WEIGHTS, ModelChoice, download_question
from MRIDeepToolsLib.widgets import (
    ApplyButton,
    DeviceChoice,
    ProgressPanel,
    ThreadsChoice,
    abandon,
    ask_person,
    device_name,
    disclaimer,
    duration_words,
    show_lines,
    too_old,
)
from slicer.i18n import tr as _

from .results import ResultsPanel
from .run import ROBUST_MODEL, SegmentOptions, SegmentRun, needed_models
from .scan_checks import scan_notes, why_not

__all__ = ["Panel"]


class Panel:
    """Behaviour of the panel.

    Parameters
    ----------
    ui : child widgets of ``SynthSegment.ui``.
    logic : SynthSegmentLogic.

    """

    def __init__(self, ui: Any, logic: Any) -> None:
        self.ui, self.logic = ui, logic
        self.parameters: Any = None
        self.ask = ask_person
        self.work: Any = None
        """The run, or the download before it; None while nothing runs."""
        self._asking: Any = None
        self._preparing = False
        self._set_up = setup_core.state().ready
        self._gui_tag: Any = None
        self._models: list[Any] = []
        self.progress = ProgressPanel(ui.progressContainer)
        self.apply = ApplyButton(ui.applyButton, self.progress, self.on_apply, self.on_cancel)
        self.results = ResultsPanel(ui)
        self.devices, self.threads = DeviceChoice(ui.deviceComboBox), ThreadsChoice(ui.threadsSpinBox)
        self.models = ModelChoice(
            ui.modelComboBox, ui.modelAboutLabel, "segment", self._model_chosen, hidden=(ROBUST_MODEL,)
        )
        ui.weightsPathLineEdit.currentPath = settings.get("weightsFolder")
        ui.weightsPathLineEdit.connect("currentPathChanged(QString)", self._weights_chosen)
        for section in (ui.inputsCollapsibleButton, ui.advancedCollapsibleButton):
            section.connect("contentsCollapsed(bool)", self.update)  # not all rows of a section are always shown
        ui.disclaimerLabel.text = disclaimer()
        self.update()

    # ------------------------------------------------------------------------------------------------ following state

    def bind(self, parameters: Any) -> None:
        """Follow other parameters; None for none."""
        if self.parameters is not None:
            self.parameters.disconnectGui(self._gui_tag)
        self.parameters, self._gui_tag = parameters, None
        if parameters is not None:
            self._gui_tag = parameters.connectGui(self.ui)
        self.update()

    def refresh_machine(self) -> None:
        """Look again at devices and models, without holding up Slicer."""
        self._set_up = setup_core.state().ready
        self.devices.refresh()
        self.threads.refresh()
        if core_info.cached():
            self._machine_known(core_info.cached())
        elif self._set_up and self._asking is None:
            try:
                self._asking = core_info.refresh(self._machine_known, self._machine_unknown)
            except GlueError as error:
                self._machine_unknown(str(error))

    def _machine_unknown(self, reason: str) -> None:
        self._asking = None
        self.progress.say(reason, "error")

    def _machine_known(self, info: Any) -> None:
        self._asking = None
        self._models = info.get("models") or []
        self.devices.fill(info.get("devices") or [])
        self.models.set_models(self._models)
        self.update()

    def update(self) -> None:
        """Bring everything in line with the parameters."""
        parameters, ui = self.parameters, self.ui
        self.models.show_about()
        if parameters is None:
            self.apply.set_ready(_("Choose a scan."))
            return
        ui.weightsLabel.visible = ui.weightsPathLineEdit.visible = self._own_weights
        self.models.choose(parameters.model)
        ui.modelComboBox.enabled = not parameters.robust
        ui.volumesSelector.enabled = parameters.makeVolumes
        ui.scoresSelector.enabled = parameters.makeScores
        ui.posteriorsSelector.enabled = parameters.makePosteriors and not self._all_time_points
        volume = parameters.inputVolume
        ui.allTimePointsCheckBox.visible = _is_sequence(volume)
        reason = why_not(volume)
        show_lines(ui.inputNoteLabel, [] if reason else scan_notes(volume, ct=parameters.ct))
        self.apply.set_ready(reason or self._why_not_weights(), self._what_comes_first())
        self.results.show(
            parameters.resultSegmentation,
            parameters.resultVolumes,
            parameters.resultScores,
            parameters.resultChart,
            parameters.resultWarnings,
        )

    @property
    def _scene_parameters(self) -> Any:
        """The parameters of the scene, also while the panel is out of sight and bound to nothing."""
        return self.parameters if self.parameters is not None else self.logic.getParameterNode()

    @property
    def _own_weights(self) -> bool:
        return self._scene_parameters.model == OWN_WEIGHTS and not self._scene_parameters.robust

    @property
    def _all_time_points(self) -> bool:
        return self._scene_parameters.allTimePoints and _is_sequence(self._scene_parameters.inputVolume)

    def _why_not_weights(self) -> str:
        if self._own_weights and not self.ui.weightsPathLineEdit.currentPath:
            return _("Choose the file or folder of your own weights under Advanced.")
        return ""

    def _what_comes_first(self) -> str:
        """Return what Apply does before the run, so that nobody is surprised."""
        if not self._set_up:
            return _("The first run installs what is missing. You are asked before.")
        missing = needed_models(self._options(), self._models)
        if missing:
            names = ", ".join(f"{model['name']} ({model['size_text']})" for model in missing)
            return _("To be downloaded first: {names}. You are asked before.").format(names=names)
        return ""

    def _model_chosen(self, name: str) -> None:
        if self.parameters is not None:
            self.parameters.model = name

    def _weights_chosen(self, path: str) -> None:
        settings.set_value("weightsFolder", path)
        self.update()

    # -------------------------------------------------------------------------------------------------------- running

    def on_apply(self) -> None:
        """Set up what is missing, fetch what is missing, run. Each step is asked for where it costs something."""
        if too_old():
            self.progress.say(too_old(), "error")
            return
        if self._preparing:  # Slicer stays alive meanwhile, and nothing is to be started twice
            return
        self._preparing = True
        self.ui.applyButton.enabled = False
        try:
            with slicer.util.tryWithErrorDisplay(_("The scan could not be labelled.")):
                self._prepare_and_start()
        finally:
            self._preparing = False
            if self.work is None:
                self.ui.applyButton.enabled = True

    def _prepare_and_start(self) -> None:
        try:
            self.set_up()
            if not core_info.cached():
                self.progress.begin(_("Looking for models"))
            self._models = core_info.info().get("models") or []
            missing = needed_models(self._options(), self._models)
            if not missing:
                self.start_run()
            elif settings.get("offline"):
                names = ", ".join(model["name"] for model in missing)
                text = _("{names} not on this computer, and the network is not to be used. Import in the home module.")
                self.progress.end(text.format(names=names), "error")
            elif self.ask(download_question(missing)):
                self.start_download(missing)
            else:
                self.progress.end("")
                self.update()
        except GlueError as error:
            self._over(str(error), "error")

    def set_up(self) -> None:
        """Install what is missing, after asking; raises GlueError."""
        if setup_core.state().ready:
            return
        self.progress.begin(_("Setting up"))
        setup_core.ensure_core(self.ask, self.progress.log, on_step=self.progress.say)
        self.progress.end("")
        self.refresh_machine()

    def on_cancel(self) -> None:
        """Cancel the run, or the download before it."""
        if self.work is not None:
            self.work.cancel()

    def start_download(self, models: list[Any]) -> None:
        """Fetch models; the run follows by itself."""
        self.work = CoreJob(
            ["models", "download", *(model["name"] for model in models)],
            on_progress=self.progress.progress,
            on_log=self.progress.log,
            on_finished=self._downloaded,
        )
        self._begin(self.work, _("Downloading"))
        self.work.start()

    def _downloaded(self, outcome: Any) -> None:
        if not outcome.ok:
            self._over(outcome.sentence, "" if outcome.status == "cancelled" else "error")
            return
        self.apply.set_running(False)
        self.work = None
        core_info.forget()
        self.refresh_machine()
        self.start_run()

    def start_run(self) -> None:
        """Start the run that the panel describes."""
        parameters = self._scene_parameters
        run = SegmentRun(
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
        self._begin(run, _("Starting"))
        try:
            run.start()
        except GlueError as error:
            self._over(str(error), "error")

    def _options(self) -> SegmentOptions:
        parameters = self._scene_parameters
        return SegmentOptions(
            model="" if parameters.model == OWN_WEIGHTS else parameters.model,
            weights=self.ui.weightsPathLineEdit.currentPath if self._own_weights else "",
            parcels=parameters.parcels,
            robust=parameters.robust,
            ct=parameters.ct,
            fast=parameters.fast,
            grid=parameters.grid.value,
            volumes=parameters.makeVolumes,
            scores=parameters.makeScores,
            posteriors=parameters.makePosteriors and not self._all_time_points,
        )

    def _begin(self, work: Any, text: str) -> None:
        self.work = work
        job = getattr(work, "job", work)
        self.progress.begin(text)
        self.progress.follow(lambda: job.log)
        self.apply.set_running(True)

    def _done(self, run: SegmentRun) -> None:
        """Show what a run made, or say why it made nothing."""
        if run.error is not None:
            self._over(str(run.error), "" if run.error.cancelled else "error")
            return
        outputs = run.outputs
        parameters = self._scene_parameters
        with slicer.util.NodeModify(parameters):
            parameters.resultSegmentation, parameters.resultVolumes = outputs.segmentation, outputs.volumes
            parameters.resultScores, parameters.resultChart = outputs.scores, outputs.chart
            parameters.resultWarnings = outputs.warnings
        if parameters.showResult and parameters.inputVolume is not None:
            slicer.util.setSliceViewerLayers(background=parameters.inputVolume)
        text = _("Done in {time} with {model} on {device}.")
        fields = {
            "time": duration_words(outputs.seconds),
            "model": outputs.model,
            "device": device_name(outputs.device),
        }
        self._over(text.format(**fields), "good")

    def _over(self, text: str, kind: str) -> None:
        self.work = None
        self.apply.set_running(False)
        self.update()
        self.progress.end(text, kind)

    def close(self) -> None:
        """End what runs; the panel is going away."""
        for work in (self.work, self._asking):
            if isinstance(work, SegmentRun):
                work.abandon()
            elif work is not None:
                abandon(work)
        self.work = self._asking = None


def _is_sequence(volume: Any) -> bool:
    sequence, _browser = nodes.sequence_of(volume)
    return sequence is not None and sequence.GetNumberOfDataNodes() > 1
