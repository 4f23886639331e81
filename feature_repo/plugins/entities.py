"""Entity rows, whatever they come as: a pandas frame, an Arrow table, a SQL query, or a span of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    def of(cls, rows: Any) -> TableEntities | None:
        """From a pandas frame, an Arrow table, or any table that hands over its columns by Arrow's stream interface
        (Polars, DuckDB, Ibis) or the data frame interchange protocol; None for anything else. Raises `ConfigError`."""
        import pandas as pd

        if isinstance(rows, pd.DataFrame):
            return cls.of_frame(rows)
        if isinstance(rows, pa.Table):
            return cls(rows)
        if hasattr(rows, "collect") and hasattr(rows, "lazy"):  # a lazy frame of Polars
            rows = rows.collect()
        try:
            if hasattr(rows, "__arrow_c_stream__"):
                return cls(_without_views(pa.table(rows)))
            if hasattr(rows, "__dataframe__"):
                from pyarrow.interchange import from_dataframe

                return cls(_without_views(from_dataframe(rows)))
        except (pa.ArrowException, NotImplementedError, RuntimeError, ValueError) as error:
            raise ConfigError(f"the entity rows cannot be read as an Arrow table: {error}") from error
        return None

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
        self.sql = sql
        self.settings = settings
        self.schema: pa.Schema = next(self._run(1, lambda rows: rows.limit(0))).schema
        self.time = time_column(self.schema)
        self.names = list(self.schema.names)

    def _run(self, rows: int, of: Callable[[Any], Any] = lambda answer: answer) -> Iterator[pa.Table]:
        """Tables of `rows` rows of the answer (`of` it), the last of fewer; an empty one where there are none. The
        last of several statements is the query."""
        import duckdb

        connection = connect(self.settings.memory_limit, self.settings.temp_directory)
        try:
            statements = connection.extract_statements(self.sql)
            for statement in statements[:-1]:
                connection.execute(statement)
            answer = connection.sql(_bare(statements[-1].query)) if statements else None
            if answer is None:
                raise ConfigError("the query of entity rows gives no rows; it must end in a SELECT")
            reader = of(answer).to_arrow_reader(min(rows, 65_536))
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
        for found in self._run(rows):
            yield with_times(found, self.time)

    def bounds(self) -> tuple[datetime | None, datetime | None]:
        name = self.time.replace('"', '""')
        ends = f'min("{name}") AS low, max("{name}") AS high'
        found = next(self._run(1, lambda rows: rows.aggregate(ends)))
        low, high = (with_times(found.select([end]), end)[end][0] for end in ("low", "high"))
        return _instant(low), _instant(high)


def _bare(statement: str) -> str:
    """A statement without the semicolons and comments at its end: DuckDB puts it into another one."""
    import duckdb

    text = statement.encode()
    for offset, kind in reversed(duckdb.tokenize(statement)):  # offsets are in bytes
        if kind != duckdb.token_type.comment and text[offset : offset + 1] != b";":
            break
        text = text[:offset]
    return text.decode()


def _without_views(rows: pa.Table) -> pa.Table:
    """The rows with plain text columns: Arrow computes little on views."""
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    fields = [field.with_type(views.get(field.type, field.type)) for field in rows.schema]
    return rows.cast(pa.schema(fields))


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
