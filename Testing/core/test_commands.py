"""The commands simulate, train, evaluate and models, and the sample scans of demo, on data of a few thousand voxels."""

from __future__ import annotations

import csv
import itertools
import json

import nibabel as nib
import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.sample_scans import template_scan, thick_slices, without_t1_contrast
from mri_deep_tools.synthsegment.labels import GENERATION
from mri_deep_tools.volume import Volume

AFFINE = np.array([[0, 0, 1.0, -3], [-1.0, 0, 0, 40], [0, -1.0, 0, 7], [0, 0, 0, 1]])


@pytest.fixture
def label_map(tmp_path):
    """Return a file with a few nested boxes of structures, left and right."""
    labels = np.zeros((32, 32, 32), np.int32)
    for code, (first, last) in {3: (4, 28), 2: (8, 24), 10: (12, 20)}.items():
        labels[first:last, first:last, 4:16] = code
        labels[first:last, first:last, 16:28] = code + 39
    path = tmp_path / "map.nii.gz"
    nib.save(nib.Nifti1Image(labels, AFFINE), path)
    return path


def run(capsys, *words) -> tuple[int, str, str]:
    status = main(list(map(str, words)))
    out, err = capsys.readouterr()
    return status, out, err


# ----------------------------------------------------------------------------------------------------------- simulate


@pytest.mark.parametrize("generator", ["synthseg", "t1", "2020"])
def test_simulated_scan(tmp_path, label_map, capsys, generator):
    words = ("simulate", "labels-to-image", label_map, tmp_path / "a.nii.gz", "--generator", generator, "--seed", 7)
    status, out, err = run(capsys, *words, "--cpu")
    assert status == 0, err
    assert "map.nii.gz, seed 7 -> a.nii.gz, a_dseg.nii.gz" in out
    image, labels = nib.load(tmp_path / "a.nii.gz"), nib.load(tmp_path / "a_dseg.nii.gz")
    assert image.shape == labels.shape == (32, 32, 32)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    np.testing.assert_allclose(labels.affine, AFFINE, atol=1e-6)
    assert 0 <= image.get_fdata().min() < image.get_fdata().max() <= 1
    assert set(np.unique(labels.dataobj)) <= {0, 2, 3, 10, 41, 42, 49}
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["Synthetic"] is True
    assert record["Options"]["generator"] == generator
    assert str(tmp_path) not in json.dumps(record)


def test_a_seed_fixes_the_scan(tmp_path, label_map, capsys):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        words = ("simulate", "labels-to-image", label_map, tmp_path / f"{name}.nii.gz", "--seed", seed, "--quiet")
        assert run(capsys, *words)[:2] == (0, "")
    a, b, c = (nib.load(tmp_path / f"{name}.nii.gz").get_fdata() for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).mean() > 0.01


def test_several_scans_go_into_a_folder(tmp_path, label_map, capsys):
    words = ("simulate", "labels-to-image", label_map)
    status, _, err = run(capsys, *words, tmp_path / "one.nii.gz", "--number", 2)
    assert status == 2
    assert "2 scans do not fit into one.nii.gz; name a folder." in err
    assert run(capsys, *words, tmp_path / "out", "--number", 2, "--set", "output_shape=16")[0] == 0
    names = [f"map_desc-synthetic{n:03d}{end}" for n in (1, 2) for end in (".json", ".nii.gz", "_dseg.nii.gz")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert nib.load(tmp_path / "out" / names[1]).shape == (16, 16, 16)


# -------------------------------------------------------------------------------------------------------------- train


@pytest.mark.parametrize("settings", [(), ("task=qc",), ("network=lite", "run.steps=5")])
def test_printed_configuration_is_a_configuration(tmp_path, capsys, settings):
    pytest.importorskip("yaml")
    options = [word for setting in settings for word in ("--set", setting)]
    status, printed, _ = run(capsys, "train", "synthseg", "--print-config", *options)
    assert status == 0
    lines = printed.splitlines()
    for before, line in itertools.pairwise(lines):
        if ":" in line and not line.lstrip().startswith("#"):
            assert before.lstrip().startswith("#"), f"not explained: {line}"
    path = tmp_path / "training.yaml"
    path.write_text(printed)
    assert run(capsys, "train", "synthseg", "--config", path, "--print-config") == (0, printed, "")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("stepz=3",), "unknown key 'stepz'"),
        (("run.steps=many",), "'many'"),
        (("run",), "--set run is not of the form KEY=VALUE"),
        (("task=cooking",), "there is no task 'cooking'"),
        ((), "names no label maps"),
    ],
)
def test_wrong_configurations(capsys, settings, expected):
    pytest.importorskip("lightning")
    options = [word for setting in settings for word in ("--set", setting)]
    status, out, err = run(capsys, "train", "synthseg", *options)
    assert (status, out) == (2, "")
    assert expected in err


