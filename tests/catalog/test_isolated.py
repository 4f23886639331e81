"""Workers that die, hang or take too much: the file is refused, the next one is decoded, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from catalog import audio, isolated, picture
from catalog.limits import Limits
from core.errors import BadItem, DecoderUnavailable, ModelError
from embedders.clap import WindowListener
from enrichers.loudness import LoudnessMeter
from tests.faults import faulty

__all__ = ["faulty"]


@pytest.fixture
def sounds(tmp_path: Path) -> Callable[[str], Path]:
    def write(name: str) -> Path:
        rng = np.random.default_rng(1)
        soundfile.write(tmp_path / name, rng.uniform(-0.3, 0.3, (22_050, 2)), 22_050)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("segfault.wav", "SIGSEGV"),
        ("abort.wav", r"SIGABRT: free\(\): invalid pointer"),
        ("exit.wav", "exit code 3"),
        ("hang.wav", "nothing was decoded for 1 s"),
        ("memory.wav", "more than the 500 MiB of memory"),
    ],
)
def test_a_crash_is_the_files_alone(faulty: None, sounds: Callable[[str], Path], name: str, detail: str) -> None:
    limits = Limits(max_stall_s=1.0 if "hang" in name else 60.0, max_decode_bytes=500 << 20)
    bad, good = sounds(name), sounds("good.wav")
    with pytest.raises(BadItem, match=detail) as caught:
        isolated.decode_audio(bad, limits)
    assert caught.value.reason == "decoder_crashed"
    assert isolated.decode_audio(good).duration_s == 1.0


def test_an_unexpected_error_is_the_files_alone(faulty: None, sounds: Callable[[str], Path]) -> None:
    with pytest.raises(BadItem, match="KeyError: 'surprise'") as caught:
        isolated.decode_audio(sounds("surprise.wav"))
    assert caught.value.reason == "failed"
    (pid,) = isolated.worker_pids()
    isolated.decode_audio(sounds("good.wav"))
    assert isolated.worker_pids() == [pid]


def test_samples_and_listeners_are_those_of_a_decode_in_this_process(sounds: Callable[[str], Path]) -> None:
    path = sounds("x.wav")
    here, there = (
        d(path, listeners=[LoudnessMeter(), WindowListener()]) for d in (audio.decode_audio, isolated.decode_audio)
    )
    np.testing.assert_array_equal(here.samples, there.samples)
    assert not there.samples.flags.writeable
    assert (here.duration_s, here.source_sample_rate, here.source_channels) == (1.0, 22_050, 2)
    assert (there.duration_s, there.source_sample_rate, there.source_channels) == (1.0, 22_050, 2)
    for found in (here, there):
        meter, windows = found.heard["loudness"], found.heard["clap"]
        assert isinstance(meter, LoudnessMeter) and isinstance(windows, WindowListener)
    assert here.heard["loudness"].figures() == there.heard["loudness"].figures()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(here.heard["clap"].finish(), there.heard["clap"].finish())  # type: ignore[attr-defined]


def test_pictures(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (40, 30, 3), np.uint8)).save(path)
    here, there = picture.decode_picture(path), isolated.decode_picture(path)
    np.testing.assert_array_equal(here.pixels, there.pixels)
    assert (there.width_px, there.height_px) == (30, 40)
    np.testing.assert_array_equal(isolated.decode_picture(path.read_bytes()).pixels, here.pixels)
    with pytest.raises(BadItem) as caught:
        isolated.decode_picture(path, Limits(max_pixels=100))
    assert caught.value.reason == "too_many_pixels"


def test_what_a_file_is_refused_for_stays_the_reason(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"")
    with pytest.raises(BadItem) as caught:
        isolated.decode_audio(tmp_path / "x.wav")
    assert (caught.value.reason, caught.value.detail) == ("empty_file", "x.wav has 0 bytes")


def test_a_worker_that_dies_while_idle_costs_no_file(sounds: Callable[[str], Path]) -> None:
    path = sounds("x.wav")
    isolated.decode_audio(path)
    for pid in isolated.worker_pids():
        os.kill(pid, signal.SIGKILL)
    assert isolated.decode_audio(path).duration_s == 1.0


def test_a_worker_stopped_in_its_work_is_replaced(faulty: None, sounds: Callable[[str], Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    isolated.decode_audio(sounds("good.wav"))
    (pid,) = isolated.worker_pids()
    hanging = sounds("hang.wav")
    with ThreadPoolExecutor(1) as pool:
        hangs = pool.submit(isolated.decode_audio, hanging)
        while not hanging.with_suffix(".begun").exists() and not hangs.done():
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(BadItem, match="SIGKILL, as the system does when memory runs out"):
            hangs.result()
    assert isolated.decode_audio(sounds("good.wav")).duration_s == 1.0
    assert isolated.worker_pids() != [pid]


def test_listeners_that_cannot_travel_are_named(sounds: Callable[[str], Path]) -> None:
    class Local:
        name = "local"

        def start(self, sample_rate: int, channels: int) -> None: ...

        def hear(self, block: np.ndarray) -> None: ...

    with pytest.raises(ModelError, match="Local"):
        isolated.decode_audio(sounds("x.wav"), listeners=[Local()])


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, sounds: Callable[[str], Path]) -> None:
    isolated.close()
    monkeypatch.setattr(isolated, "_START", "raise ImportError('no decoder here')")
    monkeypatch.setattr(isolated, "START_PAUSE_S", 0.0)
    with pytest.raises(DecoderUnavailable, match="no decoder here"):
        isolated.decode_audio(sounds("x.wav"))


def test_a_worker_that_dies_as_it_starts_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sounds: Callable[[str], Path]
) -> None:
    isolated.close()
    mark = str(tmp_path / "mark")
    once = f"import os\nif not os.path.exists({mark!r}):\n  os.mkdir({mark!r})\n  os.abort()\n"
    monkeypatch.setattr(isolated, "_START", once + isolated._START)
    monkeypatch.setattr(isolated, "START_PAUSE_S", 0.0)
    assert isolated.decode_audio(sounds("x.wav")).duration_s == 1.0


def test_a_worker_imports_decoders_and_no_models() -> None:
    code = "import sys, catalog.worker; print(*{'torch', 'pyarrow', 'feast', 'scipy', 'numba'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


@pytest.mark.parametrize("busy", [False, True])
def test_no_worker_outlives_a_killed_process(tmp_path: Path, sounds: Callable[[str], Path], busy: bool) -> None:
    """Also one that is decoding: half an hour of noise is more than a second of work."""
    path = sounds("x.wav")
    if busy:
        with soundfile.SoundFile(path, "w", 48_000, 8) as file:
            for _ in range(60):
                file.write(np.zeros((30 * 4_800, 8), np.int16))
    code = (
        "import os, sys, threading, time\nfrom catalog import isolated\n"
        f"decode = lambda: [isolated.decode_audio({str(path)!r}) for _ in range(99 if {busy} else 1)]\n"
        "threading.Thread(target=decode, daemon=True).start()\n"
        "while not isolated.worker_pids(): time.sleep(.01)\n"
        "time.sleep(.3)\nprint(*isolated.worker_pids(), flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    (pid,) = map(int, parent.stdout.readline().split())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and Path(f"/proc/{pid}/stat").exists():
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break  # ended; nobody has asked for its exit code yet
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists()


def test_a_forked_child_has_workers_of_its_own(sounds: Callable[[str], Path]) -> None:
    path = sounds("x.wav")
    isolated.decode_audio(path)
    mine = isolated.worker_pids()
    child = os.fork()
    if not child:
        try:
            fine = isolated.decode_audio(path).duration_s == 1.0 and not set(isolated.worker_pids()) & set(mine)
            isolated.close()
        finally:
            os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert isolated.decode_audio(path).duration_s == 1.0
    assert isolated.worker_pids() == mine
