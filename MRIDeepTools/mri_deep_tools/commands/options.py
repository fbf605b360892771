"""The options that every command has, and the types of option values."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from .. import __version__
from ..provenance import DISCLAIMER

__all__ = ["add_common_options", "positive", "version_text"]


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command to the parser of a command, or of an action of a command."""
    group = parser.add_argument_group("options of every command")
    group.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    group.add_argument("--cpu", dest="device", action="store_const", const="cpu", help="the same as --device cpu")
    group.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all this process may use)")
    group.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="(default: auto)")
    group.add_argument(
        "--progress",
        choices=("bar", "json", "none"),
        default="bar",
        help="a bar in the terminal, one JSON event per line on standard output, or nothing (default: bar)",
    )
    group.add_argument(
        "--overwrite", action="store_true", help="delete outputs that exist before the work starts (default: refuse)"
    )
    group.add_argument("--quiet", action="store_true", help="show errors and warnings only")
    group.add_argument(
        "--compatible", action="store_true", help="reproduce the original program to the last rule, faults included"
    )
    group.add_argument("--version", action=_VersionAction, nargs=0, help="name the version and end")


def version_text(program: str = "mri-deep-tools") -> str:
    """Return what ``--version`` prints."""
    return f"{program} {__version__}\n{DISCLAIMER}\n"


def positive(text: str) -> int:
    """Return a whole number from 1 (the type of options that count something)."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not auto, cpu, cuda, cuda:N or mps")
    return text


class _VersionAction(argparse.Action):
    """Prints the version as it is; argparse's own action would fill the lines anew."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        sys.stdout.write(version_text())
        parser.exit()
