"""Work on many items side by side: an error of one is that item's, and an interrupt waits for none of the rest."""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from core.errors import BadItem, DecoderUnavailable, EarmarkError, MissingExtra, ModelError, StorageError

GRACE_S = 3.0  # longest time for items in work to end after an interrupt
FATAL = (StorageError, ModelError, DecoderUnavailable, MissingExtra, ImportError, MemoryError)  # of every item alike
# A full disk and too many open files are wrong with every item, too.
_FATAL_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_fatal(error: Exception) -> bool:
    """Whether an error would meet every other item as well, so that going on is of no use."""
    return isinstance(error, FATAL) or (isinstance(error, OSError) and error.errno in _FATAL_ERRNO)


def reason_of(error: Exception) -> tuple[str, str]:
    """The reason and the detail of an item's failure."""
    if isinstance(error, BadItem):
        return error.reason, error.detail
    if isinstance(error, OSError) and error.strerror:
        return "unreadable", error.strerror
    text = str(error) or type(error).__name__
    return "failed", text if isinstance(error, EarmarkError) else f"{type(error).__name__}: {text}"


class Pool:
    """Threads that work on items."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads)
        self._futures: set[Future[Any]] = set()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Starts the call in a thread of the pool as soon as one is free."""
        future = self._executor.submit(function, *arguments)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def each(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | Exception]]:
        """Every item with its result or its error, in order; raises what is fatal."""
        waiting = deque((item, self.submit(function, item)) for item in items)
        try:
            while waiting:  # a result that was taken is not kept: those of a large folder need not fit into memory
                item, future = waiting.popleft()
                error = future.exception()
                if error is None:
                    yield item, future.result()
                elif isinstance(error, Exception) and not is_fatal(error):
                    yield item, error
                else:
                    raise error
        finally:
            for _, future in waiting:
                future.cancel()

    def _stop(self, grace_s: float | None) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        wait(set(self._futures), timeout=grace_s)


@contextmanager
def pool_of(threads: int) -> Iterator[Pool]:
    """A pool of threads. After an error, items that were not begun are dropped and those in work are waited for; after
    an interrupt, those for at most `GRACE_S`."""
    pool = Pool(threads)
    try:
        yield pool
    except BaseException as error:
        pool._stop(GRACE_S if isinstance(error, KeyboardInterrupt) else None)
        raise
    pool._executor.shutdown()


_folders: set[str] = set()
_lock = threading.Lock()


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder, which `remove_scratch` removes where the process ends without unwinding. Raises
    `StorageError` where none can be made."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(f"no temporary folder can be made ({error}); set TMPDIR to one with space") from error
    with folder as name:
        with _lock:
            _folders.add(name)
        try:
            yield Path(name)
        finally:
            with _lock:
                _folders.discard(name)


def remove_scratch() -> None:
    """Removes the temporary folders that are in use; for a process that is about to end."""
    with _lock:
        for name in _folders:
            shutil.rmtree(name, ignore_errors=True)
