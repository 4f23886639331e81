"""Copies of recordings: where in a content an exemplar is heard, and from where in the exemplar, whatever was done to
its speed, pitch, volume and quality, and whether somebody talks over it.

The means are those that find what a listener can skip (`skips.bank`): patches of sound searched through FAISS, chains
of those on one line, and the evidence frame by frame that both are one sound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from moderation.matches import Match
from skips import bank
from skips.frames import FRAME_S, Extent, Line, Sound, extent, lined_up, monotonous
from skips.join import Chain, Patcher, chains
from skips.patch_index import Patches, PatchIndex

HOP = 3  # frames between an exemplar's patches, 96 ms
HOP_RATIO = 2
ASKED_HOP = HOP_RATIO * HOP  # and between a content's
FAINT = 0.5  # cosine from which a patch may be an exemplar's
CANDIDATES = 12  # exemplars' patches that a patch is compared with
LEAST_S = 3.0  # of a match
# Under noise or a voice no frame is sure. Then patches of a content on one line, and over how many seconds: chance
# reaches 12 over 1.9 s and 10 over 2.7.
LINED_UP, LINED_UP_S = 12, 5.0
# Or patches in a row whose cosines with the exemplar's, on one line, are added up. Over the square root of their number
# that sum must be so much, or so much less half of what either sound reaches elsewhere in the other: of 48,000 pairs of
# tuning recordings that have nothing in common none reaches 2.3 and 1.75; what is heard under a voice, 2.37 and 1.93.
ROW, TOGETHER, HERE_ALONE, ELSEWHERE = 36, 2.7, 1.85, 0.5
APART = 24  # frames from which an offset is another one: patches are of two seconds
SURE = 70.0  # nats
RATE = 0.9  # nats a frame
LIKENESS = 0.4  # of movement


@dataclass
class SoundBank:
    """Exemplars' sound, under ids of the caller's. `patch` makes patches of frames (`embedders.fingerprint`). An
    addition is found by the next `match`."""

    patch: Patcher
    ids: list[str] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._held = PatchIndex.over(Patches.join([]))
        self._patches: list[Patches] = []

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, exemplar_id: str, frames: np.ndarray) -> None:
        """`frames`, uint8 (n, bands), are the exemplar's."""
        number = len(self.ids)
        self.ids.append(exemplar_id)
        self.sounds.append(Sound(frames))
        vectors, at = self.patch(frames, HOP, None)
        own = Patches(vectors, np.full(len(at), number, np.int32), at)
        self._patches.append(own)
        self._held.add(own)

    def match(self, frames: np.ndarray) -> list[Match]:
        """Where exemplars are heard in a recording, in order of time; of one place and exemplar, the surest."""
        vectors, at = self.patch(frames, ASKED_HOP, None)
        if not len(at) or not len(self._held):
            return []
        sound = Sound(frames)
        asked = Patches(vectors, np.zeros(len(at), np.int32), at)
        found = []
        for chain in chains(bank.alike(self._held, asked, FAINT, CANDIDATES)):
            heard = _heard(self.sounds[chain.a], sound, chain)
            if heard is None and (_in_line(chain) or _together(self._patches[chain.a], asked, chain.offset)):
                heard = _lined(self.sounds[chain.a], sound, chain), _chained(chain)
            if heard is not None and not _monotonous(self.sounds[chain.a], heard[1]):
                found.append((chain.a, *heard))
        return [_match(self.ids[number], line, far) for number, line, far in _apart(found)]


def _heard(exemplar: Sound, sound: Sound, chain: Chain) -> tuple[Line, Extent] | None:
    """Where frame by frame it is sure that both are one sound."""
    line = lined_up(exemplar, sound, chain.first, chain.last, Line(1.0, chain.offset))
    far = extent(exemplar, sound, line, chain.first, chain.last) if line else None
    return (line, far) if line and far and _sure(far) else None


def _in_line(chain: Chain) -> bool:
    """Whether no chance puts so many patches on one line for so long."""
    return len(np.unique(chain.there)) >= LINED_UP and (chain.last - chain.first) * FRAME_S >= LINED_UP_S


