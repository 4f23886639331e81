"""Vectors added since the last build: compared exactly, and where they are many, ranked by one-bit codes before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from index.collapse import collapse

SEALED_FROM = 512  # rows that are compared one by one at most
PRESELECT = 8  # rows ranked exactly, to one that is asked for
SPARE = 8


@dataclass(frozen=True)
class Tail:
    """Rows in the order in which they came; a snapshot, which later changes leave alone. `contents` are content ids by
    number, `content_of` numbers by row; rows of a content that was changed or deleted since are `dead`. Arrays may be
    longer than `count`."""

    dim: int
    count: int = 0
    matrix: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    content_of: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    dead: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    contents: tuple[str, ...] | list[str] = ()
    sealed: Any = None  # a FAISS index of one-bit codes over the first rows
    sealed_count: int = 0

    def put(self, number: int, vectors: np.ndarray) -> Tail:
        """With the rows of the content of that number; its earlier rows are dead."""
        dead = self.without(number).dead if (self.content_of[: self.count] == number).any() else self.dead
        total = self.count + len(vectors)
        matrix, content_of = self.matrix, self.content_of
        if total > len(matrix):
            room = max(1024, 2 * total)
            matrix, content_of = np.empty((room, self.dim), np.float32), np.empty(room, np.int32)
            if self.count:
                matrix[: self.count], content_of[: self.count] = (
                    self.matrix[: self.count],
                    self.content_of[: self.count],
                )
        # Rows behind those of a snapshot are nobody's, so they may be written in place.
        matrix[self.count : total], content_of[self.count : total] = vectors, number
        dead = np.concatenate([dead[: self.count], np.zeros(len(vectors), bool)])
        return replace(self, count=total, matrix=matrix, content_of=content_of, dead=dead)._seal()

    def without(self, number: int) -> Tail:
        dead = self.dead[: self.count] | (self.content_of[: self.count] == number)
        return replace(self, dead=dead)

    def _seal(self) -> Tail:
        """Codes the rows when there are too many to compare them all; what is sealed already is copied, as others may
        be searching it."""
        import faiss

        if self.count - self.sealed_count < SEALED_FROM:
            return self
        rows = self.matrix[self.sealed_count : self.count]
        if self.sealed is None:
            sealed = faiss.index_factory(self.dim, "RaBitQfs", faiss.METRIC_INNER_PRODUCT)
            sealed.train(rows)
        else:
            sealed = faiss.deserialize_index(faiss.serialize_index(self.sealed))  # FAISS cannot clone this make
        sealed.add(np.ascontiguousarray(rows))
        return replace(self, sealed=sealed, sealed_count=self.count)

    def ranked(self, vectors: np.ndarray, k: int, hidden: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each vector the numbers (int32) and scores (float32) of the k best contents, best first, without those
        that are `hidden` (bool by number)."""
        out = self.dead[: self.count] | hidden[self.content_of[: self.count]]
        alive = self.count - int(out.sum())
        found = []
        for query in vectors:
            depth = min(k + SPARE, alive)
            while True:
                scores, rows = self._nearest(query, depth, out, alive)
                contents, best = np.empty((1, k), np.int32), np.empty((1, k), np.float32)
                counts, settled = np.empty(1, np.int64), np.empty(1, bool)
                nobody = np.empty(0, bool)
                collapse(
                    scores[None], rows[None], self.content_of, len(hidden), nobody, k, contents, best, counts, settled
                )
                if depth >= alive or (settled[0] and counts[0] == k):
                    break
                depth = min(4 * depth, alive)
            found.append((contents[0, : counts[0]], best[0, : counts[0]]))
        return found

    def _nearest(
        self, query: np.ndarray, depth: int, out: np.ndarray, alive: int, *, exactly: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """(scores, rows) of the `depth` nearest rows that are not `out`, best first. Codes choose among all rows, so
        they serve only where most are alive."""
        first, chosen, scores = 0, np.empty(0, np.int64), np.empty(0, np.float32)
        coded = self.sealed is not None and not exactly and 2 * alive >= self.count
        if coded and PRESELECT * depth < self.sealed_count // 2:
            first = self.sealed_count
            chosen = self.sealed.search(query[None], PRESELECT * depth)[1][0]
            chosen = chosen[chosen >= 0]
            scores = self.matrix[chosen] @ query
        scores = np.concatenate([scores, self.matrix[first : self.count] @ query])
        rows = np.concatenate([chosen, np.arange(first, self.count)])
        scores[out[rows]] = -np.inf
        top = min(depth, len(scores))
        best = np.argpartition(-scores, top - 1)[:top] if top < len(scores) else np.arange(top)
        best = best[np.lexsort((rows[best], -scores[best]))]
        best = best[scores[best] > -np.inf]
        if first and len(best) < depth:
            return self._nearest(query, depth, out, alive, exactly=True)
        return scores[best], rows[best]
