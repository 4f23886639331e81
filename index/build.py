"""Choosing, building and measuring a FAISS index of unit-norm vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import EarmarkError, IndexUnavailable

FLAT_ROWS = 20_000  # up to here exact search answers within a few milliseconds on one core
HNSW_FACTORY = "HNSW32,SQ8"
EF_CONSTRUCTION = 80
EF_SEARCH = (16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
RECALL_AT = (1, 10, 100)
SAMPLE_QUERIES = 200
NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Built:
    """A FAISS index over int64 ids, its factory, the reason for it, search parameters and measured recall@k."""

    faiss_index: Any
    factory: str
    why: str
    parameters: dict[str, int]
    recall: dict[str, float]


def check_vectors(vectors: np.ndarray, ids: np.ndarray, dim: int) -> None:
    """Raises `EarmarkError` unless `vectors` is float32 (n, dim), n > 0, finite, of unit norm, and ids are distinct."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise EarmarkError(f"index: vectors have shape {vectors.shape}, the model makes {dim} dimensions")
    if not len(vectors):
        raise EarmarkError("index: there are no vectors to build from")
    if len(ids) != len(vectors) or len(np.unique(ids)) != len(ids):
        raise EarmarkError(f"index: {len(ids)} ids for {len(vectors)} vectors, {len(np.unique(ids))} of them distinct")
    # NaN and infinity fail this comparison as well as zero vectors do.
    wrong = np.flatnonzero(~(np.abs(np.linalg.norm(vectors, axis=1) - 1) <= NORM_TOLERANCE))
    if len(wrong):
        raise EarmarkError(f"index: {len(wrong)} vectors are not finite and of unit norm, the first is row {wrong[0]}")


def build(
    vectors: np.ndarray,
    ids: np.ndarray,
    *,
    factory: str | None = None,
    target_recall: float = 0.95,
    seed: int = 0,
) -> Built:
    """Builds the index for these vectors and measures it against exact search.

    `vectors`: float32 (n, d) of unit norm; `ids`: int64 (n,). Exact up to `FLAT_ROWS` vectors, HNSW over 8-bit codes
    beyond, unless `factory` (a FAISS factory string) says otherwise. The search parameter is the lowest that reaches
    `target_recall` at 10. Raises `IndexUnavailable` where nothing reaches it.
    """
    import faiss

    vectors = np.ascontiguousarray(vectors, np.float32)
    check_vectors(vectors, ids, vectors.shape[1] if vectors.ndim == 2 else 0)
    count, dim = vectors.shape
    if factory is None:
        factory = "Flat" if count <= FLAT_ROWS else HNSW_FACTORY
        rule = "at most" if count <= FLAT_ROWS else "more than"
        why = f"{count} vectors, {rule} {FLAT_ROWS}: {'exact search is fast' if factory == 'Flat' else '8-bit HNSW'}"
    else:
        why = "asked for by factory string"
    inner = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    graph: Any = faiss.downcast_index(inner)
    hnsw = hasattr(graph, "hnsw")
    if hnsw:
        graph.hnsw.efConstruction = EF_CONSTRUCTION
    if not inner.is_trained:
        inner.train(vectors)
    made = faiss.IndexIDMap2(inner)
    ids = np.asarray(ids, np.int64)
    # Queries that lie in the graph find themselves and flatter it: the sample is held out while recall is measured.
    held = np.zeros(count, bool)
    held[np.random.default_rng(seed).permutation(count)[: min(SAMPLE_QUERIES, count // 10)]] = True
    made.add_with_ids(vectors[~held], ids[~held])
    queries = vectors[held] if held.any() else vectors
    check = _Check(vectors[~held], ids[~held], queries)
    parameters: dict[str, int] = {}
    if hnsw:
        for effort in EF_SEARCH:
            graph.hnsw.efSearch = effort
            parameters = {"efSearch": effort}
            if check.recall(made)["10"] >= target_recall:
                break
    recall = check.recall(made)
    if held.any():
        made.add_with_ids(vectors[held], ids[held])
    if recall["10"] < target_recall:
        raise IndexUnavailable(f"recall@10 is {recall['10']:.3f} with {factory}, below the gate of {target_recall}")
    return Built(made, factory, why, parameters, recall)


class _Check:
    """Exact search by one matrix product, for measuring what an index finds. It compares scores and not ids, so that
    an index is not blamed for the order of equal vectors."""

    def __init__(self, vectors: np.ndarray, ids: np.ndarray, queries: np.ndarray) -> None:
        self.vectors, self.queries = vectors, queries
        self._order = np.argsort(ids)
        self._ids = ids[self._order]
        depth = min(max(RECALL_AT), len(vectors))
        self.best = -np.sort(-(queries @ vectors.T), axis=1)[:, :depth]

    def recall(self, made: Any) -> dict[str, float]:
        """recall@k: the share of the k found whose true score reaches the exact k-th best."""
        depth = self.best.shape[1]
        _, labels = made.search(self.queries, depth)
        found = {}
        for k in RECALL_AT:
            top = min(k, depth)
            hits = 0
            for query, numbers, best in zip(self.queries, labels[:, :top], self.best, strict=True):
                numbers = numbers[numbers >= 0]
                rows = self._order[np.searchsorted(self._ids, numbers)]
                hits += int((self.vectors[rows] @ query >= best[top - 1] - 1e-5).sum())
            found[str(k)] = hits / (len(self.queries) * top)
        return found
