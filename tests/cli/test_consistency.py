from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from cli.main import main
from tests.pipelines.conftest import Shelf

Output = pytest.CaptureFixture[str]


def test_consistency(enriched: tuple[Shelf, Path], capsys: Output) -> None:
    store = str(enriched[1])
    assert main(["consistency", "--store", store, "--sample", "2", "--min-share", "1"]) == 0
    out = capsys.readouterr().out
    assert "content" in out and "100.00%" in out and "agree" in out and "\x1b" not in out
    assert main(["consistency", "--store", store, "--view", "content", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(v["view"], v["sampled"], v["share"]) for v in found["views"]] == [("content", 5, 1.0)]
    assert found["below"] == []


def test_a_view_below_the_least_share(enriched: tuple[Shelf, Path], capsys: Output) -> None:
    store = str(enriched[1])
    with sqlite3.connect(enriched[1] / "feast" / "online.db") as connection:
        held = connection.execute("SELECT * FROM earmark_content WHERE feature_name = 'title'").fetchall()
        key = held[0][0]
        kept = connection.execute("SELECT * FROM earmark_content WHERE entity_key = ?", (key,)).fetchall()
        connection.execute("DELETE FROM earmark_content WHERE entity_key = ?", (key,))
    try:
        assert main(["consistency", "--store", store, "--min-share", "0.9", "--quiet"]) == 1
        told = capsys.readouterr()
        assert "80.00%" in told.out and "1 missing, such as" in told.out
        assert told.err == "content: fewer than 90.00% agree\n"
        assert main(["consistency", "--store", store, "--min-share", "0.8"]) == 0
    finally:
        with sqlite3.connect(enriched[1] / "feast" / "online.db") as connection:
            places = ",".join("?" * len(kept[0]))
            connection.executemany(f"INSERT INTO earmark_content VALUES ({places})", kept)


def test_wrong_use(enriched: tuple[Shelf, Path], tmp_path: Path, capsys: Output) -> None:
    store = str(enriched[1])
    assert main(["consistency", "--store", store, "--min-share", "95"]) == 2
    assert main(["consistency", "--store", store, "--sample", "0"]) == 2
    assert "take 1 or more" in capsys.readouterr().err
    assert main(["consistency", "--store", store, "--view", "songs"]) == 2
    assert main(["consistency", "--store", str(tmp_path)]) == 8
