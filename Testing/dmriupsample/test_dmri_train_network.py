"""Networks of our own: batch normalisation in the first layers, and predictions on top of spherical harmonics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mri_deep_tools.dmriupsample.baseline import sh_matrix
from mri_deep_tools.dmriupsample.directions import even_directions
from mri_deep_tools.dmriupsample.harmonics import damped_matrix
from mri_deep_tools.dmriupsample.network import RCNN, unit_names
from mri_deep_tools.dmriupsample.pipeline import Task, run_network
from mri_deep_tools.dmriupsample.weights import load_network, save_network
from mri_deep_tools.volume import Volume


def narrow(dims: int = 1, **options) -> RCNN:
    torch.manual_seed(3)
    network = RCNN(dims, 10, dict.fromkeys(unit_names(dims), 12), **options)
    for name, tensor in network.state_dict().items():
        if "running" in name or name.endswith("bias"):
            tensor.copy_(torch.rand_like(tensor) * 0.4 + (0.5 if "var" in name else -0.1))
    return network.eval()


def test_without_damping_the_base_is_the_published_baseline():
    given, wanted = even_directions(10), even_directions(17)
    matrix = damped_matrix(torch.from_numpy(given), torch.from_numpy(wanted), 1e-12).numpy()
    np.testing.assert_allclose(matrix, sh_matrix(given, wanted), atol=1e-8)


def test_damping_leaves_the_mean_and_bounds_what_crowded_directions_do():
    given = np.concatenate([np.eye(3), -np.eye(3) + 0.02 * np.random.default_rng(0).standard_normal((3, 3))])
    wanted = torch.from_numpy(even_directions(20))
    damped = damped_matrix(torch.from_numpy(given), wanted, 0.006).numpy()
    np.testing.assert_allclose(damped.sum(axis=1), 1, atol=1e-9)  # a constant stays
    assert np.abs(damped).max() < 1 < np.abs(sh_matrix(given, wanted.numpy())).max() / 3


@pytest.mark.parametrize("dims", [1, 3])
def test_engine_gives_what_the_network_gives(dims, tmp_path):
    network = narrow(dims, spatial="batch", smoothing=0.004)
    path = save_network(network, tmp_path / "model.safetensors")
    loaded = load_network(path)
    assert loaded.guided and float(loaded.smoothing) == pytest.approx(0.004)
    generator = np.random.default_rng(5)
    data = generator.random((10, 10, 20, 7), dtype=np.float32) * 100
    given, wanted = (even_directions(n).astype(np.float32) for n in (7, 31))
    mask = np.ones((10, 10, 20), dtype=bool)
    task = Task(Volume(data, np.eye(4)), mask, given, wanted, 100.0, raw=True, inside_only=False)
    found = run_network(task, loaded, torch.device("cpu"))
    patches = torch.from_numpy(np.stack([data[:, :, :10], data[:, :, 10:]]).transpose(0, 4, 1, 2, 3) / 100)
    with torch.no_grad():
        direct = network(patches, *(torch.from_numpy(v).expand(2, -1, -1) for v in (given, wanted)))
    direct = np.concatenate(list(direct.permute(0, 2, 3, 4, 1).numpy()), axis=2) * 100
    assert direct.std() > 1
    np.testing.assert_allclose(found, direct, atol=2e-3)


def test_with_batch_normalisation_a_voxel_depends_on_itself_alone():
    generator = torch.Generator().manual_seed(2)
    images = torch.rand((1, 6, 10, 10, 10), generator=generator)
    vectors = torch.from_numpy(even_directions(6).astype(np.float32))[None]
    other = images.clone()
    other[..., 5:] = 0
    with torch.no_grad():
        for spatial, alone in (("batch", True), ("instance", False)):
            network = narrow(spatial=spatial)
            first, second = network(images, vectors, vectors), network(other, vectors, vectors)
            same = torch.allclose(first[..., :5], second[..., :5], atol=1e-6)
            assert same is alone


def test_half_precision_keeps_the_damping(tmp_path):
    path = save_network(narrow(smoothing=0.0061), tmp_path / "half.safetensors", half=True)
    assert float(load_network(path).smoothing) == pytest.approx(0.0061, rel=1e-6)
