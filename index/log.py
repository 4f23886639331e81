"""The log of what changed in an index since it was built: appended to, never written over, replayed on opening.

Records (`index.records`) are numbered through all segments; a build says in its manifest up to which number it holds
them, and begins a new segment, so that old ones can go. What a crash left incomplete is the last batch of a segment:
readers stop before it, the writer takes it away.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from core.errors import StorageError
from core.storage import fsync_folder
from index.records import BATCHED, DELETE, PREFIX, PUT, SUFFIX, Record, blanked, damaged, first_number, parse, to_bytes

__all__ = ["DELETE", "PUT", "Reader", "Record", "Rewound", "Writer", "blank", "segments", "unless_rewound"]

log = logging.getLogger(__name__)

_BLANKED = "live.blanked"
_ATTEMPTS = 3  # to read a log whose segments are retired, or whose version is replaced, meanwhile

T = TypeVar("T")


class Rewound(Exception):
    """What was read of the log is no longer there: begin again."""


def unless_rewound(name: str, read: Callable[[], T]) -> T:
    """What `read` returns, begun again where the log was `Rewound`. Raises `StorageError` after some attempts."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(Rewound):
            return read()
    raise StorageError(f"the log of the index {name} changes too fast to be read")


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
        for segment, following in _with_next(segments(self._home)):
            if self._segment is not None and segment.name < self._segment.name:
                continue
            if segment != self._segment:
                if following is not None and first_number(following) <= self._last + 1:
                    continue  # nothing in it is new, be it damaged or not
                self._segment, self._at = segment, 0
            try:
                with open(segment, "rb") as file:
                    if os.fstat(file.fileno()).st_size < self._at:
                        raise Rewound(segment.name)
                    file.seek(self._at)
                    data = file.read()
                    size = self._at + len(data)
            except FileNotFoundError as error:
                raise Rewound(segment.name) from error
            for records, end in parse(data, segment, self._at):
                for record in records:
                    if record.number > self._last:
                        self._last = record.number
                        yield record
                self._at = end
            if following is not None and self._at < size:
                raise damaged(segment, self._at)  # what comes after it was begun when it was complete


class Writer:
    """Appends records; at most one process does. Raises `StorageError` where another holds the log."""

    def __init__(self, home: Path, after: int) -> None:
        """Numbers go on after those of the log and after `after`, which no version may have passed."""
        import fcntl

        self._home, self._process = home, os.getpid()
        self._lock = open(home / "live.lock", "w")  # noqa: SIM115  held as long as the writer is
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise StorageError(f"another process writes to the index {home.name}") from error
        self.number = after
        self._cut = "", 0  # segment, and its length before an append that failed
        self._file: Any = None
        try:
            self._follow()
        except OSError as error:
            self.close()
            raise StorageError(f"cannot write to the log of the index {home.name}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _follow(self) -> None:
        """Finds the last number, takes away what a crash left incomplete, and opens the segment that goes on."""
        found = segments(self._home)
        for segment, following in _with_next(found):
            if following is not None and first_number(following) <= self.number + 1:
                continue
            self.number = max(self.number, first_number(segment) - 1)
            data, end = segment.read_bytes(), 0
            for records, place in parse(data, segment, 0):
                self.number, end = max(self.number, records[-1].number), place
            if end < len(data):
                if following is not None:
                    raise damaged(segment, end)
                log.warning("%s: took away %d bytes that a crash left incomplete", segment, len(data) - end)
                _truncate(segment, end)
        goes_on = found and found[-1].name.endswith(BATCHED)
        self._file = self._open(found[-1] if goes_on else self._named(self.number + 1))

    def append(self, records: list[Record]) -> None:
        """Writes the records through to the disk, all or none. Raises `StorageError`, and then none of them counts;
        their numbers are not given again, because a reader may have seen them."""
        if not records:
            return
        if not self._is_own:
            raise StorageError(f"the log of the index {self._home.name} is written by the process that opened it")
        if self._file is None:
            self._mend()
        before, name = self._file.tell(), self._file.name
        try:
            self._file.write(to_bytes(records, Path(name), before))
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
        self.number = records[-1].number

    def _mend(self) -> None:
        """Cuts off what was written in vain, and goes on in a segment of its own."""
        name, size = self._cut
        try:
            _truncate(Path(name), size)
            self._file = self._open(self._named(self.number + 1))
        except OSError as error:
            raise StorageError(f"cannot write to the log of the index {self._home.name}: {error}") from error

    def rotate(self) -> None:
        """Begins a new segment. Raises `StorageError`, and then the next append begins it: the one before does not go
        on, because the new one may be there."""
        if self._is_own and self._file is not None and self._file.tell():
            finished, self._file = self._file, None
            self._cut = finished.name, finished.tell()
            finished.close()
            self._mend()

    def retire(self, merged: int) -> None:
        """Deletes segments that hold nothing beyond the number `merged`."""
        found = segments(self._home) if self._is_own else []
        for segment, following in zip(found, found[1:], strict=False):
            if first_number(following) <= merged + 1:
                segment.unlink(missing_ok=True)

    def close(self) -> None:
        import fcntl

        if self._file is not None:
            self._file.close()
        if self._is_own:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # a child process that was forked holds the file too
        self._lock.close()

    @property
    def _is_own(self) -> bool:
        """Whether this is the process that opened it, not one that was forked."""
        return os.getpid() == self._process

    def _open(self, segment: Path) -> Any:
        file = open(segment, "ab")  # noqa: SIM115
        try:
            if not file.tell():  # new, or its name did not reach the disk before
                fsync_folder(self._home)
        except BaseException:
            file.close()
            raise
        return file

    def _named(self, number: int) -> Path:
        return self._home / f"{PREFIX}{number:016d}{BATCHED}"


def blank(home: Path, content_ids: Collection[str]) -> None:
    """Overwrites the vectors of contents in the log, so that no file keeps them; each put becomes a delete of the same
    length. Raises `StorageError` where a process writes to the log."""
    writer = Writer(home, 0)
    try:
        (home / _BLANKED).unlink(missing_ok=True)
        for segment in segments(home):
            data = segment.read_bytes()
            without = blanked(data, segment, content_ids)
            if without == data:
                continue
            # The name points at a sound file at any moment; then the bytes that it pointed at are overwritten too.
            with open(segment, "r+b") as old:
                with open(home / _BLANKED, "wb") as new:
                    _through(new, without)
                os.replace(home / _BLANKED, segment)
                fsync_folder(home)
                _through(old, without)
    finally:
        writer.close()


def segments(home: Path) -> list[Path]:
    return sorted(home.glob(f"{PREFIX}*{SUFFIX}"))


def _with_next(found: Sequence[Path]) -> list[tuple[Path, Path | None]]:
    """Each segment with the one that follows it. A segment that is followed was finished before."""
    return list(zip(found, [*found[1:], None], strict=True)) if found else []


def _truncate(segment: Path, size: int) -> None:
    with open(segment, "r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def _through(file: Any, data: bytes) -> None:
    """Writes to the disk."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
