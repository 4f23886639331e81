"""Rows read from Feast's SQLite layout: a few as SQLite hands them out, many without a Python object a number."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.entity_keys import Keys
from feature_repo.plugins.online.rows import Found, in_force
from feature_repo.plugins.online.sqlite_tables import quoted, table_name, unstamp
from feature_repo.plugins.online.values import Block
from feature_repo.plugins.online.views import ViewPlan

KEYS_A_QUERY = 500  # SQLite takes 32,766 parameters; more than this many gain nothing
PLACED_ONE_BY_ONE = 8  # keys at most
LEAST_STAMP = -(2**62)


def read_views(connection: sqlite3.Connection, plans: Sequence[ViewPlan], keys: Sequence[Keys]) -> list[Found]:
    """The rows of each view's keys that are in force. Every reader of this layout goes through here, with Feast and
    without it."""
    return [in_force(read(connection, plan, some)) for plan, some in zip(plans, keys, strict=True)]


def read(connection: sqlite3.Connection, plan: ViewPlan, keys: Keys) -> Found:
    """The rows of a view's keys."""
    if len(keys) <= PLACED_ONE_BY_ONE:
        return _read_few(connection, plan, keys.values)
    return _Reading(plan, keys.values).run(connection)


def _read_few(connection: sqlite3.Connection, plan: ViewPlan, keys: list[bytes]) -> Found:
    rows = len(keys)
    column_of, sql, names = _few_query(plan, rows)
    starts, lengths = [0] * (len(column_of) * rows), [-1] * (len(column_of) * rows)
    stamps, found = [LEAST_STAMP] * rows, [False] * rows
    pieces, at = [], 0
    for key, feature, value, stamp in connection.execute(sql, keys + names).fetchall():
        row = keys.index(key)
        if stamp > stamps[row]:  # a push of some features leaves the others' times
            stamps[row] = stamp
        if feature in column_of:
            place = column_of[feature] * rows + row
            starts[place], lengths[place], found[row] = at, len(value), True
            pieces.append(value)
            at += len(value)
    for row, key in enumerate(keys):
        if (first := keys.index(key)) < row:  # a key that was asked for twice
            for column in (starts, lengths):
                column[row::rows] = column[first::rows]
            stamps[row], found[row] = stamps[first], found[first]
    block = Block(
        np.frombuffer(b"".join(pieces), np.uint8),
        np.array(starts, np.int64).reshape(len(column_of), rows),
        np.array(lengths, np.int32).reshape(len(column_of), rows),
    )
    event_us = [1_000_000 * unstamp(stamp) if there else 0 for stamp, there in zip(stamps, found, strict=True)]
    return Found(block, np.array(event_us, np.int64), np.array(found, bool))


def _few_query(plan: ViewPlan, rows: int) -> tuple[dict[str, int], str, list[Any]]:
    """(column of each feature, the query for so many keys, its parameters behind the keys)."""
    known: dict[int, Any] = plan.prepared.setdefault("sqlite few", {})
    if rows not in known:
        where, names = _where(plan, rows, plan.features)
        sql = f"SELECT entity_key, feature_name, value, event_ts FROM {quoted(table_name(plan))} {where}"
        known[rows] = {name: c for c, name in enumerate(plan.features)}, sql, names
    found: tuple[dict[str, int], str, list[Any]] = known[rows]
    return found


def _where(plan: ViewPlan, keys: int, names: Sequence[str]) -> tuple[str, list[Any]]:
    """WHERE with room for so many keys, and the parameters behind them. Naming the features pays only where the row
    holds many more."""
    where = f"WHERE entity_key IN ({','.join('?' * keys)})"
    if 2 * len(names) > plan.stored:
        return where, []
    return f"{where} AND feature_name IN ({','.join('?' * len(names))})", list(names)


class _Reading:
    """All values of some keys of a view. Numbers come as one text a row, so that no Python object a value is made;
    what can be long comes as SQLite's bytes."""

    def __init__(self, plan: ViewPlan, keys: list[bytes]) -> None:
        self._plan, self._keys = plan, keys
        self._place = {key: row for row, key in reversed(list(enumerate(self._keys)))}
        shape = (len(plan.features), len(self._keys))
        self._starts, self._lengths = np.zeros(shape, np.int64), np.full(shape, -1, np.int32)
        self._event, self._found = np.full(shape[1], np.iinfo(np.int64).min), np.zeros(shape[1], bool)
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
            starts, lengths = np.ascontiguousarray(starts[:, first]), np.ascontiguousarray(lengths[:, first])
            event, found = event[first], found[first]
        data = np.concatenate(self._data) if self._data else np.empty(0, np.uint8)
        return Found(Block(data, starts, lengths), np.where(found, event, 0), found)

    def _numbers(self, connection: sqlite3.Connection, keys: Sequence[Any], columns: Sequence[int]) -> None:
        listed, column_at = self._listed(columns)
        where, names = _where(self._plan, len(keys), [self._plan.features[c] for c in columns])
        answer = connection.execute(
            "SELECT entity_key, max(event_ts), CAST(group_concat(instr(?, char(31) || feature_name || char(31)) || ':' "
            f"|| hex(value)) AS BLOB) FROM {quoted(table_name(self._plan))} {where} GROUP BY entity_key",
            [listed, *keys, *names],
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
        self._event[rows] = [unstamp(stamp) * 1_000_000 for _, stamp, _ in answer]
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
        where, names = _where(self._plan, len(keys), [self._plan.features[c] for c in columns])
        held: list[bytes] = []
        at = self._size
        for key, feature, value, stamp in connection.execute(
            f"SELECT entity_key, feature_name, value, event_ts FROM {quoted(table_name(self._plan))} {where}",
            [*keys, *names],
        ).fetchall():
            row = self._place[key]
            self._event[row] = max(self._event[row], unstamp(stamp) * 1_000_000)
            column = column_of.get(feature)
            if column is None:
                continue
            self._starts[column, row], self._lengths[column, row] = at, len(value)
            held.append(value)
            at += len(value)
            self._found[row] = True
        self._add(np.frombuffer(b"".join(held), np.uint8))

    def _add(self, data: np.ndarray) -> None:
        self._data.append(data)
        self._size += data.size
