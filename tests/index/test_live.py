"""Changes under queries, against an exact shadow; crashes, damage, restarts, merges."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import index.live as live_module
from core.errors import EarmarkError, IndexUnavailable, NotFound, StorageError
from index import open_index, publish_vectors, remove
from index.live import LiveIndex
from index.load import load_members
from index.log import Reader, Record, segments
from index.records import first_number
from index.versions import current_manifest, load_manifest, point_to, versions
from tests.index.test_choice import clustered

DIM = 32


def publish(folder: Path, contents: dict[str, np.ndarray], source: str = "s", **options: Any) -> Any:
    names = [name for name, vectors in contents.items() for _ in vectors]
    windows = [n for vectors in contents.values() for n in range(len(vectors))]
    rows = np.concatenate(list(contents.values()))
    table = pa.table({"content_id": names, "window": windows, "embedding": rows.tolist()})
    return publish_vectors(
        folder, "a", table, model_id="m", dim=DIM, source=source, windows="window", **options
    )  # fmt: skip


def singles(count: int, seed: int = 0, prefix: str = "c") -> dict[str, np.ndarray]:
    return {f"{prefix}{n:04d}": row[None] for n, row in enumerate(clustered(count, seed=seed))}


def assert_exact(live: LiveIndex, shadow: dict[str, np.ndarray], query: np.ndarray, k: int) -> None:
    """The answer is the k best of the shadow; contents of nearly equal scores may stand in either order."""
    names = found(live, query, k)
    scores = {name: float((vectors @ query).max()) for name, vectors in shadow.items()}
    assert len(names) == len(set(names)) == min(k, len(shadow))
    np.testing.assert_allclose([scores[name] for name in names], sorted(scores.values())[::-1][:k], atol=1e-5)


def found(live: LiveIndex, query: np.ndarray, k: int, **more: Any) -> list[str]:
    answer: list[str] = live.search(query[None], k, **more)["content_id"].to_pylist()
    return answer


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_against_an_exact_shadow(tmp_path: Path, seed: int) -> None:
    """Puts of one to three windows, updates, deletes, puts again, restarts and merges."""
    rng = np.random.default_rng(seed)
    shadow = singles(200)
    publish(tmp_path, shadow)
    live = LiveIndex(tmp_path, "a", write=True)
    pool = clustered(4000, seed=50 + seed)
    for _ in range(250):
        name = f"c{rng.integers(0, 260):04d}"
        what = rng.random()
        if what < 0.55:
            shadow[name] = pool[rng.integers(0, 4000, rng.integers(1, 4))]
            live.put(name, shadow[name])
        elif what < 0.9:
            shadow.pop(name, None)
            live.delete([name])
        elif what < 0.97:
            live.close()
            live = LiveIndex(tmp_path, "a", write=True)
        else:
            live.merge()
        query = pool[rng.integers(0, 4000)]
        assert_exact(live, shadow, query, 7)
    assert_exact(live, shadow, pool[0], 500)
    live.close()


@pytest.mark.slow
def test_readers_and_a_writer_at_once(tmp_path: Path) -> None:
    """Each content moves between two places; every answer must be that of one moment: a content is at one of its two
    places and never at both or at none, and what is deleted for good is never seen."""
    shadow = singles(300)
    publish(tmp_path, shadow)
    first, second = clustered(1, seed=1)[0], -clustered(1, seed=1)[0]
    failures: list[str] = []
    done = threading.Event()
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("mover", first[None])
        live.delete(["c0000"])

        def ask() -> None:
            while not done.is_set():
                answer = live.search(np.stack([first, second]), 600)
                per_query = [answer.filter(pc.field("query") == n)["content_id"].to_pylist() for n in (0, 1)]
                for names in per_query:
                    if names.count("mover") != 1 or "c0000" in names or len(names) != len(set(names)):
                        failures.append(str(names[:3]))
                if (per_query[0][0] == "mover") == (per_query[1][0] == "mover"):
                    failures.append("at both places, or at none")

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(200):
            live.put("mover", (second if n % 2 == 0 else first)[None])
            live.put(f"new{n}", clustered(1, seed=100 + n))
            if n % 60 == 59:
                live.merge()
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_large_tail_is_ranked_by_codes_before(tmp_path: Path) -> None:
    publish(tmp_path, singles(50))
    vectors = clustered(6000, seed=5)
    queries = clustered(100, seed=6)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put_many([(f"t{n:04d}", row[None], None, None) for n, row in enumerate(vectors)])
        assert len(live._state.tail.codes.bits)
        live.delete([f"t{n:04d}" for n in range(0, 6000, 3)])
        shadow = {f"t{n:04d}": row[None] for n, row in enumerate(vectors) if n % 3} | singles(50)
        names = np.array(sorted(shadow))
        matrix = np.concatenate([shadow[name] for name in names])
        hits = 0
        for query in queries:
            right = names[np.argsort(-(matrix @ query))[:10]].tolist()
            hits += len(set(found(live, query, 10)) & set(right))
        assert hits / 1000 >= 0.999


def test_equal_scores_stand_in_the_order_of_content_ids(tmp_path: Path) -> None:
    """Whether they are in the base or were added, and also where not all of them are asked for."""
    vector = clustered(1, seed=3)
    publish(tmp_path, {name: vector for name in ("b", "d", "f")} | singles(30, prefix="z"))
    with LiveIndex(tmp_path, "a", write=True) as live:
        for name in ("g", "e", "a", "c"):
            live.put(name, np.concatenate([vector, clustered(1, seed=9)]))
        for k in range(1, 8):
            assert found(live, vector[0], k) == list("abcdefg")[:k]
        live.delete(["a", "d"])
        answer = live.search(np.stack([vector[0], -vector[0], vector[0]]), 3)
        assert answer["content_id"].to_pylist()[:3] == answer["content_id"].to_pylist()[-3:] == ["b", "c", "e"]
        assert answer["query"].to_pylist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_dead_rows_of_a_large_tail_are_freed(tmp_path: Path) -> None:
    publish(tmp_path, singles(20))
    pool = clustered(3000, seed=8)
    shadow = singles(20)
    with LiveIndex(tmp_path, "a", write=True) as live:
        for first in (0, 400, 800, 1200):  # the same contents again and again
            new = {f"t{n:04d}": pool[first + n : first + n + 2] for n in range(400)}
            live.put_many([(name, vectors, None, None) for name, vectors in new.items()])
            before = live._state
            shadow |= new
            assert before.tail.count <= 1600
        for n in range(0, 400, 2):
            live.delete([f"t{n:04d}"])
            del shadow[f"t{n:04d}"]
        assert before.tail.count in (800, 1600) and live._state.tail.count < 1024
        for query in pool[2000:2050]:
            assert_exact(live, shadow, query, 9)
        np.testing.assert_array_equal(live.vectors("t0001"), shadow["t0001"])
        live.put("t0000", pool[:3])
        assert found(live, pool[0], 1) == ["t0000"] and live.vectors("t0000").shape == (3, DIM)


def test_a_log_of_the_format_before_batches(tmp_path: Path) -> None:
    publish(tmp_path, singles(3))
    segment = tmp_path / "a" / "live-0000000000000001.log"
    records = [
        Record(1, "put", "x", (3,), (0,), None, clustered(1, seed=1), "m"),
        Record(2, "put", "y", (4,), (0,), None, clustered(1, seed=2), "m"),
    ]
    segment.write_bytes(b"".join(record.to_bytes() for record in records)[:-5])
    reader = LiveIndex(tmp_path, "a")
    assert reader.pending == 1
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put_many([("z", clustered(1, seed=3), None, None), ("w", clustered(1, seed=4), None, None)])
        assert live._id_of("z", 0) == 4
    assert reader.refresh() and reader.pending == 3
    remove(tmp_path, "a", ["x", "z"], purge=True)
    for seed in (1, 3):
        assert all(clustered(1, seed=seed).tobytes() not in one.read_bytes() for one in segments(tmp_path / "a"))
    with LiveIndex(tmp_path, "a", write=True) as live:
        assert live.pending == 1 and live.vectors("w").shape == (1, DIM)
        live.merge()
        assert live.manifest.count == 4


def test_visible_to_other_processes_and_after_a_kill(tmp_path: Path) -> None:
    """A writer that is killed loses nothing that it confirmed."""
    publish(tmp_path, singles(20))
    program = f"""
