"""Translating one scan slice by slice: intensities, slices, window or tiles, sampling, and back to the scan's grid.

What SynDiff's authors did to make their data (see :mod:`.volumes`) is done to the scan; the result is brought back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, RequestError
from ..geometry import same_grid, spacing_of
from ..progress import Progress
from ..volume import Volume, read_volume
from .options import TranslateOptions, same_contrast
from .tiles import blend, stitch, tile_locations
from .volumes import (
    BACKGROUND,
    SliceStack,
    check_scan,
    head_mask,
    intensity_divisor,
    place_window,
    slice_numbers,
    slice_scan,
)

__all__ = [
    "PreparedScan",
    "Translated",
    "finish_scan",
    "mean_region",
    "prepare_scan",
    "read_mask",
    "tile_overlap",
    "translate_slices",
]

Run = Callable[[np.ndarray, Sequence[Sequence[int]]], tuple[np.ndarray, "np.ndarray | None"]]
"""Pieces (N, H, W) and their numbers to mean and standard deviation, see :func:`.sampling.run_pieces`."""
_MANY_CLIPPED = 0.02
_OVERLAP_SHARE = 8  # of a tile, where tiles are blended


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan as the network takes it.

    Attributes
    ----------
    scan : as it was read.
    stack : its slices.
    numbers : slices that are asked for.
    chosen : those of them that show something.
    head : (X, Y, Z) bool, what is kept where the background is to be 0; None where it is kept.
    facts : what was measured, for the record.

    """

    scan: Volume
    stack: SliceStack
    numbers: range
    chosen: list[int]
    head: np.ndarray | None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Translated:
    """Translated slices (N, H, W) in [-1, 1], their standard deviation (None for one sample), and how they were cut."""

    mean: np.ndarray
    spread: np.ndarray | None
    facts: dict[str, Any]


def prepare_scan(
    volume: Volume,
    mask: np.ndarray | None,
    info: dict[str, Any],
    source: str,
    options: TranslateOptions,
    tell: Progress,
) -> PreparedScan:
    """Measure intensities and cut slices.

    Parameters
    ----------
    volume : as read.
    mask : (X, Y, Z) bool of the brain or the head, given or found; None where there is none.
    info : facts of the model (``model.json``).
    source : contrast that the model takes.
    options : of the translation; they go before the model's facts.
    tell : is told what a person should know.

    Raises
    ------
    InputError : the scan cannot be translated. RequestError : options that do not fit it.

    """
    name = volume.source.file_name or "the scan"
    scan = check_scan(volume, name)
    constant = options.constant if options.constant is not None else _constant(info, source, tell)
    over = mean_region(info, options)
    region = mask if over == "mask" else None
    divisor = intensity_divisor(scan.data, constant, region=region, name=name)
    trained = info.get("slice_axis")
    axis = options.axis or trained or "axial"
    if trained and axis != trained:
        tell.warn(f"the model was trained on {trained} slices, not {axis} ones")
    head = None
    if options.background == "zero":
        head = mask if mask is not None else head_mask(scan)
    pixel = options.pixel if options.pixel is not None else info.get("in_plane_spacing_mm")
    stack = slice_scan(scan, divisor, axis=axis, spacing_mm=pixel, head=head)
    numbers = slice_numbers(options.slices, len(stack.values))
    chosen = [int(number) for number in numbers if stack.filled[number]]
    if not chosen:
        raise InputError(f"{name} has no slice that shows more than background", "check the scan, or --slices")
    clipped = float((scan.data > divisor).mean())
    if clipped > _MANY_CLIPPED:
        tell.warn(f"{100 * clipped:.1f} % of the voxels of {name} are above the largest value of training and are cut")
    facts = {
        "Axis": axis,
        "SlicesTotal": len(stack.values),
        "SlicesTranslated": len(chosen),
        "SliceRange": [numbers.start, numbers.stop, numbers.step],
        "SliceShape": list(stack.values.shape[1:]),
        "PixelMm": [round(float(side), 4) for side in _sides(stack)],
        "Resampled": len(stack.way.steps) > 1,
        "IntensityConstant": constant,
        "IntensityDivisor": round(divisor, 6),
        "MeanOver": over,
        "ClippedShare": round(clipped, 6),
    }
    return PreparedScan(scan, stack, numbers, chosen, head, facts)


def mean_region(info: dict[str, Any], options: TranslateOptions) -> str:
    """Return where the mean (or percentile) of a scan is taken: as asked for, else as in training."""
    return options.mean or str(info.get("region") or "volume")


