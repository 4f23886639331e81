"""Compaction changes which files there are and nothing that a reader sees, whenever it is interrupted."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from core.config import Config
from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import ConfigError
from core.features import CONTENT, SEGMENTS, SHOW, View, embedding_view, raw_view
from core.keys import REMOVED
from core.storage import LocalStorage, open_storage
from core.tables import rows_to_table
from feature_repo.materialise import materialise, unseen
from feature_repo.reads import online_features, training_set
from feature_repo.store import apply, open_store
from pipelines import compaction, removal
from pipelines.compaction import Limits, compact
from pipelines.context import Run
from tests.pipelines.conftest import make_shelf

AT_ONCE = Limits(grace_s=0)
START = datetime(2026, 3, 1, 22, tzinfo=UTC)
VECTORS, RAW = embedding_view("audio", "model", 2), raw_view("audio", "model", 2)


def run_in(folder: Path) -> Run:
    return Run(open_storage(folder), "test", str(folder), Config(device="cpu"))


def add(run: Run, view: View, number: int, *rows: dict[str, Any]) -> None:
    """A part a quarter of an hour after the one before."""
    created = START + timedelta(minutes=15 * number)
    full = [{EVENT: START, CREATED: created, WORK_KEY: f"key {number}", **row} for row in rows]
    run.tables.commit(view, rows_to_table(view, full), created, f"shard-{number}")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A store without Feast: four views with ten small parts and an empty one each, versions, tombstones and a table of
    segments."""
    run = run_in(tmp_path / "store")
    for view in (CONTENT, SHOW, VECTORS, RAW):
        run.tables.ensure(view)
    for number in range(10):
        later = {EVENT: START + timedelta(days=number)}
        add(
            run,
            CONTENT,
            number,
            {"content_id": f"c{number}", "title": "t"},
            {"content_id": "all", "title": f"{number}"},
        )
        add(run, SHOW, number, {"show_id": "s", "content_count": number, **later})
        add(run, VECTORS, number, {"content_id": f"c{number}", "embedding": [number, 1]})
        add(run, RAW, number, {"content_id": f"c{number}", "vector": [number, 2]})
        # Two rows that are equal in everything that a key could be.
        add(
            run,
            SEGMENTS,
            number,
            *[{"content_id": "c0", "start_s": s, "end_s": 9.0, "label": "music"} for s in (0, 0, 1)],
        )
    add(run, CONTENT, 10, {"content_id": "c3", EVENT: START + timedelta(days=1), WORK_KEY: REMOVED})
    return run


VIEWS = (CONTENT, SHOW, VECTORS, RAW, SEGMENTS)


def paths(run: Run, view: View) -> list[str]:
    return [part.path for part in run.tables.parts(view)]


def rows_of(run: Run, view: View) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True, default=str) for row in run.tables.read(view).to_pylist())


def test_every_version_stays_in_one_part(run: Run) -> None:
    before = {view.name: rows_of(run, view) for view in VIEWS}
    latest = {view.name: run.tables.latest(view) for view in (CONTENT, SHOW, VECTORS, RAW)}
    segments = paths(run, SEGMENTS)
    found = compact(run, AT_ONCE)
    assert {view.name: rows_of(run, view) for view in VIEWS} == before
    assert all(run.tables.latest(view).equals(latest[view.name]) for view in (CONTENT, SHOW, VECTORS, RAW))
    assert {name: (v["parts_before"], v["rows"]) for name, v in found["views"].items()} == {
        "content": (12, 21),
        "show_profile": (11, 10),
        VECTORS.name: (11, 10),
        RAW.name: (11, 10),
    }
    assert (found["retired"], found["waiting"]) == (45, 0)
    # In the folder of the newest created time that it holds, which here is after midnight.
    (only,) = paths(run, CONTENT)
    assert only.startswith("offline/content/date=2026-03-02/part-20260302T003000000000-compact-")
    assert paths(run, SEGMENTS) == segments, "rows without a key of their own are left as they are"
    assert compact(run, AT_ONCE)["views"] == {}


def test_replaced_parts_stay_for_their_readers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before, latest = paths(run, CONTENT), run.tables.latest(CONTENT)
    found = compact(run)
    assert (found["retired"], found["waiting"]) == (0, 45)
    both = paths(run, CONTENT)
    assert set(before) < set(both) and len(both) == len(before) + 1
    assert run.tables.latest(CONTENT).equals(latest)
    # Neither what was replaced nor what replaced it is compacted again, while both are there.
    assert (compact(run)["views"], paths(run, CONTENT)) == ({}, both)
    now = compaction.time.time()
    monkeypatch.setattr(compaction.time, "time", lambda: now + 901)
    found = compact(run)
    assert (found["views"], found["retired"], found["waiting"]) == ({}, 45, 0)
    assert paths(run, CONTENT) == sorted(set(both) - set(before))


