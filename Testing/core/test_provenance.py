"""The sidecar: complete, readable by machines, and silent about people and places."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
from pathlib import Path

import numpy as np
import pytest
from mri_deep_tools import __version__
from mri_deep_tools.errors import InputError
from mri_deep_tools.provenance import ModelUse, make_record, model_use, sidecar_path, write_sidecar
from mri_deep_tools.volume import Volume


@pytest.fixture
def files(tmp_path):
    scan, result = tmp_path / "JaneDoe_T1w.nii.gz", tmp_path / "JaneDoe_T1w_seg.nii.gz"
    scan.write_bytes(b"scan")
    result.write_bytes(b"result")
    return scan, result


def record_of(files, **more):
    scan, result = files
    options = {
        "input": scan,
        "weights": "C:\\Users\\jane\\models\\net.h5",
        "volumes": str(scan.parent / "volumes.csv"),
        "grid": "native",
        "crop": (96, np.int64(128), 96),
        "sigma": float("nan"),
        "nested": {"where": Path("/home/jane/x.nii")},
    }
    warnings = [f"{scan}: 3 voxels were not finite", "left/right differ by 1/2; see https://doi.org/10.1000/1"]
    return make_record(
        "segment", [scan], None, "cpu", options, {"read": 0.25, "network": 1.5}, 123, warnings, [result], **more
    )


def test_record_holds_what_was_done(files):
    volume = Volume(np.zeros((4, 5, 6), np.float32), np.diag([2.0, 1.0, 1.0, 1.0]))
    record = record_of(files, threads=2, precision="bf16", geometry={"input": volume}, synthetic=True)
    assert record["GeneratedBy"] == [{"Name": "mri-deep-tools", "Version": __version__, "Command": "segment"}]
    assert record["Inputs"] == [
        {"Name": "JaneDoe_T1w.nii.gz", "SizeBytes": 4, "SHA256": hashlib.sha256(b"scan").hexdigest()}
    ]
    assert record["Outputs"][0]["SHA256"] == hashlib.sha256(b"result").hexdigest()
    assert record["Device"] == {"Name": "cpu", "Precision": "bf16", "Threads": 2}
    assert record["SecondsPerStage"] == {"read": 0.25, "network": 1.5}
    assert record["SecondsTotal"] == 1.75
    assert record["PeakMemoryBytes"] == 123
    assert record["Synthetic"] is True
    assert record["Geometry"]["input"]["Shape"] == [4, 5, 6]
    assert record["Geometry"]["input"]["SpacingMm"] == [2.0, 1.0, 1.0]
    assert record["Geometry"]["input"]["Orientation"] == "RAS"
    assert record["Software"]["Python"] == platform.python_version()
    assert {"numpy", "torch", "nibabel"} <= set(record["Software"])
    assert "Not a medical device" in record["Disclaimer"]


def test_options_and_warnings_lose_their_folders(files):
    record = record_of(files)
    assert record["Options"] == {
        "input": "JaneDoe_T1w.nii.gz",
        "weights": "net.h5",
        "volumes": "volumes.csv",
        "grid": "native",
        "crop": [96, 128, 96],
        "sigma": None,
        "nested": {"where": "x.nii"},
    }
    assert record["Warnings"] == [
        "JaneDoe_T1w.nii.gz: 3 voxels were not finite",
        "left/right differ by 1/2; see https://doi.org/10.1000/1",
    ]


def test_nothing_names_the_machine_or_the_user(files, tmp_path):
    text = json.dumps(record_of(files))
    assert str(tmp_path) not in text
    assert platform.node() not in text
    assert getpass.getuser() == "root" or getpass.getuser() not in text


def test_hidden_names(files):
    record = record_of(files, hide_names=True)
    assert "Jane" not in json.dumps(record)
    assert record["Inputs"][0]["Name"] == "hidden.nii.gz"
    assert record["Options"]["input"] == "hidden"
    assert record["Warnings"][0] == "hidden: 3 voxels were not finite"
    assert record["Inputs"][0]["SHA256"] == hashlib.sha256(b"scan").hexdigest()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("/home/jane doe/a b/x.nii is broken", "x.nii is broken"),
        ("x.nii and /data/y.nii differ", "x.nii and y.nii differ"),
        (r"C:\Users\jane\x.nii: cut", "x.nii: cut"),
        (r"\\server\share\x.nii: cut", "x.nii: cut"),
        ("~/scans/x.nii", "x.nii"),
        ("../x.nii", "x.nii"),
        ("and / or, 1/2, left/right", "and / or, 1/2, left/right"),
    ],
)
def test_folders_in_sentences(text, cleaned):
    assert make_record("segment", [], warnings=[text])["Warnings"] == [cleaned]


def test_models_are_named_with_source_licence_and_citation(tmp_path):
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(b"weights")
    record = make_record("segment", [], [model_use("synthseg-2.0", weights), model_use(weights)])
    known, own = record["Models"]
    assert known["Name"] == "synthseg-2.0"
    assert known["SHA256"] == hashlib.sha256(b"weights").hexdigest()
    assert known["Source"].startswith("https://")
    assert "Apache-2.0" in known["Licence"]
    assert any("10.1016/j.media.2023.102789" in text for text in known["Citation"])
    assert own["File"] == "own.safetensors"
    assert own["Source"] == "file given by the user"
    assert make_record("segment", [], ModelUse("x"))["Models"][0]["Name"] == "x"


def test_a_folder_is_one_input(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    for name in ("b.dcm", "a.dcm"):
        (series / name).write_bytes(name.encode())
    entry = make_record("segment", [series])["Inputs"][0]
    digests = "".join(hashlib.sha256(name.encode()).hexdigest() for name in ("a.dcm", "b.dcm"))
    assert entry == {
        "Name": "series",
        "Files": 2,
        "SizeBytes": 10,
        "SHA256": hashlib.sha256(digests.encode()).hexdigest(),
    }


def test_missing_input_is_named_without_its_folder(tmp_path):
    with pytest.raises(InputError, match=r"^gone\.nii cannot be read") as caught:
        make_record("segment", [tmp_path / "gone.nii"])
    assert str(tmp_path) not in str(caught.value)


def test_sidecar_is_written_beside_the_output(files):
    assert sidecar_path("/data/x.nii.gz") == Path("/data/x.json")
    assert sidecar_path("/data/x.y.mgz") == Path("/data/x.y.json")
    path = write_sidecar(sidecar_path(files[1]), record_of(files))
    assert path.name == "JaneDoe_T1w_seg.json"
    assert json.loads(path.read_text(encoding="utf-8")) == record_of(files)
    assert sorted(item.name for item in path.parent.iterdir()) == sorted([path.name, *(item.name for item in files)])
