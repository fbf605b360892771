"""Scores against golden data and theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from mri_deep_tools.errors import GeometryError, InputError, RequestError
from mri_deep_tools.superresolve.metrics import mean_similarity, similarity, ssim_map


def test_scores_equal_the_published_ones(golden):
    arrays, expected = golden("preprocess.npz"), golden("metrics.json")
    truth, thick = (arrays[name].astype(np.float64) for name in ("t2_iso_norm", "t2_aniso_norm"))
    found = (thick, golden("infer_narrow.npz")["reconstruction"].astype(np.float64), 0.5 * (truth + thick))
    scores = [similarity(truth, volume) for volume in found]
    for index, score in enumerate(scores):
        golden_score = expected[f"pair{index}"]
        assert score.psnr == pytest.approx(golden_score["psnr"], abs=1e-4)
        for name in ("ssim", "nrmse", "mse"):
            assert getattr(score, name) == pytest.approx(golden_score[name], abs=1e-6)
    means = mean_similarity(scores)
    for name, value in means.items():
        assert value == pytest.approx(expected["all"][name], abs=1e-4 if "psnr" in name else 1e-6)


def test_scores_of_equal_and_shifted_volumes():
    truth = np.random.default_rng(0).random((12, 13, 14))
    same = similarity(truth, truth)
    assert (same.mse, same.psnr, same.nrmse) == (0, math.inf, 0)
    assert same.ssim == pytest.approx(1)
    off = similarity(truth, truth + 0.1)
    assert off.psnr == pytest.approx(20)
    assert similarity(100 * truth, 100 * truth + 10, data_range=100).psnr == pytest.approx(20)
    assert similarity(100 * truth, 100 * truth + 10, data_range=100).ssim == pytest.approx(off.ssim, rel=1e-9)


def test_a_mask_leaves_the_background_out():
    rng = np.random.default_rng(1)
    truth, mask = np.zeros((20, 20, 20)), np.zeros((20, 20, 20), dtype=bool)
    mask[5:15, 5:15, 5:15] = True
    truth[mask] = rng.random(mask.sum())
    found = truth + mask * 0.1
    assert similarity(truth, found, mask=mask).psnr == pytest.approx(20)
    assert similarity(truth, found).psnr == pytest.approx(20 + 10 * math.log10(8))
    other = rng.random(truth.shape) * mask
    assert similarity(truth, other).ssim > similarity(truth, other, mask=mask).ssim + 0.1


def test_what_cannot_be_compared_is_told():
    volume = np.ones((8, 8, 8))
    with pytest.raises(GeometryError, match="cannot be compared"):
        similarity(volume, np.ones((8, 8, 9)))
    with pytest.raises(InputError, match="mask is empty"):
        similarity(volume, volume, mask=np.zeros((8, 8, 8), dtype=bool))
    with pytest.raises(InputError, match="at least 7 voxels"):
        ssim_map(volume[:6], volume[:6])
    with pytest.raises(RequestError, match="data range"):
        similarity(volume, volume, data_range=0)
    with pytest.raises(RequestError, match="no scores"):
        mean_similarity([])
