"""Versions of an index on disk: which there are, which is current, what each says it holds.

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
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from core.errors import ConfigError, IndexUnavailable
from core.names import path_name
from core.storage import LocalStorage
from core.tables import decode, encode
from index.changes import Changes
from index.load import REMOVED_FILE, intact
from index.log import unless_rewound
from index.manifest import Manifest
from index.places import index_home, version_home

CURRENT = "CURRENT"
MANIFEST_FILE = "manifest.json"
VERSION_FORMAT = "%Y%m%dT%H%M%S%f"


@contextlib.contextmanager
def publishing(home: Path) -> Iterator[None]:
    """Holds the index `home` against other publications, of this process and of others; may be nested in a thread."""
    import fcntl

    home.mkdir(parents=True, exist_ok=True)
    own, key = _publishing, home.resolve()
    with own.guard:
        lock = own.locks.setdefault(key, threading.RLock())
    with lock:
        if key in own.held:  # by this thread, as no other has the lock
            yield
            return
        with open(home / "publish.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            own.held.add(key)
            try:
                yield
            finally:
                own.held.discard(key)
                fcntl.flock(file, fcntl.LOCK_UN)


class _Publishing:
    """What this process holds against other publications."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.locks: dict[Path, threading.RLock] = {}  # by home
        self.held: set[Path] = set()  # homes whose file is locked by this process


_publishing = _Publishing()
if hasattr(os, "register_at_fork"):
    # A lock that a thread had taken stays taken in the child, which does not have that thread.
    os.register_at_fork(after_in_child=_publishing.__init__)  # type: ignore[misc]


def point_to(folder: Path, name: str, version: str) -> None:
    """Makes `version` the current one (also the way back). Raises `IndexUnavailable` where it is not whole."""
    if not intact(folder, load_manifest(folder, name, version)):
        raise IndexUnavailable(f"a file of the index {name} version {version} is missing or damaged")
    LocalStorage(index_home(folder, name)).write(CURRENT, json.dumps({"version": version}).encode())


def versions(folder: Path, name: str) -> list[str]:
    """Published versions, oldest first."""
    home = index_home(folder, name)
    return sorted(p.name for p in home.iterdir() if p.is_dir() and not p.name.startswith(".")) if home.is_dir() else []


def current_version(folder: Path, name: str) -> str | None:
    """The version that `CURRENT` names, or None before the first publication."""
    pointer = index_home(folder, name) / CURRENT
    try:
        held = json.loads(pointer.read_bytes())["version"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise IndexUnavailable(f"the pointer of the index {name} is damaged; publish again or go back") from error
    try:
        return path_name(held, "the index version")
    except ConfigError as error:
        raise IndexUnavailable(f"the pointer of the index {name} is damaged: {error}") from error


def load_manifest(folder: Path, name: str, version: str) -> Manifest:
    """Raises `IndexUnavailable` where the version is missing or its manifest damaged."""
    path = version_home(folder, name, version) / MANIFEST_FILE
    try:
        held = Manifest.from_bytes(path.read_bytes(), f"index {name} version {version}")
    except FileNotFoundError as error:
        raise IndexUnavailable(f"the index {name} has no version {version}") from error
    # Where it lies is what counts: paths are made of both names, and a folder may have been renamed.
    return dataclasses.replace(held, name=name, version=version)


def current_manifest(folder: Path, name: str) -> Manifest | None:
    """The manifest of the current version; None where there is none that can be read (a build then replaces it)."""
    with contextlib.suppress(IndexUnavailable):
        version = current_version(folder, name)
        return load_manifest(folder, name, version) if version else None
    return None


def manifests(folder: Path, name: str) -> list[Manifest]:
    """Of the versions whose manifest can be read, oldest first."""
    found = []
    for version in versions(folder, name):
        with contextlib.suppress(IndexUnavailable):
            found.append(load_manifest(folder, name, version))
    return found


def newest_manifest(folder: Path, name: str) -> Manifest | None:
    """The newest version that is whole, where `CURRENT` does not tell."""
    for version in reversed(versions(folder, name) if (index_home(folder, name) / CURRENT).exists() else []):
        with contextlib.suppress(IndexUnavailable):
            return load_manifest(folder, name, version)
    return None


def _floor(folder: Path, name: str) -> int:
    """Number of the log's record up to which nothing counts, where there is no version to say it."""
    path = index_home(folder, name) / "merged_floor"
    return int(path.read_text()) if path.is_file() else 0


def next_version(folder: Path, name: str) -> str:
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
    return _removals(version_home(folder, manifest.name, manifest.version) / REMOVED_FILE, live)


def _removals(path: Path, live: bool | None) -> dict[str, int]:
    found = decode(path.read_bytes()).to_pylist() if path.is_file() else []
    return {row["content_id"]: row["number"] for row in found if live in (None, row["live"])}


def leave_floor(folder: Path, name: str, next_id: int, merged: int, removed: pa.Table) -> None:
    """Keeps what has to outlive the last version: the first id never given, the log's record up to which nothing
    counts, and what was taken out."""
    storage = LocalStorage(index_home(folder, name))
    storage.write("next_id", str(next_id).encode())
    storage.write(REMOVED_FILE, encode(removed))
    storage.write("merged_floor", str(merged).encode())


def highest_id(folder: Path, name: str) -> int:
    """The first id that no version gave."""
    floor = index_home(folder, name) / "next_id"
    given = [found.next_id for found in manifests(folder, name)]
    return max([*given, int(floor.read_text()) if floor.is_file() else 0])


def changes_since(folder: Path, name: str, since: Manifest | None, model_id: str) -> Changes:
    if since is None:
        deleted, removed = (_removals(index_home(folder, name) / REMOVED_FILE, live) for live in (True, False))
    else:
        deleted, removed = (removals(folder, since, live=live) for live in (True, False))
    merged = since.merged if since else _floor(folder, name)
    return unless_rewound(name, lambda: Changes.since(index_home(folder, name), merged, deleted, removed, model_id))


def merged_range(folder: Path, name: str) -> tuple[int, int]:
    """The last record of the log that every version kept here holds, and the last that any of them knows of."""
    kept = manifests(folder, name)
    merged, floor = [found.merged for found in kept], _floor(folder, name)
    removed = [number for found in kept for number in removals(folder, found).values()]
    removed += _removals(index_home(folder, name) / REMOVED_FILE, None).values()
    return min(merged, default=floor), max([*merged, *removed, floor])


def clean(home: Path, keep: str = "") -> None:
    """Deletes what killed publications left, but for names that begin with `keep`. One publishes at a time: nobody else
    is doing so here."""
    if home.is_dir():
        for path in home.iterdir():
            if path.name.startswith(".") and not (keep and path.name.startswith(keep)):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def delete_version(home: Path, version: str) -> None:
    # Renamed first: a reader or a crash in between never meets half a version.
    dying = home / f".dying-{version}"
    os.rename(home / version, dying)
    shutil.rmtree(dying, ignore_errors=True)
