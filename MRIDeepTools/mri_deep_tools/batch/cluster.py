"""Jobs of a batch on the workers of a Dask cluster.

The client gives every worker as many jobs as it has lanes and no more, so that it is known which jobs a worker had
when it died. These are then done again, each alone on a worker: a job that ends its worker three times is recorded as
failed, and its neighbours are not blamed for it. What is done stands on disk, so that a client that is killed loses
nothing (:mod:`.state`).
"""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, cast

from ..errors import MRIDeepToolsError, OutputError, RequestError
from ..progress import Progress
from .cluster_start import FAULTS, Crew, Request, started
from .cluster_worker import do_job, greet
from .jobs import Job, OnOutcome, Outcome
from .state import STATE_FOLDER, State
from .worker import Worker, run_job

__all__ = ["TRIES", "ClusterExecutor"]

TRIES = 3
"""How often a job may end its worker before it is given up."""

_POLL_SECONDS = 1.0
_MEND_SECONDS = 60.0
_SILENCE_SECONDS = 300.0
_STOP_SECONDS = 10.0
_RESULT_SECONDS = 20.0

Do = Callable[[Job, Worker], Outcome]


class ClusterExecutor:
    """Does jobs on a Dask cluster; an :class:`~.jobs.Executor`.

    Parameters
    ----------
    request : where the workers are; see :func:`.cluster_start.parse_cluster`.
    progress : is told of the dashboard, and of workers that are lost or cannot be used.
    do : what a worker does with a job; must be importable there.

    """

    def __init__(self, request: Request, progress: Progress, do: Do = run_job) -> None:
        self.request, self._progress, self._do = request, progress, do
        self._crew: Crew | None = None

    @contextmanager
    def ready(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Connect to the cluster, or start it, where there are jobs; see :class:`~.jobs.Executor`.

        Raises
        ------
        RequestError : no scheduler answers, or the batch system is not here.

        """
        if not jobs:
            yield
            return
        with started(self.request, self._progress) as self._crew:
            try:
                yield
            finally:
                self._crew = None

    def run(self, jobs: Iterable[Job], on_outcome: OnOutcome) -> None:
        """Do all jobs; see :class:`~.jobs.Executor`. Outside of :meth:`ready` a cluster is started for this alone.

        Raises
        ------
        RequestError : no scheduler, no workers, or none that can be used.
        MRIDeepToolsError : all workers are gone.

        """
        waiting = iter(jobs)
        first = next(waiting, None)
        if first is None:
            return
        with ExitStack() as stack:
            if self._crew is None:
                stack.enter_context(self.ready([first]))
            crew = cast(Crew, self._crew)
            token = stack.enter_context(_token(Path(first.folder)))
            work = _Work(crew, _asked(first, token, self.request), self._progress.warn, self._do)
            work.run(_chained(first, waiting), on_outcome)


@dataclass
class _Place:
    """A worker that can be used, and the jobs that it has."""

    address: str
    host: str
    lanes: int
    jobs: dict[str, Any] = field(default_factory=dict)  # futures by the jobs' ids
    alone: bool = False

    def takes(self, suspect: bool) -> bool:
        """Tell whether one more job may be given to this worker."""
        return not self.jobs if suspect else not self.alone and len(self.jobs) < self.lanes


class _Work:
    """One run: which jobs wait, which worker has which, and what happened meanwhile."""

    def __init__(self, crew: Crew, asked: dict[str, Any], tell: Callable[[str], None], do: Do) -> None:
        self.crew, self.asked, self.tell, self.do = crew, asked, tell, do
        self.places: dict[str, _Place] = {}
        self.greeted: dict[str, Any] = {}  # futures of greetings by address
        self.refused: dict[str, str] = {}  # reasons by address
        self.again: deque[Job] = deque()  # jobs whose worker died
        self.deaths: dict[str, int] = {}
        self.events: SimpleQueue[tuple[_Place | None, Any, Any]] = SimpleQueue()
        self.jobs: dict[str, Job] = {}  # those in work
        self.last_seen = self.last_mended = time.monotonic()

    def run(self, waiting: Iterator[Job], on_outcome: OnOutcome) -> None:
        """Do all jobs."""
        self.fresh, self.next_job = waiting, next(waiting, None)
        polled = 0.0
        try:
            while self.next_job is not None or self.again or self.jobs:
                if time.monotonic() - polled > _POLL_SECONDS:
                    self._look_at_workers(on_outcome)
                    polled = time.monotonic()
                self._hand_out()
                with suppress(Empty):
                    self._happened(*self.events.get(timeout=_POLL_SECONDS), on_outcome)
        finally:
            self._stop()

    def _stop(self) -> None:
        """Have the jobs that run end, and forget the rest."""
        from distributed import wait

        running = [future for place in self.places.values() for future in place.jobs.values()]
        if running:
            Path(self.asked["token"]).unlink(missing_ok=True)
            with suppress(*FAULTS):
                wait(running, timeout=_STOP_SECONDS)
        with suppress(*FAULTS):
            self.crew.client.cancel([*running, *self.greeted.values()], force=True)

    # ------------------------------------------------------------------------------------------------------ workers

    def _look_at_workers(self, on_outcome: OnOutcome) -> None:
        """Greet workers that are new, take back the jobs of those that are gone."""
        present = self._present()
        if present is None:
            return
        for address in [a for a in self.places if a not in present]:
            self._lost(self.places.pop(address), on_outcome)
        for known in (self.greeted, self.refused):
            for address in [a for a in known if a not in present]:
                del known[address]
        for address, threads in present.items():
            if not any(address in known for known in (self.places, self.greeted, self.refused)):
                self._greet(address, threads)
        now = time.monotonic()
        if self.places or self.greeted:
            self.last_seen = now
        elif self.refused and len(self.refused) == len(present) and not self.jobs and now - self.last_seen > 5:
            raise RequestError(next(iter(self.refused.values())), "no worker of the cluster can be used")
        elif now - self.last_seen > self.crew.patience:
            raise MRIDeepToolsError(
                "the cluster has no workers", "start some (`dask worker ADDRESS`), and go on with --resume"
            )
        elif now - self.last_seen > _SILENCE_SECONDS and math.isinf(self.crew.patience):
            self.tell("no worker has come yet; jobs may wait in their queue, or the output of the jobs tells why")
        if now - self.last_mended > _MEND_SECONDS:
            self.last_mended = now
            with suppress(MRIDeepToolsError):  # a batch system that is busy now may take the jobs later
                self.crew.mend()

    def _present(self) -> dict[str, int] | None:
        """Return the threads of the workers by address, None where the scheduler does not answer just now."""
        try:
            if self.crew.client.status == "running":
                return dict(self.crew.client.nthreads())
        except FAULTS:
            pass
        if time.monotonic() - self.last_seen > self.crew.patience:
            raise MRIDeepToolsError("the Dask scheduler is gone", "start it and workers again, go on with --resume")
        return None

    def _greet(self, address: str, threads: int) -> None:
        asked = {**self.asked, "threads": self.asked["threads"] or threads}
        future = self.crew.client.submit(greet, asked, workers=[address], pure=False, priority=1)
        self.greeted[address] = future
        future.add_done_callback(lambda done: self.events.put((None, (address, threads), done)))

    def _welcome(self, address: str, threads: int, future: Any) -> None:
        """Use a worker that answered, or say why not."""
        if address not in self.greeted or self.greeted[address] is not future:
            return
        del self.greeted[address]
        reason, host = "", address
        if future.status != "finished":
            error = future.exception() if future.status == "error" else None
            if error is None:
                return  # gone before it answered
            reason = f"the worker {address} cannot do this batch ({type(error).__name__}: {error})"
            if isinstance(error, ImportError):
                reason = f"the worker {address} has no MRI Deep Tools of this version"
        else:
            hello = future.result()
            host, reason = hello["host"], _unusable(hello, self.asked["token"])
        if reason:
            self.refused[address] = reason
            self.tell(f"A worker is left out: {reason}")
            return
        self.places[address] = _Place(address, host, min(self.asked["lanes"], threads))

    def _lost(self, place: _Place, on_outcome: OnOutcome) -> None:
        """Have the jobs of a worker that is gone done again, unless they are to blame."""
        single, again = len(place.jobs) == 1, []
        for name, future in place.jobs.items():
            job = self.jobs.pop(name)
            with suppress(*FAULTS):
                future.cancel(force=True)
            self.deaths[name] = self.deaths.get(name, 0) + 1
            if self.deaths[name] >= TRIES and single:
                message = f"its worker ended {self.deaths[name]} times while it worked on this (killed, or no memory)"
                on_outcome(_recorded(job, f"{message}; give workers more memory, or look at the input.", "worker"))
            else:
                again.append(name)
                self.again.append(job)
        if again:
            self.tell(f"A worker on {place.host} is gone; its jobs are done again: {', '.join(again)}")

    # --------------------------------------------------------------------------------------------------------- jobs

    def _hand_out(self) -> None:
        """Give jobs to all workers that can take some; those whose worker died are done alone."""
        for place in sorted(self.places.values(), key=lambda place: len(place.jobs)):
            if self.again and place.takes(suspect=True):
                self._give(place, self.again.popleft(), alone=True)
        shared = sorted((p for p in self.places.values() if not p.alone), key=lambda place: len(place.jobs))
        shared = shared[len(self.again) :]  # the first become idle, for jobs that must be alone
        while self.next_job is not None:
            free = [place for place in shared if place.takes(suspect=False)]
            if not free:
                break
            job, self.next_job = self.next_job, next(self.fresh, None)
            self._give(min(free, key=lambda place: len(place.jobs)), job)

    def _give(self, place: _Place, job: Job, *, alone: bool = False) -> None:
        seen = [path for path in job.inputs.values() if Path(path).exists()]
        key = f"{job.id}-{secrets.token_hex(4)}"
        words = (job, self.asked["token"], self.asked["lanes"], seen, self.do)
        future = self.crew.client.submit(do_job, *words, workers=[place.address], key=key, pure=False, retries=0)
        place.alone, place.jobs[job.id], self.jobs[job.id] = alone, future, job
        future.add_done_callback(lambda done: self.events.put((place, job, done)))

    def _happened(self, place: _Place | None, what: Any, future: Any, on_outcome: OnOutcome) -> None:
        """Take in the answer of a worker (no place yet), or what came of a job."""
        if place is None:
            address, threads = what
            self._welcome(address, threads, future)
            return
        job: Job = what
        if self.places.get(place.address) is not place or job.id not in place.jobs:
            return  # its worker was lost, and the job is another worker's now
        del place.jobs[job.id], self.jobs[job.id]
        place.alone = place.alone and bool(place.jobs)
        if future.status == "finished":
            self._finished(job, future, on_outcome)
        elif future.status == "error":
            error = future.exception()
            on_outcome(_recorded(job, f"{type(error).__name__}: {error}; report this.", "internal"))
        else:  # the scheduler forgot it
            self.again.append(job)

    def _finished(self, job: Job, future: Any, on_outcome: OnOutcome) -> None:
        """Hand on an outcome; where the worker died before it could give it, what is on disk counts."""
        state = State(job.folder)
        try:
            outcome: Outcome = future.result(timeout=_RESULT_SECONDS)
        except FAULTS:
            self.again.append(job)  # what is done is found on disk, and not done again
            return
        if outcome.state == "failed" and state.outcome(job.id) is None:
            outcome = state.finish(outcome, None)
        on_outcome(outcome)


def _asked(job: Job, token: Path, request: Request) -> dict[str, Any]:
    """Return what workers are asked when they join."""
    inputs = [path for path in job.inputs.values() if Path(path).exists()]
    named = any(word.startswith("cuda:") or "=cuda:" in word for word in job.options)  # the person chose the GPU
    asked = {"token": str(token), "inputs": inputs, "pin": not named}
    return {**asked, "threads": request.threads, "lanes": request.lanes}


def _unusable(hello: dict[str, Any], token: str) -> str:
    """Return why a worker cannot be used, empty where it can."""
    from .. import __version__

    if hello["version"] != __version__:
        return f"the worker on {hello['host']} has MRI Deep Tools {hello['version']}, this is {__version__}"
    if token in hello["unseen"]:
        return f"the worker on {hello['host']} does not see the output folder; use one that all machines share"
    if hello["unseen"]:
        name = Path(hello["unseen"][0]).name
        return f"the worker on {hello['host']} does not see {name}; keep inputs in a folder that all machines share"
    return ""


def _recorded(job: Job, message: str, code: str) -> Outcome:
    """Record that a job failed; returns what came of it, which may be better if it was finished all the same."""
    return State(job.folder).finish(Outcome(job.id, job.fingerprint, "failed", message=message, code=code), None)


@contextmanager
def _token(folder: Path) -> Iterator[Path]:
    """Make the file that tells workers that the batch is alive; only for the one that holds the batch's lock."""
    path = folder / STATE_FOLDER / f"cluster-{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob("cluster-*"):  # of a client that was killed: its workers are told to stop
            old.unlink(missing_ok=True)
        path.touch()
    except OSError as error:
        raise OutputError(f"{folder.name} cannot be written to ({error.strerror})", "choose another folder") from error
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _chained(first: Job, rest: Iterator[Job]) -> Iterator[Job]:
    yield first
    yield from rest
