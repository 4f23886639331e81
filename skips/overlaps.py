"""What the occurrences of some motifs leave to others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skips.motifs import Motif, Occurrence, Pair

Heard = Mapping[int, Sequence["Occurrence"]]  # by the number of their recording


def by_recording(found: Sequence[Motif]) -> Heard:
    heard: dict[int, list[Occurrence]] = defaultdict(list)
    for motif in found:
        for o in motif.occurrences:
            heard[o.recording].append(o)
    return heard


def outside(pairs: Sequence[Pair], heard: Heard, least: float) -> list[Pair]:
    """What occurrences leave of pairs, pieces of `least` frames or more; a pair that they leave whole comes back as it
    is."""
    left = []
    for pair in pairs:
        spans = [(o.start, o.end) for o in heard.get(pair.a, ())]
        back = pair.line.inverse()
        spans += [(float(back(o.start)), float(back(o.end))) for o in heard.get(pair.b, ())]
        pieces = [(pair.start, pair.end)]
        for low, high in spans:
            pieces = [p for s, e in pieces for p in ((s, min(e, low)), (max(s, high), e)) if p[1] - p[0] > 0]
        if pieces == [(pair.start, pair.end)]:
            left.append(pair)
        else:
            left += [replace(pair, start=s, end=e) for s, e in pieces if e - s >= least]
    return left


def kept_apart(motif: Motif, heard: Heard) -> None:
    """Leaves out of a motif's occurrences those that others hold half of, and of the motif what others hold of any of
    the rest: its edges were sought beyond what was left to it."""
    motif.occurrences = [o for o in motif.occurrences if _mostly_new(o, heard.get(o.recording, ()))]
    start, end = motif.start, motif.end
    for o in motif.occurrences:
        back = o.line.inverse()
        for known in heard.get(o.recording, ()):
            if o.start < known.end < o.end:
                start = max(start, float(back(known.end)))
            elif o.start < known.start < o.end:
                end = min(end, float(back(known.start)))
    if end <= start:
        motif.occurrences = []
    elif (start, end) != (motif.start, motif.end):
        motif.start, motif.end = start, end
        motif.occurrences = [_cut(o, start, end) for o in motif.occurrences]


def _mostly_new(found: Occurrence, known: Sequence[Occurrence]) -> bool:
    common = [min(found.end, k.end) - max(found.start, k.start) for k in known]
    return max(common, default=0.0) < 0.5 * (found.end - found.start)


def _cut(heard: Occurrence, start: float, end: float) -> Occurrence:
    """What is heard of frames `start` to `end` of the motif's clip."""
    back = heard.line.inverse()
    first, last = max(start, float(back(heard.start))), min(end, float(back(heard.end)))
    part = ((first - start) / (end - start), (last - start) / (end - start))
    return replace(heard, start=float(heard.line(first)), end=float(heard.line(last)), part=part)
