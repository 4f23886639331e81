"""Files of player events: ids as they are written, what cannot be read, and files that overlap."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from core.errors import CatalogError
from skips.events import EVENTS, beyond, checked, read_events

IDS = ["007", "1.10", "2024-01-05", "true", "null"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".CSV"])
def test_ids_are_as_they_are_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"events{suffix}"
    rows = [(name, "skip", n, n + 1.5, name) for n, name in enumerate(IDS)]
    if suffix.lower() == ".csv":
        lines = [",".join(map(str, row)) for row in rows]
        path.write_text("\n".join(["content_id,event,from_s,to_s,listener", *lines]) + "\n")
    elif suffix == ".jsonl":
        form = '{{"content_id": "{}", "event": "{}", "from_s": {}, "to_s": {}, "listener": "{}", "more": [1]}}\n'
        path.write_text("".join(form.format(*row) for row in rows) + "\n")
    else:
        names = ["content_id", "event", "from_s", "to_s", "listener"]
        parquet.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
    found = read_events(path)
    assert found["content_id"].to_pylist() == found["listener"].to_pylist() == IDS
    assert found["from_s"].to_pylist() == [0, 1, 2, 3, 4] and found["audio_sha256"].null_count == 5


def test_what_is_blank_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("content_id,event,from_s,to_s,listener,audio_sha256\na,play,0,9,,\nb,play,0,9,ann,ab12\n")
    found = read_events(path)
    assert found["listener"].to_pylist() == [None, "ann"]
    assert found["audio_sha256"].to_pylist() == [None, "ab12"]


def test_a_number_may_be_an_id(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"content_id": 7, "event": "play", "from_s": 0, "to_s": 9}\n')
    assert read_events(path)["content_id"].to_pylist() == ["7"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"content_id": "a"}\nplay\n', "line 2 of the events .* is no JSON"),
        ("a.jsonl", "[1]\n", "line 1 of the events .* is no JSON object"),
        ("a.jsonl", '{"content_id": ["a"], "event": "play", "from_s": 0, "to_s": 1}', "content_id cannot be read"),
        ("a.jsonl", '{"content_id": "a", "event": "play", "from_s": "soon", "to_s": 1}', "from_s cannot be read"),
        ("a.jsonl", '{"content_id": "\\ud800", "event": "play", "from_s": 0, "to_s": 1}', "content_id cannot be read"),
        ("a.jsonl", "", "no column content_id, event, from_s, to_s"),
        ("a.csv", "content_id,event,from_s,to_s\na,play,soon,1\n", "from_s cannot be read"),
        ("a.csv", "", "cannot be read"),
        ("a.parquet", "no table", "cannot be read"),
        ("a.txt", "a", "is none of .csv, .jsonl, .parquet"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CatalogError, match=said):
        read_events(tmp_path / name)


def test_of_files_that_overlap_only_what_is_new_counts() -> None:
    def table(*rows: tuple[str, float]) -> pa.Table:
        values = [{"content_id": c, "event": "skip", "from_s": at, "to_s": at + 9} for c, at in rows]
        return checked(pa.Table.from_pylist(values, schema=pa.schema(list(EVENTS)[:4])))

    held = table(("a", 1), ("a", 1), ("b", 2))
    # Two strangers may do the same; three of whom two are known are one more.
    new = beyond(table(("b", 2), ("a", 1), ("a", 1), ("a", 1), ("c", 3)), held)
    assert list(zip(new["content_id"].to_pylist(), new["from_s"].to_pylist(), strict=True)) == [("a", 1), ("c", 3)]
    assert len(beyond(held, held)) == 0
