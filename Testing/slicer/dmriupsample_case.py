"""What the tests of the module DMRIUpsample share: the module with a quick core behind it, its panel, and scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from glue_helpers import affine_of, rotation
from module_helpers import set_mode, wait_idle

FAKE = Path(__file__).with_name("fake_upsample.py")
SHAPE = (8, 9, 10)  # k, j, i
AFFINE = affine_of(rotation((12, -20, 35)) @ np.diag([-1, 1, 1]), (3, 3, 4), (20, -30, 10))  # oblique, left-handed


def use_fake_upsample(monkeypatch, mode: str = "good") -> None:
    """Put the quick core in place of the real one; PythonSlicer, the process and the files are real."""
    from MRIDeepToolsLib import processes

    monkeypatch.setattr(processes, "core_command", lambda: [processes.python_slicer(), str(FAKE)])
    set_mode(monkeypatch, mode)


def even(count: int, seed: int = 1) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def add_scan(name: str = "dwi", shells: tuple[int, ...] = (1000,), directions: int = 12, b0: int = 1, affine=AFFINE):
    """Add a diffusion scan with one fibre direction everywhere: noisy signals of a tensor along it."""
    import slicer
    from MRIDeepToolsLib import diffusion

    bvals = np.concatenate([np.zeros(b0), *(np.full(directions, float(b)) for b in shells)])
    world = np.concatenate([np.zeros((b0, 3)), *(even(directions, n) for n in range(len(shells)))])
    fibre = np.array([0.48, 0.6, 0.64])
    signal = 1000 * np.exp(-bvals * (0.0003 + 0.0014 * (world @ fibre) ** 2))
    noise = np.random.default_rng(7).normal(0, 15, (*SHAPE, len(bvals)))
    values = np.clip(signal + noise, 1, None).astype(np.int16)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLDiffusionWeightedVolumeNode", name)
    diffusion.fill_dwi(node, values, slicer.util.vtkMatrixFromArray(affine), bvals, world)
    return node


def add_mask(labels: np.ndarray, affine=AFFINE):
    """Add a label map; labels are k, j, i."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "brain")
    slicer.util.updateVolumeFromArray(node, labels)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))
    return node


def model(name: str, status: str) -> dict:
    return {
        **{"name": name, "task": "upsample-dmri", "status": status, "bundled": status == "bundled", "size": 5},
        **{"size_text": "5 B", "description": f"About {name}", "licence": "MIT"},
        "citation": ["Lyon et al., B (2022), doi:10.1/y"],
        "files": [{"name": "weights.index", "sources": ["https://example.org/x"]}],
    }


MODELS = [model("dmri-rcnn-1d-b1000-q6", "absent"), model("dmri-rcnn-lite", "bundled")]


@pytest.fixture
def module(host, tmp_path, monkeypatch):
    """Return the handle of the module, with the quick core behind it."""
    handle = host.load("DMRIUpsample")
    from MRIDeepToolsLib import core_info

    use_fake_upsample(monkeypatch)
    monkeypatch.setattr(core_info, "_known", {"version": "1.2.3", "devices": [{"name": "cpu"}], "models": MODELS})
    return handle


@pytest.fixture
def widget(host, module):
    """Return the panel's widget, bound to a scene with one scan."""
    add_scan()
    shown = module.widget()
    wait_planned(host, shown)
    return shown


def wait_planned(host, widget, seconds: float = 60) -> None:
    """Wait until the panel knows what the core would do."""
    wait_idle(host, widget, seconds)
    host.pump(0.02)
    assert host.wait_until(lambda: not widget.panel.planner.busy, seconds)
    host.pump(0.02)
