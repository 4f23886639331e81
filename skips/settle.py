"""Motifs looked at again when they are heard more often than before.

Two occurrences cannot tell one spot from two that happened to follow each other both times, nor where exactly it ends;
the third does. So what was found when a show had two episodes is found anew when it has three, four, six and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from skips.frames import FRAME_S, Line, Sounds, lined_up
from skips.join import Chain
from skips.motifs import MISSING, REST_S, WHOLE, Motif, Occurrence, agree, holds, motifs, occurrence
from skips.overlaps import Heard, kept_apart, outside

MORE = 1.5  # times as many occurrences as when a motif was last looked at
ENOUGH = 12  # occurrences after which nothing changes any more
COMPARED = 6  # occurrences, the surest, that are compared each with each
KEPT = 0.75  # share of its length that is left of a motif whose occurrences are whole, or it stays as it is
MOSTLY = 0.75  # share of its occurrences that must have what a motif takes from others
STEP = 16  # frames between the made-up hits of a chain


def due(motif: Motif) -> bool:
    return motif.settled < ENOUGH and len(motif.occurrences) >= max(MORE * motif.settled, 3)


def settle(motif: Motif, sounds: Sounds, taken: Heard) -> tuple[Motif, list[Motif]]:
    """The motif as all its occurrences have it, under its name, and what else they turn out to share. What other
    motifs have `taken`, by recording, is left to them, unless most occurrences have it: then it was part of this."""
    motif.settled = len(motif.occurrences)
    chosen = sorted((o for o in motif.occurrences if _telling(motif, o)), key=lambda o: -o.sure)[:ENOUGH]
    pairs = agree([_chain(*pair) for pair in _compared(chosen)], sounds)
    found = motifs(pairs, sounds)
    main = _main(motif, found)
    if main is None or sum(map(_whole, main.occurrences)) < MOSTLY * len(main.occurrences):
        found = motifs(outside(pairs, taken, REST_S / FRAME_S), sounds)
        for m in found:
            kept_apart(m, taken)
        found = [m for m in found if len(m.occurrences) > 1]
        main = _main(motif, found)
    if main is None or (main.duration_s < KEPT * motif.duration_s and all(map(_whole, chosen))):
        return motif, []
    meeting = [(o, p) for o in main.occurrences for p in motif.occurrences if o.covers(p)]
    if not meeting:
        return motif, []
    here, there = meeting[0]
    across = here.line.then(there.line.inverse())  # from the new clip to the old one
    for o in motif.occurrences:
        if not any(_among(o, m.occurrences) for m in found) and (again := _again(main, o, across, sounds)):
            main.occurrences.append(again)
    main.occurrences.sort(key=lambda o: (o.recording, o.start))
    main.motif_id, main.settled = motif.motif_id, motif.settled
    return main, [m for m in found if m is not main]


def _main(motif: Motif, found: Sequence[Motif]) -> Motif | None:
    """The one of some motifs that most of another's occurrences lie in, the longest of several."""
    met = [(sum(_among(o, m.occurrences) for o in motif.occurrences), m.duration_s, n) for n, m in enumerate(found)]
    return found[max(met)[2]] if met else None


def _whole(heard: Occurrence) -> bool:
    return heard.part[1] - heard.part[0] >= WHOLE


def _telling(motif: Motif, heard: Occurrence) -> bool:
    """Whether what an occurrence lacks of the motif could be something of its own: a part that lacks less is a part."""
    lacking = (heard.part[0] * motif.duration_s, (1 - heard.part[1]) * motif.duration_s)
    return all(lacks < MISSING * FRAME_S or lacks >= REST_S for lacks in lacking)


def _compared(chosen: Sequence[Occurrence]) -> list[tuple[Occurrence, Occurrence]]:
    """The surest few each with each, and the others with the surest two."""
    return [(chosen[i], chosen[j]) for i, j in combinations(range(len(chosen)), 2) if j < COMPARED or i < 2]


def _chain(one: Occurrence, other: Occurrence) -> Chain:
    """Two occurrences as if search had found them."""
    one, other = sorted((one, other), key=lambda o: (o.recording, o.start))
    line = one.line.inverse().then(other.line)
    at = np.arange(one.start, one.end, STEP)
    return Chain(
        one.recording, other.recording, one.start, one.end, at, np.asarray(line(at)), np.ones(len(at), np.float32)
    )


def _among(heard: Occurrence, others: Sequence[Occurrence]) -> bool:
    return any(heard.covers(o) for o in others)


def _again(main: Motif, heard: Occurrence, across: Line, sounds: Sounds) -> Occurrence | None:
    """An occurrence of the old motif as one of the new, where it is."""
    sound = sounds[heard.recording]
    guess = across.then(heard.line)
    back = guess.inverse()
    first, last = max(main.start, float(back(heard.start))), min(main.end, float(back(heard.end)))
    line = lined_up(main.clip, sound, first, last, guess)
    found = occurrence(main, sound, heard.recording, line) if line else None
    return found if found is not None and holds(found) else None
