"""Files and pictures: what the scene reads, writes, refuses and draws."""

from __future__ import annotations

import numpy as np
import pytest

ROTATION = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


def affine(spacing=(1.0, 1.5, 2.0), rotation=ROTATION, origin=(-10.0, 20.0, 5.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag(spacing)
    matrix[:3, 3] = origin
    return matrix


def write_nifti(path, data, matrix):
    import nibabel as nib

    nib.save(nib.Nifti1Image(data, matrix), path)
    return str(path)


def world(node):
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def test_nifti_in_and_out(host, tmp_path):
    import nibabel as nib
    import slicer

    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    node = slicer.util.loadVolume(write_nifti(tmp_path / "t1.nii.gz", data, affine()))
    assert node.GetName() == "t1"
    np.testing.assert_allclose(world(node), affine(), atol=1e-6)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), data.T)
    for name, write in (("saved.nii.gz", slicer.util.saveNode), ("exported.nii", slicer.util.exportNode)):
        assert write(node, str(tmp_path / name), {})
        back = nib.load(tmp_path / name)
        np.testing.assert_allclose(back.affine, affine(), atol=1e-6)
        np.testing.assert_array_equal(back.get_fdata(), data)


def test_export_in_world_coordinates(host, tmp_path):
    import nibabel as nib
    import slicer

    node = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.float32))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(vtk_matrix(affine((1, 1, 1))))
    node.SetAndObserveTransformNodeID(transform.GetID())
    for is_world, expected in ((True, affine((1, 1, 1))), (False, np.eye(4))):
        path = tmp_path / f"{is_world}.nii"
        assert slicer.util.exportNode(node, str(path), {}, world=is_world)
        np.testing.assert_allclose(nib.load(path).affine, expected, atol=1e-6)
    assert node.GetStorageNode() is None, "exporting leaves the node as it was"
    np.testing.assert_array_equal(world(node), np.eye(4))


def vtk_matrix(array):
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    slicer.util.updateVTKMatrixFromArray(matrix, array)
    return matrix


def test_sheared_nifti_is_refused(host, tmp_path):
    import slicer

    matrix = affine(rotation=np.eye(3))
    matrix[0, 1] = 0.4
    path = write_nifti(tmp_path / "sheared.nii", np.zeros((4, 4, 4), np.float32), matrix)
    with host.findings.expected("VTK error"), pytest.raises(RuntimeError, match="Failed to load"):
        slicer.util.loadVolume(path)


@pytest.mark.parametrize("kind", [np.int64, bool, np.float16])
def test_types_that_volumes_cannot_hold(host, kind):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    with pytest.raises(Exception):  # noqa: B017 - Slicer raises what it happens to raise
        slicer.util.updateVolumeFromArray(node, np.zeros((2, 2, 2), kind))


def test_missing_and_unknown_files(host, tmp_path):
    import slicer

    with pytest.raises(RuntimeError, match="does not exist"):
        slicer.util.loadVolume(str(tmp_path / "nothing.nii"))
    odd = tmp_path / "odd.xyz"
    odd.write_text("x")
    with pytest.raises(RuntimeError, match="No reader"):
        slicer.util.loadNodeFromFile(str(odd), None, {})


