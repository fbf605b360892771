"""Residual networks, and T2w scans without a T1w scan."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mri_deep_tools.cli import main
from mri_deep_tools.errors import WeightsError
from mri_deep_tools.geometry import resample_to
from mri_deep_tools.superresolve import superresolve
from mri_deep_tools.superresolve.network import ResUNet, ResUNetSpec
from mri_deep_tools.superresolve.train import begin_as_identity
from mri_deep_tools.superresolve.weights import load_network, save_network
from mri_deep_tools.volume import Volume, write_volume

SPEC = ResUNetSpec((4, 8), 1, residual=True, t2_alone=True)


@pytest.fixture
def identity(tmp_path):
    """Return the weights file of a network that answers with the T2w it was given."""
    network = ResUNet(SPEC)
    begin_as_identity(network)
    return save_network(network, tmp_path / "identity.safetensors", 32)


def thick_scan():
    from scipy.ndimage import gaussian_filter

    data = gaussian_filter(np.random.default_rng(4).random((36, 40, 12)), (2, 2, 1))
    data[:4] = 0
    return Volume((data * 1000).astype(np.float32), np.diag([-1.0, 1.0, 3.0, 1.0]))


def test_a_residual_network_adds_to_the_t2w_channel():
    torch.manual_seed(0)
    network, x = ResUNet(SPEC), torch.rand(1, 2, 32, 32, 32)
    plain = ResUNet(ResUNetSpec((4, 8), 1))
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(x), plain(x) + x[:, 1:])
    begin_as_identity(network)
    torch.testing.assert_close(network(x), x[:, 1:])


def test_what_a_network_is_stands_in_its_file(identity):
    spec = load_network(identity).spec
    assert (spec.residual, spec.t2_alone, spec.patch) == (True, True, 32)
    assert not ResUNetSpec().residual


def test_the_identity_network_gives_the_interpolated_scan(identity):
    scan = thick_scan()
    result = superresolve(scan, weights=identity)
    assert result.image.spacing == pytest.approx((1, 1, 1))
    assert result.t2_to_t1 is None and result.overlap is None
    expected = resample_to(scan, result.image.shape3, result.image.affine, order=3)
    inside = expected.data > 0
    np.testing.assert_allclose(result.image.data[inside], expected.data[inside], atol=0.01)  # the brightest too


def test_a_template_is_met_by_the_t2w_itself(identity, tmp_path):
    """Same head, shifted by 5 mm: the result lies where the template does."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in (48, 56, 48)), indexing="ij")
    radius = np.sqrt(sum((axis * size) ** 2 for axis, size in zip(grid, (1.2, 1.0, 1.4), strict=True)))
    data = np.where(radius < 0.8, 500 + 400 * np.cos(9 * radius + 2 * grid[0]) + 150 * grid[1], 0).astype(np.float32)
    template = Volume(data, np.diag([-1.0, 1.0, 1.0, 1.0]))
    moved = np.array(template.affine)
    moved[:3, 3] += (5.0, -3.0, 2.0 + 1.0)  # 1 mm: the first slice that is kept
    thick = Volume(np.ascontiguousarray(data[:, :, 1::3]), moved @ np.diag([1, 1, 3.0, 1]))
    place = write_volume(template, tmp_path / "template.nii.gz")
    result = superresolve(thick, weights=identity, template=place, space="template")
    assert result.image.shape3 == template.shape3
    inside = radius < 0.7
    assert np.corrcoef(result.image.data[inside], data[inside])[0, 1] > 0.9


def test_the_published_kind_of_network_needs_a_t1w(tmp_path):
    weights = save_network(ResUNet(ResUNetSpec((4, 8), 1)), tmp_path / "plain.safetensors", 32)
    with pytest.raises(WeightsError, match="needs a T1w scan"):
        superresolve(thick_scan(), weights=weights)


def test_the_command_without_t1(tmp_path, identity):
    scan = write_volume(thick_scan(), tmp_path / "sub-1_T2w.nii.gz")
    out = tmp_path / "out"
    page = tmp_path / "page.html"
    words = ["superresolve", "--t2", scan, out, "--weights", identity, "--report", page, "--quiet"]
    assert main(list(map(str, words))) == 0
    record = json.loads((out / "sub-1_desc-synthetic_T2w.json").read_text())
    assert record["Alignment"] is None
    assert [item["Name"] for item in record["Inputs"]] == ["sub-1_T2w.nii.gz"]
    assert record["Honesty"]["PsnrDb"] == pytest.approx(record["Honesty"]["InterpolationPsnrDb"], abs=3)
    assert "none was given" in page.read_text(encoding="utf-8")
