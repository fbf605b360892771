"""Generators with phases, and the bundled model iguane-lite."""

from __future__ import annotations

import pytest
import torch
from mri_deep_tools.harmonize.engine import GeneratorEngine, engine_bytes
from mri_deep_tools.harmonize.network import Generator, GeneratorSpec, apart, together
from mri_deep_tools.harmonize.weights import load_generator, save_network


@pytest.fixture
def phased():
    torch.manual_seed(2)
    network = Generator(GeneratorSpec(width=2, levels=2, phases=2)).eval().requires_grad_(False)
    for block in network.blocks:
        block.norm.scale.data.uniform_(0.5, 1.5)
    return network


def test_images_are_taken_apart_and_put_together():
    image = torch.arange(2 * 8 * 4 * 12, dtype=torch.float32).view(2, 1, 8, 4, 12)
    parts = apart(image, 2)
    assert parts.shape == (16, 1, 4, 2, 6)
    assert torch.equal(parts[0, 0], image[0, 0, ::2, ::2, ::2])
    assert torch.equal(parts[8 + 5, 0], image[1, 0, 1::2, ::2, 1::2])
    assert torch.equal(together(parts, 2), image)


def test_every_phase_is_an_image_of_its_own(phased):
    image = torch.rand(16, 16, 24) - 0.5
    plain = Generator(GeneratorSpec(width=2, levels=2)).eval()
    plain.load_state_dict({k: v for k, v in phased.state_dict().items() if k != "phases"})
    made = phased(image[None, None])[0, 0]
    one = plain(image[None, None, 1::2, ::2, 1::2])[0, 0]
    torch.testing.assert_close(made[1::2, ::2, 1::2], one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(16, 16, 24), (13, 20, 18)])
def test_engine_gives_what_the_network_gives(phased, shape):
    image = torch.rand(shape) - 0.5
    done = []
    made = GeneratorEngine(phased).run(image, done.append)
    assert made.shape == shape and done[-1] == 1
    torch.testing.assert_close(made, phased(image[None, None])[0, 0], atol=1e-5, rtol=0)
    assert engine_bytes((160, 192, 160), phased.spec) < engine_bytes((160, 192, 160), GeneratorSpec(2, 2)) * 1.1


def test_phases_are_part_of_the_weights(phased, tmp_path):
    path = save_network(phased, tmp_path / "phased.safetensors")
    found = load_generator(path)
    assert found.spec == phased.spec
    image = torch.rand(1, 1, 16, 16, 16) - 0.5
    assert torch.equal(found(image), phased(image))
