"""The home module in the Slicer host: state, set-up, models, settings, report. The core is the real one."""

from __future__ import annotations

import re

import pytest
from module_helpers import use_fake_core


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Keep the processes of a test away from the models and settings of this computer."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    return folder


@pytest.fixture
def widget(host, cache):
    """Return the widget of the panel, after the core has answered."""
    handle = host.load("MRIDeepTools")
    from MRIDeepToolsLib import core_info

    core_info._known = ANSWER.get("info")  # what an empty model folder gives; asked once for all tests
    shown = handle.widget()
    assert host.wait_until(lambda: shown.panel._asking is None, 60)
    ANSWER.setdefault("info", core_info.cached())
    yield shown
    core_info.forget()


ANSWER: dict = {}


def plain(text: str) -> str:
    return re.sub("<[^>]+>", "", text)


def message(widget) -> str:
    return plain(widget.panel.progress.ui.messageLabel.text)


def choose(widget, name: str) -> None:
    models = widget.panel.models._models
    widget.ui.modelsTable.selectRow([model["name"] for model in models].index(name))


def wait(host, widget) -> None:
    panel = widget.panel
    assert host.wait_until(lambda: panel.job is None and panel._asking is None, 60)


def test_state_at_a_glance(host, widget):
    from mri_deep_tools import __version__

    ui = widget.ui
    assert __version__ in ui.coreValue.text
    assert ui.torchValue.text
    assert "CPU" in ui.deviceValue.text or "GB" in ui.deviceValue.text
    assert plain(ui.driverValue.text)
    assert "to download" in ui.modelsValue.text
    assert ui.setupButton.text == "Repair"
    assert ui.modelsTable.rowCount >= 6
    assert {ui.modelsTable.item(row, 0).text() for row in range(ui.modelsTable.rowCount)} >= {"synthseg-2.0"}


def test_first_sight_without_anything_installed(host, cache, monkeypatch):
    """Nothing is started, everything says what to do, and declining leaves all as it was."""
    handle = host.load("MRIDeepTools")
    from MRIDeepToolsLib import core_info, packages

    core_info.forget()
    monkeypatch.setattr(packages, "installed_version", lambda name, path=None: None)
    widget = handle.widget()
    host.pump(0.1)
    assert widget.panel._asking is None
    assert "not installed" in widget.ui.coreValue.text
    assert "not installed" in widget.ui.torchValue.text
    assert "after the set-up" in widget.ui.modelsValue.text
    assert widget.ui.setupButton.text == "Set up"
    assert not widget.ui.openButton.visible
    for button in (widget.ui.downloadButton, widget.ui.importButton, widget.ui.verifyButton, widget.ui.removeButton):
        assert not button.enabled
    asked = []
    widget.panel.ask = lambda question, details="": asked.append(details)
    widget.ui.setupButton.click()
    host.pump(0.1)
    assert len(asked) == 1
    assert "torch" in asked[0]
    assert "declined" in message(widget)
    assert widget.ui.setupButton.enabled


def test_set_up_offline_says_what_to_do(host, cache, monkeypatch):
    handle = host.load("MRIDeepTools")
    from MRIDeepToolsLib import packages, settings

    monkeypatch.setattr(packages, "installed_version", lambda name, path=None: None)
    settings.set_value("offline", True)
    widget = handle.widget()
    widget.panel.ask = lambda question, details="": pytest.fail("there is nothing to ask")
    widget.ui.setupButton.click()
    assert "network" in message(widget)


def test_chosen_model_shows_licence_and_citation(host, widget):
    choose(widget, "synthseg-robust-2.0")
    text = widget.ui.modelAboutLabel.text
    assert "Licence" in text
    assert "Apache-2.0" in text
    assert 'href="https://doi.org/10.1073/pnas.2216399120"' in text
    assert widget.ui.downloadButton.enabled
    assert not widget.ui.removeButton.enabled


def test_download_asks_first_and_offline_is_refused(host, widget):
    asked = []
    widget.panel.ask = lambda question, details="": asked.append(question)
    choose(widget, "synthseg-qc-2.0")
    widget.ui.downloadButton.click()
    assert len(asked) == 1
    assert "49.9 MB" in asked[0]
    assert "FreeSurfer" in asked[0]
    assert widget.panel.job is None
    widget.ui.offlineCheckBox.checked = True
    assert not widget.ui.downloadButton.enabled


