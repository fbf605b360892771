"""Python packages of Slicer's environment: what is there, what a requirement lacks, and pip in a child process.

Nothing is imported to find out: versions come from the metadata of the installed packages.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import slicer

from . import processes
from .errors import SetupError
from .i18n import _
from .jobs import CoreJob, process_events

__all__ = ["BUNDLED", "installed_version", "pip_install", "unmet_requirements", "write_constraints"]

# Parts of Slicer itself: another version of one of them can stop Slicer from starting.
BUNDLED = (
    *("numpy", "scipy", "SimpleITK", "requests", "pydicom", "highdicom", "pillow", "packaging", "setuptools"),
    *("certifi", "cryptography", "GitPython", "PyGithub", "dcmqi", "dicomweb-client", "python-dateutil"),
    *("typing_extensions", "urllib3", "six", "wrapt", "charset-normalizer", "idna", "pip", "wheel"),
)

_PIP_OPTIONS = ("--disable-pip-version-check", "--no-input", "--no-warn-script-location", "--only-binary=:all:")


def installed_version(name: str, search_path: Sequence[str] | None = None) -> str | None:
    """Return the version of an installed package, or None; nothing is imported.

    ``search_path`` are folders to look in instead of those of this interpreter.
    """
    found = _distribution(name, search_path)
    return None if found is None else found.version


def unmet_requirements(name: str, search_path: Sequence[str] | None = None, extras: Sequence[str] = ()) -> list[str]:
    """Return the requirements of an installed package that are missing or of the wrong version, as pip writes them.

    With ``extras`` those that these extras add; else those that hold without any.
    """
    requirement_class = _requirement_class()
    found = _distribution(name, search_path)
    unmet = []
    for text in (found.requires if found is not None else None) or []:
        requirement = requirement_class(text)
        if _holds(requirement, "") == bool(extras) or (extras and not any(_holds(requirement, one) for one in extras)):
            continue
        version = installed_version(requirement.name, search_path)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement.name}{requirement.specifier}")
    return unmet


def _holds(requirement: Any, extra: str) -> bool:
    return requirement.marker is None or bool(requirement.marker.evaluate({"extra": extra}))


def write_constraints(path: Path, extra: Iterable[str] = (), search_path: Sequence[str] | None = None) -> Path:
    """Write a constraints file that keeps Slicer's own packages, and the ``extra`` ones, at their present versions."""
    pins = {name: installed_version(name, search_path) for name in (*BUNDLED, *extra)}
    path.write_text("".join(f"{name}=={version}\n" for name, version in pins.items() if version), encoding="utf-8")
    return path


def pip_install(words: Sequence[str], constraints: Path, log: Callable[[str], None] | None = None) -> None:
    """Run ``pip install`` in a child process while Slicer stays alive.

    Slicer's own function is used where there is one (5.12 and later), outside its testing mode, in which it would
    block; otherwise the same command as a job of ours.

    Parameters
    ----------
    words : requirements, files and options.
    constraints : file of versions that must stay.
    log : receives pip's lines.

    Raises
    ------
    SetupError : pip failed; the message holds its last error line. What ``log`` raises is raised when pip has ended.

    """
    words = [*_PIP_OPTIONS, *words]
    lines: list[str] = []

    faults: list[Exception] = []

    def take(text: str) -> None:
        lines.extend(text.splitlines())
        try:
            if log is not None and not faults:
                log(text)
        except Exception as error:  # noqa: BLE001 - else Slicer's function would never come to its end
            faults.append(error)

    status = _through_slicer(words, constraints, take) if _slicer_can() else _own(words, constraints, take)
    importlib.invalidate_caches()
    if status != 0:
        raise SetupError(_explain(lines, status))
    if faults:
        raise faults[0]


def _slicer_can() -> bool:
    application = getattr(slicer, "app", None)
    if application is None or (hasattr(application, "testingEnabled") and application.testingEnabled()):
        return False
    return importlib.util.find_spec("slicer.packaging") is not None


def _through_slicer(words: Sequence[str], constraints: Path, log: Callable[[str], None]) -> int:
    import slicer.packaging

    if slicer.packaging.isPipInstallInProgress():
        raise SetupError(_("Another installation is running; wait until it has finished."))
    ended: list[int] = []
    slicer.packaging.pip_install(
        list(words),
        constraints=str(constraints),
        blocking=False,
        show_progress=False,
        requester="MRI Deep Tools",
        logCallback=log,
        completedCallback=ended.append,
    )
    while not ended:
        process_events()
        time.sleep(0.02)
    return ended[0]


def _own(words: Sequence[str], constraints: Path, log: Callable[[str], None]) -> int:
    job = CoreJob(
        ["install", *words, "-c", constraints],
        command=[processes.python_slicer(), "-m", "pip"],
        on_log=log,
    )
    outcome = job.start().wait()
    return outcome.exit_code if outcome is not None and outcome.exit_code is not None else 1


def _explain(lines: Sequence[str], status: int) -> str:
    """Return one sentence for pip's failure."""
    errors = [re.sub(r"^ERROR:\s*", "", line.strip()) for line in lines if line.strip().startswith("ERROR:")]
    reason = errors[0] if errors else next((line.strip() for line in reversed(lines) if line.strip()), "")
    text = "\n".join(lines)
    if re.search(r"Temporary failure in name resolution|getaddrinfo|NewConnectionError|ProxyError|SSLError", text):
        hint = _("The network cannot be reached: check it and the proxy, or set a folder of wheels in the settings.")
    elif re.search(r"No space left|disk full", text, re.IGNORECASE):
        hint = _("The disk is full.")
    elif re.search(r"Permission denied|Access is denied|WinError 5", text):
        hint = _("The folder of Slicer cannot be written to: install Slicer where you may write.")
    else:
        hint = _("The log tells more.")
    message = _("The installation failed (status {status}): {reason}").format(status=status, reason=reason[:300])
    return f"{message.rstrip('.')}. {hint}"


def _distribution(name: str, search_path: Sequence[str] | None) -> Any:
    """Return the metadata of an installed package, or None."""
    options = {} if search_path is None else {"path": [str(folder) for folder in search_path]}
    try:
        return next(iter(importlib.metadata.distributions(name=name, **options)), None)
    except (OSError, ValueError):
        return None


def _requirement_class() -> Any:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # pip carries a copy
        from pip._vendor.packaging.requirements import Requirement
    return Requirement
