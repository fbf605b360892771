"""The picture of a segmentation over its image: three orthogonal planes, a few slices through what is labelled.

Slices are sampled in world coordinates (RAS, mm), so that oblique scans appear upright, anisotropic voxels have
their true proportions, and image and labels may lie on different grids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import DependencyError, RequestError
from .provenance import DISCLAIMER

if TYPE_CHECKING:
    from .volume import Volume

__all__ = ["REPORT_HINT", "Convention", "blend", "label_colour", "overlay_png"]

REPORT_HINT = 'run: pip install "mri-deep-tools[report]"'
Convention = Literal["radiological", "neurological"]
Colour = tuple[int, int, int]

_MARGIN_MM = 12.0  # around what is labelled
_GAP_MM = 8.0  # between panels
_DPI = 150
_WIDTH_PIXELS = 1650  # all panels of the widest row
_FILL, _OUTLINE = 0.38, 0.95  # opacity of labels and of their outlines
_WINDOW = (1.0, 99.5)  # percentiles of the shown intensities that become black and white
_SAMPLE = 400_000  # labelled voxels that are enough to find their extent
_INK, _DIM, _WARN = "#e8ecef", "#9aa7b0", "#ffc44d"


@dataclass(frozen=True)
class _Plane:
    """A family of slices: which world axis runs to the right, which up, and which is the position of the slice."""

    name: str
    right: int
    up: int
    through: int
    sign: int  # -1 where the world axis to the right runs towards the left of the picture
    marks: tuple[str, str]

    @property
    def letter(self) -> str:
        return "xyz"[self.through]


@dataclass(frozen=True)
class _Panel:
    plane: _Plane
    position: float
    picture: NDArray[np.float64]  # (rows from the top, columns, RGB), 0 to 1
    plain: bool


def label_colour(code: int, colours: Mapping[int, Colour] | None = None) -> Colour:
    """Return the FreeSurfer colour of a label (0-255), or a steady invented one for an unknown code."""
    import colorsys

    from .synthsegment.labels import LABELS

    if colours is not None and code in colours:
        return colours[code]
    if code in LABELS:
        return LABELS[code].colour
    hue = (code * 0.618033988749895) % 1.0  # the golden ratio spreads neighbouring codes over the colour circle
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def overlay_png(
    image: Volume,
    labels: Volume,
    path: str | Path,
    *,
    title: str = "Segmentation",
    synthetic: bool = False,
    slices: int = 4,
    convention: Convention = "radiological",
    colours: Mapping[int, Colour] | None = None,
) -> Path:
    """Draw labels over an image in axial, coronal and sagittal slices and write a PNG file.

    Parameters
    ----------
    image :
        (X, Y, Z) scan.
    labels :
        (X, Y, Z) label map in the same world space, on any grid; slices are placed where it has labels.
    path :
        PNG file to write.
    title :
        Heading; must not name a person.
    synthetic :
        Mark the picture as showing intensities that no scanner measured.
    slices :
        Slices with labels per plane (1 to 8); the first panel of each row repeats the middle one without labels.
    convention :
        Radiological shows the patient's right on the left side, neurological on the right side.
    colours :
        Colours (0-255) by code, in place of FreeSurfer's.

    Raises
    ------
    DependencyError without matplotlib; OutputError when the file cannot be written.

    """
    if not 1 <= slices <= 8:
        raise RequestError(f"{slices} slices per plane", "ask for 1 to 8")
    low, high, first, last = _field(image, labels)
    pixel = max(float((high - low).max() + _GAP_MM) * (slices + 1) / _WIDTH_PIXELS, 0.2)
    table = {int(code): label_colour(int(code), colours) for code in np.unique(labels.data) if code > 0}
    rows = []
    for plane in _planes(convention):
        fractions = (np.arange(slices) + 0.7) / (slices + 0.4)
        positions = first[plane.through] + fractions * (last - first)[plane.through]
        rows.append((plane, positions, [_cut(image, labels, plane, at, low, high, pixel) for at in positions]))
    shades = np.concatenate([grey.ravel() for _, _, cuts in rows for grey, _ in cuts])
    window = _window(shades)
    panels = [_row_of_panels(plane, positions, cuts, window, table) for plane, positions, cuts in rows]
    return _draw(panels, Path(path), pixel, title, synthetic, convention)


def _planes(convention: Convention) -> tuple[_Plane, ...]:
    if convention not in ("radiological", "neurological"):
        raise RequestError(f"unknown convention {convention!r}", "use radiological or neurological")
    flipped = convention == "radiological"
    sign, sides = (-1, ("R", "L")) if flipped else (1, ("L", "R"))
    return (
        _Plane("Axial", 0, 1, 2, sign, sides),
        _Plane("Coronal", 0, 2, 1, sign, sides),
        _Plane("Sagittal", 1, 2, 0, -1, ("A", "P")),
    )


def _field(image: Volume, labels: Volume) -> tuple[NDArray[np.float64], ...]:
    """Return world corners (mm): lower and upper of what is shown, then lower and upper of where slices lie.

    Percentiles, so that a few labelled voxels far away (fluid in the spinal canal) do not make the brain small.
    """
    voxels = np.argwhere(np.asarray(labels.data) > 0)
    if len(voxels):
        voxels, affine = voxels[:: max(len(voxels) // _SAMPLE, 1)], labels.affine
    else:
        voxels = np.stack(np.meshgrid(*[(0, n - 1) for n in image.shape3]), axis=-1).reshape(-1, 3)
        affine = image.affine
    points = voxels @ affine[:3, :3].T + affine[:3, 3]
    low, first, last, high = np.percentile(points, [0.1, 1, 99, 99.9], axis=0)
    return low - _MARGIN_MM, high + _MARGIN_MM, first, last


def _cut(
    image: Volume,
    labels: Volume,
    plane: _Plane,
    position: float,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    pixel: float,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return intensities and labels of one slice, rows from the top of the picture."""
    across = np.arange(low[plane.right], high[plane.right], pixel)[:: plane.sign]
    down = np.arange(low[plane.up], high[plane.up], pixel)[::-1]
    points = np.empty((3, len(down), len(across)))
    points[plane.right], points[plane.up] = across[None, :], down[:, None]
    points[plane.through] = position
    grey = _sample(image, points, order=1)
    codes = _sample(labels, points, order=0)
    return grey, np.rint(codes).astype(np.int64)


