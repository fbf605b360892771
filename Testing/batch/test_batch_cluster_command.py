"""``batch --cluster`` as a person runs it: real networks on two processes, one of which is killed; wrong requests."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.volume import Volume, read_volume, write_volume

pytest.importorskip("distributed", reason="the extra batch is not installed")


def make_table(folder, count):
    """Write scans of balls with a bright core, and their table."""
    x, y, z = np.indices((40, 40, 40)) - 19.5
    radius = np.sqrt(x**2 + y**2 + z**2)
    names = []
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, 10, radius.shape)
        data = np.where(radius < 16, 300 + 200 * (radius < 8 + number) + noise, 0).astype(np.float32)
        names.append(f"scan{number}.nii.gz")
        write_volume(Volume(data, np.diag([-2.0, 2, 2, 1])), folder / names[-1])
    (folder / "scans.csv").write_text("\n".join(["input", *names]))
    return folder / "scans.csv"


def states(folder):
    """Return the state of each subject in the summary."""
    with (folder / "batch.csv").open(encoding="utf-8") as stream:
        return {row["id"]: row["state"] for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_two_processes_give_what_one_gives_though_one_is_killed(tmp_path):
    table = make_table(tmp_path, 5)
    command = [sys.executable, "-m", "mri_deep_tools", "batch", "segment", "--table", table, tmp_path / "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}
    words = [*map(str, command), "--cluster", "local:2", "--at-once", "2"]
    batch = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    records, killed = tmp_path / "two" / ".batch" / "records", False
    while batch.poll() is None:
        time.sleep(0.05)
        if not killed and list(records.glob("*/*.json")):
            workers = [p for p in psutil.Process(batch.pid).children() if "spawn_main" in " ".join(p.cmdline())]
            os.kill(workers[0].pid, signal.SIGKILL)
            killed = True
    out, errors = batch.communicate()
    assert batch.returncode == 0, errors
    assert killed and "5 subjects are done" in out and "Device: local:2 (workers 2, dashboard http://" in errors
    assert main([*map(str, command[3:-1]), str(tmp_path / "one"), "--progress", "none", "--threads", "1"]) == 0
    assert states(tmp_path / "two") == states(tmp_path / "one") and set(states(tmp_path / "one").values()) == {"done"}
    results = sorted((tmp_path / "one").glob("*.nii.gz"))
    assert len(results) == 5 and not list((tmp_path / "two" / ".batch" / "staging").iterdir())
    for path in results:
        other = read_volume(tmp_path / "two" / path.name)
        assert np.array_equal(read_volume(path).data, other.data) and len(np.unique(other.data)) > 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--cluster", "everywhere"], "there is no cluster 'everywhere'; use local:N"),
        (["--cluster", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1; start one"),
        (["--cluster-config", "slurm.yaml"], "--cluster-config belongs to --cluster"),
        (["--cluster", "local:2", "--cluster-config", "slurm.yaml"], "takes no configuration"),
        (["--cluster", "slurm", "--cluster-config", "gone.yaml"], "gone.yaml cannot be read"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, capsys, monkeypatch, words, sentence):
    monkeypatch.setattr("mri_deep_tools.batch.cluster_start._CONNECT_SECONDS", 2)
    table = make_table(tmp_path, 1)
    assert main(["batch", "segment", "--table", str(table), str(tmp_path / "out"), *words]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "out").glob("*.nii.gz"))
