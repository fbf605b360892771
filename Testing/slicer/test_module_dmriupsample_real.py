"""DMRIUpsample with the real core: a small network that knows nothing, spherical harmonics, the bundled models."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from dmriupsample_case import add_mask, add_scan, wait_planned
from glue_helpers import affine_of, orientations, rotation
from module_helpers import apply, message, results_of
from test_module_dmriupsample import matrix_of

pytestmark = pytest.mark.slow  # real networks on whole scans

FIBRE = np.array([0.48, 0.6, 0.64])
NARROW = {"init": 6, "ecv11": 8, "ecv21": 8, "ecvl1": 5, "ecvl2": 6, "conv_lstm": 7, "dcvl1": 6, "dcvl2": 8, "dcv11": 9}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep the processes away from the models of this computer; no network."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def handle(host):
    from MRIDeepToolsLib import core_info, settings

    handle = host.load("DMRIUpsample")
    core_info.forget()
    settings.set_value("device", "cpu")
    settings.set_value("threads", 1)
    return handle


def fibre_of(node, which) -> np.ndarray:
    """Return the principal axis, in world space, of a tensor fitted to the mean signals of some volumes and b = 0."""
    import slicer
    from MRIDeepToolsLib.diffusion import gradients_of

    bvals, world = gradients_of(node)
    signal = np.log(slicer.util.arrayFromVolume(node)[2:-2, 2:-2, 2:-2].mean(axis=(0, 1, 2)))
    which = [int(np.flatnonzero(bvals == 0)[0]), *which]
    x, y, z = world[which].T
    design = np.column_stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]) * -bvals[which][:, None]
    xx, yy, zz, xy, xz, yz = np.linalg.lstsq(np.column_stack([design, np.ones(len(which))]), signal[which], rcond=None)[
        0
    ][:6]
    return np.linalg.eigh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])[1][:, 2]


def test_console_gives_what_the_command_gives(host, handle, tmp_path):
    """Without main window, oblique and left-handed: the same volumes and gradients as the command on FSL's files."""
    import nibabel
    import slicer
    from mri_deep_tools.dmriupsample.facts import Facts
    from mri_deep_tools.dmriupsample.network import RCNN
    from mri_deep_tools.dmriupsample.weights import save_network
    from MRIDeepToolsLib.diffusion import gradients_of, import_dwi_files

    host.set_main_window(False)
    weights = save_network(RCNN(1, 6, NARROW), tmp_path / "net.safetensors", Facts((6,), 1000, percentile=True))
    scan, labels = add_scan(), np.zeros((8, 9, 10), np.uint8)
    labels[1:-1, 1:-1, 1:-1] = 1
    mask = add_mask(labels)
    logic = handle.python.DMRIUpsampleLogic()
    result = logic.process(scan, directions=9, mask=mask, weights=str(weights), device="cpu", threads=1)
    logic.save_fsl(scan, tmp_path / "scan.nii")
    nibabel.save(nibabel.Nifti1Image(labels.transpose(), matrix_of(scan)), tmp_path / "mask.nii")
    words = ["scan.nii", "bare.nii", "--mask", "mask.nii", "--directions", "9", "--keep-measured", "--device", "cpu"]
    command = [sys.executable, "-m", "mri_deep_tools", "upsample-dmri", *words, "--weights", str(weights)]
    subprocess.run([*command, "--threads", "1"], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    bare = import_dwi_files(tmp_path / "bare.nii")
    ours, theirs = (slicer.util.arrayFromVolume(node) for node in (result, bare))
    assert ours[..., 13:].std() > 0
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * theirs.max())
    np.testing.assert_allclose(gradients_of(result)[1], gradients_of(bare)[1], atol=1e-5)
    assert logic.outputs.predicted == list(range(13, 22))
    assert result.GetAttribute("MRIDeepTools.Synthetic") == "1"
    assert result.GetAttribute("MRIDeepTools.WeightsSHA256")
    assert logic.outputs.device == "cpu"


@pytest.mark.parametrize("number", [5, 43])
def test_predicted_directions_are_right_in_the_world(host, handle, number):
    """A tensor fitted to the predicted volumes alone points along the fibre: other axes, mirrored, oblique."""
    code, matrix = orientations()[number]
    affine = affine_of(rotation((15, -30, 40)) @ matrix, (2, 3, 4), (5, 6, 7))
    scan = add_scan(code, directions=20, affine=affine)
    assert abs(fibre_of(scan, range(1, 21)) @ FIBRE) > np.cos(np.radians(2))
    result = handle.python.DMRIUpsampleLogic().process(scan, directions=15, method="sh", device="cpu", threads=1)
    assert result.GetNumberOfGradients() == 36
    assert abs(fibre_of(result, range(21, 36)) @ FIBRE) > np.cos(np.radians(2))


def test_apply_in_the_panel(host, handle):
    """The plan of the real core, FA, MD, errors with verdict, table and chart; by spherical harmonics."""
    import slicer

    add_scan(directions=20, b0=2)
    widget = handle.widget()
    parameters = widget.panel.parameters
    parameters.method = type(parameters.method).HARMONICS
    parameters.makeMD = parameters.makeB0 = True
    parameters.mask = add_mask(np.ones((8, 9, 10), np.uint8))
    parameters.directionCount = 12
    wait_planned(host, widget, 120)
    assert "20 directions at b = 1000, 2 volumes at b = 0." in widget.ui.planLabel.text
    assert "all 20. Predicted: 12." in widget.ui.planLabel.text
    fractions = []
    tell = widget.panel.progress.progress
    widget.panel.progress.progress = lambda fraction, stage, eta: (
        fractions.append(fraction),
        tell(fraction, stage, eta),
    )
    apply(host, widget, 300)
    assert "Done in" in message(widget), widget.panel.progress.log_text
    assert fractions == sorted(fractions)
    fa, md = (slicer.util.arrayFromVolume(node) for node in (parameters.madeFA, parameters.madeMD))
    eigenvalues = np.array([0.0017, 0.0003, 0.0003])
    truth = np.sqrt(1.5 * ((eigenvalues - eigenvalues.mean()) ** 2).sum() / (eigenvalues**2).sum())
    assert abs(np.median(fa) - truth) < 0.03
    assert abs(np.median(md) - eigenvalues.mean()) < 3e-5
    assert parameters.madeErrors.GetNumberOfRows() == 20
    assert parameters.madeChart.GetNumberOfPlotSeriesNodes() >= 2
    assert "left out" in parameters.madeVerdict
    assert parameters.madeLevel in ("good", "doubtful")
    assert len(results_of("vtkMRMLScalarVolumeNode")) == 4  # the scan with its directions is one, too


def test_the_bundled_model_predicts(host, handle):
    from mri_deep_tools.models import list_models

    if not any(model.bundled for model in list_models("upsample-dmri")):
        pytest.skip("no model of this task is bundled")
    scan = add_scan(directions=12)
    logic = handle.python.DMRIUpsampleLogic()
    mask = add_mask(np.ones((8, 9, 10), np.uint8))
    result = logic.process(scan, directions=15, mask=mask, errors=True, device="cpu", threads=1)
    assert logic.outputs.model == "dmri-rcnn-lite"
    assert logic.outputs.errors is not None
    assert abs(fibre_of(result, logic.outputs.predicted) @ FIBRE) > np.cos(np.radians(10))
