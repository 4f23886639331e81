"""Near-duplicates of a whole catalogue, in groups: what a recommender shows once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import EarmarkError
from index.search import NOTHING_HIDDEN, Searcher

BLOCK_ROWS = 2048
FIRST_DEPTH = 16
MOST_NEIGHBOURS = 1024  # looked for of one vector; a larger group is found through its other members


def duplicate_groups(searcher: Searcher, score: float, progress: Callable[[int, int], Any] | None = None) -> pa.Table:
    """Contents that are joined by pairs of a cosine of `score` or more, directly or over others (single linkage).

    Returns `content_id`, `group` (the least content id of it) and `size`, by group and id, without those that stand
    alone. As complete as the index's recall. `progress` is told rows done and rows in all. Raises `EarmarkError` for a
    score that is no cosine above 0.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not 0 < score <= 1:
        raise EarmarkError(f"duplicates: a cosine between 0 and 1 is needed, not {score}")
    count, total, done = len(searcher.contents), searcher.manifest.count, 0
    ones: list[np.ndarray] = []
    others: list[np.ndarray] = []
    for first in range(0, total, BLOCK_ROWS):
        rows = np.arange(first, min(first + BLOCK_ROWS, total))
        own, vectors = searcher.content_of(rows), searcher.vectors_of(rows)
        todo, depth = np.arange(len(rows)), FIRST_DEPTH
        while todo.size:
            deeper = []
            for n, (found, scores) in zip(todo, searcher.ranked(vectors[todo], depth, NOTHING_HIDDEN), strict=True):
                near = scores >= score
                if near.all() and len(near) == depth and depth < min(count, MOST_NEIGHBOURS):
                    deeper.append(n)
                    continue
                ones.append(np.full(int(near.sum()), own[n]))
                others.append(found[near])
            todo, depth = np.array(deeper, np.int64), depth * 4
        done += len(rows)
        if progress:
            progress(done, total)
    left, right = (np.concatenate([np.empty(0, np.int64), *some]).astype(np.int64) for some in (ones, others))
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    # Contents are numbered in the order of their ids, so the first of a label is the least.
    _, least, sizes = np.unique(labels, return_index=True, return_counts=True)
    chosen = np.flatnonzero(sizes[labels] > 1)
    chosen = chosen[np.lexsort((chosen, least[labels[chosen]]))]
    names = searcher.contents
    return pa.table(
        {
            "content_id": names.take(pa.array(chosen)),
            "group": names.take(pa.array(least[labels[chosen]])),
            "size": pa.array(sizes[labels[chosen]], pa.int32()),
        }
    )
