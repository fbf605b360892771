"""How much memory a segmentation takes, told from the scan's header before any network is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import OutOfMemoryError
from ..inference import Tile, available_memory, plan_tiles, require_memory
from .labels import PARCEL_CODES
from .preprocess import MIN_SIZE, MULTIPLE, SPACING_TOLERANCE, centre_crop, pad_margins, sample_positions
from .qc import QC_BOX

if TYPE_CHECKING:
    import torch

    from ..volume import Volume
    from .model_choice import SegmentOptions

__all__ = [
    "MemoryPlan",
    "engine_bytes",
    "estimate_memory",
    "padded_shape",
    "plan_memory",
    "qc_bytes",
    "tile_memory",
    "tiles_within",
]

_FLOAT = 4
_SLABS = 6 * (64 << 20)  # pieces of the full-resolution levels
_PROGRAM = 150 << 20  # weights, and what libraries take when they start to work


def padded_shape(
    shape: Sequence[int],
    spacing: Sequence[float],
    *,
    target: float = 1.0,
    crop: Sequence[int] | None = None,
    min_size: int = MIN_SIZE,
    multiple: int = MULTIPLE,
) -> tuple[int, int, int]:
    """Return the sides of the network's input, in the scan's own axis order, for a scan of ``shape`` and ``spacing``.

    ``crop`` is in RAS order and taken as given for whichever axis comes first, which is enough for an estimate.
    """
    working = list(shape)
    if any(abs(size - target) > SPACING_TOLERANCE for size in spacing):
        working = [len(sample_positions(n, size / target)) for n, size in zip(shape, spacing, strict=True)]
    if crop is not None:
        start, stop = centre_crop(working, crop, multiple)
        working = [b - a for a, b in zip(start, stop, strict=True)]
    return pad_margins(working, crop if crop is not None else min_size, multiple)[2]


def engine_bytes(shape: Sequence[int], width: int = 24) -> int:
    """Return what a U-Net takes beside its result: the full-resolution skip, the tensors of the next level, slabs."""
    skip = math.prod(shape) * width * _FLOAT
    return skip + skip + _SLABS  # four tensors of twice the width on an eighth of the voxels are as much again


def qc_bytes(box: int = QC_BOX, width: int = 24) -> int:
    """Return what the quality-control regressor takes: slabs of the first level, then tensors at half its sides."""
    slab = 40 * box**2 * _FLOAT * (4 * width + 9)
    return slab + (box // 2) ** 3 * _FLOAT * 2 * width * 4


def estimate_memory(
    shape: Sequence[int],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    channels: int = 33,
    width: int = 24,
    crop: Sequence[int] | None = None,
    native: bool = True,
    parcellation: bool = False,
    qc: bool = False,
    posteriors: bool = False,
    network: bool = True,
) -> int:
    """Return the peak of additional memory, in bytes, for a scan of ``shape`` (X, Y, Z) and ``spacing`` (mm).

    The defaults are those of the published networks; ``native`` and ``posteriors`` are the outputs asked for.
    ``network=False`` leaves out what the segmentation network takes beside its result.
    """
    padded = padded_shape(shape, spacing, crop=crop)
    voxels, scan = math.prod(padded), math.prod(shape)
    native = native and any(abs(size - 1) > SPACING_TOLERANCE for size in spacing)
    result = voxels * channels * _FLOAT
    stages = [
        6 * voxels * _FLOAT + 2 * scan * 8,  # resampling in double precision
        result + (engine_bytes(padded, width) if network else 0),
        result + (scan * _FLOAT * (channels if posteriors else 3) if native else 0),
    ]
    if parcellation:
        planes = 4 * 10 * padded[1] * padded[2] * len(PARCEL_CODES) * _FLOAT
        stages.append(result + engine_bytes(padded, width) + planes + int(0.15 * voxels) * len(PARCEL_CODES) * 2)
    if qc:
        stages.append(result + qc_bytes())
    return 2 * voxels * _FLOAT + max(stages) + _PROGRAM


@dataclass(frozen=True)
class MemoryPlan:
    """What a scan needs, what is free (bytes), and the room for a pass when it must run in tiles (else None)."""

    needed: int
    free: int
    tile_bytes: int | None = None


def plan_memory(
    volume: Volume,
    options: SegmentOptions,
    device: torch.device,
    *,
    channels: int = 33,
    width: int = 24,
) -> MemoryPlan:
    """Compare what a scan needs with what is free, and fall back to tiles.

    Raises OutOfMemoryError, with both figures, when tiles do not fit either.
    """
    free = available_memory()
    request = {
        "channels": channels,
        "width": width,
        "crop": options.crop_sides,
        "native": options.grid == "native" and not options.compatible,
        "parcellation": options.parcellation,
        "qc": options.qc,
        "posteriors": options.posteriors,
    }
    padded = padded_shape(volume.shape3, volume.spacing, crop=options.crop_sides)
    whole = engine_bytes(padded, width)
    needed = estimate_memory(volume.shape3, volume.spacing, **request)  # type: ignore[arg-type]
    base = estimate_memory(volume.shape3, volume.spacing, network=False, **request)  # type: ignore[arg-type]
    room = free - base if device.type == "cpu" else available_memory(device)
    if (needed if device.type == "cpu" else base) <= free and (device.type == "cpu" or whole <= room):
        return MemoryPlan(needed, free)
    if base <= free and room > 0:
        with suppress(OutOfMemoryError):
            tiles_within(padded, width, channels, room)
            return MemoryPlan(needed, free, room)
    name = volume.source.name or "the image"
    require_memory(max(needed, free + 1), free, f"segmenting {name}", "use --crop or a machine with more memory")
    return MemoryPlan(needed, free)


def tile_memory(shape: Sequence[int], width: int, channels: int) -> int:
    """Return what a pass over one tile takes, its own result included."""
    return engine_bytes(shape, width) + math.prod(shape) * channels * _FLOAT


def tiles_within(shape: Sequence[int], width: int, channels: int, room: int) -> list[Tile]:
    """Return the fewest pieces of a volume, overlapping by 32 voxels, of which a pass fits into ``room`` bytes each.

    Raises OutOfMemoryError when no pieces do.
    """
    fixed = tile_memory((0, 0, 0), width, channels)
    per_voxel = tile_memory((1, 1, 1), width, channels) - fixed
    return plan_tiles(shape, per_voxel, room - fixed, multiple=MULTIPLE, halo=MULTIPLE)
