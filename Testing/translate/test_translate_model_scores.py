"""A model is judged on a set: against the truth with pairs, by cycles without."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from mri_deep_tools.cli import main
from mri_deep_tools.translate.engine import TranslationEngine
from mri_deep_tools.translate.metrics import grey_scores
from mri_deep_tools.translate.weights import load_direction
from translation_models import picture, tiny_model


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "model")
    with h5py.File("set_test.hdf5", "w") as file:
        for k, contrast in enumerate(("T1", "T2")):
            for number in range(2):
                file.create_dataset(f"{contrast}/{number}", data=picture((32, 32), seed=2 * number + k))
                file[f"{contrast}/{number}"].attrs["subject"] = f"sub-{number}"
    return tmp_path


def rows_of(path):
    with Path(path).open(newline="") as stream:
        return list(csv.DictReader(stream))


def images(contrast):
    with h5py.File("set_test.hdf5") as file:
        return [torch.from_numpy(file[contrast][str(k)][()] / np.float32(127.5) - 1)[None, None] for k in range(2)]


def test_with_pairs_translations_are_compared_with_the_truth(place, capsys):
    assert main(["evaluate", "translation-model", "model", ".", "scores.csv", "--paired", "--precision", "fp32"]) == 0
    rows = rows_of("scores.csv")
    assert [(row["way"], row["image"]) for row in rows] == [
        *((way, str(k)) for way in ("T1_T2", "T2_T1") for k in range(2)),
        *((way, name) for way in ("T1_T2", "T2_T1") for name in ("mean", "std")),
    ]
    assert rows[1]["subject"] == "sub-1"
    draws, engine = torch.Generator().manual_seed(42), TranslationEngine(load_direction("model", "T2"))
    for number, (source, truth) in enumerate(zip(images("T1"), images("T2"), strict=True)):
        expected = grey_scores(truth.numpy(), engine.run(source, draws).numpy())
        found = [float(rows[number][key]) for key in ("psnr_db", "ssim", "l1")]
        assert found == pytest.approx([expected.psnr, expected.ssim, expected.l1], rel=1e-4)
    assert "T1_T2: PSNR" in capsys.readouterr().out


def test_without_pairs_cycles_are_judged_and_the_seed_decides(place):
    words = ["evaluate", "translation-model", "model", "set_test.hdf5"]
    for name, extra in (("a", []), ("b", []), ("c", ["--seed", "7"]), ("d", ["--number", "1"])):
        assert main([*words, f"{name}.csv", "--quiet", *extra]) == 0
    assert rows_of("a.csv") == rows_of("b.csv") != rows_of("c.csv")
    assert {row["way"] for row in rows_of("a.csv")} == {"T1_T2_T1", "T2_T1_T2"}
    assert [row["image"] for row in rows_of("d.csv")] == ["0", "0", "mean", "std", "mean", "std"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model", "none.hdf5"], "none.hdf5 does not exist"),
        (["none", "set_test.hdf5"], "none is neither a model folder nor a model's name"),
        (["model", ".", "--part", "val"], "has no *_val.hdf5"),
        (["model", ".", "--epoch", "3"], "has no epoch in its name: epoch 3 cannot be chosen; leave the epoch out"),
    ],
)
def test_faults_end_with_a_sentence(place, capsys, words, sentence):
    assert main(["evaluate", "translation-model", *words[:2], "out.csv", *words[2:]]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (place / "out.csv").exists()
