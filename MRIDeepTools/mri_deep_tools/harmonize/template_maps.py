"""Label maps in the frame of the template: where the networks see brains, for simulated sites."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from .._atomic import atomic_path
from ..errors import InputError, RequestError
from ..geometry import Resample, resample_to
from ..registration import moved_affine, register_rigid
from ..synthsegment.generator.coarse import t1_priors
from ..synthsegment.generator.model import LabelTables
from ..synthsegment.training_maps import whole_numbers
from ..volume import Volume, list_images, read_volume
from .preprocess import TEMPLATE_GRID
from .template import load_template

__all__ = ["TemplateMap", "load_template_maps"]

START, SHAPE = (11, 13, 1), (160, 192, 160)  # the published crop of the template itself
CSF = 24
CLOSED = 4  # sulci are filled up to twice this number of voxels


@dataclass(frozen=True, eq=False)
class TemplateMap:
    """A label map of a brain, (160, 192, 160) int16, X towards the left, 1 mm; 0 outside the brain."""

    name: str
    labels: torch.Tensor


def load_template_maps(folder: str | Path, cache: Path | None = None) -> list[TemplateMap]:
    """Register the label maps of a folder to the template and keep their brains.

    Parameters
    ----------
    folder : label maps with the codes of SynthSeg's generative model.
    cache : file to read the result from, or to write it to (``.npz``).

    Raises
    ------
    RequestError : no image there. InputError : a file that holds no label map of a head.

    """
    folder = Path(folder)
    paths = list_images(folder) if folder.is_dir() else [folder] if folder.is_file() else []
    if not paths:
        raise RequestError(f"no label maps in {folder.name!r}", "give a folder with NIfTI or MGZ label maps")
    key = hashlib.sha256("".join(f"{p.name}{p.stat().st_size}" for p in paths).encode()).hexdigest()
    known = _cached(cache, key)
    if not known:
        known = {path.name: _registered(path) for path in paths}
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(cache) as temporary:
                arrays: dict[str, Any] = {"key": np.array(key), **known}
                np.savez_compressed(temporary, **arrays)
    return [TemplateMap(path.name, torch.from_numpy(known[path.name])) for path in paths]


@cache
def coarse_template() -> Volume:
    """Return the template brain at 2 mm."""
    template = load_template()
    return Resample.to_spacing(template, 2.0).apply(template)


def _cached(cache: Path | None, key: str) -> dict[str, np.ndarray]:
    """Return what an earlier call wrote for the same maps; nothing where there is none."""
    if cache is None or not cache.is_file():
        return {}
    with np.load(cache, allow_pickle=False) as archive:
        found = {name: np.asarray(archive[name]) for name in archive.files}
    return found if str(found.pop("key", "")) == key else {}


def _registered(path: Path) -> np.ndarray:
    """Return the brain of a map in the template's frame."""
    volume = read_volume(path)
    labels = whole_numbers(np.asarray(volume.data), path.name)
    tables = LabelTables.published("v2", "tissue")
    (mean, _), _ = t1_priors()
    value = np.zeros(1 << 15, dtype=np.float32)
    solid = np.zeros(1 << 15, dtype=bool)
    for code, tissue, target in zip(tables.codes, tables.classes, tables.targets, strict=True):
        value[code] = mean[tissue] if target else 0
        solid[code] = target not in (0, CSF)
    core = solid[labels]
    if not core.any():
        raise InputError(f"{path.name} holds no brain", "give label maps with the codes of SynthSeg's training maps")
    brain = ndimage.binary_closing(np.pad(core, CLOSED), iterations=CLOSED)[(slice(CLOSED, -CLOSED),) * 3] | core
    stripped = np.where(brain, labels, 0).astype(np.int16)
    picture = volume.with_data(np.where(brain, value[labels], 0).astype(np.float32))
    coarse = Resample.to_spacing(picture, 2.0).apply(picture)  # enough for six numbers, and far quicker
    found = register_rigid(coarse, coarse_template(), any_orientation=False)
    moved = Volume(stripped, moved_affine(volume.affine, found.matrix))
    on_grid = resample_to(moved, TEMPLATE_GRID.shape, TEMPLATE_GRID.affine, order=0).data
    window = tuple(slice(a, a + n) for a, n in zip(START, SHAPE, strict=True))
    return np.ascontiguousarray(on_grid[window].astype(np.int16))
