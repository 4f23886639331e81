"""Removal: tombstones in every view, online keys and index entries; with erasure also files, logs and caches.

A tombstone is a row whose features are all null, with the time of the removal as its event: point-in-time reads before
it still answer, reads after it answer nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import NotFound, StorageError
from core.features import CONTENT, FAMILIES, FINGERPRINT, KEYPOINTS, PASSAGES, SIDE_TABLES, VOICES, View
from core.ids import Ids, id_list
from core.keys import REMOVED
from core.location import RELEASE
from core.release import parse_release
from core.storage import Storage
from core.tables import encode, now_us, read_table, rows_to_table
from pipelines import moderate, quarantine, skips
from pipelines.context import Run, local_root

FOLDER = "removed"
COMPACTED_PARTS = 16
_STAMP = "%Y%m%dT%H%M%S%f"
VACUUM_TIMEOUT_S = 30.0  # how long readers of the online store are waited for
SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string()),
        pa.field("at", pa.timestamp("us", tz="UTC")),
        pa.field("cause", pa.string()),  # remove, prune, restore
    ]
)


def blocked(storage: Storage) -> set[str]:
    """Contents removed by name: a catalogue that still lists them does not bring them back, `restore` does."""
    last = {row["content_id"]: row["cause"] for row in _log(storage)}
    return {content_id for content_id, cause in last.items() if cause == "remove"}


def remove(run: Run, content_ids: Ids, *, erase: bool = False) -> list[str]:
    """Removes contents by id (a single string is one); with `erase` also their rows, wherever they are written. Raises
    `NotFound` for an id that the store never knew; nothing is removed then."""
    content_ids = id_list(content_ids)
    known = set(run.tables.latest(CONTENT, [])["content_id"].to_pylist()) | _quarantined(run.storage)
    for content_id in content_ids:
        if content_id not in known:
            raise NotFound(f"{content_id!r} is not in the store {run.storage.uri}")
    _bury(run, sorted(set(content_ids)), "remove")
    if erase:
        _erase(run, set(content_ids))
    return sorted(set(content_ids))


def unlisted(run: Run, listed: Ids) -> list[str]:
    """The contents in the store that a catalogue does not list, sorted; what was removed is not in the store."""
    listed = id_list(listed)
    latest = run.tables.latest(CONTENT, [])
    alive = {
        content_id
        for content_id, key in zip(latest["content_id"].to_pylist(), latest[WORK_KEY].to_pylist(), strict=True)
        if key != REMOVED
    }
    return sorted(alive - set(listed))


def prune(run: Run, gone: Ids) -> None:
    """Removes contents that the catalogue no longer lists (`unlisted`); they return when it lists them again."""
    _bury(run, id_list(gone), "prune")


def restore(storage: Storage, content_ids: Ids) -> None:
    """Allows removed contents to return with the next run. Raises `NotFound` for one that was not removed."""
    content_ids = id_list(content_ids)
    hidden = blocked(storage)
    for content_id in content_ids:
        if content_id not in hidden:
            raise NotFound(f"{content_id!r} was not removed from the store {storage.uri}")
    _write_log(storage, content_ids, "restore", now_us())


def finish(run: Run) -> list[str]:
    """Completes removals that a killed process began: burying is repeatable, and the log is written first."""
    last = {row["content_id"]: row["cause"] for row in _log(run.storage)}
    latest = run.tables.latest(CONTENT, [])
    keys = dict(zip(latest["content_id"].to_pylist(), latest[WORK_KEY].to_pylist(), strict=True))
    half = sorted(c for c, cause in last.items() if cause == "remove" and keys.get(c, REMOVED) != REMOVED)
    if half:
        _bury(run, half, "remove", logged=True)
    return half


def _bury(run: Run, content_ids: Sequence[str], cause: str, *, logged: bool = False) -> None:
    if not content_ids:
        return
    now = now_us()
    if not logged:
        _write_log(run.storage, content_ids, cause, now)
    # The content view comes last: while its row is alive, `finish` knows that a removal is not complete.
    for view in sorted(stored_views(run.storage), key=lambda view: view.name == CONTENT.name):
        latest = run.tables.latest(view, [])
        present = dict(
            zip(
                latest["content_id"].to_pylist(),
                zip(latest[WORK_KEY].to_pylist(), latest[EVENT].to_pylist(), strict=True),
                strict=True,
            )
        )
        rows = [
            {"content_id": c, EVENT: _after(now, present[c][1]), CREATED: now, WORK_KEY: REMOVED}
            for c in content_ids
            if c in present and present[c][0] != REMOVED
        ]
        if view.name == CONTENT.name:
            _forget_online(run, content_ids)
            _forget_index(run, content_ids)
            skips.forget(run, content_ids)
            gone = set(content_ids)
            healed = [key for key in quarantine.open_keys(run.storage) if key[0] in gone]
            quarantine.record(run.storage, now, "removed", [], healed)
        if rows:
            run.tables.commit(view, rows_to_table(view, rows), now, "removed")


def _after(now: datetime, event: datetime) -> datetime:
    """The time of a tombstone: now, or just after a version that is dated in the future."""
    return max(now, event + timedelta(microseconds=1))


def stored_views(storage: Storage) -> list[View]:
    """Every view of contents that has parts in the store, whatever model made it."""
    beside = (FINGERPRINT, KEYPOINTS, PASSAGES, VOICES)
    families = {view.name: view for view in (*FAMILIES, *beside) if view.entity == CONTENT.entity}
    found: dict[str, View] = {}
    for room in ("offline", "beside"):
        for entry in storage.entries(room):
            name = entry.path.split("/")[1]
            if (
                name in found
                or name in SIDE_TABLES
                or (room == "offline" and "__" not in name and name not in families)
            ):
                continue
            found[name] = families.get(name) or _vector_view(room, name)
    return list(found.values())


def _vector_view(room: str, name: str) -> View:
    from core.contracts import VECTOR
    from core.features import CONTENT_ENTITY, Feature

    feature = "embedding" if room == "offline" else "vector"
    return View(name, CONTENT_ENTITY, (Feature(feature, VECTOR, ""),), "", room=room)


def _forget_online(run: Run, content_ids: Sequence[str]) -> None:
    root = local_root(run.storage)
    if (root / "feast").is_dir():
        from feature_repo.materialise import remove_online
        from feature_repo.store import open_store

        remove_online(open_store(root), list(content_ids))


def _forget_index(run: Run, content_ids: Sequence[str], purge: bool = False) -> None:
    """Publishes every index without these contents and points the release at the new versions."""
    from index import remove as remove_from_index

    folder = local_root(run.storage) / "indexes"
    found = run.storage.read_tagged(RELEASE)
    release = parse_release(found[0], run.storage.uri) if found else {"indexes": {}}
    current = {}
    for home in sorted(p for p in folder.glob("*") if p.is_dir()):
        # Earlier versions are purged only when the release no longer points at one of them.
        manifest = remove_from_index(folder, home.name, content_ids, missing_ok=True)
        current[home.name] = manifest.version if manifest else None
    indexes = {
        modality: {**entry, "version": current.get(entry["name"], entry["version"])}
        for modality, entry in release["indexes"].items()
        if current.get(entry["name"], entry["version"]) is not None
    }
    if found and indexes != release["indexes"]:
        run.storage.replace_if(RELEASE, json.dumps({**release, "indexes": indexes}, indent=1).encode(), found[1])
    if purge:
        for name in current:
            remove_from_index(folder, name, content_ids, purge=True, missing_ok=True)


def _erase(run: Run, content_ids: set[str]) -> None:
    """Rewrites every file that holds rows of these contents; tombstones (id and time) stay."""
    ids = pa.array(sorted(content_ids), pa.string())
    for view in [*stored_views(run.storage), *SIDE_TABLES.values()]:
        for part in run.tables.parts(view):
            rows = read_table(run.storage, part.path)
            hit = pa.compute.is_in(rows["content_id"], value_set=ids)
            dead = pa.compute.and_(hit, pa.compute.not_equal(rows[WORK_KEY], REMOVED))
            if pa.compute.any(dead).as_py():
                run.storage.write(part.path, encode(rows.filter(pa.compute.invert(dead)), view.group_rows))
    _forget_index(run, sorted(content_ids), purge=True)
    skips.forget(run, content_ids, erase=True)
    moderate.erase(run, content_ids)
    quarantine.erase(run.storage, content_ids, now_us())
    for entry in run.storage.entries("runs"):
        if entry.path.endswith(".parquet"):
            run.storage.delete(entry.path)
    run.storage.delete("cache/files.parquet")
    root = local_root(run.storage)
    online = root / "feast" / "online.db"
    for path in {online, *root.glob("**/online*.db")}:
        if path.is_file():
            import sqlite3

            # SQLite keeps deleted bytes in free pages, and in its log beside the file, otherwise.
            with contextlib.closing(sqlite3.connect(path, timeout=VACUUM_TIMEOUT_S)) as connection:
                connection.execute("VACUUM")
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StorageError(
                    f"{path} is being read by somebody; erase again when they are done, so that no byte stays"
                )


def _quarantined(storage: Storage) -> set[str]:
    return {content_id for content_id, _ in quarantine.open_keys(storage)}


def _write_log(storage: Storage, content_ids: Sequence[str], cause: str, now: datetime) -> None:
    _write_rows(storage, [{"content_id": c, "at": now, "cause": cause} for c in content_ids], now)


def _write_rows(storage: Storage, rows: Sequence[dict[str, Any]], now: datetime) -> None:
    """Writes a part that follows all others, also where the clock was set back: of a content, the last row counts."""
    stamp = f"{now:{_STAMP}}"
    for part in storage.entries(FOLDER):
        with contextlib.suppress(ValueError):
            before = datetime.strptime(part.path.rsplit("part-", 1)[-1].removesuffix(".parquet"), _STAMP)
            stamp = max(stamp, f"{before + timedelta(microseconds=1):{_STAMP}}")
    storage.write(f"{FOLDER}/part-{stamp}.parquet", encode(pa.Table.from_pylist(list(rows), schema=SCHEMA)))


def compact_log(storage: Storage, now: datetime, least_parts: int = COMPACTED_PARTS) -> bool:
    """Makes one part of many: each removal leaves one, and every run reads all of them. Call it under the writer lease.
    Returns whether there were enough. The last row of each content stays."""
    parts = storage.entries(FOLDER)
    if len(parts) < least_parts:
        return False
    _write_rows(storage, list({row["content_id"]: row for row in _log(storage)}.values()), now)
    for part in parts:
        storage.delete(part.path)
    return True


def _log(storage: Storage) -> list[dict[str, Any]]:
    """The log of removals, oldest first."""
    try:
        return _logged(storage)
    except FileNotFoundError:  # a compaction made one part of those that were listed
        return _logged(storage)


def _logged(storage: Storage) -> list[dict[str, Any]]:
    return [row for part in storage.entries(FOLDER) for row in read_table(storage, part.path).to_pylist()]
