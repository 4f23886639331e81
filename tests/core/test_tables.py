from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts import CREATED, EVENT, WORK_KEY, id_problem
from core.features import CONTENT, FAMILIES, TEXT_SIGNALS, embedding_view
from core.keys import work_key
from core.storage import LocalStorage
from core.tables import Tables, decode, encode, latest_rows, rows_to_table

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def row(content_id: str, event: int, created: int, key: str = "k", **features: object) -> dict[str, object]:
    when = {EVENT: T0 + timedelta(hours=event), CREATED: T0 + timedelta(hours=created), WORK_KEY: key}
    return {"content_id": content_id, **when, **features}


def test_parts_are_read_together_and_the_latest_wins(tmp_path: Path) -> None:
    tables = Tables(LocalStorage(tmp_path))
    tables.ensure(TEXT_SIGNALS)
    first = [row("a", 1, 1, char_count=1), row("b", 5, 1, char_count=2)]
    second = [row("a", 1, 2, char_count=3), row("b", 4, 9, char_count=4)]
    for number, rows in enumerate((first, second)):
        tables.commit(TEXT_SIGNALS, rows_to_table(TEXT_SIGNALS, rows), T0 + timedelta(hours=number), "x")
    latest = tables.latest(TEXT_SIGNALS, ["char_count"]).to_pylist()
    # "a": equal event, later created wins; "b": the later event wins, however early it was computed.
    assert [(r["content_id"], r["char_count"]) for r in latest] == [("a", 3), ("b", 2)]
    assert len(tables.parts(TEXT_SIGNALS)) == 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 5)), unique=True, max_size=30))
def test_latest_agrees_with_a_loop(history: list[tuple[str, int, int]]) -> None:
    rows = [row(*entry, key=str(n)) for n, entry in enumerate(history)]
    expected: dict[str, tuple[int, int]] = {}
    for content_id, event, created in history:
        expected[content_id] = max(expected.get(content_id, (-1, -1)), (event, created))
    found = latest_rows(rows_to_table(CONTENT, rows), "content_id").to_pylist()
    hours = {r["content_id"]: tuple((r[n] - T0) / timedelta(hours=1) for n in (EVENT, CREATED)) for r in found}
    assert hours == expected


def test_parquet_round_trip_keeps_types() -> None:
    for view in [*FAMILIES, embedding_view("audio", "a model/1", 3)]:
        empty = view.schema.empty_table()
        assert decode(encode(empty)).schema.equals(view.schema)


def test_a_key_depends_on_each_of_its_parts_and_on_nothing_else() -> None:
    base = work_key("s", 1, "m", {"a": 1, "b": 2})
    assert base == work_key("s", 1, "m", {"b": 2, "a": 1})
    others = [
        work_key("t", 1, "m", {"a": 1, "b": 2}),
        work_key("s", 2, "m", {"a": 1, "b": 2}),
        work_key("s", 1, "n", {"a": 1, "b": 2}),
        work_key("s", 1, "m", {"a": 1, "b": 3}),
    ]
    assert len({base, *others}) == 5


def test_ids() -> None:
    assert id_problem("ä" * 256) is None
    assert "513" in (id_problem("x" * 513) or "")
    assert "control" in (id_problem("a\nb") or "")
    assert "surrogate" in (id_problem("\ud800") or "")
    assert id_problem("") is not None
