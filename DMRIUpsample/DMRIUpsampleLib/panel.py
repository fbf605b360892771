"""What the panel does: tells what was measured and what would be predicted, runs, cancels, shows the results."""

from __future__ import annotations

import re
from typing import Any

import qt
import slicer
from MRIDeepToolsLib import diffusion, setup_core
from MRIDeepToolsLib.errors import GlueError
from MRIDeepToolsLib.model_widgets import OWN_WEIGHTS
from MRIDeepToolsLib.run_panel import RunPanel
from MRIDeepToolsLib.widgets import coloured, sentence, show_lines
from slicer.i18n import tr as _

from .glyphs import legend, show_directions
from .parameters import Method, Targets
from .plan import Plan, Planner
from .results import ResultsPanel, show_in_slices
from .run import UpsampleOptions, UpsampleRun, needed_extras, why_not

__all__ = ["Panel"]


class Panel(RunPanel):
    """Behaviour of the panel.

    Parameters
    ----------
    ui : child widgets of ``DMRIUpsample.ui``.
    logic : DMRIUpsampleLogic.

    """

    task = "upsample-dmri"
    weights_setting = "upsampleWeights"

    def __init__(self, ui: Any, logic: Any) -> None:
        self.planner = Planner(self._take_plan)
        self.plan = Plan()
        self._input_id = ""
        self._filling = False
        self.ask_path = ask_where_to_save
        super().__init__(ui, logic)
        self.results = ResultsPanel(ui)
        ui.legendLabel.text = legend()
        ui.shellComboBox.connect("currentIndexChanged(int)", self._shell_chosen)
        ui.imagePathLineEdit.connect("currentPathChanged(QString)", self._image_chosen)
        ui.importButton.connect("clicked(bool)", self.on_import)
        ui.saveButton.connect("clicked(bool)", self.on_save)
        sections = (ui.importCollapsibleButton, ui.inputsCollapsibleButton, ui.wantedCollapsibleButton)
        for section in (*sections, ui.advancedCollapsibleButton):
            section.connect("contentsCollapsed(bool)", self.update)  # not all rows of a section are always shown
        self.update()

    # ------------------------------------------------------------------------------------------------ following state

    def update(self) -> None:
        """Bring everything in line with the parameters."""
        parameters, ui = self.parameters, self.ui
        self.models.show_about()
        ui.importNoteLabel.visible = bool(ui.importNoteLabel.text)
        if parameters is None:
            self.apply.set_ready(_("Choose a diffusion scan."))
            return
        network, from_file = parameters.method == Method.NETWORK, parameters.targets == Targets.FILE
        ui.weightsLabel.visible = ui.weightsPathLineEdit.visible = self.own_weights
        self.models.choose(parameters.model)
        ui.modelComboBox.enabled = network
        ui.directionCountSpinBox.visible = not from_file
        ui.targetFileLabel.visible = ui.targetFilePathLineEdit.visible = from_file
        for name in ("b0", "fa", "md", "errors"):
            made = {"b0": parameters.makeB0, "fa": parameters.makeFA, "md": parameters.makeMD}
            getattr(ui, f"{name}Selector").enabled = made.get(name, parameters.makeErrors)
        reason = why_not(parameters.inputVolume) or self._why_not_targets()
        self._watch(reason)
        refusal = "" if self.needed_models() else self.plan.refusal
        self.apply.set_ready(reason or self.why_not_weights() or refusal, self.what_comes_first())
        self._show_directions()
        self.results.show(parameters)

    def _why_not_targets(self) -> str:
        parameters = self.scene_parameters
        if parameters.targets != Targets.FILE or parameters.targetFile.is_file():
            return ""
        return _("Choose the file with the wanted directions.")

    def _watch(self, reason: str) -> None:
        """Ask the core about the scan when something has changed."""
        parameters = self.parameters
        identity = parameters.inputVolume.GetID() if parameters.inputVolume is not None else ""
        if identity != self._input_id:
            known, self._input_id = self._input_id, identity
            if known and parameters.shell:
                parameters.shell = 0  # of another scan; this comes back here
                return
        if reason or self.why_not_weights() or not self._set_up:
            self.planner.forget()
            self._take_plan(Plan(), again=False)
            return
        machine = tuple((model["name"], model["status"]) for model in self._models)
        if self.planner.follow(parameters.inputVolume, self._options(), machine):
            self.plan = Plan(shells=self.plan.shells)
            self.ui.planLabel.text = coloured(_("Looking at the directions..."), "quiet")
            show_lines(self.ui.planNoteLabel, [])

    def _take_plan(self, plan: Plan, again: bool = True) -> None:
        """Show what the core says; choose the first of several shells."""
        self.plan, ui = plan, self.ui
        lines = [text for text in (plan.scan_words(), plan.work_words()) if text]
        ui.planLabel.text = "<br>".join(coloured(text) for text in lines)
        ui.planLabel.visible = bool(lines) or not again
        self._fill_shells()
        show_lines(ui.planNoteLabel, [] if plan.code == "weights" else list(plan.warnings))
        parameters = self.parameters
        if again and parameters is not None:
            if plan.refusal and len(plan.shells) > 1 and not parameters.shell:
                parameters.shell = next(iter(plan.shells))  # the panel follows, and asks again
            else:
                self.update()

    def _fill_shells(self) -> None:
        combo, chosen = self.ui.shellComboBox, self.scene_parameters.shell
        shells = dict(self.plan.shells)
        if chosen and chosen not in shells:
            shells[chosen] = 0
        self._filling = True
        combo.clear()
        for b, count in shells.items():
            words = _("b = {b} ({count} directions)") if count else _("b = {b}")
            combo.addItem(words.format(b=b, count=count), b)
        if chosen:
            combo.setCurrentIndex(list(shells).index(chosen))
        self._filling = False
        combo.visible = self.ui.shellLabel.visible = len(shells) > 1

    def _shell_chosen(self) -> None:
        combo = self.ui.shellComboBox
        if not self._filling and self.parameters is not None and combo.currentIndex >= 0:
            self.parameters.shell = int(combo.itemData(combo.currentIndex))

    def _show_directions(self) -> None:
        """Show or hide the sphere of directions."""
        parameters, model = self.parameters, self.parameters.directionsModel
        if not parameters.showDirections:
            if model is not None and model.GetDisplayNode() is not None:
                model.GetDisplayNode().SetVisibility(False)
            self._drawn = None
        elif self.plan.targets and (self.plan is not self._drawn or model is None):
            self._drawn = self.plan
            parameters.directionsModel = show_directions(self.plan, parameters.inputVolume, model)
            if model is None and slicer.app.layoutManager() is not None:
                slicer.util.resetThreeDViews()

    _drawn: Any = None

    def bind(self, parameters: Any) -> None:
        """Follow other parameters; None for none."""
        self._input_id = ""
        if parameters is None:
            self.planner.forget()
        super().bind(parameters)

    # --------------------------------------------------------------------------------------------------- files in, out

    def _image_chosen(self, path: str) -> None:
        """Name the files beside an image, so that the person sees what will be read."""
        if not diffusion.is_nifti(path):
            return
        for widget, file in zip((self.ui.bvalsPathLineEdit, self.ui.bvecsPathLineEdit), diffusion.companions(path)):  # noqa: B905
            if file.is_file():
                widget.currentPath = str(file)

    def on_import(self) -> None:
        """Read a scan from files, and choose it."""
        ui = self.ui
        paths = [ui.imagePathLineEdit.currentPath, ui.bvalsPathLineEdit.currentPath, ui.bvecsPathLineEdit.currentPath]
        try:
            node = diffusion.import_dwi_files(*paths)
        except GlueError as error:
            ui.importNoteLabel.text = coloured(str(error), "error")
        else:
            for line in (ui.imagePathLineEdit, ui.bvalsPathLineEdit, ui.bvecsPathLineEdit):
                line.addCurrentPathToHistory()
            text = _("{name}: {count} volumes.").format(name=node.GetName(), count=node.GetNumberOfGradients())
            ui.importNoteLabel.text = coloured(text, "good")
            self.scene_parameters.inputVolume = node
            show_in_slices(node)
        self.update()

    def on_save(self) -> None:
        """Write the result as NIfTI with FSL's files."""
        result = self.scene_parameters.madeResult
        path = self.ask_path() if result is not None else ""
        if not path:
            return
        path = path if diffusion.is_nifti(path) else f"{path}.nii.gz"
        try:
            names = ", ".join(file.name for file in diffusion.export_fsl(result, path))
        except GlueError as error:
            self.progress.say(str(error), "error")
        else:
            self.progress.say(_("Saved: {names}.").format(names=names), "good")

    # -------------------------------------------------------------------------------------------------------- running

    @property
    def failure_text(self) -> str:
        """What the dialog says when something unforeseen happens."""
        return _("The directions could not be predicted.")

    @property
    def own_weights(self) -> bool:
        """True when weights of the person's own are chosen; spherical harmonics have none."""
        return super().own_weights and self.scene_parameters.method == Method.NETWORK

    def needed_models(self) -> list[Any]:
        """Return the models that a run needs and that are not on this computer: those that the core asks for."""
        parameters = self.scene_parameters
        if parameters.method != Method.NETWORK or self.own_weights:
            return []
        absent = [model for model in self._models if model["status"] == "absent" and model["task"] == self.task]
        chosen = [model for model in absent if model["name"] == parameters.model]
        if chosen or self.plan.code != "weights":
            return chosen
        words = self.plan.refusal.replace(",", " ").replace("'", " ").split()
        return [model for model in absent if model["name"] in words][:1]

    def _extras(self) -> list[str]:
        """Return the names of packages that the chosen outputs need and that are not installed."""
        options, mask = self._options(), self.scene_parameters.mask is not None
        missing = setup_core.missing_extras(needed_extras(options, mask=mask)) if self._set_up else []
        return [re.split(r"[^\w.-]", text)[0] for text in missing]

    def what_comes_first(self) -> str:
        """Return what Apply does before the run, so that nobody is surprised."""
        extras = self._extras()
        if extras:
            return _("To be installed first: {names}. You are asked before.").format(names=", ".join(extras))
        return super().what_comes_first()

    def set_up(self) -> None:
        """Install what is missing, after asking; raises GlueError."""
        super().set_up()
        options, mask = self._options(), self.scene_parameters.mask is not None
        extras = needed_extras(options, mask=mask)
        if setup_core.missing_extras(extras):
            self.progress.begin(_("Setting up"))
            setup_core.ensure_extras(extras, self.ask, self.progress.log)
            self.progress.end("")

    def make_run(self) -> UpsampleRun:
        """Return the run that the panel describes, not started."""
        parameters = self.scene_parameters
        return UpsampleRun(
            parameters.inputVolume,
            self._options(),
            mask=parameters.mask,
            result=parameters.result,
            b0=parameters.b0Volume if parameters.makeB0 else None,
            fa=parameters.faVolume if parameters.makeFA else None,
            md=parameters.mdVolume if parameters.makeMD else None,
            errors=parameters.errorsTable if parameters.makeErrors else None,
            on_progress=self.progress.progress,
            on_log=self.progress.log,
            on_done=self._done,
        )

    def _options(self) -> UpsampleOptions:
        parameters = self.scene_parameters
        return UpsampleOptions(
            directions=parameters.directionCount,
            target_file=str(parameters.targetFile) if parameters.targets == Targets.FILE else "",
            shell=parameters.shell,
            method=parameters.method.value,
            model="" if parameters.model == OWN_WEIGHTS else parameters.model,
            weights=self.ui.weightsPathLineEdit.currentPath if self.own_weights else "",
            keep_measured=parameters.keepMeasured,
            b0=parameters.makeB0,
            fa=parameters.makeFA,
            md=parameters.makeMD,
            errors=parameters.makeErrors,
        )

    def take_outputs(self, outputs: Any) -> None:
        """Remember and show what a run made."""
        parameters = self.scene_parameters
        if outputs.predicted:
            outputs.volume.GetDisplayNode().SetDiffusionComponent(outputs.predicted[0])
        with slicer.util.NodeModify(parameters):
            parameters.madeResult, parameters.madeB0 = outputs.volume, outputs.b0
            parameters.madeFA, parameters.madeMD = outputs.fa, outputs.md
            parameters.madeErrors, parameters.madeChart = outputs.errors, outputs.chart
            parameters.madeVerdict, parameters.madeLevel = sentence(outputs.verdict), outputs.level
            parameters.madeWarnings = outputs.warnings
        if parameters.showResult:
            show_in_slices(outputs.fa if outputs.fa is not None else outputs.volume)

    def close(self) -> None:
        """End what runs; the panel is going away."""
        self.planner.forget()
        super().close()


def ask_where_to_save() -> str:
    """Ask for the name of a NIfTI file; empty when the person does not want one."""
    title, kinds = _("Save for FSL"), "NIfTI (*.nii.gz *.nii)"
    return str(qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, "", kinds) or "")
