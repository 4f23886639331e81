"""Online features read without Feast equal those that Feast gives; otherwise Feast reads them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import StorageError
from feature_repo.reads import features_of, online_features
from feature_repo.served import FILE, read_online, save_services
from feature_repo.store import FOLDER, open_store, repo_yaml, settings_text
from feature_repo.views import SERVICES
from tests.pipelines.conftest import Shelf

ROOT = Path(__file__).parent.parent.parent
IDS = ["sound 1", "nobody", "text/0 😀", "sound 1"]


@pytest.fixture
def enriched(shelf_and_store: tuple[Shelf, Path]) -> Path:
    return shelf_and_store[1]


@pytest.mark.parametrize("service", SERVICES)
def test_the_answer_is_that_of_feast(service: str, enriched: Path) -> None:
    found = read_online(enriched, IDS, service)
    assert found is not None, "a run leaves what the reader needs"
    assert found.equals(online_features(open_store(enriched), IDS, service))
    many = [f"sound {n}" for n in range(20)]  # more keys than are placed one by one
    assert read_online(enriched, many, service).equals(online_features(open_store(enriched), many, service))  # type: ignore[union-attr]


def test_what_somebody_else_applied_is_read_through_feast(enriched: Path) -> None:
    store = open_store(enriched)
    view = store.get_feature_view("acoustic")
    description = view.description
    try:
        view.description = "changed by somebody"
        store.apply([view])
        assert read_online(enriched, IDS, "playback") is None
        assert features_of(enriched, IDS, "playback").num_rows == 4
        assert read_online(enriched, IDS, "playback") is not None, "asking Feast saved what it said"
    finally:
        view.description = description
        store.apply([view])
        save_services(store, enriched)


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"format": 1}', b'{"format": 2, "registry": "", "services": {}}'])
def test_a_file_that_is_not_as_expected_is_not_used(damage: bytes, enriched: Path) -> None:
    path = enriched / FOLDER / FILE
    saved = path.read_bytes()
    try:
        path.write_bytes(damage)
        assert read_online(enriched, IDS, "recommender") is None
    finally:
        path.write_bytes(saved)
    assert read_online(enriched, IDS, "no such service") is None


def test_another_online_store_and_another_store_s_settings(enriched: Path, tmp_path: Path) -> None:
    home = tmp_path / FOLDER
    home.mkdir()
    for path in (enriched / FOLDER).iterdir():  # also the write-ahead log of SQLite
        if path.is_file():
            (home / path.name).write_bytes(path.read_bytes())
    assert read_online(tmp_path, IDS, "recommender") is None, "a copy still names the store that it was copied from"
    moved = settings_text(repo_yaml(tmp_path))
    (home / "feature_store.yaml").write_text(moved)
    assert read_online(tmp_path, IDS, "recommender") is not None
    (home / "feature_store.yaml").write_text(moved.replace("sqlite_store.EarmarkSqlite", "redis_store.EarmarkRedis"))
    assert read_online(tmp_path, IDS, "recommender") is None
    (home / "feature_store.yaml").write_text(moved)
    for path in home.glob("online.db*"):
        path.write_bytes(b"no database" * 500)
    assert read_online(tmp_path, IDS, "recommender") is None
    with pytest.raises(StorageError, match="not a database"):
        features_of(tmp_path, IDS)


def test_a_row_that_is_deleted_is_gone_at_once(enriched: Path) -> None:
    """Nothing of the rows is kept beside them."""
    database = enriched / FOLDER / "online.db"
    with sqlite3.connect(database) as connection:
        table = "earmark_content"
        before = connection.execute(f"SELECT * FROM {table}").fetchall()
        connection.execute(f"DELETE FROM {table}")
    try:
        found = read_online(enriched, ["sound 1"], "playback")
        assert found is not None and found["content__title"].to_pylist() == [None]
    finally:
        with sqlite3.connect(database) as connection:
            connection.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(before[0]))})", before)


def test_a_command_imports_neither_feast_nor_torch(enriched: Path) -> None:
    code = (
        "import sys; from cli.main import main; "
        f"main(['features', 'sound 1', '--store', {str(enriched)!r}, '--json']); "
        "print(*[m for m in ('feast', 'torch', 'transformers') if m in sys.modules], 'END', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert json.loads(done.stdout)[0]["content__title"] == "Sound number 1" and done.stderr == "END\n"
