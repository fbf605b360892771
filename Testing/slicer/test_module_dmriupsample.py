"""The module DMRIUpsample in the Slicer host: panel, plan, glyphs, runs, scene, console. The core is a quick one;
faults are in test_module_dmriupsample_faults.py, real runs in test_module_dmriupsample_real.py."""

from __future__ import annotations

import logging
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from dmriupsample_case import AFFINE, SHAPE, add_mask, add_scan, wait_planned
from module_helpers import REPOSITORY, add_volume, apply, expect_no_names, message, results_of, set_mode

pytest_plugins = ["dmriupsample_case"]


def plan_text(widget) -> str:
    return widget.ui.planLabel.text


def test_every_parameter_name_is_a_member_and_every_visible_member_is_bound(module, widget):
    root = ET.parse(REPOSITORY / "DMRIUpsample" / "Resources" / "UI" / "DMRIUpsample.ui").getroot()
    properties = root.iterfind(".//property[@name='SlicerParameterName']/string")
    named = {item.text for item in properties}
    members = set(type(widget.panel.parameters).__annotations__)
    by_hand = {"model", "shell", "directionsModel"}
    for_results = {name for name in members if name.startswith("made")}
    assert named <= members
    assert named == members - by_hand - for_results
    assert len(for_results) == 9


def test_widgets_and_parameters_follow_each_other(host, module, widget, tmp_path):
    parameters, ui = widget.panel.parameters, widget.ui
    ui.directionCountSpinBox.value = 17
    assert parameters.directionCount == 17
    parameters.method = type(parameters.method).HARMONICS
    assert ui.methodComboBox.currentIndex == 1
    assert not ui.modelComboBox.enabled
    parameters.method = type(parameters.method).NETWORK
    ui.modelComboBox.setCurrentIndex(ui.modelComboBox.findData("dmri-rcnn-lite"))
    assert parameters.model == "dmri-rcnn-lite"
    assert ui.directionCountSpinBox.visible
    ui.targetsComboBox.setCurrentIndex(1)
    assert parameters.targets.name == "FILE"
    assert not ui.directionCountSpinBox.visible
    ui.targetFilePathLineEdit.currentPath = str(tmp_path)
    assert parameters.targetFile == tmp_path
    assert not ui.mdSelector.enabled
    ui.makeMDCheckBox.checked = True
    assert ui.mdSelector.enabled
    mask = add_mask(np.ones(SHAPE, np.uint8))
    ui.maskSelector.setCurrentNode(mask)
    assert parameters.mask == mask


def test_a_scan_is_chosen_by_itself_and_the_one_shown_goes_first(host, module):
    import slicer

    add_volume("No diffusion")
    add_scan("First")
    shown = add_scan("Shown")
    slicer.app.applicationLogic().GetSelectionNode().SetReferenceActiveVolumeID(shown.GetID())
    assert module.widget().panel.parameters.inputVolume.GetName() == "Shown"


def test_apply_says_why_it_is_disabled(host, module):
    import slicer

    shown = module.widget()
    assert not shown.ui.applyButton.enabled
    assert "Choose a diffusion scan" in message(shown)
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLDiffusionWeightedVolumeNode", "Empty")
    shown.panel.parameters.inputVolume = empty
    assert "empty" in message(shown)
    short = add_scan("short")
    short.SetNumberOfGradients(4)
    shown.panel.parameters.inputVolume = short
    assert "13 volumes and 4 gradients" in message(shown)
    shown.panel.parameters.inputVolume = add_scan("good")
    wait_planned(host, shown)
    assert shown.ui.applyButton.enabled
    assert message(shown) == ""
    shown.panel.parameters.targets = type(shown.panel.parameters.targets).FILE
    assert not shown.ui.applyButton.enabled
    assert "file with the wanted directions" in message(shown)


def test_what_was_measured_and_what_would_be_done_is_told(host, module, widget):
    assert "12 directions at b = 1000, 1 volume at b = 0." in plan_text(widget)
    text = "Read by fake-network: 6 of the 12 (volumes 1, 2, 3, 4, 5, 6; spherical harmonics read all). Predicted: 30."
    assert text in plan_text(widget)
    assert "look at the errors, or use the method Spherical harmonics" in widget.ui.planNoteLabel.text
    assert "numbered from 0" not in widget.ui.planNoteLabel.text
    assert not widget.ui.shellComboBox.visible
    widget.panel.parameters.method = type(widget.panel.parameters.method).HARMONICS
    widget.panel.parameters.directionCount = 44
    wait_planned(host, widget)
    assert "Read by spherical harmonics of order 2: all 12. Predicted: 44." in plan_text(widget)
    assert not widget.ui.planNoteLabel.visible