def test_a_wrong_option_is_not_blamed_on_the_file(tmp_path, capsys):
    pytest.importorskip("lightning")
    path = tmp_path / "training.yaml"
    path.write_text("levels: 3\n")
    assert (
        "training.yaml with --set has an unknown key"
        in run(capsys, "train", "synthseg", "--config", path, "--set", "stepz=3")[2]
    )


def test_a_training_of_two_steps_and_its_continuation(tmp_path, label_map, capsys):
    pytest.importorskip("lightning")
    maps = tmp_path / "maps"
    maps.mkdir()
    label_map.rename(maps / "map.nii.gz")
    small = ["levels=2", "width=2", "wl2_epochs=1", "dice_epochs=1", "steps_per_epoch=1", "generator.output_shape=16"]
    options = [word for setting in (f"labels={maps}", *small) for word in ("--set", setting)]
    words = ("train", "synthseg", "--output", tmp_path / "run", "--cpu", "--threads", 1, *options)
    for _ in range(2):
        status, out, err = run(capsys, *words)
        assert status == 0, err
        assert "The training is complete" in out
    assert {path.name for path in (tmp_path / "run" / "weights").iterdir()} >= {"wl2_001.safetensors"}
    assert (tmp_path / "run" / "config.yaml").is_file()


# ----------------------------------------------------------------------------------------------------------- evaluate


def test_scores_of_a_segmentation(tmp_path, label_map, capsys):
    truth = nib.load(label_map)
    shifted = np.roll(np.asarray(truth.dataobj), 1, axis=0)
    nib.save(nib.Nifti1Image(shifted, AFFINE), tmp_path / "found.nii.gz")
    words = ("evaluate", "segmentation", label_map, tmp_path / "found.nii.gz", tmp_path / "scores")
    status, out, err = run(capsys, *words, "--labels", 10, 49)
    assert status == 0, err
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [row["label"] for row in rows] == ["10", "49", "all"]
    assert float(rows[0]["dice"]) == pytest.approx(7 / 8)  # a box of 8 voxels moved by one
    assert "left thalamus" in out
    assert (tmp_path / "scores_summary.csv").is_file()
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "scores.csv exists already" in err


def test_two_methods_are_compared(tmp_path, label_map, capsys):
    for name in ("truth", "first", "second"):
        (tmp_path / name).mkdir()
    labels = np.asarray(nib.load(label_map).dataobj)
    for subject in range(6):
        for name, shift in (("truth", 0), ("first", 1), ("second", 2 + subject)):
            image = nib.Nifti1Image(np.roll(labels, shift, axis=1), AFFINE)
            nib.save(image, tmp_path / name / f"sub-{subject}.nii.gz")
    words = ("evaluate", "segmentation", tmp_path / "truth", tmp_path / "first", tmp_path / "scores.csv")
    status, _, err = run(capsys, *words, "--second", tmp_path / "second")
    assert (status, "--second and --comparison belong together" in err) == (2, True)
    options = ("--second", tmp_path / "second", "--comparison", tmp_path / "test.csv", "--no-distances", "--quiet")
    status, out, err = run(capsys, *words, *options)
    assert (status, out) == (0, ""), err
    rows = {row["structure"]: row for row in csv.DictReader((tmp_path / "test.csv").open())}
    assert float(rows["left thalamus"]["wilcoxon_p"]) == pytest.approx(2 / 2**6)  # six pairs, all one way
    assert float(rows["left thalamus"]["cohens_d"]) > 1


