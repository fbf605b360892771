"""Errors that a person can act on.

Every failure that a user can cause or mend is one of these. Each carries a stable ``code`` for programs, a
``message`` that says what is wrong and with which file, and a ``hint`` that says what to do about it. The command
line prints both in one sentence and ends with ``exit_status``: 1 when the work failed, 2 when the request was wrong.
"""

from __future__ import annotations

__all__ = [
    "CancelledError",
    "DependencyError",
    "DownloadError",
    "GeometryError",
    "InputError",
    "MRIDeepToolsError",
    "OutOfMemoryError",
    "OutputError",
    "RequestError",
    "WeightsError",
]


class MRIDeepToolsError(Exception):
    """Root of the family: the work failed.

    Parameters
    ----------
    message : what is wrong, with the file name where there is one; a clause without the final full stop.
    hint : what the person can do about it; a clause without the final full stop.

    """

    code = "failed"
    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return message and hint as one line."""
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return " ".join(text.split()).rstrip(".") + "."


class RequestError(MRIDeepToolsError, ValueError):
    """Options that contradict each other, are out of range, or name something that does not exist."""

    code = "request"
    exit_status = 2


class InputError(MRIDeepToolsError, ValueError):
    """An input file is missing, broken, or not what the command needs."""

    code = "input"
    exit_status = 2


class GeometryError(InputError):
    """An affine that cannot be used: singular, sheared beyond tolerance, not finite, or sform against qform."""

    code = "geometry"


class WeightsError(MRIDeepToolsError, ValueError):
    """A weights file is missing, cut short, fails its checksum, or belongs to another network."""

    code = "weights"
    exit_status = 2


class DependencyError(MRIDeepToolsError, ImportError):
    """An optional package is needed; the hint names the extra that brings it."""

    code = "dependency"
    exit_status = 2


class DownloadError(MRIDeepToolsError, OSError):
    """A file could not be fetched from any of its sources."""

    code = "download"


class OutputError(MRIDeepToolsError, OSError):
    """A result could not be written: read-only folder, full disk, existing file."""

    code = "output"


class OutOfMemoryError(MRIDeepToolsError, MemoryError):
    """Not enough memory on the chosen device, estimated beforehand or met on the way."""

    code = "memory"


class CancelledError(MRIDeepToolsError):
    """The person or the calling program asked to stop."""

    code = "cancelled"