def test_verify_finds_a_damaged_model_and_remove_removes_it(host, widget, cache):
    """A file of the right size with wrong bytes: the checksum tells."""
    models = {model["name"]: model for model in widget.panel.models._models}
    file = models["synthseg-qc-2.0"]["files"][0]
    place = cache_place(cache, "synthseg-qc-2.0", file["name"])
    with place.open("wb") as stream:
        stream.truncate(file["size"])
    widget.ui.refreshButton.click()
    wait(host, widget)
    choose(widget, "synthseg-qc-2.0")
    assert widget.ui.removeButton.enabled
    widget.ui.verifyButton.click()
    assert not widget.ui.setupButton.enabled
    wait(host, widget)
    assert "synthseg_qc_2.0.h5" in message(widget)
    assert "not in order" in message(widget).lower()
    widget.panel.ask = lambda question, details="": "Delete" in question
    choose(widget, "synthseg-qc-2.0")
    widget.ui.removeButton.click()
    wait(host, widget)
    assert "removed" in message(widget)
    assert not place.exists()


def cache_place(cache, model: str, file: str):
    from mri_deep_tools._install import cached_path
    from mri_deep_tools.models import get_model

    known = get_model(model)
    path = cached_path(known, next(item for item in known.files if item.name == file))
    assert cache in path.parents
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_import_from_a_folder_without_weights_is_told(host, widget, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    widget.panel.choose_folder = lambda title, start: str(empty)
    widget.ui.importButton.click()
    wait(host, widget)
    assert "no file of a known model" in message(widget)
    assert widget.ui.importButton.enabled
    widget.panel.choose_folder = lambda title, start: ""
    widget.ui.importButton.click()
    assert widget.panel.job is None


def test_settings_are_kept_and_reach_the_core(host, widget, tmp_path):
    from MRIDeepToolsLib import settings

    ui = widget.ui
    ui.deviceComboBox.setCurrentIndex(ui.deviceComboBox.findData("cpu"))
    ui.threadsSpinBox.value = 1
    ui.offlineCheckBox.checked = True
    other = tmp_path / "models"
    other.mkdir()
    ui.cacheFolderPathLineEdit.currentPath = str(other)
    wait(host, widget)
    assert settings.job_options() == ["--device", "cpu", "--threads", "1"]
    environment = settings.environment()
    assert environment["MRI_DEEP_TOOLS_CACHE"] == str(other)
    assert environment["MRI_DEEP_TOOLS_OFFLINE"] == "1"
    host.load("MRIDeepTools").close()
    again = host.load("MRIDeepTools").widget()
    wait(host, again)
    assert again.ui.threadsSpinBox.value == 1
    assert again.ui.offlineCheckBox.checked
    assert again.ui.cacheFolderPathLineEdit.currentPath == str(other)


def test_report_is_copyable_and_tells_no_folders(host, widget, cache):
    import qt

    ui = widget.ui
    ui.reportCollapsibleButton.collapsed = False
    text = ui.reportText.plainText
    assert "Core" in text
    assert "torch" in text.lower()
    assert str(cache) not in text
    ui.copyReportButton.click()
    assert qt.QApplication.clipboard().text() == text


def test_cancel_ends_a_command(host, widget, tmp_path, monkeypatch):
    use_fake_core(monkeypatch, "slow")
    job = widget.panel.logic.models_job([])
    job._arguments = ["segment", "a", "b"]
    widget.panel.job = job.start()
    assert host.wait_until(lambda: job.fraction > 0, 30)
    widget.panel.cancel()
    assert host.wait_until(lambda: not job.running, 3)
    assert job.outcome.status == "cancelled"
    widget.panel.job = None


def test_way_to_the_first_brain(host, widget):
    import slicer

    host.load("SynthSegment")
    widget.ui.openButton.click()
    host.pump(0.1)
    assert slicer.util.selectedModule() == "SynthSegment"
