"""One subject's work and what came of it: plain data that can be pickled, sent to another machine, and written down.

A :class:`Job` names files and the words of a command line, nothing that lives in memory. :func:`fingerprint` tells
whether a job is still the one that was finished earlier: same task, same options, same content of its inputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = ["PICTURES", "Executor", "Figure", "Job", "OnOutcome", "Outcome", "State", "fingerprint"]

PICTURES = "batch_pictures"
"""Folder of the overview's pictures, below that of the batch."""

State = Literal["done", "failed", "cancelled"]
Figure = float | str | None


@dataclass(frozen=True)
class Job:
    """The work on one subject.

    Attributes
    ----------
    id : names the job in all records; unique within its batch, made of letters, digits, ``_`` and ``-``.
    task : name of the command that does the work (``segment``).
    folder : the batch's output folder (absolute).
    inputs : files that are read, by the column or option that names them (absolute).
    outputs : files that are made, by the column or option that names them; relative to ``folder``.
    options : further words of the command line.
    fingerprint : changes when an option, or the content of an input, changes.
    extra : what is added to the sidecar of the main output (``Sources`` and the like), and rows of tables.

    """

    id: str
    task: str
    folder: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    options: tuple[str, ...] = ()
    fingerprint: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes
    ----------
    id, fingerprint : of the job.
    state : ``done``; ``failed``, with the sentence in ``message``; ``cancelled``, of which nothing is recorded.
    message : why it failed, as the command would say it.
    code : of the error (``input``, ``weights``, ``memory``, ...), empty when done.
    seconds : wall-clock seconds of the job; of its stages in ``stages``.
    warnings : what a person should know.
    qc : figures that tell whether the result is good, by name.
    measures : what was measured (volumes in mm^3, an age), by name.
    outputs : files that were made, relative to the batch's folder; the first is the main one.
    picture : of the overview, relative to the folder; empty where there is none.
    model, device, worker, finished : by what, on what, where (``host:process``), and when (UTC, ISO 8601).

    """

    id: str
    fingerprint: str
    state: State
    message: str = ""
    code: str = ""
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    qc: Mapping[str, Figure] = field(default_factory=dict)
    measures: Mapping[str, Figure] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    picture: str = ""
    model: str = ""
    device: str = ""
    worker: str = ""
    finished: str = ""

    def as_record(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Outcome:
        """Return the outcome that :meth:`as_record` described; fields of later versions are left out."""
        known: dict[str, Any] = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        for name in {"warnings", "outputs"} & set(known):
            known[name] = tuple(known[name])
        return cls(**known)


OnOutcome = Callable[[Outcome], None]
"""Is told of every outcome, in the thread that called :meth:`Executor.run`; what it raises ends the run."""


class Executor(Protocol):
    """Does jobs somewhere: in this process, or on a cluster."""

    def ready(self, jobs: Sequence[Job]) -> AbstractContextManager[None]:
        """Have what these jobs need at hand (workers, for instance) until the end of the context, or say why not."""

    def run(self, jobs: Iterable[Job], on_outcome: OnOutcome) -> None:
        """Do all jobs, in any order, and hand on each outcome once.

        A job that fails is an outcome, not an exception. When ``on_outcome`` raises, or on KeyboardInterrupt, jobs
        that have not begun are dropped, those that run are cancelled, and the exception goes on.
        """


def fingerprint(task: str, inputs: Mapping[str, str], options: Sequence[str]) -> str:
    """Return 32 hexadecimal digits that change with the task, its options, and the size or time of an input.

    A folder (a DICOM series) counts with the files in it. A file that is missing is part of the answer too.
    """
    facts = {name: _state_of(Path(path)) for name, path in sorted(inputs.items())}
    text = json.dumps([task, list(options), facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _state_of(path: Path) -> list[Any]:
    try:
        facts = path.stat()
        if not path.is_dir():
            return [str(path), facts.st_size, facts.st_mtime_ns]
        inside = sorted(path.rglob("*"))
        return [str(path), [[item.name, item.stat().st_size, item.stat().st_mtime_ns] for item in inside]]
    except OSError:
        return [str(path), "missing"]
