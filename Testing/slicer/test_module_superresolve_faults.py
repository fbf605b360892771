"""The module SuperResolve when something goes wrong, is missing, or is taken away in the middle of a run."""

from __future__ import annotations

import time

import pytest
from module_helpers import (
    apply,
    message,
    results_of,
    run_until_labels_are_due,
    scene_is_clean,
    set_mode,
    use_fake_core,
    wait_idle,
)
from superresolve_scans import add_thick

pytestmark = pytest.mark.slow  # the same code in SynthSegment is tested every time

pytest_plugins = ["superresolve_case"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [("error", "GPU is full"), ("crash", "SIGSEGV"), ("killed", "memory ran out"), ("shifted", "50 mm away")],
)
def test_what_goes_wrong_is_told_and_nothing_stays(host, module, widget, monkeypatch, mode, words):
    set_mode(monkeypatch, mode)
    apply(host, widget)
    assert words in message(widget), message(widget)
    assert scene_is_clean()
    assert widget.ui.applyButton.text == "Apply"
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
    assert "Filling in between the slices" in widget.panel.progress.ui.progressBar.format
    begin = time.monotonic()
    widget.ui.applyButton.click()
    wait_idle(host, widget, 10)
    assert time.monotonic() - begin < 2.0
    assert "Cancelled" in message(widget)
    assert scene_is_clean()


def test_scene_closed_meanwhile(host, module, widget, monkeypatch, tmp_path):
    import slicer

    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    slicer.mrmlScene.Clear(0)
    go_on()
    wait_idle(host, widget)
    assert scene_is_clean()
    assert "closed" in message(widget)


@pytest.mark.parametrize("which", ["scan", "result"])
def test_node_deleted_meanwhile(host, module, widget, monkeypatch, tmp_path, which):
    import slicer

    victim = widget.panel.parameters.inputVolume
    if which == "result":
        victim = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
        widget.panel.parameters.result = victim
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    slicer.mrmlScene.RemoveNode(victim)
    go_on()
    wait_idle(host, widget)
    assert scene_is_clean()
    assert "deleted" in message(widget)


def test_the_guide_may_go_once_the_run_has_started(host, module, widget, monkeypatch, tmp_path):
    import slicer

    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    slicer.mrmlScene.RemoveNode(widget.panel.parameters.guideVolume)
    go_on()
    wait_idle(host, widget)
    assert "Done in" in message(widget)


def test_module_left_during_a_run(host, module, widget, monkeypatch, tmp_path):
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    module.leave()
    assert widget.panel.parameters is None
    go_on()
    wait_idle(host, widget)
    assert len(results_of("vtkMRMLScalarVolumeNode")) == 3
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
    wait_idle(host, new)
    use_fake_core(monkeypatch)
    apply(host, new)
    assert "Done in" in message(new)


def test_panel_closed_while_it_runs_and_asks(host, module, widget, monkeypatch, tmp_path):
    widget.ui.thicknessSpinBox.value = 2.5
    assert host.wait_until(lambda: widget.panel.describing is not None, 10)
    asking = widget.panel.describing
    run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    job = widget.panel.work.job
    module.close()
    assert host.wait_until(lambda: not job.running and not asking.running, 10)
    assert scene_is_clean()


def test_set_up_declined(host, module, widget, monkeypatch):
    from MRIDeepToolsLib import packages

    monkeypatch.setattr(packages, "installed_version", lambda name, path=None: None)
    questions = []
    widget.panel.ask = lambda question, details="": questions.append((question, details))
    widget.panel.refresh_machine()
    widget.panel.update()
    assert "first run installs" in message(widget)
    assert widget.ui.slicesLabel.text == ""
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert len(questions) == 1
    assert "declined" in message(widget)
    assert widget.panel.work is None


def test_models_are_asked_for_and_fetched(host, module, widget, monkeypatch):
    from MRIDeepToolsLib import core_info

    monkeypatch.setattr(core_info, "forget", lambda: None)  # nothing was really fetched
    questions = []
    widget.panel.parameters.model = "superresolve-big"
    widget.panel.ask = lambda question, details="": bool(questions.append(question))
    assert "superresolve-big (5 B)" in message(widget)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert "Lennartsson" in questions[0]
    assert "Apache-2.0" in questions[0]
    assert widget.panel.work is None
    widget.panel.ask = lambda question, details="": True
    apply(host, widget)
    assert "Done in" in message(widget)
    set_mode(monkeypatch, "damaged")
    apply(host, widget)
    assert "was damaged on the way" in message(widget)


def test_a_model_without_address_is_to_be_fetched_by_hand(host, module, widget):
    from MRIDeepToolsLib import settings

    widget.panel.ask = lambda *words: pytest.fail("nothing is to be asked")
    widget.panel.parameters.model = "baby-ai"
    assert "baby-ai: fetch it from its page" in message(widget)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert "baby-ai: fetch it from its page" in message(widget)
    widget.panel.parameters.model = "superresolve-big"
    settings.set_value("offline", True)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert "network is not to be used" in message(widget)


def test_own_weights_ask_for_their_place(host, module, widget, tmp_path):
    widget.panel.parameters.model = "own"
    assert not widget.ui.applyButton.enabled
    assert "weights" in message(widget)
    widget.ui.weightsPathLineEdit.currentPath = str(tmp_path / "own.pth")
    assert widget.ui.applyButton.enabled
    assert widget.panel._options().words()[:2] == ["--weights", str(tmp_path / "own.pth")]


def test_an_old_slicer_is_told(host, module, widget, monkeypatch):
    from MRIDeepToolsLib import widgets

    monkeypatch.setattr(widgets, "OLDEST_SLICER", (99, 1))
    widget.ui.applyButton.click()
    assert "Slicer 99.1 or newer is needed" in message(widget)
    assert widget.panel.work is None


def test_scans_may_come_and_go_while_slices_are_looked_at(host, module, widget):
    import slicer

    panel = widget.panel
    for number in range(3):
        panel.parameters.inputVolume = add_thick(f"T2w {number}")
        host.pump(0.35)
    slicer.mrmlScene.RemoveNode(panel.parameters.inputVolume)
    assert panel.parameters.inputVolume is None
    assert widget.ui.slicesLabel.text == ""
    slicer.mrmlScene.Clear(0)
    host.pump(0.4)
    assert panel.describing is None
