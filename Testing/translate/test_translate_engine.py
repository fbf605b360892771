"""The engine against the network that it stands for, the golden data, and its own plan of memory."""

from __future__ import annotations

import pytest
import torch
from mri_deep_tools.errors import InputError
from mri_deep_tools.translate.checkpoint import load_generator
from mri_deep_tools.translate.convolution import RowConvolution
from mri_deep_tools.translate.diffusion import Draws, Schedule, draw, sample
from mri_deep_tools.translate.engine import TranslationEngine, engine_bytes
from mri_deep_tools.translate.network import NCSNpp, NCSNppSpec
from mri_deep_tools.translate.passes import activate
from mri_deep_tools.translate.weights import Direction

SPECS = [
    NCSNppSpec(32, width=32, multipliers=(1, 2, 3), blocks=1, attention=(32, 8), latent=7, embedding=16),
    NCSNppSpec(16, width=8, multipliers=(2,), blocks=2, attention=(16,), latent=5, embedding=8, mapping_layers=0),
    NCSNppSpec(64, width=16, multipliers=(1, 2, 5), blocks=1, attention=(), latent=5, embedding=8),
    NCSNppSpec(32, width=16, multipliers=(1, 1, 2, 2), blocks=2, attention=(8,), latent=5, embedding=8),
]


def engine_of(network: NCSNpp, steps: int = 4, **options) -> TranslationEngine:
    return TranslationEngine(Direction("T1w", "T2w", network, Schedule(steps), {}), **options)


def translated(network: NCSNpp, source: torch.Tensor, draws: Draws, steps: int = 4) -> torch.Tensor:
    with torch.inference_mode():
        return sample(network, Schedule(steps), source, start=draws.start, latents=draws.latents, noises=draws.noises)


def test_golden_trajectory(golden_arrays, golden_weights):
    data = golden_arrays("trajectory_small.npz")
    engine = engine_of(load_generator(golden_weights("gen_diffusive_1_small.pth")))
    made = engine.run(data["source"], Draws(data["noise_init"], data["z"], data["noise"]))
    assert float((made - data["sample"]).abs().max()) < 2e-5


def test_golden_generator_of_the_published_size(golden_arrays, golden_weights):
    data = golden_arrays("ncsnpp_published256_io.npz")
    engine = engine_of(load_generator(golden_weights("gen_diffusive_1_published256.pth")))
    made = engine.generate(data["x"], int(data["t"][0]), data["z"])
    assert float((made - data["y"][:, :1]).abs().max()) < 1e-5


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", [(1, 64, 32), (3, 40, 48)])
def test_equal_to_the_network(awake, spec, shape):
    torch.manual_seed(1)
    network = awake(NCSNpp(spec))
    source, draws = torch.rand(shape)[:, None] * 2 - 1, draw(shape, 3, spec.latent, torch.Generator().manual_seed(2))
    wanted = translated(network, source, draws, 3)
    made = engine_of(network, 3).run(source, draws)
    assert float(wanted.std()) > 0.05  # neither constant nor saturated
    assert float((made - wanted).abs().max()) < 2e-5


def test_activations_of_joined_tensors_far_from_zero():
    """Groups go over the border of two tensors, and the mean is a hundred times the deviation."""
    generator = torch.Generator().manual_seed(0)
    parts = [
        (100 + torch.randn(2, c, 37, 41, generator=generator)).contiguous(memory_format=torch.channels_last)
        for c in (40, 24)
    ]
    scale, shift = torch.randn(2, 64, generator=generator), torch.randn(2, 64, generator=generator)
    whole = torch.cat(parts, dim=1).double()
    normal = torch.nn.functional.group_norm(whole, 16, eps=1e-6)
    wanted = torch.nn.functional.silu(normal * scale.double()[..., None, None] + shift.double()[..., None, None])
    made = activate(parts, scale, shift)
    assert float((made - wanted).abs().max()) < 2e-4  # float32 itself knows such values to 8e-6 of a deviation
    assert activate(parts[:1], scale[:, :40], shift[:, :40], in_place=True).data_ptr() == parts[0].data_ptr()


