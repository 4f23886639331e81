"""Corners that a review found: each would be a crash, a lost row or a wrong value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast.protos.feast.types.Value_pb2 import Value

from core.errors import ConfigError, StorageError
from feature_repo.plugins.online.reader import OnlineFeatures, OnlineReader
from feature_repo.plugins.online.rows import rows_of_protos
from feature_repo.plugins.online.values import KINDS, block_of, decode, encode
from feature_repo.plugins.online.views import ViewPlan, plan_view
from tests.feature_repo.plugins.online.conftest import needs_redis, online_settings
from tests.feature_repo.plugins.online.world import FEATURES, World, row


def test_columns_of_different_lengths_are_refused(sqlite_world: World) -> None:
    plan = ViewPlan("view", "project", ("a", "b"), ("STRING", "STRING"), (), (), 0, 0)
    with pytest.raises(StorageError, match="different lengths"):
        plan.entity_keys([pa.array(["x"]), pa.array(["y"] * 1000)])
    with pytest.raises(StorageError, match="different lengths"):
        encode([pa.array([1]), pa.array([1, 2])], [KINDS["INT64"]] * 2)
    reader = OnlineReader(sqlite_world.store, ["view:title"])
    with pytest.raises(ConfigError, match="content_id: 1, other: 2"):
        reader.read({"content_id": ["a"], "other": ["b", "c"]})


def test_times_before_1970_compare_exactly(world: World) -> None:
    """Microseconds apart, in Redis's script too, whose numbers are doubles."""
    for seconds in (-3_000_000_000.0, -1_767_225_600.5, -1_767_225_599.0):
        key = str(seconds)
        world.add([row(key, seconds, 5, title="first")])
        world.materialise()
        world.add([row(key, seconds - 0.000001, 9, title="a microsecond before")])
        assert world.materialise() == 0
        world.add([row(key, seconds + 0.000001, 0, title="a microsecond after")])
        assert world.materialise() == 1
        assert world.titles(key) == ["a microsecond after"]


def test_a_pushed_row_that_lacks_features_leaves_them(world: World) -> None:
    world.add([row("a", 1, 0, title="old", plays=7), row("b", 1, 0, title="old", plays=8)])
    world.materialise()
    online, config = world.store._get_provider().online_store, world.store.config
    plan = plan_view(config, world.store.get_feature_view("view"))
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    from tests.feature_repo.plugins.online.world import at

    def key(name: str) -> Any:
        return EntityKey(join_keys=["content_id"], entity_values=[Value(string_val=name)])

    data = [
        (key("a"), {"title": Value(string_val="new")}, at(2), None),
        (key("b"), {"plays": Value(int64_val=9)}, at(2), None),
    ]
    rows = rows_of_protos(plan, data, online.key_suffix(config))
    assert online.write_rows(config, plan, rows, pushed=True) == 2
    found = world.read(["a", "b"], ["title", "plays"])
    assert (found["title"], found["plays"]) == (["new", "old"], [7, 9])