def test_labels_with_a_colour_table(host, tmp_path):
    import slicer

    labels = np.zeros((4, 4, 4), np.int16)
    labels[0], labels[3] = 17, 53
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode")
    table.SetTypeToUser()
    table.SetNumberOfColors(54)
    table.SetColor(17, "left hippocampus", 0.9, 0.8, 0.1, 1.0)
    table.SetColor(53, "right hippocampus", 0.9, 0.8, 0.1, 1.0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetLabelmapConversionColorTableNodeID(table.GetID())
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(write_nifti(tmp_path / "labels.nii", labels, affine()))
    assert node.GetStorageNode().ReadData(node)
    segments = [node.GetSegmentation().GetNthSegment(i) for i in range(2)]
    found = [(segment.GetName(), segment.GetLabelValue()) for segment in segments]
    assert found == [("left hippocampus", 17), ("right hippocampus", 53)]


def test_terminology_entries_are_understood(host):
    import slicer

    context = "Segmentation category and type - DICOM master list"
    what = "SCT^123037004^Anatomical Structure~SCT^12738006^Brain~SCT^7771000^Left"
    text = f"{context}~{what}~Anatomic codes - DICOM master list~^^~^^"
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.modules.terminologies.logic()
    assert logic.DeserializeTerminologyEntry(text, entry)
    assert entry.GetTypeObject().GetCodeMeaning() == "Brain"
    assert entry.GetTypeModifierObject().GetCodeMeaning() == "Left"
    assert logic.IsTerminologyContextLoaded(context)


def test_sequence_of_a_4d_nifti(host, tmp_path):
    import slicer

    data = np.stack([np.full((3, 3, 3), value, np.float32) for value in (1, 2)], axis=-1)
    sequence = slicer.util.loadSequence(write_nifti(tmp_path / "fmri.nii.gz", data, affine()))
    assert sequence.GetNumberOfDataNodes() == 2
    browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForSequenceNode(sequence)
    proxy = browser.GetProxyNode(sequence)
    assert slicer.util.arrayFromVolume(proxy).max() == 1
    np.testing.assert_allclose(world(proxy), affine(), atol=1e-6)


def test_table_as_csv(host, tmp_path):
    import slicer

    path = tmp_path / "volumes.csv"
    path.write_text("structure,mm3\nbrain,1500.5\n")
    table = slicer.util.loadTable(str(path))
    assert [table.GetCellText(0, column) for column in range(2)] == ["brain", "1500.5"]


# --- pictures ---


def ball():
    """Return a bright cube on grey, and a segmentation of its right half (larger x) in pure red."""
    import slicer

    data = np.full((40, 40, 40), 80, np.float32)
    data[10:30, 10:30, 10:30] = 160
    node = slicer.util.addVolumeFromArray(data)
    node.GetDisplayNode().SetAutoWindowLevel(0)
    node.GetDisplayNode().SetWindowLevelMinMax(0, 255)
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    half = np.zeros(data.shape, np.uint8)
    half[10:30, 10:30, 20:30] = 1
    slicer.util.updateVolumeFromArray(labels, half)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
    segmentation.GetSegmentation().GetNthSegment(0).SetColor(1, 0, 0)
    slicer.mrmlScene.RemoveNode(labels)
    return node, segmentation


def pixels(path):
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_slice_with_segmentation(host, tmp_path):
    node, segmentation = ball()
    nodes = host.scene.GetNumberOfNodes()
    image = pixels(host.slice_view(tmp_path / "a.png", background=node, segmentation=segmentation, size=(400, 300)))
    assert image.shape == (300, 400, 3)
    # The person's right, which is the half with larger x, is on the left of an axial picture.
    np.testing.assert_allclose(image[150, 170], (160 / 2 + 255 / 2, 80, 80), atol=6)
    np.testing.assert_allclose(image[150, 230], (160, 160, 160), atol=2)
    assert host.scene.GetNumberOfNodes() == nodes, "nothing is left in the scene"


def test_slice_orientation_and_offset(host, tmp_path):
    node, segmentation = ball()
    segmentation.GetDisplayNode().SetVisibility(False)
    for orientation in ("Axial", "Sagittal", "Coronal"):
        path = tmp_path / f"{orientation}.png"
        inside = pixels(host.slice_view(path, background=node, orientation=orientation, offset=15.0, size=(200, 200)))
        outside = pixels(host.slice_view(path, background=node, orientation=orientation, offset=5.0, size=(200, 200)))
        assert abs(inside[100, 100, 0] - 160) < 3
        assert abs(outside[100, 100, 0] - 80) < 3


def test_machine_that_cannot_draw(host, tmp_path, monkeypatch):
    from slicer_host import render

    monkeypatch.setattr(render, "_PROBE", "raise SystemExit(1)")
    render.require_rendering.cache_clear()
    with pytest.raises(render.RenderingUnavailableError, match="apt-get install libegl1"):
        host.slice_view(tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_surface(host, tmp_path):
    _, segmentation = ball()
    image = pixels(host.view_3d(tmp_path / "3d.png", segmentation, size=(200, 200)))
    red = (image[..., 0] > image[..., 1] + 60) & (image[..., 0] > image[..., 2] + 60)
    assert 0.05 < red.mean() < 0.9
    assert red[100, 100]
    assert not red[:5].any(), "the whole surface is in the picture"


def test_picture_of_a_panel(host, tmp_path):
    import qt

    panel = qt.QWidget()
    panel.setLayout(qt.QVBoxLayout())
    panel.layout().addWidget(qt.QLabel("Volume of the left hippocampus"))
    image = pixels(host.grab(panel, tmp_path / "deep" / "panel.png", (300, 60)))
    assert image.shape == (60, 300, 3)
    assert image.min() < 100 < 200 < image.max(), "there is text on it"
