"""All hashes within a Hamming distance, exactly: pictures' PDQ of 256 bits at 31, millions of them in a fraction of a
millisecond. Compiled.

Multi-index hashing (Norouzi, Punjani and Fleet, Fast Exact Search in Hamming Space with Multi-Index Hashing, TPAMI
2014): codes are cut into slices with a table each, and two codes within the radius are within its share of one slice,
at least. How many slices is chosen by what their look-ups and comparisons cost. A query whose buckets hold too much,
because hashes are far from random, is compared with all codes instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from core.errors import ConfigError
from index.onebit import _bits_set as bits_set

SCANNED = 1 << 15  # codes that are compared one by one: of fewer, a table saves nothing
FANOUT = 4  # a part takes in the next one when that holds a quarter as much
PROBE, COMPARE = 1.0, 1.6  # costs of a look-up and of a comparison, both a cache miss or two
SCAN = 1 / 12  # cost of a comparison in order
WIDEST = (
    24  # bits of a slice: a table has four bytes for each of its values, of which there are twice the codes at most
)
AHEAD = 12  # buckets that are asked for before they are read
ROOM = 4_096  # matches that a search first has room for


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
        self._parts: list[_Part] = []
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
            query, row, distance = _all_of(self._tail_codes, queries, self.radius)
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
        self._parts.append(_Part(codes, numbers, self.radius))
        self._tail_codes, self._tail_numbers = self._tail_codes[:0], self._tail_numbers[:0]

    def _sweep(self) -> None:
        """Takes what was removed out of the codes."""
        gone = np.fromiter(self._gone, np.int64)
        for n, part in enumerate(self._parts):
            alive = ~np.isin(part.numbers, gone)
            if not alive.all():
                self._parts[n] = _Part(part.codes[alive], part.numbers[alive], self.radius)
        self._parts = [part for part in self._parts if len(part.numbers)]
        alive = ~np.isin(self._tail_numbers, gone)
        self._tail_codes, self._tail_numbers = self._tail_codes[alive], self._tail_numbers[alive]
        self._gone.clear()


class _Part:
    """Codes that stay, with their tables."""

    def __init__(self, codes: np.ndarray, numbers: np.ndarray, radius: int) -> None:
        self.codes, self.numbers = codes, numbers
        self.widths, self.shares = slices(codes.shape[1] * 64, radius, len(codes))
        starts = np.concatenate([[0], np.cumsum(self.widths)])[:-1]
        self.starts = starts.astype(np.int64)
        self.masks = [masks(int(w), int(s)) for w, s in zip(self.widths, self.shares, strict=True)]
        self.mask_bounds = np.concatenate([[0], np.cumsum([len(m) for m in self.masks])]).astype(np.int64)
        self.flat_masks = np.concatenate(self.masks) if self.masks else np.empty(0, np.int64)
        sizes = (1 << self.widths.astype(np.int64)) + 1
        self.table_bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.tables = np.zeros(int(self.table_bounds[-1]), np.uint32)
        self.rows = np.empty((len(self.widths), len(codes)), np.uint32)
        for t, (start, width) in enumerate(zip(self.starts, self.widths, strict=True)):
            low, high = self.table_bounds[t : t + 2]
            _fill(codes, int(start), int(width), self.tables[low:high], self.rows[t])

    def search(self, queries: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Query, number and distance of every match."""
        if not len(self.widths):
            query, row, distance = _all_of(self.codes, queries, radius)
            return query, self.numbers[row], distance
        found = []
        first, room = 0, ROOM
        most = int(len(self.codes) * SCAN / COMPARE)
        while first < len(queries):
            out = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int32)
            first, count = _look_up(
                self.codes,
                queries,
                first,
                radius,
                self.starts,
                self.widths,
                self.shares,
                self.flat_masks,
                self.mask_bounds,
                self.tables,
                self.table_bounds,
                self.rows,
                most,
                *out,
            )
            if count < 0:  # not even one query's matches had room
                room *= 4
                continue
            found.append(tuple(some[:count] for some in out))
        query, row, distance = (np.concatenate([f[k] for f in found]) for k in range(3))
        return query, self.numbers[row], distance


def slices(bits: int, radius: int, codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Widths of slices of a code and how many bits may differ in each, int64; empty where comparing all is cheaper.

    With m slices, radius = m·q + a: a code within the radius differs in at most q bits in one of the first a + 1
    slices, or in at most q - 1 in one of the others (Norouzi et al., 2014, proposition 1).
    """
    best, choice = codes * SCAN, (np.empty(0, np.int64), np.empty(0, np.int64))
    widest = min(WIDEST, max(codes, 1).bit_length() + 1)
    for count in range(math.ceil(bits / widest), bits // 4 + 1):
        each, rest = divmod(radius, count)
        shares = np.array([each if t <= rest else each - 1 for t in range(count)])
        shares = shares[shares >= 0]
        # Slices in which no share is left need no table; the others are as wide as may be.
        width, wider = divmod(bits, count)
        widths = np.array([width + (t >= count - wider) for t in range(count)])[: len(shares)]
        if widths.max() > widest:
            continue
        probes = np.array(
            [sum(math.comb(int(w), k) for k in range(s + 1)) for w, s in zip(widths, shares, strict=True)]
        )
        cost = float(np.sum(probes * (PROBE + COMPARE * codes / 2.0**widths)))
        if cost < best:
            best, choice = cost, (widths.astype(np.int64), shares.astype(np.int64))
    return choice


@cache
def masks(width: int, share: int) -> np.ndarray:
    """Every word of `width` bits with at most `share` set, ascending, int64: neighbours in memory come together."""
    found = [
        sum(1 << bit for bit in chosen)
        for count in range(share + 1)
        for chosen in itertools.combinations(range(width), count)
    ]
    return np.array(sorted(found), np.int64)


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


@intrinsic
def _fetch(_, array, row):  # type: ignore[no-untyped-def]
    """Asks for the cache line in which a row of an array begins, without waiting for it."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        made = context.make_array(signature.args[0])(context, builder, values[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.mul(values[1], builder.extract_value(made.strides, 0))
        place = builder.gep(builder.bitcast(made.data, byte), [place])
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [place, number(0), number(3), number(1)])  # to read, to keep, data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@njit(cache=True, nogil=True, inline="always")
def _slice(codes, row, start, width):  # type: ignore[no-untyped-def]
    """Bits `start` to `start + width` of a code."""
    word, shift = start >> 6, start & 63
    value = codes[row, word] >> np.uint64(shift)
    if shift + width > 64:
        value |= codes[row, word + 1] << np.uint64(64 - shift)
    return np.int64(value & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))


