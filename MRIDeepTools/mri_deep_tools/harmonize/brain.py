"""Where the brain is: a mask from a file, from the image itself, or from a segmentation of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..geometry import same_grid
from ..progress import Event, Progress
from ..volume import Volume, read_volume

if TYPE_CHECKING:
    from ..synthsegment.predict import SegmentationResult

__all__ = [
    "LARGEST_BRAIN_MM3",
    "SMALLEST_BRAIN_MM3",
    "brain_mask",
    "checked_mask",
    "read_mask",
    "segmented_mask",
    "tissue_volumes",
]

SMALLEST_BRAIN_MM3, LARGEST_BRAIN_MM3 = 300e3, 2600e3
_CSF_CODE = 24  # fluid around the brain as well as in its sulci
_CLOSED_MM = 5.0  # sulci are filled up to twice this width
_GROWN_MM = 1.0  # into what was labelled fluid: much of that is cortex
_FLUID = ("ventricle", "csf", "CSF")
_WHITE = "white matter"

_TISSUES = ("white matter", "grey matter", "fluid")


def read_mask(path: str | Path, scan: Volume, warn: Callable[[str], None]) -> np.ndarray:
    """Read a brain mask, (X, Y, Z) bool, brain where it is above 0.

    Raises
    ------
    InputError : it cannot be read, is on another grid than the scan, or is empty.

    """
    mask = read_volume(path, on_warning=warn)
    name = Path(path).name
    if not same_grid(mask, scan):
        raise InputError(
            f"the mask {name} ({_sides(mask)}) is not on the grid of the scan ({_sides(scan)})",
            "make the mask on the scan itself, or resample it to the scan",
        )
    return checked_mask(mask.data > 0, scan, f"the mask {name}")


def brain_mask(volume: Volume) -> np.ndarray:
    """Return where a scan without skull has content; InputError when that cannot be a brain."""
    return checked_mask(volume.data > 0, volume, volume.source.name or "the image")


def segmented_mask(
    volume: Volume, *, device: str, threads: int | None, progress: Progress
) -> tuple[np.ndarray, SegmentationResult]:
    """Find the brain with SynthSegment's best model on this machine.

    Returns
    -------
    The mask, (X, Y, Z) bool: all structures but the fluid around the brain, closed over the sulci, without holes, in
    one piece; and the segmentation.

    Raises
    ------
    InputError : no brain was found. WeightsError : no segmentation model is on this machine.

    """
    result = _segment(volume, device, threads, progress)
    labels = result.labels.data
    solid, fluid = (labels > 0) & (labels != _CSF_CODE), labels == _CSF_CODE
    if solid.sum() * volume.voxel_volume_mm3 < SMALLEST_BRAIN_MM3:
        raise InputError(
            f"no brain was found in {volume.source.name or 'the image'}",
            "check that it shows a whole head, or give a brain mask (--mask)",
        )
    return checked_mask(_whole(solid, fluid, volume.spacing), volume, "the brain found"), result


def tissue_volumes(volume: Volume, *, device: str, threads: int | None, progress: Progress) -> dict[str, float]:
    """Return the volumes (mm^3) of white matter, grey matter and fluid in the ventricles, by segmentation."""
    sums = dict.fromkeys(_TISSUES, 0.0)
    for name, value in _segment(volume, device, threads, progress).volumes_mm3.items():
        if name.startswith("total") or name == "csf":
            continue
        tissue = _TISSUES[0] if _WHITE in name else _TISSUES[2] if any(w in name for w in _FLUID) else _TISSUES[1]
        sums[tissue] += value
    return {name: round(value, 1) for name, value in sums.items()}


def _segment(volume: Volume, device: str, threads: int | None, progress: Progress) -> SegmentationResult:
    from ..synthsegment.predict import Segmenter

    def relay(event: Event) -> None:
        if event.event == "progress":
            progress.update(event.fraction)
        elif event.event == "warning":
            progress.warn(event.message)

    return Segmenter(fast=True, device=device, threads=threads).segment(volume, relay)


def _whole(solid: np.ndarray, fluid: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Close the sulci, keep the largest piece without holes, and grow it a little where there is fluid."""
    from scipy.ndimage import binary_fill_holes, distance_transform_edt, label

    margin = [int(np.ceil(2 * _CLOSED_MM / size)) + 1 for size in spacing]
    padded = np.pad(solid, [(m, m) for m in margin])
    box = _box(padded, margin)
    near = padded[box]
    grown = distance_transform_edt(~near, sampling=spacing) <= _CLOSED_MM
    near |= distance_transform_edt(grown, sampling=spacing) > _CLOSED_MM
    pieces, count = label(near)
    if count > 1:
        near &= pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    near |= binary_fill_holes(near)
    around = np.pad(fluid, [(m, m) for m in margin])[box]
    near |= around & (distance_transform_edt(~near, sampling=spacing) <= _GROWN_MM)
    return padded[tuple(slice(m, -m) for m in margin)]


def _box(mask: np.ndarray, margin: list[int]) -> tuple[slice, ...]:
    found = [np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis))) for axis in range(3)]
    return tuple(
        slice(max(int(f[0]) - m, 0), min(int(f[-1]) + m + 1, n))
        for f, m, n in zip(found, margin, mask.shape, strict=True)
    )


def checked_mask(mask: np.ndarray, volume: Volume, what: str) -> np.ndarray:
    """Return the mask when it has the size of a brain."""
    size = float(mask.sum()) * volume.voxel_volume_mm3
    if not size:
        raise InputError(f"{what} holds no brain: it is empty", "check the mask")
    if not SMALLEST_BRAIN_MM3 <= size <= LARGEST_BRAIN_MM3:
        raise InputError(
            f"{what} covers {size / 1000:.0f} ml, which is not a brain",
            f"a brain has {SMALLEST_BRAIN_MM3 / 1000:.0f} to {LARGEST_BRAIN_MM3 / 1000:.0f} ml; check the mask",
        )
    return mask


def _sides(volume: Volume) -> str:
    return "x".join(map(str, volume.shape3))
