"""The module Harmonize in the Slicer host: panel, runs, scene, console. The core is a quick one.

Where results lie is in test_module_harmonize_places.py, faults in test_module_harmonize_faults.py, real runs in
test_module_harmonize_real.py.
"""

from __future__ import annotations

import logging
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from harmonize_case import numbers, transform_node
from module_helpers import REPOSITORY, add_volume, apply, expect_no_names, message, results_of, set_mode

pytest_plugins = ["harmonize_case"]


def test_every_parameter_name_is_a_member_and_every_visible_member_is_bound(module, widget):
    root = ET.parse(REPOSITORY / "Harmonize" / "Resources" / "UI" / "Harmonize.ui").getroot()
    named = {item.text for item in root.iterfind(".//property[@name='SlicerParameterName']/string")}
    members = set(type(widget.panel.parameters).__annotations__)
    for_results = {name for name in members if name.startswith("made")}
    by_code = {"model", "predictor", "translator", "translateTo"}  # what they offer depends on the models
    assert named == members - by_code - for_results
    assert len(for_results) == 14


def test_widgets_and_parameters_follow_each_other(host, module, widget):
    parameters, ui = widget.panel.parameters, widget.ui
    ui.keepHeadCheckBox.checked = True
    assert parameters.keepHead is True
    parameters.space = type(parameters.space).TEMPLATE
    assert ui.spaceComboBox.currentIndex == 1
    assert not ui.keepHeadCheckBox.enabled
    ui.modelComboBox.setCurrentIndex(ui.modelComboBox.findData("iguane-lite"))
    assert parameters.model == "iguane-lite"
    assert not ui.brainMaskSelector.enabled
    ui.makeBrainMaskCheckBox.checked = True
    assert ui.brainMaskSelector.enabled
    assert not ui.maskSelector.visible and not ui.givenTransformSelector.visible
    parameters.brainSource = type(parameters.brainSource).MASK
    parameters.placement = type(parameters.placement).TRANSFORM
    assert ui.maskSelector.visible and ui.givenTransformSelector.visible
    assert [ui.modelComboBox.itemData(row) for row in range(ui.modelComboBox.count)] == [
        *("", "iguane", "iguane-lite", "iguane-next", "own")
    ]


def test_a_t1w_scan_is_chosen_by_itself(host, module):
    import slicer

    add_volume("FLAIR")
    add_volume("Anna T1")
    made = add_volume("T1 harmonized")
    made.SetAttribute("MRIDeepTools.Synthetic", "1")
    slicer.app.applicationLogic().GetSelectionNode().SetReferenceActiveVolumeID(made.GetID())
    assert module.widget().panel.parameters.inputVolume.GetName() == "Anna T1"


def test_apply_says_why_it_is_disabled(host, module):
    import slicer

    shown = module.widget()
    parameters = shown.panel.parameters
    assert not shown.ui.applyButton.enabled
    assert "Choose a T1w scan" in message(shown)
    parameters.inputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    assert "empty" in message(shown)
    ct = add_volume("CT")
    slicer.util.arrayFromVolume(ct)[0, 0, 0] = -1000
    slicer.util.arrayFromVolumeModified(ct)
    parameters.inputVolume = ct
    assert "CT" in message(shown)
    parameters.inputVolume = add_volume("T1w")
    assert shown.ui.applyButton.enabled and message(shown) == ""
    parameters.brainSource = type(parameters.brainSource).MASK
    assert "Choose a brain mask" in message(shown)
    parameters.maskNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nothing")
    assert "no segments" in message(shown)
    parameters.brainSource = type(parameters.brainSource).STRIPPED
    assert shown.ui.applyButton.enabled
    parameters.placement = type(parameters.placement).TRANSFORM
    assert "Choose the transform" in message(shown)
    parameters.givenTransform = transform_node(np.diag([1.1, 1, 1, 1]))
    assert "rigid" in message(shown)
    parameters.placement = type(parameters.placement).REGISTER
    parameters.result = parameters.inputVolume
    assert "overwrite the scan" in message(shown)
    assert not shown.ui.applyButton.enabled


def test_what_was_harmonized_is_not_harmonized_again(host, module, widget):
    """Unless the person insists."""
    apply(host, widget)
    parameters = widget.panel.parameters
    parameters.inputVolume = parameters.madeResult
    assert "harmonized already" in message(widget) and not widget.ui.applyButton.enabled
    widget.ui.uncheckedCheckBox.checked = True
    assert widget.ui.applyButton.enabled
    assert "made by MRI Deep Tools" in widget.ui.inputNoteLabel.text


