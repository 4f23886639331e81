"""Which moments sound alike: patches searched through FAISS, then hits that lie on one line gathered into chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from skips.frames import FRAME_S
from skips.patch_index import Patches, PatchIndex

QUERY_EVERY = 3  # every third patch asks, about two a second
NEIGHBOURS = 32
ALIKE = 0.6  # cosine below which two patches are not taken for one sound
APART = 10.0  # seconds between two moments of one recording that may be a repeat
NEAR_S, NEAR_OFFSET_S = 3.0, 0.2  # two hits of one chain are no further apart than this
LEAST_HITS, LEAST_SPAN_S = 4, 1.0  # of a chain
SOUGHT_HITS = 6  # of a chain among all recordings: fewer are chance, 2 in 1,000 of those hold anything
GAP_S = 12.0  # that speech over a spot may tear into a chain


# Frames, hop in frames, loudness (None: of these frames) → unit vectors float32 (n, dim) and their frames int32 (n,).
Patcher = Callable[[np.ndarray, int, float | None], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Hits:
    """Moments that sound alike, column by column: frame `at_a` of recording `a` and frame `at_b` of `b`."""

    a: np.ndarray
    b: np.ndarray
    at_a: np.ndarray
    at_b: np.ndarray
    alike: np.ndarray

    def __len__(self) -> int:
        return len(self.a)

    @classmethod
    def join(cls, parts: Sequence[Hits]) -> Hits:
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("a", "b", "at_a", "at_b", "alike")))

    def take(self, which: np.ndarray) -> Hits:
        return Hits(self.a[which], self.b[which], self.at_a[which], self.at_b[which], self.alike[which])


def hits(held: PatchIndex, asked: Patches, k: int = NEIGHBOURS) -> Hits:
    """What in `held` sounds like the patches `asked`. Each pair stands once, the lower recording (or the
    earlier moment) first; a recording's own moments must be `APART`."""
    if not len(held) or not len(asked):
        empty = np.empty(0, np.int32)
        return Hits(empty, empty, empty, empty, np.empty(0, np.float32))
    alike, rows = held.search(asked.vectors, k)
    query = np.repeat(np.arange(len(asked)), rows.shape[1])
    alike, rows = alike.ravel(), rows.ravel()
    keep = (rows >= 0) & (alike > ALIKE)
    query, rows, alike = query[keep], rows[keep], alike[keep]
    a, b, at_a, at_b = asked.recording[query], held.recording[rows], asked.frame[query], held.frame[rows]
    keep = (a != b) | (np.abs(at_a - at_b) * FRAME_S > APART)
    a, b, at_a, at_b, alike = a[keep], b[keep], at_a[keep], at_b[keep], alike[keep]
    swap = (a > b) | ((a == b) & (at_a > at_b))
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    at_a, at_b = np.where(swap, at_b, at_a), np.where(swap, at_a, at_b)
    return Hits(a, b, at_a, at_b, alike)


@dataclass
class Chain:
    """Hits of two recordings on one line: frames `at` of `a`, from `first` to `last`, `there` of `b`, and how much
    `alike` the patches are."""

    a: int
    b: int
    first: float
    last: float
    at: np.ndarray
    there: np.ndarray
    alike: np.ndarray

    @cached_property
    def offset(self) -> float:
        return float(np.median(self.there - self.at))

    def between(self, low: float, high: float) -> Chain | None:
        """What of it lies between two frames of `a`; None if that is no chain."""
        keep = (self.at >= low) & (self.at <= high)
        at, there, alike = self.at[keep], self.there[keep], self.alike[keep]
        return Chain(self.a, self.b, at.min(), at.max(), at, there, alike) if _is_chain(at) else None


def chains(found: Hits, least: int = LEAST_HITS) -> list[Chain]:
    """Hits gathered into chains of at least so many: neighbours in time and in offset are linked, and what lies on one
    line is joined over up to `GAP_S`."""
    if not len(found):
        return []
    offset = found.at_b - found.at_a
    pair = found.a.astype(np.int64) << 32 | found.b.astype(np.int64)
    order = np.lexsort((found.at_a, pair))
    found, offset, pair = found.take(order), offset[order], pair[order]
    # Pairs with too few hits hold no chain: most chance hits end here.
    _, number, count = np.unique(pair, return_inverse=True, return_counts=True)
    keep = count[number] >= least
    found, offset, number = found.take(keep), offset[keep], number[keep]
    if not len(found):
        return []
    points = np.stack(
        [number * 1e3, found.at_a * (FRAME_S / NEAR_S), offset * (FRAME_S / NEAR_OFFSET_S)], axis=1
    ).astype(np.float64)
    linked = cKDTree(points).query_pairs(1.0, output_type="ndarray")
    ones = np.ones(len(linked), np.int8)
    graph = coo_matrix((ones, (linked[:, 0], linked[:, 1])), (len(found), len(found)))
    _, label = connected_components(graph, directed=False)
    order = np.lexsort((found.at_a, label))
    ends = np.flatnonzero(np.diff(label[order], append=-1)) + 1
    starts = np.concatenate([[0], ends[:-1]])
    at = found.at_a[order]
    made = []
    # Nearly all are single hits by chance, so that only what can be a chain is looked at by itself.
    able = (ends - starts >= least) & ((at[ends - 1] - at[starts]) * FRAME_S >= LEAST_SPAN_S)
    for start, end in zip(starts[able], ends[able], strict=True):
        piece = order[start:end]
        if not _is_chain(at[start:end], least):
            continue
        a, b = int(found.a[piece[0]]), int(found.b[piece[0]])
        made.append(Chain(a, b, at[start], at[end - 1], at[start:end], found.at_b[piece], found.alike[piece]))
    return _joined(made)


def _is_chain(at: np.ndarray, least: int = LEAST_HITS) -> bool:
    return len(np.unique(at)) >= least and (at.max() - at.min()) * FRAME_S >= LEAST_SPAN_S


def _joined(pieces: list[Chain]) -> list[Chain]:
    """Chains on one line, torn apart by no more than a gap, made one."""
    pieces.sort(key=lambda c: (c.a, c.b, c.first))
    made: list[Chain] = []
    for piece in pieces:
        near = range(len(made) - 1, max(len(made) - 9, -1), -1)
        place = next((n for n in near if _same_pair(made[n], piece) and _on_one_line(made[n], piece)), None)
        if place is None:
            made.append(piece)
            continue
        known = made[place]
        both = (np.concatenate([getattr(c, name) for c in (known, piece)]) for name in ("at", "there", "alike"))
        made[place] = Chain(known.a, known.b, known.first, max(known.last, piece.last), *both)
    return made


def _same_pair(one: Chain, other: Chain) -> bool:
    return (one.a, one.b) == (other.a, other.b)


def _on_one_line(one: Chain, later: Chain) -> bool:
    gap = (later.first - one.last) * FRAME_S
    drift = abs(later.offset - one.offset) * FRAME_S
    return gap < GAP_S and drift < 0.15 + 0.025 * max(later.last - one.first, 0) * FRAME_S
