"""Tables of a store: Parquet part files that carry their own ledger.

A part is committed whole by `core.storage`, so the rows and the record that they were computed (`work_key`) appear in
the same instant: there is no ledger that could disagree with the data. Parts are never changed, only added, and
replaced by compaction or erasure, which publish first and retire later.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import StorageError
from core.features import View
from core.names import path_name
from core.storage import Entry, Storage

ROW_GROUP_ROWS = 65_536
# Latest row of a key: the later event wins, at equal event the later created (DESIGN, time).
_LATEST = """
    SELECT * EXCLUDE (_rank) FROM (
        SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {event} DESC, {created} DESC) AS _rank FROM rows
    ) WHERE _rank = 1 ORDER BY {key}
"""


def now_us() -> datetime:
    """The present instant, UTC, in the microseconds that the contracts carry."""
    return datetime.now(UTC)


class Tables:
    """Reads and commits the tables of one store."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def commit(self, view: View, rows: pa.Table, created: datetime, name: str) -> str:
        """Commits rows of `view` as the part `part-<created>-<name>.parquet`; returns its path.

        `rows` must fit `view.schema`. The same name and instant replace the part.
        """
        table = rows.select(view.schema.names).cast(view.schema)
        path_name(name, "the part")
        stamp = created.strftime("%Y%m%dT%H%M%S%f")
        path = f"{view.folder}/date={created:%Y-%m-%d}/part-{stamp}-{name}.parquet"
        self.storage.write(path, encode(table, view.group_rows))
        return path

    def ensure(self, view: View) -> None:
        """Commits an empty part where a view has none, so that it can be read and applied before its first row."""
        if not self.parts(view):
            empty = view.schema.empty_table()
            self.storage.write(f"{view.folder}/date=1970-01-01/part-empty.parquet", encode(empty))

    def parts(self, view: View) -> list[Entry]:
        """Committed parts of a view, oldest first."""
        return [e for e in self.storage.entries(view.folder) if e.path.endswith(".parquet")]

    def read(self, view: View, columns: Sequence[str] | None = None, parts: Iterable[str] | None = None) -> pa.Table:
        """All rows of a view (or of some parts), unsorted, with their duplicates."""
        from pyarrow import dataset

        filesystem, root = self.storage.arrow()
        paths = list(parts) if parts is not None else [part.path for part in self.parts(view)]
        if not paths:
            return view.schema.empty_table().select(columns or view.schema.names)
        name = f"a part of {view.name} in {self.storage.uri}"
        with reading(name):
            found = dataset.dataset(
                [f"{root}/{p}" for p in paths], schema=view.schema, filesystem=filesystem, format="parquet"
            )
            rows = found.to_table(columns=list(columns) if columns else None)
        check_keys(rows, view, name)
        return rows

    def latest(self, view: View, columns: Sequence[str] | None = None) -> pa.Table:
        """The latest row of every key, tombstones included, sorted by key. `columns` always come with the key,
        event, created and work key."""
        fixed = [view.entity, EVENT, CREATED, WORK_KEY]
        wanted = list(dict.fromkeys([*fixed, *(columns if columns is not None else view.schema.names)]))
        return latest_rows(self.read(view, wanted), view.entity)


def latest_rows(rows: pa.Table, key: str, event: str = EVENT, created: str = CREATED) -> pa.Table:
    """The latest row of every key of `rows`, sorted by key."""
    if not rows.num_rows:
        return rows
    return query(_LATEST.format(key=f'"{key}"', event=f'"{event}"', created=f'"{created}"'), rows=rows).cast(
        rows.schema
    )


_connections = threading.local()  # DuckDB's connections are not for sharing by threads, and opening one costs 10 ms


def query(sql: str, **tables: pa.Table) -> pa.Table:
    """Runs SQL over Arrow tables by name."""
    import duckdb

    connection = getattr(_connections, "own", None)
    if connection is None:
        connection = _connections.own = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
    try:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.sql(sql).to_arrow_table()
    finally:
        for name in tables:
            connection.unregister(name)


def encode(table: pa.Table, group_rows: int = ROW_GROUP_ROWS) -> bytes:
    """Parquet bytes, with so many rows a row group. Strings are dictionary-encoded; vectors are not (their values
    do not repeat)."""
    plain = [f.name for f in table.schema if pa.types.is_string(f.type)]
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", use_dictionary=plain, row_group_size=group_rows)
    return sink.getvalue()


THREADED_BYTES = 4 << 20


def decode(data: bytes, columns: Sequence[str] | None = None, name: str = "a table of the store") -> pa.Table:
    """The table of `encode`. Raises `StorageError`, with `name`, for bytes that are not a whole Parquet file."""
    with reading(name):
        # A process that ends while Arrow's threads still wind down is aborted; small tables need none.
        return pq.read_table(
            io.BytesIO(data), columns=list(columns) if columns else None, use_threads=len(data) >= THREADED_BYTES
        )


def read_table(storage: Storage, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of `encode` at `path`. Raises `FileNotFoundError`, and `StorageError` for a damaged file."""
    return decode(storage.read(path), columns, f"{path} in {storage.uri}")


def check_keys(rows: pa.Table, view: View, name: str) -> None:
    """Raises `StorageError` for rows of a view without a key, as in a Parquet file that is not Earmark's."""
    if view.entity in rows.column_names and rows[view.entity].null_count:
        raise StorageError(
            f"{name} has rows without {view.entity}: a file in {view.folder} is not Earmark's; move it away"
        )


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Raises `StorageError` for Parquet that is damaged or cannot be read. `name` says which, where Arrow does not."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"{name} cannot be read: {error}. Restore the file from a backup, or move it away and run earmark on the "
            "catalogue: what it held is computed again"
        ) from error


def rows_to_table(view: View, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as dicts → a table of the view's schema; a feature that a row lacks is null."""
    names = view.schema.names
    return pa.Table.from_pydict({name: [row.get(name) for row in rows] for name in names}, schema=view.schema)
