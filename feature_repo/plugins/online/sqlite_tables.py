"""Names, tables and times of Feast's SQLite layout, and of ours beside it."""

from __future__ import annotations

import sqlite3
import time

import numpy as np

from feature_repo.ledger import LEDGER, PENDING, rows_trigger
from feature_repo.plugins.online.views import UNKNOWN_CREATED, ViewPlan

DEFINITIONS = "earmark_definitions"


def table_name(plan: ViewPlan) -> str:
    return f"{plan.project}_{plan.name}"


def versions_name(name: str) -> str:
    return f"{name}__earmark_versions"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def own_tables(connection: sqlite3.Connection, name: str | None) -> None:
    """Makes the tables that are ours, and those of the view whose rows are in the table `name`."""
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {LEDGER} (view TEXT, part TEXT, definition TEXT, due_us INTEGER, "
        "PRIMARY KEY (view, part)) WITHOUT ROWID"
    )
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {DEFINITIONS} "
        "(view TEXT PRIMARY KEY, definition TEXT, is_whole INTEGER) WITHOUT ROWID"
    )
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {PENDING} (view TEXT, entity_key BLOB, event_us INTEGER, row BLOB, "
        "PRIMARY KEY (view, entity_key, event_us)) WITHOUT ROWID"
    )
    if name is None:
        return
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
    if has_rows_trigger(connection, name):
        return
    # A new table of rows: what was noted of an earlier one is no longer true.
    connection.execute(f"DELETE FROM {LEDGER} WHERE view = ?", (name,))
    versions = quoted(versions_name(name))
    connection.execute(f"DELETE FROM {versions} WHERE entity_key NOT IN (SELECT entity_key FROM {quoted(name)})")
    connection.execute(
        f"CREATE TRIGGER {quoted(rows_trigger(name))} AFTER DELETE ON {quoted(name)} "
        f"BEGIN DELETE FROM {versions} WHERE entity_key = OLD.entity_key; END"
    )


def has_rows_trigger(connection: sqlite3.Connection, name: str) -> bool:
    """Whether the trigger on the table of rows `name` exists, without which the ledger is not valid."""
    query = "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = ? AND tbl_name = ?"
    return connection.execute(query, (rows_trigger(name), name)).fetchone() is not None


def stamp_of(micros: int) -> int | None:
    """Feast's number for a time: the epoch of its naive UTC taken as local time, in whole seconds."""
    if micros == UNKNOWN_CREATED:
        return None
    seconds = micros // 1_000_000
    return seconds if _UTC else int(time.mktime(time.gmtime(seconds)[:8] + (-1,)))


def stamps(micros: np.ndarray) -> list[int | None]:
    return [stamp_of(us) for us in micros.tolist()]


def unstamp(stamp: int) -> int:
    """Seconds since 1970, UTC, of Feast's number."""
    if _UTC:
        return stamp
    import calendar

    return calendar.timegm(time.localtime(stamp))


_UTC = time.timezone == 0 and not time.daylight
