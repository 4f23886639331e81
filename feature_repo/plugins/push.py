"""Rows that somebody pushes, made to fit the files of a source and added to them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import ConfigError
from feature_repo.plugins.column_types import plain_type
from feature_repo.plugins.parquet import read_layout
from feature_repo.plugins.sources import Parts, append, resolve, work_key_column

PUSHED = "pushed"  # work key of a pushed row: no stage computed it, so none takes it for its own


def push_rows(source: Any, repo_path: str, table: pa.Table) -> str:
    """Adds rows, whose columns have feature names, as a new part of `source`; returns its path. Raises `ConfigError`
    naming a column that is missing, not known or of a type that does not fit."""
    own = {mapped: name for name, mapped in source.field_mapping.items()}
    mark = work_key_column(source, repo_path)
    rows = table.rename_columns([own.get(name, name) for name in table.column_names])
    schema = newest_schema(source, repo_path)
    # Feast has compared the frame's columns with ours, then turns it into Arrow with its index at the end and forgets
    # which columns those are: whatever comes after the last column that we know is index.
    last = max((at for at, name in enumerate(rows.column_names) if name in schema.names), default=-1)
    return append(source, repo_path, fit(rows.select(rows.column_names[: last + 1]), schema, mark))


def newest_schema(source: Any, repo_path: str) -> pa.Schema:
    """Schema of the source's newest file: what is read together should look alike."""
    parts = resolve(source, repo_path)
    schema = read_layout(Parts(parts.filesystem, parts.files[-1:], parts.uri)).schemas[0]
    return schema.remove_metadata()


def fit(rows: pa.Table, schema: pa.Schema, mark: str | None = None) -> pa.Table:
    """Rows in the columns and types of `schema`. Earmark's own column `mark` is filled in where it lacks."""
    unknown = [name for name in rows.column_names if name not in schema.names]
    missing = [name for name in schema.names if name not in rows.column_names and name != mark]
    if unknown or missing:
        raise ConfigError(
            f"pushed rows do not have the source's columns; missing: {', '.join(missing) or 'none'}, "
            f"not known: {', '.join(unknown) or 'none'}"
        )
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.array([PUSHED] * rows.num_rows, field.type))
            continue
        column = cast(rows[field.name], field)
        if column.null_count and not field.nullable:
            raise ConfigError(f"column {field.name!r} has nulls, which the source's files do not allow")
        columns.append(column)
    return pa.table(columns, schema=schema)


def cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Values kept exactly; times alone are cut to the file's unit (pandas makes nanoseconds of everything)."""
    is_time = pa.types.is_timestamp(field.type) and pa.types.is_timestamp(column.type)
    try:
        return pc.cast(column, field.type, safe=not is_time)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(
            f"column {field.name!r} is {plain_type(column.type)} and cannot become {field.type}: {error}"
        ) from error
