"""`mri-deep-tools superresolve` as a person meets it: files, records, and one clear sentence for every bad input."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.progress import EVENT_TOKEN


def remains(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def words(golden, weights_file):
    """Return the words of a command on the golden pair."""
    pair = ("--t2", golden("t2w_aniso.nii.gz"), "--t1", golden("t1w.nii.gz"))
    return [*map(str, (*pair, "--weights", weights_file("shallow"))), "--registered", "--threads", "1"]


def test_all_outputs_in_a_process_of_its_own(tmp_path, words):
    out = tmp_path / "sub-01_desc-sr_T2w.nii.gz"
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("interpolated", "honesty")}
    more = ["--slice-direction", "axial", "--slice-spacing", "4", "--report", tmp_path / "page.html"]
    more += [item for name, path in files.items() for item in (f"--{name}", path)]
    call = [sys.executable, "-m", "mri_deep_tools", "superresolve", *words, out, *more, "--progress", "json"]
    done = subprocess.run(list(map(str, call)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert remains(tmp_path) == [
        "honesty.nii.gz",
        "interpolated.nii.gz",
        "page.html",
        "sub-01_desc-sr_T2w.json",
        "sub-01_desc-sr_T2w.nii.gz",
    ]
    image = nib.load(out)
    assert image.shape == (54, 70, 60)
    assert image.get_data_dtype() == np.float32
    assert b"SYNTHETIC" in image.header["descrip"].item()
    assert nib.load(files["honesty"]).shape == (54, 70, 15)
    record = json.loads(out.with_suffix("").with_suffix(".json").read_text())
    assert record["Synthetic"] is True
    assert record["Slices"]["Direction"] == "axial"
    assert record["Slices"]["GapMm"] == 0
    assert len(record["Honesty"]["RmsPerSlice"]) == 15
    assert record["Honesty"]["PsnrDb"] < record["Honesty"]["InterpolationPsnrDb"]  # random weights
    assert record["Options"]["resampling"] == "geometric"
    assert record["Alignment"]["Registered"] == "given"
    assert [item["Name"] for item in record["Inputs"]] == ["t2w_aniso.nii.gz", "t1w.nii.gz"]
    assert str(tmp_path) not in json.dumps(record)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "This image is synthetic" in page
    assert page.count("data:image/png") == 3  # comparison, map, profile of the slices
    events = [json.loads(line[len(EVENT_TOKEN) :]) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert events[-1]["synthetic"] is True
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)


def test_compatible_writes_the_published_file(tmp_path, golden, words, weights_file):
    """Name, padded grid, 0..1, float64."""
    t2 = tmp_path / "sub-9_axial_T2w_LR4.nii.gz"
    t2.write_bytes(golden("t2w_aniso.nii.gz").read_bytes())
    words[1] = str(t2)
    words[5] = str(weights_file("narrow"))
    assert main(["superresolve", *words, str(tmp_path / "results"), "--compatible", "--quiet"]) == 0
    assert remains(tmp_path / "results") == [f"sub-9_axial_T2w_reconstructed_LR4.{kind}" for kind in ("json", "nii.gz")]
    image = nib.load(tmp_path / "results" / "sub-9_axial_T2w_reconstructed_LR4.nii.gz")
    expected = golden("infer_narrow.npz")
    assert image.get_data_dtype() == np.float64
    np.testing.assert_allclose(image.affine, expected["affine"], atol=1e-6)
    assert np.abs(image.get_fdata() - expected["reconstruction"]).max() <= 2e-5


def test_a_folder_gets_a_name_that_says_synthetic(tmp_path, words, golden, capsys):
    words[1] = str(golden("t2w_iso.nii.gz"))
    assert main(["superresolve", *words, str(tmp_path / "out")]) == 0
    assert remains(tmp_path) == [f"out/t2w_iso_desc-synthetic_T2w.{kind}" for kind in ("json", "nii.gz")]
    out, err = capsys.readouterr()
    assert "slices unknown" in out
    assert "is not checked against its slices" in err


def test_names_can_be_hidden(tmp_path, words, golden):
    path = tmp_path / "Jane_Doe.nii.gz"
    path.write_bytes(golden("t1w.nii.gz").read_bytes())
    words[3] = str(path)
    assert main(["superresolve", *words, str(tmp_path / "x.nii.gz"), "--hide-names", "--quiet"]) == 0
    assert "Doe" not in (tmp_path / "x.json").read_text()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["{out}/x.jpg"], "does not end in an image suffix"),
        (["{out}/x.nii.gz", "--t1", "{out}/none.nii.gz"], "none.nii.gz does not exist"),
        (["{out}/x.nii.gz", "--weights", "{out}/none.pth"], "none.pth does not exist"),
        (["{out}/x.nii.gz", "--report", "{out}/x.pdf"], "does not end in .html"),
        (["{out}/x.nii.gz", "--honesty", "{out}/x.txt"], "does not end in an image suffix"),
        (["{out}/x.nii.gz", "--honesty", "{out}/x.nii.gz"], "two outputs have the same name"),
        (["{t2}", "--overwrite"], "would replace an input"),
        (["{out}/x.nii.gz", "--space", "template"], "needs one"),
        (["{out}/x.nii.gz", "--slice-thickness", "-2"], "above 0 mm"),
        (["{out}/x.nii.gz", "--slice-direction", "up"], "invalid choice"),
    ],
)
def test_wrong_requests(tmp_path, words, golden, capsys, change, expected):
    known = {"out": tmp_path, "t2": golden("t2w_aniso.nii.gz")}
    assert main(["superresolve", *words, *(word.format(**known) for word in change)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err.rstrip("\n").rsplit("\n", 1)[-1]
    assert str(tmp_path) not in err
    assert remains(tmp_path) == []


def test_a_network_can_be_imported_and_used_by_name(tmp_path, words, weights_file):
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "pretrained_weights.pth").write_bytes(weights_file("shallow").read_bytes())
    assert main(["models", "import", str(folder), "--model", "baby-ai"]) == 0
    try:
        named = [word for word in words if word != "--weights" and not word.endswith(".pth")]
        assert main(["superresolve", *named, str(tmp_path / "x.nii.gz"), "--quiet"]) == 0
        record = json.loads((tmp_path / "x.json").read_text())
        assert record["Models"][0]["Name"] == "baby-ai"
        assert len(record["Models"][0]["SHA256"]) == 64
    finally:
        assert main(["models", "remove", "baby-ai"]) == 0
    (folder / "pretrained_weights.pth").write_bytes(b"no weights")
    assert main(["models", "import", str(folder), "--model", "baby-ai"]) == 2
