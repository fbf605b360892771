"""Training records of the original program: one TFRecord file per subject (or octant), read without TensorFlow.

A file holds one ``tf.train.Example`` with the features ``dmri`` (i, j, k, b), ``bvec`` (3, b), ``bval`` (b) float32 and
``mask`` (i, j, k) int8, each a serialised tensor. Uncompressed files are mapped into memory, not read as a whole.
"""

from __future__ import annotations

import gzip
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints._crc32c import masked_crc32c
from ..checkpoints._wire import MalformedError, fields
from ..errors import InputError

__all__ = ["RECORD_SUFFIXES", "Record", "read_record"]

RECORD_SUFFIXES = (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz")
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 6: np.dtype("int8")}
_WANTED = {"dmri": (1, 4), "bvec": (1, 2), "bval": (1, 1), "mask": (6, 3)}  # type, number of axes


@dataclass(frozen=True)
class Record:
    """A subject: dmri (i, j, k, b) float32, bvec (b, 3) float32, bval (b,) float32, mask (i, j, k) int8."""

    dmri: np.ndarray
    bvec: np.ndarray
    bval: np.ndarray
    mask: np.ndarray


def read_record(path: str | Path) -> Record:
    """Return the subject of a record file; both checksums are compared.

    Raises
    ------
    InputError : the file cannot be read, is damaged, or holds something else.

    """
    path = Path(path)
    try:
        data = _content(path)
        return _record(_features(_payload(data)), path.name)
    except (MalformedError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path.name} is not a whole training record ({error})", "copy it again") from None
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror or error})", "check the file") from None


def _content(path: Path) -> memoryview:
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            return memoryview(stream.read())
    with path.open("rb") as file:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:
            raise MalformedError("it is empty") from None


def _payload(data: memoryview) -> memoryview:
    """Return the single record in its frame: length, checksum, content, checksum."""
    if len(data) < 16:
        raise MalformedError("it is cut short")
    if masked_crc32c(data[:8]) != int.from_bytes(data[8:12], "little"):
        raise MalformedError("its length fails its checksum")
    size = int.from_bytes(data[:8], "little")
    if len(data) < size + 16:
        raise MalformedError("it is cut short")
    if len(data) > size + 16:
        raise MalformedError("it holds more than one subject")
    content = data[12 : 12 + size]
    if masked_crc32c(content) != int.from_bytes(data[12 + size :], "little"):
        raise MalformedError("its content fails its checksum")
    return content


def _features(content: memoryview) -> dict[str, Any]:
    """Return the first bytes value of each feature that has one."""
    found: dict[str, Any] = {}
    for _, features in _messages(content, 1):
        for _, entry in _messages(features, 1):
            parts = dict(fields(entry))
            for _, values in _messages(parts.get(2, b""), 1):
                for _, value in _messages(values, 1):
                    found[bytes(parts.get(1, b"")).decode("utf-8", "replace")] = value
                    break
    return found


def _messages(data: Any, number: int) -> list[tuple[int, Any]]:
    return [(key, value) for key, value in fields(data) if key == number and not isinstance(value, int)]


def _record(features: dict[str, Any], name: str) -> Record:
    arrays = {}
    for key, (kind, axes) in _WANTED.items():
        if key not in features:
            raise InputError(f"{name} lacks the feature {key}", "give records of dMRI-RCNN")
        array = _tensor(features[key])
        if array.dtype != _TYPES[kind] or array.ndim != axes:
            raise InputError(
                f"{name}: {key} is {array.dtype} with {array.ndim} axes, not {_TYPES[kind]} with {axes}",
                "give records of dMRI-RCNN",
            )
        arrays[key] = array
    dmri, bvec, bval, mask = (arrays[key] for key in _WANTED)
    if bvec.shape != (3, dmri.shape[3]) or bval.shape != dmri.shape[3:] or mask.shape != dmri.shape[:3]:
        raise InputError(f"{name}: its arrays do not fit together", "write the record again")
    return Record(dmri, bvec.T, bval, mask)


def _tensor(data: Any) -> np.ndarray:
    """Return the array of a serialised tensor, a view of the file where that is possible."""
    kind, sizes = 0, []
    content: Any = b""
    for number, value in fields(data):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2 and not isinstance(value, int):
            sizes = [int(dict(fields(dim)).get(1, 0)) for _, dim in _messages(value, 2)]
        elif number == 4 and not isinstance(value, int):
            content = value
    if kind not in _TYPES:
        raise MalformedError(f"an array is of type {kind}")
    array = np.frombuffer(bytes(content), dtype=_TYPES[kind])
    if array.size != np.prod(sizes, dtype=np.int64):
        raise MalformedError("an array has another size than it says")
    return array.reshape(sizes)
