"""Training of prediction networks: golden updates, data, samples, a toy that is learnt, resume, files."""

from __future__ import annotations

import csv
import json
import os
import signal

import numpy as np
import pytest
import torch
from mri_deep_tools.cli import main
from mri_deep_tools.errors import CancelledError, InputError, OutputError, RequestError
from mri_deep_tools.harmonize.augmentation import augment
from mri_deep_tools.harmonize.network import Predictor
from mri_deep_tools.harmonize.optimiser import KerasAdam, linear_rate
from mri_deep_tools.harmonize.predictor_data import BatchStream, ImageStore, find_targets, split_scans
from mri_deep_tools.harmonize.predictor_train import PredictorConfig, prediction_loss, train_predictor
from mri_deep_tools.harmonize.predictor_weights import load_prediction_model
from mri_deep_tools.harmonize.weights import load_state
from mri_deep_tools.progress import Progress
from mri_deep_tools.training import RunOptions
from mri_deep_tools.volume import Volume, write_volume

AFFINE = np.array([[-1.0, 0, 0, 16], [0, 1, 0, -16], [0, 0, 1, -16], [0, 0, 0, 1]])


def brain(age, seed, side=32):
    """Return a ball of grey and white matter whose ventricle grows with age, median 500, background 0."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices((side,) * 3) - (side - 1) / 2 - rng.uniform(-1, 1, 3)[:, None, None, None]
    radius = np.sqrt((x / 11) ** 2 + (y / 13) ** 2 + (z / 11) ** 2) * rng.uniform(0.95, 1.05)
    values = np.where(radius < 0.8, 550.0, 420.0)
    values[np.sqrt(x**2 + (y / 1.6) ** 2 + (z / 1.2) ** 2) < 2 + (age - 20) / 17] = 150
    values = np.where(radius < 1, values + rng.normal(0, 15, values.shape), 0).clip(0)
    return (values * 500 / np.median(values[values > 0])).astype(np.float32)


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """Return a table of 48 brains: path, person (two scans each), age, group (old or young)."""
    folder, rng = tmp_path_factory.mktemp("toys"), np.random.default_rng(0)
    rows = [("path", "person", "age", "group")]
    for index in range(48):
        age = round(float(rng.uniform(20, 80)), 1)
        write_volume(Volume(brain(age, index), AFFINE), folder / f"scan{index:02d}.nii.gz")
        rows.append((f"scan{index:02d}.nii.gz", f"p{index // 2}", age, "old" if age > 50 else "young"))
    with (folder / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "table.csv"


def small(table, output, **changes):
    config = PredictorConfig(data=str(table), batch=4, epochs=2, start_at_median=True)
    config.run.output, config.run.accelerator, config.run.threads = str(output), "cpu", 1
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def part_of(table, folder, count):
    lines = table.read_text().splitlines()[: count + 1]
    place = folder / f"first{count}.csv"
    place.write_text("\n".join([lines[0], *(f"{table.parent}/{line}" for line in lines[1:])]))
    return place


# ------------------------------------------------------------------------------------------------------- golden data


def test_the_published_updates(golden, weights_files):
    """Three steps of the published training; the first is exact, later ones carry Keras's rounding."""
    data, x = golden("predictor_training.npz"), golden("predictor_io.npz")["x"]
    network = Predictor.for_shape(x.shape[1:4])
    network.load_state_dict(load_state(weights_files["predictor"]))
    network.train()
    optimiser = KerasAdam(network.parameters(), lambda made: linear_rate(made, 20, 1e-3, 1e-4))
    images, targets = torch.from_numpy(np.moveaxis(x, -1, 1).copy()), torch.from_numpy(data["targets"])
    for step in (1, 2, 3):
        optimiser.zero_grad()
        loss = prediction_loss(network(images), targets, "regression")
        loss.backward()
        optimiser.step()
        assert float(loss.detach()) == pytest.approx(data["loss"][step - 1], rel=1e-4 if step == 1 else 1e-2)
        for number, block in enumerate(network.blocks):
            for place, name in ((2 * number, "moving_mean"), (2 * number + 1, "moving_variance")):
                found = block.norm.running_mean if name == "moving_mean" else block.norm.running_var
                expected = data[f"step{step}/{place:02d}_{name}"]
                error = np.abs(found.numpy() - expected).max() / np.abs(expected).max()
                assert error < (1e-3 if step == 1 else 4e-2), (step, place)
    assert abs(float(network.dense.bias.detach()) - data["final/dense/bias"][0]) < 1e-6
    with torch.inference_mode():
        np.testing.assert_allclose(network.eval()(images).numpy(), data["y_after_3_steps"][:, 0], rtol=3e-2)


