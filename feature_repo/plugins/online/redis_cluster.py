"""Rows in a Redis Cluster: each node is spoken to by itself, all at once.

A transaction cannot span slots, so a row is compared and written by a script, which Redis runs as one step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

from feature_repo.plugins.online.entity_keys import Keys
from feature_repo.plugins.online.redis_commands import (
    by_presence,
    cut,
    field_names,
    found_rows,
    hmget,
    rowwise,
    stamped,
    time_fields,
)
from feature_repo.plugins.online.rows import Found, Rows, latest_in_force_us
from feature_repo.plugins.online.values import Block, block_of
from feature_repo.plugins.online.views import UNKNOWN_CREATED, ViewPlan
from feature_repo.plugins.online.wire import Moved, borrow, bulk

# KEYS: the row. ARGV: event and created as decimal microseconds, again (0 or 1), key TTL in seconds (0: none), what the
# row's features are (write or remove), the latest time that a row in force may have, then `_ts`, its bytes, `_tc`, its
# bytes, field, value, …
# Lua's numbers are exact to 2^53 microseconds, which is the year 2255.
SCRIPT = b"""
local function varint(s, i)
  local first, value, rest, scale = i, 0, 0, 1
  while true do
    local b = string.byte(s, i)
    i = i + 1
    -- Ten bytes are a negative number; the complement of the first nine is small, and so exact.
    if i - first == 10 then return -rest - 1, i end
    value = value + (b % 128) * scale
    rest = rest + (127 - b % 128) * scale
    scale = scale * 128
    if b < 128 then return value, i end
  end
end
local function event_of(s)
  local us, i = 0, 1
  while i <= #s do
    local tag = string.byte(s, i)
    local value
    value, i = varint(s, i + 1)
    if tag == 8 then us = us + value * 1000000 elseif tag == 16 then us = us + math.floor(value / 1000) end
  end
  return us
end
local function little(s, from)
  local value, scale = 0, 1
  local negative = string.byte(s, from + 7) >= 128
  for i = from, from + 7 do
    local b = string.byte(s, i)
    value = value + (negative and 255 - b or b) * scale
    scale = scale * 256
  end
  return negative and -value - 1 or value
end
local held = redis.call('HMGET', KEYS[1], ARGV[7], ARGV[9])
if held[1] then
  local event, created = event_of(held[1]), nil
  if held[2] and #held[2] == 16 and little(held[2], 1) == event then created = little(held[2], 9) end
  local mine, made = tonumber(ARGV[1]), ARGV[2] ~= '' and tonumber(ARGV[2]) or nil
  if event <= tonumber(ARGV[6]) then
    if mine < event then return 0 end
    if mine == event and made and created then
      if made < created or (made == created and ARGV[3] == '0') then return 0 end
    end
  end
end
if ARGV[5] == 'remove' then
  local fields = {}
  for i = 11, #ARGV, 2 do fields[#fields + 1] = ARGV[i] end
  redis.call('HDEL', KEYS[1], unpack(fields))
  redis.call('HSET', KEYS[1], unpack(ARGV, 7, 10))
else
  redis.call('HSET', KEYS[1], unpack(ARGV, 7))
