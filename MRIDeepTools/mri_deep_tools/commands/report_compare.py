"""``mri-deep-tools report --compare``: two outputs, or two folders matched by name, on one page."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, RequestError
from ..progress import Progress
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..report import Section
    from ..reports.compare import Comparison
    from ..reports.files import Result

__all__ = ["run_compare"]


def run_compare(args: argparse.Namespace, paths: list[Path], page: Path | None, progress: Progress) -> None:
    """Write the page that compares two results, or two folders of them.

    Raises
    ------
    RequestError : not two. InputError : they cannot be compared; of folders, at the end, which could not.

    """
    if len(paths) != 2:
        raise RequestError(f"--compare takes two outputs or two folders, not {len(paths)}", "name A, B, and the page")
    if args.output is not None:
        raise RequestError("--compare writes one page", "name an .html file in place of --output")
    pairs, alone = _pairs(*paths)
    target = page or Path(f"{pairs[0][0].stem if len(pairs) == 1 else paths[0].resolve().name}_compared.html")
    check_outputs([target], [path for pair in pairs for path in pair], overwrite=args.overwrite)
    done: list[tuple[str, Result, Comparison]] = []
    refused: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, pair in enumerate(pairs):
            progress.item(index, len(pairs))
            name = pair[0].stem
            try:
                with progress.stage("compare"):
                    done.append((name, *_compare(pair, args, Path(folder, str(index)))))
            except InputError as error:
                if len(pairs) == 1:
                    raise
                refused.append(f"{name}: {error}")
                progress.warn(refused[-1])
        if done:
            with progress.stage("write"), OutputSet() as files:
                _write(files.path(target), done, [*alone, *refused], args)
    _tell(args, done, target, progress)
    if refused or alone:
        names = ", ".join(text.partition(":")[0] for text in (refused or alone)[:5])
        raise InputError(
            f"{len(done)} of {len(done) + len(refused) + len(alone)} outputs could be compared ({names} could not)",
            "see the warnings above",
        )


def _pairs(first: Path, second: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Return sidecars that belong together, and sentences about those that stand alone."""
    from ..reports.files import find_sidecars

    if first.is_dir() != second.is_dir():
        raise RequestError("one of A and B is a folder and the other is not", "give two outputs, or two folders")
    found = [find_sidecars(path) for path in (first, second)]
    if not first.is_dir():
        return [(found[0][0], found[1][0])], []
    named = [
        {path.relative_to(root): path for path in paths} for root, paths in zip((first, second), found, strict=True)
    ]
    both = [name for name in named[0] if name in named[1]]
    alone = [f"{name.stem}: only A has this output" for name in named[0] if name not in named[1]]
    alone += [f"{name.stem}: only B has this output" for name in named[1] if name not in named[0]]
    if not both:
        raise InputError("the two folders have no output of one name", "results are matched by the name of their file")
    return [(named[0][name], named[1][name]) for name in both], alone


def _compare(pair: tuple[Path, Path], args: argparse.Namespace, folder: Path) -> tuple[Result, Comparison]:
    from ..reports.compare import compare_results
    from ..reports.files import open_result

    folder.mkdir()
    first, second = (open_result(path, args.inputs) for path in pair)
    return first, compare_results(first, second, folder)


def _write(path: Path, done: list[tuple[str, Result, Comparison]], told: list[str], args: argparse.Namespace) -> None:
    from ..citations import bibtex
    from ..report import Code, Part, Text, write_report

    sections: list[Section] = []
    notes = (
        list(told) if args.show_names else [f"Result {i}: {text.partition(': ')[2]}" for i, text in enumerate(told, 1)]
    )
    for index, (name, _, found) in enumerate(done, start=1):
        if len(done) > 1:
            sections.append(Part(f"{index} of {len(done)}{f': {name}' if args.show_names else ''}"))
            sections += [Text("Warnings", found.notes, "doubtful")] if found.notes else []
        else:
            notes += found.notes
        sections += found.sections
    cited = list(dict.fromkeys(item for _, _, found in done for item in found.references))
    sections += [
        Text("Please cite", [item.text for item in cited]),
        Code("References as BibTeX", bibtex(cited), folded=True),
    ]
    command = done[0][1].command
    record: dict[str, Any] = {"Synthetic": any(bool(result.record.get("Synthetic")) for _, result, _ in done)}
    title = "Comparison of two results" if len(done) == 1 else f"Comparison of {len(done)} pairs of results"
    write_report(path, title=title, subtitle=f"mri-deep-tools {command}", sections=sections, record=record, notes=notes)


def _tell(
    args: argparse.Namespace, done: list[tuple[str, Result, Comparison]], target: Path, progress: Progress
) -> None:
    if not args.quiet and args.progress != "json":
        for name, _, found in done:
            figures = found.figures
            told = "compared"
            if figures:
                told = (
                    "identical"
                    if figures["Identical"]
                    else f"{figures['VoxelsChanged']} voxels ({figures['PercentChanged']:.3g} %) differ"
                )
            sys.stdout.write(f"{name}: {told}\n")
        if done:
            sys.stdout.write(f"-> {target.name}\n")
    if done:
        progress.result(outputs=[str(target)], compared=[{"name": name, **found.figures} for name, _, found in done])
