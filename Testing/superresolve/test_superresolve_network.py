"""The published network against golden data, and its cut-down form against the whole one."""

from __future__ import annotations

import gzip
from functools import partial

import numpy as np
import pytest
import torch
from mri_deep_tools.errors import WeightsError
from mri_deep_tools.superresolve.engine import PatchEngine
from mri_deep_tools.superresolve.network import PUBLISHED, ResUNet, ResUNetSpec, build_network, reachable_state
from mri_deep_tools.superresolve.patches import patch_starts, reconstruct
from mri_deep_tools.superresolve.preprocess import Scaling, pad_volume
from mri_deep_tools.superresolve.weights import (
    from_upstream,
    load_network,
    read_upstream,
    save_network,
    to_upstream,
    upstream_names,
)
from mri_deep_tools.volume import read_volume

TOLERANCE = 2e-5  # of outputs that range over about 3; float32 noise against float64 is 2e-6


def keep(outputs, key, layer, inputs, output):
    outputs[key] = output[0].numpy()


def cubes_of(channels, indices):
    starts = patch_starts(channels.shape[1:])
    return np.stack([channels[:, x : x + 32, y : y + 32, z : z + 32] for x, y, z in (starts[i] for i in indices)])


@pytest.mark.parametrize("name", ["shallow", "narrow"])
@pytest.mark.parametrize("whole", [True, False])
def test_patches_equal_the_published_ones(golden, channels, weights_file, name, whole):
    expected = golden(f"infer_{name}.npz")
    engine = PatchEngine(load_network(weights_file(name), whole=whole))
    found = engine(cubes_of(channels, expected["patch_indices"]))
    assert np.abs(found - expected["patch_outputs"]).max() <= TOLERANCE
    everything = engine(cubes_of(channels, range(36)))
    assert np.abs(everything.sum(axis=(1, 2, 3), dtype=np.float64) - expected["patch_output_sums"]).max() <= 0.2


@pytest.mark.parametrize("name", ["shallow", "narrow"])
def test_volumes_equal_the_published_ones(golden, channels, weights_file, name):
    expected = golden(f"infer_{name}.npz")
    found = reconstruct(PatchEngine(load_network(weights_file(name))), channels)
    if name == "shallow":
        assert np.abs(found[::2, ::2, ::2] - expected["reconstruction_every_2nd"]).max() <= TOLERANCE
    else:
        assert np.abs(found - expected["reconstruction"]).max() <= TOLERANCE


def test_every_layer_equals_the_published_one(golden, channels, weights_file):
    """Mean, sample standard deviation, first and last element of each convolution's output."""
    for name in ("shallow", "narrow"):
        expected = golden(f"activations_{name}.json")
        network = load_network(weights_file(name), whole=True)
        names = {theirs: ours for theirs, ours in upstream_names(network.spec) if theirs.endswith("weight")}
        outputs = {}
        for theirs, ours in names.items():
            if not ours.endswith("slope"):
                layer = network.get_submodule(ours.removesuffix(".weight"))
                layer.register_forward_hook(partial(keep, outputs, theirs.removesuffix(".weight")))
        with torch.inference_mode():
            network(torch.from_numpy(cubes_of(channels, [expected["patch_index"]])))
        compared = 0
        for key, output in outputs.items():
            for golden_key in (key, f"{key}.conv"):
                if golden_key in expected["layers"]:
                    numbers = [output.mean(), output.std(ddof=1), output.flat[0], output.flat[-1]]
                    np.testing.assert_allclose(numbers, expected["layers"][golden_key], rtol=2e-4, atol=2e-5)
                    compared += 1
        assert compared == len(outputs) > 15


@pytest.mark.slow
def test_the_published_size(golden, weights_file):
    """1.5 GB of weights: converted once, outputs at the golden tolerances."""
    path = weights_file("full")
    network = load_network(path)
    assert sum(tensor.numel() for tensor in network.parameters()) < 47e6
    expected = golden("infer_full.npz")
    pair = []
    for name in ("full_t1w.nii.gz", "full_t2w_aniso.nii.gz"):
        padded, _ = pad_volume(read_volume(golden(name)))
        pair.append(Scaling.of(padded.data).apply(padded.data))
        np.testing.assert_allclose(padded.affine, expected["affine"], atol=1e-6)
    engine = PatchEngine(network)
    found = engine(cubes_of(np.stack(pair).astype(np.float32), expected["patch_indices"]))
    assert np.abs(found - expected["patch_outputs"]).max() <= TOLERANCE
    assert np.abs(reconstruct(engine, np.stack(pair)) - expected["reconstruction"]).max() <= TOLERANCE


def test_the_published_size_counted():
    with torch.device("meta"):
        network, cut = ResUNet(PUBLISHED), ResUNet(PUBLISHED.with_patch(32))
    assert sum(tensor.numel() for tensor in network.parameters()) == 379_053_826
    assert len(network.state_dict()) == 221
    assert sum(tensor.numel() for tensor in cut.parameters()) == 46_262_018


