"""The bundled model on a real brain (the ICBM 152 template) and on synthetic scans of anatomy that it never saw."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.models import model_status
from mri_deep_tools.volume import Volume

pytestmark = pytest.mark.skipif(
    model_status("synthseg-lite") == "absent", reason="the package carries no synthseg-lite yet"
)
LEFT = {2: 41, 3: 42, 4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 26: 58, 28: 60}


@pytest.fixture(scope="module")
def segmenter():
    from mri_deep_tools.synthsegment.predict import Segmenter

    return Segmenter(model="synthseg-lite")


@pytest.fixture(scope="module")
def template():
    pytest.importorskip("nilearn", reason="nilearn carries the template")
    from mri_deep_tools.sample_scans import template_scan

    return template_scan()


@pytest.fixture(scope="module")
def labelled(segmenter, template):
    return segmenter.segment(template)


def test_all_structures_are_found_with_plausible_volumes(labelled):
    """Bounds are generous: the range of healthy adults in published norms, and half as much again."""
    volumes = {name: value / 1000 for name, value in labelled.volumes_mm3.items()}
    assert 1200 < volumes["total intracranial"] < 2200
    for side in ("left", "right"):
        assert 150 < volumes[f"{side} cerebral white matter"] < 350
        assert 170 < volumes[f"{side} cerebral cortex"] < 400
        assert 3 < volumes[f"{side} hippocampus"] < 8
        assert 2.5 < volumes[f"{side} putamen"] < 12
        assert 4 < volumes[f"{side} thalamus"] < 13
        assert 30 < volumes[f"{side} cerebellum cortex"] < 85
    assert set(np.unique(labelled.labels.data)) - {0} == {*LEFT, *LEFT.values(), 14, 15, 16, 24}


def test_left_and_right_are_never_mixed(labelled):
    """In the template's space the middle is x = 0: what is called left lies left of it, but for 3 mm."""
    x = labelled.labels.affine[0, 0] * np.arange(labelled.labels.data.shape[0]) + labelled.labels.affine[0, 3]
    for left, right in LEFT.items():
        for code, wrong in ((left, x > 3), (right, x < -3)):
            per_plane = (labelled.labels.data == code).sum((1, 2))
            assert per_plane[wrong].sum() <= 0.001 * per_plane.sum(), code


@pytest.mark.slow
def test_stored_orientation_does_not_matter(segmenter, template, labelled):
    """The same head with axes in another order and direction gets the same labels at the same places."""
    turned = template.data.transpose(2, 0, 1)[:, ::-1]
    order = template.affine[:, [2, 0, 1, 3]] @ np.diag([1, -1, 1, 1])
    order[:3, 3] = template.affine[:3, 3] + template.affine[:3, 0] * (template.data.shape[0] - 1)
    other = segmenter.segment(Volume(np.ascontiguousarray(turned), order)).labels
    back = other.data[:, ::-1].transpose(1, 2, 0)
    brain = labelled.labels.data > 0
    assert (back == labelled.labels.data)[brain].mean() > 0.97


def test_fast_is_nearly_as_good(template, labelled):
    from mri_deep_tools.synthsegment.predict import Segmenter

    fast = Segmenter(model="synthseg-lite", fast=True).segment(template).labels.data
    brain = labelled.labels.data > 0
    assert (fast == labelled.labels.data)[brain].mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("t1", 0.62), ("random", 0.4)])
def test_held_out_anatomy(kind, least, segmenter, shared):
    """A single scan of an anatomy that was not trained on; the card has the means over many."""
    from mri_deep_tools.synthsegment.generator.model import GeneratorConfig
    from mri_deep_tools.synthsegment.labels import V2_CHANNELS
    from mri_deep_tools.synthsegment.metrics import dice_scores
    from mri_deep_tools.synthsegment.simulate import simulate_scan, t1_config
    from mri_deep_tools.volume import read_volume

    labels = read_volume(shared("data", "synthseg_label_maps", "training_seg_06.nii.gz"))
    size = {"output_shape": None, "randomise_res": False}
    scan = simulate_scan(labels, 7000, config=t1_config(**size) if kind == "t1" else GeneratorConfig(**size))
    found = segmenter.segment(scan.image).labels.data
    assert np.nanmean(dice_scores(scan.labels.data, found, V2_CHANNELS[1:])) > least


def test_nothing_is_labelled_outside_what_was_seen(template):
    """A crop of 64 mm in the middle of the template: what lies beyond it was not seen, so volumes do not count it."""
    from mri_deep_tools.synthsegment.predict import Segmenter

    result = Segmenter(model="synthseg-lite", fast=True, crop=64).segment(template)
    places = np.argwhere(result.labels.data > 0)
    assert len(places) > 0.8 * 64**3  # the crop is brain all through
    assert (places.max(0) - places.min(0) < 66).all()
    assert result.volumes_mm3["total intracranial"] < 1.05 * 64**3
