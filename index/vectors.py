"""Where vectors come from: an array in memory or mapped, or Parquet files that are larger than memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import EarmarkError

BLOCK_ROWS = 65_536
COLUMN = "embedding"


class Vectors(Protocol):
    """Rows of float32, as many as `count`, of `dim` values, that are looked at in blocks."""

    @property
    def count(self) -> int: ...

    @property
    def dim(self) -> int: ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Those rows, in that order, float32 (rows, dim)."""

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first row, float32 (rows, dim)) of rows `first` to `last`, in order."""

    def part(self, first: int, last: int) -> Vectors:
        """Rows `first` to `last` alone, for another process: it is handed no more than these."""


class ArrayVectors:
    """Of an array, perhaps mapped."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, (self.count, self.dim) = array, array.shape

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.array[rows], np.float32)

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        last = self.count if last is None else last
        for start in range(first, last, BLOCK_ROWS):
            yield start, np.ascontiguousarray(self.array[start : min(start + BLOCK_ROWS, last)], np.float32)

    def part(self, first: int, last: int) -> Vectors:
        return ArrayVectors(self.array[first:last])


class ParquetVectors:
    """Of the column `embedding` of Parquet files, one after another; a piece of a row group is in memory at a time."""

    def __init__(self, files: Sequence[Path], dim: int) -> None:
        """Raises `EarmarkError` for a file that is missing or has no such column."""
        if not files:
            raise EarmarkError("index: there are no vectors to build from")
        self.files, self.dim = [Path(file) for file in files], dim
        self._groups: list[tuple[Path, int]] = []
        sizes = []
        for file in self.files:
            try:
                meta = pq.read_metadata(file)
            except (OSError, pa.ArrowException) as error:
                raise EarmarkError(f"index: {file} cannot be read: {error}") from error
            if COLUMN not in meta.schema.to_arrow_schema().names:
                raise EarmarkError(f"index: {file} has no column {COLUMN!r}")
            for group in range(meta.num_row_groups):
                self._groups.append((file, group))
                sizes.append(meta.row_group(group).num_rows)
        self._starts = [0, *accumulate(sizes)]
        self.count = self._starts[-1]

    def take(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), self.dim), np.float32)
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        for number, (start, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            low, high = np.searchsorted(wanted, [start, end])
            for first, block in self._read(number) if low < high else ():
                own = slice(*(int(n) for n in np.searchsorted(wanted, [start + first, start + first + len(block)])))
                out[order[own]] = block[wanted[own] - start - first]
        return out

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        last = self.count if last is None else last
        for number in range(max(0, bisect_right(self._starts, first) - 1), len(self._groups)):
            start = self._starts[number]
            if start >= last:
                return
            for offset, block in self._read(number):
                at = start + offset
                low, high = max(0, first - at), min(len(block), last - at)
                if low < high:
                    yield at + low, block[low:high]

    def part(self, first: int, last: int) -> Vectors:
        return Span(self, first, last)

    def column(self, name: str) -> pa.ChunkedArray:
        """Another column of all rows. Raises `EarmarkError` where a file has none."""
        try:
            found = [pq.ParquetFile(file).read([name])[name] for file in self.files]
            return pa.chunked_array([chunk for one in found for chunk in one.cast(found[0].type).chunks])
        except (KeyError, OSError, pa.ArrowException) as error:
            raise EarmarkError(f"index: there is no column {name!r} in {self.files[0]}: {error}") from error

    def _read(self, number: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row of it, vectors) of pieces of a row group."""
        path, group = self._groups[number]
        first = 0
        with pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(BLOCK_ROWS, row_groups=[group], columns=[COLUMN]):
                yield first, matrix(batch.column(0), self.dim)
                first += batch.num_rows


class Span:
    """Neighbouring rows of vectors."""

    def __init__(self, vectors: Vectors, first: int, last: int) -> None:
        self._vectors, self._first, self.count, self.dim = vectors, first, last - first, vectors.dim

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._vectors.take(rows + self._first)

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        last = self.count if last is None else last
        for start, block in self._vectors.blocks(self._first + first, self._first + last):
            yield start - self._first, block

    def part(self, first: int, last: int) -> Vectors:
        return Span(self._vectors, self._first + first, self._first + last)


class Subset:
    """Some rows of vectors, in their order."""

    def __init__(self, vectors: Vectors, rows: np.ndarray) -> None:
        """`rows`: int64, ascending."""
        self._vectors, self._rows, self.count, self.dim = vectors, rows, len(rows), vectors.dim

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._vectors.take(self._rows[rows])

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        last = self.count if last is None else last
        if first >= last:
            return
        wanted = self._rows[first:last]
        for start, block in self._vectors.blocks(int(wanted[0]), int(wanted[-1]) + 1):
            low, high = np.searchsorted(wanted, [start, start + len(block)])
            if low < high:
                yield first + int(low), np.ascontiguousarray(block[wanted[low:high] - start])

    def part(self, first: int, last: int) -> Vectors:
        rows = self._rows[first:last]
        low, high = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        return Subset(self._vectors.part(low, high), rows - low)


class Joined:
    """Vectors after vectors."""

    def __init__(self, parts: Sequence[Vectors]) -> None:
        self._parts = [part for part in parts if part.count] or list(parts[:1])
        self._starts = [0, *accumulate(part.count for part in self._parts)]
        self.count, self.dim = self._starts[-1], self._parts[0].dim

    def take(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), self.dim), np.float32)
        for start, part in zip(self._starts, self._parts, strict=False):
            own = (rows >= start) & (rows < start + part.count)
            if own.any():
                out[own] = part.take(rows[own] - start)
        return out

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        last = self.count if last is None else last
        for start, part in zip(self._starts, self._parts, strict=False):
            low, high = max(first - start, 0), min(last - start, part.count)
            for at, block in part.blocks(low, high) if low < high else ():
                yield start + at, block

    def part(self, first: int, last: int) -> Vectors:
        spans = [(max(first - s, 0), min(last - s, p.count)) for s, p in zip(self._starts, self._parts, strict=False)]
        return Joined([p.part(low, max(low, high)) for p, (low, high) in zip(self._parts, spans, strict=True)])


def matrix(column: Any, dim: int) -> np.ndarray:
    """A column of lists as float32 (rows, dim). Raises `EarmarkError` where a row is null or of another length."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    is_list = any(test(column.type) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
    kind = column.type.value_type if is_list else column.type
    if not is_list or not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise EarmarkError(f"index: a vector is a list of numbers, not {column.type}")
    if column.null_count:
        raise EarmarkError(f"index: {column.null_count} rows have no vector")
    widths = set(pc.unique(pc.list_value_length(column)).to_pylist())
    if widths - {dim}:
        width = min(widths - {dim})
        raise EarmarkError(f"index: vectors of {width} dimensions, the model makes {dim}")
    values = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values, np.float32).reshape(len(column), dim)
