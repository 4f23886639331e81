"""What listeners did tells whether a marker is right: a table of player events raises or lowers its confidence.

A marker's confidence is the mean of a beta distribution worth `PRIOR` events; events for and against it are added
(Gelman et al., Bayesian Data Analysis, 2.4). Agreement is measured on events that were left out.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from skips.markers import MarkedEpisode, Marker

PRIOR = 10.0  # events that a marker's own confidence is worth
NEAR_S = 5.0  # from a marker's edges, within which a jump is about it
NEXT_S = 2.0  # between markers that one jump goes over
HEARD = 0.9  # share of a marker that was played through
DOUBTED = 0.5  # confidence below which nothing is skipped unasked


@dataclass(frozen=True)
class Agreement:
    """How well confidence foretells what listeners did: of `events` left out, the share that agrees (a marker of .5 or
    more is skipped, another heard), before and after the others were counted, with Wilson's interval of the latter;
    None where no event is left out."""

    events: int
    before: float | None
    after: float | None
    interval: tuple[float, float]


def says(event: Mapping[str, Any], marker: Marker, run: Sequence[Marker] = ()) -> int:
    """1 where an event speaks for a marker, -1 where it speaks against it, 0 where it is about something else.

    For it: a jump from around its start to around its end or beyond. Against it: playing nearly all of it, or taking
    back a skip of it. `run` are markers that follow each other, the marker among them, in order: a jump over several
    of them speaks for each, and one back into the middle against those behind.
    """
    start, end = event["from_s"], event["to_s"]
    kind = event["event"]
    before, behind = _around(marker, run)
    if kind in ("skip", "seek") and end > start:
        leaves = any(m.start_s - NEAR_S <= start <= m.start_s + _edge(m) for m in before)
        arrives = any(m.end_s - _edge(m) <= end <= m.end_s + 2 * NEAR_S for m in behind)
        return int(leaves and arrives)
    if kind == "undo" or (kind == "seek" and end < start):
        own, *others = (m.end_s - 1.0 <= start <= m.end_s + 2 * NEAR_S for m in behind)
        latest = marker.end_s if own else marker.start_s + _edge(marker)
        return -int((own or any(others)) and before[0].start_s - NEAR_S <= end < latest)
    if kind == "play":
        common = min(end, marker.end_s) - max(start, marker.start_s)
        return -int(common >= HEARD * marker.duration_s)
    return 0


def _edge(marker: Marker) -> float:
    """Seconds inside a marker that are still its edge."""
    return min(NEAR_S, 0.5 * marker.duration_s)


def _around(marker: Marker, run: Sequence[Marker]) -> tuple[Sequence[Marker], Sequence[Marker]]:
    """The markers of a run up to this one, and from it on."""
    at = next((n for n, m in enumerate(run) if m is marker), None)
    return ([marker], [marker]) if at is None else (run[: at + 1], run[at:])


def _in_runs(markers: Sequence[Marker]) -> list[tuple[Marker, list[Marker]]]:
    """Markers in order, each with those that follow each other with next to nothing between them, such as the ads of a
    break."""
    found: list[list[Marker]] = []
    for marker in sorted(markers, key=lambda m: m.start_s):
        if found and marker.start_s - max(m.end_s for m in found[-1]) <= NEXT_S:
            found[-1].append(marker)
        else:
            found.append([marker])
    return [(marker, run) for run in found for marker in run]


def weighed(episodes: Sequence[MarkedEpisode], events: pa.Table) -> list[MarkedEpisode]:
    """The episodes with confidences that count what listeners did. A marker that they doubt is no longer skipped
    unasked; none is skipped unasked because of them. Events of other audio are left out."""
    by_content = _by_content(events)
    found: list[MarkedEpisode] = []
    for episode in episodes:
        own = _of(episode, by_content)
        if own:
            counted = (_updated(m, [says(e, m, run) for e in own]) for m, run in _in_runs(episode.markers))
            found.append(replace(episode, markers=tuple(counted)))
        else:
            found.append(episode)
    return found


def agreement(episodes: Sequence[MarkedEpisode], events: pa.Table) -> Agreement:
    """Agreement with every other event, when the rest is counted. Events are split by listener where they are named, so
    that nobody is on both sides."""
    by_content = _by_content(events)
    before = after = count = 0
    for episode in episodes:
        own = _of(episode, by_content)
        for marker, run in _in_runs(episode.markers):
            told = [(_left_out(e, n), s) for n, e in enumerate(own) if (s := says(e, marker, run))]
            counted = _updated(marker, [s for out, s in told if not out])
            for out, s in told:
                if out:
                    count += 1
                    before += (marker.confidence >= DOUBTED) == (s > 0)
                    after += (counted.confidence >= DOUBTED) == (s > 0)
    if not count:
        return Agreement(0, None, None, (0.0, 1.0))
    return Agreement(count, before / count, after / count, _wilson(after, count))


def _updated(marker: Marker, said: Sequence[int]) -> Marker:
    for_, against = sum(s > 0 for s in said), sum(s < 0 for s in said)
    if not for_ and not against:
        return marker
    confidence = (PRIOR * marker.confidence + for_) / (PRIOR + for_ + against)
    doubted = against and confidence < DOUBTED
    return replace(marker, confidence=confidence, action="ask" if doubted else marker.action)


def _by_content(events: pa.Table) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in events.to_pylist():
        found[row["content_id"]].append(row)
    return found


def _of(episode: MarkedEpisode, by_content: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = by_content.get(episode.content_id, [])
    return [r for r in rows if r["audio_sha256"] in (None, episode.audio_sha256)]


def _left_out(event: Mapping[str, Any], number: int) -> bool:
    return bool(zlib.crc32(event["listener"].encode()) % 2) if event["listener"] else bool(number % 2)


def _wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Journal of the American Statistical Association 22, 1927)."""
    z, p = 1.96, hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return middle - half, middle + half
