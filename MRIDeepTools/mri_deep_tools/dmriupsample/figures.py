"""Pictures of a report: slices of a direction that was left out, maps of errors and of FA and MD, bars, directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DependencyError
from ..geometry import Reorient
from ..overlay import REPORT_HINT
from ..volume import Volume

__all__ = ["Tile", "bars_png", "directions_png", "tiles_png"]

_DPI = 110
_INK = "#e8ecef"
_COLOURS = ("#4cc2ff", "#ffb547", "#b7e36a", "#c9a0ff")


@dataclass(frozen=True)
class Tile:
    """A slice to draw: its values come from ``data`` (X, Y, Z); ``unit`` stands at the colour bar, if there is one."""

    title: str
    data: np.ndarray
    low: float
    high: float
    colours: str = "gray"
    unit: str = ""


def tiles_png(rows: Sequence[Sequence[Tile | None]], grid: Volume, mask: np.ndarray, path: Path) -> Path:
    """Draw rows of axial slices through the middle of the mask, radiological convention; write a PNG file.

    Parameters
    ----------
    rows :
        Tiles, all on the grid; None leaves a place empty. Outside the mask a coloured tile is black.
    grid :
        Gives the affine.
    mask :
        (X, Y, Z) bool: what is shown lies around it.
    path :
        PNG file.

    Raises
    ------
    DependencyError : matplotlib is missing.

    """
    figure_of, canvas = _matplotlib()
    turn = Reorient.to_ras(grid)

    def upright(data: np.ndarray) -> np.ndarray:
        return np.asarray(turn.apply(Volume(data, grid.affine)).data)

    inside = upright(mask.astype(np.uint8)) > 0
    (x0, x1), (y0, y1), (z0, z1) = _extent(inside)
    level, spacing = (z0 + z1) // 2, turn.apply(Volume(mask.astype(np.uint8), grid.affine)).spacing
    columns = max(3, *(len(row) for row in rows))
    shape = (x1 - x0) * spacing[0], (y1 - y0) * spacing[1]
    wide = 11.0 / columns
    figure = figure_of(figsize=(11, (wide * shape[1] / shape[0] * 0.92 + 0.5) * len(rows)), facecolor="black")
    canvas(figure)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            if tile is None:
                continue
            axes = figure.add_subplot(len(rows), columns, row * columns + column + 1)
            data = np.where(mask, tile.data, np.nan) if tile.colours != "gray" else tile.data
            plane = upright(data)[x0:x1, y0:y1, level][::-1]
            shown = axes.imshow(
                plane.T,
                cmap=tile.colours,
                vmin=tile.low,
                vmax=tile.high,
                origin="lower",
                aspect=spacing[1] / spacing[0],
            )
            axes.set_axis_off()
            axes.set_title(tile.title, color=_INK, fontsize=9)
            if tile.unit:
                bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.02)
                bar.set_label(tile.unit, color=_INK, fontsize=8)
                bar.ax.tick_params(colors=_INK, labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI, facecolor="black")
    return path


def bars_png(labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], unit: str, path: Path) -> Path:
    """Draw groups of bars, one group per label; write a PNG file. DependencyError without matplotlib."""
    figure_of, canvas = _matplotlib()
    figure = figure_of(figsize=(11, 3.4), facecolor="white")
    canvas(figure)
    axes = figure.add_subplot(1, 1, 1)
    width = 0.8 / max(len(series), 1)
    for index, (name, values) in enumerate(series):
        places = np.arange(len(values)) + (index - (len(series) - 1) / 2) * width
        axes.bar(places, values, width, label=name, color=_COLOURS[index % len(_COLOURS)])
    step = max(len(labels) // 32, 1)
    axes.set_xticks(np.arange(len(labels))[::step], list(labels)[::step], fontsize=8)
    axes.set_xlabel("volume that was left out")
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    return path


def directions_png(measured: np.ndarray, unused: np.ndarray, predicted: np.ndarray, path: Path) -> Path:
    """Draw axes (n, 3) in RAS on the upper half of the sphere, seen from the top; write a PNG file.

    Equal areas of the sphere have equal areas in the picture (Lambert), so that even sets look even.
    """
    figure_of, canvas = _matplotlib()
    figure = figure_of(figsize=(4.6, 4.8), facecolor="white")
    canvas(figure)
    axes = figure.add_subplot(1, 1, 1)
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(turn), np.sin(turn), color="#9aa7b0", linewidth=1)
    groups = (
        ("predicted", predicted, "#ff8c1a", "o", 26),
        ("measured, not read", unused, "#9aa7b0", "s", 30),
        ("measured, read", measured, "#0a6ebd", "^", 46),
    )
    for name, vectors, colour, marker, size in groups:
        if len(vectors):
            up = np.where(vectors[:, 2:] < 0, -vectors, vectors)
            scale = np.sqrt(1 / (1 + up[:, 2]))
            axes.scatter(up[:, 0] * scale, up[:, 1] * scale, s=size, c=colour, marker=marker, label=name)
    axes.set_aspect("equal")
    axes.set_axis_off()
    for text, x, y in (("R", 1.07, 0), ("L", -1.07, 0), ("A", 0, 1.07), ("P", 0, -1.07)):
        axes.text(x, y, text, ha="center", va="center", fontsize=9, color="#55616a")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, -0.16), ncols=3, handletextpad=0.2)
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    return path


def _extent(inside: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and last index + 1 of a mask along each axis, with two voxels around it."""
    bounds = []
    for axis in range(3):
        found = np.flatnonzero(inside.any(axis=tuple(k for k in range(3) if k != axis)))
        low, high = (int(found[0]), int(found[-1]) + 1) if found.size else (0, inside.shape[axis])
        bounds.append((max(low - 2, 0), min(high + 2, inside.shape[axis])))
    return bounds


def _matplotlib() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("pictures need matplotlib", REPORT_HINT) from error
    return Figure, FigureCanvasAgg
