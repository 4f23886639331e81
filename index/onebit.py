"""The nearest of rows that come and go: a bit a dimension says how near a row can be at most, and only those that may
be among the best are compared. Compiled.

The codes and their error are RaBitQ's (Gao and Long, SIGMOD 2024): a row less the centre is rotated and its signs are
kept. The rotation is Hadamard's after random signs, three times over, which is as good as a random one for vectors of
any make (Andoni et al., NIPS 2015); fewer turns leave those of few dimensions in patterns.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from core.compiled import njit

BLOCK = 64  # rows whose words lie side by side, for a register of them to be compared at once
DEVIATIONS = 5.0  # of the estimate: one in three millions is further off
STEP = (
    0.586  # between the 8 levels of a query's dimension, in its standard deviations: the least error for a normal one
)
LEVELS = 8
SLACK = 1e-5  # for the rounding of scores, to a query of unit norm
LONGEST = 1e15  # of a query that is compared by codes, whose squares a float holds
BINS = 256  # candidates are sorted by what they can reach, about

ADD, SCALE, VARIANCE = range(3)  # what is kept of a row beside its signs


def signs(dim: int) -> np.ndarray:
    """Those of the rotation, float32 (turns, the power of two that holds `dim`)."""
    padded = max(64, 1 << (dim - 1).bit_length())
    return np.random.default_rng(dim).choice(np.array([-1, 1], np.float32), (3, padded))


def room(rows: int, padded: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (blocks, words, BLOCK), int64, and what is kept beside (3, rows), float32, for so many rows."""
    blocks = -(-rows // BLOCK)
    return np.zeros((blocks, padded // 64, BLOCK), np.int64), np.zeros((3, blocks * BLOCK), np.float32)


@intrinsic
def _bits_set(_, word):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.ctpop(values[0])

    return types.int64(word), generate


@njit(nogil=True)
def _rotate(values, flips):  # type: ignore[no-untyped-def]
    """In place; keeps lengths."""
    size = len(values)
    half = size // 2
    length = np.float32(1 / np.sqrt(size))
    next_ = np.empty(size, np.float32)
    for turn in range(len(flips)):
        for i in range(size):
            values[i] *= flips[turn, i] * length
        width = 1
        while width < size:  # the same step each time, which vectorises, rather than strides that grow
            for i in range(half):
                one, other = values[2 * i], values[2 * i + 1]
                next_[i], next_[half + i] = one + other, one - other
            for i in range(size):
                values[i] = next_[i]
            width *= 2


@njit(nogil=True)
def encode(vectors, first, centre, flips, codes, kept):  # type: ignore[no-untyped-def]
    """Writes the codes of vectors, float32 (n, dim), that are the rows from `first` on."""
    dim, padded = vectors.shape[1], flips.shape[1]
    rest = np.empty(padded, np.float32)
    for n in range(len(vectors)):
        rest[dim:] = 0
        along, square = 0.0, 0.0
        for i in range(dim):
            rest[i] = vectors[n, i] - centre[i]
            along += vectors[n, i] * centre[i]
            square += rest[i] * rest[i]
        _rotate(rest, flips)
        row = first + n
        total = 0.0
        for word in range(padded // 64):
            bits = np.int64(0)
            for bit in range(64):
                value = rest[64 * word + bit]
                total += abs(value)
                if value >= 0:
                    bits |= np.int64(1) << np.int64(bit)
            codes[row // BLOCK, word, row % BLOCK] = bits
        scale = square / total if total > 0 else 0.0
        kept[ADD, row] = along
        kept[SCALE, row] = scale
        kept[VARIANCE, row] = max(0.0, (padded * scale * scale - square) / (padded - 1))


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _reach(query, norm, count, centre, flips, codes, kept, reach):  # type: ignore[no-untyped-def]
    """Fills what the score of each row may be at most, all but surely."""
    dim, padded = len(query), flips.shape[1]
    words = padded // 64
    rest = np.zeros(padded, np.float32)
    offset, square = 0.0, 0.0
    for i in range(dim):
        rest[i] = query[i] - centre[i]
        offset += rest[i] * centre[i]
        square += rest[i] * rest[i]
    _rotate(rest, flips)
    grid = STEP * np.sqrt(square / padded)
    # What a level stands for is chosen so that levels have, by signs alone, as much as the query: a row whose signs are
    # the query's would else lose what every level loses.
    here, there = 0.0, 0.0
    for i in range(padded if grid > 0 else 0):
        level = min(LEVELS - 1, max(0, int(np.floor(rest[i] / grid)) + LEVELS // 2))
        here += abs(rest[i])
        there += abs(grid * (level - (LEVELS - 1) / 2))
    step = grid * here / there if there > 0 else 0.0
    planes = np.zeros((3, words), np.int64)
    lost = 0.0
    for i in range(padded):
        level = 0
        if grid > 0:
            level = min(LEVELS - 1, max(0, int(np.floor(rest[i] / grid)) + LEVELS // 2))
        error = rest[i] - step * (level - (LEVELS - 1) / 2)
        lost += error * error
        for plane in range(3):
            planes[plane, i // 64] |= np.int64((level >> plane) & 1) << np.int64(i % 64)
    unit, middle = np.float32(step), np.float32(step * padded * (LEVELS - 1) / 2)
    base, spread = np.float32(offset + SLACK * norm), np.float32(DEVIATIONS * DEVIATIONS * square)
    coarse = np.float32(DEVIATIONS * DEVIATIONS * lost)
    apart = np.empty(BLOCK, np.int64)
    for block in range(-(-count // BLOCK)):
        apart[:] = 0
        for word in range(words):
            low, mid, high = planes[0, word], planes[1, word], planes[2, word]
            for r in range(BLOCK):
                bits = codes[block, word, r]
                apart[r] += _bits_set(bits ^ low) + 2 * _bits_set(bits ^ mid) + 4 * _bits_set(bits ^ high)
        first = block * BLOCK
        for r in range(BLOCK):
            scale = kept[SCALE, first + r]
            estimate = base + kept[ADD, first + r] + scale * (middle - unit * np.float32(apart[r]))
            reach[first + r] = estimate + np.sqrt(spread * kept[VARIANCE, first + r] + coarse * scale * scale)


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _product(query, vector):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(len(query)):
        total += query[i] * vector[i]
    return total


@njit(nogil=True)
def _sink(value, owner, size, at):  # type: ignore[no-untyped-def]
    """Restores a heap, least first, where the value at a place has grown."""
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and value[child + 1] < value[child]:
            child += 1
        if value[at] <= value[child]:
            return
        value[at], value[child] = value[child], value[at]
        owner[at], owner[child] = owner[child], owner[at]
        at = child


@njit(nogil=True)
def _offer(score, content, k, value, owner, size, held):  # type: ignore[no-untyped-def]
    """Takes a content among the k best, a heap; returns how many they are."""
    if held[content]:
        for at in range(size):
            if owner[at] == content:
                if score > value[at]:
                    value[at] = score
                    _sink(value, owner, size, at)
                break
    elif size < k:
        at = size
        while at > 0 and value[(at - 1) // 2] > score:
            value[at], owner[at] = value[(at - 1) // 2], owner[(at - 1) // 2]
            at = (at - 1) // 2
        value[at], owner[at] = score, content
        held[content] = True
        return size + 1
    elif score > value[0]:
        held[owner[0]] = False
        value[0], owner[0] = score, content
        held[content] = True
        _sink(value, owner, size, 0)
    return size


@njit(nogil=True)
def nearest(query, k, floor, matrix, count, content_of, total, dead, hidden, centre, flips, codes, kept):  # type: ignore[no-untyped-def]
    """(contents, scores) of the k best contents, and of those whose score equals the k-th, in no order; none below
    `floor`.

    `query`: float32 (dim); `matrix`: float32 (at least `count`, dim), `content_of` (int32) the content of each row, of
    `total`; `dead` (bool by row) and `hidden` (bool by content, may be empty) may not be found. Rows are coded where
    there are any `codes`; all are compared otherwise.
    """
    norm = np.sqrt(np.float64(_product(query, query)))
    coded = len(codes) > 0 and norm < LONGEST
    reach = np.empty(len(kept[0]) if coded else 0, np.float32)
    order = np.empty(count, np.int32)
    found = 0
    if coded:
        _reach(query, norm, count, centre, flips, codes, kept, reach)
        most, least = -np.inf, np.inf
        for row in range(count):
            if reach[row] >= floor and not dead[row] and not (len(hidden) > 0 and hidden[content_of[row]]):
                order[found] = row
                found += 1
                most, least = max(most, reach[row]), min(least, reach[row])
        if found > k:
            per = (BINS - 1) / (most - least) if most > least else 0.0
            ends = np.zeros(BINS + 1, np.int64)
            for i in range(found):
                ends[int((most - reach[order[i]]) * per) + 1] += 1
            for i in range(BINS):
                ends[i + 1] += ends[i]
            given = order[:found].copy()
            for i in range(found):
                at = int((most - reach[given[i]]) * per)
                order[ends[at]] = given[i]
                ends[at] += 1
    else:
        for row in range(count):
            if not dead[row] and not (len(hidden) > 0 and hidden[content_of[row]]):
                order[found] = row
                found += 1

    k = min(k, total)
    value, owner, size = np.empty(k, np.float32), np.empty(k, np.int32), 0
    held = np.zeros(total, np.bool_)
    scores, compared = np.empty(found, np.float32), 0
    for i in range(found):
        row = order[i]
        if coded and (reach[row] < floor or (size == k and reach[row] < value[0])):
            continue
        score = _product(query, matrix[row])
        if score >= floor:
            order[compared], scores[compared] = row, score
            compared += 1
            size = _offer(score, content_of[row], k, value, owner, size, held)

    ties = 0
    if size == k:
        for i in range(compared):
            content = content_of[order[i]]
            if scores[i] == value[0] and not held[content]:
                held[content] = True
                order[ties] = content
                ties += 1
    contents, best = np.empty(size + ties, np.int32), np.empty(size + ties, np.float32)
    contents[:size], contents[size:] = owner[:size], order[:ties]
    best[:size] = value[:size]
    if ties:
        best[size:] = value[0]
    return contents, best
