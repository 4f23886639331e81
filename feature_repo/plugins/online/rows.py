"""Rows on their way into an online store, encoded, and on their way out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from core.errors import StorageError
from feature_repo.plugins.online.values import Block, block_of, encode
from feature_repo.plugins.online.views import UNKNOWN_CREATED, ViewPlan, micros

# A row whose event is later than this is not in force: a client that does not hold back such rows wrote it. The slack
# exceeds the difference between clocks of one system, so that a reader whose clock is behind does not lose fresh rows.
FUTURE_SLACK_US = 60_000_000


def latest_in_force_us() -> int:
    """The latest event time, in microseconds, that an online row may have to be in force."""
    return time.time_ns() // 1000 + FUTURE_SLACK_US


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
        later created; what is equal in both is written only `again` (a materialisation) or where no created time is
        known. What is online and dated in the future is not in force, so that any row replaces it."""
        found = found & (event_us <= latest_in_force_us())
        event, created = self.event_us[first:last], self.created_us[first:last]
        later = (created > created_us) | (created == UNKNOWN_CREATED) | ((created == created_us) & again)
        return np.asarray(~found | (event > event_us) | ((event == event_us) & later))


class Found(NamedTuple):
    """Rows of one view as read: `values` of shape (features asked for, keys), `event_us` int64, `found` bool, whether
    the key has a row at all."""

    values: Block
    event_us: np.ndarray
    found: np.ndarray


def in_force(found: Found) -> Found:
    """The same without rows that are dated in the future, which another client wrote."""
    future = found.found & (found.event_us > latest_in_force_us())
    if not future.any():
        return found
    values = found.values
    lengths = np.where(future, -1, values.lengths).astype(np.int32)
    return Found(Block(values.data, values.starts, lengths), np.where(future, 0, found.event_us), found.found & ~future)


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
    Raises `StorageError` naming a row whose key is null or of a type that no key has.

    Pushes are small; the values are serialized one by one, as any Feast value type may be among them.
    """
    best: dict[bytes, tuple[int, int, Any]] = {}
    for number, (key, values, event, created) in enumerate(data):
        serialized = _serialized_key(plan, key, number) + suffix
        times = micros_of(event), micros_of(created)
        if serialized not in best or best[serialized][:2] <= times:
            best[serialized] = (*times, values)
    rows = list(best.values())
    columns = [[r[2][name].SerializeToString() if name in r[2] else None for r in rows] for name in plan.features]
    return Rows(
        keys=block_of([list(best)]),
        event_us=np.array([r[0] for r in rows], np.int64),
        created_us=np.array([r[1] for r in rows], np.int64),
        values=block_of(columns),
        removed=np.zeros(len(rows), bool),
    )


def _serialized_key(plan: ViewPlan, key: Any, number: int) -> bytes:
    from feast.infra.key_encoding_utils import serialize_entity_key

    for name, value in zip(key.join_keys, key.entity_values, strict=True):
        if value.WhichOneof("val") is None:
            raise StorageError(
                f"feature view {plan.name!r}: row {number} has no value for the join key {name!r}; nothing of this "
                "batch was written"
            )
    try:
        return bytes(serialize_entity_key(key, entity_key_serialization_version=3))
    except ValueError as error:
        raise StorageError(f"feature view {plan.name!r}: the key of row {number} cannot be written: {error}") from error


def micros_of(when: datetime | None) -> int:
    """Microseconds since 1970 of a time, UTC where it has no zone; None is `UNKNOWN_CREATED`."""
    if when is None or when != when:  # pandas' NaT differs from itself
        return UNKNOWN_CREATED
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (aware.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
