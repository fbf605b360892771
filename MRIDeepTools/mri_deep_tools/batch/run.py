"""Running a batch: what is left to do, who does it, what is told meanwhile, and the summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import (
    CancelledError,
    DependencyError,
    MRIDeepToolsError,
    OutputError,
    RequestError,
    WeightsError,
)
from ..progress import Progress
from .jobs import Executor, Job, Outcome
from .plan import Request
from .state import State
from .summary import rows_of, write_summary

__all__ = ["Batch", "Tally"]

_HOPELESS = {"weights": WeightsError, "dependency": DependencyError, "request": RequestError}
"""Faults that every subject may have."""

_TRIED = 3
"""So many subjects with one and the same such fault, and the others are not tried."""

_NAMES_TOLD = 5


def _some(names: Sequence[str]) -> str:
    """Return the first of some names."""
    return ", ".join(names[:_NAMES_TOLD]) + (" and more" if len(names) > _NAMES_TOLD else "")


@dataclass
class Tally:
    """How far a batch is: of ``total`` subjects ``before`` were finished, and ``skipped`` failed, in earlier runs."""

    total: int
    before: int = 0
    skipped: int = 0
    done: int = 0
    failed: list[str] = field(default_factory=list)
    begin: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since this run began."""
        return time.monotonic() - self.begin

    @property
    def seen(self) -> int:
        """Subjects that this run has finished or seen fail."""
        return self.done + len(self.failed) - self.skipped

    @property
    def eta(self) -> float | None:
        """Estimated seconds that are left, or None while nothing is known."""
        left = self.total - self.before - self.skipped - self.seen
        return self.seconds / self.seen * left if self.seen else None


