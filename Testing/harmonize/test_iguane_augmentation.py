"""Augmentation of training images: golden data, and the edge of the brain."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.harmonize.augmentation import augment, rotate, shift


@pytest.mark.parametrize("number", range(3))
def test_published_rotation(golden, number):
    data = golden("augmentation.npz")
    made = rotate(data["x"][..., 0], data[f"rot{number}_axes"], float(data[f"rot{number}_angle_deg"]), compatible=True)
    np.testing.assert_allclose(made, data[f"rot{number}"][..., 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("number", range(3))
def test_published_shift(golden, number):
    data = golden("augmentation.npz")
    made = shift(data["x"][..., 0], data[f"shift{number}_xyz"])
    np.testing.assert_array_equal(made, data[f"shift{number}"][..., 0])


def ball() -> np.ndarray:
    """Return a bright ball on the background, with a dark rim."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (24, 28, 20)], indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    return np.where(radius < 0.7, np.where(radius < 0.6, 0.3, -0.99), -1.0).astype(np.float32)


def test_rotation_keeps_the_background(golden):
    image = ball()
    made = rotate(image, (0, 1), 8.0)
    leaked = rotate(image, (0, 1), 8.0, compatible=True)
    size = (image > -1).sum()
    assert made.min() == -1
    assert abs((made > -1).sum() / size - 1) < 0.03
    assert (leaked > -1).sum() > 1.2 * size  # the fault of the published program, kept on request
    inside = made > -1
    np.testing.assert_allclose(made[inside], np.maximum(leaked[inside], -1), atol=1e-6)


def test_draws_are_fixed_by_the_generator_and_as_published():
    image = ball()
    first, again = (augment(image, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    shifted, rotated = set(), 0
    for seed in range(200):
        made = augment(image, np.random.default_rng(seed))
        turned = np.random.default_rng(seed).random() < 0.5
        rotated += turned
        if not turned:
            centre = np.array([np.mean(axis) for axis in np.nonzero(made > -1)])
            middle = np.array([np.mean(axis) for axis in np.nonzero(image > -1)])
            offsets = tuple(np.rint(centre - middle).astype(int).tolist())
            shifted.add(offsets)
            np.testing.assert_array_equal(made, shift(image, offsets))
        if seed > 60 and rotated > 20:
            break
    assert 0.3 < rotated / (seed + 1) < 0.7
    moves = np.array(sorted(shifted))
    assert moves.min() >= -5 and moves.max() <= 5 and {-5, 5} <= set(moves.reshape(-1).tolist())


def test_shift_beyond_the_image_leaves_background():
    assert (shift(ball(), (40, 0, 0)) == -1).all()
