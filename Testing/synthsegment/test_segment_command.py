"""`mri-deep-tools segment` as a person meets it: outputs of every kind, and one clear sentence for every bad input.

Child processes of the real program, with networks of the published wiring at a third of its width (golden data).
"""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.commands.segment_tables import scores_row, write_csv
from mri_deep_tools.progress import EVENT_TOKEN
from segment_command import QUICK, command, labels_of, remains, save, scan_values, sentence

pytestmark = pytest.mark.usefixtures("own_cache")


# ------------------------------------------------------------------------------------------------------------ outputs


def test_all_outputs_of_one_scan(tmp_path, narrow_weights):
    affine = np.array([[0, 0, 1.02, -3], [-0.98, 0, 0, 40], [0, 1.0, 0, -7], [0, 0, 0, 1]])
    scan = save(tmp_path / "sub-01_T1w.nii.gz", affine=affine)
    out = tmp_path / "out"
    words = ("segment", scan, out / "sub-01_dseg.nii.gz", "--weights", narrow_weights, *QUICK, "--progress", "json")
    images = ("--posteriors", out / "soft.nii.gz", "--resampled", out / "seen.mgz")
    done = command(*words, *images, "--volumes", out / "volumes.csv", "--report", out / "page.html")
    assert done.returncode == 0, done.stderr
    names = ["page.html", "seen.mgz", "soft.nii.gz", "sub-01_dseg.json", "sub-01_dseg.nii.gz", "sub-01_dseg.tsv"]
    assert remains(out) == [*names, "volumes.csv"]

    image = nib.load(out / "sub-01_dseg.nii.gz")
    assert image.shape == (40, 36, 34)
    assert image.get_data_dtype() == np.int32
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    soft = nib.load(out / "soft.nii.gz")
    assert soft.shape == (40, 36, 34, 33)
    np.testing.assert_allclose(soft.get_fdata().sum(-1), 1, atol=1e-3)

    (row,) = csv.DictReader((out / "volumes.csv").open())
    assert row.pop("subject") == "sub-01_T1w"
    assert len(row) == 33
    assert all(name.endswith(" (mm^3)") for name in row)
    parts = [float(value) for name, value in row.items() if not name.startswith("total")]
    assert float(row["total intracranial (mm^3)"]) == pytest.approx(sum(parts), rel=1e-3)

    table = list(csv.DictReader((out / "sub-01_dseg.tsv").open(), delimiter="\t"))
    assert [item["index"] for item in table][:3] == ["0", "2", "3"]
    assert table[1]["name"] == "left cerebral white matter"
    assert table[1]["color"].startswith("#")
    assert set(np.unique(labels_of(out / "sub-01_dseg.nii.gz"))) <= {int(item["index"]) for item in table}

    record = json.loads((out / "sub-01_dseg.json").read_text())
    assert [item["Name"] for item in record["Outputs"]] == ["sub-01_dseg.nii.gz", "soft.nii.gz", "seen.mgz"]
    assert record["Inputs"][0]["Name"] == "sub-01_T1w.nii.gz"
    assert str(tmp_path) not in json.dumps(record)
    assert str(tmp_path) not in (out / "page.html").read_text()

    events = [json.loads(line[len(EVENT_TOKEN) :]) for line in done.stdout.splitlines()]
    assert {event["event"] for event in events} >= {"stage", "progress", "device", "result"}
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert events[-1]["event"] == "result"
    assert len(events[-1]["outputs"]) == 5


def test_freesurfer_flags_are_the_same_command(tmp_path, narrow_weights, shared, capsys):
    scan = shared("fixtures", "synthseg", "inputs", "conformed.mgz")
    old = tmp_path / "out.nii.gz"
    old.write_text("what FreeSurfer would replace")
    words = ("segment", "--i", scan, "--o", old, "--weights", narrow_weights, "--vol", tmp_path / "vol")
    more = ("--post", tmp_path / "post.nii.gz", "--resample", tmp_path / "res.nii.gz")
    flags = ("--parc", "--fast", "--crop", "64", "64", "64", "--threads", "1", "--cpu", "--keepgeom", "--quiet")
    assert main([*map(str, (*words, *more)), *flags]) == 0
    assert capsys.readouterr().out == ""
    assert remains(tmp_path) == ["out.json", "out.nii.gz", "post.nii.gz", "res.nii.gz", "vol.csv"]
    codes = set(np.unique(labels_of(old)))
    assert not codes & {3, 42}
    assert max(codes) > 1000
    (row,) = csv.DictReader((tmp_path / "vol.csv").open())
    assert len(row) == 1 + 33 + 68


