"""The section of the panel for translation into another contrast: model, contrasts, sampling, outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from MRIDeepToolsLib import settings
from MRIDeepToolsLib.model_widgets import OWN_WEIGHTS, ModelChoice
from MRIDeepToolsLib.widgets import coloured
from slicer.i18n import tr as _

from .translation import TASK, TranslateOptions, directions, sounds_like

__all__ = ["HARMONIZATION_ROWS", "TranslateSection"]

HARMONIZATION_ROWS = (
    *("brainLabel", "brainComboBox", "maskStateLabel", "maskSelector", "biasLabel", "biasCheckBox", "biasStateLabel"),
    *("placeLabel", "placeComboBox", "placeStateLabel", "givenTransformSelector", "modelLabel", "modelComboBox"),
    *("modelStateLabel", "weightsLabel", "weightsPathLineEdit", "modelAboutLabel"),
    *("spaceLabel", "spaceComboBox", "keepHeadCheckBox", "ageLabel", "ageSpinBox", "templateLabel"),
    *("templatePathLineEdit", "checksLabel", "uncheckedCheckBox", "outputsCollapsibleButton"),
    "predictCollapsibleButton",
)
"""Widgets that belong to the other method."""


class TranslateSection:
    """Behaviour of the section.

    Parameters
    ----------
    ui : child widgets of ``Harmonize.ui``.
    on_changed : called with the name of a parameter and its value when the person chooses.

    """

    def __init__(self, ui: Any, on_changed: Callable[[str, str], None]) -> None:
        self._ui, self._on_changed, self._filling = ui, on_changed, False
        self._pairs: list[tuple[str, str]] = []
        self._models = ModelChoice(
            ui.translateModelComboBox,
            ui.translateAboutLabel,
            TASK,
            lambda name: on_changed("translator", name),
        )
        self.listed: Sequence[Mapping[str, Any]] = []
        ui.translatePathLineEdit.currentPath = settings.get("translateModelFolder")
        ui.translatePathLineEdit.connect("currentPathChanged(QString)", self._folder_chosen)
        ui.directionComboBox.connect("currentIndexChanged(int)", self._direction_chosen)
        ui.translateWarningLabel.text = coloured(lesion_warning(), "warning")

    def set_models(self, models: Sequence[Mapping[str, Any]]) -> None:
        """Offer the models that translate."""
        self.listed = models
        self._models.set_models(models)

    def options(self, parameters: Any) -> TranslateOptions:
        """Return what the person asks for."""
        own = parameters.translator == OWN_WEIGHTS
        pair = next((pair for pair in self._pairs if pair[1] == parameters.translateTo), ("", ""))
        return TranslateOptions(
            target=pair[1],
            source=pair[0],
            model="" if own else self._model(parameters),
            weights=self._ui.translatePathLineEdit.currentPath if own else "",
            samples=parameters.samples,
            seed=parameters.seed,
            same_noise=parameters.sameNoise,
            slices=parameters.slices.strip(),
            spread=parameters.makeSpread,
        )

    def update(self, parameters: Any, *, shown: bool) -> None:
        """Follow the parameters; ``shown``: this is the method that is chosen."""
        ui = self._ui
        ui.translateCollapsibleButton.visible = shown
        if not shown:
            return
        self._models.choose(parameters.translator)
        self._models.show_about()
        own = parameters.translator == OWN_WEIGHTS
        ui.translatePathLabel.visible = ui.translatePathLineEdit.visible = own
        folder = ui.translatePathLineEdit.currentPath if own else ""
        self._fill([] if own and not folder else directions(self._model(parameters), folder, self.listed), parameters)
        ui.spreadSelector.enabled = parameters.makeSpread

    def needed_models(self, parameters: Any, models: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the facts of the chosen model where it is not on this computer."""
        return [item for item in models if item["name"] == parameters.translator and item["status"] == "absent"]

    def _model(self, parameters: Any) -> str:
        """Return the name of the chosen model, or of the first that is on this computer; empty where none is."""
        here = [item["name"] for item in self.listed if item["task"] == TASK and item["status"] != "absent"]
        return parameters.translator or next(iter(here), "")

    def _fill(self, pairs: list[tuple[str, str]], parameters: Any) -> None:
        """Offer the directions of the model; the chosen contrast stays chosen where the model makes it."""
        box = self._ui.directionComboBox
        if pairs != self._pairs:
            self._filling, self._pairs = True, pairs
            box.clear()
            for source, target in pairs:
                box.addItem(_("{source} to {target}").format(source=source, target=target), target)
            self._filling = False
        box.enabled = len(pairs) > 0
        targets = [target for _source, target in pairs]
        if targets and parameters.translateTo not in targets:
            self._on_changed("translateTo", _likely_target(pairs, parameters.inputVolume))
        elif targets and box.currentIndex != targets.index(parameters.translateTo):
            box.setCurrentIndex(targets.index(parameters.translateTo))

    def _direction_chosen(self, number: int) -> None:
        if not self._filling and 0 <= number < len(self._pairs):
            self._on_changed("translateTo", self._pairs[number][1])

    def _folder_chosen(self, path: str) -> None:
        settings.set_value("translateModelFolder", path)
        self._on_changed("", "")


def _likely_target(pairs: Sequence[tuple[str, str]], scan: Any) -> str:
    """Return the contrast to make of a scan: by what its name sounds like, else the first that the model makes."""
    name = scan.GetName() if scan is not None else ""
    return next((target for source, target in pairs if sounds_like(name, source)), pairs[0][1])


def lesion_warning() -> str:
    """Return what everybody must know of translated images."""
    return _("A translated image is synthetic: lesions can appear in it or vanish. Never read findings from it.")
