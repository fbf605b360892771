"""Bytes of an image file, plain or compressed: read exactly what is asked, and say plainly what is wrong.

Compressed files are read to their end, so that the checksum behind the data is compared; nothing is allocated that
the file cannot fill.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from types import TracebackType

import numpy as np

from .errors import InputError, OutOfMemoryError
from .inference import available_memory, format_bytes

MAX_DEFLATE_RATIO = 1032
"""No deflate stream (gzip, zlib) can hold more than this many bytes per byte of file."""

_CHUNK = 1 << 18
_SMALL = 64 << 20
_AGAIN = "copy or download it again"


def incomplete(name: str, detail: str = "") -> InputError:
    """Return the error for a file that ends early or fails its checksum."""
    return InputError(f"{name} is not complete (truncated or damaged download){': ' if detail else ''}{detail}", _AGAIN)


def unreadable(name: str, error: OSError) -> InputError:
    """Return the error for a file that the system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name} does not exist", "check the path")
    return InputError(f"{name} cannot be read ({error.strerror or error})", "check the path and its permissions")


def allocate(shape: Sequence[int], dtype: np.dtype, name: str) -> np.ndarray:
    """Return an empty Fortran-ordered array, or say that the machine is too small for it.

    Raises
    ------
    OutOfMemoryError : the array does not fit into the memory that is left, or the system refuses it.

    """
    nbytes = prod(int(n) for n in shape) * dtype.itemsize
    require_room(nbytes, name)
    try:
        return np.empty(tuple(shape), dtype=dtype, order="F")
    except (MemoryError, ValueError):
        raise out_of_memory(name, nbytes) from None


def require_room(nbytes: int, name: str) -> None:
    """Raise OutOfMemoryError when this process cannot hold ``nbytes`` more; small arrays are not looked at."""
    if nbytes > _SMALL and nbytes > available_memory():
        raise out_of_memory(name, nbytes)


def out_of_memory(name: str, nbytes: int) -> OutOfMemoryError:
    """Return the error for a file whose data do not fit."""
    return OutOfMemoryError(
        f"{name} needs {format_bytes(nbytes)} of memory but {format_bytes(available_memory())} are free",
        "close other programs or use a machine with more memory",
    )


class DataStream:
    """An open file from whose start (or byte ``start``) data are read in order.

    Parameters
    ----------
    path : the file.
    compressed : True for gzip or zlib data.
    start : where the data begin.

    Raises
    ------
    InputError : the file is missing, empty, unreadable, cut short or damaged.

    """

    def __init__(self, path: Path, *, compressed: bool, start: int = 0) -> None:
        self.name = path.name
        self.compressed = compressed
        self._pending = b""
        self._engine = zlib.decompressobj(47)  # 32 + 15: finds out whether gzip or zlib
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise unreadable(self.name, error) from None
        self.size = path.stat().st_size - start
        if self.size <= 0:
            self._file.close()
            raise incomplete(self.name) if start else InputError(f"{self.name} is empty (0 bytes)", _AGAIN)
        self._file.seek(start)

    def __enter__(self) -> DataStream:
        """Return the stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def check_capacity(self, nbytes: int, what: str) -> None:
        """Raise when the file cannot hold ``nbytes`` bytes of data, whatever its compression."""
        if nbytes > self.size * (MAX_DEFLATE_RATIO if self.compressed else 1):
            raise incomplete(self.name, f"its header announces {what}, but the file has {self.size:,} bytes")

    def read(self, count: int) -> bytes:
        """Return exactly ``count`` bytes."""
        buffer = bytearray(count)
        self.fill(memoryview(buffer))
        return bytes(buffer)

    def array(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Return the next values as a Fortran-ordered array in native byte order."""
        data = allocate(shape, dtype, self.name)
        self.fill(data.reshape(-1, order="F").view(np.uint8).data)
        return data if dtype.isnative else data.byteswap(inplace=True).view(dtype.newbyteorder("="))

    def fill(self, view: memoryview) -> None:
        """Fill ``view`` completely."""
        if self._read_into(view) < len(view):
            raise incomplete(self.name)

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes, which must be there."""
        scratch = memoryview(bytearray(min(count, 1 << 20)))
        while count > 0:
            part = scratch[: min(count, len(scratch))]
            self.fill(part)
            count -= len(part)

    def drain(self) -> int:
        """Read to the end, so that the checksum of compressed data is compared; return the number of bytes passed."""
        scratch = memoryview(bytearray(1 << 20))
        total = 0
        while count := self._read_into(scratch):
            total += count
        return total

    def _read_into(self, view: memoryview) -> int:
        """Fill ``view`` as far as the data go and return the number of bytes."""
        done = 0
        try:
            while done < len(view):
                count = self._inflate(view[done:]) if self.compressed else self._file.readinto(view[done:])
                if not count:
                    break
                done += count
        except zlib.error:
            raise incomplete(self.name) from None
        except OSError as error:
            raise unreadable(self.name, error) from None
        return done

    def _inflate(self, view: memoryview) -> int:
        """Put some decompressed bytes into ``view``; 0 at the end of the last member."""
        while True:
            if self._engine.eof and not self._next_member():
                return 0
            chunk = self._engine.unconsumed_tail or self._pending or self._file.read(_CHUNK)
            self._pending = b""
            out = self._engine.decompress(chunk, len(view))
            if out:
                view[: len(out)] = out
                return len(out)
            if not chunk and not self._engine.eof:
                raise incomplete(self.name)

    def _next_member(self) -> bool:
        """Start on the next gzip member if one follows; anything else behind the data is padding."""
        rest = self._engine.unused_data
        if len(rest) < 2:
            rest += self._file.read(_CHUNK)
        if rest[:2] != b"\x1f\x8b":
            return False
        self._engine, self._pending = zlib.decompressobj(47), rest
        return True
