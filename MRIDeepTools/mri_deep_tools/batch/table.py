"""Subjects from a table: one row each, with columns for the scan, its result, and any long option of the command.

``.csv`` is split at commas (or semicolons, as Excel writes it in half of Europe), ``.tsv`` at tabs. Inputs are relative
to the table's folder, outputs to the batch's. Names of columns are those of the options, with or without dashes;
``input`` and ``output`` always mean the scan and its result; a column whose name begins with ``#`` is left alone, and
``id`` names the subject. Empty cells stand for what the command does of itself.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import InputError, RequestError
from .jobs import Job
from .plan import Request, Subject, absolute_words, check_jobs, default_output, make_job, option_of, table_of_options

__all__ = ["jobs_of_table"]

_FAULTS_TOLD = 5


def jobs_of_table(path: Path, request: Request) -> list[Job]:
    """Return one job per row.

    Raises
    ------
    InputError : the table cannot be read, has no rows, or names files that do not exist.
    RequestError : a column or a value that the command does not know. Errors name the row, counted as a spreadsheet
        counts it; of several faulty rows the first five are told at once.

    """
    header, rows = _read(path)
    columns = _columns(header, request, path)
    jobs: list[Job] = []
    wheres: list[str] = []
    faults: list[RequestError | InputError] = []
    for number, cells in rows:
        where = f"row {number} of {path.name}"
        try:
            jobs.append(make_job(request, _subject(dict(zip(columns, cells, strict=False)), request, path, where)))
            wheres.append(where)
        except (RequestError, InputError) as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        told = "; ".join(fault.message for fault in faults[:_FAULTS_TOLD])
        more = f"; and {len(faults) - _FAULTS_TOLD} more" if len(faults) > _FAULTS_TOLD else ""
        raise type(faults[0])(f"{len(faults)} rows cannot be worked on: {told}{more}", "correct the table")
    return check_jobs(jobs, wheres)


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, and the rows with their numbers."""
    if not path.is_file():
        raise InputError(f"{path.name} does not exist", "check the path of the table")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path.name} cannot be read as a table", "write CSV or TSV in UTF-8") from None
    first = text.split("\n", 1)[0]
    mark = "\t" if path.suffix.lower() == ".tsv" else ";" if first.count(";") > first.count(",") else ","
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        rows = []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) > len(header):
                    extra = f"{len(cells)} cells under {len(header)} columns"
                    raise InputError(f"row {reader.line_num} of {path.name} has {extra}", "put quotes around commas")
                rows.append((reader.line_num, [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))))
    except csv.Error as error:
        raise InputError(f"{path.name} cannot be read as a table ({error})", "write CSV or TSV") from None
    if not rows:
        raise InputError(f"{path.name} holds no rows", "write a line of names, and one line per subject")
    return header, rows


def _columns(header: list[str], request: Request, path: Path) -> list[str]:
    """Return the plain names of the columns (empty: left alone), all known."""
    known = table_of_options(request.task)
    plain = []
    for text in header:
        name = re.sub(r"[-\s]+", "_", text.strip().lstrip("-")).lower()
        if not name or text.startswith("#"):
            plain.append("")
            continue
        if name not in known and name != "id":
            near = difflib.get_close_matches(name, [*known, "id"], 1)
            hint = f"did you mean {near[0]}?" if near else f"columns are {', '.join(sorted(known))}"
            raise RequestError(
                f"{path.name} has a column '{text}', which is no option of {request.task.name}",
                f"{hint} A name that begins with # is left alone",
            )
        plain.append(name if name == "id" else _key(known[name]))
    twice = {name for name in plain if name and plain.count(name) > 1}
    if twice:
        raise RequestError(f"{path.name} has two columns for {min(twice)}", "keep one of them")
    if request.task.scan not in plain:
        raise InputError(f"{path.name} has no column input", "name it in the first line")
    return plain


def _key(action: argparse.Action) -> str:
    """Return the one name of an option; --no-x and --x may share a destination and are two columns."""
    flags = [word for word in action.option_strings if word.startswith("--")]
    return action.dest if not flags else flags[0].lstrip("-").replace("-", "_")


def _subject(cells: Mapping[str, str], request: Request, path: Path, where: str) -> Subject:
    """Return what a row says."""
    task = request.task
    filled = {name: text for name, text in cells.items() if name and text and text.lower() != "n/a"}
    if task.scan not in filled:
        raise InputError(f"{where} names no input", "fill the column input")
    inputs = {name: str(path.parent / filled[name]) for name in (task.scan, *task.inputs) if name in filled}
    outputs = {name: filled[name] for name in (task.result, *task.outputs) if name in filled}
    rest = {name: text for name, text in filled.items() if name not in {*inputs, *outputs, task.result, "id"}}
    own = tuple(_options(rest, request, path, where))
    words = (*request.options, *own)
    outputs.setdefault(task.result, default_output(task, task.result, Path(inputs[task.scan]), options=words))
    name = filled.get("id", "")
    if (name and not re.fullmatch(r"[A-Za-z0-9_.-]{1,120}", name)) or "--" in name or name.startswith("."):
        raise InputError(f"{where}: the id {name!r} cannot name a file", "use letters, digits, _ and -")
    return Subject(inputs, outputs, own, where, name=name)


def _options(cells: Mapping[str, str], request: Request, path: Path, where: str) -> Iterator[str]:
    known = {_key(action): action for action in table_of_options(request.task).values()}
    for name, text in cells.items():
        yield from absolute_words(request.task, option_of(known[name], text, where), path.parent)
