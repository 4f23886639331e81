"""Vector search on a card: each make that may be chosen for one, the first first, against FAISS's exact search there.

Wall time counts: the processor waits. Every make is built on the card, stored as an index for the CPU and copied back;
lists and graphs are searched with the least effort that reaches recall@10 of 0.95. The limit is a matrix product and a
selection by torch, in blocks. Where FAISS sees no card there are no rows.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.frame import Benchmark, Row, alternate, machine
from bench.vectors import clustered

TARGET = 0.95
QUERIES = 1000
SINGLE_QUERIES = 200
LIMIT_QUERIES = 100  # in a block, so that the scores fit the card
CPU_BUILD_ROWS = 200_000  # up to which the same index is built on the CPU too


def run(quick: bool) -> list[Row]:
    from index.gpu import gpus

    if not gpus():
        print("index-gpu: FAISS sees no CUDA card here: nothing to measure", file=sys.stderr)
        return []
    if quick:
        return compare("5k-clustered", 5_000, 128, 2)
    return compare("200k-clustered", 200_000, 512, 5) + compare("1m-clustered", 1_000_000, 512, 5)


def compare(label: str, rows: int, dim: int, rounds: int) -> list[Row]:
    import faiss as typed

    from index.gpu import gpu_choices, has_cagra

    faiss: Any = typed
    vectors = clustered(rows + QUERIES, dim, 1)
    base, queries = vectors[:-QUERIES], np.ascontiguousarray(vectors[-QUERIES:])
    peer = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), dim)
    peer_build = _seconds(functools.partial(peer.add, base))
    best = peer.search(queries, 10)[1]
    limit = _product(base, queries)
    found = []
    for choice in gpu_choices(rows, dim, has_cagra=has_cagra()):
        found += _make(choice.factory, label, base, queries, best, peer, peer_build, limit, rounds)
    return found


def _make(
    factory: str, label: str, base: np.ndarray, queries: np.ndarray, best: np.ndarray, peer: Any, peer_build: float,
    limit: Callable[[], Any] | None, rounds: int,
) -> list[Row]:  # fmt: skip
    """One make against exact search."""
    import faiss

    from index.gpu import to_gpu

    start = time.perf_counter()
    stored = _built(factory, base)
    build = time.perf_counter() - start
    mine = to_gpu(stored)
    params, recall, effort = _cheapest(mine, queries, best)
    note = f"on {machine()['gpu'] or 'a card that torch does not see'}, recall@10 {recall:.3f}{effort}"
    name, some, found = f"{factory}-{label}", queries[:SINGLE_QUERIES], []
    for kind, asked, bound in (("batch", [queries], limit), ("single", [query[None] for query in some], None)):
        sides: dict[str, Callable[[], Any]] = {
            "ours": functools.partial(_ask, mine, asked, params),
            "peer": functools.partial(_ask, peer, asked, None),
        }
        if bound is not None:
            sides["limit"] = bound
        count = sum(map(len, asked))
        speed = {side: count / seconds for side, seconds in alternate(sides, rounds, use_cpu=False).items()}
        least = speed.get("limit")
        found.append(
            Row(f"{name} {kind}", speed["ours"], speed["peer"], least, "queries/s", "GpuIndexFlat",
                "torch" if least else "", True, note)
        )  # fmt: skip
    size = faiss.serialize_index(stored).nbytes / len(base)
    found.append(Row(f"{name} bytes", size, 4.0 * base.shape[1], None, "bytes/vector", "GpuIndexFlat"))
    found.append(Row(f"{name} build", build, peer_build, None, "wall s", "GpuIndexFlat"))
    if len(base) <= CPU_BUILD_ROWS and "IVF" in factory:
        found.append(Row(f"{name} build to CPU", build, _on_cpu(factory, base), None, "wall s", "on the CPU"))
    return found


def _built(factory: str, base: np.ndarray) -> Any:
    """Built on the card, of as many rows that train as `index.build` takes; an index for the CPU."""
    from index.build import LEAST_TRAINING_ROWS
    from index.choice import TRAINING_ROWS_A_LIST, lists
    from index.gpu import empty, filled_on_gpu
    from index.vectors import ArrayVectors

    enough = min(len(base), max(LEAST_TRAINING_ROWS, TRAINING_ROWS_A_LIST * lists(len(base))))
    training = np.sort(np.random.default_rng(0).choice(len(base), enough, replace=False))
    return filled_on_gpu(empty(factory, base.shape[1]), ArrayVectors(base), training)


def _on_cpu(factory: str, base: np.ndarray) -> float:
    from index.build import filled
    from index.vectors import ArrayVectors

    return _seconds(functools.partial(filled, factory, ArrayVectors(base)))


def _cheapest(index: Any, queries: np.ndarray, best: np.ndarray) -> tuple[Any, float, str]:
    """(parameters, recall@10, what they are) of the least effort that reaches the target, else of the greatest."""
    from index.parameters import ladders, search_parameters

    for effort in ladders(index.cpu)[0]:
        params = search_parameters(index.cpu, effort)
        rows = index.search(queries, 10, params=params)[1]
        recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, best, strict=True)]))
        if recall >= TARGET:
            break
    return params, recall, "".join(f", {name} {value}" for name, value in effort.items())


def _ask(index: Any, batches: list[np.ndarray], params: Any) -> None:
    for queries in batches:
        index.search(queries, 10, params=params)


def _product(base: np.ndarray, queries: np.ndarray) -> Callable[[], Any] | None:
    """All queries against all vectors by torch on the card; None where torch has none."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    held = torch.from_numpy(base).cuda()

    def call() -> None:
        for first in range(0, len(queries), LIMIT_QUERIES):
            block = torch.from_numpy(queries[first : first + LIMIT_QUERIES]).cuda()
            for one in torch.topk(block @ held.T, 10):
                one.cpu()

    return call


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


BENCHMARK = Benchmark("index-gpu", "vector search on a GPU: each make for one against FAISS's exact search there", run)
