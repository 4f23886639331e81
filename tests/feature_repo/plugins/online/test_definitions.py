"""A view that is defined anew is read anew, and the ledger goes with the rows, whoever removes them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.plugins.online.redis_keys import own_keys, owner
from tests.feature_repo.plugins.online.conftest import CLUSTER_LAST, needs_redis, online_settings
from tests.feature_repo.plugins.online.world import FEATURES, US, World, at, row


@pytest.fixture(params=CLUSTER_LAST)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, online_settings(request.param, tmp_path, request))


def define(world: World, name: str = "songs", folder: str = "songs", **changes: Any) -> Any:
    """Applies a view over `<folder>/*.parquet` with some of its definition changed; returns it as registered."""
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Int64, String

    key, key_type = changes.get("key", ("content_id", "STRING"))
    features = changes.get("features", {"title": String})
    entity = Entity(name=key, join_keys=[key], value_type=ValueType[key_type])
    source = FileSource(
        name=f"{name}_source",
        path=str(world.home / folder / "*.parquet"),
        timestamp_field=changes.get("timestamp", "when"),
        created_timestamp_column=changes.get("created", ""),
        field_mapping=changes.get("mapping", {}),
    )
    schema = [Field(name=key, dtype=Int64 if key_type == "INT64" else String)]
    schema += [Field(name=feature, dtype=kind) for feature, kind in features.items()]
    view = FeatureView(name=name, entities=[entity], schema=schema, source=source)
    world.store.apply([entity, view])
    return world.store.get_feature_view(name)


def save(world: World, folder: str = "songs", **columns: Any) -> None:
    (world.home / folder).mkdir(exist_ok=True)
    base: dict[str, Any] = {"content_id": ["a", "b"], "when": pa.array([at(10), at(20)], US)}
    path = world.home / folder / f"part-{len(list((world.home / folder).glob('*')))}.parquet"
    pq.write_table(pa.table({**base, **columns}), path)


def materialise(world: World, name: str = "songs") -> int:
    return int(world.store._get_provider().batch_engine.materialise(world.store.get_feature_view(name)))


def values(world: World, feature: str, name: str = "songs", **keys: Any) -> list[Any]:
    keys = keys or {"content_id": ["a", "b"]}
    for store in (world.stock(), world.store):  # Feast's own classes see the same
        found = store.get_online_features([f"{name}:{feature}"], keys).to_dict()[feature]
    return list(found)


def test_a_feature_that_is_added_renamed_or_of_another_type(world: World) -> None:
    from feast.types import Float64, Int64, String

    save(world, title=["one", "two"], plays=[7, 8])
    define(world)
    assert materialise(world) == 2
    define(world, features={"title": String, "plays": Int64})
    assert materialise(world) == 2
    assert (values(world, "title"), values(world, "plays")) == (["one", "two"], [7, 8])
    define(world, features={"title": String, "plays": Float64})
    assert materialise(world) == 2
    assert values(world, "plays") == [7.0, 8.0] and isinstance(values(world, "plays")[0], float)
    define(world, features={"title": String, "played": Int64}, mapping={"plays": "played"})
    materialise(world)
    assert values(world, "played") == [7, 8]
    define(world, features={"played": String}, mapping={"title": "played"})
    materialise(world)
    assert values(world, "played") == ["one", "two"]
    assert materialise(world) == 0, "the same definition has nothing new"
    # The first definition again: what the others read in between does not count as read by it.
    define(world)
    assert materialise(world) == 2
    assert values(world, "title") == ["one", "two"]


def test_a_redefinition_keeps_a_newer_push(world: World) -> None:
    """Another feature does not make the times of two rows incomparable."""
    from feast.data_source import PushMode

    world.add([row("a", 1, 0, title="offline", plays=3)])
    world.materialise()
    frame_row = {k: v for k, v in row("a", 5, 0, title="pushed", plays=4).items() if k != "work_key"}
    import pandas as pd

    world.store.push("pushes", pd.DataFrame([frame_row]), to=PushMode.ONLINE)
    entity, view = world.objects()
    view.features.pop()
    world.store.apply([entity, view])
    assert len(world.store.get_feature_view("view").features) == len(FEATURES) - 1
    assert world.materialise() == 0
    assert world.titles("a") == ["pushed"]


def test_a_redefinition_that_is_materialised_in_two_steps(world: World) -> None:
    """What the first step's end leaves out is online as the earlier definition read it, and is written anew."""
    from datetime import UTC, datetime

    from feast.types import Int64, String

    made = pa.array([at(1), at(1)], US)
    save(world, title=["one", "two"], plays=[7, 8], made=made)
    define(world, created="made")
    materialise(world)
    define(world, created="made", features={"title": String, "plays": Int64})
    world.store.materialize_incremental(at(15))
    assert values(world, "plays") == [7, None]
    world.store.materialize_incremental(datetime.now(UTC))
    assert values(world, "plays") == [7, 8]
    assert materialise(world) == 0


