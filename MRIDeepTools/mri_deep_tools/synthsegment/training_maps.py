"""Label maps for training: found in a folder, oriented to RAS, brought to a common form, split for validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, RequestError
from .labels import LABELS

__all__ = ["TrainingMap", "load_maps", "split_maps"]


@dataclass(frozen=True)
class TrainingMap:
    """One label map (X, Y, Z) int16 in RAS order, its voxel size in mm and the voxel centre of its brain."""

    name: str
    labels: torch.Tensor
    voxel_size: tuple[float, float, float]
    centre: tuple[float, float, float]


def load_maps(folder: Path | str) -> list[TrainingMap]:
    """Load every image of a folder (or the single file given) as a label map.

    Raises
    ------
    RequestError : no image there. InputError : a file that does not hold whole numbers.

    """
    from ..volume import list_images

    folder = Path(folder)
    paths = [folder] if folder.is_file() else list_images(folder) if folder.is_dir() else []
    if not paths:
        raise RequestError(f"no label maps in {folder.name!r}", "give a folder with NIfTI or MGZ label maps")
    return [_load(path) for path in paths]


def _load(path: Path) -> TrainingMap:
    from ..geometry import Reorient
    from ..volume import read_volume

    volume = read_volume(path)
    volume = Reorient.to_ras(volume).apply(volume)
    data: np.ndarray[Any, Any] = np.asarray(volume.data)
    labels = np.ascontiguousarray(np.rint(data).astype(np.int16))
    if not np.array_equal(labels, data):
        raise InputError(f"{path.name} does not hold whole label numbers", "give label maps, not images")
    return TrainingMap(path.name, torch.from_numpy(labels), tuple(volume.spacing), _brain_centre(labels))


def _brain_centre(labels: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Return the centre of the box around the brain's structures (CSF left out); of the array when there is none."""
    brain = [code for code, item in LABELS.items() if item.topological_class > 0 and item.channel_set != "parcel"]
    mask = np.isin(labels, brain)
    if not mask.any():
        return tuple((n - 1) / 2 for n in labels.shape)  # type: ignore[return-value]
    ends = []
    for axis in range(3):
        line = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((line[0] + line[-1]) / 2)
    return tuple(float(e) for e in ends)  # type: ignore[return-value]


def split_maps(maps: list[TrainingMap], validation: list[str]) -> tuple[list[TrainingMap], list[TrainingMap]]:
    """Split maps into training and validation by parts of file names; every part must match at least one map.

    Raises
    ------
    RequestError : a name matches no map, or nothing is left to train on.

    """
    for part in validation:
        if not any(part in item.name for item in maps):
            raise RequestError(f"no label map's name contains {part!r}", "correct the list of validation maps")
    held = [item for item in maps if any(part in item.name for part in validation)]
    kept = [item for item in maps if item not in held]
    if not kept:
        raise RequestError("no label map is left for training", "keep fewer maps for validation")
    return kept, held
