"""Rows that were pushed before their time: they are stored apart from the online rows, so that no reader sees
them early and rows in force stay readable."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from feature_repo.plugins.online.rows import Rows
from feature_repo.plugins.online.values import block_of
from feature_repo.plugins.online.views import ViewPlan

# A producer's clock may be a little ahead of ours: a push of such a row waits until its time has come.
PATIENCE_US = 1_000_000


def now_us() -> int:
    """The present in microseconds since 1970."""
    return time.time_ns() // 1000


@dataclass(frozen=True)
class PendingRow:
    """One row: its serialized key, its times in microseconds, and the values of the features that it has."""

    key: bytes
    event_us: int
    created_us: int
    values: dict[str, bytes]

    def pack(self) -> bytes:
        """The row as JSON; `unpack` reads it."""
        values = {name: base64.b64encode(value).decode() for name, value in self.values.items()}
        key = base64.b64encode(self.key).decode()
        return json.dumps([key, self.event_us, self.created_us, values], ensure_ascii=False).encode()

    @classmethod
    def unpack(cls, data: bytes) -> PendingRow:
        """The row that `pack` wrote."""
        key, event_us, created_us, values = json.loads(data)
        decoded = {name: base64.b64decode(value) for name, value in values.items()}
        return cls(base64.b64decode(key), event_us, created_us, decoded)


def pending_rows(plan: ViewPlan, rows: Rows) -> list[PendingRow]:
    """The rows, one by one."""
    columns = [rows.values.values(number) for number in range(len(plan.features))]
    return [
        PendingRow(
            key or b"",
            int(rows.event_us[n]),
            int(rows.created_us[n]),
            {
                name: value
                for name, column in zip(plan.features, columns, strict=True)
                if (value := column[n]) is not None
            },
        )
        for n, key in enumerate(rows.keys.values(0))
    ]


def merged(kept: Iterable[PendingRow], new: Sequence[PendingRow]) -> list[PendingRow]:
    """The new rows, each together with the others of its key and event time: of a feature that several have, the value
    that was created last."""
    found: dict[tuple[bytes, int], PendingRow] = {}
    for row in sorted((*kept, *new), key=lambda one: one.created_us):
        earlier = found.get((row.key, row.event_us))
        values = {**earlier.values, **row.values} if earlier else row.values
        found[row.key, row.event_us] = replace(row, values=values)
    return [found[place] for place in dict.fromkeys((row.key, row.event_us) for row in new)]


def rows_of_pending(plan: ViewPlan, pending: Iterable[PendingRow]) -> Rows:
    """The latest row of each key; features that the view no longer has are left out."""
    latest: dict[bytes, PendingRow] = {}
    for one in sorted(pending, key=lambda row: (row.event_us, row.created_us)):
        earlier = latest.get(one.key)
        values = {**earlier.values, **one.values} if earlier else one.values
        latest[one.key] = replace(one, values=values)
    rows = list(latest.values())
    return Rows(
        keys=block_of([[row.key for row in rows]]),
        event_us=np.array([row.event_us for row in rows], np.int64),
        created_us=np.array([row.created_us for row in rows], np.int64),
        values=block_of([[row.values.get(name) for row in rows] for name in plan.features]),
        removed=np.zeros(len(rows), bool),
    )


def wait_for_the_nearest(event_us: Sequence[int]) -> int:
    """Waits for the rows that are due within `PATIENCE_US`; returns the time until which rows are in force."""
    now = now_us()
    near = [event for event in event_us if now < event <= now + PATIENCE_US]
    if near:
        time.sleep((max(near) - now) / 1e6)
        now = max(now_us(), max(near))
    return now
