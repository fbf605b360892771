"""Translation into another contrast in the module Harmonize: panel, runs, scene, console. The core is a quick one.

Faults are in test_module_harmonize_faults.py, places in test_module_harmonize_places.py, and runs of the real core in
test_module_harmonize_translate.py.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
from harmonize_case import choose_method, rigid, transform_node, voxel_to_world
from module_helpers import add_volume, apply, expect_no_names, message, results_of, set_mode

pytest_plugins = ["harmonize_case"]


@pytest.fixture
def panel(widget):
    """Return the panel's widget with the method, two samples and their standard deviation chosen."""
    choose_method(widget, "syndiff")
    return widget


def directions_of(widget) -> list[str]:
    box = widget.ui.directionComboBox
    return [box.itemText(row) for row in range(box.count)]


def test_widgets_and_parameters_follow_each_other(host, module, panel):
    parameters, ui = panel.panel.parameters, panel.ui
    assert directions_of(panel) == ["T1w to T2w", "T2w to T1w"]
    ui.directionComboBox.setCurrentIndex(1)
    assert parameters.translateTo == "T1w"
    parameters.translateTo = "T2w"
    assert ui.directionComboBox.currentIndex == 0
    ui.slicesLineEdit.text = "4:9"
    ui.sameNoiseCheckBox.checked = True
    assert (parameters.slices, parameters.sameNoise) == ("4:9", True)
    assert ui.spreadSelector.enabled and not ui.translatePathLineEdit.visible
    ui.makeSpreadCheckBox.checked = False
    assert not ui.spreadSelector.enabled
    ui.translateModelComboBox.setCurrentIndex(ui.translateModelComboBox.findData("own"))
    assert parameters.translator == "own" and ui.translatePathLineEdit.visible and directions_of(panel) == []
    assert "folder of one of your own" in message(panel) and not ui.applyButton.enabled


def test_the_direction_follows_the_name_of_the_scan(host, module, widget):
    """Once; what a person chose stays, and is doubted aloud."""
    parameters = widget.panel.parameters
    parameters.inputVolume = add_volume("Anna_t2_tse")
    choose_method(widget, "syndiff")
    assert parameters.translateTo == "T1w" and not widget.ui.inputNoteLabel.visible
    parameters.inputVolume = add_volume("Anna T1w")
    assert "sounds like T1w, which is to be made from T2w" in widget.ui.inputNoteLabel.text
    assert widget.ui.applyButton.enabled
    parameters.translateTo = "T2w"
    assert not widget.ui.inputNoteLabel.visible
    parameters.inputVolume = add_volume("Somebody")
    assert parameters.translateTo == "T2w" and not widget.ui.inputNoteLabel.visible


def test_apply_says_why_it_is_disabled(host, module, panel):
    import slicer

    parameters, scan = panel.panel.parameters, panel.panel.parameters.inputVolume
    assert panel.ui.applyButton.enabled and message(panel) == ""
    for name, value, words in (
        ("inputVolume", None, "Choose a scan"),
        ("inputVolume", slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty"), "empty"),
        ("inputVolume", add_volume("Slice", (1, 40, 40)), "single slice"),
        ("translated", scan, "overwrite the scan"),
        ("samples", 1, "two samples or more"),
        ("slices", "9:4", "first:end"),
        ("slices", "some", "first:end"),
    ):
        good = getattr(parameters, name)
        setattr(parameters, name, value)
        assert words in message(panel) and not panel.ui.applyButton.enabled, (name, message(panel))
        setattr(parameters, name, good)
        assert panel.ui.applyButton.enabled, message(panel)
    parameters.translated = parameters.spread = add_volume("Mine")
    assert "same volume" in message(panel)


def test_apply_translates_a_volume(host, module, panel):
    """Progress, log, both outputs: values, place, names, hierarchy, attributes; the scan stays as it is."""
    import slicer

    parameters = panel.panel.parameters
    scan = parameters.inputVolume
    above = transform_node(rigid((20, -15, 30), (35, -20, 10)))
    scan.SetAndObserveTransformNodeID(above.GetID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(scan), study)
    before, place = slicer.util.arrayFromVolume(scan).copy(), voxel_to_world(scan)
    seen, original = [], panel.panel.progress.progress
    panel.panel.progress.progress = lambda *values: (seen.append(values), original(*values))
    apply(host, panel)
    assert (0.43, "translate", 21.0) in seen
    assert "fake core" in panel.panel.progress.log_text and "Done in" in message(panel)
    result, spread = parameters.madeResult, parameters.madeChangeMap
    assert result.GetName() == "Head T1w - T2w (synthetic)"
    assert spread.GetName() == "Head T1w - T2w (synthetic), standard deviation"
    values = np.sqrt(np.clip(before, 0, None) / before.max())  # what the quick core does
    np.testing.assert_allclose(slicer.util.arrayFromVolume(result), values, atol=1e-6)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(spread), 0.2 * values * (1 - values), atol=1e-6)
    for made in (result, spread):
        np.testing.assert_allclose(voxel_to_world(made), place, atol=1e-4)
        assert made.GetTransformNodeID() == above.GetID()
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(made)) == study
        assert made.GetAttribute("MRIDeepTools.Synthetic") == made.GetAttribute("MRIDeepTools.ResearchUseOnly") == "1"
        assert made.GetAttribute("MRIDeepTools.Command") == "translate"
        assert made.GetAttribute("MRIDeepTools.Model") == "fake"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(scan), before)
    np.testing.assert_allclose(voxel_to_world(scan), place)
    assert scan.GetAttribute("MRIDeepTools.Synthetic") is None
    assert not panel.ui.resultsCollapsibleButton.collapsed and not panel.ui.resultsTabs.visible
    assert "3.0 % of the voxels of the scan" in panel.ui.warningsLabel.text


