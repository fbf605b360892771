"""The compact network and its backend: folding, windows, geometry, export, and the bundled model where it ships."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from mri_deep_tools.errors import WeightsError
from mri_deep_tools.synthsegment.backend import Backend
from mri_deep_tools.synthsegment.labels import V2_CHANNELS, left_right_permutation
from mri_deep_tools.synthsegment.lite import LiteBackend, _Search, find_window, load_lite, put, rescale, take
from mri_deep_tools.synthsegment.lite_network import LiteConfig, LiteNetwork, fold, labels_of_cells, unfold
from mri_deep_tools.synthsegment.losses import mean_dice
from mri_deep_tools.synthsegment.train_lite import choose_cells

BUNDLED = Path(str(resources.files("mri_deep_tools") / "weights" / "synthseg-lite"))
SMALL = LiteConfig(33, (4, 8, 8), 1)


def test_folding_is_undone():
    volume = torch.arange(2 * 3 * 4 * 6 * 8).reshape(2, 3, 4, 6, 8)
    assert torch.equal(unfold(fold(volume)), volume)
    assert fold(volume).shape == (2, 24, 2, 3, 4)


def test_head_on_chosen_cells_equals_head_on_all():
    """The training's short cut gives the same logits, and labels in the same order, as the whole output."""
    torch.manual_seed(0)
    network = LiteNetwork(SMALL).eval()
    scan, labels = torch.rand(1, 1, 16, 16, 24), torch.randint(0, 33, (16, 16, 24))
    whole = network(scan)[0]
    cells = torch.randperm(8 * 8 * 12)[:50]
    part = network.logits_of_cells(network.features(scan), cells)
    expected = torch.stack([labels_of_cells(channel, cells) for channel in whole], dim=2)
    torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)
    assert labels_of_cells(labels, cells).shape == (50, 8)


def test_all_cells_of_rare_structures_are_chosen():
    from mri_deep_tools.synthsegment.generator.draws import Draws

    labels = torch.zeros((16, 16, 16), dtype=torch.long)
    labels[4:12, 4:12, 4:12] = 1
    labels[6, 7, 8] = 17
    rare = torch.zeros(33, dtype=torch.bool)
    rare[17] = True
    for seed in range(5):
        assert (labels_of_cells(labels, choose_cells(labels, rare, Draws(seed))) == 17).any()


def test_mean_dice_against_theory():
    truth = torch.tensor([0, 1, 1, 2, 2, 2])
    found = torch.tensor([0, 1, 0, 2, 2, 1])
    assert mean_dice(found, truth, 3) == pytest.approx((2 * 1 / 4 + 2 * 2 / 5) / 2)


def test_window_follows_the_brain_and_may_leave_the_array():
    mask = np.zeros((100, 100, 100), bool)
    mask[0:60, 40:100, 20:80] = True
    mask[95, 5, 5] = True  # an island does not move it
    mask[30:32, 70:72, 0:20] = True  # nor does a thin stalk, such as the neck
    window = find_window(mask)
    assert [b - a for a, b in window] == [80, 96, 80]
    assert [(a + b) / 2 for a, b in window] == [30, 70, 50]
    image = np.random.default_rng(0).random(mask.shape, np.float32)
    patch = take(image, window)
    assert patch.shape == (80, 96, 80)
    back = np.zeros((1, *mask.shape), np.float32)
    put(back, patch[None], window)
    inside = np.zeros(mask.shape, bool)
    inside[0:70, 22:100, 10:90] = True
    np.testing.assert_array_equal(back[0], np.where(inside, image, 0))
    assert find_window(np.zeros((8, 8, 8), bool)) is None


def test_rescale_ignores_constant_images():
    assert (rescale(np.full((20, 20, 20), 3, np.float32)) == 3).all()


