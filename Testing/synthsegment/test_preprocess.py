"""Preprocessing against the published program, case by case, and its rules one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.synthsegment.memory import padded_shape
from mri_deep_tools.synthsegment.preprocess import (
    centre_crop,
    pad_margins,
    prepare,
    resample_to_spacing,
    rescale_intensities,
    sample_positions,
)
from mri_deep_tools.volume import Volume, read_volume


@pytest.mark.parametrize("number", range(8))
def test_every_step_matches_the_published_program(shared, number):
    folder = shared("fixtures", "synthseg", "preprocess")
    case = json.loads((folder / "cases.json").read_text())[number]
    golden = np.load(folder / f"case{number}.npz")
    volume = read_volume(shared("fixtures", "synthseg", "inputs", case["file"]), on_warning=lambda text: None)
    made = prepare(volume, crop=case["crop"], ct=case["ct"], min_size=case["min_pad"], compatible=True)
    if "resampled_aff" in golden:
        resampled = resample_to_spacing(volume)
        assert resampled.shape3 == tuple(golden["resampled_shape"])
        np.testing.assert_allclose(resampled.affine, golden["resampled_aff"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(resampled.data[::2, ::2, ::2], golden["resampled_strided2"], rtol=1e-6, atol=1e-4)
        np.testing.assert_allclose(resampled.data.sum(), golden["resampled_sum"], rtol=1e-6)
        np.testing.assert_allclose(made.working.affine, golden["resampled_aff"], rtol=0, atol=1e-5)
    assert made.resampled == ("resampled_aff" in golden)
    assert made.image.dtype == np.float32
    assert made.image.shape == tuple(golden["network_input_shape"][1:4])
    assert made.full_shape == tuple(golden["aligned_shape"])
    assert (*made.pad[0], *made.pad[1]) == tuple(golden["pad_idx"])
    crop = golden["crop_idx"]
    assert made.crop == (None if crop.size == 1 else (tuple(crop[:3]), tuple(crop[3:])))
    np.testing.assert_allclose(made.voxel_volume, np.prod(golden["im_res"].astype(float)), rtol=1e-6)
    np.testing.assert_allclose(made.image[::2, ::2, ::2], golden["input_strided2"], rtol=0, atol=1e-5)
    image = made.image.astype(np.float64)
    np.testing.assert_allclose(image.sum(), golden["input_sum"], rtol=1e-6)
    np.testing.assert_allclose((image**2).sum(), golden["input_sumsq"], rtol=1e-6)
    grids = np.meshgrid(*[np.arange(n) for n in image.shape], indexing="ij")
    moment = [(grid * image).sum() / image.sum() for grid in grids]
    np.testing.assert_allclose(moment, golden["input_first_moment"], rtol=1e-6)


def test_grid_lengths_match_the_published_program(shared):
    rows = json.loads(shared("fixtures", "synthseg", "preprocess", "resample_lengths.json").read_text())
    assert len(rows) == 15
    for row in rows:
        assert len(sample_positions(row["n_voxels"], row["spacing"])) == row["resampled_length"], row


def test_affine_follows_crop_padding_and_reorientation():
    rng = np.random.default_rng(0)
    affine = np.array([[0, -1.0, 0, 40], [0, 0, 1, -30], [-1, 0, 0, 50], [0, 0, 0, 1]])
    data = rng.random((40, 70, 50)).astype(np.float32)
    made = prepare(Volume(data, affine), crop=(32, 32, 64))
    assert made.image.shape == (32, 32, 64)
    voxel = np.array([5, 7, 30])
    world = made.affine @ [*voxel, 1]
    source = np.rint(np.linalg.inv(affine) @ world)[:3].astype(int)
    low, high = np.percentile(made.reorient.apply(made.working).data[made.patch], (0.5, 99.5))
    wanted = np.clip((data[tuple(source)] - low) / (high - low), 0, 1)
    assert made.image[tuple(voxel)] == pytest.approx(wanted, abs=1e-6)
    np.testing.assert_allclose((made.inside_affine @ [0, 0, 0, 1]), made.affine @ [*made.pad[0], 1])
    np.testing.assert_allclose(made.full_affine @ [*made.crop[0], 1], made.inside_affine @ [0, 0, 0, 1])
    assert made.voxel_volume == pytest.approx(1.0)


def test_header_sizes_count_only_in_compatible_mode():
    data = np.random.default_rng(0).random((40, 40, 40))
    volume = Volume(data, np.diag([1.0, 1, 1, 1]))
    volume = Volume(data, volume.affine, volume.source.__class__(header_spacing=(1.04, 1.0, 1.0)))
    assert prepare(volume, min_size=32).voxel_volume == pytest.approx(1.0)
    assert prepare(volume, min_size=32, compatible=True).voxel_volume == pytest.approx(1.04)


def test_resampling_keeps_the_field_of_view_and_a_linear_ramp():
    x = np.arange(30, dtype=np.float64)
    volume = Volume(np.broadcast_to(x[:, None, None], (30, 8, 8)).copy(), np.diag([3.0, 1, 1, 1]))
    finer = resample_to_spacing(volume)
    assert finer.shape3 == (90, 8, 8)
    assert finer.affine[0, 3] == pytest.approx(-1.0)  # the first old voxel spans -1.5..1.5 mm
    world = finer.affine[0, 3] + np.arange(90)
    np.testing.assert_allclose(finer.data[3:-3, 4, 4], world[3:-3] / 3, atol=1e-12)


def test_another_target_spacing():
    volume = Volume(np.random.default_rng(0).random((64, 60, 50)), np.eye(4))
    made = prepare(volume, spacing=2.0, multiple=16, min_size=16)
    assert made.image.shape == (32, 32, 32)
    assert made.voxel_volume == 8.0
    np.testing.assert_allclose(np.linalg.norm(made.affine[:3, :3], axis=0), 2.0)


def test_crop_and_padding_rules():
    assert centre_crop((80, 78, 90), (96, 64, 33)) == ((0, 7, 13), (80, 71, 77))
    assert pad_margins((81, 128, 10), 128) == ((23, 0, 59), (104, 128, 69), (128, 128, 128))
    assert padded_shape((38, 96, 72), (2.3, 0.85, 1.2), min_size=96) == (96, 96, 96)
    for bad in ((32, 32), (0, 32, 32), (1.5, 2, 3)):
        with pytest.raises(RequestError, match="crop"):
            centre_crop((64, 64, 64), bad)


def test_intensities():
    values = np.arange(1001, dtype=np.int16).reshape(7, 11, 13)
    scaled = rescale_intensities(values)
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert scaled.ravel()[500] == pytest.approx((500 - 5) / 990)
    assert rescale_intensities(values - 500, ct=True).ravel()[540] == pytest.approx(0.5)
    with pytest.raises(InputError, match=r"scan has no contrast: nearly all voxels have the value 3"):
        rescale_intensities(np.full((4, 4, 4), 3), name="scan")
    assert not rescale_intensities(np.full((4, 4, 4), 3), allow_constant=True).any()
    with pytest.raises(InputError, match="4 axes"):
        prepare(Volume(np.zeros((4, 4, 4, 2)), np.eye(4)))