def test_sampling_reaches_the_command(host, module, panel):
    """Whatever the person chooses stands in the command line, and nothing else."""
    parameters = panel.panel.parameters
    apply(host, panel)
    words = panel.panel.progress.log_text
    for word in ("--to T2w", "--from T1w", "--model syndiff-lite", "--samples 2", "--seed 42", "--save-std spread.nii"):
        assert word in words, words
    assert "--hide-names" in words and "--same-noise" not in words and "--slices" not in words
    parameters.samples, parameters.seed, parameters.slices, parameters.sameNoise = 1, 7, "10:20", True
    parameters.makeSpread = False
    apply(host, panel)
    words = panel.panel.progress.log_text
    for word in ("--samples 1", "--seed 7", "--slices 10:20", "--same-noise"):
        assert word in words, words
    assert "--save-std" not in words and parameters.madeChangeMap is None
    import slicer

    filled = slicer.util.arrayFromVolume(parameters.madeResult).any(axis=(1, 2))
    assert np.flatnonzero(filled).tolist() == list(range(10, 20))


def test_apply_again_makes_new_nodes_and_chosen_nodes_are_filled(host, module, panel):
    import slicer

    parameters = panel.panel.parameters
    apply(host, panel)
    first = parameters.madeResult
    apply(host, panel)
    assert parameters.madeResult != first and parameters.madeResult.GetName() != first.GetName()
    assert len(results_of("vtkMRMLScalarVolumeNode")) == 4
    for name in ("translated", "spread"):
        setattr(parameters, name, add_volume(f"My {name}", (5, 6, 7)))
    apply(host, panel)
    assert (parameters.madeResult, parameters.madeChangeMap) == (parameters.translated, parameters.spread)
    for made in (parameters.translated, parameters.spread):
        np.testing.assert_allclose(voxel_to_world(made), voxel_to_world(parameters.inputVolume), atol=1e-4)
        assert made.GetName().startswith("My ")
    tables = slicer.util.getNodesByClass("vtkMRMLColorTableNode")
    assert len([table for table in tables if table.GetName().startswith("Difference")]) == 1
    parameters.inputVolume = parameters.madeResult
    assert "overwrite the scan" in message(panel)
    parameters.translated = None
    assert "made by MRI Deep Tools" in panel.ui.inputNoteLabel.text


def test_scan_result_and_uncertainty_are_compared_in_linked_views(host, module, panel):
    import slicer
    from HarmonizeLib.results import PAIR, VIEWS

    parameters, manager = panel.panel.parameters, slicer.app.layoutManager()
    scan = parameters.inputVolume
    apply(host, panel)
    result, spread = parameters.madeResult, parameters.madeChangeMap
    assert manager.layout == VIEWS.layout
    views = [manager.sliceWidget(name).mrmlSliceCompositeNode() for name in VIEWS.names]
    assert [view.GetBackgroundVolumeID() for view in views] == [scan.GetID(), result.GetID(), result.GetID()]
    assert [view.GetForegroundVolumeID() for view in views] == [None, None, spread.GetID()]
    assert all(view.GetLinkedControl() for view in views)
    parameters.makeSpread = False
    apply(host, panel)
    assert manager.layout == PAIR.layout
    views = [manager.sliceWidget(name).mrmlSliceCompositeNode() for name in PAIR.names]
    assert [view.GetBackgroundVolumeID() for view in views] == [scan.GetID(), parameters.madeResult.GetID()]
    manager.setLayout(3)
    panel.ui.compareButton.click()
    assert manager.layout == PAIR.layout
    parameters.showResult = False
    manager.setLayout(3)
    apply(host, panel)
    assert manager.layout == 3


def test_names_of_contrasts_may_hold_any_letters(host, module, panel):
    import slicer
    from HarmonizeLib.results import PAIR, show_comparison

    scan = panel.panel.parameters.inputVolume
    assert show_comparison(scan, add_volume("Made"), None, contrast='T2 <"fat & water">')
    assert slicer.app.layoutManager().sliceWidget(PAIR.names[1]) is not None


