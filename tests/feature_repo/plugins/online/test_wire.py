"""Connections that rest between conversations: who may take one, and what becomes of one that went bad."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
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


def test_a_large_pool_is_not_emptied_by_those_that_rest(redis_server: Redis) -> None:
    import redis

    large = redis.Redis(port=redis_server.port, max_connections=64)
    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(borrow(large))
    assert in_use(large) == wire.RESTING
    assert large.ping()
    large.close()


def test_after_a_failure_the_connection_is_closed(client: Any) -> None:
    """Replies may be under way."""
    before = own_id(client)
    with pytest.raises(ValueError, match="stop"), borrow(client) as found:
        found.send(command(b"PING"))
        raise ValueError("stop")
    assert in_use(client) == 0
    assert own_id(client) > before


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_one_that_went_bad_while_it_rested_is_not_used(client: Any, how: str) -> None:
    """Redis hangs up on who is idle (its option `timeout`), and somebody may close the client."""
    before = own_id(client)
    if how == "killed":
        client.execute_command("CLIENT", "KILL", "ID", before)
        time.sleep(0.05)
    else:
        client.close()
    assert own_id(client) > before


def test_a_connection_goes_through_its_pool_again(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There logins are renewed."""
    with borrow(client), borrow(client):
        pass
    assert in_use(client) == 2
    monkeypatch.setattr(wire, "LONGEST_AWAY_S", 0.0)
    own_id(client)
    assert in_use(client) == 0


def test_a_client_that_is_dropped_closes_its_connections(redis_server: Redis) -> None:
    import redis

    own = redis.Redis(port=redis_server.port)
    with borrow(own) as found:
        number = found._socket.fileno()
    assert Path(f"/proc/self/fd/{number}").readlink().name.startswith("socket")
    held = weakref.ref(own.connection_pool)
    del own, found
    gc.collect()
    assert held() is None


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
        world = World(tmp_path / "world", {"type": REDIS, "connection_string": where, "retry_seconds": 0.0})
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
