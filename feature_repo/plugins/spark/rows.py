"""Entity rows in Spark. Each has a number, by which the answer keeps their order and their duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_type

from core.errors import ConfigError
from feature_repo.plugins.column_types import plain_type
from feature_repo.plugins.entities import TableEntities, time_column
from feature_repo.plugins.history import NEVER, ticks
from feature_repo.plugins.spark.frames import collect, column, for_spark
from feature_repo.plugins.spark.session import spark_errors

NUMBER, TIME = "_earmark_number", "_earmark_time"  # of an entity row; its time in microseconds since 1970, UTC
QUERY_FAILED = "on the query of entity rows"


class EntityRows(Protocol):
    """`time` is the name of the column of instants, `types` the Arrow types of all columns in their order."""

    time: str
    types: dict[str, pa.DataType]

    def keyed(self, columns: Sequence[str]) -> DataFrame:
        """`NUMBER`, `TIME` and some columns."""
        ...

    def whole(self) -> DataFrame:
        """`NUMBER` and all columns."""
        ...

    def table(self, features: DataFrame, names: Sequence[str], types: Sequence[pa.DataType]) -> pa.Table:
        """The rows in order with features appended, given as `NUMBER` and columns to be called `names`."""
        ...

    def bounds(self) -> tuple[datetime | None, datetime | None]:
        """Earliest and latest time, UTC; None where there are no rows."""
        ...


class TableRows:
    """Entity rows in memory. Spark sees their numbers, keys and times alone; other columns stay as they are."""

    def __init__(self, session: SparkSession, entities: TableEntities) -> None:
        self._session, self._entities = session, entities
        self.time = entities.time
        self.types = dict(zip(entities.names, entities.rows.schema.types, strict=True))

    def keyed(self, columns: Sequence[str]) -> DataFrame:
        times = ticks(self._entities.rows[self.time], "us")
        # Features have microseconds at most: an instant between two of them sees what is not later than the first.
        numbered = self._entities.rows.select(list(columns)).add_column(0, TIME, pa.array(times, mask=times == NEVER))
        return self._frame(numbered)

    def whole(self) -> DataFrame:
        return self._frame(self._entities.rows)

    def _frame(self, rows: pa.Table) -> DataFrame:
        numbers = pa.array(np.arange(rows.num_rows, dtype=np.int64))
        with spark_errors("taking over the entity rows"):
            return self._session.createDataFrame(for_spark(rows.add_column(0, NUMBER, numbers)))

    def table(self, features: DataFrame, names: Sequence[str], types: Sequence[pa.DataType]) -> pa.Table:
        found = collect(features, [NUMBER, *names], [pa.int64(), *types], "joining features")
        found = found.take(pc.sort_indices(found[NUMBER]))
        rows = self._entities.rows
        for name in names:
            rows = rows.append_column(name, found[name])
        return rows

    def bounds(self) -> tuple[datetime | None, datetime | None]:
        return self._entities.bounds()


class FrameRows:
    """Entity rows that are a DataFrame. They are computed once: a query that answers in another order the second time
    would give its features to other rows."""

    def __init__(self, rows: DataFrame) -> None:
        types = arrow_types(rows)
        self.time = time_column(pa.schema(list(types.items())))
        kind = types[self.time]
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_string(kind)):
            raise ConfigError(f"column {self.time!r} of the entity rows is {kind}, not a time")
        self.types = types | {self.time: pa.timestamp("us", "UTC")}
        with spark_errors(QUERY_FAILED, ConfigError):
            times = {self.time: column(self.time).cast("timestamp")}
            self._rows = rows.withColumns(times | {NUMBER: F.monotonically_increasing_id()}).localCheckpoint()

    def keyed(self, columns: Sequence[str]) -> DataFrame:
        time = F.unix_micros(column(self.time)).alias(TIME)
        return self._rows.select(NUMBER, time, *(column(name) for name in columns))

    def whole(self) -> DataFrame:
        return self._rows.select(NUMBER, *(column(name) for name in self.types))

    def table(self, features: DataFrame, names: Sequence[str], types: Sequence[pa.DataType]) -> pa.Table:
        together = self.whole().join(features, NUMBER)
        every = [NUMBER, *self.types, *names]
        found = collect(together, every, [pa.int64(), *self.types.values(), *types], "joining features")
        return found.take(pc.sort_indices(found[NUMBER])).drop_columns([NUMBER])

    def bounds(self) -> tuple[datetime | None, datetime | None]:
        return self._bounds

    @cached_property
    def _bounds(self) -> tuple[datetime | None, datetime | None]:
        times = F.unix_micros(column(self.time))
        with spark_errors(QUERY_FAILED, ConfigError):
            low, high = self._rows.select(F.min(times), F.max(times)).collect()[0]
        return instant(low), instant(high)


def rows_of(session: SparkSession, entity_df: Any) -> EntityRows:
    """From a pandas frame, an Arrow table, a query in Spark's SQL or a DataFrame. Raises `ConfigError`."""
    if isinstance(entity_df, str):
        with spark_errors(QUERY_FAILED, ConfigError):
            return FrameRows(session.sql(entity_df))
    if isinstance(entity_df, DataFrame):
        return FrameRows(entity_df)
    table = TableEntities.of(entity_df)
    if table is not None:
        return TableRows(session, table)
    kind = type(entity_df).__name__
    raise ConfigError(f"entity rows are a pandas, Polars or Spark frame, an Arrow table or a SQL query, not {kind}")


def arrow_types(frame: DataFrame) -> dict[str, pa.DataType]:
    """A frame's columns and their Arrow types; instants are UTC."""
    return {f.name: plain_type(to_arrow_type(f.dataType, timezone="UTC")) for f in frame.schema}


def instant(micros: int | None) -> datetime | None:
    return None if micros is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