# -------------------------------------------------------------------------------------------------------------- data


def test_targets_of_a_table(toys, tmp_path):
    scans, classes = find_targets(toys, "age", subject="person")
    assert len(scans) == 48 and classes is None
    assert scans[3].subject == "p1" and 20 <= scans[3].target <= 80
    groups, classes = find_targets(toys, "group", "classification")
    assert classes == ("old", "young")
    swapped, other = find_targets(toys, "group", "classification", ["young", "old"])
    assert other == ("young", "old")
    assert [one.target for one in groups] == [1 - one.target for one in swapped]
    assert [one.target for one in swapped] == [float(scan.target > 50) for scan in scans]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,age\nscan00.nii.gz,old\n", r"age in row 1 of bad\.csv is 'old', not a number"),
        ("path,age\nscan00.nii.gz,\n", "not a number"),
        ("path,years\nscan00.nii.gz,4\n", r"no column 'age'.*'path', 'years'"),
        ("age,sex\n4,F\n", "does not say where the scans are"),
        ("path,age\nnone.nii.gz,4\n", r"none\.nii\.gz, named in bad\.csv, does not exist"),
        ("path,age\nscan00.nii.gz,4,5\n", "line 2 of bad.csv has 3 cells"),
        ("path,age\n", "has no rows"),
        ("path,age,age\nscan00.nii.gz,4,5\n", "column 'age' twice"),
    ],
)
def test_tables_that_cannot_be_used_are_told(toys, text, told):
    table = toys.parent / "bad.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=told):
        find_targets(table, "age")


def test_three_groups_need_a_choice(tmp_path):
    for name in "abc":
        write_volume(Volume(brain(40, 1), AFFINE), tmp_path / f"{name}.nii.gz")
    (tmp_path / "t.csv").write_text("path,group\na.nii.gz,CN\nb.nii.gz,MCI\nc.nii.gz,AD\n")
    with pytest.raises(InputError, match=r"needs two classes; the column 'group' of .* has AD, CN, MCI"):
        find_targets(tmp_path / "t.csv", "group", "classification")
    scans, classes = find_targets(tmp_path / "t.csv", "group", "classification", ["CN", "AD"])
    assert [scan.target for scan in scans] == [0, 1] and classes == ("CN", "AD")


def test_no_person_falls_on_both_sides_of_the_split(toys):
    scans, _ = find_targets(toys, "age", subject="person")
    train, held = split_scans(scans, 0.25, 1)
    assert len(held) == 12 and len(train) == 36
    assert not {scan.subject for scan in train} & {scan.subject for scan in held}
    assert split_scans(scans, 0.25, 1)[1] == held != split_scans(scans, 0.25, 2)[1]
    assert split_scans(scans, 0.0, 1) == (scans, [])
    with pytest.raises(RequestError, match="leave none for training"):
        split_scans(scans[:2], 0.9, 1)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_images_are_read_once(toys, tmp_path, monkeypatch, place):
    from mri_deep_tools.harmonize import predictor_data

    scans, _ = find_targets(toys, "age")
    reads, read = [], predictor_data.read_volume
    monkeypatch.setattr(predictor_data, "read_volume", lambda path, **k: reads.append(path.name) or read(path, **k))
    paths = [scan.path for scan in scans[:5]]
    store = ImageStore(paths, None, 500.0, tmp_path, place)
    store.preload()
    store.preload()
    assert sorted(reads) == [f"scan0{n}.nii.gz" for n in ([0, 0, 1, 2, 3, 4] if place == "disk" else range(5))]
    assert store.shape == (32, 32, 32) and store[3].min() == -1.0
    inside = store[3][store[3] > -1]
    assert abs(float(np.median(inside))) < 0.01
    if place == "disk":  # a training that goes on reads nothing again
        again = ImageStore(paths, None, 500.0, tmp_path, place)
        again.preload()
        assert len(reads) == 7
        assert np.array_equal(again[4], store[4])


