"""``mri-deep-tools evaluate prediction``: MAE, R2, AUC, balanced accuracy of predictions, with confidence intervals."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, RequestError
from ..progress import Progress
from .options import add_common_options
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..harmonize.predictor_metrics import Measure
    from ..harmonize.predictor_table import Table

__all__ = ["add_action", "run"]


def add_action(actions: Any) -> None:
    """Add the action to those of ``evaluate``."""
    scores = actions.add_parser("prediction", help="errors of predicted ages, discrimination of predicted diagnoses")
    scores.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="table written by `predict`")
    scores.add_argument("csv", type=Path, metavar="CSV", help="one row per measure, with its 95 %% interval")
    scores.add_argument("--truth", required=True, metavar="COLUMN", help="column that holds the truth")
    scores.add_argument(
        "--table", type=Path, metavar="FILE", help="table with the truth, joined by the columns that both have"
    )
    scores.add_argument("--column", metavar="NAME", help="column of predictions (default: found by its name)")
    scores.add_argument(
        "--positive", metavar="CLASS", help="the class whose probability was predicted (default: in the column's name)"
    )
    scores.add_argument(
        "--subject", metavar="COLUMN", help="column that names the person, where some have several scans"
    )
    scores.add_argument("--group", metavar="COLUMN", help="measures for each value of this column, too (site, sex)")
    add_common_options(scores)


@dataclass(frozen=True)
class _Case:
    """A scan that has a prediction and a truth."""

    truth: str
    found: float
    person: str
    group: str


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Score the predictions and write the table.

    Raises
    ------
    MRIDeepToolsError : unreadable tables, missing columns, nothing to compare.

    """
    from ..harmonize.predictor_table import read_table

    output = args.csv if args.csv.suffix.lower() == ".csv" else args.csv.with_name(f"{args.csv.name}.csv")
    inputs = [args.predictions, *([args.table] if args.table else [])]
    predictions = read_table(args.predictions)
    column = predictions.require(args.column) if args.column else _found_column(predictions)
    positive = _positive(args, column)
    cases, left_out = _cases(args, predictions, column)
    if left_out:
        progress.warn(f"{left_out} of {len(predictions.rows)} rows have no prediction or no truth and are left out")
    if not cases:
        raise InputError(f"no row of {args.predictions.name} has a prediction and a truth", "check the tables")
    check_outputs([output], inputs, overwrite=args.overwrite)
    rows: list[dict[str, str]] = []
    with progress.stage("score"):
        measures = _measures(cases, positive, args, column)
        rows += _rows("all", cases, measures)
        for name in dict.fromkeys(case.group for case in cases if args.group):
            own = [case for case in cases if case.group == name]
            try:
                rows += _rows(name, own, _measures(own, positive, args, column))
            except InputError as error:
                progress.warn(f"{args.group} {name}: {error.message}")
    with OutputSet() as files, files.path(output).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if not args.quiet and args.progress != "json":
        sys.stdout.write(_summary(column, cases, measures))
    progress.result(outputs=[output.name], scans=len(cases), measures=_plain(measures))


def _found_column(table: Table) -> str:
    """Return the column of predictions that ``predict`` wrote; InputError when it cannot be told."""
    beginnings = ("probability", "predicted ", "prediction")
    for beginning in beginnings:
        found = [name for name in table.columns if name.startswith(beginning)]
        if len(found) == 1:
            return found[0]
    columns = ", ".join(map(repr, table.columns))
    raise InputError(
        f"{table.name} does not tell which column holds the predictions", f"add --column, one of {columns}"
    )


def _positive(args: argparse.Namespace, column: str) -> str | None:
    """Return the positive class; None for a number."""
    if args.positive is not None:
        return str(args.positive)
    if column.startswith("probability of "):
        return column.removeprefix("probability of ")
    if column == "probability":
        raise RequestError("the predictions do not say of which class they are the probability", "add --positive CLASS")
    return None


