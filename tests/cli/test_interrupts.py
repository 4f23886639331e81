"""Ctrl-C in a command that decodes: one press ends it within seconds, the second at once, both with plain words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import soundfile

from cli.interrupts import AGAIN, MESSAGE
from core.features import CONTENT
from core.storage import LocalStorage
from core.tables import Tables
from tests.faults import faulty_start

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize(
    "command",
    [
        ["skips", "sounds", "--json", "--workers", "2"],
        pytest.param(["moderate", "match", "--bank", "sounds", "sounds", "--json"], marks=pytest.mark.exhaustive),
        pytest.param(["run", "sounds", "--store", "store", "--quiet", "--json"], marks=pytest.mark.exhaustive),
    ],
)
def test_a_decoder_that_never_ends(tmp_path: Path, command: list[str], presses: int) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(3):
        soundfile.write(folder / f"hang-{number}.wav", [0.1] * 8000, 8000)
    code = (
        "import sys, tempfile\nfrom catalog import isolated\nfrom cli.main import main\n"
        f"isolated._START = {faulty_start()!r}\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        f"sys.argv = ['earmark', *{command!r}]\n"
        "sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while not list(folder.glob("*.begun")):
        assert process.poll() is None
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    lines: list[str] = []
    while MESSAGE not in lines:  # what is said at once
        lines.append(process.stderr.readline().rstrip("\n"))
    if presses == 2:
        process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert rest.splitlines() == ([AGAIN] if presses == 1 else [])
    assert not list(tmp_path.glob("earmark-skips-*"))
    assert psutil.wait_procs(workers, timeout=20)[1] == []  # none outlives the command
    if command[0] == "run" and presses == 1:
        rows = Tables(LocalStorage(tmp_path / "store")).latest(CONTENT)
        assert rows.num_rows == 3  # what was done before the sounds stays
