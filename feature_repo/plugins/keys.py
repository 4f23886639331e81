"""Join keys as small integers: the entity rows' keys are numbered, and feature rows look their number up.

Feature rows whose key no entity row has get -1 and cost nothing further, so memory goes by the entity rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import ConfigError
from feature_repo.plugins.hashing import compact, find_bytes, find_whole, number_bytes, number_whole

NOTHING = np.int32(-1)  # code of a null key and of one that no entity row has: it matches nothing


def family(kind: pa.DataType) -> str:
    """How values of a type are compared: as `bytes`, `whole` numbers or `floats`. Raises `TypeError`."""
    if pa.types.is_dictionary(kind):
        return family(kind.value_type)
    if any(test(kind) for test in _BYTES):
        return "bytes"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        return "whole"
    if pa.types.is_floating(kind):
        return "floats"
    raise TypeError(f"values of type {kind} cannot be join keys")


_BYTES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
)


def check_families(name: str, view: str, entity: pa.DataType, feature: pa.DataType) -> None:
    """Raises `ConfigError` where an entity column can never equal the view's key: a string is no number."""
    if pa.types.is_null(entity) or pa.types.is_null(feature):
        return
    try:
        kinds = {family(entity), family(feature)}
    except TypeError as error:
        raise ConfigError(f"join key {name!r} of view {view}: {error}") from error
    if "bytes" in kinds and len(kinds) > 1:
        raise ConfigError(f"join key {name!r} is {entity} in the entity rows but {feature} in view {view}; cast one")


class Numbering(Protocol):
    """One column's values, numbered from 0 in the order of first appearance."""

    codes: np.ndarray
    count: int

    def lookup(self, column: pa.Array) -> np.ndarray:
        """int32 number of each value, -1 where it is null or was never numbered."""
        ...


class Keys:
    """The distinct keys of the entity rows, over any number of columns.

    `codes` (n,) int32: each entity row's key number, -1 where one of its columns is null. No columns: all rows are 0,
    as in a view without entities.
    """

    def __init__(self, columns: Sequence[pa.ChunkedArray], feature_types: Sequence[pa.DataType], rows: int) -> None:
        self.columns: list[Numbering] = [number(c, t) for c, t in zip(columns, feature_types, strict=True)]
        self.pairs: list[Whole] = []
        self.codes = np.zeros(rows, np.int32)
        self.count = 1
        for at, column in enumerate(self.columns):
            if at == 0:
                self.codes, self.count = column.codes, column.count
            else:
                pair = Whole.of_values(*_pair(self.codes, column.codes, column.count))
                self.pairs.append(pair)
                self.codes, self.count = pair.codes, pair.count

    def lookup(self, columns: Sequence[pa.Array], rows: int) -> np.ndarray:
        """Key number (rows,) int32 of feature rows by their key columns."""
        if not self.columns:
            return np.zeros(rows, np.int32)
        codes = self.columns[0].lookup(columns[0])
        for pair, numbering, column in zip(self.pairs, self.columns[1:], columns[1:], strict=True):
            codes = pair.lookup_values(*_pair(codes, numbering.lookup(column), numbering.count))
        return codes