def _cases(args: argparse.Namespace, predictions: Table, column: str) -> tuple[list[_Case], int]:
    """Return the rows that have both, and how many have not."""
    from ..harmonize.predictor_table import number_of

    rows = _joined(args, predictions)
    for name in (args.truth, args.subject, args.group):
        if name and name not in rows[0]:
            raise InputError(f"there is no column {name!r}", f"there are {', '.join(map(repr, rows[0]))}")
    cases = []
    for number, row in enumerate(rows, 1):
        if row[column] and row[args.truth]:
            found = number_of(row[column], f"{column} in row {number} of {predictions.name}")
            person = row[args.subject] if args.subject else str(number)
            cases.append(_Case(row[args.truth], found, person, row[args.group] if args.group else ""))
    return cases, len(predictions.rows) - len(cases)


def _joined(args: argparse.Namespace, predictions: Table) -> list[dict[str, str]]:
    """Return the rows of the predictions with the columns of the table that holds the truth."""
    from ..harmonize.predictor_table import read_table

    if args.table is None:
        return list(predictions.rows)
    other = read_table(args.table)
    shared = [name for name in predictions.columns if name in other.columns]
    if not shared:
        raise InputError(
            f"{predictions.name} and {other.name} have no column in common", "name the scans in both in the same way"
        )
    index: dict[tuple[str, ...], dict[str, str]] = {}
    for row in other.rows:
        key = tuple(row[name] for name in shared)
        if key in index:
            raise InputError(f"{other.name} has two rows for {', '.join(key)}", "keep one of them")
        index[key] = row
    empty = dict.fromkeys(other.columns, "")
    return [{**empty, **index.get(tuple(row[name] for name in shared), {}), **row} for row in predictions.rows]


def _measures(cases: list[_Case], positive: str | None, args: argparse.Namespace, column: str) -> list[Measure]:
    from ..harmonize.predictor_metrics import classification_measures, regression_measures
    from ..harmonize.predictor_table import number_of

    found = [case.found for case in cases]
    persons = [case.person for case in cases]
    if positive is None:
        truth = [number_of(case.truth, f"the truth ({args.truth}) of a row") for case in cases]
        return regression_measures(truth, found, persons)
    classes = {case.truth for case in cases}
    if positive not in classes and len(cases) > 1:
        names = ", ".join(sorted(classes)[:6])
        raise InputError(f"no scan is of the class {positive!r}; the truth has {names}", "add --positive CLASS")
    if len(classes) > 2:
        names = ", ".join(sorted(classes)[:6])
        raise InputError(f"the truth has more than two classes ({names})", "leave the other rows out")
    if not all(0 <= value <= 1 for value in found):
        raise InputError(f"the column {column!r} holds values outside 0 to 1", "give probabilities")
    return classification_measures([case.truth == positive for case in cases], found, persons)


def _rows(group: str, cases: list[_Case], measures: list[Measure]) -> list[dict[str, str]]:
    persons = len({case.person for case in cases})
    return [
        {
            "group": group,
            "measure": measure.name,
            "value": _text(measure.value),
            "low (95 %)": _text(measure.low),
            "high (95 %)": _text(measure.high),
            "scans": str(len(cases)),
            "persons": str(persons),
        }
        for measure in measures
    ]


def _text(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _summary(column: str, cases: list[_Case], measures: list[Measure]) -> str:
    lines = [f"{column}, {len(cases)} scans"]
    for measure in measures:
        span = f"  ({measure.low:.3f} to {measure.high:.3f})" if math.isfinite(measure.low) else ""
        lines.append(f"  {measure.name:<18}{measure.value:8.3f}{span}")
    return "\n".join([*lines, ""])


def _plain(measures: list[Measure]) -> dict[str, float | None]:
    return {item.name: item.value if math.isfinite(item.value) else None for item in measures}
