"""What a batch remembers on disk: one record per subject, so that a kill at any moment costs nothing that was finished.

The work on a subject writes into a folder of its own below ``.batch/staging``. When all files are there, its record is
written, flushed and renamed into place; from that moment the subject is finished, whatever happens next. Only then are
the files moved to their own names, and :meth:`State.recover` does what is left of that after a kill. Records are single
files, not lines of a shared one, because many machines write them at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, RequestError
from .jobs import Outcome

__all__ = ["STATE_FOLDER", "State"]

STATE_FOLDER = ".batch"
_MARK = "--"  # between the name of a job and a random token; names of jobs hold no such thing


class State:
    """The records of one batch, below its output folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.root = self.folder / STATE_FOLDER

    # ------------------------------------------------------------------------------------------------ one at a time

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other batch out of the folder; the lock goes with the process, however that ends.

        Where no plan was written meanwhile, the folder is left as it was found.

        Raises
        ------
        RequestError : another batch works in the folder.
        OutputError : the folder cannot be made or written to.

        """
        from filelock import FileLock, Timeout

        from .._atomic import output_error

        made = [path for path in (self.root, *self.root.parents) if not path.exists()]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "lock", timeout=0)
            lock.acquire()
        except Timeout:
            message = f"another batch is at work in {self.folder.name or 'this folder'}"
            raise RequestError(message, "wait for its end, or choose another output folder") from None
        except OSError as error:
            raise output_error(self.folder, error) from error
        try:
            yield
        finally:
            begun = (self.root / "plan.json").exists()
            lock.release()
            if not begun:
                _remove_empty([self.root, *made[1:]], self.root / "lock")

    # -------------------------------------------------------------------------------------------------------- plan

    def read_plan(self) -> dict[str, Any] | None:
        """Return what :meth:`write_plan` wrote, or None where no batch was begun.

        Raises
        ------
        InputError : the file is not what a batch writes.

        """
        path = self.root / "plan.json"
        try:
            plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise InputError(f"{STATE_FOLDER}/plan.json cannot be read", "choose another output folder") from None
        return plan

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Write what the batch is: task, options, version."""
        from ..provenance import write_sidecar

        write_sidecar(self.root / "plan.json", plan)

    # ----------------------------------------------------------------------------------------------------- records

    def outcome(self, job: str) -> Outcome | None:
        """Return what came of a job, or None where it was never finished."""
        record = self._read(self._path(job))
        return None if record is None else Outcome.from_record(record["outcome"])

    def names(self) -> set[str]:
        """Return the names of all jobs that have a record."""
        return {path.stem for path in (self.root / "records").glob("*/[!.]*.json")}

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what came of every job so far."""
        for path in sorted((self.root / "records").glob("*/[!.]*.json")):  # no temporary ones
            record = self._read(path)
            if record is not None:
                yield Outcome.from_record(record["outcome"])

    def forget(self, job: str) -> None:
        """Remove the files and the record of a job, which is to be done again; the record goes first."""
        before = self.outcome(job)
        self._path(job).unlink(missing_ok=True)
        for name in _files_of(before):
            (self.folder / name).unlink(missing_ok=True)

    def forget_all(self) -> None:
        """Remove all records and the files that they name."""
        for outcome in list(self.outcomes()):
            self.forget(outcome.id)
        shutil.rmtree(self.root / "staging", ignore_errors=True)

    def forget_batch(self) -> None:
        """Forget the batch whole: its records, what these name, and its plan."""
        self.forget_all()
        shutil.rmtree(self.root / "records", ignore_errors=True)
        (self.root / "plan.json").unlink(missing_ok=True)

    # ----------------------------------------------------------------------------------------------------- staging

    def stage(self, job: str) -> Path:
        """Make and return the folder in which a job writes."""
        path = self.root / "staging" / f"{job}{_MARK}{secrets.token_hex(4)}"
        path.mkdir(parents=True)
        return path

    def finish(self, outcome: Outcome, staging: Path | None) -> Outcome:
        """Make an outcome final: write its record, then move its files to their names. Returns the outcome.

        A job that was finished meanwhile (by another worker, when a cluster gave it to two) stays as it is.
        """
        before = self.outcome(outcome.id)
        if before is not None and before.state == "done" and before.fingerprint == outcome.fingerprint:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
            return before
        if staging is not None:
            _flush(staging, outcome)
        record = {
            "outcome": outcome.as_record(),
            "staging": staging.name if staging is not None else None,
            "obsolete": sorted(set(_files_of(before)) - set(_files_of(outcome))),
        }
        self._write(self._path(outcome.id), record)
        self._publish(record)
        return outcome

    def recover(self) -> int:
        """Move what a killed run left staged: to its name where the record was written, away where not.

        Only for the one that holds the lock. Returns how many finished jobs were brought to their end.
        """
        from .._atomic import remove_leftovers

        for folder in (self.folder, self.root, *(self.root / "records").glob("*")):
            if folder.is_dir():
                remove_leftovers(folder)
        count = 0
        staged = self.root / "staging"
        for path in sorted(staged.iterdir()) if staged.is_dir() else []:
            record = self._read(self._path(path.name.rpartition(_MARK)[0]))
            if record is not None and record["staging"] == path.name:
                self._publish(record)
                count += 1
            else:
                shutil.rmtree(path, ignore_errors=True)
        return count

    def _publish(self, record: dict[str, Any]) -> None:
        """Move the staged files to their names; may be repeated."""
        names = _files_of(Outcome.from_record(record["outcome"]))
        staging = None if record["staging"] is None else self.root / "staging" / record["staging"]
        touched = set()
        for name in names if staging is not None else ():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # moved already
                (staging / name).replace(target)  # type: ignore[operator]
            touched.add(target.parent)
        for name in record["obsolete"]:
            (self.folder / name).unlink(missing_ok=True)
        for place in touched:
            _sync(place)
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)

    def _path(self, job: str) -> Path:
        """Return the file of a job's record; 256 folders, so that none becomes too full."""
        return self.root / "records" / hashlib.sha256(job.encode()).hexdigest()[:2] / f"{job}.json"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise InputError(
                f"the record {path.name} cannot be read", "delete it; its subject is then redone"
            ) from None
        return record

    def _write(self, path: Path, record: dict[str, Any]) -> None:
        from ..provenance import write_sidecar

        write_sidecar(path, record)


def _files_of(outcome: Outcome | None) -> Sequence[str]:
    if outcome is None:
        return ()
    return (*outcome.outputs, *([outcome.picture] if outcome.picture else []))


def _remove_empty(folders: Sequence[Path], lock: Path) -> None:
    """Remove a lock and the folders that were made for it, as far as they hold nothing else."""
    with suppress(OSError):  # another batch may have begun in the meantime
        lock.unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()


def _flush(staging: Path, outcome: Outcome) -> None:
    """Bring the content of the staged files to the disk."""
    for name in _files_of(outcome):
        with (staging / name).open("rb+") as file:
            os.fsync(file.fileno())
        _sync((staging / name).parent)


def _sync(folder: Path) -> None:
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
