"""Known motifs sought in recordings: few patches, so that even faint likeness counts, whatever is heard how often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from skips.frames import FRAME_S, Line, Sounds, lined_up
from skips.join import Hits, Patcher, chains
from skips.motifs import Motif, Occurrence, holds, occurrence
from skips.patch_index import GONE, Patches, PatchIndex

HOP = 3  # frames between a motif's patches, 96 ms: half of a recording's
INSIDE = 20  # frames that a patch's centre keeps from a motif's edge
ASK_EVERY = 2  # every second patch of a recording asks
FAINT = 0.5  # cosine from which a patch may be one of a motif's
CHANCE, PLAUSIBLE = 0.45, 1.0  # what a chain's cosines sum up to beyond chance: half of chance chains less, spots 1.6
CANDIDATES = 12  # of a motif's patches that a patch is compared with exactly
LEAST_S = 3.0


def patches(known: Sequence[Motif], patch: Patcher, first: int = 0) -> Patches:
    """The patches of motifs from the `first` on; `recording` is the motif's place in `known`."""
    parts = []
    for number, motif in enumerate(known[first:], first):
        vectors, at = patch(motif.clip.frames, HOP, motif.clip.loud)
        keep = (at >= motif.start + INSIDE) & (at <= motif.end - INSIDE)
        parts.append(Patches(vectors[keep], np.full(int(keep.sum()), number, np.int32), at[keep]))
    return Patches.join(parts)


def extend(held: PatchIndex, more: Patches, count: int) -> None:
    """Adds patches of motifs, of which there are `count` then."""
    alive = np.ones(count + 1, bool)
    alive[GONE] = False
    held.add(more, alive)


def replace(held: PatchIndex, place: int, patches: Patches) -> None:
    """Puts other patches in the place of a motif's."""
    held.forget(np.flatnonzero(held.recording == place))
    extend(held, patches, int(held.recording.max(initial=place)) + 1)


def find(known: Sequence[Motif], held: PatchIndex, asked: Patches, sounds: Sounds) -> dict[int, list[Occurrence]]:
    """Occurrences of motifs, by their place in `known`, in the recordings of the patches `asked`. `held` are the
    motifs' patches."""
    found: dict[int, list[Occurrence]] = defaultdict(list)
    if not len(held) or not len(asked):
        return found
    some = asked.take(np.arange(0, len(asked), ASK_EVERY))
    candidates = [chain for chain in chains(alike(held, some)) if (chain.alike - CHANCE).sum() > PLAUSIBLE]
    for chain in sorted(candidates, key=lambda c: c.b):  # each recording is loaded once
        motif, sound = known[chain.a], sounds[chain.b]
        line = lined_up(motif.clip, sound, chain.first, chain.last, Line(1.0, chain.offset))
        heard = occurrence(motif, sound, chain.b, line) if line else None
        if heard is not None and holds(heard):
            found[chain.a].append(heard)
    return found


def alike(held: PatchIndex, asked: Patches, least: float = FAINT, candidates: int = CANDIDATES) -> Hits:
    """Where the patches `asked` may sound like some of `held`, of which each is compared with the nearest `candidates`:
    side `a` is what is held."""
    alike, rows = held.search(asked.vectors, candidates)
    query = np.repeat(np.arange(len(asked)), rows.shape[1])
    alike, rows = alike.ravel(), rows.ravel()
    keep = (rows >= 0) & (alike > least)
    keep[keep] = held.recording[rows[keep]] != GONE
    query, rows, alike = query[keep], rows[keep], alike[keep]
    return Hits(held.recording[rows], asked.recording[query], held.frame[rows], asked.frame[query], alike)


def add(
    known: Sequence[Motif], found: Mapping[int, Iterable[Occurrence]], others: Iterable[Motif] = ()
) -> list[Occurrence]:
    """Adds to the motifs what lies where neither they nor `others` are heard, the surest first; returns that."""
    taken: dict[int, list[Occurrence]] = defaultdict(list)
    for motif in (*known, *others):
        for heard in motif.occurrences:
            taken[heard.recording].append(heard)
    fresh = []
    every = [(number, heard) for number, heards in found.items() for heard in heards]
    for number, heard in sorted(every, key=lambda e: -e[1].sure):
        if (heard.end - heard.start) * FRAME_S < LEAST_S or any(heard.covers(o) for o in taken[heard.recording]):
            continue
        taken[heard.recording].append(heard)
        known[number].occurrences.append(heard)
        fresh.append(heard)
    return fresh
