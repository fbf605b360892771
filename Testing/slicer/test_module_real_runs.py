"""SynthSegment with the real core and real weights: the bundled model, else the narrow networks of the golden data."""

from __future__ import annotations

import gzip
import os
import runpy
import subprocess
import sys
import time

import numpy as np
import pytest
from module_helpers import REPOSITORY, add_volume, results_of, wait_idle
from test_module_generic import MODULES

pytestmark = pytest.mark.slow  # the modules' own tests, which run by default, hold one real run each


@pytest.fixture(scope="module")
def real(tmp_path_factory, request) -> dict:
    """Return options of `process` that name real weights, small enough for a test."""
    from mri_deep_tools.models import model_status

    quick = {"crop": 32, "fast": True, "device": "cpu", "threads": 1}
    if model_status("synthseg-lite") == "bundled":
        return quick
    shared = request.getfixturevalue("shared")
    folder = tmp_path_factory.mktemp("weights")
    for path in shared("fixtures", "synthseg", "weights").glob("*.h5.gz"):
        with gzip.open(path) as source:
            (folder / path.name.removesuffix(".gz")).write_bytes(source.read())
    return {**quick, "weights": str(folder)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep the processes away from the models of this computer; no network."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("FREESURFER_HOME", raising=False)


def oblique(spacing=(1.0, 1.1, 1.2)) -> np.ndarray:
    """Return a turned, left-handed grid with its origin off centre."""
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([-spacing[0], spacing[1], spacing[2]])
    matrix[:3, 3] = (30, -20, 10)
    return matrix


def test_console_gives_what_the_command_gives(host, real, tmp_path):
    """Without main window: same labels as the bare command, on the grid of the volume, with the same volumes."""
    import nibabel
    import slicer

    host.set_main_window(False)
    handle = host.load("SynthSegment")
    volume = add_volume("Scan", (34, 36, 40), oblique())
    logic = handle.python.SynthSegmentLogic()
    segmentation = logic.process(volume, **real)
    assert slicer.util.exportNode(volume, str(tmp_path / "scan.nii"), {})
    words = ["--crop", "32", "--fast", "--device", "cpu", "--threads", "1"]
    words += ["--weights", real["weights"]] if "weights" in real else []
    command = [sys.executable, "-m", "mri_deep_tools", "segment", "scan.nii", "bare_dseg.nii", *words]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    bare = np.asarray(nibabel.load(tmp_path / "bare_dseg.nii").dataobj).transpose()  # i, j, k to k, j, i
    container = segmentation.GetSegmentation()
    assert container.GetNumberOfSegments() == len(np.unique(bare[bare > 0])) > 0
    for number in range(container.GetNumberOfSegments()):
        identity = container.GetNthSegmentID(number)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identity, volume)
        np.testing.assert_array_equal(mask > 0, bare == container.GetNthSegment(number).GetLabelValue())
    table = logic.outputs.volumes
    assert table.GetNumberOfRows() >= 10
    assert logic.outputs.device == "cpu"
    assert logic.outputs.model
    assert segmentation.GetAttribute("MRIDeepTools.WeightsSHA256")


def test_apply_and_cancel_in_the_panel(host, real):
    """The button, the bar, the results; then Cancel in the middle of the real program, within two seconds."""
    from MRIDeepToolsLib import settings

    handle = host.load("SynthSegment")
    settings.set_value("device", "cpu")
    settings.set_value("threads", 1)
    add_volume("Scan", (34, 36, 40))
    widget = handle.widget()
    panel = widget.panel
    wait_idle(host, widget, 120)
    if "weights" in real:
        panel.parameters.model = "own"
        widget.ui.weightsPathLineEdit.currentPath = real["weights"]
    panel.parameters.fast = True
    widget.ui.applyButton.click()
    assert host.wait_until(lambda: panel.work is not None and panel.work.job.fraction > 0, 120)
    begin = time.monotonic()
    widget.ui.applyButton.click()
    assert host.wait_until(lambda: panel.work is None, 10)
    assert time.monotonic() - begin < 2.5
    assert results_of() == []
    fractions = []
    tell = panel.progress.progress
    panel.progress.progress = lambda fraction, stage, eta: (fractions.append(fraction), tell(fraction, stage, eta))
    widget.ui.applyButton.click()
    wait_idle(host, widget, 300)
    assert panel.parameters.resultSegmentation is not None, panel.progress.log_text
    assert panel.parameters.resultSegmentation.GetSegmentation().GetNumberOfSegments() > 0
    assert fractions == sorted(fractions)
    assert len(fractions) > 2
    assert fractions[-1] == pytest.approx(1, abs=0.05)
    assert not widget.ui.resultsCollapsibleButton.collapsed


def test_script_for_a_real_slicer(host, real, tmp_path, monkeypatch, capsys):
    """`Testing/run_in_slicer.py` as Slicer would run it, in the host: modules, tests, a labelled image."""
    import slicer

    host.set_main_window(False)
    host.set_testing(True)
    for name in MODULES:
        host.load(name)
    image = tmp_path / "scan.nii.gz"
    assert slicer.util.exportNode(add_volume("Scan", (34, 36, 40)), str(image), {})
    slicer.mrmlScene.Clear(0)
    words = ["--apply", str(image), "--crop", "32", "--output", str(tmp_path / "out")]
    words += ["--weights", real["weights"]] if "weights" in real else []
    script = REPOSITORY / "Testing" / "run_in_slicer.py"
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    runpy.run_path(str(script), run_name="__main__")
    text = capsys.readouterr().out
    assert f"{len(MODULES) + 1} of {len(MODULES) + 1} passed" in text, text
    assert slicer.app._s_exit_code == 0
    assert (tmp_path / "out" / "SynthSegment.png").stat().st_size > 3000
    assert (tmp_path / "out" / "labels.seg.nrrd").is_file()
    assert os.environ["MRI_DEEP_TOOLS_OFFLINE"] == "1"
