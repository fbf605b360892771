"""Whole trainings of SynDiff, small: files, resume, precision, parts of a batch, several processes, wrong requests."""

from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pytest
import torch
from mri_deep_tools.cli import main
from mri_deep_tools.config import config_from_mapping
from mri_deep_tools.errors import InputError, MRIDeepToolsError, RequestError
from mri_deep_tools.progress import Progress
from mri_deep_tools.translate.pictures import read_picture
from mri_deep_tools.translate.train import SynDiffConfig, train
from mri_deep_tools.translate.training_draws import SampleDraws
from mri_deep_tools.translate.weights import load_direction
from scipy.ndimage import gaussian_filter

NETWORK = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [16], "latent": 4, "embedding": 8}
NETWORK |= {"mapping_layers": 1, "one_pass_width": 4, "one_pass_blocks": 1, "patch_width": 4}
NETWORK |= {"judge": "small", "judge_width": 4, "time_embedding": 8}


def blobs(rng, side):
    """Return a smooth picture (side, side) in [0, 1]."""
    field = gaussian_filter(rng.standard_normal((side, side)), 3)
    return (field - field.min()) / (field.max() - field.min())


def write_set(path, count, seed=0, side=36):
    """Write a set of two contrasts: B is A inverted, with a gamma of 1.5."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for number in range(count):
            image = blobs(rng, side)
            file[f"A/{number}"] = np.uint8(255 * image)
            file[f"B/{number}"] = np.uint8(255 * (1 - image) ** 1.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write_set(folder / "dataset_train.hdf5", 8)
    write_set(folder / "dataset_val.hdf5", 3, seed=1)
    return folder


def small(data, output, **changes) -> SynDiffConfig:
    run = {"output": str(output), "accelerator": "cpu", "devices": 1, "threads": 1, "log_every": 1}
    run |= changes.pop("run", {})
    network = NETWORK | changes.pop("network", {})
    content = {"data": str(data), "contrast1": "A", "contrast2": "B", "image_size": 32, "epochs": 2, "batch": 2}
    content |= {"lazy_reg": 2, "pictures": 1, "paired": True, **changes, "network": network, "run": run}
    return config_from_mapping(SynDiffConfig, content)


def losses(run):
    """Return the rows of all logs of a run that hold losses of steps, without empty cells."""
    rows = []
    for path in sorted(run.glob("logs/version_*/metrics.csv")):
        with path.open() as stream:
            rows += [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream) if row.get("G")]
    return rows


def state(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)


def require_same(one, other, tolerance=0.0):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=tolerance, rtol=0, msg=name)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    train(small(data, run, save_every=1), Progress())
    return run


def test_a_run_writes_what_it_promises(whole):
    rows = losses(whole)
    assert len(rows) == 8
    assert {"D_real", "D_fake", "D", "R1_1", "R1_2"} <= rows[0].keys() and "R1_1" not in rows[1]
    assert {"D_cycle", "G_adv", "G_cycle_adv", "G_L1", "G_cycle", "G"} <= rows[0].keys()
    for folder in ("model", "last"):
        for target, source in (("A", "B"), ("B", "A")):
            direction = load_direction(whole / folder, target)
            assert (direction.source, direction.target, direction.info["rule"]) == (source, target, "bytes")
            assert direction.network.spec.image_size == 32 and direction.schedule.steps == 4
    stats = json.loads((whole / "stats.json").read_text())
    assert [len(stats[key]) for key in ("epochs", "validations")] == [2, 2]
    assert stats["epochs"][0]["G"] == pytest.approx(np.mean([row["G"] for row in rows[:4]]), rel=1e-5)
    assert stats["best"] == max(row["psnr"] for row in stats["validations"])
    for name in ("val_l1_loss", "val_psnr_values"):
        values = np.load(whole / f"{name}.npy")
        assert values.shape == (2, 2, 3) and np.isfinite(values).all() and (values > 0).all()
    names = sorted(path.name for path in (whole / "pictures").iterdir())
    assert names == [f"{way}_0000_epoch-000{epoch}.png" for way in ("A_from_B", "B_from_A") for epoch in (1, 2)]
    picture = read_picture(whole / "pictures" / names[0])
    assert picture.shape == (32, 4 * 32)  # source, one-pass, translation, real


def test_published_files_hold_the_averages(whole):
    kept = state(whole)["state_dict"]
    for name in ("gen_diffusive_1", "gen_non_diffusive_1to2"):
        found = torch.load(whole / "networks" / f"{name}_1.pth", weights_only=True)
        prefix = "module.module." if "non" in name else "module."
        for key, value in found.items():
            assert key.startswith(prefix)
            assert torch.equal(value, kept[f"average.networks.{name}.{key.removeprefix(prefix)}"]), key
    for epoch in (0, 1):
        kept_epoch = load_direction(whole / "networks", "A", epoch=epoch)
        assert (kept_epoch.source, kept_epoch.info["rule"]) == ("B", "bytes")
    direction = load_direction(whole / "last", "A")
    for key, value in direction.network.state_dict().items():
        assert torch.equal(value, kept[f"average.networks.gen_diffusive_1.{key}"])
    assert not torch.equal(value, kept[f"networks.gen_diffusive_1.{key}"])  # an average, not the weights themselves


def test_an_interrupted_run_continues_as_if_it_had_not_been(data, whole, tmp_path):
    for steps in (3, 8):  # stopped within the first epoch
        train(small(data, tmp_path, save_every=1, run={"steps": steps}), Progress())
    one, other = state(tmp_path), state(whole)
    require_same(one["state_dict"], other["state_dict"])
    for mine, theirs in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        assert mine["param_groups"] == theirs["param_groups"]
        for key, moments in mine["state"].items():
            require_same(moments, theirs["state"][key])
    assert (tmp_path / "stats.json").read_text() == (whole / "stats.json").read_text()


def test_a_run_may_go_on_with_other_images_for_validation(data, tmp_path):
    for epochs, images in ((1, 2), (2, 3)):
        found = small(data, tmp_path, epochs=epochs, validation_images=images, pictures=0, supervised=True)
        train(found, Progress())
        if epochs == 1:  # the first images were much easier
            kept = state(tmp_path)
            kept["syndiff"]["book"]["best"] = 99.0
            torch.save(kept, tmp_path / "checkpoints" / "last.ckpt")
    values = np.load(tmp_path / "val_psnr_values.npy")
    assert values.shape == (2, 2, 3)
    assert np.isnan(values[:, 0, 2]).all() and np.isfinite(values[:, 0, :2]).all() and np.isfinite(values[:, 1]).all()
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["best"] == stats["validations"][1]["psnr"]  # figures of other images are not compared


def test_learning_rates_follow_the_epochs(data, whole, tmp_path):
    rates = [group["lr"] for part in state(whole)["optimizer_states"] for group in part["param_groups"]]
    assert rates == pytest.approx([(1.6e-4 + 1e-5) / 2] * 4 + [(1e-4 + 1e-5) / 2] * 4)  # the second of two epochs
    train(small(data, tmp_path, compatible=True, epochs=1, validate_epochs=0), Progress())
    kept = state(tmp_path)
    assert kept["global_step"] == 8  # one epoch more
    rates = [group["lr"] for part in kept["optimizer_states"] for group in part["param_groups"]]
    assert rates == pytest.approx([1.6e-4] * 4 + [1e-5] * 4)


@pytest.mark.slow
def test_parts_of_a_batch_count_as_one(data, tmp_path):
    """But for the discriminators, which look at how the images of a batch differ."""
    for name, batch, parts in (("two", 2, 1), ("parts", 1, 2)):
        config = small(data, tmp_path / name, batch=batch, supervised=True, adversarial_weight=0.0, validate_epochs=0)
        config.run.accumulate, config.run.steps = parts, 3
        train(config, Progress())
    one, other = (state(tmp_path / name) for name in ("two", "parts"))
    require_same(one["state_dict"], other["state_dict"], tolerance=3e-5)
    assert one["global_step"] == other["global_step"] == 3


@pytest.mark.parametrize("precision", ["bf16-mixed", pytest.param("16-mixed", marks=pytest.mark.slow)])
def test_mixed_precision_stays_near_single(data, whole, tmp_path, precision):
    train(small(data, tmp_path, run={"precision": precision, "steps": 2}, validate_epochs=0), Progress())
    for mine, theirs in zip(losses(tmp_path), losses(whole), strict=False):
        for key in theirs.keys() & {"D", "D_cycle", "G", "G_L1", "G_cycle"}:
            assert mine[key] == pytest.approx(theirs[key], rel=0.02), key
        assert ("R1_1" in mine) is ("R1_1" in theirs)
    scales = state(tmp_path)["syndiff"]["scales"]
    assert all((scale["value"] > 1) is (precision == "16-mixed") for scale in scales.values())


@pytest.mark.slow
def test_without_pairs_the_cycle_judges(data, tmp_path):
    config = small(data, tmp_path, paired=False, epochs=1, average=0.0, network={"dropout": 0.1})
    train(config, Progress())
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert set(stats["validations"][0]) == {"step", "cycle_psnr", "cycle_psnr_A_B", "cycle_psnr_B_A"}
    assert not (tmp_path / "val_l1_loss.npy").exists()
    kept, found = state(tmp_path)["state_dict"], load_direction(tmp_path / "last", "B").network.state_dict()
    assert all(torch.equal(value, kept[f"networks.gen_diffusive_2.{key}"]) for key, value in found.items())
    again = tmp_path / "again"
    for steps in (2, 4):
        config = small(data, again, paired=False, epochs=1, average=0.0, network={"dropout": 0.1})
        config.run.steps = steps
        train(config, Progress())
    require_same(state(again)["state_dict"], kept)  # what is dropped is a function of the step too


def test_published_mat_files(shared, tmp_path):
    """Slices of scans: no flips, the rule of the intensities in the model folder, the last weights kept."""
    from shutil import copy

    data = tmp_path / "mat"
    data.mkdir()
    for name in ("T1", "T2"):
        copy(shared("fixtures", "syndiff", f"data_test_{name}.mat"), data / f"data_train_{name}.mat")
    config = small(data, tmp_path / "run", contrast1="T1", contrast2="T2", paired=False, epochs=1)
    config.run.steps = 1
    train(config, Progress())
    assert load_direction(tmp_path / "run" / "model", "T2").info["rule"] == "mean"


def test_draws_belong_to_samples():
    one = SampleDraws(1, [5], (4, 6), 3)
    many = SampleDraws(1, [4, 5], (4, 6), 3)
    for name in ("image", "latent", "image"):
        alone, joined = getattr(one, name)(), getattr(many, name)()
        assert torch.equal(alone[0], joined[1]) and not torch.equal(joined[0], joined[1])
    assert one.index(4).dtype == torch.int64
    times = torch.cat([SampleDraws(1, range(k, k + 50), (1, 1), 1).index(4) for k in (0, 50)])
    assert set(times.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": ""}, "names no data"),
        ({"image_size": 33}, "do not fit"),
        ({"network": {"judge": "large"}}, "do not fit"),
        ({"paired": False, "supervised": True}, "needs pairs"),
        ({"adversarial_weight": 0.0}, "what teaches"),
        ({"batch": 6}, "batch of 6"),
        ({"batch": 0}, "1 at least"),
        ({"batch": 4, "run": {"accumulate": 4}}, "takes 16 images"),
        ({"average": 1.0}, "running average"),
        ({"contrast2": "A"}, "different names"),
        ({"diffusion": {"steps": 0}}, "diffusion of 0 steps"),
        ({"network": {"width": 2}}, "no generator"),
        ({"run": {"gradient_clip": 1.0}}, "does not clip"),
        ({"run": {"precision": "64-true"}}, "unknown precision"),
    ],
)
def test_requests_that_cannot_be(data, tmp_path, changes, words):
    with pytest.raises(RequestError, match=words):
        train(small(changes.pop("data", data), tmp_path / "run", **changes), Progress())
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_used(data, tmp_path):
    with pytest.raises(InputError, match="no contrast"):
        train(small(data, tmp_path / "run", contrast2="C"), Progress())
    broken = tmp_path / "set"
    broken.mkdir()
    (broken / "dataset_train.hdf5").write_bytes((data / "dataset_train.hdf5").read_bytes()[:3000])
    with pytest.raises(MRIDeepToolsError, match="complete"):
        train(small(broken, tmp_path / "run"), Progress())
    with pytest.raises(MRIDeepToolsError):
        train(small(tmp_path / "nowhere", tmp_path / "run"), Progress())


def test_command(data, tmp_path, capsys):
    assert main(["train", "syndiff", "--print-config"]) == 0
    shown = capsys.readouterr().out
    assert "l1_weight: 0.5" in shown and "lazy_reg: 10" in shown and "generator_rate: 0.00016" in shown
    assert main(["train", "syndiff", "--set", "data=missing", "--output", str(tmp_path / "run")]) in (1, 2)
    assert "missing" in capsys.readouterr().err
