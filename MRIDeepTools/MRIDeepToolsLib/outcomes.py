"""How a job ended, and the sentence that tells a person what happened and what to do."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from typing import Any, Optional

from .i18n import _

__all__ = ["JobOutcome", "for_the_panel", "judge"]

DONE, FAILED, CANCELLED, CRASHED = "done", "failed", "cancelled", "crashed"

# Exit codes of Windows that mean a crash, and of those the ones that mean lack of memory.
_WINDOWS_CRASHES = range(0xC0000000, 0xD0000000)
_WINDOWS_NO_MEMORY = {0xC0000017, 0xC000012D}
_MEMORY_WORDS = re.compile(
    r"out of memory|MemoryError|bad_alloc|can.?t allocate memory|Cannot allocate|not enough memory", re.IGNORECASE
)
_LIBRARY_WORDS = re.compile(r"DLL load failed|cannot open shared object|symbol not found|undefined symbol|GLIBC")
_NO_CORE_WORDS = re.compile(r"No module named '?(mri_deep_tools|torch)\b")
_OWN_ERROR = re.compile(r"^mri-deep-tools: error: ")
_DOWNLOAD_COMMAND = re.compile(r"(?:with|run) '?mri-deep-tools models download [\w.-]+'?")


def for_the_panel(sentence: str) -> str:
    """Return a sentence of the core with the button to press in place of the command to type."""
    return _DOWNLOAD_COMMAND.sub(_("with Download in the module MRI Deep Tools"), sentence)


@dataclass
class JobOutcome:
    """How a job ended.

    ``status`` is ``done``, ``failed`` (the program said why), ``cancelled`` or ``crashed`` (it ended without a word).
    ``results`` are the core's result events in order; ``code``, ``message`` and ``hint`` those of its error;
    ``sentence`` is what to tell the person; ``seconds`` the time from start to end; ``output`` the plain standard
    output of a program run without events.
    """

    status: str
    sentence: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    device: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    message: str = ""
    hint: str = ""
    exit_code: Optional[int] = None
    seconds: float = 0.0
    output: str = ""

    @property
    def ok(self) -> bool:
        """True when the program did all it was asked for."""
        return self.status == DONE

    @property
    def out_of_memory(self) -> bool:
        """True when lack of memory is the reason or the likely reason: offer another device or a faster mode."""
        return self.code in ("memory", "out_of_memory", "likely_memory")


def judge(
    exit_code: int, *, cancelled: bool, error: dict[str, Any] | None, last_lines: list[str], stage: str = ""
) -> JobOutcome:
    """Return the outcome that an exit status, an error event and the last log lines tell.

    Parameters
    ----------
    exit_code : of the process; negative is the number of the signal that ended it.
    cancelled : the person cancelled.
    error : the core's error event, if there was one.
    last_lines : the end of the log.
    stage : the last stage that was announced.

    """
    if cancelled:
        return JobOutcome(CANCELLED, _("Cancelled. Nothing was changed in the scene."), exit_code=exit_code)
    if exit_code == 0:
        return JobOutcome(DONE, _("Done."), exit_code=0)
    if error is not None:
        return _told(exit_code, error)
    number = _signal_number(exit_code)
    if number is not None or exit_code in _WINDOWS_CRASHES:
        return _crash(exit_code, number, last_lines, stage)
    return _unexplained(exit_code, last_lines)


def _told(exit_code: int, error: dict[str, Any]) -> JobOutcome:
    """Return the outcome that the core itself explained."""
    code, message, hint = (str(error.get(key) or "") for key in ("code", "message", "hint"))
    if code == "cancelled":
        return JobOutcome(CANCELLED, _sentence(message, hint), [], [], {}, code, message, hint, exit_code)
    return JobOutcome(FAILED, _sentence(message, hint), [], [], {}, code, message, hint, exit_code)


def _crash(exit_code: int, number: int | None, last_lines: list[str], stage: str) -> JobOutcome:
    """Return the outcome of a program that was killed or crashed, with the likely cause."""
    name = _signal_name(number) if number is not None else f"0x{exit_code:08X}"
    where = _(" during the step '{stage}'").format(stage=stage) if stage else ""
    memory = any(_MEMORY_WORDS.search(line) for line in last_lines)
    if number == getattr(signal, "SIGKILL", 9) or exit_code in _WINDOWS_NO_MEMORY or memory:
        text = _("The program was ended by the system{where} ({name}), most likely because the memory ran out.")
        hint = _("Close other programs, choose the fast mode, or run on a computer with more memory.")
        code = "likely_memory"
    elif number in (getattr(signal, "SIGTERM", 15), getattr(signal, "SIGINT", 2), getattr(signal, "SIGHUP", 1)):
        text = _("The program was ended from outside{where} ({name}).")
        hint = _("Start it again. If nobody ended it, ask the administrator of this computer about limits.")
        code = "ended"
    else:
        text = _("The program crashed{where} ({name}), most likely inside a library or a driver.")
        hint = _("Try again with the device set to CPU; if it happens again, repair the set-up in the home module.")
        code = "crash"
    message = text.format(where=where, name=name)
    return JobOutcome(CRASHED, f"{message} {hint}", [], [], {}, code, message, hint, exit_code)


def _unexplained(exit_code: int, last_lines: list[str]) -> JobOutcome:
    """Return the outcome of a program that ended with an error status and no error event."""
    text = "\n".join(last_lines)
    hint = ""
    if _NO_CORE_WORDS.search(text):
        code, message = "not_installed", _("The program is not installed completely.")
        hint = _("Open the module MRI Deep Tools and press Set up.")
    elif _LIBRARY_WORDS.search(text):
        code, message = "library", _("A library of the program cannot be loaded here.")
        hint = _("Open the module MRI Deep Tools and press Set up to repair it; the log tells which library.")
    elif _MEMORY_WORDS.search(text):
        code, message = "memory", _("The memory ran out.")
        hint = _("Close other programs, choose the fast mode, or run on a computer with more memory.")
    else:
        code = "request" if exit_code == 2 else "unexplained"
        message = _OWN_ERROR.sub("", last_lines[-1])[:400] if last_lines else ""
        if not message:
            message = _("The program ended with status {code} and gave no reason.").format(code=exit_code)
            hint = _("Copy the log and report it.")
    return JobOutcome(FAILED, _sentence(message, hint), [], [], {}, code, message, hint, exit_code)


def _sentence(message: str, hint: str) -> str:
    """Join a message and a hint into sentences."""
    parts = [part.strip() for part in (message, hint) if part and part.strip()]
    return " ".join(_begin_large(part) + ("" if part[-1] in ".!?" else ".") for part in parts)


def _begin_large(text: str) -> str:
    """Begin with a capital letter, unless the first word is a name of a file or the like."""
    return text[0].upper() + text[1:] if re.match(r"[a-z]+(\s|,|$)", text) else text


def _signal_number(exit_code: int) -> int | None:
    """Return the number of the signal that ended the process; a launcher reports it as 128 + number."""
    if exit_code < 0:
        return -exit_code
    return exit_code - 128 if 128 < exit_code < 128 + 32 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
