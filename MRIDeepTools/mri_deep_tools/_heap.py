"""The C library's heap (glibc): keeping freed memory for the next scan, and giving it back when memory is short.

By default every tensor above 32 MB is made of fresh pages that the system first fills with zeros, and threads other
than the first get small heaps of their own whose larger blocks are always fresh. In a run of many scans that took up to
a third of the processor time.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

__all__ = ["freed_bytes", "give_back_freed", "keep_freed"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)
_LARGEST = (1 << 31) - 1  # mallopt takes an int


def keep_freed(reused: int, kept: int) -> bool:
    """Keep up to ``kept`` freed bytes, of blocks up to ``reused`` bytes; says whether the C library can do that.

    Threads that begin later use the one heap of the process.
    """
    library = _library()
    if library is None:
        return False
    library.mallopt(_ARENA_MAX, 1)
    settings = ((_MMAP_THRESHOLD, reused), (_TRIM_THRESHOLD, kept))
    taken = [bool(library.mallopt(name, min(value, _LARGEST))) for name, value in settings]
    return all(taken)


def freed_bytes() -> int:
    """Return how much freed memory the heap holds, in bytes; 0 where that is not known.

    Parts that :func:`give_back_freed` gave back are counted still.
    """
    library = _library()
    return int(library.mallinfo2().fordblks) if library is not None and hasattr(library, "mallinfo2") else 0


def give_back_freed() -> None:
    """Give freed memory back to the system, wherever in the heap it lies."""
    library = _library()
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


@cache
def _library() -> Any:
    """Return the C library, or None where its heap cannot be set."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return None
    if hasattr(library, "mallinfo2"):
        library.mallinfo2.restype = _Usage
    return library


class _Usage(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]
