"""Serialized entity keys (version 3) of rows: prefix, then type, length and value of every join key by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import StorageError
from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.values import KINDS, Block, Writer, block_of, numbers_of, texts_of

# Types that an entity key can have, and feast.ValueType's numbers for them, which stand in the key's bytes.
KEY_TYPES = {"BYTES": 1, "STRING": 2, "INT32": 3, "INT64": 4, "UNIX_TIMESTAMP": 8}
FEW = 48  # keys that are made quicker one by one than by setting up arrays for them


class Keys:
    """The keys of a request, as Python bytes or as a block of one column: each is made of the other when it is asked
    for, because a few are handled quicker as bytes and many as a block."""

    def __init__(self, values: list[bytes] | None = None, block: Block | None = None) -> None:
        self._values, self._block = values, block

    def __len__(self) -> int:
        return self._block.rows if self._values is None else len(self._values)  # type: ignore[union-attr]

    @property
    def values(self) -> list[bytes]:
        if self._values is None:
            self._values = [key or b"" for key in self.block.values(0)]
        return self._values

    @property
    def block(self) -> Block:
        if self._block is None:
            self._block = block_of([self.values])
        return self._block


class KeyLayout:
    """How the keys of a view are made, for join keys of the given names and types (of `KEY_TYPES`)."""

    def __init__(self, view: str, names: Sequence[str], kinds: Sequence[str]) -> None:
        self._view, self._names, self._kinds = view, tuple(names), tuple(kinds)
        parts = [_little(len(names))]
        for name in sorted(names):
            held = name.encode()
            parts += [_little(KEY_TYPES["STRING"]), _little(len(held)), held]
        self._prefix = b"".join(parts)
        self._sorted = sorted(range(len(names)), key=lambda n: names[n])

    def keys(self, columns: Sequence[Any], suffix: bytes = b"") -> Keys:
        """Keys of rows to read, given the join keys' columns, lists of Python values or Arrow arrays, in the order of
        the names. A row with a null has the empty key, under which nothing is stored. Raises `StorageError` as `block`
        does, and Arrow's own error for values that are of no one type."""
        if len(columns[0]) <= FEW:
            values = self._few(columns, suffix)
            if values is not None:
                return Keys(values)
        arrays = [arrow_of(column) for column in columns]
        if not any(array.null_count for array in arrays):
            return Keys(block=self.block(arrays, suffix))
        return self._beside_nulls(arrays, suffix)

    def _beside_nulls(self, columns: Sequence[pa.Array], suffix: bytes) -> Keys:
        """The keys of the rows without a null, and empty ones for the others."""
        rows = len(columns[0])
        present = np.ones(rows, bool)
        for column in columns:
            if len(column) == rows:  # `block` refuses others
                present &= np.asarray(column.is_valid())
        mask = pa.array(present)
        kept = [column.filter(mask) if len(column) == rows else column for column in columns]
        values = iter(self.block(kept, suffix).values(0))
        return Keys([(next(values) or b"") if there else b"" for there in present.tolist()])

    def block(self, columns: Sequence[pa.Array], suffix: bytes = b"") -> Block:
        """The same of Arrow columns as a block of one column. Raises `StorageError` for a null, a value of another
        type, or columns of different lengths."""
        prepared: list[tuple[Any, ...]] = []
        rows = len(columns[0])
        if any(len(column) != rows for column in columns):  # the kernels would write beyond their arrays
            raise StorageError(f"the join keys of {self._view!r} are of different lengths: {[len(c) for c in columns]}")
        room = rows * (len(self._prefix) + len(suffix))
        for name, kind, column in zip(self._names, self._kinds, columns, strict=True):
            prepared.append(_prepare(name, kind, column))
        parts = Writer(len(prepared), rows, sum(p[-1] for p in prepared))
        for number in self._sorted:
            encoder, *arguments, _ = prepared[number]
            parts.next(encoder, *arguments)
        block = parts.block()
        whole = Writer(1, rows, room + block.data.size)
        prefix, tail = (np.frombuffer(b, np.uint8) for b in (self._prefix, suffix))
        whole.next(kernels.join, prefix, tail, block.data, block.starts, block.lengths)
        return whole.block()

    def _few(self, columns: Sequence[Any], suffix: bytes) -> list[bytes] | None:
        """The keys of rows of plain strings and integers; None where there is anything else, which Arrow judges."""
        rows = len(columns[0])
        made = [self._prefix] * rows
        for number in self._sorted:
            column, kind = columns[number], self._kinds[number]
            if type(column) is not list or len(column) != rows:
                return None
            if kind == "STRING":
                for row, value in enumerate(column):
                    if type(value) is not str:
                        return None
                    try:
                        held = value.encode()
                    except UnicodeEncodeError:
                        return None
                    made[row] += _STRING + len(held).to_bytes(4, "little") + held
            elif kind in _INTEGERS:
                head, width = _INTEGERS[kind]
                for row, value in enumerate(column):
                    if type(value) is not int or not -(1 << 8 * width - 1) <= value < 1 << 8 * width - 1:
                        return None
                    made[row] += head + value.to_bytes(width, "little", signed=True)
            else:
                return None
        return [key + suffix for key in made] if suffix else made


def arrow_of(values: Any) -> pa.Array:
    """A sequence as one Arrow array."""
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values)


def _prepare(name: str, kind: str, column: pa.Array) -> tuple[Any, ...]:
    """(encoder, its arguments …, bytes at most) of one join key."""
    column = arrow_of(column)
    if column.null_count:
        raise StorageError(f"join key {name!r} is null in {column.null_count} of {len(column)} rows")
    wanted = KINDS[kind]
    try:
        if column.type != wanted.arrow:
            column = column.cast(wanted.arrow)
    except pa.ArrowException as error:
        raise StorageError(f"join key {name!r} is declared {kind.lower()} and does not fit: {error}") from error
    if wanted.way == "texts":
        offsets, data = texts_of(column)
        room = int(offsets[-1] - offsets[0]) + 8 * len(column)
        return kernels.encode_key_texts, offsets, data, KEY_TYPES[kind], room
    width = 4 if kind == "INT32" else 8
    return kernels.encode_key_ints, numbers_of(column, wanted), width, KEY_TYPES[kind], 16 * len(column)


def _little(number: int) -> bytes:
    return number.to_bytes(4, "little")


_STRING = _little(KEY_TYPES["STRING"])
_INTEGERS = {kind: (_little(KEY_TYPES[kind]) + _little(width), width) for kind, width in (("INT32", 4), ("INT64", 8))}
