"""Ctrl-C in commands that work on many items: once, they stop after the current ones; twice, at once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from core.items import remove_scratch

STOP_S = 4.0  # after which a command ends even if an item is still being processed
EXIT_CODE = 130
MESSAGE = "earmark: stopping after the current items (again: stop now)"
AGAIN = "earmark: interrupted; run the same command again to go on"


@contextlib.contextmanager
def stopping_gently() -> Iterator[None]:
    """Handles interrupts while the block runs. The first one prints a message at once and raises `KeyboardInterrupt`;
    the process ends at most `STOP_S` later. The second one ends it at once.

    A thread watches for both, since the main thread may be inside a native call for minutes. Does nothing outside the
    main thread, and where interrupts are ignored, as for a job in the background of a script.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(before)
        os.close(writer)
        watcher.join()
        os.close(reader)


def _watch(reader: int) -> None:
    presses, timeout_s = 0, None
    while True:
        if not select.select([reader], [], [], timeout_s)[0]:
            _say(AGAIN)
            leave(EXIT_CODE)
        signals = os.read(reader, 256)
        if not signals:
            return
        presses += signals.count(signal.SIGINT)
        if presses > 1:
            leave(EXIT_CODE)
        if presses == 1 and timeout_s is None:
            _say(MESSAGE)
            timeout_s = STOP_S


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def leave(code: int) -> None:
    """Ends the process at once: threads in native code would hold up an orderly end, and be noisy about it."""
    remove_scratch()
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # progress bars hide the cursor
            sys.stderr.flush()
    os._exit(code)
