"""Geometry: what leaves and what comes back lies where the anatomy is, in world coordinates, whatever the grid."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from glue_helpers import add_transform, add_volume, affine_of, orientations, rotation, write_labels

SHAPE = (22, 24, 16)
SPACING = (1.1, 0.9, 2.0)
SPOTS = {10: (-4.0, 3.0, 1.0), 49: (4.0, 3.0, 1.0), 16: (0.0, -3.5, -5.0)}
"""Label value -> position of its structure in RAS, mm: left thalamus, right thalamus, brain stem."""


def centred_affine(directions, spacing=SPACING, shape=SHAPE):
    affine = affine_of(directions, spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def phantom(affine, shape=SHAPE):
    """Return an image whose value is the label of a structure within 2.5 mm, computed in world coordinates."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    image = np.zeros(shape, np.int16)
    for value, spot in SPOTS.items():
        image[np.linalg.norm(world - np.array(spot), axis=-1) < 2.5] = value
    return image


def threshold_core(source, folder):
    """Stand in for the network: read the exported file as the core does, take values as labels, write as it does."""
    from mri_deep_tools.volume import read_volume

    volume = read_volume(source)
    return write_labels(folder, np.rint(volume.data).astype(np.int32), volume.affine)


def world_centres(segmentation, shift=None):
    """Return label value -> centre of mass in world coordinates, from what Slicer itself says of each segment."""
    import slicer
    import vtk

    to_world = vtk.vtkMatrix4x4()
    if segmentation.GetParentTransformNode() is not None:
        segmentation.GetParentTransformNode().GetMatrixTransformToWorld(to_world)
    matrix = slicer.util.arrayFromVTKMatrix(to_world)
    centres = {}
    container = segmentation.GetSegmentation()
    for number in range(container.GetNumberOfSegments()):
        identity = container.GetNthSegmentID(number)
        centre = segmentation.GetSegmentCenterRAS(identity)  # middle of the bounds, world
        voxels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(segmentation, identity)
        image = segmentation.GetBinaryLabelmapInternalRepresentation(identity)
        value = container.GetSegment(identity).GetLabelValue()
        found = np.argwhere(voxels == value)[:, ::-1] + np.array(image.GetExtent()[::2])
        to_ras = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(to_ras)
        affine = matrix @ slicer.util.arrayFromVTKMatrix(to_ras)
        mean = (found @ affine[:3, :3].T + affine[:3, 3]).mean(axis=0)
        assert np.linalg.norm(mean - np.array(centre)) < 2.5, "Slicer's own centre is elsewhere"
        centres[value] = mean
    return centres


def run(volume, folder):
    """Export, label, import: the way of a scan without the network."""
    from MRIDeepToolsLib.nodes import export_volume, import_segmentation

    exported = export_volume(volume, folder / "scan.nii")
    labels, table = threshold_core(exported.path, folder)
    return import_segmentation(labels, table, volume, "scan - segmentation"), exported


@pytest.mark.parametrize(("code", "directions"), orientations(), ids=[code for code, _ in orientations()])
def test_48_orientations(host, tmp_path, code, directions):
    affine = centred_affine(directions)
    segmentation, exported = run(add_volume(phantom(affine), affine), tmp_path)
    assert "".join(nib.aff2axcodes(nib.load(exported.path).affine)) == code
    centres = world_centres(segmentation)
    assert set(centres) == set(SPOTS)
    for value, spot in SPOTS.items():
        np.testing.assert_allclose(centres[value], spot, atol=0.8)


@pytest.mark.parametrize("handedness", [1, -1])
@pytest.mark.parametrize("under_transform", [False, True])
def test_oblique_volume_under_a_transform(host, tmp_path, handedness, under_transform):
    """Oblique, anisotropic, far from the origin, of both handednesses, under two stacked transforms."""
    shape = (40, 36, 30)
    affine = centred_affine(rotation((20, -35, 50)) @ np.diag([handedness, 1, 1]), (0.8, 1.0, 1.3), shape)
    volume = add_volume(phantom(affine, shape), affine)
    world = np.eye(4)
    if under_transform:
        inner, outer = np.eye(4), np.eye(4)
        inner[:3, :3], inner[:3, 3] = rotation((5, 60, -20)), (100, -80, 40)
        outer[:3, :3], outer[:3, 3] = rotation((0, 0, 90)), (-7, 5, 3)
        inner_node, outer_node = add_transform(inner), add_transform(outer)
        inner_node.SetAndObserveTransformNodeID(outer_node.GetID())
        volume.SetAndObserveTransformNodeID(inner_node.GetID())
        world = outer @ inner
    segmentation, exported = run(volume, tmp_path)
    assert exported.transformed is under_transform and exported.scaled is False
    np.testing.assert_allclose(nib.load(exported.path).affine, affine, atol=1e-5)
    centres = world_centres(segmentation)
    for value, spot in SPOTS.items():
        np.testing.assert_allclose(centres[value], world[:3, :3] @ spot + world[:3, 3], atol=0.4)


