"""How much memory a segmentation takes, told from the scan's header before any network is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .labels import PARCEL_CODES
from .preprocess import MIN_SIZE, MULTIPLE, SPACING_TOLERANCE, centre_crop, pad_margins, sample_positions
from .qc import QC_BOX

__all__ = ["engine_bytes", "estimate_memory", "padded_shape", "qc_bytes"]

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
    """Return what the quality-control regressor takes: three full-resolution tensors and its input."""
    return box**3 * _FLOAT * (3 * width + 9)


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
) -> int:
    """Return the peak of additional memory, in bytes, for a scan of ``shape`` (X, Y, Z) and ``spacing`` (mm).

    The defaults are those of the published networks; ``native`` and ``posteriors`` are the outputs asked for.
    """
    padded = padded_shape(shape, spacing, crop=crop)
    voxels, scan = math.prod(padded), math.prod(shape)
    working = 2 * voxels * _FLOAT
    result = voxels * channels * _FLOAT
    stages = [
        6 * voxels * _FLOAT + 2 * scan * 8,  # resampling in double precision
        result + engine_bytes(padded, width),
        result + (scan * _FLOAT * (channels if posteriors else 3) if native else 0),
    ]
    if parcellation:
        planes = 4 * 10 * padded[1] * padded[2] * len(PARCEL_CODES) * _FLOAT
        stages.append(result + engine_bytes(padded, width) + planes + int(0.15 * voxels) * len(PARCEL_CODES) * 2)
    if qc:
        stages.append(result + qc_bytes())
    return working + max(stages) + _PROGRAM
