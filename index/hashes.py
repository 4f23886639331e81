"""All hashes within a Hamming distance, exactly: pictures' PDQ of 256 bits at 31, millions of them in a fraction of a
millisecond.

Codes stand in few parts of growing size, each with tables of its own (`index.hash_tables`), and a tail that is compared
one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from core.errors import ConfigError
from index.hash_tables import Part, all_of

SCANNED = 1 << 15  # codes that are compared one by one: of fewer, a table saves nothing
FANOUT = 4  # a part takes in the next one when that holds a quarter as much


@dataclass(frozen=True)
class HashHits:
    """Of query i, `numbers[bounds[i]:bounds[i + 1]]` are the hashes within the radius, by distance, then number;
    `distances` beside them. int64, int64 and int32."""

    bounds: np.ndarray
    numbers: np.ndarray
    distances: np.ndarray

    def of(self, query: int) -> list[tuple[int, int]]:
        """(number, distance) of one query's."""
        span = slice(self.bounds[query], self.bounds[query + 1])
        return list(zip(self.numbers[span].tolist(), self.distances[span].tolist(), strict=True))


class HashIndex:
    """Hashes, uint8 (n, bytes), under numbers of the caller's. Additions are found by the next search."""

    def __init__(self, bits: int = 256, radius: int = 31) -> None:
        if bits % 64 or not bits or not 0 <= radius < bits:
            raise ConfigError(f"hashes of {bits} bits cannot be searched within {radius}; bits are a multiple of 64")
        self.bits, self.radius = bits, radius
        self._parts: list[Part] = []
        self._tail_codes = np.empty((0, bits // 64), np.uint64)
        self._tail_numbers = np.empty(0, np.int64)
        self._gone: set[int] = set()

    def __len__(self) -> int:
        return sum(len(part.numbers) for part in self._parts) + len(self._tail_numbers) - len(self._gone)

    def add(self, hashes: np.ndarray, numbers: Sequence[int] | np.ndarray) -> None:
        """Adds hashes under numbers that are not in use."""
        codes = self._codes(hashes)
        numbers = np.asarray(numbers, np.int64)
        if len(codes) != len(numbers):
            raise ConfigError(f"{len(codes)} hashes come with {len(numbers)} numbers")
        if self._gone:
            back = self._gone.intersection(numbers.tolist())
            if back:
                self._sweep()
        self._tail_codes = np.concatenate([self._tail_codes, codes])
        self._tail_numbers = np.concatenate([self._tail_numbers, numbers])
        if len(self._tail_numbers) > SCANNED:
            self._settle()

    def remove(self, numbers: Sequence[int] | np.ndarray) -> None:
        """Forgets hashes; the numbers must be in use."""
        self._gone.update(int(n) for n in numbers)
        if len(self._gone) * 4 > sum(len(part.numbers) for part in self._parts) + len(self._tail_numbers):
            self._sweep()

    def search(self, hashes: np.ndarray, threads: int = 1) -> HashHits:
        """All hashes within the radius of each query."""
        queries = self._codes(hashes)
        pieces = [p for p in np.array_split(np.arange(len(queries)), max(1, min(threads, len(queries)))) if len(p)]
        if len(pieces) > 1:
            with ThreadPoolExecutor(len(pieces)) as pool:
                found = list(pool.map(lambda piece: self._search(queries[piece]), pieces))
        else:
            found = [self._search(queries[piece]) for piece in pieces]
        counts = [hits[0] for hits in found] or [np.empty(0, np.int64)]
        bounds = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
        if not found:
            return HashHits(bounds, np.empty(0, np.int64), np.empty(0, np.int32))
        numbers, distances = (np.concatenate([hits[k] for hits in found]) for k in (1, 2))
        return HashHits(bounds, numbers, distances)

    def _codes(self, hashes: np.ndarray) -> np.ndarray:
        hashes = np.ascontiguousarray(hashes, np.uint8)
        if hashes.ndim != 2 or hashes.shape[1] * 8 != self.bits:
            raise ConfigError(f"hashes must be uint8 (n, {self.bits // 8}), not {hashes.shape}")
        return _interleaved(hashes)

    def _search(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        asked: list[np.ndarray] = []
        numbers: list[np.ndarray] = []
        distances: list[np.ndarray] = []
        for part in self._parts:
            for into, some in zip((asked, numbers, distances), part.search(queries, self.radius), strict=True):
                into.append(some)
        if len(self._tail_numbers):
            query, row, distance = all_of(self._tail_codes, queries, self.radius)
            asked.append(query)
            numbers.append(self._tail_numbers[row])
            distances.append(distance)
        if not asked:
            empty = np.empty(0, np.int64)
            return np.zeros(len(queries), np.int64), empty, empty.astype(np.int32)
        query, number, far = np.concatenate(asked), np.concatenate(numbers), np.concatenate(distances)
        if self._gone:
            alive = ~np.isin(number, np.fromiter(self._gone, np.int64))
            query, number, far = query[alive], number[alive], far[alive]
        order = np.lexsort((number, far, query))
        return np.bincount(query, minlength=len(queries)), number[order], far[order]

    def _settle(self) -> None:
        """Makes the tail a part, and parts of like size one, so that there are few."""
        codes, numbers = self._tail_codes, self._tail_numbers
        while self._parts and len(self._parts[-1].numbers) < FANOUT * len(numbers):
            last = self._parts.pop()
            codes, numbers = np.concatenate([last.codes, codes]), np.concatenate([last.numbers, numbers])
        self._parts.append(Part(codes, numbers, self.radius))
        self._tail_codes, self._tail_numbers = self._tail_codes[:0], self._tail_numbers[:0]

    def _sweep(self) -> None:
        """Takes what was removed out of the codes."""
        gone = np.fromiter(self._gone, np.int64)
        for n, part in enumerate(self._parts):
            alive = ~np.isin(part.numbers, gone)
            if not alive.all():
                self._parts[n] = Part(part.codes[alive], part.numbers[alive], self.radius)
        self._parts = [part for part in self._parts if len(part.numbers)]
        alive = ~np.isin(self._tail_numbers, gone)
        self._tail_codes, self._tail_numbers = self._tail_codes[alive], self._tail_numbers[alive]
        self._gone.clear()


def _interleaved(hashes: np.ndarray) -> np.ndarray:
    """uint64 (n, words): the bits in an order in which neighbours are far apart, since those of a picture's hash are
    alike. Distances stay."""
    bits = hashes.shape[1] * 8
    order = np.argsort(np.arange(bits) * 97 % bits, kind="stable")  # 97 is prime to powers of two
    made = np.empty((len(hashes), bits // 64), np.uint64)
    for first in range(0, len(hashes), 1 << 16):
        block = np.ascontiguousarray(np.unpackbits(hashes[first : first + (1 << 16)], axis=1)[:, order])
        made[first : first + (1 << 16)] = np.packbits(block, axis=1, bitorder="little").view("<u8")
    return made
