from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
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
        ("content_id,kind,title,title,updated_at", "'title' appears twice"),
    ],
)
def test_a_wrong_column_stops_before_any_work(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "c.csv").write_text(header + "\n")
    with pytest.raises(CatalogError, match=message):
        read_catalog(tmp_path / "c.csv")


@pytest.mark.parametrize(
    "times",
    [
        pa.array(["2026-01-31T00:00:00+01:00"], pa.large_string()),
        pa.array([datetime(2026, 1, 30, 23, tzinfo=UTC)], pa.timestamp("ns", "America/New_York")),
        pa.array([date(2026, 1, 31)], pa.date32()),
        pa.array([date(2026, 1, 31)], pa.date64()),
        pa.array(["2026-01-31"]).dictionary_encode(),
    ],
)
def test_times_of_every_parquet_type(tmp_path: Path, times: pa.Array) -> None:
    table = pa.table({"content_id": ["a"], "kind": ["track"], "title": ["A"], "text": ["x"], "updated_at": times})
    pq.write_table(table, tmp_path / "c.parquet")
    catalog = read_catalog(tmp_path / "c.parquet", timezone="Europe/Berlin")
    assert catalog.table["updated_at"].to_pylist() == [datetime(2026, 1, 30, 23, tzinfo=UTC)]


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


HEADER = "content_id,kind,title,updated_at,description"
NOW = "2026-01-01T00:00:00Z"


def csv_file(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([f'a,track,"A,{NOW},d', f"b,track,B,{NOW},d"], r"row 1 \(line 2\).*never closes"),
        ([f"a,track,A,{NOW},d", f'b,track,B,{NOW},"d', f"c,track,C,{NOW},d"], r"row 2 \(line 3\).*never closes"),
        ([f'a,track,"A,{NOW},d', f'b,track,"B, too",{NOW},d'], r"row 1 \(lines 2 to 3\).*quote is missing"),
        # The quote of the second row closes that of the first, and the cells are as many as the header's.
        ([f'a,track,"A,{NOW},d', f'b,track,5",{NOW},d'], "row 1: the cell 'title' contains what could be another row"),
        ([f'a,track,A,{NOW},"d', f"b,track,B,{NOW},d", '"'], "row 1: the cell 'description' contains"),
        # A cell with a comma of its own stands before the kind of the row that is swallowed.
        ([f'a,track,A,{NOW},"d', f"b, c,track,B,{NOW},d", '"'], "row 1: the cell 'description' contains"),
        # The joined row has more cells than the header, or fewer.
        ([f'a,"track,A,{NOW},d', f'b","track",B,{NOW},d'], "row 1 has 6 cells, the header 5, and one of its cells"),
        ([f'a,track,"A,{NOW},d', f'b,track,B,{NOW},d"'], "row 1: the cell 'title' contains what could be another row"),
    ],
)
def test_a_quote_that_never_closes_names_its_row(tmp_path: Path, rows: list[str], told: str) -> None:
    with pytest.raises(CatalogError, match=told) as caught:
        read_catalog(csv_file(tmp_path / "c.csv", *rows))
    assert caught.value.exit_code == 3


def test_a_header_whose_quote_never_closes(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="the header cannot be read: unexpected end"):
        read_catalog(csv_file(tmp_path / "c.csv", header='content_id,"kind,title'))


def test_damaged_rows_of_one_line_cost_only_themselves(tmp_path: Path) -> None:
    rows = [
        f"a,track,A,{NOW},d",
        f'b,track,"B" again,{NOW},d',
        "c,track,C",
        f"d,track,D,{NOW},d,more",
        f"e,track,E\0E,{NOW},d",
        "\0\0\0\0",
        f'f,track,"F, ""quoted""\nover two lines",{NOW},d',
        "",
        f"g,track,G,{NOW},d",
        "h,tra",
    ]
    catalog = read_catalog(csv_file(tmp_path / "c.csv", *rows))
    assert catalog.table["title"].to_pylist() == ["A", 'F, "quoted"\nover two lines', "G"]
    bad_row = {"row 2", "row 3", "row 4", "row 6", "row 10"}
    assert {r.content_id: r.reason for r in catalog.rejected} == {**dict.fromkeys(bad_row, "bad_row"), "e": "bad_value"}
    # Rows without a readable id may be any content; the others are listed, though they cannot be used.
    assert catalog.listed == {"a", "e", "f", "g"}
    assert {r.content_id for r in catalog.unidentified} == bad_row


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings(tmp_path: Path, encoding: str) -> None:
    rows = f"{HEADER}\nä,track,Über 😀,{NOW},d\n"
    (tmp_path / "c.csv").write_bytes(rows.encode(encoding))
    line = json.dumps({**GOOD, "content_id": "ä", "title": "Über 😀"}, ensure_ascii=False)
    (tmp_path / "c.jsonl").write_bytes(f"{line}\r\n".encode(encoding))
    for name in ("c.csv", "c.jsonl"):
        assert read_catalog(tmp_path / name).table.select(["content_id", "title"]).to_pylist() == [
            {"content_id": "ä", "title": "Über 😀"}
        ], name


