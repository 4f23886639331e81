"""Connections that rest between conversations: who may take one, and what becomes of one that went bad."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_repo.plugins.online import wire
from feature_repo.plugins.online.wire import borrow, command
from tests.feature_repo.plugins.online.conftest import REDIS, needs_redis
from tests.feature_repo.plugins.online.world import Redis, World, row

pytestmark = needs_redis


@pytest.fixture
def client(redis_server: Redis) -> Iterator[Any]:
    import redis

    made = redis.Redis(port=redis_server.port, protocol=2)
    yield made
    made.close()


def own_id(client: Any) -> int:
    """Redis's number of the connection that is borrowed next."""
    with borrow(client) as found:
        found.send(command(b"CLIENT", b"ID"))
        return found.skip(1)


def in_use(client: Any) -> int:
    return len(client.connection_pool._in_use_connections)


def test_the_same_connection_is_used_again(client: Any) -> None:
    assert own_id(client) == own_id(client)
    with borrow(client), borrow(client):
        assert in_use(client) == 2
    assert in_use(client) == 2


def test_a_small_pool_gets_its_connections_back(redis_server: Redis) -> None:
    import redis

    small = redis.Redis(port=redis_server.port, max_connections=1)
    for _ in range(3):
        assert own_id(small) > 0
        assert small.ping()
    small.close()


def test_after_a_failure_nothing_rests(client: Any) -> None:
    """Replies may be under way, and the other connections may be broken too."""
    with pytest.raises(ValueError, match="stop"), borrow(client), borrow(client) as second:
        second.send(command(b"PING"))
        raise ValueError("stop")
    assert in_use(client) == 0
    before = own_id(client)
    assert own_id(client) == before


def test_one_that_rested_long_is_looked_at(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis hangs up on who is idle (its option `timeout`); redis-py sees that and connects again."""
    before = own_id(client)
    monkeypatch.setattr(wire, "LONGEST_IDLE_S", 0.0)
    client.execute_command("CLIENT", "KILL", "ID", before)
    assert own_id(client) > before


def test_a_child_process_opens_its_own(client: Any) -> None:
    before = own_id(client)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover (another process)
        os.write(writing, b"%d" % own_id(client))
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 20)) != before
    assert own_id(client) == before


def test_redis_restarted_while_connections_rest(tmp_path: Path) -> None:
    server = Redis(tmp_path).start()
    try:
        where = f"127.0.0.1:{server.port}"
        world = World(tmp_path / "world", {"type": REDIS, "connection_string": where, "retry_seconds": 20.0})
        world.push([row("a", 1, 0, title="before")])
        barrier = threading.Barrier(3)

        def read() -> None:
            barrier.wait()
            world.titles("a")

        for phase in ("before", "after"):
            threads = [threading.Thread(target=read) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert world.titles("a") == [phase]
            server.kill()
            server.start()
            world.push([row("a", 2, 0, title="after")])
    finally:
        server.kill()
