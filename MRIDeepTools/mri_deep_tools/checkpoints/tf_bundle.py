"""Read TensorFlow checkpoints (format V2, "tensor bundle") without TensorFlow, with every checksum verified.

A checkpoint PREFIX is the file ``PREFIX.index`` and the shards ``PREFIX.data-00000-of-0000N``. The index is a sorted
table in the manner of LevelDB: blocks of prefix-compressed keys, each with a CRC, found through a footer of 48 bytes.
The value of the empty key is a BundleHeaderProto, of every other key a BundleEntryProto: type, shape, shard, offset,
size and CRC of a tensor, whose bytes stand raw in the shard. Numbers are little-endian; no code is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from .._files import human_size
from ..errors import WeightsError
from ._crc32c import masked_crc32c
from ._sniff import kind_of, remedy_for
from ._wire import MalformedError, fields, number_of, varint

__all__ = ["BundleEntry", "bundle_files", "bundle_prefix", "read_bundle", "read_bundle_index"]

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER, _TRAILER = 48, 5
_AGAIN = "copy or download it again"
_DTYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 5: "<i2", 6: "|i1", 9: "<i8", 10: "|b1", 19: "<f2", 22: "<u4", 23: "<u8",
}  # fmt: skip
_STRING = 7
_MOST_ELEMENTS = 1 << 40


@dataclass(frozen=True)
class BundleEntry:
    """Where a tensor stands: NumPy type (None for strings and types without one), shape, shard, offset, bytes, CRC."""

    dtype: np.dtype | None
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    is_string: bool = False


def bundle_prefix(path: str | Path) -> Path:
    """Return the prefix that a person means: the prefix itself, its ``.index``, a shard, or a folder with one index.

    Raises
    ------
    WeightsError : there is no index file of that name, or the folder holds none or several.

    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            what = "no checkpoint (no file ends in .index)" if not found else f"{len(found)} checkpoints"
            raise WeightsError(f"the folder {path.name} holds {what}", "name the .index file")
        path = found[0]
    prefix = path.with_name(re.sub(r"(\.index|\.data-\d{5}-of-\d{5})$", "", path.name))
    if not _index_path(prefix).is_file():
        raise WeightsError(f"{_index_path(prefix).name} does not exist", "name the .index file of a checkpoint")
    return prefix


def bundle_files(prefix: str | Path) -> list[Path]:
    """Return the index and all shards of a checkpoint, whether or not the shards are there."""
    prefix = bundle_prefix(prefix)
    shards, _ = _read_index(prefix)
    return [_index_path(prefix), *(_shard_path(prefix, k, shards) for k in range(shards))]


def read_bundle_index(prefix: str | Path) -> dict[str, BundleEntry]:
    """Return every key of a checkpoint with its entry; shards are not opened. Raises WeightsError."""
    return _read_index(bundle_prefix(prefix))[1]


def read_bundle(prefix: str | Path, wanted: Callable[[str], bool] | None = None) -> dict[str, np.ndarray]:
    """Return the tensors of a checkpoint in their own types and axis order; strings as arrays of bytes objects.

    Parameters
    ----------
    prefix :
        Prefix, ``.index`` file, shard, or folder with one checkpoint.
    wanted :
        Says by its key whether a tensor is read; None reads all.

    Raises
    ------
    WeightsError : a file is missing, cut short or no checkpoint, or a checksum does not match.

    """
    prefix = bundle_prefix(prefix)
    shards, entries = _read_index(prefix)
    tensors: dict[str, np.ndarray] = {}
    for key, entry in entries.items():
        if wanted is None or wanted(key):
            path = _shard_path(prefix, entry.shard, shards)
            raw = _read_bytes(path, entry, key)
            tensors[key] = _strings(raw, entry, path, key) if entry.is_string else _numbers(raw, entry, path, key)
    return tensors


