"""SuperResolve with the real core and a real network: the bundled model, else a small one that is made here."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from module_helpers import results_of, wait_idle
from superresolve_scans import add_guide, add_thick, slices_known

pytestmark = pytest.mark.slow  # real networks on whole scans


def is_bundled() -> bool:
    from mri_deep_tools.errors import MRIDeepToolsError
    from mri_deep_tools.models import model_status

    try:
        return model_status("superresolve-lite") == "bundled"
    except MRIDeepToolsError:
        return False


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> dict:
    """Return options of `process` that name a real network."""
    quick = {"device": "cpu", "threads": 1}
    if is_bundled():
        return quick
    from mri_deep_tools.superresolve.network import ResUNet, ResUNetSpec
    from mri_deep_tools.superresolve.train import begin_as_identity
    from mri_deep_tools.superresolve.weights import save_network

    network = ResUNet(ResUNetSpec((4, 8), 1, residual=True, t2_alone=True))
    begin_as_identity(network)
    path = save_network(network, tmp_path_factory.mktemp("weights") / "small.safetensors", 32)
    return {**quick, "weights": str(path)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep the processes away from the models of this computer; no network."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def oblique() -> np.ndarray:
    """Return a turned, left-handed grid of slices of 3 mm with its origin off centre."""
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([-1.1, 1.1, 3.0])
    matrix[:3, 3] = (30, -20, 10)
    return matrix


def test_console_gives_what_the_command_gives(host, real, tmp_path):
    """Without main window: the same intensities as the bare command, in the frame of the volume."""
    import nibabel
    import slicer

    host.set_main_window(False)
    handle = host.load("SuperResolve")
    scan = add_thick("Scan", 3.0, 14, oblique())
    logic = handle.python.SuperResolveLogic()
    result = logic.process(scan, thickness=2.5, **real)
    assert slicer.util.exportNode(scan, str(tmp_path / "scan.nii"), {})
    words = ["--slice-thickness", "2.5", "--device", "cpu", "--threads", "1", "--quiet", "--honesty", "map.nii"]
    words += ["--weights", real["weights"]] if "weights" in real else []
    command = [sys.executable, "-m", "mri_deep_tools", "superresolve", "bare.nii", "--t2", "scan.nii", *words]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    for node, name in ((result, "bare.nii"), (logic.outputs.honesty, "map.nii")):
        bare = nibabel.load(tmp_path / name)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), np.asarray(bare.dataobj).transpose())
        matrix = slicer.util.arrayFromVTKMatrix(_matrix_of(node))
        np.testing.assert_allclose(matrix, bare.affine, atol=1e-4)
    assert result.GetAttribute("MRIDeepTools.Synthetic") == "1"
    assert result.GetAttribute("MRIDeepTools.WeightsSHA256")
    assert json.loads(result.GetAttribute("MRIDeepTools.Options"))["slice_thickness"] == 2.5
    assert "14 axial slices of 2.5 mm every 3 mm, with gaps of 0.5 mm" in logic.outputs.slices
    assert logic.outputs.device == "cpu"


def _matrix_of(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_apply_and_cancel_in_the_panel(host, real):
    """A pair: the button, the bar, the results; and Cancel in the middle of the real program."""
    from MRIDeepToolsLib import core_info, settings

    handle = host.load("SuperResolve")
    core_info.forget()
    settings.set_value("device", "cpu")
    settings.set_value("threads", 1)
    add_guide()
    add_thick()
    widget = handle.widget()
    panel = widget.panel
    wait_idle(host, widget, 120)
    slices_known(host, widget)
    if "weights" in real:
        panel.parameters.model = "own"
        widget.ui.weightsPathLineEdit.currentPath = real["weights"]
    widget.ui.applyButton.click()
    assert host.wait_until(lambda: panel.work is not None and panel.work.job.fraction > 0, 120)
    begin = time.monotonic()
    widget.ui.applyButton.click()
    assert host.wait_until(lambda: panel.work is None, 10)
    assert time.monotonic() - begin < 4  # two seconds on a free machine
    assert results_of() == []
    fractions = []
    tell = panel.progress.progress
    panel.progress.progress = lambda fraction, stage, eta: (fractions.append(fraction), tell(fraction, stage, eta))
    widget.ui.applyButton.click()
    wait_idle(host, widget, 300)
    assert panel.parameters.madeResult is not None, panel.progress.log_text
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1, abs=0.05)
    assert panel.parameters.madeTable.GetNumberOfRows() == 14
    assert not widget.ui.resultsCollapsibleButton.collapsed
