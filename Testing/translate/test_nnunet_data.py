"""Data sets and models of nnU-Net are found and checked before anything runs; nnU-Net itself is not needed."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.errors import (
    DependencyError,
    InputError,
    MRIDeepToolsError,
    OutputError,
    RequestError,
    WeightsError,
)
from mri_deep_tools.translate.handover_data import Workspace, list_cases, read_model
from mri_deep_tools.translate.handover_jobs import Job, run_jobs, visible_device
from mri_deep_tools.translate.nnunet_sets import AXON_LABELS, dataset_folder, new_dataset
from toy_cells import cells, make_raw, save

MODEL = "nnUNetTrainer__nnUNetPlans__2d"


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path / "nnunet", cases=6)


def change(folder, **keys):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def train(raw, *words):
    """Return the exit status of a training of fold 0."""
    root = str(raw.parents[1])
    return main(["train", "nnunet", "--output", root, "--set", "dataset=101", "--set", "folds=[0]", *words])


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_whole_data_set_is_found_by_number_and_by_name(raw):
    workspace = Workspace.of(raw.parents[1])
    for wanted in (101, "101", "Dataset101_TOY"):
        found = workspace.find(wanted)
        assert (found.number, found.name, found.ending) == (101, "Dataset101_TOY", ".png")
        assert found.cases == tuple(f"toy_{index:03d}" for index in range(6))
        assert found.test_folder is None
        found.check_labels()
    assert Workspace.of(raw.parent).root == raw.parents[1].absolute()
    assert set(workspace.environment) == {"nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"}


def test_a_translated_set_is_one_to_train_on(tmp_path):
    """What `translate` writes for a labelled set, mapping of names included."""
    rng = np.random.default_rng(2)
    with new_dataset(dataset_folder(tmp_path, 102, "TEM", "SEM"), "SEM", overwrite=False) as made:
        for index in range(5):
            name = f"SYNTH_SEM_{index:03d}_0000.png"
            made.add(name, *cells(rng), f"/data/imagesTr/tem_{index:03d}_0000.png", {"Synthetic": "yes"})
        made.finish(AXON_LABELS)
    found = Workspace.of(tmp_path).find(102)
    assert found.name == "Dataset102_SYNTH_SEM_from_TEM"
    assert found.cases == tuple(f"SYNTH_SEM_{index:03d}" for index in range(5))
    found.check_labels()


def test_the_fingerprint_is_that_of_the_content(raw):
    found = Workspace.of(raw.parents[1]).find(101)
    before = found.fingerprint()
    label = raw / "labelsTr" / "toy_003.png"
    os.utime(label, (1, 1))
    assert found.fingerprint() == before
    save(np.zeros((64, 64), np.uint8), label)
    assert found.fingerprint() != before


def test_a_folder_that_is_not_of_nnunet(raw, tmp_path, capsys):
    for folder, told in (
        (tmp_path / "absent", "does not exist"),
        (tmp_path, "has no nnUNet_raw"),
        (raw, "one data set"),
    ):
        with pytest.raises(InputError, match=told):
            Workspace.of(folder)
    assert main(["train", "nnunet", "--output", str(tmp_path), "--set", "dataset=101"]) == 2
    assert "it has no nnUNet_raw" in last_line(capsys)


def test_numbers_of_data_sets(raw):
    workspace = Workspace.of(raw.parents[1])
    for wanted in (7, "Dataset101_OTHER", "tem", 0):
        with pytest.raises(RequestError, match="Dataset101_TOY"):
            workspace.find(wanted)
    (workspace.results / "Dataset101_OLD").mkdir(parents=True)  # nnU-Net would stop at it, too
    with pytest.raises(RequestError, match="taken by Dataset101_OLD and by Dataset101_TOY"):
        workspace.find(101)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda raw: (raw / "labelsTr" / "toy_002.png").unlink(), "images without labels: toy_002"),
        (lambda raw: (raw / "imagesTr" / "toy_002_0000.png").unlink(), "labels without images: toy_002"),
        (lambda raw: (raw / "dataset.json").unlink(), "has no dataset.json"),
        (lambda raw: (raw / "dataset.json").write_text("{"), "dataset.json of Dataset101_TOY cannot be read"),
        (lambda raw: (raw / "dataset.json").write_text("{}"), "lacks channel_names, labels, numTraining, file_ending"),
        (lambda raw: change(raw, numTraining=5), "has 6 cases, dataset.json says 5"),
        (lambda raw: change(raw, file_ending=".tif"), "no images that end in .tif"),
        (lambda raw: change(raw, labels={"background": 0, "axon": 2}), "must be 0 .background., 1, 2"),
        (lambda raw: change(raw, channel_names={"0": "a", "1": "b"}), "has the channels .0., 2 are needed"),
        (lambda raw: save(np.full((64, 64), 255, np.uint8), raw / "labelsTr" / "toy_001.png"), "has the codes 255"),
        (
            lambda raw: save(np.zeros((64, 60), np.uint8), raw / "labelsTr" / "toy_001.png"),
            "64x60 pixels, its image 64x64",
        ),
        (lambda raw: (raw / "labelsTr" / "toy_001.png").write_bytes(b"no picture"), "toy_001.png is not a picture"),
    ],
)
def test_data_sets_that_cannot_be_trained_on(raw, spoil, told):
    spoil(raw)
    with pytest.raises(InputError, match=told):
        Workspace.of(raw.parents[1]).find(101).check_labels()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "folds=[5]"], "there is no fold 5"),
        (["--set", "folds=[]"], "folds are missing or named twice"),
        (["--set", "folds=[0,0]"], "folds are missing or named twice"),
        (["--set", "folds=[-1]"], "there is no fold -1"),
        (["--set", "epochs=0"], "epochs is 0"),
        (["--set", "dataset=7"], "there is no data set '7'"),
        (["--set", "epoch=3"], "did you mean 'epochs'"),
        (["--precision", "bf16"], "nnU-Net chooses the precision"),
        (["--device", "cuda:9"], "device 'cuda:9' is not available"),
    ],
)
def test_wrong_requests_end_before_the_work(raw, capsys, words, told):
    assert train(raw, *words) == 2
    assert told in last_line(capsys)
    assert sorted(path.name for path in raw.parents[1].iterdir()) == ["nnUNet_raw"]


def test_too_few_cases_for_five_folds(tmp_path, capsys):
    raw = make_raw(tmp_path, cases=4)
    assert train(raw) == 2
    assert "too few for 5 folds; set folds=[all]" in last_line(capsys)


def test_a_split_of_other_cases_is_refused(raw, capsys):
    home = raw.parents[1] / "nnUNet_preprocessed" / raw.name
    home.mkdir(parents=True)
    split = [{"train": ["toy_000"], "val": ["cell_9"]}]
    (home / "splits_final.json").write_text(json.dumps(split))
    assert train(raw) == 2
    assert "names cell_9, which the data set does not have" in last_line(capsys)
    split[0]["val"] = ["toy_001"]
    (home / "splits_final.json").write_text(json.dumps(split))
    assert train(raw, "--set", "folds=[1]") == 2
    assert "there is no fold 1; the split has the folds 0 to 0" in last_line(capsys)


def test_without_nnunet_the_extra_is_named(raw, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "nnunetv2", None)  # what Python itself does for a package that may not be found
    assert train(raw) == 2
    assert 'pip install "mri-deep-tools[nnunet]"' in last_line(capsys)


# --------------------------------------------------------------------------------------------------------------- cases


def test_names_with_and_without_the_channel(tmp_path):
    picture = cells(np.random.default_rng(1))[0]
    for name in ("b_0000.png", "a.png", "scan_0007.png", "c.TIF"):
        save(picture, tmp_path / name)
    (tmp_path / "translated_to_original_paths.json").write_text("{}")
    found = list_cases(tmp_path, (".png", ".tif"))
    assert [(case.name, case.files[0].name) for case in found] == [
        ("a", "a.png"),
        ("b", "b_0000.png"),
        ("c", "c.TIF"),
        ("scan_0007", "scan_0007.png"),
    ]
    save(picture, tmp_path / "a_0000.png")
    with pytest.raises(InputError, match=r"a.png and a_0000.png would give one result"):
        list_cases(tmp_path, ".png")
    with pytest.raises(InputError, match="names no channel"):
        list_cases(tmp_path, ".png", channels=2)
    with pytest.raises(InputError, match="absent does not exist"):
        list_cases(tmp_path / "absent", ".png")


# -------------------------------------------------------------------------------------------------------------- models


@pytest.fixture
def model(tmp_path):
    """A model folder as far as it is looked at before nnU-Net reads it."""
    folder = tmp_path / "results" / "Dataset101_TOY" / MODEL
    for fold in ("0", "1", "all"):
        (folder / f"fold_{fold}").mkdir(parents=True)
    (folder / "plans.json").write_text("{}")
    info = {"file_ending": ".png", "channel_names": {"0": "rescale_to_0_1"}, "labels": {"background": 0}}
    (folder / "dataset.json").write_text(json.dumps(info))
    for place in ("fold_0/checkpoint_final.pth", "fold_0/checkpoint_best.pth", "fold_1/checkpoint_best.pth"):
        (folder / place).write_bytes(b"weights")
    return folder


def test_folds_and_checkpoints(model):
    assert read_model(model).folds == (0,)
    assert read_model(model, best=True).folds == (0, 1)
    assert read_model(model, [1], best=True).files == [model / "fold_1" / "checkpoint_best.pth"]
    for folds, told in (
        ([1], "fold 1 of .* has no checkpoint_final.pth; .*--use-best"),
        ([4], "no fold 4; it has 0, 1, all"),
    ):
        with pytest.raises(WeightsError, match=told):
            read_model(model, folds)
    with pytest.raises(WeightsError, match="fold all"):
        read_model(model, ["all"], best=True)
    (model / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(WeightsError, match=r"no fold of .* has checkpoint_final.pth"):
        read_model(model)
    (model / "fold_all" / "checkpoint_final.pth").write_bytes(b"weights")
    assert read_model(model).folds == ("all",)


def test_a_folder_that_is_no_model(model, tmp_path):
    with pytest.raises(WeightsError, match=f"inside it is Dataset101_TOY/{MODEL}"):
        read_model(tmp_path / "results")
    with pytest.raises(WeightsError, match="does not exist"):
        read_model(tmp_path / "absent")


def test_requests_of_segmentation(model, tmp_path, capsys):
    picture = save(cells(np.random.default_rng(1))[0], tmp_path / "in" / "a.png")
    words = ["--weights", str(model), "--cpu", "--quiet"]
    cases = [
        ([str(picture), str(picture)], "would replace an image"),
        ([str(picture.parent), str(picture.parent)], "would replace an image"),
        ([str(picture.parent), str(picture)], "a.png is a file"),
        ([str(picture), str(tmp_path / "out.tif")], "out.tif does not end in .png"),
        ([str(tmp_path / "none"), str(tmp_path / "out")], "none does not exist"),
        ([str(picture), str(tmp_path / "out"), "--folds", "x"], "not the number of a fold"),
        ([str(picture), str(tmp_path / "out"), "--folds", "3"], "no fold 3"),
        ([str(picture), str(tmp_path / "out"), "--precision", "fp16"], "nnU-Net chooses the precision"),
        ([str(picture), str(tmp_path / "out"), "--to", "T2"], "--translate-with and --to belong together"),
    ]
    before = picture.read_bytes()
    for request, told in cases:
        assert main(["segment-nnunet", *request, *words]) == 2
        assert told in last_line(capsys)
    assert picture.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_results_of_before_stay_when_nnunet_is_missing(model, tmp_path, capsys, monkeypatch):
    from mri_deep_tools.translate.handover import require_nnunet

    picture = save(cells(np.random.default_rng(1))[0], tmp_path / "in" / "a.png")
    old = save(np.zeros((4, 4), np.uint8), tmp_path / "out" / "a.png")
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    words = ["segment-nnunet", str(picture), str(old.parent), "--weights", str(model), "--overwrite", "--cpu"]
    assert main(words) == 2
    assert "mri-deep-tools[nnunet]" in last_line(capsys)
    assert old.is_file()
    with pytest.raises(DependencyError):
        require_nnunet()


def test_what_fails_in_a_child_is_one_sentence_and_a_log(tmp_path):
    before, log = dict(os.environ), tmp_path / "logs" / "x.log"
    job = Job("fold 0", "no such action", {}, {"nnUNet_raw": "x"}, log)
    told = []
    with pytest.raises(MRIDeepToolsError, match=r"^fold 0 failed in nnU-Net: KeyError: 'no such action'; x.log has"):
        run_jobs([job, Job("fold 1", "never started", {})], 1, lambda *event: told.append(event))
    assert "Traceback" in log.read_text()
    assert (told, dict(os.environ)) == ([], before)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"y.log cannot be written"):
        run_jobs([Job("fold 0", "never started", {}, log=tmp_path / "file" / "y.log")], 1, print)


def test_one_gpu_is_shown_to_a_child(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_device("cpu") == visible_device("cuda") == {}
    assert visible_device("cuda:1") == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert visible_device("cuda:1") == {"CUDA_VISIBLE_DEVICES": "6"}
