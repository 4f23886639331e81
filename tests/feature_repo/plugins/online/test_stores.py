"""One suite over every online store: what is written is what Feast writes, and never older over newer."""

from __future__ import annotations

import threading
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ConfigError, StorageError
from feature_repo.plugins.online.reader import OnlineReader
from tests.feature_repo.plugins.online.conftest import STORES, online_settings
from tests.feature_repo.plugins.online.world import FEATURES, World, at, row

PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 3, 4
FULL = {
    "title": "Straße 😀",
    "plays": 2**53 + 1,
    "tempo": 0.1,
    "explicit": False,
    "published": at(0.75),
    "tags": ["a", "", "ü"],
    "embedding": [0.5, -1.0, 2.0],
}


def rows() -> list[dict[str, Any]]:
    return [row("full", 10.25, 20, **FULL), row("nulls", 11, 20), row("empty", 12, 20, title="", tags=[], embedding=[])]


def expected(name: str) -> list[Any]:
    full: Any = FULL[name]
    if name == "tempo":
        full = float(np.float32(0.1))
    if name == "published":
        full = at(0)  # Feast's values keep whole seconds
    empty = {"title": "", "tags": [], "embedding": []}.get(name)
    return [full, None, empty, None]


def test_stock_feast_reads_what_we_write(world: World) -> None:
    world.add(rows())
    assert world.materialise() == 3
    ids = ["full", "nulls", "empty", "nobody"]
    for store in (world.store, world.stock()):
        found = world.read(ids, store=store)
        for name in FEATURES:
            values = [v.replace(tzinfo=UTC) if hasattr(v, "tzinfo") else v for v in found[name]]
            assert values == expected(name), name
    assert world.read(ids)["statuses"] == [[PRESENT] * 3 + [NOT_FOUND]] * len(FEATURES)


def test_we_read_what_stock_feast_writes(world: World) -> None:
    world.push([row("full", 10, 20, **FULL)], store=world.stock())
    found = OnlineReader(world.store, [f"view:{f}" for f in FEATURES]).read({"content_id": ["nobody", "full", "full"]})
    assert found.table["view__title"].to_pylist() == [None, FULL["title"], FULL["title"]]
    assert found.table["view__plays"].to_pylist() == [None, FULL["plays"], FULL["plays"]]
    assert found.table["view__tags"].to_pylist() == [None, FULL["tags"], FULL["tags"]]
    assert found.table["view__published"].to_pylist() == [None, at(0), at(0)]
    np.testing.assert_array_equal(found.matrix("view__embedding")[1:], [[0.5, -1.0, 2.0]] * 2)
    assert np.isnan(found.matrix("view__embedding")[0]).all()
    assert found.event_us["view"].tolist() == [0, int(at(10).timestamp() * 1e6), int(at(10).timestamp() * 1e6)]
    assert found.status["view__title"].tolist() == [NOT_FOUND, PRESENT, PRESENT]


def test_only_what_is_asked_for_in_any_order(world: World) -> None:
    world.add(rows())
    world.materialise()
    reader = OnlineReader(world.store, ["view:tempo", "view:plays"])
    found = reader.read({"content_id": ["nulls", "full"]})
    assert found.table.column_names == ["content_id", "view__tempo", "view__plays"]
    np.testing.assert_array_equal(found.numbers(["view__plays", "view__tempo"])[1], np.float32([2**53, 0.1]))
    assert np.isnan(found.numbers()[0]).all()
    for wrong in ("view__title", "view__embedding"):
        with pytest.raises(ConfigError, match="view__tempo"):
            found.numbers([wrong])
    with pytest.raises(ConfigError, match="no feature 'view__embedding'"):
        found.matrix("view__embedding")
    with pytest.raises(ConfigError, match="needs the join key 'content_id'"):
        reader.read({"track": ["full"]})
    assert reader.read({"content_id": []}).table.num_rows == 0


def test_reads_of_any_size(world: World) -> None:
    """Few contents are read in other ways than many: with keys asked for twice, and keys that are not there."""
    from feature_repo.plugins.online.reader import OnlineReader

    world.add([row(f"c{n}", n, 0, title=f"title {n}", plays=n, embedding=[n / 2, -n]) for n in range(70)])
    world.materialise()
    reader = OnlineReader(world.store, ["view:embedding", "view:title", "view:plays"])
    for size in (0, 1, 2, 7, 8, 9, 47, 48, 49, 70):
        asked = [n * 7 % 70 for n in range(size)]
        asked[2:5] = [3, 3, 99][: len(asked[2:5])]
        ids = [f"c{n}" for n in asked]
        there = [n < 70 for n in asked]
        found = reader.read({"content_id": ids})
        table = found.table
        assert table["content_id"].to_pylist() == ids
        assert table["view__title"].to_pylist() == [f"title {n}" if n < 70 else None for n in asked]
        assert table["view__plays"].to_pylist() == [n if n < 70 else None for n in asked]
        expected = np.array([[n / 2, -n] if n < 70 else [np.nan] * 2 for n in asked], np.float32).reshape(-1, 2)
        np.testing.assert_array_equal(found.matrix("view__embedding", 2), expected)
        assert found.status["view__title"].tolist() == [PRESENT if one else NOT_FOUND for one in there]
        event = [int(at(n).timestamp() * 1e6) if n < 70 else 0 for n in asked]
        assert found.event_us["view"].tolist() == event
        if size:
            answer = world.store.get_online_features(["view:title", "view:plays"], {"content_id": ids})
            told = answer.to_dict()
            assert told["title"] == table["view__title"].to_pylist()
            assert told["plays"] == table["view__plays"].to_pylist()
            states = [list(one.statuses) for one in answer.proto.results]
            assert states[1:] == [found.status["view__title"].tolist()] * 2
            times = [[t.ToMicroseconds() for t in one.event_timestamps] for one in answer.proto.results]
            assert times[1:] == [event] * 2


