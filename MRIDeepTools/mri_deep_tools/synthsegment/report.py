"""The report of a segmentation: picture, volumes by side with their asymmetry, quality scores."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..report import Cell, Column, Level, Picture, Section, Table, Text, label_colour, overlay_png, write_report
from .labels import LABELS

if TYPE_CHECKING:
    from ..volume import Volume

__all__ = [
    "ACCEPT_SCORE",
    "GOOD_SCORE",
    "TITLE",
    "asymmetry_index",
    "scores_table",
    "sections",
    "volume_tables",
    "write_segmentation_report",
]

ACCEPT_SCORE = 0.65
"""Predicted Dice below which a structure group should be rejected (Billot et al., PNAS 120, 2023)."""
GOOD_SCORE = 0.75
"""From here on nothing is marked; between the two a look is advised."""

Row = list[str | float | Cell | None]

_CODES = {item.name: code for code, item in LABELS.items()}
_SIDES = (("left ", "right "), ("ctx-lh-", "ctx-rh-"))
METHOD = (
    "The scan was segmented by a convolutional network that was trained on synthetic images of random contrast and "
    "resolution, made from label maps (SynthSeg). Loose parts were removed. Volumes are sums of the network's "
    "probabilities, not counts of labelled voxels, and do not depend on the grid on which the labels are saved."
)
OWN_METHOD = (
    "The scan was segmented by a network that the user trained, with its own list of labels; how its result was "
    "cleaned up is in the options of the record. Volumes are sums of the network's probabilities, not counts of "
    "labelled voxels."
)
TITLE = "Brain segmentation"

_ALT = (
    "Axial, coronal and sagittal slices of the scan with the segmented structures in colour; the first slice of each "
    "row is shown without labels."
)
_CAPTION = (
    "Check that outlines follow the anatomy and that left and right are where they belong: the patient's right is "
    "marked R. Colours are those of the tables."
)
_SAME_COLOUR = 20.0  # distance in RGB below which two swatches would look alike
_FULL_BAR = 20.0  # per cent of asymmetry that fill the bar


def asymmetry_index(left: float, right: float) -> float:
    """Return 100 (left - right) / mean of both, in per cent; NaN when both are 0."""
    total = left + right
    return 200.0 * (left - right) / total if total > 0 else float("nan")


def volume_tables(volumes_mm3: Mapping[str, float]) -> list[Table]:
    """Return tables of volumes (mm^3 and ml): structures with two sides, midline structures, cortical parcels.

    Parameters
    ----------
    volumes_mm3 :
        Volume in mm^3 by structure name, as in the volumes table of a segmentation.

    """
    paired: dict[str, list[Row]] = {"left ": [], "ctx-lh-": []}
    single: list[Row] = []
    for name, volume in volumes_mm3.items():
        pair = _other_side(name)
        if pair is None:
            single.append([_named(name, name), volume, volume / 1000])
        elif pair[1] in volumes_mm3 and pair[0]:
            paired[pair[0]].append(_sided_row(name, pair[1], pair[0], volume, volumes_mm3[pair[1]]))
        elif pair[1] not in volumes_mm3:
            single.append([_named(name, name), volume, volume / 1000])
    tables = []
    note = (
        "Asymmetry = 100 \N{MULTIPLICATION SIGN} (left \N{MINUS SIGN} right) / mean of both; positive: the left is "
        f"larger. A full bar stands for {_FULL_BAR:.0f} %."
    )
    caption = "Sums of the network's probabilities: a voxel on a border counts in part."
    if paired["left "]:
        tables.append(Table("Volumes by side", _sided_columns("Structure"), paired["left "], caption, note))
    if single:
        columns = [
            Column("Structure"),
            Column("Volume", "mm\N{SUPERSCRIPT THREE}", digits=0),
            Column("", "ml", digits=2),
        ]
        tables.append(Table("Midline structures and totals", columns, single))
    if paired["ctx-lh-"]:
        rows = paired["ctx-lh-"]
        tables.append(Table("Cortical parcels", _sided_columns("Parcel"), rows, caption, note, folded=True))
    return tables


def scores_table(scores: Mapping[str, float]) -> Table:
    """Return the quality-control scores (0 to 1, predicted Dice) with their verdicts."""
    rows: list[Row] = [[name, Cell(float(score), _verdict(score))] for name, score in scores.items()]
    note = (
        f"A score is the Dice overlap with a careful manual segmentation that the quality network expects. "
        f"Poor (red): below {ACCEPT_SCORE}, the published limit under which a structure should be rejected. "
        f"Look (amber): {ACCEPT_SCORE} to {GOOD_SCORE}, check the picture first. Good (green): {GOOD_SCORE} and above."
    )
    return Table("Quality scores", [Column("Structure group"), Column("Score", digits=2)], rows, note=note)


def write_segmentation_report(
    path: str | Path,
    image: Volume,
    labels: Volume,
    volumes_mm3: Mapping[str, float],
    *,
    scores: Mapping[str, float] | None = None,
    record: Mapping[str, Any] | None = None,
    title: str = TITLE,
    subtitle: str = "",
    show_names: bool = False,
) -> Path:
    """Write the one-page HTML report of a segmentation.

    Parameters
    ----------
    path :
        HTML file to write.
    image, labels :
        (X, Y, Z) scan and its label map in the same world space.
    volumes_mm3 :
        Volume in mm^3 by structure name.
    scores :
        Quality score (0 to 1) by structure group, where they were asked for.
    record :
        Provenance record of the run.
    title, subtitle, show_names :
        See :func:`mri_deep_tools.report.write_report`.

    """
    told = {**(record or {}), "Volumes": dict(volumes_mm3), "Scores": scores and dict(scores)}
    with tempfile.TemporaryDirectory() as folder:
        made = sections(told, {"scan": image, "labels": labels}, Path(folder), title=title)
        return write_report(path, title=title, subtitle=subtitle, sections=made, record=record, show_names=show_names)


def sections(
    record: Mapping[str, Any], images: Mapping[str, Volume], folder: Path, *, title: str = TITLE
) -> list[Section]:
    """Return what the page of a segmentation shows: the same during the run and from the sidecar.

    Parameters
    ----------
    record :
        With ``Volumes`` and ``Scores``.
    images :
        ``labels`` and the image below them, ``scan`` or ``resampled``; without labels there is no picture.
    folder :
        For the picture.
    title :
        Heading of the picture.

    """
    made: list[Section] = []
    if "labels" in images:
        labels = images["labels"]
        below = next((images[role] for role in ("scan", "resampled") if role in images), None)
        drawn = overlay_png(
            labels.with_data(labels.data * 0) if below is None else below,
            labels,
            folder / "overlay.png",
            title=title,
            synthetic=bool(record.get("Synthetic", False)),
        )
        made.append(Picture("Overlay", drawn, _ALT, _CAPTION))
    if record.get("Scores"):
        made.append(scores_table({name: _number(score) for name, score in record["Scores"].items()}))
    volumes = record.get("Volumes")
    if volumes is None:
        made.append(
            Text("Volumes", ["This sidecar holds no volumes: it was written before version 1.1 of its schema."])
        )
    elif volumes:
        made += volume_tables({name: _number(volume) for name, volume in volumes.items()})
    else:
        made.append(Text("Volumes", ["No structure was found."], "bad"))
    own = "labels" in record.get("Options", {})
    made.append(Text("Method", [OWN_METHOD if own else METHOD]))
    return made


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _other_side(name: str) -> tuple[str, str] | None:
    """Return (left prefix, name on the right) for a left structure, ("", left name) for a right one, else None."""
    for left, right in _SIDES:
        if name.startswith(left):
            return left, right + name[len(left) :]
        if name.startswith(right):
            return "", left + name[len(right) :]
    return None


def _sided_row(name: str, other: str, prefix: str, left: float, right: float) -> Row:
    index = asymmetry_index(left, right)
    bar = None if index != index else max(-1.0, min(1.0, index / _FULL_BAR))
    return [_named(name[len(prefix) :], name, other), left, left / 1000, right, right / 1000, Cell(index, bar=bar)]


def _named(shown: str, *names: str) -> Cell:
    """Return the cell that names a row, with the different colours of its structures."""
    colours: list[tuple[int, int, int]] = []
    for name in names:
        colour = label_colour(_CODES[name]) if name in _CODES else None
        if colour and all(math.dist(colour, other) > _SAME_COLOUR for other in colours):
            colours.append(colour)
    return Cell(shown, colours=colours)


def _sided_columns(first: str) -> list[Column]:
    mm3 = "mm\N{SUPERSCRIPT THREE}"
    return [
        Column(first),
        Column("", mm3, "Left", 0),
        Column("", "ml", "Left", 2),
        Column("", mm3, "Right", 0),
        Column("", "ml", "Right", 2),
        Column("Asymmetry", "%", digits=1),
    ]


def _verdict(score: float) -> Level:
    if score >= GOOD_SCORE:
        return "good"
    return "doubtful" if score >= ACCEPT_SCORE else "bad"
