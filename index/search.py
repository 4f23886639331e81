"""Searching a published index."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import EarmarkError, IndexUnavailable
from core.tables import decode
from index.manifest import Manifest
from index.publish import IDS_FILE, INDEX_FILE, current_version, intact, load_manifest


class Searcher:
    """A loaded version, read-only; safe to search from several threads."""

    def __init__(self, manifest: Manifest, faiss_index: Any, ids: pa.Table) -> None:
        self.manifest = manifest
        self._index = faiss_index
        self._contents = ids["content_id"].to_pylist()
        numbers = ids["id"].to_numpy()
        self._order = np.argsort(numbers)
        self._numbers = numbers[self._order]

    def search(self, vectors: np.ndarray, k: int, exclude: Iterable[str] = ()) -> pa.Table:
        """The k contents nearest each vector by cosine.

        `vectors`: float32 (queries, dim). Windows of one content count once, by their best. Returns columns `query`
        (row of `vectors`), `content_id` and `score`, best first, equal scores by content id. Raises `EarmarkError`
        for another dimension or values that are not finite.
        """
        vectors = np.ascontiguousarray(np.atleast_2d(vectors), np.float32)
        if vectors.shape[1] != self.manifest.dim:
            raise EarmarkError(f"query has {vectors.shape[1]} dimensions, the index {self.manifest.dim}")
        if not np.isfinite(vectors).all():
            raise EarmarkError("query has values that are not finite")
        hidden = set(exclude)
        queries: list[int] = []
        contents: list[str] = []
        scores: list[float] = []
        depth = min(self.manifest.count, k + len(hidden) + 8)
        for number, query in enumerate(vectors):
            best = self._best(query, k, depth, hidden)
            queries += [number] * len(best)
            contents += [content for content, _ in best]
            scores += [score for _, score in best]
        return pa.table(
            {
                "query": pa.array(queries, pa.int32()),
                "content_id": pa.array(contents, pa.string()),
                "score": pa.array(scores, pa.float32()),
            }
        )

    def _best(self, query: np.ndarray, k: int, depth: int, hidden: set[str]) -> list[tuple[str, float]]:
        """Looks deeper until k contents are found, or ties at the edge are complete, or all was seen."""
        while True:
            found, labels = self._index.search(query[None], depth)
            best: dict[str, float] = {}
            seen = [(float(s), int(n)) for s, n in zip(found[0], labels[0], strict=True) if n >= 0]
            for score, number in seen:
                content = self._contents[self._order[np.searchsorted(self._numbers, number)]]
                if content not in hidden:
                    best[content] = max(score, best.get(content, -2.0))
            ranked = sorted(best.items(), key=lambda hit: (-hit[1], hit[0]))
            complete = len(ranked) > k and ranked[k - 1][1] > seen[-1][0]
            if complete or depth >= self.manifest.count or len(seen) < depth:
                return ranked[:k]
            depth = min(self.manifest.count, depth * 4)


def open_index(folder: Path, name: str, *, version: str | None = None, expect_model: str | None = None) -> Searcher:
    """Loads a version of `folder/name` (the current one unless named), after its checksums.

    Raises `IndexUnavailable` where there is none, a file is damaged, or its model is not `expect_model`.
    """
    import faiss

    chosen = version or current_version(folder, name)
    if chosen is None:
        raise IndexUnavailable(f"the index {name} has not been published")
    manifest = load_manifest(folder, name, chosen)
    if expect_model is not None and manifest.model_id != expect_model:
        raise IndexUnavailable(
            f"the index {name} holds vectors of {manifest.model_id}, the feature view those of {expect_model}"
        )
    if not intact(folder, manifest):
        raise IndexUnavailable(f"a file of the index {name} version {chosen} is damaged; publish it again")
    home = folder / name / chosen
    loaded = faiss.read_index(str(home / INDEX_FILE))
    return Searcher(manifest, loaded, decode((home / IDS_FILE).read_bytes()))
