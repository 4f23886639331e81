"""Ctrl-C in a command that decodes: one press ends it within seconds, the second at once, both with plain words."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from cli.interrupts import AGAIN, MESSAGE
from tests.faults import faulty_start


@pytest.mark.parametrize("presses", [1, 2])
def test_a_decoder_that_never_ends(tmp_path: Path, presses: int) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(3):
        soundfile.write(folder / f"hang-{number}.wav", [0.1] * 8000, 8000)
    ready = tmp_path / "ready"
    code = (
        "import sys, tempfile, threading, time, pathlib\nfrom catalog import isolated\nfrom cli.main import main\n"
        f"isolated._START = {faulty_start()!r}\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        f"sys.argv = ['earmark', 'skips', {str(folder)!r}, '--json', '--workers', '2']\n"
        "def watch():\n"
        "    while len(isolated.worker_pids()) < 2: time.sleep(.01)\n"
        f"    pathlib.Path({str(ready)!r}).write_text(' '.join(map(str, isolated.worker_pids())))\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
        "sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    while not ready.exists() or not ready.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    lines = []
    while MESSAGE not in lines:  # what is said at once
        lines.append(process.stderr.readline().rstrip("\n"))
    if presses == 2:
        process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert rest.splitlines() == ([AGAIN] if presses == 1 else [])
    assert not list(tmp_path.glob("earmark-skips-*"))
    for pid in ready.read_text().split():
        for _ in range(500):
            stat = Path(f"/proc/{pid}/stat")
            if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.02)
        else:
            pytest.fail(f"the decoding process {pid} outlives the command")