def test_notes_on_the_scan(host, module, widget):
    widget.panel.parameters.inputVolume = add_volume("Somebody T2w", (20, 20, 20), np.diag([6.0, 6.0, 6.0, 1.0]))
    text = widget.ui.inputNoteLabel.text
    assert "T1w scans alone" in text and "6.0 mm" in text
    assert widget.ui.applyButton.enabled
    widget.panel.parameters.inputVolume = add_volume("T1w", (40, 40, 40), np.eye(4))
    assert not widget.ui.inputNoteLabel.visible


def test_own_weights_and_template(host, module, widget, tmp_path):
    from MRIDeepToolsLib import settings

    widget.panel.parameters.model = "own"
    assert "weights" in message(widget)
    widget.ui.weightsPathLineEdit.currentPath = str(tmp_path / "mine.h5")
    assert widget.ui.applyButton.enabled
    assert widget.panel._options().words()[:2] == ["--weights", str(tmp_path / "mine.h5")]
    widget.ui.templatePathLineEdit.currentPath = str(tmp_path / "brain.nii.gz")
    assert "template" in message(widget)
    (tmp_path / "brain.nii.gz").touch()
    widget.panel.update()
    words = widget.panel._options().words()
    assert words[words.index("--template") + 1] == str(tmp_path / "brain.nii.gz")
    assert settings.get("harmonizeTemplate").endswith("brain.nii.gz")
    settings.reset()


def test_apply_harmonizes_a_volume(host, module, widget):
    """Progress, stages, log, all outputs: geometry, names, terminology, hierarchy, attributes, words."""
    import slicer
    import vtk

    parameters = widget.panel.parameters
    scan = parameters.inputVolume
    for name in ("makeBrainMask", "makeTransform", "makeTissues"):
        setattr(parameters, name, True)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(scan), study)
    seen, states = [], []
    original = widget.panel.progress.progress

    def progressed(*values):
        seen.append(values)
        states.append((widget.ui.placeStateLabel.text, widget.ui.modelStateLabel.text))
        original(*values)

    widget.panel.progress.progress = progressed
    apply(host, widget)
    assert (0.43, "harmonize", 21.0) in seen
    assert "done" in states[-1][0] and "at work" in states[-1][1]
    assert "fake core" in widget.panel.progress.log_text
    assert "Done in" in message(widget)
    result, change, mask = parameters.madeResult, parameters.madeChangeMap, parameters.brainMask
    assert result.GetName() == "Head T1w - harmonized (synthetic)"
    assert result.GetImageData().GetDimensions() == scan.GetImageData().GetDimensions()
    for made in (result, change):
        np.testing.assert_allclose(grid(made), grid(scan), atol=1e-5)
        assert made.GetAttribute("MRIDeepTools.Synthetic") == "1"
    assert mask is None  # where the person wanted it; what was made is in the scene
    (mask,) = results_of("vtkMRMLSegmentationNode")
    (transform,) = results_of("vtkMRMLLinearTransformNode")
    segment = mask.GetSegmentation().GetNthSegment(0)
    assert segment.GetName() == "Brain"
    terminology = vtk.reference("")
    segment.GetTag(segment.GetTerminologyEntryTagName(), terminology)
    assert "12738006" in str(terminology)
    for node in (mask, transform):
        assert node.GetAttribute("MRIDeepTools.ResearchUseOnly") == "1"
        assert node.GetAttribute("MRIDeepTools.Synthetic") is None
    assert result.GetAttribute("MRIDeepTools.Model") == "fake"
    for node in (result, change, mask, transform):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study, node.GetName()
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(parameters.madeFigures))
    assert hierarchy.GetItemParent(folder) == study
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(parameters.madeTissues)) == folder
    assert not widget.ui.resultsCollapsibleButton.collapsed
    assert "The scan has voxels of 6.0 mm" in widget.ui.warningsLabel.text
    for label in (widget.ui.maskStateLabel, widget.ui.biasStateLabel, widget.ui.modelStateLabel):
        assert "done" in label.text
    assert widget.ui.biasStateLabel.toolTip == "N4."


def grid(volume) -> np.ndarray:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return numbers(matrix)


