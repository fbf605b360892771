"""What the core says of this computer: versions, devices, models. Asked in a child process and remembered."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from typing import Any

import slicer

from . import settings, setup_core
from .errors import GlueError
from .i18n import _
from .jobs import CoreJob, JobOutcome

__all__ = ["cached", "devices", "forget", "info", "models", "refresh", "system_report"]

TIMEOUT_S = 120.0  # the first start after an installation compiles files and may be scanned for viruses

_known: dict[str, Any] | None = None


def cached() -> dict[str, Any] | None:
    """Return what the core said last, or None; starts nothing."""
    return _known


def forget() -> None:
    """Forget what is known: after a set-up, a download, a change of the cache folder."""
    global _known
    _known = None


def info(*, refresh_now: bool = False) -> dict[str, Any]:
    """Return what ``info --json`` of the core says: version, python, torch, devices, driver, models, ...

    Slicer stays alive while the program runs (some seconds).

    Raises
    ------
    GlueError : the core is not installed, fails, or does not answer; the message says what to do.

    """
    if _known is not None and not refresh_now:
        return _known
    job = CoreJob(["info", "--json"], events=False)
    outcome = job.start().wait(TIMEOUT_S)
    if outcome is None:
        job.cancel()
        job.wait()
        raise GlueError(_("The program did not answer. Restart Slicer, or repair the set-up."))
    return _take(outcome)


def refresh(on_ready: Callable[[dict[str, Any]], None], on_failed: Callable[[str], None] | None = None) -> CoreJob:
    """Ask the core without waiting; one of the two functions is called on the main thread.

    Raises
    ------
    JobStartError : the interpreter was not found.

    """

    def finished(outcome: JobOutcome) -> None:
        try:
            found = _take(outcome)
        except GlueError as error:
            if on_failed is not None and outcome.status != "cancelled":
                on_failed(str(error))
            return
        on_ready(found)

    return CoreJob(["info", "--json"], events=False, on_finished=finished).start()


def _take(outcome: JobOutcome) -> dict[str, Any]:
    global _known
    if not outcome.ok:
        raise GlueError(outcome.sentence)
    try:
        found = json.loads(outcome.output)
        if not isinstance(found, dict) or "version" not in found:
            raise ValueError("not the expected object")
    except ValueError as error:
        raise GlueError(_("The program gave an unexpected answer; repair the set-up.")) from error
    _known = found
    return found


def devices() -> list[dict[str, Any]]:
    """Return the devices to choose from (name, description, memory_gb), as far as known; the CPU always is."""
    found = (_known or {}).get("devices") or []
    return found or [{"name": "cpu", "description": platform.machine(), "memory_gb": None}]


def models(task: str | None = None) -> list[dict[str, Any]]:
    """Return the facts of the models, as far as known: of one task (``segment``), or of all."""
    found = (_known or {}).get("models") or []
    return [model for model in found if task is None or model.get("task") == task]


def system_report(*, ask: bool = True) -> str:
    """Return a text to copy into a report: versions, devices, models, settings; no names, no folders.

    Parameters
    ----------
    ask : start the core when it was not asked yet; a failure is part of the text.

    """
    failure = ""
    if _known is None and ask:
        try:
            info()
        except GlueError as error:
            failure = str(error)
    known = _known or {}
    torch = known.get("torch") or {}
    lines = [
        ("Slicer", _slicer_version()),
        ("System", known.get("platform") or platform.platform()),
        ("Python", known.get("python") or platform.python_version()),
        ("Core", known.get("version") or setup_core.state().core_version or "not installed"),
        ("Core fault", failure),
        ("Torch", f"{torch.get('version')} ({_cuda(torch)})" if torch else "not loaded"),
        ("Torch fault", torch.get("fault") or ""),
        ("NVIDIA driver", known.get("driver") or "none"),
        *(("Device", _device_line(item)) for item in known.get("devices") or []),
        ("Memory", f"{known['memory_gb']:.1f} GB" if known.get("memory_gb") else ""),
        ("Threads", str(known.get("threads") or "")),
        *((f"Package {name}", str(value)) for name, value in (known.get("packages") or {}).items()),
        *((f"Model {item.get('name')}", str(item.get("status"))) for item in known.get("models") or []),
        ("Settings", ", ".join(_setting_line(name) for name in settings.DEFAULTS)),
    ]
    return "\n".join(f"{name}: {value}" for name, value in lines if value)


def _cuda(torch: dict[str, Any]) -> str:
    if not torch.get("cuda_built"):
        return "built without CUDA"
    return "CUDA works" if torch.get("cuda_available") else "built with CUDA, which does not work here"


def _device_line(item: dict[str, Any]) -> str:
    memory = f", {item['memory_gb']:.1f} GB" if item.get("memory_gb") else ""
    return f"{item.get('name')} ({item.get('description')}{memory})"


def _setting_line(name: str) -> str:
    value = settings.get(name)
    return f"{name} {'set' if value else 'not set'}" if settings.DEFAULTS[name] == "" else f"{name} {value}"


def _slicer_version() -> str:
    application = getattr(slicer, "app", None)
    parts = [getattr(application, name, None) for name in ("applicationVersion", "revision")]
    texts = [str(part() if callable(part) else part) for part in parts if part is not None]
    return " ".join(texts) or "unknown"
