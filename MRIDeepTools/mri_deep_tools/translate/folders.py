"""Translating pictures of any size, and how the published program names what it makes of a folder.

AxonDeepSynth: a picture is scaled by a factor with nearest neighbour, cut into tiles, translated tile by tile to 8-bit
grey, and put together again; its name becomes ``SYNTH_<contrast>_<number>_0000.png``. Ours by default: tiles overlap
and are blended, grey values are rounded, and the result has the size and the name of the original.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, RequestError
from .options import TranslateOptions
from .pipeline import Run, tile_overlap
from .tiles import blend, centre_crop, resize_nearest, stitch, tile_locations

if TYPE_CHECKING:
    from .dataset_tiles import StoredTile

__all__ = [
    "MAPPING_NAME",
    "StoredPicture",
    "TranslatedPicture",
    "grey_values",
    "mapping_text",
    "network_values",
    "published_number",
    "read_tile_set",
    "synthetic_names",
    "translate_picture",
    "translate_tiles",
]

MAPPING_NAME = "translated_to_original_paths.json"
_HALF = 127.5
_WHITE = 255


@dataclass(frozen=True, eq=False)
class TranslatedPicture:
    """A translated picture (H, W) uint8, the standard deviation of its samples in grey values, and how it was cut."""

    image: np.ndarray
    spread: np.ndarray | None
    facts: dict[str, Any] = field(default_factory=dict)


def network_values(grey: np.ndarray) -> np.ndarray:
    """Return grey values 0..255 as the network takes them, float32 in [-1, 1]."""
    return grey.astype(np.float32) / np.float32(_HALF) - np.float32(1)


def grey_values(values: np.ndarray, *, published: bool) -> np.ndarray:
    """Return values in [-1, 1] as uint8: rounded, or cut off as published."""
    grey = np.clip((values.astype(np.float32) + np.float32(1)) * np.float32(_HALF), 0, _WHITE)
    return (grey if published else np.rint(grey)).astype(np.uint8)


def translate_picture(
    picture: np.ndarray, size: int, multiple: int, run: Run, options: TranslateOptions, *, number: int = 0
) -> TranslatedPicture:
    """Translate one picture.

    Parameters
    ----------
    picture : (H, W) uint8.
    size : side of the squares that the network takes in pixels.
    multiple : what both sides of a square must be a multiple of.
    run : translates pieces; see :data:`.pipeline.Run`.
    options : of the translation: ``scale_factor``, ``keep_scale``, ``stitching``, ``overlap``, ``compatible``.
    number : of the picture among several; part of the seed.

    Raises
    ------
    RequestError : a scale that leaves nothing, a tile size that does not suit the network.

    """
    if size % multiple:
        raise RequestError(f"tiles of {size} pixels do not suit this model", f"use a multiple of {multiple}")
    scaled = resize_nearest(picture, options.scale_factor)
    overlap = tile_overlap(options, size)
    values = network_values(scaled)
    margins = [max(size - n, 0) for n in scaled.shape]
    start = [margin // 2 for margin in margins]
    # smaller pictures get margins that look like themselves: the published program stops at them
    padded = np.pad(values, [(a, m - a) for a, m in zip(start, margins, strict=True)], mode="symmetric")
    places = tile_locations(padded.shape, size, overlap)
    pieces = np.stack([padded[y : y + size, x : x + size] for x, y in places])
    mean, spread = run(pieces, [(number, k) for k in range(len(places))])
    shape = picture.shape if not options.keeps_scale else scaled.shape
    image = _joined(mean, places, padded.shape, scaled.shape, start, options)
    facts = {
        "Pixels": list(picture.shape),
        "Scaled": list(scaled.shape),
        "Tiles": len(places),
        "TileSize": size,
        "Overlap": overlap,
        "Stitching": "published" if options.published_stitching else "blend",
    }
    if spread is None:
        return TranslatedPicture(_sized(image, shape, options), None, facts)
    deviation = np.clip(_joined(spread, places, padded.shape, scaled.shape, start, options, grey=False), 0, 2)
    return TranslatedPicture(
        _sized(image, shape, options), _sized(np.rint(deviation * _HALF).astype(np.uint8), shape, options), facts
    )


def _joined(
    pieces: np.ndarray,
    places: Sequence[tuple[int, int]],
    padded: tuple[int, ...],
    inner: tuple[int, ...],
    start: Sequence[int],
    options: TranslateOptions,
    *,
    grey: bool = True,
) -> np.ndarray:
    """Put tiles together and take margins off; as grey values, or as they are."""
    if options.published_stitching:
        tiles = [grey_values(piece, published=True) for piece in pieces] if grey else list(pieces)
        return centre_crop(stitch(tiles, places, padded), inner, start)
    whole = centre_crop(blend(list(pieces), places, padded), inner, start)
    return grey_values(whole, published=False) if grey else whole


def _sized(image: np.ndarray, shape: tuple[int, ...], options: TranslateOptions) -> np.ndarray:
    """Return a picture at a size, between pixels linearly (the way there is by nearest neighbour, as in training)."""
    if image.shape == shape:
        return np.ascontiguousarray(image)
    from PIL import Image

    high, wide = shape
    return np.asarray(Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR))


# -------------------------------------------------------------------------------------------------------- tile sets


@dataclass(frozen=True, eq=False)
class StoredPicture:
    """A picture of a published set: its name, the path that was stored, its tiles and their places, and its labels."""

    path: str
    tiles: list[np.ndarray]
    places: list[tuple[int, int]]
    labels: np.ndarray | None = None
    labels_path: str = ""


def read_tile_set(path: Path, contrast: str | None) -> tuple[str, list[StoredPicture]]:
    """Read a published set to be translated (``<stem>_<contrast>.hdf5``): its contrast, and its pictures.

    Parameters
    ----------
    path : of the file; see :mod:`.dataset_tiles`.
    contrast : which of its groups; where it has only one, that one is taken.

    Raises
    ------
    InputError : not such a file.

    """
    from .dataset_sources import open_hdf5
    from .dataset_tiles import read_tiles

    with open_hdf5(path) as file:
        groups = list(file)
        labelled = [name for name in groups if f"{name}/labels" in file]
    chosen = contrast if contrast in groups else groups[0] if len(groups) == 1 else None
    if chosen is None:
        raise InputError(
            f"{path.name} has the groups {', '.join(groups) or 'none'}, not tiles of {contrast or 'one contrast'}",
            "make it with 'mri-deep-tools translate-dataset to-translate'",
        )
    images = _by_original(read_tiles(path, chosen))
    labels = list(_by_original(read_tiles(path, chosen, "labels")).items()) if chosen in labelled else []
    if not images:
        raise InputError(f"{path.name} holds no tiles", "make it anew")
    if labels and len(labels) != len(images):
        raise InputError(f"{path.name} has {len(images)} pictures but {len(labels)} label maps", "make it anew")
    pictures = []
    for index, (original, (tiles, places)) in enumerate(images.items()):
        maps, labels_path = (stitch(*labels[index][1]), labels[index][0]) if labels else (None, "")
        pictures.append(StoredPicture(original, tiles, places, maps, labels_path))
    return chosen, pictures


def _by_original(tiles: Iterable[StoredTile]) -> dict[str, tuple[list[np.ndarray], list[tuple[int, int]]]]:
    """Return tiles and places of each original, originals in the order of their first tiles."""
    found: dict[str, tuple[list[np.ndarray], list[tuple[int, int]]]] = {}
    for item in tiles:
        parts, places = found.setdefault(item.original, ([], []))
        parts.append(item.values)
        places.append(item.location)
    return found


def translate_tiles(stored: StoredPicture, multiple: int, run: Run, number: int, name: str) -> np.ndarray:
    """Translate the tiles of a published set and put them together as published; (H, W) uint8.

    Raises
    ------
    InputError : tiles of several sizes, or of one that does not suit the network.

    """
    shapes = {tile.shape for tile in stored.tiles}
    if len(shapes) > 1 or any(side % multiple for side in stored.tiles[0].shape):
        told = " and ".join(f"{wide} x {high}" for high, wide in sorted(shapes))
        raise InputError(
            f"{name} has tiles of {told} pixels, which do not suit this model",
            f"make tiles of one size that is a multiple of {multiple}",
        )
    keys = [(number, k) for k in range(len(stored.tiles))]
    mean, _ = run(np.stack([network_values(tile) for tile in stored.tiles]), keys)
    return stitch([grey_values(piece, published=True) for piece in mean], stored.places)


# ------------------------------------------------------------------------------------------------------------- names


def published_number(name: str) -> str | None:
    """Return the three digits of a name that ends with ``_ddd_dddd.png``; None for other names."""
    match = re.search(r"_(\d{3})_\d{4}\.png$", name)
    return match[1] if match else None


def synthetic_names(originals: Sequence[str], contrast: str, *, strict: bool = False) -> list[str]:
    """Return the published names of translated pictures, ``SYNTH_<contrast>_<number>_0000.png``.

    The number is that of the original's name where it has one, else the running number. Where two would be equal, all
    get running numbers, unless ``strict`` (the published program then replaces the first by the second: RequestError).
    """
    digits = [published_number(name) or f"{index:03d}" for index, name in enumerate(originals)]
    twice = [number for number, count in Counter(digits).items() if count > 1]
    if twice and strict:
        raise RequestError(
            f"two pictures would both be named SYNTH_{contrast}_{twice[0]}_0000.png", "give them different numbers"
        )
    if twice:
        digits = [f"{index:03d}" for index in range(len(originals))]
    return [f"SYNTH_{contrast}_{number}_0000.png" for number in digits]


def mapping_text(mapping: Mapping[str, str]) -> str:
    """Return the published JSON text of what was made from what."""
    import json

    return json.dumps(dict(mapping), indent=4)
