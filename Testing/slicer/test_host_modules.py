"""Modules in the host: their life, the scene around them, the one command, and how the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "host_example" / "HostExample.py"
TESTING = Path(__file__).resolve().parents[1]


@pytest.fixture
def example(host):
    return host.load(EXAMPLE)


def volume(name="T1"):
    import numpy as np
    import slicer

    return slicer.util.addVolumeFromArray(np.arange(60, dtype=np.float32).reshape(3, 4, 5), name=name)


def broken(tmp_path, name, change):
    """Return the example under another name, with something replaced in its source."""
    text = EXAMPLE.read_text().replace("HostExample", name)
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    ui = tmp_path / "Resources" / "UI"
    ui.mkdir(parents=True)
    (ui / f"{name}.ui").write_text(EXAMPLE.with_name("Resources").joinpath("UI/HostExample.ui").read_text())
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("main_window", [True, False])
def test_generic_checks(host, example, main_window):
    from slicer_host import generic

    host.set_main_window(main_window)
    assert generic.problems(example) == ["it has no icon (Resources/Icons)"]


def test_names_of_a_module(example):
    import slicer

    assert slicer.util.getModule("HostExample") is example.module
    assert slicer.util.modulePath("HostExample") == str(EXAMPLE)
    widget = example.widget()
    assert slicer.util.getModuleLogic("HostExample") is widget.logic
    assert slicer.util.getModuleWidget("HostExample") is widget
    assert slicer.modules.HostExampleWidget is widget
    assert widget.resourcePath("UI/HostExample.ui").endswith("Resources/UI/HostExample.ui")
    assert slicer.modules.hostexample.title == "Host example"


def test_apply(host, example):
    widget = example.widget()
    assert not widget.ui.applyButton.enabled
    widget.ui.inputSelector.setCurrentNode(volume())
    widget.ui.thresholdSlider.value = 50
    assert widget.ui.applyButton.enabled
    widget.ui.applyButton.click()
    assert widget.parameters.outputSegmentation.GetSegmentation().GetNumberOfSegments() == 1
    assert widget.ui.statusLabel.text == "Done"


def test_enter_and_exit(example):
    widget = example.widget()
    assert widget.parent.isEntered
    assert widget.parameters is not None
    example.leave()
    assert not widget.parent.isEntered
    assert widget.parameters is None
    assert example.widget() is widget
    assert widget.parameters is not None


def test_scene_close_and_what_was_saved(host, example, tmp_path):
    import slicer

    widget = example.widget()
    widget.ui.inputSelector.setCurrentNode(volume())
    widget.ui.thresholdSlider.value = 33
    widget.ui.noteLineEdit.text = "kept"
    path = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear()
    assert widget.ui.noteLineEdit.text == ""
    assert widget.parameters.inputVolume is None
    slicer.util.loadScene(str(path))
    again = widget.logic.getParameters()
    assert (again.threshold, again.note, again.inputVolume.GetName()) == (33, "kept", "T1")
    assert slicer.util.arrayFromVolume(again.inputVolume).max() == 59


def test_reload_takes_the_new_source(host, tmp_path):
    path = broken(tmp_path, "HostReload", {})
    handle = host.load(path)
    first = handle.widget()
    path.write_text(path.read_text().replace('_("Done")', '_("Finished")'))
    handle.reload()
    second = handle.widget()
    assert second is not first
    second.ui.inputSelector.setCurrentNode(volume())
    second.ui.applyButton.click()
    assert second.ui.statusLabel.text == "Finished"
    assert first.parameters is None, "cleanup() was called"


def test_start_up_is_over_when_a_module_is_loaded(host, tmp_path):
    import slicer

    waits = {"self.parent.title =": 'slicer.app.connect("startupCompleted()", self.ready)\n        self.parent.title ='}
    waits["@parameterNodeWrapper\n"] = (
        "    def ready(self):\n        self.parent.hidden = True\n\n\n@parameterNodeWrapper\n"
    )
    handle = host.load(broken(tmp_path, "HostStart", waits))
    assert handle.module.hidden is True
    assert slicer.modules.hoststart is handle.module


def test_close_calls_cleanup(example):
    widget = example.widget()
    assert widget.Observations
    example.close()
    assert not widget.Observations
    assert example.widget() is not widget


@pytest.mark.parametrize("hook", ["setup", "enter", "exit", "cleanup"])
def test_an_error_in_a_hook_is_found(host, tmp_path, hook):
    name = f"HostBroken{hook.capitalize()}"
    handle = host.load(
        broken(tmp_path, name, {f"    def {hook}(self):\n": f"    def {hook}(self):\n        int('x')\n"})
    )
    with host.findings.expected("ValueError: invalid literal"):
        handle.widget()
        handle.close()
    host.findings.clear()  # what else failed because of it


def test_error_in_apply_is_shown_and_found(host, tmp_path):
    handle = host.load(broken(tmp_path, "HostBrokenApply", {"values = slicer.util": "values = None + slicer.util"}))
    widget = handle.widget()
    widget.ui.inputSelector.setCurrentNode(volume())
    with host.findings.expected("exception in slot .*onApply.*TypeError"):
        widget.ui.applyButton.click()
    assert host.dialogs.shown[0].text.startswith("Failed.")


def test_nodes_get_a_place_in_the_subject_hierarchy(host):
    import slicer

    node = volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node)
    assert item
    assert hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID()
    slicer.mrmlScene.RemoveNode(node)
    assert hierarchy.GetItemByDataNode(node) == 0


def test_python_slicer_is_a_launcher(host):
    import shutil

    program = shutil.which("PythonSlicer")
    done = subprocess.run([program, "-c", "import os; print(os.getppid())"], capture_output=True, text=True, check=True)
    assert int(done.stdout) != os.getpid(), "as in Slicer, the interpreter is a child of what is started"
    failed = subprocess.run([program, "-c", "raise SystemExit(3)"], check=False)
    assert failed.returncode == 3


# --- processes of their own ---


def run(*arguments, cwd=None):
    paths = [str(TESTING), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        cwd=cwd,
        check=False,
    )


def write_scan(path):
    import nibabel as nib
    import numpy as np

    x, y, z = np.mgrid[-12:12, -12:12, -12:12]
    data = 100.0 * (x**2 + y**2 + z**2 < 80)
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([1.0, 1.0, 1.0, 1.0])), path)
    return path


def test_the_command(tmp_path, host):
    path = broken(tmp_path / "module", "HostCommand", {})
    icon = path.parent / "Resources" / "Icons" / "HostCommand.png"
    icon.parent.mkdir()
    host.grab(host.app.mainWindow(), icon, (128, 128))
    scan, pictures = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "pictures"
    done = run("-m", "slicer_host", path, "--apply", scan, "--test", "--screenshots", pictures)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "made: scan (vtkMRMLScalarVolumeNode)" not in done.stdout
    assert "made: Marked (vtkMRMLSegmentationNode)" in done.stdout
    names = {"panel", "running", "done", "axial", "coronal", "sagittal", "3d"}
    assert {p.name for p in pictures.iterdir()} == {f"HostCommand-{name}.png" for name in names}
    assert "test_threshold" in done.stdout


def test_the_command_fails_with_the_findings_and_can_use_a_checkout(tmp_path, host):
    from slicer_host import base

    checkout = tmp_path / "checkout"
    folder = checkout / "Base" / "Python" / "slicer"
    folder.mkdir(parents=True)
    for name, own in base.OWN.items():
        (folder / f"{name}.py").write_text(
            f"from slicer_host.base.{own} import *\nprint('from the checkout: {name}')\n"
        )
    path = broken(
        tmp_path, "HostCommandBroken", {'"clicked(bool)"': '"pressed(bool)"', "marked.sum()), 9": "marked.sum()), 8"}
    )
    done = run("-m", "slicer_host", path, "--test", "--no-main-window", "--slicer-checkout", checkout)
    assert done.returncode == 1
    assert done.stdout.count("from the checkout:") == len(base.OWN)
    assert "finding: connect failed on QPushButton 'applyButton': there is no signal pressed(bool)" in done.stdout
    assert "finding: generic test: it has no icon" in done.stdout
    assert "finding: test failed:" in done.stdout


@pytest.mark.parametrize(
    ("workers", "select", "status", "counts"), [(0, "good or bad", 1, "2 passed, 1 error"), (1, "good", 0, "1 passed")]
)
def test_pytest_leaves_with_its_status_and_reports(tmp_path, workers, select, status, counts):
    folder = tmp_path / "slicer"
    folder.mkdir()
    real = Path(__file__).with_name("conftest.py").read_text()
    (folder / "conftest.py").write_text(real.replace("Path(__file__).resolve().parents[1]", repr(str(TESTING))))
    (folder / "test_it.py").write_text(
        "def test_good(host):\n    import qt\n    qt.QCheckBox().click()\n\n\ndef test_bad(host):\n    import qt\n"
        "    button = qt.QPushButton()\n    button.connect('clicked()', lambda: 1 / 0)\n    button.click()\n"
    )
    extra = ("-n", workers) if workers else ()
    report = tmp_path / "report.xml"
    done = run("-m", "pytest", "-q", *extra, "-k", select, f"--junitxml={report}", folder, cwd=tmp_path)
    assert done.returncode == status, done.stdout + done.stderr
    assert counts in done.stdout
    assert report.read_text().endswith("</testsuites>")