end
if ARGV[4] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return 1
"""
LEADING = 6  # arguments before the fields
SCRIPT_SHA = hashlib.sha1(SCRIPT).hexdigest().encode()


class ClusterBatch:
    """One look-then-write of some rows, by script."""

    def __init__(self, plan: ViewPlan, rows: Rows, batch: np.ndarray, again: bool, ttl_s: int | None) -> None:
        self._plan, self._rows, self._batch, self._again, self._ttl_s = plan, rows, batch, again, ttl_s

    def run(self, client: Any) -> int:
        """Writes; returns how many rows were newer than what is online."""
        with renewing(client):
            return self._run(client)

    def _run(self, client: Any) -> int:
        first, last = int(self._batch[0]), int(self._batch[-1]) + 1
        keys = cut(self._rows.keys, first, last)
        dead, values = self._rows.removed[first:last], cut(self._rows.values, first, last)
        with ExitStack() as stack:
            talks = []
            for node, own in by_node(client, keys):
                wire = stack.enter_context(borrow(client.get_redis_connection(node)))
                wire.send(b"*3\r\n" + bulk(b"SCRIPT") + bulk(b"LOAD") + bulk(SCRIPT))
                every = list(range(len(self._plan.features)))
                for columns, chosen in by_presence(values, own[~dead[own]]):
                    wire.send(self._commands(keys, chosen, first, last, columns, False))
                if dead[own].any():
                    wire.send(self._commands(keys, own[dead[own]], first, last, every, True))
                talks.append((wire, own.size))
            return sum(wire.skip(1 + count) for wire, count in talks)

    def _commands(
        self, keys: Block, chosen: np.ndarray, first: int, last: int, columns: list[int], removed: bool
    ) -> np.ndarray:
        rows, plan = self._rows, self._plan
        names = field_names(plan)
        fields = [*time_fields(plan), *(names[c] for c in columns)]
        leading = self._leading(first, last, removed)
        times = stamped(rows, first, last)
        values = cut(rows.values, first, last).columns(columns)
        if removed:
            values = Block(values.data, values.starts, np.zeros_like(values.lengths))
        # The leading arguments stand behind the key without a name of their own.
        shift = leading.data.size
        block = Block(
            np.concatenate([leading.data, times.data]),
            np.concatenate([leading.starts, times.starts + shift]),
            np.concatenate([leading.lengths, times.lengths]),
        )
        head = b"*%d\r\n" % (3 + 1 + LEADING + 2 * len(fields)) + bulk(b"EVALSHA") + bulk(SCRIPT_SHA) + bulk(b"1")
        named = [b""] * LEADING + [bulk(field) for field in fields]
        return rowwise(head, keys, named, block, values, chosen)

    def _leading(self, first: int, last: int, removed: bool) -> Block:
        rows, count = self._rows, last - first
        created = rows.created_us[first:last].tolist()
        return block_of(
            [
                [b"%d" % us for us in rows.event_us[first:last].tolist()],
                [b"" if us == UNKNOWN_CREATED else b"%d" % us for us in created],
                [b"1" if self._again else b"0"] * count,
                [b"%d" % (self._ttl_s or 0)] * count,
                [b"remove" if removed else b"write"] * count,
                [b"%d" % latest_in_force_us()] * count,
            ]
        )


def read_cluster(client: Any, plans: Sequence[ViewPlan], keys: Sequence[Keys]) -> list[Found]:
    """The rows of each view's keys, one round trip a node."""
    with renewing(client):
        return _read(client, plans, [one.block for one in keys])


def _read(client: Any, plans: Sequence[ViewPlan], keys: Sequence[Block]) -> list[Found]:
    asked: dict[Any, list[tuple[int, np.ndarray]]] = {}
    for number, block in enumerate(keys):
        for node, own in by_node(client, block):
            asked.setdefault(node, []).append((number, own))
    results = [_Gathered(len(plan.features) + 1, block.rows) for plan, block in zip(plans, keys, strict=True)]
    with ExitStack() as stack:
        talks = []
        for node, wanted in asked.items():
            wire = stack.enter_context(borrow(client.get_redis_connection(node)))
            for number, own in wanted:
                wire.send(hmget(plans[number], keys[number], chosen=own))
            talks.append((wire, wanted))
        for wire, wanted in talks:
            blocks = wire.arrays_of([(len(plans[number].features) + 1, own.size) for number, own in wanted])
            for (number, own), block in zip(wanted, blocks, strict=True):
                results[number].add(own, block)
    return [found_rows(result.block()) for result in results]


@contextmanager
def renewing(client: Any) -> Iterator[None]:
    """Asks the cluster anew who holds which slots, after an answer that somebody else does or none at all."""
    from redis import exceptions

    try:
        yield
    except (Moved, OSError, exceptions.ConnectionError, exceptions.TimeoutError):
        with suppress(exceptions.RedisError, OSError):
            client.nodes_manager.initialize()
        raise


def by_node(client: Any, keys: Block) -> list[tuple[Any, np.ndarray]]:
    """The cluster's nodes and the rows (ascending numbers) whose keys they hold. Raises `Moved`."""
    from redis.exceptions import SlotNotCoveredError

    try:
        nodes = [client.get_node_from_key(key) for key in keys.values(0)]
    except SlotNotCoveredError as error:
        raise Moved(str(error)) from error
    found: dict[Any, list[int]] = {}
    for row, node in enumerate(nodes):
        found.setdefault(node, []).append(row)
    return [(node, np.array(own)) for node, own in found.items()]


class _Gathered:
    """Replies of several nodes, put in the order of the keys; their buffers are copied, one behind another."""

    def __init__(self, columns: int, rows: int) -> None:
        self._starts, self._lengths = np.zeros((columns, rows), np.int64), np.full((columns, rows), -1, np.int32)
        self._data: list[np.ndarray] = []
        self._size = 0

    def add(self, own: np.ndarray, block: Block) -> None:
        last = int((block.starts + block.lengths.clip(0)).max()) if own.size else 0
        self._starts[:, own], self._lengths[:, own] = block.starts + self._size, block.lengths
        self._data.append(block.data[:last].copy())
        self._size += last

    def block(self) -> Block:
        return Block(np.concatenate([*self._data, np.empty(0, np.uint8)]), self._starts, self._lengths)
