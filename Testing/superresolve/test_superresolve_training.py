"""Training: data, split, samples, losses, early end, resume, files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from mri_deep_tools.cli import main
from mri_deep_tools.errors import GeometryError, InputError, RequestError
from mri_deep_tools.progress import Progress
from mri_deep_tools.superresolve.patches import patch_starts
from mri_deep_tools.superresolve.preprocess import Scaling, pad_volume
from mri_deep_tools.superresolve.simulate import as_trained
from mri_deep_tools.superresolve.train import CSV_COLUMNS, TrainingConfig, train
from mri_deep_tools.superresolve.training_data import Pair, PatchSource, Recipe, find_pairs, split_pairs
from mri_deep_tools.superresolve.weights import load_network
from mri_deep_tools.volume import Volume, read_volume, write_volume

AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0])


def scan(seed, shape=(20, 20, 20)):
    from scipy.ndimage import gaussian_filter

    values = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return Volume((values - values.min() + 0.01).astype(np.float32) * 100, AFFINE)


@pytest.fixture
def bids(tmp_path):
    """Return a folder with four subjects, one of them at two ages."""
    root = tmp_path / "bids"
    for index, name in enumerate(("sub-a_ses-1mo", "sub-a_ses-2mo", "sub-b_ses-1mo", "sub-c_ses-1mo", "sub-d_ses-1mo")):
        folder = root / name.split("_")[0] / "anat"
        t2 = scan(index)
        write_volume(t2, folder / f"{name}_T2w.nii.gz")
        write_volume(t2.with_data(t2.data.max() - t2.data + 1), folder / f"{name}_T1w.nii.gz")
    return root


def small(bids, output, **changes):
    config = TrainingConfig(
        data=str(bids), channels=[2, 4], units=1, patch=8, stride=4, batch=4, steps_per_epoch=3, epochs=2
    )
    config.directions, config.factors, config.validation_patches = ["axial", "coronal"], [2.0, 3.0], 6
    config.train_share, config.validation_share = 0.5, 0.25
    config.run.output, config.run.accelerator, config.run.threads = str(output), "cpu", 1
    config.run.log_every = 1
    for name, value in changes.items():
        setattr(config, name, value)
    return config


# --------------------------------------------------------------------------------------------------------------- data


def test_pairs_of_a_folder_and_of_a_table(bids, tmp_path):
    pairs = find_pairs(bids)
    assert [pair.subject for pair in pairs] == ["a", "a", "b", "c", "d"]
    assert pairs[0].t1.name == "sub-a_ses-1mo_T1w.nii.gz"
    table = tmp_path / "pairs.csv"
    rows = [("subject", "t1", "t2"), *(("x", pair.t1.relative_to(tmp_path), pair.t2) for pair in pairs[:2])]
    table.write_text("\n".join(",".join(map(str, row)) for row in rows))
    assert [pair.subject for pair in find_pairs(table)] == ["x", "x"]
    table.write_text("t1,t2\na.nii,b.nii\n")
    with pytest.raises(InputError, match=r"a\.nii, named in pairs\.csv, does not exist"):
        find_pairs(table)
    table.write_text("one,two\na.nii,b.nii\n")
    with pytest.raises(InputError, match="lacks the columns"):
        find_pairs(table)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pairs"):
        find_pairs(tmp_path / "empty")


def test_no_subject_falls_on_both_sides_of_the_split(bids):
    parts = split_pairs(find_pairs(bids), 0.5, 0.25)
    assert [[pair.subject for pair in part] for part in parts] == [["a", "a", "b"], ["c"], ["d"]]
    with pytest.raises(RequestError, match="leave none for training"):
        split_pairs(find_pairs(bids), 0.1, 0.1)


def test_the_published_split_of_71_files():
    pairs = [Pair(str(n // 2), None, None) for n in range(71)]
    assert [len(part) for part in split_pairs(pairs, 0.70, 0.15, "file")] == [49, 11, 11]


def test_an_epoch_in_the_published_order_takes_every_patch_once(bids):
    source = PatchSource(find_pairs(bids)[:2], Recipe(("axial",), (2.0, 3.0), patch=8, stride=4))
    shape = source.padded_shape()
    starts = patch_starts(shape, 8, 4)
    assert shape == (20, 20, 20)
    assert source.patches_per_epoch() == 4 * len(starts) == 256
    seen = [source.sample(number) for number in range(256)]
    again = PatchSource(source.pairs, source.recipe).sample(200)
    assert np.array_equal(seen[200][0], again[0])
    assert np.array_equal(source.sample(256)[0], seen[0][0])
    expected = []
    for pair in source.pairs:
        t2 = read_volume(pair.t2)
        for factor in (2, 3):
            thick, _ = pad_volume(t2.with_data(as_trained(t2.data, 2, factor)), 8, 4)
            volume = Scaling.of(thick.data).apply(thick.data)
            expected += [float(volume[x : x + 8, y : y + 8, z : z + 8].sum()) for x, y, z in starts]
    found = [float(cube[1].sum(dtype=np.float64)) for cube, _ in seen]
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-5)
    assert all(cube.shape == (2, 8, 8, 8) and target.shape == (1, 8, 8, 8) for cube, target in seen)


def test_random_samples_depend_on_their_number_alone(bids):
    recipe = Recipe(
        ("axial",), (2.0, 4.0), "physical", 0.5, "random", 8, 4, mix=2, patches_per_volume=3, t1_dropout=0.3
    )
    pairs = find_pairs(bids)
    first, second = PatchSource(pairs, recipe), PatchSource(pairs, recipe)
    numbers = list(range(24))
    there = {number: first.sample(number) for number in numbers}
    for number in reversed(numbers):
        for one, other in zip(there[number], second.sample(number), strict=True):
            assert np.array_equal(one, other)
    dropped = sum(not cube[0].any() for cube, _ in there.values())
    assert 2 <= dropped <= 13
    assert not np.array_equal(there[0][0], there[6][0])


def test_pairs_on_other_grids_are_told(tmp_path):
    write_volume(scan(0), tmp_path / "sub-1_T2w.nii.gz")
    write_volume(scan(0, (20, 20, 22)), tmp_path / "sub-1_T1w.nii.gz")
    with pytest.raises(GeometryError, match="do not lie on one grid"):
        PatchSource(find_pairs(tmp_path), Recipe()).sample(0)


# ----------------------------------------------------------------------------------------------------------- training


def state_of(path):
    return torch.load(path, weights_only=False)["state_dict"]


def test_a_run_writes_weights_and_books(bids, tmp_path):
    run = tmp_path / "run"
    train(small(bids, run, note="test"), Progress())
    (weights,) = (run / "weights").iterdir()
    assert weights.name.endswith("_model_weights.pth")
    network = load_network(weights, whole=True)
    assert network.spec.channels == (2, 4)
    (row,) = csv.DictReader((run / "training_info.csv").open())
    assert tuple(row) == CSV_COLUMNS
    assert (row["note"], row["train_size"], row["val_size"], row["test_size"]) == ("test", "12", "4", "4")
    assert row["target_shape"] == "(20, 20, 20)"
    assert row["loss function"] == "MSE Loss"
    losses = json.loads(row["val_loss_list"])
    assert len(losses) == len(json.loads(row["loss_list"])) == 2
    assert int(row["best_epoch"]) == 1 + int(np.argmin(losses))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (run / "tensorboard").rglob("events.*")
    board = EventAccumulator(str(events))
    board.Reload()
    assert {"Loss/Train", "Loss/Validation"} <= set(board.Tags()["scalars"])
    assert [item.value for item in board.Scalars("Loss/Validation")] == pytest.approx(losses, rel=1e-5)
    assert any("Best Model" in tag for tag in board.Tags()["tensors"])


def test_the_loss_is_that_of_the_published_program(bids, tmp_path):
    """One step of Adam at 1e-4 on the mean squared error, done by hand."""
    from mri_deep_tools.superresolve.network import ResUNet, ResUNetSpec

    config = small(bids, tmp_path / "run", epochs=1, steps_per_epoch=1)
    last = state_of(train(config, Progress()))
    torch.manual_seed(config.run.seed)
    network = ResUNet(ResUNetSpec((2, 4), 1))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    source = PatchSource(split_pairs(find_pairs(bids), 0.5, 0.25)[0], config.recipe())
    x, y = (torch.from_numpy(np.stack(part)) for part in zip(*(source.sample(n) for n in range(4)), strict=True))
    ((network(x) - y) ** 2).mean().backward()
    optimiser.step()
    for name, value in network.state_dict().items():
        assert torch.allclose(last[f"network.{name}"], value, atol=1e-7), name


def test_a_stopped_run_goes_on_as_if_it_had_not_been(bids, tmp_path):
    whole = small(bids, tmp_path / "whole", epochs=3, order="random")
    train(whole, Progress())
    part = small(bids, tmp_path / "part", epochs=3, order="random")
    part.run.steps = 4
    train(part, Progress())
    part.run.steps = 9
    train(part, Progress())
    states = [state_of(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "part")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    train(part, Progress())
    rows = [list(csv.DictReader((tmp_path / name / "training_info.csv").open())) for name in ("whole", "part")]
    assert [len(table) for table in rows] == [1, 2]
    assert rows[0][-1]["val_loss_list"] == rows[1][-1]["val_loss_list"]


def test_training_ends_when_nothing_gets_better(bids, tmp_path):
    config = small(bids, tmp_path / "run", epochs=20, patience=2, min_delta=10.0)
    last = train(config, Progress())
    assert torch.load(last, weights_only=False)["global_step"] == 9
    (row,) = csv.DictReader((tmp_path / "run" / "training_info.csv").open())
    assert row["best_epoch"] == "1"
    assert len(json.loads(row["val_loss_list"])) == 3


def test_training_makes_the_loss_smaller(bids, tmp_path):
    changes = {"epochs": 3, "steps_per_epoch": 25, "learning_rate": 3e-3, "order": "random"}
    train(small(bids, tmp_path / "run", **changes), Progress())
    (row,) = csv.DictReader((tmp_path / "run" / "training_info.csv").open())
    losses = json.loads(row["loss_list"])
    assert losses[-1] < 0.7 * losses[0]


def test_the_command(bids, tmp_path, capsys):
    assert main(["train", "baby-ai", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "learning_rate: 0.0001" in printed
    assert "epochs: 100" in printed
    assert "channels: [32, 64, 128, 256, 512, 1024]" in printed
    path = tmp_path / "config.yaml"
    path.write_text(printed)
    sets = {"data": bids, "channels": "[2,4]", "units": 1, "patch": 8, "stride": 4, "batch": 2, "epochs": 1}
    sets |= {"steps_per_epoch": 1, "validation_patches": 2, "run.output": tmp_path / "run"}
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    assert main(["train", "baby-ai", "--config", str(path), *words, "--device", "cpu", "--quiet"]) == 0
    assert (tmp_path / "run" / "training_info.csv").is_file()
    assert main(["train", "baby-ai"]) == 2
    assert "names no data" in capsys.readouterr().err
    assert main(["train", "baby-ai", "--set", f"data={bids}", "--set", "patch=24"]) == 2
    assert "6 levels do not fit cubes of 24 voxels" in capsys.readouterr().err
