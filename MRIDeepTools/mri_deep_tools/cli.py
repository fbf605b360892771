"""The command line ``mri-deep-tools``: it picks the command, and turns whatever happens into one sentence and a status.

Exit status: 0 done, 1 the work failed, 2 the request was wrong. When it is not 0, the last line on standard error says
in one sentence what is wrong and what to do. Each command is a module of :mod:`mri_deep_tools.commands` with two
functions, ``add_arguments(parser)`` and ``run(args, progress)``; only the module of the chosen command is imported.
A module may have ``prepare(words)`` as well, which rewrites the words of the command line before they are parsed.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Protocol, cast

from ._cancel import watch_for_cancel
from .commands.failures import as_told
from .commands.options import version_text
from .errors import RequestError
from .inference import keep_freed_memory
from .progress import Event, Progress, ProgressCallback, bar_callback, json_callback, null_callback
from .provenance import DISCLAIMER

__all__ = ["COMMANDS", "PROGRAM", "main"]

PROGRAM = "mri-deep-tools"
# Name and one line of help; the module of the same name in `commands` does the work. Only what exists is listed.
COMMANDS = {
    "segment": "label the structures of the brain in scans of any contrast and resolution",
    "segment-nnunet": "segment pictures (PNG, TIFF, BMP) with a model that nnU-Net trained",
    "harmonize": "give T1w scans of any site the intensities of one reference scanner",
    "predict": "predict age or diagnosis from T1w scans with a model of your own, as a table",
    "superresolve": "turn a thick-slice T2w scan into a 1 mm isotropic one with the help of a T1w scan",
    "upsample-dmri": "predict further diffusion directions of a scan from few measured ones",
    "translate": "make another contrast from scans, pictures or whole data sets with a diffusion network",
    "translate-dataset": "make sets to train a translation with, from pictures, scans or .mat files",
    "simulate": "make synthetic data with known truth: scans from label maps, thick slices from isotropic scans",
    "train": "train networks from a configuration file, without a screen",
    "evaluate": "compare segmentations or scans with the truth, choose a checkpoint, estimate intensity priors",
    "batch": "do one task for many subjects, from a table or a BIDS data set, and go on after a kill",
    "report": "write the pages of outputs anew from their sidecars, or compare the outputs of two versions",
    "demo": "segment sample scans with the bundled model and write a report",
    "models": "list, download, verify, import and remove the networks' weights",
    "descriptor": "write the Boutiques descriptor of a command, for workflow engines",
    "info": "tell versions, devices, memory and models, for a report of a problem",
}


class _Command(Protocol):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, progress: Progress) -> None: ...


class _Relay:
    """A progress callback whose target can be chosen after the options are known."""

    def __init__(self, target: ProgressCallback) -> None:
        self.target = target

    def __call__(self, event: Event) -> None:
        self.target(event)


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are RequestErrors, so that they end like every other wrong request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "epilog": DISCLAIMER, **options})

    def error(self, message: str) -> NoReturn:
        raise RequestError(message, f"see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; ``argv`` are the words after the program's name (default: those of this process).

    Returns the exit status: 0 done, 1 the work failed, 2 the request was wrong.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    relay = _Relay(_early_callback(arguments))
    progress = Progress(relay)
    try:
        with _termination_as_interrupt(), watch_for_cancel():
            _dispatch(arguments, progress, relay)
            sys.stdout.flush()
    except SystemExit as exit_request:  # argparse, after it printed the help
        return int(exit_request.code or 0)
    except BrokenPipeError:
        return _reader_left()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 the last line of defence: a sentence, not a trace
        return _fail(error, progress)
    return 0


def _dispatch(arguments: list[str], progress: Progress, relay: _Relay) -> None:
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help", "help"):
        sys.stdout.write(_overview())
    elif name == "--version":
        sys.stdout.write(version_text(PROGRAM))
    elif name not in COMMANDS:
        what = f"there is no command '{name}'" if name else "no command was given"
        if name.startswith("-"):
            what = f"the option '{name}' stands before the command"
        raise RequestError(what, f"begin with one of {', '.join(COMMANDS)}, or see `{PROGRAM} --help`")
    else:
        command = cast(_Command, importlib.import_module(f".commands.{name.replace('-', '_')}", __package__))
        parser = _Parser(prog=f"{PROGRAM} {name}", description=_sentence(COMMANDS[name]))
        command.add_arguments(parser)
        args = parser.parse_args(getattr(command, "prepare", list)(arguments[1:]))
        if args.progress == "bar":
            relay.target = bar_callback(quiet=args.quiet)
        keep_freed_memory()
        command.run(args, progress)


def _early_callback(arguments: Sequence[str]) -> ProgressCallback:
    """Return the JSON callback when it was asked for, so that a wrong request is told as an event too."""
    asked = "--progress=json" in arguments or ("--progress", "json") in itertools.pairwise(arguments)
    return json_callback() if asked else null_callback


def _fail(error: BaseException, progress: Progress) -> int:
    """Say in one sentence why the work ended, and return the exit status."""
    if os.environ.get("MRI_DEEP_TOOLS_DEBUG") == "1":
        traceback.print_exception(error)
    told = as_told(error)
    try:
        progress.error(told)
        sys.stdout.flush()
    except BrokenPipeError:
        _reader_left()
    sentence = str(told)
    sys.stderr.write(f"{PROGRAM}: error: {sentence[:-1] if sentence.endswith('?.') else sentence}\n")
    return told.exit_status


def _reader_left() -> int:
    """End quietly when whoever read our output has gone (``| head``)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, and SIGHUP unless it is ignored (nohup), like Ctrl-C: tidy up, say so, end with status 1."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _overview() -> str:
    width = max(len(name) for name in COMMANDS) + 2
    lines = [f"  {name:<{width}}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND ...",
            "",
            "Deep learning for brain MRI on files.",
            "",
            "commands:",
            *lines,
            "",
            f"`{PROGRAM} COMMAND --help` explains a command; `{PROGRAM} --version` names the version.",
            DISCLAIMER,
            "",
        ]
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
