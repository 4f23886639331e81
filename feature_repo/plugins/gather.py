"""Feature columns of chosen rows: read once in file order, scattered to where the entity rows want them.

Numbers and vectors of one length go straight from the decoded piece into the result's buffers, so memory is the result
and a piece of a row group; everything else is taken by Arrow.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.compiled import njit
from feature_repo.plugins.keys import frozen
from feature_repo.plugins.parquet import Group, Layout, each

PIECE_BYTES = 4 << 20  # decoded columns held at a time, by each thread; larger is no faster
LIST_VALUES = 2**31 - 1  # what a list's or a string's int32 offsets can count
TEXT_BYTES = 1 << 30


@dataclass(frozen=True)
class Wanted:
    """Which rows go where: entity rows in the order of the feature rows that they see."""

    rows: np.ndarray  # (m,) int64 ascending: feature rows, with repeats
    places: np.ndarray  # (m,) int64: the entity rows that see them
    count: int  # entity rows altogether

    @classmethod
    def of(cls, index: np.ndarray, rows: int) -> Wanted:
        """`index` (n,) int64: feature row of each entity row or -1; `rows`: how many feature rows there are."""
        if rows <= 8 * len(index) + 1_000_000:
            places, sorted_rows = _order(frozen(index), rows)
        else:  # few of very many: a count a feature row would cost more than sorting
            seen = np.flatnonzero(index >= 0)
            places = seen[np.argsort(index[seen], kind="stable")]
            sorted_rows = index[places]
        return cls(sorted_rows, places, len(index))

    def between(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (numbered from `first`) and places of first <= row < stop."""
        a, b = np.searchsorted(self.rows, (first, stop))
        return self.rows[a:b] - first, self.places[a:b]


def gather(
    layout: Layout,
    index: np.ndarray,
    columns: Sequence[str],
    declared: Mapping[str, pa.DataType] | None = None,
    times: Collection[str] = (),
) -> dict[str, pa.ChunkedArray]:
    """The feature columns at `index` (n,) int64, null where it is -1; `declared` and `times` as in `Layout.types`.
    Raises `StorageError`."""
    types = layout.types(columns, declared, times)
    wanted = Wanted.of(index, layout.rows)
    matched = index >= 0
    found = _gather(layout, wanted, matched, types, _columns(types, matched, wanted))
    return {name: found[name] for name in columns}


def _columns(types: dict[str, pa.DataType], matched: np.ndarray, wanted: Wanted) -> dict[str, Column]:
    made: dict[str, Column] = {}
    for name, kind in types.items():
        if is_number(kind):
            made[name] = Numbers(kind, matched)
        elif pa.types.is_list(kind) and is_number(kind.value_type):
            made[name] = Vectors(kind, matched)
        else:
            made[name] = Taken(kind, matched, wanted)
    return made


def _gather(
    layout: Layout, wanted: Wanted, matched: np.ndarray, types: dict[str, pa.DataType], columns: dict[str, Column]
) -> dict[str, pa.ChunkedArray]:
    groups = [g for g in layout.groups if len(wanted.between(g.first_row, g.first_row + g.rows)[0])]

    def read(group: Group) -> None:
        for first, batch in layout.batches(group, types, _piece_rows(layout, group, types)):
            rows, places = wanted.between(first, first + batch.num_rows)
            if len(rows):
                for name, column in columns.items():
                    column.put(first, batch[name], rows, places)

    list(each(read, groups))
    # A list that turned out to have vectors of several lengths is read again, the way that takes any.
    again = {n: types[n] for n, column in columns.items() if isinstance(column, Vectors) and column.is_ragged}
    found = {name: column.finish() for name, column in columns.items() if name not in again}
    if again:
        taken: dict[str, Column] = {name: Taken(kind, matched, wanted) for name, kind in again.items()}
        found |= _gather(layout, wanted, matched, again, taken)
    return found


