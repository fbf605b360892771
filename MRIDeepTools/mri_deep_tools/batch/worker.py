"""Doing jobs: one worker per process keeps the networks, and works on up to three subjects at once.

A job runs the very command that a person would run, in a thread. While one subject is computed on, the next is read
and the last one is written: a thread holds the right to compute from the first stage that is neither reading nor
writing until it writes. More subjects than memory allows are never begun, and one that runs out of memory beside
others is tried once more alone.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import CancelledError, OutOfMemoryError
from ..progress import Event, Progress
from .jobs import PICTURES, Figure, Job, OnOutcome, Outcome
from .pictures import picture_of_job
from .state import State
from .tasks import command_parser, command_run, get_task, words

__all__ = ["LANES", "LocalExecutor", "Worker", "run_job"]

LANES = 3
_FREE_STAGES = ("read", "write")
_SPARE_BYTES = 1 << 30
_BYTES_PER_BYTE = 16  # memory that reading takes, for each byte of a compressed file


@dataclass
class Worker:
    """What one process keeps between jobs: networks, the right to compute, and whether to stop.

    Parameters
    ----------
    lanes : subjects that may be in work at once; 1 does one after the other.
    networks : how many networks are kept.

    """

    lanes: int = LANES
    networks: int = 6
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Begin to keep networks."""
        from ..inference import keep_freed_memory
        from ..kept import keep_networks

        keep_networks(self.networks)
        keep_freed_memory(many=True)
        self.compute = threading.Lock()
        self._room = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def lane(self, size: int = 0) -> Iterator[None]:
        """Take part in the work; waits for a free lane, and for memory to read files of ``size`` bytes."""
        with self._room:
            while self._closed or self._inside >= self.lanes or (self._inside and not _memory_for(size)):
                self._room.wait(0.5)
                self._check()
            self._inside += 1
        try:
            yield
        finally:
            with self._room:
                self._inside -= 1
                self._room.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other job is in work, and keep further ones out."""
        with self._room:
            while self._closed or self._inside:
                self._room.wait(0.5)
                self._check()
            self._closed = True
        try:
            yield
        finally:
            with self._room:
                self._closed = False
                self._room.notify_all()

    def _check(self) -> None:
        if self.stop.is_set():
            raise CancelledError("Cancelled", "finished subjects are kept; continue with --resume")


class _JobProgress(Progress):
    """The progress of one job, whose stages wait for the right to compute, and which ends when the worker stops."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(self._note)
        self.worker, self.computing, self.waited = worker, False, 0.0
        self.results: dict[str, Any] = {}
        self.where = ""

    def _note(self, event: Event) -> None:
        if event.event == "result":
            self.results.update(event.fields)
        elif event.event == "device":
            self.where = str(event.device)
        self.worker._check()

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """Time a stage, when it may begin."""
        if name not in _FREE_STAGES:
            self._take()
        elif name == "write":
            self.release()
        with super().stage(name) as progress:
            yield progress

    def _take(self) -> None:
        begin = time.monotonic()
        while not self.computing:
            self.worker._check()
            self.computing = self.worker.compute.acquire(timeout=0.2)
        self.waited += time.monotonic() - begin

    def release(self) -> None:
        """Let another job compute."""
        if self.computing:
            self.computing = False
            self.worker.compute.release()


def run_job(job: Job, kept: Worker | None = None) -> Outcome:
    """Do one job and record what came of it; one that is finished already is not done again.

    Parameters
    ----------
    job : what to do; its folder holds the records.
    kept : of this process; None does the job with a worker of its own.

    Returns
    -------
    The outcome. ``done`` and ``failed`` are recorded on disk when this function returns; ``cancelled`` is not.
    Nothing but a fault in this very module is raised.

    """
    worker = kept if kept is not None else Worker(lanes=1)
    state = State(job.folder)
    before = state.outcome(job.id)
    if before is not None and before.state == "done" and before.fingerprint == job.fingerprint:
        return before
    size = sum(_size(path) for path in job.inputs.values())
    try:
        with worker.lane(size):
            outcome, staging = _attempt(job, worker, state)
        if outcome.code == "memory" and worker.lanes > 1:
            with worker.alone():
                outcome, staging = _attempt(job, worker, state)
        if outcome.state == "cancelled":
            return outcome
        return state.finish(outcome, staging)
    except CancelledError as error:
        return _outcome(job, "cancelled", message=str(error), code=error.code)
    except OSError as error:  # the folder of the batch itself cannot be written to
        from ..commands.failures import as_told

        told = as_told(error)
        return _outcome(job, "failed", message=str(told), code=told.code)