def test_compatible_tables_are_the_published_ones(tmp_path, narrow_weights, shared):
    scan = shared("fixtures", "synthseg", "inputs", "conformed.mgz")
    words = ("segment", scan, tmp_path / "seg.nii.gz", "--weights", narrow_weights, "--vol", tmp_path / "vol.csv")
    options = ("--v1", "--parc", "--crop", "64", "--threads", "1", "--compatible", "--quiet")
    assert main([*map(str, words), *options]) == 0
    golden = shared("fixtures", "synthseg", "predict", "v1_parc_vol.csv").read_bytes().decode()
    ours = (tmp_path / "vol.csv").read_bytes().decode()
    assert ours.split("\n", 1)[0] == golden.split("\n", 1)[0]
    mine, published = (np.array(text.split("\n")[1].split(",")[1:], float) for text in (ours, golden))
    assert ours.split("\n")[1].startswith("conformed.mgz,")
    np.testing.assert_allclose(mine, published, rtol=1e-3, atol=1)
    published_labels = labels_of(shared("fixtures", "synthseg", "predict", "v1_parc_seg.nii.gz"))
    assert np.mean(labels_of(tmp_path / "seg.nii.gz") != published_labels) <= 2e-4


def test_compatible_score_tables_are_the_published_ones(tmp_path, shared):
    golden = shared("fixtures", "synthseg", "predict", "v2_parc_qc_qc.csv").read_bytes()
    header, row = (line.split(",") for line in golden.decode().splitlines())
    scores = dict(zip(header[1:], map(float, row[1:]), strict=True))
    write_csv(tmp_path / "qc.csv", [scores_row("conformed.mgz", scores, compatible=True)], compatible=True)
    assert (tmp_path / "qc.csv").read_bytes() == golden
    assert scores_row("conformed", scores)["thalamus"] == "0.7588"


def test_a_folder_of_scans_with_a_bad_one(tmp_path, narrow_weights):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("b.nii.gz", "a.nii.gz"):
        save(scans / name, scan_values(seed=ord(name[0])))
    (scans / "broken.nii.gz").write_bytes(b"not gzip")
    (scans / "notes.md").write_text("no scan")
    out = tmp_path / "out"
    done = command("segment", scans, out, "--weights", narrow_weights, *QUICK, "--vol", out / "all.csv", "--fast")
    assert done.returncode == 1
    assert "1 of 3 scans failed (broken.nii.gz)" in sentence(done.stderr)
    assert "broken.nii.gz failed: " in done.stderr
    names = ["a_synthseg.json", "a_synthseg.nii.gz", "all.csv", "b_synthseg.json", "b_synthseg.nii.gz"]
    assert remains(out) == names
    assert [row["subject"] for row in csv.DictReader((out / "all.csv").open())] == ["a", "b"]

    again = command("segment", scans, out, "--weights", narrow_weights, *QUICK)
    assert again.returncode == 2
    assert "a_synthseg.nii.gz exists already" in sentence(again.stderr)


def test_a_list_of_scans(tmp_path, narrow_weights, capsys):
    places = {name: tmp_path / f"{name}.txt" for name in ("scans", "labels", "tables")}
    scans = [save(tmp_path / f"{name}.nii.gz") for name in ("one", "two")]
    places["scans"].write_text("".join(f"{path}\n" for path in scans) + "\n")
    places["labels"].write_text("\n".join(str(tmp_path / f"{name}_seg.nii.gz") for name in ("one", "two")))
    places["tables"].write_text("\n".join(str(tmp_path / f"{name}_vol") for name in ("one", "two")))
    words = [
        "segment",
        places["scans"],
        places["labels"],
        "--vol",
        places["tables"],
        "--weights",
        narrow_weights,
        *QUICK,
    ]
    assert main([*map(str, words), "--fast", "--compatible", "--progress", "none"]) == 0
    for name in ("one", "two"):
        header, row = (tmp_path / f"{name}_vol.csv").read_text().splitlines()
        assert header.startswith(",total intracranial,")
        assert row.startswith(f"{name},")
        assert (tmp_path / f"{name}_seg.nii.gz").is_file()
    assert capsys.readouterr().out.count("ml segmented in") == 2


