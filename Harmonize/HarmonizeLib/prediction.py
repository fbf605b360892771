"""Prediction of an age or a diagnosis from a scan: one run of ``mri-deep-tools predict``; the scan stays as it is."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MRIDeepToolsLib import nodes, settings
from MRIDeepToolsLib.errors import ResultError
from MRIDeepToolsLib.scene_run import SceneRun
from MRIDeepToolsLib.widgets import sentence
from slicer.i18n import tr as _

from .figures import prediction_table
from .run import export_scan, plain_words, read_record

__all__ = ["TASK", "PredictOptions", "PredictRun", "Prediction", "why_not_predictor"]

TASK = "predict"
"""Of the models that predict."""
_UNIT = re.compile(r"^(.*\S) \(([^()]+)\)$")


@dataclass(frozen=True)
class PredictOptions:
    """What a prediction is asked for, in the terms of ``mri-deep-tools predict``.

    ``model`` and ``weights`` (a .safetensors file) exclude each other. ``harmonization`` is a model, a file or
    ``none``; empty: what the model says of its training images. The others are those of :class:`.run.HarmonizeOptions`.
    """

    model: str = ""
    weights: str = ""
    harmonization: str = ""
    skull_stripped: bool = False
    hd_bet: bool = False
    bias_correction: bool = True
    registered: bool = False
    template: str = ""
    unchecked: bool = False
    device: str | None = None
    threads: int | None = None

    def words(self) -> list[str]:
        """Return the words of the command line that do not name files of a scan."""
        words = ["--weights", self.weights] if self.weights else ["--model", self.model]
        words += ["--harmonization", self.harmonization] if self.harmonization else []
        words += ["--template", self.template] if self.template else []
        flags = {
            "--skull-stripped": self.skull_stripped,
            "--hd-bet": self.hd_bet,
            "--no-bias-correction": not self.bias_correction,
            "--unchecked": self.unchecked,
        }
        return (
            words + [flag for flag, wanted in flags.items() if wanted] + settings.job_options(self.device, self.threads)
        )


@dataclass
class Prediction:
    """What a scan gave.

    ``value`` is a number in ``unit``, or the probability (0 to 1, ``unit`` empty) of the second of ``classes``;
    ``quantity`` says which, as the core words it. ``label`` is the likelier class, empty for a number. ``table`` is the
    table node of all that, ``disclaimer`` the core's sentence.
    """

    value: float
    quantity: str
    unit: str = ""
    label: str = ""
    classes: list[str] = field(default_factory=list)
    trained_range: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    disclaimer: str = ""
    table: Any = None
    model: str = ""
    device: str = ""
    seconds: float = 0.0

    def rows(self) -> list[tuple[str, str, str]]:
        """Return figure, value and unit, row by row."""
        if not self.classes and not self.label:
            title = _UNIT.sub(r"\1", self.quantity)
            rows = [(sentence(title)[:-1], f"{self.value:.1f}", self.unit)]
        else:
            rows = [(sentence(self.quantity)[:-1], f"{self.value:.3f}", _("0 to 1"))]
            rows += [(_("Likelier class"), self.label, _("of {classes}").format(classes=", ".join(self.classes)))]
        if len(self.trained_range) == 2:
            low, high = self.trained_range
            rows.append((_("Range of the training data"), f"{low:g} - {high:g}", self.unit))
        return rows


def why_not_predictor(model: str, weights: str) -> str:
    """Return why nothing can be predicted with this model or weights file, in a sentence; empty when it can."""
    if not model and not weights:
        return _("Choose a model that predicts, or a weights file of your own. None was ever published.")
    if model and weights:
        return _("A model and a weights file were both given. Give one of them.")
    if weights and not Path(weights).is_file():
        return _("The weights file of the prediction is not there. Choose another one.")
    if weights.lower().endswith((".h5", ".hdf5", ".keras")):
        return _("A Keras file does not say what it predicts. Use the command line, where that can be stated.")
    return ""


class PredictRun(SceneRun):
    """Predicts from one volume.

    Parameters
    ----------
    scan : T1w volume node.
    options : see :class:`PredictOptions`.
    brain, placement : as for :class:`.run.HarmonizeRun`.
    callbacks : as for :class:`MRIDeepToolsLib.scene_run.SceneRun`.

    """

    outputs: Prediction

    def __init__(
        self, scan: Any, options: PredictOptions, *, brain: Any = None, placement: Any = None, **callbacks: Any
    ) -> None:
        self.options, self.brain, self.placement = options, brain, placement
        super().__init__({"input": scan}, {}, **callbacks)

    def arguments(self, folder: Path) -> list[Any]:
        """Write scan, mask and transform into the job's folder and return the words of the command."""
        scan, options = self.inputs["input"], self.options
        given = export_scan(scan, folder, self.brain, self.placement, registered=options.registered)
        words = ["predict", folder / "scan.nii", "--csv", folder / "prediction.csv"]
        return [*words, *given, "--hide-names", *options.words()]

    def words(self, text: str) -> str:
        """Return a sentence of the core for the panel."""
        return plain_words(text)

    def take_in(self, outcome: Any) -> Prediction:
        """Read the core's table and make a table node of it."""
        folder, told = self.job.folder, outcome.results[-1] if outcome.results else {}
        record = read_record(folder / "prediction.json")
        made = _read(folder / "prediction.csv", str(told.get("quantity", "")), record.get("Prediction") or {})
        made.warnings = [plain_words(text) for text in outcome.warnings]
        made.disclaimer = str(record.get("Disclaimer", ""))
        made.model, made.device = str(told.get("model", "")), str(outcome.device.get("device", ""))
        made.seconds = outcome.seconds
        scan = self.guard.node("input")
        made.table = prediction_table(made.rows(), folder, nodes.output_name(scan, _("prediction")), self.keep)
        nodes.place_beside(made.table, scan)
        nodes.set_provenance(made.table, folder / "prediction.json")
        return made


def _read(path: Path, quantity: str, facts: Mapping[str, Any]) -> Prediction:
    """Return the prediction of the one row of the core's table; ResultError where there is none."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            row = next(csv.DictReader(stream))
        value = float(row[quantity])
    except (OSError, StopIteration, KeyError, ValueError):
        raise ResultError(_("The result {name} cannot be read.").format(name=path.name)) from None
    label = next((text for name, text in row.items() if name != quantity and name.startswith("predicted ")), "")
    classified = facts.get("Task") == "classification"
    unit = None if classified else _UNIT.match(quantity)
    return Prediction(
        value=value,
        quantity=quantity,
        unit=unit[2] if unit else "",
        label=label if classified else "",
        classes=[str(name) for name in facts.get("Classes") or []] if classified else [],
        trained_range=[float(end) for end in facts.get("TrainedRange") or []],
    )