def _pair(one: np.ndarray, other: np.ndarray, others: int) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers as one, and whether both are there."""
    return one.astype(np.int64) * others + other, ((one >= 0) & (other >= 0)).astype(np.uint8)


def number(column: pa.ChunkedArray, feature_type: pa.DataType) -> Numbering:
    kind = column.type if pa.types.is_null(feature_type) else feature_type
    if pa.types.is_null(kind) or pa.types.is_null(column.type):
        return Whole.of_values(np.zeros(len(column), np.int64), np.zeros(len(column), np.uint8))
    if family(kind) == "bytes":
        return Bytes(column)
    as_float = "floats" in (family(kind), family(column.type)) and family(kind) == "floats"
    return Whole(column, floats=as_float)


class Whole:
    """Numbering of integers, booleans, times, and (by their bits) floats."""

    def __init__(self, column: pa.ChunkedArray, floats: bool = False) -> None:
        self.floats = floats
        self._build(*self._values(column))

    @classmethod
    def of_values(cls, values: np.ndarray, valid: np.ndarray) -> Whole:
        made = cls.__new__(cls)
        made.floats = False
        made._build(values, valid)
        return made

    def _build(self, values: np.ndarray, valid: np.ndarray) -> None:
        slots = _slots(len(values))
        self.table, self.distinct = np.zeros(slots, np.int32), np.empty(len(values), np.int64)
        self.codes = np.empty(len(values), np.int32)
        self.count = number_whole(frozen(values), frozen(valid), self.table, self.distinct, self.codes)
        self.distinct = self.distinct[: self.count].copy()

    def lookup(self, column: pa.Array) -> np.ndarray:
        return self.lookup_values(*self._values(column))

    def lookup_values(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        codes = np.empty(len(values), np.int32)
        find_whole(frozen(values), frozen(valid), self.table, self.distinct, codes)
        return codes

    def _values(self, column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        column = _flat(column)
        if self.floats:
            # -0.0 equals 0.0, and a NaN equals nothing.
            numbers = pc.fill_null(pc.cast(column, pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
            return (numbers + 0.0).view(np.int64), (~np.isnan(numbers)).astype(np.uint8)
        if pa.types.is_floating(column.type):
            # A pandas frame turns integers with nulls into floats; what is no whole number equals no integer.
            floats = pc.fill_null(pc.cast(column, pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
            whole = np.isfinite(floats) & (np.floor(floats) == floats) & (np.abs(floats) < 2.0**63)
            return np.where(whole, floats, 0).astype(np.int64), whole.astype(np.uint8)
        if pa.types.is_temporal(column.type) and not pa.types.is_time(column.type):
            column = pc.cast(pc.cast(column, pa.timestamp("us"), safe=False), pa.int64())
        if column.type == pa.uint64():
            column = pc.if_else(pc.less(column, pa.scalar(2**63, pa.uint64())), column, None)
        numbers = pc.cast(column, pa.int64())
        return pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False), _valid(numbers)


class Bytes:
    """Numbering of strings and binary values, by their bytes."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        offsets, data, valid = _bytes(column)
        rows = len(valid)
        self.table, firsts = np.zeros(_slots(rows), np.uint64), np.empty(rows, np.int64)
        self.codes = np.empty(rows, np.int32)
        self.count = int(number_bytes(offsets, data, valid, self.table, firsts, self.codes)[0])
        # The distinct values side by side: fewer and closer places to look at than the entity rows.
        self.offsets, self.data = compact(offsets, data, firsts[: self.count])

    def lookup(self, column: pa.Array) -> np.ndarray:
        offsets, data, valid = _bytes(column)
        codes = np.empty(len(valid), np.int32)
        find_bytes(offsets, data, valid, self.table, self.offsets, self.data, codes)
        return codes


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if isinstance(column, pa.ChunkedArray):  # more bytes of text than one array can point into
            column = pc.cast(column, pa.large_string()).combine_chunks()
    return pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _valid(column: pa.Array) -> np.ndarray:
    """(n,) uint8, 0 where null."""
    if not column.null_count:
        return frozen(np.ones(len(column), np.uint8))
    return frozen(pc.cast(column.is_valid(), pa.uint8()).to_numpy(zero_copy_only=False))


def _bytes(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets (n+1,) uint64, bytes uint8 and validity (n,) uint8 of a text or binary column."""
    if isinstance(column, pa.ChunkedArray) and column.nbytes >= 2**31:
        column = pc.cast(column, pa.large_binary())
    array = _flat(column)
    if pa.types.is_string_view(array.type) or pa.types.is_fixed_size_binary(array.type):
        array = pc.cast(array, pa.large_binary())
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    valid = _valid(array)
    _, places, data = array.buffers()
    if not len(array) or places is None:
        return frozen(np.zeros(len(array) + 1, np.uint64)), frozen(np.zeros(0, np.uint8)), valid
    kind: Any = np.int64 if wide else np.int32
    offsets = np.frombuffer(places, kind, len(array) + 1, array.offset * np.dtype(kind).itemsize)
    values = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    return frozen(offsets.astype(np.uint64)), frozen(values), valid


def frozen(values: np.ndarray) -> np.ndarray:
    """A read-only view. numba compiles once more for arrays that may be written; Arrow's may not, so none may."""
    view = values.view()
    view.flags.writeable = False
    return view


def _slots(rows: int) -> int:
    """Slots of a hash table at most half full."""
    return 1 << max(4, int(2 * rows - 1).bit_length() if rows else 4)
