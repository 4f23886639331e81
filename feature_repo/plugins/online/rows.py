"""Rows on their way into an online store, encoded, and on their way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from feature_repo.plugins.online.values import Block, block_of, encode
from feature_repo.plugins.online.views import UNKNOWN_CREATED, ViewPlan, micros


class Rows(NamedTuple):
    """Rows to write, each key once: `keys` one column, `event_us` and `created_us` int64 of shape (rows,), `values` of
    shape (features, rows). A row that is `removed` (bool) takes away what is online and leaves its time."""

    keys: Block
    event_us: np.ndarray
    created_us: np.ndarray
    values: Block
    removed: np.ndarray

    def __len__(self) -> int:
        return int(self.event_us.size)

    def newer(
        self, event_us: np.ndarray, created_us: np.ndarray, found: np.ndarray, first: int, last: int, *, again: bool
    ) -> np.ndarray:
        """Which of the rows `first` to `last` replace what is online (bool): the later event wins, at equal event the
        later created; what is equal in both is written only `again` (a whole view anew) or where no created time is
        known."""
        event, created = self.event_us[first:last], self.created_us[first:last]
        later = (created > created_us) | (created == UNKNOWN_CREATED) | ((created == created_us) & again)
        return np.asarray(~found | (event > event_us) | ((event == event_us) & later))


class Found(NamedTuple):
    """Rows of one view as read: `values` of shape (features asked for, keys), `event_us` int64, `found` bool, whether
    the key has a row at all."""

    values: Block
    event_us: np.ndarray
    found: np.ndarray


def encode_rows(
    plan: ViewPlan,
    keys: Sequence[pa.Array],
    event: np.ndarray | pa.Array,
    created: np.ndarray | pa.Array | None,
    features: Sequence[pa.Array],
    removed: np.ndarray | None = None,
    suffix: bytes = b"",
) -> Rows:
    """Columns in the order of `plan` as rows. Raises `StorageError` for what cannot be written."""
    count = len(keys[0])
    event_us = event if isinstance(event, np.ndarray) else micros(event)
    if created is None:
        created = np.full(count, UNKNOWN_CREATED)
    return Rows(
        keys=plan.entity_keys(keys, suffix),
        event_us=event_us,
        created_us=created if isinstance(created, np.ndarray) else micros(created),
        values=encode(features, plan.kinds, plan.features),
        removed=np.zeros(count, bool) if removed is None else removed,
    )


def rows_of_protos(plan: ViewPlan, data: Sequence[Any], suffix: bytes = b"") -> Rows:
    """Rows as Feast hands them to `online_write_batch` (entity key, values, event, created), the latest of each key.

    Pushes are small; the values are serialized one by one, as any Feast value type may be among them.
    """
    from datetime import UTC

    from feast.infra.key_encoding_utils import serialize_entity_key

    best: dict[bytes, tuple[int, int, Any]] = {}
    for key, values, event, created in data:
        held = serialize_entity_key(key, entity_key_serialization_version=3) + suffix
        times = [
            UNKNOWN_CREATED if t is None else _micros(t if t.tzinfo else t.replace(tzinfo=UTC))
            for t in (event, created)
        ]
        if held not in best or best[held][:2] <= (times[0], times[1]):
            best[held] = (times[0], times[1], values)
    rows = list(best.values())
    columns = [[r[2][name].SerializeToString() if name in r[2] else None for r in rows] for name in plan.features]
    return Rows(
        keys=block_of([list(best)]),
        event_us=np.array([r[0] for r in rows], np.int64),
        created_us=np.array([r[1] for r in rows], np.int64),
        values=block_of(columns),
        removed=np.zeros(len(rows), bool),
    )


def _micros(when: Any) -> int:
    from datetime import UTC, datetime, timedelta

    return (when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