def cells(table) -> list[list[str]]:
    content = table.GetTable()
    columns, rows = content.GetNumberOfColumns(), content.GetNumberOfRows()
    return [[content.GetValue(row, column).ToString() for column in range(columns)] for row in range(rows)]


def test_tables_hold_the_figures_of_the_core_with_units(host, module, widget):
    import slicer
    from mri_deep_tools.harmonize.change import describe_change

    parameters = widget.panel.parameters
    parameters.makeTissues = True
    apply(host, widget)
    result = slicer.util.arrayFromVolume(parameters.madeResult)
    before = result - slicer.util.arrayFromVolume(parameters.madeChangeMap)
    truth = describe_change(before, result)
    figures = {row[0]: row[1:] for row in cells(parameters.madeFigures)}
    assert float(figures["Correlation, before and after"][0]) == pytest.approx(truth.correlation, abs=2e-4)
    assert float(figures["Structural similarity"][0]) == pytest.approx(truth.structural_similarity, abs=2e-3)
    assert figures["Mean absolute change"] == [f"{truth.mean_absolute:.1f}", "of 500"]
    assert figures["Shifted against the template"] == ["12.5", "mm"]
    assert cells(parameters.madeTissues)[0] == ["White matter", "500000", "505000", "1"]
    assert parameters.madeTissues.GetColumnUnitLabel("Before") == "mm^3"
    assert parameters.madeTissues.GetColumnUnitLabel("Difference") == "%"
    assert widget.ui.resultsTabs.isTabEnabled(1)


def test_charts_show_what_was_changed(host, module, widget):
    """The histograms add up; the joint one shows voxels, the curve they follow, and the line of no change."""
    import slicer

    parameters = widget.panel.parameters
    apply(host, widget)
    chart = parameters.madeHistogram
    names = [chart.GetNthPlotSeriesNode(number).GetName() for number in range(2)]
    assert names == ["Before", "After (synthetic)"]
    for number, column in enumerate(("Before", "After")):
        series = chart.GetNthPlotSeriesNode(number)
        assert (series.GetXColumnName(), series.GetYColumnName()) == ("Intensity", column)
        assert slicer.util.arrayFromTableColumn(series.GetTableNode(), column).sum() == pytest.approx(100, abs=0.1)
    joint = parameters.madeJoint
    cloud, unchanged, typical = (joint.GetNthPlotSeriesNode(number) for number in range(3))
    before, after = (slicer.util.arrayFromTableColumn(cloud.GetTableNode(), name) for name in ("Before", "After"))
    assert len(before) == 3000
    np.testing.assert_allclose(after, 500 * (before / 500) ** 0.8 + 20, atol=0.2)  # what the quick core does
    curve = typical.GetTableNode()
    middle = slicer.util.arrayFromTableColumn(curve, typical.GetXColumnName())
    np.testing.assert_array_equal(slicer.util.arrayFromTableColumn(curve, unchanged.GetYColumnName()), middle)
    found = slicer.util.arrayFromTableColumn(curve, typical.GetYColumnName())
    np.testing.assert_allclose(found, 500 * (middle / 500) ** 0.8 + 20, atol=1.0)
    for button, shown in ((widget.ui.histogramButton, chart), (widget.ui.jointButton, joint)):
        button.click()
        assert slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID() == shown.GetID()


def test_before_after_and_change_are_compared_in_linked_views(host, module, widget):
    """Equal tissue is equally bright; the person's own views keep what they show."""
    import slicer
    from HarmonizeLib.results import VIEWS

    parameters = widget.panel.parameters
    scan = parameters.inputVolume
    scan.GetDisplayNode().SetAutoWindowLevel(False)
    scan.GetDisplayNode().SetWindowLevelMinMax(60, 360)
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    red.SetBackgroundVolumeID(scan.GetID())
    apply(host, widget)
    manager = slicer.app.layoutManager()
    assert manager.layout == VIEWS.layout
    views = [manager.sliceWidget(name).mrmlSliceCompositeNode() for name in VIEWS.names]
    result, change = parameters.madeResult, parameters.madeChangeMap
    assert [view.GetBackgroundVolumeID() for view in views] == [scan.GetID(), result.GetID(), result.GetID()]
    assert [view.GetForegroundVolumeID() for view in views] == [None, None, change.GetID()]
    assert all(view.GetLinkedControl() for view in views)
    display = result.GetDisplayNode()
    factor = 500 / float(np.median(slicer.util.arrayFromVolume(scan)[slicer.util.arrayFromVolume(scan) > 150]))
    np.testing.assert_allclose([display.GetWindowLevelMin(), display.GetWindowLevelMax()], [60 * factor, 360 * factor])
    assert red.GetBackgroundVolumeID() == scan.GetID()
    manager.setLayout(3)
    widget.ui.compareButton.click()
    assert manager.layout == VIEWS.layout
    colours = change.GetDisplayNode().GetColorNode()
    for value, strongest in ((-100, 2), (100, 0)):
        colour = [0.0] * 4
        colours.GetColor(round((value + 100) / 200 * 254), colour)
        assert colour[strongest] == max(colour[:3]) and colour[3] == 1
    colours.GetColor(127, colour)
    assert colour[3] == 0