def test_a_push_after_another_time_column_stays(world: World) -> None:
    """It is not removed with the rows of the earlier definition, nor compared with their times. Another place of the
    source alone removes nothing at a push: a service may have the repository in another folder."""
    import pandas as pd
    from feast import Entity, FeatureView, Field, FileSource, PushSource
    from feast.data_source import PushMode
    from feast.types import String

    def songs(folder: str, when: str) -> None:
        entity = Entity(name="content_id", join_keys=["content_id"])
        source = FileSource(name="songs_source", path=str(world.home / folder / "*.parquet"), timestamp_field=when)
        schema = [Field(name="content_id", dtype=String), Field(name="title", dtype=String)]
        pushes = PushSource(name="song_pushes", batch_source=source)
        world.store.apply([entity, FeatureView(name="songs", entities=[entity], schema=schema, source=pushes)])

    def push(when: str, seconds: float, title: str) -> None:
        frame = pd.DataFrame({"content_id": ["a"], when: [pd.Timestamp(at(seconds))], "title": [title]})
        world.store.push("song_pushes", frame, to=PushMode.ONLINE)

    earlier = pa.array([at(1), at(2)], US)
    save(world, title=["one", "two"], published=earlier)
    songs("songs", "when")
    materialise(world)
    songs("songs", "published")
    push("published", 3, "pushed again")
    assert values(world, "title") == ["pushed again", None]
    materialise(world)
    assert values(world, "title") == ["pushed again", "two"]
    songs("others", "published")
    push("published", 4, "pushed elsewhere")
    assert values(world, "title") == ["pushed elsewhere", "two"]


def test_a_repository_in_another_folder() -> None:
    """A check-out that moves is the same definition, and so is a repository that moves together with its source."""
    from types import SimpleNamespace

    from feature_repo.plugins.online.definition import _place

    def place(repo: str, source: str) -> str:
        return _place(SimpleNamespace(repo_path=repo), SimpleNamespace(path=source, name="s"))

    assert place("/builds/1/repo", "/data/offline/*.parquet") == place("/builds/2/repo", "/data/offline/*.parquet")
    assert place("/a/store/feast", "/a/store/offline") == place("/b/store/feast", "/b/store/offline")
    assert place("/a/store/feast", "/a/store/offline") != place("/a/store/feast", "/a/other/offline")


def test_a_killed_redefinition_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from feast.types import Int64, String

    for content_id, plays in (("a", 7), ("b", 8)):
        columns = {"content_id": [content_id], "when": pa.array([at(1)], US), "title": ["t"], "plays": [plays]}
        save(world, **columns)
    define(world)
    engine = world.store._get_provider().batch_engine
    engine._window_rows = 1
    materialise(world)
    define(world, features={"title": String, "plays": Int64})
    online = type(world.store._get_provider().online_store)
    real, calls = online.write_rows, {"n": 0}

    def dying(self: Any, *arguments: Any, **named: Any) -> int:
        calls["n"] += 1
        if calls["n"] == 2:
            raise KeyboardInterrupt
        return int(real(self, *arguments, **named))

    monkeypatch.setattr(online, "write_rows", dying)
    with pytest.raises(KeyboardInterrupt):
        materialise(world)
    monkeypatch.undo()
    assert values(world, "plays") == [7, None]
    assert materialise(world) == 1
    assert values(world, "plays") == [7, 8]


