"""What may be asked of anything that can be searched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import EarmarkError

UNLIKE_WEIGHT = 0.5


class Queries(ABC):
    """All that follows from nearest neighbours and from what is held of a content."""

    @abstractmethod
    def search(
        self, vectors: np.ndarray, k: int, exclude: Iterable[str] = (), where: pc.Expression | None = None
    ) -> pa.Table:
        """The k contents nearest each vector by cosine: columns `query`, `content_id`, `score`, best first."""

    @abstractmethod
    def vectors(self, content_id: str) -> np.ndarray:
        """What is held of a content, float32 (windows, dim). Raises `NotFound`."""

    def above(self, vectors: np.ndarray, score: float, where: pc.Expression | None = None) -> pa.Table:
        """Every content that is as near to a vector as `score` or nearer; columns and errors as of `search`."""
        vectors = np.atleast_2d(vectors)
        results = []
        for query in vectors:
            k = 64
            while True:
                found = self.search(query[None], k, where=where)
                scores = np.asarray(found["score"])
                if len(scores) < k or scores[-1] < score:
                    break
                k *= 4
            results.append(found.filter(pa.array(scores >= score)))
        numbers = [pa.array(np.full(part.num_rows, n), pa.int32()) for n, part in enumerate(results)]
        parts = [part.set_column(0, "query", n) for part, n in zip(results, numbers, strict=True)]
        return pa.concat_tables(parts) if parts else self.search(vectors, 1)

    def similar(
        self, like: Sequence[str], k: int, unlike: Sequence[str] = (), where: pc.Expression | None = None
    ) -> pa.Table:
        """The k contents nearest the mean of those that are liked, away from half the mean of the others (Rocchio's
        feedback), none of them among the answers. Raises `NotFound` for a content that is not in the index."""
        if not like:
            raise EarmarkError("similar: name one content at least that is liked")
        wanted = np.mean([self.vectors(one).mean(axis=0) for one in like], axis=0)
        if unlike:
            wanted = wanted - UNLIKE_WEIGHT * np.mean([self.vectors(one).mean(axis=0) for one in unlike], axis=0)
        length = np.linalg.norm(wanted)
        if length < 1e-6:
            raise EarmarkError("similar: what is liked and what is not cancel each other")
        return self.search(wanted[None] / length, k, exclude={*like, *unlike}, where=where)
