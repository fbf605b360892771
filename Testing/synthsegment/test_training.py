"""Trainings through the real command: they learn, stop and resume exactly, write usable weights, refuse nonsense."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from mri_deep_tools.config import config_from_mapping, load_config, render_config
from mri_deep_tools.errors import RequestError
from mri_deep_tools.synthsegment.train import TASKS, TrainingConfig, default_config, make_network, make_source
from mri_deep_tools.synthsegment.training_maps import load_maps, split_maps

CODES = (2, 3, 4, 41, 42, 43, 16, 24, 506)


def write_map(path, seed=0, size=32):
    """Write a head of nested ellipsoids, halves mirrored, in L-I-A axes like the published maps."""
    axis = np.linspace(-1, 1, size)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = np.sqrt((x * 1.1) ** 2 + y**2 + (z * (1.05 + 0.02 * seed)) ** 2)
    labels = np.zeros((size,) * 3, np.int32)
    for limit, left, right in ((0.95, 506, 506), (0.8, 24, 24), (0.7, 3, 42), (0.55, 2, 41), (0.2, 4, 43)):
        labels[radius < limit] = np.where(x < 0, left, right)[radius < limit]
    affine = np.array([[-1, 0, 0, size / 2], [0, 0, 1, -size / 2], [0, -1, 0, size / 2], [0, 0, 0, 1.0]])
    lia = labels[::-1, :, ::-1].transpose(0, 2, 1)
    nib.Nifti1Image(np.ascontiguousarray(lia), affine).to_filename(path)


@pytest.fixture
def maps(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    for number in range(3):
        write_map(folder / f"map_{number}.nii.gz", number)
    return folder


def command(*words, **changes):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "mri_deep_tools", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        **changes,
    )


def small_config(maps, output, *, steps=6, task="segmentation", **run):
    lines = [
        f"task: {task}",
        f"labels: {maps}",
        "validation: [map_2]",
        "levels: 3",
        "width: 4",
        "wl2_epochs: 1",
        "dice_epochs: 1",
        f"steps_per_epoch: {steps // 2}",
        "generator: {output_shape: 16}",
        f"run: {{output: {output}, accelerator: cpu, devices: 1,",
        "  checkpoint_every: 1, validate_every: 3, log_every: 1}",
    ]
    path = output.parent / f"{output.name}.yaml"
    path.write_text("\n".join(lines))
    return path


def logged(output):
    """Return {step: loss} of all parts of a run."""
    losses = {}
    for path in sorted((output / "logs").glob("version_*/metrics.csv")):
        for row in csv.DictReader(path.open()):
            if row.get("loss"):
                losses[int(row["step"])] = float(row["loss"])
    return losses


def test_published_defaults_are_the_defaults():
    config = default_config()
    assert (config.levels, config.width, config.kernel, config.batch) == (5, 24, 3, 1)
    assert (config.learning_rate, config.wl2_epochs, config.dice_epochs, config.steps_per_epoch) == (
        1e-4,
        1,
        50,
        10_000,
    )
    generator = config.generator
    assert (generator.scaling, generator.rotation, generator.shearing, generator.translation) == (0.2, 15, 0.012, False)
    assert (generator.nonlin_std, generator.nonlin_scale, generator.bias_field_std, generator.bias_scale) == (
        4,
        0.04,
        0.7,
        0.025,
    )
    assert (generator.output_shape, generator.max_res_iso, generator.max_res_aniso, generator.gamma_std) == (
        160,
        4,
        8,
        0.5,
    )


@pytest.mark.parametrize("task", TASKS)
def test_networks_have_the_published_sizes(task):
    """Parameter counts of the specification's table (total, moving statistics included)."""
    expected = {"segmentation": 13_242_849, "groups": 13_242_149, "denoiser": 27_086_501, "second": 13_246_089}
    expected |= {"parcellation": 13_245_045, "qc": 12_450_663, "supervised": 13_242_849}

    class Shape:
        in_channels = {"denoiser": 5, "second": 6, "parcellation": 3, "qc": 9}.get(task, 1)
        codes = tuple(range({"groups": 5, "denoiser": 5, "parcellation": 69, "qc": 9}.get(task, 33)))

    network = make_network(default_config(task), Shape())
    state = network.state_dict()
    assert sum(v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked")) == expected[task]


def test_every_key_is_explained_and_the_print_reads_back(tmp_path):
    import dataclasses

    text = render_config(default_config("groups"))
    for kind in (TrainingConfig, *[type(getattr(TrainingConfig(), n)) for n in ("generator", "run")]):
        for item in dataclasses.fields(kind):
            assert item.metadata.get("help"), item.name
    path = tmp_path / "printed.yaml"
    path.write_text(text)
    assert render_config(load_config(TrainingConfig, path)) == text


def test_wrong_configurations_are_told(tmp_path):
    with pytest.raises(RequestError, match="did you mean 'labels'"):
        config_from_mapping(TrainingConfig, {"label": "x"})
    with pytest.raises(RequestError, match="choose one of"):
        config_from_mapping(TrainingConfig, {"task": "nothing"})
    with pytest.raises(RequestError, match="int is needed"):
        config_from_mapping(TrainingConfig, {"levels": "five"})
    path = tmp_path / "broken.yaml"
    path.write_text("labels: [1, 2")
    with pytest.raises(RequestError, match="not valid YAML"):
        load_config(TrainingConfig, path)


def test_maps_are_split_by_name(maps):
    items = load_maps(maps)
    kept, held = split_maps(items, ["map_1"])
    assert [item.name for item in held] == ["map_1.nii.gz"]
    assert [item.name for item in kept] == ["map_0.nii.gz", "map_2.nii.gz"]
    with pytest.raises(RequestError, match="contains 'map_9'"):
        split_maps(items, ["map_9"])


@pytest.mark.slow
def test_a_resumed_run_makes_the_same_steps(maps, tmp_path):
    """Killed with SIGKILL in the middle, moved and started again, a run logs the losses of one that was left alone."""
    whole = small_config(maps, tmp_path / "whole", steps=8)
    process = command("train", "synthseg", "--config", whole, "--progress", "none")
    _, message = process.communicate(timeout=180)
    assert process.returncode == 0, message
    broken = small_config(maps, tmp_path / "broken", steps=8)
    process = command("train", "synthseg", "--config", broken, "--progress", "none")
    last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (tmp_path / "broken").rename(tmp_path / "moved")
    moved = small_config(maps, tmp_path / "moved", steps=8)
    process = command("train", "synthseg", "--config", moved, "--progress", "none")
    _, message = process.communicate(timeout=180)
    assert process.returncode == 0, message
    assert [path.name for path in (tmp_path / "moved" / "checkpoints").glob("last*")] == ["last.ckpt"]
    expected, found = logged(tmp_path / "whole"), logged(tmp_path / "moved")
    assert max(found) == max(expected) == 7
    for step, loss in found.items():
        assert loss == pytest.approx(expected[step], rel=1e-5), step
    a, b = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for name in ("whole", "moved")
    )
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-5, atol=1e-6)
    from mri_deep_tools.synthsegment.weights import load_states

    for name in ("wl2_001", "dice_001"):
        state = load_states(tmp_path / "whole" / "weights" / f"{name}.safetensors")
        assert state["unet"]["head.weight"].shape[0] == 33


