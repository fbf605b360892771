"""Tables of the core (CSV) as table nodes, with units: volumes of one scan, quality scores, and plain tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import vtk

from .errors import ResultError
from .i18n import _
from .labels import display_name
from .volumes import new_node

__all__ = [
    "ACCEPT_SCORE",
    "GOOD_SCORE",
    "asymmetry_percent",
    "import_scores_table",
    "import_table",
    "import_volumes_table",
    "score_level",
    "score_words",
]

ACCEPT_SCORE, GOOD_SCORE = 0.65, 0.75
"""Predicted Dice below which a structure should be rejected (Billot et al., PNAS 120, 2023); from which it is good."""

_UNIT = re.compile(r"^(?P<name>.*?)\s*\((?P<unit>[^()]+)\)$")


@dataclass(frozen=True)
class _Column:
    """One column of a table node: numbers (float) or text, with the unit and an explanation."""

    name: str
    values: Sequence[Any]
    unit: str = ""
    description: str = ""


def import_table(path: str | Path, name: str, node: Any = None, units: Mapping[str, str] | None = None) -> Any:
    """Read a CSV file as a table node; columns of numbers become numbers.

    Parameters
    ----------
    path : the file, UTF-8, with a header; a unit in brackets at the end of a title becomes the unit of the column.
    name : of a new node; made unique.
    node : a table node to fill instead of a new one; on an error it is left alone.
    units : column name -> unit, for titles without one.

    Raises
    ------
    ResultError : the file is missing or has no header.

    """
    header, rows = _read_csv(path)
    columns = []
    for number, title in enumerate(header):
        match = _UNIT.match(title)
        plain, unit = (match["name"], match["unit"]) if match else (title, "")
        cells = [row[number] if number < len(row) else "" for row in rows]
        columns.append(_Column(plain, _numbers(cells) or cells, (units or {}).get(plain, unit)))
    return _fill(name, node, columns)


def import_volumes_table(path: str | Path, name: str, node: Any = None, *, row: int = 0) -> Any:
    """Read the volumes of one scan from the core's CSV as a tall table: structure, volume (mm^3), asymmetry (%).

    The asymmetry stands beside both sides of a structure and is positive when the left is larger; structures without a
    counterpart have none.

    Parameters
    ----------
    path, name, node : as for :func:`import_table`.
    row : number of the scan in the file, from 0.

    Raises
    ------
    ResultError : the file is missing or not of the known form.

    """
    volumes = _row_of_numbers(path, row)
    asymmetries = [asymmetry_percent(structure, volumes) for structure in volumes]
    return _fill(
        name,
        node,
        [
            _Column(_("Structure"), [display_name(structure) for structure in volumes]),
            _Column(_("Volume"), list(volumes.values()), "mm^3", _("Volume from the soft segmentation")),
            _Column(
                _("Asymmetry"),
                ["" if value is None else f"{value:+.1f}" for value in asymmetries],
                "%",
                _("Difference of left and right over their mean; positive when the left is larger"),
            ),
        ],
    )


def import_scores_table(path: str | Path, name: str, node: Any = None, *, row: int = 0) -> Any:
    """Read the quality scores (0 to 1) of one scan from the core's CSV: structure group, score, in words.

    Raises
    ------
    ResultError : the file is missing or not of the known form.

    """
    scores = _row_of_numbers(path, row)
    description = _("Dice overlap with a careful manual segmentation that the quality network expects")
    return _fill(
        name,
        node,
        [
            _Column(_("Structures"), [display_name(group) for group in scores]),
            _Column(_("Score"), list(scores.values()), "", description),
            _Column(_("Meaning"), [score_words(value) for value in scores.values()]),
        ],
    )


def score_level(score: float) -> str:
    """Return ``good``, ``look`` or ``poor`` for a quality score."""
    if score >= GOOD_SCORE:
        return "good"
    return "look" if score >= ACCEPT_SCORE else "poor"


def score_words(score: float) -> str:
    """Return what a quality score means, in plain words."""
    words = {
        "good": _("Good"),
        "look": _("Look at the result before use"),
        "poor": _("Poor: do not use without correction"),
    }
    return words[score_level(score)]


def asymmetry_percent(structure: str, volumes: Mapping[str, float]) -> float | None:
    """Return the asymmetry of a structure in percent: left minus right over their mean; None without a counterpart."""
    for left, right in (("left ", "right "), ("ctx-lh-", "ctx-rh-")):
        for prefix in (left, right):
            if structure.startswith(prefix):
                stem = structure[len(prefix) :]
                a, b = volumes.get(left + stem), volumes.get(right + stem)
                return None if a is None or b is None or a + b <= 0 else 200.0 * (a - b) / (a + b)
    return None


# -------------------------------------------------------------------------------------------------------------- files


def _read_csv(path: str | Path) -> tuple[list[str], list[list[str]]]:
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultError(_("The table {name} cannot be read.").format(name=path.name)) from error
    if not rows or not rows[0]:
        raise ResultError(_("The table {name} is empty.").format(name=path.name))
    return rows[0], rows[1:]


def _row_of_numbers(path: str | Path, row: int) -> dict[str, float]:
    """Return structure -> number of one scan, the first column being the name of the scan."""
    header, rows = _read_csv(path)
    try:
        titles = [(match["name"] if (match := _UNIT.match(title)) else title) for title in header[1:]]
        return {title: float(text) for title, text in zip(titles, rows[row][1:], strict=True) if text}
    except (IndexError, ValueError) as error:
        text = _("The table {name} is not of the expected form.")
        raise ResultError(text.format(name=Path(path).name)) from error


def _numbers(cells: Iterable[str]) -> list[float] | None:
    """Return the cells as numbers, an empty one as not a number; None when one is text, or all are empty."""
    cells = list(cells)
    if not any(cells):
        return None
    try:
        return [float(cell) if cell else float("nan") for cell in cells]
    except ValueError:
        return None


def _fill(name: str, node: Any, columns: Sequence[_Column]) -> Any:
    """Replace the columns of a table node, or of a new one."""
    with new_node("vtkMRMLTableNode", name, node) as table, slicer.util.NodeModify(table):
        table.RemoveAllColumns()
        for column in columns:
            array = vtk.vtkDoubleArray() if _is_numeric(column.values) else vtk.vtkStringArray()
            array.SetName(column.name)
            for value in column.values:
                array.InsertNextValue(value)
            table.AddColumn(array)
            table.SetColumnUnitLabel(column.name, column.unit)
            table.SetColumnDescription(column.name, column.description)
            title = f"{column.name} ({column.unit})" if column.unit else column.name
            table.SetColumnTitle(column.name, title)
        table.SetUseColumnTitleAsColumnHeader(True)
        table.SetLocked(True)
    return table


def _is_numeric(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, float) for value in values)
