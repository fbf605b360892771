"""Many scans in the home module, with the real core: a folder, the scene, a broken scan, cancelling and continuing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from module_helpers import add_volume, grab_panel

OPTIONS = "--model synthseg-lite --fast --crop 32"


@pytest.fixture
def widget(host, tmp_path, monkeypatch):
    """Return the panel of the home module with an empty scene and no folders chosen."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    handle = host.load("MRIDeepTools")
    from MRIDeepToolsLib import core_info, settings

    settings.reset()
    settings.set_value("device", "cpu")
    settings.set_value("threads", 1)
    monkeypatch.setattr(core_info, "_known", {"version": "1", "devices": [{"name": "cpu"}], "models": []})
    shown = handle.widget()
    shown.ui.batchCollapsibleButton.collapsed = False
    shown.ui.batchOptionsLineEdit.text = OPTIONS
    yield shown
    shown.panel.batch.close()
    settings.reset()


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    """Return a folder with two small scans and a broken one."""
    from mri_deep_tools.volume import Volume, write_volume

    place = tmp_path_factory.mktemp("day") / "scans in"  # short, for the picture
    place.mkdir()
    x, y, z = np.indices((36, 36, 36)) - 17.5
    distance = np.sqrt(x * x + y * y + z * z)
    values = np.where(distance < 8, 800, np.where(distance < 14, 400, 20)).astype(np.float32)
    for name in ("anna.nii.gz", "bert.nii"):
        write_volume(Volume(values, np.eye(4)), place / name)
    (place / "carl.nii.gz").write_bytes(b"no image")
    return place


def states(widget) -> dict[str, str]:
    table = widget.ui.batchTable
    return {table.item(row, 0).text(): table.item(row, 1).text() for row in range(table.rowCount)}


def wait(host, widget, seconds: float = 200) -> None:
    assert host.wait_until(lambda: widget.panel.batch.job is None, seconds)


def told(widget) -> str:
    return widget.panel.batch.progress.ui.messageLabel.text


@pytest.mark.slow
def test_a_folder_with_a_broken_scan_is_done_and_continued(host, widget, folder, tmp_path):
    ui, out = widget.ui, folder.parent / "results"
    assert not ui.batchStartButton.enabled
    ui.batchInputPathLineEdit.currentPath = str(folder)
    ui.batchOutputPathLineEdit.currentPath = str(folder)
    assert not ui.batchStartButton.enabled and "folder of their own" in ui.batchStartButton.toolTip
    ui.batchOutputPathLineEdit.currentPath = str(out)
    assert ui.batchStartButton.enabled and not ui.batchResumeButton.enabled and not ui.batchOverviewButton.enabled
    ui.batchStartButton.click()
    assert states(widget) == {"anna": "waiting", "bert": "waiting", "carl": "waiting"}
    assert not ui.batchStartButton.enabled
    wait(host, widget)
    assert states(widget) == {"anna": "done", "bert": "done", "carl": "failed"}
    assert "1 of 3 subjects failed (carl)" in told(widget) and "Continue tries them again" in told(widget)
    assert len(list(out.glob("*_dseg.nii*"))) == 2
    opened = []
    widget.panel.batch.open_page = opened.append
    ui.batchOverviewButton.click()
    assert opened == [out / "batch.html"] and opened[0].is_file()
    place = Path(os.environ["MRI_DEEP_TOOLS_PICTURES"]) if "MRI_DEEP_TOOLS_PICTURES" in os.environ else tmp_path
    ui.stateCollapsibleButton.collapsed = ui.modelsCollapsibleButton.collapsed = True
    grab_panel(host, host.load("MRIDeepTools"), place / "MRIDeepTools-batch.png")
    first = (out / "anna_desc-synthseg_dseg.nii.gz").stat().st_mtime_ns
    (folder / "carl.nii.gz").write_bytes((folder / "anna.nii.gz").read_bytes())
    assert ui.batchResumeButton.enabled and not ui.batchStartButton.enabled
    ui.batchResumeButton.click()
    wait(host, widget)
    assert "All scans are done" in told(widget), told(widget)
    assert set(states(widget).values()) == {"done"}
    assert (out / "anna_desc-synthseg_dseg.nii.gz").stat().st_mtime_ns == first


