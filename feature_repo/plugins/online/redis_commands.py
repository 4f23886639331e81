"""The Redis commands that read and write a view's rows, as bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from feast.infra.online_stores.helpers import _mmh3

from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.entity_keys import FEW, Keys
from feature_repo.plugins.online.redis_keys import plain_key
from feature_repo.plugins.online.rows import Found, Rows
from feature_repo.plugins.online.values import Block, Writer
from feature_repo.plugins.online.views import ViewPlan
from feature_repo.plugins.online.wire import bulk

NOTHING = Block(np.empty(0, np.uint8), np.empty((0, 0), np.int64), np.empty((0, 0), np.int32))
_NO_TAILS = np.zeros(1, np.int64)


def counter_key(plan: ViewPlan) -> bytes:
    return plain_key("pushes", plan.project, plan.name)


def writer_key(plan: ViewPlan) -> bytes:
    return plain_key("writer", plan.project, plan.name)


def field_names(plan: ViewPlan) -> list[bytes]:
    if "redis fields" not in plan.prepared:
        plan.prepared["redis fields"] = fields_of(plan.name, plan.features)
    return list(plan.prepared["redis fields"])


def fields_of(view: str, features: Sequence[str]) -> list[bytes]:
    return [_mmh3(f"{view}:{feature}") for feature in features]


def version_field(plan: ViewPlan) -> bytes:
    return f"_tc:{plan.name}".encode()


def time_fields(plan: ViewPlan) -> list[bytes]:
    return [f"_ts:{plan.name}".encode(), version_field(plan)]


def reads(plan: ViewPlan, keys: Keys) -> bytes | np.ndarray:
    """`hmget` of every key of a request."""
    if len(keys) > FEW:
        return hmget(plan, keys.block)
    head, tail = _hmget_parts(plan, times=False)
    return b"".join([head + bulk(key) + tail for key in keys.values])


def hmget(plan: ViewPlan, keys: Block, *, times: bool = False, chosen: np.ndarray | None = None) -> np.ndarray:
    """HMGET of the plan's features and event time, or of both its times, for every key or the chosen ones; uint8."""
    head, tail = _hmget_parts(plan, times=times)
    return keyed(head, keys, tail, np.arange(keys.rows) if chosen is None else chosen)


def _hmget_parts(plan: ViewPlan, *, times: bool) -> tuple[bytes, bytes]:
    """What stands before and behind the key."""
    named = "redis times" if times else "redis values"
    if named not in plan.prepared:
        wanted = time_fields(plan) if times else [*field_names(plan), b"_ts:" + plan.name.encode()]
        head = b"*%d\r\n" % (2 + len(wanted)) + bulk(b"HMGET")
        plan.prepared[named] = head, b"".join(map(bulk, wanted))
    found: tuple[bytes, bytes] = plan.prepared[named]
    return found


def keyed(head: bytes, keys: Block, tail: bytes, chosen: np.ndarray) -> np.ndarray:
    """A command for each chosen key: `head`, the key, `tail`."""
    room = chosen.size * (len(head) + len(tail) + 24) + int(keys.lengths[0][chosen].sum())
    out = np.empty(room, np.uint8)
    named = (_bytes(head), keys.data, keys.starts[0], keys.lengths[0], _bytes(tail), _NO_TAILS)
    return out[: kernels.commands(out, 0, chosen, *named, *NOTHING, *NOTHING)]


def hset(keys: Block, fields: Sequence[bytes], values: Block, times: Block, chosen: np.ndarray) -> np.ndarray:
    """HSET of every column of both blocks for each chosen key."""
    head = b"*%d\r\n" % (2 + 2 * len(fields)) + bulk(b"HSET")
    return rowwise(head, keys, [bulk(field) for field in fields], values, times, chosen)