def test_an_epoch_takes_each_image_once_and_drops_what_fills_no_batch(toys, tmp_path):
    scans, _ = find_targets(toys, "age")
    scans = scans[:11]
    store = ImageStore([scan.path for scan in scans], None, 500.0, tmp_path)
    stream = BatchStream(store, [scan.target for scan in scans], 4, seed=7, augmented=False)
    assert stream.per_epoch == 2
    epochs = [[target for step in (0, 1) for target in stream.step(2 * epoch + step)[1]] for epoch in range(12)]
    wanted = {np.float32(scan.target) for scan in scans}
    assert all(len(set(epoch)) == 8 and set(epoch) <= wanted for epoch in epochs)
    assert {target for epoch in epochs for target in epoch} == wanted
    assert len({tuple(epoch) for epoch in epochs}) == 12
    images, targets = stream.step(5)
    index = [scan.target for scan in scans].index(pytest.approx(float(targets[2])))
    assert images.shape == (4, 1, 32, 32, 32) and np.array_equal(images[2, 0], store[index])


def test_two_processes_share_each_batch(toys, tmp_path):
    scans, _ = find_targets(toys, "age")
    store = ImageStore([scan.path for scan in scans[:8]], None, 500.0, tmp_path)

    def stream(rank, world):
        made = BatchStream(store, [scan.target for scan in scans[:8]], 4, seed=1)
        made.rank, made.world = rank, world
        return made

    whole, parts = stream(0, 1).step(3), [stream(rank, 2).step(3) for rank in (0, 1)]
    assert np.array_equal(whole[0][0::2], parts[0][0]) and np.array_equal(whole[0][1::2], parts[1][0])


def test_augmentation_is_a_function_of_the_sample_number(toys, tmp_path):
    scans, _ = find_targets(toys, "age")
    store = ImageStore([scan.path for scan in scans[:6]], None, 500.0, tmp_path)
    targets = [scan.target for scan in scans[:6]]
    stream, plain = (BatchStream(store, targets, 2, seed=7, augmented=on) for on in (True, False))
    made, whole = stream.sample(9)[0], plain.sample(9)[0]
    assert np.array_equal(made, augment(whole, np.random.default_rng([7, 1, 9])))
    assert not np.array_equal(made, whole) and np.array_equal(made, stream.sample(9)[0])


