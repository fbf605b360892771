"""A model of one's own: its label list, its channels and options, against the published pipeline and against theory."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from mri_deep_tools.errors import GeometryError, InputError, RequestError, WeightsError
from mri_deep_tools.synthsegment import memory, predict
from mri_deep_tools.synthsegment.backend import PublishedBackend
from mri_deep_tools.synthsegment.generic import GenericOptions, GenericSegmenter
from mri_deep_tools.synthsegment.generic_run import GenericRun, gradient_magnitude, smooth_with_
from mri_deep_tools.synthsegment.label_table import read_label_table
from mri_deep_tools.synthsegment.labels import GENERATION, LABELS, V2_CHANNELS, left_right_permutation
from mri_deep_tools.synthsegment.labels import topological_classes as published_classes
from mri_deep_tools.synthsegment.network import UNet, UNetSpec
from mri_deep_tools.synthsegment.postprocess import hard_labels, keep_brain_, normalise_, smooth_
from mri_deep_tools.synthsegment.preprocess import prepare
from mri_deep_tools.synthsegment.weights import load_unets
from mri_deep_tools.volume import Volume, read_volume
from safetensors.torch import save_file
from scipy.ndimage import convolve
from segment_command import command, labels_of, remains, save, sentence

pytestmark = pytest.mark.usefixtures("own_cache")

PLAIN = {"smoothing": 0.0, "keep_largest": False}
"""Nothing but the network."""

TABLE = "label,name,side,topological_class\n0,outside,neutral,0\n7,left thing,left,1\n9,right thing,right,2\n"


SIDELESS = "label,name,topological_class\n0,outside,0\n7,left thing,1\n9,right thing,2\n"
"""For the network of thresholds, which does not give what a mirrored scan asks for."""


def write_table(path, text=TABLE):
    path.write_text(text, encoding="utf-8")
    return path


def sorted_by_side():
    """Return the codes of version 2 as the published lists order them: neutral, left, right."""
    return sorted(V2_CHANNELS, key=lambda code: ("neutral", "left", "right").index(LABELS[code].side))


def published_table(path):
    """Write the label list of version 2 as a person would: neutral structures, then left ones, then right ones."""
    rows = [(code, LABELS[code].name, LABELS[code].side, LABELS[code].topological_class) for code in sorted_by_side()]
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows([("label", "name", "side", "topological_class"), *rows])
    return path


def random_network(path, spec, seed=0):
    """Save a network with random weights and return it."""
    torch.manual_seed(seed)
    network = UNet(spec).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("bias"):
                value.uniform_(-0.2, 0.2)
    save_file({f"unet/{name}": value for name, value in network.state_dict().items()}, path)
    return network


def threshold_network(path):
    """Save a network of two channels: label 1 where the first is above 0.5, label 2 where the second is."""
    network = UNet(UNetSpec(in_channels=2, out_channels=3, levels=2, width=2, kernel=3, convs=1))
    with torch.no_grad():
        for value in network.parameters():
            value.zero_()
        for level in (network.encoder[0], network.decoder[0]):
            for feature in range(2):
                level.convs[0].weight[feature, feature, 1, 1, 1] = 1  # the skip comes first in the decoder's input
            level.norm.weight.fill_(1)
            level.norm.running_var.fill_(1 - 1e-3)
        for label in (1, 2):
            network.head.weight[label, label - 1] = 40
            network.head.bias[label] = -20
    save_file(dict(network.state_dict()), path)
    return path


def blobs(*corners, shape=(32, 32, 32), size=8):
    """Return zeros with cubes of ones at the corners."""
    values = np.zeros(shape, dtype=np.float32)
    for x, y, z in corners:
        values[x : x + size, y : y + size, z : z + size] = 1
    return values


def run(weights, table, scan, channels=(), grid="native", compatible=False, **options):
    own = GenericOptions(**options)
    segmenter = GenericSegmenter(
        weights,
        table,
        own,
        channels=channels,
        grid=grid,
        compatible=compatible,
        posteriors=True,
        resampled=True,
        threads=1,
    )
    return segmenter.segment(scan)


def rescaled(values):
    low, high = np.percentile(values.astype(np.float64), [0.5, 99.5])
    return ((np.clip(values, low, high) - low) / (high - low)).astype(np.float32)


# ------------------------------------------------------------------------------------- against the published pipeline


def test_published_results_with_the_published_options(tmp_path, shared, narrow_weights):
    table = published_table(tmp_path / "labels.tsv")
    scan = shared("fixtures", "synthseg", "inputs", "aniso_oblique.nii.gz")
    weights = narrow_weights / "synthseg_2.0.h5"
    own = GenericSegmenter(weights, table, GenericOptions(topology=True), crop=64, posteriors=True, threads=1)
    found = own.segment(scan)
    published = predict.segment(scan, weights=weights, crop=64, posteriors=True, threads=1)
    assert found.codes == published.codes == V2_CHANNELS
    np.testing.assert_array_equal(found.labels.data, published.labels.data)
    np.testing.assert_allclose(found.posteriors.data, published.posteriors.data, rtol=0, atol=1e-6)
    total = published.volumes_mm3.pop("total intracranial")
    assert found.volumes_mm3 == pytest.approx(published.volumes_mm3, rel=1e-6, abs=1e-3)
    assert sum(found.volumes_mm3.values()) == pytest.approx(total, rel=1e-6)


def test_default_is_the_published_network_and_the_largest_part(tmp_path, shared, narrow_weights):
    """A plain list has no classes: what is left of the published steps, one after the other."""
    scan = read_volume(shared("fixtures", "synthseg", "inputs", "aniso_oblique.nii.gz"))
    order = sorted_by_side()
    np.save(tmp_path / "labels.npy", np.array(order))
    neutral = [LABELS[code].side for code in order].count("neutral")
    weights = narrow_weights / "synthseg_2.0.h5"
    own = GenericSegmenter(weights, tmp_path / "labels.npy", neutral=neutral, crop=64, grid="1mm", threads=1)
    found = own.segment(scan)
    prepared = prepare(scan, crop=(64, 64, 64))
    backend = PublishedBackend(*load_unets(weights), V2_CHANNELS)
    soft, _ = backend.posteriors(prepared.image, prepared.affine, flip=True, smooth=True)
    soft = soft[(slice(None), *prepared.inside)]
    keep_brain_(soft)
    normalise_(soft)
    expected = np.zeros(prepared.full_shape, dtype=np.int32)
    expected[prepared.patch] = hard_labels(soft, V2_CHANNELS)
    upright = prepared.reorient.apply(found.labels)
    np.testing.assert_array_equal(upright.data, expected)
    sums = soft[1:].sum((1, 2, 3), dtype=float)
    np.testing.assert_allclose(list(found.volumes_mm3.values()), sums, rtol=1e-4, atol=0.1)


def test_golden_data_of_the_published_program(tmp_path, shared, narrow_weights):
    table = published_table(tmp_path / "labels.tsv")
    scan = shared("fixtures", "synthseg", "inputs", "aniso_oblique.nii.gz")
    result = run(narrow_weights / "synthseg_2.0.h5", table, scan, compatible=True, topology=True, padding=128)
    golden = read_volume(shared("fixtures", "synthseg", "predict", "v2_aniso_seg.nii.gz"))
    assert np.mean(result.labels.data != golden.data) <= 2e-4
    np.testing.assert_allclose(result.labels.affine, golden.affine, rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------------------- against theory


@pytest.mark.parametrize(
    "spec",
    [
        UNetSpec(in_channels=2, out_channels=3, levels=3, width=4, kernel=5, convs=1),
        UNetSpec(in_channels=3, out_channels=3, levels=2, width=3, kernel=3, convs=3, skipped=1),
        UNetSpec(in_channels=1, out_channels=3, levels=4, width=2, kernel=3),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
def test_any_architecture_is_read_off_the_weights(tmp_path, spec, flip):
    network = random_network(tmp_path / "own.safetensors", spec)
    shape = (21, 19, 26)
    values = np.random.default_rng(3).normal(50, 9, (*shape, spec.in_channels)).astype(np.float32)
    scan = Volume(values if spec.in_channels > 1 else values[..., 0], np.diag([2.0, 3.0, 2.5, 1.0]))
    table = read_label_table(write_table(tmp_path / "labels.csv"))
    result = run(tmp_path / "own.safetensors", table, scan, target_resolution=None, flip=flip, **PLAIN)

    side = 2**spec.levels
    sides = [-(-n // side) * side for n in shape]
    before = [(p - n) // 2 for p, n in zip(sides, shape, strict=True)]
    inside = tuple(slice(a, a + n) for a, n in zip(before, shape, strict=True))
    image = np.zeros((spec.in_channels, *sides), np.float32)
    for channel in range(spec.in_channels):
        image[(channel, *inside)] = rescaled(values[..., channel])
    with torch.no_grad():
        soft = torch.softmax(network(torch.from_numpy(image)[None]), 1)[0]
        if flip:
            mirrored = torch.softmax(network(torch.from_numpy(image)[None].flip(2)), 1)[0]
            soft = (soft + mirrored.flip(1)[[0, 2, 1]]) / 2
    expected = soft.numpy()[(slice(None), *inside)]
    np.testing.assert_allclose(result.posteriors.data, np.moveaxis(expected, 0, -1), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(result.labels.data, np.array([0, 7, 9])[expected.argmax(0)])
    volumes = expected[1:].sum((1, 2, 3)) * 15
    assert list(result.volumes_mm3) == ["left thing", "right thing"]
    np.testing.assert_allclose(list(result.volumes_mm3.values()), volumes, rtol=1e-4)
    assert result.resampled.data.shape == (values.shape if spec.in_channels > 1 else shape)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.2])
def test_smoothing_is_a_normalised_kernel_of_the_published_width(sigma):
    values = np.random.default_rng(0).random((2, 9, 8, 7), dtype=np.float32)
    half = int(np.ceil(2.5 * sigma) / 2)
    grid = np.mgrid[[slice(-half, half + 1)] * 3]
    kernel = np.exp(-(grid**2).sum(0) / (2 * sigma**2))
    expected = [convolve(channel.astype(float), kernel / kernel.sum(), mode="constant") for channel in values]
    smoothed = values.copy()
    smooth_with_(smoothed, sigma)
    np.testing.assert_allclose(smoothed, expected, atol=1e-6)
    published, untouched = values.copy(), values.copy()
    smooth_(published)
    assert np.array_equal(published, smoothed) == (sigma == 0.5)
    smooth_with_(untouched, 0)
    np.testing.assert_array_equal(untouched, values)


def test_gradients_replace_each_channel(tmp_path):
    ramp = np.zeros((2, 17, 17, 17), np.float32)
    ramp[0, 4:13, 4:13, 4:13] = np.arange(9)[:, None, None] / 8
    ramp[1, 4, 4, 4] = 1
    found = gradient_magnitude(ramp)
    # A ramp of 1/8 a voxel has the gradient 2 * 1/8 * 16 inside; at its last plane it is (0 - 7/8) * 16.
    assert found[0, 8, 8, 8] / found[0, 12, 8, 8] == pytest.approx(2 / 7, rel=1e-5)
    np.testing.assert_allclose([found[0].min(), found[0].max()], [0, 1], atol=1e-6)
    # A point is seen with 4 by its six neighbours, with the root of 2 * 2^2 across an edge, of 3 across a corner.
    point = found[1, 3:6, 3:6, 3:6]
    assert point[1, 1, 1] == 0
    np.testing.assert_allclose([point[0, 1, 1], point[0, 0, 1], point[0, 0, 0]], [1, 8**0.5 / 4, 3**0.5 / 4], rtol=1e-5)

    network = random_network(tmp_path / "own.safetensors", UNetSpec(1, 3, levels=2, width=2))
    values = np.random.default_rng(1).normal(0, 1, (16, 16, 16)).astype(np.float32)
    table = write_table(tmp_path / "labels.csv")
    result = run(tmp_path / "own.safetensors", table, Volume(values, np.eye(4)), gradients=True, flip=False, **PLAIN)
    with torch.no_grad():
        image = torch.from_numpy(gradient_magnitude(rescaled(values)[None]))
        soft = torch.softmax(network(image[None]), 1)[0].numpy()
    np.testing.assert_allclose(result.posteriors.data, np.moveaxis(soft, 0, -1), rtol=0, atol=2e-6)


def test_clean_up_does_what_each_switch_says(tmp_path):
    weights, table = threshold_network(tmp_path / "own.safetensors"), write_table(tmp_path / "labels.csv", SIDELESS)
    one = blobs((2, 2, 2), (2, 2, 9), (2, 20, 20))  # two cubes that overlap, and a loose one
    two = blobs((10, 2, 2), (24, 24, 2))  # one that touches, and a loose one
    scan = Volume(np.stack([one, two], axis=-1), np.eye(4))
    truth = np.where(one > 0, 7, np.where(two > 0, 9, 0))
    kept = run(weights, table, scan, **PLAIN)
    np.testing.assert_array_equal(kept.labels.data, truth)
    expected = {"left thing": (one > 0).sum(), "right thing": (two > 0).sum()}
    assert kept.volumes_mm3 == pytest.approx(expected, rel=1e-4, abs=1)

    largest = run(weights, table, scan, smoothing=0.0)
    near = truth.copy()
    near[:, 18:] = 0
    np.testing.assert_array_equal(largest.labels.data, near)
    np.testing.assert_allclose(largest.posteriors.data.sum(-1), 1, atol=1e-6)

    classes = run(weights, table, scan, smoothing=0.0, keep_largest=False, topology=True)
    single = np.where(near == 7, 7, 0)  # of two equal parts of label 9, the first in scan order stays
    single[10:18, 2:10, 2:10] = 9
    np.testing.assert_array_equal(classes.labels.data, single)
    assert kept.codes == (0, 7, 9)


def test_network_grid_follows_the_target_resolution_and_the_padding(tmp_path, monkeypatch):
    weights, table = threshold_network(tmp_path / "own.safetensors"), write_table(tmp_path / "labels.csv", SIDELESS)
    one, two = blobs((4, 4, 4), size=12), blobs((16, 16, 16), size=12)
    scan = Volume(np.stack([one, two], axis=-1), np.diag([-1.0, 1.0, 1.0, 1.0]))
    seen = []
    plan = GenericRun._plan_memory
    monkeypatch.setattr(
        GenericRun, "_plan_memory", lambda self, backend: (seen.append(self.image.shape), plan(self, backend))[1]
    )
    coarse = run(weights, table, scan, target_resolution=2.0, grid="1mm", padding=42, **PLAIN)
    assert seen.pop() == (2, 44, 44, 44)  # sides are multiples of 4 for two levels
    assert coarse.labels.shape3 == (16, 16, 16)
    assert coarse.resampled.data.shape == (16, 16, 16, 2)
    np.testing.assert_allclose(coarse.labels.affine[:3, :3], np.diag([-2.0, 2, 2]))
    np.testing.assert_allclose(coarse.labels.affine[:3, 3], [-0.5, 0.5, 0.5])
    truth = np.where(one > 0, 7, np.where(two > 0, 9, 0))
    np.testing.assert_array_equal(coarse.labels.data, truth[::2, ::2, ::2])
    native = run(weights, table, scan, target_resolution=2.0, **PLAIN)
    assert seen.pop() == (2, 16, 16, 16)
    np.testing.assert_array_equal(native.labels.affine, scan.affine)
    assert np.mean(native.labels.data != truth) < 0.02
    thick = Volume(scan.data, np.diag([1.0, 1.0, 5.0, 1.0]))
    np.testing.assert_array_equal(run(weights, table, thick, target_resolution=None, **PLAIN).labels.data, truth)
    assert seen.pop() == (2, 32, 32, 32)


@pytest.mark.slow
def test_short_memory_makes_pieces_that_give_the_same(tmp_path, monkeypatch):
    from mri_deep_tools.synthsegment import generic_run

    weights, table = threshold_network(tmp_path / "own.safetensors"), write_table(tmp_path / "labels.csv", SIDELESS)
    shape = (100, 36, 36)
    pair = [blobs((4, 4, 4), (70, 9, 9), shape=shape, size=14), blobs((30, 4, 4), shape=shape, size=14)]
    scan = Volume(np.stack(pair, axis=-1), np.eye(4))
    whole = run(weights, table, scan, **PLAIN)
    need = memory.tile_memory((68, 36, 36), 2, 3) + 100 * 36 * 36 * 4 * 3
    monkeypatch.setattr(generic_run, "available_memory", lambda device=None: need)
    monkeypatch.setattr(generic_run, "engine_bytes", lambda shape, width: need)
    pieces = run(weights, table, scan, **PLAIN)
    assert any("pieces" in text for text in pieces.warnings)
    np.testing.assert_array_equal(pieces.labels.data, whole.labels.data)


# ----------------------------------------------------------------------------------------------------- label lists


def test_published_list_gives_the_published_channels(tmp_path):
    table = read_label_table(published_table(tmp_path / "labels.tsv"))
    assert table.codes == V2_CHANNELS
    assert table.mirror == left_right_permutation(V2_CHANNELS)
    assert table.classes == published_classes(V2_CHANNELS)
    assert table.names[1] == "left cerebral white matter"


def test_list_of_the_training_gives_the_same_channels(tmp_path):
    """The published list of 54 entries has merged labels and zeros in it, on both sides."""
    np.save(tmp_path / "labels.npy", np.array([item.target_v2 for item in GENERATION]))
    table = read_label_table(tmp_path / "labels.npy", neutral=18)
    assert table.codes == V2_CHANNELS
    assert table.mirror == left_right_permutation(V2_CHANNELS)
    assert table.classes is None
    assert read_label_table(tmp_path / "labels.npy").mirror is None


def test_table_with_semicolons_and_without_names(tmp_path):
    table = read_label_table(write_table(tmp_path / "labels.csv", "Label; Side\n9;right\n0;\n4;left\n99; \n\n"))
    assert table.codes == (0, 4, 9, 99)
    assert table.names == ("background", "left lateral ventricle", "label 9", "label 99")
    assert table.mirror == (0, 2, 1, 3)
    assert table.sides == ("neutral", "left", "right", "neutral")
    assert table.classes is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("code,name\n0,a\n", "no column named label"),
        ("", "no column named label"),
        ("label\n1\n2\n", "no label 0"),
        ("label\n-1\n0\n", "label -1, below 0"),
        ("label\n0\nx\n", "row 3: 'x' is not a whole number"),
        ("label\n0\n", "1 labels"),
        ("label\n" + "\n".join(map(str, range(300))), "300 labels"),
        ("label,name\n0,a\n1,b\n2,b\n", "the name 'b'"),
        ("label,side\n0,neutral\n1,up\n", "'up' is no side"),
        ("label,side\n0,neutral\n1,left\n", "1 left and 0 right"),
        ("label,side\n0,neutral\n1,left\n2,right\n1,left\n3,right\n", "do not pair"),
        ("label,name,side\n0,b,\n1,left x,left\n2,left y,left\n3,right y,right\n4,right x,right\n", "pairs 'left x'"),
        ("label,topological_class\n0,0\n1,-2\n", "below 0"),
    ],
)
def test_bad_tables_are_told(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read_label_table(write_table(tmp_path / "labels.csv", text))


def test_bad_lists_are_told(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    np.save(tmp_path / "b.npy", np.arange(4))
    (tmp_path / "c.npy").write_text("no array")
    for name, said in (("a", "whole numbers"), ("c", "not a NumPy array"), ("d", "does not exist")):
        with pytest.raises(InputError, match=said):
            read_label_table(tmp_path / f"{name}.npy")
    with pytest.raises(InputError, match="no two equal sides"):
        read_label_table(tmp_path / "b.npy", neutral=1)
    with pytest.raises(RequestError, match=r"is not \.csv"):
        read_label_table(tmp_path / "labels.txt")
    with pytest.raises(RequestError, match="is a table"):
        read_label_table(write_table(tmp_path / "labels.csv"), neutral=1)


# ------------------------------------------------------------------------------------------------------- bad input


def test_what_does_not_fit_together_is_told(tmp_path):
    weights, table = threshold_network(tmp_path / "own.safetensors"), write_table(tmp_path / "labels.csv", SIDELESS)
    flat = save(tmp_path / "one.nii.gz", blobs((2, 2, 2)))
    moved = save(tmp_path / "moved.nii.gz", blobs((2, 2, 2)), np.diag([1.0, 1.0, 1.1, 1.0]))
    with pytest.raises(InputError, match="comes with 1 channels, but the network takes 2"):
        run(weights, table, flat)
    with pytest.raises(GeometryError, match=r"moved does not lie on the grid of one"):
        run(weights, table, flat, channels=[moved])
    with pytest.raises(InputError, match="no contrast"):
        run(weights, table, Volume(np.ones((8, 8, 8, 2)), np.eye(4)))
    more = write_table(tmp_path / "more.csv", "label\n0\n1\n2\n3\n")
    with pytest.raises(WeightsError, match="gives 3 structures, but the label table lists 4"):
        run(weights, more, flat)
    plain = write_table(tmp_path / "plain.csv", "label\n0\n1\n2\n")
    with pytest.raises(RequestError, match="topological_class"):
        run(weights, plain, flat, topology=True)
    random_network(tmp_path / "flat.safetensors", UNetSpec(1, 3, levels=1, width=2))
    with pytest.raises(WeightsError, match="single level"):
        run(tmp_path / "flat.safetensors", table, flat)
    for options in ({"target_resolution": 0.0}, {"padding": 0}, {"smoothing": -1.0}, {"smoothing": float("nan")}):
        with pytest.raises(RequestError):
            GenericOptions(**options)


def test_first_frame_is_used_by_a_network_of_one_channel(tmp_path):
    random_network(tmp_path / "own.safetensors", UNetSpec(1, 3, levels=2, width=2))
    values = np.random.default_rng(1).normal(0, 1, (16, 16, 16, 2)).astype(np.float32)
    table = write_table(tmp_path / "labels.csv")
    both = run(tmp_path / "own.safetensors", table, Volume(values, np.eye(4)))
    first = run(tmp_path / "own.safetensors", table, Volume(values[..., 0], np.eye(4)))
    np.testing.assert_array_equal(both.labels.data, first.labels.data)
    assert any("2 frames" in text for text in both.warnings)


# ------------------------------------------------------------------------------------------------------- the command


def test_command_with_channels_truth_and_tables(tmp_path):
    weights, table = threshold_network(tmp_path / "own.safetensors"), write_table(tmp_path / "labels.csv")
    one, two = blobs((2, 2, 2)), blobs((20, 20, 20))
    scan, other = save(tmp_path / "t1.nii.gz", one), save(tmp_path / "t2.nii.gz", two)
    truth = np.where(one > 0, 7, 0).astype(np.int16)
    truth[20:28, 20:28, 20:24] = 9  # half of what the network gives: Dice 2 * 256 / (256 + 512)
    true = save(tmp_path / "truth.nii.gz", truth)
    out = tmp_path / "out"
    words = ("--weights", weights, "--labels", table, "--channel", other, "--truth", true, "--threads", "1")
    more = (
        "--smoothing",
        "0",
        "--keep-all-parts",
        "--fast",
        "--volumes",
        out / "volumes.csv",
        "--report",
        out / "page.html",
    )
    done = command("segment", scan, out / "a_dseg.nii.gz", *words, *more, "--target-resolution", "none")
    assert done.returncode == 0, done.stderr
    names = ["a_dseg.json", "a_dseg.nii.gz", "a_dseg.tsv", "dice.csv", "dice.npy", "page.html", "volumes.csv"]
    assert remains(out) == names
    np.testing.assert_array_equal(labels_of(out / "a_dseg.nii.gz"), np.where(one > 0, 7, np.where(two > 0, 9, 0)))
    dice = np.load(out / "dice.npy")
    count = 32**3 - 512
    np.testing.assert_allclose(dice, [[2 * (count - 512) / (2 * count - 768)], [1], [2 / 3]], atol=1e-3)
    assert "mean Dice against the truth: 0.8333" in done.stdout
    rows = list(csv.DictReader((out / "dice.csv").open()))
    assert [(row["label"], row["structure"]) for row in rows][1:] == [("7", "left thing"), ("9", "right thing")]
    (row,) = csv.DictReader((out / "volumes.csv").open())
    assert float(row["left thing (mm^3)"]) == pytest.approx(512, abs=1)
    colours = list(csv.DictReader((out / "a_dseg.tsv").open(), delimiter="\t"))
    assert [(item["index"], item["name"], item["side"]) for item in colours][2] == ("9", "right thing", "right")
    record = json.loads((out / "a_dseg.json").read_text())
    assert [item["Name"] for item in record["Inputs"]] == ["t1.nii.gz", "t2.nii.gz"]
    assert "a network that the user trained" in (out / "page.html").read_text()
    assert str(tmp_path) not in json.dumps(record)


def test_command_for_a_folder_of_4d_images(tmp_path):
    weights, table = threshold_network(tmp_path / "own.safetensors"), write_table(tmp_path / "labels.csv", SIDELESS)
    (tmp_path / "scans").mkdir()
    (tmp_path / "truth").mkdir()
    for name, corner in (("a", (2, 2, 2)), ("b", (9, 9, 9))):
        pair = [blobs(corner), blobs((20, 20, 20))]
        save(tmp_path / "scans" / f"{name}.nii.gz", np.stack(pair, axis=-1))
        save(tmp_path / "truth" / f"{name}.nii.gz", np.where(pair[0] > 0, 7, 0).astype(np.int16))
    words = ("--weights", weights, "--labels", table, "--truth", tmp_path / "truth", "--threads", "1")
    done = command("segment", tmp_path / "scans", tmp_path / "out", *words, "--keep-all-parts", "--compatible")
    assert done.returncode == 0, done.stderr
    dice = np.load(tmp_path / "out" / "dice.npy")
    assert dice.shape == (3, 2)
    np.testing.assert_allclose(dice[1:], [[1, 1], [0, 0]], atol=1e-4)
    again = command("segment", tmp_path / "scans", tmp_path / "out2", *words, "--channel", table)
    assert again.returncode == 2
    assert "--channel goes with one scan" in sentence(again.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--topology",), "--topology needs --labels"),
        (("--target-resolution", "none"), "--target-resolution needs --labels"),
        (("--labels", "labels.csv"), "--labels needs --weights"),
        (("--labels", "labels.csv", "--weights", "own.safetensors", "--robust"), "--robust does not go with --labels"),
        (("--labels", "labels.csv", "--weights", "own.safetensors", "--qc", "q.csv"), "--qc does not go with --labels"),
        (("--labels", "gone.csv", "--weights", "own.safetensors"), "gone.csv does not exist"),
        (("--labels", "labels.csv", "--weights", "gone.h5"), "gone.h5 does not exist"),
        (
            ("--labels", "labels.csv", "--weights", "own.safetensors", "--channel", "gone.mgz"),
            "gone.mgz does not exist",
        ),
        (("--labels", "labels.csv", "--weights", "own.safetensors", "--truth", "gone.mgz"), "gone.mgz: no such file"),
        (
            ("--labels", "labels.csv", "--weights", "own.safetensors", "--target-resolution", "fine"),
            "'fine' is neither",
        ),
        (("--labels", "labels.csv", "--weights", "own.safetensors"), "takes 2"),
    ],
)
def test_wrong_requests_end_with_one_sentence(tmp_path, words, said, capsys, monkeypatch):
    from mri_deep_tools.cli import main

    monkeypatch.chdir(tmp_path)
    threshold_network(tmp_path / "own.safetensors")
    write_table(tmp_path / "labels.csv")
    save(tmp_path / "t1.nii.gz", blobs((2, 2, 2)))
    before = remains(tmp_path)
    assert main(["segment", "t1.nii.gz", "out.nii.gz", *words, "--threads", "1", "--progress", "none"]) in (1, 2)
    assert said in sentence(capsys.readouterr().err)
    assert remains(tmp_path) == before
