"""Serving an index that is published again and again: the newest version, swapped in while queries go on."""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path

import numpy as np

from core.errors import EarmarkError, IndexUnavailable
from index.places import index_home
from index.process import Process
from index.search import Searcher, open_index
from index.versions import CURRENT

POLL_S = 1.0
WARMING_QUERIES = 64
LETTING_GO_S = 1.0  # that the requests of the version before have to end in
log = logging.getLogger(__name__)


class Server:
    """Holds the version that `CURRENT` names; safe to use from several threads.

    Whoever takes `current` is answered by one version throughout. A newer one is loaded beside it, after its checksums,
    and put in its place in one assignment; where it cannot be loaded, the served version stays and `problem` says why.
    Raises `IndexUnavailable` where there is none to begin with.
    """

    def __init__(
        self, folder: Path, name: str, *, expect_model: str | None = None, poll_s: float = POLL_S, device: str = "cpu"
    ) -> None:
        """`device`: as of `open_index`."""
        self._folder, self._name, self._expect, self._poll_s = folder, name, expect_model, poll_s
        self._device = device
        self._refreshing, self._process = threading.Lock(), Process(name)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: str | None = None
        self._seen = self._mark()
        self._current: Searcher | None = open_index(folder, name, expect_model=expect_model, device=device)

    @property
    def current(self) -> Searcher:
        """Raises `IndexUnavailable` once everything has been removed from the index."""
        current = self._current
        if current is None:
            raise IndexUnavailable(f"the index {self._name} holds nothing any more")
        return current

    def refresh(self) -> bool:
        """Looks for another version; returns whether it was swapped in. Raises `StorageError` in a process that was
        forked since."""
        self._process.check()
        with self._refreshing:
            mark = self._mark()
            if mark == self._seen:
                return False
            if mark is None and index_home(self._folder, self._name).is_dir():
                # Not damage: whoever removed the last content took the pointer away, and none may be found any more.
                self._seen, self.problem, self._current = None, None, None
                return True
            try:
                found = open_index(self._folder, self._name, expect_model=self._expect, device=self._device)
                changed = self._current is None or found.manifest.version != self._current.manifest.version
                if changed:
                    _warm(found)
            except (EarmarkError, OSError, RuntimeError) as error:  # FAISS raises the last
                # The mark is not kept: a version that is still being copied here may be whole the next time.
                if str(error) != self.problem:
                    log.warning("%s; %s is served on", error, self._current and self._current.manifest.version)
                self.problem = str(error)
                return False
            self._seen, self.problem = mark, None
            if not changed:
                return False
            retired, self._current = self._current, found
            if retired is not None:
                _let_go(retired)
            return True

    def __enter__(self) -> Server:
        """Refreshes in a thread of its own until the context ends."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="earmark-index", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.refresh()
            except Exception:
                log.exception("looking for a newer version of the index %s failed; it is tried again", self._name)

    def _mark(self) -> tuple[int, int] | None:
        """What changes when `CURRENT` is written: it is replaced and never written over."""
        try:
            found = (index_home(self._folder, self._name) / CURRENT).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino


def _warm(searcher: Searcher) -> None:
    """Asks what the first requests would wait for: pages that are not mapped yet."""
    rows = np.random.default_rng(0).integers(0, searcher.manifest.count, WARMING_QUERIES)
    for vector in searcher.vectors_of(np.sort(rows)):
        searcher.search(vector[None], 10)


def _let_go(retired: Searcher) -> None:
    """Frees a version here and not in a request, by holding it until nobody else does."""
    end = time.monotonic() + LETTING_GO_S
    # Held by the caller, by this function, and by the question itself.
    while sys.getrefcount(retired) > 3 and time.monotonic() < end:
        time.sleep(0.005)
