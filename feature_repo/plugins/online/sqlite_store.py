"""Feast's SQLite layout, written and read in bulk.

Rows stand in Feast's own tables, so that its clients read them and write beside us. Two tables more: event and created
time of each row in microseconds (Feast keeps whole seconds), and the part files that were materialised.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
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
from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.response import FastReads
from feature_repo.plugins.online.rows import Found, Rows, rows_of_protos
from feature_repo.plugins.online.values import Block, Kind, decode
from feature_repo.plugins.online.views import UNKNOWN_CREATED, ViewPlan, plan_view

KEYS_A_QUERY = 500  # SQLite takes 32,766 parameters; more than this many gain nothing
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
        path = self._get_db_path(config)
        held: dict[tuple[str, int], sqlite3.Connection] = self._own.__dict__.setdefault("connections", {})
        key = (path, os.getpid())  # a connection must not cross a fork
        if key not in held:
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
        _own_tables(connection, None)
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
                _own_tables(connection, name)
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

    def read_rows(self, config: RepoConfig, plans: Sequence[ViewPlan], keys: Sequence[Block]) -> list[Found]:
        """The rows of each view's keys (one column of a block each). Raises `StorageError`."""
        connection = self._get_conn(config)
        with sqlite_errors(self._get_db_path(config)):
            return [_Reading(plan, block).run(connection) for plan, block in zip(plans, keys, strict=True)]

    def forget(self, config: RepoConfig, plan: ViewPlan, keys: Block) -> None:
        """Takes the rows of these keys away. Raises `StorageError`."""
        connection, name = self._get_conn(config), table_name(plan)
        gone = [(key,) for key in keys.values(0)]
        with sqlite_errors(self._get_db_path(config)), connection:
            _own_tables(connection, name)
            for table in (name, versions_name(name)):
                connection.executemany(f"DELETE FROM {quoted(table)} WHERE entity_key = ?", gone)

    def ledger(self, config: RepoConfig, plan: ViewPlan) -> set[str]:
        """The part files whose rows are online; kept beside the rows, so that who loses the rows loses it too."""
        connection = self._get_conn(config)
        with sqlite_errors(self._get_db_path(config)), connection:
            _own_tables(connection, None)
            found = connection.execute(f"SELECT part FROM {PARTS} WHERE view = ?", (table_name(plan),))
            return {row[0] for row in found}

    def note(self, config: RepoConfig, plan: ViewPlan, parts: Sequence[str], gone: Sequence[str] = ()) -> None:
        """Adds part files to the ledger, and takes those away that no longer exist."""
        connection, name = self._get_conn(config), table_name(plan)
        with sqlite_errors(self._get_db_path(config)), connection:
            _own_tables(connection, None)
            connection.executemany(f"INSERT OR IGNORE INTO {PARTS} VALUES (?, ?)", [(name, part) for part in parts])
            connection.executemany(f"DELETE FROM {PARTS} WHERE view = ? AND part = ?", [(name, p) for p in gone])


