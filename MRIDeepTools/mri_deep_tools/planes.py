"""Images on one grid side by side in three planes, with true proportions and one scale each.

Radiological convention: the patient's right is on the left of axial and coronal slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DependencyError
from .overlay import REPORT_HINT, blend, label_colour
from .volume import Volume

__all__ = ["Shown", "planes_png", "window_of"]

_DPI = 110
_WIDTH = 10.0  # inches of the whole picture
_INK = "#e8ecef"
_PLANES = (("axial", 2, ("R", "L")), ("coronal", 1, ("R", "L")), ("sagittal", 0, ("A", "P")))
_TITLE, _BAR = 0.32, 0.62  # inches above the panels, and of a colour bar below them
_GAP = 0.06  # inches between panels
_FOUND = 0.02  # of the largest value, above which a voxel counts as content


@dataclass(frozen=True)
class Shown:
    """An image to draw: (X, Y, Z), its heading, the values that are black and white, and the unit of a colour bar.

    NaN is black. ``labels``, on the same grid, are laid over it in the colours (0-255) of ``palette``, or FreeSurfer's.
    """

    title: str
    volume: Volume
    low: float
    high: float
    colours: str = "gray"
    unit: str = ""
    labels: Volume | None = None
    palette: Mapping[int, tuple[int, int, int]] | None = None


def window_of(*volumes: Volume, percentiles: tuple[float, float] = (1.0, 99.5)) -> tuple[float, float]:
    """Return the values to be drawn black and white: percentiles of all that is not 0, together."""
    values = np.concatenate([np.asarray(volume.data)[np.asarray(volume.data) != 0].ravel() for volume in volumes])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, percentiles))
    low = min(low, 0.0) if values.min() > 0 else low  # black around a brain stays black
    return low, high if high > low else low + 1.0


def planes_png(images: Sequence[Shown], path: str | Path, *, through: Volume | None = None) -> Path:
    """Draw images on one grid: a column for each, a row for each plane; a single image has its planes in one row.

    Slices go through the middle of what the first image shows, or where most of ``through`` is not 0.

    Parameters
    ----------
    images :
        Up to four, all on the grid of the first.
    path :
        PNG file to write.
    through :
        On the same grid: what should be in sight.

    Raises
    ------
    DependencyError without matplotlib.

    """
    turned = [_upright(item.volume) for item in images]
    spacing, data = turned[0].spacing, [np.asarray(volume.data, np.float32) for volume in turned]
    codes = [None if item.labels is None else np.asarray(_upright(item.labels).data) for item in images]
    middle = _middle(data[0]) if through is None else _busiest(np.asarray(_upright(through).data) != 0)
    panels = [
        [
            _slice(values, axis, middle[axis]) if marks is None else _coloured(values, marks, item, axis, middle[axis])
            for values, marks, item in zip(data, codes, images, strict=True)
        ]
        for _, axis, _ in _PLANES
    ]
    sizes = [_size(spacing, turned[0].shape3, axis) for _, axis, _ in _PLANES]
    cells = [(row, column) for row in range(3) for column in range(len(images))]
    alone = len(images) == 1
    wide = [width for width, _ in sizes] if alone else [max(width for width, _ in sizes)] * len(images)
    tall = [max(height for _, height in sizes)] if alone else [height for _, height in sizes]
    inch = _WIDTH / sum(wide)
    bars = _BAR if any(item.unit for item in images) else 0.1
    height = sum(tall) * inch + _TITLE + bars
    figure = _figure(_WIDTH, height)
    for row, column in cells:
        at = (0, row) if alone else (row, column)
        width, rise = sizes[row][0] * inch - _GAP, sizes[row][1] * inch - _GAP * sizes[row][1] / sizes[row][0]
        left = sum(wide[: at[1]]) * inch + (wide[at[1]] * inch - width) / 2
        top = _TITLE + sum(tall[: at[0]]) * inch + (tall[at[0]] * inch - rise) / 2
        box = (left / _WIDTH, 1 - (top + rise) / height, width / _WIDTH, rise / height)
        shown = _panel(figure, box, panels[row][column], images[column], _PLANES[row], names=column == 0)
        if not alone and row == 0:
            x = (sum(wide[:column]) + wide[column] / 2) * inch / _WIDTH
            figure.text(x, 1 - 0.1 / height, images[column].title, color=_INK, fontsize=10, ha="center", va="top")
        if row == 2 and images[column].unit:
            span = (0.0, 1.0) if alone else (sum(wide[:column]) * inch / _WIDTH, wide[column] * inch / _WIDTH)
            _bar(figure, shown, images[column].unit, span, height)
    if alone:
        figure.text(0.5, 1 - 0.1 / height, images[0].title, color=_INK, fontsize=10, ha="center", va="top")
    figure.savefig(path, dpi=_DPI, facecolor="black")
    return Path(path)


def _upright(volume: Volume) -> Volume:
    from .geometry import Reorient

    first = volume if volume.data.ndim == 3 else volume.with_data(volume.data[..., 0])
    return Reorient.to_ras(first).apply(first)


def _middle(data: NDArray[np.float32]) -> list[int]:
    """Return the indices of the slices: the middle of the content along each axis."""
    size = np.abs(np.nan_to_num(data))
    found = np.nonzero(size > _FOUND * float(size.max()))
    if not found[0].size:
        return [n // 2 for n in data.shape]
    return [int((axis.min() + axis.max() + 1) // 2) for axis in found]


def _busiest(where: NDArray[np.bool_]) -> list[int]:
    """Return the indices of the slices with most voxels."""
    if not where.any():
        return [n // 2 for n in where.shape]
    return [int(where.sum(axis=tuple(k for k in range(3) if k != axis)).argmax()) for axis in range(3)]


def _coloured(
    values: NDArray[np.float32], codes: NDArray[Any], image: Shown, axis: int, index: int
) -> NDArray[np.float64]:
    """Return a slice with labels over it, (rows, columns, RGB), 0 to 1."""
    grey = np.clip((_slice(np.nan_to_num(values), axis, index) - image.low) / (image.high - image.low), 0, 1)
    plane = _slice(codes, axis, index).astype(np.int64)
    table = {int(code): label_colour(int(code), image.palette) for code in np.unique(plane) if code > 0}
    return blend(grey.astype(np.float64), plane, table)


def _slice(data: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Return a slice of RAS data as a picture, rows from the top; right or front on its left side."""
    return np.take(data, index, axis=axis)[::-1].T[::-1]


