"""What `info` tells, and cancelling by a file or by the end of the program that started the command."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from mri_deep_tools import __version__
from mri_deep_tools.cli import main
from mri_deep_tools.progress import EVENT_TOKEN


def test_info_as_json_names_versions_devices_and_models(capsys):
    assert main(["info", "--json", "--progress", "none"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == __version__
    assert facts["torch"]["version"] == torch.__version__
    assert facts["torch"]["cuda_available"] == torch.cuda.is_available()
    assert facts["devices"][-1]["name"] == "cpu"
    assert 0 < facts["devices"][-1]["memory_gb"] <= psutil.virtual_memory().total / 2**30
    assert {"synthseg-lite", "synthseg-2.0"} <= {model["name"] for model in facts["models"]}


def test_info_with_progress_as_json_is_one_line_each(capsys):
    assert main(["info", "--json", "--progress", "json"]) == 0
    plain, event = capsys.readouterr().out.splitlines()
    assert json.loads(plain)["version"] == __version__
    assert event.startswith(f"{EVENT_TOKEN} ")
    assert json.loads(event.split(" ", 1)[1])["event"] == "result"


def test_info_in_words_gives_no_home_folder_and_no_name(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("MRI_DEEP_TOOLS_CACHE", raising=False)
    assert main(["info", "--progress", "none"]) == 0
    text = capsys.readouterr().out
    assert f"MRI Deep Tools {__version__}" in text
    assert re.search(r"^Device cpu: .*GB$", text, re.MULTILINE)
    assert str(Path.home()) + os.sep not in text


@pytest.fixture
def long_work(tmp_path):
    """A command that would take minutes, and the environment to start it with."""
    import nibabel as nib

    labels = np.zeros((96, 96, 96), np.int32)
    labels[20:70, 20:70, 20:70] = 2
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "map.nii.gz")
    words = ["simulate", "labels-to-image", str(tmp_path / "map.nii.gz"), str(tmp_path / "out"), "--number", "500"]
    return [sys.executable, "-m", "mri_deep_tools", *words, "--progress", "json"]


def begun(process: subprocess.Popen) -> None:
    for line in process.stdout:
        if '"progress"' in line:
            return
    raise AssertionError("the command ended before it began")


def test_a_cancel_file_ends_the_command_cleanly(long_work, tmp_path):
    file = tmp_path / "cancel"
    environment = {**os.environ, "MRI_DEEP_TOOLS_CANCEL_FILE": str(file)}
    with subprocess.Popen(
        long_work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        begun(process)
        file.touch()
        begin = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ancelled" in err.splitlines()[-1]
    assert '"code": "cancelled"' in out
    assert time.monotonic() - begin < 30  # far less than the work; the machine may be busy


def test_the_command_ends_when_the_program_that_started_it_is_gone(long_work):
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    environment = {**os.environ, "MRI_DEEP_TOOLS_PARENT_PID": str(parent.pid)}
    with subprocess.Popen(
        long_work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        begun(process)
        parent.kill()
        parent.wait()
        process.communicate(timeout=60)
    assert process.returncode == 1
