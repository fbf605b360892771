"""The module SynthSegment when something goes wrong, is missing, or is taken away in the middle of a run."""

from __future__ import annotations

import time

import pytest
from module_helpers import (
    add_volume,
    apply,
    message,
    results_of,
    run_until_labels_are_due,
    scene_is_clean,
    set_mode,
    use_fake_core,
    wait_idle,
)

pytest_plugins = ["synthsegment_case"]


def test_an_old_slicer_is_told(host, module, widget, monkeypatch):
    from MRIDeepToolsLib import widgets

    monkeypatch.setattr(widgets, "OLDEST_SLICER", (99, 1))
    widget.ui.applyButton.click()
    assert "Slicer 99.1 or newer is needed" in message(widget)
    assert widget.panel.work is None


@pytest.mark.parametrize(
    ("mode", "words"),
    [("error", "GPU is full"), ("crash", "SIGSEGV"), ("killed", "memory ran out"), ("shifted", "grid")],
)
def test_what_goes_wrong_is_told_and_nothing_stays(host, module, widget, monkeypatch, mode, words):
    set_mode(monkeypatch, mode)
    apply(host, widget)
    assert words in message(widget) or (mode == "shifted" and "Head" in message(widget)), message(widget)
    assert scene_is_clean()
    assert widget.ui.applyButton.text == "Apply"
    assert widget.ui.applyButton.enabled
    set_mode(monkeypatch, "good")
    apply(host, widget)
    assert "Done in" in message(widget)


def test_results_that_cannot_be_shown_leave_the_panel_usable(host, module, widget, monkeypatch):
    set_mode(monkeypatch, "good")

    def broken(outputs):
        raise RuntimeError("a view is gone")

    with monkeypatch.context() as patch, host.findings.expected("RuntimeError: a view is gone"):
        patch.setattr(widget.panel, "take_outputs", broken)
        apply(host, widget)
    assert "not all of them could be shown" in message(widget)
    assert widget.ui.applyButton.text == "Apply" and widget.ui.applyButton.enabled
    apply(host, widget)
    assert "Done in" in message(widget)


@pytest.mark.parametrize("mode", ["garbage", "flood"])
def test_talkative_programs_do_no_harm(host, module, widget, monkeypatch, mode):
    set_mode(monkeypatch, mode)
    apply(host, widget)
    assert "Done in" in message(widget)
    assert len(widget.panel.progress.log_text) <= 257 * 1024
    assert len(widget.panel.progress.ui.logText.plainText) <= 2 * 257 * 1024


def test_cancel_ends_within_two_seconds(host, module, widget, monkeypatch):
    set_mode(monkeypatch, "slow")
    widget.ui.applyButton.click()
    assert widget.ui.applyButton.text == "Cancel"
    assert widget.panel.progress.ui.barRow.visible
    assert host.wait_until(lambda: "43 %" in widget.panel.progress.ui.progressBar.format, 30)
    assert "21 s left" not in message(widget)
    begin = time.monotonic()
    widget.ui.applyButton.click()
    wait_idle(host, widget, 10)
    assert time.monotonic() - begin < 2.0
    assert "Cancelled" in message(widget)
    assert widget.ui.applyButton.text == "Apply"
    assert not widget.panel.progress.ui.barRow.visible
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


@pytest.mark.parametrize("which", ["input", "output"])
def test_node_deleted_meanwhile(host, module, widget, monkeypatch, tmp_path, which):
    import slicer

    victim = widget.panel.parameters.inputVolume
    if which == "output":
        victim = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        widget.panel.parameters.segmentation = victim
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    slicer.mrmlScene.RemoveNode(victim)
    go_on()
    wait_idle(host, widget)
    assert scene_is_clean()
    assert "deleted" in message(widget)


def test_module_left_during_a_run(host, module, widget, monkeypatch, tmp_path):
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    module.leave()
    assert widget.panel.parameters is None
    go_on()
    wait_idle(host, widget)
    assert len(results_of("vtkMRMLSegmentationNode")) == 1
    module.enter()
    assert widget.panel.parameters.resultSegmentation is not None
    assert not widget.ui.resultsCollapsibleButton.collapsed


def test_module_reloaded_during_a_run(host, module, widget, monkeypatch, tmp_path):
    job = None
    go_on = run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    job = widget.panel.work.job
    module.reload()
    assert host.wait_until(lambda: not job.running, 10)
    assert job.outcome.status == "cancelled"
    go_on()
    new = module.widget()
    assert new is not widget
    wait_idle(host, new)
    set_mode(monkeypatch, "good")
    use_fake_core(monkeypatch)
    apply(host, new)
    assert "Done in" in message(new)


