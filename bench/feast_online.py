"""Online reads, in-process: ours, stock Feast's `get_online_features`, and the least that reading the same bytes costs.

For Redis the limit is a redis-py pipeline with hiredis whose replies NumPy decodes; the rows `redis-raw-…` compare with
a stricter one, a prebuilt request over a bare socket parsed by hiredis. For SQLite it is one SELECT a view, decoded by
NumPy. `get_online_features` of stock Feast over our store is a row of its own.
"""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench import feast_world as world
from bench.frame import Benchmark, Row, cost

PEER = "stock Feast's get_online_features"
LIMIT_REDIS = "redis-py pipeline with hiredis, NumPy decode"
LIMIT_RAW = "prebuilt request on a socket, hiredis, NumPy"
LIMIT_SQLITE = "one SELECT a view, NumPy decode"
REFERENCES = [f"{view}:{name}" for view in ("scalars", "vectors") for name in world.features(view)]


def run(quick: bool) -> list[Row]:
    import redis

    rows, rounds = (2_000, 9) if quick else (50_000, 41)
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        world.build_data(folder, rows)
        with world.redis_server(folder) as port:
            client = redis.Redis(port=port)
            stores = open_stores("redis", folder, f"localhost:{port}")
            for count in (1, 100, 500):
                ids = some_ids(rows, count)
                sides = common_sides(stores, ids)
                sides["limit"], sides["raw"] = redis_limits(stores[0], port, ids)
                found += report("redis", count, sides, rounds, LIMIT_REDIS, server=client)
        stores = open_stores("sqlite", folder, str(folder / "online.db"))
        for count in (1, 100, 500):
            ids = some_ids(rows, count)
            sides = common_sides(stores, ids)
            sides["limit"] = sqlite_limit(stores[0], folder / "online.db", ids)
            found += report("sqlite", count, sides, rounds, LIMIT_SQLITE)
    return found


def open_stores(kind: str, folder: Path, where: str) -> tuple[Any, Any]:
    """Ours, filled, and stock Feast's over the same online store."""
    ours = world.open_repo(folder / f"{kind}-ours", folder, world.online_settings(kind, True, where), True)
    stock = world.open_repo(folder / f"{kind}-stock", folder, world.online_settings(kind, False, where), False)
    engine = ours._get_provider().batch_engine
    for view in ("scalars", "vectors"):
        engine.materialise(ours.get_feature_view(view))
    return ours, stock


def some_ids(rows: int, count: int) -> list[str]:
    chosen = np.random.default_rng(count).choice(rows, count, replace=False)
    return [f"track:{n:08d}" for n in chosen]


def common_sides(stores: tuple[Any, Any], ids: list[str]) -> dict[str, Callable[[], Any]]:
    from feature_repo.plugins.online.reader import OnlineReader

    reader = OnlineReader(stores[0], REFERENCES)  # numbers(): all scalars as a matrix, as the limit makes it
    entities = {"content_id": ids}

    def ours() -> Any:
        answer = reader.read(entities)
        return answer.numbers(), answer.matrix("vectors__embedding")

    return {
        "ours": ours,
        "stock": lambda: stores[1].get_online_features(REFERENCES, entities).to_dict(),
        "feast": lambda: stores[0].get_online_features(REFERENCES, entities).to_dict(),
    }


def redis_keys(store: Any, ids: list[str]) -> tuple[list[bytes], list[list[bytes]]]:
    from feature_repo.plugins.online.redis_commands import field_names
    from feature_repo.plugins.online.views import plan_view

    plans = [plan_view(store.config, store.get_feature_view(view)) for view in ("scalars", "vectors")]
    keys = [key or b"" for key in plans[0].entity_keys([pa.array(ids)], world.PROJECT.encode()).values(0)]
    return keys, [[*field_names(plan), b"_ts:" + plan.name.encode()] for plan in plans]