def test_of_several_shells_one_is_chosen_and_another_can_be(host, module):
    add_scan("shells", shells=(1000, 2000, 3000), directions=9, b0=2)
    shown = module.widget()
    wait_planned(host, shown)
    wait_planned(host, shown)
    parameters, combo = shown.panel.parameters, shown.ui.shellComboBox
    assert "9 directions at b = 1000, 9 directions at b = 2000, 9 directions at b = 3000, 2 volumes" in plan_text(shown)
    assert parameters.shell == 1000
    assert combo.visible
    assert [combo.itemData(n) for n in range(combo.count)] == [1000, 2000, 3000]
    combo.setCurrentIndex(1)
    assert parameters.shell == 2000
    wait_planned(host, shown)
    assert shown.panel.plan.context == [11, 12, 13, 14, 15, 16]
    apply(host, shown)
    result = parameters.madeResult
    assert {result.GetBValue(n) for n in range(result.GetNumberOfGradients())} == {0.0, 2000.0}
    parameters.inputVolume = add_scan("single")
    wait_planned(host, shown)
    assert parameters.shell == 0
    assert not combo.visible
    assert shown.ui.applyButton.enabled


def test_a_scan_that_the_core_refuses_is_told_before_apply(host, module):
    add_scan("few", directions=4)
    shown = module.widget()
    wait_planned(host, shown)
    assert not shown.ui.applyButton.enabled
    assert "4 directions were measured" in message(shown)
    assert "the method Spherical harmonics" in message(shown)
    assert "4 directions at b = 1000" in plan_text(shown)


def test_changes_are_asked_for_once(host, module, widget, monkeypatch):
    from MRIDeepToolsLib.jobs import CoreJob

    starts = []
    original = CoreJob.start
    monkeypatch.setattr(CoreJob, "start", lambda self: (starts.append(self), original(self))[1])
    for count in range(31, 40):
        widget.panel.parameters.directionCount = count
    wait_planned(host, widget)
    assert len(starts) == 1
    assert len(widget.panel.plan.targets) == 39
    widget.panel.update()
    module.leave()
    module.enter()
    wait_planned(host, widget)
    assert len(starts) <= 2


def test_directions_stand_on_a_sphere_in_two_colours(host, module, widget):
    """Both ends of each, in world space, in the middle of the scan; hidden and shown again; follows the plan."""
    import slicer
    from DMRIUpsampleLib.glyphs import MEASURED_COLOUR, PREDICTED_COLOUR
    from MRIDeepToolsLib.diffusion import gradients_of
    from vtk.util.numpy_support import vtk_to_numpy

    parameters = widget.panel.parameters
    assert parameters.directionsModel is None
    widget.ui.showDirectionsCheckBox.checked = True
    node = parameters.directionsModel
    assert node.GetName() == "dwi - directions"
    assert node.GetDisplayNode().GetVisibility()
    assert node.GetDisplayNode().GetActiveScalarName() == "Colour"
    mesh = node.GetPolyData()
    points, colours = vtk_to_numpy(mesh.GetPoints().GetData()), vtk_to_numpy(mesh.GetPointData().GetScalars())
    middle = (AFFINE @ [*((np.array(SHAPE[::-1]) - 1) / 2), 1])[:3]
    radius = 0.4 * min(np.array(SHAPE[::-1]) * [3, 3, 4])

    def near(direction, colour) -> bool:
        inside = np.linalg.norm(points - (middle + radius * np.asarray(direction)), axis=1) < 0.07 * radius
        return bool((colours[inside] == colour).all(axis=1).any())

    measured = gradients_of(parameters.inputVolume)[1][1:]
    assert all(near(sign * one, MEASURED_COLOUR) for one in measured for sign in (1, -1))
    assert all(near(sign * np.array(one), PREDICTED_COLOUR) for one in widget.panel.plan.targets for sign in (1, -1))
    count = mesh.GetNumberOfPoints()
    parameters.directionCount = 50
    wait_planned(host, widget)
    assert parameters.directionsModel == node
    assert node.GetPolyData().GetNumberOfPoints() > count
    widget.ui.showDirectionsCheckBox.checked = False
    assert not node.GetDisplayNode().GetVisibility()
    slicer.mrmlScene.RemoveNode(node)
    widget.ui.showDirectionsCheckBox.checked = True
    assert parameters.directionsModel.GetDisplayNode().GetVisibility()


