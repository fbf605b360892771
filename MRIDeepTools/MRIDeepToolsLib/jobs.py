"""Jobs: one command of the core in a process of its own, with progress, log, cancel, and an outcome in plain words.

::

    def arguments(folder):                      # a temporary folder of this job
        export_volume(volume, folder / "scan.nii")
        return ["segment", folder / "scan.nii", folder / "labels_dseg.nii"]

    def finished(outcome):                      # on the main thread; the folder still exists
        if outcome.ok:
            import_segmentation(job.folder / "labels_dseg.nii", ...)

    job = CoreJob(arguments, on_progress=..., on_finished=finished)
    job.start()                                 # returns at once
    outcome = job.wait()                        # only where the caller wants to wait; Slicer stays alive meanwhile

The same code serves a button (start) and a script (start and wait). All callbacks come on the main thread.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

import slicer

from . import processes, settings
from .errors import JobStartError
from .guard import SceneGuard
from .i18n import _
from .joblog import LOG_LIMIT, LogBuffer, OutputReader
from .outcomes import JobOutcome, judge

__all__ = ["LOG_LIMIT", "CoreJob", "JobOutcome", "SceneGuard", "cancel_all", "process_events", "running_jobs"]

Arguments = Union[Sequence[Any], Callable[[Path], Sequence[Any]]]

POLL_MS = 100
POLITE_S = 1.4
"""Seconds between a polite request to end and the end of the whole process tree."""
_GRACE_S = 0.5  # for the last output of a process that has ended while something else keeps its pipes open

_PREFIX = "mdt-"
_OLD_S = 2 * 24 * 3600.0  # a temporary folder that nothing has touched for so long belongs to no job

_running: set[CoreJob] = set()


class CoreJob:
    """One run of a core command.

    Parameters
    ----------
    arguments :
        Words after ``mri-deep-tools`` (anything that ``str`` turns into a word), or a function that is given the job's
        temporary folder and returns them; it runs inside :meth:`start`. ``--progress json`` is added.
    on_progress : called as ``on_progress(fraction, stage, eta_s)``; 0 to 1, name, seconds or None.
    on_log : called as ``on_log(text)`` with one or more new lines.
    on_warning : called as ``on_warning(message)``.
    on_result : called as ``on_result(event)`` for each finished scan of several.
    on_subject : called as ``on_subject(subject)`` with id, state, message and seconds for each one of a batch.
    on_finished : called once as ``on_finished(outcome)``; the temporary folder still exists then.
    environment : added to the environment of the process.
    events :
        False for a command that prints something else (``info --json``); its text is then ``outcome.output``.
    command : another program in place of the core (the set-up runs pip); nothing is added to its arguments.

    An exception of a callback does not disturb the job: it is logged, and raised by :meth:`wait` or, without a wait,
    from the timer that called it.

    """

    def __init__(
        self,
        arguments: Arguments,
        *,
        on_progress: Callable[[float, str, float | None], None] | None = None,
        on_log: Callable[[str], None] | None = None,
        on_warning: Callable[[str], None] | None = None,
        on_result: Callable[[dict[str, Any]], None] | None = None,
        on_subject: Callable[[dict[str, Any]], None] | None = None,
        on_finished: Callable[[JobOutcome], None] | None = None,
        environment: Mapping[str, str] | None = None,
        events: bool = True,
        command: Sequence[str] | None = None,
    ) -> None:
        self.on_progress, self.on_log, self.on_warning = on_progress, on_log, on_warning
        self.on_result, self.on_subject, self.on_finished = on_result, on_subject, on_finished
        self.fraction, self.stage, self.eta_s = 0.0, "", None
        self.outcome: JobOutcome | None = None
        self.warnings: list[str] = []
        self.results: list[dict[str, Any]] = []
        self.device: dict[str, Any] = {}
        self._arguments, self._environment, self._events = arguments, dict(environment or {}), events
        self._command = list(command) if command is not None else None
        self._folder: Path | None = None
        self._remove_folder: Any = None
        self._buffer = LogBuffer()
        self._process: Any = None
        self._reader: OutputReader | None = None
        self._timer: Any = None
        self._error_event: dict[str, Any] | None = None
        self._callback_error: BaseException | None = None
        self._begin = 0.0
        self._ended_at: float | None = None
        self._cancelled = self._in_tick = self._waiting = False
        self._known: dict[int, str] = {}

    # ------------------------------------------------------------------------------------------------ state

    @property
    def running(self) -> bool:
        """True from :meth:`start` until the outcome is known."""
        return self._process is not None and self.outcome is None

    @property
    def cancelling(self) -> bool:
        """True after :meth:`cancel`, until the outcome is known."""
        return self._cancelled and self.outcome is None

    @property
    def folder(self) -> Path:
        """Temporary folder of this job; made when first asked for, removed when the job has finished."""
        if self._folder is None:
            self._folder = _new_folder()
            self._remove_folder = weakref.finalize(self, shutil.rmtree, str(self._folder), ignore_errors=True)
        return self._folder

    @property
    def log(self) -> str:
        """What the program printed, at most 256 kB, without the folders of this computer."""
        return self._buffer.text

    @property
    def seconds(self) -> float:
        """Seconds since the start, or what the whole run took."""
        return self.outcome.seconds if self.outcome else (time.monotonic() - self._begin if self._process else 0.0)

    # ---------------------------------------------------------------------------------------------- actions

    def start(self) -> CoreJob:
        """Start the process and return at once.

        Raises
        ------
        JobStartError : no interpreter, the system refused, or this job was started before. Whatever the function of the
        arguments raises is passed on; the temporary folder is gone then.

        """
        if self._process is not None or self.outcome is not None:
            raise JobStartError(_("This job was started before; make a new one."))
        try:
            words = self._arguments(self.folder) if callable(self._arguments) else self._arguments
            words = [str(word) for word in words]
            if self._events and self._command is None and "--progress" not in words:
                words += ["--progress", "json"]
            command = [*(self._command if self._command is not None else processes.core_command()), *words]
            self._buffer.append("$ " + " ".join(self._private(_short(word)) for word in command))
            self._begin = time.monotonic()
            self._process = processes.launch(command, self._full_environment(), cwd=str(self.folder))
        except BaseException:
            self._discard_folder()
            raise
        outputs = [(self._process.stdout, True), (self._process.stderr, False)]
        self._reader = OutputReader(outputs, self._buffer, events=self._events, clean=self._private)
        _running.add(self)
        self._start_timer()
        return self

    def cancel(self) -> None:
        """Ask the program to end, and end its whole process tree when it has not done so after 1.4 seconds.

        Returns at once; the outcome follows as usual. Does nothing when the job is not running.
        """
        if not self.running or self._cancelled:
            return
        self._cancelled = True
        pid = self._process.pid
        known = self._known = processes.descendants(pid)
        try:
            self._cancel_file.touch()
        except OSError:
            logging.debug("MRI Deep Tools: the cancel file could not be written")
        if self._process.poll() is None:
            processes.terminate_tree(pid)
        # A thread of its own: the end comes in time even while the main thread is busy elsewhere.
        killer = threading.Timer(POLITE_S, self._kill, args=(known,))
        killer.daemon = True
        killer.start()

    def wait(self, timeout_s: float | None = None) -> JobOutcome | None:
        """Wait for the end while the application stays alive, and return the outcome; None when the time is over.

        Raises
        ------
        JobStartError : the job was not started. What a callback raised is raised here.

        """
        if self._process is None:
            raise JobStartError(_("This job was not started."))
        if self._in_tick:
            raise JobStartError(_("A job cannot be waited for inside one of its own callbacks."))
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._waiting = True
        try:
            while self.running:
                self._reader.activity.wait(0.02)
                process_events()
                self._tick()
                if self.running and deadline is not None and time.monotonic() >= deadline:
                    return None
        finally:
            self._waiting = False
        self._raise_callback_error()
        return self.outcome

    # --------------------------------------------------------------------------------------------- internals

    @property
    def _cancel_file(self) -> Path:
        return self.folder / "cancel"

    def _full_environment(self) -> dict[str, str]:
        own = {
            "MRI_DEEP_TOOLS_CANCEL_FILE": str(self._cancel_file),
            "MRI_DEEP_TOOLS_PARENT_PID": str(os.getpid()),
        }
        return processes.child_environment({**settings.environment(), **own, **self._environment})

    def _private(self, line: str) -> str:
        """Take the folders of this computer out of a line."""
        for folder in (str(self._folder), str(Path.home())):
            if len(folder) > 1 and folder in line:
                line = line.replace(folder + os.sep, "").replace(folder, "~")
        return line

    def _start_timer(self) -> None:
        try:
            import qt
        except ImportError:  # the bare interpreter: only wait() drives the job
            return
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._on_timer)
        self._timer.start()

    def _on_timer(self) -> None:
        self._tick()
        if self.outcome is not None and not self._waiting:
            self._raise_callback_error()

    def _raise_callback_error(self) -> None:
        error, self._callback_error = self._callback_error, None
        if error is not None:
            raise error

    def _tick(self) -> None:
        """Pass on what has come, and finish when the process has ended. On the main thread only."""
        if self._in_tick or not self.running:
            return
        self._in_tick = True
        try:
            ended = self._has_ended()
            self._pass_on()
            if ended:
                self._finish()
        finally:
            self._in_tick = False

    def _has_ended(self) -> bool:
        if self._process.poll() is None:
            return False
        if self._reader.at_end:
            return True
        self._ended_at = self._ended_at or time.monotonic()
        return time.monotonic() - self._ended_at > (POLITE_S + _GRACE_S if self._cancelled else _GRACE_S)

    def _pass_on(self) -> None:
        for event in self._reader.take_events():
            self._take(event)
        text = self._buffer.take_new()
        if text:
            self._call(self.on_log, text)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind in ("progress", "stage"):
            self.stage = str(event.get("stage") or self.stage)
            self.fraction = _number(event.get("fraction"), self.fraction)
            self.eta_s = _number(event.get("eta_s"), None)
            self._call(self.on_progress, self.fraction, self.stage, self.eta_s)
            if isinstance(event.get("subject"), dict):
                self._call(self.on_subject, event["subject"])
        elif kind == "warning":
            self.warnings.append(str(event.get("message", "")))
            self._call(self.on_warning, self.warnings[-1])
        elif kind == "result":
            self.results.append({key: value for key, value in event.items() if key != "event"})
            self._call(self.on_result, self.results[-1])
        elif kind == "device":
            self.device = {key: value for key, value in event.items() if key != "event"}
        elif kind == "error":
            self._error_event = event

    def _finish(self) -> None:
        exit_code = self._process.returncode
        outcome = judge(
            exit_code,
            cancelled=self._cancelled,
            error=self._error_event,
            last_lines=[line for line in self._buffer.last_lines(30) if not line.startswith("$ ")],
            stage=self.stage,
        )
        if not outcome.ok or not self._reader.at_end:
            processes.kill_tree(self._process.pid, self._known)  # nothing of a run that went wrong may stay behind
        outcome.seconds = time.monotonic() - self._begin
        outcome.results, outcome.warnings, outcome.device = self.results, self.warnings, self.device
        outcome.output = self._reader.output
        self._buffer.append(f"[{outcome.status}, exit status {exit_code}, {outcome.seconds:.1f} s]")
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        _running.discard(self)
        self.outcome = outcome
        try:
            self._call(self.on_log, self._buffer.take_new())
            self._call(self.on_finished, outcome)
        finally:
            self._discard_folder()

    def _call(self, callback: Callable[..., None] | None, *values: Any) -> None:
        if callback is None:
            return
        try:
            callback(*values)
        except Exception as error:  # noqa: BLE001 - raised again when the job's own work is done
            logging.debug("MRI Deep Tools: a callback of a job failed", exc_info=True)
            self._callback_error = self._callback_error or error

    def _kill(self, known: Mapping[int, str]) -> None:
        """End the tree, if anything of it is left; runs in a thread."""
        if self._process.poll() is None or not self._reader.at_end or known:
            processes.kill_tree(self._process.pid, known)

    def _discard_folder(self) -> None:
        if self._remove_folder is not None:
            self._remove_folder()


def running_jobs() -> list[CoreJob]:
    """Return the jobs that run now."""
    return list(_running)


def cancel_all() -> None:
    """Cancel all jobs; for the end of the application."""
    for job in running_jobs():
        job.cancel()


def process_events() -> None:
    """Let the application handle its events, where there is one."""
    application = getattr(slicer, "app", None)
    if application is not None and hasattr(application, "processEvents"):
        application.processEvents()


@atexit.register
def _end_all() -> None:
    """End what still runs when the interpreter ends; there is no time for a polite request."""
    for job in running_jobs():
        processes.kill_tree(job._process.pid)
        job._discard_folder()


def _new_folder() -> Path:
    """Make a temporary folder that only this user can read; its name tells which process it belongs to."""
    given = getattr(getattr(slicer, "app", None), "temporaryPath", None)
    root = Path(str(given)) if given and Path(str(given)).is_dir() else Path(tempfile.gettempdir())
    _remove_leftovers(root)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=root))


def _remove_leftovers(root: Path) -> None:
    """Remove the folders of a Slicer that crashed: they hold images of people."""
    for folder in root.glob(f"{_PREFIX}*-*"):
        owner = folder.name[len(_PREFIX) :].partition("-")[0]
        try:
            old = time.time() - folder.stat().st_mtime > _OLD_S
        except OSError:
            continue
        if old or (owner.isdigit() and processes.is_gone(int(owner))):
            shutil.rmtree(folder, ignore_errors=True)


def _short(word: str) -> str:
    """Return a word of the command line for the log: of a path only the name."""
    return Path(word).name if Path(word).is_absolute() else word


def _number(value: Any, otherwise: Any) -> Any:
    return float(value) if isinstance(value, (int, float)) and value == value else otherwise
