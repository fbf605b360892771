"""Diffusion volumes between scene and files: gradients stay right in world space wherever the scan lies."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
from glue_helpers import add_transform, add_volume, affine_of, orientations, rotation

COUNT = 8
SHAPE = (6, 5, 4)  # i, j, k
TURNS = {"straight": (0.0, 0.0, 0.0), "oblique": (12.0, -25.0, 40.0)}


def directions(count: int = COUNT, seed: int = 4) -> np.ndarray:
    """Return unit vectors, the first being zero."""
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0
    return vectors


def b_values(count: int = COUNT) -> np.ndarray:
    return np.array([5.0] + [1000.0] * (count - 2) + [2000.0])


def add_dwi(world=None, affine=None, frame=None, count: int = COUNT, seed: int = 1, kind=np.int16):
    """Add a DWI node whose gradients have these world directions, whatever its measurement frame is."""
    import slicer

    world = directions(count) if world is None else world
    affine = np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine
    values = np.random.default_rng(seed).integers(0, 1000, (*SHAPE, count)).astype(kind)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLDiffusionWeightedVolumeNode", "dwi")
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(values.transpose(2, 1, 0, 3)))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))
    node.SetNumberOfGradients(count)
    frame = np.eye(3) if frame is None else frame
    whole = np.eye(4)
    whole[:3, :3] = frame
    node.SetMeasurementFrameMatrix(slicer.util.vtkMatrixFromArray(whole))
    for index, vector in enumerate(world):
        node.SetBValue(index, b_values(count)[index])
        node.SetDiffusionGradient(index, list(frame.T @ vector))
    return node, values


def every_position() -> list[np.ndarray]:
    return [
        affine_of(rotation(turn) @ matrix, (1.5, 2.0, 2.5), (-20, 30, 7))
        for _code, matrix in orientations()
        for turn in TURNS.values()
    ]


def ijk(node) -> np.ndarray:
    import slicer

    return slicer.util.arrayFromVolume(node).transpose(2, 1, 0, 3)


def matrix_of(node) -> np.ndarray:
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def write_pair(folder, affine, bvecs, bvals=None, values=None, name="scan.nii"):
    """Write NIfTI with nibabel, and FSL's text files."""
    values = np.zeros((*SHAPE, len(bvecs)), np.int16) if values is None else values
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / name)
    np.savetxt(folder / "scan.bval", [b_values(len(bvecs)) if bvals is None else bvals])
    np.savetxt(folder / "scan.bvec", np.asarray(bvecs).T)
    return folder / name


# ------------------------------------------------------------------------------------------------------- file pairs


def test_directions_along_voxel_axes_follow_these_axes(host, tmp_path):
    """FSL: along the voxel axes of the image, the first reversed where they are right-handed."""
    from MRIDeepToolsLib.diffusion import gradients_of, import_dwi_files

    bvecs = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    for affine in every_position():
        image = write_pair(tmp_path, affine, bvecs, [0, 1000, 1000, 1000])
        node = import_dwi_files(image)
        axes = affine[:3, :3] / [1.5, 2.0, 2.5]
        first = axes[:, 0] * (-1 if np.linalg.det(axes) > 0 else 1)
        bvals, world = gradients_of(node)
        np.testing.assert_allclose(world, [[0, 0, 0], first, axes[:, 1], axes[:, 2]], atol=1e-6)
        np.testing.assert_array_equal(bvals, [0, 1000, 1000, 1000])
        np.testing.assert_allclose(matrix_of(node), affine, atol=1e-5)


def test_pairs_written_by_the_core_come_in_with_their_world_directions(host, tmp_path):
    from mri_deep_tools.dmriupsample.gradients import GradientTable
    from MRIDeepToolsLib.diffusion import gradients_of, import_dwi_files

    table = GradientTable(b_values(), directions())
    for number, affine in enumerate(every_position()[::5]):
        values = np.random.default_rng(number).integers(0, 99, (*SHAPE, COUNT)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "scan.nii.gz")
        table.write_fsl(tmp_path / "scan.bval", tmp_path / "scan.bvec", affine)
        node = import_dwi_files(tmp_path / "scan.nii.gz")
        bvals, world = gradients_of(node)
        np.testing.assert_allclose(world, directions(), atol=1e-6)
        np.testing.assert_allclose(bvals, b_values())
        np.testing.assert_array_equal(ijk(node), values)
        assert node.GetName().startswith("scan")
        assert node.GetDisplayNode().IsA("vtkMRMLDiffusionWeightedVolumeDisplayNode")


