"""The module SuperResolve in the Slicer host: panel, runs, views, scene, console. The core is a quick one; faults are
in test_module_superresolve_faults.py, real runs in test_module_superresolve_real.py."""

from __future__ import annotations

import json
import logging
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from module_helpers import REPOSITORY, add_volume, apply, expect_no_names, message, results_of, set_mode
from superresolve_scans import add_guide, add_thick, slices_known

pytest_plugins = ["superresolve_case"]


def test_every_parameter_name_is_a_member_and_every_visible_member_is_bound(module, widget):
    root = ET.parse(REPOSITORY / "SuperResolve" / "Resources" / "UI" / "SuperResolve.ui").getroot()
    named = {item.text for item in root.iterfind(".//property[@name='SlicerParameterName']/string")}
    members = set(type(widget.panel.parameters).__annotations__)
    of_last_run = {name for name in members if name.startswith("made")}
    assert named == members - {"model"} - of_last_run
    assert len(of_last_run) == 8


def test_widgets_and_parameters_follow_each_other(host, module, widget):
    parameters, ui = widget.panel.parameters, widget.ui
    ui.alignedCheckBox.checked = True
    assert parameters.aligned is True
    parameters.sliceDirection = type(parameters.sliceDirection).CORONAL
    assert ui.directionComboBox.currentText == "Coronal"
    ui.thicknessSpinBox.value = 3.5
    assert parameters.sliceThickness == 3.5
    assert widget.panel._options().slice_words() == [
        *("--slice-direction", "coronal", "--slice-thickness", "3.5", "--registered")
    ]
    ui.thicknessSpinBox.value = 0
    assert ui.thicknessSpinBox.text == "As detected"
    ui.makeHonestyMapCheckBox.checked = False
    assert not ui.honestySelector.enabled
    assert not ui.templateSpaceCheckBox.enabled
    parameters.template = add_guide("Atlas")
    assert ui.templateSpaceCheckBox.enabled


def test_scans_find_their_places_by_themselves(host, module):
    add_volume("Other")
    add_guide("sub-01_T1w")
    add_thick("sub-01_T2w")
    parameters = module.widget().panel.parameters
    assert parameters.inputVolume.GetName() == "sub-01_T2w"
    assert parameters.guideVolume.GetName() == "sub-01_T1w"


def test_apply_says_why_it_is_disabled(host, module):
    import slicer

    shown = module.widget()
    assert not shown.ui.applyButton.enabled
    assert "Choose a T2w scan" in message(shown)
    parameters = shown.panel.parameters
    parameters.inputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    assert "empty" in message(shown)
    parameters.inputVolume = add_thick()
    assert shown.ui.applyButton.enabled
    parameters.guideVolume = parameters.inputVolume
    assert "chosen twice" in message(shown)
    parameters.guideVolume = add_guide()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parameters.guideVolume.SetAndObserveTransformNodeID(transform.GetID())
    shown.panel.update()
    assert shown.ui.applyButton.enabled
    parameters.aligned = True
    assert "different transforms" in message(shown)
    assert not shown.ui.applyButton.enabled


def test_slices_are_told_in_words_and_follow_the_person(host, module, widget):
    assert "14 axial slices of 4 mm every 4 mm, without gaps (thickness assumed)" in slices_known(host, widget)
    assert not widget.ui.slicesNoteLabel.visible
    widget.ui.thicknessSpinBox.value = 3.0
    text = slices_known(host, widget)
    assert "14 axial slices of 3 mm every 4 mm, with gaps of 1 mm" in text
    widget.ui.thicknessSpinBox.value = 1.5
    slices_known(host, widget)
    assert "larger than the slices" in widget.ui.slicesNoteLabel.text
    assert "T2w.nii" not in widget.ui.slicesNoteLabel.text
    widget.panel.parameters.inputVolume = add_thick("Sagittal", 3.0, 20, np.array(SAGITTAL))
    widget.ui.thicknessSpinBox.value = 0
    assert "20 sagittal slices of 3 mm" in slices_known(host, widget)


