"""The lease of a run whose steps are separate processes: renewed while they work, and gone when the run is dead."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core import lease
from core.errors import StorageError, StoreBusy
from core.storage import LocalStorage, Storage

TTL_S = 3600.0


@dataclass
class Clock:
    """The time that the lease sees."""

    now: float = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("core.lease.time", made)
    monkeypatch.setattr("core.lease.RENEW_S", 0.001)
    return made


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def renewed(storage: Storage, clock: Clock) -> None:
    """Waits until the lease was renewed at the clock's present time."""
    pause = threading.Event()
    while True:
        holder = lease.current(storage)
        if holder is not None and holder.expires >= clock.now + TTL_S:
            return
        pause.wait(0.001)


def open_run(storage: Storage) -> None:
    lease.acquire(storage, "one", ttl_s=TTL_S, bound_to_process=False)


def test_a_step_renews_the_lease_as_long_as_it_works(storage: LocalStorage, clock: Clock) -> None:
    open_run(storage)
    with lease.hold_for_step(storage, "one", ttl_s=TTL_S):
        for _ in range(3):
            clock.now += 0.9 * TTL_S
            renewed(storage, clock)
            with pytest.raises(StoreBusy, match="run one"):
                lease.acquire(storage, "two")
    clock.now += 0.9 * TTL_S
    with pytest.raises(StoreBusy):  # between two steps
        lease.acquire(storage, "two")
    with lease.hold_for_step(storage, "one", ttl_s=TTL_S):
        pass
    clock.now += 0.9 * TTL_S
    with pytest.raises(StoreBusy):
        lease.acquire(storage, "two")
    lease.release(storage, "one")
    assert lease.acquire(storage, "two") is False


def test_the_lease_of_a_dead_run_expires(storage: LocalStorage, clock: Clock) -> None:
    open_run(storage)
    with pytest.raises(ZeroDivisionError), lease.hold_for_step(storage, "one", ttl_s=TTL_S):
        raise ZeroDivisionError
    clock.now += TTL_S + 1
    assert lease.current(storage) is None
    assert lease.acquire(storage, "two", ttl_s=TTL_S) is False
    with pytest.raises(StoreBusy, match="run two"), lease.hold_for_step(storage, "one", ttl_s=TTL_S):
        raise AssertionError("a step of the dead run worked")


def test_a_step_whose_lease_was_taken_says_so(storage: LocalStorage, clock: Clock) -> None:
    open_run(storage)
    with pytest.raises(StoreBusy, match="run two"), lease.hold_for_step(storage, "one", ttl_s=TTL_S):
        lease.release(storage, "one")
        lease.acquire(storage, "two", ttl_s=TTL_S)


def test_a_storage_that_cannot_be_read_for_a_while_ends_no_renewal(
    storage: LocalStorage, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_run(storage)
    failed = threading.Event()
    read = LocalStorage.read_tagged

    def broken(own: LocalStorage, path: str) -> tuple[bytes, str] | None:
        if threading.current_thread() is not threading.main_thread() and not failed.is_set():
            failed.set()
            raise StorageError("the network is down")
        return read(own, path)

    monkeypatch.setattr(LocalStorage, "read_tagged", broken)
    with lease.hold_for_step(storage, "one", ttl_s=TTL_S):
        assert failed.wait(60)
        clock.now += 0.9 * TTL_S
        renewed(storage, clock)


def test_steps_side_by_side_share_the_lease(storage: LocalStorage, clock: Clock) -> None:
    open_run(storage)
    with lease.hold_for_step(storage, "one", ttl_s=TTL_S), lease.hold_for_step(storage, "one", ttl_s=TTL_S):
        clock.now += 0.9 * TTL_S
        renewed(storage, clock)
    clock.now += 0.9 * TTL_S
    with pytest.raises(StoreBusy):
        lease.acquire(storage, "two")


def test_a_process_of_this_host_has_its_lease_as_long_as_it_lives(storage: LocalStorage, clock: Clock) -> None:
    """It may be suspended, or the clock may have jumped: it writes on before it renews its lease."""
    with subprocess.Popen(["sleep", "600"]) as process:
        other = lease._mine("one", TTL_S, bound_to_process=True)
        other = replace(other, pid=process.pid, process_start=lease._process_start(process.pid))
        storage.replace_if(lease.PATH, lease._dump(other), None)
        for jump in (10 * TTL_S, -20 * TTL_S):
            clock.now += jump
            with pytest.raises(StoreBusy, match="run one"):
                lease.acquire(storage, "two")
        process.kill()
        process.wait()
        assert lease.acquire(storage, "two") is False


def test_a_lease_that_this_process_left_behind_expires(storage: LocalStorage, clock: Clock) -> None:
    lease.acquire(storage, "one", ttl_s=TTL_S)
    with pytest.raises(StoreBusy):
        lease.acquire(storage, "two")
    clock.now += TTL_S + 1
    assert lease.acquire(storage, "two") is False
