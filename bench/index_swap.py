"""Swapping versions under queries: none may fail, and how much longer the slowest take meanwhile."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from bench.frame import Benchmark, Row
from bench.index_live import publish
from bench.vectors import clustered

AFTER_S = 0.2  # that still counts as the time of a swap: the new version's pages are cold


def run(quick: bool) -> list[Row]:
    import faiss

    from index.serve import Server
    from index.versions import point_to, versions

    rows, dim, swaps = (30_000, 128, 4) if quick else (200_000, 512, 12)
    label = "30k" if quick else "200k"
    queries = clustered(2_000, dim, 8)
    cores = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for seed in (1, 2):
            publish(folder, clustered(rows, dim, seed))
        found = versions(folder, "a")
        server = Server(folder, "a")
        asked: list[tuple[float, float]] = []
        failures: list[str] = []
        done = threading.Event()

        def ask() -> None:
            n = 0
            while not done.is_set():
                start = time.perf_counter()
                try:
                    if server.current.search(queries[n % 2_000][None], 10).num_rows != 10:
                        failures.append("fewer than ten")
                except Exception as error:  # that is what is counted
                    failures.append(repr(error))
                asked.append((start, time.perf_counter()))
                n += 1

        thread = threading.Thread(target=ask)
        thread.start()
        times: list[tuple[float, float]] = []
        for n in range(swaps):
            time.sleep(1.0)
            point_to(folder, "a", found[n % 2])
            start = time.perf_counter()
            assert server.refresh()
            times.append((start, time.perf_counter()))
        time.sleep(1.0)
        done.set()
        thread.join()
    faiss.omp_set_num_threads(cores)
    during = [b - a for a, b in asked if any(a < end + AFTER_S and b > start for start, end in times)]
    steady = [b - a for a, b in asked if not any(a < end + AFTER_S and b > start for start, end in times)]
    note = f"{swaps} swaps of {1000 * np.median([b - a for a, b in times]):.0f} ms, {len(during)} queries meanwhile"
    p99 = [1000 * float(np.quantile(one, 0.99)) for one in (during, steady)]
    middle = [1000 * float(np.median(one)) for one in (during, steady)]
    return [
        Row(f"swap-{label} p99", p99[0], None, p99[1], "wall ms", "", "p99 between swaps", note=note),
        Row(f"swap-{label} median", middle[0], None, middle[1], "wall ms", "", "median between swaps"),
        Row(f"swap-{label} failed or short", float(len(failures)), None, None, "queries"),
    ]


BENCHMARK = Benchmark("index-swap", "versions swapped under queries: failures, and the slowest answers", run)
