"""Entity rows, whatever they come as: a pandas frame, an Arrow table, a SQL query, or a span of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import ConfigError, StorageError
from feature_repo.plugins.spill import connect

TIME = "event_timestamp"  # Feast's name for the entity rows' time


class Entities(Protocol):
    """Entity rows in their order. `time` is the column of instants."""

    time: str
    names: list[str]

    def table(self) -> pa.Table:
        """All rows."""
        ...

    def chunks(self, rows: int) -> Iterator[pa.Table]:
        """The rows, at most `rows` at a time; at least one table, which may be empty."""
        ...

    def bounds(self) -> tuple[datetime | None, datetime | None]:
        """Earliest and latest time, UTC; None where there are no rows."""
        ...


class TableEntities:
    """Entity rows in memory."""

    def __init__(self, rows: pa.Table) -> None:
        self.time = time_column(rows.schema)
        self.names = rows.column_names
        self.rows = with_times(rows, self.time)

    @classmethod
    def of_frame(cls, frame: Any) -> TableEntities:
        """From a pandas frame. Raises `ConfigError` naming a column that Arrow cannot hold."""
        try:
            return cls(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ConfigError(f"the entity rows have a column of mixed types: {error}") from error

    def table(self) -> pa.Table:
        return self.rows

    def chunks(self, rows: int) -> Iterator[pa.Table]:
        for start in range(0, max(self.rows.num_rows, 1), rows):
            yield self.rows.slice(start, rows)

    def bounds(self) -> tuple[datetime | None, datetime | None]:
        found = pc.min_max(self.rows[self.time])
        return _instant(found["min"]), _instant(found["max"])


@dataclass(frozen=True)
class Settings:
    """DuckDB's, for a query of entity rows."""

    memory_limit: str | None = None
    temp_directory: str | None = None


class QueryEntities:
    """Entity rows of a DuckDB query, such as `SELECT … FROM 'rows.parquet'`. Raises `ConfigError` where it fails."""

    def __init__(self, sql: str, settings: Settings) -> None:
        self.sql = sql.strip().rstrip(";")
        self.settings = settings
        self.schema: pa.Schema = next(self._run(f"SELECT * FROM ({self.sql}) LIMIT 0", 1)).schema
        self.time = time_column(self.schema)
        self.names = list(self.schema.names)

    def _run(self, sql: str, rows: int) -> Iterator[pa.Table]:
        """Tables of `rows` rows, the last of fewer; an empty one where there are none."""
        import duckdb

        connection = connect(self.settings.memory_limit, self.settings.temp_directory)
        try:
            reader = connection.sql(sql).to_arrow_reader(min(rows, 65_536))
            waiting: list[pa.RecordBatch] = []
            count, told = 0, False
            for batch in reader:
                while batch.num_rows:
                    part = batch.slice(0, rows - count)
                    waiting.append(part)
                    batch, count = batch.slice(part.num_rows), count + part.num_rows
                    if count == rows:
                        yield pa.Table.from_batches(waiting, reader.schema)
                        waiting, count, told = [], 0, True
            if waiting or not told:
                yield pa.Table.from_batches(waiting, reader.schema)
        except duckdb.OutOfMemoryException as error:
            raise StorageError(f"the query of entity rows needs more memory: {error}") from error
        except duckdb.Error as error:
            raise ConfigError(f"the query of entity rows failed: {error}") from error
        finally:
            connection.close()

    def table(self) -> pa.Table:
        return pa.concat_tables(self.chunks(1 << 20))

    def chunks(self, rows: int) -> Iterator[pa.Table]:
        for found in self._run(self.sql, rows):
            yield with_times(found, self.time)

    def bounds(self) -> tuple[datetime | None, datetime | None]:
        name = self.time.replace('"', '""')
        found = next(self._run(f'SELECT min("{name}") AS low, max("{name}") AS high FROM ({self.sql})', 1))
        low, high = (with_times(found.select([end]), end)[end][0] for end in ("low", "high"))
        return _instant(low), _instant(high)


def time_column(schema: pa.Schema) -> str:
    """`event_timestamp`, else the only column of timestamps. Raises Feast's inference error."""
    if TIME in schema.names:
        return TIME
    found = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    if len(found) != 1:
        from feast.errors import EntityTimestampInferenceException

        raise EntityTimestampInferenceException(TIME)
    return str(found[0])


def with_times(rows: pa.Table, name: str) -> pa.Table:
    """The rows with their time as `timestamp[…, UTC]`; without a zone it is UTC. Raises `ConfigError`."""
    column, kind = rows[name], rows.schema.field(name).type
    if pa.types.is_timestamp(kind):
        wanted = pa.timestamp(kind.unit, "UTC")
        if kind == wanted:
            return rows
    elif pa.types.is_date(kind) or pa.types.is_null(kind):
        wanted = pa.timestamp("us", "UTC")
        column = pc.cast(column, pa.timestamp("us"))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        import pandas as pd

        wanted = pa.timestamp("us", "UTC")
        try:
            parsed = pd.to_datetime(pd.Series(column.to_pylist(), dtype="object"), utc=True, format="ISO8601")
        except ValueError as error:
            raise ConfigError(f"column {name!r} of the entity rows is no time: {error}") from error
        column = pa.chunked_array([pa.array(parsed, pa.timestamp("ns", "UTC"))])
    else:
        raise ConfigError(f"column {name!r} of the entity rows is {kind}, not a time")
    return rows.set_column(rows.schema.get_field_index(name), name, pc.cast(column, wanted, safe=False))


def _instant(value: pa.Scalar) -> datetime | None:
    if not value.is_valid:
        return None
    found: datetime = value.cast(pa.timestamp("us", "UTC"), safe=False).as_py()
    return found
