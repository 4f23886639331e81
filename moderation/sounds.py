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
FAINT = 0.5  # cosine from which a patch may be an exemplar's
CANDIDATES = 12  # exemplars' patches that a patch is compared with
LEAST_S = 3.0  # of a match
# Patches of a content on one line, and over how many seconds: chance reaches 12 over 1.9 s and 10 over 2.7.
LINED_UP, LINED_UP_S = 12, 5.0
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

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, exemplar_id: str, frames: np.ndarray) -> None:
        """`frames`, uint8 (n, bands), are the exemplar's."""
        number = len(self.ids)
        self.ids.append(exemplar_id)
        self.sounds.append(Sound(frames))
        vectors, at = self.patch(frames, HOP, None)
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
            if heard is not None:
                found.append((chain.a, *heard))
        return [_match(self.ids[number], line, far) for number, line, far in _apart(found)]


def _heard(exemplar: Sound, sound: Sound, chain: Chain) -> tuple[Line, Extent] | None:
    line = lined_up(exemplar, sound, chain.first, chain.last, Line(1.0, chain.offset))
    far = extent(exemplar, sound, line, chain.first, chain.last) if line else None
    if far is None or not _sure(far):
        # Under noise or a voice no frame is sure, but no chance puts so many patches on one line for so long.
        if len(np.unique(chain.there)) < LINED_UP or (chain.last - chain.first) * FRAME_S < LINED_UP_S:
            return None
        line, far = line or Line(1.0, chain.offset), _chained(chain)
    if line is None or monotonous(exemplar.movement[int(far.start) : int(far.end)]):
        return None
    return line, far


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
