"""Redis's protocol in bulk: commands as bytes, replies parsed into blocks. redis-py opens the connections (address,
TLS, authentication, cluster), so all of its configuration holds here."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from core.errors import StorageError
from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.values import Block

FIRST_BUFFER = 1 << 20
LARGEST_IDLE_BUFFER = 16 << 20
SMALL = 1 << 16  # bytes that are cheaper to join than to send apart
_idle = threading.local()


class Moved(Exception):
    """The cluster's slots have moved."""


class ServerError(Exception):
    """Redis answered with an error; the text is Redis's."""


@contextmanager
def borrow(client: Any) -> Iterator[Wire]:
    """A connection of the client's pool. After any exception it is closed: replies may be under way."""
    connection = client.connection_pool.get_connection()
    buffer, _idle.buffer = getattr(_idle, "buffer", None), None
    wire = None
    try:
        wire = Wire(connection._get_socket(), buffer)
        yield wire
    except BaseException:
        connection.disconnect()
        raise
    finally:
        if wire is not None and wire.buffer.size <= LARGEST_IDLE_BUFFER:
            _idle.buffer = wire.buffer
        client.connection_pool.release(connection)


def bulk(data: bytes) -> bytes:
    """One argument of a command."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def command(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(map(bulk, arguments))


class Wire:
    """A socket, and a buffer of what came in, kept for the thread's next conversation."""

    def __init__(self, sock: Any, buffer: np.ndarray | None = None) -> None:
        self._socket = sock
        self.buffer = np.empty(FIRST_BUFFER, np.uint8) if buffer is None else buffer
        self._at = self._end = 0

    def send(self, *data: bytes | np.ndarray) -> None:
        """Sends the pieces; small ones in one call."""
        if len(data) > 1 and sum(map(len, data)) <= SMALL:
            self._socket.sendall(b"".join(bytes(piece) for piece in data))
            return
        for piece in data:
            self._socket.sendall(piece)

    def arrays(self, columns: int, rows: int) -> Block:
        """Replies to `rows` HMGETs of `columns` fields. Raises `ServerError`."""
        return self.arrays_of([(columns, rows)])[0]

    def arrays_of(self, shapes: Sequence[tuple[int, int]]) -> list[Block]:
        """Replies to several such groups, (fields, keys) each, in one array of bytes that is the caller's."""
        self._rewind()
        found = []
        for columns, rows in shapes:
            starts, lengths = np.empty((columns, rows), np.int64), np.empty((columns, rows), np.int32)
            row = 0
            while True:
                row, self._at, wrong = kernels.parse_arrays(self.buffer, self._at, self._end, row, starts, lengths)
                if wrong:
                    self._raise(self._at)
                if row == rows:
                    break
                self._receive()
            found.append((starts, lengths))
        data = self.buffer[: self._at].copy()
        return [Block(data, *places) for places in found]

    def skip(self, replies: int) -> int:
        """Passes over that many replies; returns the sum of the integers among them. Raises `ServerError` for the first
        that is an error."""
        total = 0
        while True:
            replies, self._at, error, more = kernels.skip_replies(self.buffer, self._at, self._end, replies)
            total += more
            if error >= 0:
                self._raise(error)
            if not replies:
                return total
            if self._at == self._end:
                self._at = self._end = 0
            self._receive()

    def executed(self) -> bool:
        """The reply to EXEC: False where a watched key was touched, so that nothing was done. Raises `ServerError`."""
        while True:
            number, after = kernels.get_line(self.buffer, self._at + 1, self._end)
            if after != kernels.MORE:
                break
            self._receive()
        if self.buffer[self._at] == ord("_") or (self.buffer[self._at] == ord("*") and number < 0):
            self._at = after
            return False
        self.skip(1)
        return True

    def _rewind(self) -> None:
        """Moves what is not read yet to the front, so that a long conversation needs no longer buffer."""
        rest = self._end - self._at
        if self._at:
            self.buffer[:rest] = self.buffer[self._at : self._end].copy()
            self._at, self._end = 0, rest

    def _receive(self) -> None:
        if self._end == self.buffer.size:
            larger = np.empty(2 * self.buffer.size, np.uint8)
            larger[: self._end] = self.buffer[: self._end]
            self.buffer = larger
        got = self._socket.recv_into(self.buffer.data[self._end :])
        if not got:
            raise ConnectionError("Redis closed the connection")
        self._end += got

    def _raise(self, at: int) -> None:
        while True:
            text = self.buffer[at : self._end].tobytes()
            if b"\r\n" in text:
                break
            before = self._end
            self._receive()
            if self._end == before:
                break
        line = text.split(b"\r\n", 1)[0].decode(errors="replace")
        if line.startswith(("-MOVED", "-ASK", "-CLUSTERDOWN", "-TRYAGAIN")):
            raise Moved(line[1:])
        if line.startswith("-"):
            raise ServerError(line[1:])
        raise StorageError(f"Redis answered in a way that was not expected: {line[:80]!r}")
