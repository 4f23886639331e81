"""Feast's SQLite layout, written and read in bulk.

Rows stand in Feast's own tables, so that its clients read them and write beside us. Tables more: event and created
time of each row in microseconds (Feast keeps whole seconds), the part files that were materialised and under which
definition of the view, and rows that were pushed before their time.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from feast import RepoConfig
from feast.infra.online_stores.helpers import compute_table_id, extract_text_and_num
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig

from core.errors import StorageError
from feature_repo.ledger import LEDGER, PENDING
from feature_repo.plugins.online.definition import Definition, Ledger, define
from feature_repo.plugins.online.entity_keys import Keys
from feature_repo.plugins.online.messages import parse
from feature_repo.plugins.online.pending import PendingRow
from feature_repo.plugins.online.pushes import ReadsAndPushes
from feature_repo.plugins.online.rows import Found, Rows
from feature_repo.plugins.online.sqlite_reads import read_views
from feature_repo.plugins.online.sqlite_tables import (
    DEFINITIONS,
    has_rows_trigger,
    own_tables,
    quoted,
    stamp_of,
    stamps,
    table_name,
    unstamp,
    versions_name,
)
from feature_repo.plugins.online.values import Block, Kind, decode
from feature_repo.plugins.online.views import UNKNOWN_CREATED, ViewPlan

CACHE_KIB = 128 * 1024  # pages held while writing; a B-tree that does not fit is read back at every insert


class EarmarkSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Feast's own options, and how long to wait for a locked file."""

    type: Literal["feature_repo.plugins.online.sqlite_store.EarmarkSqliteOnlineStore"] = (  # type: ignore[assignment]
        "feature_repo.plugins.online.sqlite_store.EarmarkSqliteOnlineStore"
    )
    lock_timeout_seconds: float = 30.0
    """How long another process's lock is waited for, in seconds."""


