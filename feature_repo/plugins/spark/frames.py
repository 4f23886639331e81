"""A Feast source as a Spark DataFrame, with the types that the embedded store gives its columns.

Parquet files are listed, and their footers read, by `feature_repo.plugins`: the same files count, and a column that an
old part lacks or holds in a narrower type is the same here and there. Spark then reads them with the schema given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_type

from core.errors import ConfigError, StorageError
from feature_repo.plugins.parquet import Layout, plain_type, read_layout
from feature_repo.plugins.sources import Parts, locate, resolve
from feature_repo.plugins.spark.session import spark_errors

PATH, PLACE = "_earmark_path", "_earmark_place"  # file of a row and its number there; null where there are no files
# Parquet's unsigned integers as Spark reads them.
UNSIGNED: dict[pa.DataType, T.DataType] = {
    pa.uint8(): T.ShortType(),
    pa.uint16(): T.IntegerType(),
    pa.uint32(): T.LongType(),
    pa.uint64(): T.DecimalType(20, 0),
}
SCHEMES = {"s3": "s3a"}  # pyarrow's name of a filesystem and Hadoop's


@dataclass(frozen=True)
class Source:
    """Rows of a source: its own columns and `PATH`, `PLACE`. `types` are the columns' Arrow types."""

    frame: DataFrame
    types: dict[str, pa.DataType]


def is_parquet(source: Any) -> bool:
    """Whether the source is Parquet files, given as Feast's `SparkSource` or as its `FileSource`."""
    if isinstance(source, FileSource):
        return source.file_format is None or isinstance(source.file_format, ParquetFormat)
    if not isinstance(source, SparkSource) or source.table_format is not None or source.query:
        return False
    return bool(source.path) and source.file_format == "parquet"


def as_files(source: Any) -> FileSource:
    """A source of Parquet files under the type that `feature_repo.plugins.sources` reads."""
    if isinstance(source, FileSource):
        return source
    path = source.path.replace("s3a://", "s3://", 1)
    return FileSource(
        name=source.name,
        path=path,
        file_format=ParquetFormat(),
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
        field_mapping=source.field_mapping,
    )


def read(session: SparkSession, source: Any, repo_path: str, columns: Sequence[str] | None = None) -> Source:
    """`columns` of the source, or all. Raises `StorageError` for files that are not there, damaged, or lack one."""
    if is_parquet(source):
        files = as_files(source)
        return read_layout_frame(session, read_layout(resolve(files, repo_path)), columns)
    if not isinstance(source, SparkSource):
        raise ConfigError(f"source {source.name} is a {type(source).__name__}, which Spark does not read")
    with spark_errors(f"reading source {source.name}"):
        found = _load(session, source)
        missing = [name for name in columns or () if name not in found.columns]
        if missing:
            raise StorageError(f"source {source.name} has no column {missing[0]!r}")
        frame = found.select(*([column(name) for name in columns] if columns else ["*"]))
        types = {field.name: to_arrow_type(field.dataType, timezone="UTC") for field in frame.schema}
        nowhere = {PATH: F.lit(None).cast("string"), PLACE: F.lit(None).cast("bigint")}
        return Source(frame.withColumns(nowhere), {name: plain_type(kind) for name, kind in types.items()})


def _load(session: SparkSession, source: SparkSource) -> DataFrame:
    if source.table:
        return session.table(source.table)
    if source.query:
        return session.sql(source.query)
    return source._load_dataframe_from_path(session)


def read_layout_frame(session: SparkSession, layout: Layout, columns: Sequence[str] | None = None) -> Source:
    """Parquet files whose footers are known. A column that no file has raises `StorageError`."""
    types = layout.types(columns if columns is not None else layout.names)
    types |= {name: pa.timestamp("us", "UTC") for name, kind in types.items() if _is_int96(layout, name, kind)}
    held = {name: spark_type(name, kind) for name, kind in types.items() if not pa.types.is_null(kind)}
    schema = T.StructType([T.StructField(name, kind) for name, kind in held.items()])
    # The files are named one by one: nothing in their names is a pattern.
    reader = session.read.schema(schema).option("__globPaths__", "false").option("mergeSchema", "false")
    with spark_errors(f"reading {layout.parts.uri}"):
        found = reader.parquet(*uris(layout.parts))
        place = F.col("_metadata.file_path").alias(PATH), F.col("_metadata.row_index").alias(PLACE)
        nothing = F.lit(None).cast("string")  # of a column without a single value; Spark would look for numbers in it
        names = [column(name) if name in held else nothing.alias(name) for name in types]
        frame = found.select(*names, *place)
    return Source(frame, types)