def test_deleted_results_are_not_shown_any_more(host, module, panel):
    import slicer

    parameters = panel.panel.parameters
    apply(host, panel)
    slicer.mrmlScene.RemoveNode(parameters.madeChangeMap)
    host.pump(0.1)
    assert parameters.madeChangeMap is None and not panel.ui.resultsCollapsibleButton.collapsed
    panel.ui.compareButton.click()
    slicer.mrmlScene.RemoveNode(parameters.madeResult)
    host.pump(0.1)
    assert parameters.madeResult is None
    assert panel.ui.resultsCollapsibleButton.collapsed and not panel.ui.compareButton.enabled
    apply(host, panel)
    assert parameters.madeResult.GetName() == "Head T1w - T2w (synthetic)"


def test_scene_brings_everything_back(host, module, panel, tmp_path):
    import slicer

    parameters = panel.panel.parameters
    parameters.translator, parameters.translateTo = "syndiff-lite", "T1w"
    parameters.seed, parameters.samples, parameters.slices, parameters.sameNoise = 11, 3, "5:30", True
    apply(host, panel)
    folder = tmp_path / "scene"
    folder.mkdir()
    assert slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(folder), None)
    slicer.mrmlScene.Clear(0)
    assert panel.ui.outputsCollapsibleButton.visible and not panel.ui.translateCollapsibleButton.visible
    assert panel.ui.resultsCollapsibleButton.collapsed and panel.panel.parameters.slices == ""
    (scene,) = folder.rglob("*.mrml")
    slicer.util.loadScene(str(scene))
    host.pump(0.2)
    parameters = panel.panel.parameters
    assert panel.ui.translateCollapsibleButton.visible and not panel.ui.outputsCollapsibleButton.visible
    assert (parameters.translator, parameters.translateTo) == ("syndiff-lite", "T1w")
    assert (parameters.seed, parameters.samples, parameters.slices) == (11, 3, "5:30")
    assert parameters.sameNoise and parameters.makeSpread
    assert panel.ui.slicesLineEdit.text == "5:30" and panel.ui.directionComboBox.currentIndex == 1
    assert parameters.madeContrast == "T1w" and parameters.madeBefore.GetName() == "Head T1w"
    assert parameters.madeResult.GetAttribute("MRIDeepTools.Synthetic") == "1"
    assert parameters.madeChangeMap.GetDisplayNode().GetColorNode().GetName().startswith("Difference")
    assert "3.0 %" in panel.ui.warningsLabel.text and not panel.ui.resultsTabs.visible
    panel.ui.compareButton.click()
    assert panel.ui.applyButton.enabled


def test_methods_do_not_get_in_each_others_way(host, module, panel):
    """A harmonization after a translation shows its figures again, and its outputs are its own."""
    parameters = panel.panel.parameters
    apply(host, panel)
    choose_method(panel, "iguane")
    apply(host, panel)
    assert parameters.madeContrast == "" and parameters.madeFigures is not None and panel.ui.resultsTabs.visible
    assert parameters.madeResult.GetName() == "Head T1w - harmonized (synthetic)"
    choose_method(panel, "syndiff")
    apply(host, panel)
    assert parameters.madeFigures is None and not panel.ui.resultsTabs.visible


def test_console_and_panel_share_one_way(host, module, monkeypatch):
    from MRIDeepToolsLib.errors import GlueError

    host.set_main_window(False)
    scan = add_volume("T1w")
    logic = module.python.HarmonizeLogic()
    fractions = []
    options = {"model": "syndiff-lite", "samples": 2}
    result = logic.translate(
        scan, "T2w", spread=True, on_progress=lambda *values: fractions.append(values[0]), **options
    )
    assert logic.outputs.result == result and logic.outputs.before == scan and logic.outputs.target == "T2w"
    assert logic.outputs.spread.GetName() == "T1w - T2w (synthetic), standard deviation"
    assert 0.43 in fractions
    mine = add_volume("Mine")
    assert logic.translate(scan, "T2w", result, spread=mine, **options) == result
    assert logic.outputs.spread == mine
    logic.translate(scan, "T2w", model="syndiff-lite")
    assert logic.outputs.spread is None
    with pytest.raises(GlueError, match="Choose a scan"):
        logic.translate(None, "T2w", **options)
    with pytest.raises(GlueError, match="overwrite the scan"):
        logic.translate(scan, "T2w", scan, **options)
    with pytest.raises(TypeError):
        logic.translate(scan, "T2w", colour="red", **options)
    set_mode(monkeypatch, "error")
    with pytest.raises(GlueError, match="GPU is full"):
        logic.translate(scan, "T2w", **options)
    set_mode(monkeypatch, "slow")
    with pytest.raises(GlueError, match="in time"):
        logic.translate(scan, "T2w", timeout_s=1.0, **options)


def test_logs_hold_no_names_and_no_folders(host, module, panel, caplog, tmp_path):
    panel.panel.parameters.inputVolume = add_volume("Doe^Jane")
    with caplog.at_level(logging.DEBUG):
        apply(host, panel)
    expect_no_names((caplog.text, panel.panel.progress.log_text), tmp_path)
