"""One suite over the offline profiles: what a profile puts in the place of the embedded one, and what it lacks.

The cases are those of `test_offline`, which name their store and sources through that module's globals; a profile
replaces the globals, so each runs the same lines. `World` is a random history that two profiles are asked about.
"""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Float32, Int32, Int64, String, UnixTimestamp

from tests.feature_repo.plugins import test_offline
from tests.feature_repo.plugins.test_offline import T0, US, day

ONLINE = "feature_repo.plugins.online.sqlite_store.EarmarkSqliteOnlineStore"


@dataclass(frozen=True)
class Profile:
    """`source` makes a source of Parquet files, `settings` the profile's part of `feature_store.yaml`; `names` stand
    for globals of `test_offline`. `notimpl`: cases that fail, and why. `elsewhere`: cases that cannot be asked here,
    and what is tested in their place."""

    name: str
    source: Callable[..., Any]
    settings: Callable[[Path], dict[str, Any]]
    names: Mapping[str, Any] = field(default_factory=dict)
    notimpl: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def configure(self, root: Path, **options: Any) -> None:
        """Writes `feature_store.yaml`; `options` are the offline store's."""
        settings = self.settings(root)
        text = {
            "project": "test",
            "provider": "local",
            "registry": {"registry_type": "sql", "path": f"sqlite:///{root / 'registry.db'}"},
            "online_store": {"type": ONLINE, "path": str(root / "online.db")},
            "entity_key_serialization_version": 3,
        }
        text |= settings | {"offline_store": settings["offline_store"] | options}
        (root / "feature_store.yaml").write_text(yaml.safe_dump(text))

    def cases(self) -> dict[str, Callable[..., None]]:
        """The cases of `test_offline` as tests of this profile, by name. A gap that closes fails the suite."""
        found = {}
        for name, case in vars(test_offline).items():
            if not name.startswith("test_") or not isinstance(case, types.FunctionType) or name in self.elsewhere:
                continue
            # A copy: a mark on the function itself would mark it in its own module too.
            copy = types.FunctionType(case.__code__, case.__globals__, name, case.__defaults__)
            found[name] = functools.wraps(case)(copy)
            if name in self.notimpl:
                found[name] = pytest.mark.xfail(strict=True, reason=self.notimpl[name])(found[name])
        return found

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """`test_offline` with this profile's names."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"configure": self.configure, "FileSource": self.source, **self.names}.items():
                patch.setattr(test_offline, name, value)
            yield


def embedded_settings(root: Path) -> dict[str, Any]:
    return {
        "offline_store": {"type": test_offline.TYPE},
        "batch_engine": {"type": "feature_repo.plugins.engine.EarmarkEngine"},
    }


EMBEDDED = Profile("duckdb", FileSource, embedded_settings)


def spark_source(path: str, name: str | None = None, **options: Any) -> Any:
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SparkSource(name=name or path, path=path, file_format="parquet", **options)


def spark_options(root: Path) -> dict[str, Any]:
    from feature_repo.spark import spark_settings

    settings = spark_settings(root)
    del settings["offline_store"]["staging_location"]  # a case asks what happens without one
    return settings


def spark_profile() -> Profile:
    from feature_repo.plugins.spark.store import EarmarkSparkOfflineStore

    names = {"EarmarkOfflineStore": EarmarkSparkOfflineStore}
    return Profile("spark", spark_source, spark_options, names, SPARK_NOTIMPL, SPARK_ELSEWHERE)


BATCHES = "a stream of batches: a Spark answer is collected whole, or stays in Spark (to_spark_df)"
SPARK_NOTIMPL = {
    "test_batches_are_the_whole": BATCHES,
    "test_on_demand_views_in_one_piece_and_in_batches": BATCHES,
    "test_no_entity_rows_at_all": BATCHES,
    "test_queries_of_several_statements_and_of_none": "a query in Spark's SQL is one statement",
    "test_queries_may_end_in_anything": "a query of entity rows is in the store's own SQL, here Spark's",
    "test_entity_rows_as_arrow_and_as_sql": "a query of entity rows is in the store's own SQL, here Spark's",
}
SPARK_ELSEWHERE = {
    "test_the_same_as_stock_feast_where_it_is_right": "test_the_same_rows_as_the_embedded_store",
    "test_threads_share_a_store": "test_threads_share_a_session: a Spark job a read is too slow for as many reads",
    "test_configuration": "test_settings: the options are others",
}


DIM = 64
KEYS = 120
ITEM_SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        ("title", pa.string()),
        ("plays", pa.int64()),
        ("explicit", pa.bool_()),
        ("published_at", US),
        ("tags", pa.list_(pa.field("element", pa.string()))),
        ("late", pa.float32()),
        pa.field("event_timestamp", US, nullable=False),
        pa.field("created_timestamp", US, nullable=False),
        pa.field("work_key", pa.string(), nullable=False),
    ]
)
VECTORS_SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        ("embedding", pa.list_(pa.field("element", pa.float32()))),
        pa.field("event_timestamp", US, nullable=False),
        pa.field("created_timestamp", US, nullable=False),
    ]
)
ENTITIES = [
    Entity(name="content_id", join_keys=["content_id"], value_type=ValueType.STRING),
    Entity(name="market", join_keys=["market"], value_type=ValueType.INT32),
]


class World:
    """A history with everything that stores get wrong: equal instants and equal created times, nulls in numbers, keys
    that nobody has, parts that lack a column or hold a narrower type, exact ends of a TTL."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.keys = [f"item/{n} é" for n in range(KEYS)]

    def write(self, root: Path) -> None:
        for number in range(5):
            self._part(root, "items", number, self._items(400, without_late=number < 2, narrow=number == 0))
            self._part(root, "vectors", number, self._vectors(150))
        charts = pa.table(
            {
                "item": self.rng.choice(self.keys, 900),
                "market": pa.array(self.rng.integers(0, 3, 900), pa.int32()),
                "at": pa.array([day(float(d)) for d in self.rng.integers(0, 40, 900) / 4], US),
                "rank": pa.array([int(n) if n % 7 else None for n in self.rng.integers(1, 200, 900)], pa.int64()),
            }
        )
        pq.write_table(charts, root / "charts.parquet")

    def _part(self, root: Path, view: str, number: int, rows: pa.Table) -> None:
        path = root / "offline" / view / f"date=2026-01-{number + 1:02}" / f"part-{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)

    def _times(self, count: int) -> dict[str, pa.Array]:
        event = self.rng.integers(0, 40, count) / 4  # few instants, so that many rows tie
        created = event + self.rng.integers(0, 3, count)
        times = {"event_timestamp": event, "created_timestamp": created}
        return {name: pa.array([day(float(d)) for d in days], US) for name, days in times.items()}

    def _some(self, values: list[Any]) -> list[Any]:
        return [None if gone else value for value, gone in zip(values, self.rng.random(len(values)) < 0.2, strict=True)]

    def _items(self, count: int, without_late: bool, narrow: bool) -> pa.Table:
        published = self.rng.integers(0, 10**15, count)
        numbers = self.rng.integers(0, 2**31 - 1, count) if narrow else 2**53 + self.rng.integers(0, 1000, count)
        columns = {
            "content_id": self.rng.choice(self.keys, count).tolist(),
            "title": self._some([f"title {n} 🎧" for n in range(count)]),
            "plays": self._some(numbers.tolist()),
            "explicit": self._some((self.rng.random(count) < 0.5).tolist()),
            "published_at": self._some([T0 + timedelta(microseconds=int(n)) for n in published]),
            "tags": self._some([["x", None, str(n)][: n % 4] for n in range(count)]),
            "late": self._some(self.rng.random(count).tolist()),
            "work_key": ["k"] * count,
        }
        rows = pa.table(columns | self._times(count)).select(ITEM_SCHEMA.names).cast(ITEM_SCHEMA)
        if narrow:
            rows = rows.set_column(2, "plays", rows["plays"].cast(pa.int32()))
        return rows.drop_columns(["late"]) if without_late else rows

    def _vectors(self, count: int) -> pa.Table:
        vectors = self.rng.standard_normal((count, DIM)).astype(np.float32).tolist()
        columns = {"content_id": self.rng.choice(self.keys, count).tolist(), "embedding": self._some(vectors)}
        return pa.table(columns | self._times(count)).cast(VECTORS_SCHEMA)

    def definitions(self, profile: Profile, root: Path) -> list[Any]:
        item, market = ENTITIES
        dated = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created_timestamp"}
        items = FeatureView(
            name="items",
            entities=[item],
            ttl=timedelta(0),
            schema=[
                Field(name="content_id", dtype=String),
                Field(name="title", dtype=String),
                Field(name="plays", dtype=Int64),
                Field(name="explicit", dtype=Bool),
                Field(name="published_at", dtype=UnixTimestamp),
                Field(name="tags", dtype=Array(String)),
                Field(name="late", dtype=Float32),
            ],
            source=profile.source(name="items_parts", path=str(root / "offline/items/*/part-*.parquet"), **dated),
        )
        vectors = FeatureView(
            name="vectors",
            entities=[item],
            ttl=timedelta(days=3),
            schema=[Field(name="content_id", dtype=String), Field(name="embedding", dtype=Array(Float32))],
            source=profile.source(name="vectors_parts", path=str(root / "offline/vectors/*/part-*.parquet"), **dated),
        )
        charts = FeatureView(
            name="charts",
            entities=[item, market],
            ttl=timedelta(hours=30),
            schema=[
                Field(name="content_id", dtype=String),
                Field(name="market", dtype=Int32),
                Field(name="place", dtype=Int64),
            ],
            source=profile.source(
                name="charts",
                path=str(root / "charts.parquet"),
                timestamp_field="event_timestamp",
                field_mapping={"item": "content_id", "at": "event_timestamp", "rank": "place"},
            ),
        )
        return [item, market, items, vectors, charts]

    def entities(self, count: int) -> pd.DataFrame:
        """Entity rows: keys that nobody has and none at all, duplicates, times that are a feature's own to the
        microsecond, and one off."""
        days = self.rng.integers(-4, 60, count) / 4
        off = self.rng.integers(-1, 2, count)
        times = [day(float(d)) + timedelta(microseconds=int(n)) for d, n in zip(days, off, strict=True)]
        frame = pd.DataFrame(
            {
                "label": self.rng.random(count),
                "content_id": self._some(self.rng.choice([*self.keys, "nobody"], count).tolist()),
                "event_timestamp": times,
                "market": self.rng.integers(0, 4, count),
            }
        )
        return pd.concat([frame, frame.sample(count // 10, random_state=1)], ignore_index=True)


FEATURES = [f"items:{n}" for n in ITEM_SCHEMA.names[1:7]] + ["vectors:embedding", "charts:place"]


def build(profile: Profile, root: Path, definitions: list[Any]) -> FeatureStore:
    """An applied store of a profile."""
    root.mkdir(parents=True, exist_ok=True)
    profile.configure(root)
    made = FeatureStore(repo_path=str(root))
    made.apply(definitions)
    return made