def test_workers_give_the_same_batches_in_the_same_order(toys, tmp_path):
    from torch.utils.data import DataLoader

    scans, _ = find_targets(toys, "age")
    store = ImageStore([scan.path for scan in scans[:6]], None, 500.0, tmp_path, "disk")
    stream = BatchStream(store, [scan.target for scan in scans[:6]], 2, seed=3)
    stream.start = 1
    loader = iter(DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork"))
    for number in range(1, 6):
        images, targets = next(loader)
        assert np.array_equal(images.numpy(), stream.step(number)[0])
        assert np.array_equal(targets.numpy(), stream.step(number)[1])


# ---------------------------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_age_is_learnt_from_the_size_of_the_ventricle(toys, tmp_path):
    """Six short epochs on 36 toy brains; the constant guess is off by 12 years on the held-out persons."""
    config = small(toys, tmp_path / "run", epochs=6, batch=3, validation_share=0.25, subject="person")
    config.learning_rate = 3e-3
    best = train_predictor(config, Progress())
    stats = json.loads((tmp_path / "run" / "stats.json").read_text())
    assert len(stats["loss"]) == len(stats["val_loss"]) == 6
    network, spec = load_prediction_model(best)
    train, held = split_scans(find_targets(toys, "age", subject="person")[0], 0.25, config.run.seed)
    guess = np.median([scan.target for scan in train])
    constant = np.mean([abs(scan.target - guess) for scan in held])
    store = ImageStore([scan.path for scan in held], spec.shape, spec.median, tmp_path)
    with torch.inference_mode():
        found = [float(network(torch.from_numpy(store[n].copy())[None, None])[0]) for n in range(len(held))]
    error = np.mean([abs(value - scan.target) for value, scan in zip(found, held, strict=True)])
    assert constant > 10
    assert error < 0.5 * constant
    assert error == pytest.approx(min(stats["val_loss"]), rel=1e-3)
    assert stats["val_loss"][stats["best_epoch"] - 1] == min(stats["val_loss"])
    assert (spec.task, spec.target, spec.unit, spec.shape) == ("regression", "age", "years", (32, 32, 32))
    assert spec.trained_range == (min(scan.target for scan in train), max(scan.target for scan in train))


def test_two_classes_are_trained_with_logits(toys, tmp_path):
    table = part_of(toys, tmp_path, 12)
    config = small(table, tmp_path / "run", task="classification", target="group", classes=["young", "old"])
    weights = train_predictor(config, Progress())
    assert weights.name == "last_model.safetensors"
    _, spec = load_prediction_model(weights)
    assert (spec.task, spec.classes, spec.quantity) == ("classification", ("young", "old"), "probability of old")
    assert not (tmp_path / "run" / "weights" / "best_model.safetensors").exists()
    first = json.loads((tmp_path / "run" / "stats.json").read_text())["loss"]
    assert len(first) == 2 and all(0 < loss < 5 for loss in first)


@pytest.mark.parametrize("crash", [False, True])
def test_a_run_that_was_stopped_makes_the_same_steps(toys, tmp_path, monkeypatch, crash):
    """Stopped by SIGTERM just before a validation, or killed with what the last checkpoint holds."""
    table = part_of(toys, tmp_path, 12)
    whole = small(table, tmp_path / "whole", validation_share=0.25)
    train_predictor(whole, Progress())
    parts = small(table, tmp_path / "parts", validation_share=0.25)
    parts.run.checkpoint_every = 1
    step, count = BatchStream.step, []

    def stopped(self, number):
        count.append(number)
        if len(count) == 3 and not crash:
            os.kill(os.getpid(), signal.SIGTERM)
        if len(count) == 4 and crash:
            raise OSError("killed")
        return step(self, number)

    monkeypatch.setattr(BatchStream, "step", stopped)
    with pytest.raises(OSError if crash else CancelledError, match=r"killed|stopped"):
        train_predictor(parts, Progress())
    made = torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
    assert 0 < made < 4
    monkeypatch.setattr(BatchStream, "step", step)
    train_predictor(small(table, tmp_path / "parts", validation_share=0.25), Progress())
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=False) for name in ("whole", "parts")
    )
    assert one["global_step"] == two["global_step"] == 4
    for key, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][key]), key
    first, second = (json.loads((tmp_path / name / "stats.json").read_text()) for name in ("whole", "parts"))
    assert first.keys() == second.keys()
    assert all(first[name] == pytest.approx(second[name]) for name in first)


def test_training_ends_early_without_progress(toys, tmp_path):
    table = part_of(toys, tmp_path, 8)
    config = small(table, tmp_path / "run", epochs=9, validation_share=0.25, patience=1, learning_rate=0.0)
    config.final_learning_rate = 0.0
    train_predictor(config, Progress())
    stats = json.loads((tmp_path / "run" / "stats.json").read_text())
    assert 2 <= len(stats["val_loss"]) < 9


def test_half_precision_and_weights_to_start_from(toys, tmp_path):
    table = part_of(toys, tmp_path, 8)
    first = train_predictor(small(table, tmp_path / "first", epochs=1), Progress())
    config = small(table, tmp_path / "second", epochs=1, initial_weights=str(first))
    config.run.precision = "bf16-mixed"
    second = train_predictor(config, Progress())
    one, two = (load_prediction_model(path)[0].state_dict() for path in (first, second))
    assert two["blocks.0.conv_0.weight"].dtype == torch.float32
    moved = (one["blocks.0.conv_0.weight"] - two["blocks.0.conv_0.weight"]).abs().max()
    assert 0 < float(moved) < 0.01
    with pytest.raises(RequestError, match="not for images of 64x64x64 voxels"):
        train_predictor(small(table, tmp_path / "third", initial_weights=str(first), shape=[64, 64, 64]), Progress())


