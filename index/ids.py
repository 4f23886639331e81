"""Index ids: int64, given in order, never given twice, each standing for one (content_id, window)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),
    ]
)


def assign(previous: pa.Table | None, next_id: int, keys: Sequence[tuple[str, int]]) -> tuple[pa.Table, int]:
    """The ids of `keys` ((content_id, window), distinct), in their order, and the new `next_id`.

    A key of the previous table keeps its id; a new one gets the next id never given. What left the table is not given
    again, because `next_id` only grows.
    """
    known = {}
    if previous is not None:
        names = (previous[name].to_pylist() for name in ("content_id", "window", "id"))
        known = {(content_id, window): number for content_id, window, number in zip(*names, strict=True)}
    numbers = []
    for key in keys:
        if key not in known:
            known[key] = next_id
            next_id += 1
        numbers.append(known[key])
    columns = [numbers, [content_id for content_id, _ in keys], [window for _, window in keys]]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA), next_id
