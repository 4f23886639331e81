"""What a live index is at a moment, and the answers of its base and of its changes as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.search import Hidden, Ranked, Searcher
from index.tail import Tail


@dataclass(frozen=True)
class State:
    """A moment of the index; queries take one and are answered by it throughout."""

    base: Searcher
    gone: np.ndarray  # contents of the base that were deleted or changed since, bool by number
    hidden: Hidden  # the same, ready for a search
    tail: Tail
    numbers: dict[str, int]  # of the tail's contents
    about: tuple[dict[str, Any] | None, ...]  # what the tail's contents may be filtered by
    ids: tuple[dict[int, int], ...]  # of the tail's contents: window → id


def merged(state: State, base: Sequence[Ranked], tail: Sequence[Ranked], k: int) -> pa.Table:
    """The k best of what both found for each query, as `Searcher.search` returns them."""
    found = [*base, *tail]
    scores = np.concatenate([best for _, best in found])
    queries = np.repeat(np.tile(np.arange(len(base)), 2), [len(best) for _, best in found])
    names = pa.concat_arrays(
        [
            state.base.contents.take(pa.array(np.concatenate([numbers for numbers, _ in base]))).cast(pa.string()),
            pa.array([state.tail.contents[n] for numbers, _ in tail for n in numbers.tolist()], pa.string()),
        ]
    )
    order = np.lexsort((-scores, queries))
    ranked = queries[order], scores[order]
    if ((ranked[0][1:] == ranked[0][:-1]) & (ranked[1][1:] == ranked[1][:-1])).any():
        by = pa.table({"query": queries, "score": scores, "name": names})
        keys = [("query", "ascending"), ("score", "descending"), ("name", "ascending")]
        order = np.asarray(pc.sort_indices(by, sort_keys=keys))
    queries = queries[order]
    place = np.arange(len(order)) - np.searchsorted(queries, queries)
    order, queries = order[place < k], queries[place < k]
    return pa.table(
        {
            "query": pa.array(queries, pa.int32()),
            "content_id": names.take(pa.array(order)),
            "score": pa.array(scores[order], pa.float32()),
        }
    )


def holds(state: State, content_id: str) -> bool:
    number = state.numbers.get(content_id)
    if number is not None and state.ids[number]:
        return True
    place = state.base.number_of(content_id)
    return place is not None and not state.gone[place]
