"""Scores of translations are those of the published programs, and the command writes them as a table."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.errors import GeometryError, InputError
from mri_deep_tools.translate.metrics import cycle_scores, grey_scores, script_psnr, ssim_2d, validation_scores
from mri_deep_tools.translate.pictures import write_picture
from mri_deep_tools.volume import Volume, write_volume


def test_published_figures(shared):
    expected = json.loads(shared("fixtures", "syndiff", "metrics.json").read_text())
    with np.load(shared("fixtures", "syndiff", "metrics_io.npz")) as data:
        real, fake = data["real"], data["fake"]
    l1, decibel = validation_scores(real, fake)
    assert l1 == pytest.approx(expected["train_val_l1"], abs=1e-4)
    assert decibel == pytest.approx(expected["train_val_psnr"], abs=1e-4)
    assert script_psnr(real, fake) == pytest.approx(expected["syndiff_test_psnr"], abs=1e-4)
    for found in (grey_scores(real, fake), grey_scores(real, fake, compatible=True), cycle_scores(real, fake)):
        assert found.psnr == pytest.approx(expected["ads_psnr"], abs=1e-4)
        assert found.ssim == pytest.approx(expected["ads_ssim"], abs=1e-4)
        assert found.l1 == pytest.approx(expected["ads_l1"], abs=1e-4)


def test_rules_differ_as_they_say():
    rng = np.random.default_rng(0)
    real = rng.uniform(-1, 0.2, (2, 1, 20, 24))
    darker = (real + 1) * 0.7 - 1
    assert validation_scores(real, darker) == pytest.approx((0, math.inf)) or validation_scores(real, darker)[1] > 250
    assert script_psnr(real, darker) > 250
    scores = grey_scores(real, darker)
    mse = np.mean((0.3 * (real + 1) / 2) ** 2)
    assert scores.psnr == pytest.approx(-10 * math.log10(mse))
    assert scores.l1 == pytest.approx(0.3 * ((real + 1) / 2).mean())
    other = np.concatenate([real[:1], rng.uniform(-1, 1, (1, 1, 20, 24))])
    assert grey_scores(real, other, compatible=True).ssim == pytest.approx(1)  # the first image alone
    assert grey_scores(real, other).ssim < 0.8
    assert grey_scores(real, real).psnr == math.inf


def test_unusable_images_are_told():
    image = np.zeros((20, 20))
    with pytest.raises(GeometryError):
        grey_scores(image, image[:10])
    for function in (validation_scores, script_psnr):
        with pytest.raises(InputError, match="black everywhere"):
            function(image - 1, image)
    with pytest.raises(InputError, match="not finite"):
        grey_scores(image, image * np.nan)
    with pytest.raises(InputError, match="at least 7"):
        ssim_2d(image[:5], image[:5])


# -------------------------------------------------------------------------------------------------------- the command


def rows_of(path):
    with path.open(newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


@pytest.fixture
def pictures(tmp_path):
    pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(1)
    for k in range(3):
        image = rng.integers(20, 200, (20, 24)).astype(np.uint8)
        write_picture(image, tmp_path / "truth" / f"a{k}.png")
        write_picture(image + np.uint8(10 * k), tmp_path / "made" / f"a{k}.tif")
    return tmp_path


def test_pictures_are_scored_on_their_grey_values(pictures, capsys):
    table = pictures / "scores.csv"
    assert main(["evaluate", "translation", str(pictures / "truth"), str(pictures / "made"), str(table)]) == 0
    rows = rows_of(table)
    assert list(rows) == ["a0.tif", "a1.tif", "a2.tif", "mean", "std"]
    assert float(rows["a1.tif"]["psnr_db"]) == pytest.approx(20 * math.log10(25.5))
    assert float(rows["a2.tif"]["l1"]) == pytest.approx(20 / 255)
    assert rows["a0.tif"]["psnr_db"] == "inf" and rows["a1.tif"]["l1_unit"] == "grey value range"
    assert "3 pairs" in capsys.readouterr().out


def test_pictures_with_new_names_find_their_originals(pictures):
    mapping = {}
    for k in range(3):
        new = pictures / "made" / f"SYNTH_T2_{k:03d}_0000.png"
        (pictures / "made" / f"a{k}.tif").rename(pictures / "x.tif")
        write_picture(np.full((20, 24), 9, np.uint8), new)
        mapping[str(new)] = f"/elsewhere/a{k}.png"
    (pictures / "made" / "translated_to_original_paths.json").write_text(json.dumps(mapping))
    table = pictures / "scores.csv"
    assert main(["evaluate", "translation", str(pictures / "truth"), str(pictures / "made"), str(table)]) == 0
    assert list(rows_of(table))[:3] == [f"SYNTH_T2_{k:03d}_0000.png" for k in range(3)]


def scan(path, data, spacing=1.0):
    return str(write_volume(Volume(data.astype(np.float32), np.diag([spacing, spacing, spacing, 1])), path))


def test_scans_are_divided_by_their_mean_or_maximum(tmp_path):
    rng = np.random.default_rng(2)
    real = rng.uniform(0, 50, (12, 13, 14)) * (np.indices((12, 13, 14))[0] > 2)
    noise = rng.normal(0, 2, real.shape) * (real > 0)
    truth, found = scan(tmp_path / "t.nii.gz", real), scan(tmp_path / "f.nii.gz", (real + noise) * 3)
    for rule, sizes in (("mean", (real.mean(), (real + noise).mean())), ("max", (real.max(), (real + noise).max()))):
        table = tmp_path / f"{rule}.csv"
        assert main(["evaluate", "translation", truth, found, str(table), "--divide-by", rule, "--quiet"]) == 0
        row = rows_of(table)["f.nii.gz"]
        a, b = real / sizes[0], (real + noise) / sizes[1]
        peak = (a if rule == "mean" else b).max()
        assert float(row["psnr_db"]) == pytest.approx(20 * math.log10(peak / np.sqrt(np.mean((a - b) ** 2))), rel=1e-5)
        assert float(row["l1"]) == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
        assert float(row["l1_masked"]) == pytest.approx(
            np.abs(a - b)[real > 0.1 * np.percentile(real, 99.9)].mean(), rel=1e-4
        )
        assert float(row["psnr_db_masked"]) < float(row["psnr_db"])
        assert rule in row["l1_unit"].replace("largest value", "max")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["T", "f.nii.gz"], "T does not exist"),
        (["t.nii.gz", "grey.png"], "not of one kind"),
        (["t.nii.gz", "moved.nii.gz"], "moved.nii.gz does not lie on the grid of t.nii.gz"),
        (["t.nii.gz", "f.nii.gz", "--divide-by", "none"], "need a data range"),
        (["t.nii.gz", "f.nii.gz", "--data-range", "3"], "--data-range does not go with"),
        (["t.nii.gz", "empty.nii.gz"], "the mean of empty.nii.gz is 0"),
        (["grey.png", "small.png"], "grey.png has 10 x 10 pixels, small.png 8 x 10"),
        (["grey.png", "grey.png", "--mask", "t.nii.gz"], "--mask is for scans"),
    ],
)
def test_faults_end_with_a_sentence_and_no_table(tmp_path, monkeypatch, capsys, words, sentence):
    pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    data = np.random.default_rng(3).uniform(1, 2, (9, 9, 9))
    scan(tmp_path / "t.nii.gz", data)
    scan(tmp_path / "f.nii.gz", data)
    scan(tmp_path / "empty.nii.gz", data * 0)
    scan(tmp_path / "moved.nii.gz", data, spacing=2.0)
    write_picture(np.eye(10, dtype=np.uint8), tmp_path / "grey.png")
    write_picture(np.eye(10, 8, dtype=np.uint8), tmp_path / "small.png")
    assert main(["evaluate", "translation", *words[:2], "out.csv", *words[2:]]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.csv").exists()
