"""A row is in force from its event time on, however it gets into an online store: what is online is what the offline
store answers for the present."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from core.errors import StorageError
from feature_repo.plugins.online import pending, pushes
from feature_repo.plugins.online.reader import OnlineReader
from feature_repo.plugins.online.views import plan_view
from tests.feature_repo.plugins.online.conftest import CLUSTER_LAST, online_settings
from tests.feature_repo.plugins.online.world import START, World, row


@pytest.fixture(params=CLUSTER_LAST)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, online_settings(request.param, tmp_path, request))


def seconds_from_now(seconds: float) -> float:
    return (datetime.now(UTC) - START).total_seconds() + seconds


def later(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    """Moves the clock of the engine and of the stores."""
    monkeypatch.setattr(pending, "now_us", lambda: int((datetime.now(UTC) + timedelta(hours=hours)).timestamp() * 1e6))
    from feature_repo.plugins import engine

    for module in (engine, pushes):
        monkeypatch.setattr(module, "now_us", pending.now_us)


def everyone_reads(world: World, *ids: str) -> list[str | None]:
    """What our reader, Feast's call over our store and Feast's own store read."""
    found = world.titles(*ids)
    assert world.read(ids, ["title"])["title"] == found
    assert world.read(ids, ["title"], store=world.stock())["title"] == found
    return found


def offline(world: World, *ids: str) -> list[str | None]:
    frame = pd.DataFrame({"content_id": list(ids), "event_timestamp": [pd.Timestamp.now(tz="UTC")] * len(ids)})
    table = world.store.get_historical_features(frame, ["view:title"]).to_arrow()
    return list(table["title"].to_pylist())


def test_materialised_rows_wait_for_their_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    past, future = seconds_from_now(-60), seconds_from_now(3600)
    rows = [
        row("a", past, 0, title="present"),
        row("a", future, 1, title="future"),
        row("b", future, 1, title="future"),
    ]
    world.add(rows)
    assert world.materialise() == 1
    assert everyone_reads(world, "a", "b") == offline(world, "a", "b") == ["present", None]
    assert world.materialise() == 0
    # A later row that is in force is not held up by the one that is not.
    world.add([row("a", past + 1, 2, title="newer")])
    assert world.materialise() == 1
    assert world.materialise(again=True) == 1
    assert everyone_reads(world, "a", "b") == offline(world, "a", "b") == ["newer", None]
    engine, view = world.store._get_provider().batch_engine, world.store.get_feature_view("view")
    assert not engine.unseen(view)
    later(monkeypatch, 2)
    assert engine.unseen(view)
    assert world.materialise() == 2
    assert not engine.unseen(view)
    monkeypatch.undo()
    assert world.read(["a", "b"], ["title"], store=world.stock())["title"] == ["future", "future"]


def test_what_waits_survives_a_compaction(sqlite_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world, view = sqlite_world, sqlite_world.store.get_feature_view("view")
    engine = world.store._get_provider().batch_engine
    present = row("a", seconds_from_now(-60), 0, title="present")
    future = row("a", seconds_from_now(3600), 0, title="future")
    before = [world.add([present]), world.add([future])]
    world.materialise()
    after = world.add([present, future])
    engine.note_compaction(view, [str(path) for path in before], str(after))
    for path in before:
        path.unlink()
    assert not engine.unseen(view) and world.materialise() == 0
    later(monkeypatch, 2)
    assert engine.unseen(view) and world.materialise() == 1


def test_pushed_rows_wait_for_their_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now, future = seconds_from_now(-60), seconds_from_now(3600)
    world.push([row("a", now, 0, title="present"), row("a", future, 0, title="future"), row("b", future, 0, title="b")])
    assert everyone_reads(world, "a", "b") == ["present", None]
    world.push([row("a", now + 1, 0, title="newer")])
    assert everyone_reads(world, "a", "b") == ["newer", None]
    world.push([row("b", future, 1, title="b again"), row("b", future + 1e6, 1, title="much later")])
    assert world.materialise() == 0
    later(monkeypatch, 2)
    assert world.store._get_provider().batch_engine.unseen(world.store.get_feature_view("view"))
    world.push([row("c", now, 0, title="c")])
    monkeypatch.undo()
    assert world.read(["a", "b", "c"], ["title"], store=world.stock())["title"] == ["future", "b again", "c"]


def test_a_pushed_row_is_read_when_its_time_has_come(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By any reader, without another push or a materialisation; with all of its features, whichever are read."""
    now, future = seconds_from_now(-60), seconds_from_now(3600)
    monkeypatch.setattr(pushes, "LOOK_S", 0.0)
    world.push([row("a", now, 0, title="present"), row("b", now, 0, title="present", plays=1)])
    world.push([row("a", future, 0, title="future", plays=7), row("b", future, 0, title="future")])
    assert everyone_reads(world, "a", "b") == ["present", "present"]
    later(monkeypatch, 2)
    world.titles("b")  # the row of `a` is written, too
    monkeypatch.undo()
    stored = world.read(["a", "b"], ["title", "plays"], store=world.stock())
    assert (stored["title"], stored["plays"]) == (["future", "future"], [7, None])


