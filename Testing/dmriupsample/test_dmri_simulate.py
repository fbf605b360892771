"""Simulated diffusion scans: signals against DIPY's, noise against theory, truth against a fit, any orientation."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.dmriupsample.directions import even_directions, same_axis_angle
from mri_deep_tools.dmriupsample.gradients import GradientTable
from mri_deep_tools.dmriupsample.phantom import built_in_labels, make_phantom
from mri_deep_tools.dmriupsample.signals import expected_magnitude, fibre_signal, rician, tensor_maps
from mri_deep_tools.dmriupsample.simulate import even_scheme, simulate_dmri
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.volume import Volume

VECTORS = even_directions(20)
AXES = even_directions(3)[None]
SHARES = np.array([[0.5, 0.3, 0.2]])
ALONG, ACROSS = np.array([1.7e-3]), np.array([0.3e-3])


def dipy_table():
    gradients = pytest.importorskip("dipy.core.gradients")
    return gradients.gradient_table(np.full(20, 1000.0), bvecs=VECTORS, b0_threshold=0)


def angles(axes: np.ndarray) -> list[tuple[float, float]]:
    return [(np.degrees(np.arccos(z)), np.degrees(np.arctan2(y, x))) for x, y, z in axes]


def test_multi_tensor_signal_is_that_of_dipy():
    from dipy.sims.voxel import multi_tensor

    values = np.array([[1.7e-3, 0.3e-3, 0.3e-3]] * 3)
    theirs, _ = multi_tensor(dipy_table(), values, S0=1, angles=angles(AXES[0]), fractions=[50, 30, 20], snr=None)
    ours = fibre_signal(np.full(20, 1000.0), VECTORS, AXES, SHARES, ALONG, ACROSS)
    np.testing.assert_allclose(ours[0, 1:], theirs[1:], atol=1e-12)


def test_ball_and_stick_signal_is_that_of_dipy():
    from dipy.sims.voxel import sticks_and_ball

    part = 1 - 0.3 / 1.7
    theirs, _ = sticks_and_ball(  # which takes the first volume for b = 0
        dipy_table(), d=1.7e-3, S0=1, angles=angles(AXES[0]), fractions=list(100 * part * SHARES[0]), snr=None
    )
    ours = fibre_signal(np.full(20, 1000.0), VECTORS, AXES, SHARES, ALONG, ACROSS, "ball-and-stick")
    np.testing.assert_allclose(ours[0, 1:], theirs[1:], atol=1e-12)


def test_tensor_maps_know_a_single_tensor():
    bvals, vectors = np.r_[0, np.full(20, 1000.0)], np.r_[np.zeros((1, 3)), VECTORS]
    signal = fibre_signal(bvals, vectors, AXES[:, :1], np.ones((1, 1)), ALONG, ACROSS)
    fa, md = tensor_maps(signal, bvals, vectors)
    spread = np.array([1.7, 0.3, 0.3]) - (1.7 + 0.6) / 3
    assert fa[0] == pytest.approx(np.sqrt(1.5 * (spread**2).sum() / (1.7**2 + 2 * 0.3**2)), abs=1e-9)
    assert md[0] == pytest.approx((1.7e-3 + 0.6e-3) / 3, abs=1e-12)


@pytest.mark.parametrize("signal", [0.0, 0.05, 0.2, 1.0])
def test_noise_is_rician(signal):
    drawn = rician(np.full(400_000, signal, np.float32), 0.1, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(float(expected_magnitude(np.array(signal), 0.1)), abs=5e-4)
    assert np.square(drawn).mean() == pytest.approx(signal**2 + 2 * 0.1**2, rel=0.01)  # second moment of Rice's law


def test_background_has_noise_and_the_brain_the_asked_for_ratio():
    phantom = make_phantom(built_in_labels((20, 20, 20), 8))
    scan = simulate_dmri(phantom, even_scheme([1000], [6], b0=2), snr=25)
    first, second = scan.image.data[..., 0], scan.image.data[..., 1]
    white = phantom.mask.copy()
    white[phantom.mask] = phantom.tissue.fractions[:, 0] == 1
    assert (first - second)[white].std() / np.sqrt(2) == pytest.approx(3500 / 25, rel=0.1)
    assert first[~phantom.mask].mean() == pytest.approx(3500 / 25 * np.sqrt(np.pi / 2), rel=0.05)
    assert scan.clean.data[~phantom.mask].max() == 0


def test_the_same_seed_gives_the_same_scan_and_another_one_does_not():
    def scan(seed: int) -> np.ndarray:
        phantom = make_phantom(built_in_labels((12, 12, 12), 10), seed=seed)
        return simulate_dmri(phantom, even_scheme([1000], [6], seed=seed), seed=seed).image.data

    np.testing.assert_array_equal(scan(4), scan(4))
    assert not np.array_equal(scan(4), scan(5))


@pytest.mark.parametrize("model", ["multi-tensor", "ball-and-stick"])
def test_truth_is_what_dipys_tensor_fit_finds_without_noise(model):
    pytest.importorskip("dipy")
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    phantom = make_phantom(built_in_labels((16, 16, 16), 9), fibres=1, seed=2)
    scan = simulate_dmri(phantom, even_scheme([1000], [60]), model=model, snr=0)
    table = gradient_table(scan.table.bvals, bvecs=scan.table.world, b0_threshold=10)
    white = scan.directions.data[..., :3].any(axis=3)
    fit = TensorModel(table, fit_method="OLS").fit(scan.image.data[white])
    np.testing.assert_allclose(fit.fa, scan.fa.data[white], atol=2e-3 if model == "multi-tensor" else 0.02)
    np.testing.assert_allclose(fit.md, scan.md.data[white], rtol=0.02)
    apart = np.diag(same_axis_angle(fit.evecs[:, :, 0][:500], scan.directions.data[white][:500]))
    assert np.median(apart) < 0.5


def turned(labels: Volume) -> Volume:
    """Return the same anatomy with other axes, one of them reversed, and oblique."""
    data = labels.data.transpose(2, 0, 1)[:, ::-1]
    shift = np.eye(4)[[2, 0, 1, 3]].T
    shift[:3, 1] *= -1
    shift[:3, 3] += np.array([labels.shape3[0] - 1, 0, 0])
    return Volume(data, labels.affine @ shift)


def test_world_truth_does_not_depend_on_the_axes_of_the_grid():
    labels = built_in_labels((14, 16, 12), 9)
    other = turned(labels)
    place = np.array([5, 7, 3])
    there = np.linalg.inv(other.affine) @ labels.affine @ np.r_[place, 1]
    index = tuple(np.rint(there[:3]).astype(int))
    assert other.data[index] == labels.data[tuple(place)]
    scans = [simulate_dmri(make_phantom(item), even_scheme([1000], [8]), snr=0) for item in (labels, other)]
    for name in ("fa", "md", "directions", "image"):
        first, second = (getattr(scan, name).data for scan in scans)
        np.testing.assert_allclose(first[tuple(place)], second[index], rtol=1e-4, atol=1e-6)
        assert sorted(np.round(first[first > 0], 3))[:50] == sorted(np.round(second[second > 0], 3))[:50]


def test_crossings_are_there_and_limited():
    labels = built_in_labels()
    share = [
        (np.linalg.norm(scan.directions.data.reshape(*scan.mask.shape3, -1, 3), axis=4) > 0).sum(axis=3)
        for scan in (simulate_dmri(make_phantom(labels, fibres=n), even_scheme([1000], [6]), snr=0) for n in (1, 2, 3))
    ]
    assert [int(counts.max()) for counts in share] == [1, 2, 3]
    assert (share[2] >= 2).sum() > 0.3 * (share[2] >= 1).sum()


def test_coarse_voxels_hold_several_tissues():
    phantom = make_phantom(built_in_labels((40, 40, 40), 4), spacing=8)
    mixed = (phantom.tissue.fractions > 0.1).sum(axis=1) > 1
    assert phantom.mask.shape == (20, 20, 20) and 0.1 < mixed.mean() < 0.9
    np.testing.assert_allclose(phantom.tissue.fractions.sum(axis=1), 1, atol=1e-5)


def test_scheme_has_even_directions_on_the_whole_sphere():
    table = even_scheme([1000, 2500], [20, 32], b0=3)
    assert list(np.unique(table.bvals, return_counts=True)[1]) == [3, 20, 32]
    part = table.world[table.bvals == 2500]
    apart = same_axis_angle(part, part) + 180 * np.eye(32)
    assert apart.min() > 18 and 5 < (part[:, 2] < 0).sum() < 27


def test_wrong_requests():
    with pytest.raises(RequestError, match="one for each shell"):
        even_scheme([1000, 2000, 3000], [6, 10])
    with pytest.raises(RequestError, match="different b-values"):
        even_scheme([1000, 1000], [6])
    with pytest.raises(RequestError, match="too small"):
        built_in_labels((8, 20, 20))
    with pytest.raises(RequestError, match="20 mm"):
        make_phantom(built_in_labels((12, 12, 12)), spacing=float("nan"))
    with pytest.raises(InputError, match="no white matter"):
        make_phantom(Volume(np.zeros((12, 12, 12), np.int32), np.eye(4)))
    with pytest.raises(InputError, match="not 3-D"):
        make_phantom(Volume(np.zeros((12, 12, 12, 2), np.int32), np.eye(4)))
    phantom = make_phantom(built_in_labels((12, 12, 12)))
    with pytest.raises(RequestError, match="signal-to-noise"):
        simulate_dmri(phantom, even_scheme([1000], [6]), snr=float("nan"))
    with pytest.raises(RequestError, match="b = 0"):
        simulate_dmri(phantom, GradientTable(np.zeros(3), np.zeros((3, 3))))
