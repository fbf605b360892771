"""Batch systems through dask-jobqueue: the job script that it writes, and jobs that are really run by it.

There is no Slurm on a test machine, so ``sbatch`` and ``scancel`` are stood in for by a program that runs the job
script as a process. All else is real: the script, the workers that it starts, the scheduler that they join.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster_jobs
import pytest
from cluster_jobs import make_jobs, runs
from mri_deep_tools.batch.cluster import ClusterExecutor
from mri_deep_tools.batch.cluster_start import QUEUES, make_queue, parse_cluster
from mri_deep_tools.errors import RequestError
from mri_deep_tools.progress import Progress

pytest.importorskip("dask_jobqueue", reason="the extra batch is not installed")

SETTINGS = """\
jobs: 2
cores: 3
memory: 6 GiB
walltime: "02:30:00"
queue: gpu
account: lab-7
job_extra_directives: ["--gres=gpu:1", "--exclude=old01"]
job_script_prologue: ["module load cuda/12", "export MRI_DEEP_TOOLS_OFFLINE=1"]
"""


def script(text, config):
    with make_queue(parse_cluster(text, config)) as cluster:
        return cluster.job_script()


def test_the_job_script_for_slurm(tmp_path):
    (tmp_path / "slurm.yaml").write_text(SETTINGS)
    request = parse_cluster("slurm", tmp_path / "slurm.yaml")
    assert (request.kind, request.workers, request.threads) == ("slurm", 2, None)
    lines = script("slurm", tmp_path / "slurm.yaml").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    asked = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert {"-p gpu", "-A lab-7", "-n 1", "--cpus-per-task=3", "--mem=6G", "-t 02:30:00"} <= asked
    assert {"--gres=gpu:1", "--exclude=old01"} <= asked
    assert lines.index("module load cuda/12") < lines.index("export MRI_DEEP_TOOLS_OFFLINE=1") < len(lines) - 1
    command = next(line for line in lines if "distributed.cli.dask_worker" in line)
    assert command.startswith(sys.executable) and re.search(r"tcp://[0-9.]+:\d+", command)
    assert "--nthreads 3" in command and "--memory-limit 6.00GiB" in command and "--nanny" in command
    assert "--nworkers" not in command or "--nworkers 1" in command  # one process per job, with all its cores


@pytest.mark.parametrize(
    ("kind", "sign"), [("pbs", "#PBS -q gpu"), ("sge", "#$ -q gpu"), ("lsf", "#BSUB -q gpu"), ("oar", "#OAR -q gpu")]
)
def test_the_job_scripts_of_other_systems(tmp_path, kind, sign):
    (tmp_path / "c.yaml").write_text('cores: 2\nmemory: 4 GiB\nwalltime: "01:00:00"\nqueue: gpu\n')
    lines = script(kind, tmp_path / "c.yaml").splitlines()
    assert sign in lines and any("distributed.cli.dask_worker" in line for line in lines)


def test_all_systems_are_known_to_dask_jobqueue():
    import dask_jobqueue

    assert all(hasattr(dask_jobqueue, name) for name in QUEUES.values())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "slurm cannot be used: .*cores and memory[^:]*; --cluster-config names a file"),
        ("cores: 2\n", "the configuration of slurm cannot be used: .*memory"),
        ("cores: 2\nmemory: 4 GiB\nqueu: gpu\n", "cannot be used: .*queu.*arguments of dask_jobqueue.SLURMCluster"),
        ("cores: 2\nmemory: 4 GiB\njobs: many\n", "jobs is 'many'"),
        ("cores: 2\nmemory: 4 GiB\njobs: 0\n", "jobs is 0"),
        ("- a\n", "c.yaml holds no keys; write KEY: VALUE lines"),
        ("a: [\n", "c.yaml is not valid YAML"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path, text, sentence):
    path = None if text is None else tmp_path / "c.yaml"
    if path:
        path.write_text(text)
    with pytest.raises(RequestError, match=sentence):
        make_queue(parse_cluster("slurm", path))


def test_a_configuration_that_is_missing(tmp_path):
    with pytest.raises(RequestError, match=r"gone\.yaml cannot be read .*; check the --cluster-config option"):
        parse_cluster("slurm", tmp_path / "gone.yaml")


SBATCH = """#!/bin/sh
# Keep the job script, which is deleted when this ends, and run it; its process number is the number of the job.
cp "$1" "$QUEUE/script.$$"
setsid sh "$QUEUE/script.$$" > "$QUEUE/log.$$" 2>&1 &
echo "$!" >> "$QUEUE/submitted"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
echo "$1" >> "$QUEUE/cancelled"
kill -TERM -- "-$1" 2>/dev/null || true
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Put programs named sbatch and scancel on the path; return the folder in which they keep their books."""
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return folder


@pytest.mark.slow
def test_jobs_are_submitted_used_and_cancelled(slurm, tmp_path):
    (tmp_path / "slurm.yaml").write_text("jobs: 2\ncores: 2\nmemory: 2 GiB\ninterface: lo\n")
    told, outcomes = [], []
    executor = ClusterExecutor(
        parse_cluster("slurm", tmp_path / "slurm.yaml"), Progress(told.append), cluster_jobs.work
    )
    executor.run(make_jobs(tmp_path / "out", 12, ["sleep=0.5"]), outcomes.append)
    assert sorted(outcome.id for outcome in outcomes) == [f"job-{n:03d}" for n in range(12)]
    assert all(outcome.state == "done" and runs(tmp_path / "out", outcome.id) == 1 for outcome in outcomes)
    assert {outcome.qc["threads"] for outcome in outcomes} == {"2"}  # the cores of a job
    numbers = (slurm / "submitted").read_text().split()
    assert len(numbers) == 2 and sorted((slurm / "cancelled").read_text().split()) == sorted(numbers)
    assert (told[0].event, told[0].device, told[0].jobs) == ("device", "slurm", 2)
    for _ in range(100):
        if not any(_runs(int(number)) for number in numbers):
            break
        time.sleep(0.1)
    assert not any(_runs(int(number)) for number in numbers)


@pytest.mark.slow
def test_jobs_that_end_early_are_submitted_again(slurm, tmp_path, monkeypatch):
    """As at the end of their time: the only job is killed, and another one takes over."""
    import dask

    monkeypatch.setattr("mri_deep_tools.batch.cluster._MEND_SECONDS", 2.0)
    (tmp_path / "slurm.yaml").write_text("jobs: 1\ncores: 1\nmemory: 2 GiB\ninterface: lo\n")
    outcomes = []

    def on_outcome(outcome):
        outcomes.append(outcome)
        if len(outcomes) == 2:
            os.killpg(int((slurm / "submitted").read_text().split()[0]), signal.SIGKILL)

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
        request = parse_cluster("slurm", tmp_path / "slurm.yaml")
        ClusterExecutor(request, Progress(), cluster_jobs.work).run(
            make_jobs(tmp_path / "out", 6, ["sleep=1"]), on_outcome
        )
    assert sorted(outcome.id for outcome in outcomes) == [f"job-{n:03d}" for n in range(6)]
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert len((slurm / "submitted").read_text().split()) == 2


def test_jobs_that_never_work_are_told(slurm, tmp_path, monkeypatch):
    """A job that ends before its worker starts leaves no trace in Dask."""
    monkeypatch.setattr("mri_deep_tools.batch.cluster._SILENCE_SECONDS", 2.0)
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'Submitted batch job 999999'\n")
    (tmp_path / "slurm.yaml").write_text("cores: 1\nmemory: 2 GiB\ninterface: lo\n")

    class Impatient(Progress):
        def warn(self, message):
            raise KeyboardInterrupt(message)

    executor = ClusterExecutor(parse_cluster("slurm", tmp_path / "slurm.yaml"), Impatient(), cluster_jobs.work)
    with pytest.raises(KeyboardInterrupt, match=r"no worker has come yet; .*the output of the jobs tells"):
        executor.run(make_jobs(tmp_path / "out", 1), lambda outcome: None)
    assert (slurm / "cancelled").read_text().split() == ["999999"]


def _runs(number):
    """Tell whether a process group still has a process."""
    return subprocess.run(["kill", "-0", "--", f"-{number}"], capture_output=True, check=False).returncode == 0


def test_a_job_that_slurm_refuses(slurm, tmp_path):
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gpu' >&2\nexit 1\n")
    (tmp_path / "slurm.yaml").write_text("cores: 2\nmemory: 2 GiB\ninterface: lo\nqueue: gpu\n")
    executor = ClusterExecutor(parse_cluster("slurm", tmp_path / "slurm.yaml"), Progress(), cluster_jobs.work)
    with pytest.raises(RequestError, match="slurm does not take the job: sbatch: error: invalid partition: gpu"):
        executor.run(make_jobs(tmp_path / "out", 1), lambda outcome: None)


def test_a_machine_without_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "slurm.yaml").write_text("cores: 2\nmemory: 2 GiB\ninterface: lo\n")
    executor = ClusterExecutor(parse_cluster("slurm", tmp_path / "slurm.yaml"), Progress(), cluster_jobs.work)
    with pytest.raises(RequestError, match="slurm is not on this machine"):
        executor.run(make_jobs(tmp_path / "out", 1), lambda outcome: None)
