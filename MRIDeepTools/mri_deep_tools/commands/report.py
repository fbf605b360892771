"""``mri-deep-tools report``: pages made again from sidecars and images, and pages that compare two results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, MRIDeepToolsError, RequestError
from ..progress import Progress
from .options import add_common_options
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..reports.files import Result

__all__ = ["add_arguments", "prepare", "run"]

_PAGES = (".html", ".htm")
_VALUED = ("--output", "--inputs", "--device", "--threads", "--precision", "--progress")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="outputs with their sidecars, or folders of them; a last word that ends in .html is the page to write "
        "(default: NAME_report.html beside each output)",
    )
    parser.add_argument("--compare", action="store_true", help="compare two outputs, or two folders matched by name")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for one page per output")
    parser.add_argument(
        "--inputs", type=Path, metavar="DIR", action="append", default=[], help="where the scans lie; may be repeated"
    )
    parser.add_argument("--show-names", action="store_true", help="show the names of files on the pages")
    add_common_options(parser)


def prepare(words: Sequence[str]) -> list[str]:
    """Put names of files before options, so that the page may be named last: ``x.nii --inputs scans page.html``."""
    names, options, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            names.append(word)
            continue
        options.append(word)
        if word in _VALUED and rest:
            options.append(rest.pop(0))
    return [*names, *options]


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Write the pages.

    Raises
    ------
    RequestError : words that do not go together. InputError : no sidecar, or results that cannot be compared.

    """
    paths: list[Path] = list(args.paths)
    page = paths.pop() if paths[-1].suffix.lower() in _PAGES else None
    if not paths:
        raise RequestError("no output is given", "name an output of this program before the page")
    if page is not None and args.output is not None:
        raise RequestError(f"both {page.name} and --output say where to write", "leave one of the two out")
    for folder in args.inputs:
        if not folder.is_dir():
            raise InputError(f"{folder.name} is not a folder", "give --inputs a folder with scans")
    if args.compare:
        from .report_compare import run_compare

        run_compare(args, paths, page, progress)
        return
    _rebuild(args, paths, page, progress)


def _rebuild(args: argparse.Namespace, paths: list[Path], page: Path | None, progress: Progress) -> None:
    from ..reports.files import find_sidecars, open_result

    sidecars = list(dict.fromkeys(sidecar for path in paths for sidecar in find_sidecars(path)))
    pages = {sidecar: page or _page_of(sidecar, args.output) for sidecar in sidecars}
    if page is None and len(set(pages.values())) < len(pages):
        raise RequestError("two outputs would have the same page", "give an .html file to put all on one page")
    check_outputs(list(dict.fromkeys(pages.values())), sidecars, overwrite=args.overwrite)
    results: list[Result] = []
    failed: list[str] = []
    for index, sidecar in enumerate(sidecars):
        progress.item(index, len(sidecars))
        try:
            with progress.stage("report"):
                result = open_result(sidecar, args.inputs)
                if page is None:
                    _write([result], pages[sidecar], args, progress)
            results.append(result)
        except InputError as error:
            if len(sidecars) == 1:
                raise
            failed.append(sidecar.name)
            progress.warn(f"{sidecar.name}: {error}")
    if page is not None and results:
        with progress.stage("report"):
            _write(results, page, args, progress)
    made = [page] if page is not None and results else [pages[result.sidecar] for result in results]
    progress.result(outputs=[str(path) for path in made])
    if failed:
        names = ", ".join(failed[:5]) + (" and more" if len(failed) > 5 else "")
        raise MRIDeepToolsError(f"{len(failed)} of {len(sidecars)} sidecars failed ({names})", "see the warnings above")


def _page_of(sidecar: Path, folder: Path | None) -> Path:
    return (folder or sidecar.parent) / f"{sidecar.stem}_report.html"


def _write(results: list[Result], page: Path, args: argparse.Namespace, progress: Progress) -> None:
    from ..reports.rebuild import write_page, write_pages

    with OutputSet() as files:
        if len(results) == 1:
            notes = write_page(results[0], files.path(page), show_names=args.show_names)
        else:
            notes = write_pages(results, files.path(page), show_names=args.show_names)
    for note in notes:
        progress.warn(note.rstrip("."))
    if not args.quiet and args.progress != "json":
        sys.stdout.write(f"{', '.join(result.sidecar.stem for result in results)} -> {page.name}\n")
