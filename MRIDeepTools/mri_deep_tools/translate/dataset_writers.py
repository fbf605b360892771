"""Files that take slices one by one: groups of an HDF5 file, and ``.mat`` files as SynDiff reads them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from .._atomic import atomic_path
from ..errors import InputError
from .tiles import centre_pad

__all__ = ["SliceWriter", "open_writers"]

FORMAT = "mri-deep-tools translation set 1"
_WHITE = 255.0
_HEADER_BYTES, _VERSION = 512, b"\x00\x02IM"
_TITLE = "MATLAB 7.3 MAT-file, Created by: MRI Deep Tools HDF5 schema 1.00 ."


class SliceWriter(Protocol):
    """Takes the slices of one contrast."""

    count: int
    """Slices so far."""

    def add(self, image: np.ndarray, *, subject: str, number: int, source: str) -> None:
        """Append a slice (H, W) in [-1, 1], and say whose it is, its number in the scan, and the scan's file name."""
        ...


def open_writers(
    stack: ExitStack,
    target: Path | Mapping[str, Path],
    facts: Mapping[str, Mapping[str, Any]],
    *,
    paired: bool = False,
    eight_bit: bool = False,
    size: int = 256,
) -> dict[str, SliceWriter]:
    """Return a writer for each contrast; the files appear when ``stack`` ends well.

    Parameters
    ----------
    stack : holds the files open.
    target : an HDF5 file for all contrasts, or a ``.mat`` file for each.
    facts : attributes of each contrast.
    paired, eight_bit : see :func:`.dataset_volumes.write_volume_sets`.
    size : side of the slices of ``.mat`` files, to which they are padded.

    Raises
    ------
    OutputError : the place cannot be written to.

    """
    if isinstance(target, Mapping):
        return {name: _MatWriter(stack, path, size) for name, path in target.items()}
    file = stack.enter_context(h5py.File(stack.enter_context(atomic_path(target)), "w"))
    file.attrs.update({"format": FORMAT, "paired": paired})
    return {name: _GroupWriter(file.create_group(name), found, eight_bit) for name, found in facts.items()}


class _GroupWriter:
    """Slices with values 0..255 under their numbers, as AxonDeepSynth's program reads them."""

    def __init__(self, group: h5py.Group, facts: Mapping[str, Any], eight_bit: bool) -> None:
        self.group, self.eight_bit, self.count = group, eight_bit, 0
        group.attrs.update(facts)

    def add(self, image: np.ndarray, *, subject: str, number: int, source: str) -> None:
        values = (image.astype(np.float32) + np.float32(1)) * np.float32(_WHITE / 2)
        if self.eight_bit:
            values = np.rint(values.clip(0, _WHITE)).astype(np.uint8)
        entry = self.group.create_dataset(
            str(self.count), data=values, compression="gzip", compression_opts=1, shuffle=True
        )
        entry.attrs.update({"subject": subject, "slice": number, "source": source})
        self.count += 1


class _MatWriter:
    """``data_fs`` with values 0..1, (slice, column, row), behind the header by which MATLAB knows its own files."""

    def __init__(self, stack: ExitStack, path: Path, size: int) -> None:
        temporary = stack.enter_context(atomic_path(path))
        stack.callback(_write_header, temporary)
        file = stack.enter_context(h5py.File(temporary, "w", userblock_size=_HEADER_BYTES))
        self.data = file.create_dataset(
            "data_fs",
            (0, size, size),
            "f4",
            maxshape=(None, size, size),
            chunks=(1, size, size),
            compression="gzip",
            compression_opts=1,
        )
        self.data.attrs["MATLAB_class"] = np.bytes_("single")
        self.size, self.count = size, 0

    def add(self, image: np.ndarray, *, subject: str, number: int, source: str) -> None:
        if max(image.shape) > self.size:
            sides = f"{image.shape[1]} x {image.shape[0]}"
            raise InputError(
                f"the slices of {source} have {sides} pixels, more than {self.size}",
                "choose a larger --spacing or --size",
            )
        self.data.resize(self.count + 1, axis=0)
        self.data[self.count] = centre_pad((image + 1) / 2, (self.size, self.size))[0].T
        self.count += 1


def _write_header(path: Path) -> None:
    """Write the first 128 bytes of a MATLAB file into the block that HDF5 leaves free."""
    with path.open("rb+") as file:
        file.write(_TITLE.encode().ljust(124) + _VERSION)
