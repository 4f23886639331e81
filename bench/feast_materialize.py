"""Materialisation into Redis and SQLite: ours, `feast materialize`, and the least that writing the same rows costs.

The limit scans the columns that are needed and then sends the same commands, made beforehand, over one socket and
counts the replies; for SQLite it inserts the same finished rows, made beforehand, with the same settings of durability.
Ours also reads what is online, compares times, and writes its ledger.
"""

from __future__ import annotations

import socket
import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench import feast_world as world
from bench.frame import Benchmark, Row, cost, cpu_seconds
from bench.shares import shares

PIECE = 1 << 20  # bytes sent before replies are read
PEER, LIMIT_REDIS = "feast materialize", "scan, then prebuilt commands over one socket"
LIMIT_SQLITE = "scan, then SQLite inserting the same rows"
START, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def run(quick: bool) -> list[Row]:
    rows = 5_000 if quick else 100_000
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        world.build_data(folder, rows)
        # The peer takes a minute a view: once is enough to see an order of magnitude.
        for view in ("scalars", "vectors"):
            found += redis_rows(folder / f"redis-{view}", folder, view, rows, 3 if quick else 5)
        for view in ("scalars", "vectors"):
            found += sqlite_rows(folder / f"sqlite-{view}", folder, view, rows, 2 if quick else 3)
    return found


def label(store: str, rows: int, view: str) -> str:
    size = f"{rows // 1000}k"
    return f"{store}-{size}x{'24' if view == 'scalars' else '512d'}"


def redis_rows(home: Path, data: Path, view: str, rows: int, rounds: int) -> list[Row]:
    import redis

    home.mkdir()
    with world.redis_server(home) as port:
        client = redis.Redis(port=port)
        where = f"localhost:{port}"
        ours = world.open_repo(home / "ours", data, world.online_settings("redis", True, where), True)
        stock = world.open_repo(home / "stock", data, world.online_settings("redis", False, where), False)
        engine, feature_view = ours._get_provider().batch_engine, ours.get_feature_view(view)
        commands = prebuilt(ours, feature_view)

        def limit() -> None:
            scan(data, view)
            send(port, commands)

        sides: dict[str, Callable[[], Any]] = {
            "ours": lambda: engine.materialise(feature_view, again=True),
            "limit": limit,
            "stock": lambda: stock.materialize(START, END, feature_views=[view]),
        }
        for name in ("ours", "limit"):  # compiled kernels, the page cache
            client.flushall()
            sides[name]()
        spent: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
        with world.quiet():
            for number in range(rounds):
                for name, call in sides.items():
                    if name == "stock" and number:
                        continue
                    client.flushall()
                    before = world.server_cpu(client)
                    cpu, wall = cost(call)
                    spent[name].append((cpu, wall, world.server_cpu(client) - before))
                    assert int(client.dbsize()) >= rows
        client.flushall()
        profile = shares(sides["ours"], parts_of_client(), cpu_seconds)
    name = label("redis", rows, view)
    found = report(name, spent, LIMIT_REDIS, ("client CPU s", "wall s", "server CPU s"))
    return found + [
        Row(f"{name} client CPU: {part}", 100 * share, None, None, "% of ours") for part, share in profile.items()
    ]


def parts_of_client() -> dict[tuple[Any, str], str]:
    """What a client's time is told apart by."""
    from feature_repo.plugins import part_rows
    from feature_repo.plugins.online import redis_store
    from feature_repo.plugins.online.wire import Wire
    from feature_repo.plugins.parquet import Layout

    sockets, looking = "sockets", "looking what is online"
    return {
        (redis_store, "write_commands"): "making commands",
        (Wire, "_receive"): sockets,
        (Wire, "send"): sockets,
        (Wire, "skip"): "counting replies",
        (Wire, "arrays_of"): looking,
        (redis_store, "hmget"): looking,
        (redis_store, "online_versions"): looking,
        (part_rows, "encode"): "encoding values",
        (part_rows, "latest"): "comparing keys",
        (Layout, "batches"): "scan",
    }


def scan(data: Path, view: str) -> None:
    columns = ["content_id", "event_timestamp", "created_timestamp", *world.features(view)]
    pq.read_table(data / f"{view}.parquet", columns=columns)


