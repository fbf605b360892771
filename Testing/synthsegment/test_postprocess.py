"""Clean-up, normalisation, labels and volumes against the published program, and the rules one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mri_deep_tools.geometry import Reorient
from mri_deep_tools.synthsegment import postprocess
from mri_deep_tools.synthsegment.labels import (
    PARCEL_CODES,
    V1_CHANNELS,
    V2_CHANNELS,
    left_right_permutation,
    topological_classes,
)
from mri_deep_tools.synthsegment.parcellation import ParcelStore, _PlaneStream, _Reducer, paint_parcels
from mri_deep_tools.synthsegment.postprocess import (
    argmax_channels,
    bounding_box,
    channel_volumes,
    hard_labels,
    keep_brain_,
    keep_structures_,
    largest_component,
    normalise_,
    smooth_,
    smoothing_weights,
    threshold_,
)
from mri_deep_tools.synthsegment.qc import qc_groups
from mri_deep_tools.volume import Volume
from scipy.ndimage import convolve1d


def posteriors(shape, channels=3, seed=0):
    values = np.random.default_rng(seed).random((channels, *shape)).astype(np.float32)
    return values / values.sum(axis=0)


def reduce_parcels(block_channels, labels, inside):
    """Reduce the golden parcel posteriors: 0.75 for the channel of an 8x8x8 block, 1/256 for each other."""
    channels = torch.from_numpy(np.kron(block_channels, np.ones((8, 8, 8), dtype=np.uint8))).long()
    planes = torch.full((len(PARCEL_CODES), 48, 48, 48), 1 / 256).scatter_(0, channels[None], 0.75)
    reducer = _Reducer(np.isin(labels, (3, 42)), inside, keep=False)
    for start in range(0, 48, 7):
        reducer(start, planes[:, start : start + 7].clone())
    return reducer.result()


@pytest.mark.parametrize("number", range(7))
def test_clean_up_matches_the_published_program(shared, number):
    folder = shared("fixtures", "synthseg", "postprocess")
    case = json.loads((folder / "cases.json").read_text())[number]
    given, wanted = np.load(folder / "inputs.npz"), np.load(folder / f"out{number}.npz")
    codes = V1_CHANNELS if case["v1"] else V2_CHANNELS
    soft = np.moveaxis(given["post_v1" if case["v1"] else "post_v2"], -1, 0).astype(np.float32)
    low, high = given["pad_idx"][:3], given["pad_idx"][3:]
    inside = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
    if case["fast"]:
        soft = soft[inside]
        threshold_(soft, keep_brain_(soft))
    else:
        keep_structures_(soft, topological_classes(codes), keep_brain_(soft))
        soft = soft[inside]
    normalise_(soft)
    labels, volumes = hard_labels(soft, codes), channel_volumes(soft, float(np.prod(case["im_res"])))
    if case["parc"]:
        parcels = reduce_parcels(given["parc_block_label"], labels, inside[1:])
        paint_parcels(labels, parcels.channels)
        published = wanted["volumes"][-68:].astype(np.float64)  # summed in float32 there
        ours = parcels.sums * published.sum() / parcels.sums.sum()
        np.testing.assert_allclose(ours, published, rtol=1e-3, atol=0.1)
    if case["crop_idx"] is not None:
        start, stop = case["crop_idx"][:3], case["crop_idx"][3:]
        full = np.zeros(case["full_shape"], dtype=np.int32)
        full[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = labels
        labels = full
        soft_full = np.zeros((len(codes), *case["full_shape"]), dtype=np.float32)
        soft_full[0] = 1
        soft_full[(slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))] = soft
        soft = soft_full
    native = Volume(np.zeros(wanted["seg"].shape), given["affine"])
    turn = Reorient.to_ras(native)
    upright = turn.apply(native).affine
    back = turn.undo(Volume(labels, upright)).data
    np.testing.assert_array_equal(back, wanted["seg"])
    soft_back = turn.undo(Volume(np.moveaxis(soft, 0, -1), upright)).data
    np.testing.assert_allclose(soft_back[::2, ::2, ::2], wanted["posteriors_every2"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(soft.sum(axis=(1, 2, 3), dtype=np.float64), wanted["posteriors_channel_sums"], rtol=1e-6)
    first = 0 if case["v1"] else 1
    np.testing.assert_allclose(volumes, wanted["volumes"][first : first + len(volumes)], rtol=1e-4, atol=1e-2)


def test_flip_indices_and_largest_component_match(shared):
    golden = json.loads(shared("fixtures", "synthseg", "postprocess", "flip_indices.json").read_text())
    for name, codes in (("v1", V1_CHANNELS), ("v2", V2_CHANNELS)):
        assert list(left_right_permutation(codes)) == golden[name]["flip_indices"]
    component = np.load(shared("fixtures", "synthseg", "postprocess", "largest_component.npz"))
    np.testing.assert_array_equal(largest_component(component["mask"]), component["result"])
    assert not largest_component(component["empty"]).any()


@pytest.mark.parametrize("slab", [1, 1000, 1 << 21])
def test_smoothing_is_a_zero_padded_gaussian(monkeypatch, slab):
    monkeypatch.setattr(postprocess, "_SLAB_BYTES", slab)
    np.testing.assert_allclose(smoothing_weights(), [0.10650698, 0.78698604, 0.10650698], atol=1e-8)
    values = posteriors((9, 7, 5), 2)
    wanted = values
    for axis in (1, 2, 3):
        wanted = convolve1d(wanted, smoothing_weights(), axis=axis, mode="constant")
    smooth_(values, factor=0.5)
    np.testing.assert_allclose(values, wanted / 2, rtol=0, atol=1e-7)


def test_component_ties_and_box():
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[0, 0, :2] = mask[3, 3, 3:5] = True
    mask[1, 1, 0] = True  # touches the first only by an edge
    kept = largest_component(mask)
    assert kept.sum() == 2
    assert kept[0, 0, 0]
    assert bounding_box(mask) == (slice(0, 4), slice(0, 4), slice(0, 5))
    assert bounding_box(np.zeros((2, 2, 2), dtype=bool)) is None


def test_voxels_that_lose_everything_become_background():
    soft = np.zeros((3, 2, 2, 2), dtype=np.float32)
    soft[1, 0] = 0.5
    same = soft.copy()
    normalise_(soft)
    assert (soft[0, 1] == 1).all()
    assert (soft[1, 0] == 1).all()
    normalise_(same, compatible=True)
    assert np.isnan(same[:, 1]).all()
    np.testing.assert_array_equal(hard_labels(same, (0, 2, 3)), hard_labels(soft, (0, 2, 3)))


def test_posteriors_too_small_to_be_divided_by_keep_their_shares():
    """Far from the brain a confident network leaves sums of 1e-40, of which the reciprocal is infinite."""
    for compatible in (False, True):
        soft = np.full((3, 2, 2, 2), 1e-40, dtype=np.float32)
        soft[1] = 2e-40
        normalise_(soft, compatible=compatible)
        np.testing.assert_allclose(soft[:, 0, 0, 0], [0.25, 0.5, 0.25], rtol=1e-3)


def test_structures_at_or_below_the_threshold_vanish_and_class_0_stays():
    soft = np.zeros((4, 8, 8, 8), dtype=np.float32)
    soft[0] = 1
    soft[1, 1:4, 1:4, 1:4], soft[0, 1:4, 1:4, 1:4] = 0.6, 0.4
    soft[1, 4, 1, 1] = 0.25  # attached, but not above the threshold
    soft[2, 1:4, 1:4, 4] = 0.3
    soft[2, 6, 6, 6] = 0.3  # an island
    soft[3, 1, 1, 1] = 0.1  # class 0
    box = keep_brain_(soft)
    assert box == (slice(1, 4), slice(1, 4), slice(1, 5))
    keep_structures_(soft, (0, 1, 2, 0), box)
    assert soft[1, 4, 1, 1] == 0
    assert soft[2, 6, 6, 6] == 0
    assert soft[2, 1:4, 1:4, 4] == pytest.approx(0.3)
    assert soft[3, 1, 1, 1] == pytest.approx(0.1)


def test_fast_threshold_is_strict():
    soft = np.zeros((2, 4, 4, 4), dtype=np.float32)
    soft[1] = 0.2
    soft[1, 0] = 0.3
    threshold_(soft, (slice(0, 4),) * 3)
    assert (soft[1, 0] > 0).all()
    assert not soft[1, 1:].any()


def test_no_brain_gives_background():
    soft = posteriors((4, 4, 4))
    soft[1:] *= 0.01
    box = keep_brain_(soft)
    assert [side.stop for side in box] == [0, 0, 0]
    assert not soft[1:].any()
    keep_structures_(soft, (0, 1, 2), box)
    normalise_(soft)
    assert not hard_labels(soft, (0, 2, 3)).any()


def test_argmax_takes_the_lowest_of_equals(monkeypatch):
    monkeypatch.setattr(postprocess, "_SLAB_BYTES", 64)
    soft = posteriors((5, 4, 3), 7)
    np.testing.assert_array_equal(argmax_channels(soft), soft.argmax(axis=0))
    assert not argmax_channels(np.ones((3, 2, 2, 2), dtype=np.float32)).any()
    np.testing.assert_allclose(
        channel_volumes(soft, 2.0), 2 * soft[1:].sum(axis=(1, 2, 3), dtype=np.float64), rtol=1e-6
    )


def test_quality_box_is_centred_on_the_brain():
    channels = np.zeros((20, 30, 40), dtype=np.uint8)
    channels[4:9, 10:20, 5:35] = 1
    channels[0, 0, 0] = 24  # this channel index does not count
    groups = qc_groups(channels, V2_CHANNELS, box=16)
    assert groups.shape == (16, 16, 16)
    hit = np.argwhere(groups)
    assert hit.min(axis=0).tolist() == [6, 3, 0]  # ceil((16 - 5) / 2), ceil((16 - 10) / 2), cut on both sides
    assert hit.max(axis=0).tolist() == [10, 12, 15]
    assert (groups[groups > 0] == 1).all()
    assert qc_groups(np.zeros((8, 20, 8), np.uint8), V2_CHANNELS, box=16).shape == (16, 16, 16)


@pytest.mark.parametrize(("planes", "chunk"), [(1, 1000), (8, 37), (9, 41), (16, 20), (17, 7), (30, 48)])
def test_stream_of_planes_gives_smoothed_posteriors(planes, chunk):
    logits = torch.randn(3, planes * 12, generator=torch.Generator().manual_seed(0))
    wanted = torch.softmax(logits, 0).view(3, planes, 4, 3).numpy().copy()
    smooth_(wanted)
    seen, starts = [], []

    def take(first, values):
        starts.append((first, values.shape[1]))
        seen.append(values.clone())

    stream = _PlaneStream(3, (planes, 4, 3), smooth=True, take=take)
    for start in range(0, planes * 12, chunk):
        stream(start, min(start + chunk, planes * 12), logits[:, start : start + chunk])
    assert [first for first, _ in starts] == np.cumsum([0, *(n for _, n in starts)])[:-1].tolist()
    np.testing.assert_allclose(torch.cat(seen, dim=1), wanted, rtol=0, atol=1e-6)


def test_parcels_between_voxels_are_interpolated():
    rows = np.full((3, 2, 2), -1, dtype=np.int32)
    rows[0], rows[1] = 0, 1
    values = np.zeros((2, len(PARCEL_CODES) - 1), dtype=np.float16)
    values[0, 4], values[1, 9] = 1, 1
    store = ParcelStore(rows, values)
    points = np.array([[0.2, 0.5, 0], [0.7, 0, 1], [1.4, 1, 1], [2, 0, 0], [-3, 0, 0]], dtype=float)
    assert store.best(points).tolist() == [5, 10, 10, 0, 5]
