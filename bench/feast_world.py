"""What the benchmarks of the online stores share: data, repositories of ours and of stock Feast, a Redis."""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.frame import server_apart

SCALARS = 24
DIMENSIONS = 512
PROJECT = "bench"
US = pa.timestamp("us", "UTC")
PLUGINS = "feature_repo.plugins"
VIEWS = {"24": "scalars", "512d": "vectors"}


def features(view: str) -> list[str]:
    return [f"f{n:02d}" for n in range(SCALARS)] if view == "scalars" else ["embedding"]


def build_data(folder: Path, rows: int) -> None:
    """`scalars.parquet` and `vectors.parquet`: a row a content, with event and created times."""
    rng = np.random.default_rng(5)
    base = {
        "content_id": pa.array([f"track:{n:08d}" for n in range(rows)]),
        "event_timestamp": pa.array(1_700_000_000_000_000 + rng.integers(0, 10**12, rows), US),
        "created_timestamp": pa.array(np.full(rows, 1_750_000_000_000_000), US),
    }
    scalars = base | {name: pa.array(rng.random(rows, np.float32)) for name in features("scalars")}
    values = rng.standard_normal(rows * DIMENSIONS, np.float32)
    offsets = pa.array(np.arange(0, rows * DIMENSIONS + 1, DIMENSIONS), pa.int32())
    vectors = base | {"embedding": pa.ListArray.from_arrays(offsets, pa.array(values))}
    for name, columns in (("scalars", scalars), ("vectors", vectors)):
        table = pa.table(columns)
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=65_536, use_dictionary=["content_id"])


def open_repo(home: Path, data: Path, online: dict[str, Any], ours: bool) -> Any:
    """An applied Feast repository in `home`."""
    import yaml
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Array, Float32, String

    home.mkdir(parents=True)
    settings: dict[str, Any] = {
        "project": PROJECT,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{home / 'registry.db'}", "cache_ttl_seconds": 600},
        "offline_store": {"type": f"{PLUGINS}.offline.EarmarkOfflineStore" if ours else "duckdb"},
        "online_store": online,
        "entity_key_serialization_version": 3,
    }
    if ours:
        settings["batch_engine"] = {"type": f"{PLUGINS}.engine.EarmarkEngine"}
    (home / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    entity = Entity(name="content_id", join_keys=["content_id"], value_type=ValueType.STRING)
    kinds: dict[str, Any] = {"scalars": Float32, "vectors": Array(Float32)}
    views = [
        FeatureView(
            name=name,
            entities=[entity],
            ttl=timedelta(0),
            schema=[Field(name="content_id", dtype=String), *(Field(name=f, dtype=kind) for f in features(name))],
            source=FileSource(
                name=f"{name}_source",
                path=str(data / f"{name}.parquet"),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )
        for name, kind in kinds.items()
    ]
    store = FeatureStore(repo_path=str(home))
    with quiet():
        store.apply([entity, *views])
    return store


def online_settings(kind: str, ours: bool, where: str) -> dict[str, Any]:
    """Settings of an online store: `where` is Redis's port and database, or SQLite's file."""
    if kind == "redis":
        own = f"{PLUGINS}.online.redis_store.EarmarkRedisOnlineStore"
        return {"type": own if ours else "redis", "connection_string": where}
    return {"type": f"{PLUGINS}.online.sqlite_store.EarmarkSqliteOnlineStore" if ours else "sqlite", "path": where}


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """A Redis on a free port that writes nothing to disk. Raises `RuntimeError` where none is installed."""
    if shutil.which("redis-server") is None:
        raise RuntimeError("this benchmark needs redis-server (apt-get install redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with server_apart(server):
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.02)
        yield port


def server_cpu(client: Any) -> float:
    """Seconds of CPU that the Redis server has used."""
    used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