def test_utf_16_that_ends_within_a_character(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(f"{HEADER}\na,track,A,{NOW},d\n".encode("utf-16")[:-1])
    with pytest.raises(CatalogError, match="not valid UTF-16-LE: truncated data"):
        read_catalog(tmp_path / "c.csv")


def test_json_that_python_cannot_hold(tmp_path: Path) -> None:
    lines = [
        b"[" * 100_000,
        b'{"content_id": "deep", "title": ' + b'{"a":' * 100_000,
        b'{"content_id": "number", "title": ' + b"9" * 5_000 + b"}",
        b'{"content_id": "twice", "title": "a", "title": "b"}',
        b'{"content_id": "surrogate\\ud800", "title": "a", "kind": "track"}',
        b"\0\0\0",
        b'{"content_id": "cut", "title": "a',
    ]
    catalog = read_catalog(jsonl(tmp_path / "c.jsonl", GOOD, *lines))
    assert catalog.table["content_id"].to_pylist() == ["a"]
    reasons = ["bad_json"] * 6 + ["invalid_utf8"]
    assert sorted(r.reason for r in catalog.rejected) == sorted(reasons)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"title": float("inf")}, "bad_value"),
        ({"title": float("nan")}, "no_title"),
        ({"content_id": 17.0}, "bad_id"),
        ({"content_id": float("nan")}, "bad_id"),
        ({"title": "a\0b"}, "bad_value"),
        ({"explicit": [[]]}, "bad_value"),
        ({"updated_at": {"a": [1]}}, "bad_timestamp"),
        ({"updated_at": 10**400}, "bad_timestamp"),
        ({"updated_at": "0000-01-01T00:00:00Z"}, "bad_timestamp"),
        ({"updated_at": "99999-01-01T00:00:00Z"}, "bad_timestamp"),
        ({"updated_at": "0001-01-01T00:00:00+14:00"}, "bad_timestamp"),
        ({"published_at": "9999-12-31T23:59:59-14:00"}, "bad_timestamp"),
    ],
)
def test_values_out_of_range_cost_their_row(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    catalog = read_catalog(jsonl(tmp_path / "c.jsonl", GOOD, {**GOOD, "content_id": "b", **change}))
    assert catalog.table["content_id"].to_pylist() == ["a"]
    assert [r.reason for r in catalog.rejected] == [reason]


def test_parquet_values_out_of_range_cost_their_row(tmp_path: Path) -> None:
    far = 10**13  # seconds: the year 318857
    names = pa.array(["a", "b", "c", "d"])
    bad_utf8 = pa.StringArray.from_buffers(4, pa.py_buffer(np.arange(5, dtype=np.int32)), pa.py_buffer(b"AB\xffD"))
    table = pa.table(
        {
            "content_id": names,
            "kind": ["track"] * 4,
            "title": bad_utf8,
            "updated_at": pa.array([0, far, 0, -far], pa.timestamp("s", "UTC")),
            "description": ["d"] * 4,
        }
    )
    pq.write_table(table, tmp_path / "c.parquet")
    catalog = read_catalog(tmp_path / "c.parquet")
    assert catalog.table["content_id"].to_pylist() == ["a"]
    assert {r.content_id: r.reason for r in catalog.rejected} == {
        "b": "bad_timestamp",
        "c": "invalid_utf8",
        "d": "bad_timestamp",
    }
    assert catalog.listed == {"a", "b", "c", "d"}
    data = (tmp_path / "c.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(CatalogError, match="not a readable Parquet"):
        read_catalog(tmp_path / "cut.parquet")


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("id", "content_id"),
        ("ID", "content_id"),
        ("ContentId", "content_id"),
        ("name", "title"),
        ("path", "audio_uri"),
        ("file", "audio_uri"),
        ("url", "audio_uri"),
        ("cover", "image_uri"),
        ("lyrics", "text"),
        ("type", "kind"),
        ("release date", "published_at"),
        ("Modified", "updated_at"),
        ("podcast", "show_id"),
        ("discription", "description"),
    ],
)
def test_an_unknown_column_is_answered_with_the_one_that_is_meant(tmp_path: Path, column: str, meant: str) -> None:
    with pytest.raises(CatalogError, match=f"'{column}' is not known; did you mean '{meant}'"):
        read_catalog(csv_file(tmp_path / "c.csv", header=f"{column},kind,title,updated_at"))


def test_separators_and_names_of_columns(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="separated by semicolons: separate them by commas"):
        read_catalog(csv_file(tmp_path / "c.csv", header=HEADER.replace(",", ";")))
    with pytest.raises(CatalogError, match="column 1 has no name"):
        read_catalog(csv_file(tmp_path / "c.csv", header="," + HEADER))
    spaced = csv_file(tmp_path / "c.csv", f"a,track,A,{NOW},d", header=HEADER.replace(",", ", "))
    assert read_catalog(spaced).table.num_rows == 1


def test_a_path_with_outer_spaces_is_the_file_of_that_name_if_there_is_one(tmp_path: Path) -> None:
    (tmp_path / " lead.mp3").write_bytes(b"x")
    uris = [" lead.mp3", " other.mp3 ", "  ", " https://media.example/a b.mp3 "]
    rows = [{**GOOD, "content_id": str(n), "audio_uri": uri} for n, uri in enumerate(uris)]
    table = read_catalog(jsonl(tmp_path / "c.jsonl", *rows)).table
    assert table["audio_uri"].to_pylist() == [" lead.mp3", "other.mp3", None, "https://media.example/a b.mp3"]
