"""Taking contents out of a published index, for good."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from index.changes import removed_table
from index.load import emptied, load, load_members, load_metadata
from index.log import blank, segments
from index.manifest import FORMAT, Manifest
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
    next_version,
    publishing,
    removals,
    versions,
)


def remove(folder: Path, name: str, content_ids: list[str], *, purge: bool = False) -> Manifest | None:
    """Publishes the index without these contents and returns its manifest (None where nothing is left; the next
    publication then holds what was put live and not removed).

    What remains keeps its ids and its bytes. A later publication whose vectors hold the contents again brings them
    back: what its caller removed has to be out of these too. With `purge` every earlier version is deleted, and what
    killed publications left, so that no file keeps the removed vectors. Versions are not retired otherwise.
    """
    with publishing(folder / name):
        result = _remove(folder, name, content_ids)
        if purge:
            clean(folder / name)
            for version in versions(folder, name):
                if result is None or version != result.version:
                    delete_version(folder / name, version)
            if segments(folder / name):
                blank(folder / name, set(content_ids))
        return result


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
    removed = removed_table(removals(folder, manifest, live=True), by_remove)
    next_id = max(changes.next_id, highest_id(folder, name))
    if not kept:
        leave_floor(folder, name, next_id, manifest.merged, removed)
        (folder / name / CURRENT).unlink(missing_ok=True)
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
