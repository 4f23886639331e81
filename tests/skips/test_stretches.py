"""Stretches of recordings, against the same rules over all views at once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from skips.frames import FRAME_S, Line
from skips.motifs import Pair
from skips.stretches import REST_S, SAME, Stretch, stretches

REST = REST_S / FRAME_S


def slow(pairs: list[Pair]) -> list[Stretch]:
    """Every view compared with every other of its recording."""
    views = defaultdict(list)
    for pair in pairs:
        for which in (0, 1):
            recording, start, end = pair.side(which)
            other, there, _ = pair.side(1 - which)
            views[recording].append((start, end, other * 1e7 + round(there / 150)))
    found = []
    for recording, seen in sorted(views.items()):
        left = list(seen)
        while left:
            alike = [[v for v in left if iou(v, view) > SAME] for view in left]
            worth = [len({p for *_, p in own}) + 1e-6 * (v[1] - v[0]) for own, v in zip(alike, left, strict=True)]
            best = int(np.argmax(worth))
            own = alike[best]
            first, last = (float(np.median([v[k] for v in own])) for k in (0, 1))
            found.append(Stretch(recording, first, last, len({p for *_, p in own})))
            rest = [v for v in left if iou(v, left[best]) <= SAME]
            before = [(s, min(e, first), p) for s, e, p in rest if min(e, first) - s >= REST]
            left = before + [(max(s, last), e, p) for s, e, p in rest if e - max(s, last) >= REST]
    return found


def iou(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    common = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return common / max(one[1] - one[0] + other[1] - other[0] - common, 1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_stretches_are_those_of_all_views_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(int(rng.integers(1, 60))):
        start = rng.choice([100.0, 400.0, 900.0, 2_000.0]) + rng.normal(0, 30)
        length = float(rng.choice([120.0, 150.0, 300.0, 600.0])) + rng.normal(0, 20)
        a, b = rng.integers(0, 4, 2)
        pairs.append(Pair(int(a), int(b) + 4, start, start + length, Line(1.0, float(rng.normal(0, 500))), 0.9, 99.0))
    assert stretches(pairs) == slow(pairs)
