"""A Feast source as a Spark DataFrame, with the types that the embedded store gives its columns.

Parquet files are listed, and their footers read, by `feature_repo.plugins`: the same files count, and a column that an
old part lacks or holds in a narrower type is the same here and there. Spark then reads them with the schema given.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_type

from core.errors import ConfigError, StorageError
from feature_repo.plugins.column_types import INSTANT, plain_type, read_type
from feature_repo.plugins.parquet import HIVE_NULL, Layout, read_layout
from feature_repo.plugins.sources import Parts, locate, resolve
from feature_repo.plugins.spark.conversion import converted, spark_type
from feature_repo.plugins.spark.session import spark_errors

PATH, PLACE = "_earmark_path", "_earmark_place"  # file of a row and its number there; null where there are no files
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
        tags=dict(source.tags),
    )


def read(
    session: SparkSession,
    source: Any,
    repo_path: str,
    columns: Sequence[str] | None = None,
    declared: Mapping[str, pa.DataType] | None = None,
    times: Collection[str] = (),
) -> Source:
    """`columns` of the source, or all; `declared` and `times` as in `Layout.types`. Raises `StorageError` for files
    that are not there, damaged, or lack a column."""
    if is_parquet(source):
        layout = read_layout(resolve(as_files(source), repo_path))
        return read_layout_frame(session, layout, columns, declared, times)
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


def read_layout_frame(
    session: SparkSession,
    layout: Layout,
    columns: Sequence[str] | None = None,
    declared: Mapping[str, pa.DataType] | None = None,
    times: Collection[str] = (),
) -> Source:
    """Parquet files whose footers are known. A column that no file has raises `StorageError`."""
    wanted = list(columns if columns is not None else layout.names)
    types = layout.types(wanted, declared, times)
    kinds = {name: layout.file_types(name) for name in wanted}
    for name in wanted:
        if any(kind == INT96_READ_AS for kind in kinds[name]):
            kinds[name] = [_without_int96(layout, at, name, kind) for at, kind in enumerate(kinds[name])]
            types[name] = read_type(
                [k for k in kinds[name] if k is not None], (declared or {}).get(name), name in times
            )
    # Spark reads files with one schema and converts little; files of other types are read apart and converted.
    groups: dict[tuple[pa.DataType | None, ...], list[int]] = {}
    for at in range(len(layout.parts.files)):
        groups.setdefault(tuple(kinds[name][at] for name in wanted), []).append(at)
    with spark_errors(f"reading {layout.parts.uri}"):
        frames = [_read_group(session, layout, types, dict(zip(wanted, k, strict=True)), f) for k, f in groups.items()]
        found = frames[0]
        for frame in frames[1:]:
            found = found.unionByName(frame)
    return Source(found, types)


def _read_group(
    session: SparkSession,
    layout: Layout,
    types: dict[str, pa.DataType],
    kinds: Mapping[str, pa.DataType | None],
    files: Sequence[int],
) -> DataFrame:
    """Files that agree in the types `kinds` of their columns, as columns of `types`."""
    in_files = {n: kind for n, kind in kinds.items() if kind is not None and not pa.types.is_null(kind)}
    in_folders = {n for n in in_files if not layout.in_files(n)}
    read = {n: kind for n, kind in in_files.items() if n not in in_folders}
    schema = T.StructType([T.StructField(name, spark_type(name, kind)) for name, kind in read.items()])
    # The files are named one by one: nothing in their names is a pattern.
    reader = session.read.schema(schema).option("__globPaths__", "false").option("mergeSchema", "false")
    # Spark would look for partitions in the folders' names, and read each file once for every other file beside it.
    reader = reader.option("recursiveFileLookup", "true")
    parts = Parts(layout.parts.filesystem, [layout.parts.files[at] for at in files], layout.parts.uri)
    found = reader.parquet(*uris(parts))
    place = F.col("_metadata.file_path").alias(PATH), F.col("_metadata.row_index").alias(PLACE)
    columns = []
    for name, kind in types.items():
        if name in read:
            columns.append(converted(column(name), read[name], kind, f"column {name!r} of {parts.uri}").alias(name))
        elif name in in_folders:
            columns.append(converted(_of_folder(name), pa.string(), kind, f"folder {name!r}").alias(name))
        else:  # Spark would look for numbers in a column without a single value
            nothing = T.StringType() if pa.types.is_null(kind) else spark_type(name, kind)
            columns.append(F.lit(None).cast(nothing).alias(name))
    return found.select(*columns, *place)


def _of_folder(name: str) -> Column:
    """The value of a column that a folder `<name>=<value>` gives. Spark escapes the path, and Hive the value."""
    value = F.regexp_extract(_unescaped(F.col("_metadata.file_path")), f"/{re.escape(quote(name))}=([^/]*)/", 1)
    return F.when(value != HIVE_NULL, _unescaped(value))


def _unescaped(text: Column) -> Column:
    return F.url_decode(F.replace(text, F.lit("+"), F.lit("%2B")))


INT96_READ_AS = pa.timestamp("ns")  # Arrow's reading of the times that older Spark writes


def _without_int96(layout: Layout, file: int, name: str, kind: pa.DataType | None) -> pa.DataType | None:
    """The type of a file's column; one in the form that older Spark writes (INT96) has instants in microseconds, which
    Arrow takes for nanoseconds without a zone."""
    schema = layout.footers[file].schema
    columns = (schema.column(at) for at in range(len(layout.schemas[file].names)))
    is_int96 = any(found.path == name and found.physical_type == "INT96" for found in columns)
    return INSTANT if is_int96 else kind


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
