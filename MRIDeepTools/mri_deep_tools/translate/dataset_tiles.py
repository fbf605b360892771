"""The set to be translated: pictures of a folder as tiles in one HDF5 file, exactly as AxonDeepSynth writes it.

``<stem>_<contrast>.hdf5`` holds ``<contrast>/images/<k>`` and, from a data set of nnU-Net, ``<contrast>/labels/<k>``:
uint8 tiles, each with its place ``location`` (x, y) in the scaled picture and ``path_to_original``. Files are taken in
sorted order, which ``compatible`` leaves to the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .._atomic import atomic_path
from ..errors import InputError, RequestError
from ..progress import Progress
from .dataset_sources import open_hdf5
from .pictures import list_pictures, read_picture
from .tiles import resize_nearest, tile

__all__ = ["Original", "StoredTile", "is_nnunet", "list_originals", "read_tiles", "tiles_path", "write_tiles"]

_CHANNEL = "_0000"


@dataclass(frozen=True)
class Original:
    """A picture and, in a data set of nnU-Net, its label map."""

    image: Path
    labels: Path | None = None


@dataclass(frozen=True)
class StoredTile:
    """A tile (H, W) uint8 of a set, its place (x, y) in the scaled picture, and the path of the original."""

    values: np.ndarray
    location: tuple[int, int]
    original: str


def tiles_path(folder: str | Path, contrast: str, stem: str = "dataset") -> Path:
    """Return the file of a set; RequestError when the names cannot make up a file name."""
    name = f"{stem}_{contrast}.hdf5"
    if not (stem and contrast) or Path(name).name != name:
        raise RequestError(f"{stem!r} and {contrast!r} cannot make up a file name", "give letters, digits, - and _")
    return Path(folder) / name


def is_nnunet(folder: str | Path) -> bool:
    """Say whether a folder is a data set of nnU-Net."""
    return (Path(folder) / "imagesTr").is_dir()


def list_originals(folder: str | Path, *, nnunet: bool | None = None, compatible: bool = False) -> list[Original]:
    """Return the pictures of a folder (not of its sub-folders), or those of a data set of nnU-Net with their labels.

    Parameters
    ----------
    nnunet : whether it is such a data set; None looks for ``imagesTr``.
    compatible : the order of the disk.

    Raises
    ------
    InputError : no such folder, no pictures, or a picture without label map.

    """
    folder = Path(folder)
    if nnunet is None:
        nnunet = is_nnunet(folder)
    if nnunet and not is_nnunet(folder):
        raise InputError(f"{folder.name} is no data set of nnU-Net: it has no folder imagesTr", "leave --nnunet out")
    place = folder / "imagesTr" if nnunet else folder
    found = list_pictures(place, in_order=not compatible)
    if not found:
        raise InputError(f"the folder {place.name} has no pictures", "they end in .png, .tif, .tiff or .bmp")
    originals = [Original(path, _labels_of(path, folder) if nnunet else None) for path in found]
    for item in originals:
        if item.labels is not None and not item.labels.is_file():
            raise InputError(f"{item.image.name} has no label map {item.labels.name} in labelsTr", "add it")
    return originals


def write_tiles(
    output: str | Path,
    contrast: str,
    originals: Sequence[Original],
    *,
    factor: float = 1.0,
    size: int = 512,
    compatible: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the set, whole or not at all, and return the number of its tiles.

    Parameters
    ----------
    originals : pictures, all with label maps or all without.
    factor : by which they are scaled before, with nearest neighbour.
    size : side of a tile in pixels; smaller pictures become one smaller tile, with a message.
    compatible : let Pillow turn every picture into 8-bit grey without a word.

    Raises
    ------
    InputError : a picture that cannot be read, or a label map of another size. RequestError : the factor or the size
        is not positive. OutputError : the place cannot be written to.

    """
    progress = progress or Progress()
    count = 0
    with atomic_path(output) as temporary, h5py.File(temporary, "w") as file:
        images = file.create_group(f"{contrast}/images")
        labels = file.create_group(f"{contrast}/labels") if any(item.labels for item in originals) else None
        for done, item in enumerate(originals, 1):
            image = read_picture(item.image, compatible=compatible, on_warning=progress.warn)
            scaled = resize_nearest(image, factor)
            if min(scaled.shape) < size:
                sides = f"{scaled.shape[1]} x {scaled.shape[0]}"
                progress.warn(f"{item.image.name} has {sides} pixels, less than a tile of {size}; its tile is smaller")
            _store(images, scaled, size, item.image)
            if labels is not None and item.labels is not None:
                codes = read_picture(item.labels, labels=True, on_warning=progress.warn)
                if codes.shape != image.shape:
                    raise InputError(f"{item.labels.name} and {item.image.name} have different sizes", "correct them")
                _store(labels, resize_nearest(codes, factor), size, item.labels)
            count = len(images)
            progress.update(done / len(originals))
    return count


def read_tiles(path: str | Path, contrast: str, kind: str = "images") -> Iterator[StoredTile]:
    """Yield the tiles of a set in the order of their numbers.

    Parameters
    ----------
    kind : images or labels.

    Raises
    ------
    InputError : the file cannot be read, or has no such tiles.

    """
    path = Path(path)
    with open_hdf5(path) as file:
        group = file.get(f"{contrast}/{kind}")
        if not isinstance(group, h5py.Group):
            raise InputError(f"{path.name} has no {kind} of {contrast!r}", f"it has {', '.join(file) or 'nothing'}")
        for number in range(len(group)):
            entry = group.get(str(number))
            if not isinstance(entry, h5py.Dataset) or not {"location", "path_to_original"} <= set(entry.attrs):
                raise InputError(f"{path.name} is not a complete set of tiles", "make it anew")
            x, y = (int(value) for value in entry.attrs["location"])
            yield StoredTile(np.asarray(entry[()]), (x, y), str(entry.attrs["path_to_original"]))


def _labels_of(image: Path, folder: Path) -> Path:
    """Return where nnU-Net keeps the label map of a picture: the name without the number of the channel."""
    stem = image.stem.removesuffix(_CHANNEL)
    return folder / "labelsTr" / f"{stem}{image.suffix}"


def _store(group: h5py.Group, image: np.ndarray, size: int, path: Path) -> None:
    """Append the tiles of a picture."""
    first = len(group)
    for number, (part, place) in enumerate(zip(*tile(image, size), strict=True), first):
        entry = group.create_dataset(str(number), data=part)
        entry.attrs["location"] = np.array(place, dtype=np.int64)
        entry.attrs["path_to_original"] = str(path)
