"""What queries, counts and ids may be: scores are cosines whatever a query's length, and a string is one id."""

from __future__ import annotations

import logging
import os
import signal
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from core.errors import ConfigError, EarmarkError, IndexUnavailable, NotFound, WrongType
from index import LiveIndex, Server, open_index, publish_vectors, remove
from index.queries import Queries
from index.versions import publishing

DIM, COUNT = 16, 300


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


VECTORS = unit(COUNT)
NAMES = [f"a{n}" for n in range(COUNT)]


def publish(folder: Path, source: str = "s", **more: object) -> None:
    rows = pa.table({"content_id": NAMES, "embedding": VECTORS.tolist()})
    publish_vectors(folder, "a", rows, **{"model_id": "m", "dim": DIM, "source": source, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("indexes")
    publish(made)
    return made


@pytest.fixture(scope="module", params=["published", "live"])
def index(request: pytest.FixtureRequest, folder: Path) -> Queries:
    """The same contents in a published index, and in one that half of them were put into live."""
    if request.param == "published":
        return open_index(folder, "a")
    home = folder / "changed"
    half = COUNT // 2
    rows = pa.table({"content_id": NAMES[:half], "embedding": VECTORS[:half].tolist()})
    publish_vectors(home, "a", rows, model_id="m", dim=DIM, source="s")
    live = LiveIndex(home, "a", write=True)
    request.addfinalizer(live.close)
    live.put_many([(NAMES[n], VECTORS[n], None, None) for n in range(half, COUNT)])
    return live


class Differentiable:
    """Converts to no array, as a PyTorch tensor that has a gradient."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


def ids(found: pa.Table) -> list[str]:
    return found["content_id"].to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("factor", [10, 0.1, 1e-30, 1e30, -3])
def test_a_score_is_the_cosine_whatever_the_length_of_the_query(index: Queries, factor: float) -> None:
    query = unit(1, seed=7)[0].astype(np.float64) * factor
    cosines = np.sort(VECTORS @ (query / np.linalg.norm(query)))[::-1]
    np.testing.assert_allclose(index.search(query, 5)["score"], cosines[:5], atol=1e-6)
    for exact in (False, True):
        assert index.above(query, 0.4, exact=exact).num_rows == (cosines >= 0.4).sum()


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8])
def test_numbers_of_any_type_are_a_query(index: Queries, dtype: type) -> None:
    query = np.round(np.abs(unit(1, seed=7)[0]) * 20).astype(dtype)
    expected = np.argmax(VECTORS @ query.astype(np.float64))
    assert ids(index.search(query, 1)) == ids(index.search(query.tolist(), 1)) == [NAMES[expected]]  # type: ignore[arg-type]


def test_above_a_cosine_is_the_content_alone(index: Queries) -> None:
    assert ids(index.above(10 * VECTORS[3], 0.999)) == ids(index.above(10 * VECTORS[3], 0.999, exact=True)) == ["a3"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (np.zeros(DIM), "query 0 has norm zero"),
        (np.stack([np.ones(DIM), np.zeros(DIM)]), "query 1 has norm zero"),
        (np.full(DIM, np.nan), "not finite"),
        (np.r_[np.inf, np.ones(DIM - 1)], "not finite"),
        (np.ones((1, 2, DIM)), r"queries have shape \(1, 2, 16\)"),
        (np.float32(1), "queries have shape"),
        (np.ones(DIM - 1), "query has 15 dimensions, the index 16"),
        (np.empty(0), "query has 0 dimensions"),
        (np.ones(DIM, bool), "real numbers, not bool"),
        (np.ones(DIM, complex), "real numbers"),
        (np.array(["1"] * DIM), "real numbers"),
        (np.array([None] * DIM), "real numbers"),
        ([[1.0, 2.0], [1.0]], "not an array of numbers"),
        ("a0", "real numbers"),
        (Differentiable(), "not an array of numbers"),
    ],
)
def test_what_is_no_query(index: Queries, query: object, problem: str) -> None:
    asked: np.ndarray = query  # type: ignore[assignment]
    for call in (
        lambda: index.search(asked, 1),
        lambda: index.above(asked, 0.5),
        lambda: index.above(asked, 0, exact=True),
    ):
        with pytest.raises(EarmarkError, match=problem):
            call()


@pytest.mark.parametrize("k", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_k_is_of_any_integer_type(index: Queries, k: int) -> None:
    assert index.search(VECTORS[:2], k).num_rows == 6 and index.similar("a1", k).num_rows == 3


@pytest.mark.parametrize("k", [True, np.True_, 3.0, "3", None, [3]])
def test_k_is_a_whole_number(index: Queries, k: int) -> None:
    with pytest.raises(WrongType, match="k must be a whole number of contents"):
        index.search(VECTORS[0], k)


@pytest.mark.parametrize("k", [0, -1, np.int8(-5)])
def test_k_is_one_at_least(index: Queries, k: int) -> None:
    with pytest.raises(EarmarkError, match="must be at least 1"):
        index.search(VECTORS[0], k)


@pytest.mark.parametrize("k", [COUNT + 1, 10**9, 2**63, 10**30])
def test_more_than_there_are_is_all(index: Queries, k: int) -> None:
    assert sorted(ids(index.search(VECTORS[0], k))) == sorted(NAMES)


@pytest.mark.parametrize("score", [0.5, np.float16(0.5), np.array(0.5), pa.scalar(0.5), Fraction(1, 2)])
def test_a_least_score_is_of_any_type_of_numbers(index: Queries, score: float) -> None:
    for exact in (False, True):
        assert index.above(VECTORS[0], score, exact=exact).equals(index.above(VECTORS[0], 0.5, exact=exact))


@pytest.mark.parametrize("score", [np.nan, np.inf, "0.5", None, [0.5], 10**400, pa.scalar("0.5"), pa.scalar(None)])
def test_a_least_score_is_a_number(index: Queries, score: float) -> None:
    with pytest.raises(EarmarkError, match="the minimum score must be a finite number"):
        index.above(VECTORS[0], score)


def test_a_string_is_one_id(index: Queries) -> None:
    assert ids(index.search(VECTORS[0], 1)) == ["a0"]
    assert "a0" not in ids(index.search(VECTORS[0], COUNT, exclude="a0"))
    assert ids(index.similar("a17", 5)) == ids(index.similar(["a17"], 5))
    assert ids(index.similar("a17", 5, unlike="a2")) == ids(index.similar(["a17"], 5, unlike=["a2"]))
    column = pa.chunked_array([["a0", "a1"]])
    for several in (column, column.chunk(0), np.array(["a0", "a1"]), {"a0", "a1"}, iter(["a0", "a1"]), list(column)):
        assert not {"a0", "a1"} & set(ids(index.search(VECTORS[0], COUNT, exclude=several)))


@pytest.mark.parametrize("wrong", [b"a0", [b"a0"], 5, [5], [None], [["a0"]], None, Path("a0"), np.array([["a0"]])])
def test_what_is_no_id_is_refused_everywhere(index: Queries, wrong: object, tmp_path: Path) -> None:
    publish(tmp_path)
    with LiveIndex(tmp_path, "a", write=True) as live:
        for call in (
            lambda: index.search(VECTORS[0], 1, exclude=wrong),  # type: ignore[arg-type]
            lambda: index.similar(wrong, 1),  # type: ignore[arg-type]
            lambda: index.similar("a0", 1, unlike=wrong),  # type: ignore[arg-type]
            lambda: live.delete(wrong),  # type: ignore[arg-type]
            lambda: remove(tmp_path, "a", wrong),  # type: ignore[arg-type]
            lambda: index.vectors(wrong),  # type: ignore[arg-type]
        ):
            with pytest.raises(TypeError) as raised:
                call()
            assert isinstance(raised.value, ConfigError)
        assert live.search(VECTORS[0], COUNT + 1).num_rows == COUNT


@pytest.mark.parametrize("wrong", ["abcd", ["abcd"], [("new", VECTORS[0])], [b"new"]])
def test_what_is_put_has_four_parts(tmp_path: Path, wrong: object) -> None:
    publish(tmp_path)
    with LiveIndex(tmp_path, "a", write=True) as live:
        with pytest.raises(WrongType, match="content id, vectors, about, windows"):
            live.put_many([("fine", VECTORS[0], None, None), *wrong])  # type: ignore[misc]
        assert live.pending == 0


def test_a_takedown_says_which_ids_were_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path)
    with LiveIndex(tmp_path, "a", write=True) as live, caplog.at_level(logging.WARNING):
        assert live.delete("a1") == []
        assert live.delete(["a2", "nobody", "a1", "a2"]) == ["a1", "nobody"]
        assert "not deleted: 'a1', 'nobody'" in caplog.text
        assert not {"a1", "a2"} & set(ids(live.search(VECTORS[0], COUNT)))
    for absent in ("a", ["nobody", "no one"], []):
        if absent:
            with pytest.raises(NotFound, match="nothing was removed"):
                remove(tmp_path, "a", absent)
    with pytest.raises(IndexUnavailable, match="there is no index b"):
        remove(tmp_path, "b", "a7")
    assert not (tmp_path / "b").exists()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        remove(tmp_path, "a", ["a7", "nobody"])
    assert "not removed: 'nobody'" in caplog.text
    before = remove(tmp_path, "a", ["nobody"], missing_ok=True)
    after = remove(tmp_path, "a", "a77")
    assert before is not None and after is not None and after.count == before.count - 1 == COUNT - 2
    assert not {"a7", "a77"} & set(ids(open_index(tmp_path, "a").search(VECTORS[0], COUNT)))
    # What only an earlier version holds can still be purged.
    assert remove(tmp_path, "a", "a77", purge=True) is not None


def test_a_lone_path_is_no_list_of_paths(tmp_path: Path) -> None:
    for wrong in (tmp_path / "rows.parquet", str(tmp_path / "rows.parquet"), b"rows", 5, [5], None):
        with pytest.raises(WrongType, match=r"Parquet files"):
            publish_vectors(tmp_path, "a", wrong, model_id="m", dim=DIM, source="s")  # type: ignore[arg-type]
    with pytest.raises(WrongType, match="metadata is an Arrow table"):
        publish(tmp_path, metadata={"content_id": NAMES})
    assert not (tmp_path / "a").exists()
    words = pa.table({"content_id": ["a"], "embedding": ["0.1 0.2"]})
    with pytest.raises(EarmarkError, match="a vector is a list of numbers, not string"):
        publish_vectors(tmp_path, "a", words, model_id="m", dim=DIM, source="s")


def test_exact_misses_nothing_where_the_index_is_approximate(tmp_path: Path) -> None:
    """Against sorting all vectors; the index's lists are looked at one by one, so that it misses most."""
    publish(tmp_path, factory="IVF64,Flat", gate=0.0, target_recall=0.01)
    searcher = open_index(tmp_path, "a")
    query = unit(1, seed=11)[0]
    expected = [NAMES[n] for n in np.argsort(-(VECTORS @ query)) if VECTORS[n] @ query >= 0.2]
    assert ids(searcher.above(query, 0.2, exact=True)) == expected
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.delete(expected[0])
        live.put("new", query)
        live.put(expected[1], -query)
        assert ids(live.above(query, 0.2, exact=True)) == ["new", *expected[2:]]
        assert live.above(np.empty((0, DIM)), 0.2, exact=True).num_rows == 0


def test_a_content_without_metadata_has_null_in_every_column(tmp_path: Path) -> None:
    """Published or put live: the filters that null fulfils find it, and no other."""
    about = pa.table({"content_id": NAMES[2:], "kind": ["track"] * (COUNT - 2)})
    publish(tmp_path, metadata=about)
    everything = COUNT + 10
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("new", unit(1, seed=5))
        for found, absent in ((open_index(tmp_path, "a"), {"a0", "a1"}), (live, {"a0", "a1", "new"})):
            kinds = pc.field("kind")
            assert set(ids(found.search(VECTORS[0], everything, where=kinds.is_null()))) == absent
            assert not absent & set(ids(found.search(VECTORS[0], everything, where=kinds == "track")))
            assert not absent & set(ids(found.search(VECTORS[0], everything, where=kinds != "track")))
            assert set(ids(found.above(VECTORS[0], -1, where=kinds.is_null(), exact=True))) == absent
        live.merge()
    again = open_index(tmp_path, "a")
    assert set(ids(again.search(VECTORS[0], everything, where=pc.field("kind").is_null()))) == {"a0", "a1", "new"}


def test_publishing_what_was_deleted_live(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.delete(NAMES)
        with pytest.raises(EarmarkError, match=r"all 300 contents given were deleted live, .* LiveIndex.put .*'a0'"):
            publish(tmp_path, "t")
        live.put("a5", VECTORS[5])
    with caplog.at_level(logging.WARNING):
        publish(tmp_path, "t")
    assert "299 of the 300 contents given were deleted live" in caplog.text
    assert ids(open_index(tmp_path, "a").search(VECTORS[0], COUNT)) == ["a5"]


@pytest.mark.parametrize("purge", [False, True])
def test_what_was_put_live_and_removed_returns_with_a_publication(tmp_path: Path, purge: bool) -> None:
    """Unless it was deleted live: a purge blanks what the log has of it, and that must not look like a delete."""
    publish(tmp_path)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.delete(["a1", "a2", "a4"])
        live.merge()  # the base knows that they are deleted
        live.put_many([(name, VECTORS[7], None, None) for name in ("a0", "a1", "a4", "new")])
        live.delete("a4")
    remove(tmp_path, "a", ["a0", "a1", "a2", "a4", "new"], purge=purge, missing_ok=True)
    remove(tmp_path, "a", ["a2", "a3"], purge=purge, missing_ok=True)
    assert not {"a0", "a1", "a2", "a3", "new"} & set(ids(open_index(tmp_path, "a").search(VECTORS[0], COUNT)))
    publish(tmp_path, "t")
    assert set(NAMES) - set(ids(open_index(tmp_path, "a").search(VECTORS[0], COUNT + 1))) == {"a2", "a4"}
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put_many([(name, VECTORS[2], None, None) for name in ("a2", "a4")])
    publish(tmp_path, "u")
    assert set(ids(open_index(tmp_path, "a").search(VECTORS[0], COUNT + 1))) == set(NAMES)


def test_an_index_is_not_used_over_a_fork(tmp_path: Path) -> None:
    """A search of many queries makes OpenMP's threads, which a forked process does not have: it would wait for them."""
    publish(tmp_path)
    searcher, server = open_index(tmp_path, "a"), Server(tmp_path, "a")
    with LiveIndex(tmp_path, "a", write=True) as live:
        assert searcher.search(VECTORS, 1).num_rows == COUNT

        def in_child() -> None:
            for call in (
                lambda: searcher.search(VECTORS, 1),
                lambda: searcher.vectors("a0"),
                lambda: live.search(VECTORS, 1),
                lambda: live.vectors("a0"),
                lambda: live.put("new", VECTORS[0]),
                lambda: live.delete("a0"),
                live.refresh,
                server.refresh,
            ):
                with pytest.raises(EarmarkError, match="forked"):
                    call()
            # Opened anew it works, also in the thread that forked.
            assert open_index(tmp_path, "a").search(VECTORS, 1).num_rows == COUNT

        child = os.fork()
        if not child:
            status = 1
            try:
                in_child()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert live.search(VECTORS, 1).num_rows == COUNT


def test_a_publication_in_another_thread_is_over_for_a_forked_process_when_its_file_is_free(tmp_path: Path) -> None:
    """The lock that the thread holds in memory would never be free in the child."""
    publish(tmp_path)
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        with publishing(tmp_path / "a"):
            begun.set()
            end.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(60)
        with publishing(tmp_path / "a"):
            os._exit(0)
    end.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("wrong", ["", "a\nb", "a\0", "\x85", "x" * 513, "é" * 257])
def test_what_is_published_has_ids_that_can_be_content_ids(tmp_path: Path, wrong: str) -> None:
    for rows in (
        pa.table({"content_id": [*NAMES[1:], wrong], "embedding": VECTORS.tolist()}),
        pa.table({"content_id": pa.array([wrong, *NAMES[1:]], pa.large_string()), "embedding": VECTORS.tolist()}),
    ):
        with pytest.raises(EarmarkError, match="cannot be a content id"):
            publish_vectors(tmp_path, "a", rows, model_id="m", dim=DIM, source="s")
    longest = "é" * 256
    rows = pa.table({"content_id": [longest, *NAMES[1:]], "embedding": VECTORS.tolist()})
    assert publish_vectors(tmp_path, "a", rows, model_id="m", dim=DIM, source="s").count == COUNT


def test_a_version_or_a_name_that_is_none(tmp_path: Path) -> None:
    publish(tmp_path)
    with pytest.raises(ConfigError, match="the index version '' .*empty"):
        open_index(tmp_path, "a", version="")
    for wrong in (b"a", None, 5):
        with pytest.raises(WrongType, match="a name is text"):
            open_index(tmp_path, wrong)  # type: ignore[arg-type]


def test_a_pointer_or_a_manifest_leads_nowhere_else(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "a" / "CURRENT").write_text('{"version": "../../evil"}')
    with pytest.raises(IndexUnavailable, match="pointer of the index a is damaged"):
        open_index(tmp_path, "a")
    publish(tmp_path, "t")
    (tmp_path / "a").rename(tmp_path / "renamed")
    searcher = open_index(tmp_path, "renamed")
    assert searcher.manifest.name == "renamed" and searcher.search(VECTORS[0], 1).num_rows == 1
