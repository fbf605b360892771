"""Small things that the model list, the downloader and the checkpoint readers share: cache folder, sizes, checksums."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import OutputError, WeightsError

__all__ = ["CACHE_HINT", "cache_dir", "git_blob_of", "human_size", "output_error", "sha256_of"]

CACHE_HINT = "set MRI_DEEP_TOOLS_CACHE to a folder that you can write to and that has room"

_CHUNK = 1 << 20
_SETTLED_SECONDS = 1.0  # a file changed more recently than this could change again without a new time stamp
_known: dict[tuple[Any, ...], str] = {}
_known_lock = threading.Lock()


def cache_dir() -> Path:
    """Return the folder for downloaded and converted weights; it need not exist.

    ``MRI_DEEP_TOOLS_CACHE`` overrides the place that the operating system has for caches.
    """
    chosen = os.environ.get("MRI_DEEP_TOOLS_CACHE", "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    try:
        home = Path.home()
    except RuntimeError:  # a service account without a home folder
        return Path(tempfile.gettempdir()) / "mri-deep-tools"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "mri-deep-tools" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "mri-deep-tools"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else home / ".cache") / "mri-deep-tools"


def human_size(size: int | None) -> str:
    """Return a number of bytes as a person reads it: ``512 bytes``, ``53.1 MB`` (powers of 1000)."""
    if size is None:
        return "unknown size"
    if size < 1000:
        return f"{size} byte" if size == 1 else f"{size} bytes"
    value, units = float(size), ["kB", "MB", "GB", "TB", "PB", "EB"]
    for unit in units:
        value /= 1000
        if value < 999.95 or unit == units[-1]:
            break
    return f"{value:.1f} {unit}"


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits; an unchanged file is read once per process.

    Raises
    ------
    WeightsError : the file is missing or cannot be read.

    """
    return _digest(Path(path), "sha256", lambda size: hashlib.sha256())


def git_blob_of(path: str | Path) -> str:
    """Return the id that git gives to the file's content: SHA-1 of ``blob <size>``, a zero byte, and the data.

    Raises
    ------
    WeightsError : the file is missing or cannot be read.

    """
    return _digest(Path(path), "git", lambda size: hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False))


def _digest(path: Path, kind: str, start: Callable[[int], Any]) -> str:
    try:
        with path.open("rb") as stream:
            info = os.fstat(stream.fileno())
            key = (kind, os.path.realpath(path), info.st_ino, info.st_size, info.st_mtime_ns)
            with _known_lock:
                if key in _known:
                    return _known[key]
            digest = start(info.st_size)
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        raise WeightsError(f"{path.name} does not exist", "check the path") from None
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read ({error.strerror or error})", "check the file") from None
    value = str(digest.hexdigest())
    if time.time() - info.st_mtime > _SETTLED_SECONDS:
        with _known_lock:
            _known[key] = value
    return value


def output_error(what: str, error: OSError) -> OutputError:
    """Return the error for a write into the cache that failed: ``what`` was to be written, ``error`` is why not."""
    return OutputError(f"{what} cannot be written into the model cache ({error.strerror or error})", CACHE_HINT)
