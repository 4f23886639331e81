"""A small repository over Parquet parts, with any of the online stores; rows are plain dicts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from core.contracts import WORK_KEY_TAG
from feature_repo.store import with_registry_of_its_own

PLUGINS = "feature_repo.plugins"
PROJECT = "test"
US = pa.timestamp("us", "UTC")
START = datetime(2026, 1, 1, tzinfo=UTC)
VECTOR = pa.list_(pa.field("element", pa.float32()))
SCHEMA = pa.schema(
    [
        ("content_id", pa.string()),
        ("title", pa.string()),
        ("plays", pa.int64()),
        ("tempo", pa.float32()),
        ("explicit", pa.bool_()),
        ("published", US),
        ("tags", pa.list_(pa.field("element", pa.string()))),
        ("embedding", VECTOR),
        ("event_timestamp", US),
        ("created_timestamp", US),
        ("work_key", pa.string()),
    ]
)
FEATURES = ["title", "plays", "tempo", "explicit", "published", "tags", "embedding"]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def row(content_id: str | None, event: float, created: float, **values: Any) -> dict[str, Any]:
    """A row of SCHEMA, its times in seconds after START."""
    base = {"content_id": content_id, "event_timestamp": at(event), "created_timestamp": at(created), "work_key": "k"}
    return {**dict.fromkeys(FEATURES), **base, **values}


@dataclass
class Redis:
    """A real redis-server that a test may kill, restart and starve."""

    folder: Path
    cluster: bool = False
    options: Sequence[str] = ()
    port: int = 0
    process: Any = field(default=None, repr=False)

    def start(self) -> Redis:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1] % 20_000 + 20_000 if self.cluster else free.getsockname()[1]
        command = ["redis-server", "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        if self.cluster:
            command += ["--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{self.port}.conf"]
        self.process = subprocess.Popen([*command, *self.options], stdout=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def has_redis() -> bool:
    return shutil.which("redis-server") is not None


class World:
    """A repository in `home`; `online` are the settings of its online store."""

    def __init__(self, home: Path, online: Mapping[str, Any], *, ttl: timedelta = timedelta(0), **options: Any) -> None:
        self.home, self.online, self.ttl = home, dict(online), ttl
        self.parts = home / "offline" / "view"
        self.options = options
        self.parts.mkdir(parents=True)
        self.add([])
        self.store = self.open()
        self.store.apply(self.objects())

    def settings(self, **changes: Any) -> dict[str, Any]:
        return {
            "project": PROJECT,
            "provider": "local",
            "registry": {"registry_type": "sql", "path": f"sqlite:///{self.home / 'registry.db'}"},
            "offline_store": {"type": f"{PLUGINS}.offline.EarmarkOfflineStore"},
            "online_store": self.online,
            "batch_engine": {"type": f"{PLUGINS}.engine.EarmarkEngine", **self.options},
            "entity_key_serialization_version": 3,
            **changes,
        }

    def open(self, folder: str = "repo", **changes: Any) -> Any:
        return self._opened(folder, self.settings(**changes))

    def _opened(self, folder: str, settings: Mapping[str, Any]) -> Any:
        from feast import FeatureStore

        home = self.home / folder
        home.mkdir(exist_ok=True)
        (home / "feature_store.yaml").write_text(yaml.safe_dump(dict(settings)))
        return with_registry_of_its_own(FeatureStore(repo_path=str(home)))

    def stock(self) -> Any:
        """Stock Feast over the same online store: its own classes, its own engine."""
        online = {k: v for k, v in self.online.items() if k not in ("type", "retry_seconds", "lock_timeout_seconds")}
        online["type"] = "sqlite" if "path" in online else "redis"
        settings = self.settings(online_store=online, offline_store={"type": "duckdb"})
        del settings["batch_engine"]
        return self._opened("stock", settings)

    def objects(self) -> list[Any]:
        from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
        from feast.types import Array, Bool, Float32, Int64, String, UnixTimestamp

        kinds = [String, Int64, Float32, Bool, UnixTimestamp, Array(String), Array(Float32)]
        entity = Entity(name="content_id", join_keys=["content_id"], value_type=ValueType.STRING)
        source = FileSource(
            name="parts",
            path=str(self.parts / "part-*.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
            tags={WORK_KEY_TAG: "work_key"},
        )
        view = FeatureView(
            name="view",
            entities=[entity],
            ttl=self.ttl,
            schema=[
                Field(name="content_id", dtype=String),
                *(Field(name=name, dtype=kind) for name, kind in zip(FEATURES, kinds, strict=True)),
            ],
            source=PushSource(name="pushes", batch_source=source),
        )
        return [entity, view]

    def add(self, rows: Sequence[Mapping[str, Any]], **options: Any) -> Path:
        """Commits rows as the next part."""
        path = self.parts / f"part-{len(list(self.parts.glob('*.parquet'))):04d}.parquet"
        pq.write_table(pa.Table.from_pylist([dict(r) for r in rows], schema=SCHEMA), path, **options)
        return path

    def materialise(self, **named: Any) -> int:
        store = self.store
        return int(store._get_provider().batch_engine.materialise(store.get_feature_view("view"), **named))

    def push(self, rows: Sequence[Mapping[str, Any]], store: Any = None) -> None:
        import pandas as pd
        from feast.data_source import PushMode

        frame = pd.DataFrame([{k: v for k, v in r.items() if k != "work_key"} for r in rows])
        (store or self.store).push("pushes", frame, to=PushMode.ONLINE)

    def read(self, ids: Sequence[str], features: Sequence[str] = FEATURES, store: Any = None) -> dict[str, list[Any]]:
        answer = (store or self.store).get_online_features([f"view:{f}" for f in features], {"content_id": list(ids)})
        return {**answer.to_dict(), "statuses": [list(r.statuses) for r in answer.proto.results[1:]]}

    def titles(self, *ids: str) -> list[str | None]:
        """Through the batched reader."""
        from feature_repo.plugins.online.reader import OnlineReader

        found = OnlineReader(self.store, ["view:title"]).read({"content_id": list(ids)})
        return list(found.table["view__title"].to_pylist())


def latest(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The slow, obviously right reduction: the latest row of each key by event, then created, then order."""
    best: dict[str, dict[str, Any]] = {}
    for one in rows:
        held = best.get(one["content_id"])
        order = (one["event_timestamp"], one["created_timestamp"])
        if held is None or order >= (held["event_timestamp"], held["created_timestamp"]):
            best[one["content_id"]] = dict(one)
    return {key: one for key, one in best.items() if one["work_key"] != "removed"}
