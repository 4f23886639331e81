from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.read import read_catalog
from core.contracts import CONTENT_SCHEMA
from core.errors import CatalogError

GOOD = {"content_id": "a", "kind": "track", "title": "A", "updated_at": "2026-01-01T00:00:00Z", "description": "d"}


def jsonl(path: Path, *rows: object) -> Path:
    path.write_bytes(b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows) + b"\n")
    return path


def test_three_formats_say_the_same(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "content_id": "ü😀", "explicit": True, "published_at": "2025-05-05T12:00:00+02:00"}]
    source = jsonl(tmp_path / "c.jsonl", *rows)
    names = list(rows[1])
    cells = [",".join(str(row.get(n, "")) for n in names) for row in rows]
    (tmp_path / "c.csv").write_text("\n".join([",".join(names), *cells]) + "\n", encoding="utf-8")
    table = read_catalog(source).table
    pq.write_table(table, tmp_path / "c.parquet")
    for name in ("c.csv", "c.parquet"):
        assert read_catalog(tmp_path / name).table.equals(table), name
    assert table.schema.equals(CONTENT_SCHEMA)
    second = table.to_pylist()[1]
    assert second["published_at"].isoformat() == "2025-05-05T10:00:00+00:00"
    assert second["explicit"] is True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"content_id": "x" * 1000}, "bad_id"),
        ({"content_id": "a\u0000b"}, "bad_id"),
        ({"content_id": ""}, "bad_id"),
        ({"content_id": "\ud800"}, "invalid_utf8"),
        ({"kind": "film"}, "bad_kind"),
        ({"title": "  "}, "no_title"),
        ({"updated_at": "yesterday"}, "bad_timestamp"),
        ({"updated_at": 17}, "bad_timestamp"),
        ({"updated_at": "2026-01-01T00:00:00"}, "naive_timestamp"),
        ({"description": None}, "nothing_to_enrich"),
        ({"explicit": "maybe"}, "bad_value"),
        ({"title": ["x"]}, "bad_value"),
    ],
)
def test_a_bad_row_is_rejected_alone(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    catalog = read_catalog(jsonl(tmp_path / "c.jsonl", GOOD, {**GOOD, "content_id": "b", **change}))
    assert catalog.table["content_id"].to_pylist() == ["a"]
    assert [r.reason for r in catalog.rejected] == [reason]
    assert "line 2" in catalog.rejected[0].detail
    assert catalog.rejected[0].content_id.isprintable()


def test_every_copy_of_a_doubled_id_is_rejected_with_its_rows(tmp_path: Path) -> None:
    other = {**GOOD, "content_id": "z"}
    catalog = read_catalog(jsonl(tmp_path / "c.jsonl", GOOD, other, {**GOOD, "title": "again"}))
    assert catalog.table["content_id"].to_pylist() == ["z"]
    assert [(r.content_id, r.reason) for r in catalog.rejected] == [("a", "duplicate_id")]
    assert "line 1, line 3" in catalog.rejected[0].detail


def test_naive_times_with_a_zone(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "c.jsonl", {**GOOD, "updated_at": "2026-07-01T12:00:00"})
    [row] = read_catalog(source, timezone="Europe/Berlin").table.to_pylist()
    assert row["updated_at"].isoformat() == "2026-07-01T10:00:00+00:00"
    with pytest.raises(CatalogError, match="Atlantis"):
        read_catalog(source, timezone="Atlantis/Central")


def test_invalid_utf8_and_broken_lines_cost_only_themselves(tmp_path: Path) -> None:
    catalog = read_catalog(jsonl(tmp_path / "c.jsonl", GOOD, b'{"title": "\xff"}', b"{", b"[1]"))
    assert catalog.table.num_rows == 1
    assert [r.reason for r in catalog.rejected] == ["invalid_utf8", "bad_json", "bad_json"]
    path = tmp_path / "c.csv"
    path.write_bytes(
        b"content_id,kind,title,updated_at,text\na,track,A,2026-01-01T00:00:00Z,t\nb,track,\xff,2026-01-01T00:00:00Z,t\n"
    )
    catalog = read_catalog(path)
    assert catalog.table["content_id"].to_pylist() == ["a"]
    assert [r.reason for r in catalog.rejected] == ["invalid_utf8"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("content_id,kind,titel,updated_at", "'titel' is not known; did you mean 'title'"),
        ("content_id,kind,updated_at", "required column 'title' is missing"),
        ("content_id,kind,title,title,updated_at", "'title' stands twice"),
    ],
)
def test_a_wrong_column_stops_before_any_work(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "c.csv").write_text(header + "\n")
    with pytest.raises(CatalogError, match=message):
        read_catalog(tmp_path / "c.csv")


def test_parquet_column_of_a_wrong_type(tmp_path: Path) -> None:
    table = pa.table({"content_id": ["a"], "kind": ["track"], "title": [1], "updated_at": ["2026-01-01T00:00:00Z"]})
    pq.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(CatalogError, match="'title' is of type int64"):
        read_catalog(tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(CatalogError, match="not a readable Parquet"):
        read_catalog(tmp_path / "d.parquet")


def test_no_such_catalogue(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="does not exist"):
        read_catalog(tmp_path / "none.csv")
    (tmp_path / "c.xlsx").write_text("x")
    with pytest.raises(CatalogError, match="not a catalogue"):
        read_catalog(tmp_path / "c.xlsx")