def test_panel_closed_during_a_run(host, module, widget, monkeypatch, tmp_path):
    run_until_labels_are_due(host, widget, monkeypatch, tmp_path)
    job = widget.panel.work.job
    module.close()
    assert host.wait_until(lambda: not job.running, 10)
    assert scene_is_clean()


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
    assert "torch" in questions[0][1]
    assert "declined" in message(widget)
    assert widget.ui.applyButton.enabled
    assert widget.panel.work is None
    assert not widget.panel.progress.ui.barRow.visible


def test_models_are_asked_for_with_licence_and_citation(host, module, widget):
    questions = []
    widget.panel.ask = lambda question, details="": questions.append(question)
    widget.panel.parameters.parcels = True
    assert "synthseg-parc-2.0 (5 B)" in message(widget)
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert len(questions) == 1
    assert "Apache-2.0" in questions[0]
    assert "Billot" in questions[0]
    assert widget.panel.work is None


def test_download_and_run_follow_each_other(host, module, widget, monkeypatch):
    """One click, one question: the model is fetched, then the scan is labelled."""
    from MRIDeepToolsLib import core_info

    monkeypatch.setattr(core_info, "forget", lambda: None)  # nothing was really fetched
    widget.panel.ask = lambda question, details="": True
    widget.panel.parameters.parcels = True
    log = []
    tell = widget.panel.progress.progress
    widget.panel.progress.progress = lambda fraction, stage, eta: (log.append(stage), tell(fraction, stage, eta))
    apply(host, widget)
    assert log[0] == "download"
    assert "segment" in log
    assert "Done in" in message(widget)
    assert results_of("vtkMRMLSegmentationNode")


def test_module_left_during_a_download(host, module, widget, monkeypatch, tmp_path):
    """The run follows the download all the same."""
    from MRIDeepToolsLib import core_info

    monkeypatch.setattr(core_info, "forget", lambda: None)
    monkeypatch.setenv("FAKE_CORE_GO", str(tmp_path / "go"))
    set_mode(monkeypatch, "step")
    widget.panel.ask = lambda question, details="": True
    widget.panel.parameters.parcels = True
    widget.ui.applyButton.click()
    assert host.wait_until(lambda: "50 %" in widget.panel.progress.ui.progressBar.format, 30)
    module.leave()
    (tmp_path / "go").touch()
    wait_idle(host, widget)
    assert len(results_of("vtkMRMLSegmentationNode")) == 1


def test_apply_starts_nothing_twice(host, module, widget):
    """A second click while a question is open, as an impatient person makes it."""
    questions = []

    def ask(question, details=""):
        questions.append(question)
        widget.ui.applyButton.enabled = True
        widget.ui.applyButton.click()
        return False

    widget.panel.ask = ask
    widget.panel.parameters.parcels = True
    widget.ui.applyButton.click()
    assert len(questions) == 1
    assert widget.ui.applyButton.enabled


def test_without_interpreter_the_panel_says_so(host, module, monkeypatch):
    from MRIDeepToolsLib import core_info, processes
    from MRIDeepToolsLib.errors import JobStartError

    def missing():
        raise JobStartError("The Python interpreter of Slicer (PythonSlicer) was not found.")

    monkeypatch.setattr(processes, "core_command", missing)
    monkeypatch.setattr(core_info, "_known", None)
    add_volume()
    shown = module.widget()
    assert "PythonSlicer" in message(shown)
    shown.ui.applyButton.click()
    assert "PythonSlicer" in message(shown)
    assert shown.panel.work is None
    assert shown.ui.applyButton.enabled


def test_a_damaged_download_is_told_and_nothing_runs(host, module, widget, monkeypatch):
    set_mode(monkeypatch, "damaged")
    widget.panel.ask = lambda question, details="": True
    widget.panel.parameters.robust = True
    apply(host, widget)
    assert "synthseg-robust-2.0 was damaged on the way" in message(widget)
    assert results_of() == []
    assert widget.ui.applyButton.text == "Apply"


def test_models_are_not_fetched_offline(host, module, widget):
    from MRIDeepToolsLib import settings

    settings.set_value("offline", True)
    widget.panel.ask = lambda *words: pytest.fail("nothing is to be asked")
    widget.panel.parameters.robust = True
    widget.ui.applyButton.click()
    host.pump(0.1)
    assert "synthseg-robust-2.0" in message(widget)
    assert "network" in message(widget)
