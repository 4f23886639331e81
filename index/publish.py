"""Publishing versions of an index: written aside, checked, renamed into place, then pointed at.

A version is a folder that appears whole or not at all; `CURRENT` names the one to read. The previous version stays for
readers that hold it and for going back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import EarmarkError, IndexUnavailable, StorageError
from core.storage import LocalStorage
from core.tables import decode, encode
from index.build import build, check_vectors, filled
from index.changes import Changes, removed_table
from index.ids import assign
from index.load import IDS_FILE, INDEX_FILE, METADATA_FILE, REMOVED_FILE, intact, load, load_metadata, sha256
from index.log import Rewound, blank, segments
from index.manifest import FORMAT, Manifest

CURRENT = "CURRENT"
MANIFEST_FILE = "manifest.json"
VERSION_FORMAT = "%Y%m%dT%H%M%S%f"
TARGET_RECALL = 0.95
TOLERANCE = 0.01  # recall@10 that a version may lose to the one before it
KEPT_VERSIONS = 2
STAGING = ".staging-"


def publish_vectors(
    folder: Path,
    name: str,
    vectors: pa.Table,
    *,
    model_id: str,
    dim: int,
    source: str,
    factory: str | None = None,
    memory_bytes: float | None = None,
    target_recall: float = TARGET_RECALL,
    gate: float | None = None,
    tolerance: float = TOLERANCE,
    windows: str | None = None,
    metadata: pa.Table | None = None,
    pinned: Collection[str] = (),
) -> Manifest:
    """Builds and publishes `folder/name` from `vectors` (content_id, embedding; also `windows` where a content has
    several); returns the manifest of the version that is current then.

    What the log of live changes says beyond the current version is done to them first, and contents that it deletes
    stay out until it puts them again. What it put has to be in the vectors of later calls: it is done to one build and
    not to the next. `metadata` (content_id, and a row a content of what may be filtered by) is
    published too. Nothing is built where `source` is that of the current version and nothing changed live. Versions
    that are `pinned` (a release points at them) are not retired. Raises `EarmarkError` for vectors that cannot be
    indexed, `IndexUnavailable` below the recall gate, or below what the current version found by more than `tolerance`
    (as far as that was asked for: exact search may give way to an index that reaches the target); the current version
    stays then.
    """
    with publishing(folder / name):
        return _publish(
            folder,
            name,
            vectors,
            model_id,
            dim,
            source,
            factory,
            memory_bytes,
            target_recall,
            gate,
            tolerance,
            windows,
            metadata,
            pinned,
        )


def _publish(
    folder: Path,
    name: str,
    vectors: pa.Table,
    model_id: str,
    dim: int,
    source: str,
    factory: str | None,
    memory_bytes: float | None,
    target_recall: float,
    gate: float | None,
    tolerance: float,
    windows: str | None,
    metadata: pa.Table | None,
    pinned: Collection[str],
) -> Manifest:
    before = current_manifest(folder, name)
    changes = _changes(folder, name, before or _newest(folder, name), model_id)
    same = before and (before.source, before.model_id, before.dim) == (source, model_id, dim)
    if before and same and not changes.records and intact(folder, before):
        return before
    vectors, windows = changes.over(vectors, windows, dim)
    metadata = changes.over_metadata(metadata)
    flat = pa.compute.list_flatten(vectors["embedding"])
    values = flat.to_numpy(zero_copy_only=False) if isinstance(flat, pa.Array) else flat.to_numpy()
    matrix = np.ascontiguousarray(values, np.float32).reshape((vectors.num_rows, -1) if vectors.num_rows else (0, dim))
    windows_of = vectors[windows].to_pylist() if windows else [0] * vectors.num_rows
    keys = list(zip(vectors["content_id"].to_pylist(), windows_of, strict=True))
    previous, next_id = changes.over_ids(*_known_ids(folder, name))
    ids, next_id = assign(previous, next_id, keys)
    numbers = ids["id"].to_numpy()
    check_vectors(matrix, numbers, dim)
    built = build(matrix, factory=factory, memory_bytes=memory_bytes, target_recall=target_recall, gate=gate)
    recall = built.quality.recall
    if before and (before.model_id, before.dim) == (model_id, dim):
        least = min(before.recall["10"], target_recall) - tolerance
        if recall["10"] < least:
            raise IndexUnavailable(
                f"recall@10 is {recall['10']:.3f} with {built.choice.factory}, and {before.recall['10']:.3f} in the "
                f"published version: not published below {least:.3f}"
            )
    now = datetime.now(UTC)
    manifest = Manifest(
        name=name,
        version=_next_version(folder, name),
        model_id=model_id,
        metric="inner_product",
        dim=dim,
        count=len(matrix),
        factory=built.choice.factory,
        why=built.choice.why,
        parameters=built.parameters,
        recall=recall,
        source=source,
        next_id=next_id,
        created=now.isoformat(),
        recall_error=built.quality.recall_error,
        latency_ms=built.quality.latency_ms,
        refused=built.refused,
        merged=changes.last,
    )
    removed = removed_table(changes.deleted, {})
    return _commit(folder, manifest, built.faiss_index, ids.take(built.order), metadata, pinned, removed)


@contextlib.contextmanager
def publishing(home: Path) -> Iterator[None]:
    """Holds the index `home` against other publications, of this process and of others; may be nested in a thread."""
    import fcntl

    home.mkdir(parents=True, exist_ok=True)
    with _guard:
        lock = _locks.setdefault(str(home.resolve()), threading.RLock())
    with lock:
        depth = _depth.__dict__.setdefault("of", {})
        if depth.get(home.resolve()):
            yield
            return
        with open(home / "publish.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            depth[home.resolve()] = True
            try:
                yield
            finally:
                depth[home.resolve()] = False
                fcntl.flock(file, fcntl.LOCK_UN)


_guard, _locks, _depth = threading.Lock(), dict[str, Any](), threading.local()


def _commit(
    folder: Path,
    manifest: Manifest,
    index: Any,
    ids: pa.Table,
    metadata: pa.Table | None,
    pinned: Collection[str] = (),
    removed: pa.Table | None = None,
) -> Manifest:
    import faiss

    home = folder / manifest.name
    clean(home)
    staging = home / f"{STAGING}{manifest.version}"
    storage = LocalStorage(staging)
    storage.write(IDS_FILE, encode(ids))
    if metadata is not None:
        storage.write(METADATA_FILE, encode(metadata))
    if removed is not None and removed.num_rows:
        storage.write(REMOVED_FILE, encode(removed))
    try:
        faiss.write_index(index, str(staging / INDEX_FILE))
        with open(staging / INDEX_FILE, "rb") as written:
            os.fsync(written.fileno())
    except (RuntimeError, OSError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise StorageError(f"cannot write the index {manifest.name}: {error}") from error
    manifest = dataclasses.replace(
        manifest,
        files={path.name: sha256(path) for path in sorted(staging.iterdir())},
        bytes_per_vector=round((staging / INDEX_FILE).stat().st_size / manifest.count, 1),
    )
    storage.write(MANIFEST_FILE, manifest.to_bytes())
    try:
        os.rename(staging, home / manifest.version)
    except OSError as error:
        raise StorageError(f"cannot publish the index {manifest.name}: {error}") from error
    point_to(folder, manifest.name, manifest.version)
    for old in versions(folder, manifest.name)[:-KEPT_VERSIONS]:
        if old not in pinned and old != manifest.version:
            _delete(home, old)
    return manifest


def point_to(folder: Path, name: str, version: str) -> None:
    """Makes `version` the current one (also the way back). Raises `IndexUnavailable` where it is not whole."""
    if not intact(folder, load_manifest(folder, name, version)):
        raise IndexUnavailable(f"a file of the index {name} version {version} is missing or damaged")
    LocalStorage(folder / name).write(CURRENT, json.dumps({"version": version}).encode())


def versions(folder: Path, name: str) -> list[str]:
    """Published versions, oldest first."""
    home = folder / name
    return sorted(p.name for p in home.iterdir() if p.is_dir() and not p.name.startswith(".")) if home.is_dir() else []


def current_version(folder: Path, name: str) -> str | None:
    """The version that `CURRENT` names, or None before the first publication."""
    try:
        return str(json.loads((folder / name / CURRENT).read_bytes())["version"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise IndexUnavailable(f"the pointer of the index {name} is damaged; publish again or go back") from error


def load_manifest(folder: Path, name: str, version: str) -> Manifest:
    """Raises `IndexUnavailable` where the version is missing or its manifest damaged."""
    path = folder / name / version / MANIFEST_FILE
    try:
        return Manifest.from_bytes(path.read_bytes(), f"index {name} version {version}")
    except FileNotFoundError as error:
        raise IndexUnavailable(f"the index {name} has no version {version}") from error


def current_manifest(folder: Path, name: str) -> Manifest | None:
    """The manifest of the current version; None where there is none that can be read (a build then replaces it)."""
    with contextlib.suppress(IndexUnavailable):
        version = current_version(folder, name)
        return load_manifest(folder, name, version) if version else None
    return None


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
                    _delete(folder / name, version)
            if segments(folder / name):
                blank(folder / name, set(content_ids))
        return result


def _remove(folder: Path, name: str, content_ids: list[str]) -> Manifest | None:
    manifest, home = current_manifest(folder, name), folder / name
    if manifest is None:
        return None
    ids = decode((home / manifest.version / IDS_FILE).read_bytes())
    gone = pa.compute.is_in(ids["content_id"], value_set=pa.array(sorted(content_ids), pa.string()))
    kept = ids.filter(pa.compute.invert(gone))
    changes = _changes(folder, name, manifest, manifest.model_id)
    if kept.num_rows == ids.num_rows and not any(one in changes.records for one in content_ids):
        return manifest
    if not kept.num_rows:
        LocalStorage(folder).write(f"{name}/next_id", str(max(manifest.next_id, changes.next_id)).encode())
        LocalStorage(folder).write(f"{name}/merged_floor", str(changes.last).encode())
        (home / CURRENT).unlink(missing_ok=True)
        return None
    return _without(folder, manifest, ids, kept, content_ids)


def _without(folder: Path, manifest: Manifest, ids: pa.Table, kept: pa.Table, content_ids: Collection[str]) -> Manifest:
    old = load(folder, manifest)
    rows = np.flatnonzero(np.isin(old.ids["id"].to_numpy(), kept["id"].to_numpy()))
    factory, vectors = manifest.factory, old.vectors(rows)
    try:
        made = filled(factory, vectors)
    except EarmarkError:  # too few are left to train it
        factory, made = "Flat", filled("Flat", vectors)
    manifest = dataclasses.replace(
        manifest,
        version=_next_version(folder, manifest.name),
        count=len(rows),
        factory=factory,
        parameters=manifest.parameters if factory == manifest.factory else {},
        created=datetime.now(UTC).isoformat(),
        source=f"{manifest.source} less {ids.num_rows - kept.num_rows}",
        format=FORMAT,
    )
    metadata = load_metadata(folder, old.manifest)
    if metadata is not None:
        metadata = metadata.filter(pa.compute.is_in(metadata["content_id"], value_set=kept["content_id"]))
    # What the log holds of them so far does not count any more.
    last = _changes(folder, manifest.name, old.manifest, old.manifest.model_id).last
    now_removed = {**removals(folder, old.manifest, live=False), **dict.fromkeys(content_ids, last)}
    removed = removed_table(removals(folder, old.manifest, live=True), now_removed)
    return _commit(folder, manifest, made, old.ids.take(rows), metadata, removed=removed)


def _changes(folder: Path, name: str, since: Manifest | None, model_id: str) -> Changes:
    deleted, removed = (removals(folder, since, live=live) for live in (True, False))
    for attempt in range(3):
        try:
            return Changes.since(
                folder / name, since.merged if since else _floor(folder, name), deleted, removed, model_id
            )
        except Rewound:  # the writer retired a segment
            if attempt == 2:
                raise StorageError(f"the log of the index {name} changes too fast to be read") from None
    raise AssertionError("unreachable")


def _newest(folder: Path, name: str) -> Manifest | None:
    """The newest version that is whole, where `CURRENT` does not tell."""
    for version in reversed(versions(folder, name) if current_version_file(folder, name) else []):
        with contextlib.suppress(IndexUnavailable):
            return load_manifest(folder, name, version)
    return None


def current_version_file(folder: Path, name: str) -> bool:
    return (folder / name / CURRENT).exists()


def _floor(folder: Path, name: str) -> int:
    """Number of the log's record up to which nothing counts, where there is no version to say it."""
    path = folder / name / "merged_floor"
    return int(path.read_text()) if path.is_file() else 0


