"""The report of an upsampling: how far it is off on directions that were measured, and what it does to FA and MD."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report import Cell, Column, KeyValues, Picture, Section, Table, Text, write_report
from .directions import electrostatic_energy, even_directions, same_axis_angle
from .figures import Tile, bars_png, directions_png, tiles_png
from .leave_out import METHOD_NAMES

if TYPE_CHECKING:
    from .leave_out import LeaveOut
    from .predict import UpsampleResult

__all__ = ["write_upsampling_report"]

_MD_UNIT = "10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT THREE} mm\N{SUPERSCRIPT TWO}/s"
_METHOD = (
    "The predicted volumes were not measured: a method made them from the measured directions of the same shell. They "
    "can be smoother than any measurement, and wrong where the tissue is unlike what the method knows. Where several "
    "methods stand side by side below, each predicted directions that were measured but not shown to it."
)


def write_upsampling_report(
    path: str | Path, result: UpsampleResult, check: LeaveOut, *, record: Mapping[str, Any] | None = None
) -> Path:
    """Write the page; see :func:`mri_deep_tools.report.write_report` for what it may raise."""
    sections: list[Section] = [Text("These directions are synthetic", [_METHOD], level="doubtful")]
    words = [check.verdict, *(f"{note[:1].upper()}{note[1:]}." for note in check.notes)]
    sections.append(Text("Is it worth it?", words, level=check.level))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sections += _error_sections(check, result, place)
        sections += _tensor_sections(check, result, place)
        sections += _direction_sections(result, place)
        return write_report(path, title="More diffusion directions", sections=sections, record=record)


def _error_sections(check: LeaveOut, result: UpsampleResult, folder: Path) -> list[Section]:
    if not check.scores:
        return []
    least = min(score.mae for score in check.scores.values())
    rows: list[list[str | float | Cell | None]] = [
        [
            _name(name, result),
            Cell(score.mae, level="good" if score.mae <= least * 1.0001 else ""),
            score.rmse,
            score.percent,
        ]
        for name, score in check.scores.items()
    ]
    columns = [
        Column("Method"),
        Column("MAE", digits=1),
        Column("RMSE", digits=1),
        Column("MAE, % of signal", digits=2),
    ]
    caption = (
        f"{len(check.rows)} measured directions were left out in {check.folds} turns and predicted from "
        f"{check.read} others; voxels of the mask, intensities of the scan."
    )
    note = "The measured directions are noisy themselves: an error of zero is out of reach for any method."
    made: list[Section] = [Table("Error on directions that were left out", columns, rows, caption, note)]
    shown = [name for name in ("method", "sh", "mean") if name in check.scores]
    series = [(_name(name, result), [row.mae[name] for row in check.rows]) for name in shown]
    picture = bars_png([str(row.volume) for row in check.rows], series, "mean absolute error", folder / "bars.png")
    alt = "Bars: mean absolute error of each direction that was left out, by method"
    made.append(Picture("Error of each direction", picture, alt))
    if check.example is not None:
        made.append(_example(check, result, folder))
    made.append(_residuals(check, result, folder))
    return made


def _name(name: str, result: UpsampleResult) -> str:
    return result.model if name == "method" else METHOD_NAMES[name]


def _example(check: LeaveOut, result: UpsampleResult, folder: Path) -> Picture:
    volume, maps = check.example or (0, {})
    inside = maps["measured"][check.mask]
    high = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    limit = 0.3 * high
    first: list[Tile | None] = [Tile("measured", maps["measured"], 0, high)]
    second: list[Tile | None] = [None]
    for name in ("method", "sh"):
        if name in maps:
            first.append(Tile(_name(name, result), maps[name], 0, high))
            error = maps[name] - maps["measured"]
            second.append(Tile(f"error: {_name(name, result)}", error, -limit, limit, "RdBu_r", "intensity"))
    rows = [first, second] if len(second) > 2 else [first + second[1:]]
    picture = tiles_png(rows, result.part.scan.image, check.mask, folder / "example.png")
    alt = "Axial slices: a measured direction, what was predicted of it, and the errors"
    caption = f"Volume {volume} (numbered from 0) was left out. Red: predicted brighter than measured, blue: darker."
    return Picture("One direction that was left out", picture, alt, caption)


def _residuals(check: LeaveOut, result: UpsampleResult, folder: Path) -> Picture:
    inside = check.residuals["method"].data[check.mask]
    high = float(np.percentile(inside, 99)) if inside.size else 1.0
    tiles: list[Tile | None] = [
        Tile(f"mean error: {_name(name, result)}", volume.data, 0, high, "magma", "intensity")
        for name, volume in check.residuals.items()
    ]
    if "sh" in check.residuals:
        difference = check.residuals["sh"].data - check.residuals["method"].data
        tiles.append(Tile("blue: this method is better", difference, -high / 2, high / 2, "RdBu", "intensity"))
    picture = tiles_png([tiles], result.part.scan.image, check.mask, folder / "residuals.png")
    alt = "Axial slices: mean absolute error per voxel of each method, and their difference"
    return Picture("Where the errors are", picture, alt, "Mean absolute error over all directions that were left out.")


def _tensor_sections(check: LeaveOut, result: UpsampleResult, folder: Path) -> list[Section]:
    made: list[Section] = []
    if check.tensors:
        rows: list[list[str | float | Cell | None]] = [
            [
                "measured ones alone" if name == "context" else f"and those of {_name(name, result)}",
                item.fa,
                1e3 * item.md,
                item.angle_degrees,
            ]
            for name, item in check.tensors.items()
        ]
        columns = [
            Column("Tensor fit to"),
            Column("FA", digits=4),
            Column("MD", _MD_UNIT, digits=4),
            Column("Main direction", "degrees", digits=1),
        ]
        caption = "Mean absolute difference to the fit of all measured directions (the angle where FA is above 0.2)."
        made.append(Table("Tensors", columns, rows, caption))
    if check.before is None or check.after is None or check.change is None:
        return made
    fa, new_fa = (maps.volume("fa", check.mask) for maps in (check.before, check.after))
    md, new_md = (1e3 * maps.volume("md", check.mask) for maps in (check.before, check.after))
    top = float(np.percentile(md[check.mask], 99)) if check.mask.any() else 1.0
    rows_of_tiles: list[list[Tile | None]] = [
        [
            Tile("FA, measured", fa, 0, 1, "gray", "FA"),
            Tile("FA, with predicted", new_fa, 0, 1, "gray", "FA"),
            Tile("change of FA", new_fa - fa, -0.2, 0.2, "RdBu_r", "FA"),
        ],
        [
            Tile("MD, measured", md, 0, top, "gray", _MD_UNIT),
            Tile("MD, with predicted", new_md, 0, top, "gray", _MD_UNIT),
            Tile("change of MD", new_md - md, -0.2 * top, 0.2 * top, "RdBu_r", _MD_UNIT),
        ],
    ]
    picture = tiles_png(rows_of_tiles, result.part.scan.image, check.mask, folder / "tensors.png")
    caption = (
        "Left: all measured directions of the shell. Middle: those that were read and the predicted ones together. "
        f"Mean absolute change: FA {check.change.fa:.4f}, MD {1e3 * check.change.md:.4f} times {_MD_UNIT}."
    )
    alt = "Axial slices of FA and MD before, after, and the change"
    made.append(Picture("FA and MD before and after", picture, alt, caption))
    return made


def _direction_sections(result: UpsampleResult, folder: Path) -> list[Section]:
    part, world = result.part, result.part.scan.table.world
    predicted = result.gradients.world[np.array(result.kinds) == "predicted"]
    picture = directions_png(world[part.context], world[part.unused], predicted, folder / "directions.png")
    alt = "Measured and predicted directions on the upper half of the sphere"
    facts = {
        "Shell": f"b = {result.shell} s/mm\N{SUPERSCRIPT TWO}",
        "Volumes that were read, in this order (from 0)": ", ".join(map(str, result.context)),
        "Volumes of the shell that were not read": ", ".join(map(str, result.unused)) or "none",
        "Predicted directions": str(len(predicted)),
        "Smallest angle from predicted to measured": f"{_smallest(predicted, world[part.volumes]):.1f}\N{DEGREE SIGN}",
        "Evenness of the predicted ones (energy over the least found)": f"{_evenness(predicted):.4f}",
    }
    return [
        Picture("Directions", picture, alt, "Axes in the world (RAS), seen from the top; opposite ends are one axis."),
        KeyValues("Directions in numbers", facts),
    ]


def _smallest(first: np.ndarray, second: np.ndarray) -> float:
    return float(same_axis_angle(first, second).min())


def _evenness(vectors: np.ndarray) -> float:
    if len(vectors) < 2:
        return 1.0
    if same_axis_angle(vectors, vectors)[np.triu_indices(len(vectors), 1)].min() < 1e-3:
        return float("inf")  # the same direction twice
    return electrostatic_energy(vectors) / electrostatic_energy(even_directions(len(vectors)))
