"""Pages made again from a sidecar and the images beside it: the sections of the task's own report, or a plain page."""

from __future__ import annotations

import csv
import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..report import Column, KeyValues, Part, Picture, Section, Table, Text, write_report
from .files import Result, fields_in_use
from .schema import fields_of, sidecar_schema

if TYPE_CHECKING:
    from ..volume import Volume

__all__ = ["result_sections", "title_of", "write_page", "write_pages"]

_TASKS = {
    "segment": "synthsegment",
    "harmonize": "harmonize",
    "superresolve": "superresolve",
    "upsample-dmri": "dmriupsample",
    "translate": "translate",
}
"""Rooms whose module ``report`` has ``TITLE`` and ``sections(record, images, folder)``."""
_TITLES = {"predict": "Prediction from T1w scans"}
_ROWS = 1000  # of a table of predictions that a page shows


def title_of(result: Result) -> str:
    """Return the heading of a result's page."""
    if result.command in _TASKS:
        return str(_room(result.command).TITLE)
    return _TITLES.get(result.command, f"Output of {result.command}")


def result_sections(result: Result, folder: Path, notes: list[str], *, show_names: bool = False) -> list[Section]:
    """Return what the page of a result shows; pictures go into ``folder``, what cannot be shown into ``notes``."""
    notes += result.notes(names=show_names)
    images = result.images(notes.append)
    if result.command in _TASKS:
        made: list[Section] = _room(result.command).sections(result.record, images, folder)
        return made
    if result.command == "predict":
        return _prediction(result)
    return _plain(result.record, images, folder)


def write_page(result: Result, path: Path, *, show_names: bool = False) -> list[str]:
    """Write the page of one result; return what could not be shown.

    Raises
    ------
    DependencyError without the report extra; OutputError when the page cannot be written.

    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder, fields_in_use(result.sidecar):
        made = result_sections(result, Path(folder), notes, show_names=show_names)
        write_report(
            path, title=title_of(result), sections=made, record=result.record, show_names=show_names, notes=notes
        )
    return notes


def write_pages(results: Sequence[Result], path: Path, *, show_names: bool = False) -> list[str]:
    """Write several results on one page, one part each; return what could not be shown (errors as above)."""
    from ..record_sections import hidden_names, record_sections

    sections: list[Section] = []
    told: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, result in enumerate(results):
            notes: list[str] = []
            place = Path(folder, str(index))
            place.mkdir()
            with fields_in_use(result.sidecar):
                made = result_sections(result, place, notes, show_names=show_names)
                made += record_sections(result.record, show_names=show_names)
            warnings = hidden_names([*notes, *result.record.get("Warnings", ())], result.record, show_names)
            name = f": {result.sidecar.stem}" if show_names else ""
            synthetic = bool(result.record.get("Synthetic"))
            sections.append(Part(f"{index + 1} of {len(results)}: {title_of(result)}{name}", synthetic))
            if warnings:
                sections.append(Text("Warnings" if len(warnings) > 1 else "Warning", warnings, "doubtful"))
            sections += made
            told += notes
        write_report(path, title=f"{len(results)} results", sections=sections)
    return told


def _room(command: str) -> Any:
    return importlib.import_module(f"mri_deep_tools.{_TASKS[command]}.report")


# ------------------------------------------------------------------------------------- tasks without a report of a room


def _prediction(result: Result) -> list[Section]:
    """Return the facts of a prediction and its table, without the columns that name scans."""
    found = result.record.get("Prediction", {})
    quantity = str(found.get("Quantity", "prediction"))
    facts = {
        "Quantity": quantity,
        "Scans": found.get("Scans"),
        "Scans that failed": found.get("Failed"),
        "Trained on": found.get("TrainedOn"),
    }
    if found.get("TrainedRange"):
        facts["Range of the training data"] = " to ".join(f"{value:g}" for value in found["TrainedRange"])
    made: list[Section] = [
        Text(
            "A prediction is not a diagnosis",
            ["A network computed these numbers from images. They say nothing certain about any person."],
            level="doubtful",
        ),
        KeyValues("What was predicted", facts),
    ]
    path = result.file("table")
    rows = _rows(path) if path is not None else []
    if rows:
        named = [name for name in (quantity, "prediction") if name in rows[0]]
        labels = [name for name in rows[0] if name.startswith("predicted ") and name not in named]
        columns = [Column("Scan"), *(Column(name, digits=3) for name in named), *map(Column, labels)]
        cells = [
            [str(index), *(_number(row[name]) for name in named), *(row[name] or None for name in labels)]
            for index, row in enumerate(rows[:_ROWS], start=1)
        ]
        note = "Rows are in the order of the table." + (f" The first {_ROWS} are shown." if len(rows) > _ROWS else "")
        made.append(Table("Predictions", columns, cells, note=note))
    return made


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _plain(record: Mapping[str, Any], images: Mapping[str, Volume], folder: Path) -> list[Section]:
    """Return a picture of each 3-D output, and the fields that only this command writes."""
    from ..overlay import overlay_png
    from ..planes import Shown, planes_png, window_of

    made: list[Section] = []
    outputs = [str(item.get("Role", "image")) for item in record["Outputs"]]
    shown = {role: images[role] for role in dict.fromkeys(outputs) if role in images}
    if "labels" in shown and "image" in shown:
        synthetic = bool(record.get("Synthetic"))
        path = overlay_png(shown["image"], shown["labels"], folder / "overlay.png", title="Output", synthetic=synthetic)
        made.append(Picture("Image and labels", path, "Axial, coronal and sagittal slices with labels in colour"))
    else:
        for index, (role, volume) in enumerate(shown.items()):
            picture = planes_png([Shown(role, volume, *window_of(volume))], folder / f"plain-{index}.png")
            made.append(Picture(f"Output: {role}", picture, f"Axial, coronal and sagittal slice of the output {role}"))
    known = {name for command, fields, _ in fields_of(sidecar_schema()) if not command for name in fields}
    extra = {name: value for name, value in record.items() if name not in known}
    if extra:
        made.append(KeyValues("Figures", extra))
    return made