def _next_version(folder: Path, name: str) -> str:
    """Named after the time, and after every version there is, even where the clock was set back."""
    now, made = datetime.now(UTC).replace(tzinfo=None), versions(folder, name)
    if made:
        with contextlib.suppress(ValueError):
            now = max(now, datetime.strptime(made[-1], VERSION_FORMAT) + timedelta(microseconds=1))
    return f"{now:{VERSION_FORMAT}}"


def removals(folder: Path, manifest: Manifest | None, *, live: bool | None = None) -> dict[str, int]:
    """Contents that were taken out, and the number of the log's record up to which nothing of them counts: by live
    deletes, by `remove`, or both."""
    if manifest is None or REMOVED_FILE not in manifest.files:
        return {}
    found = decode((folder / manifest.name / manifest.version / REMOVED_FILE).read_bytes()).to_pylist()
    return {row["content_id"]: row["number"] for row in found if live in (None, row["live"])}


def merged_range(folder: Path, name: str) -> tuple[int, int]:
    """The last record of the log that every version kept here holds, and the last that any of them holds."""
    merged = [found.merged for found in manifests(folder, name)]
    floor = _floor(folder, name)
    return min(merged, default=floor), max([*merged, floor])


def manifests(folder: Path, name: str) -> list[Manifest]:
    """Of the versions whose manifest can be read, oldest first."""
    found = []
    for version in versions(folder, name):
        with contextlib.suppress(IndexUnavailable):
            found.append(load_manifest(folder, name, version))
    return found


def clean(home: Path) -> None:
    """Deletes what killed publications left. One writer a store: nobody else is publishing here."""
    if home.is_dir():
        for path in home.iterdir():
            if path.name.startswith("."):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _delete(home: Path, version: str) -> None:
    # Renamed first: a reader or a crash in between never meets half a version.
    dying = home / f".dying-{version}"
    os.rename(home / version, dying)
    shutil.rmtree(dying, ignore_errors=True)


def _known_ids(folder: Path, name: str) -> tuple[pa.Table | None, int]:
    """Ids of the newest whole version and the highest `next_id` ever written."""
    table, next_id = None, 0
    floor = folder / name / "next_id"
    if floor.is_file():
        next_id = int(floor.read_text())
    for version in versions(folder, name):
        try:
            manifest = load_manifest(folder, name, version)
            table = decode((folder / name / version / IDS_FILE).read_bytes())
            next_id = max(next_id, manifest.next_id)
        except (IndexUnavailable, OSError, pa.ArrowInvalid):
            continue
    return table, next_id
