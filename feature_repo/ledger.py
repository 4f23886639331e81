"""The ledger of materialised parts. Whether there is anything to materialise is read from SQLite's ledger alone:
opening Feast takes seconds, and most reruns change nothing."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from feature_repo.store import FOLDER, PROJECT, profile_name

LEDGER = "earmark_ledger"
PENDING = "earmark_pending"


def identity(path: str, size_bytes: int, mtime_ns: int) -> str:
    """What the ledger calls a part: a file that is replaced in place is another part."""
    return f"{path}|{size_bytes}|{mtime_ns}"


def rows_trigger(table: str) -> str:
    """The trigger that SQLite drops together with the table of a view's rows. Without it, the ledger of the view
    describes a table that was dropped."""
    return f"{table}__earmark_rows"


def up_to_date(root: Path, parts: Iterable[str]) -> bool:
    """Whether the embedded online store has seen all `parts` (paths relative to the store, `offline/<view>/…`), and
    holds back no row whose time has come. False where that cannot be determined without Feast."""
    database = root / FOLDER / "online.db"
    if profile_name() != "embedded" or not database.is_file():
        return False
    now_us = time.time_ns() // 1000
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            query = f"SELECT view, part FROM {LEDGER} WHERE due_us IS NULL OR due_us > ?"
            seen = set(connection.execute(query, (now_us,)))
            triggers = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
            due = {v for (v,) in connection.execute(f"SELECT view FROM {PENDING} WHERE event_us <= ?", (now_us,))}
    except sqlite3.Error:
        return False
    for path in parts:
        full = os.path.abspath(root / path)
        try:
            found = os.stat(full)
        except FileNotFoundError:  # a compaction retires parts
            return False
        view = f"{PROJECT}_{path.split('/')[1]}"
        if rows_trigger(view) not in triggers or view in due:
            return False
        if (view, identity(full, found.st_size, found.st_mtime_ns)) not in seen:
            return False
    return True
