"""The log of what changed in an index since it was built: appended to, never written over, replayed on opening.

A record is its size, a checksum and its number, then JSON, then the vectors as float32. Records are numbered through
all segments; a build says in its manifest up to which number it holds them, and begins a new segment, so that old ones
can go. A record that a crash cut short is the last of a segment: readers stop before it, the writer takes it away.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import IndexUnavailable, StorageError

PREFIX, SUFFIX = "live-", ".log"
_HEAD = struct.Struct("<IIQII")  # bytes of JSON and vectors, their checksum, number, bytes of JSON, checksum of these
PUT, DELETE = "put", "delete"


@dataclass(frozen=True)
class Record:
    """A change. A put replaces all windows of a content: `ids` and `windows` of the rows of `vectors`, float32
    (windows, dim), and what may be filtered by (`about`)."""

    number: int
    op: str
    content_id: str
    ids: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    about: dict[str, Any] | None = None
    vectors: np.ndarray | None = None
    model_id: str = ""  # whose vectors they are

    def to_bytes(self) -> bytes:
        told = {"op": self.op, "content_id": self.content_id}
        if self.op == PUT:
            told |= {"ids": list(self.ids), "windows": list(self.windows), "about": self.about, "model": self.model_id}  # type: ignore[dict-item]
        text = json.dumps(told, default=str).encode()
        data = text + (b"" if self.vectors is None else np.ascontiguousarray(self.vectors, "<f4").tobytes())
        head = len(data), zlib.crc32(data), self.number, len(text)
        return _HEAD.pack(*head, _checksum(*head)) + data


class Rewound(Exception):
    """What was read of the log is no longer there: begin again."""


class Reader:
    """Follows the segments of a log; `read` gives what came since the last call."""

    def __init__(self, home: Path, after: int) -> None:
        """Records up to the number `after` are passed over: the base holds them."""
        self._home, self._last = home, after
        self._segment: Path | None = None
        self._at = 0

    def read(self) -> Iterator[Record]:
        """Raises `IndexUnavailable` for a record that is damaged and not merely cut short at the end, `Rewound` where a
        segment was taken away or cut off."""
        for segment in segments(self._home):
            if self._segment is not None and segment.name < self._segment.name:
                continue
            if segment != self._segment:
                self._segment, self._at = segment, 0
            try:
                with open(segment, "rb") as file:
                    if os.fstat(file.fileno()).st_size < self._at:
                        raise Rewound(segment.name)
                    file.seek(self._at)
                    data = file.read()
            except FileNotFoundError as error:
                raise Rewound(segment.name) from error
            for record, end in parse(data, segment, self._at):
                self._at = end
                if record.number > self._last:
                    self._last = record.number
                    yield record


class Writer:
    """Appends records; at most one process does. Raises `StorageError` where another holds the log."""

    def __init__(self, home: Path, after: int) -> None:
        """Numbers go on after those of the log and after `after`, which no version may have passed."""
        import fcntl

        self._home = home
        self._lock = open(home / "live.lock", "w")  # noqa: SIM115  held as long as the writer is
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise StorageError(f"another process writes to the index {home.name}") from error
        self.number = after
        for segment in segments(home):
            self.number = max(self.number, first_number(segment) - 1)
            data, end = segment.read_bytes(), 0
            for record, place in parse(data, segment, 0):
                self.number, end = max(self.number, record.number), place
            if end < len(data):  # what a crash cut short
                os.truncate(segment, end)
        self._cut = "", 0
        found = segments(home)
        self._file: Any = self._open(found[-1] if found else self._named(self.number + 1))

    def append(self, records: list[Record]) -> None:
        """Writes the records through to the disk. Raises `StorageError`, and then none of them counts; their numbers
        are not given again, because a reader may have seen them."""
        if self._file is None:
            self._mend()
        before, name = self._file.tell(), self._file.name
        try:
            self._file.write(b"".join(record.to_bytes() for record in records))
            self._file.flush()
            os.fsync(self._file.fileno())
        except BaseException as error:
            broken, self._file = self._file, None
            with contextlib.suppress(OSError):
                broken.close()  # what is buffered goes wrong again, or is cut off with the rest
            self._cut = name, before
            self.number = records[-1].number
            with contextlib.suppress(StorageError):
                self._mend()
            if not isinstance(error, OSError):
                raise
            raise StorageError(f"cannot write to the log of the index {self._home.name}: {error}") from error
        self.number = records[-1].number if records else self.number

    def _mend(self) -> None:
        """Cuts off what was written in vain, and goes on in a segment of its own."""
        name, size = self._cut
        try:
            os.truncate(name, size)
            self._file = self._open(self._named(self.number + 1))
        except OSError as error:
            raise StorageError(f"cannot write to the log of the index {self._home.name}: {error}") from error

    def rotate(self) -> None:
        """Begins a new segment."""
        if self._file is not None and self._file.tell():
            self._file.close()
            self._file = self._open(self._named(self.number + 1))

    def retire(self, merged: int) -> None:
        """Deletes segments that hold nothing beyond the number `merged`."""
        found = segments(self._home)
        for segment, following in zip(found, found[1:], strict=False):
            if first_number(following) <= merged + 1:
                segment.unlink(missing_ok=True)

    def close(self) -> None:
        import fcntl

        if self._file is not None:
            self._file.close()
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # a child process that was forked holds the file too
        self._lock.close()

    def _open(self, segment: Path) -> Any:
        is_new = not segment.exists()
        file = open(segment, "ab")  # noqa: SIM115
        if is_new:
            folder = os.open(self._home, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return file

    def _named(self, number: int) -> Path:
        return self._home / f"{PREFIX}{number:016d}{SUFFIX}"


def blank(home: Path, content_ids: Collection[str]) -> None:
    """Overwrites the vectors of contents in the log, so that no file keeps them; each put becomes a delete of the same
    length. Raises `StorageError` where a process writes to the log."""
    writer = Writer(home, 0)
    try:
        for segment in segments(home):
            data, at = segment.read_bytes(), 0
            with open(segment, "r+b") as file:
                for record, end in parse(data, segment, 0):
                    if record.op == PUT and record.content_id in content_ids:
                        text = json.dumps({"op": DELETE, "content_id": record.content_id}).encode()
                        body = text.ljust(end - at - _HEAD.size, b"\0")
                        head = len(body), zlib.crc32(body), record.number, len(text)
                        file.seek(at)
                        file.write(_HEAD.pack(*head, _checksum(*head)) + body)
                    at = end
                file.flush()
                os.fsync(file.fileno())
    finally:
        writer.close()


def segments(home: Path) -> list[Path]:
    return sorted(home.glob(f"{PREFIX}*{SUFFIX}"))


def first_number(segment: Path) -> int:
    return int(segment.name.removeprefix(PREFIX).removesuffix(SUFFIX))


def parse(data: bytes, segment: Path, start: int) -> Iterator[tuple[Record, int]]:
    """(record, its end in the segment) of bytes that begin at `start`; stops where a record is cut short."""
    at = 0
    while at + _HEAD.size <= len(data):
        *head, checked = _HEAD.unpack_from(data, at)
        size, checksum, number, text = head
        end = at + _HEAD.size + size
        sound = _checksum(*head) == checked
        if sound and end > len(data):
            return
        body = data[at + _HEAD.size : end]
        if not sound or zlib.crc32(body) != checksum:
            if (sound and end == len(data)) or not any(data[at:]):  # the last one, whose bytes did not reach the disk
                return
            raise IndexUnavailable(
                f"{segment} is damaged at byte {start + at}; restore it, or move it away, which loses the changes in it"
            )
        told = json.loads(body[:text])
        vectors = None
        if told["op"] == PUT:
            vectors = np.frombuffer(body[text:], "<f4").reshape(len(told["windows"]), -1)
        yield (
            Record(
                number,
                told["op"],
                told["content_id"],
                tuple(told.get("ids", ())),
                tuple(told.get("windows", ())),
                told.get("about"),
                vectors,
                told.get("model", ""),
            ),
            start + end,
        )
        at = end


def _checksum(*head: int) -> int:
    return zlib.crc32(struct.pack("<IIQI", *head))
