"""The whole program and the spherical-harmonic baseline against what the original wrote; patches, batches, memory."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from mri_deep_tools.dmriupsample import upsample
from mri_deep_tools.dmriupsample.baseline import coefficients_of, sh_matrix, sh_predict
from mri_deep_tools.dmriupsample.engine import MemoryPlan, PatchEngine, plan_memory
from mri_deep_tools.dmriupsample.network import RCNN, same_conv
from mri_deep_tools.dmriupsample.patches import PatchGrid
from mri_deep_tools.dmriupsample.spectral import SpectralConv
from mri_deep_tools.dmriupsample.weights import load_network
from mri_deep_tools.errors import OutOfMemoryError, RequestError

PIPES = {
    "pipe_1d_b1000_q10": (1, 10, {}),
    "pipe_1d_b1000_q30": (1, 30, {}),
    "pipe_1d_norm_b1000_q10": (1, 10, {"percentile": True}),
    "pipe_3d_b1000_q6": (3, 6, {}),
}
WHOLE_MAX, WHOLE_MEAN = 0.2, 0.02  # tolerances of the golden data, intensity units at xmax 4000


@pytest.mark.parametrize("case", [*list(PIPES)[:3], pytest.param("pipe_3d_b1000_q6", marks=pytest.mark.slow)])
def test_golden_whole_program(golden, weights, case):
    dims, count, options = PIPES[case]
    result = upsample(
        golden(case, "context_dmri.nii.gz"),
        bvecs=golden(case, "context_bvecs"),
        target_bvecs=golden(case, "target_bvecs"),
        mask=golden(case, "mask.nii.gz"),
        shell=1000,
        weights=weights(dims, count),
        compatible=True,
        device="cpu",
        **options,
    )
    image = nib.load(golden(case, "inferred_dmri.nii.gz"))
    difference = np.abs(result.image.data - image.get_fdata())
    assert difference.max() < WHOLE_MAX
    assert difference.mean() < WHOLE_MEAN
    np.testing.assert_allclose(result.image.affine, image.affine, atol=1e-6)
    stages = np.load(golden(case, "stages.npz"))
    assert result.xmax == pytest.approx(float(stages["xmax"]), rel=1e-6)
    assert set(result.kinds) == {"predicted"} and result.context == tuple(range(count))


@pytest.mark.parametrize("case", PIPES)
def test_golden_patches(golden, case):
    stages = np.load(golden(case, "stages.npz"))
    mask = np.asarray(nib.load(golden(case, "mask.nii.gz")).dataobj)
    data = nib.load(golden(case, "context_dmri.nii.gz")).get_fdata(dtype=np.float32)
    grid = PatchGrid(mask)
    np.testing.assert_array_equal(grid.padding, stages["padding"])
    np.testing.assert_array_equal(grid.kept, stages["mask_filter"])
    patches = grid.take(data, np.arange(len(grid))) / np.float32(stages["xmax"])
    if "patches_in" in stages:
        np.testing.assert_allclose(patches, stages["patches_in"], atol=1e-6)
        back = np.zeros((*mask.shape, stages["patches_out"].shape[1]), np.float32)
        grid.put(back, stages["patches_out"] * np.float32(stages["xmax"]), np.arange(len(grid)))
        written = nib.load(golden(case, "inferred_dmri.nii.gz")).get_fdata()
        np.testing.assert_allclose(back, written, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("case", [case for case in PIPES if "norm" not in case])
def test_golden_spherical_harmonics(golden, case):
    result = upsample(
        golden(case, "context_dmri.nii.gz"),
        bvecs=golden(case, "context_bvecs"),
        target_bvecs=golden(case, "target_bvecs"),
        shell=1000,
        method="sh",
    )
    assert np.abs(result.image.data - np.load(golden(case, "sh_baseline.npz"))["sh"]).max() < 0.01


def test_default_differs_from_the_published_program_outside_the_mask_alone(golden, weights):
    case = "pipe_1d_norm_b1000_q10"
    files = {"bvecs": "context_bvecs", "target_bvecs": "target_bvecs", "mask": "mask.nii.gz"}
    paths = {name: golden(case, file) for name, file in files.items()}
    result = upsample(
        golden(case, "context_dmri.nii.gz"), **paths, shell=1000, weights=weights(1, 10), percentile=True, device="cpu"
    )
    inside = result.mask.data > 0
    published = nib.load(golden(case, "inferred_dmri.nii.gz")).get_fdata()
    assert np.abs(result.image.data - published)[inside].max() < 0.3  # b-vectors of six decimals are made unit length
    assert not result.image.data[~inside].any()
    assert published[~inside].any()


# --------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("patch", [4, 5, 10])
def test_spectral_convolution_is_the_direct_one(patch):
    generator = torch.Generator().manual_seed(patch)
    x = torch.randn(3, 6, patch, patch, patch, generator=generator, dtype=torch.float64)
    kernels = [
        torch.randn(width, 6, k, k, k, generator=generator, dtype=torch.float64) for width, k in ((4, 2), (5, 3))
    ]
    direct = torch.cat([same_conv(x, kernel, None) for kernel in kernels], dim=1)
    spectral = SpectralConv(kernels, patch)(x.permute(2, 3, 4, 0, 1).contiguous())
    torch.testing.assert_close(spectral.permute(3, 4, 0, 1, 2), direct, atol=1e-11, rtol=0)


@pytest.mark.parametrize("dims", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_engine_gives_the_plain_networks_numbers(golden, weights, dims):
    data = np.load(golden(f"bare_{dims}d_q10.npz"))
    network = load_network(weights(dims, 10))
    images, bvecs = torch.from_numpy(data["enc_images"]), torch.from_numpy(data["enc_bvecs"])
    assert not torch.equal(bvecs[0], bvecs[1])
    targets = torch.from_numpy(data["dec_bvecs"][0])
    plain = network(images, bvecs[:1].expand(2, -1, -1), targets.expand(2, -1, -1))
    for spectral in {dims == 3, False}:
        engine = PatchEngine(network, MemoryPlan(spectral, 3, 10, 0))
        found = engine.decode(engine.encode(images, bvecs[0]), targets)
        assert (found - plain).abs().max() < 2e-5, spectral  # float32; the order of sums depends on the threads


def test_unwanted_voxels_do_not_change_the_others(weights):
    network = load_network(weights(1, 6))
    engine = PatchEngine(network, MemoryPlan(False, 4, 8, 0))
    states = torch.rand(2, 48, 10, 10, 10, generator=torch.Generator().manual_seed(0)) - 0.5
    targets = torch.eye(3)
    wanted = torch.rand(2, 10, 10, 10, generator=torch.Generator().manual_seed(1)) < 0.3
    whole, part = engine.decode(states, targets), engine.decode(states, targets, wanted)
    inside = wanted[:, None].expand_as(whole)
    torch.testing.assert_close(part[inside], whole[inside], atol=2e-6, rtol=0)


def test_memory_is_bounded_and_told():
    network, cpu = RCNN(3), torch.device("cpu")
    large = plan_memory(network, cpu, 10_000, 4 << 30)
    assert large.spectral and large.bytes_needed <= 4 << 30
    small = plan_memory(network, cpu, 10_000, 200 << 20)
    assert not small.spectral and small.bytes_needed <= 200 << 20 and small.pairs >= 1
    assert not plan_memory(network, cpu, 10, 4 << 30).spectral  # too little work for the spectra
    for limit, context in ((1 << 20, 1), (100 << 20, 10)):
        with pytest.raises(OutOfMemoryError, match="the network needs"):
            plan_memory(network, cpu, 10, limit, context)


# --------------------------------------------------------------------------------------------- spherical harmonics


def sphere(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("order", [2, 4])
def test_even_polynomials_are_predicted_exactly(order):
    given, wanted = sphere(40), sphere(9, 1)
    tensor = np.random.default_rng(2).normal(size=(3, 3))
    signal = lambda v: 3 + np.einsum("ni,ij,nj->n", v, tensor, v) ** (order // 2)  # noqa: E731
    found = sh_predict(signal(given)[None], given, wanted, order)
    np.testing.assert_allclose(found[0], signal(wanted), rtol=1e-5)
    assert coefficients_of(order) == {2: 6, 4: 15}[order]


def test_same_numbers_as_dipys_basis():
    shm = pytest.importorskip("dipy.reconst.shm")
    given, wanted = sphere(12), sphere(5, 3)

    def basis(vectors):
        x, y, z = vectors.T
        theta, phi = np.arccos(z), np.arctan2(y, x)
        return shm.real_sh_descoteaux(4, theta, phi, legacy=False)[0][:, :6]

    np.testing.assert_allclose(sh_matrix(given, wanted), basis(wanted) @ np.linalg.pinv(basis(given)), atol=1e-6)


def test_directions_that_determine_nothing_are_refused():
    plane = sphere(20) * [1, 1, 0]
    with pytest.raises(RequestError, match="do not determine spherical harmonics of order 2"):
        sh_matrix(plane, plane)
    with pytest.raises(RequestError, match="order 2 need 6 directions, not 5"):
        sh_matrix(sphere(5), sphere(5))
    with pytest.raises(RequestError, match="2, 4, 6"):
        sh_matrix(sphere(20), sphere(5), 3)
