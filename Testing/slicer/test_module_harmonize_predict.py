"""Prediction in the module Harmonize with the real core: random networks of 32 voxels a side, the template at 3 mm."""

from __future__ import annotations

import csv
import re
import subprocess
import sys

import numpy as np
import pytest
from harmonize_case import MODELS
from module_helpers import add_volume, keep_apart, message, results_of, wait_idle
from synthsegment_case import model

MAKE_MODELS = """
import sys, torch
from pathlib import Path
from mri_deep_tools.harmonize.network import Predictor
from mri_deep_tools.harmonize.predictor_weights import PredictorSpec, save_prediction_model
shape, folder = (32, 32, 32), Path(sys.argv[1])
specs = {
    "age": PredictorSpec(shape=shape, trained_range=(20.0, 30.0)),
    "diagnosis": PredictorSpec("classification", "diagnosis", "", ("CN", "AD"), shape),
}
for name, spec in specs.items():
    torch.manual_seed(1)
    network = Predictor.for_shape(shape)
    torch.nn.init.constant_(network.dense.bias, 50.0 if name == "age" else 0.3)
    network.dense.weight.data *= 10000 if name == "age" else 1000  # untrained statistics leave little
    save_prediction_model(folder / f"{name}.safetensors", network.state_dict(), spec)
"""
PREPARED = {"skull_stripped": True, "bias_correction": False, "registered": True}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    keep_apart(tmp_path_factory, monkeypatch)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the folder of two random predictors; torch stays out of this process."""
    folder = tmp_path_factory.mktemp("predictors")
    subprocess.run([sys.executable, "-c", MAKE_MODELS, str(folder)], check=True, timeout=120)
    return folder


@pytest.fixture
def module(host):
    handle = host.load("Harmonize")
    from MRIDeepToolsLib import settings

    settings.reset()
    settings.set_value("device", "cpu")
    settings.set_value("threads", 1)
    yield handle
    settings.reset()


@pytest.fixture
def scan(module):
    """Add the template's brain at 3 mm, where it lies in MNI space."""
    import slicer
    from mri_deep_tools.harmonize.template import load_template

    template = load_template(None)
    values = np.ascontiguousarray(template.data[::3, ::3, ::3].astype(np.float32).transpose())
    volume = add_volume("Anna T1w", values.shape, template.affine @ np.diag([3.0, 3.0, 3.0, 1.0]))
    slicer.util.updateVolumeFromArray(volume, values)
    return volume


def command_row(scan, weights, folder) -> dict[str, str]:
    """Return the row that the bare command writes for a scan."""
    from MRIDeepToolsLib import nodes

    nodes.export_volume(scan, folder / "bare.nii")
    words = ["predict", folder / "bare.nii", "--weights", weights, "--csv", folder / "predicted.csv"]
    words += [
        "--skull-stripped",
        "--no-bias-correction",
        "--registered",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--overwrite",
    ]
    command = [sys.executable, "-m", "mri_deep_tools", *map(str, words)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    with (folder / "predicted.csv").open(newline="", encoding="utf-8") as stream:
        return next(csv.DictReader(stream))


def cells(table) -> list[list[str]]:
    content = table.GetTable()
    columns, rows = content.GetNumberOfColumns(), content.GetNumberOfRows()
    return [[content.GetValue(row, column).ToString() for column in range(columns)] for row in range(rows)]


def plain(label) -> str:
    return re.sub("<[^>]+>", "", label.text)


def test_the_console_gives_what_the_command_gives(host, module, scan, models, tmp_path):
    import slicer

    host.set_main_window(False)
    before, place = slicer.util.arrayFromVolume(scan).copy(), scan.GetOrigin()
    logic = module.python.HarmonizeLogic()
    age = logic.predict(scan, weights=models / "age.safetensors", **PREPARED)
    row = command_row(scan, models / "age.safetensors", tmp_path)
    assert age.value == pytest.approx(float(row["predicted age (years)"]), abs=1e-3)
    assert abs(age.value - 50) > 0.1  # it comes from the scan, not from the network's last bias alone
    assert (age.unit, age.label, age.trained_range) == ("years", "", [20.0, 30.0])
    assert "Research use only" in age.disclaimer and age.model == "age.safetensors"
    assert cells(age.table) == [
        ["Predicted age", f"{age.value:.1f}", "years"],
        ["Range of the training data", "20 - 30", "years"],
    ]
    assert age.table.GetName() == "Anna T1w - prediction"
    assert age.table.GetAttribute("MRIDeepTools.Command") == "predict"
    made = logic.predict(scan, weights=models / "diagnosis.safetensors", **PREPARED)
    row = command_row(scan, models / "diagnosis.safetensors", tmp_path)
    assert made.value == pytest.approx(float(row["probability of AD"]), abs=1e-4)
    assert made.label == row["predicted diagnosis"] and made.classes == ["CN", "AD"]
    assert cells(made.table) == [
        ["Probability of AD", f"{made.value:.3f}", "0 to 1"],
        ["Likelier class", made.label, "of CN, AD"],
    ]
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(scan), before)
    assert scan.GetOrigin() == place and scan.GetAttribute("MRIDeepTools.Command") is None
    assert results_of("vtkMRMLVolumeNode") == []