def test_volumes_of_the_scene_are_worked_on(host, widget, tmp_path):
    import slicer

    volume = add_volume("Dora T1w", (36, 36, 36), np.eye(4))
    k, j, i = np.indices((36, 36, 36)) - 17.5
    values = np.where(np.sqrt(i * i + j * j + k * k) < 9, 800, 100).astype(np.float32)
    slicer.util.updateVolumeFromArray(volume, values)
    ui, out = widget.ui, tmp_path / "results"
    ui.batchOutputPathLineEdit.currentPath = str(out)
    ui.batchSourceComboBox.setCurrentIndex(2)
    assert ui.batchStudyComboBox.itemText(0) == "Whole scene (1)"
    ui.batchStartButton.click()
    wait(host, widget)
    assert states(widget) == {"001-Dora-T1w": "done"}, ui.batchTable.item(0, 3).text()
    assert (out / "scans" / "001-Dora-T1w.nii").is_file()
    assert slicer.util.getNode("Dora T1w") is volume


def test_cancel_keeps_what_can_be_continued(host, widget, folder, tmp_path):
    ui, out = widget.ui, tmp_path / "results"
    ui.batchInputPathLineEdit.currentPath = str(folder)
    ui.batchOutputPathLineEdit.currentPath = str(out)
    ui.batchStartButton.click()
    assert host.wait_until(lambda: (out / ".batch").is_dir(), 60)
    begin = time.monotonic()
    widget.panel.batch.cancel()
    wait(host, widget, 20)
    assert time.monotonic() - begin < 15
    assert "Continue goes on" in told(widget)
    assert ui.batchResumeButton.enabled


def test_every_task_says_what_its_options_must_name(host, widget, folder, tmp_path):
    ui = widget.ui
    ui.batchInputPathLineEdit.currentPath = str(folder)
    ui.batchOutputPathLineEdit.currentPath = str(tmp_path / "results")
    names = [ui.batchTaskComboBox.itemData(index) for index in range(ui.batchTaskComboBox.count)]
    from mri_deep_tools.batch.tasks import TASKS

    assert sorted(names) == sorted(TASKS)
    for name, lacking, given in (
        ("translate", "contrast to make under Options: --to T2w", "--to T1w"),
        ("upsample-dmri", "how many directions", "--target-grad wanted.b"),
    ):
        ui.batchOptionsLineEdit.text = ""
        ui.batchTaskComboBox.setCurrentIndex(names.index(name))
        assert not ui.batchStartButton.enabled and lacking in ui.batchStartButton.toolTip
        assert "for example --" in ui.batchOptionsLineEdit.placeholderText
        ui.batchOptionsLineEdit.text = given
        assert ui.batchStartButton.enabled
    add_volume("Ewa", (8, 8, 8), np.eye(4))
    ui.batchSourceComboBox.setCurrentIndex(2)
    assert not ui.batchStartButton.enabled and "files of their directions" in ui.batchStartButton.toolTip


def test_translations_of_a_folder(host, widget, folder, tmp_path):
    ui, out = widget.ui, tmp_path / "results"
    for path in folder.glob("[bc]*"):
        path.unlink()
    ui.batchInputPathLineEdit.currentPath = str(folder)
    ui.batchOutputPathLineEdit.currentPath = str(out)
    ui.batchTaskComboBox.setCurrentIndex(3)
    ui.batchOptionsLineEdit.text = "--to T2w --slices 17:19"
    ui.batchStartButton.click()
    wait(host, widget)
    assert states(widget) == {"anna": "done"}, ui.batchTable.item(0, 3).text()
    (made,) = out.glob("anna*.nii.gz")
    assert "synthetic" in made.name


def test_what_cannot_be_started_is_told(host, widget, tmp_path):
    ui, empty = widget.ui, tmp_path / "empty"
    empty.mkdir()
    ui.batchInputPathLineEdit.currentPath = str(empty)
    ui.batchOutputPathLineEdit.currentPath = str(tmp_path / "results")
    ui.batchStartButton.click()
    assert "holds no images" in told(widget)
    ui.batchOptionsLineEdit.text = '--model "x'
    ui.batchStartButton.click()
    assert "quotation mark" in told(widget)
    assert widget.panel.batch.job is None and ui.batchStartButton.enabled
    assert not (tmp_path / "results").exists()