def _attempt(job: Job, worker: Worker, state: State) -> tuple[Outcome, Path | None]:
    """Run the command into a staging folder; return the outcome, and that folder where it holds results."""
    from ..commands.failures import as_told

    begin = time.monotonic()
    progress = _JobProgress(worker)
    staging: Path | None = None
    facts: dict[str, Any] = {}
    try:
        staging = state.stage(job.id)
        _run_command(job, staging, progress)
        facts = _results(job, staging, progress)
        outcome = _outcome(job, "done", **facts)
    except Exception as error:  # noqa: BLE001 whatever happens to one subject, the others go on
        told = as_told(error)
        cancelled = isinstance(told, CancelledError)
        outcome = _outcome(job, "cancelled" if cancelled else "failed", message=str(told), code=told.code)
        if isinstance(error, (MemoryError, OutOfMemoryError)):
            outcome = _outcome(job, "failed", message=str(told), code="memory")
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        staging = None
    finally:
        progress.release()
    spent = time.monotonic() - begin - progress.waited
    told_of = {name: round(value, 3) for name, value in progress.seconds.items() if value > 0}
    changed = {"seconds": round(spent, 3), "stages": told_of, "warnings": tuple(progress.warnings)}
    return Outcome.from_record({**outcome.as_record(), **changed}), staging


def _run_command(job: Job, staging: Path, progress: Progress) -> None:
    """Run the job's command, its outputs below ``staging``."""
    task = get_task(job.task)
    files = {**job.inputs, **{name: str(staging / place) for name, place in job.outputs.items()}}
    for place in job.outputs.values():
        (staging / place).parent.mkdir(parents=True, exist_ok=True)
    line = words(task, files, (*job.options, "--quiet", "--progress=none"))
    command_run(task.name)(command_parser(task.name).parse_args(line), progress)


def _results(job: Job, staging: Path, progress: _JobProgress) -> dict[str, Any]:
    """Complete the files of a job, and return what is to be recorded of them."""
    from ..provenance import sidecar_path

    task = get_task(job.task)
    main = job.outputs[task.result]
    places = (sidecar_path(staging / main), (staging / main).with_suffix(".json"))  # of an image, of a table
    sidecar = next((path for path in places if path.is_file()), places[0])
    added = job.extra.get("sidecar")
    if added and sidecar.is_file():
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        sidecar.write_text(json.dumps({**added, **record}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    picture = f"{PICTURES}/{job.id}.jpg"
    made = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
    try:
        drawn = picture_of_job(job, staging, staging / picture)
    except Exception as error:  # noqa: BLE001 a result without a picture is still a result
        progress.warn(f"no picture could be made ({error})")
        drawn = False
    model = progress.results.get("model")
    return {
        "outputs": (main, *(name for name in made if name != main)),
        "qc": _figures(progress.results, task.qc),
        "measures": _figures(progress.results, task.measures),
        "picture": picture if drawn else "",
        "model": str(model) if model else "",
        "device": progress.where,
    }


def _figures(results: Mapping[str, Any], names: Iterable[str]) -> dict[str, Figure]:
    """Return the numbers and words of some fields of a result, those of nested ones by joined names."""

    def walk(name: str, value: Any) -> Iterator[tuple[str, Figure]]:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from walk(f"{name}.{key}" if name else str(key), item)
        elif isinstance(value, (bool, int, float)):
            yield name, float(value)
        elif isinstance(value, str):
            yield name, value
        elif isinstance(value, (list, tuple)) and len(value) == 1:
            yield from walk(name, value[0])

    found: dict[str, Figure] = {}
    for name in names:
        field, _, part = name.partition(".")
        value = results.get(field)
        if part:
            value = value.get(part) if isinstance(value, Mapping) else None
        found.update(walk("" if isinstance(value, Mapping) else part or name, value))
    return found


def _outcome(job: Job, state: Any, **facts: Any) -> Outcome:
    from .._atomic import _machine

    return Outcome(
        id=job.id,
        fingerprint=job.fingerprint,
        state=state,
        worker=f"{_machine()}-{os.getpid()}",
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **facts,
    )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _memory_for(size: int) -> bool:
    from ..inference import available_memory

    return available_memory() > _SPARE_BYTES + size * _BYTES_PER_BYTE


class LocalExecutor:
    """Does jobs in threads of this process, with one worker."""

    def __init__(self, worker: Worker | None = None, do: Callable[[Job, Worker], Outcome] = run_job) -> None:
        self.worker = worker if worker is not None else Worker()
        self._do = do

    def ready(self, jobs: Sequence[Job]) -> AbstractContextManager[None]:
        """Return at once: this process is here."""
        return nullcontext()

    def run(self, jobs: Iterable[Job], on_outcome: OnOutcome) -> None:
        """Do all jobs; see :class:`.jobs.Executor`."""
        waiting, lock = iter(jobs), threading.Lock()
        outcomes: SimpleQueue[Outcome | BaseException | None] = SimpleQueue()

        def work() -> None:
            try:
                while not self.worker.stop.is_set():
                    with lock:
                        job = next(waiting, None)
                    if job is None:
                        break
                    outcomes.put(self._do(job, self.worker))
            except BaseException as error:  # noqa: BLE001 handed to the caller's thread
                outcomes.put(error)
            finally:
                outcomes.put(None)

        threads = [threading.Thread(target=work, name=f"batch-{n}", daemon=True) for n in range(self.worker.lanes)]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                try:
                    found = outcomes.get(timeout=0.5)  # without an end, Ctrl-C would wait for it on Windows
                except Empty:
                    continue
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    left -= 1
                else:
                    on_outcome(found)
        finally:
            if left:
                self.worker.stop.set()
            for thread in threads:
                thread.join()