def test_what_cannot_predict_is_refused_with_a_sentence(host, module, scan, models, tmp_path):
    from MRIDeepToolsLib.errors import GlueError

    logic = module.python.HarmonizeLogic()
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"these are no weights")
    keras = tmp_path / "last_model.h5"
    keras.write_bytes(b"keras")
    good = models / "age.safetensors"
    cases = [
        ({}, "Choose a model that predicts"),
        ({"weights": tmp_path / "gone.safetensors"}, "is not there"),
        ({"weights": keras}, "does not say what it predicts"),
        ({"weights": good, "model": "mine"}, "Give one of them"),
        ({"weights": wrong}, r"Wrong\.safetensors is not"),
    ]
    for words, reason in cases:
        with pytest.raises(GlueError, match=reason) as caught:
            logic.predict(scan, **words, **PREPARED)
        assert str(caught.value).endswith(".") and "Traceback" not in str(caught.value)
    with pytest.raises(GlueError, match="Choose a T1w scan"):
        logic.predict(None, weights=good)
    assert results_of() == []


@pytest.mark.slow
def test_the_panel_predicts_with_a_model_alone(host, module, scan, models, tmp_path):
    """Disabled without a model; then value, unit, warning and disclaimer; a wrong file leaves the last result."""
    widget = module.widget()
    ui, panel = widget.ui, widget.panel
    wait_idle(host, widget, 120)
    parameters = panel.parameters
    parameters.brainSource = type(parameters.brainSource).STRIPPED
    parameters.placement = type(parameters.placement).REGISTERED
    parameters.biasCorrection = False
    assert ui.predictCollapsibleButton.collapsed
    assert not ui.predictButton.enabled and "Choose a model that predicts" in ui.predictButton.toolTip
    ui.predictCollapsibleButton.collapsed = False
    assert [ui.predictorComboBox.itemData(row) for row in range(ui.predictorComboBox.count)] == ["", "own"]
    assert not ui.predictorPathLineEdit.visible and not ui.predictionTableView.visible
    ui.predictorComboBox.setCurrentIndex(1)
    assert parameters.predictor == "own" and ui.predictorPathLineEdit.visible
    assert not ui.predictButton.enabled
    ui.predictorPathLineEdit.currentPath = str(models / "age.safetensors")
    assert ui.predictButton.enabled
    parameters.result = scan  # of no concern to a prediction
    assert ui.predictButton.enabled and not ui.applyButton.enabled
    ui.predictButton.click()
    assert not ui.predictButton.enabled and ui.applyButton.text == "Cancel"
    wait_idle(host, widget, 300)
    assert panel.work is None and parameters.madePrediction is not None, message(widget)
    table = cells(parameters.madePrediction)
    row = command_row(scan, models / "age.safetensors", tmp_path)
    assert table[0] == ["Predicted age", f"{float(row['predicted age (years)']):.1f}", "years"]
    assert ui.predictionTableView.visible
    assert "outside the range of the training data" in plain(ui.predictionWarningsLabel)
    assert "Research use only" in plain(ui.predictionDisclaimerLabel)
    assert "not a diagnosis" in plain(ui.predictionDisclaimerLabel)
    assert parameters.madeResult is None and not ui.applyButton.enabled and ui.predictButton.enabled
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"these are no weights")
    parameters.result = None
    ui.predictorPathLineEdit.currentPath = str(wrong)
    ui.predictButton.click()
    wait_idle(host, widget, 120)
    assert "Wrong.safetensors is not" in message(widget) and ui.applyButton.enabled
    assert cells(parameters.madePrediction) == table


def test_only_models_that_predict_are_offered(host, module, scan, monkeypatch):
    """By name too; one that is not here and cannot be fetched is told of before anything starts."""
    from MRIDeepToolsLib import core_info

    listed = [model("my-age", "predict", "installed"), model("far-age", "predict", "absent"), *MODELS]
    listed[1]["files"] = [{"sources": []}]
    monkeypatch.setattr(core_info, "_known", {"version": "1", "devices": [{"name": "cpu"}], "models": listed})
    widget = module.widget()
    ui, panel = widget.ui, widget.panel
    wait_idle(host, widget, 120)
    combo = ui.predictorComboBox
    assert [combo.itemData(row) for row in range(combo.count)] == ["", "my-age", "far-age", "own"]
    assert "my-age" not in [ui.modelComboBox.itemData(row) for row in range(ui.modelComboBox.count)]
    combo.setCurrentIndex(1)
    assert panel.parameters.predictor == "my-age" and ui.predictButton.enabled
    panel._predicting = True
    assert panel.needed_models() == []
    words = panel.make_run().options.words()
    assert words[:2] == ["--model", "my-age"] and "--weights" not in words
    combo.setCurrentIndex(2)
    ui.predictButton.click()
    host.pump(0.1)
    assert panel.work is None and "far-age" in message(widget) and "import it there" in message(widget)
