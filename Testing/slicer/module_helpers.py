"""What the tests of the modules share: a core that is quick and can misbehave, real weights, volumes, pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]

FAKE_CORE = Path(__file__).with_name("fake_core.py")
"""Quick, and able to misbehave; see there."""


def use_fake_core(monkeypatch, mode: str = "good") -> None:
    """Put the quick core in place of the real one; PythonSlicer, the process and the files are real."""
    from MRIDeepToolsLib import processes

    monkeypatch.setattr(processes, "core_command", lambda: [processes.python_slicer(), str(FAKE_CORE)])
    set_mode(monkeypatch, mode)


def set_mode(monkeypatch, mode: str) -> None:
    """Tell the quick core how to behave from the next run on."""
    from MRIDeepToolsLib import settings

    original = getattr(settings.environment, "original", settings.environment)

    def environment() -> dict[str, str]:
        passed = {name: os.environ.get(name, "") for name in ("FAKE_CORE_GO", "FAKE_CORE_LABELS")}
        return {**original(), **passed, "FAKE_CORE_MODE": mode}

    environment.original = original
    monkeypatch.setattr(settings, "environment", environment)


def add_volume(name: str = "Head", shape=(34, 36, 40), matrix=None, seed: int = 1):
    """Add a scalar volume: a bright box in noise; ``shape`` is k, j, i, ``matrix`` the 4 x 4 from IJK to RAS."""
    import slicer
    import vtk

    values = np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)
    values[4:-4, 4:-4, 4:-4] += 200
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(volume, values)
    to_ras = vtk.vtkMatrix4x4()
    matrix = np.diag([4.0, 4.0, 4.0, 1.0]) if matrix is None else np.asarray(matrix)
    for row in range(4):
        for column in range(4):
            to_ras.SetElement(row, column, matrix[row, column])
    volume.SetIJKToRASMatrix(to_ras)
    volume.CreateDefaultDisplayNodes()
    return volume


def results_of(class_name: str = "vtkMRMLNode") -> list:
    """Return the nodes in the scene that this extension made."""
    import slicer

    nodes = slicer.util.getNodesByClass(class_name)
    return [node for node in nodes if node.GetAttribute("MRIDeepTools.ResearchUseOnly") == "1"]


def grab_panel(host, handle, path: Path, width: int = 440) -> Path:
    """Write a picture of a panel as wide as Slicer's panels are, and as high as it wants to be."""
    container = handle.module.widgetRepresentation()
    host.pump(0.1)
    layout = container.layout()
    height = layout.totalHeightForWidth(width) if layout.hasHeightForWidth() else layout.totalSizeHint().height()
    return host.grab(handle, path, (width, max(height, layout.totalMinimumSize().height())))


def wait_idle(host, widget, seconds: float = 60) -> None:
    """Wait until a module's panel has nothing running any more."""
    panel = widget.panel
    assert host.wait_until(lambda: getattr(panel, "work", None) is None and panel._asking is None, seconds)


def message(widget) -> str:
    return re.sub("<[^>]+>", "", widget.panel.progress.ui.messageLabel.text)


def apply(host, widget, seconds: float = 60) -> None:
    assert widget.ui.applyButton.enabled, message(widget)
    widget.ui.applyButton.click()
    wait_idle(host, widget, seconds)


def scene_is_clean() -> bool:
    return results_of() == []


def run_until_labels_are_due(host, widget, monkeypatch, tmp_path):
    """Start a run that waits before it writes; return the function that lets it go on."""
    go = tmp_path / "go"
    monkeypatch.setenv("FAKE_CORE_GO", str(go))
    set_mode(monkeypatch, "step")
    widget.ui.applyButton.click()
    assert host.wait_until(lambda: "43 %" in widget.panel.progress.ui.progressBar.format, 30)
    return go.touch


def expect_no_names(texts: Iterable[str], folder: Path) -> None:
    """Expect no trace of the patient Jane, or of a folder, in logs and in the attributes of the results."""
    for text in texts:
        assert "Jane" not in text
        assert str(folder) not in text
    for node in results_of():
        for name in node.GetAttributeNames():
            assert "Jane" not in node.GetAttribute(name)
            assert "/tmp" not in node.GetAttribute(name)


def keep_apart(tmp_path_factory, monkeypatch) -> None:
    """Keep the core's processes away from the models of this computer; no network, one thread."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
