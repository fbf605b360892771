"""The module SynthSegment in the Slicer host: panel, runs, scene, console. The core is a quick one; faults are in
test_module_synthsegment_faults.py, real runs in test_module_real_runs.py."""

from __future__ import annotations

import logging
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from module_helpers import REPOSITORY, add_volume, apply, expect_no_names, message, results_of, set_mode

pytest_plugins = ["synthsegment_case"]


def test_every_parameter_name_is_a_member_and_every_visible_member_is_bound(module, widget):
    root = ET.parse(REPOSITORY / "SynthSegment" / "Resources" / "UI" / "SynthSegment.ui").getroot()
    properties = root.iterfind(".//property[@name='SlicerParameterName']/string")
    named = {item.text for item in properties}
    members = set(type(widget.panel.parameters).__annotations__)
    by_hand = {"model"}
    for_results = {name for name in members if name.startswith("result")}
    assert named <= members
    assert named == members - by_hand - for_results
    assert len(for_results) == 5


def test_widgets_and_parameters_follow_each_other(host, module, widget):
    parameters, ui = widget.panel.parameters, widget.ui
    ui.fastCheckBox.checked = True
    assert parameters.fast is True
    parameters.grid = type(parameters.grid).ONE_MM
    assert ui.gridComboBox.currentIndex == 1
    ui.modelComboBox.setCurrentIndex(ui.modelComboBox.findData("synthseg-lite"))
    assert parameters.model == "synthseg-lite"
    parameters.model = "synthseg-2.0"
    assert ui.modelComboBox.itemData(ui.modelComboBox.currentIndex) == "synthseg-2.0"
    assert not ui.scoresSelector.enabled
    ui.makeScoresCheckBox.checked = True
    assert ui.scoresSelector.enabled


def test_a_volume_is_chosen_by_itself_and_the_one_shown_goes_first(host, module):
    import slicer

    add_volume("First")
    shown = add_volume("Shown")
    slicer.app.applicationLogic().GetSelectionNode().SetReferenceActiveVolumeID(shown.GetID())
    assert module.widget().panel.parameters.inputVolume.GetName() == "Shown"


def test_apply_says_why_it_is_disabled(host, module):
    import slicer

    shown = module.widget()
    assert not shown.ui.applyButton.enabled
    assert "Choose a scan" in message(shown)
    assert "Choose a scan" in shown.ui.applyButton.toolTip
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    shown.panel.parameters.inputVolume = volume
    assert "empty" in message(shown)
    for shape, words in (((1, 20, 20), "single slice"), ((20, 20, 20), "same value")):
        slicer.util.updateVolumeFromArray(volume, np.ones(shape, np.int16))
        shown.panel.update()
        assert words in message(shown)
    assert not shown.ui.applyButton.enabled
    values = np.arange(8000, dtype=np.int16).reshape(20, 20, 20)
    slicer.util.updateVolumeFromArray(volume, values)
    shown.panel.update()
    assert shown.ui.applyButton.enabled
    assert message(shown) == ""


@pytest.mark.parametrize(
    ("shape", "spacing", "low", "words"),
    [
        ((12, 64, 64), (3, 3, 12), 0, "12 mm apart"),
        ((64, 64, 64), (1, 4, 4), 0, "only 64 mm"),
        ((200, 64, 64), (3, 3, 3), 0, "600 mm long"),
        ((64, 64, 64), (3, 3, 3), -1000, "CT"),
    ],
)
def test_scans_outside_what_the_networks_know_are_told(host, widget, shape, spacing, low, words):
    import slicer

    volume = add_volume("Odd", shape, np.diag([*spacing, 1.0]))
    slicer.util.arrayFromVolume(volume)[0, 0, 0] = low
    slicer.util.arrayFromVolumeModified(volume)
    widget.panel.parameters.inputVolume = volume
    assert words in widget.ui.inputNoteLabel.text
    assert widget.ui.inputNoteLabel.visible
    assert widget.ui.applyButton.enabled


