"""What is known of files already seen, so that an unchanged file is not read again."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

FILE_CACHE_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("media_hash", pa.string()),
        pa.field("tags", pa.string()),  # JSON of what catalog.tags read; null for what is no audio file of a folder
    ]
)


@dataclass(frozen=True)
class FileIdentity:
    """One version of a file. `size` in bytes, `mtime_ns` since the epoch (0 where a server does not tell).

    `sha256` is of all bytes. `media_hash` is of the compressed audio alone, so that new tags do not change it; for
    what is not audio it equals `sha256`.
    """

    size: int
    mtime_ns: int
    sha256: str
    media_hash: str


@dataclass(frozen=True)
class _Entry:
    size: int
    mtime_ns: int
    sha256: str | None = None
    media_hash: str | None = None
    tags: str | None = None


class FileCache:
    """Identities and tags by URI; an entry answers only for the size and modification time it was made for.

    Made from an Arrow table (`FILE_CACHE_SCHEMA`) and returned as one; storing it is the caller's matter. Thread-safe.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self.changed = False  # whether something was learnt since the cache was made

    @classmethod
    def from_table(cls, table: pa.Table) -> FileCache:
        cache = cls()
        columns = [table.column(name).to_pylist() for name in FILE_CACHE_SCHEMA.names]
        cache._entries = {uri: _Entry(*rest) for uri, *rest in zip(*columns, strict=True)}
        return cache

    def to_table(self) -> pa.Table:
        """Sorted by URI, so that equal caches are equal bytes."""
        with self._lock:
            entries = sorted(self._entries.items())
        rows = [(uri, e.size, e.mtime_ns, e.sha256, e.media_hash, e.tags) for uri, e in entries]
        columns = list(zip(*rows, strict=True)) or [()] * len(FILE_CACHE_SCHEMA)
        arrays = [pa.array(list(c), field.type) for c, field in zip(columns, FILE_CACHE_SCHEMA, strict=True)]
        return pa.table(arrays, schema=FILE_CACHE_SCHEMA)

    def __len__(self) -> int:
        return len(self._entries)

    def identity(self, uri: str, size: int, mtime_ns: int) -> FileIdentity | None:
        entry = self._current(uri, size, mtime_ns)
        if entry is None or entry.sha256 is None or entry.media_hash is None:
            return None
        return FileIdentity(size, mtime_ns, entry.sha256, entry.media_hash)

    def remember(self, uri: str, identity: FileIdentity) -> None:
        self._update(uri, identity.size, identity.mtime_ns, sha256=identity.sha256, media_hash=identity.media_hash)

    def tags(self, uri: str, size: int, mtime_ns: int) -> dict[str, Any] | None:
        entry = self._current(uri, size, mtime_ns)
        return None if entry is None or entry.tags is None else json.loads(entry.tags)

    def remember_tags(self, uri: str, size: int, mtime_ns: int, tags: dict[str, Any]) -> None:
        self._update(uri, size, mtime_ns, tags=json.dumps(tags, sort_keys=True))

    def keep(self, uris: set[str]) -> None:
        """Forget every URI that is not in `uris`."""
        with self._lock:
            kept = {uri: entry for uri, entry in self._entries.items() if uri in uris}
            self.changed |= len(kept) != len(self._entries)
            self._entries = kept

    def _current(self, uri: str, size: int, mtime_ns: int) -> _Entry | None:
        entry = self._entries.get(uri)
        return entry if entry is not None and (entry.size, entry.mtime_ns) == (size, mtime_ns) else None

    def _update(self, uri: str, size: int, mtime_ns: int, **learnt: str) -> None:
        with self._lock:
            old = self._current(uri, size, mtime_ns) or _Entry(size, mtime_ns)
            new = replace(old, **learnt)  # type: ignore[arg-type]
            if new != self._entries.get(uri):
                self._entries[uri] = new
                self.changed = True
