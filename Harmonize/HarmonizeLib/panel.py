"""What the panel does: says whether it can run, runs, cancels, shows the stages and the results."""

from __future__ import annotations

from typing import Any

import slicer
from MRIDeepToolsLib import settings
from MRIDeepToolsLib.input_checks import why_not
from MRIDeepToolsLib.model_widgets import OWN_WEIGHTS
from MRIDeepToolsLib.run_panel import RunPanel
from MRIDeepToolsLib.widgets import show_lines
from slicer.i18n import tr as _

from .methods import IGUANE
from .parameters import BrainSource, MethodChoice, Placement, ResultSpace
from .predict_panel import PredictSection
from .prediction import Prediction, PredictOptions, PredictRun
from .results import ResultsPanel, show_comparison
from .run import HarmonizeOptions, HarmonizeRun
from .scan_choice import scan_notes, why_not_harmonize
from .stages import Checklist
from .translate_panel import HARMONIZATION_ROWS, TranslateSection
from .translation import TranslateOutputs, TranslateRun, translation_notes, why_not_translate

__all__ = ["Panel"]


class Panel(RunPanel):
    """Behaviour of the panel.

    Parameters
    ----------
    ui : child widgets of ``Harmonize.ui``.
    logic : HarmonizeLogic.

    """

    task = IGUANE.task
    weights_setting = "harmonizeWeights"

    def __init__(self, ui: Any, logic: Any) -> None:
        super().__init__(ui, logic)
        self._predicting = False
        self.prediction = PredictSection(ui, self._predictor_chosen, self.on_predict)
        ui.predictorPathLineEdit.connect("currentPathChanged(QString)", self._predictor_file_chosen)
        self.translation = TranslateSection(ui, self._translation_changed)
        self.results = ResultsPanel(ui)
        labels = (ui.maskStateLabel, ui.biasStateLabel, ui.placeStateLabel, ui.modelStateLabel)
        self.stages = Checklist(labels)
        ui.templatePathLineEdit.currentPath = settings.get("harmonizeTemplate")
        ui.templatePathLineEdit.connect("currentPathChanged(QString)", self._template_chosen)
        for section in (ui.inputsCollapsibleButton, ui.advancedCollapsibleButton, ui.predictCollapsibleButton):
            section.connect("contentsCollapsed(bool)", self.update)  # not all rows of a section are always shown
        self.update()

    # ------------------------------------------------------------------------------------------------ following state

    def update(self) -> None:
        """Bring everything in line with the parameters."""
        parameters, ui = self.parameters, self.ui
        if parameters is None:
            self.models.show_about()
            self.apply.set_ready(_("Choose a T1w scan."))
            ui.predictButton.enabled = False
            return
        self.translation.update(parameters, shown=self.translates)
        for name in HARMONIZATION_ROWS:
            getattr(ui, name).visible = not self.translates
        ui.inputLabel.text = _("Scan:") if self.translates else _("T1w scan:")
        ui.inputsCollapsibleButton.text = _("Scan") if self.translates else _("Scan and stages")
        self.results.show(parameters)
        if self.translates:
            self._update_translation()
            return
        ui.weightsLabel.visible = ui.weightsPathLineEdit.visible = self.own_weights
        self.models.choose(parameters.model)
        self.models.show_about()
        ui.maskSelector.visible = parameters.brainSource == BrainSource.MASK
        ui.givenTransformSelector.visible = parameters.placement == Placement.TRANSFORM
        ui.changeSelector.enabled = parameters.makeChangeMap
        ui.brainMaskSelector.enabled = parameters.makeBrainMask
        ui.transformSelector.enabled = parameters.makeTransform
        ui.keepHeadCheckBox.enabled = self._head_is_there
        reason = self._why_not()
        show_lines(ui.inputNoteLabel, [] if reason else scan_notes(parameters.inputVolume))
        self.apply.set_ready(reason or self.why_not_weights(), self.what_comes_first())
        self.stages.tell(parameters.madeStages)
        self.prediction.update(parameters, self._why_not({}), busy=self.work is not None)

    def _update_translation(self) -> None:
        parameters, reason = self.parameters, self._why_not_translate()
        options = self.translation.options(parameters)
        notes = [] if reason else translation_notes(parameters.inputVolume, options.source, options.target)
        show_lines(self.ui.inputNoteLabel, notes)
        self.apply.set_ready(reason, self.what_comes_first())

    @property
    def _head_is_there(self) -> bool:
        """True when there is a head around the brain that can be kept."""
        parameters = self.scene_parameters
        return parameters.space == ResultSpace.SCAN and parameters.brainSource != BrainSource.STRIPPED

    @property
    def translates(self) -> bool:
        """True when the method is the translation into another contrast."""
        return self.scene_parameters.method == MethodChoice.SYNDIFF

    def _translated(self) -> dict[str, Any]:
        """Return the nodes that the person wants a translation to fill."""
        parameters = self.scene_parameters
        return {"result": parameters.translated, "spread": parameters.spread if parameters.makeSpread else None}

    def _why_not_translate(self) -> str:
        """Return why the scan cannot be translated as chosen."""
        parameters = self.scene_parameters
        if not self._set_up and not self._models:  # which models there are is known after the first run's set-up
            return why_not(parameters.inputVolume, _("Choose a scan."))
        return why_not_translate(parameters.inputVolume, self.translation.options(parameters), self._translated())

    def _translation_changed(self, name: str, value: str) -> None:
        if self.parameters is not None and name:
            setattr(self.parameters, name, value)
        self.update()

    def _given(self) -> dict[str, Any]:
        """Return brain mask and transform that the person gives."""
        parameters = self.scene_parameters
        masked, placed = parameters.brainSource == BrainSource.MASK, parameters.placement == Placement.TRANSFORM
        return {
            "brain": parameters.maskNode if masked else None,
            "placement": parameters.givenTransform if placed else None,
        }

    def _targets(self) -> dict[str, Any]:
        """Return the nodes that the person wants to be filled."""
        parameters = self.scene_parameters
        return {
            "result": parameters.result,
            "change": parameters.changeMap if parameters.makeChangeMap else None,
            "mask": parameters.brainMask if parameters.makeBrainMask else None,
            "transform": parameters.transform if parameters.makeTransform else None,
        }

    def _why_not(self, targets: dict[str, Any] | None = None) -> str:
        """Return why the inputs cannot be used, or the outputs (those of the panel, unless given)."""
        parameters = self.scene_parameters
        return why_not_harmonize(
            parameters.inputVolume,
            **self._given(),
            needs_mask=parameters.brainSource == BrainSource.MASK,
            needs_transform=parameters.placement == Placement.TRANSFORM,
            registered=parameters.placement == Placement.REGISTERED,
            template=self._options().template,
            unchecked=parameters.unchecked,
            targets=self._targets() if targets is None else targets,
        )

    def _machine_known(self, info: Any) -> None:
        self.prediction.set_models(info.get("models") or [])
        self.translation.set_models(info.get("models") or [])
        super()._machine_known(info)

    def _predictor_chosen(self, name: str) -> None:
        if self.parameters is not None:
            self.parameters.predictor = name

    def _predictor_file_chosen(self, path: str) -> None:
        settings.set_value("predictWeights", path)
        self.update()

    def _template_chosen(self, path: str) -> None:
        settings.set_value("harmonizeTemplate", path)
        self.update()

    # -------------------------------------------------------------------------------------------------------- running

    @property
    def failure_text(self) -> str:
        """What the dialog says when something unforeseen happens."""
        if self._predicting:
            return _("Nothing could be predicted.")
        return _("The scan could not be translated.") if self.translates else _("The scan could not be harmonized.")

    def on_apply(self) -> None:
        """Harmonize, after what must be there first."""
        self._run_as(predicting=False)

    def on_predict(self) -> None:
        """Predict, after what must be there first."""
        self._run_as(predicting=True)

    def _run_as(self, *, predicting: bool) -> None:
        if self._preparing or self.work is not None:
            return
        self._predicting = predicting
        super().on_apply()
        if predicting and self.work is None:  # nothing was started: Apply is as it was
            self.ui.applyButton.enabled = not (self._why_not() or self.why_not_weights())

    def _begin(self, work: Any, text: str) -> None:
        super()._begin(work, text)
        self.prediction.begin()

    def needed_models(self) -> list[Any]:
        """Return the facts of the models that a run needs and that are not on this computer."""
        if self._predicting:
            return self.prediction.needed_models(self.scene_parameters)
        if self.translates:
            return self.translation.needed_models(self.scene_parameters, self._models)
        options = self._options()
        return [] if options.weights else options.method.needed_models(options.model, self._models)

    def start_run(self) -> None:
        """Start the run that the panel describes; of a translation, look again at models that a set-up brought."""
        if self.translates and not self._predicting:
            self.translation.set_models(self._models)
            self.translation.update(self.scene_parameters, shown=True)
            reason = self._why_not_translate()
            if reason:
                self._over(reason, "error")
                return
        super().start_run()

    def make_run(self) -> HarmonizeRun | PredictRun | TranslateRun:
        """Return the run that the panel describes, not started."""
        self.stages.begin()
        scan, options = self.scene_parameters.inputVolume, self._options()
        told = {"on_progress": self._progressed, "on_log": self.progress.log, "on_done": self._done}
        if self.translates and not self._predicting:
            return TranslateRun(scan, self.translation.options(self.scene_parameters), **self._translated(), **told)
        if not self._predicting:
            return HarmonizeRun(scan, options, **self._given(), **self._targets(), **told)
        names = ("skull_stripped", "hd_bet", "bias_correction", "registered", "template", "unchecked")
        same = {name: getattr(options, name) for name in names}
        chosen = PredictOptions(**self.prediction.choice(self.scene_parameters), **same)
        return PredictRun(scan, chosen, **self._given(), **told)

    def _options(self) -> HarmonizeOptions:
        parameters = self.scene_parameters
        return HarmonizeOptions(
            model="" if parameters.model == OWN_WEIGHTS else parameters.model,
            weights=self.ui.weightsPathLineEdit.currentPath if self.own_weights else "",
            skull_stripped=parameters.brainSource == BrainSource.STRIPPED,
            hd_bet=parameters.brainSource == BrainSource.HD_BET,
            age=parameters.age,
            bias_correction=parameters.biasCorrection,
            registered=parameters.placement == Placement.REGISTERED,
            template=self.ui.templatePathLineEdit.currentPath,
            space=parameters.space.value,
            keep_head=parameters.keepHead and self._head_is_there,
            unchecked=parameters.unchecked,
            change=parameters.makeChangeMap,
            mask=parameters.makeBrainMask,
            transform=parameters.makeTransform,
            tissues=parameters.makeTissues,
        )

    def _progressed(self, fraction: float, stage: str, eta_s: float | None) -> None:
        self.stages.at(stage)
        self.progress.progress(fraction, stage, eta_s)

    def take_outputs(self, outputs: Any) -> None:
        """Remember and show what a run made."""
        parameters = self.scene_parameters
        if isinstance(outputs, Prediction):
            with slicer.util.NodeModify(parameters):
                parameters.madePrediction, parameters.madePredictionNotes = outputs.table, outputs.warnings
                parameters.madePredictionDisclaimer = outputs.disclaimer
            return
        if isinstance(outputs, TranslateOutputs):
            self._take_translation(outputs)
            return
        with slicer.util.NodeModify(parameters):
            parameters.madeContrast = ""
            parameters.madeBefore, parameters.madeResult = outputs.before, outputs.result
            parameters.madeChangeMap, parameters.madeFactor = outputs.change, outputs.factor
            parameters.madeFigures, parameters.madeTissues = outputs.figures, outputs.tissues
            parameters.madeHistogram, parameters.madeJoint = outputs.histogram, outputs.joint
            parameters.madeStages, parameters.madeWarnings = outputs.stages, outputs.warnings
        if parameters.showResult:
            show_comparison(outputs.before, outputs.result, outputs.change, outputs.factor)

    def _take_translation(self, outputs: TranslateOutputs) -> None:
        parameters = self.scene_parameters
        with slicer.util.NodeModify(parameters):
            parameters.madeBefore, parameters.madeResult = outputs.before, outputs.result
            parameters.madeChangeMap, parameters.madeContrast = outputs.spread, outputs.target
            parameters.madeFigures = parameters.madeTissues = None
            parameters.madeHistogram = parameters.madeJoint = None
            parameters.madeStages, parameters.madeWarnings = {}, outputs.warnings
        if parameters.showResult:
            show_comparison(outputs.before, outputs.result, outputs.spread, contrast=outputs.target)

    def _over(self, text: str, kind: str) -> None:
        self.stages.end(done=kind == "good")
        super()._over(text, kind)
