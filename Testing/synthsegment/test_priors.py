"""Intensity priors: the published numbers, and the cases in which they are not followed by default."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.errors import GeometryError, InputError, RequestError
from mri_deep_tools.synthsegment.priors import (
    estimate_priors,
    estimate_priors_from_files,
    intensity_statistics,
    save_priors,
)
from mri_deep_tools.volume import Volume, write_volume


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared("fixtures", "synthseg", "metrics", "priors.npz")) as data:
        return dict(data)


def pairs(golden):
    return [(Volume(golden[f"image{k}"], np.eye(4)), Volume(golden[f"labels{k}"], np.eye(4))) for k in (0, 1)]


@pytest.mark.parametrize("k", [0, 1])
def test_statistics_of_one_image_are_the_published_ones(golden, k):
    found = intensity_statistics(
        golden[f"image{k}"],
        golden[f"labels{k}"],
        golden["labels_list"],
        golden["classes"],
        rescale=False,
        compatible=True,
    )
    np.testing.assert_allclose(found, golden[f"stats{k}_no_rescale"], atol=1e-6)


def test_priors_are_the_published_ones(golden):
    means, stds = estimate_priors(pairs(golden), golden["labels_list"], golden["classes"], compatible=True)
    np.testing.assert_allclose(means, golden["prior_means"], atol=1e-6)
    np.testing.assert_allclose(stds, golden["prior_stds"], atol=1e-6)


def test_priors_of_sided_classes_are_the_published_ones(golden):
    means, stds = estimate_priors(
        pairs(golden), golden["labels_list"], golden["classes54"], rescale=False, compatible=True
    )
    np.testing.assert_allclose(means, golden["prior_means_54classes_norescale"], atol=1e-6)
    np.testing.assert_allclose(stds, golden["prior_stds_54classes_norescale"], atol=1e-6)


def test_a_class_missing_in_one_image_is_left_out_of_its_prior(golden):
    classes = golden["classes"]
    means, stds = estimate_priors(pairs(golden), golden["labels_list"], classes)
    missing = np.flatnonzero(golden["stats0_no_rescale"][0] == 0)
    assert missing.tolist() == [11]
    assert means[0, 11] == pytest.approx(2 * golden["prior_means"][0, 11], abs=1e-6)  # not halved by a zero
    assert means[1, 11] == 0.0
    others = np.setdiff1d(np.arange(25), missing)
    np.testing.assert_allclose(means[:, others], golden["prior_means"][:, others], atol=1e-6)
    np.testing.assert_allclose(stds[:, others], golden["prior_stds"][:, others], atol=1e-6)


def test_known_intensities():
    labels = np.array([0, 0, 5, 5, 5, 7, 9]).reshape(7, 1, 1)
    image = np.array([-1.0, 3.0, 10.0, 20.0, 60.0, 0.0, 50.0]).reshape(7, 1, 1)
    found = intensity_statistics(image, labels, [0, 5, 7], [0, 1, 2], rescale=False)
    np.testing.assert_allclose(found[:, 0], [1.0, 1.4826 * 2.0])  # background keeps what is not positive
    np.testing.assert_allclose(found[:, 1], [20.0, 1.4826 * 10.0])
    assert np.isnan(found[:, 2]).all()  # its only voxel is 0


def test_channels_stack_in_blocks_of_two_rows():
    labels = Volume(np.repeat([1, 2], 8).reshape(4, 2, 2).astype(np.int16), np.eye(4))
    first = np.where(labels.data == 1, 10.0, 20.0)
    image = Volume(np.stack([first, 3 * first], axis=-1), np.eye(4))
    means, stds = estimate_priors([(image, labels), (image, labels)], [1, 2], [0, 1], rescale=False)
    np.testing.assert_allclose(means, [[10, 20], [0, 0], [30, 60], [0, 0]])
    np.testing.assert_allclose(stds, np.zeros((4, 2)))


def test_a_constant_image_does_not_divide_by_zero():
    labels = np.ones((3, 3, 3), int)
    np.testing.assert_array_equal(intensity_statistics(np.full((3, 3, 3), 7.0), labels, [1], [0]), [[0.0], [0.0]])


def test_absent_class_warns():
    volume = Volume(np.ones((3, 3, 3), np.float32), np.eye(4))
    heard = []
    means, _ = estimate_priors([(volume, volume)], [1, 2], [0, 1], rescale=False, on_warning=heard.append)
    assert means[0].tolist() == [1.0, 0.0]
    assert len(heard) == 1
    assert "[1]" in heard[0]


def test_refusals():
    volume = Volume(np.ones((3, 3, 3), np.float32), np.eye(4))
    moved = Volume(volume.data, np.diag([1.0, 1.0, 2.0, 1.0]))
    with pytest.raises(GeometryError, match="different grids"):
        estimate_priors([(volume, moved)], [1], [0])
    with pytest.raises(InputError, match="no image"):
        estimate_priors([], [1], [0])
    with pytest.raises(RequestError, match="parallel"):
        estimate_priors([(volume, volume)], [1, 2], [0])
    with pytest.raises(RequestError, match="twice"):
        estimate_priors([(volume, volume)], [1, 1], [0, 1])
    with pytest.raises(RequestError, match="paired"):
        estimate_priors_from_files([], [None], [1], [0])


def test_files_in_and_out(tmp_path, golden):
    images, labels = [], []
    for k, (image, map_) in enumerate(pairs(golden)):
        images.append(write_volume(image, tmp_path / f"image{k}.nii.gz"))
        labels.append(write_volume(map_, tmp_path / f"labels{k}.nii.gz"))
    found = estimate_priors_from_files(images, labels, golden["labels_list"], golden["classes"], compatible=True)
    paths = save_priors(tmp_path / "new" / "priors", *found)
    assert [path.name for path in paths] == ["prior_means.npy", "prior_stds.npy"]
    np.testing.assert_allclose(np.load(paths[0]), golden["prior_means"], atol=1e-6)
    np.testing.assert_allclose(np.load(paths[1]), golden["prior_stds"], atol=1e-6)
