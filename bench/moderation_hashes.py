"""Look-ups of 256-bit hashes within 31 bits, exactly, beside FAISS's flat and multi-hash indexes; and how soon a new
exemplar is found."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
from numba import njit

from bench.frame import Benchmark, Row, alternate
from index.hash_tables import Part
from index.hashes import HashIndex

COUNT, QUICK_COUNT = 10_000_000, 300_000
MULTI = 1_000_000  # what FAISS's multi-hash index is given: it is slow to fill
RADIUS = 31
THREADS = 2
QUERIES, FLAT_QUERIES = 4_000, 32
CLUSTER = 50  # near copies of one picture
NEWS = 20  # exemplars that come one by one


def run(quick: bool) -> list[Row]:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    count = QUICK_COUNT if quick else COUNT
    rows = []
    for kind, make in (("random", _random), ("clustered", _clustered)):
        hashes = make(count, 1)
        index, flat = HashIndex(256, RADIUS), faiss.IndexBinaryFlat(256)
        started = time.perf_counter()
        index.add(hashes, np.arange(count))
        built = time.perf_counter() - started
        flat.add(hashes)
        for name, queries in (("hits", _turned(hashes, QUERIES, 2)), ("misses", _random(QUERIES, 3))):
            rows.append(_raced(f"{kind}_{name}_per_s", index, flat, queries, built))
        if kind == "clustered":
            rows.append(_new(index))
        del flat
    return [*rows, _multi(min(count, MULTI))]


def _raced(name: str, index: HashIndex, flat: object, queries: np.ndarray, built: float) -> Row:
    few = queries[:FLAT_QUERIES]
    bounds, distances, numbers = flat.range_search(few, RADIUS + 1)  # type: ignore[attr-defined]
    hits = index.search(few, THREADS)
    for i in range(len(few)):
        found = zip(numbers[bounds[i] : bounds[i + 1]].tolist(), distances[bounds[i] : bounds[i + 1]], strict=True)
        assert sorted(hits.of(i)) == sorted((n, int(d)) for n, d in found), "the answers differ"
    touched = _touched(index)
    codes = index._parts[0].codes
    reads = np.random.default_rng(4).integers(0, len(codes), int(touched * 200))
    seconds = alternate(
        {
            "ours": lambda: index.search(queries, THREADS),
            "flat": lambda: flat.range_search(few, RADIUS + 1),  # type: ignore[attr-defined]
            "limit": lambda: _read(codes, reads),
        },
        5,
        use_cpu=False,
    )
    return Row(
        name,
        len(queries) / seconds["ours"],
        len(few) / seconds["flat"],
        THREADS * 200 / seconds["limit"],
        "1/s",
        "IndexBinaryFlat",
        "as many reads at random",
        higher_is_better=True,
        note=f"{len(index):,} hashes, {THREADS} threads, {len(hits.numbers) / len(few):.1f} matches a query, the same "
        f"as the peer's; built in {built:.0f} s; {_bytes(index):.0f} bytes a hash",
    )


def _new(index: HashIndex) -> Row:
    took = []
    for n, row in enumerate(_random(NEWS, 5)):
        started = time.perf_counter()
        index.add(row[None], [10**9 + n])
        assert index.search(row[None]).of(0)[0] == (10**9 + n, 0)
        took.append(time.perf_counter() - started)
    return Row(
        "new_exemplar_s", statistics.median(took), None, None, "s", note=f"added and found; {max(took):.4f} at most"
    )


def _multi(count: int) -> Row:
    """FAISS's multi-hash index finds all within 31 bits when it looks at 16 slices of 16 bits, one of them turned."""
    import faiss

    hashes = _random(count, 6)
    queries = _turned(hashes, QUERIES, 7)
    index, other = HashIndex(256, RADIUS), faiss.IndexBinaryMultiHash(256, 16, 16)
    index.add(hashes, np.arange(count))
    before = _resident()
    other.add(hashes)
    size = (_resident() - before) / count
    other.nflip = 1
    few = queries[:400]
    seconds = alternate(
        {"ours": lambda: index.search(queries, THREADS), "other": lambda: other.range_search(few, RADIUS + 1)},
        5,
        use_cpu=False,
    )
    return Row(
        f"at_{count}_per_s",
        len(queries) / seconds["ours"],
        len(few) / seconds["other"],
        None,
        "1/s",
        "IndexBinaryMultiHash",
        higher_is_better=True,
        note=f"{count:,} random hashes, hits, {THREADS} threads; {_bytes(index):.0f} bytes a hash, the peer {size:.0f}",
    )


def _resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _touched(index: HashIndex) -> float:
    """Reads at random that a query needs: of tables and of codes."""
    part: Part = index._parts[0]
    probes = np.diff(part.mask_bounds)
    return float(np.sum(probes * (1 + len(part.codes) / 2.0**part.widths)))


def _bytes(index: HashIndex) -> float:
    part = index._parts[0]
    return sum(a.nbytes for a in (part.codes, part.numbers, part.tables, part.rows)) / len(part.codes)


@njit(nogil=True)
def _read(codes, order):  # type: ignore[no-untyped-def]
    total = np.uint64(0)
    for i in range(len(order)):
        total ^= codes[order[i], 0]
    return total


def _random(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng((12, seed)).integers(0, 256, (count, 32), dtype=np.uint8)


def _clustered(count: int, seed: int) -> np.ndarray:
    """Near copies of pictures: `CLUSTER` each, up to 24 bits apart from their original."""
    found = np.repeat(_random(-(-count // CLUSTER), seed), CLUSTER, axis=0)[:count]
    return _with_flips(found, 24, seed)


def _turned(hashes: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng((13, seed))
    return _with_flips(hashes[rng.integers(0, len(hashes), count)].copy(), RADIUS, seed)


def _with_flips(hashes: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Turns up to `most` bits of each over, in place."""
    rng = np.random.default_rng((14, seed))
    turns = rng.integers(0, most + 1, len(hashes))
    rows = np.arange(len(hashes))
    for n in range(most):
        bit = rng.integers(0, 256, len(hashes))
        chosen = turns > n
        hashes[rows[chosen], bit[chosen] // 8] ^= (1 << (bit[chosen] % 8)).astype(np.uint8)
    return hashes


BENCHMARK = Benchmark("moderation-hashes", "256-bit hashes within 31 bits, and new exemplars", run)
