"""The process that decodes media for another: `catalog.isolated` starts it. A native crash ends it and nothing else.

It imports the decoders alone, and ends with the process that started it, however that one ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import select
import signal
import socket
import threading
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path
from typing import Any, Literal

import numpy as np

from catalog.audio import decode_audio
from catalog.container import metadata
from catalog.limits import Limits
from catalog.media import Audio, Picture
from catalog.wire import receive, send
from core.errors import BadItem


@dataclass(frozen=True)
class Task:
    """What is to be decoded; the result's samples or pixels go into the shared memory that comes with it."""

    kind: Literal["audio", "picture", "media_hash", "tags"]
    source: Path | bytes
    limits: Limits
    listeners: bytes = b""  # pickled apart, so that the failed import of a listener's class can be reported
    accept_truncated: bool = False


@dataclass(frozen=True)
class Reply:
    """How a task went. `result` has no samples or pixels; `shape` is that of what is in the shared memory."""

    result: Audio | Picture | str | None = None
    shape: tuple[int, ...] = (0,)
    error: BadItem | OSError | None = None
    failure: str = ""  # an unexpected error
    out_of_memory: bool = False
    no_listener: str = ""  # why the listeners could not be pickled or unpickled


class SharedSamples:
    """Samples in shared memory, written as they come: it counts for neither process' own memory twice."""

    def __init__(self, fd: int) -> None:
        self._fd, self.length = fd, 0

    def append(self, mono: np.ndarray) -> None:
        left = np.ascontiguousarray(mono, np.float32).data.cast("B") if len(mono) else memoryview(b"")
        while len(left):
            left = left[os.write(self._fd, left) :]
        self.length += len(mono)

    def restart(self) -> None:
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.length = 0

    def finish(self) -> np.ndarray:
        return np.empty(0, np.float32)


def main(connection_fd: int, progress_fd: int) -> None:
    """Serves tasks until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it decides when to stop
    connection = socket.socket(fileno=connection_fd)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):  # where memory runs out, the kernel ends this process first
        Path("/proc/self/oom_score_adj").write_text("900")
    page = mmap(progress_fd, 8)
    steps = 0

    def progress() -> None:
        nonlocal steps
        steps += 1
        page[:8] = steps.to_bytes(8, "little")

    send(connection, "ready")
    while True:
        try:
            body, fds = receive(connection)
        except (EOFError, ConnectionError):
            return
        progress()  # the task is taken: from here on, a crash is its doing
        reply = _reply(pickle.loads(body), fds[0], progress)
        os.close(fds[0])
        try:
            send(connection, reply)
        except (pickle.PicklingError, TypeError, AttributeError) as error:  # raised before anything is sent
            send(connection, Reply(no_listener=f"{type(error).__name__}: {error}"))


def _end_with(connection: socket.socket) -> None:
    """Ends this process as soon as the other end is closed, which a killed process does as well."""
    poll = select.poll()
    poll.register(connection, 0)  # hang-ups are reported without being asked for
    poll.poll()
    os._exit(0)


def _reply(task: Task, fd: int, progress: Any) -> Reply:
    try:
        listeners = pickle.loads(task.listeners) if task.listeners else ()
    except Exception as error:
        return Reply(no_listener=f"{type(error).__name__}: {error}")
    _limit_memory(task.limits.max_decode_bytes)
    try:
        if task.kind == "picture":
            return _picture(task, fd)
        assert isinstance(task.source, Path)
        if task.kind == "media_hash":
            from catalog.media_hash import media_hash

            return Reply(media_hash(task.source, progress))
        if task.kind == "tags":
            return Reply(json.dumps(metadata(task.source)))
        samples = SharedSamples(fd)
        audio = decode_audio(
            task.source,
            task.limits,
            listeners,
            accept_truncated=task.accept_truncated,
            samples=samples,
            progress=progress,
        )
        return Reply(audio, (samples.length,))
    except BadItem as error:
        return Reply(error=error)
    except MemoryError:
        return Reply(out_of_memory=True)
    except OSError as error:
        return Reply(out_of_memory=True) if error.errno == 12 else Reply(error=error)
    except Exception as error:
        return Reply(failure=f"{type(error).__name__}: {error}")


def _picture(task: Task, fd: int) -> Reply:
    from catalog.picture import decode_picture

    picture = decode_picture(task.source, task.limits)
    left = picture.pixels.data.cast("B")
    while len(left):
        left = left[os.write(fd, left) :]
    return Reply(replace(picture, pixels=np.empty((0, 0, 3), np.uint8)), picture.pixels.shape)


def _limit_memory(size_bytes: int) -> None:
    """Limits this process' own memory; what it shares is limited by the longest audio that is decoded."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = size_bytes if hard == resource.RLIM_INFINITY else min(size_bytes, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
