"""Reading the Parquet files of a source as one table of row groups, whatever small differences their schemas have.

A column that an old part lacks is null there; one that is int32 here and int64 there, or a string in one of Arrow's
several layouts, is read as one type (`column_types`). Folders named `<column>=<value>` give their files that column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import StorageError
from feature_repo.plugins.column_types import convert, differing, plain_type, read_type
from feature_repo.plugins.sources import Parts

BROKEN = (pa.ArrowException, OSError, ValueError)
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"  # what Hive and Spark name the folder of null
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")


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
    partitions: list[dict[str, str | None]]  # columns that the folders of each file give it

    def types(
        self,
        columns: Iterable[str],
        declared: Mapping[str, pa.DataType] | None = None,
        times: Collection[str] = (),
    ) -> dict[str, pa.DataType]:
        """The type that each column is read as. `declared` are the feature view's types of some columns, `times` the
        columns of event and created times. Raises `StorageError` for a column that no file has, or whose types in
        several files do not fit together."""
        return {name: self._type(name, (declared or {}).get(name), name in times) for name in columns}

    def file_types(self, name: str) -> list[pa.DataType | None]:
        """The plain type of a column in each file; None where a file lacks it."""
        found: list[pa.DataType | None] = []
        in_files = self.in_files(name)
        for schema, partition in zip(self.schemas, self.partitions, strict=True):
            at = schema.get_field_index(name)
            if at >= 0:
                found.append(plain_type(schema.field(at).type))
            else:
                found.append(pa.string() if name in partition and not in_files else None)
        return found

    def in_files(self, name: str) -> bool:
        """Whether some file has the column; one that none has may come from the names of folders."""
        return any(name in schema.names for schema in self.schemas)

    def _type(self, name: str, declared: pa.DataType | None, is_time: bool) -> pa.DataType:
        found: dict[pa.DataType, str] = {}
        for kind, part in zip(self.file_types(name), self.parts.files, strict=True):
            if kind is not None:
                found.setdefault(kind, part.path)
        if not found:
            raise StorageError(f"no file of {self.parts.uri} has a column {name!r}")
        if not is_time and not self.in_files(name):
            return self._partition_type(name) if declared is None else declared
        try:
            return read_type(list(found), declared, is_time)
        except pa.ArrowException as error:
            raise StorageError(f"column {name!r} has types that do not fit together: {differing(found)}") from error

    def _partition_type(self, name: str) -> pa.DataType:
        """Of a column that folders alone have: integers where all values are, else text."""
        values = [partition.get(name) for partition in self.partitions]
        return pa.int64() if all(WHOLE.fullmatch(value) for value in values if value is not None) else pa.string()

    @property
    def names(self) -> list[str]:
        """Columns in the order of their first appearance, the newest file first."""
        return list(dict.fromkeys(name for schema in reversed(self.schemas) for name in schema.names))

    def batches(self, group: Group, types: dict[str, pa.DataType], rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(number of the first row, columns `types` of at most `rows` rows), one after another through a row group.
        Raises `StorageError` naming a file that is damaged."""
        have = set(self.schemas[group.file].names)
        wanted = [name for name in types if name in have]
        partition = {n: v for n, v in self.partitions[group.file].items() if n in types and not self.in_files(n)}
        fit = _Fit(self.parts.files[group.file].path, types, partition)
        at = group.first_row
        if not wanted:
            yield at, fit.batch(None, group.rows)
            return
        for batch in self._decoded(group, wanted, rows):
            yield at, fit.batch(batch, batch.num_rows)
            at += batch.num_rows

    def _decoded(self, group: Group, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        path = self.parts.files[group.file].path
        try:
            # A bounded buffer: a row group of wide vectors is decoded piece by piece, never whole.
            with self.parts.filesystem.open_input_file(path) as handle:
                file = pq.ParquetFile(handle, metadata=self.footers[group.file], pre_buffer=False, buffer_size=1 << 20)
                yield from file.iter_batches(rows, [group.number], columns, use_threads=False)
        except BROKEN as error:
            raise StorageError(f"{path} is damaged or gone: {error}") from error


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
    return Layout(parts, footers, schemas, groups, at, [partition_of(part.path) for part in parts.files])


def partition_of(path: str) -> dict[str, str | None]:
    """Columns that the folders of a file give it, as Hive names them: `<column>=<value>`."""
    pairs = (folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder)
    return {unquote(name): None if value == HIVE_NULL else unquote(value) for name, value in pairs}


def each(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """`function` of every item, in order, on as many threads as Arrow uses."""
    if len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(min(len(items), pa.cpu_count()), thread_name_prefix="earmark-history") as pool:
        yield from pool.map(function, items)


@dataclass(frozen=True)
class _Fit:
    """Gives the batches of one file the columns and types of the source."""

    path: str
    types: dict[str, pa.DataType]
    partition: Mapping[str, str | None]

    def batch(self, batch: pa.RecordBatch | None, rows: int) -> pa.RecordBatch:
        """Raises `StorageError` naming a column with a value that its type cannot hold."""
        columns = [self._column(batch, rows, name, kind) for name, kind in self.types.items()]
        return pa.RecordBatch.from_arrays(columns, list(self.types))

    def _column(self, batch: pa.RecordBatch | None, rows: int, name: str, kind: pa.DataType) -> pa.Array:
        at = batch.schema.get_field_index(name) if batch is not None else -1
        if batch is not None and at >= 0:
            column = batch.column(at)
        elif self.partition.get(name) is not None:
            column = pa.repeat(self.partition[name], rows)
        else:
            return pa.nulls(rows, kind)
        if column.type == kind:
            return column
        try:
            return convert(column, kind)
        except pa.ArrowException as error:
            raise StorageError(
                f"column {name!r} of {self.path} is {column.type} and cannot be read as {kind}: {error}"
            ) from error
