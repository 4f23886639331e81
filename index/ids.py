"""Index ids: int64, given in order, never given twice, each standing for one (content_id, window)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),
    ]
)


def assign(previous: pa.Table | None, next_id: int, content_ids: Any, windows: np.ndarray) -> tuple[np.ndarray, int]:
    """The ids, int64, of rows that stand for (`content_ids`, `windows`), distinct, and the new `next_id`.

    A row of the previous table (id, content_id, window) keeps its id; a new one gets the next id never given. What left
    the table is not given again, because `next_id` only grows.
    """
    ids = np.full(len(windows), -1, np.int64)
    if previous is not None and previous.num_rows:
        contents = pc.unique(previous["content_id"])
        known = _keys(previous["content_id"], previous["window"].to_numpy(), contents)
        wanted = _keys(content_ids, windows, contents)
        order = np.argsort(known, kind="stable")
        places = np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)
        found = (known[order][places] == wanted) & (wanted >= 0)
        ids[found] = previous["id"].to_numpy()[order[places[found]]]
    new = ids < 0
    ids[new] = np.arange(next_id, next_id + int(new.sum()))
    return ids, next_id + int(new.sum())


def _keys(content_ids: Any, windows: np.ndarray, contents: Any) -> np.ndarray:
    """One number for each (content, window); below zero where the content is not one of `contents`."""
    numbers = pc.index_in(content_ids.cast(contents.type), contents).fill_null(-1).cast(pa.int64())
    found = np.asarray(numbers)
    return np.where(found < 0, -1, (found << 32) | windows.astype(np.int64) & 0xFFFFFFFF)
