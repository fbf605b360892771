"""The section of the panel that predicts: choice of the model, button, result with its disclaimer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from MRIDeepToolsLib import settings
from MRIDeepToolsLib.model_widgets import OWN_WEIGHTS, ModelChoice
from MRIDeepToolsLib.widgets import coloured, show_lines
from slicer.i18n import tr as _

from .prediction import TASK, why_not_predictor

__all__ = ["PredictSection"]


class PredictSection:
    """Behaviour of the section.

    Parameters
    ----------
    ui : child widgets of ``Harmonize.ui``.
    on_chosen : called with the name of the model that the person chooses.
    on_predict : called for a click.

    """

    def __init__(self, ui: Any, on_chosen: Callable[[str], None], on_predict: Callable[[], None]) -> None:
        self._ui, self._tip = ui, ui.predictButton.toolTip
        self._models = ModelChoice(ui.predictorComboBox, ui.predictorAboutLabel, TASK, on_chosen, nothing=_("None"))
        self.listed: Sequence[Any] = []
        ui.predictorPathLineEdit.currentPath = settings.get("predictWeights")
        ui.predictButton.connect("clicked(bool)", on_predict)

    def set_models(self, models: Sequence[Any]) -> None:
        """Offer the models that predict."""
        self.listed = models
        self._models.set_models(models)

    def choice(self, parameters: Any) -> dict[str, str]:
        """Return model and weights file that the person chose; both are empty where nothing is."""
        own = parameters.predictor == OWN_WEIGHTS
        path = self._ui.predictorPathLineEdit.currentPath
        return {"model": "" if own else parameters.predictor, "weights": path if own else ""}

    def update(self, parameters: Any, reason: str, *, busy: bool) -> None:
        """Follow the parameters; ``reason`` says why the scan or its preparation cannot be used."""
        ui = self._ui
        self._models.choose(parameters.predictor)
        self._models.show_about()
        own = parameters.predictor == OWN_WEIGHTS
        ui.predictorPathLabel.visible = ui.predictorPathLineEdit.visible = own
        reason = why_not_predictor(**self.choice(parameters)) or reason
        ui.predictButton.enabled = not reason and not busy
        ui.predictButton.toolTip = reason or self._tip
        table, notes = parameters.madePrediction, list(parameters.madePredictionNotes)
        ui.predictionTableView.setMRMLTableNode(table)
        ui.predictionTableView.visible = table is not None
        if table is not None:
            ui.predictionTableView.resizeColumnsToContents()
        show_lines(ui.predictionWarningsLabel, notes if table is not None else [])
        text = parameters.madePredictionDisclaimer if table is not None else ""
        ui.predictionDisclaimerLabel.text = coloured(f"{text} {not_a_finding()}") if text else ""
        ui.predictionDisclaimerLabel.visible = bool(text)

    def begin(self) -> None:
        """Nothing else can be started while something runs."""
        self._ui.predictButton.enabled = False

    def needed_models(self, parameters: Any) -> list[Any]:
        """Return the facts of the chosen model where it is not on this computer."""
        name = self.choice(parameters)["model"]
        return [item for item in self.listed if item["name"] == name and item["status"] == "absent"]


def not_a_finding() -> str:
    """Return what a prediction is not."""
    return _("A prediction compares the scan with those of one training set; it is not a diagnosis.")