def _piece_rows(layout: Layout, group: Group, types: dict[str, pa.DataType]) -> int:
    """Rows to decode at a time, by the uncompressed size that the footer tells."""
    footer = layout.footers[group.file].row_group(group.number)
    size = 1
    for at in range(footer.num_columns):
        column = footer.column(at)
        if column.path_in_schema.split(".")[0] in types:
            size += max(column.total_uncompressed_size, 4 * column.num_values)
    return int(np.clip(PIECE_BYTES * group.rows // size, 1_024, 1 << 20))


def is_number(kind: pa.DataType) -> bool:
    """Whether values are 1, 2, 4 or 8 bytes wide, side by side."""
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_date(kind)
        or pa.types.is_time(kind)
        or pa.types.is_duration(kind)
    )


class Column(ABC):
    """One result column in the making. `put` may be called by several threads, for different places."""

    def __init__(self, kind: pa.DataType, matched: np.ndarray) -> None:
        self.kind = kind
        self.matched = matched
        self.lock = threading.Lock()

    @abstractmethod
    def put(self, first: int, values: pa.Array, rows: np.ndarray, places: np.ndarray) -> None:
        """`values[rows]` belong at `places`; `first` is the source's number of row 0."""

    @abstractmethod
    def finish(self) -> pa.ChunkedArray:
        """The column. Called once, when everything is put."""


class Nullable(Column):
    """Keeps which places hold a value, once a null turns up."""

    def __init__(self, kind: pa.DataType, matched: np.ndarray) -> None:
        super().__init__(kind, matched)
        self.valid: np.ndarray | None = None

    def _mark_nulls(self, values: pa.Array, rows: np.ndarray, places: np.ndarray) -> None:
        if not values.null_count:
            return
        with self.lock:
            if self.valid is None:
                self.valid = self.matched.copy()
        self.valid[places] = values.is_valid().to_numpy(zero_copy_only=False)[rows]

    def validity(self) -> np.ndarray:
        return self.matched if self.valid is None else self.valid


class Numbers(Nullable):
    """Numbers and times: one buffer, (n,) of the type's width."""

    def __init__(self, kind: pa.DataType, matched: np.ndarray) -> None:
        super().__init__(kind, matched)
        self.width = kind.bit_width // 8
        self.out = np.zeros(len(matched), f"u{self.width}")

    def put(self, first: int, values: pa.Array, rows: np.ndarray, places: np.ndarray) -> None:
        source = np.frombuffer(values.buffers()[1], self.out.dtype, len(values), values.offset * self.width)
        _scatter(frozen(source), frozen(rows), frozen(places), self.out)
        self._mark_nulls(values, rows, places)

    def finish(self) -> pa.ChunkedArray:
        valid = self.validity()
        buffers = [bitmap(valid), pa.py_buffer(self.out)]
        return pa.chunked_array([pa.Array.from_buffers(self.kind, len(valid), buffers)])


class Vectors(Nullable):
    """Lists of numbers that all have one length: one buffer (matched rows, length). Anything else is ragged."""

    def __init__(self, kind: pa.DataType, matched: np.ndarray) -> None:
        super().__init__(kind, matched)
        self.width = kind.value_type.bit_width // 8
        self.slots = np.cumsum(matched) - 1  # where among the matched rows an entity row's vector lies
        self.length: int | None = None
        self.out = np.empty(0, f"u{self.width}")
        self.is_ragged = False

    def put(self, first: int, values: pa.Array, rows: np.ndarray, places: np.ndarray) -> None:
        if self.is_ragged or values.null_count == len(values):
            return self._mark_nulls(values, rows, places)
        offsets = np.frombuffer(values.buffers()[1], np.int32, len(values) + 1, values.offset * 4)
        lengths = np.diff(offsets)
        if values.null_count:
            lengths = lengths[values.is_valid().to_numpy(zero_copy_only=False)]
        length, inner = int(lengths[0]), values.values
        with self.lock:
            if (lengths != length).any() or inner.null_count or self.length not in (None, length) or not length:
                self.is_ragged = True
                self.out = np.empty(0, self.out.dtype)
                return None
            if self.length is None:
                self.length = length
                self.out = np.empty(int(self.matched.sum()) * length, self.out.dtype)
            out = self.out  # another thread may find the column ragged and let go of it
        source = np.frombuffer(inner.buffers()[1], self.out.dtype, len(inner), inner.offset * self.width)
        _scatter_vectors(frozen(source), frozen(offsets), frozen(rows), frozen(self.slots[places]), length, out)
        return self._mark_nulls(values, rows, places)

    def finish(self) -> pa.ChunkedArray:
        valid, length = self.validity(), self.length or 0
        if self.valid is not None and length:  # no vector may lie behind a null
            self.out = self.out[: _close_up(self.out, frozen(self.valid[self.matched]), length)]
        inner = pa.Array.from_buffers(self.kind.value_type, len(self.out), [None, pa.py_buffer(self.out)])
        step = max(1, LIST_VALUES // length) if length else max(1, len(valid))
        ends = np.zeros(len(valid) + 1, np.int64)
        np.cumsum(valid, out=ends[1:])
        ends *= length
        chunks = []
        for start in range(0, max(len(valid), 1), step):
            bounds = ends[start : start + step + 1]
            part = inner.slice(int(bounds[0]), int(bounds[-1] - bounds[0]))
            offsets = (bounds - bounds[0]).astype(np.int32)
            buffers = [bitmap(valid[start : start + step]), pa.py_buffer(offsets)]
            chunks.append(pa.Array.from_buffers(self.kind, len(bounds) - 1, buffers, children=[part]))
        return pa.chunked_array(chunks, self.kind)


class Taken(Column):
    """Whatever Arrow can take: text, booleans, lists of any length, structs."""

    def __init__(self, kind: pa.DataType, matched: np.ndarray, wanted: Wanted) -> None:
        super().__init__(kind, matched)
        self.wanted = wanted
        self.pieces: list[tuple[int, pa.Array]] = []

    def put(self, first: int, values: pa.Array, rows: np.ndarray, places: np.ndarray) -> None:
        once = rows[np.diff(rows, prepend=-1) > 0]
        taken = values if len(once) == len(values) else values.take(pa.array(once))
        with self.lock:
            self.pieces.append((first, taken))

    def finish(self) -> pa.ChunkedArray:
        if not self.pieces:
            return pa.chunked_array([pa.nulls(self.wanted.count, self.kind)])
        found = pa.chunked_array([taken for _, taken in sorted(self.pieces, key=lambda p: p[0])], self.kind)
        self.pieces = []
        which = np.empty(self.wanted.count, np.int64)
        which[self.wanted.places] = np.cumsum(np.diff(self.wanted.rows, prepend=-1) > 0) - 1
        size = found.nbytes / len(found)
        is_text = pa.types.is_string(self.kind) or pa.types.is_binary(self.kind)
        if is_text and found.nbytes > TEXT_BYTES:
            found = pc.cast(found, pa.large_string() if pa.types.is_string(self.kind) else pa.large_binary())
        joined = found.combine_chunks() if found.num_chunks > 1 else found.chunk(0)
        step = max(1_024, int(TEXT_BYTES / max(size, 1)))
        chunks: list[Any] = []
        for start in range(0, max(len(which), 1), step):
            part = pa.array(which[start : start + step], mask=~self.matched[start : start + step])
            chunks.append(pc.cast(joined.take(part), self.kind))
        return pa.chunked_array(chunks, self.kind)


def bitmap(valid: np.ndarray) -> pa.Buffer | None:
    """Arrow's validity buffer of a boolean array; None where all is valid."""
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


@njit(nogil=True)
def _order(index, rows):  # type: ignore[no-untyped-def]
    """Counting sort of the entity rows by the feature row that they see, those that see none left out."""
    starts = np.zeros(rows + 1, np.int64)
    for row in index:
        if row >= 0:
            starts[row + 1] += 1
    for row in range(rows):
        starts[row + 1] += starts[row]
    places, ordered = np.empty(starts[rows], np.int64), np.empty(starts[rows], np.int64)
    for place in range(len(index)):
        row = index[place]
        if row >= 0:
            places[starts[row]], ordered[starts[row]] = place, row
            starts[row] += 1
    return places, ordered


@njit(nogil=True)
def _scatter(source, rows, places, out):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        out[places[i]] = source[rows[i]]


@njit(nogil=True)
def _scatter_vectors(source, offsets, rows, slots, length, out):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        start, at = offsets[rows[i]], slots[i] * length
        if offsets[rows[i] + 1] > start:  # a null has no vector
            out[at : at + length] = source[start : start + length]


@njit(nogil=True)
def _close_up(out, valid, length):  # type: ignore[no-untyped-def]
    """Moves the vectors of valid rows together, in place; returns how many values they are."""
    at = 0
    for row in range(len(valid)):
        if valid[row]:
            if at != row * length:
                out[at : at + length] = out[row * length : (row + 1) * length]
            at += length
    return at
