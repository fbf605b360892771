"""Pictures of any size for a network of one size: nearest-neighbour scaling, tiles and back, centred padding and back.

Pictures are (H, W), rows first. Places of tiles are (x, y) = (column, row) of the first pixel, as the published files
of AxonDeepSynth store them. ``tile``, ``stitch`` without a shape and ``resize_nearest`` are that program's rules;
``blend`` is ours: where tiles overlap it averages them with weights that fall towards each tile's border, so that no
seam is left where the published rule puts the later tile on top of the earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import RequestError

__all__ = [
    "blend",
    "centre_crop",
    "centre_pad",
    "resize_nearest",
    "stitch",
    "tile",
    "tile_locations",
]


def resize_nearest(image: np.ndarray, factor: float, shape: Sequence[int] | None = None) -> np.ndarray:
    """Scale a picture by nearest neighbour: pixel i of the result is pixel floor(i / factor) of the picture.

    Parameters
    ----------
    image : (H, W), any type; the type is kept.
    factor : of both sides, above 0. The size becomes floor(n * factor), as published.
    shape : (H, W) of the result instead, for the way back to the size of the original; ``factor`` is then not used.

    Raises
    ------
    RequestError : the factor is not positive, or nothing would be left of the picture.

    """
    if shape is not None:
        rows, columns = (np.arange(m) * n // m for n, m in zip(image.shape, shape, strict=True))
        return np.ascontiguousarray(image[np.ix_(rows, columns)])
    if not (np.isfinite(factor) and factor > 0):
        raise RequestError(f"a scale factor must be above 0, not {factor}")
    if factor == 1:
        return image
    sizes = [int(n * factor) for n in image.shape]
    if min(sizes) < 1:
        raise RequestError(f"nothing is left of {_size(image)} pixels scaled by {factor:g}", "choose a larger factor")
    rows, columns = (
        np.minimum(np.floor(np.arange(m) / factor).astype(np.intp), n - 1)
        for n, m in zip(image.shape, sizes, strict=True)
    )
    return np.ascontiguousarray(image[np.ix_(rows, columns)])


def tile_locations(shape: Sequence[int], size: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Return the places (x, y) of the tiles of a picture, row by row.

    Tiles follow each other every ``size - overlap`` pixels; the last one of a row or column is pulled back to the
    border and overlaps its neighbour by more. A side shorter than a tile has one tile, at 0.

    Parameters
    ----------
    shape : (H, W) of the picture.
    size : side of a tile in pixels.
    overlap : least overlap of neighbours in pixels; 0 as published.

    Raises
    ------
    RequestError : the size is below 1, or the overlap is not between 0 and the size.

    """
    if size < 1:
        raise RequestError(f"a tile must have at least 1 pixel, not {size}")
    if not 0 <= overlap < size:
        raise RequestError(f"an overlap of {overlap} pixels does not fit tiles of {size}", "choose a smaller one")
    rows, columns = (_starts(length, size, overlap) for length in shape)
    return [(x, y) for y in rows for x in columns]


