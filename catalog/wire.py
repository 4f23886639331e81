"""Messages between a process and its decoding workers: a length, then a pickle; file descriptors travel beside it.

Both ends are this program, started by each other: no bytes from elsewhere are unpickled.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import tempfile
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct("<Q")
MAX_FDS = 1


def send(connection: socket.socket, message: Any, fds: Sequence[int] = ()) -> None:
    """Raises `OSError` where the other end is gone."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    head = _LENGTH.pack(len(body))
    if fds:
        socket.send_fds(connection, [head], list(fds))
    else:
        connection.sendall(head)
    connection.sendall(body)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """The pickle of the next message, and its descriptors. Raises `EOFError` where the other end is gone."""
    head, fds, _, _ = socket.recv_fds(connection, _LENGTH.size, MAX_FDS)
    while 0 < len(head) < _LENGTH.size:
        head += connection.recv(_LENGTH.size - len(head))
    if not head:
        raise EOFError
    body = bytearray(_LENGTH.unpack(head)[0])
    view = memoryview(body)
    while len(view):
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return bytes(body), fds


def shared_memory(size_bytes: int = 0) -> int:
    """A descriptor of memory that has no name and is gone with its last user."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("earmark", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    if size_bytes:
        os.ftruncate(fd, size_bytes)
    return fd