def test_other_times_another_source_and_other_keys(world: World) -> None:
    """Rows of the earlier definition go, even where their times are later: what is online is what is offline."""
    earlier = pa.array([at(1), at(2)], US)
    save(world, title=["one", "two"], published=earlier, number=[1, 2])
    define(world)
    materialise(world)
    define(world, timestamp="published", features=_features("title"))
    assert materialise(world) == 2
    assert values(world, "title") == ["one", "two"]
    # Another source, whose rows are older and fewer.
    save(world, folder="others", content_id=["a"], title=["other"], when=pa.array([at(0)], US))
    define(world, folder="others")
    assert materialise(world) == 1
    assert values(world, "title") == ["other", None]
    # Another entity: the rows under the earlier keys are removed.
    define(world, key=("number", "INT64"))
    assert materialise(world) == 2
    assert values(world, "title", number=[1, 2]) == ["one", "two"]
    # A key that another column is mapped to.
    define(world, mapping={"number": "nr"}, key=("nr", "INT64"))
    materialise(world)
    assert values(world, "title", nr=[1, 2]) == ["one", "two"]
    define(world)
    materialise(world)
    assert values(world, "title") == ["one", "two"]


def _features(*names: str) -> dict[str, Any]:
    from feast.types import String

    return dict.fromkeys(names, String)


def test_services_and_projections_see_what_was_added(world: World) -> None:
    from feast import FeatureService
    from feast.types import Int64, String

    from feature_repo.plugins.online.reader import OnlineReader

    save(world, title=["one", "two"], plays=[7, 8])
    define(world)
    materialise(world)
    view = define(world, features={"title": String, "plays": Int64})
    world.store.apply([FeatureService(name="few", features=[view[["plays"]].with_name("counts")])])
    materialise(world)
    found = OnlineReader(world.store, "few").read({"content_id": ["a", "b"]})
    assert found.table["counts__plays"].to_pylist() == [7, 8]


def test_a_view_deleted_and_created_again(world: World) -> None:
    save(world, title=["one", "two"])
    view = define(world)
    materialise(world)
    world.store.apply([], objects_to_delete=[view], partial=False)
    define(world)
    assert values(world, "title") == [None, None]
    assert materialise(world) == 2
    # By Feast's own classes, which do not know of a ledger.
    world.stock().apply([], objects_to_delete=[world.store.get_feature_view("songs")], partial=False)
    world.store.refresh_registry()
    define(world)
    assert materialise(world) == 2
    assert values(world, "title") == ["one", "two"]


@pytest.mark.parametrize("by_stock", [False, True])
def test_a_teardown_takes_the_ledger_along(world: World, by_stock: bool) -> None:
    world.add([row("a", 1, 0, title="one")])
    world.materialise()
    (world.stock() if by_stock else world.store).teardown()
    (world.home / "registry.db").unlink()  # Feast leaves versions of views in it, which the next apply stumbles over
    world.store = world.open()
    world.store.apply(world.objects())
    assert world.titles("a") == [None]
    assert world.materialise() == 1
    assert world.titles("a") == ["one"]


