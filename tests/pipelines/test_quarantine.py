"""The quarantine as many parts and as one: what is in it is the same, whenever a compaction dies."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.storage import LocalStorage, open_storage
from pipelines import quarantine
from pipelines.quarantine import FOLDER, Failure, by_content, open_keys, open_rows

START = datetime(2026, 1, 1, tzinfo=UTC)


def later(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """Ten parts: `a` failed three times, `b` failed and was mended, `c` failed, was mended and failed again."""
    found = open_storage(tmp_path)
    assert isinstance(found, LocalStorage)
    for minute in range(3):
        quarantine.record(found, later(minute), "x", [Failure("a", "audio", "key a", "truncated", "")])
    quarantine.record(found, later(3), "x", [Failure("b", "image", "key b", "too_large", ""), *named("c", "text")])
    quarantine.record(found, later(4), "x", [], [("b", "image"), ("c", "text")])
    quarantine.record(found, later(5), "x", named("c", "text"))
    for minute in range(6, 10):
        quarantine.record(found, later(minute), "x", named(f"d{minute}", "text"))
    return found


def named(content_id: str, stage: str) -> list[Failure]:
    return [Failure(content_id, stage, f"key {content_id}", "failed", "why")]


def test_one_part_says_what_many_did(storage: LocalStorage) -> None:
    before = open_rows(storage)
    assert not quarantine.compact(storage, later(20), least_parts=11)
    assert quarantine.compact(storage, later(20), least_parts=10)
    assert len(storage.entries(FOLDER)) == 1
    assert open_rows(storage).equals(before)
    assert set(open_keys(storage)) == {("a", "audio"), ("c", "text"), *((f"d{n}", "text") for n in range(6, 10))}
    (row,) = by_content(storage)["a"]
    assert (row["attempts"], row["first_seen"], row["work_key"]) == (3, START, "key a")
    # It goes on as before.
    quarantine.record(storage, later(30), "x", [Failure("a", "audio", "key a", "truncated", "")], [("c", "text")])
    assert by_content(storage)["a"][0]["attempts"] == 4 and ("c", "text") not in open_keys(storage)


def test_what_was_resolved_stays_so_wherever_a_compaction_dies(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_rows(storage)
    real = LocalStorage.delete
    for left in range(10):
        count = [left]

        def dying(self: LocalStorage, path: str, count: list[int] = count) -> None:
            if not count[0]:
                raise KeyboardInterrupt
            count[0] -= 1
            real(self, path)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "delete", dying)
            with contextlib.suppress(KeyboardInterrupt):
                quarantine.compact(storage, later(20 + left), least_parts=2)
        assert open_rows(storage).equals(before)


def test_a_failure_that_is_known_needs_no_other_part(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {("a", row["stage"]): row for row in by_content(storage)["a"]}
    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "read", None)
        again = [Failure("a", "audio", "key a", "truncated", "")]
        quarantine.record(storage, later(12), "x", [*again, *named("new", "text")], [], known)
    assert [by_content(storage)[c][0]["attempts"] for c in ("a", "new")] == [4, 1]
    assert by_content(storage)["a"][0]["first_seen"] == START