import sys, numpy as np
from pathlib import Path
from index.live import LiveIndex
live = LiveIndex(Path({str(tmp_path)!r}), "a", write=True)
n = 0
while True:
    v = np.zeros((1, {DIM}), np.float32); v[0, n % {DIM}] = 1
    live.put(f"n{{n}}", v)
    print(n, flush=True)
    n += 1
"""
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root)
    assert child.stdout is not None
    reader = LiveIndex(tmp_path, "a")
    told = -1
    while told < 40:
        told = int(child.stdout.readline())
        reader.refresh()
        assert reader.vectors(f"n{told}")[0, told % DIM] == 1
        with pytest.raises(StorageError, match="another process writes to the index a"):
            LiveIndex(tmp_path, "a", write=True)
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split()
    child.wait()
    last = int(rest[-1]) if rest else told
    with LiveIndex(tmp_path, "a", write=True) as live:
        assert all(live.vectors(f"n{n}") is not None for n in range(last + 1))
        live.put("after", clustered(1, seed=77))
        assert found(live, clustered(1, seed=77)[0], 1) == ["after"]


@pytest.mark.parametrize("cut", [1, 10, 30, 100])
def test_a_record_that_was_cut_short(tmp_path: Path, cut: int) -> None:
    publish(tmp_path, singles(5))
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("one", clustered(1, seed=1))
        live.put("two", clustered(1, seed=2))
    (segment,) = segments(tmp_path / "a")
    os.truncate(segment, segment.stat().st_size - cut)
    assert LiveIndex(tmp_path, "a").pending == 1
    with LiveIndex(tmp_path, "a", write=True) as live:
        with pytest.raises(NotFound, match="'two' is not in the index a"):
            live.vectors("two")
        live.put("three", clustered(1, seed=3))
    again = LiveIndex(tmp_path, "a")
    assert again.pending == 2 and again.vectors("three").shape == (1, DIM)


def test_a_damaged_log_is_told_and_left_alone(tmp_path: Path) -> None:
    publish(tmp_path, singles(5))
    with LiveIndex(tmp_path, "a", write=True) as live:
        for n in range(3):
            live.put(f"n{n}", clustered(1, seed=n))
    (segment,) = segments(tmp_path / "a")
    whole = segment.read_bytes()
    for place in (2, 20, 60):  # a size, a header, a body: of the first record
        data = bytearray(whole)
        data[place] ^= 0xFF
        segment.write_bytes(bytes(data))
        for write in (False, True):
            with pytest.raises(IndexUnavailable, match=r"live-0{15}1.v2.log is damaged at byte 0"):
                LiveIndex(tmp_path, "a", write=write)
        assert segment.read_bytes() == bytes(data)
    segment.write_bytes(whole)
    assert LiveIndex(tmp_path, "a").pending == 3


def test_deletes_never_come_back(tmp_path: Path) -> None:
    """Not by a restart, nor by a build from a table that still has the content, nor by the build after it."""
    shadow = singles(30)
    publish(tmp_path, shadow)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.delete(["c0003"])
        live.put("c0004", clustered(1, seed=9))
    for source in ("again", "and again"):
        publish(tmp_path, shadow, source=source)
        searcher = open_index(tmp_path, "a")
        assert searcher.number_of("c0003") is None
    with LiveIndex(tmp_path, "a", write=True) as live:
        assert live.pending == 0
        live.put("c0003", clustered(1, seed=10))
    publish(tmp_path, shadow, source="once more")
    np.testing.assert_allclose(open_index(tmp_path, "a").vectors("c0003"), clustered(1, seed=10), atol=1e-6)


def test_what_is_removed_from_the_published_index_is_not_replayed(tmp_path: Path) -> None:
    publish(tmp_path, singles(30))
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("c0003", clustered(1, seed=9))
        live.put("new", clustered(1, seed=8))
    remove(tmp_path, "a", ["c0003"])
    live = LiveIndex(tmp_path, "a", write=True)
    assert "c0003" not in found(live, clustered(1, seed=9)[0], 100) and live.pending == 1
    live.merge()
    assert open_index(tmp_path, "a").number_of("c0003") is None
    assert open_index(tmp_path, "a").number_of("new") is not None
    live.close()


def test_ids_stay_and_are_never_given_twice(tmp_path: Path) -> None:
    publish(tmp_path, singles(10))
    given: dict[int, str] = {open_index(tmp_path, "a").id_of(f"c{n:04d}", 0) or 0: f"c{n:04d}" for n in range(10)}
    assert len(given) == 10
    for generation in range(3):
        with LiveIndex(tmp_path, "a", write=True) as live:
            names = [f"g{generation}-{n}" for n in range(4)]
            live.put_many([(name, clustered(1, seed=n), None, None) for n, name in enumerate(names)])
            live.delete([names[0], f"c{generation:04d}"])
            live.put("c0009", clustered(1, seed=generation))
            live.merge()
            for name in [*names[1:], "c0009"]:
                number = open_index(tmp_path, "a").id_of(name, 0)
                assert number is not None and given.setdefault(number, name) == name
    assert len(given) == 10 + 3 * 3
    manifest = current_manifest(tmp_path, "a")
    assert manifest is not None and manifest.next_id == 10 + 3 * 4


def test_an_update_keeps_its_id_and_a_delete_ends_it(tmp_path: Path) -> None:
    publish(tmp_path, singles(3))
    first = open_index(tmp_path, "a").id_of("c0001", 0)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("new", clustered(2))
        numbers = [live._id_of("new", window) for window in (0, 1)]
        live.put("new", clustered(1, seed=4))
        live.put("c0001", clustered(1, seed=5))
        assert (live._id_of("new", 0), live._id_of("c0001", 0)) == (numbers[0], first)
        live.delete(["new", "c0001"])
        for name in ("new", "c0001"):
            live.put(name, clustered(1, seed=6))
            assert live._id_of(name, 0) not in (None, first, *numbers)


def test_numbers_go_on_after_going_back(tmp_path: Path) -> None:
    """What is changed while an older version is served is not taken for held by the newer one."""
    publish(tmp_path, singles(10))
    with LiveIndex(tmp_path, "a", write=True) as live:
        for n in range(4):
            live.put(f"n{n}", clustered(1, seed=n))
        live.merge()
    older, newer = versions(tmp_path, "a")
    for segment in segments(tmp_path / "a"):
        segment.unlink()
    point_to(tmp_path, "a", older)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("meanwhile", clustered(1, seed=9))
    point_to(tmp_path, "a", newer)
    assert LiveIndex(tmp_path, "a").vectors("meanwhile").shape == (1, DIM)


def test_filters_and_times_of_changes(tmp_path: Path) -> None:
    shadow = singles(20)
    when = datetime(2026, 1, 2, tzinfo=UTC)
    about = pa.table(
        {
            "content_id": list(shadow),
            "kind": ["track"] * 20,
            "since": pa.array([when] * 20, pa.timestamp("us", "UTC")),
        }
    )
    publish(tmp_path, shadow, metadata=about)
    query = clustered(1, seed=3)[0]
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("episode", query[None], about={"kind": "episode", "since": datetime(2026, 5, 1, tzinfo=UTC)})
        live.put("unknown", query[None])
        live.put("c0000", query[None], about={"kind": "episode"})
    for reader in (LiveIndex(tmp_path, "a"), LiveIndex(tmp_path, "a", write=True)):
        assert found(reader, query, 5, where=pc.field("kind") == "episode") == ["c0000", "episode"]
        assert found(reader, query, 50, where=pc.field("since") > when) == ["episode"]
        assert "c0000" not in found(reader, query, 50, where=pc.field("kind") == "track")
        if reader._writer:
            reader.merge()
            assert found(reader, query, 5, where=pc.field("kind") == "episode") == ["c0000", "episode"]
        assert found(reader, query, 3, exclude=["c0000", "unknown"])[0] == "episode"
        assert reader.similar(["episode"], 1, unlike=["c0005"]).num_rows == 1
        reader.close()


def test_changes_while_a_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import index.publish as publishing

    publish(tmp_path, singles(30))
    live = LiveIndex(tmp_path, "a", write=True)
    live.put("before", clustered(1, seed=1))
    build = publishing.build

    def slow(*given: Any, **named: Any) -> Any:
        live.put("meanwhile", clustered(1, seed=2))
        live.delete(["c0001", "before"])
        return build(*given, **named)

    monkeypatch.setattr(publishing, "build", slow)
    live.merge()
    assert live.manifest.count == 31
    for name in ("c0001", "before"):
        with pytest.raises(NotFound):
            live.vectors(name)
    assert live.vectors("meanwhile").shape == (1, DIM)
    monkeypatch.undo()
    live.merge()
    assert live.manifest.count == 30 and live.pending == 0
    live.close()


def test_old_segments_go_and_rollback_still_replays(tmp_path: Path) -> None:
    publish(tmp_path, singles(10))
    live = LiveIndex(tmp_path, "a", write=True)
    for n in range(5):
        live.put(f"n{n}", clustered(1, seed=n))
        live.merge()
        assert len(segments(tmp_path / "a")) <= 4
    live.put("last", clustered(1, seed=77))
    older, newest = versions(tmp_path, "a")[-2:]
    assert load_manifest(tmp_path, "a", older).merged < load_manifest(tmp_path, "a", newest).merged
    point_to(tmp_path, "a", older)
    live.refresh()
    assert all(live.vectors(name).shape == (1, DIM) for name in ("n0", "n4", "last"))
    live.close()


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        (np.ones((1, 3), np.float32), "has vectors of shape"),
        (np.zeros((1, DIM), np.float32), "not finite and of unit norm"),
        (np.full((1, DIM), np.nan, np.float32), "not finite and of unit norm"),
        (np.empty((0, DIM), np.float32), "has vectors of shape"),
    ],
)
def test_bad_vectors_change_nothing(tmp_path: Path, vectors: np.ndarray, told: str) -> None:
    publish(tmp_path, singles(5))
    with LiveIndex(tmp_path, "a", write=True) as live:
        with pytest.raises(EarmarkError, match=told):
            live.put_many([("good", clustered(1), None, None), ("bad", vectors, None, None)])
        assert live.pending == 0
        with pytest.raises(EarmarkError, match="windows"):
            live.put("bad", clustered(2), windows=[1, 1])
        live.delete(["nobody"])
    assert not segments(tmp_path / "a")[0].stat().st_size
    with pytest.raises(EarmarkError, match="open it with write=True"):
        LiveIndex(tmp_path, "a").put("c0000", clustered(1))


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, singles(5))
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("one", clustered(1, seed=1))

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StorageError, match="No space left"):
                live.put("two", clustered(1, seed=2))
        assert live.pending == 1
        live.put("three", clustered(1, seed=3))
    again = LiveIndex(tmp_path, "a")
    assert again.pending == 2
    with pytest.raises(NotFound):
        again.vectors("two")


def test_the_manifest_of_an_index_without_changes_is_as_before(tmp_path: Path) -> None:
    manifest = publish(tmp_path, singles(5))
    record = json.loads((tmp_path / "a" / manifest.version / "manifest.json").read_text())
    assert record["merged"] == 0 and set(record["files"]) == {"index.faiss", "contents.arrow", "rows.arrow"}
    start = time.monotonic()
    assert publish(tmp_path, singles(5)) == manifest and time.monotonic() - start < 60


@pytest.mark.parametrize("factory", ["IVF16,RaBitQfs,Refine(SQ8)", "HNSW16,SQ8", "IVF16,SQ4", "SQ8"])
def test_a_merge_of_every_make(tmp_path: Path, factory: str) -> None:
    """Codes decode to vectors that are not of unit norm."""
    publish(tmp_path, singles(1500), factory=factory, target_recall=0.5)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("new", clustered(1, seed=3))
        live.delete(["c0001"])
        live.merge(factory=factory, target_recall=0.5)
        assert live.manifest.count == 1500 and live.pending == 0
        assert found(live, clustered(1, seed=3)[0], 1) == ["new"]
    newer = remove(tmp_path, "a", [f"c{n:04d}" for n in range(1490)])
    assert newer is not None and newer.count == 11 and open_index(tmp_path, "a").search(clustered(1), 20).num_rows == 11


def test_few_alive_among_many_that_are_coded(tmp_path: Path) -> None:
    about = pa.table({"content_id": ["c0000"], "kind": ["base"]})
    publish(tmp_path, singles(10), metadata=about)
    vectors = clustered(3000, seed=4)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put_many(
            [
                (f"t{n:04d}", row[None], {"kind": "rare" if n % 600 == 0 else "many"}, None)
                for n, row in enumerate(vectors)
            ]
        )
        rare = found(live, vectors[1], 50, where=pc.field("kind") == "rare")
        assert sorted(rare) == [f"t{n:04d}" for n in range(0, 3000, 600)]
        live.delete([f"t{n:04d}" for n in range(3000) if n % 600])
        assert len(found(live, vectors[1], 50)) == 15


def test_ids_that_the_log_gave_to_what_is_gone(tmp_path: Path) -> None:
    publish(tmp_path, singles(10))
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("p", clustered(1, seed=1))
        given = live._id_of("p", 0)
        live.delete(["p"])
        live.put("c0000", clustered(1, seed=2))
        live.merge()
        live.put("q", clustered(1, seed=3))
        assert live._id_of("q", 0) == (given or 0) + 1


def test_a_publisher_and_a_writer_that_give_one_id(tmp_path: Path) -> None:
    publish(tmp_path, singles(10))
    with LiveIndex(tmp_path, "a", write=True) as live:
        publish(tmp_path, singles(10) | {"x": clustered(1, seed=5)}, source="two")
        live.put("y", clustered(1, seed=6))  # of a writer that has not looked
        live.merge()
        searcher = open_index(tmp_path, "a")
        assert searcher.id_of("x", 0) != searcher.id_of("y", 0)
        assert searcher.manifest.count == 12


def test_removal_reaches_the_log(tmp_path: Path) -> None:
    """What is only in the log is removed, and purged from its bytes; deletes outlive a damaged pointer."""
    publish(tmp_path, singles(10))
    secret = clustered(1, seed=5)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("x", secret)
        live.put("y", clustered(1, seed=6))
        live.delete(["c0003"])
    remove(tmp_path, "a", ["x"], purge=True)
    assert all(secret.tobytes() not in segment.read_bytes() for segment in segments(tmp_path / "a"))
    names = found(LiveIndex(tmp_path, "a"), secret[0], 50)
    assert "x" not in names and "y" in names and "c0003" not in names
    publish(tmp_path, singles(10), source="two")
    (tmp_path / "a" / "CURRENT").write_text("rubbish")
    publish(tmp_path, singles(10), source="three")
    assert open_index(tmp_path, "a").number_of("c0003") is None


def test_vectors_of_another_model_are_not_replayed(tmp_path: Path) -> None:
    publish(tmp_path, singles(10))
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("x", clustered(1, seed=5))
        live.delete(["c0003"])
    rows = pa.table({"content_id": ["c0002", "c0003"], "embedding": np.eye(2, 64).tolist()})
    publish_vectors(tmp_path, "a", rows, model_id="another", dim=64, source="s")
    live = LiveIndex(tmp_path, "a", write=True)
    assert found(live, np.eye(1, 64, dtype=np.float32)[0], 9) == ["c0002"]
    live.close()


def test_a_value_that_its_column_cannot_hold(tmp_path: Path) -> None:
    about = pa.table({"content_id": ["c0000"], "year": [2000]})
    publish(tmp_path, singles(5), metadata=about)
    with LiveIndex(tmp_path, "a", write=True) as live:
        with pytest.raises(EarmarkError, match="'year' of 'x' is no int64: 'unknown'"):
            live.put("x", clustered(1), about={"year": "unknown"})
        live.put("x", clustered(1), about={"year": "1999", "other": 1})
        assert found(live, clustered(1)[0], 5, where=pc.field("year") < 2000) == ["x"]


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    first = publish(tmp_path, singles(5))
    home = tmp_path / "a"
    os.rename(home / first.version, home / "29990101T000000000000")
    record = json.loads((home / "29990101T000000000000" / "manifest.json").read_text())
    record["version"] = "29990101T000000000000"
    (home / "29990101T000000000000" / "manifest.json").write_text(json.dumps(record))
    point_to(tmp_path, "a", "29990101T000000000000")
    for n in range(3):
        made = publish(tmp_path, singles(6 + n), source=str(n))
        assert made.version > "29990101" and open_index(tmp_path, "a").manifest == made
    (home / made.version / "index.faiss").unlink()
    with pytest.raises(IndexUnavailable, match="is missing or damaged"):
        point_to(tmp_path, "a", made.version)


def test_a_writer_looks_before_it_deletes(tmp_path: Path) -> None:
    """Another process published a content that the writer has not seen yet."""
    publish(tmp_path, singles(3))
    with LiveIndex(tmp_path, "a", write=True) as live:
        publish(tmp_path, singles(5), source="t")
        live.delete(["c0004"])
    assert "c0004" not in LiveIndex(tmp_path, "a").search(clustered(1), 9)["content_id"].to_pylist()


def test_ids_of_a_failed_append_are_not_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, singles(3))
    with LiveIndex(tmp_path, "a", write=True) as live:
        with monkeypatch.context() as patch:
            patch.setattr("index.log.os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            with pytest.raises(StorageError, match="full"):
                live.put("two", clustered(1))
        live.put("three", clustered(1, seed=2))
        live.merge()
    manifest = current_manifest(tmp_path, "a")
    assert manifest is not None
    assert (
        dict(
            zip(*(load_members(tmp_path, manifest).table()[n].to_pylist() for n in ("content_id", "id")), strict=True)
        )["three"]
        == 4
    )


def test_what_a_generator_makes_is_copied(tmp_path: Path) -> None:
    publish(tmp_path, singles(3))
    vectors, buffer = clustered(3, seed=8), np.empty((1, vectors_dim()), np.float32)

    def reused() -> Iterator[tuple[str, np.ndarray, None, None]]:
        for n, row in enumerate(vectors):
            buffer[:] = row
            yield f"n{n}", buffer, None, None

    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put_many(reused())
        for n, row in enumerate(vectors):
            np.testing.assert_array_equal(live.vectors(f"n{n}")[0], row)


def vectors_dim() -> int:
    return int(clustered(1).shape[1])


@pytest.mark.parametrize(
    ("content_id", "vectors", "options", "told"),
    [
        ("", None, {}, "cannot be a content id: it has 0"),
        ("bad\udc80", None, {}, "not valid Unicode"),
        ("a\nb", None, {}, "control characters"),
        ("a", "text", {}, "must be real numbers"),
        ("a", None, {"windows": [2**40]}, "numbers from 0"),
        ("a", None, {"windows": [-1]}, "numbers from 0"),
        ("a", None, {"windows": [1.5]}, "no whole numbers"),
        ("a", None, {"about": {"year": 2**70}}, "'year' of 'a' is no int64"),
        ("a", None, {"about": {("t",): 1}}, "no JSON"),
    ],
)
def test_what_the_log_cannot_hold_is_told_before(
    tmp_path: Path, content_id: str, vectors: object, options: dict[str, object], told: str
) -> None:
    publish(tmp_path, singles(3), metadata=pa.table({"content_id": ["c0000"], "year": [2000]}))
    with LiveIndex(tmp_path, "a", write=True) as live:
        size = sum(one.stat().st_size for one in segments(tmp_path / "a"))
        with pytest.raises(EarmarkError, match=told):
            live.put(content_id, clustered(1) if vectors is None else vectors, **options)  # type: ignore[arg-type]
        assert sum(one.stat().st_size for one in segments(tmp_path / "a")) == size


def test_damage_in_a_finished_segment_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, singles(3))
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("A", clustered(1, seed=1))
        with monkeypatch.context() as patch:
            patch.setattr("index.log.os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            with pytest.raises(StorageError):
                live.put("B", clustered(1, seed=2))
        live.put("C", clustered(1, seed=3))  # in a segment of its own
    first, _ = segments(tmp_path / "a")
    data = bytearray(first.read_bytes())
    data[-3] ^= 1
    first.write_bytes(data)
    for write in (False, True):
        with pytest.raises(IndexUnavailable, match="is damaged at byte 0"):
            LiveIndex(tmp_path, "a", write=write)
    data[-3] ^= 1
    first.write_bytes(data)
    with LiveIndex(tmp_path, "a", write=True) as live:  # the failed opening let the lock go
        assert live.pending == 2


def test_a_fork_neither_writes_nor_unlocks(tmp_path: Path) -> None:
    publish(tmp_path, singles(3))
    live = LiveIndex(tmp_path, "a", write=True)
    live.put("first", clustered(1))
    publish(tmp_path, singles(3), source="t")
    child = os.fork()
    if not child:
        try:
            live.put("child", clustered(1))  # looks first, which would begin a new segment
        except StorageError:
            live.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0 and len(segments(tmp_path / "a")) == 1
    with pytest.raises(StorageError, match="another process writes"):
        LiveIndex(tmp_path, "a", write=True)
    live.put("parent", clustered(1))
    live.close()


def test_segments_go_although_writers_are_short_lived(tmp_path: Path) -> None:
    publish(tmp_path, singles(3))
    for n in range(4):
        with LiveIndex(tmp_path, "a", write=True) as live:
            live.put(f"n{n}", clustered(1, seed=n))
        publish(tmp_path, singles(3), source=str(n))
    with LiveIndex(tmp_path, "a", write=True):
        assert [first_number(one) for one in segments(tmp_path / "a")] == [
            4,
            5,
        ]  # the version before may be gone back to


def test_ids_of_another_models_records_are_not_given_again(tmp_path: Path) -> None:
    publish(tmp_path, singles(3))
    live = LiveIndex(tmp_path, "a", write=True)
    live.put("x", clustered(1, seed=1))
    given = live._id_of("x", 0)
    live.close()
    rows = pa.table({"content_id": ["c0002"], "embedding": np.eye(1, 64).tolist()})
    other = publish_vectors(tmp_path, "a", rows, model_id="another", dim=64, source="s")
    point_to(tmp_path, "a", versions(tmp_path, "a")[0])
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("y", clustered(1, seed=2))
        first = live._id_of("y", 0)
    point_to(tmp_path, "a", other.version)
    with LiveIndex(tmp_path, "a", write=True) as live:  # neither record counts here
        live.put("z", np.eye(1, 64, dtype=np.float32))
        assert len({given, first, live._id_of("z", 0)}) == 3


def test_a_writer_behind_its_own_log_reads_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, singles(3))
    with LiveIndex(tmp_path, "a", write=True) as live:
        with monkeypatch.context() as patch:
            patch.setattr(live, "_changed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                live.put("logged", clustered(1))
        live.put("after", clustered(1, seed=1))
        assert (live._id_of("logged", 0), live._id_of("after", 0)) == (3, 4)
        with monkeypatch.context() as patch:
            patch.setattr(live, "_changed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                live.put("too", clustered(1))
        live.delete(["too"])
        assert live.pending == 2


def test_numbers_go_on_after_a_removal_without_the_log(tmp_path: Path) -> None:
    publish(tmp_path, singles(3))
    with LiveIndex(tmp_path, "a", write=True) as live:
        for n in range(4):
            live.put(f"n{n}", clustered(1, seed=n))
    remove(tmp_path, "a", ["n0"])
    for segment in segments(tmp_path / "a"):
        segment.unlink()
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("n0", clustered(1, seed=9))
    assert LiveIndex(tmp_path, "a").pending == 1


def test_what_is_said_is_the_same_live_and_replayed(tmp_path: Path) -> None:
    said = {"kind": "x", "day": date(2026, 1, 2), "plays": np.int64(3), "share": np.float32(0.1), "new": np.bool_(True)}
    types = {"kind": pa.string(), "day": pa.date32(), "plays": pa.int64(), "share": pa.float64(), "new": pa.bool_()}
    columns = {name: pa.array([None], kind) for name, kind in types.items()}
    publish(tmp_path, singles(3), metadata=pa.table({"content_id": ["c0000"], **columns}))
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("x", clustered(1), about=said)
        for one in (live, LiveIndex(tmp_path, "a")):
            assert one._state.about == (
                {"kind": "x", "day": "2026-01-02", "plays": "3", "share": "0.1", "new": "True"},
            )
            for name, value in (("day", date(2026, 1, 2)), ("plays", 3), ("share", 0.1), ("new", True)):
                assert found(one, clustered(1)[0], 5, where=pc.field(name) == value) == ["x"]


def test_a_generator_that_puts_others_meanwhile(tmp_path: Path) -> None:
    publish(tmp_path, singles(3))
    with LiveIndex(tmp_path, "a", write=True) as live:

        def putting() -> Iterator[tuple[str, np.ndarray, None, None]]:
            live.put("inner", clustered(1, seed=1))
            yield "outer", clustered(1, seed=2), None, None

        live.put_many(putting())
        assert live._id_of("inner", 0) != live._id_of("outer", 0)
    assert LiveIndex(tmp_path, "a").pending == 2


@pytest.mark.parametrize("begins", [False, True])
def test_segments_that_go_while_a_reader_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bool) -> None:
    """Versions come and go between its look for the current one and its reading of the log."""
    publish(tmp_path, singles(3))
    reader = LiveIndex(tmp_path, "a")
    with LiveIndex(tmp_path, "a", write=True) as live:
        real = live_module.Reader.read

        def slow(self: Reader) -> Iterator[Record]:
            monkeypatch.undo()
            for name in ("A", "B", "C"):
                live.put(name, clustered(1, seed=ord(name)))
                live.merge()
            live.put("D", clustered(1, seed=4))
            return real(self)

        monkeypatch.setattr(live_module.Reader, "read", slow)
        if begins:
            reader = LiveIndex(tmp_path, "a")
        else:
            reader.refresh()
        assert sorted(found(reader, clustered(1)[0], 9)) == ["A", "B", "C", "D", "c0000", "c0001", "c0002"]


def test_vectors_come_by_window(tmp_path: Path) -> None:
    """From the changes as from the base."""
    publish(tmp_path, singles(3))
    rows = clustered(3, seed=1)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("x", rows, windows=[5, 9, 2])
        np.testing.assert_array_equal(live.vectors("x"), rows[[2, 0, 1]])
        live.merge(factory="Flat")
        np.testing.assert_allclose(live.vectors("x"), rows[[2, 0, 1]], atol=1e-6)


def test_a_merge_of_nothing_is_told(tmp_path: Path) -> None:
    publish(tmp_path, singles(3))
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("x", clustered(1))
        live.delete(["x", *singles(3)])
        with pytest.raises(EarmarkError, match=r"holds nothing any more.*index.remove"):
            live.merge()
        live.put("x", clustered(1))
        assert live.merge().count == 1
