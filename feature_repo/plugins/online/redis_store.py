"""Feast's Redis layout, written and read in bulk.

The keys, fields and values are Feast's own (`_ts:<view>` holds the event time), so that its clients read them and
write beside us. One field more, `_tc:<view>`, holds event and created time in microseconds, by which a row computed
again replaces the one of an equal event. A row is one HSET: it is never seen half-written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import _redis_key_prefix
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from pydantic import StrictStr

from feature_repo.plugins.online.entity_keys import Keys
from feature_repo.plugins.online.faults import patiently
from feature_repo.plugins.online.redis_cluster import ClusterBatch, read_cluster
from feature_repo.plugins.online.redis_commands import (
    counter_key,
    cut,
    field_names,
    found_rows,
    hmget,
    ledger_key,
    online_versions,
    reads,
    version_field,
    write_commands,
    writer_key,
)
from feature_repo.plugins.online.response import FastReads
from feature_repo.plugins.online.rows import Found, Rows, rows_of_protos
from feature_repo.plugins.online.values import Block
from feature_repo.plugins.online.views import ViewPlan, plan_view
from feature_repo.plugins.online.wire import Wire, borrow, command

BATCH_BYTES = 1 << 20  # of values written between two looks at what is online
CONNECTIONS = 2  # that write at the same time


class EarmarkRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Feast's own options, and how long to try again when Redis is away."""

    type: StrictStr = "feature_repo.plugins.online.redis_store.EarmarkRedisOnlineStore"  # type: ignore[assignment]
    retry_seconds: float = 30.0
    """How long writing and reading are tried again while Redis cannot be reached, in seconds."""


