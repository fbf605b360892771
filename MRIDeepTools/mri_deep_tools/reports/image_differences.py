"""The images of two results: voxels changed, Dice per label, mean absolute difference, and pictures side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..geometry import same_grid
from ..planes import Shown, planes_png, window_of
from ..report import Cell, Column, Picture, Section, Table, label_colour
from .files import Result

if TYPE_CHECKING:
    from ..volume import Volume

__all__ = ["ImageDifference", "compare_images", "dice_per_label", "image_sections"]

_LABELS = ("labels", "mask")
_CHANGED = {1: (230, 60, 50)}


@dataclass(frozen=True)
class ImageDifference:
    """How two images on one grid differ.

    Attributes
    ----------
    voxels : that are not 0 in one of them (of all volumes of a 4-D image).
    changed : of these, with another value.
    mean_absolute, largest : of the difference over ``voxels``; intensities.
    correlation : Pearson's, over ``voxels``; NaN where one is constant.

    """

    voxels: int
    changed: int
    mean_absolute: float
    largest: float
    correlation: float


def compare_images(first: Volume, second: Volume) -> ImageDifference:
    """Compare two images (X, Y, Z) or (X, Y, Z, C) of one shape; values that are not finite count as 0."""
    a, b = (np.nan_to_num(np.asarray(volume.data, np.float64), posinf=0, neginf=0) for volume in (first, second))
    where = (a != 0) | (b != 0)
    if not where.any():
        return ImageDifference(0, 0, 0.0, 0.0, float("nan"))
    a, b = a[where], b[where]
    away = np.abs(b - a)
    varied = a.std() > 0 and b.std() > 0
    return ImageDifference(
        voxels=int(where.sum()),
        changed=int(np.count_nonzero(away)),
        mean_absolute=float(away.mean()),
        largest=float(away.max()),
        correlation=float(np.corrcoef(a, b)[0, 1]) if varied else float("nan"),
    )


def dice_per_label(first: np.ndarray, second: np.ndarray) -> dict[int, tuple[float, int, int]]:
    """Return, for each label above 0, the Dice coefficient (0 to 1) and the number of voxels in both maps."""
    codes, pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1, return_counts=True)
    found: dict[int, tuple[float, int, int]] = {}
    for code in np.unique(codes[codes > 0]):
        sizes = [int(pairs[codes[row] == code].sum()) for row in (0, 1)]
        both = int(pairs[(codes[0] == code) & (codes[1] == code)].sum())
        found[int(code)] = (2 * both / sum(sizes), *sizes)  # type: ignore[assignment]
    return found


def image_sections(
    first: Result, second: Result, folder: Path, notes: list[str]
) -> tuple[list[Section], dict[str, Any]]:
    """Return the sections about the images that both have, and the figures of the main ones.

    Raises
    ------
    InputError : the main images lie on other grids.

    """
    one, two = first.images(notes.append), second.images(notes.append)
    outputs = [{item.role for item in result.files if item.output} for result in (first, second)]
    roles = [role for role in one if role in outputs[0] & outputs[1] and role in two]
    if not roles:
        return [], {}
    main = next((role for role in ("labels", "image") if role in roles), roles[0])
    figures: dict[str, Any] = {}
    rows = []
    for role in [main, *(role for role in roles if role != main)]:
        if not _alike(one[role], two[role]):
            if role == main:
                raise InputError(
                    f"A and B cannot be compared: their images lie on other grids ({_grid(one[role])} and "
                    f"{_grid(two[role])})",
                    "run both with the same output grid",
                )
            notes.append(f"The output {role} of A and B lies on other grids; it is not compared.")
            continue
        found = compare_images(one[role], two[role])
        share = 100 * found.changed / found.voxels if found.voxels else 0.0
        rows.append([role, found.changed, share, *_intensities(role, found)])
        if role == main:
            figures = {"Identical": found.changed == 0, "VoxelsChanged": found.changed, "PercentChanged": share}
            figures |= (
                {} if role in _LABELS else {"MeanAbsolute": found.mean_absolute, "Correlation": found.correlation}
            )
    columns = [
        Column("Output"),
        Column("Voxels changed", digits=0),
        Column("Of those not 0", "%", digits=3),
        Column("Mean absolute difference", "intensity", digits=4),
        Column("Largest", "intensity", digits=3),
        Column("Correlation", digits=6),
    ]
    if all(row[0] in _LABELS for row in rows):
        columns, rows = columns[:3], [row[:3] for row in rows]
    note = "Counted are voxels that are not 0 in A or in B."
    made: list[Section] = [Table("Images", columns, rows, note=note)]
    if main in _LABELS:
        made += _label_sections(one[main], two[main], {**two, **one}, folder)
    else:
        made.append(_picture(one[main], two[main], folder))
    return made, figures


def _intensities(role: str, found: ImageDifference) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if role in _LABELS else (found.mean_absolute, found.largest, found.correlation)


def _alike(first: Volume, second: Volume) -> bool:
    return first.data.shape == second.data.shape and same_grid(first, second)


def _grid(volume: Volume) -> str:
    shape = " x ".join(map(str, volume.data.shape))
    return f"{shape} voxels of {' x '.join(f'{size:.3g}' for size in volume.spacing)} mm, {''.join(volume.axcodes)}"


def _label_sections(first: Volume, second: Volume, images: Mapping[str, Volume], folder: Path) -> list[Section]:
    codes = [np.rint(np.nan_to_num(np.asarray(volume.data))).astype(np.int64) for volume in (first, second)]
    names = _names()
    voxel_ml = float(abs(np.linalg.det(first.affine[:3, :3]))) / 1000
    rows = [
        [
            Cell(names.get(code, f"label {code}"), colours=[label_colour(code)]),
            dice,
            sizes[0] * voxel_ml,
            sizes[1] * voxel_ml,
            (sizes[1] - sizes[0]) * voxel_ml,
            100 * (sizes[1] - sizes[0]) / sizes[0] if sizes[0] else None,
        ]
        for code, (dice, *sizes) in dice_per_label(*codes).items()
    ]
    columns = [
        Column("Label"),
        Column("Dice of A and B", digits=4),
        Column("A", "ml, labelled voxels", digits=2),
        Column("B", "ml, labelled voxels", digits=2),
        Column("B \N{MINUS SIGN} A", "ml", digits=3),
        Column("Change", "%", digits=2),
    ]
    below = next((images[role] for role in ("scan", "resampled") if role in images), None)
    below = first.with_data(codes[0] * 0) if below is None or not _alike(below, first) else below
    low, high = window_of(below)
    changed = first.with_data((codes[0] != codes[1]).astype(np.uint8))
    shown = [
        Shown("A", below, low, high, labels=first.with_data(codes[0])),
        Shown("B", below, low, high, labels=first.with_data(codes[1])),
        Shown("changed", below, low, high, labels=changed, palette=_CHANGED),
    ]
    picture = planes_png(shown, folder / "labels.png", through=changed if changed.data.any() else None)
    alt = "Axial, coronal and sagittal slices: the labels of A, those of B, and the voxels that differ in red"
    caption = "Slices with most changed voxels. Red: another label." if changed.data.any() else "No voxel has changed."
    return [
        Picture("Side by side", picture, alt, caption),
        Table("Overlap of each label", columns, rows, note="Dice: 1 = the same voxels, 0 = none in common."),
    ]


def _names() -> Mapping[int, str]:
    from ..synthsegment.labels import LABELS

    return {code: item.name for code, item in LABELS.items()}


def _picture(first: Volume, second: Volume, folder: Path) -> Picture:
    caption = "Grey values of both are shown alike. Red: B is brighter than A, blue: darker."
    if first.data.ndim == 4:
        away = np.abs(second.data.astype(np.float64) - first.data).mean(axis=(0, 1, 2))
        index = int(away.argmax())
        first, second = (volume.with_data(volume.data[..., index]) for volume in (first, second))
        caption = f"Volume {index} (numbered from 0), which differs most. {caption}"
    a, b = (np.nan_to_num(np.asarray(volume.data, np.float32)) for volume in (first, second))
    seen = (a != 0) | (b != 0)
    limit = float(np.percentile(np.abs(b - a)[seen], 99)) if seen.any() else 0.0
    limit = limit or float(np.abs(b - a).max()) or 1.0
    low, high = window_of(first, second)
    shown = [
        Shown("A", first.with_data(a), low, high),
        Shown("B", second.with_data(b), low, high),
        Shown(
            "B \N{MINUS SIGN} A", first.with_data(np.where(seen, b - a, np.nan)), -limit, limit, "RdBu_r", "intensity"
        ),
    ]
    alt = "Axial, coronal and sagittal slices: A, B, and their difference"
    return Picture("Side by side", planes_png(shown, folder / "images.png"), alt, caption)
