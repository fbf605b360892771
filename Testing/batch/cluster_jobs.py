"""What the workers of the cluster tests do with a job: a few seconds' work that leaves a trace, or the worker's end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from uuid import uuid4

from mri_deep_tools.batch.jobs import Job, Outcome
from mri_deep_tools.batch.state import State


def make_jobs(folder, count, options=(), inputs=None):
    """Return jobs whose options say what happens: ``sleep=SECONDS``, ``kill``, ``fault``."""
    return [
        Job(f"job-{n:03d}", "segment", str(folder), inputs or {}, {}, tuple(options), fingerprint=str(n))
        for n in range(count)
    ]


def runs(folder, job):
    """Return how often a job was begun."""
    return len(list(Path(folder).glob(f"run-{job}-*")))


def work(job, kept):
    """Do a job as ``run_job`` does, record included; its options say what happens in it."""
    (Path(job.folder) / f"run-{job.id}-{uuid4().hex}").touch()
    for option in job.options:
        name, _, value = option.partition("=")
        if name == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif name == "fault":
            raise KeyError("a fault")
        elif name == "sleep":
            end = time.monotonic() + float(value)
            while time.monotonic() < end:
                if kept.stop.wait(0.05):
                    return Outcome(job.id, job.fingerprint, "cancelled")
    facts = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "threads": os.environ.get("OMP_NUM_THREADS", "")}
    facts["worker"] = str(id(kept))
    outcome = Outcome(job.id, job.fingerprint, "done", qc=facts, worker=str(os.getpid()))
    return State(job.folder).finish(outcome, None)
