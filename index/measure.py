"""What an index finds and how long it takes, against exact search on vectors that were held out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.parameters import cost, ladders, search_parameters
from index.vectors import ArrayVectors, Vectors

RECALL_AT = (1, 10, 100)
TIMED_QUERIES = 100
LEAST_DEPTH = 10
DEPTH = 200  # rows of the exact answer that are kept: beyond 100, so that equal scores are known
TIE = 1e-5  # scores that are nearer than this are equal


@dataclass(frozen=True)
class Quality:
    """Recall@k by k, the standard error of recall@10, and what single queries on one thread took."""

    recall: dict[str, float]
    recall_error: float
    latency_ms: dict[str, float]


def exact_top(vectors: np.ndarray | Vectors, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(scores, rows) of the k best of `vectors` by inner product, best first, float32 and int64 of shape (queries, k):
    one matrix product a block, so that memory is bounded whatever there are of them."""
    import faiss

    source: Vectors = ArrayVectors(vectors) if isinstance(vectors, np.ndarray) else vectors
    k = min(k, source.count)
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    queries = np.ascontiguousarray(queries, np.float32)
    for first, block in source.blocks() if len(queries) else ():
        found, best = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, rows = np.concatenate([scores, found], 1), np.concatenate([rows, best + first], 1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return (scores, rows) if len(queries) else (np.empty((0, k), np.float32), np.empty((0, k), np.int64))


class Sample:
    """Queries whose exact answer is known. Half of them tune, the other half measures what was tuned."""

    def __init__(self, vectors: np.ndarray | Vectors, queries: np.ndarray) -> None:
        """`vectors`: float32 (n, dim), in the order of the index's rows; `queries`: float32 (m, dim)."""
        self._vectors: Vectors = ArrayVectors(vectors) if isinstance(vectors, np.ndarray) else vectors
        self._queries = queries
        self._best, self._rows = exact_top(self._vectors, queries, DEPTH)
        half = (len(queries) + 1) // 2
        self._tuning = np.arange(half)
        self._measuring = np.arange(half, len(queries)) if len(queries) > 1 else self._tuning

    def tune(self, index: Any, target: float) -> dict[str, int]:
        """The cheapest setting whose recall@10 is the target with two standard errors to spare, else the one that finds
        most."""
        found: list[tuple[float, dict[str, int]]] = []
        most: tuple[float, dict[str, int]] = (-1.0, {})
        for ladder in ladders(index):
            low, high = 0, len(ladder)  # the first that is good enough lies in [low, high]
            while low < high:
                middle = (low + high) // 2
                recall, error = self._recall(index, ladder[middle], self._tuning, 10)
                most = max(most, (recall, ladder[middle]), key=lambda one: one[0])
                if recall - 2 * error >= target or recall == 1.0:
                    high = middle
                else:
                    low = middle + 1
            if high < len(ladder):
                found.append((cost(index, ladder[high]), ladder[high]))
        return min(found, key=lambda one: one[0])[1] if found else most[1]

    def quality(self, index: Any, values: Mapping[str, int]) -> Quality:
        recall = {str(k): self._recall(index, values, self._measuring, k) for k in RECALL_AT}
        return Quality(
            {k: mean for k, (mean, _) in recall.items()}, recall["10"][1], latency(index, values, self._queries)
        )

    def _recall(self, index: Any, values: Mapping[str, int], which: np.ndarray, k: int) -> tuple[float, float]:
        """(mean, standard error) of the share of the k best that is found. Scores are compared and not rows, so that an
        index is not blamed for the order of equal vectors."""
        top = min(k, self._best.shape[1])
        # Refinement ranks k_factor times what is asked for: one is found among no fewer than ten.
        depth = min(max(top, LEAST_DEPTH), index.ntotal)
        params = search_parameters(index, values)
        labels = index.search(self._queries[which], depth, params=params)[1][:, :top]
        hits = np.array([self._hits(n, rows[rows >= 0], top) for n, rows in zip(which, labels, strict=True)])
        return float(hits.mean()), float(hits.std(ddof=1) / len(hits) ** 0.5) if len(hits) > 1 else 0.0

    def _hits(self, query: int, rows: np.ndarray, top: int) -> float:
        """Share of the `top` best of a query that is among `rows`, which are distinct."""
        least = self._best[query, top - 1] - TIE
        right = np.isin(rows, self._rows[query][self._best[query] >= least])
        if self._best[query, -1] >= least and self._best.shape[1] < self._vectors.count:
            # More are equal than were kept: the rest is looked up.
            others = rows[~right]
            right[~right] = self._vectors.take(others) @ self._queries[query] >= least
        return float(right.sum() / top)


def latency(index: Any, values: Mapping[str, int], queries: np.ndarray) -> dict[str, float]:
    """Median and 95th percentile of single queries for ten, in milliseconds, on one thread."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        found = search_parameters(index, values)
        times = []
        for n in range(min(TIMED_QUERIES, max(20, len(queries)))):
            query = queries[n % len(queries)][None]
            start = time.perf_counter()
            index.search(query, 10, params=found)
            times.append(1000 * (time.perf_counter() - start))
    finally:
        faiss.omp_set_num_threads(threads)
    return {"p50": round(statistics.median(times), 4), "p95": round(_percentile(times, 0.95), 4)}


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]
