"""Reading a catalogue: a folder of media, or a CSV, JSONL or Parquet file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from catalog.cache import FileCache
from catalog.folder import read_folder
from catalog.rows import Rejected, build_table
from catalog.tables import read_file
from core.errors import CatalogError

__all__ = ["Catalog", "Rejected", "read_catalog"]


@dataclass(frozen=True)
class Catalog:
    """The contents of a catalogue (`core.contracts.CONTENT_SCHEMA`, sorted by id) and the rows that are none."""

    table: pa.Table
    rejected: list[Rejected]
    root: Path  # the folder that relative URIs start from


def read_catalog(source: str | Path, *, timezone: str | None = None, file_cache: FileCache | None = None) -> Catalog:
    """Reads a catalogue. Naive timestamps are refused unless `timezone` names their zone.

    Raises `CatalogError` for a source that cannot be read as a whole: no such file, a column that is missing or not
    known. Rows are rejected one by one, each with its reason.
    """
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise CatalogError(f"the catalogue {source} does not exist")
    if path.is_dir():
        rows, rejected = read_folder(path, file_cache)
        root = path
    else:
        rows, rejected = read_file(path)
        root = path.parent
    table, refused = build_table(rows, timezone)
    return Catalog(table, [*rejected, *refused], root)
