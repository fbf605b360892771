"""The estimate without a network: what it must give where theory says so."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.errors import RequestError
from mri_deep_tools.geometry import resample_to
from mri_deep_tools.progress import Progress
from mri_deep_tools.superresolve import superresolve
from mri_deep_tools.superresolve.guided import guided_start
from mri_deep_tools.superresolve.network import ResUNet, ResUNetSpec
from mri_deep_tools.superresolve.simulate import SliceStack, acquire, weights_of_slices
from mri_deep_tools.superresolve.train import TrainingConfig, begin_as_identity, train
from mri_deep_tools.superresolve.training_data import Pair, PatchSource, Recipe
from mri_deep_tools.superresolve.weights import load_network, save_network
from mri_deep_tools.volume import Volume, write_volume

AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0])


def tissue(shape=(40, 44, 48), seed=1):
    """Return a volume of blobs with sharp borders, 100 to 900."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    data = np.select([field > 0.03, field > -0.03], [900.0, 500.0], 100.0)
    return Volume(gaussian_filter(data, 0.5).astype(np.float32), AFFINE)


def rms(a, b):
    inner = (slice(6, -6),) * 3
    return float(np.sqrt(np.mean((a[inner].astype(float) - b[inner]) ** 2)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thickness", [2.0, 5.0])
def test_a_t1w_that_is_a_linear_map_of_the_t2w_gives_nearly_all_of_it_back(axis, thickness):
    truth = tissue()
    t1 = truth.with_data(2000 - 1.7 * truth.data)
    thick = acquire(truth, SliceStack(axis, thickness, thickness))
    plain = resample_to(thick, truth.shape3, truth.affine, order=3)
    found = guided_start(plain, thick, axis, thickness, t1)
    alone = guided_start(plain, thick, axis, thickness, None)
    assert rms(found.data, truth.data) < 0.45 * rms(plain.data, truth.data)
    assert rms(alone.data, truth.data) < rms(plain.data, truth.data)
    np.testing.assert_array_equal(found.affine, truth.affine)
    assert found.data.dtype == np.float32


def test_an_unrelated_t1w_does_little_harm():
    truth, other = tissue(seed=1), tissue(seed=2)
    thick = acquire(truth, SliceStack(2, 4.0, 4.0))
    plain = resample_to(thick, truth.shape3, truth.affine, order=3)
    found = guided_start(plain, thick, 2, 4.0, other)
    assert rms(found.data, truth.data) < 1.05 * rms(plain.data, truth.data)


def test_what_the_estimate_lacks_of_the_measured_slices_becomes_less():
    truth = tissue()
    thick = acquire(truth, SliceStack(1, 3.0, 3.5))
    plain = resample_to(thick, truth.shape3, truth.affine, order=3)
    places = (np.arange(thick.shape3[1]) * 3.5) + (thick.affine[1, 3] - truth.affine[1, 3])
    weights = weights_of_slices(truth.shape3[1], 1.0, places + 0.5, 3.0)
    measured = np.moveaxis(thick.data, 1, -1)
    left = [
        np.abs(np.moveaxis(volume.data, 1, -1) @ weights.T - measured).mean()
        for volume in (plain, guided_start(plain, thick, 1, 3.0, None))
    ]
    assert left[1] < 0.5 * left[0]


def test_axes_in_another_order_and_turned_round_give_the_same():
    truth = tissue()
    t1 = truth.with_data(1000 - truth.data)
    thick = acquire(truth, SliceStack(2, 4.0, 4.0))
    plain = resample_to(thick, truth.shape3, truth.affine, order=3)
    first = guided_start(plain, thick, 2, 4.0, t1)
    turned = np.ascontiguousarray(thick.data.transpose(2, 0, 1)[::-1])
    affine = thick.affine[:, [2, 0, 1, 3]].copy()
    affine[:3, 3] += affine[:3, 0] * (turned.shape[0] - 1)
    affine[:3, 0] *= -1
    second = guided_start(plain, Volume(turned, affine), 0, 4.0, t1)
    np.testing.assert_allclose(second.data, first.data, atol=0.05)


@pytest.fixture
def guided_weights(tmp_path):
    network = ResUNet(ResUNetSpec((4, 8), 1, residual=True, t2_alone=True, start="guided"))
    begin_as_identity(network)
    return save_network(network, tmp_path / "guided.safetensors", 32)


@pytest.mark.parametrize("with_t1", [True, False])
def test_the_whole_way_beats_interpolation_and_agrees_with_the_slices(guided_weights, with_t1):
    truth = tissue((44, 48, 40))
    t1 = truth.with_data(1100 - truth.data)
    thick = acquire(truth, SliceStack(2, 4.0, 4.0))
    result = superresolve(thick, t1 if with_t1 else None, weights=guided_weights, registered=True)
    there = resample_to(truth, result.image.shape3, result.image.affine, order=3).data
    share = rms(result.image.data, there) / rms(result.interpolated.data, there)
    assert share < (0.7 if with_t1 else 0.97)
    assert result.honesty.psnr_db > result.honesty.interpolation_psnr_db + 2


def test_result_in_the_frame_of_a_template_and_on_unit_intensities(guided_weights, tmp_path):
    truth = tissue((44, 48, 40))
    t1, thick = truth.with_data(1100 - truth.data), acquire(truth, SliceStack(2, 4.0, 4.0))
    options = {"weights": guided_weights, "registered": True, "intensities": "unit"}
    own = superresolve(thick, t1, **options)
    place = write_volume(truth, tmp_path / "template.nii.gz")
    moved = superresolve(thick, t1, template=place, space="template", **options)
    assert moved.image.shape3 == truth.shape3
    there = resample_to(own.image, truth.shape3, truth.affine, order=3).data
    assert rms(moved.image.data, there) < 0.05
    assert 0.9 < np.percentile(own.image.data, 99) < 1.2


def test_training_starts_from_the_estimate(tmp_path):
    truth = tissue((24, 24, 24))
    for name, data in (("T2w", truth.data), ("T1w", 1000 - truth.data)):
        write_volume(truth.with_data(data.astype(np.float32)), tmp_path / "data" / f"sub-1_{name}.nii.gz")
    pair = Pair("1", tmp_path / "data" / "sub-1_T1w.nii.gz", tmp_path / "data" / "sub-1_T2w.nii.gz")
    ways = {"patch": 16, "stride": 8, "directions": ("axial",), "factors": (4,), "simulation": "physical"}
    errors = {}
    for start in ("interpolated", "guided"):
        source = PatchSource([pair], Recipe(start=start, order="random", mix=1, **ways))
        samples = [source.sample(k) for k in range(6)]
        errors[start] = np.mean([np.abs(x[1] - y[0]).mean() for x, y in samples])
    assert errors["guided"] < 0.6 * errors["interpolated"]
    source = PatchSource([pair], Recipe(start="guided", order="random", mix=1, t1_dropout=1.0, **ways))
    x, y = source.sample(0)
    assert not x[0].any()
    assert np.abs(x[1] - y[0]).mean() > errors["guided"]  # the estimate does not know the T1w either


def test_a_guided_training_writes_what_its_network_needs(tmp_path):
    for subject in "ab":
        truth = tissue((20, 20, 20), seed=ord(subject))
        for name, data in (("T2w", truth.data), ("T1w", 1000 - truth.data)):
            write_volume(truth.with_data(data.astype(np.float32)), tmp_path / "data" / f"sub-{subject}_{name}.nii.gz")
    config = TrainingConfig(data=str(tmp_path / "data"), channels=[2, 4], units=1, patch=8, stride=8, batch=2)
    config.simulation, config.start, config.residual, config.order, config.t1_dropout = (
        "physical",
        "guided",
        True,
        "random",
        0.3,
    )
    config.directions, config.factors, config.noise, config.steps_per_epoch, config.epochs = (
        ["axial"],
        [3.0],
        0.02,
        2,
        1,
    )
    config.train_share, config.validation_share, config.validation_patches = 0.5, 0.5, 2
    config.run.output, config.run.accelerator, config.run.threads = str(tmp_path / "run"), "cpu", 1
    train(config, Progress())
    (weights,) = (tmp_path / "run" / "weights").iterdir()
    spec = load_network(weights, whole=True).spec
    assert (spec.start, spec.residual, spec.t2_alone) == ("guided", True, True)
    config.simulation = "as-trained"
    with pytest.raises(RequestError, match="physical slices"):
        train(config, Progress())
