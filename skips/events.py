"""Tables of what listeners did: read from files, checked, and joined where they overlap."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from core.errors import CatalogError

EVENTS = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("event", pa.string(), nullable=False),  # skip, seek, undo, play
        pa.field("from_s", pa.float64(), nullable=False),
        pa.field("to_s", pa.float64(), nullable=False),
        pa.field("listener", pa.string()),
        pa.field("audio_sha256", pa.string()),
    ]
)
KINDS = ("skip", "seek", "undo", "play")
SUFFIXES = (".csv", ".jsonl", ".parquet")


def read_events(path: Path) -> pa.Table:
    """The events of a CSV, JSONL or Parquet file, as `checked` gives them. Ids are taken as they are written: "007"
    and "1.10" are no numbers. Raises `CatalogError`."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CatalogError(f"{path} is none of {', '.join(SUFFIXES)}")
    try:
        if suffix == ".csv":
            words = {field.name: pa.string() for field in EVENTS if field.type == pa.string()}
            return checked(csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=words)))
        return checked(parquet.read_table(path) if suffix == ".parquet" else _lines(path))
    except (OSError, UnicodeError, pa.ArrowInvalid) as error:
        raise CatalogError(f"the events {path} cannot be read: {error}") from error


def _lines(path: Path) -> pa.Table:
    """A JSON object a line. Raises `CatalogError` naming the line that is none."""
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise CatalogError(f"line {number} of the events {path} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise CatalogError(f"line {number} of the events {path} is no JSON object")
            rows.append(row)
    named = {name for row in rows for name in row}
    columns = {}
    for field in EVENTS:
        if field.name in named:
            values = [row.get(field.name) for row in rows]
            if field.type == pa.string():  # an id may be written as a number
                values = [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values]
            try:
                columns[field.name] = pa.array(values, field.type)
            except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeError) as error:
                raise CatalogError(
                    f"the events' column {field.name} cannot be read as {field.type}: {error}"
                ) from error
    return pa.table(columns) if columns else pa.table({})


def checked(table: pa.Table) -> pa.Table:
    """The table with the columns and types of `EVENTS`; `listener` and `audio_sha256` may lack. Raises `CatalogError`
    naming the column or the first row that is wrong."""
    missing = [f.name for f in EVENTS if not f.nullable and f.name not in table.column_names]
    if missing:
        raise CatalogError(f"the events have no column {', '.join(missing)}; there is {', '.join(table.column_names)}")
    twice = [f.name for f in EVENTS if table.column_names.count(f.name) > 1]
    if twice:
        raise CatalogError(f"the events have more than one column {', '.join(twice)}")
    columns = []
    for field in EVENTS:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(pc.cast(table[field.name], field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise CatalogError(f"the events' column {field.name} cannot be read as {field.type}: {error}") from error
        if field.nullable:  # blank in a file of text
            blank = pc.equal(columns[-1], "")
            columns[-1] = pc.if_else(pc.fill_null(blank, True), pa.scalar(None, field.type), columns[-1])
    found = pa.Table.from_arrays(columns, schema=pa.schema([f.with_nullable(True) for f in EVENTS]))
    for number, row in enumerate(found.to_pylist(), 1):
        if any(row[f.name] is None for f in EVENTS if not f.nullable):
            raise CatalogError(f"row {number} of the events lacks a value")
        if row["event"] not in KINDS:
            raise CatalogError(f"row {number} of the events: {row['event']!r} is none of {', '.join(KINDS)}")
        if not (math.isfinite(row["from_s"]) and math.isfinite(row["to_s"])):
            raise CatalogError(f"row {number} of the events: its times are not finite")
    return found


def beyond(events: pa.Table, held: pa.Table) -> pa.Table:
    """The events that `held` lacks, or has less often: what players export overlaps."""
    left = Counter(map(_row, held.to_pylist()))
    new = []
    for row in map(_row, events.to_pylist()):
        new.append(left[row] == 0)
        left[row] -= not new[-1]
    return events.filter(pa.array(new, pa.bool_()))


def _row(values: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(values[name] for name in EVENTS.names)
