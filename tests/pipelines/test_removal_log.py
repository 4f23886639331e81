"""The log of removals: its last word counts whatever the clock says, and it does not grow with the commands given."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from core.errors import NotFound
from core.storage import LocalStorage
from core.tables import now_us
from pipelines import removal


def test_the_last_word_counts_where_the_clock_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, now = LocalStorage(tmp_path), now_us()
    removal._write_log(storage, ["a", "b"], "remove", now)
    monkeypatch.setattr(removal, "now_us", lambda: now - timedelta(hours=1))
    removal.restore(storage, "a")
    assert removal.blocked(storage) == {"b"}
    removal._write_log(storage, ["a"], "remove", now - timedelta(hours=2))
    assert removal.blocked(storage) == {"a", "b"}


def test_many_parts_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, now = LocalStorage(tmp_path), now_us()
    for number in range(removal.COMPACTED_PARTS - 1):
        removal._write_log(storage, [f"c{number}", "again"], "remove" if number % 2 else "prune", now)
    assert not removal.compact_log(storage, now)
    removal._write_log(storage, ["last"], "remove", now)
    before = removal._log(storage)
    deleted: list[str] = []

    def killed(own: LocalStorage, path: str) -> None:
        deleted.append(path)
        raise KeyboardInterrupt

    blocked = removal.blocked(storage)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(LocalStorage, "delete", killed)
        removal.compact_log(storage, now - timedelta(days=1))
    assert len(deleted) == 1 and removal.blocked(storage) == blocked
    assert removal.compact_log(storage, now)
    assert len(storage.entries(removal.FOLDER)) == 1 and removal.blocked(storage) == blocked
    after = removal._log(storage)
    assert len(after) == len({row["content_id"] for row in before})
    with pytest.raises(NotFound):
        removal.restore(storage, "c0")  # pruned, and not removed
