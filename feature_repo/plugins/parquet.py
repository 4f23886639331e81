"""Reading the Parquet files of a source as one table of row groups, whatever small differences their schemas have.

A column that an old part lacks is null there; one that is int32 here and int64 there, or a string in one of Arrow's
several layouts, is read as the common type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import StorageError
from feature_repo.plugins.sources import Parts

BROKEN = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class Group:
    """A row group: which file, which group of it, and its rows' place in the source's numbering (file order)."""

    file: int
    number: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class Layout:
    """Files of a source with their footers. Rows are numbered 0…rows-1 in the order of the files."""

    parts: Parts
    footers: list[pq.FileMetaData]
    schemas: list[pa.Schema]
    groups: list[Group]
    rows: int

    def types(self, columns: Iterable[str]) -> dict[str, pa.DataType]:
        """The common type of each column. Raises `StorageError` for a column that no file has, or that cannot agree."""
        return {name: self._type(name) for name in columns}

    def _type(self, name: str) -> pa.DataType:
        found: dict[pa.DataType, str] = {}
        for schema, part in zip(self.schemas, self.parts.files, strict=True):
            at = schema.get_field_index(name)
            if at >= 0:
                found.setdefault(plain_type(schema.field(at).type), part.path)
        if not found:
            raise StorageError(f"no file of {self.parts.uri} has a column {name!r}")
        try:
            return common_type(list(found))
        except pa.ArrowException as error:
            told = ", ".join(f"{kind} in {path}" for kind, path in found.items())
            raise StorageError(f"column {name!r} has types that do not fit together: {told}") from error

    @property
    def names(self) -> list[str]:
        """Columns in the order of their first appearance, the newest file first."""
        return list(dict.fromkeys(name for schema in reversed(self.schemas) for name in schema.names))

    def batches(self, group: Group, types: dict[str, pa.DataType], rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(number of the first row, columns `types` of at most `rows` rows), one after another through a row group.
        Raises `StorageError` naming a file that is damaged."""
        part = self.parts.files[group.file]
        have = set(self.schemas[group.file].names)
        wanted = [name for name in types if name in have]
        at = group.first_row
        if not wanted:
            nothing = [pa.nulls(group.rows, kind) for kind in types.values()]
            yield at, pa.RecordBatch.from_arrays(nothing, list(types))
            return
        try:
            # A bounded buffer: a row group of wide vectors is decoded piece by piece, never whole.
            with self.parts.filesystem.open_input_file(part.path) as handle:
                file = pq.ParquetFile(handle, metadata=self.footers[group.file], pre_buffer=False, buffer_size=1 << 20)
                for batch in file.iter_batches(rows, [group.number], wanted, use_threads=False):
                    yield at, _fit(batch, types)
                    at += batch.num_rows
        except BROKEN as error:
            raise StorageError(f"{part.path} is damaged or gone: {error}") from error


def read_layout(parts: Parts) -> Layout:
    """Reads every footer. Raises `StorageError` naming the file that is no Parquet, or is cut short."""

    def footer(path: str) -> pq.FileMetaData:
        try:
            with parts.filesystem.open_input_file(path) as handle:
                return pq.ParquetFile(handle).metadata
        except BROKEN as error:
            raise StorageError(f"{path} cannot be read as Parquet: {error}") from error

    footers = list(each(footer, [part.path for part in parts.files]))
    schemas = [found.schema.to_arrow_schema() for found in footers]
    groups, at = [], 0
    for number, found in enumerate(footers):
        for group in range(found.num_row_groups):
            rows = found.row_group(group).num_rows
            if rows:
                groups.append(Group(number, group, at, rows))
            at += rows
    return Layout(parts, footers, schemas, groups, at)


def each(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """`function` of every item, in order, on as many threads as Arrow uses."""
    if len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(min(len(items), pa.cpu_count()), thread_name_prefix="earmark-history") as pool:
        yield from pool.map(function, items)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without the layouts that mean the same: dictionaries, large and view strings, lists of fixed size."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type))
    return kind


def common_type(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """The type that holds the values of all `kinds`, which are plain. Raises `pyarrow.ArrowException`."""
    times = [kind for kind in kinds if pa.types.is_timestamp(kind)]
    if len({kind.tz for kind in times}) > 1:  # a time without a zone is UTC (DESIGN, time)
        kinds = [pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) else kind for kind in kinds]
    schemas = [pa.schema([("column", kind)]) for kind in kinds]
    return plain_type(pa.unify_schemas(schemas, promote_options="permissive").field(0).type)


def _fit(batch: pa.RecordBatch, types: dict[str, pa.DataType]) -> pa.RecordBatch:
    columns = []
    for name, kind in types.items():
        at = batch.schema.get_field_index(name)
        if at < 0:
            columns.append(pa.nulls(batch.num_rows, kind))
            continue
        column = batch.column(at)
        columns.append(column if column.type == kind else pc.cast(column, kind))
    return pa.RecordBatch.from_arrays(columns, list(types))
