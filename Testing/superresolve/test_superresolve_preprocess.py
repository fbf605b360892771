"""Scaling, padding and patches of the published pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.superresolve.patches import count_overlaps, patch_starts, patch_window, reconstruct
from mri_deep_tools.superresolve.preprocess import Scaling, pad_volume, padded_shape, without_background
from mri_deep_tools.volume import Volume, read_volume


@pytest.mark.parametrize(
    ("name", "key", "percentiles"),
    [
        ("t1w", "t1_norm", "t1_percentiles"),
        ("t2w_aniso", "t2_aniso_norm", "t2_percentiles"),
        ("t2w_iso", "t2_iso_norm", None),
    ],
)
def test_scaling_and_padding_equal_the_published_ones(golden, name, key, percentiles):
    expected = golden("preprocess.npz")
    padded, step = pad_volume(read_volume(golden(f"{name}.nii.gz")))
    assert padded.shape3 == tuple(expected["target_shape"])
    np.testing.assert_allclose(padded.affine, expected["padded_affine"], atol=1e-6)
    scaling = Scaling.of(padded.data)
    found = scaling.apply(padded.data)
    assert np.abs(found - expected[key]).max() <= 1e-6
    if percentiles:
        np.testing.assert_allclose([scaling.low, scaling.high], expected[percentiles], rtol=1e-6)
    inside = (found > 0) & (found < 1)
    assert np.abs(scaling.undo(found) - padded.data)[inside].max() < 1e-3
    assert step.undo(padded).shape3 == (54, 70, 60)


def test_patches_and_overlaps_equal_the_published_ones(golden):
    expected = golden("preprocess.npz")
    shape = tuple(expected["target_shape"])
    starts = patch_starts(shape)
    assert len(starts) == int(expected["n_patches"]) == 36
    assert np.array_equal(count_overlaps(shape), expected["count"])
    volume = expected["t2_aniso_norm"].astype(np.float64)
    sums = [volume[x : x + 32, y : y + 32, z : z + 32].sum() for x, y, z in starts]
    np.testing.assert_allclose(sums, expected["patch_sums_t2"], rtol=1e-6)
    assert len(patch_starts((192, 224, 192))) == 1573


def test_padded_shapes():
    assert padded_shape((182, 218, 182)) == (192, 224, 192)
    assert padded_shape((1, 32, 33)) == (32, 32, 48)
    assert padded_shape((48, 49, 64)) == (48, 64, 64)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_averaging_gives_back_what_every_patch_agrees_on(window):
    volume = np.random.default_rng(0).random((2, 48, 64, 50))
    found = reconstruct(lambda cubes: cubes[:, 1], volume, batch=3, window=window)
    covered = count_overlaps(volume.shape[1:]) > 0
    assert np.abs(found - volume[1])[covered].max() < 1e-6
    assert np.all(found[~covered] == 0)
    assert (~covered).any()


def test_the_blended_window_has_no_steps():
    """Patches that disagree by a constant make a seam with equal weights and a ramp with blended ones."""
    levels = iter(range(100))

    def answer(cubes):
        return np.stack([np.full((32, 32, 32), next(levels), np.float32) for _ in cubes])

    volume = np.ones((2, 64, 32, 32))
    levels = iter(range(100))
    seams = np.abs(np.diff(reconstruct(answer, volume)[:, 0, 0])).max()
    levels = iter(range(100))
    ramp = np.abs(np.diff(reconstruct(answer, volume, window="gaussian")[:, 0, 0])).max()
    assert seams == 1.0
    assert ramp < 0.2
    with pytest.raises(RequestError, match="no window"):
        patch_window("hann")


def test_scans_without_content_are_told():
    with pytest.raises(InputError, match="no value above 0"):
        Scaling.of(np.zeros((4, 4, 4)), "T1.nii.gz")
    with pytest.raises(InputError, match=r"T1.nii.gz has a single intensity, 7"):
        Scaling.of(np.full((4, 4, 4), 7), "T1.nii.gz")


def test_a_background_other_than_zero_is_taken_off():
    data = np.full((20, 20, 20), -1024, np.int16)
    data[5:15, 5:15, 5:15] = 100
    shifted, value = without_background(data)
    assert value == -1024
    assert shifted[0, 0, 0] == 0
    assert shifted[10, 10, 10] == 1124
    noisy = np.random.default_rng(0).rayleigh(5, (20, 20, 20))
    assert without_background(noisy)[1] == 0
    assert without_background(shifted)[1] == 0
    assert Volume(data, np.eye(4)).data is data
