"""The report of a translation: pictures of slices beside each other, uncertainty, what was done, and the warnings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DependencyError
from ..geometry import Reorient
from ..overlay import REPORT_HINT
from ..report import KeyValues, Picture, Section, Text, write_report
from .volumes import AXES

if TYPE_CHECKING:
    from ..volume import Volume
    from .predict import PictureTranslation, TranslationResult

__all__ = [
    "TITLE",
    "as_volume",
    "pictures_png",
    "scan_png",
    "sections",
    "write_picture_report",
    "write_translation_report",
]

TITLE = "Translated contrast"

METHOD = (
    "A diffusion network made this image from an image of another contrast (SynDiff). It shows what such images "
    "usually show, not what was measured; on scans that differ from those of its training it can fail altogether.",
    "The method is not validated for lesions: they can vanish, appear, or change their size. Structures can lie a few "
    "pixels off. Do not read findings from this image.",
)
_SHOWN_SLICES = 5
_SHOWN_PICTURES = 4
_INK = "#888"
_WIDTH, _TALLEST = 11.0, 5.0  # inches
_Plane = Callable[[np.ndarray], np.ndarray]
PictureRow = tuple[np.ndarray, np.ndarray, "np.ndarray | None"]
"""A picture, what was made of it, and the spread of samples."""
_JOINED = {"blend": "blended where they overlap", "published": "put together as published"}


def write_translation_report(path: str | Path, result: TranslationResult, *, record: Mapping[str, Any]) -> Path:
    """Write the page of a scan; see :func:`mri_deep_tools.report.write_report` for what it may raise."""
    images = {"scan": result.scan, "image": result.image}
    if result.spread is not None:
        images["std"] = result.spread
    with tempfile.TemporaryDirectory() as folder:
        return write_report(path, title=TITLE, sections=sections(record, images, Path(folder)), record=record)


def write_picture_report(path: str | Path, results: Sequence[PictureTranslation], *, record: Mapping[str, Any]) -> Path:
    """Write the page of one or several pictures, of which the first few are shown."""
    made = sections(record, {}, Path())
    first = results[0]
    rows = [(item.picture, item.image, item.spread) for item in results]
    with tempfile.TemporaryDirectory() as folder:
        picture = _before_and_after(rows, first.source, first.target, Path(folder))
        return write_report(path, title=TITLE, sections=[made[0], picture, *made[1:]], record=record)


def _before_and_after(rows: Sequence[PictureRow], source: str, target: str, folder: Path) -> Picture:
    """Return pictures, what was made of them, and the spread of samples; of many the first few."""
    return Picture(
        f"The first {_SHOWN_PICTURES} of {len(rows)}" if len(rows) > _SHOWN_PICTURES else "Before and after",
        pictures_png(rows, source, target, folder / "pictures.png"),
        f"{source} pictures, and the synthetic {target} pictures made from them",
        f"{source} left, synthetic {target} beside it. Look for structures that only one shows.",
    )


def as_volume(picture: np.ndarray) -> Volume:
    """Return a picture (H, W) as a volume (H, W, 1) without a place in the world, as reports keep and find it."""
    from ..volume import Volume

    return Volume(picture[:, :, None], np.eye(4))


def sections(record: Mapping[str, Any], images: Mapping[str, Volume], folder: Path) -> list[Section]:
    """Return what the page of a translation shows: the same during the run and from the sidecar.

    Parameters
    ----------
    record :
        With ``SourceContrast``, ``TargetContrast``, ``Translation`` and ``ModelFacts``.
    images :
        ``scan``, ``image`` and ``std``, as far as they are there; of a picture ``picture``, ``image`` and ``std``,
        each (H, W, 1).
    folder :
        For the drawings.

    """
    source, target = record.get("SourceContrast", "source"), record.get("TargetContrast", "target")
    facts = record.get("Translation", {})
    made: list[Section] = [Text(f"This {target} was made from {source}, not measured", METHOD, level="doubtful")]
    rows = [(name, images[key], colours) for name, key, colours in _rows(source, target) if _is_volume(images, key)]
    if _is_volume(images, "image") and facts.get("Axis") in AXES:
        order = ", ".join(name for name, _, _ in rows)
        caption = f"From top to bottom: {order}. Look for structures that only one of them shows."
        drawing = scan_png(rows, images["image"], facts["Axis"], folder / "slices.png")
        made.append(Picture("Slices", drawing, f"Slices; from top to bottom: {order}", caption))
        if facts.get("SliceRange", [0, 0, 1])[2] == 1 and facts.get("SlicesTranslated", 0) > _SHOWN_SLICES:
            drawing = scan_png(rows, images["image"], facts["Axis"], folder / "across.png", across=True)
            caption = "Each slice was made for itself: stripes are differences between neighbours, not anatomy."
            alt = f"Planes across the slices; from top to bottom: {order}"
            made.append(Picture("Across the slices", drawing, alt, caption))
    if "Pixels" in facts and _is_volume(images, "picture") and _is_volume(images, "image"):
        picture, image = (images[name].data[:, :, 0] for name in ("picture", "image"))
        spread = images["std"].data[:, :, 0] if _is_volume(images, "std") else None
        made.append(_before_and_after([(picture, image, spread)], source, target, folder))
    made.append(KeyValues("How it was made", _told(facts, record.get("ModelFacts", {}))))
    return made


def _is_volume(images: Mapping[str, Volume], role: str) -> bool:
    return role in images and images[role].data.ndim == 3


def _rows(source: str, target: str) -> list[tuple[str, str, str]]:
    """Return heading, role and colours of what is drawn."""
    return [
        (source, "scan", "gray"),
        (f"{target} (synthetic)", "image", "gray"),
        ("standard deviation", "std", "magma"),
    ]


def _told(facts: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as a person reads them."""
    told: dict[str, Any] = {}
    if "Axis" in facts:
        told["Slices"] = (
            f"{facts['SlicesTranslated']} of {facts['SlicesTotal']}, {facts['Axis']}; empty ones were left out"
        )
        high, wide = facts["SliceShape"]
        sides = " x ".join(f"{side:.3g}" for side in facts["PixelMm"])
        told["Pixels of a slice"] = f"{wide} x {high}, {sides} mm" + (", resampled" if facts["Resampled"] else "")
        told["The network saw"] = facts["Window"]
        told["Intensity that became 1"] = f"{facts['IntensityDivisor']:.4g}"
        if facts["ClippedShare"]:
            told["Brighter voxels, which were cut"] = f"{100 * facts['ClippedShare']:.2f} %"
    if "Pixels" in facts:
        high, wide = facts["Pixels"]
        told["Pixels"] = f"{wide} x {high}"
    if "Pictures" in facts:
        told["Pictures"] = str(facts["Pictures"])
    if "Stitching" in facts:
        count = f"{facts['Tiles']}, " if "Tiles" in facts else ""
        told["Tiles"] = f"{count}{_JOINED[facts['Stitching']]}"
    for name, key in (
        ("Steps of the diffusion", "Steps"),
        ("The model was trained on", "TrainingData"),
        ("Note of the model", "Note"),
    ):
        if model.get(key):
            told[name] = str(model[key])
    return told


