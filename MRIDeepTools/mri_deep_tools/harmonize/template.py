"""The brain that scans are registered to: the ICBM 152 template that ships with the package, or one of the user's.

FSL's template, which the published program uses, may not be shipped but can be named. The shipped one differs from it
by a few mm of shape: harmless after a rigid registration, but results differ from upstream's voxel by voxel.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import resample_to, same_grid
from ..volume import Volume, read_volume
from .preprocess import TEMPLATE_GRID

__all__ = ["TEMPLATE_NAME", "load_template"]

TEMPLATE_NAME = "icbm152_2009a_brain_1mm"
_LEAST_ML = 1000.0
_LARGEST_SHARE = 0.15  # of the brain that may have one and the same value


def load_template(path: str | Path | None = None) -> Volume:
    """Return a template brain on the FSL grid (182, 218, 182), float32, background 0.

    Parameters
    ----------
    path : a brain without skull in MNI space, on any grid; None for the shipped one.

    Raises
    ------
    InputError : the file cannot be read, or does not cover the grid with a brain.

    """
    if path is None:
        return _shipped()
    volume = read_volume(path, dtype=np.float32)
    if not same_grid(volume, TEMPLATE_GRID):
        volume = resample_to(volume, TEMPLATE_GRID.shape, TEMPLATE_GRID.affine)
    share = float((volume.data > 0).mean())
    if (volume.data > 0).sum() / 1000 < _LEAST_ML or share > 0.6:
        raise InputError(
            f"{Path(path).name} is not a template brain without skull in MNI space", "use FSL's MNI152_T1_1mm_brain"
        )
    counts = np.unique(volume.data[volume.data > 0], return_counts=True)[1]
    if counts.max() > _LARGEST_SHARE * counts.sum():
        raise InputError(f"{Path(path).name} is a mask or a label map, not an image", "give the T1w template")
    return volume


@cache
def _shipped() -> Volume:
    place = resources.files(__package__).joinpath("templates", f"{TEMPLATE_NAME}.nii.gz")
    with resources.as_file(place) as path:
        return read_volume(path, dtype=np.float32)
