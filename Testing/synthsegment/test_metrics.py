"""Overlap, distances and statistics on arrays: against the published program's numbers, and against theory."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.errors import RequestError
from mri_deep_tools.synthsegment.metrics import cohens_d, dice_scores, label_counts, paired_test, surface_distances


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared("fixtures", "synthseg", "metrics", "metrics.npz")) as data:
        return dict(data)


def box(shape, start, stop):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def test_dice_of_uncropped_maps_is_the_published_one(golden):
    scores = dice_scores(golden["gt"], golden["seg_other_subject"], golden["labels"], compatible=True)
    np.testing.assert_allclose(scores, golden["fast_dice_uncropped"], atol=1e-6)


def test_surface_distances_of_one_structure_are_the_published_ones(golden):
    found = surface_distances(golden["gt"] == 17, golden["seg_other_subject"] == 17, compatible=True)
    np.testing.assert_allclose(found[:3], golden["surf17_max"], atol=1e-6)
    assert found.mean == pytest.approx(float(golden["surf17_mean"]), abs=1e-6)
    cortex = surface_distances(golden["gt"] == 3, golden["seg_shifted"] == 3, compatible=True)
    assert cortex.hausdorff == pytest.approx(float(golden["surf3_max"]), abs=1e-6)
    assert cortex.mean == pytest.approx(float(golden["surf3_mean"]), abs=1e-6)


@pytest.mark.parametrize("alternative", ["two-sided", "less"])
def test_signed_rank_test_is_the_published_one(golden, alternative):
    found = paired_test(golden["wil_x"], golden["wil_y"], alternative=alternative, compatible=True)
    np.testing.assert_allclose(found, golden[f"wil_{alternative.replace('-', '_')}"], atol=1e-6)


def test_signed_rank_test_of_some_structures_is_the_published_one(golden):
    found = paired_test(golden["wil_x"], golden["wil_y"], alternative="greater", structures=[0, 2, 3], compatible=True)
    np.testing.assert_allclose(found, golden["wil_greater"], atol=1e-6)


def test_effect_size_is_the_published_one(golden):
    found = cohens_d(golden["wil_x"], golden["wil_y"], compatible=True)
    np.testing.assert_allclose(found, golden["cohens_d"], atol=1e-6)


def test_dice_of_absent_labels():
    truth = np.array([0, 1, 1, 2])
    found = np.array([0, 1, 2, 2])
    np.testing.assert_allclose(dice_scores(truth, found, [1, 2, 5]), [2 / 3, 2 / 3, np.nan])
    np.testing.assert_allclose(dice_scores(truth, found, [1, 5], compatible=True), [2 / 3.00001, 0.0])
    assert label_counts(truth, [1, 2, 5]).tolist() == [2, 1, 0]


def test_distance_of_shifted_boxes_in_voxels_and_mm():
    first, second = box((20, 12, 12), (2, 3, 3), (8, 9, 9)), box((20, 12, 12), (6, 3, 3), (12, 9, 9))
    voxels = surface_distances(first, second)
    assert voxels.hausdorff == 4.0  # the far faces lie 4 voxels apart, and nothing is farther
    mm = surface_distances(first, second, spacing=(2.5, 1.0, 1.0))
    assert mm.hausdorff <= 10.0 + 1e-12
    assert mm.hausdorff > voxels.hausdorff


def test_anisotropic_distance_between_two_voxels():
    first, second = box((5, 6, 7), (1, 1, 1), (2, 2, 2)), box((5, 6, 7), (3, 4, 5), (4, 5, 6))
    expected = np.sqrt((2 * 0.5) ** 2 + (3 * 1.0) ** 2 + (4 * 3.0) ** 2)
    np.testing.assert_allclose(surface_distances(first, second, spacing=(0.5, 1.0, 3.0)), [expected] * 4, rtol=1e-12)


def test_masks_at_the_border_have_a_surface_there():
    everything = np.ones((4, 4, 4), bool)
    assert surface_distances(everything, everything).hausdorff == 0.0
    assert surface_distances(everything, box((4, 4, 4), (1, 1, 1), (3, 3, 3))).hausdorff == pytest.approx(np.sqrt(3))


def test_distances_to_a_missing_structure():
    mask, empty = box((5, 9, 7), (1, 1, 1), (4, 4, 4)), np.zeros((5, 9, 7), bool)
    assert np.isnan(surface_distances(mask, empty)).all()
    assert np.isnan(surface_distances(empty, empty)).all()
    assert surface_distances(mask, empty, compatible=True) == (9.0, 9.0, 9.0, 9.0)


def test_exact_test_follows_the_sign_distribution():
    x = np.arange(1.0, 7.0)[None]  # six positive differences of different size: p = 1/2^6
    found = paired_test(x, np.zeros((1, 6)), alternative="greater")
    np.testing.assert_allclose(found, [1 / 64, 1 / 64])
    assert np.isnan(paired_test(x, x)).all()


def test_unknown_scores_are_left_out_in_pairs():
    x = np.array([[1.0, 2, 3, 4, 5, 6, 99]])
    y = np.array([[0.0, 0, 0, 0, 0, 0, np.nan]])
    np.testing.assert_allclose(paired_test(x, y, alternative="greater"), [1 / 64, 1 / 64])
    assert cohens_d(x[:, :6], y[:, :6])[0] == pytest.approx(cohens_d(x[:, :6], y)[0])


def test_effect_size_of_a_known_case():
    x, y = np.array([[2.0, 4.0, 6.0]]), np.array([[1.0, 3.0, 5.0]])
    assert cohens_d(x, y)[0] == pytest.approx(0.5)  # means differ by 1, both sample deviations are 2
    assert cohens_d(x, y, compatible=True)[0] == pytest.approx(1 / np.sqrt(8 / 3))
    assert np.isnan(cohens_d([[1.0, 1.0]], [[0.0, 0.0]])).all()


def test_refusals():
    with pytest.raises(RequestError, match="cannot be compared"):
        dice_scores(np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int), [0])
    with pytest.raises(RequestError, match="cannot be paired"):
        paired_test(np.zeros((2, 4)), np.zeros((2, 5)))
    with pytest.raises(RequestError, match="alternative"):
        paired_test(np.zeros((2, 4)), np.zeros((2, 4)), alternative="up")
