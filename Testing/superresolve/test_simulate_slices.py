"""Thick slices: the published way against golden data, the physical way against theory."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.superresolve.simulate import (
    DIRECTIONS,
    SliceStack,
    acquire,
    array_axis,
    as_trained,
    weights_of_slices,
)
from mri_deep_tools.volume import Volume

CASES = [f"{direction}_{factor}" for direction in DIRECTIONS for factor in (2, 3, 4, 5)]


@pytest.mark.parametrize("case", [*CASES, "axial_2_start1", "coronal_3_start1", "sagittal_5_start1"])
def test_as_trained_equals_the_published_synthesis(golden, case):
    arrays = golden("anisotropic.npz")
    direction, factor, *start = case.split("_")
    start = int(start[0].removeprefix("start")) if start else 0
    found = as_trained(arrays["input"], DIRECTIONS[direction], int(factor), start)
    assert found.dtype == np.float64
    assert np.abs(found - arrays[case]).max() <= 1e-4


@pytest.mark.parametrize(("size", "factor"), [(33, 2), (50, 8), (182, 4), (218, 5)])
def test_as_trained_equals_scipy_zoom(size, factor):
    from scipy.ndimage import zoom

    data = np.random.default_rng(size).normal(size=(3, size, 2)) + 5
    low = data[:, ::factor]
    expected = zoom(low, np.array(data.shape) / low.shape, order=3)
    assert np.abs(as_trained(data, 1, factor) - expected).max() < 1e-9


def test_as_trained_refuses_what_cannot_be():
    with pytest.raises(RequestError, match="start 2"):
        as_trained(np.ones((8, 8, 8)), 0, 2, 2)
    with pytest.raises(InputError, match="too few"):
        as_trained(np.ones((8, 8, 4)), 2, 4)


@pytest.mark.parametrize("profile", ["gaussian", "box"])
def test_a_slice_profile_has_its_width(profile):
    """The response to a thin sheet that is moved through a slice: half of its maximum half a thickness away."""
    weights = weights_of_slices(400, 0.1, np.array([20.0]), 4.0, profile)[0]
    assert weights.sum() == pytest.approx(1)
    places = (np.arange(400) + 0.5) * 0.1
    above = places[weights > weights.max() / 2]
    assert above[-1] - above[0] + 0.1 == pytest.approx(4.0, abs=0.11)
    centre = (weights * places).sum()
    assert centre == pytest.approx(20.0, abs=1e-3)
    if profile == "box":
        assert np.sqrt((weights * (places - 20) ** 2).sum()) == pytest.approx(4 / np.sqrt(12), rel=0.01)


@pytest.mark.parametrize(("thickness", "spacing"), [(4.0, 4.0), (2.5, 3.7), (5.0, 6.0), (3.0, 2.0)])
def test_acquired_slices_lie_where_the_affine_says(thickness, spacing):
    """A linear ramp in world space is seen by any symmetric profile at the slice's own centre."""
    affine = np.array([[-1.0, 0, 0, 30], [0, 0.9, 0.1, -20], [0, -0.1, 0.9, 7], [0, 0, 0, 1]])
    index = np.stack(np.meshgrid(np.arange(10), np.arange(12), np.arange(60), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    direction = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    volume = Volume(world @ direction, affine)
    thick = acquire(volume, SliceStack(2, thickness, spacing))
    assert thick.spacing[2] == pytest.approx(spacing)
    assert thick.spacing[:2] == pytest.approx(volume.spacing[:2])
    index = np.stack(np.meshgrid(*(np.arange(n) for n in thick.shape3), indexing="ij"), axis=-1)
    expected = (index @ thick.affine[:3, :3].T + thick.affine[:3, 3]) @ direction
    inner = slice(2, -2)
    assert np.abs(thick.data - expected)[..., inner].max() < 1e-3
    middle = lambda v: v.affine[:3, :3] @ ((np.array(v.shape3) - 1) / 2) + v.affine[:3, 3]  # noqa: E731
    np.testing.assert_allclose(middle(thick), middle(volume), atol=1e-6)


def test_acquired_slices_keep_the_mean_and_noise_is_seeded():
    rng = np.random.default_rng(3)
    volume = Volume(rng.random((8, 8, 64)) + 1, np.eye(4))
    stack = SliceStack(2, 4.0, 4.0, "box")
    thick = acquire(volume, stack)
    assert thick.shape3 == (8, 8, 16)
    np.testing.assert_allclose(thick.data, volume.data.reshape(8, 8, 16, 4).mean(-1), rtol=2e-3)
    noisy = [acquire(volume, stack, noise=0.05, seed=seed).data for seed in (1, 1, 2)]
    assert np.array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    assert np.std(noisy[0] - thick.data) == pytest.approx(0.05 * np.percentile(thick.data, 99), rel=0.1)


def test_wrong_slices_are_told():
    volume = Volume(np.ones((8, 8, 8)), np.eye(4))
    with pytest.raises(InputError, match="do not fit twice"):
        acquire(volume, SliceStack(0, 5, 5))
    with pytest.raises(RequestError, match="must be above 0"):
        SliceStack(0, 0, 1)
    with pytest.raises(RequestError, match="no slice profile"):
        SliceStack(0, 1, 1, "sinc")
    with pytest.raises(RequestError, match="noise"):
        acquire(volume, SliceStack(0, 2, 2), noise=-1)
    turned = Volume(np.ones((2, 2, 2)), np.array([[0, 0, 2.0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]))
    assert [array_axis(turned, name) for name in ("sagittal", "coronal", "axial")] == [2, 0, 1]
    with pytest.raises(RequestError, match="no direction"):
        array_axis(turned, "oblique")