def _constant(info: dict[str, Any], source: str, tell: Progress) -> float | None:
    """Return the model's constant for a contrast; None where its rule is the percentile, or nothing is known."""
    rule, known = info.get("rule", "percentile"), info.get("constants") or {}
    for name, value in known.items():
        if rule == "mean" and same_contrast(name, source):
            return float(value)
    if rule == "mean":
        tell.warn(
            f"the model does not say what the brightest {source} value was in training; the 99.9th percentile of the "
            "scan is taken as 0.9 of it (--constant sets it in units of the mean)"
        )
    if rule == "bytes":
        tell.warn("the model was trained on 8-bit pictures; the 99.9th percentile of the scan is taken as 0.9 of white")
    return None


def _sides(stack: SliceStack) -> tuple[float, float]:
    rows, columns, _ = spacing_of(stack.grid.affine)
    return rows, columns


def tile_overlap(options: TranslateOptions, size: int) -> int:
    """Return the least overlap of neighbouring tiles in pixels."""
    if options.published_stitching:
        return options.overlap or 0
    overlap = options.overlap if options.overlap is not None else size // _OVERLAP_SHARE
    if overlap >= size:
        raise RequestError(f"an overlap of {overlap} pixels does not fit tiles of {size}", "choose a smaller one")
    return overlap


def translate_slices(prepared: PreparedScan, size: int, run: Run, options: TranslateOptions) -> Translated:
    """Translate the chosen slices of a scan.

    Parameters
    ----------
    prepared : the scan.
    size : side of the squares that the network takes, in pixels.
    run : translates pieces.
    options : of the translation.

    Returns
    -------
    All slices of the stack; those that were left out hold background.

    """
    stack, chosen = prepared.stack, prepared.chosen
    shape = (stack.values.shape[1], stack.values.shape[2])
    window = place_window(stack, size)
    mean = np.full(stack.values.shape, BACKGROUND, dtype=np.float32)
    spread = np.zeros_like(mean) if options.samples > 1 else None
    if window is not None:
        squares, deviations = run(window.cut(stack.values[chosen]), [(number,) for number in chosen])
        mean[chosen] = window.paste(squares, shape)
        if spread is not None and deviations is not None:
            spread[chosen] = window.paste(deviations, shape)
            spread[spread < 0] = 0  # the margins of a window hold background
        return Translated(mean, spread, {"Window": "one square per slice", "NetworkSize": [size, size]})
    overlap = tile_overlap(options, size)
    places = tile_locations(shape, size, overlap)
    padded = [(max(size - n, 0)) for n in shape]
    values = np.pad(stack.values[chosen], [(0, 0), *((0, margin) for margin in padded)], constant_values=BACKGROUND)
    pieces = np.stack([part[y : y + size, x : x + size] for part in values for x, y in places])
    keys = [(number, k) for number in chosen for k in range(len(places))]
    squares, deviations = run(pieces, keys)
    join = stitch if options.published_stitching else blend
    for target, parts in ((mean, squares), (spread, deviations)):
        if target is not None and parts is not None:
            for index, number in enumerate(chosen):
                mine = list(parts[index * len(places) : (index + 1) * len(places)])
                target[number] = join(mine, places, values.shape[1:])[: shape[0], : shape[1]]
    facts = {"Window": f"{len(places)} tiles per slice", "NetworkSize": [size, size], "Overlap": overlap}
    return Translated(mean, spread, facts)


def finish_scan(prepared: PreparedScan, translated: Translated, factor: float) -> tuple[Volume, Volume | None]:
    """Return the result and its standard deviation on the scan's own grid, 0..``factor``, float32; 0 elsewhere."""
    stack = prepared.stack
    image = stack.back((translated.mean + 1) * np.float32(factor / 2))
    spread = None if translated.spread is None else stack.back(translated.spread * np.float32(factor / 2))
    if prepared.head is not None:
        image.data[~prepared.head] = 0
        if spread is not None:
            spread.data[~prepared.head] = 0
    return image, spread


def read_mask(path: str | Path, scan: Volume, tell: Progress) -> np.ndarray:
    """Read a mask of the brain or the head, (X, Y, Z) bool, True above 0.

    Raises
    ------
    InputError : it cannot be read, is on another grid than the scan, or is empty.

    """
    mask, name = read_volume(path, on_warning=tell.warn), Path(path).name
    if not same_grid(mask, scan):
        raise InputError(
            f"the mask {name} ({_size(mask)}) is not on the grid of the scan ({_size(scan)})",
            "make the mask on the scan itself, or resample it to the scan",
        )
    if not (mask.data > 0).any():
        raise InputError(f"the mask {name} is empty", "check the mask")
    return np.asarray(mask.data > 0)


def _size(volume: Volume) -> str:
    return "x".join(map(str, volume.shape3))
