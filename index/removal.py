"""Taking contents out of a published index, for good."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from core.errors import IndexUnavailable, NotFound
from core.ids import Ids, id_list, some_of
from index.changes import removed_table
from index.load import emptied, load, load_members, load_metadata
from index.log import Reader, blank, segments, unless_rewound
from index.manifest import FORMAT, Manifest
from index.places import index_home
from index.publish import commit
from index.vectors import Subset
from index.versions import (
    CURRENT,
    changes_since,
    clean,
    current_manifest,
    delete_version,
    highest_id,
    leave_floor,
    manifests,
    newest_manifest,
    next_version,
    publishing,
    removals,
    versions,
)

log = logging.getLogger(__name__)


def remove(
    folder: Path, name: str, content_ids: Ids, *, purge: bool = False, missing_ok: bool = False
) -> Manifest | None:
    """Publishes the index without these contents and returns its manifest (None where nothing is left; the next
    publication then holds what was put live and not removed).

    What remains keeps its ids and its bytes. A later publication whose vectors hold the contents again brings them
    back: what its caller removed has to be out of these too. With `purge` every earlier version is deleted, and what
    killed publications left, so that no file keeps the removed vectors. Versions are not retired otherwise.

    `content_ids`: one as a string, or several. Ids that are not there are logged as a warning. Raises `NotFound` where
    none of them is, unless `missing_ok`, and `IndexUnavailable` where there is no such index; nothing changes then.
    """
    wanted = list(dict.fromkeys(id_list(content_ids)))
    home = index_home(folder, name)
    if not home.is_dir():
        raise IndexUnavailable(f"there is no index {name} in {folder}")
    with publishing(home):
        missing = [] if missing_ok else _missing(folder, name, wanted, purge)
        if missing and len(missing) == len(wanted):
            raise NotFound(f"nothing was removed: the index {name} does not hold {some_of(missing)}")
        if missing:
            log.warning("not in the index %s, so not removed: %s", name, some_of(missing))
        result = _remove(folder, name, wanted)
        if purge:
            clean(home)
            for version in versions(folder, name):
                if result is None or version != result.version:
                    delete_version(home, version)
            if segments(home):
                blank(home, set(wanted))
        return result


def _missing(folder: Path, name: str, content_ids: list[str], purge: bool) -> list[str]:
    """The contents that neither the current version nor the log holds; with `purge`, no version."""
    current = current_manifest(folder, name)
    held = [current] if current else []
    if purge:
        held += [one for one in manifests(folder, name) if one != current]
    members = [load_members(folder, one) for one in held]
    absent = [one for one in content_ids if all(own.number_of(one) is None for own in members)]
    if not absent:
        return []
    if purge:  # the log keeps the vectors of records that a version holds already
        home = index_home(folder, name)
        logged = unless_rewound(name, lambda: {record.content_id for record in Reader(home, 0).read()})
    else:
        since = current or newest_manifest(folder, name)
        logged = set(changes_since(folder, name, since, since.model_id if since else "").records)
    return [one for one in absent if one not in logged]


def _remove(folder: Path, name: str, content_ids: list[str]) -> Manifest | None:
    manifest = current_manifest(folder, name)
    if manifest is None:
        return None
    members = load_members(folder, manifest)
    numbers = [number for number in map(members.number_of, set(content_ids)) if number is not None]
    kept = len(members) - int(np.isin(members.content_of, numbers).sum())
    changes = changes_since(folder, name, manifest, manifest.model_id)
    if kept == len(members) and not any(one in changes.records for one in content_ids):
        return manifest
    # What the log holds of them so far does not count any more.
    by_remove = {**removals(folder, manifest, live=False), **dict.fromkeys(content_ids, changes.last)}
    # And so what it says of live deletes is kept: which of these contents are deleted now, and which were put since.
    deleted = {one: n for one, n in removals(folder, manifest, live=True).items() if one not in content_ids}
    deleted |= {one: changes.deleted[one] for one in content_ids if one in changes.deleted}
    removed = removed_table(deleted, by_remove)
    next_id = max(changes.next_id, highest_id(folder, name))
    if not kept:
        leave_floor(folder, name, next_id, manifest.merged, removed)
        (index_home(folder, name) / CURRENT).unlink(missing_ok=True)
        return None
    old = load(folder, manifest)
    rows = np.flatnonzero(~np.isin(old.members.content_of, numbers))
    made = emptied(folder, manifest)
    for _, block in Subset(old, rows).blocks():
        made.add(block)
    manifest = dataclasses.replace(
        manifest,
        version=next_version(folder, name),
        count=len(rows),
        created=datetime.now(UTC).isoformat(),
        source=f"{manifest.source} less {old.count - len(rows)}",
        next_id=next_id,
        format=FORMAT,
    )
    metadata = load_metadata(folder, old.manifest)
    return commit(folder, manifest, made, old.members.take(rows), metadata, versions(folder, name), removed)
