"""`mri-deep-tools harmonize` as a person meets it: files, records, and one clear sentence for every bad request."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from mri_deep_tools.cli import main
from mri_deep_tools.progress import EVENT_TOKEN
from mri_deep_tools.registration import write_transform
from mri_deep_tools.volume import read_volume


def sentence(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_all_outputs_of_one_scan(head, small_weights, shared, tmp_path, capsys):
    out, given = tmp_path / "out", write_transform(tmp_path / "given.h5", head["truth"])
    words = ["harmonize", head["scan"], out, "--weights", small_weights["random"], "--mask", head["mask"]]
    words += ["--transform", given]
    words += ["--template", shared("data", "mni", "MNI152_T1_1mm_brain.nii.gz"), "--save-transform", out / "t.tfm"]
    words += ["--save-preprocessed", out / "prepared.nii.gz", "--save-mask", out / "mask.nii.gz"]
    words += ["--change", out / "change.nrrd", "--report", out / "page.html", "--progress", "json", "--threads", "1"]
    assert main([str(word) for word in words]) == 0
    names = ["change.nrrd", "mask.nii.gz", "page.html", "prepared.nii.gz"]
    names += ["sub-01_desc-harmonized_T1w.json", "sub-01_desc-harmonized_T1w.nii.gz", "t.tfm"]
    assert sorted(path.name for path in out.iterdir()) == names

    image, scan = read_volume(out / "sub-01_desc-harmonized_T1w.nii.gz"), read_volume(head["scan"])
    assert image.shape3 == scan.shape3 and image.data.dtype == np.float32
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-5)
    record = json.loads((out / "sub-01_desc-harmonized_T1w.json").read_text())
    assert record["Synthetic"] is True and record["Inputs"][0]["Name"] == "sub-01_T1w.nii.gz"
    assert record["Stages"]["bias field"] == "N4" and record["Registration"]["Overlap"] > 0.9
    assert record["Change"]["Histogram"]["Bins"] == len(record["Change"]["Histogram"]["Before"])
    assert str(tmp_path) not in json.dumps(record)
    page = (out / "page.html").read_text(encoding="utf-8")
    assert "Structural similarity" in page and page.count("data:image/png") == 2 and str(tmp_path) not in page

    assert record["Options"]["age"] is None and "Joint" in record["Change"]["Histogram"]
    header = nibabel.load(out / "sub-01_desc-harmonized_T1w.nii.gz").header
    assert b"SYNTHETIC" in header["descrip"].item() and b"research use only" in header["descrip"].item()

    # ITK's own reader takes points of the template to the same places in the scan as the transform that made it.
    transform = sitk.ReadTransform(str(out / "t.tfm"))
    for x, y, z in ((0, -18, 8), (40, -60, 30), (-50, 20, -20)):
        lps = transform.TransformPoint((float(-x), float(-y), float(z)))
        np.testing.assert_allclose([-lps[0], -lps[1], lps[2]], (head["truth"] @ [x, y, z, 1])[:3], atol=1e-6)

    lines = capsys.readouterr().out.splitlines()
    events = [json.loads(line[len(EVENT_TOKEN) :]) for line in lines]
    assert events[-1]["event"] == "result" and len(events[-1]["outputs"]) == 6
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_a_folder_of_preprocessed_images(shared, small_weights, tmp_path, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("a_T1w.nii.gz", "b.nii.gz"):
        (scans / name).write_bytes(shared("fixtures", "iguane", "inference_in.nii.gz").read_bytes())
    (scans / "c.nii.gz").write_bytes(b"no image")
    words = [
        "harmonize",
        str(scans),
        str(tmp_path / "out"),
        "--weights",
        str(small_weights["random"]),
        "--preprocessed",
    ]
    assert main([*words, "--quiet"]) == 1
    assert "1 of 3 scans failed (c.nii.gz)" in sentence(capsys)
    made = sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz"))
    assert made == ["a_desc-harmonized_T1w.nii.gz", "b_desc-harmonized.nii.gz"]
    assert main(words) == 2
    assert "exists already" in sentence(capsys)


def test_a_table_of_scans_with_names_and_ages(shared, small_weights, tmp_path, capsys):
    data = shared("fixtures", "iguane", "inference_in.nii.gz").read_bytes()
    for name in ("x", "y"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "sub_T1w.nii.gz").write_bytes(data)
    table = tmp_path / "in" / "scans.csv"
    table.write_text("in_paths,out_paths,age\nx/sub_T1w.nii.gz,first/a.nii.gz,30\ny/sub_T1w.nii.gz,,\n")
    out = tmp_path / "out"
    words = ["harmonize", table, out, "--weights", small_weights["random"], "--preprocessed", "--quiet"]
    words += ["--change", out / "maps", "--report", out / "pages", "--figures", out / "figures.csv"]
    assert main([str(word) for word in words]) == 2
    assert "two scans would both be written to sub_desc-change_T1w.nii.gz" in sentence(capsys)
    words = words[:-6] + words[-2:]
    assert main([str(word) for word in words]) == 0
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert made == [
        "figures.csv",
        "first/a.json",
        "first/a.nii.gz",
        "sub_desc-harmonized_T1w.json",
        "sub_desc-harmonized_T1w.nii.gz",
    ]
    rows = (out / "figures.csv").read_text().splitlines()
    assert (
        rows[0].startswith("scan,model,median before,mean change (of 500),mean absolute change (of 500)")
        and len(rows) == 3
    )
    np.testing.assert_array_equal(
        read_volume(out / "first" / "a.nii.gz").data, read_volume(out / "sub_desc-harmonized_T1w.nii.gz").data
    )


def test_further_files_of_a_list_go_to_folders(shared, small_weights, tmp_path):
    for name in ("a_T1w.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_bytes(shared("fixtures", "iguane", "inference_in.nii.gz").read_bytes())
    (tmp_path / "scans.txt").write_text("a_T1w.nii.gz\nb.nii.gz\n")
    out = tmp_path / "out"
    words = [
        "harmonize",
        tmp_path / "scans.txt",
        out,
        "--weights",
        small_weights["random"],
        "--preprocessed",
        "--quiet",
    ]
    words += ["--change", out / "maps", "--report", out / "pages"]
    assert main([str(word) for word in words]) == 0
    assert sorted(path.name for path in (out / "maps").iterdir()) == [
        "a_desc-change_T1w.nii.gz",
        "b_desc-change.nii.gz",
    ]
    assert sorted(path.name for path in (out / "pages").iterdir()) == [
        "a_desc-harmonized_T1w.html",
        "b_desc-harmonized.html",
    ]


def test_a_scan_that_is_not_there_fails_alone(shared, small_weights, tmp_path, capsys):
    (tmp_path / "a_T1w.nii.gz").write_bytes(shared("fixtures", "iguane", "inference_in.nii.gz").read_bytes())
    (tmp_path / "scans.csv").write_text("path,age\ngone.nii.gz,30\na_T1w.nii.gz,40\n")
    words = ["harmonize", tmp_path / "scans.csv", tmp_path / "out", "--weights", small_weights["random"]]
    assert main([str(word) for word in [*words, "--preprocessed", "--quiet"]]) == 1
    assert "1 of 2 scans failed (gone.nii.gz)" in sentence(capsys)
    assert (tmp_path / "out" / "a_desc-harmonized_T1w.nii.gz").is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image\nx.nii.gz\n", "has no column scan"),
        ("path,age\n,50\n", "line 2 of scans.csv names no scan"),
        ("scan\n", "names no scans"),
        ("scan\nnowhere.nii.gz\n", "names nowhere.nii.gz, which does not exist"),
        ("scan,age\nscan.nii.gz,old\n", "'old' in line 2 of scans.csv is not a number"),
        ("scan,output\nscan.nii.gz,a.pdf\n", "OUTPUT a.pdf has the wrong suffix"),
        ("scan,mask\nscan.nii.gz,scan.nii.gz\n", "the table names masks"),
    ],
)
def test_tables_that_cannot_be_used(small_weights, capsys, tmp_path, text, said):
    (tmp_path / "scan.nii.gz").write_bytes(b"never read")
    (tmp_path / "scans.csv").write_text(text)
    words = ["harmonize", tmp_path / "scans.csv", tmp_path / "out", "--weights", small_weights["random"]]
    assert main([str(word) for word in [*words, "--preprocessed"]]) == 2
    assert said in sentence(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.nii.gz", "o.nii.gz"], "nowhere.nii.gz does not exist"),
        (["SCAN", "o.pdf"], "does not end in an image suffix"),
        (["SCAN", "o.nii.gz", "--save-transform", "t.mat"], "--save-transform t.mat has the wrong suffix"),
        (["SCAN", "o.nii.gz", "--preprocessed", "--save-mask", "m.nii.gz"], "a preprocessed image has none"),
        (["SCAN", "o.nii.gz", "--preprocessed", "--mask", "m.nii.gz"], "needs no mask"),
        (["SCAN", "o.nii.gz", "--registered", "--transform", "t.tfm"], "not allowed with"),
        (["SCAN", "o.nii.gz", "--hd-bet", "--mask", "m.nii.gz"], "not allowed with"),
        (["SCAN", "o.nii.gz", "--age", "200"], "an age of 200 years"),
        (["SCAN", "o.nii.gz", "--preprocessed", "--template", "fsl"], "needs no template"),
        (["SCAN", "SCAN", "--preprocessed"], "would replace an input"),
    ],
)
def test_wrong_requests_end_in_one_sentence(shared, small_weights, capsys, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(shared("fixtures", "iguane", "inference_in.nii.gz").read_bytes())
    words = [str(scan) if word == "SCAN" else word for word in words]
    assert main(["harmonize", *words, "--weights", str(small_weights["identity"])]) == 2
    assert said in sentence(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.nii.gz"]


def test_without_the_published_weights_it_says_how_to_get_them(shared, capsys, tmp_path):
    scan = shared("fixtures", "iguane", "inference_in.nii.gz")
    words = ["harmonize", str(scan), str(tmp_path / "o.nii.gz"), "--preprocessed", "--model", "iguane"]
    assert main(words) == 2
    assert "mri-deep-tools models download iguane" in sentence(capsys)
