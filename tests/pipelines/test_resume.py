"""A run killed at any instant: the same command finishes the work, and nothing is computed twice that was committed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.contracts import CREATED, EVENT
from core.features import ACOUSTIC, View
from core.storage import open_storage
from core.tables import Tables
from pipelines import removal
from tests.pipelines.conftest import make_shelf, visible

ROOT = Path(__file__).parent.parent.parent


def command(source: str, store: Path, config: Path) -> list[str]:
    run = [sys.executable, "-m", "cli.main", "run", source, "--store", str(store)]
    return [*run, "--config", str(config), "--json"]


def committed(store: Path) -> int:
    """Part files with rows in them."""
    return len([p for p in (store / "offline").rglob("part-2*.parquet") if not p.name.startswith(".")])


def versions(store: Path, view: View) -> pa.Table:
    """The rows of a view, each once: compaction leaves what it replaced for a while."""
    columns = [view.entity, EVENT, CREATED]
    return Tables(open_storage(store)).read(view, columns).group_by(columns).aggregate([])


def rows_of_acoustic(store: Path) -> int:
    return int(versions(store, ACOUSTIC).num_rows)


@pytest.mark.slow
def test_killed_at_several_points(tmp_path: Path) -> None:
    shelf = make_shelf(tmp_path / "catalog", sounds=8, texts=3)
    config = tmp_path / "earmark.yaml"
    config.write_text("device: cpu\nshard_items: 2\ntext_shard_items: 4\n")

    def run(store: Path) -> dict[str, Any]:
        done = subprocess.run(command(shelf.source, store, config), capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    run(tmp_path / "calm")
    expected = visible(tmp_path / "calm")
    store = tmp_path / "killed"
    points = [1, 8, "feast/applied", "indexes"]
    for point in points:
        process = subprocess.Popen(
            command(shelf.source, store, config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        while process.poll() is None:
            reached = committed(store) >= point if isinstance(point, int) else (store / point).exists()
            if reached:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.005)
    kept = rows_of_acoustic(store)
    summary = run(store)
    # Every sound was measured exactly once over all the attempts: what was committed stayed.
    assert summary["computed"].get("acoustic", 0) == 8 - kept
    assert visible(store) == expected
    assert rows_of_acoustic(store) == 8
    for view in removal.stored_views(open_storage(store)):
        rows = versions(store, view)
        assert rows.num_rows == len(set(rows[view.entity].to_pylist())), f"{view.name} holds a row twice"
    again = run(store)
    assert all(not count for name, count in again["computed"].items() if name != "write")