def _size(spacing: tuple[float, ...], shape: tuple[int, ...], axis: int) -> tuple[float, float]:
    across, up = (k for k in range(3) if k != axis)
    return shape[across] * spacing[across], shape[up] * spacing[up]


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("pictures need matplotlib", REPORT_HINT) from error
    figure = Figure(figsize=(width, height), facecolor="black")
    FigureCanvasAgg(figure)
    return figure


def _panel(
    figure: Any,
    box: tuple[float, float, float, float],
    data: NDArray[Any],
    image: Shown,
    plane: tuple[str, int, tuple[str, str]],
    *,
    names: bool,
) -> Any:
    """Draw one slice with its side marks; the first of a row says which plane it is."""
    axes = figure.add_axes(box)
    shown = axes.imshow(data, cmap=image.colours, vmin=image.low, vmax=image.high, aspect="auto")
    axes.set_axis_off()
    style = {"transform": axes.transAxes, "color": _INK, "fontsize": 8, "path_effects": [_edge()]}
    for mark, x, side in ((plane[2][0], 0.015, "left"), (plane[2][1], 0.985, "right")):
        axes.text(x, 0.5, mark, ha=side, va="center", **style)
    if names:
        axes.text(0.02, 0.02, plane[0], va="bottom", **style)
    return shown


def _edge() -> Any:
    """Return a dark edge of letters, which keeps them readable on any grey."""
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=1.6, foreground="black")


def _bar(figure: Any, shown: Any, unit: str, span: tuple[float, float], height: float) -> None:
    """Draw a colour bar below its column."""
    left, width = span[0] + 0.15 * span[1], 0.7 * span[1]
    bar = figure.colorbar(
        shown, cax=figure.add_axes((left, 0.42 / height, width, 0.09 / height)), orientation="horizontal"
    )
    bar.set_label(unit, color=_INK, fontsize=8)
    bar.ax.tick_params(colors=_INK, labelsize=7)
