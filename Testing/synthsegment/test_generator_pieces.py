"""Every deterministic piece of the generative model against the original program's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mri_deep_tools.synthsegment.generator import intensity, morphology, resolution, spatial
from mri_deep_tools.synthsegment.generator.draws import Draws
from mri_deep_tools.synthsegment.generator.model import LabelTables, output_and_crop_shape


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared("fixtures", "synthseg", "generator")
    pieces = dict(np.load(folder / "pieces.npz"))
    for name in ("kernels", "shapes", "distributions", "blur_sigma"):
        pieces[f"json_{name}"] = json.loads((folder / f"{name}.json").read_text())
    return pieces


def tensor(array, dtype=torch.float32):
    return torch.as_tensor(np.ascontiguousarray(array)).to(dtype)


def check(golden, name, result, tolerance=1e-3):
    """Compare with a golden array that is stored sub-sampled by 3 with its sums."""
    result = np.asarray(result, np.float64)
    step = (slice(None, None, 3),) * 3
    np.testing.assert_allclose(result[step], golden[f"{name}__every3"], atol=tolerance, rtol=0)
    assert abs(result.sum() - golden[f"{name}__sum"]) <= tolerance * result.size * 0.1 + 1e-5 * abs(result.sum())
    np.testing.assert_allclose((result**2).sum(), golden[f"{name}__sumsq"], rtol=1e-4)


def test_gaussian_kernels(golden):
    for case in golden["json_kernels"]:
        wide = case["max_sigma"] or [None] * 3
        for axis in range(3):
            expected = golden[f"kernel{case['index']}_sep_{axis}"].ravel()
            found = resolution.gaussian_kernel(case["sigma"][axis], wide[axis])
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, atol=1e-6)
        parts = [resolution.gaussian_kernel(s, w) for s, w in zip(case["sigma"], wide, strict=True)]
        product = parts[0][:, None, None] * parts[1][:, None] * parts[2]
        np.testing.assert_allclose(product, golden[f"kernel{case['index']}_full_0"][..., 0, 0], atol=1e-6)


def test_blur(golden):
    image = tensor(golden["image"])
    check(golden, "blur_sigma05", resolution.blur(image, [0.5] * 3))
    check(golden, "blur_aniso", resolution.blur(image, [0.75, 0.75, 2.25]))
    for index in range(3):
        sigma = golden[f"dynblur{index}_sigma"].tolist()
        check(golden, f"dynblur{index}", resolution.blur(image, sigma, [6.0] * 3))


def test_blurring_sigma(golden):
    for case in golden["json_blur_sigma"]:
        found = resolution.blurring_sigma(
            case["current_res"], case["downsample_res"], case["thickness"], case["mult_coef"]
        )
        np.testing.assert_allclose(found, case["sigma"], atol=1e-6)


def test_mimic_acquisition(golden):
    image = tensor(golden["image"])
    for index in range(5):
        size, shape = golden[f"mimic{index}_res"].tolist(), golden[f"mimic{index}_shape"].tolist()
        check(golden, f"mimic{index}", resolution.mimic_acquisition(image, [1.0] * 3, size, shape))
        distance = resolution.distance_to_samples(image.shape, [1.0] * 3, size, shape)
        check(golden, f"mimic{index}_dist", distance)


def test_affine_and_field(golden):
    rotation, shear = golden["rot_deg"][0], golden["shear"][0]
    np.testing.assert_allclose(spatial.rotation_matrix(rotation), golden["T_rot"][0], atol=1e-6)
    np.testing.assert_allclose(spatial.shearing_matrix(shear), golden["T_shear"][0], atol=1e-6)
    affine = spatial.affine_matrix(rotation, shear, golden["scale"][0], golden["translation"][0])
    np.testing.assert_allclose(affine, golden["affine"][0], atol=1e-5)
    small = tensor(golden["svf_small"][0]).permute(3, 0, 1, 2)
    shape = golden["label_map"].shape
    half = spatial.resize_linear(small, spatial.half_shape(shape, small.shape[1:]))
    last = (1, 2, 3, 0)
    check(golden, "svf_half", half.permute(last), 1e-4)
    check(golden, "svf_integrated", spatial.integrate_velocity(half).permute(last))
    check(golden, "field", spatial.field_from_velocity(small, shape).permute(last))


def test_warps(golden):
    labels, image = tensor(golden["label_map"], torch.int16), tensor(golden["image"], torch.float64)[None]
    small = tensor(golden["svf_small"][0]).permute(3, 0, 1, 2)
    field = spatial.field_from_velocity(small, labels.shape)
    affine = spatial.affine_matrix(
        golden["rot_deg"][0], golden["shear"][0], golden["scale"][0], golden["translation"][0]
    )
    device = torch.device("cpu")
    both = spatial.pull_back_positions(labels.shape, affine, field, device)
    differing = (spatial.sample_nearest(labels, both).numpy() != golden["warp_labels_nearest"]).mean()
    assert differing <= 1e-3
    check(golden, "warp_image_linear", spatial.sample_linear(image, both)[0], 2e-3)
    only = spatial.pull_back_positions(labels.shape, affine, None, device)
    check(golden, "warp_image_affine_only", spatial.sample_linear(image, only)[0], 2e-3)
    only = spatial.pull_back_positions(labels.shape, None, field, device)
    check(golden, "warp_image_field_only", spatial.sample_linear(image, only)[0], 2e-3)


def test_flip_swap_and_conversion(golden):
    tables = LabelTables.published("v1")
    labels = tensor(golden["label_map"], torch.int16)
    assert (spatial.flip_labels(labels, tables.swap()).numpy() == golden["flip_swap"]).all()
    assert (tables.lookup(tables.targets)[labels.long()].numpy() == golden["converted_labels"]).all()


def test_gmm_bias_and_intensity(golden):
    tables = LabelTables.published("v1")
    labels = tensor(golden["label_map"], torch.int16)
    means = golden["gmm_means"][0, :, 0]
    each = tables.lookup(range(len(tables.codes)))
    found, _ = intensity.mean_and_std_maps(labels, each, means, np.zeros_like(means))
    check(golden, "gmm_mean_map", found)
    image, small = tensor(golden["image"]), tensor(golden["bias_small"][0, ..., 0])
    check(golden, "bias_field", spatial.resize_linear(small, image.shape).exp())
    check(golden, "bias_image", intensity.apply_bias(image, small))


def test_intensity(golden):
    # The input is stored sub-sampled, so statistics of the whole array are taken from the golden result itself.
    image = tensor(golden["intensity_in__every3"])
    expected = golden["intensity_clip300_norm__every3"]
    clipped = image.clamp(0, 300)
    slope, offset = np.polyfit(clipped.ravel().numpy(), expected.ravel(), 1)
    np.testing.assert_allclose(slope * clipped + offset, expected, atol=1e-4)
    assert slope == pytest.approx(1 / 300, rel=0.02)
    gamma = float(golden["gamma_log"])
    found = intensity.normalise(tensor(expected), clip=None, gamma=gamma)
    low, high = expected.min(), expected.max()
    np.testing.assert_allclose(found, ((expected - low) / (high - low + 1e-7)) ** np.exp(gamma), atol=1e-5)


def test_resize(golden):
    labels, image = tensor(golden["label_map"], torch.int16), tensor(golden["image"])
    assert (spatial.resize_nearest(labels, (32, 40, 36)).numpy() == golden["resample_labels_32"]).mean() >= 0.999
    check(golden, "resize_image_32", spatial.resize_linear(image, (32, 40, 36)))
    check(golden, "resize_image_up", spatial.resize_linear(image[:16, :16, :16], (64, 64, 64)))


def test_morphology_and_sobel(golden):
    labels = tensor(golden["label_map"], torch.int16)
    check(golden, "sobel_magnitude", morphology.sobel_magnitude(tensor(golden["image"])))
    for radius in (1, 2, 3):
        assert (morphology.ball(radius).numpy() == golden[f"unit_kernel_{radius}"][..., 0, 0]).all()
    cortex = torch.isin(labels, torch.tensor([3, 42], dtype=torch.int16))
    white = torch.isin(labels, torch.tensor([2, 41], dtype=torch.int16))
    assert (morphology.dilate(cortex, 2).numpy() == golden["dilate2"].astype(bool)).all()
    assert (morphology.erode(white, 1).numpy() == golden["erode1"].astype(bool)).all()


def test_shapes(golden):
    for case in golden["json_shapes"]:
        out, crop = output_and_crop_shape(
            case["labels_shape"], case["output_shape"], case["atlas_res"], case["target_res"], case["div"]
        )
        assert (out, crop) == (case["out"], case["crop_shape"])


def test_distributions(golden):
    """Draws follow the original's: percentiles of Gaussian parameters and of resolutions within 3 % of the range."""
    expected = golden["json_distributions"]
    draws = Draws(0)
    pairs = [intensity.draw_class_statistics(48, 0, draws) for _ in range(4000)]
    means, stds = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    levels = expected["gmm_mean_percentiles"]["percentiles"]
    for values, part in ((means, "gmm_mean_percentiles"), (stds, "gmm_std_percentiles")):
        top = values.max()
        np.testing.assert_allclose(np.percentile(values[:, 1:], levels), expected[part]["foreground"], atol=0.03 * top)
        np.testing.assert_allclose(np.percentile(values[:, 0], levels), expected[part]["background"], atol=0.04 * top)
    assert (means[:, 0] == 0).mean() == pytest.approx(expected["background_exactly_zero"], abs=0.015)
    assert (means[:, 0] < 15).mean() == pytest.approx(expected["background_below_15"], abs=0.03)
    sizes = [resolution.draw_resolution([1.0] * 3, 4.0, 8.0, draws) for _ in range(3000)]
    size, thickness = np.array([s[0] for s in sizes]), np.array([s[1] for s in sizes])
    changed = (size > 1).sum(1)
    reference = expected["resolution"]
    assert (changed == 0).mean() == pytest.approx(reference["fraction_all_min"], abs=0.02)
    assert (changed == 1).mean() == pytest.approx(reference["fraction_one_axis"], abs=0.03)
    assert (changed == 3).mean() == pytest.approx(reference["fraction_three_axes"], abs=0.03)
    assert (thickness <= size).all()
    one = size[changed == 1].max(1)
    np.testing.assert_allclose(np.percentile(one, levels), reference["one_axis_value_percentiles"], atol=0.3)
