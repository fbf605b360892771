"""The module DMRIUpsample when something goes wrong, is missing, or is taken away in the middle of a run."""

from __future__ import annotations

import time

import pytest
from dmriupsample_case import add_scan, use_fake_upsample, wait_planned
from module_helpers import (
    apply,
    message,
    results_of,
    run_until_labels_are_due,
    scene_is_clean,
    set_mode,
    wait_idle,
)

pytestmark = pytest.mark.slow  # the same code in SynthSegment is tested every time

pytest_plugins = ["dmriupsample_case"]
DWI = "vtkMRMLDiffusionWeightedVolumeNode"


@pytest.mark.parametrize(
    ("mode", "words"),
    [("error", "GPU is full"), ("crash", "SIGSEGV"), ("killed", "memory ran out"), ("shifted", "away from the input")],
)
def test_what_goes_wrong_is_told_and_nothing_stays(host, module, widget, monkeypatch, mode, words):
    set_mode(monkeypatch, mode)
    apply(host, widget)
    assert words in message(widget), message(widget)
    assert scene_is_clean()
    assert widget.ui.applyButton.text == "Apply"
    assert widget.ui.applyButton.enabled
    set_mode(monkeypatch, "good")
    apply(host, widget)
    assert "Done in" in message(widget)


@pytest.mark.parametrize("mode", ["garbage", "flood"])
def test_talkative_programs_do_no_harm(host, module, widget, monkeypatch, mode):
    set_mode(monkeypatch, mode)
    apply(host, widget)
    assert "Done in" in message(widget)
    assert len(widget.panel.progress.log_text) <= 257 * 1024


def test_cancel_ends_within_two_seconds(host, module, widget, monkeypatch):
    set_mode(monkeypatch, "slow")
    widget.ui.applyButton.click()
    assert widget.ui.applyButton.text == "Cancel"
    assert host.wait_until(lambda: "43 %" in widget.panel.progress.ui.progressBar.format, 30)
    assert "Predicting directions" in widget.panel.progress.ui.progressBar.format
    begin = time.monotonic()
    widget.ui.applyButton.click()
    wait_idle(host, widget, 10)
    assert time.monotonic() - begin < 2.0
    assert "Cancelled" in message(widget)
    assert widget.ui.applyButton.text == "Apply"
    assert scene_is_clean()


def test_scene_closed_meanwhile(host, module, widget, monkeypatch, tmp_path):
    import slicer

    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    slicer.mrmlScene.Clear(0)
    go_on()
    wait_idle(host, widget)
    assert scene_is_clean()
    assert widget.panel.parameters is not None
    assert "closed" in message(widget)
    assert widget.ui.planLabel.text == ""


@pytest.mark.parametrize("which", ["input", "output"])
def test_node_deleted_meanwhile(host, module, widget, monkeypatch, tmp_path, which):
    import slicer

    victim = widget.panel.parameters.inputVolume
    if which == "output":
        victim = slicer.mrmlScene.AddNewNodeByClass(DWI, "Mine")
        widget.panel.parameters.result = victim
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    slicer.mrmlScene.RemoveNode(victim)
    go_on()
    wait_idle(host, widget)
    assert scene_is_clean()
    assert "deleted" in message(widget)


def test_scan_deleted_while_the_core_is_asked(host, module):
    import slicer

    scan = add_scan()
    shown = module.widget()
    slicer.mrmlScene.RemoveNode(scan)
    wait_planned(host, shown)
    assert "Choose a diffusion scan" in message(shown)
    assert shown.ui.planLabel.text == ""


def test_module_left_during_a_run(host, module, widget, monkeypatch, tmp_path):
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    module.leave()
    assert widget.panel.parameters is None
    go_on()
    wait_idle(host, widget)
    assert len(results_of(DWI)) == 1
    module.enter()
    assert widget.panel.parameters.madeResult is not None
    assert not widget.ui.resultsCollapsibleButton.collapsed


def test_module_reloaded_during_a_run(host, module, widget, monkeypatch, tmp_path):
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    job = widget.panel.work.job
    module.reload()
    assert host.wait_until(lambda: not job.running, 10)
    assert job.outcome.status == "cancelled"
    go_on()
    new = module.widget()
    assert new is not widget
    use_fake_upsample(monkeypatch)
    wait_planned(host, new)
    apply(host, new)
    assert "Done in" in message(new)


def test_panel_closed_during_a_run_and_during_a_question(host, module, widget, monkeypatch, tmp_path):
    from MRIDeepToolsLib.jobs import running_jobs

    run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    job = widget.panel.work.job
    widget.panel.parameters.directionCount = 12
    assert widget.panel.planner.busy
    module.close()
    assert host.wait_until(lambda: not job.running, 10)
    assert scene_is_clean()
    assert host.wait_until(lambda: not running_jobs(), 10)


