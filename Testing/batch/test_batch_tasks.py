"""Every task as a batch, on small scans with real networks: each result is that of the single command."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from batch_helpers import batch
from mri_deep_tools.cli import main
from mri_deep_tools.volume import Volume, write_volume

CPU = ("--device", "cpu", "--threads", "1")


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def ball(folder, name, shape=(32, 32, 32), spacing=(1.0, 1.0, 1.0), seed=0):
    """Write a ball of noise with a median of 500 on a background of 0."""
    draw = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1.2, 1.2, n) for n in shape], indexing="ij", sparse=True)
    values = np.where(sum(axis**2 for axis in axes) < 1, draw.uniform(300, 700, shape), 0)
    folder.mkdir(exist_ok=True)
    affine = np.diag([*spacing, 1.0])
    return write_volume(Volume(values.astype(np.float32), affine), folder / name)


def table_of(folder, *lines):
    (folder / "t.csv").write_text("\n".join([*lines, ""]))
    return folder / "t.csv"


def test_predictions_are_tabled(tmp_path):
    from mri_deep_tools.harmonize.network import Predictor
    from mri_deep_tools.harmonize.predictor_weights import PredictorSpec, save_prediction_model

    spec = PredictorSpec(shape=(32, 32, 32))
    torch.manual_seed(1)
    weights = save_prediction_model(tmp_path / "age.safetensors", Predictor.for_shape(spec.shape).state_dict(), spec)
    scans = [ball(tmp_path / "in", f"s{n}_T1w.nii.gz", seed=n) for n in range(2)]
    out, words = tmp_path / "out", (f"--weights={weights}", "--preprocessed", *CPU)
    table = table_of(tmp_path, "input", "in/s0_T1w.nii.gz", "in/s1_T1w.nii.gz")
    assert batch("--table", table, out, task="predict", options=words) == 0
    assert main(["predict", *map(str, scans), "--csv", str(tmp_path / "p.csv"), *words, "--quiet"]) == 0
    wanted = [float(row["predicted age (years)"]) for row in rows(tmp_path / "p.csv")]
    assert [float(row["predictions"]) for row in rows(out / "batch.csv")] == pytest.approx(wanted, abs=1e-6)
    assert [row["output"] for row in rows(out / "batch.csv")] == ["s0_T1w_prediction.csv", "s1_T1w_prediction.csv"]
    assert (out / "s0_T1w_prediction.json").exists()


def test_harmonized_scans_with_masks_of_their_own(tmp_path, monkeypatch):
    ball(tmp_path / "in", "s0_T1w.nii.gz")
    ball(tmp_path / "in", "s1_T1w.nii.gz", seed=1)
    words = ("--model", "iguane-lite", "--preprocessed", *CPU)
    table = table_of(tmp_path, "input,age", "in/s0_T1w.nii.gz,30", "in/s1_T1w.nii.gz,")
    out = tmp_path / "out"
    assert batch("--table", table, out, "--change", task="harmonize", options=words) == 0
    single = tmp_path / "one.nii.gz"
    assert main(["harmonize", str(tmp_path / "in/s1_T1w.nii.gz"), str(single), *words, "--quiet"]) == 0
    assert (out / "s1_desc-harmonized_T1w.nii.gz").read_bytes() == single.read_bytes()
    assert (out / "s1_desc-change_T1w.nii.gz").exists()
    ages = [json.loads((out / f"s{n}_desc-harmonized_T1w.json").read_text())["Options"]["age"] for n in range(2)]
    assert ages == [30.0, None]


def test_pairs_are_super_resolved(tmp_path):
    for number in range(2):
        ball(tmp_path / "in", f"s{number}_T2w.nii.gz", (32, 32, 8), (1.0, 1.0, 4.0), number)
        ball(tmp_path / "in", f"s{number}_T1w.nii.gz", seed=number + 5)
    words = ("--model", "superresolve-lite", "--registered", *CPU)
    table = table_of(tmp_path, "t2,t1", "in/s0_T2w.nii.gz,in/s0_T1w.nii.gz", "in/s1_T2w.nii.gz,")
    out, single = tmp_path / "out", tmp_path / "one.nii.gz"
    assert batch("--table", table, out, task="superresolve", options=words) == 0
    pair = ("--t2", str(tmp_path / "in/s0_T2w.nii.gz"), "--t1", str(tmp_path / "in/s0_T1w.nii.gz"))
    assert main(["superresolve", str(single), *pair, *words, "--quiet"]) == 0
    assert (out / "s0_desc-synthetic_T2w.nii.gz").read_bytes() == single.read_bytes()
    assert (out / "s1_desc-synthetic_T2w.nii.gz").exists()


@pytest.mark.slow
def test_segmented_scans_and_their_volumes(tmp_path):
    ball(tmp_path / "in", "a.nii.gz", (24, 24, 24), (4.0, 4.0, 4.0))
    words = ("--model", "synthseg-lite", "--fast", "--crop", "32", "32", "32", *CPU)
    out, single = tmp_path / "out", tmp_path / "one_dseg.nii.gz"
    assert batch("--table", table_of(tmp_path, "input", "in/a.nii.gz"), out, task="segment", options=words) == 0
    assert main(["segment", str(tmp_path / "in/a.nii.gz"), str(single), *words, "--quiet"]) == 0
    assert (out / "a_desc-synthseg_dseg.nii.gz").read_bytes() == single.read_bytes()
    assert (out / "a_desc-synthseg_dseg.tsv").read_bytes() == (tmp_path / "one_dseg.tsv").read_bytes()
    measures = rows(out / "batch_measures.csv")[0]
    assert len(measures) > 30 and float(measures["total intracranial"]) >= 0


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Return a folder with a BIDS data set of two small heads at 4 mm, one of them with other axes."""
    folder = tmp_path_factory.mktemp("heads")
    (folder / "dataset_description.json").write_text('{"Name": "Heads", "BIDSVersion": "1.9.0"}')
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in (44, 52, 44)], indexing="ij", sparse=True)
    radius = np.sqrt(sum((a / s) ** 2 for a, s in zip(axes, (0.8, 0.95, 0.85), strict=True)))
    levels = np.select([radius < 0.5, radius < 0.82, radius < 0.9, radius < 1], [700, 500, 120, 900], 0.0)
    for number in (1, 2):
        noise = np.random.default_rng(number).normal(0, 15, radius.shape)
        data, affine = np.maximum(levels + noise * (radius < 1), 0).astype(np.int16), np.diag([4.0, 4.0, 4.0, 1.0])
        if number == 2:
            data, affine = np.moveaxis(data, 2, 0)[::-1], affine @ np.eye(4)[[1, 2, 0, 3]].T @ np.diag([-1.0, 1, 1, 1])
        place = folder / f"sub-0{number}/anat"
        place.mkdir(parents=True)
        write_volume(Volume(np.ascontiguousarray(data), affine), place / f"sub-0{number}_T1w.nii.gz")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("source", ["table", "bids"])
