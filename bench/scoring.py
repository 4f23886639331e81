"""How good skip markers are against known truth: matches by IoU, boundaries, wrongly skipped seconds, by kind, by
number of occurrences and by perturbation, with intervals from resampled shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from bench.episodes import Segment

IOUS = (0.5, 0.75)
ROUNDS = 1_000  # of the bootstrap


@dataclass(frozen=True)
class Marker:
    """What a detector found; `action` is `auto` or `ask`."""

    kind: str
    start_s: float
    end_s: float
    action: str = "auto"


@dataclass(frozen=True)
class Judged:
    """An episode with its truth and with what was found in it."""

    show: str
    duration_s: float
    truth: Sequence[Segment]
    found: Sequence[Marker]
    coding: str = ""


@dataclass(frozen=True)
class Score:
    """The numbers of one detector; NaN where there is nothing to count."""

    precision: dict[float, float]  # by IoU, as recall and f1
    recall: dict[float, float]
    f1: dict[float, float]
    f1_interval: dict[float, tuple[float, float]]  # 95 %, shows resampled
    boundary_median_s: float  # of the absolute errors of starts and ends of matches at IoU .5
    boundary_p90_s: float
    start_errors_s: np.ndarray
    end_errors_s: np.ndarray
    wrong_s_per_hour: float  # of auto markers, outside every true segment
    wrong_interval: tuple[float, float]
    kind_accuracy: float  # of matches at IoU .5
    kind_interval: tuple[float, float]
    recall_by_kind: dict[str, tuple[float, int]]  # recall at IoU .5, and of how many segments
    recall_by_occurrences: dict[str, tuple[float, int]]  # "2", "3", "3+"
    recall_by_perturbation: dict[str, tuple[float, int]]  # "none" for untouched ones
    recall_by_coding: dict[str, tuple[float, int]]
    control_autos: int  # auto markers in shows that have no truth at all
    episodes: int
    hours: float


def ious(truth: Sequence[Segment], found: Sequence[Marker]) -> np.ndarray:
    """Intersection over union of every true segment with every marker, shape (truth, found)."""
    a = np.array([(s.start_s, s.end_s) for s in truth], np.float64).reshape(-1, 1, 2)
    b = np.array([(m.start_s, m.end_s) for m in found], np.float64).reshape(1, -1, 2)
    shared = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    shared = np.clip(shared, 0, None)
    whole = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - shared
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def matched(truth: Sequence[Segment], found: Sequence[Marker], iou: float) -> list[tuple[int, int]]:
    """One-to-one pairs (truth, found) with an IoU of at least `iou`: as many as possible, then as alike as possible.
    The kind plays no part."""
    if not truth or not found:
        return []
    alike = ious(truth, found)
    # A match is worth more than any gain in IoU that the other matches could make of its loss.
    worth = np.where(alike >= iou, alike + min(len(truth), len(found)), 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if alike[r, c] >= iou]


def united(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Overlapping spans joined, in order."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        elif end > start:
            joined.append((start, end))
    return joined


def wrong_s(truth: Sequence[Segment], found: Sequence[Marker]) -> float:
    """Seconds that auto markers skip outside every true segment."""
    true = united((s.start_s, s.end_s) for s in truth)
    skipped = united((m.start_s, m.end_s) for m in found if m.action == "auto")
    right = sum(max(0.0, min(b, d) - max(a, c)) for a, b in skipped for c, d in true)
    return sum(b - a for a, b in skipped) - right


def score(episodes: Sequence[Judged], counts: Mapping[str, int], seed: int = 0) -> Score:
    """Scores all episodes together (each segment weighs the same). `counts` says how often a motif is heard over all
    shows (`bench.episodes.occurrences`). Intervals resample shows; ads link shows, so they are a little narrow."""
    tallies: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    starts: list[float] = []
    ends: list[float] = []
    heard: dict[str, list[bool]] = defaultdict(list)
    kinds: dict[str, list[bool]] = defaultdict(list)
    touched: dict[str, list[bool]] = defaultdict(list)
    coded: dict[str, list[bool]] = defaultdict(list)
    for episode in episodes:
        tally = tallies[episode.show]
        tally["truth"] += len(episode.truth)
        tally["found"] += len(episode.found)
        tally["autos"] += sum(m.action == "auto" for m in episode.found)
        tally["wrong_s"] += wrong_s(episode.truth, episode.found)
        tally["duration_s"] += episode.duration_s
        for iou in IOUS:
            tally[f"hits {iou}"] += len(matched(episode.truth, episode.found, iou))
        pairs = matched(episode.truth, episode.found, IOUS[0])
        for t, f in pairs:
            true, marker = episode.truth[t], episode.found[f]
            starts.append(abs(marker.start_s - true.start_s))
            ends.append(abs(marker.end_s - true.end_s))
            tally["right_kind"] += marker.kind == true.kind
        hit = {t for t, _ in pairs}
        for t, true in enumerate(episode.truth):
            kinds[true.kind].append(t in hit)
            coded[episode.coding].append(t in hit)
            if not true.motif:
                continue
            for name in true.perturbations or ("none",):
                touched[name].append(t in hit)
            number = counts.get(true.motif, 0)
            if number == 2:
                heard["2"].append(t in hit)
            elif number >= 3:
                heard["3+"].append(t in hit)
                if number == 3:
                    heard["3"].append(t in hit)
    names = list(tallies)
    columns = ("truth", "found", *(f"hits {iou}" for iou in IOUS), "right_kind", "wrong_s", "duration_s")
    table = {c: np.array([tallies[n][c] for n in names], np.float64) for c in columns}
    draws = np.random.default_rng(seed).integers(len(names), size=(ROUNDS, len(names)))

    def ratio(above: str, below: Sequence[str], times: float = 1.0) -> tuple[float, tuple[float, float]]:
        """A ratio of sums over all shows, and its interval."""
        over, under = table[above] * times, np.sum([table[c] for c in below], axis=0)
        value = _over(over.sum(), under.sum())
        drawn = _over(over[draws].sum(axis=1), under[draws].sum(axis=1))
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (np.nan, np.nan)
        return float(value), (float(low), float(high))

    f1 = {iou: ratio(f"hits {iou}", ("truth", "found"), 2.0) for iou in IOUS}
    wrong, wrong_interval = ratio("wrong_s", ("duration_s",), 3600)
    kind, kind_interval = ratio("right_kind", (f"hits {IOUS[0]}",))
    errors = np.array([*starts, *ends])
    return Score(
        precision={iou: ratio(f"hits {iou}", ("found",))[0] for iou in IOUS},
        recall={iou: ratio(f"hits {iou}", ("truth",))[0] for iou in IOUS},
        f1={iou: value for iou, (value, _) in f1.items()},
        f1_interval={iou: interval for iou, (_, interval) in f1.items()},
        boundary_median_s=float(np.median(errors)) if len(errors) else float("nan"),
        boundary_p90_s=float(np.quantile(errors, 0.9)) if len(errors) else float("nan"),
        start_errors_s=np.array(starts),
        end_errors_s=np.array(ends),
        wrong_s_per_hour=wrong,
        wrong_interval=wrong_interval,
        kind_accuracy=kind,
        kind_interval=kind_interval,
        recall_by_kind=_shares(kinds),
        recall_by_occurrences=_shares(heard),
        recall_by_perturbation=_shares(touched),
        recall_by_coding=_shares(coded),
        control_autos=int(sum(t["autos"] for t in tallies.values() if not t["truth"])),
        episodes=len(episodes),
        hours=sum(e.duration_s for e in episodes) / 3600,
    )


def _over(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where there is nothing to divide by."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.full(b.shape, np.nan), where=b > 0)


def _shares(groups: Mapping[str, list[bool]]) -> dict[str, tuple[float, int]]:
    return {name: (sum(hits) / len(hits), len(hits)) for name, hits in sorted(groups.items())}
