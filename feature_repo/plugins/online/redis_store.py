"""Feast's Redis layout, written and read in bulk.

The keys, fields and values are Feast's own (`_ts:<view>` holds the event time), so that its clients read them and
write beside us. One field more, `_tc:<view>`, holds event and created time in microseconds, by which a row computed
again replaces the one of an equal event. A row is one HSET: it is never seen half-written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from feast import RepoConfig
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from pydantic import StrictStr

from feature_repo.plugins.online.definition import Definition, Ledger
from feature_repo.plugins.online.entity_keys import Keys
from feature_repo.plugins.online.faults import patiently
from feature_repo.plugins.online.pending import PendingRow
from feature_repo.plugins.online.pushes import ReadsAndPushes
from feature_repo.plugins.online.redis_cluster import ClusterBatch, read_cluster
from feature_repo.plugins.online.redis_commands import (
    counter_key,
    cut,
    field_names,
    fields_of,
    found_rows,
    hmget,
    online_versions,
    reads,
    version_field,
    write_commands,
    writer_key,
)
from feature_repo.plugins.online.redis_keys import (
    SCAN_COUNT,
    in_pieces,
    ledger_key,
    own_keys,
    pending_key,
    plain_key,
    plain_pattern,
)
from feature_repo.plugins.online.rows import Found, Rows, in_force
from feature_repo.plugins.online.values import Block
from feature_repo.plugins.online.views import ViewPlan
from feature_repo.plugins.online.wire import Wire, borrow, command

BATCH_BYTES = 1 << 20  # of values written between two looks at what is online
CONNECTIONS = 2  # that write at the same time


class EarmarkRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Feast's own options, and how long to try again when Redis is away."""

    type: StrictStr = "feature_repo.plugins.online.redis_store.EarmarkRedisOnlineStore"  # type: ignore[assignment]
    retry_seconds: float = 30.0
    """How long writing and reading are tried again while Redis cannot be reached, in seconds."""


