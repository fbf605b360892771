"""Where training images come from: the published HDF5 files of AxonDeepSynth and of SynDiff (``.mat``), and ours.

* AxonDeepSynth, and ours: ``<stem>_{train,val,test}.hdf5`` with a group per contrast that holds images (H, W) named
  "0", "1", ... with values 0..255: uint8 from pictures, float32 from scans. The groups of sets that are made from scans
  have attributes as well: what was done to the intensities, the pixel size, and from which subject each slice comes.
* SynDiff: ``data_{train,val,test}_<contrast>.mat`` (MATLAB v7.3, which is HDF5) with ``data_fs``, values 0..1, seen
  through HDF5 as (slice, column, row); padded to one size around the centre.

Networks see [-1, 1]: v / 127.5 - 1, or 2 v - 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from .._stream import unreadable
from ..errors import InputError, RequestError
from .tiles import centre_pad

__all__ = [
    "HDF5_SUFFIXES",
    "SPLITS",
    "HdfImages",
    "ImageSource",
    "MatImages",
    "mat_path",
    "open_hdf5",
    "open_images",
    "read_mat",
    "require_contrasts",
]

SPLITS = ("train", "val", "test")
HDF5_SUFFIXES = (".hdf5", ".h5")
_MAT_NAME = "data_fs"
_TO_UNIT = 127.5


class ImageSource(Protocol):
    """Images of several contrasts, by number."""

    name: str
    """Of the file or folder, for messages."""

    def shapes(self, contrast: str) -> list[tuple[int, int]]:
        """Return (H, W) of every image of a contrast."""
        ...

    def image(self, contrast: str, number: int) -> np.ndarray:
        """Return an image (H, W) float32 in [-1, 1]."""
        ...

    def facts(self, contrast: str) -> dict[str, Any]:
        """Return what is known of a contrast beyond its images, JSON types only; empty for published files."""
        ...

    def subjects(self, contrast: str) -> list[str]:
        """Return from whom each image comes, empty texts where that is not stored."""
        ...


def open_images(path: str | Path, contrasts: Sequence[str], *, split: str = "train") -> ImageSource:
    """Open a training set.

    Parameters
    ----------
    path : an HDF5 file; a folder with ``*_<split>.hdf5`` or ``data_<split>_<contrast>.mat`` files.
    contrasts : names that it must have.
    split : train, val or test; only used for a folder.

    Raises
    ------
    InputError : no such file, a damaged one, or one without these contrasts.

    """
    path = Path(path)
    if path.is_dir():
        found = sorted(file for suffix in HDF5_SUFFIXES for file in path.glob(f"*_{split}{suffix}"))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise InputError(f"the folder {path.name} has several {split} sets: {names}", "name one of the files")
        if not found and all(mat_path(path, split, contrast).is_file() for contrast in contrasts):
            return MatImages(path, contrasts, split=split)
        if not found:
            wanted = " and ".join(mat_path(path, split, contrast).name for contrast in contrasts)
            raise InputError(f"the folder {path.name} has no *_{split}.hdf5, nor {wanted}", "check the folder")
        path = found[0]
    return HdfImages(path, contrasts)


class HdfImages:
    """Images of an HDF5 file, read when they are asked for; every process opens the file for itself.

    Parameters
    ----------
    path : the file.
    contrasts : groups that it must have.

    Raises
    ------
    InputError : missing, damaged, without these groups, or with an entry that is no image.

    """

    def __init__(self, path: str | Path, contrasts: Sequence[str]) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self._opened: tuple[int, h5py.File] | None = None
        self._shapes = {contrast: self._check(contrast) for contrast in contrasts}
        self._close()  # a process that is forked from this one must not share the handle

    def shapes(self, contrast: str) -> list[tuple[int, int]]:
        """Return (H, W) of every image of a contrast."""
        return self._shapes[contrast]

    def image(self, contrast: str, number: int) -> np.ndarray:
        """Return an image (H, W) float32 in [-1, 1]."""
        values = self._file()[contrast][str(number)][()]
        return np.asarray(values, dtype=np.float32) / np.float32(_TO_UNIT) - np.float32(1)

    def facts(self, contrast: str) -> dict[str, Any]:
        """Return the attributes of the contrast's group."""
        found = {key: _plain(value) for key, value in self._file()[contrast].attrs.items()}
        self._close()
        return found

    def subjects(self, contrast: str) -> list[str]:
        """Return the subject of each slice."""
        group = self._file()[contrast]
        found = [str(group[str(k)].attrs.get("subject", "")) for k in range(len(self._shapes[contrast]))]
        self._close()
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind when a loader sends this to its workers."""
        return {**self.__dict__, "_opened": None}

    def _check(self, contrast: str) -> list[tuple[int, int]]:
        file = self._file()
        if not isinstance(file.get(contrast), h5py.Group):
            names = ", ".join(file) or "none"
            raise InputError(f"{self.name} has no contrast {contrast!r}", f"it has {names}")
        group = file[contrast]
        shapes = []
        for number in range(len(group)):
            entry = group.get(str(number))
            if not isinstance(entry, h5py.Dataset) or entry.ndim != 2 or entry.dtype.kind not in "uif":
                what = f"{contrast}/{number} of {self.name} is not an image"
                raise InputError(what, "give a set made by `mri-deep-tools translate-dataset pictures` or `volumes`")
            shapes.append((int(entry.shape[0]), int(entry.shape[1])))
        if not shapes:
            raise InputError(f"{self.name} has no images of {contrast!r}", "make the set from more files")
        return shapes

    def _file(self) -> h5py.File:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_hdf5(self.path))
        return self._opened[1]

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None


class MatImages:
    """Images of SynDiff's ``.mat`` files, all in memory as the original holds them.

    Raises
    ------
    InputError : as for :func:`read_mat`.

    """

    def __init__(self, folder: str | Path, contrasts: Sequence[str], *, split: str = "train") -> None:
        self.name = Path(folder).name
        self._images = {name: read_mat(mat_path(folder, split, name), size=None)[:, 0] for name in contrasts}

    def shapes(self, contrast: str) -> list[tuple[int, int]]:
        """Return (H, W) of every image of a contrast."""
        count, rows, columns = self._images[contrast].shape
        return [(rows, columns)] * count

    def image(self, contrast: str, number: int) -> np.ndarray:
        """Return an image (H, W) float32 in [-1, 1]."""
        return self._images[contrast][number]

    def facts(self, contrast: str) -> dict[str, Any]:
        """Return the published rule of the intensities; their constant is not stored in such files."""
        return {"rule": "mean", "region": "volume", "slice_axis": "axial"}

    def subjects(self, contrast: str) -> list[str]:
        """Return empty texts: such files do not say."""
        return [""] * len(self._images[contrast])


def mat_path(folder: str | Path, split: str, contrast: str) -> Path:
    """Return where SynDiff keeps a contrast of a split."""
    return Path(folder) / f"data_{split}_{contrast}.mat"


def read_mat(
    path: str | Path, *, size: int | None = 256, normalise: bool = True, compatible: bool = False
) -> np.ndarray:
    """Read the images of a SynDiff ``.mat`` file.

    Parameters
    ----------
    path : MATLAB v7.3 file with ``data_fs``, (slice, column, row) or (1, slice, column, row) through HDF5.
    size : images are padded with 0 around their centre to this side; None leaves their size.
    normalise : give 2 v - 1, in [-1, 1], instead of the values as they are.
    compatible : the published padding, which leaves an odd side one pixel short, and refuses nothing.

    Returns
    -------
    (N, 1, H, W) float32.

    Raises
    ------
    InputError : missing, damaged, without ``data_fs``, larger than ``size``, or with values far from 0..1.

    """
    path = Path(path)
    with open_hdf5(path) as file:
        entry = file.get(_MAT_NAME)
        if not isinstance(entry, h5py.Dataset) or entry.dtype.kind not in "uif" or entry.ndim not in (3, 4):
            raise InputError(f"{path.name} has no images named {_MAT_NAME}", "save them as (rows, columns, slices)")
        values = np.asarray(entry[()], dtype=np.float32)
    if values.ndim == 4 and values.shape[0] != 1:
        raise InputError(f"the images of {path.name} have {values.shape[0]} channels", "save one file per contrast")
    values = values.reshape(-1, 1, *values.shape[-2:]).swapaxes(-1, -2)
    if not compatible:
        _check_range(values, path.name)
    if size is not None:
        if max(values.shape[-2:]) > size:
            sides = f"{values.shape[-1]} x {values.shape[-2]}"
            raise InputError(f"the images of {path.name} have {sides} pixels, more than {size}", "choose a larger size")
        values = centre_pad(values, (size, size), compatible=compatible)[0]
    return np.ascontiguousarray((values - np.float32(0.5)) / np.float32(0.5) if normalise else values)


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; InputError when it is missing, damaged, or something else."""
    try:
        with path.open("rb"):
            return h5py.File(path, "r")
    except OSError as error:
        if error.errno is not None and error.strerror:
            raise unreadable(path.name, error) from None
        old = path.suffix.lower() == ".mat"
        hint = "save it with MATLAB's option -v7.3" if old else "check that it was copied completely"
        raise InputError(f"{path.name} is not a complete HDF5 file", hint) from error


def require_contrasts(contrasts: Sequence[str]) -> tuple[str, str]:
    """Return two different names of contrasts; RequestError when they are something else."""
    if len(contrasts) != 2 or contrasts[0] == contrasts[1] or not all(contrasts):
        raise RequestError("two contrasts with different names are needed", "for instance T1 and T2")
    return contrasts[0], contrasts[1]


def _check_range(values: np.ndarray, name: str) -> None:
    """Refuse images that are not on the scale 0..1; a little less and more comes from interpolation."""
    if not values.size:
        raise InputError(f"{name} has no images", "check the file")
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{name} has values that are not finite", "replace them by 0")
    if low < -1 or high > 2:
        raise InputError(
            f"{name} has values from {low:.3g} to {high:.3g}, not from 0 to 1",
            "divide each volume by its mean, then all by their maximum, or make the set from the scans themselves",
        )


def _plain(value: Any) -> Any:
    """Return an attribute as a type of JSON."""
    if isinstance(value, bytes):
        return value.decode()
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
