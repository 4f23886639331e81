"""Progress of a long command on standard error: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from cli.common import console

INTERVAL_S = 60.0  # between two lines of a step that goes on

Progress = Callable[[str, int, int], None]  # label, items done since the last call, items in all (0: not known)
OnStep = Callable[[str], None]


@contextlib.contextmanager
def progress_bar(quiet: bool = False) -> Iterator[tuple[Progress, OnStep]]:
    """(progress, on_step) callbacks that any thread may call: bars on a terminal; elsewhere, as in a log file or under
    a scheduler, a line when a step begins and ends and one a minute in between; with `quiet` nothing."""
    if quiet:
        yield (lambda label, done, total: None), (lambda title: None)
    elif sys.stderr.isatty():
        with _bars() as callbacks:
            yield callbacks
    else:
        lines = Lines(sys.stderr)
        with lines.watched():
            yield lines.progress, lines.on_step


class Lines:
    """Lines such as `earmark: 1:05 enrich text: text 512 of 2048`, the minutes and seconds since the start first."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock
        self._lock = threading.Lock()
        self._started = self._printed = clock()
        self._title = ""
        self._done: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._moved: list[str] = []  # labels that advanced since the step began or since its last line

    def on_step(self, title: str) -> None:
        with self._lock:
            self._end_step()
            self._title = title
            self._print(title)

    def progress(self, label: str, done: int, total: int) -> None:
        with self._lock:
            self._done[label] = self._done.get(label, 0) + done
            if total:
                self._totals[label] = total
            if done and label not in self._moved:
                self._moved.append(label)

    def beat(self) -> None:
        """Prints where the step is, if it has printed nothing for a while."""
        with self._lock:
            if self._clock() - self._printed >= INTERVAL_S:
                self._print(f"{self._title}: {self._counts() or 'still running'}")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Beats while the block runs, and ends its last step."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(INTERVAL_S / 12):
                self.beat()

        watcher = threading.Thread(target=watch, daemon=True, name="progress")
        watcher.start()
        try:
            yield
            with self._lock:
                self._end_step()
        finally:
            stop.set()
            watcher.join()

    def _end_step(self) -> None:
        counts = self._counts()
        if counts:
            self._print(f"{self._title}: {counts}, done")
        self._moved = []

    def _counts(self) -> str:
        return ", ".join(
            f"{label} {self._done[label]}" + (f" of {self._totals[label]}" if label in self._totals else "")
            for label in self._moved
        )

    def _print(self, text: str) -> None:
        self._printed = self._clock()
        elapsed = int(self._printed - self._started)
        # A log that cannot be written must not end the work.
        with contextlib.suppress(OSError, ValueError):
            self._out.write(f"earmark: {elapsed // 60}:{elapsed % 60:02d} {text}\n")
            self._out.flush()


@contextlib.contextmanager
def _bars() -> Iterator[tuple[Progress, OnStep]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
    ) as bars:
        step = bars.add_task("starting", total=None)
        tasks: dict[str, Any] = {}

        def on_step(title: str) -> None:
            bars.update(step, description=title)

        def progress(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total or None)
            bars.update(tasks[label], advance=done, total=total or None)

        yield progress, on_step
