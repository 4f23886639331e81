"""A Feast `FileSource` and its Parquet files: which they are, and adding one.

A source may name one file, a glob, or a bare folder (partitioned or not), on a disk or in a bucket.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from core.errors import ConfigError, StorageError
from core.storage import LocalStorage
from core.tables import encode, now_us

MAGIC = re.compile(r"[*?[]")
# First letters of files that are not data: `.tmp-…` of killed writers, `_SUCCESS`, `_delta_log`.
UNCOMMITTED = (".", "_")


@dataclass(frozen=True)
class Part:
    """One Parquet file: its path on the filesystem, and its size."""

    path: str
    size_bytes: int


@dataclass(frozen=True)
class Parts:
    """The files of a source, sorted by path."""

    filesystem: fs.FileSystem
    files: list[Part]
    uri: str


@dataclass(frozen=True)
class Location:
    """Where a source points: `path` on `filesystem`, which may be a glob."""

    filesystem: fs.FileSystem
    path: str
    uri: str

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)


def resolve(source: Any, repo_path: str | Path | None) -> Parts:
    """The Parquet files of `source`; a relative path starts at `repo_path`. Raises `StorageError` where there are
    none, saying what was looked for."""
    place = locate(source, repo_path)
    kind = _info(place).type
    if kind == fs.FileType.File:
        return Parts(place.filesystem, [Part(place.path, _info(place).size)], place.uri)
    if kind == fs.FileType.Directory:
        files = [part for part in _under(place, place.path) if part.path.endswith((".parquet", ".pq"))]
        if not files:
            raise StorageError(f"the folder {place.uri} holds no Parquet file")
    elif MAGIC.search(place.path):
        files = _matches(place)
        if not files:
            raise StorageError(f"no file matches {place.uri}; write a first part, or correct the source's path")
    else:
        raise StorageError(f"{place.uri} does not exist")
    return Parts(place.filesystem, sorted(files, key=lambda part: part.path), place.uri)


def locate(source: Any, repo_path: str | Path | None) -> Location:
    """Filesystem and path of a source. Raises `StorageError` for a scheme that pyarrow does not know."""
    uri = str(source.path)
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme == "s3":
        return Location(_s3(source), uri.removeprefix("s3://").rstrip("/"), uri)
    if scheme not in ("", "file"):
        try:
            filesystem, path = fs.FileSystem.from_uri(uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise StorageError(f"cannot open {uri}: {error}") from error
        return Location(filesystem, path, uri)
    path = unquote(urlsplit(uri).path) if scheme == "file" else uri
    full = os.path.abspath(os.path.join(str(repo_path or "."), os.path.expanduser(path)))
    return Location(fs.LocalFileSystem(), full, full)


def _s3(source: Any) -> fs.FileSystem:
    """Credentials come from the source's `ConnectionRef`, else from the environment's usual places."""
    found = source.resolve_credentials() or {}
    options = {
        "access_key": found.get("AWS_ACCESS_KEY_ID"),
        "secret_key": found.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": found.get("AWS_SESSION_TOKEN"),
        "region": found.get("AWS_DEFAULT_REGION")
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION"),
        "endpoint_override": source.s3_endpoint_override
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL"),
    }
    return fs.S3FileSystem(**{name: value for name, value in options.items() if value})


def _info(place: Location) -> fs.FileInfo:
    try:
        return place.filesystem.get_file_info(place.path)
    except OSError as error:
        raise StorageError(f"cannot look at {place.uri}: {error}") from error


def _under(place: Location, base: str) -> list[Part]:
    """Committed files under the folder `base`."""
    try:
        found = place.filesystem.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    except OSError as error:
        raise StorageError(f"cannot list {place.uri}: {error}") from error
    return [Part(f.path, f.size) for f in found if f.type == fs.FileType.File and _committed(f.path, base)]


def _committed(path: str, base: str) -> bool:
    return not any(name.startswith(UNCOMMITTED) for name in path[len(base) :].split("/") if name)


def _matches(place: Location) -> list[Part]:
    base = _base(place.path)
    if not place.is_local:
        wanted = pattern(place.path)
        return [part for part in _under(place, base) if wanted.fullmatch(part.path)]
    found = []
    for path in glob.glob(place.path, recursive=True):
        with contextlib.suppress(FileNotFoundError):  # compaction retires parts while we look
            if _committed(path, base) and os.path.isfile(path):
                found.append(Part(path, os.stat(path).st_size))
    return found


def _base(path: str) -> str:
    """The longest leading folder of a glob without wildcards."""
    names = path.split("/")
    plain = next(i for i, name in enumerate(names) if MAGIC.search(name))
    return "/".join(names[:plain])


def pattern(path: str) -> re.Pattern[str]:
    """A glob as a regular expression: `*` and `?` stay within a folder, `**` spans any number of them."""
    out, i = "", 0
    while i < len(path):
        if path.startswith("**/", i):
            out, i = out + "(?:[^/]+/)*", i + 3
        elif path[i] in "*?":
            out, i = out + ("[^/]*" if path[i] == "*" else "[^/]"), i + 1
        elif path[i] == "[" and "]" in path[i + 1 :]:
            end = path.index("]", i + 1)
            out, i = out + "[" + path[i + 1 : end].replace("!", "^", 1).replace("\\", r"\\") + "]", end + 1
        else:
            out, i = out + re.escape(path[i]), i + 1
    return re.compile(out)


def append(source: Any, repo_path: str | Path | None, table: pa.Table, name: str = "") -> str:
    """Adds `table` to the source as one new part file, all or nothing; returns its path. Files that are there stay
    as they are, save where the source is a single file. `name` ends the part's name and is random where empty.

    Raises `ConfigError` for a glob that no new name fits, `StorageError` when the write fails.
    """
    place = locate(source, repo_path)
    created, name = now_us(), name or uuid.uuid4().hex[:12]
    if _info(place).type == fs.FileType.Directory:
        partitioned = any("/date=" in part.path[len(place.path) :] for part in _under(place, place.path))
        folder = f"{place.path}/date={created:%Y-%m-%d}" if partitioned else place.path
        return _commit(place, f"{folder}/{_part(created, name)}", table)
    if MAGIC.search(place.path) and _info(place).type != fs.FileType.File:
        return _commit(place, new_path(place.path, created, name), table)
    return _grow(place, table)


def _part(created: datetime, name: str) -> str:
    return f"part-{created.astimezone(UTC):%Y%m%dT%H%M%S%f}-{name}.parquet"


def new_path(path: str, created: datetime, name: str) -> str:
    """A file name that the glob `path` matches, in the layout `date=<UTC date>/part-<created>-<name>.parquet` where
    the glob allows it. Raises `ConfigError`."""
    date = f"{created.astimezone(UTC):%Y-%m-%d}"
    *folders, last = path.split("/")
    filled = [f"date={date}" if f == "*" else f.replace("*", date) for f in folders if f != "**"]
    stamp = _part(created, name).removeprefix("part-").removesuffix(".parquet")
    for candidate in (_part(created, name), last.replace("*", stamp, 1).replace("*", "")):
        found = "/".join([*filled, candidate])
        if pattern(path).fullmatch(found) and not candidate.startswith(UNCOMMITTED):
            return found
    raise ConfigError(f"no new file name fits the source's path {path}; use a glob such as …/<view>/*/part-*.parquet")


def _commit(place: Location, path: str, table: pa.Table) -> str:
    if place.is_local:
        folder, _, name = path.rpartition("/")
        LocalStorage(Path(folder)).write(name, encode(table))
        return path
    try:
        with place.filesystem.open_output_stream(path) as sink:  # visible when closed: one PUT
            sink.write(encode(table))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    return path


def _grow(place: Location, table: pa.Table) -> str:
    """A source that is one file has no room for a second: its rows are read, added to and replaced in one step. Costs
    the whole file; a glob or a folder is the way to cheap appends."""
    with _exclusive(place):
        if _info(place).type == fs.FileType.File:
            try:
                old = pq.read_table(place.path, filesystem=place.filesystem)
            except (pa.ArrowException, OSError) as error:
                raise StorageError(f"{place.uri} cannot be read as Parquet: {error}") from error
            table = pa.concat_tables([old, table.select(old.column_names).cast(old.schema)])
        return _commit(place, place.path, table)


@contextlib.contextmanager
def _exclusive(place: Location) -> Iterator[None]:
    """Two writers that read, add and replace would lose one another's rows; a folder can be locked without a file."""
    if not place.is_local:
        yield
        return
    folder = Path(place.path).parent
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
