"""Results as nodes: names, colours, terminology, tables, charts, sequences, places and provenance."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from glue_helpers import REPOSITORY, add_transform, add_volume, affine_of, write_labels

CORE = REPOSITORY / "MRIDeepTools" / "mri_deep_tools"


@pytest.fixture
def scan(host):
    return add_volume(np.zeros((8, 8, 8), np.float32), affine_of(np.eye(3), (1, 1, 1), (5, 6, 7)))


def tag(segment, name):
    import vtk

    text = vtk.reference("")
    return str(text) if segment.GetTag(name, text) else None


def all_labels():
    with (CORE / "synthsegment" / "labels.csv").open() as stream:
        return [row for row in csv.DictReader(stream) if row["code"] != "0"]


# ---------------------------------------------------------------------------------------------------- segmentations


def test_segments_have_names_colours_terminology_and_values(host, scan, tmp_path):
    import slicer
    from MRIDeepToolsLib.nodes import import_segmentation, structures_of

    labels = np.zeros((8, 8, 8), int)
    labels[1, 2, 3], labels[2, 2, 3], labels[3, 3, 3], labels[4, 4, 4] = 10, 49, 24, 16
    path, table = write_labels(tmp_path, labels, affine_of(np.eye(3), (1, 1, 1), (5, 6, 7)))
    node = import_segmentation(path, table, scan, "scan - brain")
    container = node.GetSegmentation()
    found = [container.GetNthSegment(number) for number in range(container.GetNumberOfSegments())]
    assert [item.GetName() for item in found] == ["Left thalamus", "Brain-stem", "CSF", "Right thalamus"]
    assert [item.GetLabelValue() for item in found] == [10, 16, 24, 49]
    assert found[0].GetColor() == pytest.approx((0, 118 / 255, 14 / 255))
    assert set(structures_of(node)) == {"left thalamus", "right thalamus", "csf", "brain-stem"}
    wanted = {0: ("Thalamus", "Left"), 3: ("Thalamus", "Right"), 1: ("Brain Stem", None)}
    for number, (kind, side) in wanted.items():
        entry = slicer.vtkSlicerTerminologyEntry()
        text = tag(found[number], found[number].GetTerminologyEntryTagName())
        assert slicer.modules.terminologies.logic().DeserializeTerminologyEntry(text, entry)
        assert entry.GetCategoryObject().GetCodeMeaning() == "Anatomical Structure"
        assert entry.GetTypeObject().GetCodeMeaning() == kind
        modifier = entry.GetTypeModifierObject()
        assert (modifier.GetCodeMeaning() if modifier else None) == side
    role = node.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is scan
    assert node.GetDisplayNode() is not None
    # The reference geometry is the scan's: a new label map of the segmentation has its grid.
    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, container.GetNthSegmentID(0), scan)
    assert array.shape == (8, 8, 8) and array[3, 2, 1] and array.sum() == 1


def test_a_given_node_is_filled_anew(host, scan, tmp_path):
    import slicer
    from MRIDeepToolsLib.nodes import import_segmentation

    affine = affine_of(np.eye(3), (1, 1, 1), (5, 6, 7))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    for value, count in ((2, 1), (41, 1)):
        path, table = write_labels(tmp_path, np.full((8, 8, 8), value), affine, f"v{value}")
        before = slicer.mrmlScene.GetNumberOfNodes()
        assert import_segmentation(path, table, scan, "other", node) is node
        assert node.GetSegmentation().GetNumberOfSegments() == count
        assert node.GetSegmentation().GetNthSegment(0).GetLabelValue() == value
    assert node.GetName() == "mine" and slicer.mrmlScene.GetNumberOfNodes() == before


def test_unknown_and_no_labels(host, scan, tmp_path):
    from MRIDeepToolsLib.nodes import import_segmentation

    affine = affine_of(np.eye(3), (1, 1, 1), (5, 6, 7))
    path, table = write_labels(tmp_path, np.full((8, 8, 8), 999), affine)
    node = import_segmentation(path, table, scan, "odd")
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "Label 999"
    path, table = write_labels(tmp_path, np.zeros((8, 8, 8)), affine, "empty")
    assert import_segmentation(path, table, scan, "empty").GetSegmentation().GetNumberOfSegments() == 0


@pytest.mark.parametrize("fault", ["no labels", "no table", "cut labels", "broken table", "fractions", "negative"])
def test_broken_results_are_told_and_leave_nothing(host, scan, tmp_path, fault):
    import slicer
    from MRIDeepToolsLib.nodes import ResultError, import_segmentation

    affine = affine_of(np.eye(3), (1, 1, 1), (5, 6, 7))
    path, table = write_labels(tmp_path, np.full((8, 8, 8), 2), affine)
    if fault == "no labels":
        path.unlink()
    elif fault == "no table":
        table.unlink()
    elif fault == "cut labels":
        path.write_bytes(path.read_bytes()[:-1])
    elif fault == "broken table":
        table.write_text("index\tname\tcolor\nx\ty\tz\n")
    else:
        value = 0.5 if fault == "fractions" else -1
        nib.save(nib.Nifti1Image(np.full((8, 8, 8), value, np.float32), affine), path)
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(ResultError):
        import_segmentation(path, table, scan, "new")
    assert slicer.mrmlScene.GetNumberOfNodes() == before


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_is_cut_short_is_not_believed(host, tmp_path, suffix):
    from MRIDeepToolsLib.nodes import ResultError, import_posteriors, import_volume

    values = np.random.default_rng(0).random((9, 8, 7)).astype(np.float32)
    scan = add_volume(values, np.eye(4))
    path = tmp_path / f"image{suffix}"
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    assert import_volume(path, scan, "whole") is not None
    path.write_bytes(path.read_bytes()[:-5])
    for read in (import_volume, import_posteriors):
        with pytest.raises(ResultError, match="cut short"):
            read(path, scan, "cut")


def test_label_map_has_its_colours(host, scan, tmp_path):
    import slicer
    from MRIDeepToolsLib.nodes import import_labelmap

    labels = np.random.default_rng(0).choice([0, 2, 10, 49], size=(8, 8, 8))
    path, table = write_labels(tmp_path, labels, affine_of(np.eye(3), (1, 1, 1), (5, 6, 7)))
    node = import_labelmap(path, table, scan, "labels")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node).transpose(2, 1, 0), labels)
    colours = node.GetDisplayNode().GetColorNode()
    assert colours.GetColorName(10) == "Left thalamus"


def test_terminology_file_agrees_with_the_core(host):
    """Every coded structure of the core is in the list, with its side; nothing else is."""
    from MRIDeepToolsLib import terminology

    document = json.loads(terminology.TERMINOLOGY_FILE.read_text())
    assert document["SegmentationCategoryTypeContextName"] == terminology.CONTEXT
    (category,) = document["SegmentationCodes"]["Category"]
    listed = {
        (kind["CodingSchemeDesignator"], kind["CodeValue"], kind["CodeMeaning"], side.lower())
        for kind in category["Type"]
        for side in [item["CodeMeaning"] for item in kind.get("Modifier", [{"CodeMeaning": "neutral"}])]
    }
    wanted = {(row["coding_scheme"], row["concept_code"], row["concept_meaning"], row["side"]) for row in all_labels()}
    assert listed == {entry for entry in wanted if entry[1]}
    assert terminology.load_terminology()
    import slicer

    logic = slicer.modules.terminologies.logic()
    assert logic.IsTerminologyContextLoaded(terminology.CONTEXT)


def test_every_structure_has_an_entry_that_slicer_reads(host, tmp_path):
    import slicer
    from mri_deep_tools.commands.segment_tables import write_label_table
    from mri_deep_tools.synthsegment.labels import LABELS
    from MRIDeepToolsLib.labels import read_label_table
    from MRIDeepToolsLib.terminology import entry

    write_label_table(tmp_path / "all.tsv", LABELS)
    structures = read_label_table(tmp_path / "all.tsv")
    assert set(structures) == {int(row["code"]) for row in all_labels()}
    logic = slicer.modules.terminologies.logic()
    for structure in structures.values():
        found = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(entry(structure), found), structure
        assert found.GetTypeObject().GetCodeValue() == structure.code
        side = found.GetTypeModifierObject()
        assert ((side and side.GetCodeMeaning()) or "neutral").lower() == structure.side


# --------------------------------------------------------------------------------------------------- tables, charts


def write_volumes(path, volumes):
    from mri_deep_tools.commands.segment_tables import volumes_row, write_csv

    write_csv(path, [volumes_row("scan", volumes)])
    return path


VOLUMES = {"total intracranial": 1.4e6, "left thalamus": 8000.0, "right thalamus": 7000.0, "csf": 3.25}


def test_volumes_table_and_chart(host, tmp_path):
    import slicer
    from MRIDeepToolsLib.nodes import import_volumes_table, volumes_chart

    node = import_volumes_table(write_volumes(tmp_path / "v.csv", VOLUMES), "volumes")
    content = node.GetTable()
    assert [content.GetColumnName(number) for number in range(3)] == ["Structure", "Volume", "Asymmetry"]
    rows = [[node.GetCellText(row, column) for column in range(3)] for row in range(4)]
    assert [row[0] for row in rows] == ["Total intracranial", "Left thalamus", "Right thalamus", "CSF"]
    assert [float(row[1]) for row in rows] == list(VOLUMES.values())
    assert [row[2] for row in rows] == ["", "+13.3", "+13.3", ""]
    assert node.GetColumnUnitLabel("Volume") == "mm^3" and node.GetColumnUnitLabel("Asymmetry") == "%"
    chart = volumes_chart(node, "chart")
    series = chart.GetPlotSeriesNode()
    assert series.GetPlotTypeAsString(series.GetPlotType()) == "Bar"
    assert series.GetTableNode() is node and series.GetYColumnName() == "Volume"
    assert series.GetLabelColumnName() == "Structure" and "mm^3" in chart.GetYAxisTitle()
    count = slicer.mrmlScene.GetNumberOfNodes()
    assert volumes_chart(node, "chart") is chart and slicer.mrmlScene.GetNumberOfNodes() == count


def test_table_is_replaced_in_place_and_kept_on_error(host, tmp_path):
    from MRIDeepToolsLib.nodes import ResultError, import_volumes_table

    path = write_volumes(tmp_path / "v.csv", VOLUMES)
    node = import_volumes_table(path, "volumes")
    path.write_text("subject,left thalamus (mm^3)\nscan,much\n")
    with pytest.raises(ResultError, match=r"v\.csv"):
        import_volumes_table(path, "volumes", node)
    assert node.GetTable().GetNumberOfRows() == 4
    assert import_volumes_table(write_volumes(path, {"csf": 1.0}), "volumes", node) is node
    assert node.GetTable().GetNumberOfRows() == 1
    for text in ("", "subject\n"):
        path.write_text(text)
        with pytest.raises(ResultError):
            import_volumes_table(path, "volumes")


def test_table_survives_saving(host, tmp_path):
    import slicer
    from MRIDeepToolsLib.nodes import import_volumes_table

    node = import_volumes_table(write_volumes(tmp_path / "v.csv", VOLUMES), "volumes")
    node.AddDefaultStorageNode()
    storage = node.GetStorageNode()
    storage.SetFileName(str(tmp_path / "saved.tsv"))
    assert storage.WriteData(node)
    back = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    back.AddDefaultStorageNode()
    back.GetStorageNode().SetFileName(str(tmp_path / "saved.tsv"))
    assert back.GetStorageNode().ReadData(back)
    assert back.GetColumnUnitLabel("Volume") == "mm^3"
    assert float(back.GetCellText(1, 1)) == 8000.0


def test_asymmetry_agrees_with_the_report_of_the_core():
    from mri_deep_tools.synthsegment import report
    from MRIDeepToolsLib.tables import ACCEPT_SCORE, GOOD_SCORE, asymmetry_percent

    assert asymmetry_percent("left thalamus", VOLUMES) == pytest.approx(report.asymmetry_index(8000.0, 7000.0))
    assert asymmetry_percent("ctx-rh-cuneus", {"ctx-lh-cuneus": 1.0, "ctx-rh-cuneus": 3.0}) == pytest.approx(-100)
    assert asymmetry_percent("csf", VOLUMES) is None and asymmetry_percent("left x", {"left x": 1.0}) is None
    assert (ACCEPT_SCORE, GOOD_SCORE) == (report.ACCEPT_SCORE, report.GOOD_SCORE)


def test_scores_have_words(host, tmp_path):
    from mri_deep_tools.commands.segment_tables import scores_row, write_csv
    from MRIDeepToolsLib.nodes import import_scores_table

    write_csv(tmp_path / "q.csv", [scores_row("scan", {"general csf": 0.9, "thalamus": 0.7, "cerebellum": 0.2})])
    node = import_scores_table(tmp_path / "q.csv", "scores")
    rows = [[node.GetCellText(row, column) for column in (0, 2)] for row in range(3)]
    assert rows[0] == ["General CSF", "Good"]
    assert rows[1][1].startswith("Look") and rows[2][1].startswith("Poor")


def test_plain_table(host, tmp_path):
    from MRIDeepToolsLib.nodes import import_table

    path = tmp_path / "any.csv"
    path.write_text("name,age (years),mass,empty\nA,1.5,2,\n\u00c9,,3,\n", encoding="utf-8")
    node = import_table(path, "any", units={"mass": "kg"})
    content = node.GetTable()
    kinds = [content.GetColumn(number).GetClassName() for number in range(4)]
    assert kinds == ["vtkStringArray", "vtkDoubleArray", "vtkDoubleArray", "vtkStringArray"]
    assert node.GetColumnUnitLabel("age") == "years" and node.GetColumnUnitLabel("mass") == "kg"
    assert node.GetCellText(1, 0) == "\u00c9"


# --------------------------------------------------------------------------------------------------------- sequences


def add_sequence(arrays, affine, browser=True):
    import slicer

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "movie")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    for number, array in enumerate(arrays):
        volume = add_volume(array, affine, f"frame {number}")
        sequence.SetDataNodeAtValue(volume, str(number * 2.5))
        slicer.mrmlScene.RemoveNode(volume)
    if not browser:
        return sequence, None, None
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    node.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(node)
    return sequence, node, node.GetProxyNode(sequence)


@pytest.mark.parametrize("how", ["sequence", "browser", "proxy"])
def test_sequence_there_and_back(host, tmp_path, how):
    import slicer
    from MRIDeepToolsLib.nodes import export_sequence, import_segmentation_sequence

    affine = affine_of(np.diag([-1.0, 1, 1]), (1, 1, 2), (5, 6, 7))
    arrays = [np.full((5, 4, 3), value, np.int16) for value in (2, 41, 10)]
    sequence, browser, proxy = add_sequence(arrays, affine, how != "sequence")
    node = {"sequence": sequence, "browser": browser, "proxy": proxy}[how]
    frames = export_sequence(node, tmp_path)
    assert [frame.stem for frame in frames] == ["frame_0000", "frame_0001", "frame_0002"]
    assert [frame.index for frame in frames] == ["0.0", "2.5", "5.0"]
    for frame, array in zip(frames, arrays, strict=True):
        image = nib.load(frame.exported.path)
        np.testing.assert_array_equal(np.asarray(image.dataobj), array)
        write_labels(tmp_path, np.asarray(image.dataobj), image.affine, frame.stem)
    before = len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
    made, shown = import_segmentation_sequence(frames, tmp_path, node, "movie - brain")
    assert made.GetNumberOfDataNodes() == 3 and made.GetIndexName() == "time" and made.GetIndexUnit() == "s"
    names = [made.GetNthDataNode(number).GetSegmentation().GetNthSegment(0).GetLabelValue() for number in range(3)]
    assert names == [2, 41, 10]
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == before + (how != "sequence")
    if how == "sequence":
        assert shown is None
        return
    for number, value in ((2, 10), (0, 2)):
        browser.SetSelectedItemNumber(number)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        assert shown.GetSegmentation().GetNthSegment(0).GetLabelValue() == value


def test_fault_in_a_sequence_leaves_nothing(host, tmp_path):
    import slicer
    from MRIDeepToolsLib.nodes import NodeError, ResultError, export_sequence, import_segmentation_sequence

    affine = np.eye(4)
    sequence, _browser, proxy = add_sequence([np.zeros((4, 4, 4), np.int16)] * 2, affine)
    frames = export_sequence(proxy, tmp_path)
    write_labels(tmp_path, np.full((4, 4, 4), 2), affine, "frame_0000")
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(ResultError, match="frame_0001"):
        import_segmentation_sequence(frames, tmp_path, proxy, "brain")
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    with pytest.raises(NodeError, match="no sequence"):
        export_sequence(add_volume(np.zeros((4, 4, 4), np.float32), affine), tmp_path)
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    sequence.GetNthDataNode(1).SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(sheared))
    with pytest.raises(NodeError, match="Time point 2"):
        export_sequence(sequence, tmp_path)


@pytest.mark.parametrize("handedness", [1, -1])
def test_posteriors(host, tmp_path, handedness):
    import slicer
    from MRIDeepToolsLib.nodes import GeometryMismatchError, import_posteriors

    affine = affine_of(np.diag([handedness, 1.0, 1.0]), (1, 1, 2), (5, 6, 7))
    values = np.random.default_rng(0).random((5, 4, 3, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "p.nii.gz")
    volume = add_volume(values[..., 0], affine)
    node = import_posteriors(tmp_path / "p.nii.gz", volume, "soft", names=["left thalamus", "csf"])
    assert [node.GetNthIndexValue(number) for number in range(3)] == ["Background", "Left thalamus", "CSF"]
    for number in range(3):
        array = slicer.util.arrayFromVolume(node.GetNthDataNode(number))
        np.testing.assert_array_equal(array.transpose(2, 1, 0), values[..., number])
    other = add_volume(values[..., 0], affine @ np.diag([1, 1, 1.1, 1]))
    with pytest.raises(GeometryMismatchError):
        import_posteriors(tmp_path / "p.nii.gz", other, "soft")


# ------------------------------------------------------------------------------------------------ places, provenance


def test_results_stand_beside_the_input(host, scan, tmp_path):
    import slicer
    from MRIDeepToolsLib.nodes import new_folder, output_name, place_beside

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(scan), study)
    scan.SetAndObserveTransformNodeID(add_transform(np.eye(4)).GetID())
    first = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", output_name(scan, "brain"))
    place_beside(first, scan)
    assert first.GetName() == "scan - brain"
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(first)) == study
    assert first.GetParentTransformNode() is scan.GetParentTransformNode()
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", output_name(scan, "brain"))
    assert second.GetName() != "scan - brain" and second.GetName().startswith("scan - brain")
    folder = new_folder("results", scan)
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "table")
    place_beside(table, scan, folder)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(table)) == folder
    assert hierarchy.GetItemParent(folder) == study


def test_provenance(host, scan, tmp_path):
    from mri_deep_tools.provenance import make_record, model_use, write_sidecar
    from MRIDeepToolsLib.nodes import set_provenance

    secret = tmp_path / "Jane Doe.nii"
    secret.write_bytes(b"x")
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(b"weights")
    record = make_record(
        "segment", [secret], [model_use("own", weights)], options={"fast": True}, outputs=[secret], warnings=["dark"]
    )
    set_provenance(scan, write_sidecar(tmp_path / "out.json", record))
    assert scan.GetAttribute("MRIDeepTools.ResearchUseOnly") == "1"
    assert scan.GetAttribute("MRIDeepTools.Model") == "own" and scan.GetAttribute("MRIDeepTools.Command") == "segment"
    assert len(scan.GetAttribute("MRIDeepTools.WeightsSHA256")) == 64
    assert json.loads(scan.GetAttribute("MRIDeepTools.Options")) == {"fast": True}
    assert scan.GetAttribute("MRIDeepTools.Warnings") == "dark"
    everything = " ".join(str(scan.GetAttribute(name)) for name in scan.GetAttributeNames())
    assert "Jane" not in everything and str(tmp_path) not in everything


@pytest.mark.parametrize("content", [None, "", "[1]", "{not json", '{"GeneratedBy": []}'])
def test_provenance_without_a_record(host, scan, tmp_path, content):
    from MRIDeepToolsLib.nodes import set_provenance

    path = tmp_path / "out.json"
    if content is not None:
        path.write_text(content)
    set_provenance(scan, path)
    assert scan.GetAttribute("MRIDeepTools.ResearchUseOnly") == "1"
    assert not scan.GetAttribute("MRIDeepTools.Model")
