"""The quarantine: what could not be enriched, why, since when, and how often it was tried."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from core.contracts import QUARANTINE_SCHEMA, WORK_KEY
from core.ids import Ids, id_list
from core.names import path_name
from core.storage import Storage
from core.tables import encode, latest_rows, query, read_table

FOLDER = "quarantine"
RESOLVED = "resolved"
COMPACTED_PARTS = 16  # a run leaves a part for each shard with a failure, and every run reads all parts
OPEN_SCHEMA = pa.schema([QUARANTINE_SCHEMA.field(n) for n in ("stage", WORK_KEY, "reason", "first_seen", "attempts")])
Known = Mapping[tuple[str, str], Mapping[str, Any]]  # (content_id, stage) → what is known of it


@dataclass(frozen=True)
class Failure:
    """One content that failed in one stage (or in reading its audio, image or catalogue row)."""

    content_id: str
    stage: str
    key: str
    reason: str
    detail: str


def open_rows(storage: Storage) -> pa.Table:
    """The items in quarantine now, by content and stage."""
    latest = _latest(storage)
    return query(f"SELECT * FROM rows WHERE reason <> '{RESOLVED}' ORDER BY content_id, stage", rows=latest).cast(
        QUARANTINE_SCHEMA
    )


def open_keys(storage: Storage, without: Collection[str] = ()) -> dict[tuple[str, str], str]:
    """(content_id, stage) → the key of work that failed, but for some reasons."""
    rows = open_rows(storage)
    columns = (rows[name].to_pylist() for name in ("content_id", "stage", "reason", WORK_KEY))
    return {
        (content, stage): key for content, stage, reason, key in zip(*columns, strict=True) if reason not in without
    }


def by_content(storage: Storage) -> dict[str, list[dict[str, Any]]]:
    """The items in quarantine now, by content: the columns of `OPEN_SCHEMA`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in open_rows(storage).to_pylist():
        found.setdefault(row["content_id"], []).append({name: row[name] for name in OPEN_SCHEMA.names})
    return found


def reasons(storage: Storage) -> dict[str, str]:
    """The reason, such as `audio: truncated`, of every content in quarantine, by content id."""
    found: dict[str, list[str]] = {}
    rows = open_rows(storage).select(["content_id", "stage", "reason"])
    for content_id, stage, reason in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        found.setdefault(content_id, []).append(f"{stage}: {reason}")
    return {content_id: ", ".join(parts) for content_id, parts in found.items()}


def record(
    storage: Storage,
    now: datetime,
    name: str,
    failures: Iterable[Failure],
    resolved: Iterable[tuple[str, str]] = (),
    known: Known | None = None,
) -> None:
    """Commits failures and what is no longer one, as one part. A repeated failure keeps its first time. `known` are the
    items in quarantine, of these contents at least; without it, the quarantine is read."""
    path_name(name, "the part")
    failed, healed = list(failures), list(resolved)
    if not failed and not healed:
        return
    if known is None:
        known = {(row["content_id"], row["stage"]): row for row in _latest(storage).to_pylist()} if failed else {}
    rows = []
    for item in failed:
        before = known.get((item.content_id, item.stage))
        again = before is not None and before["reason"] != RESOLVED and before[WORK_KEY] == item.key
        rows.append(
            {
                "content_id": item.content_id,
                "stage": item.stage,
                "reason": item.reason,
                "detail": item.detail[:2000],
                "first_seen": before["first_seen"] if again and before else now,
                "last_seen": now,
                "attempts": before["attempts"] + 1 if again and before else 1,
                WORK_KEY: item.key,
            }
        )
    for content_id, stage in healed:
        rows.append(
            {
                "content_id": content_id,
                "stage": stage,
                "reason": RESOLVED,
                "detail": "",
                "first_seen": now,
                "last_seen": now,
                "attempts": 0,
                WORK_KEY: "",
            }
        )
    table = pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
    storage.write(f"{FOLDER}/part-{now:%Y%m%dT%H%M%S%f}-{name}.parquet", encode(table))


def erase(storage: Storage, content_ids: Ids, now: datetime) -> None:
    """Rewrites the quarantine without these contents."""
    content_ids = set(id_list(content_ids))
    parts = storage.entries(FOLDER)
    kept = _latest(storage)
    keep = [content not in content_ids for content in kept["content_id"].to_pylist()]
    storage.write(
        f"{FOLDER}/part-{now:%Y%m%dT%H%M%S%f}-erased.parquet", encode(kept.filter(pa.array(keep, pa.bool_())))
    )
    for part in parts:
        storage.delete(part.path)


def compact(storage: Storage, now: datetime, least_parts: int = COMPACTED_PARTS) -> bool:
    """Makes one part of many, with the items in quarantine now; call it under the writer lease. Returns whether there
    were enough. Older parts are deleted afterwards, oldest first: what was resolved never returns, whenever the process
    dies."""
    parts = storage.entries(FOLDER)
    if len(parts) < least_parts:
        return False
    storage.write(f"{FOLDER}/part-{now:%Y%m%dT%H%M%S%f}-compact.parquet", encode(open_rows(storage)))
    for part in parts:
        storage.delete(part.path)
    return True


def _latest(storage: Storage) -> pa.Table:
    try:
        tables = _parts(storage)
    except FileNotFoundError:  # a compaction made one part of those that were listed
        tables = _parts(storage)
    if not tables:
        return QUARANTINE_SCHEMA.empty_table()
    rows = pa.concat_tables(tables)
    keyed = rows.append_column("_key", pa.array([f"{c}\n{s}" for c, s in _pairs(rows)], pa.string()))
    return latest_rows(keyed, "_key", "last_seen", "last_seen").drop_columns("_key")


def _parts(storage: Storage) -> list[pa.Table]:
    return [read_table(storage, part.path).cast(QUARANTINE_SCHEMA) for part in storage.entries(FOLDER)]


def _pairs(rows: pa.Table) -> list[tuple[str, str]]:
    return list(zip(rows["content_id"].to_pylist(), rows["stage"].to_pylist(), strict=True))
