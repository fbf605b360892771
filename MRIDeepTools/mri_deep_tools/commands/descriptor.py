"""``mri-deep-tools descriptor``: the Boutiques descriptor of a command, for workflow engines."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..progress import Progress
from .options import add_common_options

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    from ..interfaces.declarations import TASKS

    parser.add_argument("task", choices=TASKS, metavar="COMMAND", help=", ".join(TASKS))
    parser.add_argument("output", nargs="?", type=Path, metavar="JSON", help="a file (default: standard output)")
    parser.add_argument("--image", default="", metavar="NAME", help="container image that has the program")
    add_common_options(parser)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Write or print the descriptor."""
    from ..interfaces.boutiques import descriptor
    from .outputs import OutputSet, check_outputs

    text = json.dumps(descriptor(args.task, args.image), indent=2, ensure_ascii=False) + "\n"
    if args.output is None:
        sys.stdout.write(text)
        return
    check_outputs([args.output], [], overwrite=args.overwrite)
    with OutputSet() as files:
        files.path(args.output).write_text(text, encoding="utf-8")
    progress.result(outputs=[str(args.output)])
