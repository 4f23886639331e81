"""Redis's protocol in bulk: commands as bytes, replies parsed into blocks. redis-py opens the connections (address,
TLS, authentication, cluster), so all of its configuration holds here."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from core.errors import StorageError
from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.values import Block

FIRST_BUFFER = 1 << 20
LARGEST_IDLE_BUFFER = 4 << 20
SMALL = 1 << 16  # bytes that are cheaper to join than to send apart
RESTING = 8  # wires that rest beside a pool; a pool that may open fewer than twice as many gets all of them back
LONGEST_AWAY_S = 10.0  # then a connection goes through its pool again, which renews logins and follows a failover


class Moved(Exception):
    """The cluster's slots have moved."""


class ServerError(Exception):
    """Redis answered with an error; the text is Redis's."""


class borrow:
    """A wire over a connection of the client's pool, as a context. After any exception the connection is closed, as
    replies may be under way.

    Between conversations wires rest beside the pool and not in it: its own checks cost a small read a fifth of its
    time.
    """

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool

    def __enter__(self) -> Wire:
        resting = self._pool.__dict__.get(_RESTING)
        while resting:
            try:
                wire: Wire = resting.pop()
            except IndexError:  # another thread took the last one
                break
            if wire.process != os.getpid():  # its socket is our parent's
                continue
            if wire.is_idle():
                self._wire = wire
                return wire
            wire.connection.disconnect()
            self._pool.release(wire.connection)
        connection = self._pool.get_connection()
        try:
            self._wire = Wire(connection)
        except BaseException:
            self._pool.release(connection)
            raise
        return self._wire

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        wire, pool = self._wire, self._pool
        resting: deque[Wire] = pool.__dict__.setdefault(_RESTING, deque())
        if kind is not None:
            wire.connection.disconnect()
            pool.release(wire.connection)
        elif wire.is_young() and len(resting) < RESTING and pool.max_connections >= 2 * RESTING:
            wire.rest()
            resting.append(wire)
        else:
            pool.release(wire.connection)
        while resting and not resting[0].is_young():  # the first rests longest; under little load nobody takes it
            with suppress(IndexError):
                old = resting.popleft()
                if old.process == os.getpid():
                    pool.release(old.connection)


_RESTING = "_earmark_resting"  # on the pool itself, so that they go when it does


def bulk(data: bytes) -> bytes:
    """One argument of a command."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def command(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(map(bulk, arguments))


class Wire:
    """A connection's socket, and a buffer of what came in, kept for the next conversation."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.process = connection, os.getpid()
        self._taken = time.monotonic()
        self._socket = connection._get_socket()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self.buffer = np.empty(FIRST_BUFFER, np.uint8)
        self._at = self._end = 0

    def is_young(self) -> bool:
        return time.monotonic() - self._taken < LONGEST_AWAY_S

    def is_idle(self) -> bool:
        """Whether it may be used again: nobody closed its socket, and nothing came in, not even that Redis hung up."""
        return self.is_young() and self.connection._get_socket() is self._socket and not self._poll.poll(0)

    def rest(self) -> None:
        """To be called when a conversation is over."""
        if self.buffer.size > LARGEST_IDLE_BUFFER:
            self.buffer = np.empty(FIRST_BUFFER, np.uint8)
        self._at = self._end = 0

    def send(self, *data: bytes | np.ndarray) -> None:
        """Sends the pieces; small ones in one call."""
        if len(data) > 1 and sum(map(len, data)) <= SMALL:
            self._socket.sendall(b"".join(data))  # type: ignore[arg-type]  # arrays are buffers
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
