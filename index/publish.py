"""Publishing versions of an index: built, measured, written aside, checked, renamed into place, then pointed at."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import operator
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import EarmarkError, IndexUnavailable, StorageError, WrongType
from core.ids import Ids, id_list, path_list, some_of
from core.keys import digest
from core.storage import LocalStorage
from core.tables import encode
from index.build import build, check_vectors
from index.changes import Changes, removed_table
from index.given import check_ids
from index.ids import assign
from index.load import INDEX_FILE, METADATA_FILE, REMOVED_FILE, align, intact, load_members, sha256
from index.manifest import Manifest
from index.members import SHORT_BYTES, Members, write_mapped
from index.places import index_home
from index.shards import Sharding
from index.vectors import ArrayVectors, Joined, ParquetVectors, Subset, Vectors, matrix
from index.versions import (
    MANIFEST_FILE,
    changes_since,
    clean,
    current_manifest,
    delete_version,
    highest_id,
    load_manifest,
    newest_manifest,
    next_version,
    point_to,
    publishing,
    versions,
)

TARGET_RECALL = 0.95
TOLERANCE = 0.01  # recall@10 that a version may lose to the one before it
KEPT_VERSIONS = 2
STAGING, SHARDS = ".staging-", ".shards-"
SHARDING = Sharding()
log = logging.getLogger(__name__)


def publish_vectors(
    folder: Path,
    name: str,
    vectors: pa.Table | Sequence[Path],
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
    pinned: Ids = (),
    device: str = "cpu",
    sharding: Sharding = SHARDING,
) -> Manifest:
    """Builds and publishes `folder/name` from `vectors` (content_id, embedding; also `windows` where a content has
    several); returns the manifest of the version that is current then.

    `vectors` are a table, or a list of Parquet files that are never read whole: their index is built in shards as
    `sharding` says, and a build that is killed goes on where it was. Ids are in memory in either case. `memory_bytes`
    is what the index may hold in memory when it serves. `device` "cuda" chooses and builds for a card.

    What the log of live changes says beyond the current version is done to them first, and contents that it deletes
    stay out until it puts them again. What it put has to be in the vectors of later calls: it is done to one build and
    not to the next. `metadata` (content_id, and a row a content of what may be filtered by) is
    published too. Nothing is built where `source` is that of the current version and nothing changed live. Versions
    that are `pinned` (a release points at them) are not retired. Raises `EarmarkError` for vectors that cannot be
    indexed, `IndexUnavailable` below the recall gate, or below what the current version found by more than `tolerance`
    (as far as that was asked for: exact search may give way to an index that reaches the target); the current version
    stays then.
    """
    dim, pinned = operator.index(dim), id_list(pinned, "pinned versions")
    if not isinstance(vectors, pa.Table):
        vectors = path_list(vectors, "vectors: an Arrow table, or Parquet files")
    if metadata is not None and not isinstance(metadata, pa.Table):
        raise WrongType(f"index: the metadata is an Arrow table, not {type(metadata).__name__}")
    with publishing(index_home(folder, name)):
        before = current_manifest(folder, name)
        changes = changes_since(folder, name, before or newest_manifest(folder, name), model_id)
        same = before and (before.source, before.model_id, before.dim) == (source, model_id, dim)
        if before and same and not changes.records and intact(folder, before):
            return before
        if metadata is not None and "content_id" not in metadata.column_names:
            raise EarmarkError("index: the metadata has no column content_id")
        rows = _rows(vectors, windows, dim, changes)
        previous, next_id = changes.over_ids(*_known_ids(folder, name))
        ids, next_id = assign(previous, next_id, rows.content_ids, rows.windows)
        check_vectors(rows.vectors, ids, dim)
        scratch = index_home(folder, name) / f"{SHARDS}{_key(vectors, source, model_id, dim, changes)}"
        built = build(
            rows.vectors, factory=factory, memory_bytes=memory_bytes, target_recall=target_recall, gate=gate,
            device=device, sharding=None if isinstance(vectors, pa.Table) else sharding, scratch=scratch,
        )  # fmt: skip
        recall = built.quality.recall
        if before and (before.model_id, before.dim) == (model_id, dim):
            _not_worse(built.choice.factory, recall["10"], before, target_recall, tolerance)
        manifest = Manifest(
            name=name,
            version=next_version(folder, name),
            model_id=model_id,
            metric="inner_product",
            dim=dim,
            count=rows.vectors.count,
            factory=built.choice.factory,
            why=built.choice.why,
            parameters=built.parameters,
            recall=recall,
            source=source,
            next_id=next_id,
            created=datetime.now(UTC).isoformat(),
            recall_error=built.quality.recall_error,
            latency_ms=built.quality.latency_ms,
            refused=built.refused,
            merged=changes.last,
        )
        order = built.order
        members = Members.of(rows.content_ids.take(pa.array(order)), rows.windows[order], ids[order])
        about = changes.over_metadata(metadata)
        removed = removed_table(changes.deleted, {})
        return commit(folder, manifest, built.faiss_index, members, about, pinned, removed)


@dataclass(frozen=True)
class _Rows:
    """What a build is given: whose each vector is, and which window."""

    vectors: Vectors
    content_ids: Any
    windows: np.ndarray


def _rows(given: pa.Table | Sequence[Path], windows: str | None, dim: int, changes: Changes) -> _Rows:
    """The vectors with the changes done to them. Raises `EarmarkError` for what cannot be indexed."""
    if isinstance(given, pa.Table):
        missing = {"content_id", "embedding", windows or "content_id"} - set(given.column_names)
        if missing:
            raise EarmarkError(f"index: the vectors have no column {', '.join(sorted(missing))}")
        vectors: Vectors = ArrayVectors(matrix(given["embedding"], dim))
        content_ids, window = given["content_id"], given[windows] if windows else None
    else:
        files = ParquetVectors(given, dim)
        vectors, content_ids = files, files.column("content_id")
        window = files.column(windows) if windows else None
    try:
        content_ids = content_ids.cast(pa.large_string() if content_ids.nbytes > SHORT_BYTES else pa.string())
        numbers = np.zeros(len(content_ids), np.int32) if window is None else np.asarray(window.cast(pa.int32()))
    except pa.ArrowException as error:
        raise EarmarkError(f"index: content ids are text and windows 32-bit numbers: {error}") from error
    nulls = content_ids.null_count + (0 if window is None else window.null_count)
    if nulls:
        raise EarmarkError(f"index: {nulls} rows have no content id or no window")
    out = changes.touched
    if len(out):
        _report_deleted(content_ids, changes)
        kept = np.flatnonzero(~np.asarray(pc.is_in(content_ids, value_set=out.cast(content_ids.type))))
        names, added, own = changes.rows(dim)
        vectors = Joined([Subset(vectors, kept), ArrayVectors(added)])
        content_ids = pa.chunked_array([*content_ids.take(pa.array(kept)).chunks, names.cast(content_ids.type)])
        numbers = np.concatenate([numbers[kept], own])
    check_ids(content_ids)
    _check_distinct(content_ids, numbers)
    return _Rows(vectors, content_ids, numbers)


def _report_deleted(content_ids: pa.ChunkedArray, changes: Changes) -> None:
    """Logs which of the contents given were deleted live, and so stay out. Raises `EarmarkError` where these are all
    and nothing was put: there is nothing to build from."""
    deleted = pa.array(sorted(changes.deleted), content_ids.type)
    given = pc.unique(content_ids)
    left_out = given.filter(pc.is_in(given, value_set=deleted)).to_pylist()
    if not left_out:
        return
    why = "deleted live, so they stay out of every build until LiveIndex.put puts them again"
    if len(left_out) == len(given) and not changes.puts:
        raise EarmarkError(f"index: nothing to build: all {len(given)} contents given were {why}: {some_of(left_out)}")
    log.warning("%d of the %d contents given were %s: %s", len(left_out), len(given), why, some_of(left_out))


def _check_distinct(content_ids: pa.ChunkedArray, windows: np.ndarray) -> None:
    numbers = np.asarray(pc.index_in(content_ids, pc.unique(content_ids))).astype(np.int64)
    keys = np.sort(numbers << 32 | windows.astype(np.int64) & 0xFFFFFFFF)
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        name = pc.unique(content_ids)[int(keys[twice[0]] >> 32)].as_py()
        raise EarmarkError(
            f"index: {len(windows)} rows, {len(twice)} of them of a content and window that stand there already, such "
            f"as {name!r}; give `windows` where a content has several"
        )


def _key(given: pa.Table | Sequence[Path], source: str, model_id: str, dim: int, changes: Changes) -> str:
    """Names the unfinished shards of these vectors: the same files in the same order go on from them, and no others."""
    import faiss

    files = [] if isinstance(given, pa.Table) else [Path(file) for file in given]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return digest([source, model_id, dim, changes.last, stats, faiss.__version__])[:16]


def _not_worse(factory: str, recall: float, before: Manifest, target: float, tolerance: float) -> None:
    least = min(before.recall["10"], target) - tolerance
    if recall < least:
        raise IndexUnavailable(
            f"recall@10 is {recall:.3f} with {factory}, and {before.recall['10']:.3f} in the published version: not "
            f"published below {least:.3f}"
        )


def commit(
    folder: Path,
    manifest: Manifest,
    index: Any,
    members: Members,
    metadata: pa.Table | None,
    pinned: Collection[str] = (),
    removed: pa.Table | None = None,
) -> Manifest:
    """Writes a version, makes it the current one and retires old ones. Raises `StorageError`."""
    import faiss

    home = index_home(folder, manifest.name)
    clean(home, keep=SHARDS)
    staging = home / f"{STAGING}{manifest.version}"
    storage = LocalStorage(staging)
    try:
        staging.mkdir(parents=True)
        members.write(staging)
        if metadata is not None:
            write_mapped(staging / METADATA_FILE, align(metadata, members.contents))
        if removed is not None and removed.num_rows:
            storage.write(REMOVED_FILE, encode(removed))
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
    clean(home)
    for old in versions(folder, manifest.name)[:-KEPT_VERSIONS]:
        if old not in pinned and old != manifest.version:
            delete_version(home, old)
    return manifest


def _known_ids(folder: Path, name: str) -> tuple[pa.Table | None, int]:
    """Ids of the newest whole version and the highest `next_id` ever written."""
    table, next_id = None, highest_id(folder, name)
    for version in reversed(versions(folder, name)):
        with contextlib.suppress(IndexUnavailable):
            manifest = load_manifest(folder, name, version)
            table = load_members(folder, manifest).table()
            break
    return table, next_id
