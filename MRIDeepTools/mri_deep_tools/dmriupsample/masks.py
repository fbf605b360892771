"""The brain mask: given on the scan's grid, or computed from the volumes without diffusion weighting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DependencyError, InputError, RequestError
from ..geometry import same_grid
from ..progress import Progress
from ..volume import Volume, read_volume

__all__ = ["MASK_METHODS", "compute_mask", "read_mask", "require_dipy"]

MASK_METHODS = ("otsu", "synthseg")


def require_dipy(part: str) -> Any:
    """Import a part of DIPY, or say how to install it."""
    import importlib

    try:
        return importlib.import_module(f"dipy.{part}")
    except ImportError as error:
        raise DependencyError(
            "this needs DIPY, which is not installed", 'install it with: pip install "mri-deep-tools[dmri]"'
        ) from error


def read_mask(mask: str | Path | Volume, scan: Volume, progress: Progress, *, compatible: bool = False) -> np.ndarray:
    """Return a mask (X, Y, Z), bool, that must lie on the scan's grid.

    Values from 0.5 count as inside; with ``compatible`` the published rule, which cuts off decimals.

    Raises
    ------
    InputError : another grid, or an empty mask.

    """
    volume = mask if isinstance(mask, Volume) else read_volume(mask, on_warning=progress.warn)
    name = volume.source.file_name or "the mask"
    data = volume.data if volume.data.ndim == 3 else volume.data[..., 0]
    if data.shape != scan.shape3 or not same_grid(Volume(data, volume.affine), Volume(data, scan.affine)):
        raise InputError(f"{name} is not on the grid of the scan", "make a mask of this scan, or resample it")
    if compatible:
        inside = np.trunc(data).astype(np.int64).astype(np.int8) != 0
    else:
        inside = data >= 0.5
    if not inside.any():
        raise InputError(f"{name} is empty", "check the mask")
    return np.asarray(inside)


def compute_mask(
    b0: np.ndarray | None, scan: Volume, method: str, progress: Progress, device: str = "auto"
) -> np.ndarray:
    """Return a brain mask (X, Y, Z), bool.

    Parameters
    ----------
    b0 :
        (X, Y, Z) mean of the volumes without diffusion weighting, or None where there are none.
    scan :
        Gives the grid.
    method :
        ``otsu`` (DIPY's median Otsu) or ``synthseg`` (this program's segmentation; all structures but background).

    Raises
    ------
    InputError : there is no b=0 volume, or nothing was found.
    RequestError : unknown method.
    DependencyError : DIPY is not installed.

    """
    if method not in MASK_METHODS:
        raise RequestError(f"unknown mask method {method!r}", f"use a mask file, or one of {', '.join(MASK_METHODS)}")
    if b0 is None:
        raise InputError("a mask cannot be computed: the scan has no b = 0 volume", "give one with --mask")
    if method == "otsu":
        with np.errstate(invalid="ignore"):  # empty bins of a histogram are divided by
            found = require_dipy("segment.mask").median_otsu(b0, median_radius=2, numpass=1)[1]
    else:
        from ..synthsegment import segment

        found = segment(Volume(b0, scan.affine), fast=True, device=device, progress=progress).labels.data > 0
    if not found.any():
        raise InputError(f"no brain was found by the mask method {method}", "give a mask with --mask")
    return np.asarray(found, dtype=bool)
