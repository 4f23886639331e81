"""Building, publishing and searching: exactness, ids, crashes, damage."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import EarmarkError, IndexUnavailable
from index import open_index, publish_vectors, remove
from index.build import build
from index.ids import assign
from index.load import load_members
from index.parameters import search_parameters
from index.versions import current_version, load_manifest, point_to, versions

DIM = 16


def unit(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(vectors: np.ndarray, ids: Sequence[str] | None = None) -> pa.Table:
    names = list(ids) if ids is not None else [f"content {n}" for n in range(len(vectors))]
    return pa.table({"content_id": names, "embedding": pa.array(vectors.tolist(), pa.list_(pa.float32()))})


def put(folder: Path, vectors: np.ndarray, ids: Sequence[str] | None = None, source: str = "s", **more: str) -> object:
    return publish_vectors(
        folder, "audio", table(vectors, ids), model_id=more.get("model_id", "m"), dim=vectors.shape[1], source=source
    )


def test_search_is_exact_and_ordered(tmp_path: Path) -> None:
    vectors = unit(500)
    put(tmp_path, vectors)
    queries = unit(20, seed=1)
    found = open_index(tmp_path, "audio").search(queries, 10)
    scores = queries @ vectors.T
    for number in range(20):
        mine = [int(hit["content_id"].split()[1]) for hit in found.to_pylist() if hit["query"] == number]
        assert mine == np.argsort(-scores[number])[:10].tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 10), st.integers(0, 2**31))
def test_search_equals_sorting_everything(count: int, k: int, hidden: int, seed: int) -> None:
    import tempfile

    # Coarse values make many ties, which come in the order of content ids.
    rng = np.random.default_rng(seed)
    corners = np.eye(4, dtype=np.float32)[rng.integers(0, 4, count)]
    with tempfile.TemporaryDirectory() as folder:
        names = [f"c{n:03d}" for n in rng.permutation(count)]
        put(Path(folder), corners, names)
        query = unit(1, seed, 4)
        out = set(names[:hidden])
        found = open_index(Path(folder), "audio").search(query, k, exclude=out)
    scores = (corners @ query[0]).tolist()
    expected = sorted((-round(s, 5), n) for s, n in zip(scores, names, strict=True) if n not in out)[:k]
    assert found["content_id"].to_pylist() == [n for _, n in expected]


def test_windows_of_a_content_count_once(tmp_path: Path) -> None:
    vectors = unit(6)
    rows = table(vectors, ["a", "a", "a", "b", "b", "c"]).append_column("window", pa.array([0, 1, 2, 0, 1, 0]))
    publish_vectors(tmp_path, "audio", rows, model_id="m", dim=DIM, source="s", windows="window")
    found = open_index(tmp_path, "audio").search(vectors[2:3], 3)
    assert found["content_id"].to_pylist()[0] == "a" and set(found["content_id"].to_pylist()) == {"a", "b", "c"}
    assert found["score"][0].as_py() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_the_graph_index_reaches_the_measured_recall() -> None:
    vectors = unit(4000, dim=32)
    made = build(vectors, factory="HNSW32,SQ8", target_recall=0.95)
    queries = unit(100, seed=5, dim=32)
    exact = np.argsort(-(queries @ vectors[made.order].T), axis=1)[:, :10]
    _, found = made.faiss_index.search(queries, 10, params=search_parameters(made.faiss_index, made.parameters))
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert made.quality.recall["10"] >= 0.95 and abs(recall - made.quality.recall["10"]) < 0.05
    assert made.parameters["efSearch"] >= 16


def test_the_recall_gate_keeps_the_version_before(tmp_path: Path) -> None:
    first = put(tmp_path, unit(300))
    with pytest.raises(IndexUnavailable, match="below the gate"):
        publish_vectors(
            tmp_path,
            "audio",
            table(unit(300, 1)),
            model_id="m",
            dim=DIM,
            source="t",
            factory="PQ1x4",
            target_recall=0.99,
        )
    assert current_version(tmp_path, "audio") == first.version  # type: ignore[attr-defined]


def test_an_unchanged_source_is_not_built_again(tmp_path: Path) -> None:
    one = put(tmp_path, unit(50))
    assert put(tmp_path, unit(50)) == one
    assert put(tmp_path, unit(51), source="t") != one


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        (np.full((3, DIM), np.nan, np.float32), "3 vectors are not finite"),
        (np.zeros((2, DIM), np.float32), "the first is row 0"),
        (2 * unit(4), "unit norm"),
        (np.zeros((0, DIM), np.float32), "no vectors"),
    ],
)
def test_vectors_that_cannot_be_indexed(tmp_path: Path, vectors: np.ndarray, told: str) -> None:
    with pytest.raises(EarmarkError, match=told):
        put(tmp_path, vectors)
    assert current_version(tmp_path, "audio") is None


def test_ids_grow_and_are_never_given_twice(tmp_path: Path) -> None:
    def numbers() -> dict[str, int]:
        manifest = load_manifest(tmp_path, "audio", str(current_version(tmp_path, "audio")))
        ids = load_members(tmp_path, manifest).table()
        return dict(zip(ids["content_id"].to_pylist(), ids["id"].to_pylist(), strict=True))

    put(tmp_path, unit(3), ["a", "b", "c"], "1")
    assert numbers() == {"a": 0, "b": 1, "c": 2}
    remove(tmp_path, "audio", ["c", "nobody"])
    assert numbers() == {"a": 0, "b": 1}
    put(tmp_path, unit(3), ["a", "d", "c"], "2")
    # The id of the removed c is not handed to d; a comes back as itself.
    assert numbers()["a"] == 0 and numbers()["d"] == 3 and numbers()["c"] == 4
    remove(tmp_path, "audio", ["a", "c", "d"])
    assert current_version(tmp_path, "audio") is None
    put(tmp_path, unit(1), ["e"], "3")
    assert numbers() == {"e": 5}


@given(st.lists(st.sets(st.sampled_from("abcdefg")), max_size=8))
def test_ids_over_any_history(history: list[set[str]]) -> None:
    previous, next_id, given_to = None, 0, {}
    for names in history:
        contents, windows = pa.array(sorted(names), pa.string()), np.zeros(len(names), np.int32)
        ids, next_id = assign(previous, next_id, contents, windows)
        previous = pa.table({"id": ids, "content_id": contents, "window": windows})
        for name, number in zip(sorted(names), ids.tolist(), strict=True):
            assert given_to.setdefault(number, name) == name, "an id changed hands"
            assert number < next_id


def test_removal_keeps_the_rest_as_it_was(tmp_path: Path) -> None:
    vectors = unit(100)
    put(tmp_path, vectors)
    remove(tmp_path, "audio", ["content 7"])
    searcher = open_index(tmp_path, "audio")
    found = searcher.search(vectors[7:8], 99)
    assert "content 7" not in found["content_id"].to_pylist() and found.num_rows == 99
    expected = np.delete(vectors, 7, axis=0) @ vectors[7]
    assert found["score"].to_pylist() == pytest.approx(sorted(expected.tolist(), reverse=True), abs=1e-5)


def test_a_purge_leaves_one_version(tmp_path: Path) -> None:
    put(tmp_path, unit(10), source="1")
    put(tmp_path, unit(10, 1), source="2")
    assert len(versions(tmp_path, "audio")) == 2
    remove(tmp_path, "audio", ["content 1"], purge=True)
    assert len(versions(tmp_path, "audio")) == 1


def test_going_back_to_the_version_before(tmp_path: Path) -> None:
    one = put(tmp_path, unit(10), source="1")
    put(tmp_path, unit(12), source="2")
    point_to(tmp_path, "audio", one.version)  # type: ignore[attr-defined]
    assert open_index(tmp_path, "audio").manifest.count == 10
    with pytest.raises(IndexUnavailable, match="no version"):
        point_to(tmp_path, "audio", "2020")


def test_a_version_that_a_release_points_at_is_not_retired(tmp_path: Path) -> None:
    first = put(tmp_path, unit(10), source="0")
    for number in range(1, 4):
        pinned = {first.version}  # type: ignore[attr-defined]
        rows = table(unit(10, number))
        publish_vectors(tmp_path, "audio", rows, model_id="m", dim=DIM, source=str(number), pinned=pinned)
    assert len(versions(tmp_path, "audio")) == 3
    assert open_index(tmp_path, "audio", version=first.version).manifest == first  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", ["index.faiss", "rows.arrow", "contents.arrow"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_damage_is_seen_and_healed(tmp_path: Path, file: str, harm: str) -> None:
    manifest = put(tmp_path, unit(40))
    path = tmp_path / "audio" / manifest.version / file  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    {"flip": lambda: path.write_bytes(data), "cut": lambda: path.write_bytes(data[:-9]), "gone": path.unlink}[harm]()
    with pytest.raises(IndexUnavailable, match="damaged"):
        open_index(tmp_path, "audio")
    healed = put(tmp_path, unit(40))
    assert healed != manifest and open_index(tmp_path, "audio").search(unit(1), 1).num_rows == 1


def test_damaged_manifests_and_pointers(tmp_path: Path) -> None:
    manifest = put(tmp_path, unit(5))
    path = tmp_path / "audio" / manifest.version / "manifest.json"  # type: ignore[attr-defined]
    whole = json.loads(path.read_text())
    for record, told in (
        ("{", "damaged"),
        (json.dumps({**whole, "format": 99}), "update it"),
        (json.dumps({**whole, "colour": "red"}), "damaged"),
    ):
        path.write_text(record)
        with pytest.raises(IndexUnavailable, match=told):
            load_manifest(tmp_path, "audio", manifest.version)  # type: ignore[attr-defined]
    (tmp_path / "audio" / "CURRENT").write_text("nonsense")
    with pytest.raises(IndexUnavailable, match="pointer"):
        open_index(tmp_path, "audio")
    put(tmp_path, unit(5))
    assert open_index(tmp_path, "audio").manifest.count == 5
    with pytest.raises(IndexUnavailable, match="not been published"):
        open_index(tmp_path, "image")


def test_another_model_is_refused(tmp_path: Path) -> None:
    put(tmp_path, unit(5), model_id="one")
    with pytest.raises(IndexUnavailable, match="vectors of one"):
        open_index(tmp_path, "audio", expect_model="two")
    searcher = open_index(tmp_path, "audio", expect_model="one")
    with pytest.raises(EarmarkError, match="has 3 dimensions"):
        searcher.search(np.ones((1, 3), np.float32), 1)
    with pytest.raises(EarmarkError, match="not finite"):
        searcher.search(np.full((1, DIM), np.inf, np.float32), 1)


@pytest.mark.parametrize("point", range(4))
def test_a_crash_while_publishing_leaves_the_version_before(
    tmp_path: Path, point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies at the n-th rename of a publication: the manifest, the folder, the pointer, the retired version."""
    put(tmp_path, unit(10, 0), source="0")
    before = put(tmp_path, unit(10, 1), source="1")
    calls = {"left": point}

    def dying(rename: object) -> object:
        def call(*names: object, **more: object) -> None:
            if calls["left"] == 0:
                raise KeyboardInterrupt
            calls["left"] -= 1
            rename(*names, **more)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(os, "rename", dying(os.rename))
        with pytest.raises(KeyboardInterrupt):
            put(tmp_path, unit(11, 2), source="2")
    served = open_index(tmp_path, "audio").manifest
    assert served.version == before.version or served.count == 11  # type: ignore[attr-defined]
    after = put(tmp_path, unit(11, 2), source="2")
    assert open_index(tmp_path, "audio").manifest == after
    assert not [p for p in (tmp_path / "audio").iterdir() if p.name.startswith(".")]


def test_threads_may_share_a_searcher(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    vectors = unit(300)
    put(tmp_path, vectors)
    searcher = open_index(tmp_path, "audio")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: searcher.search(vectors[n : n + 1], 1)["content_id"][0].as_py(), range(300)))
    assert answers == [f"content {n}" for n in range(300)]