def _together(theirs: Patches, own: Patches, offset: float) -> bool:
    """Whether a content is all in all like an exemplar that lies `offset` frames before it. Under noise or a voice no
    frame is sure, but all together may be; a beat, though, is like every beat."""
    along = _nearest(theirs.frame, own.frame - offset)
    there = np.abs(theirs.frame[along] - (own.frame - offset)) <= HOP / 2
    cosine = np.where(there, np.einsum("nd,nd->n", own.vectors, theirs.vectors[along]), 0.0)
    count = min(ROW, len(cosine))
    sums = np.concatenate([[0.0], np.cumsum(cosine)])
    first = int(np.argmax(sums[count:] - sums[:-count]))
    row = slice(first, first + count)
    best = float(sums[row.stop] - sums[row.start])
    if best / math.sqrt(ROW) >= TOGETHER:
        return True
    asked = own.vectors[row]
    answered = theirs.vectors[along[row]]
    every = HOP_RATIO * np.arange(count)
    elsewhere = [
        _best_elsewhere(asked @ theirs.vectors.T, every, along[first], APART // HOP),
        _best_elsewhere(answered @ own.vectors.T, np.arange(count), first, APART // ASKED_HOP),
    ]
    return (best - ELSEWHERE * max(elsewhere)) / math.sqrt(ROW) >= HERE_ALONE


def _best_elsewhere(alike: np.ndarray, steps: np.ndarray, here: int, apart: int) -> float:
    """The largest sum of cosines, float32 (rows, columns), along a line that begins `apart` columns or more from `here`
    and goes on by `steps`; 0 where there is none."""
    rows, columns = alike.shape
    sums = np.zeros(columns + steps[-1])
    for row, step in zip(alike, steps, strict=True):
        sums[steps[-1] - step : steps[-1] - step + columns] += row
    begins = np.arange(len(sums)) - steps[-1]
    return float(sums[np.abs(begins - here) >= apart].max(initial=0.0))


def _nearest(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The rows of ascending `places` that are nearest to some others."""
    after = np.clip(np.searchsorted(places, wanted), 1, max(len(places) - 1, 1))
    after = np.minimum(after, len(places) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(wanted - places[before] < places[after] - wanted, before, after)


def _lined(exemplar: Sound, sound: Sound, chain: Chain) -> Line:
    guess = Line(1.0, chain.offset)
    return lined_up(exemplar, sound, chain.first, chain.last, guess) or guess


def _monotonous(exemplar: Sound, far: Extent) -> bool:
    return monotonous(exemplar.movement[int(far.start) : int(far.end)])


def _sure(far: Extent) -> bool:
    long_enough = (far.end - far.start) * FRAME_S >= LEAST_S
    return long_enough and far.sure >= max(SURE, RATE * (far.end - far.start)) and far.score >= LIKENESS


def _chained(chain: Chain) -> Extent:
    """From the middle of the first patch to that of the last."""
    return Extent(float(chain.first), float(chain.last), float(np.mean(chain.alike)), 0.0)


def _apart(found: list[tuple[int, Line, Extent]]) -> list[tuple[int, Line, Extent]]:
    """The surest of those that overlap by half, exemplar by exemplar, in order of time."""
    kept: list[tuple[int, Line, Extent]] = []
    for number, line, far in sorted(found, key=lambda f: -f[2].sure):
        start, end = float(line(far.start)), float(line(far.end))
        taken = [(float(k(e.start)), float(k(e.end))) for n, k, e in kept if n == number]
        if all(min(end, b) - max(start, a) < 0.5 * min(end - start, b - a) for a, b in taken):
            kept.append((number, line, far))
    return sorted(kept, key=lambda k: float(k[1](k[2].start)))


def _match(exemplar: str, line: Line, far: Extent) -> Match:
    start, end = (max(0.0, float(line(edge)) * FRAME_S) for edge in (far.start, far.end))
    score = float(np.clip((far.score + 1) / 2, 0, 1))
    return Match(exemplar, "audio", "fingerprint", score, start, end, max(0.0, far.start * FRAME_S))