def test_result_in_template_space(host, module, widget):
    """It lies in MNI space, under no transform, and is compared with what the network was given."""
    import slicer
    from HarmonizeLib.results import VIEWS

    parameters = widget.panel.parameters
    move = transform_node(np.eye(4))
    parameters.inputVolume.SetAndObserveTransformNodeID(move.GetID())
    parameters.space = type(parameters.space).TEMPLATE
    apply(host, widget)
    for made in (parameters.madeResult, parameters.madeChangeMap, parameters.madeBefore):
        assert made.GetTransformNodeID() is None
        np.testing.assert_allclose(grid(made)[:3, 3], (-90, -126, -72))
    assert "MNI space" in parameters.madeResult.GetName()
    assert parameters.madeBefore.GetName() == "Head T1w - prepared, MNI space"
    assert parameters.madeBefore.GetAttribute("MRIDeepTools.Synthetic") is None
    first = slicer.app.layoutManager().sliceWidget(VIEWS.names[0]).mrmlSliceCompositeNode()
    assert first.GetBackgroundVolumeID() == parameters.madeBefore.GetID()


def test_stages_reach_the_command(host, module, widget):
    """Whatever the person chooses for a stage stands in the command line, and nothing else."""
    import slicer

    parameters = widget.panel.parameters
    parameters.biasCorrection, parameters.unchecked = False, True
    parameters.brainSource = type(parameters.brainSource).STRIPPED
    parameters.placement = type(parameters.placement).REGISTERED
    parameters.keepHead = True  # of no effect without a head
    apply(host, widget)
    words = widget.panel.progress.log_text
    for word in ("--skull-stripped", "--no-bias-correction", "--transform place.tfm", "--unchecked", "--hide-names"):
        assert word in words, words
    assert "--keep-head" not in words and "--mask" not in words and "--tissues" not in words
    assert "left out" in widget.ui.biasStateLabel.text
    assert parameters.madeTissues is None
    parameters.placement = type(parameters.placement).REGISTER
    parameters.brainSource = type(parameters.brainSource).HD_BET
    assert "--hd-bet" in widget.panel._options().words() and "--age" not in widget.panel._options().words()
    widget.ui.ageSpinBox.value = 71.5
    assert widget.panel._options().words()[:2] == ["--age", "71.5"]
    parameters.brainSource = type(parameters.brainSource).FOUND
    parameters.makeChangeMap = False
    apply(host, widget)
    words = widget.panel.progress.log_text
    assert "--keep-head" in words and "--transform" not in words
    assert parameters.madeChangeMap is None and parameters.madeJoint is not None
    assert len([n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "change" in n.GetName()]) == 1


