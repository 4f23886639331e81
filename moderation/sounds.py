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
from skips.frames import FRAME_S, Extent, Line, Sound, best_run, extent, lined_up, monotonous
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
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, exemplar_id: str, frames: np.ndarray) -> None:
        """`frames`, uint8 (n, bands), are the exemplar's."""
        number = len(self.ids)
        self.ids.append(exemplar_id)
        self.sounds.append(Sound(frames))
        vectors, at = self.patch(frames, HOP, None)
        own = Patches(vectors, np.full(len(at), number, np.int32), at)
        self._rows.append(_Row.of(own, HOP))
        self._held.add(own)

    def match(self, frames: np.ndarray) -> list[Match]:
        """Where exemplars are heard in a recording, in order of time; of one place and exemplar, the surest."""
        vectors, at = self.patch(frames, ASKED_HOP, None)
        if not len(at) or not len(self._held):
            return []
        sound = Sound(frames)
        asked = Patches(vectors, np.zeros(len(at), np.int32), at)
        own, found = _Row.of(asked, ASKED_HOP), []
        for chain in chains(bank.alike(self._held, asked, FAINT, CANDIDATES)):
            exemplar = self.sounds[chain.a]
            heard = _heard(exemplar, sound, chain)
            if heard is None:
                far = _in_line(chain) or _together(self._rows[chain.a], own, chain.offset)
                heard = (_lined(exemplar, sound, chain), far) if far else None
            if heard is not None and not _monotonous(exemplar, heard[1]):
                found.append((chain.a, *heard))
        return [_match(self.ids[number], line, far) for number, line, far in _apart(found)]


def _heard(exemplar: Sound, sound: Sound, chain: Chain) -> tuple[Line, Extent] | None:
    """Where frame by frame it is sure that both are one sound."""
    line = lined_up(exemplar, sound, chain.first, chain.last, Line(1.0, chain.offset))
    far = extent(exemplar, sound, line, chain.first, chain.last) if line else None
    return (line, far) if line and far and _sure(far) else None


def _in_line(chain: Chain) -> Extent | None:
    """From the middle of the first patch to that of the last, where no chance puts so many on one line for so long."""
    if len(np.unique(chain.there)) < LINED_UP or (chain.last - chain.first) * FRAME_S < LINED_UP_S:
        return None
    return Extent(float(chain.first), float(chain.last), float(np.mean(chain.alike)), 0.0)


@dataclass(frozen=True)
class _Row:
    """Patches at even distances: `vectors`, float32 (n, dim), from frame `first` on, every `hop` frames; zeros where
    nothing moves."""

    vectors: np.ndarray
    first: int
    hop: int

    @classmethod
    def of(cls, patches: Patches, hop: int) -> _Row:
        if not len(patches):
            return cls(patches.vectors, 0, hop)
        first = int(patches.frame[0])
        vectors = np.zeros(((int(patches.frame[-1]) - first) // hop + 1, patches.vectors.shape[1]), np.float32)
        vectors[(patches.frame - first) // hop] = patches.vectors
        return cls(vectors, first, hop)


def _together(theirs: _Row, own: _Row, offset: float) -> Extent | None:
    """Where, in its frames, an exemplar that lies `offset` frames before a content is all in all like it; None where it
    is not. Under noise or a voice no frame is sure, but all together may be; a beat, though, is like every beat."""
    begins = round((own.first - offset - theirs.first) / theirs.hop)
    along = begins + HOP_RATIO * np.arange(len(own.vectors))
    there = (along >= 0) & (along < len(theirs.vectors))
    answers = np.zeros_like(own.vectors)
    answers[there] = theirs.vectors[along[there]]
    cosine = np.einsum("nd,nd->n", own.vectors, answers).astype(np.float64)
    count = min(ROW, len(cosine))
    sums = np.concatenate([[0.0], np.cumsum(cosine)])
    first = int(np.argmax(sums[count:] - sums[:-count]))
    row = slice(first, first + count)
    best = float(cosine[row].sum())
    if best < TOGETHER * math.sqrt(ROW):
        elsewhere = max(
            _best_elsewhere(own.vectors[row] @ theirs.vectors.T, HOP_RATIO, along[first], APART // theirs.hop),
            _best_elsewhere(answers[row] @ own.vectors.T, 1, first, APART // own.hop),
        )
        if best - ELSEWHERE * elsewhere < HERE_ALONE * math.sqrt(ROW):
            return None
    low, high = best_run(cosine[row] - cosine[row].mean() / 2)
    start, end = (float(theirs.first + theirs.hop * along[first + place]) for place in (low, high - 1))
    return Extent(start, end, best / count, 0.0) if (end - start) * FRAME_S >= LEAST_S else None


def _best_elsewhere(alike: np.ndarray, step: int, here: int, apart: int) -> float:
    """The largest sum of cosines, float32 (rows, columns), along a line that begins `apart` columns or more from `here`
    and goes on by `step` a row; 0 where there is none."""
    rows, columns = alike.shape
    before = step * (rows - 1)  # columns that a line may begin before the first
    sums = np.zeros(columns + before)
    for number, row in enumerate(alike):
        shift = before - step * number
        sums[shift : shift + columns] += row
    begins = np.arange(len(sums)) - before
    return float(sums[np.abs(begins - here) >= apart].max(initial=0.0))


def _lined(exemplar: Sound, sound: Sound, chain: Chain) -> Line:
    guess = Line(1.0, chain.offset)
    return lined_up(exemplar, sound, chain.first, chain.last, guess) or guess


def _monotonous(exemplar: Sound, far: Extent) -> bool:
    return monotonous(exemplar.movement[int(far.start) : int(far.end)])


def _sure(far: Extent) -> bool:
    long_enough = (far.end - far.start) * FRAME_S >= LEAST_S
    return long_enough and far.sure >= max(SURE, RATE * (far.end - far.start)) and far.score >= LIKENESS


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