@pytest.fixture
def folder(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(1)
    state = {k: v.half() for k, v in LiteNetwork(SMALL).state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "model.safetensors")
    shape = {"channels": 33, "widths": [4, 8, 8], "decoder_blocks": 1}
    (tmp_path / "config.json").write_text(json.dumps({"shape": shape, "statistics": "own"}))
    return tmp_path


def test_backend_mirrors_exactly(folder):
    """With flip averaging, a mirrored scan gives the mirrored posteriors with sides exchanged."""
    backend = LiteBackend(load_lite(folder))
    assert isinstance(backend, Backend)
    image = np.random.default_rng(0).random((48, 48, 48)).astype(np.float32)
    window = [(0, 48)] * 3

    def averaged(scan):
        return backend._averaged(np.ascontiguousarray(scan), window, lambda share: None)

    swap = list(left_right_permutation(V2_CHANNELS))
    np.testing.assert_allclose(averaged(image[::-1]).numpy(), averaged(image).flip(1)[swap].numpy(), atol=1e-5)


def test_no_window_is_looked_at_twice_and_the_last_look_is_the_pass():
    """A network that finds three structures in a bright cube, and is asked as rarely as possible."""
    seen = []

    def run(patch):
        seen.append(patch.tobytes())
        posterior = torch.zeros((33, *patch.shape))
        bright = torch.from_numpy(patch > 0.5)
        posterior[0][~bright] = 1
        for third, channel in enumerate((1, 2, 5)):
            posterior[channel, third::3] = bright[third::3].float()
        return posterior

    image = np.full((100, 120, 100), 0.01, np.float32)
    image[50:90, 10:50, 40:80] = 1
    search = _Search(image, run, V2_CHANNELS)
    window = search.locate()
    assert window is not None and all(0 <= b - (90, 50, 80)[axis] < 40 for axis, (_, b) in enumerate(window))
    looks = len(seen)
    assert looks > 2 and len(set(seen)) == looks
    posterior = search.posterior(window)
    assert len(set(seen)) == looks
    assert torch.equal(posterior, run(rescale(take(image, window))))


@pytest.mark.slow
def test_posteriors_come_on_the_1_mm_grid_of_a_window_with_its_place(folder):
    backend = LiteBackend(load_lite(folder))
    image = np.random.default_rng(0).random((60, 90, 70)).astype(np.float32)
    turned = np.array([[0, -1.0, 0, 20], [1, 0, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1]])
    for flip in (True, False):
        posteriors, affine = backend.posteriors(image, turned, flip=flip, smooth=True)
        np.testing.assert_allclose(posteriors.sum(0), 1, atol=1e-4)
        np.testing.assert_array_equal(affine[:3, :3], turned[:3, :3])
        if posteriors.shape[1:] != image.shape:  # a brain was found
            assert posteriors.shape == (33, 160, 192, 160)
        corner = np.linalg.inv(turned) @ affine[:, 3]
        np.testing.assert_allclose(corner % 2, [0, 0, 0, 1], atol=1e-9)


@pytest.mark.slow
def test_the_command_takes_a_model_folder_and_records_its_weights(folder, tmp_path):
    import hashlib

    import nibabel as nib
    from mri_deep_tools.cli import main

    image = np.random.default_rng(0).random((40, 44, 40)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.diag([2.0, 2, 2, 1])), tmp_path / "scan.nii.gz")
    words = ["segment", str(tmp_path / "scan.nii.gz"), str(tmp_path / "labels.nii.gz"), "--weights", str(folder)]
    assert main([*words, "--progress", "none"]) == 0
    (record,) = json.loads((tmp_path / "labels.json").read_text())["Models"]
    assert record["File"] == "model.safetensors"
    assert record["SHA256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert nib.load(tmp_path / "labels.nii.gz").shape == image.shape


def test_wrong_model_folders_are_told(folder):
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_lite(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_lite(folder)


@pytest.mark.skipif(not (BUNDLED / "model.safetensors").is_file(), reason="the package carries no synthseg-lite yet")
def test_bundled_model_is_small_and_complete():
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 12_000_000
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    assert "Research use only" in card
    backend = LiteBackend(load_lite(BUNDLED))
    assert backend.codes == V2_CHANNELS
