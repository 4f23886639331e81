"""Reading a catalogue: a folder of media, or a CSV, JSONL or Parquet file."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalog.cache import FileCache
from catalog.folder import read_folder
from catalog.rows import URIS, Rejected, build_table
from catalog.tables import read_file
from core.errors import CatalogError

__all__ = ["Catalog", "Rejected", "read_catalog"]


@dataclass(frozen=True)
class Catalog:
    """The contents of a catalogue (`core.contracts.CONTENT_SCHEMA`, sorted by id) and the rows that are none."""

    table: pa.Table
    rejected: list[Rejected]
    root: Path  # the folder that relative URIs start from
    left_out: dict[str, int] = field(default_factory=dict)  # files of a folder that are not read, by their ending

    @property
    def listed(self) -> set[str]:
        """The ids that the catalogue lists, also those of rows that are rejected."""
        return {*self.table["content_id"].to_pylist(), *(r.content_id for r in self.rejected if r.has_id)}

    @property
    def unidentified(self) -> list[Rejected]:
        """What is rejected and may stand for any content, so that nothing can be called missing from the catalogue."""
        return [r for r in self.rejected if not r.has_id]


def read_catalog(source: str | Path, *, timezone: str | None = None, file_cache: FileCache | None = None) -> Catalog:
    """Reads a catalogue. Naive timestamps are refused unless `timezone` names their zone.

    Raises `CatalogError` for a source that cannot be read as a whole: no such file, a column that is missing or not
    known. Rows are rejected one by one, each with its reason.
    """
    if not str(source).strip():
        raise CatalogError("the name of the catalogue is empty")
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise CatalogError(f"the catalogue {source} does not exist")
    left_out: dict[str, int] = {}
    if path.is_dir():
        rows, rejected, left_out = read_folder(path, file_cache)
        root = path
    else:
        rows, rejected = read_file(path)
        root = path.parent
        for _, row in rows:
            _trim_uris(row, root)
    table, refused = build_table(rows, timezone)
    return Catalog(table, [*rejected, *refused], root, left_out)


def _trim_uris(row: dict[str, Any], root: Path) -> None:
    """Removes spaces around a path of a catalogue file, unless a file has exactly that name."""
    for name in URIS:
        value = row.get(name)
        if isinstance(value, str) and value != value.strip():
            with contextlib.suppress(ValueError):
                if "://" not in value and os.path.lexists(root / value):
                    continue
            row[name] = value.strip()
