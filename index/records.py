"""What stands in a segment of the log of changes: records, in batches of which all or none count.

A record is its size, a checksum and its number, then JSON, then the vectors as float32. A batch is the records that
were appended together, under one head and one checksum. Its head is sound only in its place, so that what follows tells
whether a damaged one was the last: that is what a crash leaves incomplete, whichever of its pages did not reach the
disk. Segments of the older format are records without batches; they are read, not written.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import IndexUnavailable

PREFIX, SUFFIX = "live-", ".log"
BATCHED = ".v2" + SUFFIX  # segments without are of the older format; of two with the same number, theirs comes first
PUT, DELETE = "put", "delete"
_MAGIC = b"\xffEmB"
_BATCH = struct.Struct("<4sQQII")  # magic, bytes of records, number of the first, their checksum, checksum of these
_HEAD = struct.Struct("<IIQII")  # bytes of JSON and vectors, their checksum, number, bytes of JSON, checksum of these


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


def to_bytes(records: Sequence[Record], segment: Path, at: int) -> bytes:
    """A batch, for its place in a segment."""
    data = b"".join(record.to_bytes() for record in records)
    return _head_of(data, records[0].number, segment, at) + data


def first_number(segment: Path) -> int:
    return int(segment.name.removeprefix(PREFIX).partition(".")[0])


def parse(data: bytes, segment: Path, start: int) -> Iterator[tuple[list[Record], int]]:
    """(records, their end in the segment) of the batches in bytes that begin at `start`; stops before the last where it
    is incomplete. Raises `IndexUnavailable` for damage further up."""
    if segment.name.endswith(BATCHED):
        for first, end in _batches(data, segment, start):
            yield [record for record, _ in _records(data[first:end], segment, start + first)], start + end
    else:
        for record, end in _records(data, segment, start):
            yield [record], start + end


def _batches(data: bytes, segment: Path, start: int) -> Iterator[tuple[int, int]]:
    """(beginning, end) of the records of each batch."""
    at = 0
    while at < len(data):
        head = _batch_at(data, segment, start, at)
        if head is None:
            if _is_followed(data, segment, start, at):
                raise damaged(segment, start + at)
            return
        size, checksum = head
        first, end = at + _BATCH.size, at + _BATCH.size + size
        if end > len(data):
            return
        if zlib.crc32(memoryview(data)[first:end]) != checksum:
            if end == len(data):
                return
            raise damaged(segment, start + at)  # what comes after it was begun when it was complete
        yield first, end
        at = end


def _batch_at(data: bytes, segment: Path, start: int, at: int) -> tuple[int, int] | None:
    """(bytes, checksum) of the batch that begins there; None where none does."""
    if at + _BATCH.size > len(data):
        return None
    magic, size, number, checksum, checked = _BATCH.unpack_from(data, at)
    is_sound = magic == _MAGIC and checked == _batch_checksum(size, number, checksum, segment, start + at)
    return (size, checksum) if is_sound else None


def _is_followed(data: bytes, segment: Path, start: int, at: int) -> bool:
    """Whether another batch begins further down."""
    while (at := data.find(_MAGIC, at + 1)) >= 0:
        if _batch_at(data, segment, start, at) is not None:
            return True
    return False


def _records(data: bytes, segment: Path, start: int) -> Iterator[tuple[Record, int]]:
    """(record, its end) in bytes that begin at `start` of the segment; stops where a record is cut short."""
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
            raise damaged(segment, start + at)
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
            end,
        )
        at = end


def blanked(data: bytes, segment: Path, content_ids: Collection[str]) -> bytes:
    """The bytes of a whole segment with the puts of contents as deletes."""
    out = bytearray(data)
    is_batched = segment.name.endswith(BATCHED)
    for first, last in _batches(data, segment, 0) if is_batched else [(0, len(data))]:
        at = first
        for record, end in _records(data[first:last], segment, first):
            end += first
            if record.op == PUT and record.content_id in content_ids:
                text = json.dumps({"op": DELETE, "content_id": record.content_id}).encode()
                body = text.ljust(end - at - _HEAD.size, b"\0")
                head = len(body), zlib.crc32(body), record.number, len(text)
                out[at:end] = _HEAD.pack(*head, _checksum(*head)) + body
            at = end
        if is_batched:
            number = _BATCH.unpack_from(data, first - _BATCH.size)[2]
            out[first - _BATCH.size : first] = _head_of(out[first:last], number, segment, first - _BATCH.size)
    return bytes(out)


def _head_of(data: bytes | bytearray, number: int, segment: Path, at: int) -> bytes:
    checksum = zlib.crc32(data)
    checked = _batch_checksum(len(data), number, checksum, segment, at)
    return _BATCH.pack(_MAGIC, len(data), number, checksum, checked)


def _batch_checksum(size: int, number: int, checksum: int, segment: Path, at: int) -> int:
    return zlib.crc32(struct.pack("<QQIQQ", size, number, checksum, first_number(segment), at))


def _checksum(*head: int) -> int:
    return zlib.crc32(struct.pack("<IIQI", *head))


def damaged(segment: Path, at: int) -> IndexUnavailable:
    return IndexUnavailable(
        f"{segment} is damaged at byte {at}; restore it, or move it away, which loses the changes in it"
    )