def test_a_compacted_part_is_compacted_again(run: Run) -> None:
    compact(run, AT_ONCE)
    for number in range(20, 30):
        add(run, VECTORS, number, {"content_id": f"c{number}", "embedding": [number, 1]})
    before = rows_of(run, VECTORS)
    assert compact(run, AT_ONCE)["views"][VECTORS.name]["parts_before"] == 11
    assert len(paths(run, VECTORS)) == 1 and rows_of(run, VECTORS) == before


def test_what_is_not_worth_it(run: Run) -> None:
    before = paths(run, CONTENT)
    assert compact(run, Limits(min_parts=13))["views"] == {}
    smallest = min(part.size_bytes for view in VIEWS for part in run.tables.parts(view))
    assert compact(run, Limits(target_bytes=2 * smallest))["views"] == {}
    assert paths(run, CONTENT) == before
    for wrong in ({"min_parts": 1}, {"target_bytes": 0}, {"grace_s": -1}):
        with pytest.raises(ConfigError):
            Limits(**wrong)


def test_a_large_part_is_not_rewritten_for_a_few_small_ones(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    # A vector that does not compress: about 150 kB, against parts of 2 kB.
    wide = np.random.default_rng(0).random(40_000, np.float32).tolist()
    add(run, VECTORS, 0, {"content_id": "wide", "embedding": wide})
    for number in range(1, 10):
        add(run, VECTORS, number, {"content_id": f"c{number}", "embedding": [number, 1]})
    (large,) = [part for part in run.tables.parts(VECTORS) if part.size_bytes > 50_000]
    before = rows_of(run, VECTORS)
    assert compact(run, AT_ONCE)["views"][VECTORS.name]["parts_before"] == 9
    assert large in run.tables.parts(VECTORS) and len(paths(run, VECTORS)) == 2
    assert rows_of(run, VECTORS) == before


def test_parts_of_about_the_target_size(run: Run) -> None:
    before = rows_of(run, CONTENT)
    size = max(part.size_bytes for part in run.tables.parts(CONTENT))
    found = compact(run, Limits(target_bytes=4 * size + 10, grace_s=0))["views"]["content"]
    assert found["parts_after"] == len(paths(run, CONTENT)) == 3  # of 12 parts, 4 and a little fit into one
    assert rows_of(run, CONTENT) == before


def test_rows_of_a_merged_part_are_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MAX_ROWS", 7)
    before = rows_of(run, CONTENT)
    # The empty part and three of two rows, thrice; then one of two and one of one.
    assert compact(run, AT_ONCE)["views"]["content"]["parts_after"] == 4
    assert rows_of(run, CONTENT) == before


class Dies:
    """A storage that dies at its nth change, before it or right after it."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, after: bool) -> None:
        self.left = at
        for name in ("write", "delete"):
            patch.setattr(LocalStorage, name, self.wrap(getattr(LocalStorage, name), after))

    def wrap(self, real: Callable[..., Any], after: bool) -> Callable[..., Any]:
        def change(*arguments: Any) -> Any:
            self.left -= 1
            if self.left < 0 and not after:
                raise KeyboardInterrupt
            real(*arguments)
            if self.left < 0:
                raise KeyboardInterrupt

        return change


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """Two parts published, then six retired: at every change the latest rows are the same, and a rerun finishes."""
    limits = Limits(min_parts=2, target_bytes=36_000, grace_s=0)
    wide = np.random.default_rng(0).random((6, 2_500), np.float32).tolist()  # parts of about 10 kB: three fit
    kills = 0
    while True:
        run = run_in(tmp_path / f"store {kills}")
        for number in range(6):
            add(run, VECTORS, number, {"content_id": f"c{number % 4}", "embedding": wide[number]})
        before, latest, old = rows_of(run, VECTORS), run.tables.latest(VECTORS), paths(run, VECTORS)
        with monkeypatch.context() as patch:
            Dies(patch, kills, after)
            try:
                compact(run, limits)
                break
            except KeyboardInterrupt:
                kills += 1
        assert run.tables.latest(VECTORS).equals(latest)
        assert set(rows_of(run, VECTORS)) == set(before)
        compact(run, limits)
        assert rows_of(run, VECTORS) == before, "nothing is lost, nothing stands twice"
        assert len(paths(run, VECTORS)) == 2 and not set(old) & set(paths(run, VECTORS))
    assert kills == 8


def test_readers_see_no_gap(run: Run) -> None:
    latest, stop = run.tables.latest(CONTENT), threading.Event()
    seen: list[bool] = []
    failed: list[BaseException] = []

    def read() -> None:
        own = run_in(Path(run.source))
        try:
            while not stop.is_set():
                seen.append(own.tables.latest(CONTENT).equals(latest))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(5):
        compact(run, Limits(min_parts=2))
    stop.set()
    thread.join()
    assert not failed and seen and all(seen)


@pytest.fixture(scope="module")
def enriched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines.inprocess import run_catalog

    folder = tmp_path_factory.mktemp("compacted")
    shelf = make_shelf(folder / "catalog", sounds=2, texts=2)
    run_catalog(shelf.source, str(folder / "store"), Config(device="cpu"))
    return folder / "store"


@pytest.fixture
def store(enriched: Path, tmp_path: Path) -> Path:
    """A copy with ten parts more that hold versions of two contents, pushed through Feast and materialised."""
    from feast.data_source import PushMode

    copy = tmp_path / "store"
    shutil.copytree(enriched, copy)
    for name in ("registry.db", "applied", "online.db"):
        (copy / "feast" / name).unlink()
    apply(copy, json.loads((copy / "release.json").read_text()))
    feast = open_store(copy)
    fixed = {f.name: None for f in CONTENT.features} | {"kind": "track", "declared_language": "en", "show_id": "s"}
    fixed |= {"explicit": False, "has_audio": True, "has_image": False, "published_at": pd.Timestamp("2026", tz="UTC")}
    for number in range(10):
        when = {EVENT: pd.Timestamp(START) + timedelta(days=number), CREATED: pd.Timestamp.now("UTC")}
        rows = [{**fixed, **when, "content_id": c, "title": f"{c} {number}"} for c in ("sound 0", "pushed")]
        feast.push("content_push", pd.DataFrame(rows), to=PushMode.OFFLINE)
    materialise(feast)
    return copy


def history(store: Path) -> pa.Table:
    contents = ["sound 0", "pushed", "text/0 😀", "nobody"]
    times = [START + timedelta(days=day, hours=1) for day in range(-60, 12)]
    rows = [(c, t) for c in contents for t in times]
    entities = pa.table({"content_id": [c for c, _ in rows], "event_timestamp": pa.array([t for _, t in rows])})
    return training_set(open_store(store), entities, service="playback")


def test_feast_sees_no_difference(store: Path) -> None:
    before = history(store)
    assert len(set(before["content__title"].to_pylist())) > 20, "versions, and rows before the first of them"
    asked = ["sound 0", "pushed", "text/0 😀", "nobody"]
    online = online_features(open_store(store), asked, service="playback")
    run = run_in(store)
    found = compact(run)
    assert found["views"]["content"]["parts_before"] >= 10 and found["waiting"]
    assert history(store).equals(before), "while old and new parts are both there"
    assert not unseen(open_store(store)) and materialise(open_store(store)) == {}
    assert compact(run, AT_ONCE)["retired"] == found["waiting"]
    assert history(store).equals(before)
    assert not unseen(open_store(store)) and materialise(open_store(store)) == {}
    assert online_features(open_store(store), asked, service="playback").equals(online)
    assert len(run.tables.parts(CONTENT)) == 1


def test_killed_before_the_online_store_was_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compaction._Job, "_note", dying)
        with pytest.raises(KeyboardInterrupt):
            compact(run_in(store), AT_ONCE)
    before = history(store)
    assert unseen(open_store(store))
    compact(run_in(store), AT_ONCE)
    assert not unseen(open_store(store)) and history(store).equals(before)
    assert materialise(open_store(store)) == {}


def test_a_part_that_was_not_materialised_is_so_after_compaction(store: Path) -> None:
    run = run_in(store)
    add(run, CONTENT, 200, {"content_id": "late", "title": "Late", EVENT: START})
    compact(run, AT_ONCE)
    written = materialise(open_store(store))
    assert written == {"content": 1}, "what is online already is not written again"
    found = online_features(open_store(store), ["late", "pushed"], service="playback")
    assert found["content__title"].to_pylist() == ["Late", "pushed 9"]


def test_erasure_reaches_what_waits(store: Path) -> None:
    """Rows are erased from replaced parts and from those that replace them; these go on replacing them."""
    run = run_in(store)
    compact(run)
    removal.remove(run, ["pushed"], erase=True)
    run = run_in(store)
    assert compact(run, AT_ONCE)["retired"] >= 10
    keys = run.tables.read(CONTENT).filter(pa.compute.field("content_id") == "pushed")[WORK_KEY].to_pylist()
    assert keys == [REMOVED]
    assert history(store)["content__title"].to_pylist().count("sound 0 9") > 0


@pytest.mark.slow
def test_a_run_compacts_at_its_end(tmp_path: Path) -> None:
    from pipelines.inprocess import run_catalog

    shelf = make_shelf(tmp_path / "catalog", sounds=0, texts=8)
    config = Config(device="cpu", shard_items=1, text_shard_items=1)
    summary = run_catalog(shelf.source, str(tmp_path / "store"), config)
    run = Run.load(str(tmp_path / "store"), summary["run_id"])
    told = run.read_json("compact.json")
    assert told["views"]["content"]["parts_before"] == 9 and told["waiting"] >= 9
    assert summary["step_seconds"]["compact"] > 0
    again = run_catalog(shelf.source, str(tmp_path / "store"), config)
    assert not any(again["computed"].values()) and not again["feast"]["rows_written"]


def test_the_status_counts_no_row_twice(run: Run) -> None:
    from pipelines.status import status

    def numbers() -> dict[str, tuple[int, int, int]]:
        return {v["view"]: (v["rows"], v["contents"], v["removed"]) for v in status(run)["views"]}

    before = numbers()
    assert before["content"] == (21, 10, 1)
    compact(run)
    assert numbers() == before
