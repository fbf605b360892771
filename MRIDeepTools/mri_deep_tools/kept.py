"""Networks that outlive one run: a program that works on many scans loads each of them once.

Engines ask :func:`kept` for what they load. In a single command nothing is kept, and the loader is simply called;
after :func:`keep_networks` (a batch, or a worker of a cluster) a network that was loaded for an earlier scan is used
again by the next engine with the same weights and settings.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["file_key", "keep_networks", "kept"]

Loaded = TypeVar("Loaded")

_lock = threading.RLock()
_found: OrderedDict[Hashable, Any] = OrderedDict()
_limit = 0


def keep_networks(count: int = 4) -> None:
    """Keep the ``count`` networks that were used last; 0 drops all and keeps none."""
    global _limit
    with _lock:
        _limit = count
        while len(_found) > _limit:
            _found.popitem(last=False)


def kept(key: Hashable, load: Callable[[], Loaded]) -> Loaded:
    """Return what an earlier call with the same key loaded, else what ``load`` returns.

    Two threads that ask for the same network at once load it once. ``key`` must hold all that shapes the network:
    its kind, its files (:func:`file_key`), and the settings that loading depends on.
    """
    if not _limit:
        return load()
    with _lock:
        if key not in _found:
            _found[key] = load()
        _found.move_to_end(key)
        while len(_found) > _limit:
            _found.popitem(last=False)
        value: Loaded = _found.get(key)  # type: ignore[assignment]
        return value


def file_key(path: str | Path) -> tuple[str, int, int]:
    """Return what tells one content of a weights file, or of a model's folder, from another: path, size, time."""
    whole = Path(path).resolve()
    facts = whole.stat()
    return str(whole), facts.st_size, facts.st_mtime_ns