class Batch:
    """All jobs of a batch and where they are done.

    Parameters
    ----------
    request : what is the same for all.
    jobs : checked, with different names.
    executor : does them.
    progress : is told of each outcome and of the time that is left.
    resume : go on with what an earlier run left.
    overwrite : delete what an earlier run made, and begin anew.
    skip_failed : with ``resume``, leave alone what failed.
    source : what the subjects were read from, for the records (``table`` or ``bids``).
    delimiter : of the summary.
    on_begin : is called when the folder is ours and before the first job.

    """

    def __init__(
        self,
        request: Request,
        jobs: Sequence[Job],
        executor: Executor,
        progress: Progress,
        *,
        resume: bool = False,
        overwrite: bool = False,
        skip_failed: bool = False,
        source: str = "table",
        delimiter: str = "\t",
        on_begin: Callable[[], None] | None = None,
    ) -> None:
        self.request, self.jobs, self.executor, self.progress = request, list(jobs), executor, progress
        self.resume, self.overwrite, self.skip_failed = resume, overwrite, skip_failed
        self.source, self.delimiter, self.on_begin = source, delimiter, on_begin
        self.state = State(request.folder)
        self.tally = Tally(len(self.jobs))
        self.models: set[str] = set()
        self.changed: list[str] = []  # names of jobs whose inputs or options have changed
        self.added: set[Path] = set()  # what was written beside results
        self.anew, self.hopeless = True, False
        self.faults: list[str] = []

    def run(self) -> Tally:
        """Do all that is left, and write the summary and the overview.

        Raises
        ------
        RequestError : the folder holds another batch, or one is at work in it.
        MRIDeepToolsError : at the end, that subjects failed; or at once, where every one would. CancelledError.

        """
        with self.state.locked():
            left = self._left()
            with self.executor.ready(left):  # nothing is written or deleted for workers that are not there
                self._begin()
                try:
                    self._do(left)
                except CancelledError:
                    raise
                except MRIDeepToolsError:
                    self._forget_if_never_begun()
                    raise
        return self._verdict()

    def _do(self, left: Sequence[Job]) -> None:
        """Do what is left, and write the summary."""
        skipped = len(self.tally.failed)
        self.tally.before, self.tally.skipped = len(self.jobs) - len(left) - skipped, skipped
        self.tally.begin = time.monotonic()
        self.progress.plan([("batch", 1.0)])
        try:
            with self.progress.stage("batch"):
                self._tell()
                if left:
                    self.executor.run(left, self._note)
                    self.state.recover()  # what a worker left that died meanwhile
        except KeyboardInterrupt:
            self._summarise()
            finished = sum(
                row["state"] == "done" for row in rows_of(self.state, self.jobs)
            )  # some after the last event
            kept = f"{finished} of {self.tally.total} subjects are finished"
            raise CancelledError("Cancelled", f"{kept}; continue with --resume") from None
        self._summarise()

    # -------------------------------------------------------------------------------------------------- what is left

    def _left(self) -> list[Job]:
        """Return the jobs that are to be done, after a look at what earlier runs left; nothing is deleted yet."""
        before = self.state.read_plan()
        self.plan = self._plan(before)
        self.anew = before is None or (self.overwrite and not self.resume)
        if self.anew:
            self._check_way()
            return self.jobs
        self._compare(before or {}, self.plan)
        self.state.recover()
        return list(self._unfinished())

    def _begin(self) -> None:
        """Make way for the results, and write down what the batch is."""
        if self.anew:
            if self.resume:
                self.progress.warn("there is nothing to continue: the batch begins anew")
            self.state.forget_all()
            self.state.recover()
            for job in self.jobs if self.overwrite else ():
                for name in job.outputs.values():
                    (self.request.folder / name).unlink(missing_ok=True)
        for name in self.changed:
            self.state.forget(name)
        found = set(self.request.folder.iterdir())
        self.state.write_plan(self.plan)
        if self.on_begin is not None:
            self.on_begin()
        self.added = set(self.request.folder.iterdir()) - found

    def _forget_if_never_begun(self) -> None:
        """Leave no trace of a batch that ended before its first subject, since it would stand in the next one's way."""
        if self.anew and not self.tally.done and (self.hopeless or not self.tally.failed):
            self.state.forget_batch()
            for path in self.added:
                path.unlink(missing_ok=True)

    def _plan(self, before: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "Task": self.request.task.name,
            "Options": list(self.request.options),
            "Extras": list(self.request.extras),
            "Source": self.source,
            "Version": __version__,
            "Subjects": len(self.jobs),
            "Begun": (before or {}).get("Begun") or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def _compare(self, before: dict[str, Any], plan: dict[str, Any]) -> None:
        """Refuse to mix two batches in one folder."""
        if not self.resume:
            raise RequestError(
                f"{self.request.folder.name} holds a batch already",
                "continue it with --resume, begin anew with --overwrite, or choose another folder",
            )
        hint = "use the same, begin anew with --overwrite, or choose another folder"
        if before.get("Task") != plan["Task"]:
            raise RequestError(f"the batch was begun with the task {before.get('Task')}, not {plan['Task']}", hint)
        for name, what in (("Options", "options"), ("Extras", "outputs")):
            old, new = list(before.get(name, [])), plan[name]
            if old != new:
                gone = [word for word in old if word not in new] + [word for word in new if word not in old]
                told = ", ".join(gone) or "another order"
                raise RequestError(f"the batch was begun with other {what} ({told})", hint)
        if before.get("Version") != plan["Version"]:
            self.progress.warn(f"the batch was begun with version {before.get('Version')} of this program")

    def _check_way(self) -> None:
        """Refuse to replace files that no batch made, unless asked to."""
        for job in () if self.overwrite else self.jobs:
            for name in job.outputs.values():
                if (self.request.folder / name).exists():
                    raise OutputError(f"{name} exists already", "choose another folder or allow --overwrite")

    def _unfinished(self) -> Iterator[Job]:
        """Yield the jobs that were not finished, or whose inputs or options have changed since."""
        changed = self.changed
        for job in self.jobs:
            outcome = self.state.outcome(job.id)
            if outcome is None:
                yield job
            elif outcome.fingerprint != job.fingerprint:
                changed.append(job.id)
                yield job
            elif outcome.state == "failed" and not self.skip_failed:
                yield job
            elif outcome.state == "failed":
                self.tally.failed.append(job.id)
            elif outcome.model:
                self.models.add(outcome.model)
        if changed:
            told = _some(changed)
            self.progress.warn(f"inputs or options of {len(changed)} subjects have changed; they are redone ({told})")
        if gone := sorted(self.state.names() - {job.id for job in self.jobs}):
            self.progress.warn(
                f"{len(gone)} subjects of earlier runs are not asked for now; their results stay, but are in no table "
                f"({_some(gone)})"
            )

    # ----------------------------------------------------------------------------------------------------- meanwhile

    def _note(self, outcome: Outcome) -> None:
        """Take note of one outcome."""
        tally = self.tally
        if outcome.state == "cancelled":
            return
        if outcome.state == "failed":
            tally.failed.append(outcome.id)
            if outcome.code in _HOPELESS and not tally.done and not tally.before:
                self._give_up_where_hopeless(outcome)
            self.progress.warn(f"{outcome.id} failed: {outcome.message}")
        else:
            tally.done += 1
            self.models |= {outcome.model} if outcome.model else set()
        self._tell(outcome)

    def _give_up_where_hopeless(self, outcome: Outcome) -> None:
        """End the batch where every subject would fail like this one: what is not installed, or the same told thrice.

        A request may be wrong for one subject alone (a scan without the shell that was asked for), and so may a model
        that a row names.
        """
        job = next(job for job in self.jobs if job.id == outcome.id)
        text = outcome.message
        for path in job.inputs.values():
            text = text.replace(Path(path).name, "")
        self.faults.append(text)
        alike = len({job.options for job in self.jobs}) == 1
        tried = len(self.faults) >= min(_TRIED, len(self.jobs)) and len(set(self.faults)) == 1
        if tried or (alike and outcome.code != "request"):
            self.hopeless = True
            raise _HOPELESS[outcome.code](outcome.message.rstrip("."))

    def _tell(self, outcome: Outcome | None = None) -> None:
        """Say how far the batch is, and how long it will take."""
        tally = self.tally
        finished = tally.before + tally.skipped + tally.seen
        failed = f", {len(tally.failed)} failed" if tally.failed else ""
        subject = {}
        if outcome is not None:
            names = ("id", "state", "message", "seconds", "outputs")
            subject = {"subject": {name: outcome.as_record()[name] for name in names}}
        share = tally.seen / max(
            1, tally.total - tally.before - tally.skipped
        )  # of this run: the time left hangs on it
        self.progress.tell(f"{finished} of {tally.total}{failed}", share, tally.eta, tally.seconds, **subject)

    # ------------------------------------------------------------------------------------------------------- the end

    def _summarise(self) -> None:
        if len(self.models) > 1:
            self.progress.warn(f"results were made by different models: {', '.join(sorted(self.models))}")
        write_summary(self.state, self.request, self.jobs, self.tally.seconds, self.tally.seen, self.delimiter)

    def _verdict(self) -> Tally:
        tally = self.tally
        finished = tally.before + tally.done
        self.progress.result(
            outputs=[str(self.request.folder / name) for name in ("batch.html", self.summary_name)],
            subjects=tally.total,
            done=tally.total - len(tally.failed),
            failed=tally.failed,
            seconds=round(tally.seconds, 1),
        )
        if tally.failed:
            raise MRIDeepToolsError(
                f"{len(tally.failed)} of {tally.total} subjects failed ({_some(tally.failed)})",
                f"why is in {self.summary_name}; --resume tries them again",
            )
        if finished < tally.total:
            raise MRIDeepToolsError(f"only {finished} of {tally.total} subjects were done", "continue with --resume")
        return tally

    @property
    def summary_name(self) -> str:
        """Name of the summary table."""
        return "batch.csv" if self.delimiter == "," else "batch.tsv"
