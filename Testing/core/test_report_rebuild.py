"""`mri-deep-tools report`: the same numbers as at run time, files missing or changed, one or many on a page."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.provenance import DISCLAIMER, make_record, write_sidecar
from mri_deep_tools.translate.pictures import write_picture
from mri_deep_tools.volume import Volume, read_volume, write_volume
from sidecar_examples import example

pytest.importorskip("matplotlib", reason="needs the report extra")
pytest.importorskip("jinja2", reason="needs the report extra")


class Numbers(HTMLParser):
    """Collects tables and facts of a page by the heading of their section."""

    def __init__(self, source):
        super().__init__()
        self.found, self.heading, self.depth, self.words, self.skipped = {}, "", "", [], 0
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        if tag == "h2":
            self.depth, self.heading = "h2", ""
        elif tag in ("th", "td", "dt", "dd"):
            self.depth = tag
            self.found.setdefault(self.heading, []).append("")

    def handle_endtag(self, tag):
        self.depth = "" if tag == self.depth else self.depth

    def handle_data(self, data):
        if self.depth == "h2":
            self.heading += data
        elif self.depth:
            self.found[self.heading][-1] += data.strip()


def numbers(path):
    return Numbers(path.read_text(encoding="utf-8")).found


def run(*words):
    return main(["report", *map(str, words)])


def sentence(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture
def copied(tmp_path):
    """Return a function that copies an example with all its files, and gives the new sidecar."""

    def copy(command):
        source = example(command).parent
        shutil.copytree(source, tmp_path / "run")
        return tmp_path / "run" / example(command).name

    return copy


@pytest.fixture
def small(tmp_path):
    """Return a function that writes a segmentation with its scan and sidecar, made by hand, in a moment."""

    def write(folder="a", version="1.0.0", volumes=None, labels=None, affine=None, scan=None):
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        affine = np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine
        if labels is None:
            labels = np.zeros((12, 14, 10), np.int16)
            labels[3:9, 3:9, 3:7], labels[6:9, 3:9, 3:7] = 17, 53
        values = (np.random.default_rng(0).uniform(10, 90, labels.shape) if scan is None else scan).astype(np.float32)
        files = {"scan": place / "DOE_JANE_T1w.nii.gz", "labels": place / "x_dseg.nii.gz"}
        write_volume(Volume(values, affine), files["scan"])
        write_volume(Volume(labels, affine), files["labels"], intent="label")
        record = make_record(
            "segment",
            [files["scan"]],
            options={"fast": True},
            outputs=[files["labels"]],
            geometry={"output": read_volume(files["labels"])},
            roles={path: role for role, path in files.items()},
            seconds={"segment": 1.25},
        )
        record["GeneratedBy"][0]["Version"] = version
        record["Volumes"] = {"left hippocampus": 864.0, "right hippocampus": 860.5} if volumes is None else volumes
        record["Scores"] = None
        return write_sidecar(place / "x_dseg.json", record)

    return write


@pytest.mark.parametrize(
    ("command", "page", "figures"),
    [
        ("segment", "sub-1_report.html", "Volumes by side"),
        ("harmonize", "sub-2.html", "How much was changed"),
        ("superresolve", "sub-3.html", "Difference per slice in numbers"),
        ("upsample-dmri", "sub-4.html", "Error on directions that were left out"),
    ],
)
def test_the_numbers_are_those_of_the_run(command, page, figures, tmp_path):
    sidecar = example(command)
    assert run(sidecar, tmp_path / "again.html", "--quiet") == 0
    before, after = numbers(sidecar.parent / page), numbers(tmp_path / "again.html")
    assert before == after
    assert len(before[figures]) > 3
    source = (tmp_path / "again.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|iframe)|@import|url\(", source)
    assert source.count(DISCLAIMER) == 1


def pictures(path):
    return re.findall(r"data:image/png;base64,([^\"]+)", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("command", "page", "count"),
    [
        ("segment", "sub-1_report.html", 1),
        ("harmonize", "sub-2.html", 2),
        ("superresolve", "sub-3.html", 3),
        ("upsample-dmri", "sub-4.html", 5),
        ("translate", "sub-8.html", 1),
    ],
)
def test_the_page_is_that_of_the_run(command, page, count, tmp_path):
    sidecar = example(command)
    below = [path for path in sidecar.parent.iterdir() if path.is_dir()]  # where some scans lie
    given = [word for path in below for word in ("--inputs", path)]
    assert run(sidecar, tmp_path / "again.html", "--quiet", *given) == 0
    before, after = sidecar.parent / page, tmp_path / "again.html"
    first, second = pictures(before), pictures(after)
    assert len(first) == count and first == second
    assert after.read_text(encoding="utf-8") == before.read_text(encoding="utf-8")


def test_maps_of_a_page_that_are_gone_or_damaged_are_said(tmp_path, capsys):
    shutil.copytree(example("upsample-dmri").parent, tmp_path / "run")
    maps, sidecar = tmp_path / "run/sub-4_maps.zip", tmp_path / "run" / example("upsample-dmri").name
    for change, words in ((lambda: maps.write_bytes(b"nothing"), "has changed"), (maps.unlink, "was not found")):
        change()
        assert run(sidecar, tmp_path / "again.html", "--overwrite") == 0
        told = capsys.readouterr().err
        assert "report_maps" in told and words in told
        assert len(pictures(tmp_path / "again.html")) == 3  # bars, FA as it was saved, directions
    record = json.loads(sidecar.read_text())
    maps.write_bytes(b"nothing")
    entry = next(item for item in record["Outputs"] if item["Role"] == "report_maps")
    entry |= {"SHA256": hashlib.sha256(b"nothing").hexdigest(), "SizeBytes": 7}
    sidecar.write_text(json.dumps(record))
    assert run(sidecar, tmp_path / "again.html", "--overwrite") == 0
    assert "sub-4_maps.zip cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "extra"),
    [
        ("picture", []),
        ("sidecar", ["--samples", "2"]),
        ("folder", ["--samples", "2", "--save-std", "std.png"]),
    ],
)
def test_the_page_of_a_picture_is_that_of_the_run(named, extra, tmp_path, monkeypatch):
    pytest.importorskip("PIL")
    model = example("translate").parent / "model"
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(2).integers(0, 255, (40, 24)).astype(np.uint8)
    write_picture(picture, tmp_path / "slide.png")
    (tmp_path / "out").mkdir()
    words = ["--weights", str(model), "--to", "T2w", "--report", "out/run.html", *extra, "--quiet", "--device", "cpu"]
    words = [f"out/{word}" if word == "std.png" else word for word in words]
    assert main(["translate", "slide.png", "out/made.png", *words]) == 0
    place = {"picture": "out/made.png", "sidecar": "out/made.json", "folder": "out"}[named]
    assert run(place, "again.html", "--inputs", tmp_path, "--quiet") == 0
    first, second = (tmp_path / name for name in ("out/run.html", "again.html"))
    assert len(pictures(first)) == 1 and pictures(first) == pictures(second)
    assert first.read_text(encoding="utf-8") == second.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["predict", "simulate labels-to-image", "simulate dmri"])
def test_any_other_task_has_a_page_too(command, tmp_path):
    assert run(example(command), tmp_path / "x.html", "--quiet") == 0
    source = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert DISCLAIMER in source and "Methods, to copy" in source
    assert ("data:image/png" in source) == (command != "predict")
    if command == "predict":
        assert "Predictions" in numbers(tmp_path / "x.html") and "sub-5" not in source


def test_the_default_page_lies_beside_the_output_and_names_nobody(small, capsys):
    sidecar = small()
    assert run(sidecar.with_name("x_dseg.nii.gz")) == 0
    page = sidecar.with_name("x_dseg_report.html")
    source = page.read_text(encoding="utf-8")
    assert "864" in source and "DOE" not in source and str(sidecar.parent) not in source
    assert sorted(path.suffix for path in sidecar.parent.iterdir()) == [".gz", ".gz", ".html", ".json"]
    assert run(sidecar) == 2 and "exists already" in sentence(capsys)
    assert run(sidecar, "--overwrite", "--show-names", "--quiet") == 0
    assert json.loads(sidecar.read_text())["Volumes"]["left hippocampus"] == 864.0


def test_a_missing_scan_is_said_and_found_in_another_folder(small, tmp_path, capsys):
    sidecar = small()
    elsewhere = tmp_path / "scans"
    elsewhere.mkdir()
    scan = sidecar.with_name("DOE_JANE_T1w.nii.gz")
    scan.rename(elsewhere / "renamed.nii.gz")  # found by its content
    page = tmp_path / "p.html"
    assert run(sidecar, page) == 0
    assert (
        "input scan (DOE_JANE_T1w.nii.gz) was not found" in capsys.readouterr().err
        or "was not found" in page.read_text(encoding="utf-8")
    )
    assert "The input scan was not found" in page.read_text(encoding="utf-8")
    assert run(sidecar, "--inputs", elsewhere, "--overwrite", page, "--quiet") == 0  # the page may stand last
    assert "was not found" not in page.read_text(encoding="utf-8")


def test_a_changed_output_is_said(small, tmp_path):
    sidecar = small()
    labels = sidecar.with_name("x_dseg.nii.gz")
    volume = read_volume(labels)
    write_volume(volume.with_data(np.where(volume.data == 17, 53, volume.data)), labels, intent="label")
    assert run(sidecar, tmp_path / "p.html", "--quiet") == 0
    source = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "The output labels has changed since the run" in source and "864" in source


def test_a_lost_output_leaves_the_numbers(small, tmp_path):
    sidecar = small()
    sidecar.with_name("x_dseg.nii.gz").unlink()
    assert run(sidecar, tmp_path / "p.html", "--quiet") == 0
    source = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "The output labels was not found" in source and "864" in source and "data:image" not in source


def test_an_output_that_cannot_be_read_is_said(small, tmp_path):
    sidecar = small()
    sidecar.with_name("x_dseg.nii.gz").write_bytes(b"broken")
    assert run(sidecar, tmp_path / "p.html", "--quiet") == 0
    assert "it is not shown" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_hidden_names_are_found_by_content(small, tmp_path):
    sidecar = small()
    record = json.loads(sidecar.read_text())
    for entry in (*record["Inputs"], *record["Outputs"]):
        entry["Name"] = "hidden.nii.gz"
    sidecar.write_text(json.dumps(record))
    assert run(sidecar, tmp_path / "p.html", "--quiet") == 0
    source = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "was not found" not in source and "data:image/png" in source


def test_a_folder_has_one_page_each_or_all_on_one(small, tmp_path):
    for name in ("a", "b"):
        small(f"all/{name}")
    (tmp_path / "all" / "a" / "other.json").write_text('{"EchoTime": 0.01}')
    (tmp_path / "all" / "b" / "x_dseg.json").rename(tmp_path / "all" / "b" / "y_dseg.json")
    assert run(tmp_path / "all", "--output", tmp_path / "pages", "--quiet") == 0
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == ["x_dseg_report.html", "y_dseg_report.html"]
    assert run(tmp_path / "all", tmp_path / "one.html", "--quiet") == 0
    source = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert source.count('class="part"') == 2 and source.count(DISCLAIMER) == 1 and "DOE" not in source


@pytest.mark.parametrize("linked", [True, False])
def test_a_bids_derivative_has_its_scans_in_the_data_set(small, tmp_path, linked):
    sidecar = small("out/sub-1/anat")
    raw = tmp_path / "raw" / "sub-1" / "anat"
    raw.mkdir(parents=True)
    sidecar.with_name("DOE_JANE_T1w.nii.gz").rename(raw / "DOE_JANE_T1w.nii.gz")
    described = {"Name": "x", "GeneratedBy": [{"Name": "mri-deep-tools"}], "DatasetLinks": {"raw": "../raw"}}
    if not linked:
        del described["DatasetLinks"]
    (tmp_path / "out" / "dataset_description.json").write_text(json.dumps(described))
    record = {**json.loads(sidecar.read_text()), "Sources": ["bids:raw:sub-1/anat/DOE_JANE_T1w.nii.gz"]}
    sidecar.write_text(json.dumps(record))
    inputs = [] if linked else ["--inputs", tmp_path / "raw"]
    assert run(tmp_path / "out", *inputs, "--output", tmp_path / "pages", "--quiet") == 0
    assert "was not found" not in (tmp_path / "pages" / "x_dseg_report.html").read_text(encoding="utf-8")


def test_of_two_outputs_with_the_same_page_none_is_written(small, tmp_path, capsys):
    for name in ("a", "b"):
        small(f"all/{name}")
    assert run(tmp_path / "all", "--output", tmp_path / "pages") == 2
    assert "same page" in sentence(capsys) and not (tmp_path / "pages").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not a sidecar"),
        ('{"GeneratedBy": [{"Name": "fmriprep"}]}', "not a sidecar"),
        ('{"GeneratedBy": [{"Name": "mri-deep-tools"}], "SchemaVersion": "2.0.0"}', "version 2.0.0 of the schema"),
        ('{"GeneratedBy": [{"Name": "mri-deep-tools"}], "SchemaVersion": "1.0"}', "damaged"),
    ],
)
def test_sidecars_that_cannot_be_used(content, words, tmp_path, capsys):
    (tmp_path / "x.json").write_text(content)
    assert run(tmp_path / "x.json", tmp_path / "p.html") == 2
    assert words in sentence(capsys) and not (tmp_path / "p.html").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gone.nii.gz"], "does not exist"),
        (["empty"], "holds no output"),
        (["lone.nii.gz"], "has no sidecar lone.json"),
        (["p.html"], "no output is given"),
        (["lone.nii.gz", "p.html", "--output", "d"], "leave one of the two out"),
        (["lone.nii.gz", "--inputs", "nowhere"], "is not a folder"),
    ],
)
def test_wrong_requests(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "lone.nii.gz").write_bytes(b"x")
    assert run(*words) == 2
    assert told in sentence(capsys)
    assert not (tmp_path / "p.html").exists()


def test_records_of_the_first_schema_are_read(small, tmp_path):
    sidecar = small()
    record = json.loads(sidecar.read_text())
    record["SchemaVersion"] = "1.0"
    del record["Volumes"], record["Scores"]
    for entry in (*record["Inputs"], *record["Outputs"]):
        del entry["Role"]
    sidecar.write_text(json.dumps(record))
    assert run(sidecar, tmp_path / "p.html", "--quiet") == 0
    source = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "before version 1.1" in source and "data:image/png" in source


def test_a_record_without_its_figures_is_a_sentence(copied, tmp_path, capsys):
    sidecar = copied("harmonize")
    record = json.loads(sidecar.read_text())
    del record["Change"]
    sidecar.write_text(json.dumps(record))
    assert run(sidecar, tmp_path / "p.html") == 2
    assert "is damaged" in sentence(capsys) and not (tmp_path / "p.html").exists()


def test_on_a_common_page_only_what_is_synthetic_is_called_so(small, tmp_path):
    first, second = small("all/a"), small("all/b")
    record = json.loads(second.read_text())
    second.write_text(json.dumps(record | {"Synthetic": True}))
    assert run(first, second, tmp_path / "one.html", "--quiet") == 0
    first_part, second_part = (tmp_path / "one.html").read_text(encoding="utf-8").split('class="part"')[1:]
    assert "Synthetic image." not in first_part and "Synthetic image." in second_part
