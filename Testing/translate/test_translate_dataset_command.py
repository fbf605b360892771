"""The command translate-dataset makes whole sets with a record beside each, or says in a sentence why not."""

from __future__ import annotations

import builtins
import json

import h5py
import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.translate.dataset import ContrastPairs
from mri_deep_tools.translate.pictures import write_picture
from mri_deep_tools.volume import Volume, write_volume

pytest.importorskip("PIL.Image")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work in a folder with pictures of two contrasts, a data set of nnU-Net, and scans of six people."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k in range(10):
        write_picture(rng.integers(0, 256, (20, 30)).astype(np.uint8), tmp_path / f"tem/sub-{k // 2}/{k}.png")
        write_picture(rng.integers(0, 256, (24, 24)).astype(np.uint8), tmp_path / f"sem/{k}.tif")
    for k in range(3):
        write_picture(rng.integers(0, 256, (20, 30)).astype(np.uint8), tmp_path / f"nn/imagesTr/A_{k:03d}_0000.png")
        write_picture(rng.integers(0, 3, (20, 30)).astype(np.uint8), tmp_path / f"nn/labelsTr/A_{k:03d}.png")
    shape = (14, 16, 9)
    inside = (((np.indices(shape) + 0.5) / np.array(shape)[:, None, None, None] * 2 - 1) ** 2).sum(axis=0) < 0.8
    for k in range(6):
        for contrast in ("T1w", "T2w"):
            data = (inside * rng.uniform(50, 150, shape)).astype(np.float32)
            write_volume(Volume(data, np.eye(4)), tmp_path / f"scans/sub-{k}_{contrast}.nii.gz")
    return tmp_path


TEM_SEM = ["--contrast", "TEM", "tem", "--contrast", "SEM", "sem"]
SCANS = ["--contrast", "T1w", "scans", "--contrast", "T2w", "scans"]


def run(*words):
    return main(["translate-dataset", *words])


def test_a_set_that_cannot_be_made_leaves_no_folder(place, capsys):
    (place / "sem" / "0.tif").write_bytes(b"no picture")
    assert run("pictures", "out/deep", *TEM_SEM, "--quiet") == 2
    assert "0.tif is not a picture" in capsys.readouterr().err
    assert not (place / "out").exists()


def shapes(path, contrast):
    with h5py.File(path) as file:
        return [file[contrast][str(k)].shape for k in range(len(file[contrast]))]


def test_pictures(place, capsys):
    assert run("pictures", "out", *TEM_SEM, "--scale", "SEM", "0.5", "--name", "axons") == 0
    assert shapes("out/axons_train.hdf5", "TEM") == [(20, 30)] * 8
    assert shapes("out/axons_val.hdf5", "SEM") == [(12, 12)]
    record = json.loads((place / "out/axons_test.json").read_text())
    assert len(record["Originals"]["TEM"]) == len(record["Originals"]["SEM"]) == 1
    assert record["Outputs"][0]["Name"] == "axons_test.hdf5" and record["Options"]["scale"] == {"SEM": [0.5]}
    assert "train: 8 of TEM, 8 of SEM" in capsys.readouterr().out
    assert sorted(path.name for path in (place / "out").iterdir()) == sorted(
        f"axons_{part}.{kind}" for part in ("train", "val", "test") for kind in ("hdf5", "json")
    )
    pairs = ContrastPairs("out", ("TEM", "SEM"), 8)
    assert len(pairs) == 8 and pairs.flips and pairs.model_facts()["rule"] == "bytes"


def test_pictures_by_subject_without_test_part(place):
    assert (
        run("pictures", "out", *TEM_SEM, "--by-subject", "--ratios", "0.8", "0.2", "0", "--exclude", "TEM", "sub-4")
        == 0
    )
    assert not (place / "out/dataset_test.hdf5").exists()
    originals = {
        part: json.loads((place / f"out/dataset_{part}.json").read_text())["Originals"]["TEM"]
        for part in ("train", "val")
    }
    assert sorted(map(len, originals.values())) == [2, 6]
    assert not {name[:5] for name in originals["train"]} & {name[:5] for name in originals["val"]}


def test_pictures_of_nnunet_beside_plain_ones(place, capsys):
    assert (
        run("pictures", "out", "--contrast", "TEM", "nn", "tem", "--contrast", "SEM", "sem", "--scale", "TEM", "1", "2")
        == 0
    )
    assert "imagesTr is used, labelsTr not" in capsys.readouterr().err
    assert shapes("out/dataset_train.hdf5", "TEM") == [(20, 30)] * 1 + [(40, 60)] * 8


def test_to_translate(place, capsys):
    assert run("to-translate", "nn", "sets", "--contrast", "TEM", "--tile-size", "16", "--scale", "2") == 0
    with h5py.File("sets/dataset_TEM.hdf5") as file:
        assert len(file["TEM/images"]) == len(file["TEM/labels"]) == 3 * 3 * 4
        assert set(np.unique(file["TEM/labels/5"][()])) <= {0, 1, 2}
    assert "3 pictures as 36 tiles" in capsys.readouterr().out
    assert json.loads((place / "sets/dataset_TEM.json").read_text())["Tiles"] == 36
    assert run("to-translate", "sem", "small", "--contrast", "SEM", "--tile-size", "32") == 0
    assert "less than a tile of 32" in capsys.readouterr().err


