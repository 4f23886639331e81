"""Changes of an index while it serves: how soon they are seen, and what they cost the searches after them."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.frame import Benchmark, Row, cost
from bench.vectors import clustered

CHANGES = 10_000  # added, and as many deleted
QUERIES = 200


def run(quick: bool) -> list[Row]:
    rows, dim, changes = (30_000, 128, 500) if quick else (1_000_000, 512, CHANGES)
    label = "30k" if quick else "1M"
    vectors = clustered(rows + changes + 2 * QUERIES, dim, 3)
    base, added = vectors[:rows], vectors[rows : rows + changes]
    probes, queries = vectors[-2 * QUERIES : -QUERIES], vectors[-QUERIES:]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        publish(folder, base)
        del vectors
        found = seen(folder, probes, label)
        return found + afterwards(folder, added, queries, changes, label, 3 if quick else 9)


def publish(folder: Path, base: np.ndarray) -> None:
    from index import publish_vectors

    embedding = pa.FixedSizeListArray.from_arrays(pa.array(base.reshape(-1)), base.shape[1])
    table = pa.table({"content_id": [f"c{n:08d}" for n in range(len(base))], "embedding": embedding})
    publish_vectors(folder, "a", table, model_id="m", dim=base.shape[1], source=str(float(base[0, 0])))


def seen(folder: Path, probes: np.ndarray, label: str) -> list[Row]:
    """From the call that adds a content to the answer that holds it, and the same of a delete; the limit is writing as
    many bytes through to the disk."""
    from index.live import LiveIndex

    puts, deletes, writes = [], [], []
    with LiveIndex(folder, "a", write=True) as live, open(folder / "limit", "wb") as limit:
        for n, probe in enumerate(probes):
            start = time.perf_counter()
            live.put(f"probe{n}", probe[None])
            assert live.search(probe[None], 1)["content_id"][0].as_py() == f"probe{n}"
            puts.append(1000 * (time.perf_counter() - start))
            start = time.perf_counter()
            live.delete([f"probe{n}"])
            assert live.search(probe[None], 1)["content_id"][0].as_py() != f"probe{n}"
            deletes.append(1000 * (time.perf_counter() - start))
            start = time.perf_counter()
            limit.write(probe.tobytes())
            limit.flush()
            os.fsync(limit.fileno())
            writes.append(1000 * (time.perf_counter() - start))
    found = []
    for name, times in (("add seen", puts), ("delete seen", deletes)):
        for which, pick in (("median", 0.5), ("p95", 0.95)):
            ours, limit_ms = (float(np.quantile(values, pick)) for values in (times, writes))
            found.append(Row(f"{name}-{label} {which}", ours, None, limit_ms, "wall ms", "", "write and fsync"))
    return found


def afterwards(
    folder: Path, added: np.ndarray, queries: np.ndarray, changes: int, label: str, rounds: int
) -> list[Row]:
    """Searches with a tail and tombstones, against the clean base, one query at a time."""
    import faiss

    from index import open_index
    from index.live import LiveIndex

    cores = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    clean = open_index(folder, "a")
    rng = np.random.default_rng(0)
    found = []
    with LiveIndex(folder, "a", write=True) as live:
        fresh = LiveIndex(folder, "a")
        live.put_many([(f"n{n}", row[None], None, None) for n, row in enumerate(added)])
        live.delete([f"c{n:08d}" for n in rng.choice(clean.manifest.count, changes, replace=False)])
        sides = {"clean": clean.search, "unchanged": fresh.search, "changed": live.search}
        cpu: dict[str, list[float]] = {name: [] for name in sides}
        wall: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, search in sides.items():
                took = cost(lambda s=search: [s(query[None], 10) for query in queries])  # type: ignore[misc]
                cpu[name].append(1000 * took[0] / len(queries))
                wall[name].append(1000 * took[1] / len(queries))
        for unit, times in (("CPU ms", cpu), ("wall ms", wall)):
            middle = {name: statistics.median(values) for name, values in times.items()}
            size = f"{changes // 1000}k" if changes >= 1000 else str(changes)
            for name in ("unchanged", "changed"):
                what = f"search-{label}-{size}-tail-{size}-gone" if name == "changed" else f"search-{label}-no-changes"
                found.append(
                    Row(f"{what} {unit.split()[0]}", middle[name], None, middle["clean"], unit, "", "clean base")
                )
    faiss.omp_set_num_threads(cores)
    return found


BENCHMARK = Benchmark("index-live", "changes of a served index: how soon they are seen, what they cost", run)
