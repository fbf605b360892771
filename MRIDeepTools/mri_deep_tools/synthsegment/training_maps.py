"""Label maps for training: found in a folder, oriented to RAS, brought to a common form, split for validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ..errors import GeometryError, InputError, RequestError
from .labels import LABELS

__all__ = ["ImagePair", "TrainingMap", "load_maps", "load_pairs", "split_maps"]


@dataclass(frozen=True, eq=False)
class TrainingMap:
    """One label map (X, Y, Z) int16 in RAS order, its voxel size in mm and the voxel centre of its brain."""

    name: str
    labels: torch.Tensor
    voxel_size: tuple[float, float, float]
    centre: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class ImagePair:
    """An image (C, X, Y, Z), or a noisy label map (1, X, Y, Z), with the label map on the same grid."""

    image: torch.Tensor
    map: TrainingMap

    @property
    def name(self) -> str:
        """Name of the label map's file."""
        return self.map.name


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
    labels = whole_numbers(np.asarray(volume.data), path.name)
    return TrainingMap(path.name, torch.from_numpy(labels), _three(volume.spacing), _brain_centre(labels))


def _three(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z


def whole_numbers(data: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Return a label map as C-contiguous int16; InputError when it holds fractions or numbers out of range."""
    if data.size and (data.min() < 0 or data.max() > np.iinfo(np.int16).max):
        raise InputError(f"{name} holds numbers outside 0 to 32767", "give a label map")
    labels = np.ascontiguousarray(np.rint(data).astype(np.int16))
    if not np.array_equal(labels, data):
        raise InputError(f"{name} does not hold whole label numbers", "give a label map, not an image")
    return labels


def load_pairs(folder: Path | str, maps: list[TrainingMap], task: str) -> list[ImagePair]:
    """Load one image per label map, matched by sorted name; both must share the grid.

    ``task`` ``supervised`` reads images (all their channels); others read label maps.

    Raises
    ------
    RequestError : another number of images than maps. GeometryError : a pair on different grids.

    """
    from ..volume import list_images

    folder = Path(folder)
    paths = list_images(folder) if folder.is_dir() else [folder] if folder.is_file() else []
    if len(paths) != len(maps):
        raise RequestError(
            f"{len(paths)} images for {len(maps)} label maps", "set 'images' to a folder with one image per map"
        )
    return [_load_pair(path, item, task) for path, item in zip(paths, maps, strict=True)]


def _load_pair(path: Path, item: TrainingMap, task: str) -> ImagePair:
    from ..geometry import Reorient
    from ..volume import read_volume

    if task != "supervised":
        image = _load(path).labels[None]
    else:
        volume = read_volume(path, ndim=None)
        volume = Reorient.to_ras(volume).apply(volume)
        data = np.asarray(volume.data, np.float32)
        data = data[None] if data.ndim == 3 else np.moveaxis(data, 3, 0)
        image = torch.from_numpy(np.ascontiguousarray(data))
    if tuple(image.shape[1:]) != tuple(item.labels.shape):
        raise GeometryError(
            f"{path.name} has shape {tuple(image.shape[1:])}, but {item.name} has {tuple(item.labels.shape)}",
            "resample one onto the grid of the other",
        )
    return ImagePair(image, item)


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


Item = TypeVar("Item", TrainingMap, ImagePair)


def split_maps(maps: list[Item], validation: list[str]) -> tuple[list[Item], list[Item]]:
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