def test_set_up_declined(host, module, widget, monkeypatch):
    from MRIDeepToolsLib import packages

    monkeypatch.setattr(packages, "installed_version", lambda name, path=None: None)
    questions = []
    widget.panel.ask = lambda question, details="": questions.append((question, details))
    widget.panel.refresh_machine()
    widget.panel.update()
    assert "first run installs" in message(widget)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert len(questions) == 1
    assert "declined" in message(widget)
    assert widget.panel.work is None


def test_packages_that_a_choice_needs_are_asked_for(host, module, widget, monkeypatch):
    """Spherical harmonics alone need none; errors need the report's, FA and computed masks need DIPY."""
    from DMRIUpsampleLib.run import UpsampleOptions, needed_extras
    from MRIDeepToolsLib import setup_core

    asked = []
    monkeypatch.setattr(setup_core, "missing_extras", lambda extras: [f"{name}-package>=1" for name in extras])
    widget.panel.ask = lambda question, details="": asked.append((question, details))
    widget.panel.update()
    assert "To be installed first: dmri-package, report-package." in message(widget)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert len(asked) == 1
    assert "dmri-package>=1" in asked[0][0]
    assert "declined" in message(widget)
    assert widget.panel.work is None
    assert needed_extras(UpsampleOptions(method="sh"), mask=False) == ()
    assert needed_extras(UpsampleOptions(), mask=True) == ()
    assert needed_extras(UpsampleOptions(), mask=False) == ("dmri",)
    assert needed_extras(UpsampleOptions(method="sh", errors=True), mask=True) == ("dmri", "report")


def test_the_model_that_the_core_wants_is_asked_for_with_licence_and_citation(host, module, widget, monkeypatch):
    """One click, one question: the model is fetched, then the directions are predicted."""
    from MRIDeepToolsLib import core_info

    set_mode(monkeypatch, "absent")
    widget.panel.parameters.directionCount = 31
    wait_planned(host, widget)
    assert "dmri-rcnn-1d-b1000-q6 (5 B)" in message(widget)
    assert widget.ui.applyButton.enabled
    questions = []
    widget.panel.ask = lambda question, details="": questions.append(question)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert len(questions) == 1
    assert "MIT" in questions[0]
    assert "Lyon" in questions[0]
    assert widget.panel.work is None
    monkeypatch.setattr(core_info, "forget", lambda: set_mode(monkeypatch, "good"))  # what a download changes
    widget.panel.ask = lambda question, details="": True
    log = []
    tell = widget.panel.progress.progress
    widget.panel.progress.progress = lambda fraction, stage, eta: (log.append(stage), tell(fraction, stage, eta))
    apply(host, widget)
    assert log[0] == "download"
    assert "predict" in log
    assert "Done in" in message(widget)
    assert results_of(DWI)


def test_a_damaged_download_is_told_and_nothing_runs(host, module, widget, monkeypatch):
    set_mode(monkeypatch, "damaged")
    widget.panel.ask = lambda question, details="": True
    widget.panel.parameters.model = "dmri-rcnn-1d-b1000-q6"
    wait_planned(host, widget)
    apply(host, widget)
    assert "dmri-rcnn-1d-b1000-q6 was damaged on the way" in message(widget)
    assert results_of() == []


def test_models_are_not_fetched_offline(host, module, widget):
    from MRIDeepToolsLib import settings

    settings.set_value("offline", True)
    widget.panel.ask = lambda *words: pytest.fail("nothing is to be asked")
    widget.panel.parameters.model = "dmri-rcnn-1d-b1000-q6"
    wait_planned(host, widget)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert "dmri-rcnn-1d-b1000-q6" in message(widget)
    assert "network" in message(widget)


def test_own_weights_ask_for_their_place(host, module, widget, tmp_path):
    widget.panel.parameters.model = "own"
    assert not widget.ui.applyButton.enabled
    assert "weights" in message(widget)
    assert widget.ui.weightsPathLineEdit.visible or widget.ui.advancedCollapsibleButton.collapsed
    widget.ui.weightsPathLineEdit.currentPath = str(tmp_path)
    assert widget.panel._options().words()[:4] == ["--method", "rcnn", "--weights", str(tmp_path)]
    wait_planned(host, widget)
    assert widget.ui.applyButton.enabled
    widget.panel.parameters.method = type(widget.panel.parameters.method).HARMONICS
    assert "--weights" not in widget.panel._options().words()


def test_without_interpreter_the_panel_says_so(host, module, monkeypatch):
    from MRIDeepToolsLib import core_info, processes
    from MRIDeepToolsLib.errors import JobStartError

    def missing():
        raise JobStartError("The Python interpreter of Slicer (PythonSlicer) was not found.")

    monkeypatch.setattr(processes, "core_command", missing)
    monkeypatch.setattr(core_info, "_known", None)
    add_scan()
    shown = module.widget()
    wait_planned(host, shown)
    assert "PythonSlicer" in message(shown)
    assert shown.panel.work is None