def test_an_ordinary_scan_brings_no_note(host, widget):
    assert not widget.ui.inputNoteLabel.visible
    assert message(widget) == ""


def test_own_weights_ask_for_their_place(host, module, widget, tmp_path):
    widget.panel.parameters.model = "own"
    assert not widget.ui.applyButton.enabled
    assert "weights" in message(widget)
    widget.ui.weightsPathLineEdit.currentPath = str(tmp_path)
    assert widget.ui.applyButton.enabled
    assert widget.panel._options().words()[:2] == ["--weights", str(tmp_path)]


def test_apply_labels_a_volume(host, module, widget):
    """Progress, log, results: geometry, names, colours, terminology, hierarchy, attributes, table, chart."""
    import slicer
    import vtk

    volume = widget.panel.parameters.inputVolume
    widget.panel.parameters.makeScores = True
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    seen = []
    original = widget.panel.progress.progress
    widget.panel.progress.progress = lambda *values: (seen.append(values), original(*values))
    before = slicer.mrmlScene.GetNumberOfNodes()
    apply(host, widget)
    assert (0.43, "segment", 21.0) in seen
    assert "fake core" in widget.panel.progress.log_text
    assert "Done in" in message(widget)
    parameters = widget.panel.parameters
    segmentation = parameters.resultSegmentation
    assert segmentation.GetName() == "Head - labels"
    container = segmentation.GetSegmentation()
    segments = {container.GetNthSegment(n).GetName(): container.GetNthSegment(n) for n in range(4)}
    assert sorted(segments) == [
        *("Left cerebral white matter", "Left hippocampus", "Right cerebral white matter", "Right hippocampus")
    ]
    np.testing.assert_allclose(segments["Left hippocampus"].GetColor(), [220 / 255, 216 / 255, 20 / 255], atol=1e-6)
    terminology = vtk.reference("")
    segments["Left hippocampus"].GetTag(segments["Left hippocampus"].GetTerminologyEntryTagName(), terminology)
    assert "5366008" in str(terminology)
    assert "7771000^Left" in str(terminology)
    assert segments["Right hippocampus"].GetLabelValue() == 53
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) == volume
    assert segmentation.GetAttribute("MRIDeepTools.ResearchUseOnly") == "1"
    assert segmentation.GetAttribute("MRIDeepTools.Model") == "fake"
    for node in (segmentation, parameters.resultVolumes, parameters.resultScores):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study, node.GetName()
    table = parameters.resultVolumes
    assert table.GetNumberOfRows() == 4
    assert table.GetColumnUnitLabel("Volume") == "mm^3"
    assert parameters.resultChart.GetPlotSeriesNode().GetTableNode() == table
    assert not widget.ui.resultsCollapsibleButton.collapsed
    assert "dark" in widget.ui.warningsLabel.text
    assert "2 of 3" in widget.ui.scoresSummaryLabel.text
    assert widget.ui.scoresTableWidget.rowCount == 3
    assert slicer.mrmlScene.GetNumberOfNodes() > before
    assert volume.GetName() == "Head"


def test_labels_lie_where_the_anatomy_is(host, module, widget):
    """Each segment covers, in world coordinates, the voxels that the quick core labelled; under a transform too."""
    import slicer
    import vtk

    turned = np.array([[0, -3.0, 0, 40], [2.0, 0, 0, -30], [0, 0, -5.0, 60], [0, 0, 0, 1]])
    volume = add_volume("Turned", (30, 34, 60), turned)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 100)
    transform.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    widget.panel.parameters.inputVolume = volume
    apply(host, widget)
    segmentation = widget.panel.parameters.resultSegmentation
    assert segmentation.GetTransformNodeID() == transform.GetID()
    left, right = (
        slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name, volume) for name in ("Label_2", "Label_41")
    )
    k, j, i = np.nonzero(left)
    world_left = turned[0] @ np.stack([i, j, k, np.ones_like(i)])
    k, j, i = np.nonzero(right)
    world_right = turned[0] @ np.stack([i, j, k, np.ones_like(i)])
    assert len(world_left) and len(world_right)
    assert world_left.max() < world_right.min() + 1e-6
    bounds = [0.0] * 6
    segmentation.GetRASBounds(bounds)
    volume_bounds = [0.0] * 6
    volume.GetRASBounds(volume_bounds)
    assert all(volume_bounds[axis] - 1e-6 <= bounds[axis] for axis in (0, 2, 4))
    assert all(bounds[axis] <= volume_bounds[axis] + 1e-6 for axis in (1, 3, 5))


