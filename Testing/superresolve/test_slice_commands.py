"""`simulate thick-slices` and `evaluate similarity` on files."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.superresolve.slices import detect_slices
from mri_deep_tools.volume import Volume, read_volume, write_volume


def remains(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def isotropic(tmp_path):
    values = np.random.default_rng(0).random((24, 26, 40)).astype(np.float32) + 1
    affine = np.array([[0, 0, 1.0, -3], [-1.0, 0, 0, 4], [0, 1.0, 0, 5], [0, 0, 0, 1]])
    return write_volume(Volume(values, affine), tmp_path / "in" / "sub-1_T2w.nii.gz")


def test_the_published_synthesis_as_a_command(tmp_path, golden):
    """All directions and factors of the golden data, in the published folders, float64."""
    arrays = golden("anisotropic.npz")
    source = write_volume(Volume(arrays["input"], np.diag([-1.0, 1, 1, 1])), tmp_path / "in" / "sub-1_T2w.nii.gz")
    words = ["--method", "as-trained", "--thickness", "2", "3", "4", "5", "--compatible", "--quiet"]
    ways = ["--direction", "axial", "coronal", "sagittal"]
    assert main(["simulate", "thick-slices", str(source.parent), str(tmp_path / "LR"), *words, *ways]) == 0
    made = list((tmp_path / "LR").rglob("*.nii.gz"))
    assert len(made) == 12
    for direction in ("axial", "coronal", "sagittal"):
        for factor in (2, 3, 4, 5):
            path = tmp_path / "LR" / direction / f"LR{factor}" / f"sub-1_{direction}_T2w_LR{factor}.nii.gz"
            image = nib.load(path)
            assert image.get_data_dtype() == np.float64
            assert np.abs(image.get_fdata() - arrays[f"{direction}_{factor}"]).max() <= 1e-4
            np.testing.assert_allclose(image.affine, np.diag([-1.0, 1, 1, 1]))


def test_directions_are_anatomical(tmp_path, isotropic):
    """Array axis 0 runs to the back here and axis 2 to the right."""
    out = tmp_path / "out"
    words = ["--thickness", "4", "2.5", "--direction", "sagittal", "coronal", "--gap", "0.5"]
    assert main(["simulate", "thick-slices", str(isotropic), str(out), *words]) == 0
    names = [f"sub-1_acq-{way}{size}mm_T2w" for way in ("coronal", "sagittal") for size in ("2p5", "4")]
    assert remains(out) == sorted(f"{name}.{kind}" for name in names for kind in ("json", "nii.gz"))
    path = out / "sub-1_acq-sagittal2p5mm_T2w.nii.gz"
    found = detect_slices(read_volume(path), path)
    assert (found.direction, found.axis, found.told_by) == ("sagittal", 2, "sidecar")
    assert found.spacing_mm == pytest.approx(3.0)
    assert found.gap_mm == pytest.approx(0.5)
    record = json.loads((out / "sub-1_acq-sagittal2p5mm_T2w.json").read_text())
    assert record["Synthetic"] is True
    assert record["SpacingBetweenSlices"] == 3.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["x.nii.gz", "--thickness", "3", "4"], "2 scans do not fit into x.nii.gz"),
        (["x.nii.gz", "--thickness", "0"], "above 0 mm"),
        (["x.nii.gz", "--thickness", "90"], "do not fit twice"),
        (["x.nii.gz", "--method", "as-trained", "--thickness", "2.5"], "2.5 voxels"),
        (["x.nii.gz", "--method", "as-trained", "--gap", "1"], "for --method physical"),
        (["x.nii.gz", "--start", "1"], "for --method as-trained"),
    ],
)
def test_wrong_simulations(tmp_path, isotropic, capsys, words, expected):
    target = str(tmp_path / "out" / words[0])
    assert main(["simulate", "thick-slices", str(isotropic), target, *words[1:]]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_scores_of_files_equal_the_published_ones(tmp_path, golden):
    table = tmp_path / "scores.csv"
    files = [str(golden("t2w_iso.nii.gz")), str(golden("t2w_aniso.nii.gz")), str(table)]
    assert main(["evaluate", "similarity", *files, "--compatible", "--quiet"]) == 0
    rows = {row["name"]: row for row in csv.DictReader(table.open())}
    assert list(rows) == ["t2w_aniso.nii.gz", "mean", "std"]
    expected = golden("metrics.json")["pair0"]
    row = rows["t2w_aniso.nii.gz"]
    assert float(row["data_range"]) == 1
    assert float(row["psnr"]) == pytest.approx(expected["psnr"], abs=1e-4)
    for name in ("ssim", "nrmse", "mse"):
        assert float(row[name]) == pytest.approx(expected[name], abs=1e-6)
    assert float(row["psnr_masked"]) < float(row["psnr"])
    assert float(rows["std"]["psnr"]) == 0


def test_scores_with_a_data_range_and_a_mask(tmp_path, capsys):
    rng = np.random.default_rng(0)
    truth, mask = rng.random((10, 11, 12)).astype(np.float32) * 100, np.zeros((10, 11, 12), np.uint8)
    mask[4:7] = 1
    for folder, shift in (("truth", 0), ("found", 10)):
        for name in ("a", "b"):
            write_volume(Volume(truth + shift * mask, np.eye(4)), tmp_path / folder / f"{name}.nii.gz")
    write_volume(Volume(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    words = [str(tmp_path / name) for name in ("truth", "found", "scores")]
    more = ["--data-range", "100", "--mask", str(tmp_path / "mask.nii.gz")]
    assert main(["evaluate", "similarity", *words, *more]) == 0
    assert "within the mask PSNR 20.00 dB" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [row["name"] for row in rows] == ["a.nii.gz", "b.nii.gz", "mean", "std"]
    assert float(rows[2]["psnr"]) == pytest.approx(20 + 10 * np.log10(10 / 3))
    moved = write_volume(Volume(truth, np.diag([2.0, 1, 1, 1])), tmp_path / "moved.nii.gz")
    pair = [str(tmp_path / "truth" / "a.nii.gz"), str(moved), str(tmp_path / "x.csv")]
    assert main(["evaluate", "similarity", *pair]) == 2
    assert "moved.nii.gz does not lie on the grid of a.nii.gz" in capsys.readouterr().err
