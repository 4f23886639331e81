"""Two ways of finding skips with Chromaprint, to be measured beside ours.

`intro_skipper` is the algorithm of Jellyfin's Intro Skipper (github.com/intro-skipper/intro-skipper, its
ChromaprintAnalyzer of December 2024, with its default settings): two episodes of a season at a time, the first quarter
for an intro, the last minutes for credits, one stretch each. `chromaprint_pairs` asks the same fingerprints for more:
every stretch that any two episodes of the catalogue share, voted over all pairs.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.episodes import Episode, Show
from bench.scoring import Marker

POINT_S = 0.1238  # seconds a point, as Intro Skipper has it
# Intro Skipper's defaults.
ANALYSIS_SHARE, ANALYSIS_LIMIT_S = 0.25, 600.0
SHORTEST_S, LONGEST_S, CREDITS_S = 15.0, 120.0, 450.0
MAX_DIFFERENCES, MAX_SKIP_S, INDEX_SHIFT = 6, 3.5, 2
# All pairs, set on the tuning episodes.
COMMON, LEAST_MATCHES = 40, 2  # points more frequent than that say nothing; matches on one shift that are looked at
WINDOW, MEAN_DIFFERENCES = 16, 7.0  # points that are smoothed over, bits that may differ on average
LEAST_S, SAME_IOU = 4.0, 0.6
EARLY_S, LATE_S = 0.83, 1.23  # what a point's own length and the window shift both ends by


def fingerprint(path: Path) -> np.ndarray:
    """Chromaprint's points of a file, uint32 (n,), kept beside it. Raises `FileNotFoundError` without fpcalc."""
    kept = path.with_name(f".{path.name}.chromaprint.npy")
    if not kept.is_file():
        # fpcalc complains about the last frame of some files and prints the fingerprint all the same.
        done = subprocess.run(["fpcalc", "-raw", "-length", "0", "-json", str(path)], capture_output=True, check=False)
        np.save(kept, np.array(json.loads(done.stdout)["fingerprint"], np.uint32))
    found: np.ndarray = np.load(kept)
    return found


def children_cpu_s(command: Sequence[str]) -> float:
    """User and system seconds of a command."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
    return used.ru_utime + used.ru_stime


def fpcalc_cpu_s(path: Path) -> float:
    """CPU seconds of fpcalc over a whole file, its decode included."""
    return children_cpu_s(["fpcalc", "-raw", "-length", "0", str(path)])


def intro_skipper(show: Show, shortest_s: float = SHORTEST_S) -> dict[Path, list[Marker]]:
    """What Intro Skipper marks in a show. `shortest_s` is its setting for the shortest intro and credits."""
    found: dict[Path, list[Marker]] = {e.path: [] for e in show.episodes}
    for kind in ("intro", "outro"):
        cuts = {}
        for e in show.episodes:
            points = fingerprint(e.path)
            length = e.duration_s * ANALYSIS_SHARE if e.duration_s >= 300 else e.duration_s
            count = int(min(length, ANALYSIS_LIMIT_S if kind == "intro" else CREDITS_S) / POINT_S)
            cuts[e.path] = points[:count] if kind == "intro" else points[::-1][:count]
        for path, (start, end) in _season(show.episodes, cuts, kind, shortest_s).items():
            found[path].append(Marker(kind, start, end))
    return found


def _season(
    episodes: Sequence[Episode], cuts: dict[Path, np.ndarray], kind: str, shortest_s: float
) -> dict[Path, tuple[float, float]]:
    best: dict[Path, tuple[float, float]] = {}
    queue = list(episodes)
    while queue:
        current = queue.pop(0)
        for other in queue:
            spans = _compared(cuts[current.path], cuts[other.path], shortest_s)
            if spans is None or (kind == "intro" and spans[1][1] - spans[1][0] > LONGEST_S):
                continue
            for episode, (start, end) in zip((current, other), spans, strict=True):
                if kind == "outro":
                    start, end = episode.duration_s - end, episode.duration_s - start
                known = best.get(episode.path)
                if known is None or end - start > known[1] - known[0]:
                    best[episode.path] = (start, end)
            break
    return best


def _compared(
    left: np.ndarray, right: np.ndarray, shortest_s: float
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The longest stretch that two fingerprints share, in seconds of each."""
    # The last place of every point, as its inverted index keeps it.
    at_left = dict(zip(left.tolist(), range(len(left)), strict=True))
    at_right = dict(zip(right.tolist(), range(len(right)), strict=True))
    shifts = {
        at_right[point + step] - first
        for point, first in at_left.items()
        for step in range(-INDEX_SHIFT, INDEX_SHIFT + 1)
        if point + step in at_right
    }
    lefts, rights = [], []
    for shift in shifts:
        a, b = max(0, -shift), max(0, shift)
        count = min(len(left), len(right)) - abs(shift)
        if count <= 0:
            continue
        alike = np.flatnonzero(np.bitwise_count(left[a : a + count] ^ right[b : b + count]) <= MAX_DIFFERENCES)
        one = _contiguous((alike + a) * POINT_S)
        if one is None or one[1] - one[0] < shortest_s:
            continue
        other = _contiguous((alike + b) * POINT_S)
        if other is not None:
            lefts.append(one)
            rights.append(other)
    if not lefts:
        return None

    def longest(spans: list[tuple[float, float]]) -> tuple[float, float]:
        start, end = max(spans, key=lambda s: s[1] - s[0])
        return (0.0 if start <= 5 else start), end

    return longest(lefts), longest(rights)