def test_input_and_network_stay_as_they_are(awake):
    network = awake(NCSNpp(SPECS[0]))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    source, draws = torch.rand(1, 1, 16, 16), draw((1, 16, 16), 4, 7)
    copies = [part.clone() for part in (source, draws.start, draws.latents, draws.noises)]
    engine = engine_of(network)
    first = engine.run(source, draws)
    assert torch.equal(engine.run(source, draws), first)
    for part, copy in zip((source, draws.start, draws.latents, draws.noises), copies, strict=True):
        assert torch.equal(part, copy)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_random_numbers_of_a_generator(awake):
    engine = engine_of(awake(NCSNpp(SPECS[0])))
    source, shares = torch.rand(2, 1, 16, 16), []
    made = engine.run(source, torch.Generator().manual_seed(5), shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert torch.equal(made, engine.run(source, draw((2, 16, 16), 4, 7, torch.Generator().manual_seed(5))))
    assert not torch.equal(made, engine.run(source, torch.Generator().manual_seed(6)))
    torch.manual_seed(5)
    assert torch.equal(made, engine.run(source))


def test_shapes_that_do_not_fit(awake):
    engine = engine_of(awake(NCSNpp(SPECS[0])))
    for shape in ((1, 16, 16), (1, 2, 16, 16), (1, 1, 18, 16)):
        with pytest.raises(InputError):
            engine.run(torch.rand(shape))
    with pytest.raises(InputError, match="random numbers of shape"):
        engine.run(torch.rand(2, 1, 16, 16), draw((1, 16, 16), 4, 7))


def test_half_precision_stays_near(awake):
    network = awake(NCSNpp(SPECS[3]))
    source, draws = torch.rand(1, 1, 32, 32) * 2 - 1, draw((1, 32, 32), 4, 5, torch.Generator().manual_seed(0))
    exact = engine_of(network).run(source, draws)
    made = engine_of(network, dtype=torch.bfloat16).run(source, draws)
    assert made.dtype == torch.float32
    assert 0 < float((made - exact).abs().mean()) < 0.05


@pytest.mark.parametrize("spec", SPECS[:2])
def test_the_way_of_a_gpu_gives_the_same(awake, monkeypatch, spec):
    """Only the device differs: the layers and their order are those that run on a GPU."""
    network = awake(NCSNpp(spec))
    source, draws = torch.rand(2, 1, 32, 48) * 2 - 1, draw((2, 32, 48), 4, spec.latent)
    monkeypatch.setattr("mri_deep_tools.translate.engine._channels_last", lambda device: False)
    assert float((engine_of(network).run(source, draws) - translated(network, source, draws)).abs().max()) < 2e-5


@pytest.mark.gpu
@pytest.mark.parametrize("spec", SPECS)
def test_equal_on_a_gpu(awake, spec):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    network = awake(NCSNpp(spec))
    source, draws = torch.rand(3, 1, 32, 48) * 2 - 1, draw((3, 32, 48), 4, spec.latent)
    wanted = translated(network, source, draws)
    assert float((engine_of(network, device="cuda").run(source, draws).cpu() - wanted).abs().max()) < 1e-4


def test_batches_fit_into_memory(awake, monkeypatch):
    engine = engine_of(awake(NCSNpp(SPECS[0])))
    assert engine.batch_size(256, 256) == 1
    assert engine.batch_size(64, 64) == 16
    assert engine.batch_size(2048, 2048) == 1
    needed = engine_bytes((1, 64, 64), SPECS[0])
    monkeypatch.setattr("mri_deep_tools.translate.engine.available_memory", lambda device: 6 * needed)
    assert engine.batch_size(64, 64) == 3


def test_memory_grows_with_images_and_widths():
    one = engine_bytes((1, 256, 256))
    assert 100e6 < one < 200e6  # 170 MB were measured
    assert engine_bytes((4, 256, 256)) == 4 * one
    assert engine_bytes((1, 256, 256), NCSNppSpec(width=32)) < 0.6 * one


# ---------------------------------------------------------------------------------------- convolutions of large images


@pytest.mark.parametrize(("batch", "inputs", "outputs", "height", "width"), [(1, 32, 48, 64, 64), (2, 40, 32, 8, 520)])
def test_large_images_are_convolved_as_others(batch, inputs, outputs, height, width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, inputs, height, width, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)
    bias = torch.randn(outputs, generator=generator)
    wanted = torch.nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    kept = x.clone()
    assert RowConvolution.pays(x, outputs)
    assert float((RowConvolution(weight)(x, bias) - wanted).abs().max()) < 3e-5  # values have a deviation of 1.4
    assert torch.equal(x, kept)


def test_pieces_of_any_size_make_the_same_convolution(monkeypatch):
    x = torch.randn(1, 32, 68, 64).contiguous(memory_format=torch.channels_last)
    convolution, bias = RowConvolution(torch.randn(32, 32, 3, 3)), torch.randn(32)
    wanted = convolution(x, bias)
    for chunk, slab in ((1, 1), (1 << 14, 1 << 13), (1 << 30, 1 << 30)):
        monkeypatch.setattr("mri_deep_tools.translate.convolution._CHUNK", chunk)
        monkeypatch.setattr("mri_deep_tools.translate.convolution._SLAB", slab)
        torch.testing.assert_close(convolution(x, bias), wanted, rtol=0, atol=1e-4)


def test_the_scheme_is_left_where_it_does_not_pay():
    assert not RowConvolution.pays(torch.empty(1, 64, 66, 64), 64)  # no multiple of four
    assert not RowConvolution.pays(torch.empty(1, 64, 32, 32), 64)
    assert not RowConvolution.pays(torch.empty(1, 2, 256, 256), 64)
