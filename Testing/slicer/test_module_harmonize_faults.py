"""The module Harmonize when something goes wrong, is missing, or is taken away in the middle of a run; both methods."""

from __future__ import annotations

import time

import numpy as np
import pytest
from harmonize_case import choose_method, transform_node, use_fake
from module_helpers import (
    add_volume,
    apply,
    message,
    results_of,
    run_until_labels_are_due,
    scene_is_clean,
    set_mode,
    wait_idle,
)

pytest_plugins = ["harmonize_case"]


def slicer_array(volume) -> np.ndarray:
    """Return a copy of the voxels."""
    import slicer

    return slicer.util.arrayFromVolume(volume).copy()


FAULTS = {
    "error": "GPU is full",
    "crash": "SIGSEGV",
    "killed": "memory ran out",
    "shifted": "away from the input",
}


@pytest.mark.parametrize("mode", [*FAULTS, "refuse"])
def test_what_goes_wrong_is_told_and_nothing_stays(host, module, widget, way, monkeypatch, mode):
    words = FAULTS.get(mode, way.refused)
    set_mode(monkeypatch, mode)
    apply(host, widget)
    assert words in message(widget), message(widget)
    assert "--" not in message(widget)
    assert scene_is_clean()
    assert widget.ui.applyButton.text == "Apply" and widget.ui.applyButton.enabled
    assert way.name == "syndiff" or "stopped" in widget.ui.modelStateLabel.text
    set_mode(monkeypatch, "good")
    apply(host, widget)
    assert "Done in" in message(widget)
    assert way.name == "syndiff" or "done" in widget.ui.modelStateLabel.text


@pytest.mark.slow
def test_a_transform_that_is_not_the_reported_one_is_told(host, module, widget, monkeypatch):
    widget.panel.parameters.makeTransform = True
    set_mode(monkeypatch, "inverted")
    apply(host, widget)
    assert "not the one that the program reports" in message(widget)
    assert scene_is_clean()


def test_without_its_standard_deviation_a_translation_changes_nothing(host, module, widget, monkeypatch):
    """Also not the nodes that the person chose."""
    choose_method(widget, "syndiff")
    parameters = widget.panel.parameters
    parameters.translated = add_volume("Mine")
    before = slicer_array(parameters.translated)
    set_mode(monkeypatch, "half")
    apply(host, widget)
    assert "spread.nii cannot be read" in message(widget), message(widget)
    assert scene_is_clean()
    np.testing.assert_array_equal(slicer_array(parameters.translated), before)
    assert parameters.madeResult is None


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["garbage", "flood"])
def test_talkative_programs_do_no_harm(host, module, widget, way, monkeypatch, mode):
    set_mode(monkeypatch, mode)
    apply(host, widget)
    assert "Done in" in message(widget)
    assert len(widget.panel.progress.log_text) <= 257 * 1024


def test_cancel_ends_within_two_seconds(host, module, widget, way, monkeypatch):
    set_mode(monkeypatch, "slow")
    widget.ui.applyButton.click()
    assert widget.ui.applyButton.text == "Cancel"
    assert host.wait_until(lambda: f"{way.stage} - 43 %" in widget.panel.progress.ui.progressBar.format, 30)
    begin = time.monotonic()
    widget.ui.applyButton.click()
    wait_idle(host, widget, 10)
    assert time.monotonic() - begin < 2.0
    assert "Cancelled" in message(widget)
    assert widget.ui.applyButton.text == "Apply"
    assert scene_is_clean()


def test_scene_closed_meanwhile(host, module, widget, way, monkeypatch, tmp_path):
    import slicer

    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    slicer.mrmlScene.Clear(0)
    go_on()
    wait_idle(host, widget)
    assert scene_is_clean()
    assert widget.panel.parameters is not None
    assert "closed" in message(widget)


@pytest.mark.parametrize("which", ["input", "output"])
def test_node_deleted_meanwhile(host, module, widget, way, monkeypatch, tmp_path, which):
    import slicer

    parameters = widget.panel.parameters
    victim = parameters.inputVolume
    if which == "output":
        victim = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
        setattr(parameters, way.second, victim)
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    slicer.mrmlScene.RemoveNode(victim)
    go_on()
    wait_idle(host, widget)
    assert scene_is_clean()
    assert "deleted" in message(widget)


@pytest.mark.slow
def test_a_mask_is_not_needed_any_more_once_it_has_been_written(host, module, widget, monkeypatch, tmp_path):
    import slicer

    parameters = widget.panel.parameters
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    mask.CopyOrientation(parameters.inputVolume)
    values = slicer.util.arrayFromVolume(parameters.inputVolume) > 150
    slicer.util.updateVolumeFromArray(mask, values.astype(np.uint8))
    parameters.brainSource, parameters.maskNode = type(parameters.brainSource).MASK, mask
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    slicer.mrmlScene.RemoveNode(mask)
    go_on()
    wait_idle(host, widget)
    assert "--mask mask-in.nii" in widget.panel.progress.log_text
    assert parameters.madeResult is not None


