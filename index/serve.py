"""Serving an index that is published again and again: the newest version, swapped in while queries go on."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from core.errors import EarmarkError
from index.search import Searcher, open_index
from index.versions import CURRENT

POLL_S = 1.0
log = logging.getLogger(__name__)


class Server:
    """Holds the version that `CURRENT` names; safe to use from several threads.

    Whoever takes `current` is answered by one version throughout. A newer one is loaded beside it, after its checksums,
    and put in its place in one assignment; where it cannot be loaded, the served version stays and `problem` says why.
    Raises `IndexUnavailable` where there is none to begin with.
    """

    def __init__(self, folder: Path, name: str, *, expect_model: str | None = None, poll_s: float = POLL_S) -> None:
        self._folder, self._name, self._expect, self._poll_s = folder, name, expect_model, poll_s
        self._refreshing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: str | None = None
        self._seen = self._mark()
        self._current = open_index(folder, name, expect_model=expect_model)

    @property
    def current(self) -> Searcher:
        return self._current

    def refresh(self) -> bool:
        """Looks for another version; returns whether it was swapped in."""
        with self._refreshing:
            mark = self._mark()
            if mark == self._seen:
                return False
            try:
                found = open_index(self._folder, self._name, expect_model=self._expect)
            except (EarmarkError, OSError) as error:
                # The mark is not kept: a version that is still being copied here may be whole the next time.
                if str(error) != self.problem:
                    log.warning("%s; version %s is served on", error, self._current.manifest.version)
                self.problem = str(error)
                return False
            self._seen, self.problem = mark, None
            changed = found.manifest.version != self._current.manifest.version
            self._current = found
            return changed

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
            self.refresh()

    def _mark(self) -> tuple[int, int] | None:
        """What changes when `CURRENT` is written: it is replaced and never written over."""
        try:
            found = (self._folder / self._name / CURRENT).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino
