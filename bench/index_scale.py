"""An index of ten million vectors, built in shards within a bounded memory, then served from less memory than it takes.

Vectors are generated in blocks and written as Parquet; what is measured begins with these files. Peak memory counts the
processes together. The second server runs in a memory cgroup, where this machine lets one be made, so that most of what
ranks again is read from the disk. The limit of a query is exact search: a matrix product and a partial sort.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.frame import Benchmark, Row, cost
from bench.vectors import clustered

FILES, QUERIES = 40, 1000
CGROUPS = Path("/sys/fs/cgroup/memory")


def run(quick: bool) -> list[Row]:
    rows, dim, limit = (60_000, 64, 512 * 2**20) if quick else (10_000_000, 128, 3 * 2**30)
    label = f"{rows // 1000}k-{dim}" if quick else f"{rows // 10**6}M-{dim}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = [generated(folder / f"part-{n}.parquet", n, rows // FILES, dim) for n in range(FILES)]
        found, manifest = built(folder, paths, dim, limit, label)
        queries = clustered(QUERIES, dim, 10_001)
        exact = cost(lambda: _exact(paths, queries, dim))[0] / QUERIES
        size = (folder / "a" / manifest.version / "index.faiss").stat().st_size
        resident = size - rows * dim  # codes that rank again are a byte a dimension
        sides = [("in-memory", None), ("from-disk", int(resident + size * 0.25 + 400 * 2**20))]
        for name, room in sides:
            told = served(folder, dim, room)
            if told is None:
                continue
            note = f"recall@10 {manifest.recall['10']:.3f} with {manifest.parameters}; {told['room']}"
            note += f", {told['faults']:.1f} pages read from disk a query"
            found.append(
                Row(f"search-{label}-{name} CPU", told["cpu_ms"], None, 1000 * exact, "CPU ms", "", "exact", note=note)
            )
            found.append(
                Row(f"search-{label}-{name} wall", told["wall_ms"], None, 1000 * exact, "wall ms", "", "exact")
            )
        return found


def generated(path: Path, number: int, rows: int, dim: int) -> Path:
    """One file of the vectors; the clusters are the same in all."""
    vectors = clustered(rows, dim, number)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
    names = [f"c{number * rows + n:08d}" for n in range(rows)]
    pq.write_table(pa.table({"content_id": names, "embedding": embedding}), path, compression="none")
    return path


def built(folder: Path, paths: list[Path], dim: int, limit: int, label: str) -> tuple[list[Row], Any]:
    """The build in a process of its own, so that its memory is its own."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "bench.index_scale", str(folder), str(dim), str(limit)]) as process:
        peak = _peak(process)
    if process.returncode:
        raise SystemExit("the build failed")
    wall = time.perf_counter() - start
    from index.versions import current_manifest

    manifest = current_manifest(folder, "a")
    assert manifest is not None
    spent = json.loads((folder / "spent.json").read_text())
    note = (
        f"{manifest.factory}, two processes, {spent['shards']} shards, allowed {limit / 2**30:.1f} GiB beside the ids"
    )
    raw = manifest.count * dim * 4
    return [
        Row(f"build-{label} CPU", spent["cpu_s"], None, None, "CPU s", note=note),
        Row(f"build-{label} wall", wall, None, None, "s"),
        Row(f"build-{label} peak memory", peak / 2**20, None, raw / 2**20, "MiB", "", "the vectors"),
        Row(f"size-{label} bytes", manifest.bytes_per_vector, None, 4.0 * dim, "bytes/vector", "", "float32"),
    ], manifest  # fmt: skip


def _peak(process: subprocess.Popen[bytes]) -> int:
    """The most bytes that a process and its children held together, files that are mapped left out."""
    most = 0
    while process.poll() is None:
        most = max(most, sum(_private(one) for one in [process.pid, *_children(process.pid)]))
        time.sleep(0.2)
    return most


def _private(process: int) -> int:
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:  # it has ended
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _children(process: int) -> list[int]:
    try:
        found = [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
    return found + [deeper for one in found for deeper in _children(one)]


def _read_bytes() -> int:
    """What this process caused to be read from disks."""
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(told["read_bytes"])


def served(folder: Path, dim: int, room: int | None) -> dict[str, Any] | None:
    """What single queries on one thread cost a process that may hold `room` bytes, file pages counted."""
    home = CGROUPS / f"earmark-{os.getpid()}"
    for path in (folder / "a").rglob("*.*"):  # a page that is in memory already counts against nobody
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if room is not None:
        try:
            home.mkdir()
            (home / "memory.limit_in_bytes").write_text(str(room))
        except OSError:
            return None
    try:
        inside = "" if room is None else str(home)
        command = [sys.executable, "-m", "bench.index_scale", str(folder), str(dim), "serve", inside]
        told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return {**told, "room": "all of memory" if room is None else f"{room / 2**20:.0f} MiB"}
    finally:
        if room is not None:
            home.rmdir()


def _exact(paths: list[Path], queries: np.ndarray, dim: int) -> None:
    from index.measure import exact_top
    from index.vectors import ParquetVectors

    exact_top(ParquetVectors(paths, dim), queries, 10)


def build_here(folder: Path, dim: int, limit: int) -> None:
    import resource

    from index import Sharding, publish_vectors

    paths = sorted(folder.glob("part-*.parquet"), key=lambda path: int(path.stem.split("-")[1]))
    told: list[int] = []
    publish_vectors(
        folder, "a", paths, model_id="m", dim=dim, source="s",
        factory=None if limit > 2**30 else "IVF256,PQ32x4fs,Refine(SQ8)",
        sharding=Sharding(memory_bytes=limit, progress=lambda done, total: told.append(done)),
    )  # fmt: skip
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in usage)
    (folder / "spent.json").write_text(json.dumps({"cpu_s": cpu, "shards": len(told)}))


def serve_here(folder: Path, dim: int, cgroup: str) -> None:
    if cgroup:
        (Path(cgroup) / "cgroup.procs").write_text(str(os.getpid()))
    import faiss

    from index import open_index

    faiss.omp_set_num_threads(1)
    searcher = open_index(folder, "a")
    queries = clustered(QUERIES, dim, 10_001)
    for query in queries[: QUERIES // 2]:  # what is looked at often comes into memory
        searcher.search(query[None], 10)
    before = _read_bytes()
    rest = queries[QUERIES // 2 :]
    cpu, wall = cost(lambda: [searcher.search(query[None], 10) for query in rest])
    read = (_read_bytes() - before) / 4096 / len(rest)
    print(json.dumps({"cpu_ms": 1000 * cpu / len(rest), "wall_ms": 1000 * wall / len(rest), "faults": read}))


if __name__ == "__main__":
    if sys.argv[3] == "serve":
        serve_here(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[4])
    else:
        build_here(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

BENCHMARK = Benchmark(
    "index-scale", "ten million vectors: built in shards, served from less memory than they take", run
)
