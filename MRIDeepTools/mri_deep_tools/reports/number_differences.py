"""The numbers of two sidecars side by side: volumes, scores, errors, predictions; absolute and per cent, with units."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..report import Column, Section, Table, Text
from .files import Result

__all__ = ["number_sections"]

Numbers = Mapping[str, float | None]
_MM3_PER_ML = 1000.0


def number_sections(first: Result, second: Result) -> list[Section]:
    """Return tables of what both sidecars hold, A, B and their difference (B minus A)."""
    make = _TASKS.get(first.command)
    if make is not None:
        return make(first, second)
    pairs = [_leaves(result.record) for result in (first, second)]
    return _tables("Figures", "Figure", "", pairs[0], pairs[1], 4)


def _tables(
    title: str, name: str, unit: str, first: Numbers | None, second: Numbers | None, digits: int
) -> list[Section]:
    """Return the table of two sets of numbers; nothing where both are missing."""
    if not first and not second:
        return []
    if not first or not second:
        return [Text(title, [f"Only {'A' if first else 'B'} has these numbers."])]
    columns = [
        Column(name),
        Column("A", unit, digits=digits),
        Column("B", unit, digits=digits),
        Column("B \N{MINUS SIGN} A", unit, digits=digits),
        Column("Change", "%", digits=2),
    ]
    rows = [_row(key, first.get(key), second.get(key)) for key in dict.fromkeys([*first, *second])]
    return [Table(title, columns, rows)]


def _row(name: str, first: float | None, second: float | None) -> Sequence[str | float | None]:
    if first is None or second is None:
        return name, first, second, None, None
    change = 100 * (second - first) / abs(first) if first else (0.0 if second == first else None)
    return name, first, second, second - first, change


def _segment(first: Result, second: Result) -> list[Section]:
    volumes = [
        {
            name: None if value is None else value / _MM3_PER_ML
            for name, value in (one.record.get("Volumes") or {}).items()
        }
        for one in (first, second)
    ]
    made = _tables("Volumes", "Structure", "ml", volumes[0], volumes[1], 3)
    return made + _tables("Quality scores", "Group", "", first.record.get("Scores"), second.record.get("Scores"), 3)


def _harmonize(first: Result, second: Result) -> list[Section]:
    names = {
        "Mean": "Mean change (brain median before: 500)",
        "MeanAbsolute": "Mean absolute change",
        "RootMeanSquare": "Root mean square change",
        "Largest": "Largest change",
        "Correlation": "Correlation with the input",
        "StructuralSimilarity": "Structural similarity with the input",
    }
    changes = [{told: one.record["Change"][name] for name, told in names.items()} for one in (first, second)]
    tissues = [
        {
            name: value / _MM3_PER_ML
            for name, value in ((one.record.get("TissueVolumes") or {}).get("after_mm3") or {}).items()
        }
        for one in (first, second)
    ]
    fits = [
        {name: found[name] for name in ("Correlation", "MutualInformation", "Overlap")}
        if (found := one.record.get("Registration"))
        else {}
        for one in (first, second)
    ]
    return [
        *_tables("How much was changed", "Figure", "", changes[0], changes[1], 4),
        *_tables("Tissue volumes after harmonization", "Tissue", "ml", tissues[0], tissues[1], 2),
        *_tables("Fit of the registration", "Figure", "", fits[0], fits[1], 4),
    ]


def _superresolve(first: Result, second: Result) -> list[Section]:
    names = {"PsnrDb": "Agreement with the measured slices", "InterpolationPsnrDb": "The same, plain interpolation"}
    found = [
        {told: (one.record.get("Honesty") or {}).get(name) for name, told in names.items()}
        if one.record.get("Honesty")
        else {}
        for one in (first, second)
    ]
    return _tables("Check against the measured slices", "PSNR", "dB", found[0], found[1], 3)


def _upsample(first: Result, second: Result) -> list[Section]:
    errors = [(one.record.get("LeaveOut") or {}).get("Errors", {}) for one in (first, second)]
    values = [{f"{item['Name']}": item["MAEPercent"] for item in one.values()} for one in errors]
    return _tables("Error on directions that were left out", "Method", "% of signal", values[0], values[1], 3)


def _predict(first: Result, second: Result) -> list[Section]:
    quantity = str(first.record.get("Prediction", {}).get("Quantity", "prediction"))
    values = [_predictions(one.file("table"), one.record) for one in (first, second)]
    return _tables(f"Predictions: {quantity}", "Scan", "", values[0], values[1], 3)


def _predictions(path: Path | None, record: Mapping[str, Any]) -> dict[str, float | None]:
    try:
        with open(path or "", newline="", encoding="utf-8-sig") as stream:  # noqa: PTH123
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    quantity = str(record.get("Prediction", {}).get("Quantity", "prediction"))
    name = quantity if rows and quantity in rows[0] else "prediction"
    return {str(index): _float(row.get(name)) for index, row in enumerate(rows, start=1)}


def _float(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _leaves(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers of the fields that only this command writes."""
    from .schema import fields_of, sidecar_schema

    known = {name for command, fields, _ in fields_of(sidecar_schema()) if not command for name in fields}
    found: dict[str, float | None] = {}

    def walk(value: object, name: str) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(item, f"{name} {key}".strip())
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = float(value)

    walk({name: value for name, value in record.items() if name not in known}, "")
    return found


_TASKS: dict[str, Callable[[Result, Result], list[Section]]] = {
    "segment": _segment,
    "harmonize": _harmonize,
    "superresolve": _superresolve,
    "upsample-dmri": _upsample,
    "predict": _predict,
}