def tile(image: np.ndarray, size: int, overlap: int = 0) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Cut a picture into square tiles.

    Returns
    -------
    The tiles (views; smaller than ``size`` along a side where the picture is), and their places (x, y).

    Raises
    ------
    RequestError : as for ``tile_locations``.

    """
    places = tile_locations(image.shape, size, overlap)
    return [image[y : y + size, x : x + size] for x, y in places], places


def stitch(
    tiles: Sequence[np.ndarray], locations: Sequence[Sequence[int]], shape: Sequence[int] | None = None
) -> np.ndarray:
    """Paste tiles in their order, later ones on top of earlier ones, as published.

    Parameters
    ----------
    tiles : (H, W) each, of one type, which the result has.
    locations : (x, y) of each.
    shape : (H, W) of the picture; None: it ends where the last tile ends.

    Raises
    ------
    RequestError : no tiles, another number of places, or a tile that does not fit into ``shape``.

    """
    canvas = np.zeros(_canvas_shape(tiles, locations, shape), dtype=tiles[0].dtype)
    for part, (x, y) in zip(tiles, locations, strict=True):
        canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
    return canvas


def blend(
    tiles: Sequence[np.ndarray], locations: Sequence[Sequence[int]], shape: Sequence[int] | None = None
) -> np.ndarray:
    """Average overlapping tiles with weights that fall linearly from each tile's centre to its border.

    Parameters are those of ``stitch``. Returns (H, W) float32; where one tile lies, its values are exact.

    Raises
    ------
    RequestError : as for ``stitch``.

    """
    size = _canvas_shape(tiles, locations, shape)
    total, weights = np.zeros(size, dtype=np.float64), np.zeros(size, dtype=np.float64)
    for part, (x, y) in zip(tiles, locations, strict=True):
        box = (slice(y, y + part.shape[0]), slice(x, x + part.shape[1]))
        weight = np.outer(*(_ramp(n) for n in part.shape))
        total[box] += weight * part
        weights[box] += weight
    return np.divide(total, weights, out=np.zeros_like(total), where=weights > 0).astype(np.float32)


def centre_pad(
    image: np.ndarray, shape: Sequence[int], value: float = 0, *, compatible: bool = False
) -> tuple[np.ndarray, tuple[int, int]]:
    """Put a picture into the middle of a larger one; of an odd margin the larger half comes after.

    Parameters
    ----------
    image : (..., H, W); sides that are already as long as wanted, or longer, stay as they are.
    shape : (H, W) that is reached.
    value : what the margins hold.
    compatible : the published rule, which adds the smaller half on both sides, so that odd margins end one pixel short.

    Returns
    -------
    The padded picture, and (rows above, columns left) for ``centre_crop``.

    """
    margins = [max(m - n, 0) for n, m in zip(image.shape[-2:], shape, strict=True)]
    width = [(m // 2, m // 2 if compatible else m - m // 2) for m in margins]
    none = [(0, 0)] * (image.ndim - 2)
    return np.pad(image, [*none, *width], constant_values=value), (width[0][0], width[1][0])


def centre_crop(image: np.ndarray, shape: Sequence[int], start: Sequence[int] | None = None) -> np.ndarray:
    """Cut (H, W) pixels out of (..., H, W), around the centre or from ``start`` = (row, column); a view.

    Sides that are shorter stay as they are.
    """
    first = start or [max((n - m) // 2, 0) for n, m in zip(image.shape[-2:], shape, strict=True)]
    return image[..., first[0] : first[0] + shape[0], first[1] : first[1] + shape[1]]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    last = max(length - size, 0)
    starts = [min(start, last) for start in range(0, length, size - overlap)]
    return list(dict.fromkeys(starts))


def _canvas_shape(
    tiles: Sequence[np.ndarray], locations: Sequence[Sequence[int]], shape: Sequence[int] | None
) -> tuple[int, int]:
    """Return (H, W) of the picture that the tiles make up."""
    if not len(tiles) or len(tiles) != len(locations):
        raise RequestError(f"{len(tiles)} tiles and {len(locations)} places do not make a picture")
    if shape is None:
        (x, y), part = locations[-1], tiles[-1]
        shape = (int(y) + part.shape[0], int(x) + part.shape[1])
    for part, (x, y) in zip(tiles, locations, strict=True):
        if y + part.shape[0] > shape[0] or x + part.shape[1] > shape[1]:
            raise RequestError(f"a tile at x {x}, y {y} does not fit into {shape[1]} x {shape[0]} pixels")
    return int(shape[0]), int(shape[1])


def _ramp(length: int) -> np.ndarray:
    """Return weights that rise from the borders, where they are above 0, to the middle."""
    places = np.arange(1, length + 1, dtype=np.float64)
    return np.minimum(places, places[::-1])


def _size(image: np.ndarray) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"
