"""The process around the command: encodings, closed or full output, and errors that no command expects."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def prepare() -> None:
    """Makes arguments and output UTF-8 where the locale is plain ASCII, and output possible everywhere.

    In an ASCII locale, Python reads an `é` of the command line as two lone surrogates, which no column of a table can
    represent, and cannot open a file by the right name. Python's UTF-8 mode corrects all of this, but can only be
    chosen when the interpreter starts. A character that the output's encoding lacks, or a file name that is not UTF-8,
    is printed as an escape.
    """
    if _is_ascii(sys.getfilesystemencoding()) and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # also for the processes that this one starts
        os.execv(sys.executable, [os.fsencode(a) for a in sys.orig_argv])
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (lives as long as the process)
        else:
            stream.reconfigure(errors="backslashreplace")


def _is_ascii(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "ascii"


def discard_output() -> None:
    """Redirects standard output to the null device, so that buffered text does not fail again when Python ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what led to it, is a full disk or an exhausted quota. Libraries between us and the system
    may keep only the system's words."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if getattr(at, "errno", None) in DISK_FULL or _says_full(str(at)):
            return True
        at = at.__cause__ or at.__context__
    return False


def _says_full(text: str) -> bool:
    return any(os.strerror(code) in text for code in DISK_FULL) or "database or disk is full" in text
