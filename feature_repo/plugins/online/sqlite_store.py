"""Feast's SQLite layout, written and read in bulk.

Rows stand in Feast's own tables, so that its clients read them and write beside us. Two tables more: event and created
time of each row in microseconds (Feast keeps whole seconds), and the part files that were materialised.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig

from core.errors import StorageError
from feature_repo.ledger import PARTS
from feature_repo.plugins.online.entity_keys import Keys
from feature_repo.plugins.online.response import FastReads
from feature_repo.plugins.online.rows import Found, Rows, rows_of_protos
from feature_repo.plugins.online.sqlite_reads import read
from feature_repo.plugins.online.sqlite_tables import (
    own_tables,
    quoted,
    stamp_of,
    stamps,
    table_name,
    unstamp,
    versions_name,
)
from feature_repo.plugins.online.values import Block, Kind, decode
from feature_repo.plugins.online.views import UNKNOWN_CREATED, ViewPlan, plan_view

CACHE_KIB = 128 * 1024  # pages held while writing; a B-tree that does not fit is read back at every insert


class EarmarkSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Feast's own options, and how long to wait for a locked file."""

    type: Literal["feature_repo.plugins.online.sqlite_store.EarmarkSqliteOnlineStore"] = (  # type: ignore[assignment]
        "feature_repo.plugins.online.sqlite_store.EarmarkSqliteOnlineStore"
    )
    lock_timeout_seconds: float = 30.0
    """How long another process's lock is waited for, in seconds."""


class EarmarkSqliteOnlineStore(FastReads, SqliteOnlineStore):
    """SQLite, with batched reads and writes, and a connection a thread."""

    def __init__(self) -> None:
        self._own = threading.local()

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        held: dict[Any, sqlite3.Connection] = self._own.__dict__.setdefault("connections", {})
        key = (config.repo_path, config.online_store.path, os.getpid())  # a connection must not cross a fork
        if key not in held:
            path = self._get_db_path(config)
            with sqlite_errors(path):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                connection = sqlite3.connect(path, timeout=config.online_store.lock_timeout_seconds)
                connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
                connection.execute("PRAGMA synchronous = NORMAL")
                held[key] = connection
        return held[key]

    def update(self, config: RepoConfig, *arguments: Any, **named: Any) -> None:
        with sqlite_errors(self._get_db_path(config)):
            super().update(config, *arguments, **named)
            connection = self._get_conn(config)
            deleted = named.get("tables_to_delete", arguments[0] if arguments else ())
            for table in deleted:
                self._drop(connection, table_name(plan_view(config, table)))
            connection.commit()

    def _drop(self, connection: sqlite3.Connection, name: str) -> None:
        connection.execute(f"DROP TABLE IF EXISTS {quoted(versions_name(name))}")
        own_tables(connection, None)
        connection.execute(f"DELETE FROM {PARTS} WHERE view = ?", (name,))

    def teardown(self, config: RepoConfig, tables: Any, entities: Any) -> None:
        for connection in self._own.__dict__.pop("connections", {}).values():
            connection.close()
        path = self._get_db_path(config)
        super().teardown(config, tables, entities)
        for suffix in ("-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Any],
        progress: Callable[[int], Any] | None,
    ) -> None:
        plan = plan_view(config, table)
        self.write_rows(config, plan, rows_of_protos(plan, data))
        if progress:
            progress(len(data))

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

    def read_rows(self, config: RepoConfig, plans: Sequence[ViewPlan], keys: Sequence[Keys]) -> list[Found]:
        """The rows of each view's keys. Raises `StorageError`."""
        connection = self._get_conn(config)
        try:
            return [read(connection, plan, some) for plan, some in zip(plans, keys, strict=True)]
        except (sqlite3.Error, OSError) as error:
            raise explained(self._get_db_path(config), error) from error

    def forget(self, config: RepoConfig, plan: ViewPlan, keys: Block) -> None:
        """Takes the rows of these keys away. Raises `StorageError`."""
        connection, name = self._get_conn(config), table_name(plan)
        gone = [(key,) for key in keys.values(0)]
        with sqlite_errors(self._get_db_path(config)), connection:
            own_tables(connection, name)
            for table in (name, versions_name(name)):
                connection.executemany(f"DELETE FROM {quoted(table)} WHERE entity_key = ?", gone)

    def ledger(self, config: RepoConfig, plan: ViewPlan) -> set[str]:
        """The part files whose rows are online; kept beside the rows, so that who loses the rows loses it too."""
        connection = self._get_conn(config)
        with sqlite_errors(self._get_db_path(config)), connection:
            own_tables(connection, None)
            found = connection.execute(f"SELECT part FROM {PARTS} WHERE view = ?", (table_name(plan),))
            return {row[0] for row in found}

    def note(self, config: RepoConfig, plan: ViewPlan, parts: Sequence[str], gone: Sequence[str] = ()) -> None:
        """Adds part files to the ledger, and takes those away that no longer exist."""
        connection, name = self._get_conn(config), table_name(plan)
        with sqlite_errors(self._get_db_path(config)), connection:
            own_tables(connection, None)
            connection.executemany(f"INSERT OR IGNORE INTO {PARTS} VALUES (?, ?)", [(name, part) for part in parts])
            connection.executemany(f"DELETE FROM {PARTS} WHERE view = ? AND part = ?", [(name, p) for p in gone])


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
        f"LEFT JOIN (SELECT event_ts FROM {main} WHERE entity_key = ? LIMIT 1) m"
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
    if kind.way.endswith("lists") or kind.field in (1, 8):  # bytes and timestamps have none
        return [None] * live.size
    chosen = Block(column.data, column.starts[:, live], column.lengths[:, live])
    return [None if value is None else str(value) for value in decode(chosen, kind).to_pylist()]
