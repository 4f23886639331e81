"""Decoding in worker processes, so that a file that crashes, exhausts or hangs a decoder costs only itself.

Each calling thread has a worker to itself for the length of a call; workers are started when they are first needed,
kept, and replaced when they die. They import the decoders and nothing else (no models), and end with this process.
Samples and pixels come back in shared memory, so that they are never copied between processes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from catalog.limits import Limits
from catalog.media import Audio, Listener, Picture
from catalog.wire import receive, send, shared_memory
from core.errors import BadItem, DecoderUnavailable, ModelError

if TYPE_CHECKING:
    from catalog.worker import Reply, Task

__all__ = ["close", "decode_audio", "decode_picture", "media_hash", "metadata", "worker_pids"]

START_S = 120.0  # longest time for a worker to import the decoders, on a busy machine
START_TRIES, START_PAUSE_S = 3, 0.5
TICK_S = 1.0
MAX_TASKS = 1000  # tasks before a worker is replaced, which bounds the memory that a leaking decoder can take
_STDERR_CHARS = 300
# Workers get this process's `sys.path`, so that an installed package, a checkout and a notebook find the same modules.
_START = (
    "import json,sys;sys.path[:]=json.loads(sys.argv[1]);"
    "from catalog.worker import main;main(int(sys.argv[2]),int(sys.argv[3]))"
)
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # Otherwise the C library returns the memory of each block and requests it again: a quarter of the decoding time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


def decode_audio(
    path: str | Path,
    limits: Limits = Limits(),  # noqa: B008
    listeners: Sequence[Listener] = (),
    *,
    accept_truncated: bool = False,
) -> Audio:
    """`catalog.audio.decode_audio` in a worker process. The listeners in `Audio.heard` are copies of `listeners`.

    Raises the same `BadItem`s, and one with reason `decoder_crashed` if the worker died, needed more than
    `limits.max_decode_bytes` of memory, or decoded nothing for `limits.max_stall_s`.
    """
    from catalog.worker import Task

    try:
        pickled = pickle.dumps(list(listeners)) if listeners else b""
    except Exception as error:
        raise ModelError(f"a listener cannot be sent to the decoding process: {error}") from error
    # The file is opened by another process, which may have another working directory.
    task = Task("audio", Path(path).absolute(), limits, pickled, accept_truncated)
    audio, samples = _POOL.run(task, np.dtype(np.float32))
    assert isinstance(audio, Audio)
    return replace(audio, samples=samples)


def decode_picture(source: str | Path | bytes, limits: Limits = Limits()) -> Picture:  # noqa: B008
    """`catalog.picture.decode_picture` in a worker process. Raises `BadItem`, also with reason `decoder_crashed`."""
    from catalog.worker import Task

    task = Task("picture", source if isinstance(source, bytes) else Path(source).absolute(), limits)
    picture, pixels = _POOL.run(task, np.dtype(np.uint8))
    assert isinstance(picture, Picture)
    return replace(picture, pixels=pixels)


def media_hash(path: Path) -> str | None:
    """`catalog.media_hash.media_hash` in a worker process, since a demuxer decodes the first packets. None also after a
    crash, which decoding the file reports."""
    from catalog.worker import Task

    try:
        found, _ = _POOL.run(Task("media_hash", path.absolute(), Limits()), np.dtype(np.uint8))
    except BadItem:
        return None
    return found if isinstance(found, str) else None


def metadata(path: Path) -> dict[str, str]:
    """`catalog.container.metadata` in a worker process. Raises `BadItem`, also with reason `decoder_crashed`."""
    from catalog.worker import Task

    found, _ = _POOL.run(Task("tags", path.absolute(), Limits()), np.dtype(np.uint8))
    assert isinstance(found, str)
    return dict(json.loads(found))


def worker_pids() -> list[int]:
    """The worker processes that this process has now."""
    return _POOL.pids()


def close() -> None:
    """Ends the workers; the next call starts new ones."""
    _POOL.close()


class _Died(Exception):
    """A worker ended or was ended in the middle of a task; the text says how."""


class _Worker:
    """One process and the connection to it."""

    def __init__(self) -> None:
        self.tasks = 0
        self._stderr: IO[bytes] = os.fdopen(shared_memory(), "w+b")
        progress = shared_memory(8)
        self._progress = mmap.mmap(progress, 8)
        self.connection, theirs = socket.socketpair()
        try:
            path, fds = json.dumps(sys.path), (theirs.fileno(), progress)
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, path, *map(str, fds)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # native libraries print messages of their own
                stderr=self._stderr,
                pass_fds=fds,
                env={**os.environ, **_ENVIRONMENT},
                process_group=0,  # an interrupt at the terminal is for this process, which decides when to stop
            )
        except OSError as error:
            self.connection.close()
            raise DecoderUnavailable(f"a decoding process cannot be started: {error}") from error
        finally:
            theirs.close()
            os.close(progress)
        try:
            self._wait(START_S, stalled=False)
            receive(self.connection)
        except (_Died, EOFError, OSError) as error:
            self.kill()
            raise DecoderUnavailable(f"a decoding process did not start: {self._stderr_text() or error}") from error

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def run(self, task: Task, fd: int) -> Reply:
        """Raises `_Died`, and `ConnectionError` where the worker died before it took the task."""
        self.tasks += 1
        before = bytes(self._progress[:8])
        send(self.connection, task, [fd])
        try:
            self._wait(task.limits.max_stall_s)
            reply: Reply = pickle.loads(receive(self.connection)[0])
            return reply
        except (EOFError, OSError) as error:
            if bytes(self._progress[:8]) == before:
                raise ConnectionError from error
            raise _Died(self.how_it_ended()) from error

    def _wait(self, stall_s: float, stalled: bool = True) -> None:
        """Waits until there is something to receive. A second counts only while this process also runs, so that no
        file is lost when a laptop sleeps."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        idle_s, seen = 0.0, bytes(self._progress[:8])
        while True:
            begun = time.monotonic()
            if poll.poll(1000 * min(TICK_S, stall_s)):
                return
            idle_s += min(time.monotonic() - begun, 2 * TICK_S)
            now = bytes(self._progress[:8])
            if now != seen:
                idle_s, seen = 0.0, now
            elif idle_s >= stall_s:
                self.kill()
                raise _Died(f"nothing was decoded for {stall_s:.0f} s, so the decoder was stopped")

    def how_it_ended(self) -> str:
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "the decoder closed its connection"
        words = self._stderr_text()
        message = f": {words}" if words else ""
        if code >= 0:
            return f"the decoder ended with exit code {code}{message}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"the decoder was ended by {name}{why}{message}"

    def _stderr_text(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            self._stderr.seek(0)
            return " ".join(self._stderr.read().decode("utf-8", "replace").split())[-_STDERR_CHARS:]
        return ""

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.connection.close()


def _started() -> _Worker:
    """A new worker. One that dies while it starts, as when memory is short for a moment, is tried again: a failure ends
    the whole command. Raises `DecoderUnavailable`."""
    for _ in range(START_TRIES - 1):
        with contextlib.suppress(DecoderUnavailable):
            return _Worker()
        time.sleep(START_PAUSE_S)
    return _Worker()


class _Pool:
    """The workers of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()

    def run(self, task: Task, dtype: np.dtype[Any]) -> tuple[Audio | Picture | str | None, np.ndarray]:
        """The result, and what is in its shared memory. Raises `BadItem`, `OSError` and `ModelError`."""
        fd = shared_memory()
        try:
            reply = self._reply(task, fd)
            if reply.no_listener:
                raise ModelError(f"a listener cannot be used in the decoding process: {reply.no_listener}")
            if reply.error is not None:
                raise reply.error
            if reply.out_of_memory:
                limit = f"{task.limits.max_decode_bytes / 2**20:,.0f} MiB"
                raise BadItem("decoder_crashed", f"decoding needs more than the {limit} of memory that are allowed")
            if reply.failure:
                raise BadItem("failed", reply.failure)
            return reply.result, _array(fd, reply.shape, dtype)
        finally:
            os.close(fd)

    def _reply(self, task: Task, fd: int) -> Reply:
        while True:
            worker, fresh = self._take()
            kept = False
            try:
                try:
                    reply = worker.run(task, fd)
                except ConnectionError:
                    if fresh:
                        raise _Died(f"before it began, {worker.how_it_ended()}") from None
                    continue  # it died while it had nothing to do, which is not this file's doing
                kept = worker.tasks < MAX_TASKS and not reply.out_of_memory
                return reply
            except _Died as death:
                raise BadItem("decoder_crashed", str(death)) from None
            finally:
                self._give_back(worker, kept)

    def _take(self) -> tuple[_Worker, bool]:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker, False
                self._workers.discard(worker)
                worker.kill()
        worker = _started()
        with self._lock:
            self._workers.add(worker)
        return worker, True

    def _give_back(self, worker: _Worker, keep: bool) -> None:
        with self._lock:
            if keep and worker in self._workers:
                self._idle.append(worker)
                return
            self._workers.discard(worker)
        worker.kill()

    def pids(self) -> list[int]:
        with self._lock:
            return sorted(worker.process.pid for worker in self._workers)

    def close(self) -> None:
        with self._lock:
            workers, self._workers, self._idle = self._workers, set(), []
        for worker in workers:
            worker.kill()

    def forget(self) -> None:
        """In a forked child: the workers are its parent's."""
        self._lock, self._idle, self._workers = threading.Lock(), [], set()


def _array(fd: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """The shared memory as an array, which keeps it alive; not writeable."""
    size = int(np.prod(shape)) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    return np.frombuffer(mmap.mmap(fd, size, flags=flags, prot=mmap.PROT_READ), dtype).reshape(shape)


_POOL = _Pool()
atexit.register(close)
os.register_at_fork(after_in_child=_POOL.forget)
