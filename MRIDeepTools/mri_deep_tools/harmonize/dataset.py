"""Prepared images of many sites in one HDF5 file, packed from a table, and pairs for training from it.

The table has the columns ``path`` and ``site``, and where known ``age`` (years) and ``subject``. A path is a prepared
brain (see ``mri-deep-tools harmonize --save-preprocessed``), or a TFRecord file of the published program, all of whose
images get the row's site and age. The file holds the images as the networks see them, x / 500 - 1 with a background of
-1, one chunk each, so packing and training hold only the images in hand in memory.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .._atomic import atomic_path
from ..errors import InputError
from ..progress import Progress
from ..volume import read_volume
from .augmentation import BACKGROUND
from .predictor_images import network_image
from .predictor_table import ScanRow, number_of, read_scans
from .tfrecord import is_record_file, read_records

__all__ = ["PACKED_SUFFIXES", "Contents", "packed", "read_contents", "read_image"]

PACKED_SUFFIXES = (".h5", ".hdf5")
_FORMAT = "mri-deep-tools iguane sites 1"
_COLUMNS = ("site", "subject", "name")


@dataclass(frozen=True)
class Contents:
    """What a packed file holds, in the order of its images; ages that are not known are NaN."""

    path: Path
    shape: tuple[int, int, int]
    sites: tuple[str, ...]
    subjects: tuple[str, ...]
    names: tuple[str, ...]
    ages: np.ndarray


def packed(data: Path, target: Path, shape: Sequence[int], progress: Progress) -> Path:
    """Return a packed file: ``data`` itself when it is one, else ``target``, into which the table is packed.

    A table that was packed before is not packed again unless it or its images have changed.

    Parameters
    ----------
    data : packed file, or table.
    shape : (X, Y, Z) of the images; larger and smaller ones are cut and padded around the brain.

    Raises
    ------
    InputError : files that are missing or cannot be used. OutputError : the file cannot be written.

    """
    if data.suffix.lower() in PACKED_SUFFIXES:
        found = read_contents(data)
        if found.shape != tuple(shape):
            sides = "x".join(map(str, found.shape))
            raise InputError(f"{data.name} has images of {sides} voxels", "set 'shape' to their size")
        return data
    table, rows = read_scans(data, must_exist=True)
    table.require("site")
    for number, row in enumerate(rows, 1):
        if not row.ids["site"]:
            raise InputError(f"row {number} of {data.name} has no site", "correct the table")
    key = _key(rows, shape)
    if target.is_file() and _key_of(target) == key:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"], file.attrs["key"] = _FORMAT, key
        _pack(file, rows, tuple(shape), progress)
    return target


def read_contents(path: str | Path) -> Contents:
    """Return what a packed file holds; InputError when it is none."""
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            if str(file.attrs.get("format", "")) != _FORMAT:
                raise InputError(f"{path.name} is not a packed data set", "give the table, or a data.h5 of a run")
            sites, subjects, names = (tuple(file[column].asstr()[:].tolist()) for column in _COLUMNS)
            ages, sides = file["age"][:], file["images"].shape[1:]
    except (OSError, KeyError, ValueError) as error:
        reason = "does not exist" if not path.exists() else "is not a complete packed data set"
        raise InputError(f"{path.name} {reason}", "give the table, or a data.h5 of a run") from error
    return Contents(path, (sides[0], sides[1], sides[2]), sites, subjects, names, ages)


def read_image(file: h5py.File, number: int) -> np.ndarray:
    """Return an image (X, Y, Z) float32 of a packed file."""
    return np.asarray(file["images"][number], dtype=np.float32)


def _pack(file: h5py.File, rows: Sequence[ScanRow], shape: tuple[int, ...], progress: Progress) -> None:
    """Write all images of the rows, one at a time."""
    images = file.create_dataset(
        "images", (0, *shape), "f4", maxshape=(None, *shape), chunks=(1, *shape), compression="lzf", shuffle=True
    )
    facts: list[tuple[str, str, str, float]] = []
    for done, row in enumerate(rows):
        age = number_of(row.ids["age"], f"the age of {row.path.name}") if row.ids.get("age") else math.nan
        for image, name in _images(row.path, shape, progress):
            images.resize(len(facts) + 1, axis=0)
            images[len(facts)] = image
            facts.append((row.ids["site"], row.ids.get("subject") or f"{row.ids['site']}/{name}", name, age))
        progress.update((done + 1) / len(rows))
    for column, values in zip((*_COLUMNS, "age"), zip(*facts, strict=True), strict=True):
        kind: Any = np.float64 if column == "age" else h5py.string_dtype()
        file.create_dataset(column, data=np.array(values, dtype=kind))


def _images(path: Path, shape: tuple[int, ...], progress: Progress) -> Iterator[tuple[np.ndarray, str]]:
    """Yield the images of a file as the networks see them, with their names."""
    if is_record_file(path):
        for number, image in enumerate(read_records(path, shape), 1):
            yield _usable(image, path.name), f"{path.name}#{number}"
        return
    volume = read_volume(path, dtype=np.float32, on_warning=progress.warn)
    yield _usable(network_image(volume, shape, warn=progress.warn), path.name), path.name


def _usable(image: np.ndarray, name: str) -> np.ndarray:
    """Return an image that has finite values and a brain."""
    if not np.isfinite(image).all():
        raise InputError(f"{name} holds values that are not finite", "prepare the scan again")
    if not (image > BACKGROUND).any():
        raise InputError(f"{name} holds no brain: nothing is above the background", "check the image")
    return image


def _key(rows: Sequence[ScanRow], shape: Sequence[int]) -> str:
    """Return what changes when the table, its files or the wanted size do."""
    lines = [repr(tuple(shape))]
    for row in rows:
        facts = row.path.stat()
        lines.append(f"{row.path}|{sorted(row.ids.items())}|{facts.st_size}|{facts.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _key_of(path: Path) -> str:
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("key", ""))
    except OSError:
        return ""
