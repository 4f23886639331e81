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
    made.add_with_ids(vectors, np.asarray(ids, np.int64))
    sample = np.sort(np.random.default_rng(seed).permutation(count)[:SAMPLE_QUERIES])
    exact = _exact(vectors, ids, vectors[sample], min(max(RECALL_AT), count))
    parameters: dict[str, int] = {}
    if hnsw:
        for effort in EF_SEARCH:
            graph.hnsw.efSearch = effort
            parameters = {"efSearch": effort}
            if _recall(made, vectors[sample], exact, vectors)["10"] >= target_recall:
                break
    recall = _recall(made, vectors[sample], exact, vectors)
    if recall["10"] < target_recall:
        raise IndexUnavailable(f"recall@10 is {recall['10']:.3f} with {factory}, below the gate of {target_recall}")
    return Built(made, factory, why, parameters, recall)


def _exact(vectors: np.ndarray, ids: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Scores of the k best by one matrix product: (queries, k) float32, best first. Scores and not ids, so that an
    index is not blamed for the order of equal vectors."""
    scores = queries @ vectors.T
    return -np.sort(-scores, axis=1)[:, :k]


def _recall(made: Any, queries: np.ndarray, exact: np.ndarray, vectors: np.ndarray) -> dict[str, float]:
    """recall@k: the share of the k found whose true score reaches the exact k-th best."""
    found_k = exact.shape[1]
    _, labels = made.search(queries, found_k)
    row_of = _rows(made, labels)
    recall = {}
    for k in RECALL_AT:
        depth = min(k, found_k)
        hits = 0
        for query, rows, best in zip(queries, row_of[:, :depth], exact, strict=True):
            rows = rows[rows >= 0]
            hits += int((vectors[rows] @ query >= best[depth - 1] - 1e-5).sum())
        recall[str(k)] = hits / (len(queries) * depth)
    return recall


def _rows(made: Any, labels: np.ndarray) -> np.ndarray:
    """Labels → rows of the build (−1 stays)."""
    import faiss

    ids = faiss.vector_to_array(made.id_map)
    order = np.argsort(ids)
    place = np.searchsorted(ids, labels, sorter=order).clip(0, len(ids) - 1)
    return np.where(labels >= 0, order[place], -1)
