"""Recordings that are versions of one episode: the same file, the same with other ads put in, one within another. What
only they share is the episode itself, and whatever they say is said once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from skips.detect import Known
from skips.frames import FRAME_S

SHARED = 2 / 3  # of what sounds in a recording: spots, even many of them, are less of it


def versions(known: Known, silences: Mapping[int, Sequence[tuple[float, float, bool]]]) -> dict[int, int]:
    """The number of every recording that is no track → the least number of those that are versions of it: itself, where
    none is. `silences` are (start, end, steady) by recording."""
    sounding = {
        n: r.duration_s - sum(end - start for start, end, _ in silences.get(n, ()))
        for n, r in known.recordings.items()
        if r.kind != "track"
    }
    same = {n: n for n in sounding}

    def first(number: int) -> int:
        while same[number] != number:
            same[number] = number = same[same[number]]
        return number

    def join(one: int, other: int) -> None:
        low, high = sorted((first(one), first(other)))
        same[high] = low

    by_bytes: dict[str, int] = {}
    for n in sounding:
        if sha256 := known.recordings[n].audio_sha256:
            join(n, by_bytes.setdefault(sha256, n))
    holders = _holders(known, sounding)
    for n, those in holders.items():
        for other in those:
            if n in holders.get(other, ()):
                join(n, other)
    # A trailer or a jingle by itself lies in every episode, and makes no versions of them: only what one episode alone
    # holds, in whatever versions, is a part of it.
    for n, those in sorted(holders.items(), key=lambda held: -sounding[held[0]]):
        if len({first(other) for other in those}) == 1:
            join(n, those[0])
    return {n: first(n) for n in sounding}


def _holders(known: Known, sounding: Mapping[int, float]) -> dict[int, list[int]]:
    """Recording → those that have most of what sounds in it."""
    # Recording → motif → how long it is heard there.
    seconds: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    holders: dict[int, set[int]] = defaultdict(set)
    for number, motif in enumerate(known.motifs):
        for o in motif.occurrences:
            if o.recording in sounding:
                seconds[o.recording][number] += (o.end - o.start) * FRAME_S
                holders[number].add(o.recording)
    found: dict[int, list[int]] = {}
    for n, own in seconds.items():
        least = SHARED * sounding[n]
        if sum(own.values()) < least:
            continue  # of nearly every recording, which saves comparing it with all that have its intro
        shared: dict[int, float] = defaultdict(float)
        for number, heard in own.items():
            for other in holders[number] - {n}:
                shared[other] += min(heard, seconds[other][number])
        found[n] = [other for other, common in shared.items() if common >= least]
    return {n: those for n, those in found.items() if those}