def test_apply_again_makes_new_nodes_and_a_chosen_node_is_filled(host, module, widget):
    import slicer

    apply(host, widget)
    first = widget.panel.parameters.resultSegmentation
    apply(host, widget)
    second = widget.panel.parameters.resultSegmentation
    assert second != first
    assert second.GetName() != first.GetName()
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    widget.panel.parameters.segmentation = own
    apply(host, widget)
    assert widget.panel.parameters.resultSegmentation == own
    assert own.GetName() == "Mine"
    assert own.GetSegmentation().GetNumberOfSegments() == 4


def test_a_table_that_is_filled_again_is_shown_again(host, module, widget):
    import slicer
    import vtk

    parameters = widget.panel.parameters
    parameters.makeScores = True
    parameters.scoresTable = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Mine")
    apply(host, widget)
    assert parameters.resultScores == parameters.scoresTable
    assert widget.ui.scoresTableWidget.item(0, 1).text() == "0.90"
    parameters.scoresTable.GetTable().SetValue(0, 1, vtk.vtkVariant(0.1))
    apply(host, widget)
    assert widget.ui.scoresTableWidget.item(0, 1).text() == "0.90"
    assert "2 of 3" in widget.ui.scoresSummaryLabel.text


def test_buttons_of_the_results(host, module, widget):
    """Hide and show all, surfaces, chart; the fluid around the brain would hide everything in 3D."""
    import slicer

    apply(host, widget)
    segmentation = widget.panel.parameters.resultSegmentation
    display = segmentation.GetDisplayNode()
    widget.ui.hideAllButton.click()
    assert not display.GetSegmentVisibility("Label_17")
    widget.ui.showAllButton.click()
    assert display.GetSegmentVisibility("Label_17")
    assert widget.ui.show3DButton.enabled
    assert widget.ui.show3DButton.segmentationNode() == segmentation
    widget.ui.showChartButton.click()
    shown = slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID()
    assert shown == widget.panel.parameters.resultChart.GetID()


def test_fluid_is_hidden_in_3d_alone(host, module):
    import slicer
    from SynthSegmentLib.run import HIDDEN_IN_3D, hide_in_3d

    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    for name in ("csf", "left thalamus"):
        identity = segmentation.GetSegmentation().AddEmptySegment(name)
        segmentation.GetSegmentation().GetSegment(identity).SetTag("MRIDeepTools.Structure", name)
    hide_in_3d(segmentation, HIDDEN_IN_3D)
    display = segmentation.GetDisplayNode()
    assert not display.GetSegmentVisibility3D("csf")
    assert display.GetSegmentVisibility2DFill("csf")
    assert display.GetSegmentVisibility3D("left thalamus")


def test_soft_maps_and_no_tables(host, module, widget):
    parameters = widget.panel.parameters
    parameters.makeVolumes, parameters.makePosteriors = False, True
    apply(host, widget)
    assert results_of("vtkMRMLTableNode") == []
    (sequence,) = results_of("vtkMRMLSequenceNode")
    assert sequence.GetNumberOfDataNodes() == 5
    assert not widget.ui.resultsTabs.isTabEnabled(1)


