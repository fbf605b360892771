"""CRC-32C (Castagnoli) in NumPy, fast enough for checkpoint files of a hundred megabytes, and TensorFlow's mask of it.

Reflected polynomial 0x82F63B78, start value and final xor 0xFFFFFFFF (RFC 3720, appendix B.4). Without start value
and final xor the checksum is linear, so many stretches of the data are worked on at once, two bytes per step, and
their checksums joined in a tree: the register after a stretch A followed by n bytes is a linear map of A's register.
"""

from __future__ import annotations

import functools

import numpy as np

__all__ = ["crc32c", "masked_crc32c"]

_POLYNOMIAL = 0x82F63B78
_ONES = 0xFFFFFFFF
_MASK_DELTA = 0xA282EAD8
_BLOCK = 16 << 20  # bytes worked on at a time
_STEP_BYTES = 2


def crc32c(data: bytes | bytearray | memoryview | np.ndarray) -> int:
    """Return the CRC-32C of bytes (or of the bytes of a C-contiguous array), from 0 to 2**32 - 1."""
    raw = np.ascontiguousarray(data) if isinstance(data, np.ndarray) else np.frombuffer(data, dtype=np.uint8)
    flat = raw.reshape(-1).view(np.uint8)
    register = _ONES
    for start in range(0, flat.size, _BLOCK):
        register = _advance(register, flat[start : start + _BLOCK])
    return register ^ _ONES


def masked_crc32c(data: bytes | bytearray | memoryview | np.ndarray) -> int:
    """Return the CRC-32C as TensorFlow and LevelDB store it: rotated right by 15 bits plus a constant."""
    value = crc32c(data)
    return (((value >> 15) | (value << 17)) + _MASK_DELTA) & _ONES


def _advance(register: int, data: np.ndarray) -> int:
    """Return the register after ``data`` (uint8), from a register that may hold any value."""
    levels = max(0, (data.size // 512).bit_length() - 1)  # stretches of 512 bytes or more
    lanes = 1 << levels
    length = -(-data.size // (lanes * _STEP_BYTES)) * _STEP_BYTES
    padded = np.zeros(lanes * length, dtype=np.uint8)  # zeros in front leave an empty register empty
    begin = padded.size - data.size
    padded[begin:] = data
    start = np.frombuffer(np.uint32(register).tobytes(), dtype=np.uint8)
    inside = min(4, data.size)
    padded[begin : begin + inside] ^= start[:inside]
    left_over = register >> (8 * inside) if inside < 4 else 0  # data shorter than the register
    words = np.ascontiguousarray(padded.reshape(lanes, length).view("<u2").T)
    table, state = _word_table(), np.zeros(lanes, dtype=np.uint32)
    for row in words:
        state = table[(state ^ row) & 0xFFFF] ^ (state >> np.uint32(16))
    while state.size > 1:
        state = _apply(_shift_tables(length), state[0::2]) ^ state[1::2]
        length *= 2
    return int(state[0]) ^ left_over


@functools.cache
def _byte_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(_POLYNOMIAL), table >> np.uint32(1))
    return table


@functools.cache
def _word_table() -> np.ndarray:
    """Return what two bytes do to an empty register, for each of the 65536 words."""
    table, word = _byte_table(), np.arange(1 << 16, dtype=np.uint32)
    for _ in range(_STEP_BYTES):
        word = table[word & 0xFF] ^ (word >> np.uint32(8))
    return word


@functools.lru_cache(maxsize=256)
def _shift_tables(length: int) -> np.ndarray:
    """Return (4, 256) uint32: what ``length`` zero bytes make of each byte of the register."""
    if length == 1:
        step = _byte_table()
        place = [np.arange(256, dtype=np.uint32) << np.uint32(8 * k) for k in range(4)]
        return np.stack([step[value & 0xFF] ^ (value >> np.uint32(8)) for value in place])
    half = _shift_tables(length // 2)
    tables = np.stack([_apply(half, column) for column in half])
    if length % 2:
        tables = np.stack([_apply(_shift_tables(1), column) for column in tables])
    return tables


def _apply(tables: np.ndarray, registers: np.ndarray) -> np.ndarray:
    parts = [tables[k][(registers >> np.uint32(8 * k)) & 0xFF] for k in range(4)]
    return parts[0] ^ parts[1] ^ parts[2] ^ parts[3]
