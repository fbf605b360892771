"""Two results of the same inputs side by side: what differs in how they were made, in their numbers and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..citations import Reference
from ..errors import InputError
from ..methods import references_of
from ..report import KeyValues, Section, Table, Text
from .files import Result, fields_in_use
from .image_differences import image_sections
from .number_differences import number_sections

__all__ = ["Comparison", "compare_results", "require_comparable"]

_CHOICES = ("mask", "template", "transform", "target_bvecs", "target_grad")
"""Inputs that are options: they may differ."""


@dataclass(frozen=True)
class Comparison:
    """What comparing two results gave: sections of the page, warnings, references, and figures of the main output."""

    sections: list[Section]
    notes: list[str]
    references: list[Reference]
    figures: dict[str, Any] = field(default_factory=dict)


def compare_results(first: Result, second: Result, folder: Path) -> Comparison:
    """Compare two results.

    Parameters
    ----------
    first, second :
        Of the same command and inputs: A and B.
    folder :
        For the pictures.

    Raises
    ------
    InputError : they cannot be compared; the message says why.

    """
    require_comparable(first, second)
    with fields_in_use(first.sidecar, second.sidecar):
        return _compared(first, second, folder)


def _compared(first: Result, second: Result, folder: Path) -> Comparison:
    notes = [f"{letter}: {note}" for letter, one in (("A", first), ("B", second)) for note in one.notes(inputs=False)]
    sections = [*_making(first.record, second.record), *number_sections(first, second)]
    pictures, figures = image_sections(first, second, folder, notes)
    equal = figures.get("Identical")
    words = {True: "The main output of both is identical, voxel by voxel.", False: "The main outputs differ."}
    verdict = [Text("In a sentence", [words[equal]], "good" if equal else "")] if equal is not None else []
    cited = list(dict.fromkeys([*references_of(first.record), *references_of(second.record)]))
    return Comparison([*verdict, *sections, *pictures], notes, cited, figures)


def require_comparable(first: Result, second: Result) -> None:
    """Raise InputError where two results come from other commands or other inputs."""
    if first.command != second.command:
        raise InputError(
            f"A was made by {first.command} and B by {second.command}; they cannot be compared",
            "give two outputs of one command",
        )
    inputs = [_inputs(result.record) for result in (first, second)]
    if inputs[0] != inputs[1]:
        lost = [sum(1 for item in one if item not in other) for one, other in (inputs, inputs[::-1])]
        raise InputError(
            "A and B cannot be compared: they were made from other inputs "
            f"(by checksum, {lost[0]} of A are not in B and {lost[1]} of B not in A)",
            "give two results of the same scans",
        )


def _inputs(record: Mapping[str, Any]) -> list[str]:
    return sorted(str(item["SHA256"]) for item in record["Inputs"] if item.get("Role") not in _CHOICES)


def _making(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Section]:
    """Return what differs in versions, models, options, device and cost."""
    rows = _different(_facts(first), _facts(second))
    if not rows:
        return [Text("How they were made", ["Program, models, options and libraries are the same."])]
    table = Table("What differs in how they were made", _columns("Fact"), rows)
    same = {
        "Program": f"mri-deep-tools {first['GeneratedBy'][0]['Version']} {first['GeneratedBy'][0]['Command']}",
        "Models": ", ".join(model["Name"] for model in first["Models"]) or "none",
    }
    told = {name: value for name, value in same.items() if name not in {row[0] for row in rows}}
    return [table, *([KeyValues("What is the same", told)] if told else [])]


def _columns(first: str) -> list[Any]:
    from ..report import Column

    return [Column(first), Column("A"), Column("B")]


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Return everything about the making of a result that may differ, as text."""
    facts = {"Program": f"mri-deep-tools {record['GeneratedBy'][0].get('Version', '')}"}
    facts["Schema of the sidecar"] = str(record["SchemaVersion"])
    for index, model in enumerate(record["Models"], start=1):
        which = "Model" if len(record["Models"]) == 1 else f"Model {index}"
        facts[which] = model["Name"]
        facts[f"{which}, SHA-256 of the weights"] = str(model.get("SHA256", "unknown"))[:16]
    facts |= {f"Option {name}": _text(value) for name, value in _flat(record["Options"]).items()}
    facts |= {f"Version of {name}": str(value) for name, value in record.get("Software", {}).items()}
    facts |= {name: _text(record.get("Device", {}).get(name)) for name in ("Precision", "Threads")}
    facts["Device"] = _text(record.get("Device", {}).get("Name"))
    for item in record["Inputs"]:
        if item.get("Role") in _CHOICES:
            facts[f"Given {item['Role']}, SHA-256"] = item["SHA256"][:16]
    facts["Seconds in all"] = f"{record.get('SecondsTotal', 0):.1f} s"
    if record.get("PeakMemoryBytes"):
        facts["Peak memory"] = f"{record['PeakMemoryBytes'] / 1e9:.2f} GB"
    facts["Warnings"] = str(len(record.get("Warnings", ())))
    return facts


def _different(first: Mapping[str, str], second: Mapping[str, str]) -> list[Sequence[Any]]:
    names = dict.fromkeys([*first, *second])
    return [
        (name, first.get(name, "none"), second.get(name, "none"))
        for name in names
        if first.get(name) != second.get(name)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name} ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _text(value: object) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
