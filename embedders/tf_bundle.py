"""Reads TensorFlow's checkpoint format ("tensor bundle", version 2) with NumPy alone.

The index file is a LevelDB table whose values are `BundleEntryProto` messages: type, shape, and where the bytes lie in
the data file. Format: tensorflow/core/util/tensor_bundle and tensorflow/core/lib/io/format.h in TensorFlow's sources.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from core.errors import ModelError

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
BLOCK_TRAILER_BYTES = 5  # compression type, checksum
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}  # DataType numbers of types.proto


def read_bundle(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """Tensors by name. Raises `ModelError` for bytes that are not such a checkpoint."""
    try:
        footer = index[-FOOTER_BYTES:]
        if len(index) < FOOTER_BYTES or struct.unpack("<Q", footer[40:])[0] != MAGIC:
            raise ModelError("not a TensorFlow checkpoint index")
        at = 0
        for _ in range(2):  # the handle of the meta-index block, which is not needed
            _, at = _varint(footer, at)
        offset, at = _varint(footer, at)
        size, _ = _varint(footer, at)
        tensors = {}
        for _, handle in _block(index, offset, size):
            start, at = _varint(handle, 0)
            length, _ = _varint(handle, at)
            for key, value in _block(index, start, length):
                if key:
                    array = _tensor(value, data)
                    if array is not None:
                        tensors[key.decode()] = array
        return tensors
    except (IndexError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise ModelError(f"damaged TensorFlow checkpoint: {error}") from error


def _tensor(message: bytes, data: bytes) -> np.ndarray | None:
    fields = {number: value for number, value in _fields(message)}
    dtype = DTYPES.get(int(fields.get(1, 0)))
    if dtype is None:
        return None
    dims = [dict(_fields(value)).get(1, 0) for number, value in _fields(fields.get(2, b"")) if number == 2]
    count = int(fields[5]) // np.dtype(dtype).itemsize
    return np.frombuffer(data, dtype, count=count, offset=int(fields.get(4, 0))).reshape(dims)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) pairs of one table block; keys share prefixes with their predecessors."""
    if data[offset + size] != 0:
        raise ValueError("a compressed block")
    block = data[offset : offset + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    end, at, key = len(block) - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protocol buffer message; nested messages stay bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value, at = int.from_bytes(message[at : at + width], "little"), at + width
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
