"""What listeners did tells whether a marker is right: a table of player events raises or lowers its confidence.

A marker's confidence is the mean of a beta distribution worth `PRIOR` events; events for and against it are added
(Gelman et al., Bayesian Data Analysis, 2.4). Agreement is measured on events that were left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import CatalogError
from skips.markers import MarkedEpisode, Marker

EVENTS = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("event", pa.string(), nullable=False),  # skip, seek, undo, play
        pa.field("from_s", pa.float64(), nullable=False),
        pa.field("to_s", pa.float64(), nullable=False),
        pa.field("listener", pa.string()),
        pa.field("audio_sha256", pa.string()),
    ]
)
KINDS = ("skip", "seek", "undo", "play")
PRIOR = 10.0  # events that a marker's own confidence is worth
NEAR_S = 5.0  # from a marker's edges, within which a jump is about it
HEARD = 0.9  # share of a marker that was played through
DOUBTED = 0.5  # confidence below which nothing is skipped unasked


@dataclass(frozen=True)
class Agreement:
    """How well confidence foretells what listeners did: of `events` left out, the share that agrees (a marker of .5 or
    more is skipped, another heard), before and after the others were counted, with Wilson's interval of the latter."""

    events: int
    before: float
    after: float
    interval: tuple[float, float]


def checked(table: pa.Table) -> pa.Table:
    """The table with the columns and types of `EVENTS`; `listener` and `audio_sha256` may lack. Raises `CatalogError`
    naming the column or the first row that is wrong."""
    missing = [f.name for f in EVENTS if not f.nullable and f.name not in table.column_names]
    if missing:
        raise CatalogError(f"the events have no column {', '.join(missing)}; there is {', '.join(table.column_names)}")
    twice = [f.name for f in EVENTS if table.column_names.count(f.name) > 1]
    if twice:
        raise CatalogError(f"the events have more than one column {', '.join(twice)}")
    columns = []
    for field in EVENTS:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(pc.cast(table[field.name], field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise CatalogError(f"the events' column {field.name} cannot be read as {field.type}: {error}") from error
    found = pa.Table.from_arrays(columns, schema=pa.schema([f.with_nullable(True) for f in EVENTS]))
    for number, row in enumerate(found.to_pylist(), 1):
        if any(row[f.name] is None for f in EVENTS if not f.nullable):
            raise CatalogError(f"row {number} of the events lacks a value")
        if row["event"] not in KINDS:
            raise CatalogError(f"row {number} of the events: {row['event']!r} is none of {', '.join(KINDS)}")
        if not (math.isfinite(row["from_s"]) and math.isfinite(row["to_s"])):
            raise CatalogError(f"row {number} of the events: its times are not finite")
    return found


def says(event: Mapping[str, Any], marker: Marker) -> int:
    """1 where an event speaks for a marker, -1 where it speaks against it, 0 where it is about something else.

    For it: a jump from around its start to around its end or beyond. Against it: playing nearly all of it, or taking
    back a skip of it.
    """
    start, end = event["from_s"], event["to_s"]
    kind = event["event"]
    if kind in ("skip", "seek") and end > start:
        leaves = marker.start_s - NEAR_S <= start <= marker.start_s + min(NEAR_S, 0.5 * marker.duration_s)
        arrives = marker.end_s - min(NEAR_S, 0.5 * marker.duration_s) <= end <= marker.end_s + 2 * NEAR_S
        return int(leaves and arrives)
    if kind == "undo" or (kind == "seek" and end < start):
        leaves = marker.end_s - 1.0 <= start <= marker.end_s + 2 * NEAR_S
        return -int(leaves and marker.start_s - NEAR_S <= end < marker.end_s)
    if kind == "play":
        common = min(end, marker.end_s) - max(start, marker.start_s)
        return -int(common >= HEARD * marker.duration_s)
    return 0


def weighed(episodes: Sequence[MarkedEpisode], events: pa.Table) -> list[MarkedEpisode]:
    """The episodes with confidences that count what listeners did. A marker that they doubt is no longer skipped
    unasked; none is skipped unasked because of them. Events of other audio are left out."""
    by_content = _by_content(events)
    found = []
    for episode in episodes:
        own = _of(episode, by_content)
        markers = tuple(_updated(m, [says(e, m) for e in own]) for m in episode.markers) if own else episode.markers
        found.append(replace(episode, markers=markers))
    return found


def agreement(episodes: Sequence[MarkedEpisode], events: pa.Table) -> Agreement:
    """Agreement with every other event, when the rest is counted. Events are split by listener where they are named, so
    that nobody is on both sides."""
    by_content = _by_content(events)
    before = after = count = 0
    for episode in episodes:
        own = _of(episode, by_content)
        for marker in episode.markers:
            told = [(_left_out(e, n), s) for n, e in enumerate(own) if (s := says(e, marker))]
            counted = _updated(marker, [s for out, s in told if not out])
            for out, s in told:
                if out:
                    count += 1
                    before += (marker.confidence >= DOUBTED) == (s > 0)
                    after += (counted.confidence >= DOUBTED) == (s > 0)
    if not count:
        return Agreement(0, math.nan, math.nan, (0.0, 1.0))
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
    import zlib

    return bool(zlib.crc32(event["listener"].encode()) % 2) if event["listener"] else bool(number % 2)


def _wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Journal of the American Statistical Association 22, 1927)."""
    z, p = 1.96, hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return middle - half, middle + half
