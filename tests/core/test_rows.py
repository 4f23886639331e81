"""Rows of chosen contents: what a whole read finds, whatever the parts are like, and each row group decoded once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.contracts import CREATED, EVENT, WORK_KEY
from core.features import CONTENT_ENTITY, Feature, View
from core.rows import LatestRows, RowsOf, _Parts
from core.storage import open_storage
from core.tables import Tables, latest_rows, rows_to_table

VIEW = View("things", CONTENT_ENTITY, (Feature("value", pa.int64(), ""),), "", room="beside", group_rows=7)
START = datetime(2026, 1, 1, tzinfo=UTC)


def row(content_id: str, value: int, event: int = 0, created: int = 0) -> dict:
    stamps = {EVENT: START + timedelta(days=event), CREATED: START + timedelta(days=created)}
    return {"content_id": content_id, "value": value, WORK_KEY: f"key {value}", **stamps}


def commit(tables: Tables, number: int, rows: list[dict]) -> None:
    tables.commit(VIEW, rows_to_table(VIEW, rows), START + timedelta(minutes=number), "part")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(open_storage(tmp_path))


@pytest.mark.parametrize("seed", range(5))
def test_they_are_the_rows_of_a_whole_read(tables: Tables, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables.ensure(VIEW)
    value = 0
    for number in range(6):
        rows = []
        for name in rng.integers(0, 40, rng.integers(1, 30)):
            value += 1  # no two rows are equal in event and created time
            rows.append(row(f"c{name}", value, int(rng.integers(0, 4)), value))
        commit(tables, number, rows)
    whole = latest_rows(tables.read(VIEW), "content_id")
    expected = {r["content_id"]: (r["value"], r[WORK_KEY]) for r in whole.to_pylist()}
    found = LatestRows(tables, VIEW, ["value"])
    assert dict(found.keys) == {content_id: key for content_id, (_, key) in expected.items()}
    asked = [f"c{n}" for n in rng.permutation(60)]  # some are not there
    read = found.read(asked)
    assert read["content_id"].to_pylist() == [c for c in asked if c in expected]
    assert [(r["value"], r[WORK_KEY]) for r in read.to_pylist()] == [expected[c] for c in asked if c in expected]
    assert sorted(found.ordered(asked)) == sorted(expected)


def test_many_rows_of_a_content_come_whole_and_in_order(tables: Tables) -> None:
    commit(tables, 0, [row("a", n) for n in range(20)] + [row("b", n) for n in range(100, 103)])
    commit(tables, 1, [row("c", 200), *(row("a", n) for n in range(300, 310))])
    found = RowsOf(tables, VIEW, ["value"])
    assert found.read(["a"])["value"].to_pylist() == [*range(20), *range(300, 310)]
    assert found.read(["c", "nothing", "b"])["value"].to_pylist() == [200, 100, 101, 102]
    assert found.read([]).num_rows == 0


def test_a_view_without_parts_has_no_rows(tables: Tables) -> None:
    latest, rows = LatestRows(tables, VIEW, ["value"]), RowsOf(tables, VIEW, ["value"])
    assert latest.keys == {} and latest.ordered(["a"]) == [] and latest.row_bytes == 0
    assert latest.read(["a"]).schema.names == ["content_id", "value", WORK_KEY]
    assert rows.read(["a"]).num_rows == 0


def test_in_the_order_of_the_parts_each_row_group_is_decoded_once(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        commit(tables, number, [row(f"c{number} {n:02d}", n) for n in range(20)])
    decoded: list[tuple[int, int]] = []
    real = _Parts._decoded

    def counted(self: _Parts, part: int, group: int) -> pa.Table:
        decoded.append((part, group))
        return real(self, part, group)

    monkeypatch.setattr(_Parts, "_decoded", counted)
    found = LatestRows(tables, VIEW, ["value"], kept_bytes=0)
    contents = found.ordered(found.keys)
    for first in range(0, len(contents), 5):
        found.read(contents[first : first + 5])
    # Three groups of at most seven rows a part; nothing else is kept in memory.
    assert decoded == [(part, group) for part in range(10) for group in range(3)]
