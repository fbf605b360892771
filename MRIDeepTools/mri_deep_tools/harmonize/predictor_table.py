"""Tables of scans: a path per row, and columns that identify it, for training, prediction and their evaluation."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

__all__ = ["PATH_COLUMNS", "TABLE_SUFFIXES", "ScanRow", "Table", "number_of", "read_scans", "read_table"]

PATH_COLUMNS = ("path", "in_paths", "image", "scan", "file")
TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class Table:
    """Columns in their order, and rows as column -> text."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def require(self, column: str) -> str:
        """Return the column's name; InputError, naming those there are, when the table lacks it."""
        if column not in self.columns:
            raise InputError(
                f"{self.name} has no column {column!r}", f"it has {', '.join(map(repr, self.columns)) or 'none'}"
            )
        return column


@dataclass(frozen=True)
class ScanRow:
    """A scan, and what its table says of it, the path left out."""

    path: Path
    ids: dict[str, str]


def read_table(path: str | Path) -> Table:
    """Read a ``.csv`` or ``.tsv`` file with a header.

    Raises
    ------
    InputError : it cannot be read, has no rows, a column twice, or a row with more or fewer cells than the header.

    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            lines = [line for line in reader if any(cell.strip() for cell in line)]
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})", "check the path of the table") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path.name} cannot be read as a table", "write CSV in UTF-8 with a header") from None
    if len(lines) < 2:
        raise InputError(f"{path.name} has no rows", "write a header and one row per scan")
    columns = tuple(cell.strip() for cell in lines[0])
    twice = {name for name in columns if columns.count(name) > 1}
    if twice:
        raise InputError(f"{path.name} has the column {min(twice)!r} twice", "give each column its own name")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise InputError(
                f"line {number} of {path.name} has {len(line)} cells, the header {len(columns)}", "correct the table"
            )
    rows = tuple({name: cell.strip() for name, cell in zip(columns, line, strict=True)} for line in lines[1:])
    return Table(path.name, columns, rows)


def read_scans(path: str | Path, *, must_exist: bool = False) -> tuple[Table, list[ScanRow]]:
    """Read a table of scans; paths are relative to it.

    Parameters
    ----------
    path : table whose scans stand in a column ``path`` (or another of :data:`PATH_COLUMNS`).
    must_exist : refuse the table when one of its files is missing.

    Raises
    ------
    InputError : as :func:`read_table`; no column of paths; an empty path; a missing file.

    """
    path = Path(path)
    table = read_table(path)
    column = next((name for name in PATH_COLUMNS if name in table.columns), None)
    if column is None:
        raise InputError(f"{path.name} does not say where the scans are", "name the column of their paths 'path'")
    rows = []
    for number, row in enumerate(table.rows, 1):
        if not row[column]:
            raise InputError(f"row {number} of {path.name} has no path", "correct the table")
        scan = path.parent / row[column]
        if must_exist and not scan.exists():
            raise InputError(f"{scan.name}, named in {path.name}, does not exist", "correct the table")
        rows.append(ScanRow(scan, {name: cell for name, cell in row.items() if name != column}))
    return table, rows


def number_of(text: str, what: str) -> float:
    """Return a finite number; InputError, saying ``what`` it should be, for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{what} is {text!r}, not a number", "correct the table, or leave the row out")
    return value


def numbers_of(table: Table, column: str) -> list[float]:
    """Return a column as finite numbers; InputError names the first that is none."""
    table.require(column)
    return [number_of(row[column], f"{column} in row {n} of {table.name}") for n, row in enumerate(table.rows, 1)]


def distinct(values: Sequence[str]) -> list[str]:
    """Return what occurs, in order of first occurrence."""
    return list(dict.fromkeys(values))
