"""The redis profile on a real Redis."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config import Config
from core.errors import StorageError
from core.storage import open_storage
from feature_repo.reads import online_features
from feature_repo.store import REDIS_VARIABLE, open_store
from pipelines import removal
from pipelines.context import Run
from pipelines.inprocess import run_catalog
from tests.pipelines.conftest import make_shelf

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs Debian's redis-server"),
]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait()


def test_redis_is_checked_before_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue is not read, let alone enriched."""
    monkeypatch.setenv("EARMARK_FEAST_PROFILE", "redis")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv(REDIS_VARIABLE, where)
        (tmp_path / "catalog").mkdir()
        with pytest.raises(StorageError, match=f"Redis at {where} cannot be reached: it refused the connection"):
            run_catalog(str(tmp_path / "catalog"), str(tmp_path / "store"), Config(device="cpu"))
    assert not (tmp_path / "store" / "runs").exists()


def test_a_run_serves_from_redis(redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARMARK_FEAST_PROFILE", "redis")
    monkeypatch.setenv(REDIS_VARIABLE, redis)
    shelf = make_shelf(tmp_path / "catalog", sounds=2, texts=2)
    store = tmp_path / "store"
    run_catalog(shelf.source, str(store), Config(device="cpu"))
    asked = [row["content_id"] for row in shelf.rows]
    rows = online_features(open_store(store), [*asked, "nobody"]).to_pylist()
    assert [row["content__title"] for row in rows] == [*(row["title"] for row in shelf.rows), None]
    assert len(rows[0]["audio__embedding"]) == 753

    # A version of the same instant computed again replaces what is there (Redis would drop it).
    shelf.row("sound 0")["title"] = "Another title"
    shelf.save()
    run_catalog(shelf.source, str(store), Config(device="cpu"))
    assert online_features(open_store(store), ["sound 0"])["content__title"].to_pylist() == ["Another title"]

    # Torn down by Feast's own command, everything is there again after the next run.
    open_store(store).teardown()
    run_catalog(shelf.source, str(store), Config(device="cpu"))
    assert online_features(open_store(store), ["sound 0"])["content__title"].to_pylist() == ["Another title"]

    run = Run(open_storage(store), "test", str(store), Config(device="cpu"))
    removal.remove(run, ["sound 0"])
    gone, kept = online_features(open_store(store), ["sound 0", "sound 1"]).to_pylist()
    assert all(value is None for name, value in gone.items() if name != "content_id")
    assert kept["content__title"] == "Sound number 1"


def test_two_stores_share_a_redis(redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same contents in both: neither overwrites nor removes what the other serves."""
    monkeypatch.setenv("EARMARK_FEAST_PROFILE", "redis")
    monkeypatch.setenv(REDIS_VARIABLE, redis)
    stores = {}
    for name in ("first", "second"):
        shelf = make_shelf(tmp_path / name / "catalog", sounds=0, texts=1)
        shelf.rows[0]["title"] = name
        shelf.save()
        stores[name] = tmp_path / name / "store"
        run_catalog(shelf.source, str(stores[name]), Config(device="cpu"))
    asked = [str(shelf.rows[0]["content_id"])]

    def title(name: str) -> str | None:
        found: list[str | None] = online_features(open_store(stores[name]), asked)["content__title"].to_pylist()
        return found[0]

    assert (title("first"), title("second")) == ("first", "second")
    removal.remove(Run(open_storage(stores["first"]), "test", str(stores["first"]), Config(device="cpu")), asked)
    assert (title("first"), title("second")) == (None, "second")
    open_store(stores["first"]).teardown()
    assert title("second") == "second"
