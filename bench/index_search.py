"""Vector search: ours, and each peer at every type of number it stores, as recall, bytes a vector and speed.

Every library searches the same vectors with the queries that no index holds, one query at a time and all in one call.
For each configuration the setting is used that reaches recall@10 of 0.95 most cheaply (of its own list, each measured);
CPU seconds count, of builds (on two threads) and of searches. The limit is exact search: a matrix product and a partial
sort. For the curve, efforts are tried in the order of their cost.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.frame import Benchmark, Row, cost
from bench.vectors import clustered, glosses

TARGET = 0.95
CURVE = (0.90, 0.95, 0.98)  # recalls at which the curve is told
EFFORTS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
LINKS, EF_CONSTRUCTION = 16, 200  # the peers' own customary values
QUERIES = 1000
BUILD_THREADS = 2


@dataclass
class Candidate:
    """A built index: `search(queries, k, effort, threads)` gives rows of shape (queries, k); `efforts` are in the order
    of what they cost, `tuned` is the one that its maker chose; `bytes_` is of its saved file, a vector."""

    name: str
    search: Callable[[np.ndarray, int, Any, int], np.ndarray]
    efforts: Sequence[Any]
    build_cpu: float
    bytes_: float
    tuned: Any = None


def run(quick: bool) -> list[Row]:
    if quick:
        return compare("5k-clustered", clustered(5_000 + QUERIES, 128, 1), quick)
    rows = compare("200k-clustered", clustered(200_000 + QUERIES, 512, 1), quick)
    real = glosses()
    if real is not None:
        order = np.random.default_rng(0).permutation(len(real))
        rows += compare(f"{(len(real) - QUERIES) // 1000}k-glosses", real[order], quick)
    return rows


def compare(label: str, vectors: np.ndarray, quick: bool) -> list[Row]:
    import faiss

    from index.measure import exact_top

    base, queries = np.ascontiguousarray(vectors[:-QUERIES]), np.ascontiguousarray(vectors[-QUERIES:])
    cores = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(BUILD_THREADS)
    best = exact_top(base, queries, 10)[1]
    candidates = ours(base, quick)
    for make in (voyagers, hnswlibs, usearches):
        candidates += make(base, quick)
    rows: list[Row] = []
    for threads in (1, 2):
        rows += at_equal_recall(f"{threads}t-{label}", candidates, base, queries, best, threads, 2 if quick else 5)
    rows += curve(label, candidates, queries, best)
    faiss.omp_set_num_threads(cores)
    return rows


def at_equal_recall(
    label: str, candidates: list[Candidate], base: np.ndarray, queries: np.ndarray, best: np.ndarray, threads: int,
    rounds: int,
) -> list[Row]:  # fmt: skip
    """The first candidate against the peers, each at the least effort that reaches the target."""
    from index.measure import exact_top

    mine, peers = candidates[0], [one for one in candidates if not one.name.startswith("ours")]
    settings = {one.name: cheapest(one, queries, best, TARGET, threads) for one in (mine, *peers)}
    batch: dict[str, list[float]] = {one.name: [] for one in (mine, *peers)}
    single: dict[str, list[float]] = {one.name: [] for one in (mine, *peers)}
    exact: list[float] = []
    some = queries[:200]
    for _ in range(rounds):
        for one in (mine, *peers):
            effort, _ = settings[one.name]
            call: Any = functools.partial(_searched, one, effort, threads)
            batch[one.name].append(len(queries) / cost(lambda c=call: c(queries))[0])  # type: ignore[misc]
            single[one.name].append(len(some) / cost(lambda c=call: [c(q[None]) for q in some])[0])  # type: ignore[misc]
        exact.append(len(some) / cost(lambda: exact_top(base, some, 10))[0])
    limit, found = statistics.median(exact), []
    for one in peers:
        what, note = f"{one.name}-{label}", f"recall@10 {settings[mine.name][1]:.3f} to {settings[one.name][1]:.3f}"
        for kind, speeds in (("batch", batch), ("single", single)):
            a, b = statistics.median(speeds[mine.name]), statistics.median(speeds[one.name])
            found.append(Row(f"{what} {kind}", a, b, limit, "queries/CPU-s", one.name, "exact", True, note))
        if threads == 1:
            size = 4.0 * base.shape[1]
            found.append(Row(f"{what} bytes", mine.bytes_, one.bytes_, size, "bytes/vector", one.name, "float32"))
            found.append(Row(f"{what} build", mine.build_cpu, one.build_cpu, None, "CPU s", one.name))
    return found


def _searched(one: Candidate, effort: Any, threads: int, queries: np.ndarray) -> np.ndarray:
    return one.search(queries, 10, effort, threads)


def curve(label: str, candidates: list[Candidate], queries: np.ndarray, best: np.ndarray) -> list[Row]:
    """Recall, bytes and speed of every candidate on one thread, where it reaches a recall."""
    found = []
    for one in candidates:
        for target in CURVE:
            effort, recall = cheapest(one, queries, best, target, 1, tuned=False)
            if recall < target:
                continue
            speed = statistics.median(
                len(queries) / cost(lambda o=one, e=effort: o.search(queries, 10, e, 1))[0]  # type: ignore[misc]
                for _ in range(3)
            )
            note = f"recall@10 {recall:.3f}, {one.bytes_:.0f} bytes a vector"
            name = f"curve-{one.name}-{label} at {target:.2f}"
            found.append(Row(name, speed, None, None, "queries/CPU-s", higher_is_better=True, note=note))
    return found


def cheapest(
    one: Candidate, queries: np.ndarray, best: np.ndarray, target: float, threads: int, *, tuned: bool = True
) -> tuple[Any, float]:
    """(effort, recall@10): the tuned effort, else the least that reaches the target, else the greatest."""
    efforts = [one.tuned] if tuned and one.tuned is not None else one.efforts
    for effort in efforts:
        rows = one.search(queries, 10, effort, threads)
        recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, best, strict=True)]))
        if recall >= target:
            break
    return effort, recall


def ours(base: np.ndarray, quick: bool) -> list[Candidate]:
    """What `index.build` chooses, tuned and measured on vectors that it held out itself; then other makes, for the
    curve."""
    import faiss

    from index.build import build
    from index.choice import lists
    from index.parameters import cost as cost_of
    from index.parameters import ladders, search_index, search_parameters

    found = []
    for factory in (
        (None,)
        if quick
        else (None, "HNSW32,SQ8", f"IVF{lists(len(base))},RaBitQfs,Refine(SQ8)", f"IVF{lists(len(base))},SQ8")
    ):
        made: list[Any] = []
        spent = cost(lambda f=factory, m=made: m.append(build(base, factory=f, target_recall=TARGET, gate=0.0)))[0]  # type: ignore[misc]
        built = made[0]
        index, order = built.faiss_index, built.order

        def search(
            queries: np.ndarray, k: int, effort: Any, threads: int, index: Any = index, order: Any = order
        ) -> Any:
            if faiss.omp_get_max_threads() != threads:
                faiss.omp_set_num_threads(threads)
            return order[search_index(index, queries, k, search_parameters(index, effort))[1]]

        efforts = sorted((one for ladder in ladders(index) for one in ladder), key=lambda e, i=index: cost_of(i, e))  # type: ignore[misc]
        size = faiss.serialize_index(index).nbytes / len(base)
        name = f"ours-{built.choice.factory}"
        found.append(Candidate(name, search, efforts, spent, size, built.parameters))
    return found


def voyagers(base: np.ndarray, quick: bool) -> list[Candidate]:
    import voyager

    found = []
    kinds = [("voyager", voyager.StorageDataType.Float32), ("voyager-float8", voyager.StorageDataType.Float8),
             ("voyager-e4m3", voyager.StorageDataType.E4M3)]  # fmt: skip
    for name, kind in kinds[: 1 if quick else 3]:
        index = voyager.Index(
            voyager.Space.InnerProduct, base.shape[1], M=LINKS, ef_construction=EF_CONSTRUCTION, storage_data_type=kind,
            max_elements=len(base),
        )  # fmt: skip
        spent = cost(lambda i=index: i.add_items(base, num_threads=BUILD_THREADS))[0]  # type: ignore[misc]

        def search(queries: np.ndarray, k: int, effort: int, threads: int, index: Any = index) -> np.ndarray:
            return np.asarray(index.query(queries, k, num_threads=threads, query_ef=max(effort, k))[0].astype(np.int64))

        found.append(Candidate(name, search, EFFORTS, spent, len(index.as_bytes()) / len(base)))
    return found


def hnswlibs(base: np.ndarray, quick: bool) -> list[Candidate]:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=base.shape[1])
    index.init_index(max_elements=len(base), M=LINKS, ef_construction=EF_CONSTRUCTION)
    spent = cost(lambda: index.add_items(base, num_threads=BUILD_THREADS))[0]

    def search(queries: np.ndarray, k: int, effort: int, threads: int) -> np.ndarray:
        index.set_ef(max(effort, k))
        return np.asarray(index.knn_query(queries, k, num_threads=threads)[0].astype(np.int64))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index.save_index(str(path))
        size = path.stat().st_size / len(base)
    return [Candidate("hnswlib", search, EFFORTS, spent, size)]


def usearches(base: np.ndarray, quick: bool) -> list[Candidate]:
    from usearch.index import Index

    found = []
    for kind in ("f32",) if quick else ("f32", "f16", "bf16", "i8"):
        index = Index(ndim=base.shape[1], metric="ip", dtype=kind, connectivity=LINKS, expansion_add=EF_CONSTRUCTION)
        keys = np.arange(len(base))
        spent = cost(lambda i=index, n=keys: i.add(n, base, threads=BUILD_THREADS))[0]  # type: ignore[misc]

        def search(queries: np.ndarray, k: int, effort: int, threads: int, index: Any = index) -> np.ndarray:
            index.expansion_search = max(effort, k)
            keys = index.search(queries, k, threads=threads).keys
            return np.asarray(keys, np.int64).reshape(len(queries), -1)

        found.append(Candidate(f"usearch-{kind}", search, EFFORTS, spent, index.serialized_length / len(base)))
    return found


BENCHMARK = Benchmark("index-search", "vector search by ours, voyager, hnswlib and usearch, at equal recall", run)
