"""The networks against the original's own numbers, layer by layer, and what makes them different from PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mri_deep_tools.dmriupsample.network import RCNN, KerasBatchNorm, SpatialNorm, same_conv
from mri_deep_tools.dmriupsample.weights import load_network, load_state, network_from_state, save_network
from mri_deep_tools.errors import WeightsError

CASES = [(1, 6), (1, 10), (1, 30), (3, 6), (3, 10)]
OUTPUT_MAX, OUTPUT_MEAN, STATE_MAX = 5e-5, 5e-6, 3e-4  # tolerances of the golden data, float32 on a CPU


@pytest.fixture(scope="module")
def bare(golden, weights):
    """Return a function (dims, q_in) -> golden arrays and the network with its weights."""
    return lambda dims, count: (np.load(golden(f"bare_{dims}d_q{count}.npz")), load_network(weights(dims, count)))


def tensors(data, *names):
    return [torch.from_numpy(data[name]) for name in names]


@pytest.mark.parametrize(("dims", "count"), CASES)
def test_golden_output_and_state(bare, dims, count):
    data, network = bare(dims, count)
    images, bvecs_in, bvecs_out = tensors(data, "enc_images", "enc_bvecs", "dec_bvecs")
    state = network.encoder(images, bvecs_in)
    difference = np.abs(network.decoder(state, bvecs_out).numpy() - data["output"])
    assert difference.max() < OUTPUT_MAX
    assert difference.mean() < OUTPUT_MEAN
    assert np.abs(state[:1].permute(0, 2, 3, 4, 1).numpy() - data["encoder_state"]).max() < STATE_MAX


@pytest.mark.parametrize(("dims", "count"), [(1, 6), (1, 10), (3, 6)])
def test_golden_probes_of_every_unit(bare, dims, count):
    data, network = bare(dims, count)
    seen = {}
    for part in (network.encoder, network.decoder):
        for name, unit in part.named_children():
            unit.register_forward_hook(lambda _unit, _inputs, output, name=name: seen.update({name: output.numpy()}))
    images, bvecs_in, bvecs_out = tensors(data, "enc_images", "enc_bvecs", "dec_bvecs")
    network(images[:1], bvecs_in[:1], bvecs_out[:1])
    names = [name.removeprefix("probe_") for name in data.files if name.startswith("probe_") and "pos" not in name]
    assert set(names) == set(seen) - {"conv_lstm"}
    x, y, z = data["probe_positions"].T
    for name in names:
        unit = seen[name]
        found = unit[[0, -1]][:, :, x, y, z].transpose(2, 0, 1)
        np.testing.assert_allclose(found, data[f"probe_{name}"], atol=3e-4, rtol=1e-4, err_msg=name)
        stats = [unit.mean(), unit.std(), unit.min(), unit.max()]
        np.testing.assert_allclose(stats, data[f"stats_{name}"], atol=3e-4, rtol=1e-4, err_msg=name)


def test_even_kernels_pad_behind():
    x = torch.zeros(1, 1, 3, 3, 3)
    x[0, 0, 0, 0, 0], x[0, 0, 2, 2, 2] = 1.0, 5.0
    weight = torch.zeros(1, 1, 2, 2, 2)
    weight[0, 0, 1, 1, 1] = 1.0  # the neighbour behind
    y = same_conv(x, weight, None)
    assert y[0, 0, 1, 1, 1] == 5.0 and y.sum() == 5.0


def test_spatial_norm_scales_by_voxel_not_by_channel():
    norm = SpatialNorm(4)
    norm.weight.data = torch.arange(64.0).reshape(4, 4, 4)
    x = torch.randn(2, 5, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    y = norm(x)
    centred = x - x.mean((2, 3, 4), keepdim=True)
    expected = centred / torch.sqrt((centred**2).mean((2, 3, 4), keepdim=True) + 1e-3) * norm.weight
    torch.testing.assert_close(y, expected)


def test_batch_norm_keeps_the_population_variance():
    norm = KerasBatchNorm(2).train()
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]]).reshape(2, 2, 1, 1, 1)
    norm(x)
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.02, 0.05]))
    torch.testing.assert_close(norm.running_var, torch.tensor([0.99 + 0.01, 0.99]))  # population variances 1 and 0


def test_targets_are_independent_and_context_order_matters(bare):
    data, network = bare(1, 6)
    images, bvecs_in, bvecs_out = tensors(data, "enc_images", "enc_bvecs", "dec_bvecs")
    state = network.encoder(images, bvecs_in)
    order = torch.arange(bvecs_out.shape[1] - 1, -1, -1)
    torch.testing.assert_close(
        network.decoder(state, bvecs_out[:, order]), network.decoder(state, bvecs_out)[:, order], atol=1e-6, rtol=0
    )
    turned = network.encoder(images.flip(1), bvecs_in.flip(1))
    assert (turned - state).abs().max() > 0.01


@pytest.mark.parametrize(("dims", "parameters", "trainable"), [(1, 846_817, None), (3, 6_833_193, 6_828_761)])
def test_published_sizes(dims, parameters, trainable):
    network = RCNN(dims)
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == parameters
    if trainable:
        assert sum(tensor.numel() for tensor in network.parameters()) == trainable
        parts = [network.encoder, network.decoder]
        assert [sum(t.numel() for t in part.state_dict().values()) for part in parts] == [3_106_832, 3_726_361]


def test_saved_network_comes_back(bare, tmp_path):
    _, network = bare(1, 6)
    path = save_network(network, tmp_path / "model.safetensors")
    again = load_network(path)
    assert load_network(tmp_path).dims == 1
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_other_networks_are_refused(weights, tmp_path):
    state = load_state(weights(1, 6))
    with pytest.raises(WeightsError, match=r"it lacks decoder\.dcv3\.bias"):
        network_from_state({name: array for name, array in state.items() if name != "decoder.dcv3.bias"}, "mine")
    with pytest.raises(WeightsError, match=r"it also holds extra"):
        network_from_state(state | {"extra": np.zeros(1)}, "mine")
    with pytest.raises(WeightsError, match=r"another shape of encoder\.ecv11\.bias"):
        network_from_state(state | {"encoder.ecv11.bias": np.zeros(5)}, "mine")
    with pytest.raises(WeightsError, match="does not hold a dMRI-RCNN network"):
        network_from_state({"a": np.zeros(1)}, "mine")
    (tmp_path / "m.safetensors").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_state(tmp_path / "m.safetensors")