def test_files_are_opened_with_directions_right_in_the_world(host, module, widget, tmp_path):
    """FSL's files beside the image are found by themselves; the scan becomes the input."""
    from MRIDeepToolsLib.diffusion import gradients_of

    scan, ui = widget.panel.parameters.inputVolume, widget.ui
    module.python.DMRIUpsampleLogic().save_fsl(scan, tmp_path / "pair.nii.gz")
    ui.importCollapsibleButton.collapsed = False
    ui.imagePathLineEdit.currentPath = str(tmp_path / "pair.nii.gz")
    assert ui.bvalsPathLineEdit.currentPath == str(tmp_path / "pair.bval")
    assert ui.bvecsPathLineEdit.currentPath == str(tmp_path / "pair.bvec")
    ui.importButton.click()
    opened = widget.panel.parameters.inputVolume
    assert opened.GetName() == "pair"
    assert "pair: 13 volumes" in ui.importNoteLabel.text
    for one, other in zip(gradients_of(scan), gradients_of(opened), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    (tmp_path / "pair.bvec").unlink()
    ui.importButton.click()
    assert "pair.bvec is missing" in ui.importNoteLabel.text
    assert widget.panel.parameters.inputVolume == opened


def test_apply_predicts_directions(host, module, widget):
    """Progress, log, results: geometry, gradients, names, hierarchy, attributes, maps, table, chart, verdict."""
    import slicer
    from MRIDeepToolsLib.diffusion import gradients_of

    parameters = widget.panel.parameters
    scan = parameters.inputVolume
    parameters.makeB0 = parameters.makeMD = True
    parameters.directionCount = 20
    wait_planned(host, widget)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(scan), study)
    before = slicer.util.arrayFromVolume(scan).copy()
    seen = []
    original = widget.panel.progress.progress
    widget.panel.progress.progress = lambda *values: (seen.append(values), original(*values))
    apply(host, widget)
    assert (0.43, "predict", 21.0) in seen
    assert "fake core" in widget.panel.progress.log_text
    assert "Done in" in message(widget)
    result = parameters.madeResult
    assert result.GetName() == "dwi - synthetic directions"
    assert result.GetAttribute("MRIDeepTools.Synthetic") == "1"
    assert result.GetAttribute("MRIDeepTools.ResearchUseOnly") == "1"
    assert result.GetAttribute("MRIDeepTools.Model") == "fake-network"
    assert result.GetAttribute("MRIDeepTools.PredictedVolumes") == " ".join(map(str, range(13, 33)))
    np.testing.assert_allclose(matrix_of(result), AFFINE, atol=1e-12)
    bvals, world = gradients_of(result)
    np.testing.assert_allclose(world[:13], gradients_of(scan)[1], atol=1e-8)
    np.testing.assert_allclose(world[13:], widget.panel.plan.targets, atol=1e-8)
    np.testing.assert_allclose(bvals, [0] + [1000] * 32)
    values = slicer.util.arrayFromVolume(result)
    np.testing.assert_array_equal(values[..., :13], before)
    np.testing.assert_array_equal(values[0, 0, 0, 13:], 100 + np.arange(20))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(scan), before)
    assert parameters.madeFA.GetName() == "dwi - FA (synthetic)"
    assert parameters.madeFA.GetDisplayNode().GetWindowLevelMax() == 1.0
    assert parameters.madeMD.GetName() == "dwi - MD (synthetic)"
    np.testing.assert_allclose(slicer.util.arrayFromVolume(parameters.madeB0), before[..., 0])
    assert parameters.madeB0.GetAttribute("MRIDeepTools.Synthetic") is None
    for node in (result, parameters.madeFA, parameters.madeMD, parameters.madeB0, parameters.madeErrors):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study, node.GetName()
    table = parameters.madeErrors
    assert table.GetNumberOfRows() == 3
    assert [table.GetTable().GetColumnName(n) for n in range(4)] == [*("Left out", "This method", "Mean", "SH, same")]
    assert table.GetColumnUnitLabel("This method") == "%"
    assert table.GetColumnDescription("SH, same") == "harmonics"
    assert table.GetTable().GetValue(1, 1).ToDouble() == pytest.approx(2.2)  # 11 of a mean signal of 500
    assert parameters.madeChart.GetNumberOfPlotSeriesNodes() == 3
    assert "4.0 % of the signal" in widget.ui.verdictLabel.text
    assert "the method Spherical harmonics" in widget.ui.verdictLabel.text
    assert not widget.ui.resultsCollapsibleButton.collapsed
    assert "dark" in widget.ui.warningsLabel.text