def _sample(volume: Volume, points: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Return the values of a volume at world points (3, rows, columns); 0 outside."""
    from scipy.ndimage import map_coordinates

    inverse = np.linalg.inv(volume.affine)
    voxels = np.tensordot(inverse[:3, :3], points, axes=1) + inverse[:3, 3, None, None]
    data = volume.data if volume.data.ndim == 3 else volume.data[..., 0]
    return np.asarray(map_coordinates(data, voxels, output=np.float64, order=order, mode="constant", cval=0.0))


def _window(shades: NDArray[np.float64]) -> tuple[float, float]:
    shown = shades[shades != 0]
    if not shown.size:
        return 0.0, 1.0
    low, high = np.percentile(shown, _WINDOW)
    low = min(low, 0.0) if np.all(shown > 0) else low  # the black around a skull-stripped brain stays black
    return float(low), float(high if high > low else low + 1.0)


def _row_of_panels(
    plane: _Plane,
    positions: Sequence[float],
    cuts: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]],
    window: tuple[float, float],
    table: Mapping[int, Colour],
) -> list[_Panel]:
    """Return the middle slice without labels, then every slice with them."""
    middle = len(cuts) // 2
    grey = [np.clip((cut[0] - window[0]) / (window[1] - window[0]), 0.0, 1.0) for cut in cuts]
    plain = _Panel(plane, positions[middle], np.repeat(grey[middle][..., None], 3, axis=2), True)
    return [
        plain,
        *(
            _Panel(plane, at, blend(shade, cut[1], table), False)
            for at, shade, cut in zip(positions, grey, cuts, strict=True)
        ),
    ]


def blend(grey: NDArray[np.float64], codes: NDArray[np.int64], table: Mapping[int, Colour]) -> NDArray[np.float64]:
    """Return a grey slice (0 to 1) under coloured labels with firm outlines, (rows, columns, RGB), 0 to 1."""
    picture = np.repeat(grey[..., None], 3, axis=2)
    if not table:
        return picture
    keys = np.array(sorted(table))
    palette = np.array([table[int(key)] for key in keys], np.float64) / 255.0
    colour = palette[np.searchsorted(keys, codes).clip(max=len(keys) - 1)]
    edge = np.zeros(codes.shape, bool)
    edge[:-1] |= codes[:-1] != codes[1:]
    edge[:, :-1] |= codes[:, :-1] != codes[:, 1:]
    opacity = np.where(edge, _OUTLINE, _FILL)[..., None] * (codes > 0)[..., None]
    return picture * (1 - opacity) + colour * opacity


def _draw(
    rows: Sequence[Sequence[_Panel]], path: Path, pixel: float, title: str, synthetic: bool, convention: Convention
) -> Path:
    """Set the panels on one dark page at one scale (a sample is a pixel) and write it."""
    from .volume import atomic_path

    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("pictures need matplotlib", REPORT_HINT) from error
    gap = round(_GAP_MM / pixel)
    pitch = max(panel.picture.shape[1] for row in rows for panel in row) + gap
    heights = [max(panel.picture.shape[0] for panel in row) for row in rows]
    left, top, bottom, caption = 50, 84, 64, 34
    width = left + pitch * max(len(row) for row in rows)
    height = top + sum(heights) + caption * len(rows) + bottom
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="black")
    FigureCanvasAgg(figure)
    edge = top
    for row, tall in zip(rows, heights, strict=True):
        _text(figure, 20, edge + tall / 2, row[0].plane.name, 10, _INK, rotation=90, ha="center", va="center")
        for index, panel in enumerate(row):
            rows_px, columns_px = panel.picture.shape[:2]
            x = left + index * pitch + (pitch - gap - columns_px) // 2
            _place(figure, panel, x, edge + (tall - rows_px) // 2)
        edge += tall + caption
    _annotate(figure, title, synthetic, convention, pixel)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        figure.savefig(stream, format="png", facecolor="black", metadata={"Software": "mri-deep-tools"})
    return path


def _place(figure: Any, panel: _Panel, x: int, y: int) -> None:
    """Put one panel with its left top corner at (x, y) pixels, its side marks and its position."""
    rows, columns = panel.picture.shape[:2]
    figure.figimage(panel.picture, xo=x, yo=round(figure.get_figheight() * _DPI) - y - rows, origin="upper")
    for mark, at, side in ((panel.plane.marks[0], x + 3, "left"), (panel.plane.marks[1], x + columns - 2, "right")):
        _text(figure, at, y + rows / 2, mark, 9.5, _INK, ha=side, va="center", weight="bold")
    text = f"{panel.plane.letter} = {panel.position:+.0f} mm".replace("-", "\N{MINUS SIGN}")
    if panel.plain:
        text += ", image only"
    _text(figure, x + columns / 2, y + rows + 3, text, 8.5, _DIM, ha="center", va="top")


def _annotate(figure: Any, title: str, synthetic: bool, convention: Convention, pixel: float) -> None:
    """Write heading, convention, scale bar and disclaimer."""
    from matplotlib.lines import Line2D

    left, width, height = 50, figure.get_figwidth() * _DPI, figure.get_figheight() * _DPI
    _text(figure, left, 14, title, 13, _INK, ha="left", va="top", weight="bold")
    if synthetic:
        _text(figure, width - 12, 18, "SYNTHETIC IMAGE", 11, _WARN, ha="right", va="top", weight="bold")
    side = "left" if convention == "radiological" else "right"
    text = (
        f"{convention.capitalize()} convention: the patient's right (R) is on the {side} of axial and coronal slices. "
        "Positions in world coordinates (RAS, mm)."
    )
    _text(figure, left, 48, text, 8.5, _DIM, ha="left", va="top")
    _text(figure, left, height - 14, DISCLAIMER, 8.5, _DIM, ha="left", va="bottom")
    bar, end, line = 50.0 / pixel, width - 20, height - 22
    xs, ys = np.array([end - bar, end]) / width, np.full(2, 1 - line / height)
    figure.add_artist(Line2D(xs, ys, color=_INK, linewidth=2, solid_capstyle="butt"))
    _text(figure, end - bar / 2, line - 6, "50 mm", 9, _INK, ha="center", va="bottom")


def _text(figure: Any, x: float, y: float, text: str, size: float, colour: str, **style: Any) -> None:
    """Write text at (x, y) pixels from the left top corner."""
    width, height = figure.get_figwidth() * _DPI, figure.get_figheight() * _DPI
    figure.text(x / width, 1 - y / height, text, fontsize=size, color=colour, **style)
