"""Generators with phases, and the bundled model iguane-lite."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from mri_deep_tools.harmonize.engine import GeneratorEngine, engine_bytes
from mri_deep_tools.harmonize.network import Generator, GeneratorSpec, apart, together, without_lattice
from mri_deep_tools.harmonize.simulated_sites import Site, draw_site
from mri_deep_tools.harmonize.template import load_template
from mri_deep_tools.harmonize.weights import load_generator, save_network
from mri_deep_tools.models import model_path


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
    expected = torch.empty_like(image)
    for x, y, z in itertools.product(range(2), repeat=3):
        expected[x::2, y::2, z::2] = plain(image[None, None, x::2, y::2, z::2])[0, 0]
    expected = without_lattice(image[None, None], expected[None, None])
    torch.testing.assert_close(phased(image[None, None]), expected, atol=1e-5, rtol=0)


def test_a_lattice_goes_and_borders_stay():
    """A linear change with a lattice of period 4 upon it, across a sharp border."""
    image = torch.full((1, 1, 32, 32, 32), -0.3)
    image[..., 16:] = 0.4
    image[:, :, :3] = 0  # background
    lattice = torch.zeros_like(image)
    lattice[:, :, ::4, ::4] = 0.1
    made = without_lattice(image, 0.8 * image + 0.05 + lattice)
    inner = (slice(None), slice(None), slice(12, 28), slice(8, 24), slice(8, 24))
    left = made[inner] - 0.8 * image[inner] - 0.05
    assert left.std() < 0.15 * lattice[inner].std()
    assert (left.mean(dim=(2, 3)) - lattice.mean()).abs().max() < 0.01  # on both sides of the border, and at it
    assert torch.equal(made[:, :, :3], (0.05 + lattice)[:, :, :3])


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


# --- the bundled model ------------------------------------------------------------------------------------------


def shown_by(site: Site, tissue: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return every fourth voxel of a brain as a site shows it, median 0, background 0."""
    values = site.curve(tissue)
    return np.where(brain, values / np.median(values[brain]) - 1, 0).astype(np.float32)


def test_bundled_model_makes_sites_alike():
    """A real average brain, shown with eight contrasts that the training did not have."""
    network = load_generator(model_path("iguane-lite"))
    assert network.spec == GeneratorSpec(width=8, levels=3, phases=4)
    network.spec = replace(network.spec, phases=1)  # every fourth voxel is one phase
    template = load_template().data[11:171, 13:205, 1:161][::4, ::4, ::4]
    brain, white = template > 0, np.percentile(template[template > 0], 90)
    tissue = template / white
    parts = [brain & (tissue > low) & (tissue <= high) for low, high in ((0.2, 0.6), (0.6, 0.85), (0.85, 2))]
    before, after = [], []
    for seed in range(8):
        seen = shown_by(draw_site(np.random.default_rng([321, seed])), tissue, brain)
        with torch.no_grad():
            made = network(torch.from_numpy(seen)[None, None])[0, 0].numpy()
        before.append([seen[part].mean() for part in parts])
        after.append([made[part].mean() for part in parts])
        assert np.corrcoef(made[brain], seen[brain])[0, 1] > 0.9
        assert np.isfinite(made).all()
    spread_before, spread_after = np.std(before, axis=0).mean(), np.std(after, axis=0).mean()
    assert spread_after < 0.6 * spread_before, (spread_before, spread_after)
