"""One writer a store: a lease with a holder, a heartbeat and an expiry.

The lease is a small object changed by compare-and-swap, so it works on a disk and on an object store. A holder that
was killed on this host is recognised at once (its process is gone); one on another host when its lease runs out.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from core.errors import StorageError, StoreBusy
from core.storage import Conflict, Storage

PATH = "lease.json"
TTL_S = 60.0
RENEW_S = 15.0
POLL_S = 0.5
_ALIVE = "alive"  # instead of a process's start, where the system does not say it


@dataclass(frozen=True)
class Holder:
    """Who holds the lease. `process_start` tells a live process from another that got its number."""

    run_id: str
    host: str
    pid: int
    process_start: str
    command: str
    since: float
    expires: float

    def __str__(self) -> str:
        age_s = max(0, round(time.time() - self.since))
        return f"run {self.run_id} (process {self.pid} on {self.host}, for {age_s} s: {self.command})"

    @property
    def alive(self) -> bool:
        """Whether the lease still binds others.

        That of another process of this host does as long as the process lives, whatever the clock says: one that was
        suspended, or whose clock jumped, goes on writing before it renews its lease.
        """
        if self.host == socket.gethostname() and self.pid:
            started = _process_start(self.pid)
            if started != self.process_start:
                return False
            if self.pid != os.getpid() and started != _ALIVE:
                return True
        return time.time() < self.expires


def current(storage: Storage) -> Holder | None:
    """The live holder of the store's writer lease, or None."""
    found = storage.read_tagged(PATH)
    holder = _parse(found[0]) if found else None
    return holder if holder and holder.alive else None


@contextlib.contextmanager
def hold(
    storage: Storage,
    run_id: str,
    *,
    wait_s: float = 0.0,
    on_wait: Callable[[Holder], None] | None = None,
    ttl_s: float = TTL_S,
) -> Iterator[None]:
    """Holds the store's writer lease while the block runs, renewing it in the background.

    A holder with the same `run_id` is joined: the steps of one Kubeflow run share their lease. Waits up to `wait_s`
    seconds for another holder, then raises `StoreBusy` naming it.
    """
    joined = acquire(storage, run_id, wait_s=wait_s, on_wait=on_wait, ttl_s=ttl_s)
    try:
        with _renewed(storage, run_id, ttl_s):
            yield
    finally:
        if not joined:
            release(storage, run_id)


@contextlib.contextmanager
def hold_for_step(storage: Storage, run_id: str, *, ttl_s: float) -> Iterator[None]:
    """Keeps the lease of a run while one of its steps works. The steps are separate processes, perhaps on several
    hosts.

    The lease is renewed when the block begins, in the background, and when the block ends. It then lasts `ttl_s`
    seconds, within which the next step must begin; the lease of a run that died expires after the same time.

    Raises `StoreBusy` if another run has the lease, even if it took the lease while the block ran.
    """
    acquire(storage, run_id, ttl_s=ttl_s, bound_to_process=False)
    with _renewed(storage, run_id, ttl_s):
        yield
    acquire(storage, run_id, ttl_s=ttl_s, bound_to_process=False)


@contextlib.contextmanager
def _renewed(storage: Storage, run_id: str, ttl_s: float) -> Iterator[None]:
    """Renews the run's lease in the background while the block runs."""
    stop = threading.Event()
    beat = threading.Thread(target=_renew, args=(storage, run_id, ttl_s, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()


def acquire(
    storage: Storage,
    run_id: str,
    *,
    wait_s: float = 0.0,
    on_wait: Callable[[Holder], None] | None = None,
    ttl_s: float = TTL_S,
    bound_to_process: bool = True,
) -> bool:
    """Takes the lease; returns whether the run held it already. With `bound_to_process=False` the lease outlives this
    process until it expires or is released, and one that the run held already is renewed. Raises `StoreBusy`."""
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        found = storage.read_tagged(PATH)
        holder = _parse(found[0]) if found else None
        if holder and holder.alive and holder.run_id != run_id:
            if time.monotonic() >= deadline:
                raise StoreBusy(f"the store {storage.uri} is being written by {holder}; wait for it or use --wait")
            if on_wait and not told:
                on_wait(holder)
                told = True
            time.sleep(POLL_S)
            continue
        joined = bool(holder and holder.alive)
        if joined and holder and bound_to_process and holder.pid != os.getpid():
            return True  # another process of the same run owns it; it is renewed there
        with contextlib.suppress(Conflict):
            renews = joined and holder and not bound_to_process
            mine = _extended(holder, ttl_s) if renews and holder else _mine(run_id, ttl_s, bound_to_process)
            storage.replace_if(PATH, _dump(mine), found[1] if found else None)
            return joined


def release(storage: Storage, run_id: str) -> None:
    """Gives the lease back if `run_id` holds it."""
    found = storage.read_tagged(PATH)
    holder = _parse(found[0]) if found else None
    if found and holder and holder.run_id == run_id:
        try:
            storage.replace_if(PATH, b"{}", found[1])
        except Conflict:
            pass
        except StorageError:
            # A full disk has no space for a few bytes, and must neither leave the store to this run nor hide what
            # ended it. Deleting needs none.
            storage.delete(PATH)


def _renew(storage: Storage, run_id: str, ttl_s: float, stop: threading.Event) -> None:
    while not stop.wait(min(RENEW_S, ttl_s / 4)):
        # What fails here is tried again at the next beat; the lease outlasts three of them.
        with contextlib.suppress(StorageError):
            found = storage.read_tagged(PATH)
            holder = _parse(found[0]) if found else None
            if found and holder and holder.run_id == run_id:
                storage.replace_if(PATH, _dump(_extended(holder, ttl_s)), found[1])


def _extended(holder: Holder, ttl_s: float) -> Holder:
    return replace(holder, expires=time.time() + ttl_s)


def _mine(run_id: str, ttl_s: float, bound_to_process: bool) -> Holder:
    pid = os.getpid() if bound_to_process else 0
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
    now = time.time()
    return Holder(run_id, socket.gethostname(), pid, _process_start(pid) if pid else "", command, now, now + ttl_s)


def _dump(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _parse(data: bytes) -> Holder | None:
    with contextlib.suppress(ValueError, TypeError):
        return Holder(**json.loads(data))
    return None


def _process_start(pid: int) -> str:
    """When a process started, as the kernel tells it; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        state, *rest = stat.rsplit(")", 1)[1].split()
        return "" if state == "Z" else rest[18]
    except (OSError, IndexError):
        pass
    if Path("/proc").exists():
        return ""
    try:  # no /proc (macOS): alive is all we can tell
        os.kill(pid, 0)
        return _ALIVE
    except OSError:
        return ""
