"""Training of dMRI-RCNN: golden steps, runs that are stopped and go on, the command, and what it refuses."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from mri_deep_tools.cli import main
from mri_deep_tools.dmriupsample.facts import read_facts
from mri_deep_tools.dmriupsample.harmonics import predict_damped
from mri_deep_tools.dmriupsample.packing import PackOptions, pack_subjects
from mri_deep_tools.dmriupsample.phantom import built_in_labels, make_phantom
from mri_deep_tools.dmriupsample.simulate import even_scheme, simulate_dmri
from mri_deep_tools.dmriupsample.subjects import find_subjects
from mri_deep_tools.dmriupsample.train import DmriTrainingConfig, make_module, make_network, train
from mri_deep_tools.dmriupsample.training_data import Batch, PackedSource, Recipe, SimulatedSource
from mri_deep_tools.dmriupsample.weights import load_network
from mri_deep_tools.errors import CancelledError, RequestError
from mri_deep_tools.progress import Progress
from mri_deep_tools.volume import write_volume

SMALL = {"directions": [6, 10], "targets": 4, "voxels": 16}


def simulated(folder, **changes) -> DmriTrainingConfig:
    """Return the configuration of a very small training."""
    config = DmriTrainingConfig(source="simulated", dims=1, norm="batch", width=0.05, smoothing=0.005, batch=4)
    config.run.output, config.run.steps, config.run.log_every = str(folder), 20, 5
    config.run.accelerator, config.run.devices, config.steps_per_epoch = "cpu", 1, 10
    config.validation_examples, config.learning_rate = 16, 3e-3
    for name, value in SMALL.items():
        setattr(config.simulation, name, value)
    for name, value in changes.items():
        setattr(config.run if hasattr(config.run, name) else config, name, value)
    return config


def metrics(folder) -> list[dict[str, str]]:
    paths = sorted(folder.glob("logs/version_*/metrics.csv"))
    return [row for path in paths for row in csv.DictReader(path.open())]


@pytest.mark.parametrize(
    ("precision", "steps"),
    [
        ("float64", 2),
        pytest.param("float64", 4, marks=pytest.mark.slow),
        pytest.param("float32", 4, marks=pytest.mark.slow),
    ],
)
def test_golden_steps(golden, weights, tmp_path, precision, steps):
    shutil.copy(golden("train", "data.tfrecord.gz"), tmp_path / "one.tfrecord.gz")
    options = PackOptions((1000, 2000, 3000), frame="stored", crop=False)
    packed = pack_subjects(find_subjects(tmp_path), options, tmp_path / "packed.h5", Progress())
    source = PackedSource(packed, Recipe(options.shells, 6, 10, random_starts=False, shuffle=False))
    module = make_module(DmriTrainingConfig(dims=1, initial_weights=str(weights(1, 6))), source, None)
    kind = getattr(torch, precision)
    module.to(kind).train()
    module.requires_grad_(True)
    optimiser = module.configure_optimizers()

    def batch(numbers: list[int]) -> Batch:
        made = source.batch(numbers)
        return Batch(*(getattr(made, n).to(kind) for n in ("images", "bvecs_in", "bvecs_out", "target")))

    losses = []
    for step in range(steps):
        loss = module.loss(batch([2 * step, 2 * step + 1]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    module.eval()
    with torch.no_grad():
        after = float(module.loss(batch([0, 1]))) if steps == 4 else None
    with np.load(golden("train", "train_steps.npz")) as expected:
        double = precision == "float64"
        wanted = expected["losses_float64"] if double else expected["losses"]
        limits = [1e-6, 1e-4, 1e-4, 1e-4] if double else [2e-5, 1e-2, 1e-1, 1e-1]
        for found, right, limit in zip(losses, wanted[:steps], limits[:steps], strict=True):
            assert found == pytest.approx(float(right), rel=limit)
        if double and steps == 4:
            assert after == pytest.approx(float(expected["eval_loss_float64"]), rel=1e-4)
            state = module.network.state_dict()
            names = {"gamma": "norm.weight", "moving_mean": "norm.running_mean", "moving_variance": "norm.running_var"}
            for leaf, own in names.items():
                right = expected[f"after4_f64__ecvl1__{leaf}"]
                np.testing.assert_allclose(state[f"encoder.ecvl1.{own}"].numpy(), right, atol=2e-5)
            np.testing.assert_allclose(
                state["decoder.dc4.weight"].numpy().ravel(), expected["after4_f64__dc4__kernel"].ravel(), atol=2e-5
            )


def test_simulated_training_learns_and_says_what_it_is_for(tmp_path):
    config = simulated(tmp_path, steps=120, steps_per_epoch=40, average=0.9, half=True, smoothing=0.05)
    last = train(config, Progress())
    assert last.is_file()
    rows = [row for row in metrics(tmp_path) if row.get("validation_mae")]
    first, final = (float(rows[k]["validation_mae"]) for k in (0, -1))
    assert final < 0.97 * first
    assert {"validation_mae_6", "validation_mae_10", "validation_rmse"} <= set(rows[0])
    path = tmp_path / "weights" / "model.safetensors"
    facts = read_facts(path)
    assert facts is not None and facts.directions == (6, 10) and facts.shell == 1000 and facts.percentile
    assert load_network(path).guided


def test_a_fresh_network_begins_as_harmonics(tmp_path):
    config = simulated(tmp_path)
    network = make_network(config).eval()
    batch = SimulatedSource.pair(config)[1].batch([0, 1, 2, 3])
    with torch.no_grad():
        found = network(batch.images, batch.bvecs_in, batch.bvecs_out)
        base = predict_damped(batch.images, batch.bvecs_in, batch.bvecs_out, 0.005)
    np.testing.assert_allclose(found.numpy(), base.clamp_min(0).numpy(), atol=1e-6)


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path):
    whole = simulated(tmp_path / "whole", steps=16, steps_per_epoch=8, average=0.9)
    train(whole, Progress())
    cut = simulated(tmp_path / "cut", steps=16, steps_per_epoch=8, average=0.9, checkpoint_every=3)
    with pytest.raises(CancelledError):
        train(cut, Progress(lambda event: _stop_at(event, 0.4)))
    assert (tmp_path / "cut" / "checkpoints" / "last.ckpt").is_file()
    train(simulated(tmp_path / "cut", steps=16, steps_per_epoch=8, average=0.9), Progress())
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for name in ("whole", "cut")
    )
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-6)


def _stop_at(event: object, share: float) -> None:
    if getattr(event, "fraction", 0) > share:
        os.kill(os.getpid(), signal.SIGTERM)


def test_validation_never_sees_what_training_sees():
    config = simulated("unused")
    source, held = SimulatedSource.pair(config)
    seen = {source.batch([k]).images.numpy().tobytes() for k in range(40)}
    assert not seen & {held.batch([k]).images.numpy().tobytes() for k in range(40)}
    counts = [held.batch(group).images.shape[1] for group in held.groups(4, 16)]
    assert counts == [6, 10, 6, 10]


def test_published_network_is_the_default():
    config = DmriTrainingConfig()
    state = make_network(config).state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == 6_833_193
    narrow = make_network(DmriTrainingConfig(dims=1, width=0.5)).state_dict()
    assert narrow["encoder.init.weight"].shape[0] == 100 and narrow["decoder.dcv3.weight"].shape[0] == 16


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """Return a table of three simulated scans."""
    folder = tmp_path_factory.mktemp("subjects")
    rows = ["subject,dwi,mask"]
    for seed in range(3):
        scan = simulate_dmri(make_phantom(built_in_labels((12, 13, 12), 10), seed=seed), even_scheme([1000], [16]),
                             seed=seed)  # fmt: skip
        write_volume(scan.image, folder / f"s{seed}.nii.gz")
        write_volume(scan.mask, folder / f"s{seed}_mask.nii.gz", intent="label")
        scan.table.write_fsl(folder / f"s{seed}.bval", folder / f"s{seed}.bvec", scan.image.affine)
        rows.append(f"s{seed},s{seed}.nii.gz,s{seed}_mask.nii.gz")
    (folder / "subjects.csv").write_text("\n".join(rows) + "\n")
    return folder / "subjects.csv"


def command(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mri_deep_tools", "train", "dmri-rcnn", *map(str, words), "--progress", "none"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_command_trains_on_a_table_and_the_result_predicts(subjects, tmp_path):
    run = tmp_path / "run"
    settings = ["dims=1", "width=0.05", "norm=batch", "wanted=4", "epochs=2", "batch=2", "steps_per_epoch=3",
                'validation=["s2"]', "validation_examples=4"]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    done = command(*words, "--set", f"data={subjects}", "--output", run, "--cpu", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout and (run / "packed.h5").is_file()
    weights = run / "weights" / "model.safetensors"
    facts = read_facts(weights)
    assert facts is not None and facts.directions == (6,) and not facts.percentile
    dwi = subjects.with_name("s2.nii.gz")
    done = subprocess.run(
        [sys.executable, "-m", "mri_deep_tools", "upsample-dmri", dwi, tmp_path / "more.nii.gz", "--directions", "5",
         "--weights", weights, "--mask", subjects.with_name("s2_mask.nii.gz"), "--cpu", "--progress", "none"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert nib.load(tmp_path / "more.nii.gz").shape[3] == 1 + 5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ([], "the configuration names no data"),
        (["source=simulated"], "set dims to 1 and norm to batch"),
        (["data=nowhere.csv"], "nowhere.csv does not exist"),
        (["data=x", "shells=[1500]"], "no fixed scaling"),
        (["data=x", "measured=0"], "set both to 1 or more"),
        (["source=simulated", "dims=1", "norm=batch", "simulation.snr=[0, 5]"], "two numbers above 0"),
        (["source=simulated", "dims=1", "norm=batch", "simulation.white=0.9", "simulation.grey=0.3"], "sum to 1"),
        (["source=simulated", "dims=1", "norm=batch", "width=9"], "width 9 is not offered"),
        (["dims=2"], "choose one of 1, 3"),
        (["source=simulated", "dims=1", "norm=batch", "initial_weights=none.safetensors"], "none.safetensors"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, settings, sentence):
    monkeypatch.chdir(tmp_path)
    words = [word for setting in settings for word in ("--set", setting)]
    status = main(["train", "dmri-rcnn", *words, "--output", str(tmp_path / "run"), "--cpu"])
    told = capsys.readouterr().err
    assert status in (1, 2) and sentence in told and "Traceback" not in told, told


def test_initial_weights_of_another_network_are_refused(weights):
    with pytest.raises(RequestError, match="of another network"):
        make_network(DmriTrainingConfig(dims=1, width=0.5, initial_weights=str(weights(1, 6))))
