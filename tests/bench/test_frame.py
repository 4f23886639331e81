from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import frame
from bench.__main__ import NAMES, load
from bench.frame import (
    Row,
    adopt_orphans,
    alternate,
    cost,
    counted_server,
    cpu_seconds,
    machine,
    server_apart,
    versions,
)
from bench.stages import musicnn_flops

ROOT = Path(__file__).parent.parent.parent


def bench(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_name_they_are_listed() -> None:
    assert [line.split()[0] for line in bench().splitlines()] == list(NAMES)
    assert all(load(name).name == name for name in NAMES)


def test_ratios_are_ours_to_theirs() -> None:
    row = Row("x", ours=2.0, peer=8.0, limit=1.0, unit="s")
    assert (row.ratio_to_peer, row.ratio_to_limit) == (0.25, 2.0)
    assert Row("x", 2.0, None, None, "s").ratio_to_peer is None


def test_sides_alternate_and_the_median_is_taken() -> None:
    order: list[str] = []
    found = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4 and set(found) == {"a", "b"}  # one round warms up


def test_the_machine_says_what_it_is() -> None:
    assert machine()["cores"] >= 1 and machine()["cpu"]
    assert {"python", "numpy", "feast"} <= set(versions())


BURN = """
import sys, time
while time.process_time() < float(sys.argv[1]): pass
print(time.process_time(), flush=True)
sys.stdin.read()
"""


@contextmanager
def burner(seconds: float) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """A process that has used `seconds` of CPU time and lives on; also the time that its own clock states."""
    command = [sys.executable, "-c", BURN, str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process, float(process.stdout.readline())


def test_a_worker_that_lives_on_is_counted_once() -> None:
    before = cpu_seconds()
    with burner(1.0) as (_, burnt):
        living = cpu_seconds() - before
        assert burnt <= living + 0.05 and living < burnt + 0.5  # what this process used beside it is little
    ended = cpu_seconds() - before
    assert living - 0.05 <= ended < living + 0.5  # moved to the ended children, not counted twice


def test_looking_for_processes_is_no_cost_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than a small call does."""
    look = frame._other_seconds
    looks: list[float] = []

    def slow() -> float:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        looks.append(look())
        return looks[-1]

    monkeypatch.setattr(frame, "_other_seconds", slow)
    cpu, _ = cost(lambda: None)
    assert len(looks) == 2 and cpu < 0.1


def test_a_worker_of_a_worker_is_counted() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}, '0.3'])"
    before = cpu_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout
        burnt = float(one.stdout.readline())
        assert cpu_seconds() - before >= burnt - 0.05
        one.communicate()


@contextmanager
def orphan(seconds: float) -> Iterator[tuple[int, float]]:
    """The pid of a burner whose parent has ended, and the time that its own clock states."""
    shell = f"{sys.executable} -c '{BURN.replace('sys.stdin.read()', 'time.sleep(60)')}' {seconds} & echo $!"
    with subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout
        pid, burnt = int(started.stdout.readline()), float(started.stdout.readline())
        started.wait()
        yield pid, burnt
        os.kill(pid, signal.SIGKILL)


def test_a_server_is_counted_by_its_pid() -> None:
    before = cpu_seconds()
    with orphan(0.5) as (pid, burnt), counted_server(pid):
        assert burnt - 0.05 <= cpu_seconds() - before < burnt + 0.4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a chosen process")
def test_a_worker_that_detached_itself_is_counted() -> None:
    adopt_orphans()
    before = cpu_seconds()
    with orphan(0.5) as (pid, burnt):
        assert burnt - 0.05 <= cpu_seconds() - before < burnt + 0.4
    os.waitpid(pid, 0)


def test_a_server_kept_apart_is_not_counted() -> None:
    before = cpu_seconds()
    with burner(0.5) as (process, burnt), server_apart(process):
        assert cpu_seconds() - before < burnt / 2
    assert cpu_seconds() - before < burnt / 2  # its time is not work of ours after its end either


def test_the_operations_of_musicnn_by_hand() -> None:
    frames = 187
    # (positions over frequency, kernel, channels in, channels out), as the checkpoint has them.
    front = [(59, 7 * 38, 204), (30, 7 * 67, 204), (96, 128, 51), (96, 64, 51), (96, 32, 51)]
    expected = sum(2 * frames * bands * kernel * outputs for bands, kernel, outputs in front)
    expected += sum(2 * frames * 7 * inputs * 64 for inputs in (561, 64, 64))
    assert musicnn_flops() == expected


@pytest.mark.slow
def test_the_json_is_a_list_of_rows() -> None:
    rows = json.loads(bench("decode", "--quick", "--json"))
    keys = {"name", "ours", "peer", "limit", "ratio_to_peer", "ratio_to_limit", "unit", "machine", "versions"}
    assert len(rows) == 8 and all(keys <= set(row) and row["quick"] for row in rows)
    assert all(row["ours"] > 0 for row in rows)