@pytest.mark.parametrize("task", ["segmentation", "groups", "second", "parcellation"])
def test_sources_draw_what_their_network_takes(maps, task):
    config = default_config(task)
    config.levels, config.generator.output_shape = 3, 16
    source = make_source(config, load_maps(maps), [], torch.device("cpu"))
    from mri_deep_tools.synthsegment.generator.draws import Draws

    image, target = source.draw(Draws(1))
    assert image.shape == (source.in_channels, 16, 16, 16)
    assert target.shape == (16, 16, 16)
    assert torch.isfinite(image).all()
    assert int(target.max()) < len(source.codes)
    again, _ = source.draw(Draws(1))
    assert torch.equal(image, again)
    other, _ = source.draw(Draws(2))
    assert not torch.equal(image, other)


@pytest.mark.parametrize("task", ["denoiser", "qc", "supervised"])
@pytest.mark.slow
def test_paired_trainings_take_a_step(maps, tmp_path, task):
    """Two steps through the real command with pairs; noisy maps are the maps themselves, one voxel off."""
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted(maps.iterdir()):
        image = nib.load(path)
        data = np.roll(np.asarray(image.dataobj), 1, 0)
        if task == "denoiser":
            data = np.where(data > 0, 1 + data % 4, 0)
        nib.Nifti1Image(data.astype(np.int32), image.affine).to_filename(images / path.name)
    if task == "denoiser":
        for path in sorted(maps.iterdir()):
            image = nib.load(path)
            data = np.asarray(image.dataobj)
            nib.Nifti1Image(np.where(data > 0, 1 + data % 4, 0).astype(np.int32), image.affine).to_filename(path)
    config = small_config(maps, tmp_path / "run", steps=2, task=task)
    config.write_text(config.read_text() + f"\nimages: {images}\nskipped: {1 if task == 'denoiser' else 0}\n")
    process = command("train", "synthseg", "--config", config, "--progress", "none")
    _, message = process.communicate(timeout=180)
    assert process.returncode == 0, message
    assert all(np.isfinite(loss) for loss in logged(tmp_path / "run").values())


def test_ctrl_c_keeps_the_run(maps, tmp_path):
    config = small_config(maps, tmp_path / "run", steps=4000)
    process = command("train", "synthseg", "--config", config, "--progress", "none")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "continue" in message.strip().splitlines()[-1]
    assert torch.load(last, weights_only=False)["global_step"] > 0


def test_requests_that_cannot_be_met(tmp_path):
    process = command("train", "synthseg")
    _, message = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "set 'labels'" in message.splitlines()[-1]
    process = command("train", "synthseg", "--set", f"labels={tmp_path}")
    _, message = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "no label maps" in message.splitlines()[-1]
