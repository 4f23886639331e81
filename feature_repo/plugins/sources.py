"""A Feast `FileSource` and its Parquet files: which they are, and adding one.

A source may name one file, a glob, or a bare folder (partitioned or not), on a disk or in a bucket. Where a folder has
the very name that a path gives, the path means that folder: `[`, `*` and `?` in the names of folders are no patterns.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from core.contracts import WORK_KEY, WORK_KEY_TAG
from core.errors import ConfigError, StorageError
from core.names import path_name
from core.storage import LocalStorage
from core.tables import encode, now_us

MAGIC = re.compile(r"[*?[]")
ESCAPED = re.compile(r"\[([*?[])\]")  # what `glob.escape` makes of a special character
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
    """Where a source points: `path` on `filesystem`, which may be a glob. Its first `literal` characters are not."""

    filesystem: fs.FileSystem
    path: str
    uri: str
    literal: int = 0

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)


def resolve(source: Any, repo_path: str | Path | None) -> Parts:
    """The Parquet files of `source`; a relative path starts at `repo_path`. Raises `StorageError` where there are
    none, saying what was looked for."""
    place = locate(source, repo_path)
    info = _info(place)
    if info.type == fs.FileType.NotFound and MAGIC.search(place.path):
        base, wanted = split(place)
        if wanted:
            files = _matches(place, base, wanted)
            if not files:
                raise StorageError(f"no file matches {place.uri}; write a first part, or correct the source's path")
            return Parts(place.filesystem, sorted(files, key=lambda part: part.path), place.uri)
        place = replace(place, path=base)
        info = _info(place)
    if info.type == fs.FileType.File:
        return Parts(place.filesystem, [Part(place.path, info.size)], place.uri)
    if info.type != fs.FileType.Directory:
        raise StorageError(f"{place.uri} does not exist")
    files = [part for part in _under(place, place.path) if part.path.endswith((".parquet", ".pq"))]
    if not files:
        raise StorageError(f"the folder {place.uri} holds no Parquet file")
    return Parts(place.filesystem, sorted(files, key=lambda part: part.path), place.uri)


def work_key_column(source: Any, repo_path: str | Path | None) -> str | None:
    """Earmark's own column of a source's files, which marks removed rows; None for a source that is not Earmark's.

    A tag of the source names it, so that a source of one's own may have a column of any name.
    """
    named = source.tags.get(WORK_KEY_TAG)
    if named or repo_path is None:
        return named or None
    # Registries of earlier versions have no tag: there, what lies in the store around the repository is Earmark's.
    store = Path(os.path.abspath(repo_path)).parent
    is_own = (store / "release.json").is_file() and str(source.path).startswith(f"{store / 'offline'}{os.sep}")
    return WORK_KEY if is_own else None


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
    base, path = os.path.abspath(str(repo_path or ".")), os.path.expanduser(path)
    full = os.path.abspath(os.path.join(base, path))
    return Location(
        fs.LocalFileSystem(), full, full, 0 if os.path.isabs(path) else len(os.path.commonpath([base, full]))
    )


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


def _matches(place: Location, base: str, wanted: str) -> list[Part]:
    """Committed files under the folder `base` that the glob `wanted` matches."""
    if not place.is_local:
        fits = pattern(wanted)
        return [part for part in _under(place, base) if fits.fullmatch(part.path[len(base) + 1 :])]
    found = []
    for name in glob.glob(wanted, root_dir=base, recursive=True):
        path = f"{base.rstrip('/')}/{name}"
        with contextlib.suppress(FileNotFoundError):  # compaction retires parts while we look
            if _committed(path, base) and os.path.isfile(path):
                found.append(Part(path, os.stat(path).st_size))
    return found


def split(place: Location) -> tuple[str, str]:
    """The longest leading folder of a location whose names are no patterns, and the glob of what is under it. A name
    is no pattern where a folder has that very name, or where its special characters are escaped."""
    names = place.path.split("/")
    base = names[0]
    for at, name in enumerate(names[1:], 1):
        path = f"{base}/{name}"
        if MAGIC.search(name) and len(path) > place.literal and not _is_folder(place, path):
            if MAGIC.search(ESCAPED.sub("", name)) or at == len(names) - 1:
                return base or "/", "/".join(names[at:])
            path = f"{base}/" + ESCAPED.sub(r"\1", name)
        base = path
    return base, ""


def _is_folder(place: Location, path: str) -> bool:
    if place.is_local:
        return os.path.isdir(path)
    if path.rsplit("/", 1)[-1] in ("*", "**"):  # looking costs a request, and no bucket has such a folder
        return False
    return _info(Location(place.filesystem, path, place.uri)).type == fs.FileType.Directory


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
            one = path[i + 1 : end].removeprefix("!").translate({ord(c): f"\\{c}" for c in "\\[^"})
            out, i = out + f"[{'^' if path[i + 1] == '!' else ''}{one}]", end + 1
        else:
            out, i = out + re.escape(path[i]), i + 1
    return re.compile(out)


def append(source: Any, repo_path: str | Path | None, table: pa.Table, name: str = "") -> str:
    """Adds `table` to the source as one new part file, all or nothing; returns its path. Files that are there stay
    as they are, save where the source is a single file. `name` ends the part's name and is random where empty.

    Raises `ConfigError` for a glob that no new name fits, `StorageError` when the write fails.
    """
    place = locate(source, repo_path)
    created, name = now_us(), path_name(name or uuid.uuid4().hex[:12], "the part")
    base, wanted = split(place)
    if _info(place).type == fs.FileType.NotFound and not wanted:
        place = replace(place, path=base)
    if _info(place).type == fs.FileType.Directory:
        partitioned = any("/date=" in part.path[len(place.path) :] for part in _under(place, place.path))
        folder = f"{place.path}/date={created:%Y-%m-%d}" if partitioned else place.path
        return _commit(place, f"{folder}/{_part(created, name)}", table)
    if wanted and _info(place).type != fs.FileType.File:
        return _commit(place, f"{base.rstrip('/')}/{new_path(wanted, created, name)}", table)
    return _grow(place, table)


def _part(created: datetime, name: str) -> str:
    return f"part-{created.astimezone(UTC):%Y%m%dT%H%M%S%f}-{name}.parquet"


def new_path(path: str, created: datetime, name: str) -> str:
    """A file name that the glob `path` matches, in the layout `date=<UTC date>/part-<created>-<name>.parquet` where
    the glob allows it. Raises `ConfigError`."""
    date = f"{created.astimezone(UTC):%Y-%m-%d}"
    *folders, last = path.split("/")
    filled = [f"date={date}" if f == "*" else _filled(f, date) for f in folders if f != "**"]
    stamp = _part(created, name).removeprefix("part-").removesuffix(".parquet")
    for candidate in (_part(created, name), _filled(last, stamp)):
        found = "/".join([*filled, candidate])
        if pattern(path).fullmatch(found) and not candidate.startswith(UNCOMMITTED):
            return found
    raise ConfigError(f"no new file name fits the source's path {path}; use a glob such as …/<view>/*/part-*.parquet")


def _filled(name: str, text: str) -> str:
    """A name that a part of a glob matches: `text` in the place of its first `*`, and escaped characters themselves."""
    escaped = ESCAPED.split(name)  # every second item is a character that was escaped
    made = ""
    for at, item in enumerate(escaped):
        if at % 2:
            made += item
        else:
            made += item.replace("*", text, 1).replace("*", "")
            text = "" if "*" in item else text
    return made


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
