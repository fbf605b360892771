"""Any exception as one of the error family, so that a person reads what is wrong and what to do, never a traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..errors import CancelledError, DependencyError, InputError, MRIDeepToolsError, OutOfMemoryError, OutputError

__all__ = ["as_told"]

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_NOT_THERE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)


def as_told(error: BaseException) -> MRIDeepToolsError:
    """Return the error itself when it is one of the family, else one that says the same in its manner."""
    if isinstance(error, MRIDeepToolsError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return CancelledError("Cancelled", "nothing was written")
    if isinstance(error, MemoryError):
        return OutOfMemoryError("the memory ran out", "close other programs, or choose fewer outputs or a smaller scan")
    if isinstance(error, ModuleNotFoundError) and error.name:
        return DependencyError(
            f"the Python package {error.name} is missing", "install mri-deep-tools again, with what it requires"
        )
    if isinstance(error, OSError) and error.strerror:
        name = f": {Path(os.fsdecode(error.filename)).name}" if isinstance(error.filename, (str, bytes)) else ""
        if error.errno in _NOT_THERE:
            return InputError(f"{error.strerror}{name}", "check the name")
        if error.errno in _NO_ROOM:
            return OutputError(f"{error.strerror}{name}", "free some space or write to another place")
        return OutputError(f"{error.strerror}{name}", "check the permissions of the place")
    cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return MRIDeepToolsError(
        f"an unexpected fault, {cause}".rstrip("."),
        "run again with MRI_DEEP_TOOLS_DEBUG=1 set and report what it prints",
    )
