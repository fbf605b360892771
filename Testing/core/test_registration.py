"""Rigid registration against transforms that are known because the test made them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from mri_deep_tools._rigid_search import rotation_net
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.geometry import Grid, Reorient, all_orientations, resample_to
from mri_deep_tools.registration import difference, moved_affine, read_transform, register_rigid, write_transform
from mri_deep_tools.volume import Volume, read_volume
from scipy.spatial.transform import Rotation

CENTRE = np.array([0.0, -18.0, 8.0])  # of the brain in MNI space, mm


@pytest.fixture(scope="module")
def brain(shared) -> Volume:
    """Return the template at 2 mm."""
    template = read_volume(shared("data", "mni", "MNI152_T1_1mm_brain.nii.gz"), dtype=np.float32)
    grid = Grid.of(template).with_spacing(2.0)
    return resample_to(template, grid.shape, grid.affine)


def points_of(brain: Volume) -> np.ndarray:
    return np.argwhere(brain.data > 0)[::500] @ brain.affine[:3, :3].T + brain.affine[:3, 3]


def rigid(rotation: Rotation, shift: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix()
    matrix[:3, 3] = shift
    return matrix


def scan_of(brain: Volume, truth: np.ndarray, spacing=(1.5, 1.5, 1.5), shape=(150, 160, 150)) -> Volume:
    """Return the brain as a scan in another position, with a bias field and noise; ``truth`` is fixed to moving."""
    affine = np.diag([*spacing, 1.0])
    middle = truth[:3, :3] @ CENTRE + truth[:3, 3]
    affine[:3, 3] = middle - np.array(spacing) * (np.array(shape) - 1) / 2
    data = resample_to(Volume(brain.data, truth @ brain.affine), shape, affine).data
    bias = 1 + 0.2 * np.linspace(-1, 1, shape[0])[:, None, None]
    noise = np.random.default_rng(1).normal(0, 150, shape)
    return Volume(np.maximum(data * bias + (data > 0) * noise, 0).astype(np.float32), affine)


CASES = {
    "tilted 30 degrees": (Rotation.from_euler("x", 30, degrees=True), {}, 0.7, 0.3),
    "thick slices": (
        Rotation.from_euler("yz", [-30, 20], degrees=True),
        {"spacing": (1, 1, 4), "shape": (190, 220, 48)},
        1.5,
        0.7,
    ),
    "cropped, head down": (Rotation.from_euler("xz", [170, 30], degrees=True), {"shape": (150, 160, 70)}, 1.5, 0.7),
}


@pytest.mark.parametrize(
    "name", [name if name == "cropped, head down" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_known_transforms_are_found(brain, name):
    rotation, grid, mm, degrees = CASES[name]
    truth = rigid(rotation, (25.0, -40.0, 12.0))
    shares: list[float] = []
    found = register_rigid(scan_of(brain, truth, **grid), brain, progress=shares.append)
    distance, turn = difference(found.matrix, truth, points_of(brain))
    assert distance < mm and turn < degrees
    assert found.correlation > 0.8 and found.overlap > 0.9
    assert shares == sorted(shares) and shares[-1] == 1.0
    np.testing.assert_allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-9)


@pytest.mark.slow
def test_another_contrast_with_mutual_information(brain):
    truth = rigid(Rotation.from_euler("xyz", [15, -10, 95], degrees=True), (-20.0, 10.0, 30.0))
    moving = scan_of(brain, truth)
    moving = moving.with_data(np.where(moving.data > 0, 9000 - moving.data, 0).clip(0))
    found = register_rigid(moving, brain, metric="mutual-information")
    distance, turn = difference(found.matrix, truth, points_of(brain))
    assert distance < 1.0 and turn < 0.5
    assert found.correlation < 0 < found.mutual_information


def wrong_headers(scan: Volume) -> list[Volume]:
    """Return the scan in the 24 axis orders and directions that keep its handedness, with the header unchanged."""
    return [
        Volume(turned.data, scan.affine)
        for code in all_orientations()
        if np.linalg.det((turned := Reorient.to(scan, code).apply(scan)).affine[:3, :3]) > 0
    ]


@pytest.mark.slow
def test_all_48_storage_orientations(brain):
    truth = rigid(Rotation.from_euler("xyz", [20, 10, -30], degrees=True), (10.0, 20.0, -15.0))
    scan = scan_of(brain, truth, spacing=(2, 2, 2), shape=(112, 120, 112))
    for code in all_orientations():
        found = register_rigid(Reorient.to(scan, code).apply(scan), brain)
        distance, turn = difference(found.matrix, truth, points_of(brain))
        assert distance < 0.8 and turn < 0.4, code


@pytest.mark.slow
def test_all_wrong_headers_that_are_turns(brain):
    scan = scan_of(brain, np.eye(4), spacing=(2, 2, 2), shape=(112, 112, 112))
    turned = wrong_headers(scan)
    assert len(turned) == 24
    for moving in turned:
        found = register_rigid(moving, brain)
        assert found.correlation > 0.9 and found.overlap > 0.95


def test_transform_files_go_round_and_are_what_itk_means(tmp_path):
    import SimpleITK as sitk  # noqa: N813

    matrix = rigid(Rotation.from_euler("xyz", [10, 20, 30], degrees=True), (1.0, -2.0, 3.5))
    for suffix in (".tfm", ".txt", ".h5"):
        path = write_transform(tmp_path / f"to_template{suffix}", matrix)
        np.testing.assert_allclose(read_transform(path), matrix, atol=1e-12)
        ras = np.array([30.0, -50.0, 70.0, 1.0])
        lps = sitk.ReadTransform(str(path)).TransformPoint((-30.0, 50.0, 70.0))
        np.testing.assert_allclose(np.array([-lps[0], -lps[1], lps[2]]), (matrix @ ras)[:3], atol=1e-9)
    # ITK resamples a moving image onto a fixed grid with this very transform.
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    np.testing.assert_allclose(matrix @ moved_affine(affine, matrix), affine, atol=1e-12)


def test_files_that_are_no_rigid_transform_are_refused(tmp_path):
    import SimpleITK as sitk  # noqa: N813

    scaled = sitk.AffineTransform(3)
    scaled.Scale(1.1)
    sitk.WriteTransform(scaled, str(tmp_path / "scaled.tfm"))
    (tmp_path / "text.tfm").write_text("hello")
    for name, said in (("scaled.tfm", "not rigid"), ("text.tfm", "not an ITK"), ("none.tfm", "does not exist")):
        with pytest.raises(InputError, match=said):
            read_transform(tmp_path / name)
    with pytest.raises(RequestError, match="does not end in"):
        write_transform(tmp_path / "matrix.mat", np.eye(4))


def test_images_without_content_are_refused(brain):
    flat = Volume(np.zeros((20, 20, 20), dtype=np.float32), np.eye(4))
    with pytest.raises(InputError, match="cannot be registered"):
        register_rigid(flat, brain)
    with pytest.raises(RequestError, match="unknown metric"):
        register_rigid(brain, brain, metric="beauty")


def test_the_net_of_rotations_has_no_holes():
    net = Rotation.from_rotvec(rotation_net(720))
    worst = max(
        min((net * probe.inv()).magnitude()) for probe in Rotation.random(200, random_state=np.random.default_rng(5))
    )
    assert np.degrees(worst) < 25
    assert np.allclose(net[0].magnitude(), 0)
    assert len({tuple(np.round(v, 6)) for v in net.as_rotvec()}) == 721
    assert not any(np.allclose(a, b) for a, b in itertools.pairwise(net.as_rotvec()[:50]))
