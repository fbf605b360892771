"""Sharpening by intensities, on scans whose truth is known by construction."""

import numpy as np
import pytest
import torch
from mri_deep_tools.synthsegment.intensities import MixtureConfig, sharpen_
from scipy import ndimage

CODES = (0, 2, 3, 41, 42)
SHAPE = (64, 64, 48)


def scene(white=0.8, grey=0.45, noise=0.03, bias=0.0, seed=0):
    """A head with two sides; returns the true channels, a scan, and a prior that is right but blurred by 3 mm."""
    x, y, z = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    radius = np.sqrt(x**2 + y**2 + (1.2 * z) ** 2)
    wave = 20 + 3 * np.cos(6 * np.arctan2(y, x)) * np.cos(z / 6)  # folds that a blurred prior does not show
    truth = np.zeros(SHAPE, int)
    truth[radius < 27] = 2
    truth[radius < wave] = 1
    truth[(truth > 0) & (x > 0)] += 2
    rng = np.random.default_rng(seed)
    levels = np.array([0.1, white, grey, white, grey])
    scan = levels[truth] + noise * rng.standard_normal(SHAPE)
    scan *= np.exp(bias * (x / 32 + 0.5 * z / 24))
    prior = np.stack([ndimage.gaussian_filter((truth == k).astype(np.float32), 3) for k in range(5)])
    return truth, torch.from_numpy(scan.clip(0).astype(np.float32)), torch.from_numpy(prior / prior.sum(0))


def accuracy(posteriors, truth):
    return float((posteriors.argmax(0).numpy() == truth)[truth > 0].mean())


@pytest.mark.parametrize(("white", "grey"), [(0.8, 0.45), (0.3, 0.7)], ids=["T1-like", "inverted"])
@pytest.mark.parametrize("bias", [0.0, 0.4], ids=["even", "bias field"])
def test_borders_that_can_be_seen_are_found(white, grey, bias):
    truth, scan, prior = scene(white, grey, bias=bias)
    before = accuracy(prior, truth)
    sharpen_(prior, scan, CODES)
    assert before < 0.93
    assert accuracy(prior, truth) > 0.97
    np.testing.assert_allclose(prior.sum(0).numpy(), 1, atol=1e-4)


def test_where_nothing_can_be_seen_the_prior_stays():
    truth, scan, prior = scene(white=0.6, grey=0.6)
    before = prior.clone()
    sharpen_(prior, scan, CODES)
    brain = torch.from_numpy(ndimage.binary_erosion(truth > 0, iterations=4))
    white = (before[1] + before[3])[brain]
    assert float((white - (prior[1] + prior[3])[brain]).abs().mean()) < 0.1


def test_sides_are_never_exchanged():
    """Both sides look alike, so intensities say nothing about the side: its prior odds must stay as they are."""
    _, scan, prior = scene()
    left, right = prior[1] + prior[2], prior[3] + prior[4]
    sure_left, sure_right = left > 0.99 * (left + right), right > 0.99 * (left + right)
    sharpen_(prior, scan, CODES)
    chosen = prior.argmax(0)
    assert not bool(((chosen > 2) & sure_left).any())
    assert not bool(((chosen > 0) & (chosen < 3) & sure_right).any())


def test_scale_of_intensities_does_not_matter():
    _, scan, prior = scene()
    other = prior.clone()
    sharpen_(prior, scan, CODES)
    sharpen_(other, 1000 * scan, CODES)
    assert (prior.argmax(0) == other.argmax(0)).float().mean() > 0.9999


@pytest.mark.parametrize("kind", ["constant scan", "no brain", "tiny"])
def test_without_information_nothing_changes(kind):
    _, scan, prior = scene()
    if kind == "constant scan":
        scan = torch.full_like(scan, 0.5)
    elif kind == "no brain":
        prior = torch.zeros_like(prior)
        prior[0] = 1
    else:
        scan, prior = scan[:6, :6, :6], prior[:, :6, :6, :6].clone()
    before = prior.clone()
    sharpen_(prior, scan, CODES)
    assert torch.equal(prior, before)


def test_trust_zero_keeps_the_prior():
    _, scan, prior = scene()
    before = prior.clone()
    sharpen_(prior, scan, CODES, MixtureConfig(trust=0.0))
    torch.testing.assert_close(prior, before, atol=2e-3, rtol=0)