class EarmarkSqliteOnlineStore(ReadsAndPushes, SqliteOnlineStore):
    """SQLite, with batched reads and writes, and a connection a thread."""

    def __init__(self) -> None:
        self._own = threading.local()

    def _get_conn(self, config: RepoConfig, reads: bool = False) -> sqlite3.Connection:
        """This thread's connection. Where the file was replaced it is a new one, and where it was deleted too, but to
        who only `reads`: to write to a file without a name would lose the rows."""
        open_: dict[Any, _Open] = self._own.__dict__.setdefault("connections", {})
        key = (config.repo_path, config.online_store.path, os.getpid())  # a connection must not cross a fork
        path = self._get_db_path(config)
        known = open_.get(key)
        if known is not None and known.file != (file := _file(path)) and not (reads and file is None):
            known.connection.close()
            known = None
        if known is None:
            with sqlite_errors(path):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                connection = sqlite3.connect(path, timeout=config.online_store.lock_timeout_seconds)
                connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
                connection.execute("PRAGMA synchronous = NORMAL")
                known = open_[key] = _Open(connection, _file(path))
        return known.connection

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        *rest: Any,
        **named: Any,
    ) -> None:
        with sqlite_errors(self._get_db_path(config)):
            connection = self._get_conn(config)
            super().update(config, tables_to_delete, tables_to_keep, *rest, **named)
            own_tables(connection, None)
            for table in tables_to_delete:
                self._drop(connection, _table(config, table))
            for table in tables_to_keep:
                if getattr(table, "batch_source", None) is not None:
                    self._forget_other_definitions(connection, _table(config, table), define(config, table))
            connection.commit()

    def _drop(self, connection: sqlite3.Connection, name: str) -> None:
        connection.execute(f"DROP TABLE IF EXISTS {quoted(versions_name(name))}")
        for table in (LEDGER, DEFINITIONS, PENDING):
            connection.execute(f"DELETE FROM {table} WHERE view = ?", (name,))

    def _forget_other_definitions(self, connection: sqlite3.Connection, name: str, definition: Definition) -> None:
        """Parts that were read under another definition; whoever reads the ledger without Feast must not count them."""
        query = f"DELETE FROM {LEDGER} WHERE view = ? AND definition != ?"
        connection.execute(query, (name, definition.digest))

    def teardown(self, config: RepoConfig, tables: Any, entities: Any) -> None:
        for known in self._own.__dict__.pop("connections", {}).values():
            known.connection.close()
        path = self._get_db_path(config)
        super().teardown(config, tables, entities)
        for suffix in ("-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)

    def check(self, config: RepoConfig) -> None:
        """Raises `StorageError` where the file cannot be opened."""
        with sqlite_errors(self._get_db_path(config)):
            self._get_conn(config).execute("SELECT 1")

    def write_rows(
        self, config: RepoConfig, plan: ViewPlan, rows: Rows, *, pushed: bool = False, again: bool = False
    ) -> int:
        """Writes the rows that are newer than what is online, or equal to it `again`, in one transaction; returns how
        many. Raises `StorageError`, then nothing of these rows is written."""
        connection = self._get_conn(config)
        name = table_name(plan)
        with sqlite_errors(self._get_db_path(config)):
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                own_tables(connection, name)
                keys = rows.keys.values(0)
                newer = rows.newer(*_versions(connection, name, keys), 0, len(rows), again=again)
                live = np.flatnonzero(newer & ~rows.removed)
                # In the order of the keys the B-trees grow at one end instead of all over.
                live = live[np.argsort(np.array([keys[i] for i in live], object), kind="stable")]
                gone = [keys[i] for i in np.flatnonzero(newer & rows.removed)]
                _upsert(connection, name, plan, rows, keys, live)
                connection.executemany(f"DELETE FROM {quoted(name)} WHERE entity_key = ?", [(k,) for k in gone])
                chosen = [*live.tolist(), *np.flatnonzero(newer & rows.removed).tolist()]
                created = rows.created_us.tolist()
                event = rows.event_us.tolist()
                connection.executemany(
                    f"INSERT OR REPLACE INTO {quoted(versions_name(name))} VALUES (?, ?, ?)",
                    ((keys[i], event[i], created[i]) for i in chosen),
                )
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
        return len(chosen)

    def stored_rows(self, config: RepoConfig, plans: Sequence[ViewPlan], keys: Sequence[Keys]) -> list[Found]:
        """The rows of each view's keys. Raises `StorageError`."""
        connection = self._get_conn(config, reads=True)
        try:
            return read_views(connection, plans, keys)
        except (sqlite3.Error, OSError) as error:
            raise explained(self._get_db_path(config), error) from error

    def forget(self, config: RepoConfig, plan: ViewPlan, keys: Block) -> None:
        """Takes the rows of these keys away, pending ones included. Raises `StorageError`."""
        connection, name = self._get_conn(config), table_name(plan)
        gone = [(key,) for key in keys.values(0)]
        with sqlite_errors(self._get_db_path(config)), connection:
            own_tables(connection, name)
            for table in (name, versions_name(name)):
                connection.executemany(f"DELETE FROM {quoted(table)} WHERE entity_key = ?", gone)
            pending = f"DELETE FROM {PENDING} WHERE view = ? AND entity_key = ?"
            connection.executemany(pending, [(name, key) for (key,) in gone])

    def ledger(self, config: RepoConfig, plan: ViewPlan) -> Ledger:
        """The part files whose rows are online; kept beside the rows, so that who loses the rows loses it too."""
        connection, name = self._get_conn(config), table_name(plan)
        with sqlite_errors(self._get_db_path(config)), connection:
            own_tables(connection, None)
            query = f"SELECT definition, is_whole FROM {DEFINITIONS} WHERE view = ?"
            text, is_whole = connection.execute(query, (name,)).fetchone() or (None, True)
            parts = {}
            if has_rows_trigger(connection, name):
                query = f"SELECT part, definition, due_us FROM {LEDGER} WHERE view = ?"
                parts = {part: (digest, due_us) for part, digest, due_us in connection.execute(query, (name,))}
            return Ledger(Definition.parse(text), bool(is_whole), parts)

    def begin(self, config: RepoConfig, plan: ViewPlan, definition: Definition, is_whole: bool) -> None:
        """Stores `definition` as the view's, and whether all rows are online as it reads them. Removes the rows of a
        definition with other rows, because their keys and times cannot be compared with the new ones."""
        earlier = self.ledger(config, plan).definition
        connection, name = self._get_conn(config), table_name(plan)
        with sqlite_errors(self._get_db_path(config)), connection:
            own_tables(connection, name)
            if earlier and earlier.has_other_rows_than(definition):
                for table in (name, versions_name(name)):
                    connection.execute(f"DELETE FROM {quoted(table)}")
                for table in (LEDGER, PENDING):
                    connection.execute(f"DELETE FROM {table} WHERE view = ?", (name,))
            connection.execute(
                f"INSERT OR REPLACE INTO {DEFINITIONS} VALUES (?, ?, ?)", (name, definition.text, is_whole)
            )

    def note(
        self,
        config: RepoConfig,
        plan: ViewPlan,
        definition: Definition,
        parts: Mapping[str, int | None],
        gone: Sequence[str] = (),
    ) -> None:
        """Adds part files, read under `definition`, to the ledger with the time at which rows that were held back are
        due, and takes those away that no longer exist."""
        connection, name = self._get_conn(config), table_name(plan)
        rows = [(name, part, definition.digest, due_us) for part, due_us in parts.items()]
        with sqlite_errors(self._get_db_path(config)), connection:
            own_tables(connection, name)
            connection.executemany(f"INSERT OR REPLACE INTO {LEDGER} VALUES (?, ?, ?, ?)", rows)
            connection.executemany(f"DELETE FROM {LEDGER} WHERE view = ? AND part = ?", [(name, p) for p in gone])

    def hold(self, config: RepoConfig, plan: ViewPlan, rows: Sequence[PendingRow]) -> None:
        connection, name = self._get_conn(config), table_name(plan)
        with sqlite_errors(self._get_db_path(config)), connection:
            own_tables(connection, name)
            connection.executemany(
                f"INSERT OR REPLACE INTO {PENDING} VALUES (?, ?, ?, ?)",
                [(name, row.key, row.event_us, row.pack()) for row in rows],
            )

    def held(self, config: RepoConfig, plan: ViewPlan) -> list[PendingRow]:
        connection, name = self._get_conn(config, reads=True), table_name(plan)
        with sqlite_errors(self._get_db_path(config)):
            try:
                found = connection.execute(f"SELECT row FROM {PENDING} WHERE view = ?", (name,)).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # nothing of ours was written yet
                    return []
                raise
        return [PendingRow.unpack(data) for (data,) in found]

    def release(self, config: RepoConfig, plan: ViewPlan, rows: Sequence[PendingRow]) -> None:
        connection, name = self._get_conn(config), table_name(plan)
        query = f"DELETE FROM {PENDING} WHERE view = ? AND entity_key = ? AND event_us = ?"
        with sqlite_errors(self._get_db_path(config)), connection:
            connection.executemany(query, [(name, row.key, row.event_us) for row in rows])


class _Open(NamedTuple):
    """A connection, and the file that it was opened on."""

    connection: sqlite3.Connection
    file: tuple[int, int] | None


def _file(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _table(config: RepoConfig, view: Any) -> str:
    return compute_table_id(config.project, view, config.registry.enable_online_feature_view_versioning)


@contextmanager
def sqlite_errors(path: str) -> Iterator[None]:
    """SQLite's errors in words."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explained(path, error) from error


def explained(path: str, error: Exception) -> StorageError:
    text = str(error)
    if "locked" in text:
        advice = "another process holds it; wait for it or raise lock_timeout_seconds"
    elif "full" in text:
        advice = "the disk is full; nothing of this batch was written. Make room and run again"
    elif "no such table" in text:
        advice = "run feast apply, or earmark run, first"
    else:
        advice = "what was written before stays"
    return StorageError(f"the online store {path}: {text}; {advice}")


def _versions(
    connection: sqlite3.Connection, name: str, keys: Sequence[bytes | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(event_us, created_us, found) of what is online under the keys, by us or by Feast: Feast's whole seconds count
    where they are not the seconds of ours."""
    event, created = np.zeros(len(keys), np.int64), np.full(len(keys), UNKNOWN_CREATED)
    found = np.zeros(len(keys), bool)
    main, own = quoted(name), quoted(versions_name(name))
    if connection.execute(f"SELECT NOT EXISTS (SELECT 1 FROM {main}) AND NOT EXISTS (SELECT 1 FROM {own})").fetchone()[
        0
    ]:
        return event, created, found
    ask = (
        f"SELECT v.event_us, v.created_us, m.event_ts FROM (SELECT ? AS k) LEFT JOIN {own} v ON v.entity_key = k "
        f"LEFT JOIN (SELECT max(event_ts) AS event_ts FROM {main} WHERE entity_key = ?) m"
    )
    for row, key in enumerate(keys):
        event_us, created_us, stamp = connection.execute(ask, (key, key)).fetchone()
        if stamp is not None and (event_us is None or stamp_of(event_us) != stamp):
            event[row], found[row] = unstamp(stamp) * 1_000_000, True
        elif event_us is not None:
            event[row], created[row], found[row] = event_us, created_us, True
    return event, created, found


def _upsert(
    connection: sqlite3.Connection,
    name: str,
    plan: ViewPlan,
    rows: Rows,
    keys: Sequence[bytes | None],
    live: np.ndarray,
) -> None:
    if not live.size:
        return
    width = len(plan.features)
    columns = "value = excluded.value, value_text = excluded.value_text, event_ts = excluded.event_ts, "
    statement = (
        f"INSERT INTO {quoted(name)} (entity_key, feature_name, value, value_text, event_ts, created_ts) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (entity_key, feature_name) DO UPDATE SET "
        f"{columns} created_ts = excluded.created_ts"
    )
    data = rows.values.data.tobytes()
    starts = rows.values.starts[:, live].T.ravel()
    sizes = rows.values.lengths[:, live].T.ravel()
    values = [
        data[at : at + size] if size >= 0 else None for at, size in zip(starts.tolist(), sizes.tolist(), strict=True)
    ]
    texts = [_texts(rows.values.column(c), kind, live) for c, kind in enumerate(plan.kinds)]
    event, created = stamps(rows.event_us[live]), stamps(rows.created_us[live])
    every = zip(
        _each([keys[i] for i in live.tolist()], width),
        chain.from_iterable(repeat(plan.features, live.size)),
        values,
        chain.from_iterable(zip(*texts, strict=True)),
        _each(event, width),
        _each(created, width),
        strict=True,
    )
    # A pushed row may lack features: they stay as they are.
    connection.executemany(statement, every if (sizes >= 0).all() else (row for row in every if row[2] is not None))


def _each(values: Sequence[Any], times: int) -> Iterator[Any]:
    """Every value so many times."""
    return chain.from_iterable(map(repeat, values, repeat(times)))


def _texts(column: Block, kind: Kind, live: np.ndarray) -> list[str | None]:
    """Feast's text form of scalars (its document search reads it); None of everything else."""
    if kind.way == "messages" or kind.way.endswith("lists") or kind.field in (1, 8):  # bytes and timestamps have none
        return [None] * live.size
    chosen = Block(column.data, column.starts[:, live], column.lengths[:, live])
    try:
        return [None if value is None else str(value) for value in decode(chosen, kind).to_pylist()]
    except StorageError:  # a client may push a value of another type than is declared, as with Feast's own store
        return [extract_text_and_num(parse(data), False)[0] for data in chosen.values(0)]