def rowwise(
    head: bytes, keys: Block, named: Sequence[bytes], values: Block, times: Block, chosen: np.ndarray
) -> np.ndarray:
    """A command for each chosen key: `head`, the key, then for each column of both blocks what is `named` for it and
    its value."""
    tail, tails = b"".join(named), np.concatenate([[0], np.cumsum([len(n) for n in named])]).astype(np.int64)
    room = chosen.size * (len(head) + len(tail) + 24 + 24 * len(named))
    room += sum(int(block.lengths[:, chosen].clip(0).sum()) for block in (keys, values, times) if block.starts.size)
    out = np.empty(room, np.uint8)
    fixed = (_bytes(head), keys.data, keys.starts[0], keys.lengths[0], _bytes(tail), tails)
    return out[: kernels.commands(out, 0, chosen, *fixed, *values, *times)]


def stamped(rows: Rows, first: int, last: int) -> Block:
    """The two time columns of some rows."""
    writer = Writer(2, last - first, (last - first) * 40)
    writer.next(kernels.encode_instants, rows.event_us[first:last])
    writer.next(kernels.encode_versions, rows.event_us[first:last], rows.created_us[first:last])
    return writer.block()


def found_rows(block: Block) -> Found:
    """Splits replies into values and event time. A key whose event time is missing has no row."""
    count = block.rows
    event, found = np.empty(count, np.int64), np.empty(count, bool)
    kernels.decode_instants(block.data, block.starts[-1], block.lengths[-1], event, found)
    return Found(Block(block.data, block.starts[:-1], block.lengths[:-1]), event, found)


def online_versions(block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(event_us, created_us, found) of replies with the two time fields."""
    event, found = np.empty(block.rows, np.int64), np.empty(block.rows, bool)
    created = np.empty(block.rows, np.int64)
    kernels.decode_instants(block.data, block.starts[0], block.lengths[0], event, found)
    kernels.decode_versions(block.data, block.starts[1], block.lengths[1], event, created)
    return event, created, found


def write_commands(plan: ViewPlan, rows: Rows, live: np.ndarray, ttl_s: int | None) -> tuple[list[np.ndarray], int]:
    """The commands that write the rows `live` (ascending row numbers), and how many they are."""
    if not live.size:
        return [], 0
    first, last = int(live[0]), int(live[-1]) + 1
    keys, values, times = cut(rows.keys, first, last), cut(rows.values, first, last), stamped(rows, first, last)
    here = live - first
    dead = rows.removed[live]
    alive, gone = here[~dead], here[dead]
    parts, count = [], 0
    for columns, some in by_presence(values, alive):
        names = field_names(plan)
        fields = [*(names[c] for c in columns), *time_fields(plan)]
        chosen = values if len(columns) == len(names) else values.columns(columns)
        parts.append(hset(keys, fields, chosen, times, some))
        count += some.size
    if gone.size:
        names = field_names(plan)
        parts.append(keyed(b"*%d\r\n" % (2 + len(names)) + bulk(b"HDEL"), keys, b"".join(map(bulk, names)), gone))
        parts.append(hset(keys, time_fields(plan), NOTHING, times, gone))
        count += 2 * gone.size
    if ttl_s:
        parts.append(keyed(b"*3\r\n" + bulk(b"EXPIRE"), keys, bulk(b"%d" % ttl_s), here))
        count += here.size
    return parts, count


def by_presence(values: Block, rows: np.ndarray) -> list[tuple[list[int], np.ndarray]]:
    """The rows by which of their features are there, as (columns, rows): a pushed row may lack some, which then stay as
    they are online."""
    if not rows.size:
        return []
    there = values.lengths[:, rows] >= 0
    if there.all():
        return [(list(range(there.shape[0])), rows)]
    patterns, which = np.unique(there, axis=1, return_inverse=True)
    groups = [(np.flatnonzero(patterns[:, n]).tolist(), rows[which.ravel() == n]) for n in range(patterns.shape[1])]
    return groups


def cut(block: Block, first: int, last: int) -> Block:
    """Rows `first` to `last` of a block whose columns lie one behind another; the data are shared where they can be."""
    starts, lengths = block.starts[:, first:last], block.lengths[:, first:last]
    return Block(block.data, np.ascontiguousarray(starts), np.ascontiguousarray(lengths))


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
