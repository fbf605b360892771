"""What every module must pass: light import, Slicer's generic checks, its own tests, life cycle, sample data."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import unittest
from pathlib import Path

import pytest
from module_helpers import REPOSITORY
from test_packaging import built  # noqa: F401 - a fixture

MODULES = ("DMRIUpsample", "Harmonize", "MRIDeepTools", "SuperResolve", "SynthSegment")

LIGHT_IMPORT = r"""
import importlib, json, sys, time
sys.path.insert(0, sys.argv[1] + "/Testing")
from slicer_host import Host
host = Host.boot()
blocked = ("torch", "nibabel", "mri_deep_tools", "psutil", "pandas", "matplotlib")
before = {name for name in blocked if name in sys.modules}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Blocker())
seconds = {}
for name in sys.argv[2:]:
    begin = time.process_time()
    host.load(name)
    seconds[name] = time.process_time() - begin
print("SECONDS", json.dumps([sorted(before), seconds]), flush=True)
host.leave(0)
"""


def test_modules_import_quickly_and_without_what_slicer_lacks(host):
    """In a process of its own, in which torch, nibabel and the core cannot be imported."""
    words = [sys.executable, "-c", LIGHT_IMPORT, str(REPOSITORY), *MODULES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    lines = [line.removeprefix("SECONDS ") for line in done.stdout.splitlines() if line.startswith("SECONDS ")]
    assert len(lines) == 1, done.stderr
    before, seconds = json.loads(lines[0])
    assert before == []
    assert set(seconds) == set(MODULES)
    assert max(seconds.values()) < 0.2, seconds


INSTALLED = r"""
import sys
modules = sys.argv[1]
sys.path.insert(0, sys.argv[2] + "/Testing")
from slicer_host import Host
host = Host.boot()
sys.path.insert(0, modules)
from MRIDeepToolsLib import core_info, setup_core
core_info._known = {"version": "1", "devices": [], "models": []}  # not to be asked here
for name in sys.argv[3:]:
    handle = host.load(f"{modules}/{name}.py")
    assert handle.widget().panel is not None, name
host.pump(0.2)
print("SOURCE", setup_core.core_source(), flush=True)
for finding in host.findings:
    print("FINDING", finding, flush=True)
host.leave(0)
"""


def test_installed_extension_works_from_its_one_folder(host, built, tmp_path):  # noqa: F811
    """After `cmake --install`: panels are shown, and the set-up finds the wheel of the core."""
    subprocess.run(["cmake", "--install", str(built), "--prefix", str(tmp_path)], check=True, capture_output=True)
    (modules,) = tmp_path.rglob("qt-scripted-modules")
    words = [sys.executable, "-c", INSTALLED, str(modules), str(REPOSITORY), *MODULES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    sources = [line.removeprefix("SOURCE ") for line in lines if line.startswith("SOURCE ")]
    assert len(sources) == 1, done.stderr
    assert sources[0].startswith(str(modules / "Resources" / "Wheels" / "mri_deep_tools-"))
    assert sources[0].endswith(".whl")
    assert [line for line in lines if line.startswith("FINDING")] == []


@pytest.mark.parametrize("main_window", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_generic_checks_of_slicer(host, name, main_window):
    """The checks of Slicer's generic test of scripted modules, with and without main window."""
    import slicer

    host.set_main_window(main_window)
    handle = host.load(name)
    module = handle.module
    assert getattr(slicer.modules, name.lower()) is module
    assert module.name == name
    assert module.title
    assert module.categories
    assert module.contributors
    assert module.acknowledgementText
    assert module.helpText
    assert "Research use only" in module.helpText
    assert module.dependencies == (["MRIDeepTools"] if name != "MRIDeepTools" else [])
    assert not module.icon.isNull()
    assert module.logic() is module.logic()
    assert module.widgetRepresentation() is module.widgetRepresentation()
    scene = slicer.vtkMRMLScene()
    old = module.mrmlScene()
    module.setMRMLScene(scene)
    assert module.mrmlScene() is scene
    module.setMRMLScene(old)
    handle.enter()
    host.pump(0.1)
    handle.leave()


LONG = ("Harmonize", "SynthSegment")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in MODULES]
)
def test_own_tests_of_the_module(host, name):
    """Both ways of Slicer: the loader of unittest, as in CTest, and runTest, as by Reload and Test."""
    handle = host.load(name)
    handle.widget()
    host.set_testing(True)
    cases = unittest.defaultTestLoader.loadTestsFromTestCase(getattr(handle.python, f"{name}Test"))
    assert cases.countTestCases() >= 3
    result = unittest.TestResult()
    cases.run(result)
    assert result.testsRun == cases.countTestCases()
    assert not result.errors + result.failures, result.errors + result.failures
    host.load(name).module.widgetRepresentation()
    case = getattr(handle.python, f"{name}Test")()
    case.messageDelay = 1
    case.runTest()


@pytest.mark.parametrize("name", MODULES)
def test_reload_enter_leave_close(host, name, monkeypatch):
    """The panel survives what a person does with it; files of the module are loaded anew."""
    for loaded in [item for item in sys.modules if item.partition(".")[0] in ("MRIDeepToolsLib", f"{name}Lib")]:
        monkeypatch.setitem(sys.modules, loaded, sys.modules[loaded])  # other tests hold on to them
    monkeypatch.setitem(sys.modules, name, host.load(name).python)
    handle = host.load(name)
    first = handle.widget()
    handle.leave()
    handle.enter()
    handle.reload()
    second = handle.widget()
    assert second is not first
    assert type(second.panel) is not type(first.panel)
    handle.leave()
    handle.close()
    assert handle.widget() is not second


def test_scene_may_be_closed_at_any_time(host):
    import slicer

    handle = host.load("SynthSegment")
    slicer.mrmlScene.Clear(0)
    widget = handle.widget()
    slicer.mrmlScene.Clear(0)
    assert widget.panel.parameters is not None
    handle.leave()
    slicer.mrmlScene.Clear(0)
    assert widget.panel.parameters is None
    handle.enter()
    assert widget.panel.parameters is not None


def test_samples_are_registered_when_slicer_has_sample_data(host, monkeypatch):
    """The arguments fit the signature of Slicer's function, and each file has its checksum."""
    import slicer

    registered = []

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(  # noqa: N802 - Slicer's name
            category="Custom",
            sampleName=None,
            uris=None,
            fileNames=None,
            nodeNames=None,
            customDownloader=None,
            thumbnailFileName=None,
            loadFileType=None,
            loadFiles=None,
            loadFileProperties=None,
            checksums=None,
        ):
            registered.append((category, sampleName, uris, fileNames, nodeNames, thumbnailFileName, checksums))

    handle = host.load("SynthSegment")
    slicer.app.startupCompleted.emit()
    assert registered == []  # no such module: nothing happens, nothing fails
    module = types.ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", module)
    monkeypatch.setattr(slicer.modules, "sampledata", object(), raising=False)
    slicer.app.startupCompleted.emit()
    assert len(registered) >= 3
    assert handle.python.SynthSegment
    for category, name, uri, file, node, thumbnail, checksum in registered:
        assert category == "MRI Deep Tools"
        assert name and node and file.endswith(".nrrd")
        assert Path(thumbnail).is_file()
        assert checksum.startswith("SHA256:")
        assert len(checksum) == 7 + 64
        assert uri.endswith(checksum.removeprefix("SHA256:"))
        assert uri.startswith("https://")
