"""Copies of recordings: where in a content an exemplar is heard, and from where in the exemplar, whatever was done to
its speed, pitch, volume and quality, and whether somebody talks over it.

The means are those that find what a listener can skip (`skips.bank`): patches of sound searched through FAISS, chains
of those on one line, and the evidence frame by frame that both are one sound.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from moderation.matches import Match
from skips import bank
from skips.frames import FRAME_S, Extent, Line, Sound, extent, lined_up, monotonous
from skips.join import Chain, Patcher, chains
from skips.patch_index import Patches, PatchIndex

HOP = 3  # frames between an exemplar's patches, 96 ms
ASKED_HOP = 6  # and between a content's
FAINT = 0.45  # cosine from which a patch may be an exemplar's
CANDIDATES = 24  # exemplars' patches that a patch is compared with
LEAST_S = 3.0  # of a match
# Patches in a row whose cosines with the exemplar's, on one line, are added up, and what that must be over the square
# root of their number: of 6,600 pairs with nothing in common none reaches 2.05, and ten of them 1.9.
ROW, TOGETHER = 36, 2.3
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
        self._patches: list[tuple[np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, exemplar_id: str, frames: np.ndarray) -> None:
        """`frames`, uint8 (n, bands), are the exemplar's."""
        number = len(self.ids)
        self.ids.append(exemplar_id)
        self.sounds.append(Sound(frames))
        vectors, at = self.patch(frames, HOP, None)
        self._patches.append((vectors.astype(np.float16), at))
        self._held.add(Patches(vectors, np.full(len(at), number, np.int32), at))

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
            if heard is None and _together(*self._patches[chain.a], vectors, at, chain.offset) >= TOGETHER:
                heard = _lined(self.sounds[chain.a], sound, chain), _chained(chain)
            if heard is not None and not _monotonous(self.sounds[chain.a], heard[1]):
                found.append((chain.a, *heard))
        return [_match(self.ids[number], line, far) for number, line, far in _apart(found)]


def _heard(exemplar: Sound, sound: Sound, chain: Chain) -> tuple[Line, Extent] | None:
    """Where frame by frame it is sure that both are one sound."""
    line = lined_up(exemplar, sound, chain.first, chain.last, Line(1.0, chain.offset))
    far = extent(exemplar, sound, line, chain.first, chain.last) if line else None
    return (line, far) if line and far and _sure(far) else None


def _together(theirs: np.ndarray, their_at: np.ndarray, own: np.ndarray, own_at: np.ndarray, offset: float) -> float:
    """How much alike a content is to an exemplar that lies `offset` frames before it, where it is so most: under noise
    or a voice no frame is sure, but all together may be. Patches are unit vectors (n, dim) and their frames."""
    wanted = own_at - offset
    after = np.clip(np.searchsorted(their_at, wanted), 1, len(their_at) - 1)
    nearest = after - (wanted - their_at[after - 1] < their_at[after] - wanted)
    there = np.abs(their_at[nearest] - wanted) <= HOP / 2
    cosine = np.where(there, np.einsum("nd,nd->n", own, theirs[nearest].astype(np.float32)), 0.0)
    sums = np.concatenate([[0.0], np.cumsum(cosine)])
    count = min(ROW, len(cosine))
    return float((sums[count:] - sums[:-count]).max() / np.sqrt(ROW))


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