SAGITTAL = [[0, 0, 3.0, -30], [1.1, 0, 0, -18], [0, 1.1, 0, -20], [0, 0, 0, 1]]


def test_a_stated_thickness_is_taken_over(host, module, widget, tmp_path):
    """From the sidecar beside the file that the volume was loaded from."""
    import slicer

    assert slicer.util.exportNode(add_thick("Saved"), str(tmp_path / "sub-7_T2w.nii.gz"), {})
    (tmp_path / "sub-7_T2w.json").write_text(json.dumps({"SliceThickness": 3.2}), encoding="utf-8")
    widget.panel.parameters.inputVolume = slicer.util.loadVolume(str(tmp_path / "sub-7_T2w.nii.gz"))
    text = slices_known(host, widget)
    assert "of 3.2 mm every 4 mm, with gaps of 0.8 mm" in text
    assert "assumed" not in text


def test_a_thickness_from_dicom_is_taken_over(host, module, monkeypatch):
    """Slicer's DICOM database is asked by the identifiers that it gave to the volume."""
    import slicer
    from SuperResolveLib.slice_facts import stated_thickness

    class Database:
        def instanceValue(self, uid, tag):  # noqa: N802 - Slicer's name
            return {("1.2.3", "0018,0050"): "3.5"}.get((uid, tag), "")

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    volume = add_thick()
    assert stated_thickness(volume) is None
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    assert stated_thickness(volume) == 3.5
    volume.SetAttribute("DICOM.instanceUIDs", "9.9")
    assert stated_thickness(volume) is None


def test_an_isotropic_scan_is_refused_before_it_is_run(host, module):
    add_guide("Isotropic T2w")
    shown = module.widget()
    assert "nothing to do" in slices_known(host, shown)
    assert not shown.ui.applyButton.enabled
    shown.panel.parameters.inputVolume = add_thick()
    assert "14 axial slices" in slices_known(host, shown)
    assert shown.ui.applyButton.enabled


def test_apply_super_resolves_a_volume(host, module, widget):
    """Progress, log, results: geometry, names, display, hierarchy, attributes, table, chart, views."""
    import slicer

    parameters = widget.panel.parameters
    volume = parameters.inputVolume
    before = slicer.util.arrayFromVolume(volume).copy()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    seen = []
    original = widget.panel.progress.progress
    widget.panel.progress.progress = lambda *values: (seen.append(values), original(*values))
    apply(host, widget)
    assert (0.43, "super-resolve", 21.0) in seen
    assert "fake core" in widget.panel.progress.log_text
    assert "T1w.nii" in widget.panel.progress.log_text
    assert "Done in" in message(widget)
    result, plain = parameters.madeResult, parameters.madeInterpolated
    assert result.GetName() == "Baby T2w - super-resolved (synthetic)"
    assert result.GetSpacing() == pytest.approx((1, 1, 1))
    bounds, wanted = [0.0] * 6, [0.0] * 6
    result.GetRASBounds(bounds)
    volume.GetRASBounds(wanted)
    assert np.abs(np.array(bounds) - wanted).max() < 1.0
    assert plain.GetImageData().GetDimensions() == result.GetImageData().GetDimensions()
    difference = slicer.util.arrayFromVolume(parameters.madeHonestyMap)
    assert len(difference) == 14
    assert np.mean(difference[4:6]) > 5 * abs(np.mean(difference[-3:]))
    for node in (result, plain, parameters.madeHonestyMap, parameters.madeTable, parameters.madeChart):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study, node.GetName()
        assert node.GetAttribute("MRIDeepTools.ResearchUseOnly") == "1"
    assert result.GetAttribute("MRIDeepTools.Synthetic") == "1"
    assert plain.GetAttribute("MRIDeepTools.Synthetic") is None
    assert result.GetAttribute("MRIDeepTools.Model") == "fake"
    assert parameters.madeTable.GetNumberOfRows() == 14
    assert parameters.madeTable.GetColumnUnitLabel("Difference") == "%"
    assert parameters.madeChart.GetPlotSeriesNode().GetTableNode() == parameters.madeTable
    assert not widget.ui.resultsCollapsibleButton.collapsed
    assert "the T2w scan: the scan is dark" in widget.ui.warningsLabel.text.lower().replace("t2w", "T2w")
    assert "agrees with them to" in widget.ui.checkLabel.text
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), before)


