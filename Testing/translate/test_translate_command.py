"""`mri-deep-tools translate` as a person meets it: files, records, folders and tables, and a sentence for bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.commands.translate_jobs import synthetic_suffix
from mri_deep_tools.progress import EVENT_TOKEN
from mri_deep_tools.translate.pictures import read_picture, write_picture
from mri_deep_tools.volume import write_volume
from translation_models import head, picture, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", licence="none", citation="Nobody, 2026")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.delenv("MRI_DEEP_TOOLS_DEBUG", raising=False)


def remains(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def call(model, *words, to="T2"):
    fixed = ("--weights", model, "--to", to, "--threads", "1", "--quiet")
    return main(["translate", *map(str, (*words, *fixed))])


def test_a_folder_of_folders_names_the_option_that_looks_into_them(tmp_path, model, capsys):
    write_picture(picture(), tmp_path / "in" / "sub-01" / "a.png")
    assert call(model, tmp_path / "in", tmp_path / "out") == 2
    assert "no scans or pictures of its own; sub-folders hold 1: add --recursive" in last_line(capsys)
    assert not (tmp_path / "out").exists()


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


# ---------------------------------------------------------------------------------------------------------------- scans


def test_all_outputs_of_a_scan_in_a_process_of_its_own(tmp_path, model):
    scan = write_volume(head(), tmp_path / "sub-01_T1w.nii.gz")
    out = tmp_path / "out"
    words = [
        scan,
        out,
        "--samples",
        "2",
        "--save-std",
        out / "std.nrrd",
        "--report",
        out / "page.html",
        "--slices",
        "3:9",
    ]
    words += ["--report", out / "page.html", "--weights", model, "--to", "T2", "--from", "T1w"]
    words += ["--threads", "1", "--progress", "json"]
    command = [sys.executable, "-m", "mri_deep_tools", "translate", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    name = "sub-01_desc-synthetic_T2w"
    assert remains(out) == ["page.html", "std.nrrd", f"{name}.json", f"{name}.nii.gz"]
    image = nib.load(out / f"{name}.nii.gz")
    np.testing.assert_allclose(image.affine, head().affine, atol=1e-6)
    assert image.shape == head().shape3
    assert b"SYNTHETIC" in image.header["descrip"].item()
    record = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    assert record["Synthetic"] is True
    assert "2207.08208" in record["Method"]
    assert any("2207.08208" in text for text in record["Models"][0]["Citation"])
    assert not any("AxonDeepSynth" in text for text in record["Models"][0]["Citation"])
    assert "Nobody, 2026" in record["Models"][0]["Citation"]
    assert (record["SourceContrast"], record["TargetContrast"]) == ("T1", "T2")
    assert record["Translation"]["SliceRange"] == [3, 9, 1]
    assert [item["Role"] for item in (*record["Inputs"], *record["Outputs"])] == ["scan", "image", "std"]
    assert record["Options"]["samples"] == 2
    assert str(tmp_path) not in json.dumps(record)
    page = (out / "page.html").read_text(encoding="utf-8")
    for words_ in ("not validated for lesions", "Research use only", "Synthetic", "data:image/png", "sub-01"):
        assert (words_ in page) == (words_ != "sub-01"), words_
    events = [json.loads(line[len(EVENT_TOKEN) :]) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert events[-1]["synthetic"] is True
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert len(set(fractions)) > 3


def test_a_folder_of_scans_and_pictures_where_one_fails(tmp_path, model, capsys):
    scans = tmp_path / "in"
    write_volume(head(), scans / "a_T1w.nii.gz")
    (scans / "b_T1w.nii.gz").write_bytes(b"not an image")
    write_volume(head().with_data(np.full(head().shape3, 7, np.int16)), scans / "c.mgz")
    write_picture(picture(), scans / "d.png")
    assert call(model, scans, tmp_path / "out", "--slices", "6") == 1
    assert "2 of 4 images failed (b_T1w.nii.gz, c.mgz)" in last_line(capsys)
    made = ["a_desc-synthetic_T2w.json", "a_desc-synthetic_T2w.nii.gz", "d.json", "d.png"]
    assert remains(tmp_path / "out") == [*made, "translated_to_original_paths.json"]
    assert json.loads((tmp_path / "out" / "translated_to_original_paths.json").read_text()) == {"d.png": "d.png"}


def test_a_table_with_masks_and_outputs(tmp_path, model, capsys):
    scan = head()
    write_volume(scan, tmp_path / "a.nii.gz")
    mask = np.zeros(scan.shape3, np.uint8)
    mask[8:20, 8:20, 5:8] = 1
    write_volume(scan.with_data(mask), tmp_path / "m.nii.gz")
    table = tmp_path / "scans.csv"
    table.write_text("path,output,mask\na.nii.gz,deep/x.nrrd,m.nii.gz\nmissing.nii.gz,y.nrrd,\n")
    options = ("--mean", "mask", "--background", "zero")
    assert call(model, table, tmp_path / "out", *options) == 1
    assert "missing.nii.gz" in last_line(capsys)
    assert remains(tmp_path / "out") == ["deep/x.json", "deep/x.nrrd"]
    record = json.loads((tmp_path / "out" / "deep" / "x.json").read_text())
    assert record["Translation"]["IntensityDivisor"] == pytest.approx(5 * scan.data[mask > 0].mean(), rel=1e-4)
    assert [item["Role"] for item in record["Inputs"]] == ["scan", "mask"]


@pytest.mark.parametrize(
    ("stem", "target", "name"),
    [
        ("sub-1_T1w", "T2", "sub-1_desc-synthetic_T2w"),
        ("sub-1_acq-x_T2w", "T1w", "sub-1_acq-x_desc-synthetic_T1w"),
        ("scan", "FLAIR", "scan_desc-synthetic_FLAIR"),
        ("my_scan", "CT (kV 120)", "my_scan_desc-synthetic_CTkV120"),
    ],
)
def test_names_of_results_say_what_they_are(stem, target, name):
    assert synthetic_suffix(stem, target) == name


# ------------------------------------------------------------------------------------------------------------- pictures


def test_one_picture_with_its_spread(tmp_path, model):
    source = write_picture(picture((50, 70)), tmp_path / "slide.png")
    out = tmp_path / "out"
    words = ("--samples", "3", "--save-std", out / "std.png", "--report", out / "page.html")
    assert call(model, source, out / "made.tif", *words) == 0
    assert remains(out) == ["made.json", "made.tif", "page.html", "std.png"]
    assert read_picture(out / "made.tif").shape == (50, 70)
    assert read_picture(out / "std.png").max() > 0
    record = json.loads((out / "made.json").read_text(encoding="utf-8"))
    assert any("AxonDeepSynth" in text for text in record["Models"][0]["Citation"])
    assert record["Geometry"] == {}
    assert "not validated for lesions" in (out / "page.html").read_text(encoding="utf-8")


def test_folders_of_pictures_keep_names_or_get_the_published_ones(tmp_path, model):
    folder = tmp_path / "in"
    for name in ("AX_007_0000.png", "deep/b.png", "deep/derivatives/labels.png"):
        write_picture(picture((34, 40)), folder / name)
    assert call(model, folder, tmp_path / "own", "--recursive") == 0
    assert [name for name in remains(tmp_path / "own") if name.endswith("png")] == ["AX_007_0000.png", "deep/b.png"]
    mapping = json.loads((tmp_path / "own" / "translated_to_original_paths.json").read_text())
    assert mapping == {"AX_007_0000.png": "AX_007_0000.png", "deep/b.png": "deep/b.png"}
    assert call(model, folder, tmp_path / "published", "--recursive", "--compatible") == 0
    made = [name for name in remains(tmp_path / "published") if name.endswith("png")]
    assert made == ["SYNTH_T2_001_0000.png", "SYNTH_T2_007_0000.png"]
    text = (tmp_path / "published" / "translated_to_original_paths.json").read_text()
    place = tmp_path / "published"
    assert json.loads(text) == {
        str(place / "SYNTH_T2_007_0000.png"): str(folder / "AX_007_0000.png"),
        str(place / "SYNTH_T2_001_0000.png"): str(folder / "deep" / "b.png"),
    }
    from PIL import Image

    with Image.open(place / "SYNTH_T2_007_0000.png") as image:
        assert image.text["Description"].startswith("SYNTHETIC T2")


def nnunet_set(folder, labels=True):
    for number in (4, 5):
        write_picture(picture((36, 45), number), folder / "imagesTr" / f"AX_00{number}_0000.png")
        codes = (picture((36, 45), number) // 100).astype(np.uint8)
        if labels:
            write_picture(codes, folder / "labelsTr" / f"AX_00{number}.png")
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "nerve": 1, "rest": 2}}')
    return folder


def test_a_data_set_of_nnunet(tmp_path, model):
    source = nnunet_set(tmp_path / "Dataset007_X")
    nerves = tmp_path / "nnunet"
    assert call(model, source, nerves, "--dataset-id", "12", "--report", tmp_path / "page.html") == 0
    name = "Dataset012_SYNTH_T2_from_T1"
    made = nerves / "nnUNet_raw" / name
    assert remains(made) == [
        "dataset.json",
        "imagesTr/SYNTH_T2_004_0000.png",
        "imagesTr/SYNTH_T2_005_0000.png",
        "imagesTr/translated_to_original_paths.json",
        "labelsTr/SYNTH_T2_004.png",
        "labelsTr/SYNTH_T2_005.png",
    ]
    assert (made / "imagesTs").is_dir()
    content = json.loads((made / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "nerve": 1, "rest": 2}
    assert content["numTraining"] == 2
    codes = read_picture(made / "labelsTr" / "SYNTH_T2_004.png", labels=True)
    assert np.array_equal(codes, read_picture(source / "labelsTr" / "AX_004.png", labels=True))
    assert read_picture(made / "imagesTr" / "SYNTH_T2_004_0000.png").shape == codes.shape
    record = json.loads((nerves / "nnUNet_raw" / f"{name}.json").read_text())
    assert record["Synthetic"] is True
    assert record["Dataset"]["Pictures"] == 2
    assert "This" in (tmp_path / "page.html").read_text() or "Synthetic" in (tmp_path / "page.html").read_text()
    # the first free number is taken where none is given
    assert call(model, source, nerves) == 0
    assert (nerves / "nnUNet_raw" / "Dataset001_SYNTH_T2_from_T1" / "dataset.json").is_file()
    assert sorted(path.name for path in (nerves / "nnUNet_raw").iterdir() if path.name.startswith(".")) == []


def test_a_scaled_data_set_keeps_labels_and_pictures_together(tmp_path, model):
    source = nnunet_set(tmp_path / "Dataset007_X")
    assert call(model, source, tmp_path / "n", "--scale-factor", "0.9", "--keep-scale", "--dataset-id", "3") == 0
    made = tmp_path / "n" / "nnUNet_raw" / "Dataset003_SYNTH_T2_from_T1"
    for number in (4, 5):
        labels = read_picture(made / "labelsTr" / f"SYNTH_T2_00{number}.png", labels=True)
        assert labels.shape == (32, 40)
        assert read_picture(made / "imagesTr" / f"SYNTH_T2_00{number}_0000.png").shape == labels.shape


def test_a_picture_of_a_data_set_that_fails_is_left_out_and_named(tmp_path, model, capsys):
    source = nnunet_set(tmp_path / "Dataset007_X")
    (source / "imagesTr" / "AX_004_0000.png").write_bytes(b"\x89PNG\r\n\x1a\ncut")
    assert call(model, source, tmp_path / "n", "--dataset-id", "3") == 1
    assert "1 of 2 images failed (AX_004_0000.png)" in last_line(capsys)
    made = tmp_path / "n" / "nnUNet_raw" / "Dataset003_SYNTH_T2_from_T1"
    assert json.loads((made / "dataset.json").read_text())["numTraining"] == 1
    assert [path.name for path in (made / "labelsTr").iterdir()] == ["SYNTH_T2_005.png"]


def test_published_tiles_of_a_folder(tmp_path, model):
    folder = tmp_path / "in"
    write_picture(picture((40, 50)), folder / "a.png")
    words = ["to-translate", folder, tmp_path / "sets", "--contrast", "T1", "--tile-size", "32"]
    assert main(["translate-dataset", *map(str, words), "--quiet"]) == 0
    tiles = tmp_path / "sets" / "dataset_T1.hdf5"
    assert call(model, tiles, tmp_path / "out", "--compatible") == 0
    made = ["SYNTH_T2_000_0000.png", "translated_to_original_paths.json", "translation.json"]
    assert remains(tmp_path / "out") == made
    assert call(model, folder, tmp_path / "direct", "--compatible") == 0
    first, second = (read_picture(tmp_path / name / made[0]) for name in ("out", "direct"))
    assert np.abs(first.astype(int) - second).max() <= 1
    assert call(model, tiles, tmp_path / "other", to="T1") == 2


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing.nii.gz", "out.nii.gz"), "nothing.nii.gz does not exist"),
        (("scan.nii.gz", "out.png"), "OUTPUT out.png has the wrong suffix"),
        (("slide.png", "out.nii.gz"), "OUTPUT out.nii.gz has the wrong suffix"),
        (("scan.nii.gz", "out.nii.gz", "--save-std", "std.nii.gz"), "several samples"),
        (("scan.nii.gz", "out.nii.gz", "--slices", "90:99"), "name none of the 12 slices"),
        (("scan.nii.gz", "out.nii.gz", "--slices", "0"), "no slice that shows more than background"),
        (("scan.nii.gz", "out.nii.gz", "--from", "PD"), "not from PD"),
        (("scan.nii.gz", "out.nii.gz", "--mask", "other.nii.gz"), "not on the grid of the scan"),
        (("scan.nii.gz", "out.nii.gz", "--dataset-id", "5"), "--dataset-id is for data sets"),
        (("slide.png", "out.png", "--mask", "scan.nii.gz"), "INPUT is a picture"),
        (("slide.png", "out.png", "--tile-size", "31"), "multiple of 2"),
        (("slide.png", "out.png", "--scale-factor", "0.001"), "nothing is left"),
        (("slide.png", "slide.png"), "would replace an input"),
        (("text.docx", "out.png"), "neither a picture nor a scan"),
        (("cut.png", "out.png"), "cut.png"),
        (("four.nii.gz", "out.nii.gz"), "has 3 frames"),
        (("sheared.nii.gz", "out.nii.gz"), "sheared.nii.gz"),
        (("table.csv", "out"), "no column path"),
        (("empty", "out.nii.gz"), "without a DICOM series"),
        (("unlabelled", "out"), "has no label map"),
        (("cut.hdf5", "out"), "not a complete HDF5 file"),
        (("unlabelled", "out", "--slices", "3"), "not for whole data sets"),
    ],
)
def test_one_sentence_for_every_bad_request(tmp_path, model, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    scan = write_volume(head(), tmp_path / "scan.nii.gz")
    write_volume(head((6, 6, 6)), tmp_path / "other.nii.gz")
    write_picture(picture(), tmp_path / "slide.png")
    (tmp_path / "text.docx").write_text("words")
    (tmp_path / "cut.png").write_bytes((tmp_path / "slide.png").read_bytes()[:200])
    (tmp_path / "cut.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    data = np.random.default_rng(0).uniform(0, 9, (5, 5, 5, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "four.nii.gz")
    sheared = nib.Nifti1Image(data[..., 0], None)
    sheared.header.set_sform(np.array([[1, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), 1)
    nib.save(sheared, tmp_path / "sheared.nii.gz")
    (tmp_path / "table.csv").write_text("scan_file\na\n")
    (tmp_path / "empty").mkdir()
    nnunet_set(tmp_path / "unlabelled", labels=False)
    before = remains(tmp_path)
    content = scan.read_bytes()
    status = call(model, *words)
    line = last_line(capsys)
    assert status in (1, 2), line
    assert message in line
    assert str(tmp_path) not in line
    assert line.startswith("mri-deep-tools: error: ")
    assert remains(tmp_path) == before
    assert scan.read_bytes() == content


def test_existing_results_are_kept_unless_told_otherwise(tmp_path, model, capsys):
    source = write_picture(picture((32, 32)), tmp_path / "a.png")
    out = tmp_path / "b.png"
    out.write_bytes(b"mine")
    assert call(model, source, out) != 0
    assert out.read_bytes() == b"mine"
    assert call(model, source, out, "--overwrite") == 0
    assert read_picture(out).shape == (32, 32)
    dataset = nnunet_set(tmp_path / "Dataset007_X")
    assert call(model, dataset, tmp_path / "n", "--dataset-id", "3") == 0
    assert call(model, dataset, tmp_path / "n", "--dataset-id", "3") != 0
    assert "exists" in last_line(capsys)
    assert call(model, dataset, tmp_path / "n", "--dataset-id", "3", "--overwrite") == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_cancelled_run_leaves_what_is_complete_and_nothing_else(tmp_path, model):
    """The second scan has more slices than there is time for; SIGTERM comes while it is translated."""
    write_volume(head(), tmp_path / "in" / "a.nii.gz")
    write_volume(head((28, 30, 400)), tmp_path / "in" / "b.nii.gz")
    words = ["translate", tmp_path / "in", tmp_path / "out", "--weights", model, "--to", "T2", "--slices", "5:400"]
    words += ["--threads", "1", "--samples", "4", "--progress", "json"]
    command = [sys.executable, "-m", "mri_deep_tools", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            event = json.loads(line[len(EVENT_TOKEN) :])
            if event["event"] == "progress" and event["stage"] == "translate" and event["fraction"] > 0.51:
                run.send_signal(signal.SIGTERM)
                break
        _, told = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "Cancelled; the results of 1 of 2 images are complete and are kept" in told.splitlines()[-1]
    assert remains(tmp_path / "out") == ["a_desc-synthetic_T2w.json", "a_desc-synthetic_T2w.nii.gz"]


def test_hidden_names_are_in_no_record(tmp_path, model):
    source = write_volume(head(), tmp_path / "Jane_T1w.nii.gz")
    out = tmp_path / "out"
    words = ("--slices", "6", "--hide-names", "--report", out / "page.html")
    assert call(model, source, out / "x.nii.gz", *words) == 0
    for name in ("x.json", "page.html"):
        assert "Jane" not in (out / name).read_text(encoding="utf-8")
