"""Whether anything is to be materialised, asked of SQLite's ledger alone: opening Feast takes seconds, and most reruns
change nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from feature_repo.store import FOLDER, PROJECT, profile_name

PARTS = "earmark_parts"


def identity(path: str, size_bytes: int, mtime_ns: int) -> str:
    """What the ledger calls a part: a file that is replaced in place is another part."""
    return f"{path}|{size_bytes}|{mtime_ns}"


def up_to_date(root: Path, parts: Iterable[str]) -> bool:
    """Whether the embedded online store has seen all `parts` (paths relative to the store, `offline/<view>/…`). False
    where that cannot be told without Feast."""
    database = root / FOLDER / "online.db"
    if profile_name() != "embedded" or not database.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            seen = set(connection.execute(f"SELECT view, part FROM {PARTS}"))
    except sqlite3.Error:
        return False
    for path in parts:
        full = os.path.abspath(root / path)
        try:
            found = os.stat(full)
        except FileNotFoundError:  # a compaction retires parts
            return False
        if (f"{PROJECT}_{path.split('/')[1]}", identity(full, found.st_size, found.st_mtime_ns)) not in seen:
            return False
    return True