@pytest.mark.slow
def test_a_transform_above_the_scan_is_not_overwritten(host, module, widget):
    parameters = widget.panel.parameters
    above = transform_node(np.eye(4))
    parameters.inputVolume.SetAndObserveTransformNodeID(above.GetID())
    parameters.makeTransform, parameters.transform = True, above
    apply(host, widget)
    assert "under the chosen transform" in message(widget)
    assert scene_is_clean()


@pytest.mark.slow
def test_a_mask_beside_the_scan_is_told_before_anything_runs(host, module, widget):
    import slicer

    parameters = widget.panel.parameters
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Far away")
    far = add_volume("far", (8, 8, 8), np.diag([1.0, 1.0, 1.0, 1.0]))
    far.SetOrigin(5000, 0, 0)
    mask.CopyOrientation(far)
    slicer.util.updateVolumeFromArray(mask, np.ones((8, 8, 8), np.uint8))
    parameters.brainSource, parameters.maskNode = type(parameters.brainSource).MASK, mask
    widget.ui.applyButton.click()
    wait_idle(host, widget)
    assert "inside the scan" in message(widget)
    assert widget.ui.applyButton.text == "Apply" and widget.ui.applyButton.enabled
    assert widget.ui.maskStateLabel.text == ""


def test_module_left_during_a_run(host, module, widget, way, monkeypatch, tmp_path):
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    module.leave()
    assert widget.panel.parameters is None
    go_on()
    wait_idle(host, widget)
    assert len(results_of("vtkMRMLScalarVolumeNode")) == 2
    module.enter()
    assert widget.panel.parameters.madeResult is not None
    assert not widget.ui.resultsCollapsibleButton.collapsed
    assert way.name == "syndiff" or "done" in widget.ui.modelStateLabel.text


def test_module_reloaded_during_a_run(host, module, widget, way, monkeypatch, tmp_path):
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    job = widget.panel.work.job
    module.reload()
    assert host.wait_until(lambda: not job.running, 10)
    assert job.outcome.status == "cancelled"
    go_on()
    new = module.widget()
    assert new is not widget
    wait_idle(host, new)
    use_fake(monkeypatch)
    apply(host, new)
    assert "Done in" in message(new)


def test_panel_closed_during_a_run(host, module, widget, way, monkeypatch, tmp_path):
    run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    job = widget.panel.work.job
    module.close()
    assert host.wait_until(lambda: not job.running, 10)
    assert scene_is_clean()


def test_set_up_declined(host, module, way, monkeypatch):
    """On a computer without the core, where no models are known either, Apply asks to set up."""
    from MRIDeepToolsLib import core_info, packages

    monkeypatch.setattr(packages, "installed_version", lambda name, path=None: None)
    monkeypatch.setattr(core_info, "_known", None)
    module.close()
    widget = module.widget()
    choose_method(widget, way.name)
    questions = []
    widget.panel.ask = lambda question, details="": questions.append((question, details))
    widget.panel.refresh_machine()
    widget.panel.update()
    assert "first run installs" in message(widget)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert len(questions) == 1 and "torch" in questions[0][1]
    assert "declined" in message(widget)
    assert widget.ui.applyButton.enabled and widget.panel.work is None


def test_models_are_asked_for_offline_and_damaged(host, module, widget, way, monkeypatch):
    """Licence and citation stand in the question; no network means none; a wrong checksum ends it."""
    from MRIDeepToolsLib import settings

    questions, log = [], []
    widget.panel.ask = lambda question, details="": questions.append(question)
    setattr(widget.panel.parameters, way.model, way.absent)
    assert f"{way.absent} (5 B)" in message(widget)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert "Apache-2.0" in questions[0] and "Billot" in questions[0]
    assert widget.panel.work is None
    settings.set_value("offline", True)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert len(questions) == 1
    assert "network" in message(widget)
    settings.set_value("offline", False)
    widget.panel.ask = lambda question, details="": log.append(question) or True
    set_mode(monkeypatch, "damaged")
    widget.ui.applyButton.click()
    wait_idle(host, widget)
    assert log and "damaged on the way" in message(widget)
    assert results_of() == []


def test_a_model_is_fetched_and_used_in_one_go(host, module, widget, way, monkeypatch):
    """One click, one question."""
    from MRIDeepToolsLib import core_info

    monkeypatch.setattr(core_info, "forget", lambda: None)  # nothing was really fetched
    widget.panel.ask = lambda question, details="": True
    setattr(widget.panel.parameters, way.model, way.absent)
    apply(host, widget)
    assert "Done in" in message(widget), message(widget)
    assert f"--model {way.absent}" in widget.panel.progress.log_text


def test_the_published_model_is_asked_for_where_none_comes_along(module):
    """Without any model the published one is needed; with the bundled one nothing is."""
    from HarmonizeLib.methods import IGUANE

    def listed(**status):
        return [{"name": name.replace("_", "-"), "status": value} for name, value in status.items()]

    assert [m["name"] for m in IGUANE.needed_models("", listed(iguane="absent"))] == ["iguane"]
    assert IGUANE.needed_models("", listed(iguane="absent", iguane_lite="bundled")) == []
    assert IGUANE.needed_models("", listed(iguane="installed", iguane_lite="absent")) == []
    assert [m["name"] for m in IGUANE.needed_models("iguane", listed(iguane="absent", iguane_lite="bundled"))]
