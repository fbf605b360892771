"""Networks of contrast translation against the published programs (golden data), their limits and first weights."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from mri_deep_tools.errors import InputError, RequestError, WeightsError
from mri_deep_tools.translate.adversaries import PatchDiscriminator, ResnetGenerator, TimeDiscriminator
from mri_deep_tools.translate.checkpoint import load_generator, read_state
from mri_deep_tools.translate.fir import TAPS, fir_down, fir_smooth, fir_up
from mri_deep_tools.translate.network import NCSNpp, NCSNppSpec, ResBlock, sinusoids

SMALL = NCSNppSpec(32, width=8, multipliers=(1, 2, 2), blocks=1, attention=(16,), latent=6, embedding=10)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def far(made: torch.Tensor, wanted: torch.Tensor) -> float:
    assert made.shape == wanted.shape
    return float((made - wanted).abs().max())


# ------------------------------------------------------------------------------------------------------- golden data


def test_small_generator(golden_arrays, golden_weights):
    network = load_generator(golden_weights("gen_diffusive_1_small.pth"))
    data = golden_arrays("ncsnpp_small_io.npz")
    x, t, z = data["x"], data["t"], data["z"]
    assert far(network(x, t, z), data["y"]) < 2e-5
    assert far(network(x[:, :, :48], t, z), data["y_nonsquare"]) < 2e-5
    assert far(network.z_transform(z), data["z_emb"]) < 2e-5


def test_generator_of_the_published_size(golden_arrays, golden_weights):
    network = load_generator(golden_weights("gen_diffusive_1_published256.pth"))
    assert sum(weight.numel() for weight in network.parameters()) == 39_725_250
    assert network.spec == NCSNppSpec()
    data = golden_arrays("ncsnpp_published256_io.npz")
    assert far(network(data["x"], data["t"], data["z"]), data["y"]) < 2e-5


def test_one_pass_generator(golden_arrays, golden_weights):
    network = ResnetGenerator()
    network.load_state_dict(read_state(golden_weights("gen_non_diffusive_1to2.pth")))
    assert sum(weight.numel() for weight in network.parameters()) == 7_825_153
    data = golden_arrays("resnet_generator_io.npz")
    assert far(network(data["x"]), data["y"]) < 5e-5


@pytest.mark.parametrize(("kind", "time"), [("large", 32), ("small", 24)])
def test_time_discriminator(golden_arrays, golden_weights, kind, time):
    network = TimeDiscriminator(8, 2, time, small=kind == "small")
    network.load_state_dict(read_state(golden_weights(f"disc_diffusive_{kind}.pth")))
    data = golden_arrays("discriminators_io.npz")
    step = 2 if kind == "small" else 1
    x, t, condition = data["x"][..., ::step, ::step], data["t"], data["x_cond"][..., ::step, ::step]
    wanted = data[f"y_{kind}"]
    assert far(network(x, t, condition), wanted) < 1e-5 * float(wanted.abs().max())
    alone = data[f"y_{kind}_first_alone"]
    assert far(network(x[:1], t[:1], condition[:1]), alone) < 1e-5 * float(alone.abs().max())


def test_patch_discriminator(golden_arrays, golden_weights):
    network = PatchDiscriminator()
    network.load_state_dict(read_state(golden_weights("disc_non_diffusive_cycle1.pth")))
    data = golden_arrays("discriminators_io.npz")
    wanted = data["y_patch"]
    assert far(network(data["x"]), wanted) < 1e-5 * float(wanted.abs().max())
    assert far(network(data["x"][:1]), data["y_patch_first_alone"]) < 1e-5 * float(wanted.abs().max())
    assert network(torch.zeros(1, 1, 256, 256)).shape == (1, 1, 30, 30)


def test_resampling(golden_arrays):
    data = golden_arrays("fir_resampling.npz")
    x = data["x"]
    assert far(fir_down(x), data["down"]) < 1e-6
    assert far(fir_up(x), data["up"]) < 1e-6
    assert far(F.conv2d(fir_smooth(x), data["w"], stride=2), data["conv_down"]) < 1e-6


def test_names_and_shapes_of_every_published_checkpoint(shared):
    manifest = json.loads(shared("fixtures", "syndiff", "state_dict_manifest.json").read_text())

    def build(title: str) -> torch.nn.Module:
        if title.startswith("gen_diffusive"):
            return NCSNpp(NCSNppSpec(image_size=512 if "512" in title else 256))
        if title.startswith("gen_non"):
            return ResnetGenerator()
        return TimeDiscriminator() if title.startswith("disc_diffusive") else PatchDiscriminator()

    assert len(manifest) == 5
    for title, published in manifest.items():
        with torch.device("meta"):
            network = build(title)
        ours = [(name, list(value.shape)) for name, value in network.state_dict().items()]
        theirs = [(name.replace("module.", ""), shape) for name, shape in published.items()]
        assert ours == theirs, title


def test_published_options_name_the_network(shared):
    options = json.loads(shared("fixtures", "syndiff", "ncsnpp_small_config.json").read_text())
    spec = NCSNppSpec.from_options(options)
    assert spec == NCSNppSpec(64, 2, 16, (1, 2, 2, 4), 1, (16,), 16, 32, 3)


# ------------------------------------------------------------------------------------------------------------- theory


def test_resampling_by_definition():
    line = torch.rand(1, 1, 1, 10, dtype=torch.float64)
    taps = torch.tensor(TAPS, dtype=torch.float64)
    image = line.transpose(2, 3) @ line  # separable, so that each axis can be checked on its own
    padded = F.pad(line.flatten(), (1, 1))
    wanted = torch.stack([(padded[k : k + 4] * taps / 8).sum() for k in range(0, 9, 2)])
    assert torch.allclose(fir_down(image)[0, 0], torch.outer(wanted, wanted))
    spread = F.pad(torch.stack([line.flatten(), torch.zeros(10)], dim=1).flatten(), (2, 1))
    wanted = torch.stack([(spread[k : k + 4] * taps / 4).sum() for k in range(20)])
    assert torch.allclose(fir_up(image)[0, 0], torch.outer(wanted, wanted))


def test_embedding_of_steps():
    made = sinusoids(torch.tensor([0, 3]), 5)
    assert torch.allclose(made[0], torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0]))
    wanted = [math.sin(3), math.sin(3e-4), math.cos(3), math.cos(3e-4), 0]
    assert torch.allclose(made[1], torch.tensor(wanted), atol=1e-6)


def test_attention_is_decided_by_the_network_and_not_by_the_image(awake):
    network = awake(NCSNpp(SMALL))
    for height, width in ((32, 32), (8, 16), (64, 32), (20, 44)):  # of all sizes only 32 is that of the training
        made = network(torch.rand(1, 2, height, width), torch.tensor([1]), torch.randn(1, 6))
        assert made.shape == (1, 2, height, width)
        assert bool(made.isfinite().all())
    assert SMALL.multiple == 4


def test_images_that_share_a_batch_do_not_see_each_other(awake):
    network = awake(NCSNpp(SMALL))
    x, t, z = torch.rand(3, 2, 16, 16), torch.tensor([0, 1, 3]), torch.randn(3, 6)
    alone = torch.cat([network(x[k : k + 1], t[k : k + 1], z[k : k + 1]) for k in range(3)])
    assert far(network(x, t, z), alone) < 1e-5
    assert far(network(x, t.flip(0), z), alone) > 1e-3  # the step matters
    assert far(network(x, t, z.flip(0)), alone) > 1e-3  # and so does the latent


def test_spread_of_a_batch_goes_round_its_groups(awake):
    network = awake(TimeDiscriminator(4, 2, 8, small=True))
    x, t, condition = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64), torch.rand(8, 1, 8, 8)
    whole = network(x, t, condition)
    for first in range(2):  # image i belongs to the group of all images j with j = i modulo 2
        chosen = slice(first, None, 2)
        assert far(network(x[chosen], t[chosen], condition[chosen]), whole[chosen]) < 1e-4


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "option",
    [
        {"resblock_type": "ddpm"},
        {"progressive": "output_skip"},
        {"progressive_input": "input_skip"},
        {"progressive_combine": "cat"},
        {"fir": False},
        {"fir_kernel": [1, 2, 1]},
        {"skip_rescale": False},
        {"embedding_type": "fourier"},
        {"conditional": False},
        {"not_use_tanh": True},
        {"resamp_with_conv": False},
    ],
)
def test_variants_that_no_published_model_has(option):
    with pytest.raises(RequestError, match=next(iter(option))):
        NCSNppSpec.from_options({"image_size": 256, **option})


def test_names_of_the_second_program():
    assert NCSNppSpec.from_options({"latent_dim": 7, "fir_kernel": (1, 3, 3, 1)}).latent == 7


@pytest.mark.parametrize(
    "numbers",
    [{"width": 2}, {"multipliers": ()}, {"blocks": 0}, {"dropout": 1.0}, {"width": 20, "multipliers": (1, 5)}],
)
def test_numbers_that_make_no_network(numbers):
    with pytest.raises(RequestError):
        NCSNppSpec(**numbers)


def test_images_that_do_not_fit():
    network = NCSNpp(SMALL)
    with pytest.raises(InputError, match="multiples of 4"):
        network(torch.rand(1, 2, 18, 16), torch.tensor([0]), torch.randn(1, 6))
    with pytest.raises(InputError, match="multiples of 4"):
        ResnetGenerator(width=4, blocks=1)(torch.rand(1, 1, 18, 16))
    small = TimeDiscriminator(4, 2, 8, small=True)
    with pytest.raises(InputError, match="at least 8"):
        small(torch.rand(1, 1, 4, 8), torch.tensor([0]), torch.rand(1, 1, 4, 8))
    with pytest.raises(InputError, match="batch of 6"):
        small(torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64), torch.rand(6, 1, 8, 8))


# --------------------------------------------------------------------------------------- numbers read off the weights


@pytest.mark.parametrize(
    "spec",
    [
        NCSNppSpec(256),
        NCSNppSpec(512),
        NCSNppSpec(64, 2, 16, (1, 2, 2, 4), 1, (16,), 16, 32, 3),
        NCSNppSpec(64, 2, 8, (1, 2, 2), 1, (16, 32), 4, 8, 0),
        NCSNppSpec(32, 2, 8, (1, 3), 3, (16,), 4, 8, 1),
        NCSNppSpec(16, 2, 8, (2,), 2, (16,), 4, 8, 2),
        NCSNppSpec(256, 2, 8, (1, 1, 1), 2, (), 4, 8, 2),
    ],
)
def test_numbers_are_read_off_the_weights(spec):
    with torch.device("meta"):
        state = NCSNpp(spec).state_dict()
    assert NCSNppSpec.from_state(state, spec.image_size) == NCSNppSpec(
        **{**vars(spec), "attention": tuple(sorted(spec.attention, reverse=True))}
    )
    assert NCSNppSpec.from_state(state).image_size == spec.image_size


def test_weights_of_something_else_have_no_numbers():
    with pytest.raises(WeightsError, match="all_modules"):
        NCSNppSpec.from_state({"model.1.weight": torch.zeros(2, 2)})
    with torch.device("meta"):
        state = NCSNpp(SMALL).state_dict()
    with pytest.raises(WeightsError):
        NCSNppSpec.from_state({name: value for name, value in state.items() if not name.startswith("all_modules.3")})


# ------------------------------------------------------------------------------------------------------ first weights


def uniform(weight: torch.Tensor, variance: float) -> None:
    """Check the bound and the variance of a uniform distribution; 1e4 draws or more."""
    bound = math.sqrt(3 * variance)
    assert float(weight.abs().max()) <= bound * (1 + 1e-6)
    assert float(weight.abs().max()) > 0.99 * bound
    assert float(weight.double().var()) == pytest.approx(variance, rel=0.05)
    assert abs(float(weight.double().mean())) < 5 * math.sqrt(variance / weight.numel())


def test_first_weights_of_the_generator():
    torch.manual_seed(0)
    network = NCSNpp(NCSNppSpec(32, width=64, multipliers=(1, 2), blocks=1, attention=(16,)))
    block = network.all_modules[network.layout.downs[1].blocks[0]]
    assert isinstance(block, ResBlock)
    uniform(block.Conv_0.weight, 1 / (9 * (64 + 128) / 2))
    uniform(block.Conv_1.weight, 1e-10 / (9 * 128))
    uniform(block.Dense_0.weight, 1 / ((256 + 128) / 2))
    uniform(block.GroupNorm_0.style.weight, 1 / 128)  # two for each of 64 features
    assert block.GroupNorm_0.style.bias.tolist() == [1.0] * 64 + [0.0] * 64
    attention = network.all_modules[network.layout.middle[1]]
    uniform(attention.NIN_1.W, 0.1 / 128)
    uniform(attention.NIN_3.W, 1e-10 / 128)
    uniform(network.z_transform[1].weight, 1 / 256)
    uniform(network.all_modules[1].weight, 1 / 256)
    assert float(network.all_modules[network.layout.head].weight.abs().max()) < math.sqrt(3e-10 / (9 * 33)) * (1 + 1e-6)
    for name, value in network.named_parameters():
        if name.endswith((".bias", ".b")) and ".style." not in name:
            assert not value.any(), name


def test_first_weights_of_the_other_networks():
    torch.manual_seed(0)
    generator, patch = ResnetGenerator(width=32, blocks=1), PatchDiscriminator(width=32)
    for weight in (generator.model[7].weight, generator.model[11].weight, patch.model[5].weight):
        assert float(weight.std()) == pytest.approx(0.02, rel=0.02)
        assert float(weight.abs().max()) > 3 * 0.02  # normal, not uniform
    assert all(not value.any() for name, value in generator.named_parameters() if name.endswith("bias"))
    large, small = TimeDiscriminator(16, 2, 32), TimeDiscriminator(16, 2, 32, small=True)
    uniform(large.conv2.conv1[0].weight, 1 / (9 * 128))
    uniform(large.conv2.conv2[0].weight, 1e-10 / (9 * 128))
    uniform(large.conv3.skip[0].weight, 1 / 128)
    uniform(large.final_conv.weight, 1 / (9 * 128))
    uniform(small.final_conv.weight, 1e-10 / (9 * 128))
    assert all(not value.any() for name, value in large.named_parameters() if name.endswith("bias"))


def test_an_untrained_generator_gives_almost_nothing():
    torch.manual_seed(0)
    made = NCSNpp(SMALL).eval()(torch.rand(1, 2, 16, 16), torch.tensor([3]), torch.randn(1, 6))
    assert float(made.abs().max()) < 1e-3