def _is_int96(layout: Layout, name: str, kind: pa.DataType) -> bool:
    """Whether a column has the times that older Spark writes: Arrow takes them for nanoseconds without a zone, but they
    are instants in microseconds."""
    if kind != pa.timestamp("ns"):
        return False
    columns = (footer.schema.column(at) for footer in layout.footers for at in range(footer.num_columns))
    return {column.physical_type for column in columns if column.path == name} == {"INT96"}


def spark_type(name: str, kind: pa.DataType) -> T.DataType:
    """Spark's type of a Parquet column. Raises `ConfigError` for one that it cannot read."""
    if kind in UNSIGNED:
        return UNSIGNED[kind]
    if pa.types.is_timestamp(kind):
        if kind.unit == "ns":
            raise ConfigError(f"column {name!r} has nanoseconds, which Spark does not read; write it in microseconds")
        return T.TimestampType()  # without a zone it is UTC, as the session is
    if pa.types.is_list(kind):
        return T.ArrayType(spark_type(name, kind.value_type))
    try:
        return from_arrow_type(kind)
    except Exception as error:  # pyspark raises several of its own
        raise ConfigError(f"column {name!r} is {kind}, which Spark does not read") from error


def uris(parts: Parts) -> list[str]:
    """The files as Hadoop names them: a path in its own characters, none of them escaped."""
    kind = parts.filesystem.type_name
    if kind == "local":
        return [f"file://{part.path}" for part in parts.files]
    if kind == "s3":
        return [f"s3a://{part.path}" for part in parts.files]
    scheme, _, rest = parts.uri.partition("://")
    authority = rest.split("/", 1)[0] if kind == "hdfs" else ""
    return [f"{SCHEMES.get(scheme, scheme)}://{authority}{part.path}" for part in parts.files]


def uri_of(source: FileSource, repo_path: str) -> str:
    """Where a source points, as Hadoop names it."""
    place = locate(source, repo_path)
    return f"file://{place.path}" if place.is_local else place.uri.replace("s3://", "s3a://", 1)


def column(name: str) -> Any:
    """A column by its very name, dots and all."""
    return F.col("`" + name.replace("`", "``") + "`")


def for_spark(table: pa.Table) -> pa.Table:
    """The table in types that Spark takes: no dictionaries, large or fixed layouts, no finer time than microseconds."""
    fields = [pa.field(f.name, _for_spark(f.type), f.nullable) for f in table.schema]
    return pa.table([table[f.name].cast(f.type, safe=False) for f in fields], schema=pa.schema(fields))


def _for_spark(kind: pa.DataType) -> pa.DataType:
    kind = plain_type(kind)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_list(kind):
        return pa.list_(_for_spark(kind.value_type))
    return {pa.null(): pa.string(), pa.uint64(): pa.decimal128(20, 0)}.get(kind, kind)


def collect(frame: DataFrame, names: Iterable[str], types: Iterable[pa.DataType], doing: str) -> pa.Table:
    """The frame's rows as an Arrow table with these names and types. Raises `StorageError`."""
    with spark_errors(doing):
        found = frame.toArrow()
    fields = [pa.field(name, kind) for name, kind in zip(names, types, strict=True)]
    arrays = [_cast(found.column(at), field.type) for at, field in enumerate(fields)]
    return pa.table(arrays, schema=pa.schema(fields))


def _cast(found: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_null(kind):
        return pa.chunked_array([pa.nulls(len(found))])
    return found if found.type == kind else found.cast(kind)
