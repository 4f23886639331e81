"""The main job on a small catalogue: what is computed, what is served, what is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core import lease
from core.config import Config
from core.errors import NotFound, StoreBusy
from core.storage import open_storage
from feature_repo.reads import online_features, training_set
from feature_repo.store import open_store
from pipelines import removal
from pipelines.context import Run
from pipelines.search import search
from tests.pipelines.conftest import Shelf, computed, visible

RunOn = Callable[..., dict[str, Any]]
EVERYTHING = {
    "content": 10,
    "audio_raw": 6,
    "acoustic": 6,
    "speech": 6,
    "fingerprint": 6,
    "image": 1,
    "visual": 1,
    "keypoints": 1,
    "text": 10,
    "text_signals": 10,
    "passages": 10,
}


def context(store: Path) -> Run:
    return Run(open_storage(store), "test", str(store), Config(device="cpu"))


def test_a_run_and_its_reruns(shelf: Shelf, run_on: RunOn, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert computed(run_on(shelf.source)) == EVERYTHING
    first = visible(store)

    # Nothing changed: nothing is computed, nothing is written online.
    again = run_on(shelf.source)
    assert computed(again) == {}
    assert again["feast"]["rows_written"] == {}
    assert visible(store) == first

    # Only titles changed: no audio, no picture.
    shelf.row("sound 1")["title"] = "Another title"
    shelf.save()
    assert computed(run_on(shelf.source)) == {"content": 1, "text": 1, "text_signals": 1, "passages": 1}

    # One sound replaced, with a new version time: what is made of sound is computed for it alone.
    shelf.sound("sound-2.wav", 99)
    shelf.row("sound 2")["updated_at"] = "2026-06-01T00:00:00Z"
    shelf.save()
    assert computed(run_on(shelf.source)) == {"audio_raw": 1, "acoustic": 1, "speech": 1, "fingerprint": 1}

    # The new version is served, the old one still answers for the time before.
    feast = open_store(store)
    times = pa.array(["2026-05-01T00:00:00Z", "2026-06-02T00:00:00Z"]).cast(pa.timestamp("us", tz="UTC"))
    entities = pa.table({"content_id": ["sound 2", "sound 2"], "event_timestamp": times})
    then, now = training_set(feast, entities)["audio__embedding"].to_pylist()
    online = online_features(feast, ["sound 2"])["audio__embedding"][0].as_py()
    before = next(
        r for r in next(v for k, v in first.items() if k.startswith("audio__")) if r["content_id"] == "sound 2"
    )
    assert then == before["embedding"]
    assert now == online != then


def test_vectors_are_bit_identical_and_batches_do_not_matter(shelf: Shelf, run_on: RunOn, tmp_path: Path) -> None:
    run_on(shelf.source, "one")
    run_on(shelf.source, "two")
    assert visible(tmp_path / "one") == visible(tmp_path / "two")
    from pipelines.inprocess import run_catalog

    run_catalog(shelf.source, str(tmp_path / "three"), Config(device="cpu", shard_items=1, text_shard_items=2))
    for name, rows in visible(tmp_path / "one").items():
        if "__" in name and name.split("__")[0] in ("text", "audio", "image"):
            others = {row["content_id"]: row for row in visible(tmp_path / "three")[name]}
            for row in rows:
                cosine = float(np.dot(row["embedding"], others[row["content_id"]]["embedding"]))
                assert cosine >= 0.99999, (name, row["content_id"])


def test_search_by_every_kind_of_query(shelf: Shelf, run_on: RunOn, tmp_path: Path) -> None:
    run_on(shelf.source)
    run = context(tmp_path / "store")
    assert search(run, audio=shelf.folder / "sound-3.wav", k=1)["hits"][0]["content_id"] == "sound 3"
    assert search(run, image=shelf.folder / "cover.png", k=1)["hits"][0]["content_id"] == "sound 0"
    assert search(run, text="Text 2 words of text number 2", k=1)["hits"][0]["content_id"] == "text/2 😀"
    found = search(run, content_id="sound 4", k=3)
    assert found["modality"] == "audio" and "sound 4" not in {h["content_id"] for h in found["hits"]}
    with pytest.raises(NotFound):
        search(run, content_id="nobody")


def test_removal_goes_through_every_store(shelf: Shelf, run_on: RunOn, tmp_path: Path) -> None:
    run_on(shelf.source)
    store = tmp_path / "store"
    removal.remove(context(store), ["sound 1"])
    feast = open_store(store)
    row = online_features(feast, ["sound 1"]).to_pylist()[0]
    assert all(value is None for name, value in row.items() if name != "content_id")
    hits = search(context(store), audio=shelf.folder / "sound-1.wav", k=10)["hits"]
    assert "sound 1" not in {hit["content_id"] for hit in hits}
    # Point-in-time reads before the removal still answer; reads after it do not.
    times = pa.array(["2026-02-01T00:00:00Z", "2100-01-01T00:00:00Z"]).cast(pa.timestamp("us", tz="UTC"))
    history = training_set(feast, pa.table({"content_id": ["sound 1"] * 2, "event_timestamp": times}))
    assert history["content__title"].to_pylist() == ["Sound number 1", None]
    assert history["audio__embedding"].is_valid().to_pylist() == [True, False]
    # The catalogue still lists it; it stays out until it is let back in.
    summary = run_on(shelf.source)
    assert computed(summary) == {} and summary["removed_and_still_listed"] == 1
    removal.restore(open_storage(store), ["sound 1"])
    assert computed(run_on(shelf.source))["audio_raw"] == 1
    assert online_features(open_store(store), ["sound 1"])["content__title"].to_pylist() == ["Sound number 1"]
    with pytest.raises(NotFound):
        removal.remove(context(store), ["nobody"])


def test_erasure_leaves_no_bytes(shelf: Shelf, run_on: RunOn, tmp_path: Path) -> None:
    secret = "xylophonic-zebra"
    shelf.row("sound 1").update(title=secret, description=f"about {secret}")
    shelf.save()
    run_on(shelf.source)
    store = tmp_path / "store"
    removal.remove(context(store), ["sound 1"], erase=True)
    for view in removal.stored_views(open_storage(store)):
        rows = context(store).tables.read(view).to_pylist()
        assert all(r["work_key"] == "removed" for r in rows if r["content_id"] == "sound 1"), view.name
    for path in store.rglob("*"):
        if path.is_file() and path.suffix in (".db", ".json"):
            assert secret.encode() not in path.read_bytes(), path
    for path in (store / "indexes").glob("*/*"):
        assert path.name == "CURRENT" or path.is_dir() or (path.name == "publish.lock" and not path.stat().st_size)
    assert all(len(list(p.glob("2*"))) == 1 for p in (store / "indexes").glob("audio__*"))


def test_prune_and_return(shelf: Shelf, run_on: RunOn, tmp_path: Path) -> None:
    run_on(shelf.source)
    gone = shelf.rows.pop(0)
    shelf.save()
    assert run_on(shelf.source)["pruned"] == 0
    feast = open_store(tmp_path / "store")
    assert online_features(feast, [gone["content_id"]])["content__title"].to_pylist() == [gone["title"]]
    assert run_on(shelf.source, prune=True)["pruned"] == 1
    assert online_features(feast, [gone["content_id"]])["content__title"].to_pylist() == [None]
    shelf.rows.insert(0, gone)
    shelf.save()
    run_on(shelf.source)
    assert online_features(feast, [gone["content_id"]])["content__title"].to_pylist() == [gone["title"]]


def test_an_older_version_that_comes_late_is_kept_but_not_served(shelf: Shelf, run_on: RunOn, tmp_path: Path) -> None:
    run_on(shelf.source)
    row = shelf.row("text/0 😀")
    row.update(title="An older title", updated_at="2025-01-01T00:00:00Z")
    shelf.save()
    assert computed(run_on(shelf.source))["content"] == 1
    feast = open_store(tmp_path / "store")
    assert online_features(feast, ["text/0 😀"])["content__title"].to_pylist() == ["Text 0"]
    assert computed(run_on(shelf.source)) == {}


def test_bad_items_are_quarantined_and_everything_else_goes_on(shelf: Shelf, run_on: RunOn, tmp_path: Path) -> None:
    (shelf.folder / "letter.wav").write_text("no sound")
    (shelf.folder / "empty.wav").write_bytes(b"")
    base = {"kind": "track", "updated_at": "2026-01-01T00:00:00Z", "title": "bad"}
    shelf.rows += [
        {"content_id": "letter", "audio_uri": "letter.wav", **base},
        {"content_id": "empty", "audio_uri": "empty.wav", **base},
        {"content_id": "missing", "audio_uri": "nowhere.wav", "image_uri": "cover.png", **base},
        {"content_id": "outside", "audio_uri": "../../etc/passwd", **base},
        {"content_id": "twice", "text": "words", **base},
        {"content_id": "twice", "text": "words", **base},
        {"content_id": "bare", **base},
    ]
    shelf.save()
    summary = run_on(shelf.source)
    found = {(q["content_id"], q["stage"]): q["reason"] for q in summary["quarantine"]}
    assert found == {
        ("letter", "audio"): "not_audio",
        ("empty", "audio"): "empty_file",
        ("missing", "audio"): "missing_file",
        ("outside", "audio"): "outside_root",
        ("twice", "catalogue"): "duplicate_id",
        ("bare", "catalogue"): "nothing_to_enrich",
    }
    assert summary["computed"]["audio_raw"] == 6 and summary["computed"]["image"] == 2
    # What is in quarantine is not tried again by itself, but on request, and when the file is there.
    assert computed(run_on(shelf.source)) == {}
    retried = run_on(shelf.source, retry=True)
    assert {q["attempts"] for q in retried["quarantine"] if q["stage"] == "audio"} == {2}
    shelf.sound("nowhere.wav", 5)
    healed = run_on(shelf.source)
    assert computed(healed)["audio_raw"] == 1
    assert ("missing", "audio") not in {(q["content_id"], q["stage"]) for q in healed["quarantine"]}


def test_a_second_run_waits_or_names_the_first(shelf: Shelf, run_on: RunOn, tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "store")
    with lease.hold(storage, "the other run"), pytest.raises(StoreBusy, match="the other run"):
        run_on(shelf.source)


def test_the_summary_is_json(shelf: Shelf, run_on: RunOn) -> None:
    summary = run_on(shelf.source)
    assert json.loads(json.dumps(summary))["contents"] == 10
    assert set(summary["indexes"]) == {"text", "audio", "image"}
    assert all(index["recall"]["10"] == 1.0 for index in summary["indexes"].values())
    assert summary["shows"]["shows"] == 2


@pytest.mark.slow
def test_a_folder_of_real_recordings(run_on: RunOn, tmp_path: Path) -> None:
    import shutil

    media = Path(__file__).parent.parent / "media"
    (tmp_path / "folder").mkdir()
    for name in ("voice.opus", "music.mp3"):
        shutil.copy(media / name, tmp_path / "folder" / name)
    summary = run_on(str(tmp_path / "folder"))
    assert summary["contents"] == 2 and not summary["quarantine"]
    voice, music = online_features(open_store(tmp_path / "store"), ["voice.opus", "music.mp3"]).to_pylist()
    assert "open source" in voice["speech__transcript"] and music["speech__transcript"] is None
    assert voice["acoustic__duration_s"] == pytest.approx(13.0, abs=0.1)
    # What was said is found by its meaning, without a word in common.
    hits = search(context(tmp_path / "store"), text="thanks for setting up this phone software", k=2)["hits"]
    assert hits[0]["content_id"] == "voice.opus"


def test_progress_counts_every_content_once(shelf: Shelf, run_on: RunOn) -> None:
    seen: dict[str, list[int]] = {}

    def progress(label: str, done: int, total: int) -> None:
        counts = seen.setdefault(label, [0, 0])
        counts[0] += done
        counts[1] = max(counts[1], total)

    run_on(shelf.source, progress=progress)
    assert seen["media"] == [10, 10] and seen["text"] == [10, 10]
    assert seen["rows"][0] > 0


def test_reading_ahead_of_a_device_makes_the_same_rows(
    shelf: Shelf, run_on: RunOn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that feeds a GPU in batches while the next one is read, here with the models on a CPU."""
    from pipelines import enrich
    from pipelines.inprocess import run_catalog

    run_on(shelf.source, "one")
    monkeypatch.setattr(enrich, "_on_gpu", lambda run: True)
    monkeypatch.setitem(enrich.GPU_BATCH_ITEMS, "text", 3)
    run_catalog(shelf.source, str(tmp_path / "two"), Config(shard_items=3, text_shard_items=10))
    one, two = visible(tmp_path / "one"), visible(tmp_path / "two")
    assert one.keys() == two.keys() and one["text_signals"] == two["text_signals"] and one["visual"] == two["visual"]
    for name in (n for n in one if n.startswith("text__")):
        for row, other in zip(one[name], two[name], strict=True):
            assert float(np.dot(row["embedding"], other["embedding"])) >= 0.99999
