"""``batch --cluster`` as a person runs it, on two processes: a worker or the client is killed; wrong requests."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from batch_helpers import WORDS, batch, batch_process, make_table, records, results
from mri_deep_tools.cli import main
from mri_deep_tools.volume import read_volume

pytest.importorskip("distributed", reason="the extra batch is not installed")
CLUSTER = ("--cluster", "local:2", "--at-once", "2")


def states(folder):
    """Return the state of each subject in the summary."""
    with (folder / "batch.csv").open(encoding="utf-8") as stream:
        return {row["id"]: row["state"] for row in csv.DictReader(stream)}


def wait_for(folder, count, process):
    """Wait until a batch has finished some subjects."""
    for _ in range(2400):
        if len(list(Path(folder).glob(".batch/records/*/*.json"))) >= count:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("nothing was done")


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(tmp_path):
    """The results are those of a batch without a cluster, voxel for voxel."""
    table, count = make_table(tmp_path, 40), 40
    process = batch_process("--table", table, tmp_path / "two", *CLUSTER)
    wait_for(tmp_path / "two", 4, process)
    workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    assert len(workers) == 2
    os.kill(workers[0].pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert batch("--table", table, tmp_path / "one") == 0
    assert states(tmp_path / "two") == states(tmp_path / "one") and set(states(tmp_path / "one").values()) == {"done"}
    made = list((tmp_path / "one").glob("*.nii.gz"))
    assert len(made) == count and not list((tmp_path / "two" / ".batch" / "staging").iterdir())
    for path in made:
        assert np.array_equal(read_volume(path).data, read_volume(tmp_path / "two" / path.name).data)


@pytest.mark.slow
def test_a_killed_client_goes_on_where_it_was(tmp_path):
    """Its workers end with it; what was finished is neither lost nor done again."""
    table, folder = make_table(tmp_path, 40), tmp_path / "out"
    process = batch_process("--table", table, folder, *CLUSTER)
    wait_for(folder, 6, process)
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive and len(gone) >= 2
    before, images = records(folder), results(folder)
    assert 6 <= len(before) < 40
    assert batch("--table", table, folder, "--resume", *CLUSTER) == 0
    assert len(records(folder)) == 40 and set(states(folder).values()) == {"done"}
    after = results(folder)
    assert len(after) == 40 and all(after[name] == facts for name, facts in images.items())
    assert all(records(folder)[name] == record for name, record in before.items())


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
    assert main(["batch", "upsample-dmri", "--table", str(table), str(tmp_path / "out"), *WORDS, *words]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_costs_no_results(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mri_deep_tools.batch.cluster_start._CONNECT_SECONDS", 2)
    table, out = make_table(tmp_path, 1), tmp_path / "out"
    assert batch("--table", table, out) == 0
    before, kept = results(out), records(out)
    scan = tmp_path / "in/s000_dwi.nii.gz"
    scan.touch()  # as if it had changed
    for words in (["--overwrite"], ["--resume"]):
        assert batch("--table", table, out, *words, "--cluster", "tcp://127.0.0.1:1") == 2
        assert "no Dask scheduler answers" in capsys.readouterr().err
        assert results(out) == before and records(out) == kept
