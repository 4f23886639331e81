"""What may be asked of a published index, against NumPy over all vectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from core.errors import ConfigError, EarmarkError, IndexUnavailable, NotFound
from index import open_index, publish_vectors, remove
from index.search import Searcher
from tests.index.test_choice import clustered

ARTEFACTS = Path(__file__).parent / "artefacts"
COUNT = 400


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    """Two windows a content; metadata of all contents but the last."""
    vectors = clustered(2 * COUNT)
    names = [f"c{n // 2:03d}" for n in range(2 * COUNT)]
    rows = pa.table({"content_id": names, "window": [n % 2 for n in range(2 * COUNT)], "embedding": vectors.tolist()})
    about = pa.table(
        {
            "content_id": [f"c{n:03d}" for n in range(COUNT - 1)],
            "language": ["en" if n % 3 else "de" for n in range(COUNT - 1)],
            "explicit": [n % 2 == 0 for n in range(COUNT - 1)],
            "year": list(range(COUNT - 1)),
        }
    )
    publish_vectors(tmp_path, "a", rows, model_id="m", dim=32, source="s", windows="window", metadata=about)
    return open_index(tmp_path, "a")


def scores(queries: np.ndarray) -> np.ndarray:
    """Best window of each content: (queries, contents)."""
    return (queries @ clustered(2 * COUNT).T).reshape(len(queries), COUNT, 2).max(axis=2)


def names(found: pa.Table, query: int = 0) -> list[str]:
    return found.filter(pc.field("query") == query)["content_id"].to_pylist()


@pytest.mark.parametrize(
    ("where", "keeps"),
    [
        (pc.field("language") == "de", lambda n: n % 3 == 0),
        ((pc.field("language") == "en") & pc.field("explicit"), lambda n: n % 3 and n % 2 == 0),
        (pc.field("year").isin([7, 250]), lambda n: n in (7, 250)),
        (pc.field("year") > 10_000, lambda n: False),
        (~(pc.field("year") > 5), lambda n: n <= 5),
    ],
)
def test_filters(searcher: Searcher, where: pc.Expression, keeps: object) -> None:
    queries = clustered(5, seed=1)
    found = searcher.search(queries, 7, where=where)
    for number, row in enumerate(scores(queries)):
        right = [n for n in np.argsort(-row) if n < COUNT - 1 and keeps(n)][:7]  # type: ignore[operator]
        assert names(found, number) == [f"c{n:03d}" for n in right]


def test_a_filter_that_does_not_fit(searcher: Searcher, tmp_path: Path) -> None:
    assert searcher.columns == ["content_id", "language", "explicit", "year"]
    query = clustered(1)
    with pytest.raises(ConfigError, match=r"does not fit the metadata \(content_id, language, explicit, year\)"):
        searcher.search(query, 3, where=pc.field("nothing") == 1)
    with pytest.raises(ConfigError, match="does not fit"):
        searcher.search(query, 3, where=pc.field("year") == "x")
    rows = pa.table({"content_id": ["a"], "embedding": query.tolist()})
    publish_vectors(tmp_path / "plain", "a", rows, model_id="m", dim=32, source="s")
    with pytest.raises(ConfigError, match="has no metadata to filter by"):
        open_index(tmp_path / "plain", "a").search(query, 3, where=pc.field("year") == 1)


def test_everything_above_a_score(searcher: Searcher) -> None:
    queries = clustered(4, seed=2)
    for least in (-1.0, 0.3, 0.6, 1.1):
        found = searcher.above(queries, least)
        for number, row in enumerate(scores(queries)):
            right = [f"c{n:03d}" for n in np.argsort(-row) if row[n] >= least]
            assert names(found, number) == right
    few = searcher.above(queries, 0.3, where=pc.field("year") < 50)
    assert names(few, 1) == [
        f"c{n:03d}" for n in np.argsort(-scores(queries)[1]) if n < 50 and scores(queries)[1][n] >= 0.3
    ]


def test_more_like_these_less_like_those(searcher: Searcher) -> None:
    vectors = clustered(2 * COUNT).reshape(COUNT, 2, 32)
    like, unlike = [3, 8], [5]
    wanted = vectors[like].mean(axis=1).mean(axis=0) - 0.5 * vectors[unlike].mean(axis=1).mean(axis=0)
    row = scores(wanted[None] / np.linalg.norm(wanted))[0]
    right = [f"c{n:03d}" for n in np.argsort(-row) if n not in (3, 8, 5)][:6]
    assert names(searcher.similar(["c003", "c008"], 6, unlike=["c005"])) == right
    with pytest.raises(NotFound, match="'nobody' is not in the index a"):
        searcher.similar(["nobody"], 3)
    with pytest.raises(EarmarkError, match="one content at least"):
        searcher.similar([], 3)


def test_many_contents_left_out(searcher: Searcher) -> None:
    queries = clustered(3, seed=5)
    out = [f"c{n:03d}" for n in range(0, COUNT, 2)]
    found = searcher.search(queries, 9, exclude=out)
    for number, row in enumerate(scores(queries)):
        assert names(found, number) == [f"c{n:03d}" for n in np.argsort(-row) if n % 2][:9]
    everything = searcher.search(queries, COUNT + 50)
    assert everything.num_rows == 3 * COUNT


def test_a_query_of_no_vectors_and_k_of_none(searcher: Searcher) -> None:
    assert searcher.search(np.empty((0, 32), np.float32), 5).num_rows == 0
    with pytest.raises(EarmarkError, match="must be at least 1"):
        searcher.search(clustered(1), 0)


def test_deeper_than_the_lists_that_are_looked_at(tmp_path: Path) -> None:
    """An IVF index finds k however many lists that takes."""
    vectors = clustered(3000)
    rows = pa.table({"content_id": [f"c{n:04d}" for n in range(3000)], "embedding": vectors.tolist()})
    publish_vectors(
        tmp_path, "a", rows, model_id="m", dim=32, source="s", factory="IVF256,RaBitQfs,Refine(SQ8)", target_recall=0.8
    )
    found = open_index(tmp_path, "a").search(clustered(2, seed=3), 2500)
    assert found.num_rows == 5000
    assert open_index(tmp_path, "a").search(clustered(2, seed=3), 9999).num_rows == 6000


@pytest.mark.parametrize("name", ["flat", "hnsw"])
def test_what_format_1_wrote_is_read(name: str, tmp_path: Path) -> None:
    """Published by an earlier Earmark from 120 vectors of a fixed seed, two windows a content."""
    shutil.copytree(ARTEFACTS / "format1", tmp_path / "old")
    rng = np.random.default_rng(11)
    vectors = rng.standard_normal((120, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    old = open_index(tmp_path / "old", name)
    assert old.manifest.format == 1
    for n in (0, 17, 59):
        found = old.search(vectors[2 * n], 1)
        assert found["content_id"].to_pylist() == [f"content {n}"]
        np.testing.assert_allclose(old.vectors(f"content {n}"), vectors[2 * n : 2 * n + 2], atol=0.02)
    # Removing rewrites it in today's format.
    newer = remove(tmp_path / "old", name, ["content 17"])
    assert newer is not None and newer.format == 3 and newer.count == 118
    assert "content 17" not in open_index(tmp_path / "old", name).search(vectors[34], 60)["content_id"].to_pylist()


@pytest.mark.parametrize("name", ["flat", "lists"])
def test_what_format_2_wrote_is_read(tmp_path: Path, name: str) -> None:
    """Published by an earlier Earmark from 60 vectors of a fixed seed, two windows a content, with metadata."""
    shutil.copytree(ARTEFACTS / "format2", tmp_path / "old")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    old = open_index(tmp_path / "old", name)
    assert old.manifest.format == 2
    for n in (0, 17, 29):
        assert old.search(vectors[2 * n], 1)["content_id"].to_pylist() == [f"c{n:02d}"]
        assert (np.sum(old.vectors(f"c{n:02d}") * vectors[2 * n : 2 * n + 2], axis=1) > 0.9).all()
    episodes = old.search(vectors[:1], 30, where=pc.field("kind") == "episode")["content_id"].to_pylist()
    assert sorted(episodes) == [f"c{n:02d}" for n in range(0, 30, 3)]
    newer = remove(tmp_path / "old", name, ["c17", "c18"])
    assert newer is not None and newer.format == 3 and newer.count == 56
    left = open_index(tmp_path / "old", name).search(vectors[36], 30, where=pc.field("kind") == "episode")
    assert sorted(left["content_id"].to_pylist()) == [one for one in sorted(episodes) if one != "c18"]


def test_a_version_that_does_not_fit_together(tmp_path: Path) -> None:
    rows = pa.table({"content_id": ["a", "b"], "embedding": clustered(2).tolist()})
    manifest = publish_vectors(tmp_path, "a", rows, model_id="m", dim=32, source="s")
    path = tmp_path / "a" / manifest.version / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "count": 3}))
    with pytest.raises(IndexUnavailable, match="does not fit together: 2 vectors of 32 dimensions, 2 ids"):
        open_index(tmp_path, "a")