def prebuilt(store: Any, view: Any) -> list[tuple[bytes, int]]:
    """The HSETs of all rows, in pieces with the number of their replies."""
    from feature_repo.plugins import part_rows
    from feature_repo.plugins.online.redis_commands import write_commands
    from feature_repo.plugins.parquet import read_layout
    from feature_repo.plugins.sources import resolve

    work = part_rows.work_of(store.config, view, store._get_provider().online_store.key_suffix(store.config))
    layout = read_layout(resolve(view.batch_source, None))
    made = []
    for window, _ in part_rows.windows(layout, 1 << 40):
        for rows, _ in part_rows.batches(layout, window, work):
            assert rows is not None
            size = max(1, PIECE * len(rows) // max(1, int(rows.values.lengths.sum()) * 3))
            for first in range(0, len(rows), size):
                some = np.arange(first, min(first + size, len(rows)))
                parts, count = write_commands(work.plan, rows, some, None)
                made.append((b"".join(part.tobytes() for part in parts), count))
    return made


def send(port: int, commands: list[tuple[bytes, int]]) -> None:
    """Sends and counts the replies, which are all `:<number>` lines."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for data, replies in commands:
            connection.sendall(data)
            while replies:
                got = connection.recv(1 << 16)
                assert got and b"-" not in got, got[:100]
                replies -= got.count(b"\n")


def sqlite_rows(home: Path, data: Path, view: str, rows: int, rounds: int) -> list[Row]:
    home.mkdir()
    path = home / "ours.db"
    ours = world.open_repo(home / "ours", data, world.online_settings("sqlite", True, str(path)), True)
    settings = world.online_settings("sqlite", False, str(home / "stock.db"))
    stock = world.open_repo(home / "stock", data, settings, False)
    engine, feature_view = ours._get_provider().batch_engine, ours.get_feature_view(view)
    engine.materialise(feature_view)
    table = f"{world.PROJECT}_{view}"
    with sqlite3.connect(path) as source:
        schema = [
            sql for (sql,) in source.execute("SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql > ''", (table,))
        ]
        finished = source.execute(f"SELECT * FROM {table} ORDER BY entity_key, feature_name").fetchall()
    each = len(finished) // 10

    def empty() -> None:
        connection = ours._get_provider().online_store._get_conn(ours.config)
        for name in (table, f"{table}__earmark_versions"):
            connection.execute(f"DROP TABLE IF EXISTS {name}")
        connection.commit()
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for sql in schema:
            connection.execute(sql)
        connection.commit()
        (home / "limit.db").unlink(missing_ok=True)

    def limit() -> None:
        scan(data, view)
        connection = sqlite3.connect(home / "limit.db")
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"cache_size = -{128 * 1024}"):
            connection.execute(f"PRAGMA {pragma}")
        for sql in schema:
            connection.execute(sql)
        marks = ", ".join("?" * len(finished[0]))
        for first in range(0, len(finished), each):
            with connection:
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", finished[first : first + each])
        connection.close()

    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: engine.materialise(feature_view, again=True),
        "limit": limit,
        "stock": lambda: stock.materialize(START, END, feature_views=[view]),
    }
    spent: dict[str, list[tuple[float, ...]]] = {name: [] for name in sides}
    with world.quiet():
        for number in range(rounds):
            for name, call in sides.items():
                if name == "stock" and number:
                    continue
                empty()
                spent[name].append(cost(call))
    return report(label("sqlite", rows, view), spent, LIMIT_SQLITE, ("CPU s", "wall s"))


def report(name: str, spent: Any, limit_name: str, units: tuple[str, ...]) -> list[Row]:
    rows = []
    for at, unit in enumerate(units):
        middle = {side: statistics.median(found[at] for found in all_) for side, all_ in spent.items()}
        which = unit.removesuffix(" s")
        rows.append(Row(f"{name} {which}", middle["ours"], middle["stock"], middle["limit"], unit, PEER, limit_name))
    return rows


BENCHMARK = Benchmark("feast-materialize", "Parquet to the online store, by our engine, Feast's and by hand", run)
