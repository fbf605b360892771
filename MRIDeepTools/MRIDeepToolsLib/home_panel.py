"""What the panel of the home module does: state at a glance, set-up, models, settings, report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qt
import slicer

from . import core_info, settings, setup_core
from .batch_panel import BatchPanel
from .errors import GlueError, SetupDeclined
from .i18n import _
from .jobs import CoreJob
from .model_widgets import ModelTable, can_download, download_question
from .widgets import (
    HOMEPAGE,
    DeviceChoice,
    ProgressPanel,
    ThreadsChoice,
    abandon,
    ask_person,
    coloured,
    disclaimer,
    documentation_url,
    too_old,
)

__all__ = ["HomePanel", "device_words", "models_words", "torch_words"]

Info = Mapping[str, Any]


class HomePanel:
    """Behaviour of the panel.

    Parameters
    ----------
    ui : child widgets of ``MRIDeepTools.ui``.
    logic : MRIDeepToolsLogic.

    """

    def __init__(self, ui: Any, logic: Any) -> None:
        self.ui, self.logic = ui, logic
        self.ask, self.choose_folder = ask_person, choose_folder
        self.job: CoreJob | None = None
        """The command that runs, None while none does."""
        self._asking: CoreJob | None = None
        self.progress = ProgressPanel(ui.progressContainer, self.cancel)
        self.devices, self.threads = DeviceChoice(ui.deviceComboBox), ThreadsChoice(ui.threadsSpinBox)
        self.models = ModelTable(ui.modelsTable, ui.modelAboutLabel, self._update_buttons)
        self.batch = BatchPanel(ui)
        self._fill_settings()
        self._connect()
        ui.disclaimerLabel.text = disclaimer()
        ui.linksLabel.text = _links()
        self.show_state()

    def _connect(self) -> None:
        ui = self.ui
        ui.setupButton.connect("clicked(bool)", self.set_up)
        ui.refreshButton.connect("clicked(bool)", self.refresh)
        ui.openButton.connect("clicked(bool)", open_segmentation)
        ui.downloadButton.connect("clicked(bool)", self.download)
        ui.importButton.connect("clicked(bool)", self.import_models)
        ui.verifyButton.connect("clicked(bool)", self.verify)
        ui.removeButton.connect("clicked(bool)", self.remove)
        ui.offlineCheckBox.connect("toggled(bool)", self._settings_changed)
        ui.cacheFolderPathLineEdit.connect("currentPathChanged(QString)", self._settings_changed)
        ui.wheelFolderPathLineEdit.connect("currentPathChanged(QString)", self._settings_changed)
        ui.reportCollapsibleButton.connect("contentsCollapsed(bool)", self._report_opened)
        ui.copyReportButton.connect("clicked(bool)", self.copy_report)

    # ---------------------------------------------------------------------------------------------------------- state

    def refresh(self) -> None:
        """Look again at what is installed; devices and models follow when the core has answered."""
        core_info.forget()
        self.show_state()
        self.ask_core()

    def ask_core(self) -> None:
        """Ask the core for devices and models without holding up Slicer; nothing happens where there is no core."""
        self.devices.refresh()
        self.threads.refresh()
        if core_info.cached() or self._asking is not None or not setup_core.state().ready:
            self.show_state()
            return
        try:
            self._asking = core_info.refresh(self._core_answered, self._core_failed)
        except GlueError as error:
            self._core_failed(str(error))
        self.show_state()

    def _core_answered(self, info: Info) -> None:
        self._asking = None
        self.devices.fill(info.get("devices") or [])
        self.show_state()

    def _core_failed(self, reason: str) -> None:
        self._asking = None
        self.show_state()
        self.progress.say(reason, "error")

    def show_state(self) -> None:
        """Show what is known now."""
        state, info = setup_core.state(), core_info.cached()
        ui = self.ui
        if state.core_version is None:
            ui.coreValue.text = coloured(_("not installed"), "error")
        elif not state.core_fits:
            text = _("{found}, this extension needs {wanted}")
            ui.coreValue.text = coloured(text.format(found=state.core_version, wanted=state.core_wanted), "error")
        elif state.unmet:
            ui.coreValue.text = coloured(_("needs {names}").format(names=", ".join(state.unmet)), "error")
        else:
            ui.coreValue.text = coloured(state.core_version, "good")
        ui.torchValue.text = torch_words(state.torch_version, info)
        for label, words in (
            (ui.deviceValue, device_words),
            (ui.driverValue, driver_words),
            (ui.modelsValue, models_words),
        ):
            label.text = words(info) if info else coloured(self._unknown(state), "quiet")
        ui.setupButton.text = _("Repair") if state.ready else _("Set up")
        ui.openButton.visible = state.ready
        self.models.set_models((info or {}).get("models") or [])
        self.batch.update()
        self._update_buttons()
        if not ui.reportCollapsibleButton.collapsed:
            self._report_opened(False)

    def _unknown(self, state: Any) -> str:
        if self._asking is not None:
            return _("looking...")
        return _("known after the set-up") if not state.ready else _("not known")

    def _update_buttons(self) -> None:
        ui, model = self.ui, self.models.chosen
        idle = self.job is None
        here = idle and core_info.cached() is not None
        ui.setupButton.enabled = ui.refreshButton.enabled = idle
        ui.downloadButton.enabled = bool(here and model and can_download(model) and not settings.get("offline"))
        ui.importButton.enabled = here
        ui.verifyButton.enabled = bool(here and (model is None or model["status"] != "absent"))
        ui.removeButton.enabled = bool(here and model and model["status"] == "installed")

    # --------------------------------------------------------------------------------------------------------- set-up

    def set_up(self) -> None:
        """Install what is missing, or repair, after asking once."""
        if too_old():
            self.progress.say(too_old(), "error")
            return
        repair = setup_core.state().ready
        self.progress.begin(_("Setting up"))
        self.ui.setupButton.enabled = False
        try:
            with slicer.util.tryWithErrorDisplay(_("The set-up failed.")):
                self._set_up(repair)
        finally:
            self.refresh()

    def _set_up(self, repair: bool) -> None:
        try:
            self.logic.set_up(self.ask, self.progress.log, repair=repair, on_step=self.progress.say)
            self.progress.end(_("Everything is ready."), "good")
        except SetupDeclined as declined:
            self.progress.end(str(declined))
        except GlueError as error:
            self.progress.end(str(error), "error")

    # --------------------------------------------------------------------------------------------------------- models

    def download(self) -> None:
        """Fetch the chosen model, after its licence was shown."""
        model = self.models.chosen
        if model is not None and self.ask(download_question([model])):
            self._run(["download", model["name"]], _("Downloading"), _("{name} is here.").format(name=model["name"]))

    def import_models(self) -> None:
        """Take weights from a folder."""
        folder = self.choose_folder(_("Folder with weights"), freesurfer_models())
        if folder:
            self._run(["import", folder], _("Importing"), _("The weights of this folder were taken over."))

    def verify(self) -> None:
        """Compare the chosen model, or all, with the checksums."""
        names = [self.models.chosen["name"]] if self.models.chosen else []
        self._run(["verify", *names], _("Verifying"), _("All weights are as they should be."))

    def remove(self) -> None:
        """Delete the chosen model from the cache, after asking."""
        model = self.models.chosen
        if model is None:
            return
        question = _("Delete {name} ({size}) from this computer? It can be downloaded again.")
        if self.ask(question.format(name=model["name"], size=model["size_text"])):
            self._run(["remove", model["name"]], _("Removing"), _("{name} was removed.").format(name=model["name"]))

    def _run(self, words: list[str], begin: str, done: str) -> None:
        """Run ``models ...`` of the core; the state is shown anew at the end."""

        def finished(outcome: Any) -> None:
            self.job = None
            kind = {"done": "good", "cancelled": ""}.get(outcome.status, "error")
            self.progress.end(done if outcome.ok else outcome.sentence, kind)
            self.refresh()

        self.progress.begin(begin)
        try:
            self.job = self.logic.models_job(
                words, on_progress=self.progress.progress, on_log=self.progress.log, on_finished=finished
            ).start()
        except GlueError as error:
            self.progress.end(str(error), "error")
            return
        job = self.job
        self.progress.follow(lambda: job.log)
        self._update_buttons()

    def cancel(self) -> None:
        """Cancel the command that runs."""
        if self.job is not None:
            self.job.cancel()

    def close(self) -> None:
        """End what runs; the panel is going away."""
        for job in (self.job, self._asking):
            if job is not None:
                abandon(job)
        self.batch.close()

    # ------------------------------------------------------------------------------------------- settings and report

    def _fill_settings(self) -> None:
        ui = self.ui
        ui.cacheFolderPathLineEdit.currentPath = settings.get("cacheFolder")
        ui.wheelFolderPathLineEdit.currentPath = settings.get("wheelFolder")
        ui.offlineCheckBox.checked = settings.get("offline")

    def _settings_changed(self) -> None:
        ui = self.ui
        moved = settings.get("cacheFolder")
        settings.set_value("cacheFolder", ui.cacheFolderPathLineEdit.currentPath)
        settings.set_value("wheelFolder", ui.wheelFolderPathLineEdit.currentPath)
        settings.set_value("offline", ui.offlineCheckBox.checked)
        if settings.get("cacheFolder") != moved:
            self.refresh()
        self._update_buttons()

    def _report_opened(self, collapsed: bool) -> None:
        if not collapsed:
            self.ui.reportText.plainText = core_info.system_report(ask=False)

    def copy_report(self) -> None:
        """Put the report on the clipboard."""
        slicer.app.clipboard().setText(core_info.system_report(ask=False))


def torch_words(version: str | None, info: Info | None) -> str:
    """Return the version of PyTorch and whether it can use the graphics card, as rich text."""
    if version is None:
        return coloured(_("not installed"), "error")
    torch = (info or {}).get("torch") or {}
    if torch.get("fault"):
        return coloured(f"{version}: {torch['fault']}", "error")
    if torch.get("cuda_available"):
        return coloured(_("{version}, with CUDA").format(version=version), "good")
    if torch.get("cuda_built"):
        return coloured(_("{version}, built for CUDA, which does not work here").format(version=version), "warning")
    return coloured(version, "good")


def device_words(info: Info) -> str:
    """Return which device automatic choice takes, as rich text."""
    devices = info.get("devices") or []
    graphics = [device for device in devices if device.get("name") != "cpu"]
    if graphics:
        parts = [str(graphics[0].get("description") or graphics[0]["name"])]
        if graphics[0].get("memory_gb"):
            parts.append(_("{size:.0f} GB").format(size=float(graphics[0]["memory_gb"])))
        return coloured(", ".join(parts), "good")
    threads, size = int(info.get("threads") or 0), float(info.get("memory_gb") or 0)
    text = _("CPU with one thread, {size:.0f} GB") if threads == 1 else _("CPU with {threads} threads, {size:.0f} GB")
    return coloured(text.format(threads=threads, size=size), "good")


def driver_words(info: Info) -> str:
    """Return the NVIDIA driver, as rich text."""
    return coloured(str(info["driver"]), "good") if info.get("driver") else coloured(_("no NVIDIA driver"), "quiet")


def models_words(info: Info) -> str:
    """Return which models are here, as rich text."""
    models = info.get("models") or []
    here = [model["name"] for model in models if model["status"] != "absent"]
    away = sum(can_download(model) for model in models)
    if not here:
        return coloured(_("none on this computer, {count} to download").format(count=away), "warning")
    text = _("{count} on this computer, {more} to download").format(count=len(here), more=away)
    return coloured(text, "good")


def open_segmentation() -> None:
    """Go to the module that most people came for."""
    if slicer.util.mainWindow() is not None:
        slicer.util.selectModule("SynthSegment")


def choose_folder(title: str, start: str) -> str:
    """Ask for a folder; empty when the person cancels."""
    return str(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, start) or "")


def freesurfer_models() -> str:
    """Return the folder of models of a FreeSurfer installation, empty where there is none."""
    folder = Path(os.environ.get("FREESURFER_HOME", "")) / "models"
    return str(folder) if os.environ.get("FREESURFER_HOME") and folder.is_dir() else ""


def _links() -> str:
    links: list[tuple[str, str]] = [
        (_("Documentation"), documentation_url()),
        (_("Whom to cite"), f"{HOMEPAGE}/blob/main/CITATION.cff"),
        (_("Report a problem"), f"{HOMEPAGE}/issues"),
    ]
    return " &nbsp;\u00b7&nbsp; ".join(f'<a href="{address}">{text}</a>' for text, address in links)