@needs_redis
@pytest.mark.parametrize("name", CLUSTER_LAST[1:])
def test_a_project_removes_its_own_keys_alone(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Names that end in each other, and rows whose keys end in names of projects."""
    settings = online_settings(name, tmp_path, request)
    worlds = {}
    for number, project in enumerate(("music", "sic", "c", "ic", "music_sic")):
        home = tmp_path / str(number)
        home.mkdir()
        world = worlds[project] = World(home, settings)
        world.store = world.open(project=project)
        world.store.apply(world.objects())
        world.add([row("a", 1, 0, title=project), row("music", 1, 0, title=project), row("sic", 2, 0, title="x")])
        world.materialise()
    for torn in ("sic", "ic", "music_sic", "c"):
        worlds[torn].store.teardown()
        del worlds[torn]
        for project, world in worlds.items():
            assert world.titles("a", "music", "sic") == [project, project, "x"]
            assert world.materialise() == 0
    world = worlds["music"]
    client = world.store._get_provider().online_store._get_client(world.store.config.online_store)
    assert {owner(key)[1] for key in client.scan_iter() if not key.startswith(b"earmark:")} == {b"music"}  # type: ignore[index]
    assert len(list(own_keys(client, "music", ["content_id"]))) == 4, "three rows and the ledger"
    world.store.teardown()
    assert not list(client.scan_iter())


@needs_redis
def test_a_deleted_view_leaves_the_other_views_of_a_row(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    world = World(tmp_path, online_settings("redis", tmp_path, request))
    world.add([row("a", 1, 0, title="one")])
    world.materialise()
    save(world, title=["song a", "song b"])
    songs = define(world)
    materialise(world)
    client = world.store._get_provider().online_store._get_client(world.store.config.online_store)
    world.store.apply([], objects_to_delete=[songs], partial=False)
    assert world.titles("a", "b") == ["one", None]
    assert len(list(own_keys(client, "test"))) == 2, "the row and the ledger of the other view"


@needs_redis
def test_a_row_that_redis_lost(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A whole materialisation brings it back; a ledger that is lost needs none."""
    world = World(tmp_path, online_settings("redis", tmp_path, request))
    world.add([row("a", 1, 0, title="one"), row("b", 1, 0, title="two")])
    world.materialise()
    client = world.store._get_provider().online_store._get_client(world.store.config.online_store)
    (lost,) = [key for key in own_keys(client, "test") if key.endswith(b"\x01\x00\x00\x00atest")]
    client.delete(lost)
    assert world.materialise() == 0 and world.titles("a", "b") == [None, "two"]
    assert world.materialise(again=True) == 2
    assert world.titles("a", "b") == ["one", "two"]
    client.flushall()
    assert world.materialise() == 2
    assert world.titles("a", "b") == ["one", "two"]


def test_tables_rows_and_files_that_sqlite_lost(sqlite_world: World) -> None:
    world = sqlite_world
    world.add([row("a", 1, 0, title="one"), row("b", 1, 0, title="two")])
    world.materialise()
    connection = sqlite3.connect(world.home / "online.db")
    connection.execute("DROP TABLE test_view")
    connection.commit()
    assert world.materialise() == 2 and world.titles("a", "b") == ["one", "two"]
    connection.execute("DELETE FROM test_view WHERE value_text = 'one' OR entity_key LIKE '%a'")
    connection.commit()
    assert world.materialise() == 0 and world.titles("a", "b") == [None, "two"]
    assert world.materialise(again=True) == 2 and world.titles("a", "b") == ["one", "two"]
    connection.close()
    for path in world.home.glob("online.db*"):
        path.unlink()
    # The same process, whose connection would write to a file without a name.
    assert world.materialise() == 2 and world.titles("a", "b") == ["one", "two"]
    assert world.stock().get_online_features(["view:title"], {"content_id": ["a"]}).to_dict()["title"] == ["one"]


def test_whose_a_redis_key_is() -> None:
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    for keys, given in (
        (["id"], [Value(string_val="music")]),
        (["b", "a"], [Value(int64_val=3), Value(bytes_val=b"x")]),
    ):
        key = _redis_key("sic", EntityKey(join_keys=keys, entity_values=given))
        assert owner(key) == (sorted(keys), b"sic")
        assert owner(key[:-4]) is None
    for other in (b"", b"celery-task-music", b"earmark:parts:music:view"):
        assert owner(other) is None
