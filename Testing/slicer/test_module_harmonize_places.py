"""Where the module Harmonize puts things: 48 orientations, oblique grids, transforms above the nodes, masks, MNI space.

Everything is compared in world coordinates. The core is the quick one, called in this process, on the real files.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from harmonize_case import numbers, orientations, rigid, to_world, transform_node, voxel_to_world
from module_helpers import add_volume

pytestmark = pytest.mark.slow  # the same code in SynthSegment is tested every time

pytest_plugins = ["harmonize_case"]

SPACING = np.array([3.0, 4.0, 5.0])
SHAPE = (20, 22, 26)  # k, j, i
SPOT = (5, 9, 16)  # k, j, i, of the brightest voxel
TILT = rigid((20, -15, 30), (35, -20, 10))


def scan_with_spot(orientation=None, tilt=None):
    """Add a volume with one brightest voxel; return it."""
    import slicer

    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if orientation is None else orientation) @ np.diag(SPACING)
    matrix[:3, 3] = (-31, 17, 8)
    volume = add_volume("T1w", SHAPE, (np.eye(4) if tilt is None else tilt) @ matrix)
    slicer.util.arrayFromVolume(volume)[SPOT] = 900
    slicer.util.arrayFromVolumeModified(volume)
    return volume


def brightest(volume) -> np.ndarray:
    """Return where in the world the brightest voxel of a volume is."""
    import slicer

    values = slicer.util.arrayFromVolume(volume)
    k, j, i = np.unravel_index(values.argmax(), values.shape)
    return (voxel_to_world(volume) @ [i, j, k, 1])[:3]


def run_here(run, work, folder):
    """Run everything but the process: export, the quick core in this process, import. Return outputs and the words."""
    from MRIDeepToolsLib.guard import SceneGuard
    from MRIDeepToolsLib.outcomes import JobOutcome

    folder.mkdir(exist_ok=True)
    run.guard, run.job = SceneGuard(**run.inputs, **run.targets), SimpleNamespace(folder=folder)
    words = [str(word) for word in run.arguments(folder)]
    work(words)
    try:
        return run.take_in(JobOutcome("done", results=[{"model": "fake"}])), words
    finally:
        run.guard.release()


def harmonized(module, scan, folder, **given):
    """Harmonize with the quick core in this process. Return outputs and the words of the command."""
    import fake_harmonize
    from HarmonizeLib.run import HarmonizeOptions, HarmonizeRun

    nodes = {name: given.pop(name) for name in ("brain", "placement") if name in given}
    run = HarmonizeRun(scan, HarmonizeOptions(mask=True, transform=True, **given), **nodes)
    return run_here(run, fake_harmonize.harmonize, folder)


def segment_centre(segmentation, scan) -> np.ndarray:
    """Return the centre of a mask in the world, by its voxels on the grid of the scan."""
    import slicer

    name = segmentation.GetSegmentation().GetNthSegmentID(0)
    k, j, i = np.nonzero(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name, scan))
    return (voxel_to_world(scan) @ [i.mean(), j.mean(), k.mean(), 1])[:3]


def check_places(outputs, scan) -> None:
    """Compare spot, grid and mask of the outputs with the scan, in the world."""
    import slicer

    for made in (outputs.result, outputs.change):
        np.testing.assert_allclose(voxel_to_world(made), voxel_to_world(scan), atol=1e-3)
    np.testing.assert_allclose(brightest(outputs.result), brightest(scan), atol=1e-3)
    k, j, i = np.nonzero(slicer.util.arrayFromVolume(scan) > 150)
    centre = (voxel_to_world(scan) @ [i.mean(), j.mean(), k.mean(), 1])[:3]
    np.testing.assert_allclose(segment_centre(outputs.mask, scan), centre, atol=1e-2)


@pytest.mark.parametrize("tilted", [False, True])
def test_results_lie_where_the_scan_is_in_all_48_orientations(host, module, tmp_path, tilted):
    """Oblique under two transforms, and some as they are; the file that the core gets shows the same place."""
    import nibabel
    import slicer

    for orientation in orientations() if tilted else orientations()[::7]:
        scan = scan_with_spot(orientation, TILT if tilted else None)
        if tilted:
            upper = transform_node(rigid((0, 40, 0), (5, 60, -3)))
            lower = transform_node(rigid((-10, 0, 25), (0, 0, 80)))
            lower.SetAndObserveTransformNodeID(upper.GetID())
            scan.SetAndObserveTransformNodeID(lower.GetID())
        outputs, _words = harmonized(module, scan, tmp_path / "job")
        check_places(outputs, scan)
        file = nibabel.load(tmp_path / "job" / "scan.nii")
        spot = np.unravel_index(np.asarray(file.dataobj).argmax(), file.shape)
        there = to_world(scan) @ file.affine @ [*spot, 1]
        np.testing.assert_allclose(there[:3], brightest(scan), atol=1e-3)
        slicer.mrmlScene.Clear(0)


def test_translations_lie_where_the_scan_is_in_all_48_orientations(host, module, tmp_path):
    """Oblique, every second one under a transform; values come back voxel by voxel."""
    import fake_harmonize
    import slicer
    from HarmonizeLib.translation import TranslateOptions, TranslateRun

    options = TranslateOptions("T2w", model="fake", source="T1w", samples=2, spread=True)
    for number, orientation in enumerate(orientations()):
        scan = scan_with_spot(orientation, TILT)
        if number % 2:
            scan.SetAndObserveTransformNodeID(transform_node(rigid((0, 40, 0), (5, 60, -3))).GetID())
        outputs, _words = run_here(TranslateRun(scan, options), fake_harmonize.translate, tmp_path / "job")
        for made in (outputs.result, outputs.spread):
            np.testing.assert_allclose(voxel_to_world(made), voxel_to_world(scan), atol=1e-3)
        np.testing.assert_allclose(brightest(outputs.result), brightest(scan), atol=1e-3)
        values = slicer.util.arrayFromVolume(scan).clip(0) / 900
        np.testing.assert_allclose(slicer.util.arrayFromVolume(outputs.result), np.sqrt(values), atol=1e-5)
        slicer.mrmlScene.Clear(0)


def test_a_scan_put_under_the_transform_lies_in_mni_space(host, module, tmp_path):
    """The core found a known transform from template to scan; each point of the scan must come to its own in MNI."""
    from fake_harmonize import TEMPLATE_TO_SCAN

    scan = scan_with_spot(tilt=TILT)
    above = transform_node(rigid((0, 40, 0), (5, 60, -3)))
    scan.SetAndObserveTransformNodeID(above.GetID())
    own = np.linalg.inv(to_world(scan)) @ [*brightest(scan), 1]  # of the file that the core saw
    in_template = np.linalg.inv(TEMPLATE_TO_SCAN) @ own
    outputs, _words = harmonized(module, scan, tmp_path / "job")
    above.SetAndObserveTransformNodeID(outputs.transform.GetID())
    np.testing.assert_allclose(brightest(scan), in_template[:3], atol=1e-3)
    np.testing.assert_allclose(brightest(outputs.result), in_template[:3], atol=1e-3)


def test_a_transform_of_one_run_serves_the_next(host, module, tmp_path):
    """Whether it stands beside the scan or above it; the core gets what it found itself."""
    from fake_harmonize import TEMPLATE_TO_SCAN
    from mri_deep_tools.registration import read_transform

    scan = scan_with_spot(tilt=TILT)
    above = transform_node(rigid((0, 40, 0), (5, 60, -3)))
    scan.SetAndObserveTransformNodeID(above.GetID())
    found = harmonized(module, scan, tmp_path / "first")[0].transform
    for name in ("beside", "above"):
        _outputs, words = harmonized(module, scan, tmp_path / name, placement=found)
        given = read_transform(words[words.index("--transform") + 1])
        np.testing.assert_allclose(given, TEMPLATE_TO_SCAN, atol=1e-6)
        above.SetAndObserveTransformNodeID(found.GetID())


def test_a_scan_in_mni_space_is_taken_as_it_lies_in_the_world(host, module, tmp_path):
    from mri_deep_tools.registration import read_transform

    scan = scan_with_spot()
    place = rigid((0, 40, 0), (5, 60, -3))
    scan.SetAndObserveTransformNodeID(transform_node(place).GetID())
    outputs, words = harmonized(module, scan, tmp_path / "job", registered=True)
    given = read_transform(words[words.index("--transform") + 1])
    np.testing.assert_allclose(given, np.linalg.inv(place), atol=1e-6)
    np.testing.assert_allclose(numbers(outputs.transform.GetMatrixTransformToParent()), np.eye(4), atol=1e-6)


def test_a_transform_that_says_something_else_than_the_record_is_refused(host, module, tmp_path, monkeypatch):
    import fake_core
    from MRIDeepToolsLib.errors import ResultError

    monkeypatch.setattr(fake_core, "MODE", "inverted")
    with pytest.raises(ResultError, match="not the one that the program reports"):
        harmonized(module, scan_with_spot(), tmp_path / "job")


# --------------------------------------------------------------------------------------------------------------- masks


def box_mask(kind: str, matrix, above=None):
    """Add a mask, a box of 40 x 50 x 60 mm, at a place in the world, as a segmentation or a label map of 2 mm."""
    import slicer

    values = np.zeros((40, 40, 40), np.uint8)
    values[5:35, 8:33, 10:20] = 3
    values[5:35, 8:33, 20:30] = 7
    own = np.eye(4) if above is None else np.linalg.inv(above)
    volume = add_volume("box", values.shape, own @ matrix @ np.diag([2.0, 2.0, 2.0, 1.0]))
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    labels.CopyOrientation(volume)
    slicer.mrmlScene.RemoveNode(volume)
    slicer.util.updateVolumeFromArray(labels, values)
    mask = labels
    if kind == "segmentation":
        mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Brain")
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, mask)
    if above is not None:
        mask.SetAndObserveTransformNodeID(transform_node(above).GetID())
    return mask


@pytest.mark.parametrize("kind", ["segmentation", "label map"])
@pytest.mark.parametrize("moved", [False, True])
def test_masks_of_any_grid_reach_the_core_in_the_right_place(host, module, tmp_path, kind, moved):
    """All segments and all labels count; scan and mask may lie under transforms of their own."""
    import nibabel
    import slicer

    place = rigid((0, 0, 15), (-10, 20, -5))
    mask = box_mask(kind, place, rigid((30, 0, 0), (9, 8, 7)) if moved else None)
    box = np.linalg.inv(place)
    for orientation in orientations()[::9]:
        matrix = np.eye(4)
        matrix[:3, :3] = orientation @ np.diag([2.0, 2.5, 3.0])
        matrix[:3, 3] = (place @ [40, 40, 40, 1])[:3] - orientation @ np.array([60.0, 65.0, 60.0])
        scan = add_volume("T1w", (40, 52, 60), matrix)
        if moved:
            lift = rigid((0, 10, 0), (3, 0, -4))
            scan.SetAndObserveTransformNodeID(transform_node(lift).GetID())
        before = slicer.mrmlScene.GetNumberOfNodes()
        from HarmonizeLib.masks import export_mask

        export_mask(mask, scan, tmp_path / "mask-in.nii")
        assert slicer.mrmlScene.GetNumberOfNodes() == before
        file = nibabel.load(tmp_path / "mask-in.nii")
        found = np.asarray(file.dataobj) > 0
        index = np.stack(np.meshgrid(*(np.arange(n) for n in found.shape), indexing="ij"), -1)
        world = index @ (to_world(scan) @ file.affine)[:3, :3].T + (to_world(scan) @ file.affine)[:3, 3]
        inside = world @ box[:3, :3].T + box[:3, 3]
        low, high = np.array([19.0, 15, 9]), np.array([59.0, 65, 69])
        truth = ((inside > low) & (inside < high)).all(-1)
        assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.95
        np.testing.assert_allclose(inside[found].mean(0), inside[truth].mean(0), atol=0.4)  # a fifth of its voxel


def test_a_mask_outside_the_scan_is_told(host, module, tmp_path):
    from HarmonizeLib.masks import export_mask
    from MRIDeepToolsLib.errors import NodeError

    mask = box_mask("label map", rigid((0, 0, 0), (900, 0, 0)))
    with pytest.raises(NodeError, match="inside the scan"):
        export_mask(mask, scan_with_spot(), tmp_path / "mask.nii")


def test_the_head_around_the_brain_stays_out_of_the_joint_histogram(host, module, tmp_path):
    import slicer

    scan = add_volume("T1w", (30, 30, 30), np.diag([3.0, 3.0, 3.0, 1.0]))
    for keep_head in (False, True):
        folder = tmp_path / str(keep_head)
        outputs, words = harmonized(module, scan, folder, keep_head=keep_head)
        assert ("--save-mask" in words) and ("--keep-head" in words) is keep_head
        cloud = outputs.joint.GetNthPlotSeriesNode(0).GetTableNode()
        before = slicer.util.arrayFromTableColumn(cloud, "Before")
        assert before.min() > 400  # the noise of the head is at a third of the brain