def test_a_newer_row_is_never_overwritten_by_an_older_one(world: World) -> None:
    """By event, then created time, whoever wrote: a materialisation, a push, stock Feast."""
    world.add([row("a", 10, 20, title="first"), row("b", 10, 20, title="first")])
    assert world.materialise() == 2
    world.push([row("a", 9, 99, title="older")])
    assert world.titles("a") == ["first"]
    world.push([row("a", 10, 19, title="computed before")])
    assert world.titles("a") == ["first"]
    world.push([row("a", 10, 21, title="recomputed")])
    assert world.titles("a") == ["recomputed"]
    world.push([row("a", 10.000001, 0, title="a microsecond later")])
    assert world.titles("a") == ["a microsecond later"]
    # Stock Feast knows nothing of created times; its later event counts, and ours before it does not win.
    world.push([row("b", 30, 40, title="stock")], store=world.stock())
    world.add([row("b", 29, 50, title="late")])
    assert world.materialise() == 0
    assert world.titles("b") == ["stock"]
    world.add([row("b", 30, 60, title="recomputed after stock")])
    world.materialise()
    assert world.titles("b") == ["recomputed after stock"]


def test_the_latest_of_a_push_with_a_key_twice(world: World) -> None:
    world.push([row("a", 2, 5, title="new"), row("a", 1, 9, title="old"), row("a", 2, 4, title="middle")])
    assert world.titles("a") == ["new"]


@pytest.mark.parametrize("name", STORES)
def test_what_is_older_than_its_ttl(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from datetime import datetime

    world = World(tmp_path, online_settings(name, tmp_path, request), ttl=timedelta(hours=1))
    now = datetime.now(UTC).replace(microsecond=0)
    fresh = row("fresh", 0, 0, title="fresh") | {"event_timestamp": now - timedelta(minutes=59)}
    stale = row("stale", 0, 0, title="stale") | {"event_timestamp": now - timedelta(minutes=61)}
    world.add([fresh, stale])
    world.materialise()
    found = world.read(["fresh", "stale", "none"], ["title"])
    assert found["title"] == ["fresh", None, None]
    assert found["statuses"] == [[PRESENT, OUTSIDE_MAX_AGE, NOT_FOUND]]
    answer = OnlineReader(world.store, ["view:title"]).read({"content_id": ["fresh", "stale", "none"]})
    assert answer.table["view__title"].to_pylist() == ["fresh", None, None]
    assert answer.status["view__title"].tolist() == [PRESENT, OUTSIDE_MAX_AGE, NOT_FOUND]


def test_forgetting_and_teardown(world: World) -> None:
    import pyarrow as pa

    from feature_repo.plugins.online.views import plan_view

    world.add(rows())
    world.materialise()
    online, config = world.store._get_provider().online_store, world.store.config
    plan = plan_view(config, world.store.get_feature_view("view"))
    online.forget(config, plan, plan.entity_keys([pa.array(["full", "nobody"])], online.key_suffix(config)))
    assert world.titles("full", "empty") == [None, ""]
    assert len(online.ledger(config, plan).parts) == 2
    online.update(config, [world.store.get_feature_view("view")], [], [], [], False)
    assert online.ledger(config, plan).parts == {}
    world.store.apply(world.objects())
    online.update(config, [], [world.store.get_feature_view("view")], [], [], False)
    assert world.titles("full", "empty") == [None, None]
    assert world.materialise() == 3


def test_many_threads_read_one_store(world: World) -> None:
    world.add([row(f"c{n}", n, 0, title=f"title {n}", embedding=[float(n)] * 8) for n in range(300)])
    world.materialise()
    reader = OnlineReader(world.store, ["view:title", "view:embedding"])
    wrong: list[Any] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            chosen = rng.integers(0, 300, 40)
            found = reader.read({"content_id": [f"c{n}" for n in chosen]})
            titles = found.table["view__title"].to_pylist()
            if titles != [f"title {n}" for n in chosen] or (found.matrix("view__embedding")[:, 3] != chosen).any():
                wrong.append((seed, titles))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_pushes_beside_a_materialisation(world: World) -> None:
    """Whatever the interleaving, each key ends with its latest row."""
    world.add([row(f"c{n}", 10, 0, title="old") for n in range(4000)])
    pushed = [f"c{n}" for n in range(0, 4000, 40)]
    failures: list[BaseException] = []

    def push() -> None:
        try:
            for content_id in pushed:
                world.push([row(content_id, 20, 0, title="pushed")])
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=push)
    thread.start()
    for _ in range(3):
        world.materialise(again=True)
    thread.join()
    assert not failures
    assert world.titles(*pushed) == ["pushed"] * len(pushed)
    assert world.titles("c1", "c2") == ["old", "old"]


def test_a_store_that_was_not_applied(tmp_path: Path) -> None:
    from tests.feature_repo.plugins.online.conftest import SQLITE

    world = World(tmp_path, {"type": SQLITE, "path": str(tmp_path / "online.db")})
    other = world.open("other", online_store={"type": SQLITE, "path": str(tmp_path / "elsewhere.db")})
    with pytest.raises(StorageError, match="run feast apply"):
        world.read(["a"], ["title"], store=other)
