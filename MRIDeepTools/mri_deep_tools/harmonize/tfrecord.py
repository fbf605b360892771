"""Reads the published program's training records: TFRecord files, gzipped or not, with one list of floats an image.

A record is its length, a checksum of that, a protocol buffer (``tf.train.Example``) and a checksum of it; checksums are
CRC-32C in TensorFlow's masked form. The one feature is ``mri``: the voxels in C order, x / 500 - 1, background -1.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..checkpoints._crc32c import masked_crc32c
from ..checkpoints._wire import MalformedError, fields
from ..errors import InputError

__all__ = ["RECORD_SUFFIXES", "is_record_file", "read_records"]

FEATURE = "mri"
RECORD_SUFFIXES = (".tfrecord", ".tfrecords", ".tfrec")
_GZIP = b"\x1f\x8b"
_HEAD, _FOOT = 12, 4
_LONGEST = 1 << 31  # bytes of a record; more is a damaged length


class _Stream(Protocol):
    """What is read from: a file, unzipped or not."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""
        ...


def is_record_file(path: str | Path) -> bool:
    """Tell by its name whether a file holds records."""
    name = Path(path).name.lower().removesuffix(".gz")
    return name.endswith(RECORD_SUFFIXES)


def read_records(path: str | Path, shape: Sequence[int], feature: str = FEATURE) -> Iterator[np.ndarray]:
    """Yield the images of a file one after the other, (X, Y, Z) float32, as stored.

    Raises
    ------
    InputError : the file cannot be read, is damaged or cut short, lacks the feature, or has images of another size.

    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            zipped = stream.read(2) == _GZIP
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            yield from _images(stream, shape, feature, path.name)
    except (EOFError, zlib.error, gzip.BadGzipFile, MalformedError) as error:
        raise InputError(f"{path.name} is damaged or cut short ({error})", "copy or write it again") from None
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})", "check the path in the table") from None


def _images(stream: _Stream, shape: Sequence[int], feature: str, name: str) -> Iterator[np.ndarray]:
    count = 0
    while head := stream.read(_HEAD):
        length = _checked(head, _HEAD, 8)
        size = struct.unpack("<Q", length)[0]
        if size > _LONGEST:
            raise MalformedError("a record has no sensible length")
        values = _floats(_checked(stream.read(size + _FOOT), size + _FOOT, size), feature, name)
        if values.size != math.prod(shape):
            sides = "x".join(map(str, shape))
            raise InputError(f"{name} has images of {values.size} voxels, not {sides}", "set 'shape' to their size")
        count += 1
        yield values.reshape(tuple(shape))
    if not count:
        raise InputError(f"{name} holds no records", "check the path in the table")


def _checked(data: bytes, expected: int, size: int) -> bytes:
    """Return the first ``size`` bytes when the checksum behind them is right."""
    if len(data) != expected:
        raise MalformedError("a record is cut short")
    if masked_crc32c(data[:size]) != struct.unpack("<I", data[size:])[0]:
        raise MalformedError("a checksum is wrong")
    return data[:size]


def _floats(example: bytes, feature: str, name: str) -> np.ndarray:
    """Return a feature of a ``tf.train.Example``, (N,) float32."""
    found: list[str] = []
    for entry in _parts(b"".join(_parts(example, 1)), 1):
        key = b"".join(_parts(entry, 1)).decode("utf-8", "replace")
        found.append(key)
        if key == feature:
            # Feature.float_list is field 2; its values, field 1, come packed or one by one.
            values = b"".join(_parts(b"".join(_parts(entry, 2)), 2))
            pieces = [value for number, value in fields(values) if number == 1]
            packed = b"".join(v if isinstance(v, bytes) else struct.pack("<I", v) for v in pieces)
            if len(packed) % 4:
                raise MalformedError("a list of floats is cut short")
            return np.frombuffer(packed, dtype="<f4").astype(np.float32)
    raise InputError(
        f"{name} has no feature {feature!r} in its records", f"it has {', '.join(found[:5]) or 'none'}; check the file"
    )


def _parts(message: bytes, number: int) -> list[bytes]:
    """Return the fields of a message with this number; joined they are one message, as protocol buffers want it."""
    return [value for key, value in fields(message) if key == number and isinstance(value, bytes)]