def test_a_sequence_is_labelled_whole(host, module, widget):
    import slicer

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Movie")
    for number in range(3):
        frame = add_volume(f"Frame {number}", seed=number)
        sequence.SetDataNodeAtValue(frame, str(number))
        slicer.mrmlScene.RemoveNode(frame)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.AddSynchronizedSequenceNode(sequence)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    proxy = browser.GetProxyNode(sequence)
    parameters = widget.panel.parameters
    assert not widget.ui.allTimePointsCheckBox.visible
    parameters.inputVolume = proxy
    assert widget.ui.allTimePointsCheckBox.visible
    parameters.allTimePoints = parameters.makeScores = True
    apply(host, widget)
    assert "Done in" in message(widget)
    shown = parameters.resultSegmentation
    made = browser.GetSequenceNode(shown)
    assert made.GetNumberOfDataNodes() == 3
    assert shown.GetSegmentation().GetNumberOfSegments() == 4
    assert parameters.resultVolumes.GetNumberOfRows() == 3
    assert parameters.resultScores.GetNumberOfRows() == 3
    assert parameters.resultScores.GetName() in widget.ui.scoresSummaryLabel.text


def test_scene_brings_everything_back(host, module, widget, tmp_path):
    import slicer

    parameters = widget.panel.parameters
    parameters.fast, parameters.makeScores, parameters.model = True, True, "synthseg-2.0"
    apply(host, widget)
    folder = tmp_path / "scene"
    folder.mkdir()
    assert slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(folder), None)
    slicer.mrmlScene.Clear(0)
    assert not widget.panel.parameters.fast
    assert widget.ui.resultsCollapsibleButton.collapsed
    (scene,) = folder.rglob("*.mrml")
    slicer.util.loadScene(str(scene))
    host.pump(0.2)
    parameters = widget.panel.parameters
    assert parameters.fast is True
    assert parameters.model == "synthseg-2.0"
    assert parameters.inputVolume.GetName() == "Head"
    assert parameters.resultSegmentation.GetSegmentation().GetNumberOfSegments() == 4
    assert parameters.resultVolumes.GetNumberOfRows() == 4
    assert parameters.resultWarnings == ["the scan is dark"]
    assert widget.ui.fastCheckBox.checked
    assert not widget.ui.resultsCollapsibleButton.collapsed
    assert "2 of 3" in widget.ui.scoresSummaryLabel.text


def test_console_and_panel_share_one_way(host, module):
    import slicer

    volume = add_volume()
    logic = module.python.SynthSegmentLogic()
    fractions = []
    segmentation = logic.process(
        volume, scores=True, fast=True, on_progress=lambda *values: fractions.append(values[0])
    )
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 4
    assert logic.outputs.volumes is not None
    assert logic.outputs.scores is not None
    assert 0.43 in fractions
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Mine")
    assert logic.process(volume, segmentation, volumes=table) == segmentation
    assert logic.outputs.volumes == table
    logic.process(volume, volumes=False)
    assert logic.outputs.volumes is None


def test_console_errors_are_sentences(host, module, monkeypatch):
    from MRIDeepToolsLib.errors import GlueError

    logic = module.python.SynthSegmentLogic()
    with pytest.raises(GlueError, match="Choose a scan"):
        logic.process(None)
    set_mode(monkeypatch, "error")
    with pytest.raises(GlueError, match="GPU is full"):
        logic.process(add_volume())
    set_mode(monkeypatch, "slow")
    begin = time.monotonic()
    with pytest.raises(GlueError, match="in time"):
        logic.process(add_volume(), timeout_s=1.0)
    assert time.monotonic() - begin < 5
    with pytest.raises(TypeError):
        logic.process(add_volume(), colour="red")


def test_logs_hold_no_names_and_no_folders(host, module, widget, caplog, tmp_path):
    widget.panel.parameters.inputVolume = add_volume("Doe^Jane")
    with caplog.at_level(logging.DEBUG):
        apply(host, widget)
    expect_no_names((caplog.text, widget.panel.progress.log_text), tmp_path)
