"""The job on a run's store: what is tampered with online is found, and nothing else."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from core.config import Config
from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import ConfigError, NotFound
from core.features import CONTENT, VISUAL
from core.keys import REMOVED
from core.storage import open_storage
from core.tables import Tables, now_us, rows_to_table
from feature_repo.materialise import materialise
from feature_repo.plugins.online.views import plan_view
from feature_repo.store import apply, open_store
from pipelines.consistency import consistency, repair
from tests.pipelines.conftest import make_shelf


@pytest.fixture(scope="module")
def enriched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines.inprocess import run_catalog

    folder = tmp_path_factory.mktemp("consistent")
    shelf = make_shelf(folder / "catalog", sounds=3, texts=3)
    run_catalog(shelf.source, str(folder / "store"), Config(device="cpu"))
    return folder / "store"


@pytest.fixture
def store(enriched: Path, tmp_path: Path) -> Path:
    """A copy to change; everything is materialised anew, because definitions and ledger hold the folder's path."""
    copy = tmp_path / "store"
    shutil.copytree(enriched, copy)
    for name in ("registry.db", "applied", "online.db"):
        (copy / "feast" / name).unlink()
    apply(copy, json.loads((copy / "release.json").read_text()))
    materialise(open_store(copy))
    return copy


def disagreements(found: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {view["view"]: view["disagree"] for view in found["views"] if view["disagree"]}


def view_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(view for view in found["views"] if view["view"] == name)


def test_a_store_agrees_with_itself(enriched: Path) -> None:
    found = consistency(enriched)
    assert found["share"] == 1.0 and not disagreements(found)
    sampled = {view["view"].split("__")[0]: view["sampled"] for view in found["views"]}
    assert sampled == {
        "content": 6,
        "acoustic": 3,
        "speech": 3,
        "text_signals": 6,
        "visual": 1,
        "show_profile": 2,
        "text": 6,
        "audio": 3,
        "image": 1,
        "skips": 0,  # tracks have no markers
        "moderation": 0,  # no exemplar, no decision
    }


def test_a_store_that_an_earlier_version_made_agrees_with_itself(store: Path) -> None:
    """It knows fewer features until its next run."""
    feast_store = open_store(store)
    view = feast_store.get_feature_view("acoustic")
    view.features = [feature for feature in view.features if feature.name != "truncated"]
    view.projection.features = list(view.features)
    feast_store.apply(view)
    found = consistency(store, views=["acoustic"])
    assert found["share"] == 1.0 and view_of(found, "acoustic")["sampled"] == 3


def push(store: Any, event: Any, **changed: Any) -> None:
    from feast.data_source import PushMode

    row = {f.name: None for f in CONTENT.features} | {"kind": "track", EVENT: event, CREATED: pd.Timestamp.now("UTC")}
    row |= {"declared_language": "en", "published_at": pd.Timestamp("2026-01-01", tz="UTC"), "show_id": "s"}
    row |= {"explicit": False, "has_audio": True, "has_image": False}
    store.push("content_push", pd.DataFrame([{**row, **changed}]), to=PushMode.ONLINE)


def test_what_is_tampered_with_is_found(store: Path) -> None:
    feast = open_store(store)
    online = feast._get_provider().online_store

    def forget(view: str, *keys: str) -> None:
        plan = plan_view(feast.config, feast.get_feature_view(view))
        suffix = online.key_suffix(feast.config)
        online.forget(feast.config, plan, plan.entity_keys([pa.array(keys, pa.string())], suffix))

    # sound 0 is of 2026-01-01, sound 1 of 2026-01-02 (conftest): one pushed with another value, one too new.
    push(feast, pd.Timestamp("2026-01-01", tz="UTC"), content_id="sound 0", title="Tampered")
    push(feast, pd.Timestamp("2026-06-01", tz="UTC"), content_id="sound 1", title="Sound number 1")
    forget("content", "text/0 😀")
    forget("show_profile", "album 1")
    # A version that a run would have published, and a removal, neither materialised.
    now, tables = now_us(), Tables(open_storage(store))
    later = datetime(2026, 7, 1, tzinfo=UTC)
    new = {"content_id": "sound 2", "title": "New", EVENT: later, CREATED: now, WORK_KEY: "key"}
    gone = {"content_id": "text/1 😀", EVENT: later, CREATED: now, WORK_KEY: REMOVED}
    tables.commit(CONTENT, rows_to_table(CONTENT, [new, gone]), now, "test")

    found = consistency(store)
    assert disagreements(found) == {
        "content": {"missing": 1, "stale": 2, "ahead": 1, "different": 1},
        "show_profile": {"missing": 1},
    }
    content = view_of(found, "content")
    assert content["examples"] == {
        "missing": ["text/0 😀"],
        "stale": ["sound 2", "text/1 😀"],
        "ahead": ["sound 1"],
        "different": ["sound 0"],
    }
    assert "title" in content["features"] and content["features"]["title"] == 1
    assert content["agree"] == 1 and view_of(found, "show_profile")["examples"] == {"missing": ["album 1"]}
    # What is missing or old is mended by writing everything anew; what is newer online stays.
    materialise(open_store(store), again=True)
    assert disagreements(consistency(store)) == {"content": {"ahead": 1, "different": 1}}


def test_removed_contents_agree_when_they_are_gone(store: Path) -> None:
    now, tables = now_us(), Tables(open_storage(store))
    for view in (CONTENT, VISUAL):
        row = {"content_id": "sound 0", EVENT: now, CREATED: now, WORK_KEY: REMOVED}
        tables.commit(view, rows_to_table(view, [row]), now, "removed")
    assert disagreements(consistency(store)) == {"content": {"stale": 1}, "visual": {"stale": 1}}
    materialise(open_store(store))
    assert consistency(store)["share"] == 1.0


def test_a_row_that_the_online_store_lost_is_repaired(store: Path) -> None:
    with closing(sqlite3.connect(store / "feast" / "online.db")) as connection:
        connection.execute("DELETE FROM earmark_content")
        connection.commit()
    assert view_of(consistency(store), "content")["disagree"] == {"missing": 6}
    assert materialise(open_store(store)) == {}, "the parts are noted as done"
    assert repair(store, ["content"]) == {"content": 6}
    assert consistency(store)["share"] == 1.0
    with pytest.raises(ConfigError, match="serves no view 'contents'"):
        repair(store, ["contents"])


def test_rows_of_the_future_are_online_when_their_time_comes(store: Path) -> None:
    now, later = now_us(), datetime.now(UTC) + timedelta(days=1)
    rows = [
        {"content_id": name, "title": "later", EVENT: later, CREATED: now, WORK_KEY: "k"} for name in ("sound 0", "new")
    ]
    Tables(open_storage(store)).commit(CONTENT, rows_to_table(CONTENT, rows), now, "test")
    materialise(open_store(store))
    found = consistency(store)
    assert found["share"] == 1.0 and view_of(found, "content")["sampled"] == 6


def test_the_sample_is_seeded_and_without_replacement(enriched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import consistency as job

    drawn: list[list[str]] = []
    real = job._latest

    def spying(tables: Tables, view: Any, keys: pa.Array) -> pa.Table:
        drawn.append(keys.to_pylist())
        return real(tables, view, keys)

    monkeypatch.setattr(job, "_latest", spying)
    for seed in (1, 1, 2, 3, 4):
        found = consistency(enriched, sample=3, seed=seed, views=["content"])
        assert found["sampled"] == 3 and len(set(drawn[-1])) == 3
    assert drawn[0] == drawn[1] and len({tuple(keys) for keys in drawn}) > 1


def test_what_cannot_be_compared(enriched: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="take 1 or more"):
        consistency(enriched, sample=0)
    with pytest.raises(ConfigError, match="no view 'songs'"):
        consistency(enriched, views=["songs"])
    with pytest.raises(NotFound):
        consistency(tmp_path)