def test_pairs_that_we_write_are_fsls(host, tmp_path):
    """Out by the glue, in by the core and by nibabel: same world directions, same values at the same places."""
    from mri_deep_tools.dmriupsample.scan import read_scan
    from mri_deep_tools.progress import Progress
    from MRIDeepToolsLib.diffusion import export_fsl

    for affine in every_position()[::3]:
        node, values = add_dwi(affine=affine, frame=rotation((7, 8, 9)))
        image, bvals, bvecs = export_fsl(node, tmp_path / "out.nii.gz")
        assert [path.name for path in (bvals, bvecs)] == ["out.bval", "out.bvec"]
        scan = read_scan(image, progress=Progress(None))
        np.testing.assert_allclose(scan.table.world, directions(), atol=1e-6)
        np.testing.assert_allclose(scan.table.bvals, b_values())
        loaded = nibabel.load(image)
        np.testing.assert_array_equal(np.asarray(loaded.dataobj), values)
        np.testing.assert_allclose(loaded.get_sform(), affine, atol=1e-5)
        np.testing.assert_allclose(loaded.get_qform(), affine, atol=1e-4)
        assert loaded.header.get_xyzt_units()[0] == "mm"


def test_tables_in_columns_and_other_names(host, tmp_path):
    from MRIDeepToolsLib.diffusion import gradients_of, import_dwi_files

    image = write_pair(tmp_path, np.diag([-2.0, 2, 2, 1]), directions())
    np.savetxt(tmp_path / "odd names.txt", directions())
    np.savetxt(tmp_path / "b.txt", b_values()[:, None])
    node = import_dwi_files(image, tmp_path / "b.txt", tmp_path / "odd names.txt", "Mine")
    np.testing.assert_allclose(gradients_of(node)[1], directions() * [-1, 1, 1], atol=1e-6)  # left-handed axes
    assert node.GetName() == "Mine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "scan.bval").unlink(), "scan.bval is missing"),
        (lambda f: (f / "scan.bval").write_text("0 1000"), "2 entries for 8 volumes"),
        (lambda f: np.savetxt(f / "scan.bvec", directions(5).T), "5 entries for 8 volumes"),
        (lambda f: (f / "scan.bval").write_text("0 x"), "not a number"),
        (lambda f: (f / "scan.bval").write_text("0 -1 " + "1000 " * 6), "negative"),
        (lambda f: (f / "scan.bval").write_text("1 2\n3 4\n"), "no list of b-values"),
        (lambda f: np.savetxt(f / "scan.bvec", np.ones((2, 8))), "three rows or three columns"),
        (lambda f: np.savetxt(f / "scan.bvec", directions().T * 0.5), "unit length"),
        (lambda f: np.savetxt(f / "scan.bvec", directions().T * np.nan), "volume 1 is diffusion-weighted"),
        (lambda f: np.savetxt(f / "scan.bvec", np.zeros((3, 8))), "volume 1 is diffusion-weighted"),
        (lambda f: (f / "scan.bvec").write_bytes(b"\xff\xfe\x00\x01"), "cannot be read as a text file"),
        (lambda f: (f / "scan.bvec").write_text(""), "empty"),
        (lambda f: (f / "scan.nii").write_bytes((f / "scan.nii").read_bytes()[:-9]), "cut short"),
        (lambda f: (f / "scan.nii").write_bytes(b"no image" * 80), "not a NIfTI file"),
        (lambda f: (f / "scan.nii").unlink(), "Choose an image file"),
        (lambda f: write_pair(f, np.eye(4), [[0, 0, 0]], values=np.zeros(SHAPE, np.int16)), "single volume"),
        (lambda f: write_pair(f, np.eye(4) + np.eye(4, k=1) * 0.3, directions()), "right angles"),
        (
            lambda f: write_pair(f, np.eye(4), directions(), values=np.zeros((*SHAPE, COUNT), np.complex64)),
            "complex",
        ),
    ],
)
def test_files_that_cannot_be_used_are_told_and_nothing_stays(host, tmp_path, change, words):
    import slicer
    from MRIDeepToolsLib.diffusion import import_dwi_files
    from MRIDeepToolsLib.errors import GlueError

    image = write_pair(tmp_path, np.eye(4), directions())
    change(tmp_path)
    with pytest.raises(GlueError, match=words) as caught:
        import_dwi_files(image)
    assert str(tmp_path) not in str(caught.value)
    assert slicer.util.getNodesByClass("vtkMRMLDiffusionWeightedVolumeNode") == []


