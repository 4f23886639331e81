"""The command in the processes that people give it: any locale, a closed pipe, a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import main
from cli.process import is_disk_full

ROOT = Path(__file__).parent.parent.parent
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
# A command that needs no store and prints what it was given, wherever an error of its own would.
COMMAND = [sys.executable, "-m", "cli.main"]


def start(*arguments: str | bytes, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    words = [*COMMAND, *arguments]
    if shell:
        words = ["bash", "-c", f'"$@" {shell}', "bash", *words]  # type: ignore[list-item]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(words, capture_output=True, env=env, cwd=ROOT)


def test_arguments_in_an_ascii_locale_are_utf8() -> None:
    done = start("status", "--store", "/nowhere/é", **ASCII)
    assert done.returncode == 8 and "no store in /nowhere/é;".encode() in done.stderr


def test_a_path_that_is_not_utf8_is_printed_as_an_escape() -> None:
    done = start("status", "--store", b"/nowhere/\xff")
    assert done.returncode == 8 and rb"no store in /nowhere/\udcff;" in done.stderr


def test_an_output_encoding_that_lacks_a_character() -> None:
    done = start("status", "--store", "/nowhere/é", PYTHONIOENCODING="ascii")
    assert done.returncode == 8 and rb"no store in /nowhere/\xe9;" in done.stderr


def test_a_closed_pipe_and_closed_outputs() -> None:
    done = start("dictionary", shell="| head -c 20; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout
    done = start("--help", shell=">&-")
    assert (done.returncode, done.stderr) == (0, b"")
    done = start("status", "--store", "/nowhere", shell="2>&-")
    assert (done.returncode, done.stdout) == (8, b""), "an error message is not an answer"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_on_a_full_disk() -> None:
    done = start("dictionary", shell="> /dev/full")
    assert done.returncode == 5 and b"the disk is full" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["features", "a", "\udcff"], ["search", "--id", "\udcff"], ["search", "--text", "\udcff"], ["remove", "\udcff"]]
    + [["moderate", "decisions", "--content", "\udcff"], ["search", "--text", "a", "--show", "\udcff"]],
)
def test_text_that_is_not_utf8(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert r"'\udcff' is not UTF-8" in capsys.readouterr().err


def test_a_full_disk_behind_a_library() -> None:
    inner = OSError(errno.ENOSPC, "No space left on device")
    try:
        try:
            raise inner
        except OSError as error:
            raise RuntimeError("cannot flush") from error
    except RuntimeError as outer:
        assert is_disk_full(outer)
    assert is_disk_full(ValueError("IOError: [Errno 28] Error writing bytes. Detail: No space left on device"))
    assert is_disk_full(OSError(errno.EDQUOT, "")) and not is_disk_full(OSError(errno.EACCES, "Permission denied"))
