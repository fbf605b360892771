"""What a provenance record tells, as sections of a page: input, models, method, citations, options, time, software."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from .citations import bibtex
from .methods import methods_paragraph, references_of
from .provenance import private_names, without_names
from .report import Cell, Code, Column, KeyValues, Section, Table, Text

__all__ = ["hidden_names", "record_sections"]


def record_sections(record: Mapping[str, Any], *, show_names: bool = False) -> list[Section]:
    """Return what a provenance record tells, as sections: input, method, options, time and memory, software."""
    made: list[Section] = []
    for role, grid in record.get("Geometry", {}).items():
        files = record.get("Inputs", ()) if role == "input" else ()
        made.append(KeyValues(f"Geometry of the {role}", _grid_facts(grid, files, show_names)))
    models = record.get("Models", ())
    if models:
        made.append(_model_table(models))
    made += _method_sections(record)
    made += _cost_sections(record)
    if record.get("Options"):
        made.append(KeyValues("Options", hidden_names(record["Options"], record, show_names), folded=True))
    if record.get("Software"):
        version = record["GeneratedBy"][0]["Version"]
        made.append(KeyValues("Software", {"mri-deep-tools": version, **record["Software"]}, folded=True))
    return made


def _method_sections(record: Mapping[str, Any]) -> list[Section]:
    """Return the paragraph for a methods section, what to cite for exactly that, and the same as BibTeX."""
    if not record.get("GeneratedBy"):
        return []
    cited = references_of(record)
    return [
        Code(
            "Methods, to copy", methods_paragraph(record), "A click marks the text. It tells what ran here.", prose=True
        ),
        Text("Please cite", [item.text for item in cited]),
        Code("References as BibTeX", bibtex(cited), folded=True),
    ]


def _grid_facts(grid: Mapping[str, Any], files: Sequence[Mapping[str, Any]], show_names: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for index, item in enumerate(files, start=1):
        prefix = "File" if len(files) == 1 else f"File {index}"
        if show_names:
            facts[prefix] = item["Name"]
        facts[f"{prefix}, SHA-256"] = item["SHA256"]
    facts["Voxels"] = " \N{MULTIPLICATION SIGN} ".join(str(n) for n in grid["Shape"])
    facts["Voxel size"] = " \N{MULTIPLICATION SIGN} ".join(f"{size:.3g}" for size in grid["SpacingMm"]) + " mm"
    facts["Axes run towards"] = ", ".join(_DIRECTIONS[letter] for letter in grid["Orientation"])
    if grid["ObliqueDegrees"]:
        facts["Tilt against the scanner's axes"] = f"{grid['ObliqueDegrees']:.1f}\N{DEGREE SIGN}"
    facts["Stored as"] = f"{grid['Format']}, {grid['DataType']}"
    return facts


_DIRECTIONS = {
    "R": "right",
    "L": "left",
    "A": "front (anterior)",
    "P": "back (posterior)",
    "S": "top (superior)",
    "I": "bottom (inferior)",
}


def _model_table(models: Sequence[Mapping[str, Any]]) -> Table:
    rows: list[Sequence[str | float | Cell | None]] = [
        (
            model["Name"],
            urlsplit(model["Source"]).hostname or model["Source"],
            model["Licence"] or None,
            f"{model['SHA256'][:12]}\N{HORIZONTAL ELLIPSIS}" if model.get("SHA256") else None,
        )
        for model in models
    ]
    columns = [Column("Model"), Column("From"), Column("Licence"), Column("SHA-256 of the weights")]
    return Table("Model" if len(rows) == 1 else "Models", columns, rows)


def _cost_sections(record: Mapping[str, Any]) -> list[Section]:
    device = record.get("Device", {})
    facts: dict[str, Any] = {}
    if device:
        facts["Device"] = device["Name"]
        facts["Precision"] = device["Precision"]
        if device.get("Threads"):
            facts["Threads"] = device["Threads"]
    if record.get("PeakMemoryBytes"):
        facts["Peak memory"] = f"{record['PeakMemoryBytes'] / 1e9:.2f} GB"
    for stage, seconds in record.get("SecondsPerStage", {}).items():
        facts[f"Seconds: {stage}"] = f"{seconds:.1f}"
    if record.get("SecondsTotal"):
        facts["Seconds in all"] = f"{record['SecondsTotal']:.1f}"
    return [KeyValues("Time and memory", facts)] if facts else []


def hidden_names(value: Any, record: Mapping[str, Any], show_names: bool) -> Any:
    """Return a value of the record in which names of input and output files are hidden."""
    if show_names:
        return value
    if isinstance(value, str):
        files = (item["Name"] for key in ("Inputs", "Outputs") for item in record.get(key, ()))
        return without_names(value, private_names(files))
    if isinstance(value, Mapping):
        return {key: hidden_names(item, record, show_names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hidden_names(item, record, show_names) for item in value]
    return value
