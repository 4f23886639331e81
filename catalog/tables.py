"""Catalogues in files: CSV, JSONL and Parquet with the documented columns."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalog.encoding import unicode_encoding
from catalog.rows import Rejected, Unreadable, check_columns, printable
from core.contracts import CONTENT_SCHEMA, KINDS
from core.errors import CatalogError

Rows = list[tuple[str, dict[str, Any]]]  # (place, raw values)


def read_file(path: Path) -> tuple[Rows, list[Rejected]]:
    """Raw rows of a catalogue file, and the lines that are not rows. Raises `CatalogError` for a file that cannot be
    read, whose rows cannot be separated, or that has a wrong column."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise CatalogError(f"{path} is not a catalogue: give a folder, or a file ending in {', '.join(READERS)}")
    try:
        return reader(path)
    except OSError as error:
        raise CatalogError(f"cannot read the catalogue {path}: {error.strerror or error}") from error


def _text(path: Path) -> str:
    """The text of a CSV or JSONL file. Bytes that are not UTF-8 become lone surrogates, so that a bad cell costs its
    row and not the file."""
    data = path.read_bytes()
    encoding, mark = unicode_encoding(data)
    try:
        text = data[mark:].decode(encoding, "surrogateescape" if encoding == "utf-8" else "surrogatepass")
    except UnicodeDecodeError as error:
        at = mark + error.start + 1
        raise CatalogError(f"{path.name} is not valid {encoding.upper()}: {error.reason} at byte {at}") from error
    if not text.strip():
        raise CatalogError(f"the catalogue {path} is empty")
    return text


def _read_csv(path: Path) -> tuple[Rows, list[Rejected]]:
    csv.field_size_limit(sys.maxsize)
    # Without `strict`, a quote that never closes would take all later rows into its cell and say nothing.
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        names = [name.strip() for name in next(cells for cells in reader if cells)]
    except csv.Error as error:
        raise CatalogError(f"{path.name}: the header cannot be read: {error}") from error
    check_columns(names, path.name)
    rows: Rows = []
    rejected = []
    for place, cells in _csv_rows(reader, path.name):
        if isinstance(cells, str):
            rejected.append(Rejected(place, "bad_row", f"{place}: {cells}"))
            continue
        _check_swallowed(names, cells, place, path.name)
        if len(cells) != len(names):
            detail = f"{place} has {len(cells)} cells, the header {len(names)}"
            if any("\n" in cell or "\r" in cell for cell in cells):
                raise CatalogError(
                    f"{path.name}: {detail}, and one of its cells goes on over several lines, so a quote may be "
                    "missing and rows may be joined; correct the row"
                )
            rejected.append(Rejected(place, "bad_row", detail))
        else:
            rows.append((place, {n: c if c else None for n, c in zip(names, cells, strict=True)}))
    return rows, rejected


def _csv_rows(reader: Any, name: str) -> Iterator[tuple[str, list[str] | str]]:
    """(place, cells) of every row that is not blank; for a row of one line with a misplaced quote, what is wrong.

    Raises `CatalogError` where a misplaced quote makes it unknown where a row ends.
    """
    number = 0
    while True:
        number, before = number + 1, reader.line_num
        place = f"row {number}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines = reader.line_num - before
            if "unexpected end" in str(error):
                raise CatalogError(
                    f"{name}, {place} (line {before + 1}): a quote opens in this row and never closes, so the rows "
                    "after it cannot be separated; close it, and write a quote within a quoted cell twice"
                ) from error
            if lines > 1:
                raise CatalogError(
                    f"{name}, {place} (lines {before + 1} to {reader.line_num}): a quoted cell goes on over "
                    f"{lines} lines and does not end before a comma, so a quote is missing or stands alone; "
                    "write a quote within a quoted cell twice"
                ) from error
            yield place, "a quote within a quoted cell must be written twice"
            continue
        if cells:
            yield place, cells


def _check_swallowed(names: Sequence[str], cells: Sequence[str], place: str, file: str) -> None:
    """Raises `CatalogError` if a quoted cell contains what could be further rows: a quote in a later row closed the
    quote of an earlier one."""
    at = names.index("kind")
    for number, cell in enumerate(cells):
        if "\n" not in cell and "\r" not in cell:
            continue
        for line in cell.splitlines()[1:]:
            inner = line.split(",")
            if len(inner) > max(at, 1) and (_is_kind(inner[at]) or (any(map(_is_kind, inner)) and _has_time(inner))):
                name = repr(names[number]) if number < len(names) else f"number {number + 1}"
                raise CatalogError(
                    f"{file}, {place}: the cell {name} contains what could be another row "
                    f"({printable(line)!r}), so a quote is missing before it; if the cell is right, write the "
                    "catalogue as JSONL"
                )


def _is_kind(cell: str) -> bool:
    return cell.strip().strip('"') in KINDS


def _has_time(cells: Sequence[str]) -> bool:
    """Whether one of the cells is a time with its date."""
    for cell in cells:
        with contextlib.suppress(ValueError):
            if len(cell.strip().strip('"')) > 10 and datetime.fromisoformat(cell.strip().strip('"')):
                return True
    return False


def _read_jsonl(path: Path) -> tuple[Rows, list[Rejected]]:
    rows: Rows = []
    rejected = []
    names: dict[str, None] = {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            line.encode("utf-8")
            record = json.loads(line, object_pairs_hook=_object)
        except UnicodeEncodeError as error:
            at = len(line[: error.start].encode("utf-8", "surrogatepass")) + 1
            rejected.append(Rejected(place, "invalid_utf8", f"{place}: not valid Unicode at byte {at} of the line"))
            continue
        except ValueError as error:
            rejected.append(Rejected(place, "bad_json", f"{place}: {printable(str(error))}"))
            continue
        except RecursionError:
            rejected.append(Rejected(place, "bad_json", f"{place}: lists or objects are nested too deeply"))
            continue
        if not isinstance(record, dict):
            rejected.append(Rejected(place, "bad_json", f"{place}: not an object"))
            continue
        names.update(dict.fromkeys(record))
        rows.append((place, record))
    if rows:
        check_columns(list(names), path.name)
    return rows, rejected


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different: of two values of one key, Python would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for n, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:n]))
        raise ValueError(f"the key {twice!r} appears twice")
    return found


def _read_parquet(path: Path) -> tuple[Rows, list[Rejected]]:
    import pyarrow.parquet as pq

    try:
        check_columns(pq.read_schema(path).names, path.name)
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise CatalogError(f"{path.name} is not a readable Parquet file: {error}") from error
    for field in table.schema:
        wanted = CONTENT_SCHEMA.field(field.name).type
        if not _fits(field.type, wanted):
            raise CatalogError(f"{path.name}: column {field.name!r} is of type {field.type}, expected {wanted}")
    columns = [_values(table[name]) for name in table.column_names]
    rows = (dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True))
    return [(f"row {number}", row) for number, row in enumerate(rows, 1)], []


def _values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; one that Python cannot represent becomes `Unreadable`, and costs its row alone."""
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "surrogateescape")
    except (ValueError, OverflowError, KeyError, pa.ArrowException) as error:
        return Unreadable(f"{getattr(scalar, 'value', '')} ({scalar.type}) cannot be read: {error}")


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        found = found.value_type
    text = pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)
    if pa.types.is_timestamp(wanted):
        return text or pa.types.is_timestamp(found) or pa.types.is_date(found)
    return text if pa.types.is_string(wanted) else found == wanted


READERS: dict[str, Callable[[Path], tuple[Rows, list[Rejected]]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