@pytest.mark.parametrize("kind", ["<i2", ">i2", "<f4", ">f8", "<u2", "<i8"])
@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_all_kinds_of_values(host, tmp_path, kind, version):
    from MRIDeepToolsLib.diffusion_files import read_nifti_series

    values = np.random.default_rng(2).integers(0, 30000, (*SHAPE, 3)).astype(kind)
    header = version.header_class()
    header = type(header)(endianness=kind[0])
    header.set_data_dtype(kind)
    image = version(values, np.diag([1.0, 2, 3, 1]), header)
    nibabel.save(image, tmp_path / "x.nii")
    found, grid = read_nifti_series(tmp_path / "x.nii")
    np.testing.assert_array_equal(found.transpose(2, 1, 0, 3), values)
    assert grid.shape == SHAPE
    assert found.dtype.isnative


def test_scaled_values_and_vector_images(host, tmp_path):
    """A scale factor is applied; five axes with a single time point are a series all the same."""
    from MRIDeepToolsLib.diffusion_files import read_nifti_series

    values = np.random.default_rng(2).uniform(0, 7, (*SHAPE, 3)).astype(np.float32)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4), header), tmp_path / "x.nii")
    found, _grid = read_nifti_series(tmp_path / "x.nii")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.transpose(2, 1, 0, 3), values, atol=2e-4)
    nibabel.save(nibabel.Nifti1Image(values[:, :, :, None], np.eye(4)), tmp_path / "y.nii.gz")
    found, _grid = read_nifti_series(tmp_path / "y.nii.gz")
    np.testing.assert_array_equal(found.transpose(2, 1, 0, 3), values)


# ------------------------------------------------------------------------------------------------------------- NRRD


def test_the_core_reads_what_is_exported_exactly(host, tmp_path):
    """Any orientation, left-handed and oblique, with a measurement frame of its own: same matrix, same directions."""
    from mri_deep_tools.dmriupsample.scan import read_scan
    from mri_deep_tools.progress import Progress
    from MRIDeepToolsLib.diffusion import export_dwi

    for affine in every_position()[::2]:
        node, values = add_dwi(affine=affine, frame=rotation((30, -20, 10)), kind=np.float32)
        export_dwi(node, tmp_path / "scan.nrrd")
        scan = read_scan(tmp_path / "scan.nrrd", progress=Progress(None))
        np.testing.assert_allclose(scan.image.affine, affine, atol=1e-10)
        np.testing.assert_allclose(scan.table.world, directions() * (b_values() > 50)[:, None], atol=1e-7)
        np.testing.assert_allclose(scan.table.bvals[1:], b_values()[1:], atol=1e-4)
        assert scan.table.bvals[0] == 0  # NRRD says it by the length of a direction, and there is none
        np.testing.assert_array_equal(scan.image.data, values)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 9])
def test_any_number_of_volumes_reaches_the_core(host, tmp_path, count):
    from mri_deep_tools.dmriupsample.scan import read_scan
    from mri_deep_tools.progress import Progress
    from MRIDeepToolsLib.diffusion import export_dwi

    node, values = add_dwi(count=count)
    export_dwi(node, tmp_path / "scan.nrrd")
    scan = read_scan(tmp_path / "scan.nrrd", progress=Progress(None))
    assert len(scan.table) == count
    np.testing.assert_array_equal(scan.image.data, values)


def test_stand_in_has_gradients_and_axes_of_the_scan(host, tmp_path):
    from mri_deep_tools.dmriupsample.scan import read_scan
    from mri_deep_tools.progress import Progress
    from MRIDeepToolsLib.diffusion import export_stand_in

    affine = every_position()[41]
    node, _values = add_dwi(affine=affine)
    export_stand_in(node, tmp_path / "scan.nrrd")
    scan = read_scan(tmp_path / "scan.nrrd", progress=Progress(None))
    assert scan.image.data.shape == (2, 2, 2, COUNT)
    np.testing.assert_allclose(scan.image.affine, affine, atol=1e-10)
    np.testing.assert_allclose(scan.table.world[1:], directions()[1:], atol=1e-7)