@njit(cache=True, nogil=True)
def _fill(codes, start, width, table, rows):  # type: ignore[no-untyped-def]
    """Sorts the rows of codes by a slice: those of value v are `rows[table[v]:table[v + 1]]`."""
    count = len(codes)
    values = np.empty(count, np.uint32)
    for i in range(count):
        values[i] = _slice(codes, i, start, width)
        table[values[i] + 1] += 1
    for v in range(1, len(table)):
        table[v] += table[v - 1]
    for i in range(count - 1, -1, -1):  # from the back, so that the ends of buckets become their beginnings
        v = values[i] + 1
        table[v] -= 1
        rows[table[v]] = i
    # `table[v + 1]` is now where v begins; move it down.
    for v in range(len(table) - 1):
        table[v] = table[v + 1]
    table[len(table) - 1] = count


@njit(cache=True, nogil=True, inline="always")
def _distance(codes, row, queries, number):  # type: ignore[no-untyped-def]
    far = 0
    for k in range(codes.shape[1]):
        far += bits_set(np.int64(codes[row, k] ^ queries[number, k]))
    return far


@njit(cache=True, nogil=True)
def _scan(codes, queries, number, radius, out_query, out_row, out_distance, count):  # type: ignore[no-untyped-def]
    """Compares with all; returns the new count, or -1 where there is no room."""
    for i in range(len(codes)):
        far = _distance(codes, i, queries, number)
        if far <= radius:
            if count >= len(out_row):
                return -1
            out_query[count], out_row[count], out_distance[count] = number, i, far
            count += 1
    return count


def _all_of(codes: np.ndarray, queries: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = []
    room = ROOM
    for number in range(len(queries)):
        while True:
            out = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int32)
            count = _scan(codes, queries, number, radius, *out, 0)
            if count >= 0:
                break
            room *= 4
        found.append(tuple(some[:count].copy() for some in out))
    query, row, distance = (np.concatenate([f[k] for f in found]) for k in range(3))
    return query, row, distance


@njit(cache=True, nogil=True)
def _look_up(  # type: ignore[no-untyped-def]
    codes,
    queries,
    first,
    radius,
    starts,
    widths,
    shares,
    masks,
    mask_bounds,
    tables,
    table_bounds,
    rows,
    most,
    out_query,
    out_row,
    out_distance,
):
    """Matches of queries from `first` on, until there is no room; returns the next query and the number of matches, -1
    where there is not even room for those of the first. Loads of one stage do not wait for each other."""
    longest = 0
    for t in range(len(widths)):
        longest = max(longest, mask_bounds[t + 1] - mask_bounds[t])
    low = np.empty(longest, np.int64)
    high = np.empty(longest, np.int64)
    candidates = np.empty(1024, np.int64)
    count = 0
    for number in range(first, len(queries)):
        before = count
        compared = 0
        for t in range(len(widths)):
            base = table_bounds[t]
            value = _slice(queries, number, starts[t], widths[t])
            probes = mask_bounds[t + 1] - mask_bounds[t]
            total = 0
            for p in range(probes):
                at = base + (value ^ masks[mask_bounds[t] + p])
                low[p] = tables[at]
                high[p] = tables[at + 1]
                total += high[p] - low[p]
            compared += total
            if compared > most:
                break
            if total > len(candidates):
                candidates = np.empty(2 * total, np.int64)
            held = 0
            own = rows[t]
            for p in range(probes):
                if p + AHEAD < probes:
                    _fetch(own, low[p + AHEAD])
                for at in range(low[p], high[p]):
                    candidates[held] = own[at]
                    _fetch(codes, candidates[held])
                    held += 1
            for c in range(held):
                row = candidates[c]
                far = _distance(codes, row, queries, number)
                if far > radius:
                    continue
                seen = False
                for earlier in range(t):
                    apart = _slice(codes, row, starts[earlier], widths[earlier])
                    apart ^= _slice(queries, number, starts[earlier], widths[earlier])
                    if bits_set(apart) <= shares[earlier]:
                        seen = True
                        break
                if seen:
                    continue
                if count >= len(out_row):
                    return number, before if before > 0 or number > first else -1
                out_query[count], out_row[count], out_distance[count] = number, row, far
                count += 1
        if compared > most:
            count = _scan(codes, queries, number, radius, out_query, out_row, out_distance, before)
            if count < 0:
                return number, before if before > 0 or number > first else -1
    return len(queries), count
