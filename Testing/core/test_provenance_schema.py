"""The schema of the sidecars: every command keeps it, every field is described, nothing names a person or a place."""

from __future__ import annotations

import getpass
import json
import platform
import re
from pathlib import Path

import numpy as np
import pytest
from mri_deep_tools.provenance import DISCLAIMER, SCHEMA_VERSION, make_record, write_sidecar
from mri_deep_tools.reports.schema import fields_of, is_readable, page_with_tables, sidecar_schema
from mri_deep_tools.volume import Volume
from sidecar_examples import EXAMPLES, example

jsonschema = pytest.importorskip("jsonschema", reason="needs the dev extra")
REPOSITORY = Path(__file__).resolve().parents[2]


def faults(record):
    validator = jsonschema.Draft202012Validator(sidecar_schema())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(record)]


def plain_record(**more):
    return make_record("segment", [], **more) | {"Volumes": {}, "Scores": None}


def test_the_schema_is_one_and_has_the_version_that_is_written():
    schema = sidecar_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["version"] == SCHEMA_VERSION == make_record("segment", [])["SchemaVersion"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", SCHEMA_VERSION)


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_command_keeps_to_the_schema(command):
    path = example(command)
    text = path.read_text(encoding="utf-8")
    record = json.loads(text)
    assert faults(record) == []
    assert record["GeneratedBy"][0]["Command"] == command
    known = {name for of, fields, _ in fields_of(sidecar_schema()) if of in ("", command) for name in fields}
    assert set(record) <= known, "a field that the schema does not describe"
    assert record["Disclaimer"] == DISCLAIMER
    assert all("Role" in item for item in (*record["Inputs"], *record["Outputs"]))
    assert str(path.parent) not in text and platform.node() not in text
    assert getpass.getuser() == "root" or getpass.getuser() not in text


@pytest.mark.parametrize("command", EXAMPLES)
def test_the_files_are_those_that_were_written(command):
    from mri_deep_tools.provenance import file_facts

    path = example(command)
    for entry in json.loads(path.read_text(encoding="utf-8"))["Outputs"]:
        facts = file_facts(path.parent / entry["Name"])
        assert facts["SHA256"] == entry["SHA256"] and facts["SizeBytes"] == entry["SizeBytes"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"SchemaVersion": "2.0.0"}, "SchemaVersion"),
        ({"GeneratedBy": []}, "GeneratedBy"),
        ({"Inputs": [{"Name": "/home/x.nii", "SizeBytes": 1, "SHA256": "0" * 64}]}, "Inputs"),
        ({"Inputs": [{"Name": "x.nii", "SizeBytes": 1, "SHA256": "abc"}]}, "Inputs"),
        ({"SecondsTotal": "3 s"}, "SecondsTotal"),
        ({"Volumes": {"left thalamus": "big"}}, "Volumes"),
        ({"Geometry": {"output": {"Shape": [1, 2]}}}, "Geometry"),
    ],
)
def test_the_schema_refuses(change, place):
    assert faults(plain_record()) == []
    assert any(place in fault for fault in faults(plain_record() | change))


def test_a_field_that_is_missing_is_refused():
    record = plain_record()
    del record["Models"]
    assert any("Models" in fault for fault in faults(record))


def test_newer_fields_are_let_through():
    assert faults(plain_record() | {"SchemaVersion": "1.9.3", "Mood": "good"}) == []


@pytest.mark.parametrize(
    ("version", "readable"),
    [("1.0", True), ("1.1.0", True), ("1.7.2", True), ("2.0.0", False), ("0.9", False), (None, False), ("x", False)],
)
def test_which_versions_are_read(version, readable):
    assert is_readable(version) is readable


def test_a_patient_in_the_header_stays_there(tmp_path):
    """A DICOM series names the patient; the record of what was read from it does not."""
    sitk = pytest.importorskip("SimpleITK", reason="writes the series")
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    folder = tmp_path / "series"
    folder.mkdir()
    for index in range(4):
        image = sitk.GetImageFromArray((np.arange(64).reshape(1, 8, 8) + index).astype(np.int16))
        tags = {"0010|0010": "DOE^JANE", "0010|0020": "4711", "0010|0030": "19700101", "0008|0060": "MR"}
        tags |= {"0020|0032": f"0\\0\\{index}", "0020|0037": "1\\0\\0\\0\\1\\0", "0020|000e": "1.2.3.4"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{index}.dcm"))
        writer.Execute(image)
    from mri_deep_tools.volume import read_volume

    scan = read_volume(folder)
    text = json.dumps(make_record("segment", [folder], geometry={"input": scan}))
    assert faults(json.loads(text) | {"Volumes": {}}) == []
    for word in ("DOE", "JANE", "4711", "19700101", str(tmp_path)):
        assert word not in text


def test_sidecars_on_disk_are_the_record(tmp_path):
    volume = Volume(np.zeros((4, 5, 6), np.float32), np.diag([2.0, 1.0, 1.0, 1.0]))
    record = plain_record(geometry={"output": volume}, seconds={"read": 0.5}, roles={})
    path = write_sidecar(tmp_path / "x.json", record)
    assert faults(json.loads(path.read_text(encoding="utf-8"))) == []


def test_the_page_of_the_documentation_is_that_of_the_schema():
    path = REPOSITORY / "Resources" / "docs" / "provenance.md"
    text = path.read_text(encoding="utf-8")
    told = "run python -m mri_deep_tools.reports.schema Resources/docs/provenance.md"
    assert page_with_tables(text, sidecar_schema()) == text, told
    assert f"| {SCHEMA_VERSION} |" in text
