"""The report of an upsampling: how far it is off on directions that were measured, and what it does to FA and MD."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report import Cell, Column, KeyValues, Picture, Section, Table, Text, write_report
from ..reports.maps import as_kept
from .directions import electrostatic_energy, even_directions, same_axis_angle
from .figures import Tile, bars_png, directions_png, tiles_png

if TYPE_CHECKING:
    from ..volume import Volume
    from .leave_out import LeaveOut
    from .predict import UpsampleResult

__all__ = ["TITLE", "images_of", "sections", "write_upsampling_report"]

TITLE = "More diffusion directions"
Images = Mapping[str, "Volume"]
Record = Mapping[str, Any]

_GROUPS = ("MeasuredRead", "MeasuredUnused", "Predicted")
_MD_UNIT = "10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT THREE} mm\N{SUPERSCRIPT TWO}/s"
_METHOD = (
    "The predicted volumes were not measured: a method made them from the measured directions of the same shell. They "
    "can be smoother than any measurement, and wrong where the tissue is unlike what the method knows. Where several "
    "methods stand side by side below, each predicted directions that were measured but not shown to it."
)


def write_upsampling_report(
    path: str | Path, result: UpsampleResult, check: LeaveOut, *, record: Mapping[str, Any]
) -> Path:
    """Write the page from the record of the run; see :func:`mri_deep_tools.report.write_report` for its errors."""
    with tempfile.TemporaryDirectory() as folder:
        made = sections(record, images_of(result, check), Path(folder))
        return write_report(path, title=TITLE, sections=made, record=record)


def images_of(result: UpsampleResult, check: LeaveOut) -> dict[str, Volume]:
    """Return the maps that the page shows, by role: those that may be saved, and those of the run alone."""
    image = result.part.scan.image
    images = {"mask": image.with_data(check.mask.astype(np.uint8))}
    images |= {"residuals" if name == "method" else f"residuals {name}": map_ for name, map_ in check.residuals.items()}
    if check.example is not None:
        images |= {f"example {name}": image.with_data(data) for name, data in check.example[1].items()}
    for when, maps in (("before ", check.before), ("", check.after)):
        if maps is not None:
            images |= {f"{when}{name}": image.with_data(maps.volume(name, check.mask)) for name in ("fa", "md")}
    return as_kept(images)


def sections(record: Record, images: Images, folder: Path) -> list[Section]:
    """Return what the page of an upsampling shows: the same numbers during the run and from the sidecar.

    Parameters
    ----------
    record :
        With ``Gradients``, and ``LeaveOut`` where directions were left out.
    images :
        Maps by role, see :func:`images_of`; pictures whose maps are missing are left out.
    folder :
        For the pictures.

    """
    made: list[Section] = [Text("These directions are synthetic", [_METHOD], level="doubtful")]
    check = record.get("LeaveOut")
    if check:
        words = [check["Verdict"], *(f"{note[:1].upper()}{note[1:]}." for note in check["Notes"])]
        made.append(Text("Is it worth it?", words, level=check["Level"]))
        made += _error_sections(record, check, images, folder)
        made += _tensor_table(record, check)
    made += _tensor_pictures(check or {}, images, folder)
    made += _direction_sections(record, folder)
    return made


def _model(record: Record) -> str:
    options = record.get("Options", {})
    if options.get("method") == "sh":
        return f"spherical harmonics of order {options.get('sh_order')}"
    return next((model["Name"] for model in record.get("Models", ())), "this method")


def _error_sections(record: Record, check: Record, images: Images, folder: Path) -> list[Section]:
    scores = check["Errors"]
    if not scores:
        return []
    least = min(score["MAE"] for score in scores.values())
    rows: list[list[str | float | Cell | None]] = [
        [
            _name(name, record),
            Cell(score["MAE"], level="good" if score["MAE"] <= least * 1.0001 else ""),
            score["RMSE"],
            score["MAEPercent"],
        ]
        for name, score in scores.items()
    ]
    columns = [
        Column("Method"),
        Column("MAE", "intensity of the scan", digits=1),
        Column("RMSE", "intensity of the scan", digits=1),
        Column("MAE", "% of signal", digits=2),
    ]
    directions = check["Directions"]
    caption = (
        f"{len(directions)} measured directions were left out in {check['Folds']} turns and predicted from "
        f"{check['DirectionsRead']} others; voxels of the mask."
    )
    note = "The measured directions are noisy themselves: an error of zero is out of reach for any method."
    made: list[Section] = [Table("Error on directions that were left out", columns, rows, caption, note)]
    shown = [name for name in ("method", "sh", "mean") if name in scores]
    series = [(_name(name, record), [row["MAE"][name] for row in directions]) for name in shown]
    labels = [str(row["Volume"]) for row in directions]
    picture = bars_png(labels, series, "mean absolute error (intensity)", folder / "bars.png")
    alt = "Bars: mean absolute error of each direction that was left out, by method"
    made.append(Picture("Error of each direction", picture, alt))
    if "example measured" in images:
        made.append(_example(record, images, folder))
    if "residuals" in images:
        made.append(_residuals(record, images, folder))
    return made


def _name(name: str, record: Record) -> str:
    return _model(record) if name == "method" else str(record["LeaveOut"]["Errors"][name]["Name"])


def _mask(images: Images) -> np.ndarray:
    """Return where to look: the mask, or what the maps show."""
    if "mask" in images:
        return np.asarray(images["mask"].data) > 0
    return np.any([np.asarray(volume.data) != 0 for volume in images.values() if volume.data.ndim == 3], axis=0)


def _example(record: Record, images: Images, folder: Path) -> Picture:
    mask, measured = _mask(images), images["example measured"]
    inside = measured.data[mask]
    high = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    limit = 0.3 * high
    first: list[Tile | None] = [Tile("measured", measured.data, 0, high)]
    second: list[Tile | None] = [None]
    for name in ("method", "sh"):
        if f"example {name}" in images:
            data = images[f"example {name}"].data
            first.append(Tile(_name(name, record), data, 0, high))
            second.append(
                Tile(f"error: {_name(name, record)}", data - measured.data, -limit, limit, "RdBu_r", "intensity")
            )
    rows = [first, second] if len(second) > 2 else [first + second[1:]]
    picture = tiles_png(rows, measured, mask, folder / "example.png")
    alt = "Axial slices: a measured direction, what was predicted of it, and the errors"
    number = record["LeaveOut"].get("ExampleVolume")
    caption = f"Volume {number} (numbered from 0) was left out. Red: predicted brighter than measured, blue: darker."
    return Picture("One direction that was left out", picture, alt, caption)


def _residuals(record: Record, images: Images, folder: Path) -> Picture:
    mask, own = _mask(images), images["residuals"]
    inside = own.data[mask]
    high = float(np.percentile(inside, 99)) if inside.size else 1.0
    maps = {"method": own} | ({"sh": images["residuals sh"]} if "residuals sh" in images else {})
    tiles: list[Tile | None] = [
        Tile(f"mean error: {_name(name, record)}", volume.data, 0, high, "magma", "intensity")
        for name, volume in maps.items()
    ]
    if "sh" in maps:
        difference = maps["sh"].data - own.data
        tiles.append(Tile("blue: this method is better", difference, -high / 2, high / 2, "RdBu", "intensity"))
    picture = tiles_png([tiles], own, mask, folder / "residuals.png")
    alt = "Axial slices: mean absolute error per voxel of each method, and their difference"
    return Picture("Where the errors are", picture, alt, "Mean absolute error over all directions that were left out.")


def _tensor_table(record: Record, check: Record) -> list[Section]:
    found = check["TensorsAgainstAllMeasured"]
    if not found:
        return []
    rows: list[list[str | float | Cell | None]] = [
        [
            "measured ones alone" if name == "context" else f"and those of {_name(name, record)}",
            item["FA"],
            1e3 * item["MD"],
            item["AngleDegrees"],
        ]
        for name, item in found.items()
    ]
    columns = [
        Column("Tensor fit to"),
        Column("FA", digits=4),
        Column("MD", _MD_UNIT, digits=4),
        Column("Main direction", "degrees", digits=1),
    ]
    caption = "Mean absolute difference to the fit of all measured directions (the angle where FA is above 0.2)."
    return [Table("Tensors", columns, rows, caption)]


def _tensor_pictures(check: Record, images: Images, folder: Path) -> list[Section]:
    """Return FA and MD: before and after during the run, those that were saved later."""
    names = [name for name in ("fa", "md") if name in images]
    if not names:
        return []
    mask, rows = _mask(images), []
    for name in names:
        title, unit, factor = ("FA", "FA", 1.0) if name == "fa" else ("MD", _MD_UNIT, 1e3)
        after = factor * images[name].data
        top = 1.0 if name == "fa" else float(np.percentile(after[mask], 99)) if mask.any() else 1.0
        row: list[Tile | None] = [Tile(f"{title}, with predicted", after, 0, top, "gray", unit)]
        if f"before {name}" in images:
            before = factor * images[f"before {name}"].data
            row.insert(0, Tile(f"{title}, measured", before, 0, top, "gray", unit))
            row.append(Tile(f"change of {title}", after - before, -0.2 * top, 0.2 * top, "RdBu_r", unit))
        rows.append(row)
    whole = f"before {names[0]}" in images
    picture = tiles_png(rows if whole else [[row[0] for row in rows]], images[names[0]], mask, folder / "tensors.png")
    caption = (
        "Left: all measured directions of the shell. Middle: those that were read and the predicted ones together."
        if whole
        else "Fits to the measured directions that were read and the predicted ones together."
    )
    change = check.get("TensorsChange")
    if change:
        caption += f" Mean absolute change: FA {change['FA']:.4f}, MD {1e3 * change['MD']:.4f} times {_MD_UNIT}."
    title = "FA and MD before and after" if whole else " and ".join(name.upper() for name in names)
    return [Picture(title, picture, "Axial slices of fractional anisotropy and mean diffusivity", caption)]


def _direction_sections(record: Record, folder: Path) -> list[Section]:
    found, options = record.get("Gradients"), record.get("Options", {})
    facts = {
        "Shell": f"b = {options.get('shell')} s/mm\N{SUPERSCRIPT TWO}",
        "Volumes that were read, in this order (from 0)": ", ".join(map(str, options.get("context_volumes", ()))),
        "Volumes of the shell that were not read": ", ".join(map(str, options.get("unused_volumes", ()))) or "none",
    }
    if not found:
        return [KeyValues("Directions in numbers", facts)]
    read, unused, predicted = (np.array(found[name]).reshape(-1, 3) for name in _GROUPS)
    measured = np.concatenate([read, unused])
    picture = directions_png(read, unused, predicted, folder / "directions.png")
    alt = "Measured and predicted directions on the upper half of the sphere"
    facts |= {
        "Predicted directions": str(len(predicted)),
        "Smallest angle from predicted to measured": f"{_smallest(predicted, measured):.1f}\N{DEGREE SIGN}",
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
