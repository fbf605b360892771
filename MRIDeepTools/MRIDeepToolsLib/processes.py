"""Child processes: which interpreter, which environment, how one starts, and how a whole tree of them ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import slicer

from .errors import JobStartError
from .i18n import _

__all__ = [
    "child_environment",
    "core_command",
    "descendants",
    "is_gone",
    "kill_tree",
    "launch",
    "python_slicer",
    "run_quietly",
    "terminate_tree",
]

# Set after Slicer's start by the person or by a site's start-up script, and of use in a child process.
_PASSED_ON = (
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "FREESURFER_HOME", "PIP_INDEX_URL"),
    *("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONFIG_FILE", "TMPDIR"),
)
_WINDOWS = os.name == "nt"


def python_slicer() -> str:
    """Return the path of Slicer's Python interpreter, ``PythonSlicer``.

    Raises
    ------
    JobStartError : it is neither on the PATH nor beside the application.

    """
    found = shutil.which("PythonSlicer")
    if found:
        return found
    name = "PythonSlicer.exe" if _WINDOWS else "PythonSlicer"
    for folder in _beside_application():
        if (folder / name).is_file():
            return str(folder / name)
    raise JobStartError(
        _(
            "The Python interpreter of Slicer (PythonSlicer) was not found: it is neither on the PATH nor beside the "
            "application. Please reinstall Slicer, or put the folder of PythonSlicer on the PATH."
        )
    )


def _beside_application() -> list[Path]:
    """Return the folders where PythonSlicer is when it is not on the PATH (developer builds)."""
    home = getattr(getattr(slicer, "app", None), "slicerHome", None)
    own = Path(sys.executable).parent
    return [*([Path(home) / "bin", Path(home)] if home else []), own, own.parent / "bin"]


def core_command() -> list[str]:
    """Return the words that start the core, without its arguments. Tests put another program here."""
    return [python_slicer(), "-m", "mri_deep_tools"]


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child process: Slicer's own at its start, UTF-8, unbuffered, and ``extra``.

    PythonSlicer is a launcher that adds what it needs to the environment, so it gets the one without the additions of
    Slicer's launcher. Proxies, certificates, devices and threads are taken from the present environment.
    """
    environment = dict(os.environ)
    application = getattr(slicer, "app", None)
    if application is not None and hasattr(application, "startupEnvironment"):
        environment = {str(name): str(value) for name, value in slicer.util.startupEnvironment().items()}
        for name, value in os.environ.items():
            if name in _PASSED_ON or name.lower() in _PASSED_ON or name.startswith("MRI_DEEP_TOOLS_"):
                environment[name] = value
    environment.update(PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8", PYTHONUTF8="1")
    environment.update(extra or {})
    return environment


def launch(command: Sequence[str], environment: Mapping[str, str], cwd: str | None = None) -> subprocess.Popen:
    """Start a process with pipes for its two outputs, without a console window, in a process group of its own.

    Raises
    ------
    JobStartError : the system refused.

    """
    options: dict = {"start_new_session": True}
    if _WINDOWS:
        options = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    try:
        return subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        text = _("{program} could not be started: {reason}.")
        raise JobStartError(text.format(program=Path(command[0]).name, reason=reason)) from error


def run_quietly(command: Sequence[str], timeout_s: float) -> str:
    """Run a short system command and return its output; empty when it is missing, fails or takes too long."""
    options = {"creationflags": subprocess.CREATE_NO_WINDOW} if _WINDOWS else {}
    try:
        done = subprocess.run(
            list(command), capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL, **options
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


# ------------------------------------------------------------------------------------------------- trees of processes


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below ``pid`` with their time of start (so that a number used again is not mistaken)."""
    children: dict[int, list[int]] = {}
    starts: dict[int, str] = {}
    for child, parent, start in _all_processes():
        children.setdefault(parent, []).append(child)
        starts[child] = start
    found: dict[int, str] = {}
    waiting = list(children.get(pid, ()))
    while waiting:
        child = waiting.pop()
        if child not in found:
            found[child] = starts[child]
            waiting.extend(children.get(child, ()))
    return found


def is_gone(pid: int) -> bool:
    """Return True when it is certain that no process has this number; on Windows nothing is certain."""
    if _WINDOWS:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def terminate_tree(pid: int) -> None:
    """Ask the process group of ``pid`` to end; on Windows nothing, for there the cancel file does it."""
    if not _WINDOWS:
        _signal_group(pid, signal.SIGTERM)


def kill_tree(pid: int, known: Mapping[int, str] | None = None) -> None:
    """End ``pid``, its group and all processes below it at once.

    ``known`` are descendants found earlier: those whose parent is gone cannot be found any more.
    """
    if _WINDOWS:
        run_quietly(["taskkill", "/F", "/T", "/PID", str(pid)], 5)
        return
    targets = {**(known or {}), **descendants(pid)}
    _signal_group(pid, signal.SIGKILL)
    alive = {child: start for child, _parent, start in _all_processes()}
    for child, start in targets.items():
        if alive.get(child) == start:
            try:
                os.kill(child, signal.SIGKILL)
            except OSError:
                continue


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)  # the process was started as the leader of its group
    except OSError:
        return


def _all_processes() -> list[tuple[int, int, str]]:
    """Return (process, parent, time of start) of all processes that can be seen; nothing on Windows."""
    if Path("/proc/self/stat").exists():
        return [entry for path in Path("/proc").glob("[0-9]*") if (entry := _read_stat(path)) is not None]
    rows = (line.split(None, 2) for line in run_quietly(["ps", "-A", "-o", "pid=,ppid=,lstart="], 2).splitlines())
    return [(int(row[0]), int(row[1]), row[2]) for row in rows if len(row) == 3]


def _read_stat(folder: Path) -> tuple[int, int, str] | None:
    try:
        fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        return int(folder.name), int(fields[1]), fields[19].decode()
    except (OSError, IndexError, ValueError):
        return None
