"""The whole chain with nnU-Net itself: train, stop, continue, segment, score. Run with `make test-nnunet`."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.provenance import sidecar_path
from PIL import Image
from toy_cells import cells, make_raw, save
from translation_models import tiny_model

pytestmark = pytest.mark.slow
pytest.importorskip("nnunetv2", reason='nnU-Net is not installed (make test-nnunet, or the extra "nnunet")')

MODEL = "nnUNetTrainer__nnUNetPlans__2d"
SETTINGS = {
    "dataset": "Dataset101_TOY",
    "epochs": "3",
    "iterations": "12",
    "save_every": "1",
    "seed": "1",
    "processes": "1",
    "augmentation_processes": "0",
}
LEAST_DICE = 0.85  # 36 iterations reach 0.93 to 0.99 on pictures that were not trained on


def train_words(root: Path, **settings) -> list[str]:
    words = ["train", "nnunet", "--output", str(root), "--device", "cpu", "--threads", "1"]
    for key, value in (SETTINGS | settings).items():
        words += ["--set", f"{key}={value}"]
    return words


def remains(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def nnunet_processes() -> list[int]:
    """Return the processes of a worker, and those that it started and that carry its environment."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "handover_worker" in line:
            found.append(process.info["pid"])
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder of nnU-Net with fold 0 and 1 of the toy data set, trained side by side."""
    root = tmp_path_factory.mktemp("nnunet")
    make_raw(root, tests=2)
    before = dict(os.environ)
    assert main(train_words(root, folds="[0,1]", parallel="2")) == 0
    assert dict(os.environ) == before
    return root


@pytest.fixture
def pictures(tmp_path):
    """Return a folder of new pictures, larger than those of the training, and one of their truth."""
    rng = np.random.default_rng(7)
    for index, name in enumerate(("a", "b_0000", "c_0000")):
        picture, labels = cells(rng, 72 + 4 * index)
        save(picture, tmp_path / "images" / f"{name}.png")
        save(labels, tmp_path / "truth" / f"{name.removesuffix('_0000')}.png")
    return tmp_path / "images", tmp_path / "truth"


def test_train_segment_score(trained, pictures, tmp_path):
    images, truth = pictures
    model = trained / "nnUNet_results" / "Dataset101_TOY" / MODEL
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    out = tmp_path / "masks"
    assert main(["segment-nnunet", str(images), str(out), "--weights", str(model), "--cpu", "--quiet"]) == 0
    assert remains(out) == ["a.png", "b.png", "c.png", "segment-nnunet.json"]
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before
    table = tmp_path / "scores.csv"
    assert main(["evaluate", "image-segmentation", str(truth), str(out), str(table), "--quiet"]) == 0
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["image"], row["class"]) for row in rows[:2]] == [("a.png", "myelin"), ("a.png", "axon")]
    assert min(float(row["dice"]) for row in rows) > LEAST_DICE, rows


def test_what_a_training_leaves(trained):
    model = trained / "nnUNet_results" / "Dataset101_TOY" / MODEL
    for fold in (0, 1):
        there = remains(model / f"fold_{fold}")
        assert {"checkpoint_final.pth", "checkpoint_best.pth", "validation/summary.json"} <= set(there)
        assert {"test/new_0.png", "test/new_1.png"} <= set(there)
        assert not [name for name in there if name.endswith(".part")]
    assert nnunet_processes() == []


def test_what_is_done_is_not_done_again(trained, capsys):
    model = trained / "nnUNet_results" / "Dataset101_TOY" / MODEL
    stamps = {path: path.stat().st_mtime_ns for path in model.rglob("*.pth")}
    begin = time.monotonic()
    assert main(train_words(trained, folds="[0,1]")) == 0
    assert time.monotonic() - begin < 20
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*.pth")} == stamps
    assert "fold 1: mean Dice of the validation 0.9" in capsys.readouterr().out


def test_best_checkpoint_single_picture_and_other_kinds(trained, pictures, tmp_path, capsys):
    """A colour TIFF becomes grey with a message; a broken picture does not keep the others from being segmented."""
    images, _ = pictures
    model = trained / "nnUNet_results" / "Dataset101_TOY" / MODEL
    words = ["--weights", str(model), "--cpu", "--folds", "0", "--use-best-checkpoint", "--no-mirroring"]
    grey = Image.open(images / "a.png")
    grey.convert("RGB").save(tmp_path / "colour.tif")
    assert main(["segment-nnunet", str(tmp_path / "colour.tif"), str(tmp_path / "one.png"), *words]) == 0
    assert "colour.tif is a colour picture; its luma is used" in capsys.readouterr().err
    assert main(["segment-nnunet", str(images / "a.png"), str(tmp_path / "two.png"), *words]) == 0
    np.testing.assert_array_equal(*(np.asarray(Image.open(tmp_path / name)) for name in ("one.png", "two.png")))
    assert sidecar_path(tmp_path / "one.png").is_file()
    (images / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert main(["segment-nnunet", str(images), str(out), *words]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "1 of 4 pictures were not segmented, the first is broken.png: broken.png is not a picture" in last
    assert remains(out) == ["a.png", "b.png", "c.png", "segment-nnunet.json"]


def test_translation_first(trained, pictures, tmp_path, capsys):
    """The way of the pictures through an (untrained) translation and the model; both are kept and recorded."""
    images, _ = pictures
    model = trained / "nnUNet_results" / "Dataset101_TOY" / MODEL
    out, translator = tmp_path / "out", tiny_model(tmp_path / "translator", rule="bytes")
    words = ["segment-nnunet", str(images), str(out), "--weights", str(model), "--folds", "0", "--cpu"]
    words += ["--translate-with", str(translator), "--to", "T2"]
    assert main(words) == 0
    made = {path.name for path in (out / "translated").glob("*.png")}
    assert made == {path.name for path in images.iterdir()}
    masks = sorted(path.name for path in out.glob("*.png"))
    assert masks == ["a.png", "b.png", "c.png"]
    record = json.loads((out / "segment-nnunet.json").read_text())
    assert record["Options"]["translated_to"] == "T2"
    assert {entry["Name"] for entry in record["Inputs"]} == made
    for name in masks:
        assert Image.open(out / name).size == Image.open(next(images.glob(f"{Path(name).stem}*"))).size
    capsys.readouterr()
    (out / "segment-nnunet.json").unlink()
    for name in masks:
        (out / name).unlink()
    assert main(words) == 2
    assert "translated holds something already" in capsys.readouterr().err


def test_a_labelled_set_is_translated_and_trained_on(tmp_path):
    make_raw(tmp_path)
    words = ["translate", str(tmp_path / "nnUNet_raw" / "Dataset101_TOY"), str(tmp_path), "--dataset-id", "102"]
    assert main([*words, "--weights", str(tiny_model(tmp_path / "model", rule="bytes")), "--to", "T2", "--cpu"]) == 0
    short = {"dataset": "102", "epochs": "1", "iterations": "2", "verify": "false"}
    assert main(train_words(tmp_path, folds='["all"]', **short)) == 0
    model = tmp_path / "nnUNet_results" / "Dataset102_SYNTH_T2_from_T1" / MODEL
    assert (model / "fold_all" / "checkpoint_final.pth").is_file()
    assert len(list((model / "fold_all" / "validation").glob("SYNTH_T2_*.png"))) == 10


def test_checkpoints_that_hold_more_than_numbers_are_refused(trained, pictures, tmp_path, capsys):
    import torch

    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was_run",)

    source = trained / "nnUNet_results" / "Dataset101_TOY" / MODEL
    model = tmp_path / "model"
    (model / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        shutil.copy(source / name, model / name)
    place = model / "fold_0" / "checkpoint_final.pth"
    words = ["segment-nnunet", str(pictures[0]), str(tmp_path / "out"), "--weights", str(model), "--cpu"]
    torch.save({"network_weights": Harmful()}, place)
    for content, told in ((None, "holds more than numbers"), (b"cut short", "holds more than numbers, or is damaged")):
        if content is not None:
            place.write_bytes(content)
        assert main(words) == 2
        assert told in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "was_run").exists()
    assert remains(tmp_path / "out") == []


def start(root: Path, **settings) -> subprocess.Popen:
    words = [sys.executable, "-m", "mri_deep_tools", *train_words(root, folds="[0]", test="false", **settings)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.2)


def children_of(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process_and_is_continued(trained, tmp_path, number, capsys):
    """The parent is asked to stop, or killed; what nnU-Net started is gone, and the same command goes on."""
    shutil.copytree(trained / "nnUNet_raw", tmp_path / "nnUNet_raw")
    shutil.copytree(trained / "nnUNet_preprocessed", tmp_path / "nnUNet_preprocessed")
    fold = tmp_path / "nnUNet_results" / "Dataset101_TOY" / MODEL / "fold_0"
    many = {"epochs": "200", "iterations": "20"}
    process = start(tmp_path, **many)
    try:
        wait_for((fold / "checkpoint_latest.pth").is_file)
        started = children_of(process)
        assert started
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    wait_for(lambda: not any(item.is_running() and item.status() != "zombie" for item in started), 30)
    if number == signal.SIGTERM:
        assert process.returncode == 1
        assert "start the same command again to continue it" in told.strip().splitlines()[-1]
    assert not (fold / "checkpoint_final.pth").exists()
    assert main(train_words(tmp_path, folds="[0]", test="false", epochs="8", iterations="2")) == 0
    logs = (tmp_path / "logs" / "Dataset101_TOY_fold_0.log").read_text()
    continued = logs.split("==== fold 0")[2]
    assert "Epoch 0" not in continued
    assert "Epoch 7" in continued
    assert (fold / "checkpoint_final.pth").is_file()


def test_a_data_set_that_changed_is_not_mixed_with_the_old(trained, tmp_path, capsys):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        shutil.copytree(trained / name, tmp_path / name)
    save(np.zeros((64, 64), np.uint8), tmp_path / "nnUNet_raw" / "Dataset101_TOY" / "labelsTr" / "toy_003.png")
    assert main(train_words(tmp_path, folds="[0]", epochs="4")) == 2
    assert "has changed since fold 0 was trained" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_fault_inside_nnunet_is_one_sentence(trained, tmp_path, capsys):
    shutil.copytree(trained / "nnUNet_raw", tmp_path / "nnUNet_raw")
    assert main(train_words(tmp_path, folds="[0]", planner="NoPlanner", verify="false")) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "preparing the data failed in nnU-Net" in last
    assert "Dataset101_TOY_prepare.log has the details" in last
    assert "Traceback" in (tmp_path / "logs" / "Dataset101_TOY_prepare.log").read_text()
