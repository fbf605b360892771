"""Child processes in which nnU-Net runs: how many at a time, what they report, and that none outlives its parent.

nnU-Net is set up by environment variables, starts processes of its own and ends with tracebacks. In a child all three
stay where they belong: the environment is that of one call, a cancelled run leaves no process, and what failed is one
sentence with the log beside it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from .._atomic import output_error
from ..errors import DependencyError, MRIDeepToolsError, OutOfMemoryError
from ..progress import EVENT_TOKEN, Progress

__all__ = ["Job", "relay", "run_jobs", "visible_device"]

Told = Callable[["Job", dict[str, Any]], None]

_POLL_S = 0.2
_TAIL = 40  # lines that are looked at when a job fails
_LOST = 5.0  # seconds in which the pipe of an ended process has to be read to its end
# A spinning or oversubscribed child costs the others their time; nnU-Net asks for the same in its documentation.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Job:
    """One task of nnU-Net.

    Parameters
    ----------
    name : what it is called in messages: ``fold 0``.
    action, options : what :mod:`.handover_worker` is to do; JSON types.
    environment : variables of this job alone, such as nnU-Net's three folders.
    log : file that receives everything the child prints.
    threads : CPU threads of the child.
    result : what the child tells at its end.

    """

    name: str
    action: str
    options: dict[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    threads: int = 1
    result: dict[str, Any] = field(default_factory=dict)


def run_jobs(jobs: Sequence[Job], parallel: int, told: Told) -> None:
    """Run the jobs, at most ``parallel`` at a time; when one fails or the caller is interrupted, all are ended.

    Parameters
    ----------
    jobs : in the order in which they start; each ends with its ``result``.
    parallel : how many run at a time.
    told : receives every event of a child, in the caller's thread.

    Raises
    ------
    MRIDeepToolsError : a job failed, in one sentence; DependencyError, OutOfMemoryError where that was the cause.

    """
    waiting, running = deque(jobs), list[_Child]()
    events: queue.Queue[tuple[Job, dict[str, Any]]] = queue.Queue()
    try:
        while waiting or running:
            while waiting and len(running) < max(1, parallel):
                running.append(_Child(waiting.popleft(), events))
            ended = [child for child in running if child.process.poll() is not None]
            for child in ended:
                child.drain()
            _pass_on(events, told, wait=not ended)
            for child in ended:
                running.remove(child)
                child.finish()
    finally:
        for child in running:
            child.kill()


def _pass_on(events: queue.Queue[tuple[Job, dict[str, Any]]], told: Told, *, wait: bool) -> None:
    """Hand over what has arrived; wait a moment for the first when nothing else is to be done."""
    with suppress(queue.Empty):
        while True:
            job, event = events.get(timeout=_POLL_S) if wait else events.get_nowait()
            wait = False
            if event.get("event") == "done":
                job.result = event
            told(job, event)


class _Child:
    """A running job: its process, a thread that reads what it says, and the last lines of it."""

    def __init__(self, job: Job, events: queue.Queue[tuple[Job, dict[str, Any]]]) -> None:
        self.job, self.events = job, events
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.failure: dict[str, Any] = {}
        self.log = _opened_log(job)  # before the child starts: it would wait for ever for a reader that has failed
        environment = os.environ | {name: str(job.threads) for name in _THREADS} | dict(job.environment)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mri_deep_tools.translate.handover_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=os.name == "posix",  # a group of its own, so that all of it can be ended
        )
        self.reader = threading.Thread(target=self._read, name=f"reads {job.name}", daemon=True)
        self.reader.start()
        with suppress(OSError):  # it ended at once; why is in its output
            self._stdin.write(json.dumps({"action": job.action, **job.options}).encode() + b"\n")
            self._stdin.flush()

    @property
    def _stdin(self) -> Any:
        """The pipe stays open as long as this process lives; the child ends itself when it closes."""
        return self.process.stdin

    def _read(self) -> None:
        try:
            for raw in self.process.stdout or ():
                line = raw.decode("utf-8", "replace").rstrip()
                event = _event(line)
                if event is not None:
                    if event.get("event") == "error":
                        self.failure = event
                    else:
                        self.events.put((self.job, event))
                elif line:
                    self.tail.append(line)
                    with suppress(OSError):  # a full disk: nnU-Net will say so itself
                        self.log.write(f"{line}\n")
                        self.log.flush()
        finally:
            with suppress(OSError):
                self.log.close()

    def drain(self) -> None:
        """Read the rest of what an ended process said; its own children may hold the pipe open, so end them first."""
        _end_group(self.process.pid)
        self.reader.join(_LOST)

    def finish(self) -> None:
        """Raise what went wrong, if anything did."""
        with suppress(OSError):
            self._stdin.close()
        if self.process.returncode != 0 or not self.job.result:
            raise self._error()

    def kill(self) -> None:
        """End the process and all that it started."""
        import psutil

        with suppress(psutil.Error):
            for descendant in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    descendant.kill()
        self.process.kill()
        _end_group(self.process.pid)
        self.process.wait()
        self.reader.join(_LOST)
        with suppress(OSError):
            self._stdin.close()

    def _error(self) -> MRIDeepToolsError:
        job, code = self.job, self.process.returncode
        where = f"; {job.log.name} has the details" if job.log is not None else ""
        text = "\n".join(self.tail)
        if code in (-signal.SIGTERM, -9) or "background workers are no longer alive" in text:
            return OutOfMemoryError(
                f"nnU-Net was ended by the system during {job.name}, most often for lack of memory{where}",
                "run fewer folds at a time, or with fewer processes; the same command continues",
            )
        if "torchvision" in text and ("Error" in text):
            return DependencyError(
                "the installed torchvision does not fit the installed PyTorch",
                "install the build that belongs to it, or remove it (pip uninstall torchvision)",
            )
        if "out of memory" in text.lower():
            return OutOfMemoryError(
                f"the memory of the device ran out during {job.name}{where}", "use fewer folds at a time, or --cpu"
            )
        kind, message = self.failure.get("kind", ""), self.failure.get("message", "")
        if kind in ("DependencyError", "InputError", "WeightsError", "OutputError"):
            return _own_error(kind, message, self.failure.get("hint", ""))
        last = message or next((line for line in reversed(self.tail) if line.strip()), f"exit status {code}")
        return MRIDeepToolsError(f"{job.name} failed in nnU-Net: {last}", where.removeprefix("; "))


def _opened_log(job: Job) -> TextIO:
    """Open the log of a job, with a line that says when it began; OutputError where that cannot be."""
    try:
        if job.log is None:
            return Path(os.devnull).open("a", encoding="utf-8")
        job.log.parent.mkdir(parents=True, exist_ok=True)
        log = job.log.open("a", encoding="utf-8")
        log.write(f"==== {job.name}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    except OSError as error:
        raise output_error(job.log or Path(os.devnull), error) from error
    return log


def _own_error(kind: str, message: str, hint: str) -> MRIDeepToolsError:
    from .. import errors

    made: MRIDeepToolsError = getattr(errors, kind)(message, hint)
    return made


def _event(line: str) -> dict[str, Any] | None:
    """Return the event of a line of the worker, None for what nnU-Net prints."""
    begin = line.find(EVENT_TOKEN)
    if begin < 0:
        return None
    try:
        found = json.loads(line[begin + len(EVENT_TOKEN) :])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _end_group(number: int) -> None:
    """End what is left of a child's process group; processes that it started outlive a child that was killed."""
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGKILL)


def visible_device(device: str) -> dict[str, str]:
    """Return what shows a child one GPU only; nnU-Net always takes the first that it sees."""
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index:
        return {}
    shown = [item for item in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if item.strip()]
    return {"CUDA_VISIBLE_DEVICES": shown[int(index)] if int(index) < len(shown) else index}


def relay(event: dict[str, Any], progress: Progress) -> None:
    """Pass on what a job says of itself: warnings, and the share of it that is done."""
    if event["event"] == "warning":
        progress.warn(event["message"])
    elif event["event"] == "part":
        progress.update(event["done"])