@pytest.mark.parametrize("suffix", [".nii", ".mgz", ".nrrd", ".mha"])
def test_output_formats_and_names_in_a_folder(tmp_path, narrow_weights, suffix):
    scan = save(tmp_path / "größe mit leer.nii.gz")
    assert (
        main(["segment", str(scan), str(tmp_path / f"x{suffix}"), "--weights", str(narrow_weights), *QUICK, "--fast"])
        == 0
    )
    assert (tmp_path / f"x{suffix}").stat().st_size > 1000
    if suffix == ".nii":
        assert (
            main(["segment", str(scan), str(tmp_path / "made"), "--weights", str(narrow_weights), *QUICK, "--fast"])
            == 0
        )
        assert remains(tmp_path / "made") == ["größe mit leer_synthseg.json", "größe mit leer_synthseg.nii.gz"]


def test_names_can_be_hidden(tmp_path, narrow_weights):
    scan = save(tmp_path / "Jane_Doe.nii.gz")
    words = ["segment", scan, tmp_path / "x.nii.gz", "--weights", narrow_weights, *QUICK, "--hide-names", "--fast"]
    assert main(list(map(str, words))) == 0
    assert "Doe" not in (tmp_path / "x.json").read_text()


# ----------------------------------------------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--i", "{scan}"], "--i and --o go together"),
        (["{scan}", "--o", "x.nii.gz"], "--i and --o go together"),
        (["{scan}"], "INPUT and OUTPUT are needed"),
        (["{scan}", "{dir}/x.nii.gz", "--robust", "--v1"], "no robust mode of version 1.0"),
        (["{scan}", "{dir}/x.nii.gz", "--v1", "--weights", "{narrow}/synthseg_2.0.h5"], "of version 2.0, not 1.0"),
        (["{scan}", "{dir}/x.nii.gz", "--model", "synthseg-9"], "synthseg-9"),
        (["{scan}", "{dir}/x.nii.gz", "--model", "a", "--weights", "b"], "not allowed with argument"),
        (["{scan}", "{dir}/x.nii.gz", "--crop", "0"], "one or three whole numbers from 1"),
        (["{scan}", "{dir}/x.nii.gz", "--crop", "64", "64"], "one or three whole numbers from 1"),
        (["{scan}", "{dir}/x.jpg"], "does not end in an image suffix"),
        (["{scan}", "{scan}", "--overwrite"], "would replace an input"),
        (["{scan}", "{dir}/x.nii.gz", "--post", "{dir}/x.nii.gz"], "two outputs have the same name, x.nii.gz"),
        (["{scan}", "{dir}/x.nii.gz", "--report", "{dir}/x.pdf"], "does not end in .html"),
        (["{dir}", "{dir}/x.nii.gz"], "INPUT is a folder with 1 scans, so OUTPUT must be a folder too"),
        (["{dir}/list.txt", "{dir}/x.nii.gz"], "so OUTPUT must be a .txt list too, not x.nii.gz"),
        (["{dir}/list.txt", "{dir}/three.txt"], "list.txt lists 1 scans and three.txt lists 3 outputs"),
        (["{dir}/empty", "{dir}/out"], "the folder empty holds no files"),
        (["{dir}/nothing.nii.gz", "{dir}/x.nii.gz"], "nothing.nii.gz does not exist"),
        (["{scan}", "{dir}/x.nii.gz", "--device", "cuda:7"], "cuda:7"),
    ],
)
def test_wrong_requests(tmp_path, narrow_weights, capsys, words, expected):
    scan = save(tmp_path / "scan.nii.gz")
    (tmp_path / "list.txt").write_text(f"{scan}\n")
    (tmp_path / "three.txt").write_text("a.nii\nb.nii\nc.nii\n")
    (tmp_path / "empty").mkdir()
    before = remains(tmp_path)
    known = {"scan": scan, "dir": tmp_path, "narrow": narrow_weights}
    arguments = [word.format(**known) for word in words]
    if not {"--model", "--weights"} & set(arguments):
        arguments += ["--weights", str(narrow_weights)]
    assert main(["segment", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in sentence(err)
    assert str(tmp_path) not in err
    assert remains(tmp_path) == before
