"""Groups of near-duplicates, against comparing all with all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.errors import EarmarkError
from index import duplicate_groups, open_index, publish_vectors
from tests.index.test_choice import clustered


def planted(seed: int) -> np.ndarray:
    """300 vectors; some are copies of others with a little noise, and copies of copies."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((300, 32)).astype(np.float32)
    for n in range(200, 300):
        vectors[n] = vectors[rng.integers(0, n)] + 0.1 * rng.standard_normal(32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_groups(vectors: np.ndarray, score: float) -> list[list[int]]:
    """Spreads from each vector to all that are near, until nothing is added."""
    near, seen, groups = vectors @ vectors.T >= score, set(), []
    for start in range(len(vectors)):
        if start in seen:
            continue
        group, edge = {start}, [start]
        while edge:
            for other in np.flatnonzero(near[edge.pop()]).tolist():
                if other not in group:
                    group.add(other)
                    edge.append(other)
        seen |= group
        if len(group) > 1:
            groups.append(sorted(group))
    return groups


@pytest.mark.parametrize("factory", [None, "HNSW32"])
def test_groups(tmp_path: Path, factory: str | None) -> None:
    vectors = planted(1)
    rows = pa.table({"content_id": [f"c{n:03d}" for n in range(300)], "embedding": vectors.tolist()})
    publish_vectors(tmp_path, "a", rows, model_id="m", dim=32, source="s", factory=factory)
    told: list[tuple[int, int]] = []
    found = duplicate_groups(open_index(tmp_path, "a"), 0.8, lambda *done: told.append(done))
    expected = slow_groups(vectors, 0.8)
    assert len(expected) > 10 and max(map(len, expected)) > 2
    assert found.to_pylist() == [
        {"content_id": f"c{n:03d}", "group": f"c{group[0]:03d}", "size": len(group)}
        for group in expected
        for n in group
    ]
    assert told[-1] == (300, 300)


def test_one_group_larger_than_the_first_look(tmp_path: Path) -> None:
    vectors = np.repeat(clustered(1), 150, axis=0)
    rows = pa.table({"content_id": [f"c{n:03d}" for n in range(150)], "embedding": vectors.tolist()})
    publish_vectors(tmp_path, "a", rows, model_id="m", dim=32, source="s")
    found = duplicate_groups(open_index(tmp_path, "a"), 0.999)
    assert found["content_id"].to_pylist() == [f"c{n:03d}" for n in range(150)]
    assert set(found["group"].to_pylist()) == {"c000"} and set(found["size"].to_pylist()) == {150}


def test_windows_of_one_content_are_no_duplicates(tmp_path: Path) -> None:
    rows = pa.table(
        {"content_id": ["a", "a", "b"], "window": [0, 1, 0], "embedding": np.eye(3, 32)[[0, 0, 1]].tolist()}
    )
    publish_vectors(tmp_path, "a", rows, model_id="m", dim=32, source="s", windows="window")
    searcher = open_index(tmp_path, "a")
    assert duplicate_groups(searcher, 0.9).num_rows == 0
    with pytest.raises(EarmarkError, match="a cosine between 0 and 1"):
        duplicate_groups(searcher, 1.5)
