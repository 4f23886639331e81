"""Feast over what a run made: definitions, both kinds of read, materialisation against Feast's own, removal."""

from __future__ import annotations

import glob
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import ConfigError, NotFound
from core.features import CONTENT
from core.storage import open_storage
from core.tables import Tables, now_us, rows_to_table
from feature_repo import store as repo
from feature_repo.ledger import up_to_date
from feature_repo.materialise import materialise, remove_online, unseen
from feature_repo.reads import online_features, training_set
from feature_repo.store import apply, open_store
from tests.pipelines.conftest import Shelf

Pair = tuple[Shelf, Path]


@pytest.fixture
def feast(shelf_and_store: Pair) -> Any:
    return open_store(shelf_and_store[1])


def ids(shelf: Shelf) -> list[str]:
    return [row["content_id"] for row in shelf.rows]


def test_two_stores_in_one_process_are_not_taken_for_each_other(
    shelf_and_store: Pair, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast remembers definitions by where they lie in memory, where another store's may lie next: here, all do."""
    from feast.infra.registry import proto_registry_utils

    monkeypatch.setattr(proto_registry_utils, "id", lambda _: 1, raising=False)
    for root in (shelf_and_store[1], own_store, shelf_and_store[1]):
        store = open_store(root)
        for _ in range(2):  # as read when it is opened, and once more
            (view,) = [v for v in store.registry.list_feature_views("earmark", allow_cache=True) if v.name == "content"]
            assert str(view.batch_source.path).startswith(f"{glob.escape(str(root))}/")
            store.refresh_registry()


def test_the_definitions(feast: Any) -> None:
    assert {e.name for e in feast.list_entities()} >= {"content_id", "show_id"}
    assert {s.name for s in feast.list_feature_services()} == {
        "recommender",
        "moderation",
        "playback",
        "show",
        "similarity",
    }
    names = {view.name for view in feast.list_feature_views()}
    assert {"content", "acoustic", "speech", "text_signals", "visual", "show_profile"} < names
    # A view a model, projected under a stable name.
    assert sum(name.startswith("audio__musicnn") for name in names) == 1
    projections = {p.name_to_use() for p in feast.get_feature_service("recommender").feature_view_projections}
    assert {"text", "audio", "image"} < projections
    assert feast.get_data_source("content_push") is not None
    assert {v.name for v in feast.list_on_demand_feature_views()} == {"text_query", "audio_query"}


@pytest.mark.slow
def test_feast_s_own_command_applies_the_repo(own_store: Path) -> None:
    feast = [str(Path(sys.executable).parent / "feast"), "-c", str(own_store / "feast")]
    done = subprocess.run([*feast, "apply"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = subprocess.run([*feast, "feature-services", "list"], capture_output=True, text=True)
    assert "recommender" in listed.stdout and "playback" in listed.stdout


def test_online_reads_keep_the_order_and_know_what_is_missing(feast: Any, shelf_and_store: Pair) -> None:
    shelf, _ = shelf_and_store
    asked = [*reversed(ids(shelf)), "nobody", ids(shelf)[0]]
    rows = online_features(feast, asked).to_pylist()
    assert [row["content_id"] for row in rows] == asked
    titles = {row["content_id"]: row["title"] for row in shelf.rows}
    assert [row["content__title"] for row in rows] == [titles.get(i) for i in asked]
    assert all(value is None for name, value in rows[len(shelf.rows)].items() if name != "content_id")
    # An integer stays one beside nulls.
    assert rows[-1]["acoustic__source_sample_rate_hz"] == 16_000
    assert isinstance(rows[-1]["acoustic__source_sample_rate_hz"], int)
    assert abs(np.linalg.norm(rows[-1]["audio__embedding"]) - 1) < 1e-5


def test_shows_are_read_by_their_own_entity(feast: Any) -> None:
    answer = feast.get_online_features(
        features=feast.get_feature_service("show"), entity_rows=[{"show_id": "album 0"}, {"show_id": "album 1"}]
    ).to_dict()
    assert answer["content_count"] == [2, 1]  # sounds 0 and 2, sound 1
    assert answer["total_duration_s"] == pytest.approx([2.0, 1.0])


def test_the_similarity_of_a_request(feast: Any, shelf_and_store: Pair) -> None:
    asked = ["sound 0", "sound 1", "text/0 😀"]
    stored = online_features(feast, asked)["audio__embedding"].to_pylist()
    text = [1.0] + [0.0] * 383
    request = {"query_audio": [stored[0]] * 3, "query_text": [text] * 3}
    found = online_features(feast, asked, service="similarity", request=request)
    values = found["audio_query__audio_similarity"].to_pylist()
    expected = float(np.dot(stored[0], stored[1]))
    assert values[:2] == pytest.approx([1.0, expected], abs=1e-5) and values[2] is None
    with pytest.raises(ValueError, match="has 2 values"):
        online_features(feast, asked[:1], service="similarity", request={"query_audio": [[1, 0]], "query_text": [text]})


def test_a_training_set_keeps_rows_columns_and_order(feast: Any, shelf_and_store: Pair) -> None:
    shelf, _ = shelf_and_store
    rng = np.random.default_rng(0)
    asked = [str(c) for c in rng.choice([*ids(shelf), "nobody"], 200)]
    first = {row["content_id"]: pd.Timestamp(row["updated_at"]) for row in shelf.rows}
    times = [
        first.get(c, pd.Timestamp("2026-01-01", tz="UTC")) + timedelta(days=int(d))
        for c, d in zip(asked, rng.integers(-3, 3, 200), strict=True)
    ]
    entities = pd.DataFrame({"content_id": asked, "event_timestamp": times, "label": np.arange(200)})
    found = training_set(feast, entities, service="recommender")
    assert found["label"].to_pylist() == list(range(200))
    titles = {row["content_id"]: row["title"] for row in shelf.rows}
    expected = [titles.get(c) if c in first and t >= first[c] else None for c, t in zip(asked, times, strict=True)]
    assert found["content__title"].to_pylist() == expected


def test_training_rows_without_what_is_needed(feast: Any) -> None:
    with pytest.raises(ConfigError, match="event_timestamp"):
        training_set(feast, pa.table({"content_id": ["a"]}))


def test_naive_times_are_utc(feast: Any) -> None:
    frame = pd.DataFrame(
        {"content_id": ["sound 0"] * 2, "event_timestamp": ["2025-12-31 23:59:59", "2026-01-01 00:00:00"]}
    )
    assert training_set(feast, frame, service="playback")["content__title"].to_pylist() == [None, "Sound number 0"]


@pytest.mark.slow
def test_our_materialisation_equals_feast_s(own_store: Path, shelf_and_store: Pair) -> None:
    """Stock Feast, with its own SQLite store, DuckDB store and engine, from 1970 into an empty database."""
    asked = ids(shelf_and_store[0])
    ours = {s: online_features(open_store(own_store), asked, service=s) for s in ("recommender", "moderation")}
    config = own_store / "feast" / "feature_store.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["online_store"] = {"type": "sqlite", "path": str(own_store / "feast" / "stock.db")}
    settings["offline_store"] = {"type": "duckdb"}
    del settings["batch_engine"]
    config.write_text(yaml.safe_dump(settings))
    feast = open_store(own_store)
    feast.apply([*feast.list_entities(), *feast.list_feature_views()])  # makes the tables
    feast.materialize(datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    for service, table in ours.items():
        theirs = online_features(feast, asked, service=service)
        assert theirs.to_pylist() == table.to_pylist()


def apply_again(store: Path) -> None:
    (store / "feast" / "applied").unlink()
    apply(store, json.loads((store / "release.json").read_text()))


def content(content_id: str, title: str, event: datetime) -> dict[str, Any]:
    now = now_us()
    return {"content_id": content_id, "title": title, EVENT: event, CREATED: now, WORK_KEY: f"key {title}"}


def test_late_old_and_recomputed_rows(own_store: Path) -> None:
    """What filters on event time would miss or get wrong."""
    tables = Tables(open_storage(own_store))

    def add(*rows: dict[str, Any]) -> list[str | None]:
        now = now_us()
        tables.commit(CONTENT, rows_to_table(CONTENT, list(rows)), now, "test")
        materialise(open_store(own_store))
        found = online_features(open_store(own_store), ["old", "sound 0"], service="playback")
        return list(found["content__title"].to_pylist())

    ancient, past = datetime(1999, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
    # A row of the last century arrives now; an older version does not replace a newer one.
    assert add(content("old", "ancient", ancient), content("sound 0", "past", past)) == ["ancient", "Sound number 0"]
    # The same event computed again replaces what it recomputes.
    assert add(content("old", "recomputed", ancient)) == ["recomputed", "Sound number 0"]
    assert not unseen(open_store(own_store))
    assert materialise(open_store(own_store)) == {}


def test_a_materialisation_that_was_killed_is_done_again(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_store / "feast" / "online.db").unlink()
    apply_again(own_store)
    feast = open_store(own_store)
    online = feast._get_provider().online_store
    real, calls = online.write_rows, {"n": 0}

    def dying(*arguments: Any, **named: Any) -> int:
        calls["n"] += 1
        if calls["n"] == 3:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(online, "write_rows", dying)
    with pytest.raises(KeyboardInterrupt):
        materialise(feast)
    monkeypatch.undo()
    before = {view.name for view in feast.list_feature_views() if not unseen_view(feast, view)}
    written = materialise(open_store(own_store))
    assert before and written and not before & set(written), "what was written before the kill is not written again"
    assert not unseen(open_store(own_store))


def test_what_is_up_to_date_is_known_without_feast(own_store: Path) -> None:
    """As opening Feast would find, whatever happens to rows, tables, definitions and time."""
    (own_store / "feast" / "online.db").unlink(missing_ok=True)
    parts = [entry.path for entry in open_storage(own_store).entries("offline") if entry.path.endswith(".parquet")]

    def known() -> bool:
        found = up_to_date(own_store, parts)
        assert found == (not unseen(open_store(own_store)))
        return found

    apply_again(own_store)
    assert not known()
    materialise(open_store(own_store))
    assert known()
    feast = open_store(own_store)
    view = feast.get_feature_view("speech")
    view.features.pop()
    feast.apply([view])
    assert not known()
    materialise(open_store(own_store))
    assert known()
    with closing(sqlite3.connect(own_store / "feast" / "online.db")) as connection:
        connection.execute("DROP TABLE earmark_visual")
        connection.commit()
        assert not known()
        materialise(open_store(own_store))
        assert known()
        connection.execute("UPDATE earmark_ledger SET due_us = 1 WHERE view = 'earmark_content'")
        connection.commit()
        assert not known()


def test_a_store_that_feast_tore_down_is_applied_again(own_store: Path) -> None:
    materialise(open_store(own_store))
    open_store(own_store).teardown()
    release = json.loads((own_store / "release.json").read_text())
    assert apply(own_store, release), "the mark of the last time does not count"
    assert not apply(own_store, release)
    materialise(open_store(own_store))
    found = online_features(open_store(own_store), ["sound 0"], service="playback")
    assert found["content__title"].to_pylist() == ["Sound number 0"]


def unseen_view(feast: Any, view: Any) -> bool:
    return bool(feast._get_provider().batch_engine.unseen(view))


def test_the_push_source_serves_at_once(own_store: Path) -> None:
    from feast.data_source import PushMode

    feast = open_store(own_store)
    now = pd.Timestamp.now(tz="UTC")
    row = {f.name: None for f in CONTENT.features} | {
        "content_id": "pushed",
        "title": "Hot off the press",
        "kind": "track",
    }
    frame = pd.DataFrame(
        [
            {
                **row,
                EVENT: now,
                CREATED: now,
                "published_at": now,
                "explicit": False,
                "has_audio": True,
                "has_image": False,
                "show_id": "s",
                "declared_language": "en",
            }
        ]
    )
    feast.push("content_push", frame, to=PushMode.ONLINE)
    assert online_features(feast, ["pushed"], service="playback")["content__title"].to_pylist() == ["Hot off the press"]


def test_removal_online(own_store: Path) -> None:
    feast = open_store(own_store)
    remove_online(feast, ["sound 0", "nobody"])
    gone, kept = online_features(feast, ["sound 0", "sound 1"]).to_pylist()
    assert all(v is None for n, v in gone.items() if n != "content_id") and kept["content__title"] == "Sound number 1"


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="run earmark on a catalogue first"):
        open_store(tmp_path)
    with pytest.raises(ConfigError, match="memcached"):
        repo.repo_yaml(tmp_path, "memcached")


def test_a_copied_store_is_not_taken_for_its_original(shelf_and_store: Pair, tmp_path: Path) -> None:
    """Until a run has mended its paths: a removal in the copy would empty the original."""
    import shutil

    from core.config import Config
    from pipelines.inprocess import run_catalog

    shelf, store = shelf_and_store
    shutil.copytree(store, tmp_path / "copy")
    with pytest.raises(ConfigError, match="was moved or copied: its Feast repository still points at"):
        open_store(tmp_path / "copy")
    run_catalog(shelf.source, str(tmp_path / "copy"), Config(device="cpu"))
    assert open_store(tmp_path / "copy").list_feature_views()
    assert open_store(store).list_feature_views()


def test_the_name_of_a_store_in_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own, and the same again; another for a copy. What an earlier version put into Redis is found again."""
    import shutil

    monkeypatch.setenv("EARMARK_REDIS", "127.0.0.1:1")
    stores = [tmp_path / name for name in ("a", "b")]
    names = [repo.write_repo(store, "redis") for store in stores]
    assert names[0] != names[1] and all(name.startswith("earmark_") for name in names)
    assert [repo.write_repo(store, profile) for store in stores for profile in ("embedded", "redis")] == [
        "earmark",
        names[0],
        "earmark",
        names[1],
    ]
    shutil.copytree(stores[0], tmp_path / "copy")
    assert repo.write_repo(tmp_path / "copy", "redis") not in names
    earlier = tmp_path / "earlier"
    (earlier / "feast").mkdir(parents=True)
    (earlier / "feast" / "feature_store.yaml").write_text(repo.settings_text(repo.repo_yaml(earlier, "redis")))
    assert [repo.write_repo(earlier, profile) for profile in ("redis", "embedded", "redis")] == ["earmark"] * 3
    shutil.copytree(earlier, tmp_path / "copy of earlier")
    assert repo.write_repo(tmp_path / "copy of earlier", "redis").startswith("earmark_")
