"""Planning: which contents are pending in which stage, and the shards that are cut from them alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from core.contracts import CONTENT_SCHEMA, CREATED, EVENT, TIMESTAMP, WORK_KEY
from core.keys import REMOVED
from core.names import path_name
from core.tables import decode, encode, query
from pipelines import quarantine
from pipelines.context import Run
from pipelines.stages import Stage

MAX_SHARD_BYTES = 512 * 1024**2  # media of a shard; a shard is what a killed run computes again

# A content is pending where the latest row of its key was made from other inputs. A catalogue that hands in an older
# version than the latest one gets its row once. A tombstone is outlived only by a later event.
_PENDING = f"""
    WITH latest AS (
        SELECT content_id, {EVENT}, {WORK_KEY} FROM ledger
        QUALIFY row_number() OVER (PARTITION BY content_id ORDER BY {EVENT} DESC, {CREATED} DESC) = 1
    ), graves AS (
        SELECT content_id, max({EVENT}) AS died FROM ledger WHERE {WORK_KEY} = '{REMOVED}' GROUP BY content_id
    )
    SELECT c.position, c.key, CASE WHEN c.updated_at <= g.died THEN c.now ELSE c.updated_at END AS event
    FROM candidates c LEFT JOIN latest l USING (content_id) LEFT JOIN graves g USING (content_id)
    WHERE l.content_id IS NULL OR (
        l.{WORK_KEY} <> c.key AND NOT (
            l.{WORK_KEY} <> '{REMOVED}' AND l.{EVENT} > c.updated_at AND EXISTS (
                SELECT 1 FROM ledger x
                WHERE x.content_id = c.content_id AND x.{WORK_KEY} = c.key AND x.{EVENT} = c.updated_at
            )
        )
    )
    ORDER BY c.position
"""


@dataclass(frozen=True)
class Candidate:
    """A content that a stage applies to, with the key of its media and of the stage's work on it."""

    position: int  # row of the catalogue's table
    content_id: str
    updated_at: datetime
    media_key: str
    key: str


@dataclass(frozen=True)
class Pending:
    """One stage's work on one content: its key, and the event time of the row it will make."""

    position: int
    stage: str
    media_key: str
    key: str
    event: datetime


def pending(run: Run, stage: Stage, candidates: Sequence[Candidate], now: datetime) -> list[Pending]:
    """Those candidates that are neither in the stage's ledger nor waiting in the quarantine."""
    if not candidates:
        return []
    table = pa.table(
        {
            "position": pa.array([c.position for c in candidates], pa.int64()),
            "content_id": pa.array([c.content_id for c in candidates], pa.string()),
            "updated_at": pa.array([c.updated_at for c in candidates], TIMESTAMP),
            "key": pa.array([c.key for c in candidates], pa.string()),
            "now": pa.array([now] * len(candidates), TIMESTAMP),
        }
    )
    ledger = run.tables.read(stage.view, ["content_id", EVENT, CREATED, WORK_KEY])
    found = query(_PENDING, candidates=table, ledger=ledger)
    by_position = {c.position: c for c in candidates}
    accepted = ("truncated",) if run.config.accept_truncated else ()
    waiting = {} if run.options.get("retry") else quarantine.open_keys(run.storage, without=accepted)
    work = []
    for position, key, event in zip(*(found[n].to_pylist() for n in ("position", "key", "event")), strict=True):
        candidate = by_position[position]
        failed = waiting.get((candidate.content_id, stage.name)) == key
        undecodable = waiting.get((candidate.content_id, stage.modality)) == candidate.media_key
        if not failed and not undecodable:
            work.append(Pending(position, stage.name, candidate.media_key, key, event))
    return work


WORK = pa.struct([("stage", pa.string()), ("media_key", pa.string()), ("key", pa.string()), ("event", TIMESTAMP)])
SHARD_SCHEMA = pa.schema(
    [
        *CONTENT_SCHEMA,
        pa.field("work", pa.list_(WORK)),
        # What of the content is in quarantine, so that a shard need not read the whole quarantine.
        pa.field("quarantine", pa.list_(pa.struct(list(quarantine.OPEN_SCHEMA)))),
    ]
)


def cut_shards(
    run: Run,
    name: str,
    catalog: pa.Table,
    work: Iterable[Pending],
    items: int,
    sizes: Mapping[int, int] | None = None,
) -> list[str]:
    """Writes the pending contents as shards of at most `items` contents, in the catalogue's order; returns their
    names, at least one (an empty fan-out has no result on Kubeflow)."""
    by_position: dict[int, list[dict[str, Any]]] = {}
    for item in work:
        entry = {"stage": item.stage, "media_key": item.media_key, "key": item.key, "event": item.event}
        by_position.setdefault(item.position, []).append(entry)
    groups: list[list[int]] = [[]]
    size = 0
    for position in sorted(by_position):
        weight = (sizes or {}).get(position, 0)
        if groups[-1] and (len(groups[-1]) >= items or size + weight > MAX_SHARD_BYTES):
            groups.append([])
            size = 0
        groups[-1].append(position)
        size += weight
    names = []
    waiting = quarantine.by_content(run.storage)
    for number, group in enumerate(groups):
        table = catalog.take(pa.array(group, pa.int64()))
        own = [waiting.get(content_id, []) for content_id in table["content_id"].to_pylist()]
        for column, values in (("work", [by_position[p] for p in group]), ("quarantine", own)):
            field = SHARD_SCHEMA.field(column)
            table = table.append_column(field, pa.array(values, field.type))
        shard = f"{name}-{number:06d}"
        run.storage.write(f"{run.folder}/shards/{shard}.parquet", encode(table.cast(SHARD_SCHEMA)))
        names.append(shard)
    run.write_json(f"plan-{name}.json", {"contents": len(by_position), "shards": len(names)})
    return names


def read_shard(run: Run, shard: str) -> list[dict[str, Any]]:
    """The rows of a shard: a content each, with the work that is pending on it."""
    path_name(shard, "the shard")
    return decode(run.storage.read(f"{run.folder}/shards/{shard}.parquet")).to_pylist()