def test_a_contrast_is_translated_with_the_bundled_model(heads, tmp_path, source):
    scans = [f"sub-0{number}/anat/sub-0{number}_T1w.nii.gz" for number in (1, 2)]
    words = ("--to", "T2w", "--model", "syndiff-lite", "--slices", "20:22", "--samples", "2", *CPU)
    table = table_of(tmp_path, "input", *(str(heads / scan) for scan in scans))
    given = ("--table", table) if source == "table" else ("--bids", heads)
    out = tmp_path / "out"
    assert batch(*given, out, "--report", "--save-std", task="translate", options=words) == 0
    found = rows(out / "batch.csv") if source == "table" else tab_rows(out / "batch.tsv")
    assert [row["state"] for row in found] == ["done", "done"]
    assert {row["model"] for row in found} == {"syndiff-lite"}
    single = tmp_path / "one_T2w.nii.gz"
    for scan, row in zip(scans, found, strict=True):
        assert main(["translate", str(heads / scan), str(single), *words, "--quiet", "--overwrite"]) == 0
        made = out / row["output"]
        assert made.name.endswith("_desc-synthetic_T2w.nii.gz")
        assert made.read_bytes() == single.read_bytes()
        record = json.loads(made.with_name(made.name.replace(".nii.gz", ".json")).read_text())
        assert record["Synthetic"] is True and record["TargetContrast"] == "T2w"
        stem = made.name.removesuffix("_desc-synthetic_T2w.nii.gz")
        assert made.with_name(f"{stem}_desc-std_T2w.nii.gz").exists()
        assert made.with_name(f"{stem}_desc-synthetic_report.html").stat().st_size > 10_000
        assert (out / "batch_pictures" / f"{row['id']}.jpg").stat().st_size > 1000


def tab_rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_weights_that_are_not_there_end_the_batch_at_once(tmp_path, capsys):
    for number in range(3):
        ball(tmp_path / "in", f"s{number}.nii.gz")
    table = table_of(tmp_path, "input", *(f"in/s{number}.nii.gz" for number in range(3)))
    words = ("--model", "synthseg-1.0", *CPU)
    assert batch("--table", table, tmp_path / "out", "--at-once", "1", task="segment", options=words) == 2
    assert "synthseg-1.0" in capsys.readouterr().err.splitlines()[-1]
