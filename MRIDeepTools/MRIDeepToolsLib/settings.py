"""Settings of this computer (not of the scene): device, threads, folders, network. Kept as application settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import slicer

__all__ = ["DEFAULTS", "PREFIX", "environment", "get", "job_options", "reset", "set_value"]

PREFIX = "MRIDeepTools/"

DEFAULTS: dict[str, Any] = {
    "device": "auto",
    "threads": 0,  # all
    "cacheFolder": "",  # the core's own place
    "wheelFolder": "",
    "weightsFolder": "",
    "upsampleWeights": "",
    "superresolveWeights": "",
    "harmonizeWeights": "",
    "harmonizeTemplate": "",
    "predictWeights": "",
    "translateModelFolder": "",
    "batchInput": "",
    "batchOutput": "",
    "offline": False,
}
"""Names of the settings and what holds until someone changes them."""

_without_application: dict[str, Any] = {}


def get(name: str) -> Any:
    """Return a setting in the type of its default; the default for a value that cannot be read.

    Raises
    ------
    KeyError : there is no setting of that name.

    """
    default = DEFAULTS[name]
    store = _store()
    value = _without_application.get(name, default) if store is None else store.value(PREFIX + name, default)
    return _converted(value, default)


def set_value(name: str, value: Any) -> None:
    """Change a setting; a value equal to the default is removed, so that later defaults hold.

    Raises
    ------
    KeyError : there is no setting of that name.

    """
    default = DEFAULTS[name]
    value = _converted(value, default)
    store = _store()
    if store is None:
        _without_application[name] = value
    elif value == default:
        store.remove(PREFIX + name)
    else:
        store.setValue(PREFIX + name, value)


def reset() -> None:
    """Bring all settings back to their defaults."""
    for name, value in DEFAULTS.items():
        set_value(name, value)


def environment() -> dict[str, str]:
    """Return the environment variables by which the settings reach the core."""
    found = {}
    if get("cacheFolder"):
        found["MRI_DEEP_TOOLS_CACHE"] = get("cacheFolder")
    if get("offline"):
        found["MRI_DEEP_TOOLS_OFFLINE"] = "1"
    if get("threads") > 0:
        found["OMP_NUM_THREADS"] = str(get("threads"))
    return found


def job_options(device: str | None = None, threads: int | None = None) -> list[str]:
    """Return ``--device`` and ``--threads`` for a command; what is given goes before the settings."""
    device = device or get("device")
    threads = get("threads") if threads is None else threads
    options = [] if device in ("", "auto") else ["--device", device]
    return options + (["--threads", str(threads)] if threads > 0 else [])


def _store() -> Any:
    application = getattr(slicer, "app", None)
    if application is None or not hasattr(application, "settings"):
        return None
    return application.settings()


def _converted(value: Any, default: Any) -> Any:
    """Return a value in the type of the default: a settings file holds text."""
    if isinstance(default, bool):
        return str(value).strip().lower() in ("1", "true", "yes", "on")
    if isinstance(default, int):
        try:
            return min(max(int(float(value)), 0), os.cpu_count() or 1024)
        except (TypeError, ValueError, OverflowError):
            return default
    text = "" if value is None else str(value).strip()
    if default == "" and text in ("", "."):
        return ""
    return str(Path(text)) if default == "" else (text or default)