class EarmarkRedisOnlineStore(ReadsAndPushes, RedisOnlineStore):
    """Redis, with batched reads and writes that make no Python object a value."""

    @staticmethod
    def _parse_connection_string(connection_string: str) -> Any:
        nodes, options = RedisOnlineStore._parse_connection_string(connection_string)
        return nodes, {"protocol": 2, **options}

    def key_suffix(self, config: RepoConfig) -> bytes:
        """What follows the serialized entity key in a Redis key."""
        return config.project.encode()

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

    def stored_rows(self, config: RepoConfig, plans: Sequence[ViewPlan], keys: Sequence[Keys]) -> list[Found]:
        """The rows of each view's keys, all in one round trip. Raises `StorageError`."""
        client, options = self._get_client(config.online_store), config.online_store
        if options.redis_type == RedisType.redis_cluster:
            return [in_force(found) for found in patiently(options, read_cluster, client, plans, keys)]
        requests = [reads(plan, k) for plan, k in zip(plans, keys, strict=True)]
        shapes = [(len(plan.features) + 1, len(k)) for plan, k in zip(plans, keys, strict=True)]

        def once() -> list[Found]:
            with borrow(client) as wire:
                wire.send(*requests)
                return [in_force(found_rows(block)) for block in wire.arrays_of(shapes)]

        return patiently(options, once)

    def forget(self, config: RepoConfig, plan: ViewPlan, keys: Block) -> None:
        """Takes the rows of these keys away, pending ones included. Raises `StorageError`."""
        client = self._get_client(config.online_store)
        fields = [*field_names(plan), b"_ts:" + plan.name.encode(), version_field(plan)]
        gone = [key or b"" for key in keys.values(0)]

        def once() -> None:
            with client.pipeline(transaction=False) as pipeline:
                for key in gone:
                    pipeline.hdel(key, *fields)
                pipeline.execute()

        patiently(config.online_store, once)
        names = set(gone)
        self.release(config, plan, [row for row in self.held(config, plan) if row.key in names])

    def ledger(self, config: RepoConfig, plan: ViewPlan) -> Ledger:
        """The part files whose rows are online; kept beside the rows, so that who loses the rows loses it too."""
        client, key = self._get_client(config.online_store), ledger_key(plan.project, plan.name, plan.join_keys)
        text = patiently(config.online_store, client.get, plain_key("definition", plan.project, plan.name))
        parts = {}
        for field, value in patiently(config.online_store, client.hgetall, key).items():
            if field.startswith(PART):
                digest, _, due_us = value.decode().partition(" ")
                parts[field[len(PART) :].decode()] = digest, int(due_us) if due_us else None
        state, _, written = text.decode().partition(" ") if text else ("", "", "")
        return Ledger(Definition.parse(written), state != PARTLY, parts)

    def begin(self, config: RepoConfig, plan: ViewPlan, definition: Definition, is_whole: bool) -> None:
        """Stores `definition` as the view's, and whether all rows are online as it reads them. Removes the rows of a
        definition with other rows, because their keys and times cannot be compared with the new ones."""
        client = self._get_client(config.online_store)
        earlier = self.ledger(config, plan).definition
        if earlier and earlier.has_other_rows_than(definition):
            features = sorted({*earlier.feature_names, *plan.features})
            patiently(config.online_store, self._clear, client, plan.project, plan.name, earlier.join_keys, features)
        name = plain_key("definition", plan.project, plan.name)
        value = f"{WHOLE if is_whole else PARTLY} {definition.text}"
        patiently(config.online_store, client.set, name, value.encode())

    def note(
        self,
        config: RepoConfig,
        plan: ViewPlan,
        definition: Definition,
        parts: Mapping[str, int | None],
        gone: Sequence[str] = (),
    ) -> None:
        """Adds part files, read under `definition`, to the ledger with the time at which rows that were held back are
        due, and takes those away that no longer exist."""
        client, key = self._get_client(config.online_store), ledger_key(plan.project, plan.name, plan.join_keys)
        values: dict[bytes, bytes] = {
            PART + part.encode(): f"{definition.digest} {'' if due is None else due}".encode()
            for part, due in parts.items()
        }

        def once() -> None:
            if values:
                client.hset(key, mapping={b"_ts:" + plan.name.encode(): b"", **values})
            if gone:
                client.hdel(key, *(PART + part.encode() for part in gone))

        patiently(config.online_store, once)

    def hold(self, config: RepoConfig, plan: ViewPlan, rows: Sequence[PendingRow]) -> None:
        client, key = self._get_client(config.online_store), pending_key(plan.project, plan.name, plan.join_keys)
        values = {_pending_field(row): row.pack() for row in rows}
        patiently(config.online_store, lambda: client.hset(key, mapping={b"_ts:" + plan.name.encode(): b"", **values}))

    def held(self, config: RepoConfig, plan: ViewPlan) -> list[PendingRow]:
        client, key = self._get_client(config.online_store), pending_key(plan.project, plan.name, plan.join_keys)
        fields = patiently(config.online_store, client.hgetall, key)
        return [PendingRow.unpack(value) for name, value in fields.items() if name.startswith(PART)]

    def release(self, config: RepoConfig, plan: ViewPlan, rows: Sequence[PendingRow]) -> None:
        client, key = self._get_client(config.online_store), pending_key(plan.project, plan.name, plan.join_keys)
        if rows:
            patiently(config.online_store, client.hdel, key, *map(_pending_field, rows))

    def check(self, config: RepoConfig) -> None:
        """Raises `StorageError` if Redis cannot be reached or refuses the user name or the password."""
        options = config.online_store.model_copy(update={"retry_seconds": CHECK_SECONDS})
        patiently(options, lambda: self._get_client(config.online_store).ping())

    def update(self, config: RepoConfig, tables_to_delete: Sequence[Any], *rest: Any, **named: Any) -> None:
        super().update(config, tables_to_delete, *rest, **named)
        if config.online_store.full_scan_for_deletion:
            return
        for table in tables_to_delete:  # the rows stay, but nothing may take them for those of a later view
            name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
            place = config.project, name, list(table.join_keys)
            client = self._get_client(config.online_store)
            for key in (ledger_key(*place), pending_key(*place)):
                patiently(config.online_store, client.delete, key)

    def delete_table(self, config: RepoConfig, table: Any) -> None:
        """Removes the rows of a view, and what is kept beside them. It needs the names of the view alone."""
        name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
        client, project = self._get_client(config.online_store), config.project
        text = patiently(config.online_store, client.get, plain_key("definition", project, name))
        earlier = Definition.parse(text.decode().partition(" ")[2] if text else None)
        features = sorted({*(earlier.feature_names if earlier else ()), *(f.name for f in table.features)})
        for join_keys in {tuple(sorted(table.join_keys)), tuple(sorted(earlier.join_keys if earlier else ()))} - {()}:
            patiently(config.online_store, self._clear, client, project, name, join_keys, features)
        for kind in ("definition", "pushes", "writer"):
            patiently(config.online_store, client.delete, plain_key(kind, project, name))

    def _clear(self, client: Any, project: str, name: str, join_keys: Sequence[str], features: Sequence[str]) -> None:
        """Removes the view's fields from every row of the project with these join keys."""
        own, ours = b"_ts:" + name.encode(), [*fields_of(name, features), f"_tc:{name}".encode()]
        views = in_pieces(client, own_keys(client, project, join_keys), lambda pipeline, key: pipeline.hkeys(key))
        rows = ((key, {f for f in fields if f.startswith(b"_ts:")}) for key, fields in views)
        gone = [(key, stamps == {own}) for key, stamps in rows if own in stamps]
        alone = dict(gone)
        for _ in in_pieces(
            client,
            iter(alone),
            lambda pipeline, key: pipeline.delete(key) if alone[key] else pipeline.hdel(key, own, *ours),
        ):
            pass

    def teardown(self, config: RepoConfig, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Removes every row of the project and what is kept beside them; other projects' keys are left alone."""
        client = self._get_client(config.online_store)

        def once() -> None:
            plain = client.scan_iter(plain_pattern(config.project), count=SCAN_COUNT)
            for keys in (own_keys(client, config.project), plain):
                for _ in in_pieces(client, keys, lambda pipeline, key: pipeline.delete(key)):
                    pass

        patiently(config.online_store, once)


WHOLE, PARTLY = "whole", "partly"
PART = b"part:"  # prefix of the fields of the ledger and of the pending rows
CHECK_SECONDS = 1.0  # for which `check` tries again


def _pending_field(row: PendingRow) -> bytes:
    return PART + b"%d:" % row.event_us + row.key


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
