"""Feast's retrieval job over our queries: in one piece, in batches, or into files."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from pyarrow import fs

from core.errors import ConfigError, StorageError
from core.storage import TEMPORARY
from core.tables import ROW_GROUP_ROWS
from feature_repo.plugins.pandas_frames import exact_frame
from feature_repo.plugins.queries import Query
from feature_repo.plugins.sources import Location, locate

FILE_ROWS = 1 << 20  # rows of one file of a saved folder


@dataclass(frozen=True)
class Surroundings:
    """What a job needs to know of the store that it came from."""

    repo_path: str
    batch_rows: int
    staging_location: str | None = None
    staging_endpoint: str | None = None


class EarmarkRetrievalJob(RetrievalJob):
    """Runs its query when asked for rows, each time anew. Entity rows keep their order."""

    def __init__(
        self,
        query: Query,
        around: Surroundings,
        on_demand: Sequence[Any] = (),
        full_feature_names: bool = False,
        metadata: Callable[[], RetrievalMetadata] | None = None,
    ) -> None:
        self._query = query
        self._around = around
        self._on_demand = list(on_demand)
        self._full_feature_names = full_feature_names
        self._told = metadata
        self._metadata: RetrievalMetadata | None = None

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        if self._metadata is None and self._told:
            self._metadata = self._told()  # a query of entity rows must run to tell its bounds
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._query.table()

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return exact_frame(self._query.table())

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> Any:
        """The rows as a pandas frame with every value exact; see `exact_frame`."""
        return exact_frame(self.to_arrow(validation_reference=validation_reference, timeout=timeout))

    def to_arrow_batches(self, batch_rows: int | None = None) -> pa.RecordBatchReader:
        """The rows as a stream, for sets larger than memory: `batch_rows` entity rows are joined at a time.

        On-demand views see a batch at a time; their columns have the types that they declare.
        """
        tables = self._tables(batch_rows or self._around.batch_rows)
        first = next(tables)

        def batches() -> Iterator[pa.RecordBatch]:
            yield from first.to_batches()
            for table in tables:
                yield from table.cast(first.schema).to_batches()

        return pa.RecordBatchReader.from_batches(first.schema, batches())

    def _tables(self, rows: int) -> Iterator[pa.Table]:
        for table in self._query.tables(rows):
            yield self._with_on_demand(table) if self._on_demand else table

    def _with_on_demand(self, table: pa.Table) -> pa.Table:
        from feast.types import from_feast_to_pyarrow_type

        # The base class computes on-demand views of whatever rows a job has.
        found = _Ready(table, self._around, self._on_demand, self._full_feature_names, lambda: self.metadata).to_arrow()
        for view in self._on_demand:
            for field in view.features:
                prefix = f"{view.projection.name_to_use()}__" if self._full_feature_names else ""
                at = found.schema.get_field_index(prefix + field.name)
                if at >= 0:
                    kind = from_feast_to_pyarrow_type(field.dtype)
                    found = found.set_column(at, prefix + field.name, pc.cast(found.column(at), kind))
        return found

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Writes the rows as Parquet, a file where the path ends in `.parquet` and a folder elsewhere. Nothing is
        seen of it before it is whole. Raises Feast's error where something is there and may not be overwritten."""
        from feast.data_format import ParquetFormat
        from feast.errors import SavedDatasetLocationAlreadyExists

        source = storage.to_data_source()
        if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
            raise ConfigError(f"saved datasets are Parquet, not {type(source.file_format).__name__}")
        place = locate(source, self._around.repo_path)
        there = place.filesystem.get_file_info(place.path).type != fs.FileType.NotFound
        if there and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=source.path)
        try:
            if place.is_local:
                self._persist_local(Path(place.path))
            else:
                self._persist_remote(place, there)
        except OSError as error:
            raise StorageError(f"cannot save the dataset to {source.path}: {error}") from error

    def _persist_local(self, target: Path) -> None:
        temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        target.parent.mkdir(parents=True, exist_ok=True)
        local = fs.LocalFileSystem()
        try:
            if target.suffix == ".parquet":
                write(self.to_arrow_batches(), local, [str(temporary)], synced=True)
            else:
                temporary.mkdir()
                write(self.to_arrow_batches(), local, _numbered(str(temporary)), synced=True)
            if target.is_dir():  # a folder cannot be replaced in one step: aside, then gone
                aside = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
                os.replace(target, aside)
                os.replace(temporary, target)
                shutil.rmtree(aside, ignore_errors=True)
            else:
                os.replace(temporary, target)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _persist_remote(self, place: Location, there: bool) -> None:
        if place.path.endswith(".parquet"):
            write(self.to_arrow_batches(), place.filesystem, [place.path])
            return
        found = place.filesystem.get_file_info(fs.FileSelector(place.path, recursive=True)) if there else []
        write(self.to_arrow_batches(), place.filesystem, _numbered(place.path, uuid.uuid4().hex[:12]))
        for old in found:
            if old.type == fs.FileType.File:
                place.filesystem.delete_file(old.path)

    def supports_remote_storage_export(self) -> bool:
        return self._around.staging_location is not None

    def to_remote_storage(self) -> list[str]:
        """Writes the rows as Parquet files under the staging location; returns their URIs. Raises `ConfigError`."""
        from feast import FileSource

        if self._around.staging_location is None:
            raise ConfigError("to_remote_storage needs a staging_location in the offline store's configuration")
        base = f"{self._around.staging_location.rstrip('/')}/{uuid.uuid4()}"
        source = FileSource(path=base, s3_endpoint_override=self._around.staging_endpoint)
        place = locate(source, self._around.repo_path)
        place.filesystem.create_dir(place.path)
        paths = write(self.to_arrow_batches(), place.filesystem, _numbered(place.path))
        return [base + path.removeprefix(place.path) for path in paths]


class _Table:
    """Rows that are there already, as a query."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def table(self) -> pa.Table:
        return self.rows

    def tables(self, rows: int) -> Iterator[pa.Table]:
        yield self.rows


class _Ready(EarmarkRetrievalJob):
    def __init__(self, table: pa.Table, *rest: Any) -> None:
        super().__init__(_Table(table), *rest)


def _numbered(folder: str, name: str = "") -> Iterator[str]:
    number = 0
    while True:
        yield f"{folder}/part-{name}{'-' if name else ''}{number:05d}.parquet"
        number += 1


def write(
    reader: pa.RecordBatchReader, filesystem: fs.FileSystem, names: Iterator[str] | list[str], synced: bool = False
) -> list[str]:
    """Writes a stream to files of about `FILE_ROWS` rows, or to one where there is one name; returns their paths."""
    single = isinstance(names, list)
    names, paths = iter(names), []
    left, batches = True, iter(reader)
    while left:
        paths.append(next(names))
        rows, left = 0, False
        with (
            filesystem.open_output_stream(paths[-1]) as sink,
            pq.ParquetWriter(sink, reader.schema, compression="zstd") as writer,
        ):
            for batch in batches:
                writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)
                rows += batch.num_rows
                if not single and rows >= FILE_ROWS:
                    left = True
                    break
        if synced:
            with open(paths[-1], "rb") as file:
                os.fsync(file.fileno())
    return paths
