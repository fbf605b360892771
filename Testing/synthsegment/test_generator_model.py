"""The whole generative model: seeds, shapes, geometry, label swap, contrast, partial volume, and its files."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from mri_deep_tools.errors import RequestError
from mri_deep_tools.synthsegment.generator.coarse import CoarseConfig, CoarseLabelsToImage
from mri_deep_tools.synthsegment.generator.draws import Draws
from mri_deep_tools.synthsegment.generator.model import GeneratorConfig, LabelsToImage, LabelTables
from mri_deep_tools.synthsegment.generator.partial_volume import (
    PartialVolumeConfig,
    PartialVolumeLabelsToImage,
    priors_2020,
    tables_2020,
)
from mri_deep_tools.synthsegment.labels import V2_CHANNELS
from mri_deep_tools.synthsegment.simulate import simulate_scan, t1_config
from mri_deep_tools.volume import Volume
from test_training import write_map


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "map.nii.gz"
    write_map(path, size=40)
    return path


@pytest.fixture(scope="module")
def labels(head):
    image = nib.as_closest_canonical(nib.load(head))
    return torch.from_numpy(np.ascontiguousarray(image.dataobj).astype(np.int16))


def test_a_seed_fixes_the_scan(labels):
    generator = LabelsToImage(GeneratorConfig(output_shape=32), LabelTables.published(), levels=3)
    one, same, other = (generator(labels, Draws(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.labels, same.labels)
    assert not torch.equal(one.image, other.image)
    assert one.image.shape == (1, 32, 32, 32)
    assert float(one.image.min()) >= 0
    assert float(one.image.max()) <= 1


def test_targets_are_the_listed_structures(labels):
    for target, allowed in (("v2", V2_CHANNELS), ("groups", range(5))):
        sample = LabelsToImage(GeneratorConfig(output_shape=None), LabelTables.published(target), levels=None)(
            labels, Draws(0)
        )
        assert set(sample.labels.unique().tolist()) <= set(allowed)


def test_without_deformation_the_labels_are_the_map(labels):
    config = GeneratorConfig(
        output_shape=None, scaling=False, rotation=False, shearing=False, nonlin_std=0.0, flipping=False
    )
    sample = LabelsToImage(config, LabelTables.published(), levels=None)(labels, Draws(0), np.diag([2.0, 2, 2, 1]))
    expected = torch.where(labels == 506, torch.zeros_like(labels), labels)
    assert torch.equal(sample.labels, expected.long())
    np.testing.assert_array_equal(sample.affine, np.diag([2.0, 2, 2, 1]))


def test_mirrored_samples_keep_left_on_the_left(labels):
    """After mirroring, left codes still lie at small x (left), because the codes are exchanged as well."""
    config = GeneratorConfig(output_shape=None, scaling=False, rotation=False, shearing=False, nonlin_std=0.0)
    generator = LabelsToImage(config, LabelTables.published(), levels=None)
    flips = set()
    for seed in range(8):
        sample = generator(labels, Draws(seed))
        flips.add(sample.drawn["flipped"])
        for left, right in ((2, 41), (3, 42), (4, 43)):
            assert (
                np.nonzero(sample.labels.numpy() == left)[0].mean()
                < np.nonzero(sample.labels.numpy() == right)[0].mean()
            )
    assert flips == {True, False}


def test_sides_can_differ_in_contrast_but_not_by_tissue_classes(labels):
    """With 25 tissue classes both white matters have one mean; with 48 sided classes they differ."""
    plain = {
        "output_shape": None,
        "bias_field_std": 0.0,
        "randomise_res": False,
        "gamma_std": 0.0,
        "prior_stds": (0.0, 0.0),
        "scaling": False,
        "rotation": False,
        "shearing": False,
        "nonlin_std": 0.0,
    }
    for classes, same in (("tissue", True), ("sided", False)):
        generator = LabelsToImage(
            GeneratorConfig(classes=classes, **plain), LabelTables.published("v2", classes), levels=None
        )
        sample = generator(labels, Draws(3))
        deep = [sample.image[0][sample.labels == code].median() for code in (2, 41)]
        assert (abs(deep[0] - deep[1]) < 1e-3) == same


def test_coarser_grid_and_channels(labels):
    config = GeneratorConfig(output_shape=None, target_res=2.0, channels=2)
    sample = LabelsToImage(config, LabelTables.published(), levels=2)(labels, Draws(1), np.eye(4))
    assert sample.image.shape == (2, 20, 20, 20)
    assert sample.labels.shape == (20, 20, 20)
    np.testing.assert_allclose(np.diag(sample.affine)[:3], 2.0)
    assert not torch.equal(sample.image[0], sample.image[1])


def test_maps_too_small_for_the_network_are_told():
    generator = LabelsToImage(GeneratorConfig(), LabelTables.published(), levels=5)
    with pytest.raises(RequestError, match="too small"):
        generator(torch.zeros((20, 20, 20), dtype=torch.int16), Draws(0))


def test_constant_map_gives_finite_scan():
    sample = LabelsToImage(GeneratorConfig(output_shape=None), LabelTables.published(), levels=None)(
        torch.zeros((16, 16, 16), dtype=torch.int16), Draws(0)
    )
    assert torch.isfinite(sample.image).all()


@pytest.mark.parametrize("blur_background", [True, False])
def test_the_form_of_2020(labels, blur_background):
    means, stds = priors_2020()
    config = PartialVolumeConfig(
        output_shape=None,
        data_res=[6, 1, 1],
        thickness=[4, 1, 1],
        blur_range=1.5,
        prior_means=means,
        prior_stds=stds,
        prior_distribution="normal",
        blur_background=blur_background,
    )
    one_sided = labels.clone()
    for right, left in ((41, 2), (42, 3), (43, 4), (506, 258)):
        one_sided[labels == right] = left
    sample = PartialVolumeLabelsToImage(config, tables_2020(), levels=None)(one_sided, Draws(2))
    assert torch.isfinite(sample.image).all()
    assert sample.drawn["resolution_mm"] == [[6.0, 1.0, 1.0]]
    along, across = (sample.image[0].diff(dim=d).abs().mean() for d in (0, 1))
    assert along < across  # six millimetres along the first axis are smoother than one along the second


def test_simulated_files_keep_the_orientation_of_the_map(head):
    source = nib.load(head)
    volume = Volume(np.asarray(source.dataobj), source.affine)
    still = t1_config(output_shape=None, scaling=False, rotation=False, shearing=False, nonlin_std=0.0, flipping=False)
    made = simulate_scan(volume, 4, config=still)
    assert made.image.axcodes == volume.axcodes == ("L", "I", "A")
    np.testing.assert_allclose(made.image.affine, volume.affine)
    expected = np.where(volume.data == 506, 0, volume.data)
    np.testing.assert_array_equal(made.labels.data, expected)


def test_the_command_writes_scan_labels_and_record(head, tmp_path):
    words = ["simulate", "labels-to-image", str(head), str(tmp_path / "out" / "scan.nii.gz"), "--seed", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "mri_deep_tools", *words, "--progress", "none"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    scan = nib.load(tmp_path / "out" / "scan.nii.gz")
    labels = nib.load(tmp_path / "out" / "scan_dseg.nii.gz")
    assert scan.shape == labels.shape
    record = json.loads((tmp_path / "out" / "scan.json").read_text())
    assert record["Synthetic"] is True
    assert str(tmp_path) not in json.dumps(record)


def test_coarse_scans(labels):
    config = CoarseConfig(shape=(24, 24, 24), nonlin_points=(3, 3, 3), bias_points=(2, 2, 2))
    generator = CoarseLabelsToImage(config, V2_CHANNELS)
    scan, index = generator(labels, [19.5] * 3, Draws(0))
    again, _ = generator(labels, [19.5] * 3, Draws(0))
    assert torch.equal(scan, again)
    assert scan.shape == index.shape == (24, 24, 24)
    assert 0 <= float(scan.min()) <= float(scan.max()) <= 1
    assert int(index.max()) < len(V2_CHANNELS)
