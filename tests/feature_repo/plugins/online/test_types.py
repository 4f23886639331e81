"""Every type of Feast is written as Feast writes it, and read; a view is deleted whatever is in it."""

from __future__ import annotations

import decimal
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import StorageError
from feature_repo.plugins.online.reader import OnlineReader
from tests.feature_repo.plugins.online.conftest import CLUSTER_LAST, online_settings
from tests.feature_repo.plugins.online.world import US, World, at, row

UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


@pytest.fixture(params=CLUSTER_LAST)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, online_settings(request.param, tmp_path, request))


def columns() -> dict[str, tuple[Any, pa.Array, Any, Any]]:
    """Feast's type, a column of two rows, what Feast's call returns of the first, and what `OnlineReader` does."""
    from feast import types as t

    text_map = pa.map_(pa.string(), pa.string())
    pair = pa.struct([("name", pa.string()), ("age", pa.int64())])
    struct = t.Struct({"name": t.String, "age": t.Int64})
    nested = pa.list_(pa.list_(pa.int64()))
    person = {"name": "Ann", "age": 3}
    return {
        "map": (t.Map, pa.array([[("k", "v")], None], text_map), {"k": "v"}, [("k", "v")]),
        "json": (t.Json, pa.array(['{"a": [1, null]}', None]), {"a": [1, None]}, '{"a": [1, null]}'),
        "struct": (struct, pa.array([person, None], pair), person, person),
        "uuid": (t.Uuid, pa.array([UUID, None]), uuid.UUID(UUID), UUID),
        "decimal": (t.Decimal, pa.array(["1.10", None]), decimal.Decimal("1.10"), "1.10"),
        "strings": (t.Set(t.String), pa.array([["a"], None]), {"a"}, ["a"]),
        "numbers": (t.Set(t.Int64), pa.array([[3], None]), {3}, [3]),
        "lists": (t.Array(t.Array(t.Int64)), pa.array([[[1, 2], [3]], None], nested), [[1, 2], [3]], [[1, 2], [3]]),
        "image": (t.ImageBytes, pa.array([b"\x89PNG", None]), b"\x89PNG", b"\x89PNG"),
        "maps": (t.Array(t.Map), pa.array([[[("k", "v")]], None], pa.list_(text_map)), [{"k": "v"}], [[("k", "v")]]),
        "jsons": (t.Array(t.Json), pa.array([["[1]", "2"], None]), [[1], 2], ["[1]", "2"]),
    }


def apply(world: World) -> Any:
    from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
    from feast.types import String

    table = {"content_id": ["a", "b"], "when": pa.array([at(1), at(1)], US)}
    table |= {name: column for name, (_, column, _, _) in columns().items()}
    pq.write_table(pa.table(table), world.home / "rare.parquet")
    source = FileSource(name="rare_source", path=str(world.home / "rare.parquet"), timestamp_field="when")
    entity = Entity(name="content_id", join_keys=["content_id"], value_type=ValueType.STRING)
    schema = [Field(name="content_id", dtype=String)]
    schema += [Field(name=name, dtype=kind) for name, (kind, _, _, _) in columns().items()]
    pushes = PushSource(name="rare_pushes", batch_source=source)
    world.store.apply([entity, FeatureView(name="rare", entities=[entity], schema=schema, source=pushes)])
    return world.store.get_feature_view("rare")


def test_rare_types(world: World) -> None:
    view = apply(world)
    assert world.store._get_provider().batch_engine.materialise(view) == 2
    refs = [f"rare:{name}" for name in columns()]
    for store in (world.store, world.stock()):
        found = store.get_online_features(refs, {"content_id": ["a", "b", "none"]}).to_dict()
        for name, (_, _, expected, _) in columns().items():
            assert found[name] == [expected, None, None], name
    table = OnlineReader(world.store, refs).read({"content_id": ["a", "b", "none"]}).table
    for name, (_, _, _, expected) in columns().items():
        assert table[f"rare__{name}"].to_pylist() == [expected, None, None], name
    world.store.apply([], objects_to_delete=[view], partial=False)
    assert "rare" not in {one.name for one in world.store.list_feature_views()}


def test_rare_types_have_feast_s_bytes(sqlite_world: World) -> None:
    """The same rows pushed through Feast's own store and materialised by ours."""
    import sqlite3

    from feast.data_source import PushMode

    world = sqlite_world
    view = apply(world)
    world.store._get_provider().batch_engine.materialise(view)
    connection = sqlite3.connect(world.home / "online.db")
    query = (
        "SELECT entity_key, feature_name, value, value_text FROM test_rare WHERE feature_name != 'maps' ORDER BY 1, 2"
    )
    ours = connection.execute(query).fetchall()
    connection.execute("DELETE FROM test_rare")
    connection.commit()
    frame = pq.read_table(world.home / "rare.parquet").to_pandas(maps_as_pydicts="strict")
    frame["maps"] = None  # Feast cannot push lists of maps
    world.stock().push("rare_pushes", frame, to=PushMode.ONLINE)
    assert connection.execute(query).fetchall() == ours
    assert len(ours) == 2 * (len(columns()) - 1)


