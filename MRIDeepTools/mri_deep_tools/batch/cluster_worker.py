"""What a Dask worker does for a batch: say who it is, take a GPU of its own, do jobs, and end when the batch ends.

Everything here runs in a worker process, perhaps on another machine. It shares nothing with other workers but the
files: a batch puts a token file into its output folder, which tells a worker that it sees that folder, and whose
disappearance tells it to stop.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .jobs import Job, Outcome
from .worker import Worker

__all__ = ["do_job", "greet", "pin_gpu"]

SEE_SECONDS = 5.0
"""How long a file may take to be seen on another machine: network file systems keep answers for a while."""

_WATCH_SECONDS = 1.0
_SLOTS = 64

_kept: dict[str, Worker] = {}  # of this process, by the token of the batch
_lock = threading.Lock()
_pinned: list[Any] = []  # the lock of this process's GPU, held until the process ends


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the client (Dask calls this where it is preloaded)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def greet(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Get ready for a batch; return what the client must know of this worker.

    Parameters
    ----------
    asked : ``token`` (path of the batch's token file), ``inputs`` (files that must be seen), ``threads`` (of the
        processor, per job), ``pin`` (whether to take a GPU).

    Returns
    -------
    ``host``, ``pid``, ``version``, ``python``, ``gpu`` (what CUDA_VISIBLE_DEVICES says now) and ``unseen``, the files
    that cannot be seen from here.

    """
    from .. import __version__

    os.environ["OMP_NUM_THREADS"] = str(asked["threads"])  # what the commands take as the number of threads
    if asked["pin"]:
        pin_gpu()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": __version__,
        "python": platform.python_version(),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "unseen": _unseen([asked["token"], *asked["inputs"]], SEE_SECONDS),
    }


def do_job(job: Job, token: str, lanes: int, seen: Sequence[str], do: Callable[[Job, Worker], Outcome]) -> Outcome:
    """Do a job.

    Parameters
    ----------
    token : path of the batch's token file.
    lanes : jobs that this process has in work at once.
    seen : those of the job's inputs that the client can see.
    do : what is done, as :func:`.worker.run_job`.

    """
    unseen = _unseen(seen, 0.0)
    if unseen:
        host, name = socket.gethostname(), Path(unseen[0]).name
        message = f"{name} cannot be seen from {host}; keep it where all machines of the cluster find it by one path."
        return Outcome(job.id, job.fingerprint, "failed", message=message, code="input", worker=f"{host}:{os.getpid()}")
    return do(job, _worker(token, lanes))


def pin_gpu() -> str | None:
    """Take one of the GPUs that this process may use, the one with the fewest workers, and see no other from now on.

    Which are taken is told by locks on files, which end with their process. Returns the GPU, or None where there is
    no choice, or CUDA is in use already.
    """
    from filelock import FileLock, Timeout

    if _pinned:
        return os.environ["CUDA_VISIBLE_DEVICES"]
    gpus, torch = _gpus(), sys.modules.get("torch")
    if len(gpus) < 2 or (torch is not None and torch.cuda.is_initialized()):
        return None
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"mri-deep-tools-gpus-{user}"
    folder.mkdir(exist_ok=True)
    for slot in range(_SLOTS):
        for gpu in gpus:
            lock = FileLock(folder / f"{gpu.replace(os.sep, '-')}.{slot}")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            _pinned.append(lock)
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            return gpu
    return None


def _gpus() -> list[str]:
    """Return the names (numbers or UUIDs) of the GPUs that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        gpus = [word.strip() for word in named.split(",") if word.strip()]
        return gpus[: gpus.index("-1")] if "-1" in gpus else gpus
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return found.split()


def _worker(token: str, lanes: int) -> Worker:
    """Return what this process keeps for a batch; it is told to stop when the token file disappears."""
    with _lock:
        if token not in _kept:
            _kept[token] = Worker(lanes=lanes)
            threading.Thread(target=_watch, args=(token, _kept[token]), name="batch-watch", daemon=True).start()
        return _kept[token]


def _watch(token: str, worker: Worker) -> None:
    while not _unseen([token], _WATCH_SECONDS):
        time.sleep(_WATCH_SECONDS)
    worker.stop.set()
    with _lock:
        _kept.pop(token, None)


def _unseen(paths: Sequence[str], seconds: float) -> list[str]:
    """Return the files that are not there; those that may still appear are waited for."""
    end = time.monotonic() + seconds
    while True:
        missing = [path for path in paths if not Path(path).exists()]
        if not missing or time.monotonic() >= end:
            return missing
        time.sleep(0.2)