def test_priors_of_scans(tmp_path, label_map, capsys):
    labels = np.asarray(nib.load(label_map).dataobj)
    nib.save(nib.Nifti1Image(labels.astype(np.float32) * 2 + 5, AFFINE), tmp_path / "scan.nii.gz")
    words = ("evaluate", "priors", tmp_path / "scan.nii.gz", label_map, tmp_path / "out")
    status, _, err = run(capsys, *words, "--no-rescale", "--classes", "sided", "--quiet")
    assert status == 0, err
    means, classes = np.load(tmp_path / "out" / "prior_means.npy"), {item.code: item.sided_class for item in GENERATION}
    assert means.shape == (2, 48)
    for code in (2, 3, 10, 41, 42, 49):
        assert means[0, classes[code]] == 2 * code + 5
        assert means[1, classes[code]] == 0  # one scan has no spread


# ------------------------------------------------------------------------------------------------------------- models


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    return tmp_path / "cache"


def test_list_of_models(empty_cache, capsys):
    status, out, _ = run(capsys, "models", "list")
    assert status == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "53.1 MB" in lines["synthseg-2.0"]
    assert "absent" in lines["synthseg-2.0"]
    status, out, _ = run(capsys, "models", "list", "synthseg-2.0")
    assert "10.1016/j.media.2023.102789" in out
    assert "licence: Apache-2.0" in out
    facts = json.loads(run(capsys, "models", "list", "--json")[1])
    assert {fact["name"] for fact in facts} >= {"synthseg-1.0", "synthseg-2.0", "synthseg-lite"}
    assert [fact["task"] for fact in json.loads(run(capsys, "models", "list", "--task", "quality", "--json")[1])] == [
        "quality"
    ]


def test_models_that_are_not_there(empty_cache, tmp_path, capsys):
    status, _, err = run(capsys, "models", "path", "synthseg-2.0")
    assert (status, "models download synthseg-2.0" in err) == (2, True)
    status, _, err = run(capsys, "models", "list", "synthseg-3.0")
    assert (status, "did you mean synthseg-2.0?\n" in err) == (2, True)
    status, out, err = run(capsys, "models", "verify", "synthseg-2.0")
    assert (status, "synthseg_2.0.h5 absent" in out) == (1, True)
    assert "not in order: synthseg_2.0.h5; " in err
    assert run(capsys, "models", "remove", "synthseg-2.0")[:2] == (0, "synthseg-2.0: it was not in the cache\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "synthseg_2.0.h5").write_bytes(b"something else")
    status, out, err = run(capsys, "models", "import", tmp_path / "folder")
    assert (status, "synthseg_2.0.h5 was refused" in err) == (2, True)
    assert run(capsys, "models", "download", "synthseg-2.0")[0] == 1


# ------------------------------------------------------------------------------------------------------- sample scans


def test_thick_slices_keep_their_place_and_mean():
    affine = np.diag([1.0, 1, 2, 1])
    affine[:3, 3] = 1, 2, 3
    scan = Volume(np.arange(2 * 2 * 7, dtype=np.float32).reshape(2, 2, 7), affine)
    thick = thick_slices(scan, 3)
    assert thick.shape3 == (2, 2, 2)
    assert thick.spacing == (1, 1, 6)
    np.testing.assert_allclose(thick.affine[:3, 3], (1, 2, 5))  # the middle of the slices at 3, 5 and 7 mm
    np.testing.assert_array_equal(thick.data[0, 0], [1, 4])


def test_template_and_its_other_contrast():
    pytest.importorskip("nilearn")
    scan = template_scan()
    assert scan.shape3 == (197, 233, 189)
    assert scan.spacing == (1, 1, 1)
    assert scan.axcodes == ("R", "A", "S")
    other = without_t1_contrast(scan)
    brain = scan.data > 0
    assert not other.data[~brain].any()
    assert np.corrcoef(scan.data[brain][::50], other.data[brain][::50])[0, 1] < -0.95
