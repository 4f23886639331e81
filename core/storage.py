"""The only commit path: every byte of a store is written here, atomically and durably.

On a disk a commit is write, fsync, rename, fsync of the folder; on an object store it is one PUT. What must change
under concurrency (the writer lease, the release pointer) goes through `replace_if`, a compare-and-swap by version tag.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from core.errors import StorageError
from core.location import store_folder
from core.names import relative_path

TEMPORARY = ".tmp-"  # prefix of files that were never committed; readers ignore them


@dataclass(frozen=True)
class Entry:
    """A committed object: its path relative to the store, and its size."""

    path: str
    size_bytes: int


class Conflict(StorageError):
    """`replace_if` found another version than expected."""


class Storage(Protocol):
    """A store's bytes by relative POSIX path. Every method raises `ConfigError` for a path that leads outside."""

    uri: str

    def read(self, path: str) -> bytes:
        """The object's bytes. Raises `FileNotFoundError` where there is none."""
        ...

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """The object's bytes and version tag, or None where there is none."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Commits `data`, all or nothing, replacing what was there. Raises `StorageError`."""
        ...

    def replace_if(self, path: str, data: bytes, tag: str | None) -> str:
        """Commits `data` only if the object's version tag is `tag` (None: only if there is no object); returns the
        new tag. Raises `Conflict`."""
        ...

    def entries(self, prefix: str) -> list[Entry]:
        """Committed objects under the folder `prefix`, sorted by path."""
        ...

    def delete(self, path: str) -> None:
        """Removes an object; no error where there is none."""
        ...

    def local_path(self, path: str) -> Path:
        """The object as a file for libraries that want one: itself on a disk, a fresh copy elsewhere."""
        ...

    def arrow(self) -> tuple[Any, str]:
        """A `pyarrow.fs.FileSystem` and the store's root on it."""
        ...


def open_storage(uri: str | Path) -> Storage:
    """The storage behind a folder path, a `file://` or an `s3://bucket/prefix` URI. Raises `ConfigError`."""
    text = str(uri)
    if text.startswith("s3://"):
        from core.s3 import S3Storage

        parts = urlsplit(text)
        return S3Storage(parts.netloc, parts.path.strip("/"))
    return LocalStorage(store_folder(text))


def read_json(storage: Storage, path: str) -> Any:
    """The JSON value at `path`. Raises `FileNotFoundError`, and `StorageError` for a damaged file."""
    data = storage.read(path)
    try:
        return json.loads(data)
    except ValueError as error:
        raise StorageError(f"{path} in {storage.uri} is damaged: {error}") from error


class LocalStorage:
    """A store in a folder of a local disk."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)

    def local_path(self, path: str) -> Path:
        return self.root / relative_path(path)

    def read(self, path: str) -> bytes:
        try:
            return self.local_path(path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"cannot read {path} in {self.uri}: {error.strerror or error}") from error

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        try:
            data = self.read(path)
        except FileNotFoundError:
            return None
        return data, hashlib.blake2b(data, digest_size=16).hexdigest()

    def write(self, path: str, data: bytes) -> None:
        target = self.local_path(path)
        temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            fsync_folder(target.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StorageError(f"cannot commit {path} to {self.uri}: {error.strerror or error}") from error

    def replace_if(self, path: str, data: bytes, tag: str | None) -> str:
        # A disk has no conditional rename; an exclusive lock beside the object makes compare and rename one step.
        with self._locked(relative_path(path)):
            current = self.read_tagged(path)
            if (current[1] if current else None) != tag:
                raise Conflict(f"{path} in {self.uri} was changed by somebody else")
            self.write(path, data)
        return hashlib.blake2b(data, digest_size=16).hexdigest()

    @contextlib.contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        lock = self.root / ".locks" / path.replace("/", "_")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = open(lock, "a")  # noqa: SIM115 (closed by the `with` below)
        except OSError as error:
            raise StorageError(f"cannot lock {path} in {self.uri}: {error.strerror or error}") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def entries(self, prefix: str) -> list[Entry]:
        found = []
        below = relative_path(prefix.strip("/")) if prefix else ""
        for folder, folders, names in os.walk(self.root / below):
            folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
            for name in names:
                if not name.startswith(TEMPORARY):
                    file = os.path.join(folder, name)
                    with contextlib.suppress(FileNotFoundError):
                        relative = os.path.relpath(file, self.root).replace(os.sep, "/")
                        found.append(Entry(relative, os.stat(file).st_size))
        return sorted(found, key=lambda entry: entry.path)

    def delete(self, path: str) -> None:
        try:
            self.local_path(path).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot delete {path} in {self.uri}: {error.strerror or error}") from error

    def arrow(self) -> tuple[Any, str]:
        from pyarrow import fs

        return fs.LocalFileSystem(), self.uri

    def sweep(self) -> int:
        """Deletes what killed writers left uncommitted; returns how many files. Call it under the writer lease."""
        swept = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                if name.startswith(TEMPORARY):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(folder, name))
                        swept += 1
        return swept


def fsync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk. Raises `OSError`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