def test_apply_again_makes_new_nodes_and_chosen_nodes_are_filled(host, module, widget):
    import slicer

    parameters = widget.panel.parameters
    apply(host, widget)
    first = parameters.madeResult
    apply(host, widget)
    assert parameters.madeResult != first and parameters.madeResult.GetName() != first.GetName()
    tables = slicer.util.getNodesByClass("vtkMRMLColorTableNode")
    assert len([table for table in tables if table.GetName().startswith("Difference")]) == 1
    kinds = {"result": "ScalarVolume", "changeMap": "ScalarVolume", "brainMask": "Segmentation"}
    kinds["transform"] = "LinearTransform"
    parameters.makeBrainMask = parameters.makeTransform = True
    for name, kind in kinds.items():
        setattr(parameters, name, slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node", name))
    apply(host, widget)
    assert parameters.madeResult == parameters.result
    assert parameters.madeChangeMap == parameters.changeMap
    assert parameters.brainMask.GetSegmentation().GetNumberOfSegments() == 1
    assert not np.allclose(numbers(parameters.transform.GetMatrixTransformToParent()), np.eye(4))
    assert [parameters.result.GetName(), parameters.transform.GetName()] == ["result", "transform"]


def test_scene_brings_everything_back(host, module, widget, tmp_path):
    import slicer

    parameters = widget.panel.parameters
    parameters.makeTissues, parameters.model = True, "iguane-lite"
    parameters.biasCorrection = False
    apply(host, widget)
    folder = tmp_path / "scene"
    folder.mkdir()
    assert slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(folder), None)
    slicer.mrmlScene.Clear(0)
    assert widget.panel.parameters.biasCorrection
    assert widget.ui.resultsCollapsibleButton.collapsed
    assert widget.ui.biasStateLabel.text == ""
    (scene,) = folder.rglob("*.mrml")
    slicer.util.loadScene(str(scene))
    host.pump(0.2)
    parameters = widget.panel.parameters
    assert parameters.biasCorrection is False
    assert parameters.model == "iguane-lite"
    assert parameters.inputVolume.GetName() == parameters.madeBefore.GetName() == "Head T1w"
    assert parameters.madeResult.GetAttribute("MRIDeepTools.Synthetic") == "1"
    assert parameters.madeFigures.GetNumberOfRows() == 11
    assert parameters.madeTissues.GetNumberOfRows() == 2
    assert parameters.madeFactor == pytest.approx(500 / 300, rel=0.05)
    assert "6.0 mm" in parameters.madeWarnings[0]
    assert "left out" in widget.ui.biasStateLabel.text
    assert not widget.ui.resultsCollapsibleButton.collapsed
    colours = parameters.madeChangeMap.GetDisplayNode().GetColorNode()
    colour = [0.0] * 4
    colours.GetColor(127, colour)
    assert colour[3] == 0
    widget.ui.compareButton.click()
    widget.ui.jointButton.click()


def test_console_and_panel_share_one_way(host, module):
    import slicer

    scan = add_volume("T1w")
    logic = module.python.HarmonizeLogic()
    fractions = []
    result = logic.process(scan, mask=True, tissues=True, on_progress=lambda *values: fractions.append(values[0]))
    outputs = logic.outputs
    assert outputs.result == result and outputs.before == scan
    assert outputs.mask is not None and outputs.tissues is not None and outputs.transform is None
    assert outputs.stages["registration"] == "rigid"
    assert 0.43 in fractions
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
    assert logic.process(scan, result, change=mine) == result
    assert logic.outputs.change == mine
    logic.process(scan, change=False)
    assert logic.outputs.change is None


def test_snippet_of_the_documentation(host, module, capsys):
    page = (REPOSITORY / "Resources" / "docs" / "slicer.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(import Harmonize\n.*?)^```", page, re.S | re.M)
    import slicer

    add_volume("T1w")
    exec(compile(snippet, "slicer.md", "exec"), {"slicer": slicer})
    assert "T1w - harmonized (synthetic) {'brain mask': 'fake'" in capsys.readouterr().out


def test_console_errors_are_sentences(host, module, monkeypatch):
    from MRIDeepToolsLib.errors import GlueError

    logic = module.python.HarmonizeLogic()
    with pytest.raises(GlueError, match="Choose a T1w scan"):
        logic.process(None)
    scan = add_volume("T1w")
    with pytest.raises(GlueError, match="overwrite the scan"):
        logic.process(scan, scan)
    with pytest.raises(TypeError):
        logic.process(scan, colour="red")
    set_mode(monkeypatch, "error")
    with pytest.raises(GlueError, match="GPU is full"):
        logic.process(scan)
    set_mode(monkeypatch, "slow")
    with pytest.raises(GlueError, match="in time"):
        logic.process(scan, timeout_s=1.0)


def test_logs_hold_no_names_and_no_folders(host, module, widget, caplog, tmp_path):
    widget.panel.parameters.inputVolume = add_volume("Doe^Jane")
    with caplog.at_level(logging.DEBUG):
        apply(host, widget)
    expect_no_names((caplog.text, widget.panel.progress.log_text), tmp_path)
