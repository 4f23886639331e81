"""Hash tables of join keys, compiled: distinct values are numbered, and looked up by millions.

The tables are much larger than a processor's nearest caches, so time goes by waiting for memory. Rows are therefore
taken in blocks whose places in the table are touched first, all waiting at once, and a slot holds half of the hash
beside the number, so that a stranger is told without looking at its bytes. Indices are unsigned: for signed ones numba
tests at every step whether they count from the end.
"""

from __future__ import annotations

import numpy as np

from core.compiled import njit

BLOCK = 256
U = np.uint64
NUMBER = U(0xFFFFFFFF)  # half of a slot with the number + 1, 0 where the slot is free
TAG = U(0xFFFFFFFF00000000)  # and with the upper half of the hash


@njit(nogil=True)
def _mix(value):  # type: ignore[no-untyped-def]
    """Finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> U(30))) * U(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> U(27))) * U(0x94D049BB133111EB)
    return value ^ (value >> U(31))


@njit(nogil=True)
def _word(data, at):  # type: ignore[no-untyped-def]
    """Eight bytes as a number; written out, so that the compiler makes one load of it."""
    low = U(data[at]) | U(data[at + U(1)]) << U(8) | U(data[at + U(2)]) << U(16) | U(data[at + U(3)]) << U(24)
    high = U(data[at + U(4)]) | U(data[at + U(5)]) << U(8) | U(data[at + U(6)]) << U(16) | U(data[at + U(7)]) << U(24)
    return low | high << U(32)


@njit(nogil=True)
def _hash(data, start, stop):  # type: ignore[no-untyped-def]
    value, at = (stop - start) * U(0x9E3779B97F4A7C15), start
    while at + U(8) <= stop:
        value = _mix(value ^ _word(data, at)) + U(0x9E3779B97F4A7C15)
        at += U(8)
    word, shift = U(0), U(0)
    while at < stop:
        word |= U(data[at]) << shift
        shift += U(8)
        at += U(1)
    return _mix(value ^ word)


@njit(nogil=True)
def _same(one, start, stop, other, other_start, other_stop):  # type: ignore[no-untyped-def]
    size, at = stop - start, U(0)
    if size != other_stop - other_start:
        return False
    while at + U(8) <= size:
        if _word(one, start + at) != _word(other, other_start + at):
            return False
        at += U(8)
    while at < size:
        if one[start + at] != other[other_start + at]:
            return False
        at += U(1)
    return True


@njit(nogil=True)
def number_bytes(offsets, data, valid, table, firsts, codes):  # type: ignore[no-untyped-def]
    """Numbers values in the order of first appearance: fills the table, each number's first row, and each row's
    number, -1 for nulls. Returns how many numbers, and a sum that keeps the touching from being optimised away."""
    mask, count, touched = U(len(table) - 1), 0, U(0)
    hashes = np.empty(BLOCK, np.uint64)
    for block in range(0, len(codes), BLOCK):
        rows = min(BLOCK, len(codes) - block)
        for i in range(rows):
            hashes[i] = _hash(data, offsets[block + i], offsets[block + i + 1])
        for i in range(rows):
            touched ^= table[hashes[i] & mask]
        for i in range(rows):
            row = block + i
            codes[row] = -1
            slot, tag = hashes[i] & mask, hashes[i] & TAG
            while valid[row]:
                entry = table[slot]
                if entry == U(0):
                    firsts[count] = row
                    codes[row] = count
                    count += 1
                    table[slot] = tag | U(count)
                    break
                if entry & TAG == tag:
                    code = np.int64(entry & NUMBER) - 1
                    first = firsts[code]
                    if _same(data, offsets[row], offsets[row + 1], data, offsets[first], offsets[first + 1]):
                        codes[row] = code
                        break
                slot = (slot + U(1)) & mask
    return count, touched


@njit(nogil=True)
def compact(offsets, data, firsts):  # type: ignore[no-untyped-def]
    """The values at rows `firsts` side by side: offsets (k+1,) uint64 and bytes."""
    places = np.zeros(len(firsts) + 1, np.uint64)
    for code in range(len(firsts)):
        places[code + 1] = places[code] + (offsets[firsts[code] + 1] - offsets[firsts[code]])
    kept = np.empty(np.int64(places[-1]), np.uint8)
    for code in range(len(firsts)):
        start, at = offsets[firsts[code]], places[code]
        for k in range(places[code + 1] - at):
            kept[at + U(k)] = data[start + U(k)]
    return places, kept


@njit(nogil=True)
def find_bytes(offsets, data, valid, table, own_offsets, own_data, codes):  # type: ignore[no-untyped-def]
    """Each value's number by the table of `number_bytes` and the values of `compact`; -1 where it has none."""
    mask, touched = U(len(table) - 1), U(0)
    hashes, entries = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
    for block in range(0, len(codes), BLOCK):
        rows = min(BLOCK, len(codes) - block)
        for i in range(rows):
            hashes[i] = _hash(data, offsets[block + i], offsets[block + i + 1])
        for i in range(rows):
            entries[i] = table[hashes[i] & mask]
        for i in range(rows):
            if entries[i] != U(0):
                touched ^= own_offsets[np.int64(entries[i] & NUMBER) - 1]
        for i in range(rows):
            row = block + i
            codes[row] = -1
            slot, tag, entry = hashes[i] & mask, hashes[i] & TAG, entries[i]
            while valid[row] and entry != U(0):
                if entry & TAG == tag:
                    code = np.int64(entry & NUMBER) - 1
                    if _same(data, offsets[row], offsets[row + 1], own_data, own_offsets[code], own_offsets[code + 1]):
                        codes[row] = code
                        break
                slot = (slot + U(1)) & mask
                entry = table[slot]
    return touched


@njit(nogil=True)
def number_whole(values, valid, table, distinct, codes):  # type: ignore[no-untyped-def]
    mask, count = np.uint64(len(table) - 1), 0
    for row in range(len(codes)):
        if not valid[row]:
            codes[row] = -1
            continue
        slot = _mix(np.uint64(values[row])) & mask
        while True:
            code = table[slot] - 1
            if code < 0:
                table[slot] = count + 1
                distinct[count] = values[row]
                codes[row] = count
                count += 1
                break
            if distinct[code] == values[row]:
                codes[row] = code
                break
            slot = (slot + np.uint64(1)) & mask
    return count


@njit(nogil=True)
def find_whole(values, valid, table, distinct, codes):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(table) - 1)
    for row in range(len(codes)):
        codes[row] = -1
        if not valid[row]:
            continue
        slot = _mix(np.uint64(values[row])) & mask
        while table[slot] > 0:
            code = table[slot] - 1
            if distinct[code] == values[row]:
                codes[row] = code
                break
            slot = (slot + np.uint64(1)) & mask