def _index_path(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def _shard_path(prefix: Path, shard: int, shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


# ---------------------------------------------------------------------------------------------------------------- index


def _read_index(prefix: Path) -> tuple[int, dict[str, BundleEntry]]:
    """Return the number of shards and the entries in the file's order."""
    path = _index_path(prefix)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read ({error.strerror})", "check the file") from None
    if len(data) < _FOOTER or data[-8:] != _MAGIC:
        kind = kind_of(path)
        what = "its end is missing" if kind == "data of an unknown kind" else f"it is {kind}"
        raise WeightsError(f"{path.name} is no TensorFlow checkpoint index: {what}", remedy_for(kind) or _AGAIN)
    try:
        return _parse_index(data)
    except (MalformedError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path.name} is damaged: {error}", _AGAIN) from None


def _parse_index(data: bytes) -> tuple[int, dict[str, BundleEntry]]:
    footer = data[-_FOOTER:]
    _, _, position = _handle(footer, 0)
    offset, size, _ = _handle(footer, position)
    shards, entries = 0, {}
    for _, value in _block(data, offset, size):
        start, length, _ = _handle(value, 0)
        for key, content in _block(data, start, length):
            if key:
                entries[key.decode("utf-8")] = _entry(content)
                continue
            shards = number_of(content, 1)
            if number_of(content, 2):
                raise MalformedError("its numbers are big-endian, which is not read here")
    if not 1 <= shards < 100_000:
        raise MalformedError("it has no header")
    if any(entry.shard >= shards for entry in entries.values()):
        raise MalformedError("a tensor is in a shard that does not exist")
    return shards, entries


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    """Return offset and size of a block, and the position behind the handle."""
    offset, position = varint(data, position)
    size, position = varint(data, position)
    return offset, size, position


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a block whose checksum is right."""
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER or size < 4:
        raise MalformedError("a block lies outside the file")
    if data[end]:
        raise MalformedError("it is compressed, which TensorFlow does not do")
    if int.from_bytes(data[end + 1 : end + _TRAILER], "little") != masked_crc32c(data[offset : end + 1]):
        raise MalformedError("the checksum of a block does not match")
    content = data[offset:end]
    restarts = int.from_bytes(content[-4:], "little")
    last = size - 4 - 4 * restarts
    if last < 0:
        raise MalformedError("a block has more restart points than bytes")
    position, key = 0, b""
    while position < last:
        shared, position = varint(content, position)
        own, position = varint(content, position)
        length, position = varint(content, position)
        if shared > len(key) or position + own + length > last:
            raise MalformedError("an entry is longer than its block")
        key = key[:shared] + content[position : position + own]
        yield key, content[position + own : position + own + length]
        position += own + length


def _entry(content: bytes) -> BundleEntry:
    shape: list[int] = []
    for number, value in fields(content):
        if number == 2 and isinstance(value, bytes):
            sizes = [inner for key, inner in fields(value) if key == 2 and isinstance(inner, bytes)]
            shape += [number_of(inner, 1) for inner in sizes]
        elif number == 7:
            raise MalformedError("a tensor is kept in slices, which is not read here")
    if any(n >= _MOST_ELEMENTS for n in shape):
        raise MalformedError("a tensor has a negative or absurd size")
    kind = number_of(content, 1)
    return BundleEntry(
        np.dtype(_DTYPES[kind]) if kind in _DTYPES else None,
        tuple(shape),
        number_of(content, 3),
        number_of(content, 4),
        number_of(content, 5),
        number_of(content, 6),
        kind == _STRING,
    )


# --------------------------------------------------------------------------------------------------------------- shards


def _read_bytes(path: Path, entry: BundleEntry, key: str) -> bytes:
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            if entry.offset + entry.size > total:
                text = f"{path.name} is cut short: {human_size(total)} are here and the index asks for more"
                raise WeightsError(text, _AGAIN)
            file.seek(entry.offset)
            return file.read(entry.size)
    except FileNotFoundError:
        hint = f"put it beside the index; it holds {key} and others"
        raise WeightsError(f"the data file {path.name} of the checkpoint is missing", hint) from None
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read ({error.strerror})", "check the file") from None


def _numbers(raw: bytes, entry: BundleEntry, path: Path, key: str) -> np.ndarray:
    if entry.dtype is None:
        raise WeightsError(f"{path.name} holds {key} in a type that is not read here", "save the model in float32")
    if prod(entry.shape) * entry.dtype.itemsize != entry.size:
        raise WeightsError(f"{path.name}: size and shape of {key} contradict each other", _AGAIN)
    _check(raw, entry, path, key)
    array = np.frombuffer(raw, dtype=entry.dtype).reshape(entry.shape)
    return array.astype(array.dtype.newbyteorder("="), copy=True)


def _strings(raw: bytes, entry: BundleEntry, path: Path, key: str) -> np.ndarray:
    """Read strings: varint lengths, a checksum of the lengths, then the strings back to back."""
    damaged = WeightsError(f"{path.name} is damaged: {key} cannot be taken apart", _AGAIN)
    count, position, lengths = prod(entry.shape), 0, []
    if count > entry.size:
        raise damaged
    try:
        for _ in range(count):
            length, position = varint(raw, position)
            lengths.append(length)
    except MalformedError:
        raise damaged from None
    widths = [length.to_bytes(4 if length < 1 << 32 else 8, "little") for length in lengths]
    content = raw[position + 4 :]
    if sum(lengths) != len(content):
        raise damaged
    if int.from_bytes(raw[position : position + 4], "little") != masked_crc32c(b"".join(widths)):
        raise damaged
    _check(b"".join(widths) + raw[position:], entry, path, key)
    out, start = np.empty(count, dtype=object), 0
    for index, length in enumerate(lengths):
        out[index] = content[start : start + length]
        start += length
    return out.reshape(entry.shape)


def _check(content: bytes, entry: BundleEntry, path: Path, key: str) -> None:
    if masked_crc32c(content) != entry.crc32c:
        raise WeightsError(f"{path.name} is damaged: the checksum of {key} does not match", _AGAIN)
