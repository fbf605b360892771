"""What the panels of all modules do alike: set up, fetch models, run, cancel, say how it ended.

A module derives from :class:`RunPanel`. Its .ui file has the widgets ``progressContainer``, ``applyButton``,
``deviceComboBox``, ``threadsSpinBox``, ``modelComboBox``, ``modelAboutLabel``, ``weightsLabel``,
``weightsPathLineEdit`` and ``disclaimerLabel``; its parameters have a member ``model``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer

from . import core_info, settings, setup_core
from .errors import GlueError
from .i18n import _
from .jobs import CoreJob
from .model_widgets import OWN_WEIGHTS, ModelChoice, can_download, download_question
from .scene_run import SceneRun
from .widgets import (
    ApplyButton,
    DeviceChoice,
    ProgressPanel,
    ThreadsChoice,
    abandon,
    ask_person,
    device_name,
    disclaimer,
    duration_words,
    too_old,
)

__all__ = ["RunPanel"]


class RunPanel:
    """Behaviour of a panel.

    Parameters
    ----------
    ui : child widgets of the module's .ui file.
    logic : the module's logic, which knows the parameters of the scene.

    """

    task = ""
    """Of the models that are offered."""
    weights_setting = "weightsFolder"
    """Setting of this computer that remembers where weights of the person's own are."""
    hidden_models: Sequence[str] = ()
    """Models that other controls choose."""

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
        self.devices, self.threads = DeviceChoice(ui.deviceComboBox), ThreadsChoice(ui.threadsSpinBox)
        self.models = ModelChoice(
            ui.modelComboBox, ui.modelAboutLabel, self.task, self._model_chosen, hidden=self.hidden_models
        )
        ui.weightsPathLineEdit.currentPath = settings.get(self.weights_setting)
        ui.weightsPathLineEdit.connect("currentPathChanged(QString)", self._weights_chosen)
        ui.disclaimerLabel.text = disclaimer()

    # --------------------------------------------------------------------------------------------- what a module says

    def update(self) -> None:
        """Bring everything in line with the parameters."""
        raise NotImplementedError

    def needed_models(self) -> list[Any]:
        """Return the facts of the models that a run needs and that are not on this computer."""
        raise NotImplementedError

    def make_run(self) -> SceneRun:
        """Return the run that the panel describes, not started; its ``on_done`` is :meth:`_done`."""
        raise NotImplementedError

    def take_outputs(self, outputs: Any) -> None:
        """Remember and show what a run made."""
        raise NotImplementedError

    @property
    def failure_text(self) -> str:
        """What the dialog says when something unforeseen happens."""
        raise NotImplementedError

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

    @property
    def scene_parameters(self) -> Any:
        """The parameters of the scene, also while the panel is out of sight and bound to nothing."""
        return self.parameters if self.parameters is not None else self.logic.getParameterNode()

    @property
    def own_weights(self) -> bool:
        """True when weights of the person's own are chosen."""
        return self.scene_parameters.model == OWN_WEIGHTS

    def why_not_weights(self) -> str:
        """Return why the chosen weights cannot be used; empty when they can."""
        if self.own_weights and not self.ui.weightsPathLineEdit.currentPath:
            return _("Choose the file or folder of your own weights under Advanced.")
        return ""

    def what_comes_first(self) -> str:
        """Return what Apply does before the run, so that nobody is surprised."""
        if not self._set_up:
            return _("The first run installs what is missing. You are asked before.")
        missing = self.needed_models()
        if by_hand(missing):
            return by_hand(missing)
        if missing:
            names = ", ".join(f"{model['name']} ({model['size_text']})" for model in missing)
            return _("To be downloaded first: {names}. You are asked before.").format(names=names)
        return ""

    def _model_chosen(self, name: str) -> None:
        if self.parameters is not None:
            self.parameters.model = name

    def _weights_chosen(self, path: str) -> None:
        settings.set_value(self.weights_setting, path)
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
            with slicer.util.tryWithErrorDisplay(self.failure_text):
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
            missing = self.needed_models()
            if not missing:
                self.start_run()
            elif by_hand(missing):
                self.progress.end(by_hand(missing), "error")
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
        run = self.make_run()
        self._begin(run, _("Starting"))
        try:
            run.start()
        except GlueError as error:
            self._over(str(error), "error")

    def _begin(self, work: Any, text: str) -> None:
        self.work = work
        job = getattr(work, "job", work)
        self.progress.begin(text)
        self.progress.follow(lambda: job.log)
        self.apply.set_running(True)

    def _done(self, run: Any) -> None:
        """Show what a run made, or say why it made nothing."""
        if run.error is not None:
            self._over(str(run.error), "" if run.error.cancelled else "error")
            return
        try:
            self.take_outputs(run.outputs)
        except Exception:
            self._over(
                _("The results are in the scene, but not all of them could be shown; see the error log."), "error"
            )
            raise
        text = _("Done in {time} with {model} on {device}.")
        fields = {
            "time": duration_words(run.outputs.seconds),
            "model": run.outputs.model,
            "device": device_name(run.outputs.device),
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
            if isinstance(work, SceneRun):
                work.abandon()
            elif work is not None:
                abandon(work)
        self.work = self._asking = None


def by_hand(missing: Sequence[Any]) -> str:
    """Say how to get the models that have no address to download them from; empty when all have one."""
    names = ", ".join(model["name"] for model in missing if not can_download(model))
    if not names:
        return ""
    text = _("{names}: fetch it from its page (see the home module) and import it there, or choose another model.")
    return text.format(names=names)