def test_voxels_come_back_one_by_one(host, tmp_path):
    """Random labels on an oblique grid: every voxel is where it was."""
    import slicer

    affine = affine_of(rotation((10, 20, 30)) @ np.diag([-1, 1, 1]), (1, 2, 3), (50, -60, 70))
    labels = np.random.default_rng(0).choice([0, 2, 3, 41, 60], size=(9, 7, 5))
    volume = add_volume(np.zeros((9, 7, 5), np.float32), affine)
    path, table = write_labels(tmp_path, labels, affine)
    from MRIDeepToolsLib.nodes import import_segmentation

    segmentation = import_segmentation(path, table, volume, "labels")
    container = segmentation.GetSegmentation()
    assert container.GetNumberOfSegments() == 4 and container.GetNumberOfLayers() == 1
    for number in range(4):
        identity = container.GetNthSegmentID(number)
        value = container.GetSegment(identity).GetLabelValue()
        array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identity, volume)
        np.testing.assert_array_equal(array.transpose(2, 1, 0) != 0, labels == value)


@pytest.mark.parametrize("kind", ["int16", "uint8", "uint16", "int32", "float32", "float64"])
def test_values_leave_unchanged(host, tmp_path, kind):
    from MRIDeepToolsLib.nodes import export_volume

    affine = affine_of(np.diag([-1.0, -1.0, 1.0]), (1, 1, 2), (3, 4, 5))
    values = (np.random.default_rng(1).random((6, 5, 4)) * 200).astype(kind)
    node = add_volume(values, affine)
    storage_before, modified_before = node.GetStorageNode(), node.GetMTime()
    exported = export_volume(node, tmp_path / "scan \N{LATIN SMALL LETTER E WITH ACUTE}.nii")
    image = nib.load(exported.path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), values)
    assert exported.path.stat().st_size >= values.nbytes + 348, "not compressed"
    assert node.GetStorageNode() is storage_before and node.GetMTime() == modified_before
    assert exported.grid.shape == (6, 5, 4) and exported.grid.spacing == pytest.approx((1, 1, 2))


def test_import_of_a_volume(host, tmp_path):
    import slicer
    from MRIDeepToolsLib.nodes import export_volume, import_volume

    affine = affine_of(rotation((3, 4, 5)), (1, 1, 2), (3, 4, 5))
    values = np.random.default_rng(1).random((6, 5, 4)).astype(np.float32)
    node = add_volume(values, affine)
    shifted = np.eye(4)
    shifted[0, 3] = 12
    node.SetAndObserveTransformNodeID(add_transform(shifted).GetID())
    path = export_volume(node, tmp_path / "scan.nii").path
    back = import_volume(path, node, "scan - copy")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(back), slicer.util.arrayFromVolume(node))
    assert back.GetTransformNodeID() == node.GetTransformNodeID() and back.GetDisplayNode() is not None
    target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    assert import_volume(path, node, "ignored", target) is target and target.GetName() == "mine"


# ------------------------------------------------------------------------------------------------------------- refused


def test_sheared_grid_is_refused(host, tmp_path):
    from MRIDeepToolsLib.nodes import GeometryError, export_volume

    affine = np.eye(4)
    affine[0, 1] = 0.05
    with pytest.raises(GeometryError, match="right angles"):
        export_volume(add_volume(np.zeros((4, 4, 4), np.float32), affine), tmp_path / "scan.nii")
    assert list(tmp_path.iterdir()) == []


def test_bent_space_is_refused(host, tmp_path):
    import slicer
    import vtk
    from MRIDeepToolsLib.nodes import GeometryError, export_volume

    volume = add_volume(np.zeros((4, 4, 4), np.float32), np.eye(4))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    spline = vtk.vtkThinPlateSplineTransform()
    points, moved = vtk.vtkPoints(), vtk.vtkPoints()
    for point in ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9), (9, 9, 9)):
        points.InsertNextPoint(point)
        moved.InsertNextPoint(point[0] + 0.1 * point[1] * point[1], point[1], point[2])
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(moved)
    spline.SetBasisToR()
    node.SetAndObserveTransformToParent(spline)
    volume.SetAndObserveTransformNodeID(node.GetID())
    with pytest.raises(GeometryError, match="non-linear"):
        export_volume(volume, tmp_path / "scan.nii")


