"""The stretches of a recording that are heard elsewhere, voted by the pairs that name them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skips.frames import FRAME_S

if TYPE_CHECKING:
    from skips.motifs import Pair

REST_S = 5.0  # of what another stretch leaves of one
SAME = 0.75  # IoU of two views of one stretch
ROWS = 512  # views that are compared with all at a time


@dataclass
class Stretch:
    """Frames `start` to `end` of a recording that pairs agree on; `support` is in how many other places it is heard."""

    recording: int
    start: float
    end: float
    support: int


def stretches(pairs: Sequence[Pair]) -> list[Stretch]:
    """The stretches of every recording: of overlapping views, that of most other places wins, and the others keep what
    it leaves of them."""
    views: dict[int, list[tuple[float, float, float]]] = defaultdict(list)
    for pair in pairs:
        for which in (0, 1):
            recording, start, end = pair.side(which)
            other, there, _ = pair.side(1 - which)
            # A spot may be heard twice in one recording, so a place is a recording and a time there.
            views[recording].append((start, end, other * 1e7 + round(there / 150)))
    found: list[Stretch] = []
    for recording, seen in sorted(views.items()):
        parts = _apart(np.array(seen))
        picked = [_picked(recording, part) for part in parts]
        lead = max(range(len(parts)), key=lambda n: picked[n][0][0])
        for n, part in enumerate(parts):
            long = part[part[:, 1] - part[:, 0] >= REST_S / FRAME_S]
            if n != lead and len(long) < len(part):  # what is as short as that stands by itself, or is nothing
                picked[n] = _picked(recording, long)
        while picked := [own for own in picked if own]:
            found.append(max(picked, key=lambda own: own[0][0]).pop(0)[1])
    return found


def _apart(views: np.ndarray) -> list[np.ndarray]:
    """Views, (n, 3), in groups of which none overlaps another: a jingle that is heard a hundred times in an hour makes
    ten thousand views, of a hundred places."""
    views = views[np.argsort(views[:, 0], kind="stable")]
    reached = np.maximum.accumulate(views[:, 1])
    return np.split(views, np.flatnonzero(views[1:, 0] >= reached[:-1]) + 1)


def _picked(recording: int, views: np.ndarray) -> list[tuple[float, Stretch]]:
    """The stretches of views that hang together, and what each was picked for: its places, then its length."""
    starts, ends, place = views.T
    found = []
    while len(starts):
        counts = _places(starts, ends, place)
        worth = counts + 1e-6 * (ends - starts)
        best = int(np.argmax(worth))
        same = _same(starts, ends, slice(best, best + 1))[0]
        first, last = float(np.median(starts[same])), float(np.median(ends[same]))
        found.append((float(worth[best]), Stretch(recording, first, last, int(counts[best]))))
        starts, ends, place = _left(starts, ends, place, first, last, same)
    return found


def _places(starts: np.ndarray, ends: np.ndarray, place: np.ndarray) -> np.ndarray:
    """In how many places the same as each view is heard, int (n,)."""
    order = np.argsort(place, kind="stable")
    turns = np.flatnonzero(np.diff(place[order], prepend=-np.inf))
    counts = np.empty(len(starts), np.int64)
    for first in range(0, len(starts), ROWS):
        rows = slice(first, first + ROWS)
        same = _same(starts, ends, rows)[:, order]
        counts[rows] = np.logical_or.reduceat(same, turns, axis=1).sum(axis=1)
    return counts


def _same(starts: np.ndarray, ends: np.ndarray, rows: slice) -> np.ndarray:
    """Which views are the same stretch as some of them, bool (rows, n)."""
    low, high = starts[rows, None], ends[rows, None]
    shared = np.clip(np.minimum(high, ends) - np.maximum(low, starts), 0, None)
    return np.asarray(shared / np.maximum(high - low + (ends - starts) - shared, 1e-9) > SAME)


def _left(
    start: np.ndarray, end: np.ndarray, place: np.ndarray, first: float, last: float, gone: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What views keep outside frames `first` to `last`, where that is long enough to be something of its own."""
    before = ~gone & (np.minimum(end, first) - start >= REST_S / FRAME_S)
    after = ~gone & (end - np.maximum(start, last) >= REST_S / FRAME_S)
    return (
        np.concatenate([start[before], np.maximum(start, last)[after]]),
        np.concatenate([np.minimum(end, first)[before], end[after]]),
        np.concatenate([place[before], place[after]]),
    )
