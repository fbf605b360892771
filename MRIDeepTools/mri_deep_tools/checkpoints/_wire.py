"""The wire format of protocol buffers, as far as it takes to read TensorFlow's checkpoints and records."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["MalformedError", "fields", "number_of", "varint"]

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST = 10  # bytes of a 64-bit varint


class MalformedError(ValueError):
    """The bytes do not follow the format; the reader of the file says which file."""


def varint(data: bytes, start: int) -> tuple[int, int]:
    """Return a variable-length integer (groups of 7 bits, lowest first) and the position behind it."""
    value = 0
    for count in range(_LONGEST):
        if start + count >= len(data):
            raise MalformedError("a number is cut short")
        byte = data[start + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, start + count + 1
    raise MalformedError("a number is longer than 64 bits")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a message: integers for numbers of any width, bytes for what has a length."""
    position = 0
    while position < len(data):
        tag, position = varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = varint(data, position)
            yield number, value
            continue
        if kind == _LENGTH:
            size, position = varint(data, position)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise MalformedError(f"a field has the unknown type {kind}")
        if position + size > len(data):
            raise MalformedError("a field is cut short")
        content = data[position : position + size]
        yield number, content if kind == _LENGTH else int.from_bytes(content, "little")
        position += size


def number_of(data: bytes, number: int, default: int = 0) -> int:
    """Return the last integer with this field number (as protocol buffers want it), or ``default``."""
    found = [value for key, value in fields(data) if key == number and isinstance(value, int)]
    return found[-1] if found else default