# ------------------------------------------------------------------------------------------------------ command, faults


def test_the_command_trains(toys, tmp_path, capsys):
    table = part_of(toys, tmp_path, 8)
    assert main(["train", "predictor", "--print-config"]) == 0
    shown = capsys.readouterr().out
    assert "learning_rate: 0.001" in shown and "epochs: 400" in shown and "final_learning_rate: 0.0001" in shown
    words = ["--set", f"data={table}", "--set", "epochs=1", "--set", "batch=4", "--output", str(tmp_path / "run")]
    assert main(["train", "predictor", *words, "--cpu", "--threads", "1"]) == 0
    assert "last_model.safetensors" in capsys.readouterr().out
    _, spec = load_prediction_model(tmp_path / "run" / "weights" / "last_model.safetensors")
    assert spec.harmonized == ""


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"data": ""}, RequestError, "names no data"),
        ({"run": RunOptions(accumulate=3)}, RequestError, "epoch of 2 batches cannot be accumulated by 3"),
        ({"batch": 9}, RequestError, "8 images do not fill a batch of 9"),
        ({"validation_share": 1.0}, RequestError, "share of 1"),
        ({"validation_share": 0.2, "validation": "x.csv"}, RequestError, "set one of them"),
        ({"shape": [16, 32, 32]}, InputError, "too small to predict from"),
        ({"shape": [32, 32]}, RequestError, "has not three numbers"),
        ({"task": "classification", "target": "group", "classes": ["old", "none"]}, InputError, "needs two classes"),
        ({"subject": "name"}, InputError, "no column 'name'"),
    ],
)
def test_wrong_configurations_are_told_before_the_training(toys, tmp_path, changes, error, told):
    with pytest.raises(error, match=told):
        train_predictor(small(part_of(toys, tmp_path, 8), tmp_path / "run", **changes), Progress())
    assert not (tmp_path / "run" / "weights").exists()


def test_images_of_other_sizes_are_told(toys, tmp_path):
    write_volume(Volume(brain(40, 3)[:, :, 2:], AFFINE), tmp_path / "cut.nii.gz")
    write_volume(Volume(np.zeros((32, 32, 32), np.float32), AFFINE), tmp_path / "empty.nii.gz")
    first = toys.parent / "scan00.nii.gz"
    store = ImageStore([first, tmp_path / "cut.nii.gz", tmp_path / "empty.nii.gz"], None, 500.0, tmp_path)
    assert store[1].shape == (32, 32, 32)  # padded around its brain
    with pytest.raises(InputError, match="empty holds no brain"):
        store[2]
    exact = ImageStore([first, tmp_path / "cut.nii.gz"], None, 500.0, tmp_path, compatible=True)
    with pytest.raises(InputError, match=r"cut\.nii\.gz has 32x32x30 voxels, not 32x32x32"):
        exact[1]


def test_heads_are_prepared_once_and_failures_left_out(toys, tmp_path, monkeypatch):
    from mri_deep_tools.errors import GeometryError
    from mri_deep_tools.harmonize import predictor_prepare

    calls = []

    def prepared(volume, options, progress, harmonizer):
        calls.append(volume.source.name)
        if volume.source.name == "scan02":
            raise GeometryError("the registration failed")
        return predictor_prepare.Preparation(volume, {})

    monkeypatch.setattr(predictor_prepare, "prepare_scan", prepared)  # the chain has tests of its own, minutes long
    table, progress = part_of(toys, tmp_path, 5), Progress()
    for _ in range(2):
        config = small(table, tmp_path / "run", prepare=True, shape=[32, 32, 32], epochs=1)
        weights = train_predictor(config, progress)
    assert calls == ["scan00", "scan01", "scan02", "scan03", "scan04", "scan02"]
    assert any("scan02.nii.gz is left out: the registration failed" in text for text in progress.warnings)
    assert len(list((tmp_path / "run" / "prepared").glob("scan*.nii.gz"))) == 4
    assert load_prediction_model(weights)[1].shape == (32, 32, 32)


def test_a_cache_that_cannot_be_written_is_told(toys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="cache of images cannot be written"):
        ImageStore([toys.parent / "scan00.nii.gz"], None, 500.0, blocked / "cache", "disk")
