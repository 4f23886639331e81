"""Online stores by name, real ones: SQLite, a redis-server, a cluster of two redis-servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.feature_repo.plugins.online.world import PLUGINS, Redis, World, has_redis

needs_redis = pytest.mark.skipif(not has_redis(), reason="needs redis-server (Debian's package of that name)")
STORES = ["sqlite", pytest.param("redis", marks=needs_redis), pytest.param("cluster", marks=needs_redis)]
# For suites in which a cluster differs little from one Redis: it is tried by `make test-all`.
CLUSTER_LAST = [*STORES[:2], pytest.param("cluster", marks=[needs_redis, pytest.mark.exhaustive])]
REDIS = f"{PLUGINS}.online.redis_store.EarmarkRedisOnlineStore"
SQLITE = f"{PLUGINS}.online.sqlite_store.EarmarkSqliteOnlineStore"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def redis_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Redis]]:
    """Two masters that share the slots."""
    import redis

    nodes = [Redis(tmp_path_factory.mktemp("node"), cluster=True).start() for _ in range(2)]
    first, second = (redis.Redis(port=node.port) for node in nodes)
    first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    second.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    first.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
    for _ in range(300):
        told = [(str(c.execute_command("CLUSTER INFO")), c.execute_command("CLUSTER NODES")) for c in (first, second)]
        if all("cluster_state:ok" in info and len(known) == 2 for info, known in told):
            break
        time.sleep(0.05)
    yield nodes
    for node in nodes:
        node.kill()


# What a store cannot do: (store, test) → reason. The test is then expected to fail. There is no gap at present.
GAPS: dict[tuple[str, str], str] = {}


def online_settings(name: str, folder: Path, request: Any, lock_timeout_s: float = 30.0) -> dict[str, Any]:
    import redis

    if name == "sqlite":
        return {"type": SQLITE, "path": str(folder / "online.db"), "lock_timeout_seconds": lock_timeout_s}
    if name == "redis":
        server = request.getfixturevalue("redis_server")
        redis.Redis(port=server.port).flushall()
        return {"type": REDIS, "connection_string": f"127.0.0.1:{server.port}", "retry_seconds": 5.0}
    nodes = request.getfixturevalue("redis_nodes")
    for node in nodes:
        redis.Redis(port=node.port).flushall()
    where = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return {"type": REDIS, "connection_string": where, "redis_type": "redis_cluster", "retry_seconds": 5.0}


@pytest.fixture(params=STORES)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    reason = GAPS.get((request.param, request.node.originalname))
    if reason:
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    return World(tmp_path, online_settings(request.param, tmp_path, request))


@pytest.fixture
def sqlite_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, online_settings("sqlite", tmp_path, request, lock_timeout_s=0.3))
