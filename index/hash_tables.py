"""Codes that stay, with tables that find all within a Hamming distance of a query. Compiled.

Multi-index hashing (Norouzi, Punjani and Fleet, Fast Exact Search in Hamming Space with Multi-Index Hashing, TPAMI
2014): codes are cut into slices with a table each, and two codes within the radius are within its share of one slice,
at least. How many slices is chosen by what their look-ups and comparisons cost. A query whose buckets hold too much,
because hashes are far from random, is compared with all codes instead.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from core.compiled import njit
from index.onebit import _bits_set as bits_set

PROBE, COMPARE = 1.0, 1.6  # costs of a look-up and of a comparison, both a cache miss or two
SCAN = 1 / 12  # cost of a comparison in order
WIDEST = 24  # bits of a slice: a table has four bytes a value, of which there are twice the codes at most
AHEAD = 12  # buckets that are asked for before they are read
ROOM = 4_096  # matches that a search first has room for


class Part:
    """Codes, uint64 (n, words), under numbers, int64 (n,), with their tables for a radius."""

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
            query, row, distance = all_of(self.codes, queries, radius)
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


@njit(nogil=True, inline="always")
def _slice(codes, row, start, width):  # type: ignore[no-untyped-def]
    """Bits `start` to `start + width` of a code."""
    word, shift = start >> 6, start & 63
    value = codes[row, word] >> np.uint64(shift)
    if shift + width > 64:
        value |= codes[row, word + 1] << np.uint64(64 - shift)
    return np.int64(value & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))


@njit(nogil=True)
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


@njit(nogil=True, inline="always")
def _distance(codes, row, queries, number):  # type: ignore[no-untyped-def]
    far = 0
    for k in range(codes.shape[1]):
        far += bits_set(np.int64(codes[row, k] ^ queries[number, k]))
    return far


@njit(nogil=True)
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


def all_of(codes: np.ndarray, queries: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Query, row and distance of every match, each query compared with all codes; int64, int64 and int32."""
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


@njit(nogil=True)
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