@pytest.mark.parametrize("count", range(2, 11))
def test_what_slicer_saves_comes_back_from_seven_volumes_on(host, tmp_path, count):
    """The number that the modules go by is a fact of Slicer's storage node."""
    import slicer
    from MRIDeepToolsLib.diffusion import SMALLEST_SAVED, gradients_of, import_dwi_files
    from MRIDeepToolsLib.errors import NodeError

    node, values = add_dwi(count=count, affine=every_position()[33])
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(tmp_path / "saved.nrrd"))
    assert storage.WriteData(node)
    if count < SMALLEST_SAVED:
        with pytest.raises(NodeError, match="holds no diffusion scan"):
            import_dwi_files(tmp_path / "saved.nrrd")
        return
    back = import_dwi_files(tmp_path / "saved.nrrd")
    np.testing.assert_allclose(gradients_of(back)[1], directions(count), atol=1e-5)
    np.testing.assert_array_equal(ijk(back), values)


def test_nrrd_of_the_core_and_of_slicer_come_in_right(host, tmp_path):
    from mri_deep_tools.dmriupsample.gradients import GradientTable
    from mri_deep_tools.dmriupsample.output import write_image
    from mri_deep_tools.volume import Volume
    from MRIDeepToolsLib.diffusion import gradients_of, import_dwi_files

    table = GradientTable(b_values(), directions())
    for affine in every_position()[::7]:
        values = np.random.default_rng(5).uniform(0, 9, (*SHAPE, COUNT)).astype(np.float32)
        write_image(tmp_path / "core.nrrd", Volume(values, affine), table)
        node = import_dwi_files(tmp_path / "core.nrrd")
        bvals, world = gradients_of(node)
        np.testing.assert_allclose(world, directions(), atol=1e-5)
        np.testing.assert_allclose(bvals[1:], b_values()[1:], atol=0.01)
        np.testing.assert_allclose(matrix_of(node), affine, atol=1e-4)
        np.testing.assert_array_equal(ijk(node), values)


def test_other_files_are_refused(host, tmp_path):
    from MRIDeepToolsLib.diffusion import export_fsl, import_dwi_files
    from MRIDeepToolsLib.errors import NodeError

    (tmp_path / "scan.dcm").write_bytes(b"DICM")
    with pytest.raises(NodeError, match="neither NIfTI nor NRRD"):
        import_dwi_files(tmp_path / "scan.dcm")
    with pytest.raises(NodeError, match=r"\.nii"):
        export_fsl(add_dwi()[0], tmp_path / "x.nrrd")


def test_volumes_that_cannot_be_used_are_told(host):
    import slicer
    from MRIDeepToolsLib.diffusion import check_dwi
    from MRIDeepToolsLib.errors import GlueError

    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLDiffusionWeightedVolumeNode")
    scalar = add_volume(np.zeros((3, 3, 3), np.int16), np.eye(4))
    short, _values = add_dwi()
    short.SetNumberOfGradients(5)
    bent, _values = add_dwi()
    grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    bent.SetAndObserveTransformNodeID(grid.GetID())
    cases = {"Choose": None, "empty": empty, "diffusion-weighted": scalar, "8 volumes and 5 gradients": short}
    for words, node in {**cases, "non-linear": bent}.items():
        with pytest.raises(GlueError, match=words):
            check_dwi(node)


# ---------------------------------------------------------------------------------------------------------- results


def test_results_come_in_on_the_grid_of_the_input(host, tmp_path):
    import slicer
    from MRIDeepToolsLib.diffusion import gradients_of, import_dwi
    from MRIDeepToolsLib.errors import GlueError

    affine = every_position()[77]
    node, values = add_dwi(affine=affine)
    transform = add_transform(affine_of(rotation((5, 5, 5)), origin=(1, 2, 3)))
    node.SetAndObserveTransformNodeID(transform.GetID())
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), tmp_path / "out.nii")
    np.savetxt(tmp_path / "out.b", np.column_stack([directions(), b_values()]))
    made = import_dwi(tmp_path / "out.nii", tmp_path / "out.b", node, "result")
    np.testing.assert_array_equal(ijk(made), values)
    np.testing.assert_array_equal(matrix_of(made), matrix_of(node))
    np.testing.assert_allclose(gradients_of(made)[1], directions(), atol=1e-8)
    assert made.GetTransformNodeID() == transform.GetID()
    some = import_dwi(tmp_path / "out.nii", tmp_path / "out.b", node, "some", keep=[0, 3, 7])
    np.testing.assert_array_equal(ijk(some), values[..., [0, 3, 7]])
    np.testing.assert_allclose(gradients_of(some)[0], [5, 1000, 2000])
    assert import_dwi(tmp_path / "out.nii", tmp_path / "out.b", node, "", some) == some
    assert some.GetNumberOfGradients() == COUNT
    other, _values = add_dwi(affine=affine @ np.diag([1, 1, 1.1, 1]))
    count = slicer.mrmlScene.GetNumberOfNodes()
    for reference, rows in ((other, COUNT), (node, 5)):
        np.savetxt(tmp_path / "out.b", np.column_stack([directions(rows), b_values(rows)]))
        with pytest.raises(GlueError):
            import_dwi(tmp_path / "out.nii", tmp_path / "out.b", reference, "result")
    assert slicer.mrmlScene.GetNumberOfNodes() == count