def test_a_reader_that_cannot_write_reads_what_is_there(sqlite_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = sqlite_world
    world.push([row("a", seconds_from_now(-60), 0, title="present"), row("a", seconds_from_now(3600), 0, title="x")])
    later(monkeypatch, 2)
    with sqlite3.connect(world.home / "online.db") as other:
        other.execute("BEGIN IMMEDIATE")
        assert world.titles("a") == ["present"]
    monkeypatch.setattr(pushes, "LOOK_S", 0.0)
    world.store._get_provider().online_store._looks.clear()
    world.titles("a")
    monkeypatch.undo()
    assert world.read(["a"], ["title"], store=world.stock())["title"] == ["x"]


def test_of_two_rows_that_wait_the_one_created_last_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    future = seconds_from_now(3600)
    world.push([row("a", future, 5, title="created last")])
    world.push([row("a", future, 1, title="created first")])
    later(monkeypatch, 2)
    assert world.materialise() == 1
    monkeypatch.undo()
    assert world.read(["a"], ["title"], store=world.stock())["title"] == ["created last"]


def test_a_push_a_moment_ahead_waits_for_it(world: World) -> None:
    """As of a producer whose clock is a little fast."""
    moment = seconds_from_now(0.4)
    world.push([row("a", moment, 0, title="now")])
    assert seconds_from_now(0) >= moment
    assert everyone_reads(world, "a") == ["now"]


def test_what_waits_is_removed_with_its_content(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.push([row(name, seconds_from_now(3600), 0, title=name) for name in ("a", "b")])
    online, config = world.store._get_provider().online_store, world.store.config
    plan = plan_view(config, world.store.get_feature_view("view"))
    online.forget(config, plan, plan.entity_keys([pa.array(["a"])], online.key_suffix(config)))
    later(monkeypatch, 2)
    assert world.materialise() == 1
    monkeypatch.undo()
    assert world.read(["a", "b"], ["title"], store=world.stock())["title"] == [None, "b"]


def test_a_future_row_of_another_client(world: World) -> None:
    """Feast's own classes write it at once. We do not serve it, and what is in force replaces it."""
    world.push([row("a", seconds_from_now(3600), 0, title="future")], store=world.stock())
    assert world.titles("a") == [None]
    assert world.read(["a"], ["title"])["statuses"] == [[3]]
    reader = OnlineReader(world.store, ["view:title", "view:plays"])
    assert reader.read({"content_id": ["a"]}).status["view__title"].tolist() == [3]
    world.add([row("a", seconds_from_now(-60), 0, title="present")])
    assert world.materialise() == 1
    assert everyone_reads(world, "a") == ["present"]


def test_a_window_is_honoured(world: World) -> None:
    from tests.feature_repo.plugins.online.world import at

    world.add([row("a", 10, 0, title="ten"), row("a", 30, 0, title="thirty"), row("b", 20, 0, title="twenty")])
    world.store.materialize(at(5), at(20))
    assert everyone_reads(world, "a", "b") == ["ten", "twenty"]
    world.store.materialize(at(20.000001), at(29))
    assert everyone_reads(world, "a", "b") == ["ten", "twenty"]
    # Not given, the ledger decides: what the windows left out arrives.
    world.store.materialize_incremental(at(25))
    assert everyone_reads(world, "a", "b") == ["ten", "twenty"]
    world.store.materialize_incremental(at(1000))
    assert everyone_reads(world, "a", "b") == ["thirty", "twenty"]
    # A window of older rows does not replace what is newer.
    world.store.materialize(at(5), at(20))
    assert everyone_reads(world, "a", "b") == ["thirty", "twenty"]
    # A window that reaches into the future ends at the present.
    world.add([row("c", seconds_from_now(3600), 0, title="future")])
    world.store.materialize(at(0), datetime(2100, 1, 1, tzinfo=UTC))
    assert everyone_reads(world, "a", "c") == ["thirty", None]


def test_a_failing_view_does_not_stop_the_others(world: World) -> None:
    from tests.feature_repo.plugins.online.test_definitions import define, save

    broken: list[Any] = []
    for name in ("aaa", "zzz"):
        save(world, folder=name, title=["one", "two"])
        define(world, name=name, folder=name)
        broken.append(next((world.home / name).glob("*")))
    world.add([row("a", 1, 0, title="one")])
    broken[0].write_bytes(b"no parquet")
    with pytest.raises(
        StorageError, match="feature view 'aaa' could not be materialised: .* cannot be read as Parquet"
    ):
        world.store.materialize_incremental(datetime.now(UTC))
    assert everyone_reads(world, "a") == ["one"]
    broken[1].write_bytes(b"no parquet")
    with pytest.raises(
        StorageError, match="2 feature views could not be materialised, the others were: aaa: .*; zzz: "
    ):
        world.store.materialize_incremental(datetime.now(UTC))