def matrix_of(node) -> np.ndarray:
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def test_buttons_of_the_results(host, module, widget, tmp_path):
    """Volumes in words, the maps in the slice views, the chart, files for FSL."""
    import slicer

    ui, parameters = widget.ui, widget.panel.parameters
    parameters.makeMD = True
    apply(host, widget)
    result = parameters.madeResult
    selection = slicer.app.applicationLogic().GetSelectionNode()
    assert result.GetDisplayNode().GetDiffusionComponent() == 13
    assert ui.volumeSlider.value == 13
    assert "Predicted, synthetic: b = 1000, direction" in ui.volumeWordsLabel.text
    ui.volumeSlider.value = 0
    assert ui.volumeWordsLabel.text == "Measured, b = 0."
    ui.volumeSlider.value = 2
    assert "Measured: b = 1000" in ui.volumeWordsLabel.text
    assert result.GetDisplayNode().GetDiffusionComponent() == 2
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetBackgroundVolumeID() == parameters.madeFA.GetID()
    for button, node in ((ui.showMDButton, parameters.madeMD), (ui.showScanButton, result)):
        button.click()
        assert composite.GetBackgroundVolumeID() == node.GetID()
    ui.showChartButton.click()
    assert selection.GetActivePlotChartID() == parameters.madeChart.GetID()
    widget.panel.ask_path = lambda: ""
    ui.saveButton.click()
    widget.panel.ask_path = lambda: str(tmp_path / "out")
    ui.saveButton.click()
    assert "Saved: out.nii.gz, out.bval, out.bvec." in message(widget)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == [
        *("out.bval", "out.bvec", "out.nii.gz")
    ]
    widget.panel.ask_path = lambda: str(tmp_path / "nowhere" / "out.nii")
    ui.saveButton.click()
    assert "cannot be written" in message(widget)


def test_results_lie_where_the_scan_is_also_under_a_transform(host, module, widget):
    import slicer
    from MRIDeepToolsLib.diffusion import gradients_of

    scan = widget.panel.parameters.inputVolume
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    scan.SetAndObserveTransformNodeID(transform.GetID())
    apply(host, widget)
    parameters = widget.panel.parameters
    for node in (parameters.madeResult, parameters.madeFA):
        assert node.GetTransformNodeID() == transform.GetID()
        np.testing.assert_allclose(matrix_of(node), AFFINE, atol=1e-5)
    np.testing.assert_allclose(gradients_of(parameters.madeResult)[1][:13], gradients_of(scan)[1], atol=1e-8)


def test_targets_of_a_file_and_a_mask(host, module, widget, tmp_path):
    from MRIDeepToolsLib.diffusion import gradients_of

    wanted = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0], [0.6, 0.8, 0]], float)
    np.savetxt(tmp_path / "targets.b", np.column_stack([wanted, np.full(4, 1000)]))
    parameters = widget.panel.parameters
    parameters.targets, parameters.targetFile = type(parameters.targets).FILE, tmp_path / "targets.b"
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    parameters.mask = add_mask(labels)
    wait_planned(host, widget)
    assert "Predicted: 4." in plan_text(widget)
    apply(host, widget)
    assert "--target-grad targets.b" in widget.panel.progress.log_text
    assert "mask of 27 voxels" in widget.panel.progress.log_text
    np.testing.assert_allclose(gradients_of(parameters.madeResult)[1][13:], wanted, atol=1e-8)