def test_the_comparison_shows_three_linked_views(host, module, widget):
    import slicer
    from SuperResolveLib.comparison import VIEWS

    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    kept = red.GetBackgroundVolumeID()
    apply(host, widget)
    manager = slicer.app.layoutManager()
    assert manager.layout == VIEWS.layout
    parameters = widget.panel.parameters
    shown = [manager.sliceWidget(name) for name in VIEWS.names]
    ids = [view.mrmlSliceCompositeNode().GetBackgroundVolumeID() for view in shown]
    made = (parameters.inputVolume, parameters.madeInterpolated, parameters.madeResult)
    assert ids == [node.GetID() for node in made]
    assert all(view.mrmlSliceCompositeNode().GetLinkedControl() for view in shown)
    assert {view.mrmlSliceNode().GetOrientation() for view in shown} == {"Sagittal"}  # across axial slices
    groups = {view.mrmlSliceNode().GetViewGroup() for view in shown}
    assert len(groups) == 1
    assert manager.sliceWidget("Red").mrmlSliceNode().GetViewGroup() not in groups
    assert red.GetBackgroundVolumeID() == kept
    fields = [view.mrmlSliceNode().GetFieldOfView() for view in shown]
    assert fields[0] == fields[1] == fields[2]
    windows = [(node.GetDisplayNode().GetWindowLevelMin(), node.GetDisplayNode().GetWindowLevelMax()) for node in made]
    assert windows[1] == pytest.approx(windows[0])
    assert windows[2] == pytest.approx(windows[0])
    last = shown[-1].mrmlSliceCompositeNode()
    assert last.GetForegroundVolumeID() is None
    widget.ui.mapButton.click()
    assert last.GetForegroundVolumeID() == parameters.madeHonestyMap.GetID()
    colours = parameters.madeHonestyMap.GetDisplayNode()
    assert "blue to red" in colours.GetColorNode().GetName()
    assert colours.GetWindowLevelMin() == pytest.approx(-30)
    widget.ui.mapButton.click()
    assert last.GetForegroundVolumeID() is None
    widget.ui.showChartButton.click()
    chart = slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID()
    assert chart == parameters.madeChart.GetID()
    assert manager.layout != VIEWS.layout
    widget.ui.compareButton.click()
    assert manager.layout == VIEWS.layout


def test_without_the_wish_or_a_window_no_view_changes(host, module, widget):
    import slicer

    widget.panel.parameters.showResult = False
    before = slicer.app.layoutManager().layout
    apply(host, widget)
    assert slicer.app.layoutManager().layout == before
    host.set_main_window(False)
    widget.panel.parameters.showResult = True
    apply(host, widget)
    assert "Done in" in message(widget)
    widget.ui.compareButton.click()
    widget.ui.mapButton.click()


def test_results_lie_under_the_transform_of_the_scan(host, module, widget):
    import slicer
    import vtk

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 100)
    transform.SetMatrixTransformToParent(matrix)
    parameters = widget.panel.parameters
    parameters.inputVolume.SetAndObserveTransformNodeID(transform.GetID())
    apply(host, widget)
    for node in (parameters.madeResult, parameters.madeInterpolated, parameters.madeHonestyMap):
        assert node.GetTransformNodeID() == transform.GetID()


def test_t2w_alone_and_less_output(host, module, widget):
    parameters = widget.panel.parameters
    parameters.guideVolume = None
    parameters.makeInterpolated = parameters.makeHonestyMap = False
    apply(host, widget)
    assert json.loads(parameters.madeResult.GetAttribute("MRIDeepTools.Options"))["guided"] is False
    assert len(results_of("vtkMRMLScalarVolumeNode")) == 1
    assert not widget.ui.mapButton.enabled
    assert widget.ui.compareButton.enabled
    widget.ui.compareButton.click()


