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

__all__ = ["LARGEST_BRAIN_MM3", "SMALLEST_BRAIN_MM3", "brain_mask", "read_mask", "segmented_mask", "tissue_volumes"]

SMALLEST_BRAIN_MM3, LARGEST_BRAIN_MM3 = 300e3, 2600e3
_CSF_CODE = 24  # fluid around the brain as well as in its sulci
_CLOSED_MM = 3.0  # sulci are filled up to twice this width
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
    return _checked(mask.data > 0, scan, f"the mask {name}")


def brain_mask(volume: Volume) -> np.ndarray:
    """Return where a scan without skull has content; InputError when that cannot be a brain."""
    return _checked(volume.data > 0, volume, volume.source.name or "the image")


def segmented_mask(
    volume: Volume, *, device: str, threads: int | None, progress: Progress
) -> tuple[np.ndarray, SegmentationResult]:
    """Find the brain with SynthSegment's best model on this machine.

    Returns
    -------
    The mask, (X, Y, Z) bool: all structures but the fluid around the brain, closed over the sulci, without holes; and
    the segmentation.

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
    return _checked(
        _closed(solid, volume.spacing) & (solid | fluid | _filled(solid)), volume, "the brain found"
    ), result


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


def _closed(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Dilate and erode by the same distance in mm, in a box around the mask."""
    from scipy.ndimage import distance_transform_edt

    margin = [int(np.ceil(2 * _CLOSED_MM / size)) + 1 for size in spacing]
    padded = np.pad(mask, [(m, m) for m in margin])
    box = _box(padded, margin)
    grown = distance_transform_edt(~padded[box], sampling=spacing) <= _CLOSED_MM
    padded[box] |= distance_transform_edt(grown, sampling=spacing) > _CLOSED_MM
    return padded[tuple(slice(m, -m) for m in margin)]


def _box(mask: np.ndarray, margin: list[int]) -> tuple[slice, ...]:
    found = [np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis))) for axis in range(3)]
    return tuple(
        slice(max(int(f[0]) - m, 0), min(int(f[-1]) + m + 1, n))
        for f, m, n in zip(found, margin, mask.shape, strict=True)
    )


def _filled(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes

    return np.asarray(binary_fill_holes(mask))


def _checked(mask: np.ndarray, volume: Volume, what: str) -> np.ndarray:
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
