"""Training data of prediction networks: scans with targets, their split, a cache that is read once, samples by number.

Every sample is a function of the seed and of its number, so a training that was stopped goes on with the same samples.
An epoch takes every image at most once in an order of its own; what does not fill a last batch is left out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import IterableDataset

from ..errors import InputError, RequestError
from ..inference import available_memory, format_bytes
from ..volume import read_volume
from .augmentation import augment
from .predictor_images import network_image
from .predictor_table import distinct, number_of, read_scans

__all__ = ["BatchStream", "ImageStore", "Scan", "find_targets", "split_scans"]

_MEMORY_SHARE = 0.6  # of the free memory that images may take before they go to the disk


@dataclass(frozen=True)
class Scan:
    """A prepared image, the person it shows, and what is to be predicted (0 and 1 stand for the two classes)."""

    path: Path
    subject: str
    target: float


def find_targets(
    table: str | Path,
    column: str,
    task: Literal["regression", "classification"] = "regression",
    classes: Sequence[str] = (),
    subject: str = "",
) -> tuple[list[Scan], tuple[str, str] | None]:
    """Read the scans of a table with their targets.

    Parameters
    ----------
    table : ``.csv`` or ``.tsv`` with a column ``path``, relative to it.
    column : of the target.
    task, classes : for a classification the negative and the positive class; empty for the two that occur, in
        alphabetical order. Rows of other classes are left out.
    subject : column that names the person; empty: every scan is a person of its own.

    Returns
    -------
    The scans in the order of the table, and the classes (None for a regression).

    Raises
    ------
    InputError : a missing file or column, a target that is no number, not two classes.

    """
    name = Path(table).name
    content, rows = read_scans(table, must_exist=True)
    content.require(column)
    if subject:
        content.require(subject)
    pair: tuple[str, str] | None = None
    if task == "classification":
        found = sorted(distinct([row.ids[column] for row in rows]))
        wanted = list(classes) or found
        if len(wanted) != 2 or not set(wanted) <= set(found):
            occurring = ", ".join(found[:6]) or "none"
            raise InputError(
                f"a classification needs two classes; the column {column!r} of {name} has {occurring}",
                "set 'classes' to the negative and the positive one",
            )
        pair = wanted[0], wanted[1]
        rows = [row for row in rows if row.ids[column] in pair]
    scans = []
    for number, row in enumerate(rows, 1):
        text = row.ids[column]
        value = float(pair.index(text)) if pair else number_of(text, f"{column} in row {number} of {name}")
        scans.append(Scan(row.path, row.ids[subject] if subject else str(number), value))
    return scans, pair


def split_scans(scans: Sequence[Scan], share: float, seed: int) -> tuple[list[Scan], list[Scan]]:
    """Return training and validation scans: ``share`` of the persons, drawn by the seed, are for validation.

    Raises
    ------
    RequestError : a share that leaves no training data.

    """
    if not 0 <= share < 1:
        raise RequestError(f"a share of {share:g} of the scans cannot be kept for validation", "use 0 to below 1")
    persons = distinct([scan.subject for scan in scans])
    drawn = np.random.default_rng([seed, 3]).permutation(len(persons))[: round(share * len(persons))]
    held = {persons[index] for index in drawn}
    if len(held) == len(persons):
        raise RequestError(f"{len(persons)} persons leave none for training", "give more data or a smaller share")
    return [s for s in scans if s.subject not in held], [s for s in scans if s.subject in held]


class ImageStore:
    """Images as the network sees them, each read from its file once; in memory, or in one file on the disk.

    Parameters
    ----------
    paths : prepared images.
    shape : (X, Y, Z) of the network; None takes that of the first image, cropped as published.
    median : brain median of the images.
    folder : where the file on the disk goes.
    place : ``memory``, ``disk``, or ``auto``: memory where the images take less than 60 % of what is free.
    warn : receives what a person should know.

    """

    def __init__(
        self,
        paths: Sequence[Path],
        shape: Sequence[int] | None,
        median: float,
        folder: Path,
        place: Literal["auto", "memory", "disk"] = "auto",
        *,
        compatible: bool = False,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.paths, self.median, self.compatible = list(paths), median, compatible
        self._warn, self._given = warn, tuple(shape or ())
        first = self._read(0)
        self.shape = (first.shape[0], first.shape[1], first.shape[2])
        size = len(self.paths) * math.prod(self.shape) * 4
        if place == "auto":
            place = "memory" if size < _MEMORY_SHARE * available_memory() else "disk"
        elif place == "memory" and size > available_memory():
            needed, free = format_bytes(size), format_bytes(available_memory())
            raise RequestError(f"the images take {needed}, and {free} of memory are free", "set cache to disk")
        self._images: np.ndarray | None = None
        self._done: np.ndarray | None = None
        self._file: Path | None = None
        if place == "memory":
            self._images = np.zeros((len(self.paths), *self.shape), np.float32)
            self._done = np.zeros(len(self.paths), bool)
            self._keep(0, first)
        else:
            self._file = folder / f"images-{self._digest()}.npy"
            self._make_file()

    @property
    def on_disk(self) -> bool:
        """Whether the images are in a file."""
        return self._file is not None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getstate__(self) -> dict[str, Any]:
        """Leave what is on the disk there when a worker process is given this object."""
        state = dict(self.__dict__) | {"_warn": None}
        return state | {"_images": None, "_done": None} if self._file else state

    def __getitem__(self, index: int) -> np.ndarray:
        """Return image ``index``, float32 (X, Y, Z), background -1; do not write to it."""
        if self._images is None or self._done is None:
            self._open()
        images, done = self._opened()
        if not done[index]:
            self._keep(index, self._read(index))
        return np.asarray(images[index])

    def preload(self, report: Callable[[float], None] | None = None) -> None:
        """Read what was not read yet, so that worker processes find it."""
        for index in range(len(self)):
            self[index]
            if report:
                report((index + 1) / len(self))

    def _opened(self) -> tuple[np.ndarray, np.ndarray]:
        if self._images is None or self._done is None:
            raise RuntimeError("the store is not open")
        return self._images, self._done

    def _keep(self, index: int, image: np.ndarray) -> None:
        images, done = self._opened()
        images[index] = image
        done[index] = True

    def _read(self, index: int) -> np.ndarray:
        path = self.paths[index]
        volume = read_volume(path, dtype=np.float32, on_warning=self._warn)
        shape = self._given or (self.shape if index else None)
        image = network_image(volume, shape, self.median, compatible=self.compatible, warn=self._warn)
        if shape and image.shape != tuple(shape):
            sides, wanted = ("x".join(map(str, s)) for s in (image.shape, shape))
            raise InputError(f"{path.name} has {sides} voxels, not {wanted}", "prepare all images in the same way")
        return image

    def _digest(self) -> str:
        """Return a name for these images in this order: another selection is another file."""
        facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in self.paths]
        text = json.dumps([facts, self.shape, self.median, self.compatible])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _make_file(self) -> None:
        """Make the file where it is not there; processes of one training share it."""
        from filelock import FileLock

        from ..errors import OutputError

        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._file.with_suffix(".lock")):
                if not self._file.exists():
                    shape = (len(self.paths), *self.shape)
                    np.lib.format.open_memmap(self._done_file(), "w+", np.bool_, (len(self.paths),)).flush()
                    np.lib.format.open_memmap(self._file, "w+", np.float32, shape).flush()
        except OSError as error:
            raise OutputError(f"the cache of images cannot be written ({error.strerror})", "free some space") from error
        self._open()

    def _done_file(self) -> Path:
        return Path(f"{self._file}.done")

    def _open(self) -> None:
        self._images = np.lib.format.open_memmap(str(self._file), "r+")
        self._done = np.lib.format.open_memmap(str(self._done_file()), "r+")


class BatchStream(IterableDataset[Any]):
    """Batches without end: images (B, 1, X, Y, Z) and targets (B,), float32, as a function of their number.

    ``targets`` are those of the store's images from ``first`` on. ``batch`` images make one step; each of ``world``
    processes gets its part of them. ``start`` is the first step.
    """

    def __init__(
        self,
        store: ImageStore,
        targets: Sequence[float],
        batch: int,
        seed: int,
        *,
        first: int = 0,
        augmented: bool = True,
        compatible: bool = False,
    ) -> None:
        if not 1 <= batch <= len(targets):
            raise RequestError(f"{len(targets)} images do not fill a batch of {batch}", "give more images or set batch")
        self.store, self.targets, self.batch, self.seed = store, np.asarray(targets, np.float32), batch, seed
        self.first, self.augmented, self.compatible = first, augmented, compatible
        self.start, self.rank, self.world = 0, 0, 1

    @property
    def per_epoch(self) -> int:
        """Number of whole batches of an epoch."""
        return len(self.targets) // self.batch

    def image(self, index: int) -> np.ndarray:
        """Return the image of target ``index`` as it is; do not write to it."""
        return self.store[self.first + index]

    def sample(self, number: int) -> tuple[np.ndarray, float]:
        """Return sample ``number`` (from 0, without end)."""
        epoch, place = divmod(number, self.per_epoch * self.batch)
        index = int(np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.targets))[place])
        image = self.image(index)
        if self.augmented:
            image = augment(image, np.random.default_rng([self.seed, 1, number]), compatible=self.compatible)
        return image, float(self.targets[index])

    def step(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this process's part of the batch of step ``number``."""
        own = range(number * self.batch + self.rank, (number + 1) * self.batch, self.world)
        samples = [self.sample(index) for index in own]
        images = np.stack([image for image, _ in samples])[:, None]
        return images, np.array([target for _, target in samples], np.float32)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches from ``start`` on; each worker of a loader takes its turn."""
        from torch.utils.data import get_worker_info

        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = self.start + first
        while True:
            yield self.step(number)
            number += stride