def decode(replies: list[list[bytes]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 24) and (count, 512) float32 of values whose layout is known: a tag byte, then the number."""
    scalars = b"".join(value for row in replies[:count] for value in row[: world.SCALARS])
    vectors = b"".join(row[0] for row in replies[count:])
    one = np.frombuffer(scalars, np.uint8).reshape(count, world.SCALARS, 5)[:, :, 1:].copy().view("<f4")
    other = np.frombuffer(vectors, np.uint8).reshape(count, -1)[:, -4 * world.DIMENSIONS :].copy().view("<f4")
    return one[:, :, 0], other


def redis_limits(store: Any, port: int, ids: list[str]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    import hiredis
    import redis

    client = redis.Redis(port=port)
    keys, fields = redis_keys(store, ids)

    def pipelined() -> Any:
        with client.pipeline(transaction=False) as pipeline:
            for names in fields:
                for key in keys:
                    pipeline.hmget(key, names)
            return decode(pipeline.execute(), len(keys))

    connection = client.connection_pool.get_connection()
    request = b"".join(hiredis.pack_command(("HMGET", key, *names)) for names in fields for key in keys)

    def raw() -> Any:
        sock = connection._get_socket()
        sock.sendall(request)
        parser = hiredis.Reader()
        replies: list[Any] = []
        while len(replies) < 2 * len(keys):
            parser.feed(sock.recv(1 << 20))
            while (reply := parser.gets()) is not False:
                replies.append(reply)
        return decode(replies, len(keys))

    return pipelined, raw


def sqlite_limit(store: Any, path: Path, ids: list[str]) -> Callable[[], Any]:
    from feature_repo.plugins.online.views import plan_view

    plan = plan_view(store.config, store.get_feature_view("scalars"))
    keys = plan.entity_keys([pa.array(ids)]).values(0)
    connection = sqlite3.connect(path)
    marks = ", ".join("?" * len(keys))
    place = {name: n for n, name in enumerate(world.features("scalars"))}
    sql = "SELECT entity_key, feature_name, value FROM bench_{} WHERE entity_key IN ({})"

    def select() -> Any:
        row = {key: n for n, key in enumerate(keys)}
        scalars = connection.execute(sql.format("scalars", marks), keys).fetchall()
        vectors = connection.execute(sql.format("vectors", marks), keys).fetchall()
        one, other = np.empty((len(keys), world.SCALARS), np.float32), np.empty((len(keys), 512), np.float32)
        values = np.frombuffer(b"".join(value for _, _, value in scalars), np.uint8).reshape(-1, 5)[:, 1:].copy()
        one[[row[key] for key, _, _ in scalars], [place[name] for _, name, _ in scalars]] = values.view("<f4")[:, 0]
        raw = np.frombuffer(b"".join(value for _, _, value in vectors), np.uint8).reshape(len(vectors), -1)
        other[[row[key] for key, _, _ in vectors]] = raw[:, -2048:].copy().view("<f4")
        return one, other

    return select


def report(
    kind: str, count: int, sides: dict[str, Callable[[], Any]], rounds: int, limit: str, server: Any = None
) -> list[Row]:
    """Rows of CPU and wall time of a read; for a Redis `server` (a client of it), its own CPU time too."""
    check(sides)
    repeats = max(1, 200 // count)
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in sides}
    with world.quiet():
        for _ in range(rounds):
            for name, call in sides.items():
                many = max(1, repeats // 10) if name in ("stock", "feast") else repeats
                before = world.server_cpu(server) if server else 0.0
                cpu, wall = cost(lambda c=call, m=many: [c() for _ in range(m)])  # type: ignore[misc]
                used = (cpu, wall, world.server_cpu(server) - before) if server else (cpu, wall)
                times[name].append(tuple(1000 * seconds / many for seconds in used))
    rows = []
    size = f"{count}x(24+512d)"
    for at, unit in enumerate(("CPU ms", "wall ms", "server CPU ms")[: 3 if server else 2]):
        middle = {name: statistics.median(found[at] for found in all_) for name, all_ in times.items()}
        which = unit.removesuffix(" ms")
        rows.append(Row(f"{kind}-{size} {which}", middle["ours"], middle["stock"], middle["limit"], unit, PEER, limit))
        if "raw" in middle:
            rows.append(Row(f"{kind}-raw-{size} {which}", middle["ours"], None, middle["raw"], unit, "", LIMIT_RAW))
        note = "get_online_features(...).to_dict() of Feast over our online store"
        rows.append(Row(f"{kind}-feast-{size} {which}", middle["feast"], middle["stock"], None, unit, PEER, note=note))
    return rows


def check(sides: dict[str, Callable[[], Any]]) -> None:
    """All sides read the same numbers, and are warm afterwards. Raises `AssertionError`."""
    ours, matrix = sides["ours"]()
    answer, limit = sides["stock"](), sides["limit"]()
    np.testing.assert_array_equal(np.array(answer["embedding"], np.float32), matrix)
    np.testing.assert_array_equal(limit[1], matrix)
    names = world.features("scalars")
    np.testing.assert_array_equal(limit[0], ours)
    np.testing.assert_array_equal(np.array([answer[name] for name in names], np.float32).T, ours)
    assert sides["feast"]() == answer


BENCHMARK = Benchmark("feast-online", "online reads in-process, by our reader, Feast's and by hand", run)