def test_a_template_gives_frame_and_place(host, module, widget):
    parameters = widget.panel.parameters
    parameters.template, parameters.inTemplateSpace = add_guide("Atlas"), True
    apply(host, widget)
    assert parameters.madeResult.GetImageData().GetDimensions() == parameters.template.GetImageData().GetDimensions()


def test_apply_again_makes_new_nodes_and_a_chosen_node_is_filled(host, module, widget):
    import slicer

    parameters = widget.panel.parameters
    apply(host, widget)
    first = parameters.madeResult
    apply(host, widget)
    assert parameters.madeResult != first
    assert parameters.madeResult.GetName() != first.GetName()
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
    parameters.result = own
    apply(host, widget)
    assert parameters.madeResult == own
    assert own.GetName() == "Mine"
    assert own.GetSpacing() == pytest.approx((1, 1, 1))


def test_scene_brings_everything_back(host, module, widget, tmp_path):
    import slicer

    parameters = widget.panel.parameters
    parameters.smoothBlend, parameters.sliceThickness, parameters.model = True, 3.5, "superresolve-lite"
    parameters.sliceDirection = type(parameters.sliceDirection).AXIAL
    apply(host, widget)
    folder = tmp_path / "scene"
    folder.mkdir()
    assert slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(folder), None)
    slicer.mrmlScene.Clear(0)
    assert not widget.panel.parameters.smoothBlend
    assert widget.ui.resultsCollapsibleButton.collapsed
    (scene,) = folder.rglob("*.mrml")
    slicer.util.loadScene(str(scene))
    host.pump(0.2)
    parameters = widget.panel.parameters
    assert parameters.smoothBlend is True
    assert parameters.sliceThickness == 3.5
    assert parameters.sliceDirection.value == "axial"
    assert parameters.model == "superresolve-lite"
    assert parameters.inputVolume.GetName() == "Baby T2w"
    assert parameters.guideVolume.GetName() == "Baby T1w"
    assert parameters.madeResult.GetAttribute("MRIDeepTools.Synthetic") == "1"
    assert "agrees with them to" in widget.ui.checkLabel.text
    assert not widget.ui.resultsCollapsibleButton.collapsed
    assert "of 3.5 mm every 4 mm" in slices_known(host, widget)


def test_console_and_panel_share_one_way(host, module):
    scan, guide = add_thick(), add_guide()
    logic = module.python.SuperResolveLogic()
    fractions = []
    result = logic.process(scan, guide, thickness=3.0, on_progress=lambda *values: fractions.append(values[0]))
    assert result.GetSpacing() == pytest.approx((1, 1, 1))
    assert logic.outputs.honesty is not None
    assert "14 axial slices of 3 mm" in logic.outputs.slices
    assert "agrees with them to" in logic.outputs.check
    assert 0.43 in fractions
    mine = add_volume("Mine")
    assert logic.process(scan, None, result, honesty=mine, interpolated=False) == result
    assert logic.outputs.honesty == mine
    assert logic.outputs.interpolated is None


def test_console_errors_are_sentences(host, module, monkeypatch):
    from MRIDeepToolsLib.errors import GlueError

    logic = module.python.SuperResolveLogic()
    with pytest.raises(GlueError, match="Choose a T2w scan"):
        logic.process(None)
    scan = add_thick()
    with pytest.raises(GlueError, match="chosen twice"):
        logic.process(scan, scan)
    set_mode(monkeypatch, "error")
    with pytest.raises(GlueError, match="GPU is full"):
        logic.process(scan)
    set_mode(monkeypatch, "slow")
    begin = time.monotonic()
    with pytest.raises(GlueError, match="in time"):
        logic.process(scan, timeout_s=1.0)
    assert time.monotonic() - begin < 5
    with pytest.raises(TypeError):
        logic.process(scan, colour="red")


def test_logs_hold_no_names_and_no_folders(host, module, widget, caplog, tmp_path):
    widget.panel.parameters.inputVolume = add_thick("Doe^Jane")
    with caplog.at_level(logging.DEBUG):
        slices_known(host, widget)
        apply(host, widget)
    expect_no_names((caplog.text, widget.panel.progress.log_text), tmp_path)