class EarmarkRedisOnlineStore(FastReads, RedisOnlineStore):
    """Redis, with batched reads and writes that make no Python object a value."""

    @staticmethod
    def _parse_connection_string(connection_string: str) -> Any:
        nodes, options = RedisOnlineStore._parse_connection_string(connection_string)
        return nodes, {"protocol": 2, **options}

    def key_suffix(self, config: RepoConfig) -> bytes:
        """What follows the serialized entity key in a Redis key."""
        return config.project.encode()

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Any],
        progress: Callable[[int], Any] | None,
    ) -> None:
        plan = plan_view(config, table)
        rows = rows_of_protos(plan, data, self.key_suffix(config))
        self.write_rows(config, plan, rows, pushed=True)
        if progress:
            progress(len(data))

    def write_rows(
        self, config: RepoConfig, plan: ViewPlan, rows: Rows, *, pushed: bool = False, again: bool = False
    ) -> int:
        """Writes the rows that are newer than what is online, or equal to it `again`; returns how many.

        Nothing older replaces something newer: a batch looks, then writes in a transaction that fails if anybody else
        of ours wrote to the view in between (a counter is watched; on a second try, or beside another materialisation,
        the rows themselves). Raises `StorageError`; what was written before stays.
        """
        client, options = self._get_client(config.online_store), config.online_store
        each = max(1, int(rows.values.lengths.clip(0).sum()) // max(1, len(rows)) + 40 * len(plan.features))
        size = max(16, BATCH_BYTES // each)
        batches = [np.arange(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]

        token = b"" if pushed else os.urandom(8).hex().encode()
        if token and options.redis_type != RedisType.redis_cluster:
            patiently(options, client.hset, writer_key(plan), "t", token)

        def write(batch: np.ndarray) -> int:
            if options.redis_type == RedisType.redis_cluster:
                job: Any = ClusterBatch(plan, rows, batch, again, options.key_ttl_seconds)
            else:
                job = _Batch(plan, rows, batch, token, again, options.key_ttl_seconds)
            return patiently(options, job.run, client)

        if len(batches) < 2:
            return sum(map(write, batches))
        # No key is in two batches, so they may run side by side: Redis works on one while the other is made.
        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="earmark-redis") as pool:
            return sum(pool.map(write, batches))

    def read_rows(self, config: RepoConfig, plans: Sequence[ViewPlan], keys: Sequence[Keys]) -> list[Found]:
        """The rows of each view's keys, all in one round trip. Raises `StorageError`."""
        client, options = self._get_client(config.online_store), config.online_store
        if options.redis_type == RedisType.redis_cluster:
            return patiently(options, read_cluster, client, plans, keys)
        requests = [reads(plan, k) for plan, k in zip(plans, keys, strict=True)]
        shapes = [(len(plan.features) + 1, len(k)) for plan, k in zip(plans, keys, strict=True)]

        def once() -> list[Found]:
            with borrow(client) as wire:
                wire.send(*requests)
                return [found_rows(block) for block in wire.arrays_of(shapes)]

        return patiently(options, once)

    def forget(self, config: RepoConfig, plan: ViewPlan, keys: Block) -> None:
        """Takes the rows of these keys away. Raises `StorageError`."""
        client = self._get_client(config.online_store)
        fields = [*field_names(plan), b"_ts:" + plan.name.encode(), version_field(plan)]

        def once() -> None:
            with client.pipeline(transaction=False) as pipeline:
                for key in keys.values(0):
                    pipeline.hdel(key, *fields)
                pipeline.execute()

        patiently(config.online_store, once)

    def ledger(self, config: RepoConfig, plan: ViewPlan) -> set[str]:
        """The part files whose rows are online; kept beside the rows, so that who loses the rows loses it too."""
        client = self._get_client(config.online_store)
        return {one.decode() for one in patiently(config.online_store, client.smembers, ledger_key(plan))}

    def note(self, config: RepoConfig, plan: ViewPlan, parts: Sequence[str], gone: Sequence[str] = ()) -> None:
        """Adds part files to the ledger, and takes those away that no longer exist."""
        client = self._get_client(config.online_store)

        def once() -> None:
            if parts:
                client.sadd(ledger_key(plan), *parts)
            if gone:
                client.srem(ledger_key(plan), *gone)

        patiently(config.online_store, once)

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        super().delete_table(config, table)
        plan = plan_view(config, table)
        client = self._get_client(config.online_store)
        for own in (ledger_key(plan), counter_key(plan), writer_key(plan)):
            client.delete(own)
        pattern = _redis_key_prefix(list(plan.join_keys)) + b"*" + config.project.encode()
        with client.pipeline(transaction=False) as pipeline:
            for key in client.scan_iter(pattern):
                pipeline.hdel(key, version_field(plan))
            pipeline.execute()


class _Batch:
    """One look-then-write of some rows. `token` names the materialisation; a push has none."""

    def __init__(
        self, plan: ViewPlan, rows: Rows, batch: np.ndarray, token: bytes, again: bool, ttl_s: int | None
    ) -> None:
        self._plan, self._rows, self._batch, self._token = plan, rows, batch, token
        self._again, self._ttl_s = again, ttl_s

    def run(self, client: Any) -> int:
        """Writes until nobody came between; returns how many rows were written."""
        watch_rows = not self._token
        with borrow(client) as wire:
            while True:
                live = self._look(wire, watch_rows)
                if live is not None and live.size and self._write(wire, live, watch_rows):
                    return int(live.size)
                if live is None or not live.size:
                    wire.send(command(b"UNWATCH"))
                    wire.skip(1)
                if live is not None and not live.size:
                    return 0
                watch_rows = True

    def _look(self, wire: Wire, watch_rows: bool) -> np.ndarray | None:
        """The rows that are newer than what is online; None where another materialisation has begun."""
        first, last = int(self._batch[0]), int(self._batch[-1]) + 1
        keys = cut(self._rows.keys, first, last)
        if watch_rows:
            wire.send(command(b"WATCH", *(k or b"" for k in keys.values(0))))
        else:
            own = writer_key(self._plan)
            wire.send(command(b"WATCH", counter_key(self._plan), own), command(b"HMGET", own, b"t"))
        wire.send(hmget(self._plan, keys, times=True))
        wire.skip(1)
        holder = self._token if watch_rows else wire.arrays(1, 1).values(0)[0]
        event, created, found = online_versions(wire.arrays(2, keys.rows))
        if holder != self._token:
            return None
        return self._batch[self._rows.newer(event, created, found, first, last, again=self._again)]

    def _write(self, wire: Wire, live: np.ndarray, watched_rows: bool) -> bool:
        parts, count = write_commands(self._plan, self._rows, live, self._ttl_s)
        wire.send(command(b"MULTI"))
        for part in parts:
            wire.send(part)
        if watched_rows:  # who watches the counter alone must see it
            wire.send(command(b"INCR", counter_key(self._plan)))
            count += 1
        wire.send(command(b"EXEC"))
        wire.skip(1 + count)
        return wire.executed()