def test_scaling_transform_is_told(host, tmp_path):
    from MRIDeepToolsLib.nodes import export_volume

    volume = add_volume(np.zeros((4, 4, 4), np.float32), np.eye(4))
    volume.SetAndObserveTransformNodeID(add_transform(np.diag([1.1, 1.0, 1.0, 1.0])).GetID())
    assert export_volume(volume, tmp_path / "scan.nii").scaled


def test_unusable_inputs_are_refused(host, tmp_path):
    import slicer
    from MRIDeepToolsLib.nodes import NodeError, ResultError, export_volume

    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "model")
    vector = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "vector")
    slicer.util.updateVolumeFromArray(vector, np.zeros((4, 4, 4, 3), np.float32))
    nowhere = add_volume(np.zeros((4, 4, 4), np.float32), np.eye(4))
    nowhere.SetSpacing(1, 1, 0)
    for node, piece in (
        (None, "Select"),
        (empty, "no image"),
        (model, "scalar volume"),
        (vector, "several"),
        (nowhere, "spacing"),
    ):
        with pytest.raises(NodeError, match=piece):
            export_volume(node, tmp_path / "scan.nii")
    volume = add_volume(np.zeros((4, 4, 4), np.float32), np.eye(4))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultError, match="could not be written"):
        export_volume(volume, tmp_path / "file" / "scan.nii")
    host.findings.clear()  # VTK tells of the failed write too


@pytest.mark.parametrize("fault", ["shifted", "flipped", "size", "spacing"])
def test_mismatch_is_an_error_and_changes_nothing(host, tmp_path, fault):
    import slicer
    from MRIDeepToolsLib.nodes import GeometryMismatchError, import_labelmap, import_segmentation, import_volume

    affine = affine_of(np.eye(3), (1, 1, 1), (10, 20, 30))
    volume = add_volume(np.zeros((6, 6, 6), np.float32), affine)
    wrong, shape = affine.copy(), (6, 6, 6)
    if fault == "shifted":
        wrong[0, 3] += 0.01
    elif fault == "flipped":
        wrong = affine @ np.array([[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    elif fault == "size":
        shape = (6, 6, 7)
    else:
        wrong[1, 1] = 1.001
    path, table = write_labels(tmp_path, np.full(shape, 2), wrong)
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    mine.GetSegmentation().AddEmptySegment("own")
    before = slicer.mrmlScene.GetNumberOfNodes()
    for attempt in (
        lambda: import_segmentation(path, table, volume, "new"),
        lambda: import_segmentation(path, table, volume, "new", mine),
        lambda: import_labelmap(path, table, volume, "new"),
        lambda: import_volume(path, volume, "new"),
    ):
        with pytest.raises(GeometryMismatchError, match="not imported"):
            attempt()
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert mine.GetSegmentation().GetNumberOfSegments() == 1
    assert import_segmentation(path, table, volume, "new", same_grid=False) is not None


# --------------------------------------------------------------------------------------------------------- file headers


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("form", ["sform", "qform", "both", "none"])
def test_header_is_read_as_nibabel_does(host, tmp_path, suffix, kind, form):
    from MRIDeepToolsLib.nodes import file_geometry

    affine = affine_of(rotation((10, 20, 30)) @ np.diag([1, 1, -1]), (1, 2, 3), (5, -6, 7))
    image = kind(np.zeros((4, 5, 6), np.int16), affine)
    image.set_sform(affine, code=2 if form in ("sform", "both") else 0)
    image.set_qform(affine, code=1 if form in ("qform", "both") else 0)
    path = tmp_path / f"image{suffix}"
    nib.save(image, path)
    grid = file_geometry(path)
    expected = nib.load(path).affine if form != "none" else np.diag([1, 2, 3, 1])
    assert grid.shape == (4, 5, 6)
    np.testing.assert_allclose(grid.affine, expected, atol=1e-5)


def test_no_image_is_told(host, tmp_path):
    from MRIDeepToolsLib.nodes import ResultError, file_geometry

    (tmp_path / "a.nii").write_text("no image")
    (tmp_path / "b.nii.gz").write_text("no image")
    (tmp_path / "c.nii").write_bytes(b"\0" * 1000)
    for name in ("a.nii", "b.nii.gz", "c.nii", "missing.nii"):
        with pytest.raises(ResultError, match=name):
            file_geometry(tmp_path / name)
