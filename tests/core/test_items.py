"""Work on many items: an error of one is its own, what is wrong with all ends the work, an interrupt does not wait."""

from __future__ import annotations

import errno
import threading
import time
import weakref
from pathlib import Path

import pytest

from core import items
from core.errors import BadItem, DecoderUnavailable, ModelError, StorageError
from core.items import is_fatal, pool_of, reason_of, remove_scratch, scratch_folder


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (BadItem("too_long", "7 hours"), ("too_long", "7 hours")),
        (PermissionError(errno.EACCES, "Permission denied", "x"), ("unreadable", "Permission denied")),
        (ValueError("odd"), ("failed", "ValueError: odd")),
        (RecursionError(), ("failed", "RecursionError: RecursionError")),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ("failed", "UnicodeDecodeError: ")),
    ],
)
def test_reasons(error: Exception, wanted: tuple[str, str]) -> None:
    reason, detail = reason_of(error)
    assert reason == wanted[0] and detail.startswith(wanted[1])
    assert not is_fatal(error)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        StorageError("disk"),
        ModelError("weights"),
        DecoderUnavailable("none"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"),
    ],
)
def test_what_ends_the_work(error: Exception) -> None:
    assert is_fatal(error)

    def work(item: int) -> int:
        if item == 1:
            raise error
        return item

    with pytest.raises(type(error)), pool_of(1) as pool:
        list(pool.each(work, range(5)))


def test_errors_come_in_order_beside_results() -> None:
    def work(item: int) -> int:
        if item % 3 == 1:
            raise KeyError(item)
        return 10 * item

    with pool_of(3) as pool:
        found = list(pool.each(work, range(6)))
    assert [item for item, _ in found] == list(range(6))
    assert [r for _, r in found if not isinstance(r, Exception)] == [0, 20, 30, 50]
    assert [repr(r) for _, r in found if isinstance(r, Exception)] == ["KeyError(1)", "KeyError(4)"]


def test_an_interrupt_drops_what_was_not_begun_and_does_not_wait_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "GRACE_S", 0.1)
    release, begun = threading.Event(), []

    def work(item: int) -> None:
        begun.append(item)
        release.wait(60)

    try:
        with pytest.raises(KeyboardInterrupt), pool_of(2) as pool:
            for item in range(50):
                pool.submit(work, item)
            while len(begun) < 2:
                time.sleep(0.001)
            raise KeyboardInterrupt
        assert sorted(begun) == [0, 1]
    finally:
        release.set()


def test_items_in_work_may_end_within_the_grace() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.05)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), pool_of(1) as pool:
        pool.submit(work, 1)
        time.sleep(0.01)
        raise KeyboardInterrupt
    assert done == [1]


def test_scratch_is_removed_where_nothing_unwinds() -> None:
    with scratch_folder("earmark-test-") as folder:
        (folder / "x").write_bytes(b"x")
        remove_scratch()
        assert not folder.exists()
    assert not Path(folder).exists()


def test_without_a_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(items.tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="set TMPDIR"), scratch_folder("earmark-"):
        pass


def test_results_that_were_taken_are_not_kept() -> None:
    class Large:
        pass

    taken: list[weakref.ref[object]] = []
    with pool_of(2) as pool:
        for _, result in pool.each(lambda _: Large(), range(10)):
            taken.append(weakref.ref(result))
            del result
            assert sum(ref() is not None for ref in taken) <= 4  # the last one, and those that threads just finished
