"""Taking contents out of a published index, for good."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from core.errors import EarmarkError
from core.storage import LocalStorage
from index.build import filled
from index.changes import removed_table
from index.load import load, load_members, load_metadata
from index.log import blank, segments
from index.manifest import FORMAT, Manifest
from index.publish import commit
from index.vectors import Subset
from index.versions import (
    CURRENT,
    changes_since,
    current_manifest,
    delete_version,
    next_version,
    publishing,
    removals,
    versions,
)


def remove(folder: Path, name: str, content_ids: list[str], *, purge: bool = False) -> Manifest | None:
    """Publishes the index without these contents and returns its manifest (None where nothing is left).

    The vectors that remain keep their ids and their bytes. With `purge` every earlier version is deleted, so that no
    file keeps the removed vectors.
    """
    with publishing(folder / name):
        result = _remove(folder, name, content_ids)
        if purge:
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
    if not kept:
        LocalStorage(folder).write(f"{name}/next_id", str(max(manifest.next_id, changes.next_id)).encode())
        LocalStorage(folder).write(f"{name}/merged_floor", str(changes.last).encode())
        (folder / name / CURRENT).unlink(missing_ok=True)
        return None
    return _without(folder, manifest, numbers, content_ids)


def _without(folder: Path, manifest: Manifest, numbers: list[int], content_ids: Collection[str]) -> Manifest:
    old = load(folder, manifest)
    rows = np.flatnonzero(~np.isin(old.members.content_of, numbers))
    factory, vectors = manifest.factory, Subset(old, rows)
    try:
        made = filled(factory, vectors)
    except EarmarkError:  # too few are left to train it
        factory, made = "Flat", filled("Flat", vectors)
    manifest = dataclasses.replace(
        manifest,
        version=next_version(folder, manifest.name),
        count=len(rows),
        factory=factory,
        parameters=manifest.parameters if factory == manifest.factory else {},
        created=datetime.now(UTC).isoformat(),
        source=f"{manifest.source} less {old.count - len(rows)}",
        format=FORMAT,
    )
    # What the log holds of them so far does not count any more.
    last = changes_since(folder, manifest.name, old.manifest, old.manifest.model_id).last
    now_removed = {**removals(folder, old.manifest, live=False), **dict.fromkeys(content_ids, last)}
    removed = removed_table(removals(folder, old.manifest, live=True), now_removed)
    metadata = load_metadata(folder, old.manifest)
    return commit(folder, manifest, made, old.members.take(rows), metadata, removed=removed)
