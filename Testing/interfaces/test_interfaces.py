"""Descriptors and interfaces against the commands themselves: real parsers, `bosh`, Nipype, and real runs."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.errors import RequestError
from mri_deep_tools.interfaces.boutiques import descriptor
from mri_deep_tools.interfaces.declarations import TASKS, declare
from mri_deep_tools.volume import Volume, read_volume, write_volume

SEGMENT = {"model": "synthseg-lite", "crop": "32", "device": "cpu", "threads": 1, "progress": "none"}


@pytest.fixture(autouse=True)
def program_on_the_path(monkeypatch):
    """Let other programs find this environment's `mri-deep-tools`."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def scan(tmp_path) -> Path:
    """Return a small scan: a bright ball in a darker one."""
    x, y, z = np.indices((40, 40, 40)) - 19.5
    distance = np.sqrt(x * x + y * y + z * z)
    values = np.where(distance < 9, 800, np.where(distance < 15, 400, 20)).astype(np.float32)
    return write_volume(Volume(values, np.eye(4)), tmp_path / "t1.nii.gz")


def bosh(*words: object, **options) -> subprocess.CompletedProcess:
    program = Path(sys.executable).with_name("bosh")
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, **options)


# ------------------------------------------------------------------------------------------------------ declarations


@pytest.mark.parametrize("command", TASKS)
def test_every_option_of_a_command_is_declared_once(command):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"mri_deep_tools.commands.{command.replace('-', '_')}").add_arguments(parser)
    dests = {action.dest for action in parser._actions}
    declared = [argument.name for argument in declare(command).arguments]
    left_out = {"help", "version", "input_flag", "output_flag", "describe", "dry_run"}
    assert sorted(declared) == sorted(dests - left_out)


def test_paths_are_read_or_written():
    kinds = {argument.name: argument.kind for argument in declare("harmonize").arguments}
    assert {name for name, kind in kinds.items() if kind == "read"} == {"input", "weights", "mask", "transform"}
    written = {"output", "save_preprocessed", "save_mask", "save_transform", "change", "report", "figures"}
    assert {name for name, kind in kinds.items() if kind == "write"} == written


def test_commands_without_an_interface_are_refused(capsys):
    with pytest.raises(RequestError, match="no interface for 'train'"):
        declare("train")
    assert main(["descriptor", "train"]) == 2


# --------------------------------------------------------------------------------------------------------- Boutiques


@pytest.mark.parametrize("command", TASKS)
def test_descriptors_are_valid(command, tmp_path):
    pytest.importorskip("boutiques", reason="Boutiques is not installed")
    path = tmp_path / "tool.json"
    assert main(["descriptor", command, str(path), "--image", "registry.example/mri-deep-tools:1"]) == 0
    made = bosh("validate", path)
    assert made.returncode == 0, made.stdout + made.stderr
    assert json.loads(path.read_text())["container-image"]["image"] == "registry.example/mri-deep-tools:1"
    assert main(["descriptor", command, str(path)]) == 2  # never overwrites unasked


@pytest.mark.slow
def test_boutiques_runs_what_a_person_would_run(scan, tmp_path):
    pytest.importorskip("boutiques", reason="Boutiques is not installed")
    (tmp_path / "tool.json").write_text(json.dumps(descriptor("segment")))
    call = {"input": str(scan), "output": "labels.nii.gz", "volumes": "volumes.csv", "fast": True, **SEGMENT}
    (tmp_path / "call.json").write_text(json.dumps(call))
    made = bosh("exec", "launch", "--skip-data-collection", "--no-container", "tool.json", "call.json", cwd=tmp_path)
    assert made.returncode == 0, made.stdout + made.stderr
    words = ["segment", scan, tmp_path / "own.nii.gz", "--fast"]
    words += [word for name, value in SEGMENT.items() for word in (f"--{name}", value)]
    assert main([str(word) for word in words]) == 0
    np.testing.assert_array_equal(
        read_volume(tmp_path / "labels.nii.gz").data, read_volume(tmp_path / "own.nii.gz").data
    )
    for name in ("labels.json", "volumes.csv"):
        assert name in made.stdout and (tmp_path / name).is_file()


def test_boutiques_refuses_what_excludes_each_other(scan, tmp_path):
    pytest.importorskip("boutiques", reason="Boutiques is not installed")
    (tmp_path / "tool.json").write_text(json.dumps(descriptor("harmonize")))
    call = {"input": str(scan), "output": "x.nii.gz", "hd_bet": True, "skull_stripped": True}
    (tmp_path / "call.json").write_text(json.dumps(call))
    made = bosh("exec", "simulate", "--input", "call.json", "tool.json", cwd=tmp_path)
    assert made.returncode != 0 or "mutually exclusive" in made.stdout + made.stderr