def scan_png(
    rows: Sequence[tuple[str, Volume, str]], image: Volume, axis: str, path: str | Path, *, across: bool = False
) -> Path:
    """Draw slices of volumes on one grid, one volume below the other; write a PNG file.

    Parameters
    ----------
    rows : heading, volume and colours of each; a colour bar is drawn for all but grey ones.
    image : where it is not 0, slices are chosen.
    axis : in which slices follow each other.
    path : of the PNG file.
    across : planes across the slices in place of slices.

    Raises
    ------
    DependencyError : matplotlib is not installed.

    """
    way = Reorient.to(image, AXES[axis])
    shown, spacing = way.apply(image).data, way.apply(image).spacing
    planes = _across(shown, spacing) if across else _slices(shown, spacing)
    sizes = [plane(shown).shape for _, plane, _ in planes]
    ratios = [size[1] / (size[0] * aspect) for size, (_, _, aspect) in zip(sizes, planes, strict=True)]
    figure = _figure((_WIDTH, min((_WIDTH - 0.8) / sum(ratios), _TALLEST) * len(rows) + 0.3))
    grid = figure.subplots(len(rows), len(planes), squeeze=False, width_ratios=ratios)
    for row, (name, volume, colours) in enumerate(rows):
        data = way.apply(volume).data.astype(np.float32)
        top = max(float(np.percentile(data[data > 0], 99.5)) if (data > 0).any() else 1.0, 1e-6)
        for column, (title, plane, aspect) in enumerate(planes):
            axes = grid[row][column]
            drawn = axes.imshow(plane(data), cmap=colours, vmin=0, vmax=top, aspect=aspect, interpolation="nearest")
            _tidy(axes, title if not row else "", name if not column else "")
        if colours != "gray":
            figure.colorbar(drawn, cax=grid[row][-1].inset_axes((1.02, 0.0, 0.04, 1.0)))
    return _save(figure, path)


