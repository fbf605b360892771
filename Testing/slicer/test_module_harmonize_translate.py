"""Translation (SynDiff) in the module Harmonize with the real core: a random network of 16 pixels, a few slices."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from harmonize_case import MODELS, voxel_to_world
from module_helpers import add_volume, apply, grab_panel, keep_apart, message, results_of, wait_idle
from synthsegment_case import model
from test_module_pictures import pixels

MAKE_MODEL = """
import sys, torch
from mri_deep_tools.translate.network import NCSNpp, NCSNppSpec
from mri_deep_tools.translate.weights import ModelFacts, save_model
torch.manual_seed(1)
spec = NCSNppSpec(image_size=16, width=8, multipliers=(1, 1), blocks=1, attention=(), latent=4, embedding=8)
networks = {1: NCSNpp(spec), 2: NCSNpp(spec)}
facts = ModelFacts(("T1w", "T2w"), image_size=16, in_plane_spacing_mm=4.0, slice_axis="axial")
save_model(sys.argv[1], networks, facts)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    keep_apart(tmp_path_factory, monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a model with random weights; torch stays out of this process."""
    made = tmp_path_factory.mktemp("translator")
    subprocess.run([sys.executable, "-c", MAKE_MODEL, str(made)], check=True, timeout=120)
    return made


@pytest.fixture
def module(host, monkeypatch):
    handle = host.load("Harmonize")
    from MRIDeepToolsLib import core_info, settings

    settings.reset()
    settings.set_value("device", "cpu")
    settings.set_value("threads", 1)
    pair = {**model("syndiff-lite", "translate", "bundled"), "input_needs": {"directions": [["T1w", "T2w"]]}}
    listed = [*(item for item in MODELS if item["task"] != "translate"), pair]
    monkeypatch.setattr(core_info, "_known", {"version": "1.2.3", "devices": [{"name": "cpu"}], "models": listed})
    yield handle
    settings.reset()


@pytest.fixture
def scan(module):
    """Add a small head, tilted: 20 x 22 x 12 voxels of 4 x 4 x 5 mm."""
    import slicer

    tilt = np.eye(4)
    tilt[:3, :3] = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]) @ np.diag([4.0, 4.0, 5.0])
    tilt[:3, 3] = (-40, -35, -20)
    k, j, i = np.indices((12, 22, 20)).astype(np.float32)
    distance = np.sqrt(((i - 9.5) / 8) ** 2 + ((j - 10.5) / 9) ** 2 + ((k - 5.5) / 5) ** 2)
    values = np.where(distance < 0.6, 700, np.where(distance < 1, 400, 0)).astype(np.float32)
    volume = add_volume("Anna T1w", values.shape, tilt)
    slicer.util.updateVolumeFromArray(volume, values)
    return volume


@pytest.mark.slow
def test_the_console_gives_what_the_command_gives(host, module, scan, folder, tmp_path):
    import slicer
    from mri_deep_tools.volume import read_volume
    from MRIDeepToolsLib import nodes

    host.set_main_window(False)
    before = slicer.util.arrayFromVolume(scan).copy()
    logic = module.python.HarmonizeLogic()
    made = logic.translate(scan, "T2w", weights=folder, samples=2, spread=True, seed=7)
    nodes.export_volume(scan, tmp_path / "bare.nii")
    words = ["translate", tmp_path / "bare.nii", tmp_path / "out.nii", "--to", "T2w", "--weights", folder]
    words += ["--samples", "2", "--seed", "7", "--save-std", tmp_path / "std.nii", "--device", "cpu", "--threads", "1"]
    subprocess.run([sys.executable, "-m", "mri_deep_tools", *map(str, words)], check=True, capture_output=True)
    for node, name in ((made, "out.nii"), (logic.outputs.spread, "std.nii")):
        expected = read_volume(tmp_path / name).data.transpose()
        np.testing.assert_allclose(slicer.util.arrayFromVolume(node), expected, atol=1e-5)
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(voxel_to_world(node), voxel_to_world(scan), atol=1e-4)
        assert node.GetAttribute("MRIDeepTools.Synthetic") == "1"
        assert node.GetAttribute("MRIDeepTools.Command") == "translate"
    assert made.GetName() == "Anna T1w - T2w (synthetic)"
    assert made.GetImageData().GetDimensions() == scan.GetImageData().GetDimensions()
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(scan), before)
    assert (logic.outputs.source, logic.outputs.target) == ("T1w", "T2w")
    with pytest.raises(Exception, match="needs two samples or more"):
        logic.translate(scan, "T2w", weights=folder, spread=True)
    with pytest.raises(Exception, match="does not know the contrast"):
        logic.translate(scan, "FLAIR", weights=folder)


def test_the_panel_translates_with_a_folder(host, module, scan, folder):
    from HarmonizeLib.parameters import MethodChoice
    from MRIDeepToolsLib.model_widgets import OWN_WEIGHTS

    widget = module.widget()
    wait_idle(host, widget)
    ui, parameters = widget.ui, widget.panel.parameters
    assert not ui.translateCollapsibleButton.visible and ui.outputsCollapsibleButton.visible
    parameters.method = MethodChoice.SYNDIFF
    host.pump(0.1)
    assert ui.translateCollapsibleButton.visible and not ui.outputsCollapsibleButton.visible
    assert not ui.brainComboBox.visible and not ui.predictCollapsibleButton.visible
    assert ui.applyButton.enabled  # with the model that is here
    assert [ui.directionComboBox.itemText(row) for row in range(ui.directionComboBox.count)] == ["T1w to T2w"]
    parameters.translator = OWN_WEIGHTS
    assert not ui.applyButton.enabled
    ui.translatePathLineEdit.currentPath = str(folder)
    texts = [ui.directionComboBox.itemText(row) for row in range(ui.directionComboBox.count)]
    assert texts == ["T1w to T2w", "T2w to T1w"]
    assert parameters.translateTo == "T2w"
    parameters.makeSpread = True
    assert "two samples or more" in ui.applyButton.toolTip
    parameters.samples = 2
    assert "two samples or more" not in ui.applyButton.toolTip
    ui.slicesLineEdit.text = "four"
    assert "first:end" in ui.applyButton.toolTip
    ui.slicesLineEdit.text = "4:8"
    apply(host, widget, 120)
    assert "Done in" in message(widget), message(widget)
    assert parameters.madeContrast == "T2w" and parameters.madeChangeMap is not None
    names = sorted(node.GetName() for node in results_of("vtkMRMLScalarVolumeNode"))
    assert names == ["Anna T1w - T2w (synthetic)", "Anna T1w - T2w (synthetic), standard deviation"]
    assert not ui.resultsTabs.visible and ui.compareButton.enabled
    parameters.method = MethodChoice.IGUANE
    host.pump(0.1)
    assert ui.brainComboBox.visible and ui.outputsCollapsibleButton.visible


def test_what_cannot_be_translated_is_told(module, scan, folder, tmp_path):
    from HarmonizeLib.translation import TranslateOptions, directions, why_not_translate

    def told(**options) -> str:
        return why_not_translate(scan, TranslateOptions(**{"target": "T2w", "weights": str(folder), **options}))

    assert told() == ""
    assert "Choose a scan" in why_not_translate(None, TranslateOptions("T2w", weights=str(folder)))
    assert "no model.json" in told(weights=str(tmp_path))
    assert "Choose a model that translates" in told(weights="")
    assert "Choose the contrast" in told(target="")
    for slices in ("7:", ":7", "4:7", "7"):
        assert told(slices=slices) == "", slices
    for slices in ("four", "7:4", "4:4", ":", "-1:4"):
        assert "first:end" in told(slices=slices), slices
    targets = {"result": scan, "spread": None}
    assert "overwrite the scan" in why_not_translate(scan, TranslateOptions("T2w", weights=str(folder)), targets)
    assert directions("", str(folder), []) == [("T1w", "T2w"), ("T2w", "T1w")]
    assert directions("", str(tmp_path), []) == []
    for content in ("[]", '{"contrasts": ["T1w", "T2w"]}'):  # no facts; facts without networks
        (tmp_path / "model.json").write_text(content)
        assert directions("", str(tmp_path), []) == []
        assert "no network" in told(weights=str(tmp_path))


def test_picture_of_the_translation_panel(host, module, scan, tmp_path):
    """Rows of the other method leave no gaps, and the panel is no wider than Slicer's."""
    from HarmonizeLib.parameters import MethodChoice

    widget = module.widget()
    wait_idle(host, widget)
    parameters = widget.panel.parameters
    assert not widget.ui.modelAboutLabel.visible  # nothing to tell, so no empty row
    plain = pixels(grab_panel(host, module, tmp_path / "iguane.png"))
    parameters.method = MethodChoice.SYNDIFF
    assert not widget.ui.modelAboutLabel.visible
    picture = pixels(grab_panel(host, module, tmp_path / "Harmonize-translation.png"))
    assert picture.shape[1] == plain.shape[1] == 440
    assert picture.shape[0] < 900
