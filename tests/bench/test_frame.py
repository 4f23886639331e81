from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import NAMES, load
from bench.frame import Row, alternate, machine, versions
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
    assert len(rows) == 6 and all(keys <= set(row) and row["quick"] for row in rows)
    assert all(row["ours"] > 0 for row in rows)