def _slices(shown: np.ndarray, spacing: Sequence[float]) -> list[tuple[str, _Plane, float]]:
    """Return titles, cuts and aspects of slices out of those that hold something."""
    found = np.flatnonzero(shown.any(axis=(0, 1)))
    chosen = found[np.unique(np.linspace(0, len(found) - 1, _SHOWN_SLICES + 2).round().astype(int)[1:-1])]
    if not len(found):
        chosen = np.array([shown.shape[2] // 2])
    aspect = spacing[0] / spacing[1]
    return [(f"slice {number}", _cut(int(number)), aspect) for number in chosen]


def _cut(number: int) -> _Plane:
    return lambda data: data[:, :, number]


def _across(shown: np.ndarray, spacing: Sequence[float]) -> list[tuple[str, _Plane, float]]:
    """Return two cuts across the slices, through the middle of what they show."""
    found = [np.flatnonzero(shown.any(axis=(1 - axis, 2))) for axis in range(2)]
    row, column = (int(np.median(some)) if some.size else 0 for some in found)
    return [
        ("", lambda data: data[row].T[::-1], spacing[2] / spacing[1]),
        ("", lambda data: data[:, column].T[::-1], spacing[2] / spacing[0]),
    ]


def pictures_png(rows: Sequence[PictureRow], source: str, target: str, path: str | Path) -> Path:
    """Draw the first pictures, one per row, what was made of them, and the spread of samples where it is known.

    Writes a PNG file; DependencyError without matplotlib.
    """
    shown = list(rows[:_SHOWN_PICTURES])
    columns = [(source, [item[0] for item in shown], "gray", 255)]
    columns.append((f"{target} (synthetic)", [item[1] for item in shown], "gray", 255))
    spreads = [item[2] for item in shown if item[2] is not None]
    if len(spreads) == len(shown):
        top = max(int(np.percentile(np.concatenate([item.ravel() for item in spreads]), 99.5)), 1)
        columns.append(("standard deviation (grey values)", spreads, "magma", top))
    wide = _WIDTH / len(columns)
    heights = [min(wide * item[0].shape[0] / item[0].shape[1], _TALLEST) for item in shown]
    figure = _figure((_WIDTH, sum(heights) + 0.3))
    grid = figure.subplots(len(shown), len(columns), squeeze=False, height_ratios=heights)
    for column, (name, images, colours, top) in enumerate(columns):
        for row, image in enumerate(images):
            drawn = grid[row][column].imshow(image, cmap=colours, vmin=0, vmax=top)
            _tidy(grid[row][column], name if not row else "", "")
        if colours != "gray":
            figure.colorbar(drawn, ax=[line[column] for line in grid], location="bottom", shrink=0.6, fraction=0.05)
    return _save(figure, path)


def _tidy(axes: Any, title: str, name: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(title, fontsize=9, color=_INK)
    axes.set_ylabel(name, fontsize=9, color=_INK)


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("pictures need matplotlib", REPORT_HINT) from error
    return Figure(figsize=size, layout="constrained")


def _save(figure: Any, path: str | Path) -> Path:
    figure.savefig(path, dpi=110)
    return Path(path)
