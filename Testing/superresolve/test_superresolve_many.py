"""Many pairs in one command, and the transform between two scans as a file."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.progress import EVENT_TOKEN
from mri_deep_tools.superresolve.simulate import SliceStack, acquire
from mri_deep_tools.volume import Volume, read_volume, write_volume


@pytest.fixture(scope="module")
def scans(golden):
    """Return T1w and thick-slice T2w, cut to a small box."""
    t1, iso = (read_volume(golden(f"{name}.nii.gz")) for name in ("t1w", "t2w_iso"))
    box = (slice(8, 50), slice(10, 60), slice(6, 54))
    moved = np.array(t1.affine)
    moved[:3, 3] = (t1.affine @ [8, 10, 6, 1])[:3]
    t1, iso = Volume(t1.data[box], moved), Volume(iso.data[box], moved)
    return t1, acquire(iso, SliceStack(2, 4.0, 4.0))


@pytest.fixture
def words(weights_file):
    return ["superresolve", "--weights", str(weights_file("shallow")), "--registered", "--threads", "1"]


def remains(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def data(tmp_path, scans):
    """Return a BIDS-like folder with two pairs, one of which has no T1w scan of its own."""
    t1, t2 = scans
    for subject in ("01", "02"):
        place = tmp_path / "data" / f"sub-{subject}" / "anat"
        place.mkdir(parents=True)
        write_volume(t2, place / f"sub-{subject}_T2w.nii.gz")
        write_volume(t1, place / f"sub-{subject}_T1w.nii.gz")
    return tmp_path / "data"


def test_a_folder_of_pairs_with_the_model_loaded_once(tmp_path, data, words, monkeypatch, capsys):
    from mri_deep_tools.superresolve import weights

    loads = []
    original = weights.load_network
    monkeypatch.setattr(weights, "load_network", lambda path, **more: (loads.append(path), original(path, **more))[1])
    out = tmp_path / "out"
    extras = ["--honesty", str(tmp_path / "maps"), "--report", str(tmp_path / "pages")]
    assert main([*words, "--t2", str(data), "--t1", str(data), str(out), *extras]) == 0
    assert len(loads) == 1
    assert remains(out) == [
        f"sub-{subject}/anat/sub-{subject}_desc-synthetic_T2w.{kind}"
        for subject in ("01", "02")
        for kind in ("json", "nii.gz")
    ]
    assert remains(tmp_path / "maps") == [
        f"sub-{subject}/anat/sub-{subject}_desc-honesty_T2w.nii.gz" for subject in ("01", "02")
    ]
    assert remains(tmp_path / "pages") == [f"sub-{subject}/anat/sub-{subject}_report.html" for subject in ("01", "02")]
    first, second = (nib.load(path).get_fdata() for path in sorted(out.rglob("*.nii.gz")))
    np.testing.assert_array_equal(first, second)
    assert capsys.readouterr().out.count("Synthetic 1 mm T2w") == 2


def test_one_that_fails_does_not_stop_the_others(tmp_path, data, words):
    (data / "sub-01" / "anat" / "sub-01_T2w.nii.gz").write_bytes(b"no image")
    (data / "sub-02" / "anat" / "sub-02_T1w.nii.gz").rename(data / "sub-02" / "anat" / "away.nii.gz")
    write_volume(read_volume(data / "sub-02" / "anat" / "away.nii.gz"), data / "sub-02" / "anat" / "sub-02_T1w.nii")
    call = [sys.executable, "-m", "mri_deep_tools", *words, "--t2", str(data), str(tmp_path / "out")]
    done = subprocess.run([*call, "--progress", "json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert remains(tmp_path / "out") == [f"sub-02/anat/sub-02_desc-synthetic_T2w.{kind}" for kind in ("json", "nii.gz")]
    assert "1 of 2 scans failed (sub-01_T2w.nii.gz)" in done.stderr.splitlines()[-1]
    events = [json.loads(line[len(EVENT_TOKEN) :]) for line in done.stdout.splitlines()]
    assert [event["scan"] for event in events if event["event"] == "result"] == ["sub-02_T2w.nii.gz"]
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)


def test_a_table_of_pairs(tmp_path, data, words, capsys):
    table = data / "pairs.tsv"
    lines = ["t2\tt1\toutput"]
    lines += [f"sub-{s}/anat/sub-{s}_T2w.nii.gz\tsub-{s}/anat/sub-{s}_T1w.nii.gz\t" for s in ("01", "02")]
    lines[2] += "own/second.nii"
    table.write_text("\n".join([*lines, ""]), encoding="utf-8")
    out = tmp_path / "out"
    assert main([*words, "--table", str(table), str(out), "--quiet"]) == 0
    assert remains(out) == [f"sub-01/anat/sub-01_desc-synthetic_T2w.{kind}" for kind in ("json", "nii.gz")]
    assert remains(data / "own") == ["second.json", "second.nii"]
    for content, expected in (
        ("scan\nx\n", "lacks the column t2"),
        ("t2,t1\n,x.nii\n", "names no T2w scan"),
        ("t2\nnone.nii\n", "none.nii, in line 2"),
    ):
        bad = tmp_path / "bad.csv"
        bad.write_text(content)
        assert main([*words, "--table", str(bad), str(tmp_path / "other")]) in (1, 2)
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_folders_want_folders(tmp_path, data, words, capsys):
    t1 = str(data / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    for more, expected in (
        ([str(tmp_path / "x.nii.gz")], "OUTPUT must be a folder"),
        ([str(tmp_path / "out"), "--honesty", str(tmp_path / "x.nii.gz")], "--honesty must be a folder"),
        ([str(tmp_path / "out"), "--t1", t1], "--t1 must be a folder"),
        ([str(tmp_path / "out"), "--table", "x.csv"], "--t2 and --t1, or --table"),
        ([], "name OUTPUT"),
    ):
        assert main([*words, "--t2", str(data), *more]) == 2
        assert expected in capsys.readouterr().err
    assert remains(tmp_path) == remains_of_data(tmp_path)


def remains_of_data(folder):
    return [name for name in remains(folder) if name.startswith("data/")]


def test_the_transform_brings_the_t1w_onto_the_t2w(tmp_path, golden, weights_file, scans):
    """Read by SimpleITK itself, as any other program would: the resampled T1w fits the one that was not moved."""
    import SimpleITK as sitk  # noqa: N813
    from scipy.spatial.transform import Rotation

    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", (20, -10, 8), degrees=True).as_matrix()
    motion[:3, 3] = (12, -7, 9)
    t1, iso = (read_volume(golden(f"{name}.nii.gz")) for name in ("t1w", "t2w_iso"))
    thick = acquire(iso, SliceStack(2, 4.0, 4.0))
    t2_path = write_volume(thick, tmp_path / "t2.nii.gz")
    t1_path = write_volume(Volume(t1.data, motion @ t1.affine), tmp_path / "t1.nii.gz")
    words = ["superresolve", "--weights", str(weights_file("shallow")), "--threads", "1", "--quiet"]
    words += ["--t2", str(t2_path), "--t1", str(t1_path), str(tmp_path / "sr.nii.gz")]
    assert main([*words, "--save-transform", str(tmp_path / "t1.tfm")]) == 0
    moved = sitk.ReadImage(str(t1_path), sitk.sitkFloat32)
    still = sitk.ReadImage(str(golden("t1w.nii.gz")), sitk.sitkFloat32)
    transform = sitk.ReadTransform(str(tmp_path / "t1.tfm"))
    back = sitk.GetArrayFromImage(sitk.Resample(moved, still, transform, sitk.sitkLinear))
    true = sitk.GetArrayFromImage(still)
    inside = (slice(14, -14),) * 3
    right = np.corrcoef(back[inside].ravel(), true[inside].ravel())[0, 1]
    wrong = sitk.GetArrayFromImage(sitk.Resample(moved, still, transform.GetInverse(), sitk.sitkLinear))
    assert right > 0.97
    assert np.corrcoef(wrong[inside].ravel(), true[inside].ravel())[0, 1] < right - 0.2
    alone = ["superresolve", *words[1:7], str(tmp_path / "alone.nii.gz")]
    assert main([*alone, "--save-transform", str(tmp_path / "x.jpg")]) == 2