def _contiguous(times: np.ndarray) -> tuple[float, float] | None:
    """The longest run of times with no gap over `MAX_SKIP_S`."""
    if not len(times):
        return None
    cuts = np.flatnonzero(np.diff(times) > MAX_SKIP_S)
    starts = np.concatenate([[0], cuts + 1])
    ends = np.concatenate([cuts, [len(times) - 1]])
    best = int(np.argmax(times[ends] - times[starts]))
    return float(times[starts[best]]), float(times[ends[best]])


@dataclass
class _Run:
    """Points `start` to `end` of an episode are like others of another."""

    start: float
    end: float
    other: int


def chromaprint_pairs(episodes: Sequence[Episode]) -> dict[Path, list[Marker]]:
    """Every stretch that two episodes share, whichever they are, merged by votes."""
    prints = [fingerprint(e.path) for e in episodes]
    runs: dict[int, list[_Run]] = defaultdict(list)
    for a, b, shift in candidates(prints):
        for start, end in shared(prints[a], prints[b], shift):
            if a == b and abs(shift) * POINT_S < 10:
                continue
            runs[a].append(_Run(start * POINT_S + EARLY_S, end * POINT_S + LATE_S, b))
            runs[b].append(_Run((start + shift) * POINT_S + EARLY_S, (end + shift) * POINT_S + LATE_S, a))
    found: dict[Path, list[Marker]] = {}
    for number, episode in enumerate(episodes):
        found[episode.path] = _voted(runs[number], episode.duration_s)
    return found


def candidates(prints: Sequence[np.ndarray]) -> list[tuple[int, int, int]]:
    """(a, b, shift) with several equal points on one shift: `a[i]` is `b[i + shift]`."""
    points = np.concatenate(prints)
    owner = np.repeat(np.arange(len(prints)), [len(p) for p in prints])
    place = np.concatenate([np.arange(len(p)) for p in prints])
    order = np.argsort(points, kind="stable")
    points, owner, place = points[order], owner[order], place[order]
    starts = np.flatnonzero(np.concatenate([[True], points[1:] != points[:-1]]))
    sizes = np.diff(np.concatenate([starts, [len(points)]]))
    tallies: list[np.ndarray] = []
    for size in range(2, COMMON + 1):
        rows = starts[sizes == size]
        if not len(rows):
            continue
        i, j = np.triu_indices(size, k=1)
        one, other = (rows[:, None] + i).ravel(), (rows[:, None] + j).ravel()
        tallies.append(np.stack([owner[one], owner[other], place[other] - place[one]], axis=1))
    if not tallies:
        return []
    every, count = np.unique(np.concatenate(tallies), axis=0, return_counts=True)
    return [(int(a), int(b), int(s)) for a, b, s in every[count >= LEAST_MATCHES] if (a, s) != (b, 0)]


def shared(one: np.ndarray, other: np.ndarray, shift: int) -> list[tuple[int, int]]:
    """Runs (start, end) of points of `one` that are like those of `other` `shift` later, smoothed over a window."""
    a, b = max(0, -shift), max(0, shift)
    count = min(len(one) - a, len(other) - b)
    if count < WINDOW:
        return []
    bits = np.bitwise_count(one[a : a + count] ^ other[b : b + count]).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(bits)])
    mean = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
    alike = np.concatenate([[0], (mean < MEAN_DIFFERENCES).astype(np.int8), [0]])
    turns = np.diff(alike)
    runs = []
    for start, end in zip(np.flatnonzero(turns == 1), np.flatnonzero(turns == -1), strict=True):
        # A window that is alike reaches half its length to both sides of its middle.
        first, last = start + WINDOW // 2, end - 1 + WINDOW // 2
        if (last - first + WINDOW // 2) * POINT_S >= LEAST_S:
            runs.append((int(a + first - WINDOW // 4), int(a + last + WINDOW // 4)))
    return runs


def _voted(runs: list[_Run], duration_s: float) -> list[Marker]:
    """Overlapping runs as one, most votes first; the kind by place and length, skipped unasked from three places on."""
    left = sorted(runs, key=lambda r: r.start)
    found: list[Marker] = []
    while left:
        start, end = (np.array([getattr(r, n) for r in left]) for n in ("start", "end"))
        common = np.clip(np.minimum.outer(end, end) - np.maximum.outer(start, start), 0, None)
        length = end - start
        same = common / (length[:, None] + length[None] - common) > SAME_IOU
        votes = np.array([len({left[k].other for k in np.flatnonzero(row)}) for row in same])
        best = int(np.argmax(votes + 1e-6 * length))
        members = np.flatnonzero(same[best])
        first, last = float(np.median(start[members])), float(np.median(end[members]))
        found.append(Marker(_kind(first, last, duration_s), first, last, "auto" if votes[best] >= 2 else "ask"))
        overlap = np.minimum(end, last) - np.maximum(start, first)
        gone = (overlap > 0.5 * length) | (overlap > 0.5 * (last - first))
        gone[best] = True
        left = [r for r, dead in zip(left, gone, strict=True) if not dead]
    return sorted(found, key=lambda m: m.start_s)


def _kind(start_s: float, end_s: float, duration_s: float) -> str:
    if end_s - start_s <= 9:
        return "jingle"
    if start_s < 0.1 * duration_s:
        return "intro"
    return "outro" if end_s > 0.9 * duration_s else "ad"