def test_volumes_and_back_through_mat_files(place, capsys):
    assert run("volumes", "vol", *SCANS, "--ratios", "0.6", "0.2", "0.2", "--paired", "--minimum-brain", "0.2") == 0
    text = capsys.readouterr().out
    assert "T1w: the largest value is" in text and "pixels have 1 mm" in text
    record = json.loads((place / "vol/dataset_val.json").read_text())
    assert record["Subjects"] == sorted(set(record["Subjects"])) and len(record["Subjects"]) == 1
    assert {entry["Name"][:5] for entry in record["Inputs"]} == set(record["Subjects"])
    pairs = ContrastPairs("vol/dataset_train.hdf5", ("T1w", "T2w"), 16, paired=True)
    assert pairs.model_facts()["constants"] == record["Constants"]

    same = ["--ratios", "0.6", "0.2", "0.2", "--paired", "--minimum-brain", "0.2", "--format", "mat", "--size", "16"]
    assert run("volumes", "mats", *SCANS, *same) == 0
    assert (place / "mats/data_train_T1w.json").exists()
    packed = ["--contrast", "T1w", "mats", "--contrast", "T2w", "mats", "--size", "16", "--paired", "--spacing", "1"]
    assert run("mat", "again", *packed, "--constant", "T1w", str(record["Constants"]["T1w"])) == 0
    again = ContrastPairs("again/dataset_train.hdf5", ("T1w", "T2w"), 16, paired=True)
    assert len(again) == len(pairs)
    for k in range(len(pairs)):
        np.testing.assert_allclose(again[k][0], pairs[k][0], atol=1e-5)
    assert again.model_facts()["in_plane_spacing_mm"] == 1.0


def test_mat_files_as_published(shared, place):
    names = [
        word
        for c in ("T1", "T2")
        for word in ("--contrast", c, str(shared("fixtures", "syndiff", f"data_test_{c}.mat")))
    ]
    assert run("mat", "out", *names, "--part", "test", "--compatible") == 0
    assert shapes("out/dataset_test.hdf5", "T1") == [(256, 255)] * 2
    assert run("mat", "out", *names, "--part", "test", "--overwrite") == 0
    with np.load(shared("fixtures", "syndiff", "mat_loader.npz")) as golden:
        pairs = ContrastPairs("out/dataset_test.hdf5", ("T1", "T2"), 256, training=False)
        np.testing.assert_allclose(pairs[1][1][0, :, :255], golden["T2"][1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pictures", "out", "--contrast", "TEM", "none"], "the folder none does not exist"),
        (["pictures", "out", "--contrast", "TEM"], "--contrast TEM names no files or folders"),
        (["pictures", "out", "--contrast", "tem/", "sem"], "cannot be the name of a contrast"),
        (["pictures", "out", *TEM_SEM, "--scale", "TEM", "1", "2"], "TEM has 1 folder and 2 scale factors"),
        (["pictures", "out", *TEM_SEM, "--scale", "TEM", "x"], "a scale factor is a number above 0"),
        (["pictures", "out", *TEM_SEM, "--scale", "XYZ", "1"], "there is no contrast 'XYZ' among TEM, SEM"),
        (["pictures", "out", *TEM_SEM, "--ratios", "0.8", "0.1", "0.2"], "sum to 1.1, not to 1"),
        (["pictures", "out", *TEM_SEM, "--name", "a/b"], "cannot begin a file name"),
        (["pictures", "out", "--contrast", "A", "nn/labelsTr"], "as a label map or an empty picture has"),
        (["volumes", "out", "--contrast", "A", "scans", "--contrast", "B", "scans"], "is listed for A and for B"),
        (["volumes", "out", "--contrast", "A", "tem"], "the folder tem holds no scans"),
        (["volumes", "out", "--contrast", "A", "scans", "--paired"], "--paired needs two contrasts, not 1"),
        (["volumes", "out", *SCANS, "--masks", "T1w", "nowhere"], "the folder nowhere does not exist"),
        (["volumes", "out", *SCANS, "--mean-in", "mask"], "has no brain mask"),
        (["volumes", "out", *SCANS, "--slices", "90:95"], "name none of the 9 slices"),
        (["mat", "out", "--contrast", "T1", "scans"], "has no data_train_T1.mat"),
        (["to-translate", "nowhere", "out", "--contrast", "T1"], "does not exist"),
        (["to-translate", "sem", "out", "--contrast", "T1", "--nnunet"], "no data set of nnU-Net"),
        (["to-translate", "sem", "out", "--contrast", "T1", "--scale", "0"], "a scale factor must be above 0"),
    ],
)
def test_faults_end_with_a_sentence_and_nothing_is_left(place, capsys, words, sentence):
    assert run(*words) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (place / "out").exists() or not list((place / "out").iterdir())


def test_outputs_are_kept_unless_told(place, capsys):
    assert run("pictures", "out", *TEM_SEM) == 0
    before = (place / "out/dataset_train.hdf5").read_bytes()
    assert run("pictures", "out", *TEM_SEM, "--seed", "1") == 2
    assert "exists already" in capsys.readouterr().err
    assert (place / "out/dataset_train.hdf5").read_bytes() == before
    assert run("pictures", "out", *TEM_SEM, "--seed", "1", "--overwrite") == 0
    assert (place / "out/dataset_train.hdf5").read_bytes() != before


def test_a_missing_extra_is_named(place, capsys, monkeypatch):
    real = builtins.__import__

    def without_pillow(name, *rest, **options):
        if name.partition(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    assert run("pictures", "out", *TEM_SEM) == 2
    assert 'pip install "mri-deep-tools[translate]"' in capsys.readouterr().err
