"""Several parts as one file: rows, order, columns and row groups, on small tables worked out by hand."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts import CREATED, EVENT, TIMESTAMP, VECTOR, WORK_KEY
from core.errors import StorageError
from core.features import Feature, View
from core.storage import open_storage
from core.tables import Tables, encode, rows_to_table
from feature_repo.plugins.parquet import Layout, read_layout
from feature_repo.plugins.sources import Part, Parts
from pipelines import merge as module
from pipelines.merge import Merged, merge

VIEW = View("view", "content_id", (Feature("n", pa.int64(), ""), Feature("vector", VECTOR, "")), "")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(key: str, n: int | None, event: int = 0, created: int = 0, **more: Any) -> dict[str, Any]:
    """`event` and `created` in hours after noon."""
    times = {EVENT: NOON + timedelta(hours=event), CREATED: NOON + timedelta(hours=created)}
    return {"content_id": key, "n": n, "vector": None if n is None else [n, 0.5], WORK_KEY: f"key {n}", **times, **more}


def layout_of(folder: Path, *tables: pa.Table) -> Layout:
    storage = open_storage(folder)
    for number, table in enumerate(tables):
        storage.write(f"part-{number:04d}.parquet", encode(table))
    filesystem, root = storage.arrow()
    files = [Part(f"{root}/{entry.path}", entry.size_bytes) for entry in storage.entries("")]
    return read_layout(Parts(filesystem, files, root))


def merged(folder: Path, *parts: list[dict[str, Any]]) -> tuple[Merged, pa.Table]:
    made = merge(layout_of(folder, *(rows_to_table(VIEW, part) for part in parts)), VIEW, {"a": "b"})
    return made, pq.read_table(io.BytesIO(made.data))


def test_versions_stay_and_duplicates_go(tmp_path: Path) -> None:
    made, table = merged(
        tmp_path,
        [row("a", 1), row("b", 2, event=1)],
        [],
        [row("a", 3, event=1), row("a", 4, created=5), row("b", 5, event=1), row("c", None)],
        [row("b", 2, event=2), row("a", 1)],
    )
    # Of equal key, event and created time the last stays: b's 5, not its 2; the later copy of a's 1.
    assert table["n"].to_pylist() == [3, 4, 5, None, 2, 1]
    assert table["vector"].to_pylist() == [[3, 0.5], [4, 0.5], [5, 0.5], None, [2, 0.5], [1, 0.5]]
    assert (made.rows, made.duplicates, made.created) == (6, 2, NOON + timedelta(hours=5))
    assert table.schema.remove_metadata() == VIEW.schema
    assert table.schema.metadata[b"a"] == b"b"


def test_nothing_but_empty_parts(tmp_path: Path) -> None:
    made, table = merged(tmp_path, [], [])
    assert (made.rows, made.created) == (0, datetime(1970, 1, 1, tzinfo=UTC))
    assert table.schema.remove_metadata() == VIEW.schema and not table.num_rows


def test_columns_that_some_parts_lack(tmp_path: Path) -> None:
    """An older release had a feature that is gone; a newer one has another."""
    old = rows_to_table(VIEW, [row("a", 1)]).drop_columns(["vector"]).append_column("mood", pa.array(["calm"]))
    narrow = rows_to_table(VIEW, [row("c", 7)])
    narrow = narrow.set_column(1, pa.field("n", pa.int32()), narrow["n"].cast(pa.int32()))
    made = merge(layout_of(tmp_path, old, rows_to_table(VIEW, [row("b", 2)]), narrow), VIEW, {})
    table = pq.read_table(io.BytesIO(made.data))
    assert table.column_names == [*VIEW.schema.names, "mood"]
    assert table.select(["content_id", "n", "vector", "mood"]).to_pylist() == [
        {"content_id": "a", "n": 1, "vector": None, "mood": "calm"},
        {"content_id": "b", "n": 2, "vector": [2.0, 0.5], "mood": None},
        {"content_id": "c", "n": 7, "vector": [7.0, 0.5], "mood": None},
    ]
    assert not table.schema.field("content_id").nullable and table.schema.field("n").type == pa.int64()


def test_rows_without_a_key_are_nobody_s_duplicates(tmp_path: Path) -> None:
    schema = pa.schema([("content_id", pa.string()), ("n", pa.int64()), (EVENT, TIMESTAMP), (CREATED, TIMESTAMP)])
    table = pa.table([[None, None, "a", "a"], [1, 2, 3, 3], [NOON] * 4, [None] * 4], schema=schema)
    made = merge(layout_of(tmp_path, table), VIEW, {})
    assert pq.read_table(io.BytesIO(made.data))["n"].to_pylist() == [1, 2, 3]


def test_small_parts_become_large_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 10)
    parts = [[row(f"{part}/{n}", n) for n in range(4)] for part in range(6)]
    made, table = merged(tmp_path, *parts)
    file = pq.ParquetFile(io.BytesIO(made.data))
    assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [8, 8, 8]
    assert table["content_id"].to_pylist() == [r["content_id"] for part in parts for r in part]
    monkeypatch.setattr(module, "ROW_GROUP_BYTES", 1)
    made, same = merged(tmp_path, *parts)
    assert pq.ParquetFile(io.BytesIO(made.data)).num_row_groups == 6 and same.equals(table)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, rows_to_table(VIEW, [row("a", 1)]), rows_to_table(VIEW, [row("b", 2)]))
    path = Path(layout.parts.files[1].path)
    path.write_bytes(b"PAR1" + bytes(path.stat().st_size - 4))
    with pytest.raises(StorageError, match="part-0001.parquet"):
        merge(layout, VIEW, {})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 2)), max_size=6)))
def test_any_parts_against_a_dictionary(tmp_path_factory: pytest.TempPathFactory, parts: list[list[Any]]) -> None:
    numbers = iter(range(1000))
    rows = [[row(key, next(numbers), event, created) for key, event, created in part] for part in parts] or [[]]
    _, table = merged(tmp_path_factory.mktemp("merge"), *rows)
    expected: dict[Any, int] = {}
    for part in rows:
        for one in part:
            expected[one["content_id"], one[EVENT], one[CREATED]] = one["n"]
    found = table.select(["content_id", EVENT, CREATED, "n"]).to_pylist()
    assert sorted(r["n"] for r in found) == sorted(expected.values())
    assert [r["n"] for r in found] == sorted(expected.values()), "in file order"


def test_what_a_store_reads_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = Tables(open_storage(tmp_path))
    rows = [
        [row(f"{rng.integers(50)}", int(rng.integers(9)), *map(int, rng.integers(3, size=2))) for _ in range(40)]
        for _ in range(5)
    ]
    made, _ = merged(tmp_path / "parts", *rows)
    for number, part in enumerate(rows):
        tables.storage.write(f"offline/view/date=2026-03-01/part-{number}.parquet", encode(rows_to_table(VIEW, part)))
    keys = ["content_id", EVENT]
    before = tables.latest(VIEW).select(keys)
    for entry in tables.parts(VIEW):
        tables.storage.delete(entry.path)
    tables.storage.write("offline/view/date=2026-03-01/part-merged.parquet", made.data)
    assert tables.latest(VIEW).select(keys).equals(before)