def test_numbers_of_another_width_are_accepted(world: World) -> None:
    """As Feast's own stores do; the reader converts what fits and says what does not."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import DoubleList, Value

    online, config = world.store._get_provider().online_store, world.store.config
    view = world.store.get_feature_view("view")
    key = EntityKey(join_keys=["content_id"], entity_values=[Value(string_val="a")])
    values = {
        "tempo": Value(double_val=0.1),
        "plays": Value(int32_val=7),
        "embedding": Value(double_list_val=DoubleList(val=[0.5])),
    }
    online.online_write_batch(config, view, [(key, values, at(1), None)], None)
    for store in (world.store, world.stock()):
        found = store.get_online_features(["view:tempo", "view:plays"], {"content_id": ["a"]}).to_dict()
        assert (found["tempo"], found["plays"]) == ([0.1], [7])
    answer = OnlineReader(world.store, ["view:tempo", "view:plays", "view:embedding"]).read({"content_id": ["a"]})
    assert answer.table["view__tempo"].to_pylist() == [float(np.float32(0.1))]
    assert answer.table["view__plays"].to_pylist() == [7]
    np.testing.assert_array_equal(answer.matrix("view__embedding"), [[0.5]])
    np.testing.assert_array_equal(answer.numbers(["view__plays", "view__tempo"]), np.float32([[7, 0.1]]))
    online.online_write_batch(config, view, [(key, {"plays": Value(string_val="x")}, at(2), None)], None)
    assert world.store.get_online_features(["view:plays"], {"content_id": ["a"]}).to_dict()["plays"] == ["x"]
    with pytest.raises(StorageError, match="of type string_val, where int64_val is declared; materialise or push"):
        _ = OnlineReader(world.store, ["view:plays"]).read({"content_id": ["a"]}).table


def test_a_null_key_is_no_row(world: World) -> None:
    world.add([row(f"c{n}", 1, 0, title=f"t{n}") for n in range(60)])
    world.materialise()
    for count in (3, 60):
        ids: list[Any] = [f"c{n}" for n in range(count)]
        ids[1] = None
        titles = [None if one is None else f"t{one[1:]}" for one in ids]
        found = OnlineReader(world.store, ["view:title"]).read({"content_id": ids})
        assert found.table["content_id"].to_pylist() == ids and found.table["view__title"].to_pylist() == titles
        assert found.status["view__title"].tolist() == [3 if one is None else 1 for one in ids]
        answer = world.store.get_online_features(["view:title"], {"content_id": ids})
        assert answer.to_dict()["title"] == titles
    frame = pd.DataFrame([row(name, 5, 0, title="new") for name in ("c0", None)]).drop(columns=["work_key"])
    with pytest.raises(StorageError, match="row 1 has no value for the join key 'content_id'; nothing of this batch"):
        world.store.write_to_online_store("view", frame)
    assert world.titles("c0") == ["t0"]


def test_a_join_key_that_the_source_lacks(sqlite_world: World) -> None:
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import String

    world = sqlite_world
    pq.write_table(pa.table({"title": ["x"], "when": pa.array([at(1)], US)}), world.home / "short.parquet")
    entity = Entity(name="artist_id", join_keys=["artist_id"], value_type=ValueType.STRING)
    source = FileSource(name="short_source", path=str(world.home / "short.parquet"), timestamp_field="when")
    schema = [Field(name="artist_id", dtype=String), Field(name="title", dtype=String)]
    world.store.apply([entity, FeatureView(name="short", entities=[entity], schema=schema, source=source)])
    with pytest.raises(StorageError, match=r"no file of .*short\.parquet has a column 'artist_id'"):
        world.store.materialize_incremental(datetime.now(UTC), feature_views=["short"])


def on_demand(world: World) -> list[Any]:
    from feast import Field, OnDemandFeatureView
    from feast.transformation.pandas_transformation import PandasTransformation
    from feast.types import Int64, String

    text = "def loud(frame):\n    import pandas as pd\n"
    text += "    return pd.DataFrame({'shout': frame['title'].str.upper(), 'double': frame['plays'].fillna(0) * 2})\n"
    names: dict[str, Any] = {}
    exec(text, names)
    entity, view = world.objects()
    persisted = OnDemandFeatureView(
        name="loud",
        entities=[entity],
        sources=[view[["title", "plays"]]],
        schema=[Field(name="shout", dtype=String), Field(name="double", dtype=Int64)],
        feature_transformation=PandasTransformation(udf=names["loud"], udf_string=text),
        mode="pandas",
        write_to_online_store=True,
    )
    return [entity, view, persisted]


def test_persisted_on_demand_views(world: World) -> None:
    """Materialised, read by our store and by Feast's own, and written by a client."""
    world.store.apply(on_demand(world))
    future = row("a", 1, 0, title="not yet") | {"event_timestamp": datetime.now(UTC) + timedelta(hours=1)}
    world.add([row("a", 1, 0, title="one", plays=3), row("b", 1, 0, title="two", plays=4), future])
    world.store.materialize(at(0), datetime(2100, 1, 1, tzinfo=UTC))
    assert world.titles("a", "b") == ["one", "two"]
    for store in (world.store, world.stock()):
        found = store.get_online_features(["loud:shout", "loud:double"], {"content_id": ["a", "b", "none"]}).to_dict()
        assert found["shout"] == ["ONE", "TWO", None]
        assert found["double"] == [6, 8, None]
    world.store.materialize_incremental(datetime.now(UTC))
    frame = pd.DataFrame([{"content_id": "c", "title": "three", "plays": 5}])
    world.store.write_to_online_store("loud", frame)
    found = world.store.get_online_features(["loud:shout"], {"content_id": ["c"]}).to_dict()
    assert found["shout"] == ["THREE"]
    world.store.teardown()


def test_json_of_a_map_is_text() -> None:
    """A map whose values are no strings is not cut short."""
    from feast.protos.feast.types.Value_pb2 import Map, Value

    from feature_repo.plugins.online.messages import decode_messages

    value = Value(map_val=Map(val={"n": Value(int64_val=3)})).SerializeToString()
    found = decode_messages([value, None, b""], pa.map_(pa.string(), pa.string()))
    assert [dict(one) if one else None for one in found.to_pylist()] == [{"n": json.dumps(3)}, None, None]
