"""What a command declares of itself: its arguments with their kinds, read off the parser of the command line.

Only one thing is not in a parser: whether a path is read or written. It is said here, for every path once.
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from typing import Any, Literal

from ..cli import PROGRAM
from ..errors import RequestError

__all__ = ["TASKS", "Argument", "Declaration", "declare"]

TASKS = ("segment", "harmonize", "predict", "superresolve", "upsample-dmri", "translate")
"""The commands that engines run: one process, files in, files out."""

Kind = Literal["read", "write", "flag", "integer", "number", "text"]

_READ = {"input", "inputs", "dwi", "t1", "t2", "mask", "transform", "bvecs", "bvals", "grad", "target_bvecs"}
_READ |= {"target_grad", "labels", "channel", "truth", "weights", "table", "template"}
_WRITE = {"output", "volumes", "qc", "posteriors", "resampled", "report", "change", "figures", "csv", "interpolated"}
_WRITE |= {
    "honesty",
    "fa",
    "md",
    "residuals",
    "save_preprocessed",
    "save_mask",
    "save_transform",
    "save_grad",
    "save_std",
}
_FOLDERS = {"input", "inputs", "dwi", "t1", "t2", "weights", "truth"}  # a folder may stand in place of the file
_PATHS = {"FILE", "PATH", "DIR", "CSV", "HTML", "TFM", "TABLE", "INPUT", "OUTPUT", "DWI"}
_LEFT_OUT = {"help", "version", "input_flag", "output_flag", "describe", "dry_run"}
_REQUIRED = {"segment": ("input", "output"), "superresolve": ("t2", "output")}
_NAMES_OR_FILES = {("superresolve", "template"), ("harmonize", "template"), ("predict", "template")}


@dataclass(frozen=True)
class Argument:
    """One argument of a command.

    ``flag`` is empty for positional ones. ``count`` is how many values follow (None: one or more), ``repeated`` that
    the flag is written before each value. ``folder``: a folder may be given.
    """

    name: str
    flag: str
    kind: Kind
    help: str
    required: bool = False
    choices: tuple[Any, ...] = ()
    count: int | None = 1
    repeated: bool = False
    folder: bool = False
    least: int | None = None


@dataclass(frozen=True)
class Declaration:
    """A command: its name, its line of help, its arguments, and which of them exclude each other."""

    command: str
    help: str
    arguments: tuple[Argument, ...]
    exclusive: tuple[tuple[str, ...], ...]


def declare(command: str) -> Declaration:
    """Return what a command of ``TASKS`` declares; RequestError for another one."""
    from ..cli import COMMANDS

    if command not in TASKS:
        raise RequestError(f"there is no interface for '{command}'", f"choose one of {', '.join(TASKS)}")
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} {command}", add_help=False)
    importlib.import_module(f"..commands.{command.replace('-', '_')}", __package__).add_arguments(parser)
    made: dict[str, Argument] = {}
    for action in parser._actions:
        if action.dest in _LEFT_OUT or (isinstance(action, argparse._StoreConstAction) and action.dest in made):
            continue  # a second way to say the same
        made[action.dest] = _argument(command, action)
    groups = [[action.dest for action in group._group_actions] for group in parser._mutually_exclusive_groups]
    kept = [tuple(dict.fromkeys(name for name in group if name in made)) for group in groups]
    return Declaration(
        command, COMMANDS[command], tuple(made.values()), tuple(group for group in kept if len(group) > 1)
    )


def _argument(command: str, action: argparse.Action) -> Argument:
    flag = action.option_strings[0] if action.option_strings else ""
    required = action.dest in _REQUIRED.get(command, ()) or bool(action.required)
    return Argument(
        name=action.dest,
        flag=flag,
        kind=_kind(command, action),
        help=(action.help or "").replace("%%", "%"),
        required=required,
        choices=tuple(action.choices or ()),
        count=None if action.nargs == "+" else action.nargs if isinstance(action.nargs, int) and action.nargs else 1,
        repeated=isinstance(action, argparse._AppendAction),
        folder=action.dest in _FOLDERS,
        least=1 if getattr(action.type, "__name__", "") == "positive" else None,
    )


def _kind(command: str, action: argparse.Action) -> Kind:
    if action.nargs == 0:
        return "flag"
    if (command, action.dest) in _NAMES_OR_FILES:
        return "text"
    is_path = not action.choices and str(action.metavar) in _PATHS
    if is_path:
        if action.dest in _WRITE:
            return "write"
        if action.dest in _READ:
            return "read"
        raise RuntimeError(f"{command}: is {action.dest} read or written? say so in {__name__}")
    name = getattr(action.type, "__name__", "")
    return "integer" if name in ("int", "positive") else "number" if name == "float" else "text"
