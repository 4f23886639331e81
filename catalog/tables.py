"""Catalogues in files: CSV, JSONL and Parquet with the documented columns."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalog.rows import Rejected, check_columns, printable
from core.contracts import CONTENT_SCHEMA
from core.errors import CatalogError

Rows = list[tuple[str, dict[str, Any]]]  # (place, raw values)


def read_file(path: Path) -> tuple[Rows, list[Rejected]]:
    """Raw rows of a catalogue file, and the lines that are not rows. Raises `CatalogError` for a file that cannot be
    read, or has a wrong column."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise CatalogError(f"{path} is not a catalogue: give a folder, or a file ending in {', '.join(READERS)}")
    try:
        return reader(path)
    except OSError as error:
        raise CatalogError(f"cannot read the catalogue {path}: {error.strerror or error}") from error


def _read_csv(path: Path) -> tuple[Rows, list[Rejected]]:
    # Undecodable bytes become lone surrogates, so that a bad cell costs its row and not the file.
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    if not text.strip():
        raise CatalogError(f"the catalogue {path} is empty")
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), strict=False)
    names = next(reader)
    check_columns(names, path.name)
    rows: Rows = []
    rejected = []
    try:
        for number, cells in enumerate(reader, 1):
            if not cells:
                continue
            if len(cells) != len(names):
                detail = f"row {number} has {len(cells)} cells, the header {len(names)}"
                rejected.append(Rejected(f"row {number}", "bad_row", detail))
                continue
            rows.append((f"row {number}", {n: c if c else None for n, c in zip(names, cells, strict=True)}))
    except csv.Error as error:
        raise CatalogError(f"{path.name}: {error} near line {reader.line_num}") from error
    return rows, rejected


def _read_jsonl(path: Path) -> tuple[Rows, list[Rejected]]:
    rows: Rows = []
    rejected = []
    names: dict[str, None] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            rejected.append(Rejected(place, "invalid_utf8", f"{place}: not valid UTF-8 at byte {error.start + 1}"))
            continue
        except ValueError as error:
            rejected.append(Rejected(place, "bad_json", f"{place}: {printable(str(error))}"))
            continue
        if not isinstance(record, dict):
            rejected.append(Rejected(place, "bad_json", f"{place}: not an object"))
            continue
        names.update(dict.fromkeys(record))
        rows.append((place, record))
    if not rows and not rejected:
        raise CatalogError(f"the catalogue {path} is empty")
    if rows:
        check_columns(list(names), path.name)
    return rows, rejected


def _read_parquet(path: Path) -> tuple[Rows, list[Rejected]]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise CatalogError(f"{path.name} is not a readable Parquet file: {error}") from error
    check_columns(table.column_names, path.name)
    for field in table.schema:
        wanted = CONTENT_SCHEMA.field(field.name).type
        if not _fits(field.type, wanted):
            raise CatalogError(f"{path.name}: column {field.name!r} is of type {field.type}, expected {wanted}")
    return [(f"row {number}", row) for number, row in enumerate(table.to_pylist(), 1)], []


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_timestamp(wanted):
        return pa.types.is_timestamp(found) or pa.types.is_string(found)
    if pa.types.is_string(wanted):
        return pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)
    return found == wanted


READERS: dict[str, Callable[[Path], tuple[Rows, list[Rejected]]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
