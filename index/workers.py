"""Processes that build shards: each a fresh interpreter, told by its standard input what to do.

Not `multiprocessing`, which runs the caller's script again in every child, where it would wait for the lock that its
parent holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import Any

from core.errors import EarmarkError, StorageError

COMMAND = "import sys; from index.workers import work; sys.exit(work())"


class Workers:
    """Runs `index.shards.fill` in processes; leaving the context kills those that are left."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock, self._stopped = threading.Lock(), False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def run(self, job: tuple[Any, ...]) -> None:
        """Waits for one job, the arguments of `fill`. Raises what it raised, `StorageError` where the process died."""
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "PYTHONPATH": paths}
        with self._lock:
            if self._stopped:
                return
            process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, str(os.getpid())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            )  # fmt: skip
            self._running.add(process)
        try:
            told, _ = process.communicate(pickle.dumps(job))
        finally:
            with self._lock:
                self._running.discard(process)
        if self._stopped:
            return
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            raise StorageError(f"a process that builds a shard died by {name}, perhaps for want of memory")
        error = json.loads(told)["error"] if told else "it said nothing"
        if error:
            raise (EarmarkError if process.returncode == 3 else StorageError)(f"a shard cannot be built: {error}")

    def kill(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                with contextlib.suppress(OSError):
                    process.kill()


def work() -> int:
    """What such a process does: one job. Returns 0 where the shard was built; 3 for an error of what was given, 4 for
    another."""
    from index import shards

    _die_with(int(sys.argv[1]))
    error, status = None, 0
    try:
        shards.fill(*pickle.loads(sys.stdin.buffer.read()))
    except Exception as found:
        error = str(found) or type(found).__name__
        status = 3 if isinstance(found, EarmarkError) and not isinstance(found, StorageError) else 4
    sys.stdout.write(json.dumps({"error": error}))
    return status


def _die_with(parent: int) -> None:
    """Ends this process when its parent does, on Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(4)