@pytest.mark.parametrize(
    ("text", "world"),
    [
        ("1 0 0 1000\n0 1 0 1000\n0 0 1 1000\n0 0 1 1000\n", True),
        ("# comment\n1 0 0 1000\n", True),
        ("1 0 0 1\n0 1 0 1\n0 0 1 1\n", False),  # three rows: FSL's, of four directions
        ("1 0 0\n0 1 0\n", False),
        ("", False),
    ],
)
def test_conventions_of_target_files_are_told_apart(host, module, tmp_path, text, world):
    from DMRIUpsampleLib.run import is_world_table

    (tmp_path / "targets").write_text(text)
    assert is_world_table(tmp_path / "targets") is world
    assert not is_world_table(tmp_path / "none")


def test_a_count_that_slicer_cannot_save_never_comes(host, module, widget):
    """Without the measured volumes, 1 + n; below seven they are kept, and it is said."""
    from MRIDeepToolsLib.diffusion import SMALLEST_SAVED

    parameters = widget.panel.parameters
    parameters.keepMeasured = False
    for count in (5, 6):
        parameters.directionCount = count
        wait_planned(host, widget)
        apply(host, widget)
        made = parameters.madeResult.GetNumberOfGradients()
        assert made == (13 + count if 1 + count < SMALLEST_SAVED else 1 + count)
        assert ("were kept" in " ".join(parameters.madeWarnings)) == (1 + count < SMALLEST_SAVED)
    predicted = parameters.madeResult.GetAttribute("MRIDeepTools.PredictedVolumes").split()
    assert predicted == [str(n) for n in range(1, 7)]
    parameters.inputVolume = add_scan("six", directions=6, b0=0)
    parameters.method = type(parameters.method).HARMONICS
    parameters.directionCount = 1
    wait_planned(host, widget)
    apply(host, widget)
    assert parameters.madeResult.GetNumberOfGradients() == 7


def test_apply_again_makes_new_nodes_and_chosen_nodes_are_filled(host, module, widget):
    import slicer

    parameters = widget.panel.parameters
    apply(host, widget)
    first = parameters.madeResult
    apply(host, widget)
    assert parameters.madeResult != first
    assert parameters.madeResult.GetName() != first.GetName()
    parameters.result = first
    parameters.errorsTable = parameters.madeErrors
    parameters.faVolume = parameters.madeFA
    chart, count = parameters.madeChart, slicer.mrmlScene.GetNumberOfNodes()
    parameters.directionCount = 8
    wait_planned(host, widget)
    apply(host, widget)
    assert parameters.madeResult == first
    assert first.GetNumberOfGradients() == 13 + 8
    assert parameters.madeErrors == parameters.errorsTable
    assert parameters.madeChart == chart
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    parameters.result = parameters.inputVolume
    widget.ui.applyButton.click()
    assert "cannot be overwritten" in message(widget)
    assert parameters.inputVolume.GetNumberOfGradients() == 13


def test_nothing_but_the_scan(host, module, widget):
    parameters = widget.panel.parameters
    parameters.makeFA = parameters.makeErrors = False
    apply(host, widget)
    assert [node.GetClassName() for node in results_of()] == ["vtkMRMLDiffusionWeightedVolumeNode"]
    assert not widget.ui.showFAButton.enabled
    assert not widget.ui.resultsTabs.isTabEnabled(1)
    parameters.inputVolume = add_scan("no b0", b0=0)
    parameters.makeB0 = True
    wait_planned(host, widget)
    apply(host, widget)
    assert parameters.madeB0 is None
    assert "no volume at b = 0" in " ".join(parameters.madeWarnings)