@contextmanager
def sqlite_errors(path: str) -> Iterator[None]:
    """SQLite's errors in words."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        text = str(error)
        if "locked" in text:
            advice = "another process holds it; wait for it or raise lock_timeout_seconds"
        elif "full" in text:
            advice = "the disk is full; nothing of this batch was written. Make room and run again"
        elif "no such table" in text:
            advice = "run feast apply, or earmark run, first"
        else:
            advice = "what was written before stays"
        raise StorageError(f"the online store {path}: {text}; {advice}") from error


def table_name(plan: ViewPlan) -> str:
    return f"{plan.project}_{plan.name}"


def versions_name(name: str) -> str:
    return f"{name}__earmark_versions"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _own_tables(connection: sqlite3.Connection, name: str | None) -> None:
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {PARTS} (view TEXT, part TEXT, PRIMARY KEY (view, part)) WITHOUT ROWID"
    )
    if name is not None:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {quoted(versions_name(name))} "
            "(entity_key BLOB PRIMARY KEY, event_us INTEGER, created_us INTEGER) WITHOUT ROWID"
        )
        # Feast's own table, as `feast apply` makes it: who lost the file gets it back with its rows.
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {quoted(name)} (entity_key BLOB, feature_name TEXT, value BLOB, "
            "value_text TEXT, vector_value BLOB, event_ts timestamp, created_ts timestamp, "
            "PRIMARY KEY (entity_key, feature_name))"
        )
        connection.execute(f"CREATE INDEX IF NOT EXISTS {quoted(name + '_ek')} ON {quoted(name)} (entity_key)")


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
        if stamp is not None and (event_us is None or _stamp(event_us) != stamp):
            event[row], found[row] = _unstamp(stamp) * 1_000_000, True
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
    event, created = _stamps(rows.event_us[live]), _stamps(rows.created_us[live])
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


class _Reading:
    """All values of some keys of a view. Numbers come as one text a row, so that no Python object a value is made;
    what can be long comes as SQLite's bytes."""

    def __init__(self, plan: ViewPlan, block: Block) -> None:
        self._plan, self._keys = plan, block.values(0)
        self._place = {key: row for row, key in reversed(list(enumerate(self._keys)))}
        shape = (len(plan.features), len(self._keys))
        self._starts, self._lengths = np.zeros(shape, np.int64), np.full(shape, -1, np.int32)
        self._event, self._found = np.zeros(shape[1], np.int64), np.zeros(shape[1], bool)
        self._data: list[np.ndarray] = []
        self._size = 0

    def run(self, connection: sqlite3.Connection) -> Found:
        unique = list(self._place)
        narrow = [c for c, kind in enumerate(self._plan.kinds) if kind.way in ("floats", "ints")]
        wide = [c for c in range(len(self._plan.kinds)) if c not in narrow]
        for begin in range(0, len(unique), KEYS_A_QUERY):
            some = unique[begin : begin + KEYS_A_QUERY]
            if narrow:
                self._numbers(connection, some, narrow)
            if wide:
                self._bytes(connection, some, wide)
        event, found, starts, lengths = self._event, self._found, self._starts, self._lengths
        if len(unique) < len(self._keys):  # keys that were asked for twice
            first = np.array([self._place[key] for key in self._keys])
            starts, lengths, event, found = starts[:, first], lengths[:, first], event[first], found[first]
        data = np.concatenate(self._data) if self._data else np.empty(0, np.uint8)
        return Found(Block(data, starts, lengths), event, found)

    def _filter(self, keys: Sequence[Any], columns: Sequence[int]) -> tuple[str, list[Any]]:
        """WHERE and its parameters. Naming the features pays only where the row holds many more."""
        where = f"WHERE entity_key IN ({','.join('?' * len(keys))})"
        if 2 * len(columns) > self._plan.stored:
            return where, list(keys)
        names = [self._plan.features[c] for c in columns]
        return f"{where} AND feature_name IN ({','.join('?' * len(names))})", [*keys, *names]

    def _numbers(self, connection: sqlite3.Connection, keys: Sequence[Any], columns: Sequence[int]) -> None:
        listed, column_at = self._listed(columns)
        where, parameters = self._filter(keys, columns)
        answer = connection.execute(
            "SELECT entity_key, max(event_ts), CAST(group_concat(instr(?, char(31) || feature_name || char(31)) || ':' "
            f"|| hex(value)) AS BLOB) FROM {quoted(table_name(self._plan))} {where} GROUP BY entity_key",
            [listed, *parameters],
        ).fetchall()
        if not answer:
            return
        rows = np.array([self._place[key] for key, _, _ in answer])
        texts = [text for _, _, text in answer]
        bounds = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
        joined = np.frombuffer(b"".join(texts), np.uint8)
        out = np.empty(joined.size // 2 + 1, np.uint8)
        end = kernels.parse_hex(joined, bounds, rows, column_at, out, 0, self._starts, self._lengths)
        place: Any = np.ix_(np.array(columns), rows)
        held = self._lengths[place] >= 0
        self._starts[place] += np.where(held, self._size, 0)
        self._event[rows] = [_unstamp(stamp) * 1_000_000 for _, stamp, _ in answer]
        self._found[rows] |= held.any(axis=0)
        self._add(out[:end])

    def _listed(self, columns: Sequence[int]) -> tuple[str, np.ndarray]:
        """The features' names in one text, by their place in which SQLite tells them, and the columns by place."""
        if "sqlite names" not in self._plan.prepared:
            names = [self._plan.features[c] for c in columns]
            listed = "\x1f" + "\x1f".join(names) + "\x1f"  # the unit separator stands in no feature's name
            column_at = np.full(len(listed) + 2, -1, np.int64)
            for c, name in zip(columns, names, strict=True):
                column_at[listed.index(f"\x1f{name}\x1f") + 1] = c
            self._plan.prepared["sqlite names"] = listed, column_at
        found: tuple[str, np.ndarray] = self._plan.prepared["sqlite names"]
        return found

    def _bytes(self, connection: sqlite3.Connection, keys: Sequence[Any], columns: Sequence[int]) -> None:
        column_of = {self._plan.features[c]: c for c in columns}
        where, parameters = self._filter(keys, columns)
        held: list[bytes] = []
        at = self._size
        for key, feature, value, stamp in connection.execute(
            f"SELECT entity_key, feature_name, value, event_ts FROM {quoted(table_name(self._plan))} {where}",
            parameters,
        ).fetchall():
            column = column_of.get(feature)
            if column is None:
                continue
            row = self._place[key]
            self._starts[column, row], self._lengths[column, row] = at, len(value)
            held.append(value)
            at += len(value)
            self._event[row], self._found[row] = _unstamp(stamp) * 1_000_000, True
        self._add(np.frombuffer(b"".join(held), np.uint8))

    def _add(self, data: np.ndarray) -> None:
        self._data.append(data)
        self._size += data.size


def _stamp(micros: int) -> int | None:
    """Feast's number for a time: the epoch of its naive UTC taken as local time, in whole seconds."""
    if micros == UNKNOWN_CREATED:
        return None
    seconds = micros // 1_000_000
    return seconds if _UTC else int(time.mktime(time.gmtime(seconds)[:8] + (-1,)))


def _stamps(micros: np.ndarray) -> list[int | None]:
    return [_stamp(us) for us in micros.tolist()]


def _unstamp(stamp: int) -> int:
    """Seconds since 1970, UTC, of Feast's number."""
    if _UTC:
        return stamp
    import calendar

    return calendar.timegm(time.localtime(stamp))


_UTC = time.timezone == 0 and not time.daylight
