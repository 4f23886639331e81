"""Versions that come and go under queries: no failed answer, none of two versions, from another process too."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.errors import IndexUnavailable
from index import publish_vectors, remove
from index.serve import Server
from index.versions import current_version, point_to, versions
from tests.index.test_choice import clustered

DIM = 32


def publish(folder: Path, generation: int, count: int = 300, model: str = "m") -> str:
    """Contents are named after the generation, so that an answer tells which version gave it."""
    names = [f"{generation}/{n}" for n in range(count)]
    rows = pa.table({"content_id": names, "embedding": clustered(count, seed=generation).tolist()})
    return publish_vectors(folder, "a", rows, model_id=model, dim=DIM, source=str(generation)).version


def generations(server: Server, queries: np.ndarray) -> set[str]:
    return {one.split("/")[0] for one in server.current.search(queries, 10)["content_id"].to_pylist()}


def test_swaps_under_queries(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    queries = clustered(8, seed=99)
    failures: list[str] = []
    seen: set[str] = set()
    done = threading.Event()
    with Server(tmp_path, "a", poll_s=0.01) as server:

        def ask() -> None:
            while not done.is_set():
                try:
                    found = generations(server, queries)
                except Exception as error:  # any failure is one too many
                    failures.append(repr(error))
                    return
                if len(found) != 1:
                    failures.append(f"mixed: {found}")
                seen.update(found)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for generation in range(1, 6):
            publish(tmp_path, generation)
            deadline = time.monotonic() + 10
            while str(generation) not in seen and time.monotonic() < deadline:
                time.sleep(0.005)
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert seen == {str(n) for n in range(6)}


def test_back_to_the_version_before(tmp_path: Path) -> None:
    first = publish(tmp_path, 0)
    publish(tmp_path, 1)
    server = Server(tmp_path, "a")
    assert generations(server, clustered(1)) == {"1"}
    point_to(tmp_path, "a", first)
    assert server.refresh() and not server.refresh()
    assert generations(server, clustered(1)) == {"0"}


def test_a_damaged_version_is_not_swapped_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path, 0)
    server = Server(tmp_path, "a")
    second = publish(tmp_path, 1)
    path = tmp_path / "a" / second / "index.faiss"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    for _ in range(3):
        assert not server.refresh()
    assert server.problem is not None and "is damaged; publish it again" in server.problem
    assert len(caplog.records) == 1, "told once"
    assert generations(server, clustered(1)) == {"0"}
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert server.refresh() and server.problem is None
    assert generations(server, clustered(1)) == {"1"}


def test_a_version_of_another_model_is_not_swapped_in(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    server = Server(tmp_path, "a", expect_model="m")
    publish(tmp_path, 1, model="another")
    assert not server.refresh()
    assert "holds vectors of another" in str(server.problem)
    assert generations(server, clustered(1)) == {"0"}


def test_a_pointer_that_names_nothing(tmp_path: Path) -> None:
    with pytest.raises(IndexUnavailable, match="has not been published"):
        Server(tmp_path, "a")
    publish(tmp_path, 0)
    server = Server(tmp_path, "a")
    (tmp_path / "a" / "CURRENT").write_text(json.dumps({"version": "nowhere"}))
    assert not server.refresh() and "has no version nowhere" in str(server.problem)
    assert generations(server, clustered(1)) == {"0"}


def test_files_that_are_retired_are_still_read(tmp_path: Path) -> None:
    """A reader that holds a version keeps its mapped files, whatever is deleted."""
    held = publish(tmp_path, 0)
    server = Server(tmp_path, "a")
    for generation in range(1, 5):
        publish(tmp_path, generation)
    assert held not in versions(tmp_path, "a")
    assert generations(server, clustered(4)) == {"0"}


@pytest.mark.slow
def test_another_process_notices(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    program = f"""
import sys, numpy as np
from pathlib import Path
from index.serve import Server
with Server(Path({str(tmp_path)!r}), "a", poll_s=0.02) as server:
    last = None
    while last != "2":
        now = server.current.search(np.eye(1, {DIM}, dtype=np.float32), 1)["content_id"][0].as_py().split("/")[0]
        if now != last:
            print(now, flush=True)
        last = now
"""
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root)
    assert child.stdout is not None
    for generation in range(3):
        assert child.stdout.readline().strip() == str(generation)
        if generation < 2:
            publish(tmp_path, generation + 1)
    assert child.wait(20) == 0
    assert current_version(tmp_path, "a") == versions(tmp_path, "a")[-1]


def test_what_is_removed_is_not_served(tmp_path: Path) -> None:
    publish(tmp_path, 0, count=3)
    server = Server(tmp_path, "a")
    remove(tmp_path, "a", ["0/0", "0/1", "0/2"])
    assert server.refresh() and server.problem is None
    with pytest.raises(IndexUnavailable, match="holds nothing any more"):
        server.current.search(clustered(1), 1)
    publish(tmp_path, 1)
    assert server.refresh()
    assert generations(server, clustered(1)) == {"1"}