def test_scene_brings_everything_back(host, module, widget, tmp_path):
    import slicer
    from MRIDeepToolsLib.diffusion import gradients_of

    parameters = widget.panel.parameters
    parameters.directionCount, parameters.makeMD, parameters.model = 21, True, "dmri-rcnn-lite"
    parameters.mask = add_mask(np.ones(SHAPE, np.uint8))
    widget.ui.showDirectionsCheckBox.checked = True
    wait_planned(host, widget)
    apply(host, widget)
    gradients = gradients_of(parameters.madeResult)
    folder = tmp_path / "scene"
    folder.mkdir()
    assert slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(folder), None)
    slicer.mrmlScene.Clear(0)
    assert widget.panel.parameters.directionCount == 30
    assert widget.ui.resultsCollapsibleButton.collapsed
    (scene,) = folder.rglob("*.mrml")
    slicer.util.loadScene(str(scene))
    host.pump(0.2)
    wait_planned(host, widget)
    parameters = widget.panel.parameters
    assert parameters.directionCount == 21
    assert parameters.model == "dmri-rcnn-lite"
    assert parameters.inputVolume.GetName() == "dwi"
    assert parameters.mask.GetName() == "brain"
    assert parameters.directionsModel is not None
    for one, other in zip(gradients_of(parameters.madeResult), gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert parameters.madeErrors.GetNumberOfRows() == 3
    assert parameters.madeChart.GetNumberOfPlotSeriesNodes() == 3
    assert "The scan is dark" in parameters.madeWarnings
    assert "4.0 %" in widget.ui.verdictLabel.text
    assert widget.ui.makeMDCheckBox.checked
    assert not widget.ui.resultsCollapsibleButton.collapsed
    assert "Predicted: 21." in plan_text(widget)


def test_console_and_panel_share_one_way(host, module):
    import slicer

    scan = add_scan()
    logic = module.python.DMRIUpsampleLogic()
    fractions = []
    options = {"on_progress": lambda *values: fractions.append(values[0])}
    result = logic.process(scan, directions=9, fa=True, errors=True, method="sh", **options)
    assert result.GetNumberOfGradients() == 13 + 9
    assert logic.outputs.fa is not None
    assert logic.outputs.errors is not None
    assert logic.outputs.b0 is None
    assert logic.outputs.model == "spherical harmonics of order 2"
    assert 0.43 in fractions
    mean = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
    mask = add_mask(np.ones(SHAPE, np.uint8))
    assert logic.process(scan, result, b0=mean, mask=mask, keep_measured=False) == result
    assert logic.outputs.b0 == mean
    assert result.GetNumberOfGradients() == 31


def test_console_errors_are_sentences(host, module, monkeypatch):
    from MRIDeepToolsLib.errors import GlueError

    logic = module.python.DMRIUpsampleLogic()
    with pytest.raises(GlueError, match="Choose a diffusion scan"):
        logic.process(None)
    with pytest.raises(GlueError, match="diffusion-weighted"):
        logic.process(add_volume())
    with pytest.raises(GlueError, match="nothing inside"):
        logic.process(add_scan(), mask=add_mask(np.zeros(SHAPE, np.uint8)))
    with pytest.raises(GlueError, match=r"The scan has several shells\. Choose one under Shell"):
        logic.process(add_scan(shells=(1000, 2000)))
    set_mode(monkeypatch, "error")
    with pytest.raises(GlueError, match="GPU is full"):
        logic.process(add_scan())
    set_mode(monkeypatch, "slow")
    begin = time.monotonic()
    with pytest.raises(GlueError, match="in time"):
        logic.process(add_scan(), timeout_s=1.0)
    assert time.monotonic() - begin < 5
    with pytest.raises(TypeError):
        logic.process(add_scan(), colour="red")


def test_logs_hold_no_names_and_no_folders(host, module, widget, caplog, tmp_path):
    widget.panel.parameters.inputVolume = add_scan("Doe^Jane")
    wait_planned(host, widget)
    with caplog.at_level(logging.DEBUG):
        apply(host, widget)
    expect_no_names((caplog.text, widget.panel.progress.log_text), tmp_path)


def test_snippet_of_the_documentation(host, module, tmp_path, monkeypatch, capsys):
    import re

    import slicer

    text = (REPOSITORY / "Resources" / "docs" / "slicer.md").read_text(encoding="utf-8")
    (snippet,) = [code for code in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M) if "DMRIUpsample" in code]
    module.python.DMRIUpsampleLogic().save_fsl(add_scan(), tmp_path / "dwi.nii.gz")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "slicer.md", "exec"), {"slicer": slicer})
    assert "30 directions with fake-network" in capsys.readouterr().out
    assert {"more.nii.gz", "more.bval", "more.bvec"} <= {path.name for path in tmp_path.iterdir()}
