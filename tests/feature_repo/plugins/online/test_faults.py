"""What goes wrong with a real Redis, a real SQLite file and a real full disk: clear errors, nothing lost, nothing
half-visible."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import StorageError
from tests.feature_repo.plugins.online.conftest import REDIS, SQLITE, needs_redis
from tests.feature_repo.plugins.online.world import Redis, World, row

pytestmark = pytest.mark.slow
COUNT = 3000


def many(event: float, title: str) -> list[dict[str, Any]]:
    return [row(f"c{n}", event, 0, title=title, embedding=[float(event)] * 64) for n in range(COUNT)]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = Redis(folder, options=["--appendonly", "yes", "--appendfsync", "always"]).start()
    yield server
    server.kill()


def redis_world(home: Path, server: Redis, retry_seconds: float) -> World:
    where = f"127.0.0.1:{server.port}"
    return World(home, {"type": REDIS, "connection_string": where, "retry_seconds": retry_seconds})


def whole(world: World) -> None:
    """Every row that is there is there whole: title and vector are of one version."""
    found = world.read([f"c{n}" for n in range(COUNT)], ["title", "embedding"])
    for title, vector in zip(found["title"], found["embedding"], strict=True):
        assert (title, vector) in ((None, None), ("one", [1.0] * 64), ("two", [2.0] * 64))


@needs_redis
def test_redis_killed_and_restarted_while_materialising(own_redis: Redis, tmp_path: Path) -> None:
    world = redis_world(tmp_path, own_redis, 20.0)
    world.add(many(1, "one"))
    world.materialise()
    world.add(many(2, "two"), row_group_size=500)
    world.store._get_provider().batch_engine._window_rows = 500
    pieces: list[int] = []

    def progress(rows: int) -> None:
        pieces.append(rows)
        if len(pieces) == 3:
            own_redis.kill()
            threading.Timer(0.5, own_redis.start).start()

    world.materialise(progress=progress)
    assert sum(pieces) == COUNT
    assert world.titles(*(f"c{n}" for n in range(COUNT))) == ["two"] * COUNT


@needs_redis
def test_redis_away_for_longer_than_the_patience(own_redis: Redis, tmp_path: Path) -> None:
    world = redis_world(tmp_path, own_redis, 0.3)
    world.add(many(1, "one"))
    world.materialise()
    world.add(many(2, "two"), row_group_size=500)
    world.store._get_provider().batch_engine._window_rows = 500
    pieces: list[int] = []

    def progress(rows: int) -> None:
        pieces.append(rows)
        if len(pieces) == 3:
            own_redis.kill()

    with pytest.raises(StorageError, match=f"Redis at 127.0.0.1:{own_redis.port} cannot be reached"):
        world.materialise(progress=progress)
    with pytest.raises(StorageError, match="cannot be reached"):
        world.titles("c0")
    own_redis.start()
    whole(world)
    assert world.materialise() <= COUNT - 1000, "what was written and noted is not written again"
    assert world.titles(*(f"c{n}" for n in range(COUNT))) == ["two"] * COUNT


@needs_redis
def test_reads_go_on_when_redis_is_back(own_redis: Redis, tmp_path: Path) -> None:
    world = redis_world(tmp_path, own_redis, 20.0)
    world.add(many(1, "one"))
    world.materialise()
    assert world.titles("c1") == ["one"]
    own_redis.kill()
    threading.Timer(0.5, own_redis.start).start()
    started = time.monotonic()
    assert world.titles("c1") == ["one"]
    assert time.monotonic() - started > 0.3, "it waited for the restart"


@needs_redis
def test_redis_out_of_memory(own_redis: Redis, tmp_path: Path) -> None:
    import redis

    client = redis.Redis(port=own_redis.port)
    world = redis_world(tmp_path, own_redis, 2.0)
    world.add(many(1, "one"))
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 300_000)
    with pytest.raises(StorageError, match="out of memory .* run again: only what is missing"):
        world.materialise()
    whole(world)
    client.config_set("maxmemory", 0)
    world.materialise()
    assert world.titles(*(f"c{n}" for n in range(COUNT))) == ["one"] * COUNT


@needs_redis
def test_redis_that_wants_a_password(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = Redis(folder, options=["--requirepass", "secret"]).start()
    try:
        world = redis_world(tmp_path / "refused", server, 0.2)
        world.add(many(1, "one"))
        asks = f"Redis at 127.0.0.1:{server.port} asks for a password; give it .*EARMARK_REDIS=127.0.0.1:{server.port},"
        online = world.store._get_provider().online_store
        for work in (world.materialise, lambda: online.check(world.store.config), lambda: world.titles("a")):
            with pytest.raises(StorageError, match=asks):
                work()
        where = f"127.0.0.1:{server.port},password=wrong"
        wrong = World(tmp_path / "wrong", {"type": REDIS, "connection_string": where, "retry_seconds": 0.2})
        with pytest.raises(
            StorageError, match="refused the user name or the password of the connection string"
        ) as error:
            wrong.store._get_provider().online_store.check(wrong.store.config)
        assert "wrong" not in str(error.value)
        where = f"127.0.0.1:{server.port},password=secret"
        world = World(tmp_path / "let-in", {"type": REDIS, "connection_string": where})
        world.add([row("a", 1, 0, title="in")])
        world.materialise()
        assert world.titles("a") == ["in"]
    finally:
        server.kill()


@needs_redis
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_redis_over_tls(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
        + ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"],
        check=True,
        capture_output=True,
    )
    server = Redis(folder, options=["--tls-auth-clients", "no", "--tls-cert-file", str(certificate)])
    plain = server.start()
    try:
        import redis

        client = redis.Redis(port=plain.port)
        client.config_set("tls-key-file", str(key))
        client.config_set("tls-cert-file", str(certificate))
        secure = plain.port + 1 if plain.port < 65_000 else plain.port - 1
        client.config_set("tls-port", secure)
        where = f"127.0.0.1:{secure},ssl=true,ssl_ca_certs={certificate}"
        world = World(tmp_path, {"type": REDIS, "connection_string": where})
        world.add(many(1, "one"))
        world.materialise()
        assert world.titles("c0", f"c{COUNT - 1}") == ["one", "one"]
    finally:
        server.kill()


def test_sqlite_locked_by_another_process(sqlite_world: World) -> None:
    world = sqlite_world
    world.add(many(1, "one"))
    world.materialise()
    world.add(many(2, "two"))
    holder = sqlite3.connect(world.home / "online.db")
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match=r"online\.db: database is locked; another process holds it"):
        world.materialise()
    assert world.titles("c0") == ["one"], "readers go on"
    holder.rollback()
    world.materialise()
    assert world.titles("c0", f"c{COUNT - 1}") == ["two", "two"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    world = World(tmp_path, {"type": SQLITE, "path": str(small_disk / "online.db")})
    world.add([row(f"c{n}", 1, 0, title="one", embedding=[1.0] * 64) for n in range(100)])
    world.materialise()
    filler = small_disk / "filler"
    handle = os.open(filler, os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while True:
            os.write(handle, bytes(4096))
    os.close(handle)
    world.add(many(2, "two"))
    with pytest.raises(StorageError, match="online.db: .*(full|disk)"):
        world.materialise()
    assert world.titles("c0", "c99", "c100") == ["one", "one", None], "nothing of the batch is visible"
    filler.unlink()
    world.materialise()
    assert world.titles("c0", f"c{COUNT - 1}") == ["two", "two"]