@pytest.mark.parametrize(
    ("channels", "units", "patch"), [((3, 4), 1, 2), ((3, 4), 3, 2), ((2, 3, 4), 4, 4), ((2, 3, 4, 5), 2, 8)]
)
def test_what_is_left_out_meets_padding_alone(channels, units, patch):
    """In float64 the cut-down network equals the whole one to rounding; a larger cube would differ."""
    torch.manual_seed(1)
    spec = ResUNetSpec(channels, units)
    whole = ResUNet(spec).double().eval()
    cut_spec = spec.with_patch(patch)
    cut = build_network(reachable_state(whole.state_dict(), cut_spec), cut_spec)
    cubes = torch.randn(3, 2, patch, patch, patch, dtype=torch.float64)
    with torch.inference_mode():
        assert (whole(cubes) - cut(cubes)).abs().max() < 1e-12
    gradient = torch.autograd.grad(whole(cubes).sum(), list(whole.parameters()))
    reached = sum(int((part != 0).sum()) for part in gradient)
    assert reached <= sum(tensor.numel() for tensor in cut.parameters()) < sum(t.numel() for t in whole.parameters())


def test_batches_and_empty_patches_change_nothing(channels, weights_file):
    engine = PatchEngine(load_network(weights_file("narrow")))
    sparse = np.zeros((2, 64, 64, 48), dtype=np.float32)
    sparse[:, :20, :20, :20] = channels[:, 20:40, 20:40, 20:40]
    asked = []

    def counting(cubes):
        asked.append(len(cubes))
        return engine(cubes)

    plain = reconstruct(engine, sparse, batch=1, reuse_empty=False)
    quick = reconstruct(counting, sparse, batch=5)
    assert np.abs(plain - quick).max() <= TOLERANCE
    assert sum(asked) == 8 + 1 < len(patch_starts(sparse.shape[1:])) == 18


def test_channel_order_matters(golden, channels, weights_file):
    expected = golden("infer_narrow.npz")
    engine = PatchEngine(load_network(weights_file("narrow")))
    swapped = engine(cubes_of(channels[::-1], expected["patch_indices"]))
    assert np.abs(swapped - expected["patch_outputs"]).max() > 1


# ------------------------------------------------------------------------------------------------------------- files


def test_names_and_order_of_the_published_file(weights_file):
    state = read_upstream(weights_file("narrow"))
    network = load_network(weights_file("narrow"), whole=True)
    again = to_upstream(network.state_dict(), network.spec)
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert from_upstream(again, network.spec).keys() == network.state_dict().keys()


def test_converted_once(weights_file, own_cache, monkeypatch):
    path = weights_file("shallow")
    first = load_network(path)
    assert list((own_cache / "converted").glob("*baby-ai*"))
    monkeypatch.setattr("mri_deep_tools.superresolve.weights.read_upstream", None)
    second = load_network(path)
    assert second.spec == first.spec == ResUNetSpec((6, 10, 14), 3, patch=32)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_own_files_keep_whole_kernels_and_the_patch(tmp_path, weights_file):
    whole = load_network(weights_file("narrow"), whole=True)
    path = save_network(whole, tmp_path / "own.safetensors", 32)
    cut = load_network(path)
    assert cut.spec == whole.spec.with_patch(32)
    again = load_network(path, whole=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def renamed(state, old, new):
    return {name.replace(old, new): value for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "model.2.0.conv.bias"}, "lacks the tensor model.2.0.conv.bias"),
        (lambda s: s | {"model.9.weight": torch.zeros(1)}, "a tensor too many, model.9.weight"),
        (lambda s: renamed(s, "model.", "net."), "begins with the tensor net."),
        (lambda s: s | {"model.0.conv.unit0.conv.weight": torch.zeros(6, 1, 3, 3, 3)}, "takes 1 input channels"),
        (lambda s: s | {"model.0.residual.weight": torch.zeros(6, 2, 1, 1, 1)}, "has the shape (6, 2, 1, 1, 1)"),
        (lambda s: s | {"model.0.conv.unit0.adn.N.weight": torch.zeros(6)}, "normalisation layers"),
        (lambda s: {}, "does not hold the residual U-Net"),
        (lambda s: [1, 2], "no dictionary of tensors"),
        (lambda s: {"model": "text"}, "no dictionary of tensors"),
    ],
)
def test_files_of_other_networks_are_told(tmp_path, weights_file, change, expected):
    path = tmp_path / "other.pth"
    torch.save(change(read_upstream(weights_file("shallow"))), path)
    with pytest.raises(WeightsError, match=r"other\.pth") as caught:
        load_network(path)
    assert expected in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


class Malicious:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_nothing_in_a_file_runs(tmp_path):
    torch.save({"model": Malicious(tmp_path / "harm")}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_network(tmp_path / "bad.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "an empty file"), (b"<!doctype html><html>", "a web page"), (b"PK\x03\x04" + bytes(100), "cut short")],
)
def test_files_that_are_no_weights(tmp_path, content, expected):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    assert expected in str(caught.value)
    with pytest.raises(WeightsError, match="does not exist"):
        load_network(tmp_path / "none.pth")


def test_gzipped_and_old_files(tmp_path, weights_file):
    path = weights_file("shallow")
    packed = tmp_path / "w.pth"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(WeightsError, match="gunzip"):
        load_network(packed)
    old = tmp_path / "old.pth"
    torch.save(read_upstream(path), old, _use_new_zipfile_serialization=False)
    assert load_network(old).spec == load_network(path).spec


def test_half_precision_stays_close(golden, channels, weights_file):
    expected = golden("infer_shallow.npz")
    engine = PatchEngine(load_network(weights_file("shallow")), "cpu", torch.bfloat16)
    found = engine(cubes_of(channels, expected["patch_indices"]))
    assert found.dtype == np.float32
    assert 1e-5 < np.abs(found - expected["patch_outputs"]).mean() < 0.02