def test_a_push_of_some_features_keeps_the_row_young(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """However many are read: the row is as old as the latest of its values."""
    from datetime import UTC, datetime, timedelta

    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    from tests.feature_repo.plugins.online.world import START

    world = World(tmp_path, online_settings("sqlite", tmp_path, request), ttl=timedelta(hours=1))
    now = (datetime.now(UTC) - START).total_seconds()
    ids = [f"c{n}" for n in range(12)]
    world.add([row(one, now - 7200, 0, title="old", plays=1, tempo=2.0) for one in ids])
    world.materialise()
    online, config = world.store._get_provider().online_store, world.store.config
    plan = plan_view(config, world.store.get_feature_view("view"))
    keys = [EntityKey(join_keys=["content_id"], entity_values=[Value(string_val=one)]) for one in ids]
    data = [(key, {"plays": Value(int64_val=9)}, datetime.now(UTC), None) for key in keys]
    online.write_rows(config, plan, rows_of_protos(plan, data, online.key_suffix(config)), pushed=True)
    for features in (["plays", "tempo"], ["plays", "title"]):
        reader = OnlineReader(world.store, [f"view:{name}" for name in features])
        for count in (1, 8, 9, 12):
            found = reader.read({"content_id": ids[:count]})
            assert found.status[f"view__{features[1]}"].tolist() == [1] * count
            assert found.table["view__plays"].to_pylist() == [9] * count


def test_a_matrix_where_there_is_no_list() -> None:
    null = Value(null_val=0).SerializeToString()
    empty = Value(float_list_val={}).SerializeToString()
    kind = KINDS["FLOAT_LIST"]
    for values, width in (([null, null], 0), ([null, empty], 0), ([null, None], 3)):
        column = decode(block_of([values]), kind)
        found = OnlineFeatures._odd_matrix(column, "embedding", width or None)
        assert found.shape == (2, width) and np.isnan(found).all()


def test_a_reader_follows_what_it_is_asked_for(sqlite_world: World) -> None:
    sqlite_world.push([row("a", 1, 0, title="one", plays=3)])
    reader = OnlineReader(sqlite_world.store, ["view:title"])
    assert reader.read({"content_id": ["a"]}).table.column_names == ["content_id", "view__title"]
    reader.features = ["view:plays"]
    assert reader.read({"content_id": ["a"]}).table.column_names == ["content_id", "view__plays"]
    reader.full_feature_names = False
    assert reader.read({"content_id": ["a"]}).table.column_names == ["content_id", "plays"]


def test_a_null_time_of_feast_s_is_no_number(world: World) -> None:
    world.push([row("a", 1, 0, title="a", published=None, plays=3)], store=world.stock())
    reader = OnlineReader(world.store, ["view:published", "view:plays"])
    found = reader.read({"content_id": ["a"]})
    assert found.table["view__published"].to_pylist() == [None]
    np.testing.assert_array_equal(found.numbers(), [[np.nan, 3.0]])


@needs_redis
def test_two_materialisations_at_once(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: Any) -> None:
    """One looks, the other writes something newer, the first writes: it must look again."""
    from feature_repo.plugins.online import redis_store

    world = World(tmp_path, online_settings("redis", tmp_path, request))
    world.add([row("a", 1, 0, title="older")])
    real, calls = redis_store._Batch._write, {"n": 0}

    def between(self: Any, *arguments: Any) -> bool:
        calls["n"] += 1
        if calls["n"] == 1:
            other = World.__new__(World)
            other.__dict__.update(world.__dict__)
            other.add([row("a", 2, 0, title="newer")])
            other.store = world.open("other")
            other.materialise()
        return real(self, *arguments)

    monkeypatch.setattr(redis_store._Batch, "_write", between)
    world.materialise()
    assert calls["n"] >= 2
    assert world.titles("a") == ["newer"]


@needs_redis
def test_a_cluster_whose_slots_move(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    import redis

    world = World(tmp_path, online_settings("cluster", tmp_path, request))
    names = [f"c{n}" for n in range(40)]
    world.add([row(name, 1, 0, title="one") for name in names])
    world.materialise()
    client = world.store._get_provider().online_store._get_client(world.store.config.online_store)
    # The client believes that the first node has every slot, as after a move that it did not hear of.
    first = client.get_nodes()[0]
    for slot in client.nodes_manager.slots_cache:
        client.nodes_manager.slots_cache[slot] = [first]
    assert world.titles(*names) == ["one"] * 40
    for slot in client.nodes_manager.slots_cache:
        client.nodes_manager.slots_cache[slot] = [first]
    world.add([row(name, 2, 0, title="two") for name in names])
    assert world.materialise() >= 1
    assert world.titles(*names) == ["two"] * 40
    assert isinstance(client, redis.RedisCluster)


def test_a_lost_sqlite_file_is_filled_again(sqlite_world: World) -> None:
    world = sqlite_world
    world.add([row("a", 1, 0, title="one")])
    world.materialise()
    for path in world.home.glob("online.db*"):
        path.unlink()
    world.store = world.open()
    assert world.materialise() == 1
    assert world.titles("a") == ["one"]


def test_names_with_slashes_quotes_and_accents(tmp_path: Path) -> None:
    from feast import FeatureView, Field, FileSource
    from feast.types import Int64, String

    from tests.feature_repo.plugins.online.conftest import SQLITE
    from tests.feature_repo.plugins.online.world import US, at

    world = World(tmp_path, {"type": SQLITE, "path": str(tmp_path / "online.db")})
    names = ["a", "a/b", 'q"uote', "é", "b"]
    path = tmp_path / "odd.parquet"
    import pyarrow.parquet as pq

    columns = {"content_id": ["x"], **{name: [n] for n, name in enumerate(names)}, "when": pa.array([at(0)], US)}
    pq.write_table(pa.table(columns), path)
    view = FeatureView(
        name="odd",
        entities=[world.objects()[0]],
        schema=[Field(name="content_id", dtype=String), *(Field(name=name, dtype=Int64) for name in names)],
        source=FileSource(name="odd_source", path=str(path), timestamp_field="when"),
    )
    world.store.apply([view])
    assert world.store._get_provider().batch_engine.materialise(world.store.get_feature_view("odd")) == 1
    found = OnlineReader(world.store, [f"odd:{name}" for name in names]).read({"content_id": ["x"]})
    assert [found.table[f"odd__{name}"].to_pylist() for name in names] == [[n] for n in range(5)]
    assert len(FEATURES) == 7


def test_whole_numbers_are_seconds_and_lists_of_times_are_floored() -> None:
    kind, lists = KINDS["UNIX_TIMESTAMP"], KINDS["UNIX_TIMESTAMP_LIST"]
    values = [Value.FromString(v or b"").unix_timestamp_val for v in encode([pa.array([1, 2])], [kind]).values(0)]
    assert values == [1, 2]
    column = pa.array([[1_500_000, -1], None, []], pa.list_(pa.timestamp("us")))
    found = [list(Value.FromString(v or b"").unix_timestamp_list_val.val) for v in encode([column], [lists]).values(0)]
    assert found == [[1, -1], [], []]


def test_a_view_without_entities(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    import pyarrow.parquet as pq
    from feast import FeatureView, Field, FileSource
    from feast.types import Int64

    from tests.feature_repo.plugins.online.conftest import SQLITE
    from tests.feature_repo.plugins.online.world import US, at

    world = World(tmp_path, {"type": SQLITE, "path": str(tmp_path / "online.db")})
    path = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"count": [3, 4], "when": pa.array([at(0), at(1)], US)}), path)
    source = FileSource(name="whole_source", path=str(path), timestamp_field="when")
    view = FeatureView(name="whole", entities=[], schema=[Field(name="count", dtype=Int64)], source=source)
    world.store.apply([view])
    world.store.materialize(datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC), feature_views=["whole"])
    found = OnlineReader(world.store, ["whole:count"]).read({})
    assert found.table["whole__count"].to_pylist() == [4]