# ------------------------------------------------------------------------------------------------------------- masks


def read_mask_of(path, node) -> np.ndarray:
    from mri_deep_tools.volume import read_volume

    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine, matrix_of(node), atol=1e-10)
    return volume.data > 0


def test_mask_on_the_same_grid_is_taken_as_it_is(host, tmp_path):
    from MRIDeepToolsLib.diffusion import export_mask

    affine = every_position()[29]
    node, _values = add_dwi(affine=affine)
    inside = np.random.default_rng(3).random(SHAPE) > 0.5
    labels = add_volume(inside.astype(np.uint8) * 7, affine, "mask", "vtkMRMLLabelMapVolumeNode")
    assert export_mask(labels, node, tmp_path / "mask.nrrd") == inside.sum()
    np.testing.assert_array_equal(read_mask_of(tmp_path / "mask.nrrd", node), inside)


def test_mask_of_another_grid_and_transform_is_taken_in_world_space(host, tmp_path):
    """A ball, once in the scan's neighbourhood on a fine grid of its own, moved there by a transform."""
    from MRIDeepToolsLib.diffusion import export_mask

    affine = affine_of(rotation((10, 20, 30)), (2, 2, 2), (-5, -4, -3))
    node, _values = add_dwi(affine=affine)
    moved = np.eye(4)
    moved[:3, 3] = (100, 0, -50)
    node.SetAndObserveTransformNodeID(add_transform(moved).GetID())
    fine = affine_of(np.eye(3), (0.5, 0.5, 0.5), (90, -15, -60))
    points = np.stack([*np.indices((60, 60, 60)), np.ones((60, 60, 60))])
    middle = (moved @ affine @ [2.5, 2, 1.5, 1])[:3]

    def ball(matrix, places):
        world = np.einsum("ab,b...->a...", matrix, places)[:3]
        return np.linalg.norm(world - middle[:, None, None, None], axis=0)

    labels = add_volume((ball(fine, points) < 4).astype(np.uint8), fine, "ball", "vtkMRMLLabelMapVolumeNode")
    export_mask(labels, node, tmp_path / "mask.nrrd")
    found = read_mask_of(tmp_path / "mask.nrrd", node)
    away = ball(moved @ affine, np.stack([*np.indices(SHAPE), np.ones(SHAPE)]))
    assert found[away < 3.5].all()
    assert not found[away > 4.5].any()
    assert found.any()


def test_segmentation_is_a_mask_too(host, tmp_path):
    import slicer
    from MRIDeepToolsLib.diffusion import export_mask
    from MRIDeepToolsLib.errors import NodeError

    affine = every_position()[13]
    node, _values = add_dwi(affine=affine)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 1:3, 1:3], labels[4, 4, 3] = 1, 2
    volume = add_volume(labels, affine, "labels", "vtkMRMLLabelMapVolumeNode")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "brain")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(volume, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2
    export_mask(segmentation, node, tmp_path / "mask.nrrd")
    np.testing.assert_array_equal(read_mask_of(tmp_path / "mask.nrrd", node), labels > 0)
    for empty in (
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode"),
        add_volume(
            np.ones(SHAPE, np.uint8), affine_of(np.eye(3), origin=(900, 0, 0)), "far", "vtkMRMLLabelMapVolumeNode"
        ),
    ):
        with pytest.raises(NodeError, match="nothing inside"):
            export_mask(empty, node, tmp_path / "none.nrrd")
    assert not (tmp_path / "none.nrrd").exists()


def test_limits_are_those_of_the_core(host, tmp_path):
    from mri_deep_tools.dmriupsample import gradients
    from MRIDeepToolsLib import diffusion_files

    assert diffusion_files.B0_LIMIT == gradients.B0_LIMIT
    with gzip.open(tmp_path / "x.nii.gz", "wb") as stream:
        stream.write(b"\0" * 600)
    assert diffusion_files.is_nifti("A.NII.GZ")
    with pytest.raises(diffusion_files.ResultError):
        diffusion_files.read_nifti_series(tmp_path / "x.nii.gz")
