from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.main import main
from core import lease
from core.contracts import CREATED, EVENT, WORK_KEY
from core.features import CONTENT
from core.storage import open_storage
from core.tables import Tables, rows_to_table
from tests.pipelines.conftest import Shelf

Output = pytest.CaptureFixture[str]
START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def store(enriched: tuple[Shelf, Path], tmp_path: Path) -> Path:
    """A copy without Feast, with nine small parts more."""
    copy = tmp_path / "store"
    shutil.copytree(enriched[1], copy, ignore=shutil.ignore_patterns("feast"))
    tables = Tables(open_storage(copy))
    for number in range(9):
        when = START + timedelta(hours=number)
        row = {"content_id": "new", "title": str(number), EVENT: when, CREATED: when, WORK_KEY: f"{number}"}
        tables.commit(CONTENT, rows_to_table(CONTENT, [row]), when, "test")
    return copy


def test_compact(store: Path, capsys: Output) -> None:
    tables = Tables(open_storage(store))
    before, parts = tables.latest(CONTENT), len(tables.parts(CONTENT))
    assert main(["compact", "--store", str(store), "--min-parts", "99"]) == 0
    assert "no view has enough small files" in capsys.readouterr().out
    assert main(["compact", "--store", str(store)]) == 0
    out = capsys.readouterr().out
    assert f"{parts} → 1" in out and f"{parts} replaced files stay for 15 min" in out
    assert len(tables.parts(CONTENT)) == parts + 1
    assert main(["compact", "--store", str(store), "--grace", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["views"], found["retired"], found["waiting"]) == ({}, parts, 0)
    assert len(tables.parts(CONTENT)) == 1 and tables.latest(CONTENT).equals(before)


def test_wrong_use_and_a_busy_store(store: Path, tmp_path: Path, capsys: Output) -> None:
    assert main(["compact", "--store", str(store), "--min-parts", "1"]) == 2
    assert "2 parts or more" in capsys.readouterr().err
    assert main(["compact", "--store", str(store), "--target-mb", "0"]) == 2
    assert main(["compact", "--store", str(tmp_path / "none")]) == 8
    with lease.hold(open_storage(store), "another run"):
        assert main(["compact", "--store", str(store)]) == 4
    assert "another run" in capsys.readouterr().err