def test_several_values_and_repeated_flags_reach_the_command(scan, tmp_path):
    pytest.importorskip("boutiques", reason="Boutiques is not installed")
    (tmp_path / "tool.json").write_text(json.dumps(descriptor("segment")))
    call = {"input": str(scan), "output": "x.nii.gz", "channel": [str(scan), str(scan)]}
    (tmp_path / "call.json").write_text(json.dumps(call))
    made = bosh("exec", "simulate", "--input", "call.json", "tool.json", cwd=tmp_path)
    assert made.stdout.count("--channel") == 2, made.stdout + made.stderr


# ------------------------------------------------------------------------------------------------------------ Nipype


def test_nipype_writes_the_command_line(scan, tmp_path):
    pytest.importorskip("nipype", reason="Nipype is not installed")
    from mri_deep_tools.interfaces.nipype import interface

    for command in TASKS:
        assert interface(command)()._cmd == f"mri-deep-tools {command}"
    made = interface("harmonize")(input=str(scan), output="out.nii.gz", age=40.0, skull_stripped=True, space="template")
    words = made.cmdline.split()
    assert words[:4] == ["mri-deep-tools", "harmonize", str(scan), "out.nii.gz"]
    assert sorted(words[4:]) == sorted(["--age", "40.0", "--skull-stripped", "--space", "template"])
    made = interface("predict")(inputs=[str(scan), str(scan)], csv="x.csv", classes=["a", "b"], shape=[4, 4, 4])
    parser = argparse.ArgumentParser()
    importlib.import_module("mri_deep_tools.commands.predict").add_arguments(parser)
    args = parser.parse_args(made.cmdline.split()[2:])
    assert (args.inputs, args.classes, args.shape) == ([scan, scan], ["a", "b"], [4, 4, 4])
    from traits.trait_errors import TraitError

    with pytest.raises(TraitError):
        interface("harmonize")(input=str(tmp_path / "none.nii.gz"))


@pytest.mark.parametrize("command", TASKS)
def test_nipype_interfaces_can_be_pickled(command):
    pytest.importorskip("nipype", reason="Nipype is not installed")
    from mri_deep_tools.interfaces import nipype

    made = nipype.interface(command)(device="cpu")
    copied = pickle.loads(pickle.dumps(made))
    assert type(copied) is type(made) and copied.inputs.device == "cpu"
    assert pickle.loads(pickle.dumps(made.output_spec())).get() == made.output_spec().get()
    with pytest.raises(AttributeError):
        _ = nipype.Nothing


@pytest.mark.slow
def test_a_nipype_workflow(tmp_path, monkeypatch):
    pytest.importorskip("nipype", reason="Nipype is not installed")
    from mri_deep_tools.interfaces.nipype import interface
    from nipype import Node, Workflow

    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).uniform(100, 200, (6, 6, 3, 13)).astype(np.float32)
    scan = write_volume(Volume(values, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "dwi.nii.gz")
    directions = np.random.default_rng(5).normal(size=(3, 13))
    directions /= np.linalg.norm(directions, axis=0)
    np.savetxt(tmp_path / "dwi.bvec", directions * (np.arange(13) > 0), fmt="%.6f")
    (tmp_path / "dwi.bval").write_text("0" + " 1000" * 12)
    upsample = interface("upsample-dmri")
    options = {"method": "sh", "directions": 12, "device": "cpu", "threads": 1, "progress": "none"}
    first = Node(upsample(dwi=str(scan), output="first.nii.gz", save_grad="first.b", **options), name="first")
    second = Node(upsample(output="second.nii.gz", **options), name="second")
    flow = Workflow("flow", base_dir=str(tmp_path))
    flow.config["execution"] = {"crashdump_dir": str(tmp_path)}
    flow.connect([(first, second, [("output", "dwi"), ("save_grad", "grad")])])
    made = {node.name: node.result.outputs.output for node in flow.run().nodes()}
    assert made == {name: str(tmp_path / "flow" / name / f"{name}.nii.gz") for name in ("first", "second")}
    assert read_volume(made["second"], ndim=4).data.shape == (6, 6, 3, 13)


@pytest.mark.slow
def test_nipype_runs_and_knows_its_outputs(scan, tmp_path, monkeypatch):
    pytest.importorskip("nipype", reason="Nipype is not installed")
    from mri_deep_tools.interfaces.nipype import interface

    monkeypatch.chdir(tmp_path)
    options = {**SEGMENT, "fast": True}
    made = interface("segment")(input=str(scan), output="labels.nii.gz", volumes="volumes.csv", **options)
    outputs = made.run().outputs
    assert Path(outputs.output) == tmp_path / "labels.nii.gz"
    assert read_volume(outputs.output).shape3 == (40, 40, 40)
    assert Path(outputs.volumes).read_text().startswith("subject")
