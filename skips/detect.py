"""What a catalogue knows of repeats: added to as recordings come, taken from as they go.

New recordings are first matched with the motifs that are known, and only what those leave is searched for among all
recordings, so that a spot heard a thousand times costs no more than one heard twice.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from skips import bank
from skips.frames import Line, Sounds, lined_up
from skips.join import QUERY_EVERY, SOUGHT_HITS, Hits, Patcher, chains, hits
from skips.motifs import Motif, Occurrence, agree, holds, motifs, occurrence
from skips.overlaps import by_recording
from skips.patch_index import Patches, PatchIndex
from skips.settle import due, settle

BATCH_S = 22 * 3_600.0  # of audio that is compared with each other at a time: it stays in memory
HOP = 6  # frames between a recording's patches, 192 ms
FANOUT = 8  # a part takes in the next one unless it is that many times as long: so there are few


@dataclass(frozen=True)
class Recording:
    """A content's audio. `number` is its own forever; `order` sorts it in its show; `kind` is episode or track."""

    number: int
    content_id: str
    audio_sha256: str
    duration_s: float
    show: str = ""
    order: int = 0
    path: str = ""
    title: str = ""
    kind: str = "episode"


@dataclass
class Known:
    """What is known of a catalogue: its recordings, its motifs with their occurrences, the indexed patches of what is
    not yet known to repeat, the longest part first, and those of the first `banked` motifs."""

    recordings: dict[int, Recording] = field(default_factory=dict)
    motifs: list[Motif] = field(default_factory=list)
    parts: list[PatchIndex] = field(default_factory=list)
    next_number: int = 0  # of a recording; never used twice
    bank: PatchIndex | None = None
    banked: int = 0


def batches(fresh: Sequence[Recording]) -> Iterator[list[Recording]]:
    """Recordings in their order, `BATCH_S` at a time, one at least."""
    batch: list[Recording] = []
    length_s = 0.0
    for recording in fresh:
        if batch and length_s + recording.duration_s > BATCH_S:
            yield batch
            batch, length_s = [], 0.0
        batch.append(recording)
        length_s += recording.duration_s
    if batch:
        yield batch


class Detector:
    """Finds what repeats. `load` gives a recording's frames, uint8 (n, bands); `patch` makes patches of frames."""

    def __init__(self, load: Callable[[int], np.ndarray], patch: Patcher, known: Known | None = None) -> None:
        self.patch, self.known = patch, known or Known()
        self.sounds = Sounds(load)

    def add(self, fresh: Sequence[Recording], told: Callable[[int, int], None] | None = None) -> set[int]:
        """Takes in recordings; returns the numbers of all whose motifs may have changed. `told` hears how many came in
        since it last did, and how many are to."""
        touched: set[int] = set()
        for batch in batches(fresh):
            self.known.recordings |= {r.number: r for r in batch}
            self.known.next_number = max(self.known.next_number, *(r.number + 1 for r in batch))
            touched |= self._add([r.number for r in batch])
            if told:
                told(len(batch), len(fresh))
        return touched

    def remove(self, gone: set[int]) -> set[int]:
        """Withdraws recordings and their support; returns who else is concerned. A motif stays known without any."""
        touched: set[int] = set()
        for number in gone:
            self.known.recordings.pop(number, None)
        for motif in self.known.motifs:
            if any(o.recording in gone for o in motif.occurrences):
                touched |= {o.recording for o in motif.occurrences}
                motif.occurrences = [o for o in motif.occurrences if o.recording not in gone]
        return touched - gone

    def rebuild(self) -> None:
        """Leaves out of the index whatever belongs to recordings that were withdrawn."""
        alive = self._alive()
        rest = Patches.join([part.patches(alive) for part in self.known.parts])
        self.known.parts = [PatchIndex.over(rest)] if len(rest) else []
        self.known.bank = None

    def _add(self, numbers: list[int]) -> set[int]:
        before = {motif.motif_id: len(motif.occurrences) for motif in self.known.motifs}
        fresh = Patches.join([self._patches(number) for number in numbers])
        self._recognise(self.known.motifs, self._bank(), fresh, [])
        rest = fresh.take(~_covered(fresh, self.known.motifs))
        first = self._take(rest)
        found = self._told_apart(self._repeats(rest))
        again = PatchIndex.briefly(bank.patches(found, self.patch))
        self._recognise(found, again, rest.take(~_covered(rest, found)), self.known.motifs)
        self.known.motifs += self._named(found)
        settled = self._settle()
        self._keep(first, _covered(rest, self.known.motifs))
        changed = [m for m in self.known.motifs if len(m.occurrences) != before.get(m.motif_id, 0)]
        return set(numbers) | settled | {o.recording for motif in changed for o in motif.occurrences}

    def _settle(self) -> set[int]:
        """Looks again at motifs that are heard more often than before; returns in which recordings."""
        every = self.known.motifs
        touched: set[int] = set()
        for place in range(len(every)):
            old = every[place]
            if not due(old):
                continue
            touched |= {o.recording for o in old.occurrences}
            new, others = settle(old, self.sounds, by_recording([m for m in every if m is not old]))
            every[place] = new
            every += self._named(self._told_apart(others))
            if new is not old and self.known.bank is not None and place < self.known.banked:
                bank.replace(self.known.bank, place, bank.patches(every[: place + 1], self.patch, place))
        return touched

    def _named(self, found: Sequence[Motif]) -> Sequence[Motif]:
        """Motifs under names that no other has: two may have one clip, of which each is a part."""
        taken = {m.motif_id for m in self.known.motifs}
        for motif in found:
            while motif.motif_id in taken:
                motif.motif_id = hashlib.sha256(motif.motif_id.encode()).hexdigest()[:16]
            taken.add(motif.motif_id)
        return found

    def _patches(self, number: int) -> Patches:
        vectors, at = self.patch(self.sounds[number].frames, HOP, None)
        return Patches(vectors, np.full(len(at), number, np.int32), at)

    def _bank(self) -> PatchIndex:
        """The patches of all motifs, with those added that came since it was last asked for."""
        known = self.known
        if known.bank is None:
            known.bank, known.banked = PatchIndex.over(Patches.join([])), 0
        bank.extend(known.bank, bank.patches(known.motifs, self.patch, known.banked), len(known.motifs))
        known.banked = len(known.motifs)
        return known.bank

    def _recognise(self, known: Sequence[Motif], held: PatchIndex, fresh: Patches, others: Sequence[Motif]) -> None:
        bank.add(known, bank.find(known, held, fresh, self.sounds), others)

    def _take(self, rest: Patches) -> int:
        """Indexes what is new, for it to be sought among itself as well; returns its first row in the last part."""
        parts = self.known.parts
        if parts and len(parts[-1]) < FANOUT * len(rest):
            parts[-1].add(rest, self._alive())
        elif len(rest):
            parts.append(PatchIndex.over(rest))
        return len(parts[-1]) - len(rest) if parts else 0

    def _keep(self, first: int, covered: np.ndarray) -> None:
        """Leaves out of the last part's rows, from the `first` on, those that are now known to repeat; of two parts of
        about one size, the longer one takes in the other."""
        parts, alive = self.known.parts, self._alive()
        if covered.any():
            parts[-1].forget(first + np.flatnonzero(covered))
        while len(parts) > 1 and len(parts[-2]) < FANOUT * len(parts[-1]):
            last = parts.pop()
            parts[-1].add(last.patches(alive), alive)

    def _repeats(self, rest: Patches) -> list[Motif]:
        """Motifs among what is new, and between that and what was there."""
        asked = rest.take(np.arange(0, len(rest), QUERY_EVERY))
        alive = self._alive()
        every = []
        for part in self.known.parts:
            found = hits(part, asked)
            every.append(found.take(alive[found.a] & alive[found.b]))
        if not every:
            return []
        return motifs(agree(chains(Hits.join(every), SOUGHT_HITS), self.sounds), self.sounds)

    def _alive(self) -> np.ndarray:
        """bool by recording number; the last is that of rows that were forgotten."""
        alive = np.zeros(self.known.next_number + 1, bool)
        alive[list(self.known.recordings)] = True
        return alive

    def _told_apart(self, found: list[Motif]) -> list[Motif]:
        """What of the motifs found is new; the rest was a known motif that had gone unrecognised, and goes there."""
        taken: dict[int, list[tuple[Motif, Occurrence]]] = defaultdict(list)
        for motif in self.known.motifs:
            for heard in motif.occurrences:
                taken[heard.recording].append((motif, heard))
        new = []
        for motif in found:
            left = []
            for heard in motif.occurrences:
                if not any(heard.covers(there) for _, there in taken[heard.recording]):
                    left.append(heard)
            meeting = [(k, t, o) for o in motif.occurrences for k, t in taken[o.recording] if o.covers(t)]
            if meeting:
                known, there, here = meeting[0]
                across = there.line.then(here.line.inverse())
                left = [o for o in left if not self._joins(known, o, across.then(o.line))]
            motif.occurrences = left
            if len(left) > 1:
                new.append(motif)
        return new

    def _joins(self, known: Motif, heard: Occurrence, line: Line) -> bool:
        """Adds to a known motif what another motif's line leads to, if that is sure."""
        sound = self.sounds[heard.recording]
        better = lined_up(known.clip, sound, known.start, known.end, line)
        found = occurrence(known, sound, heard.recording, better) if better else None
        if found is None or not holds(found):
            return False
        known.occurrences.append(found)
        return True


def _covered(patches: Patches, known: Sequence[Motif]) -> np.ndarray:
    """bool (n,): whose patches lie in an occurrence."""
    spans: dict[int, list[Occurrence]] = defaultdict(list)
    for motif in known:
        for heard in motif.occurrences:
            spans[heard.recording].append(heard)
    found = np.zeros(len(patches), bool)
    for number in np.unique(patches.recording):
        rows = np.flatnonzero(patches.recording == number)
        for heard in spans.get(int(number), ()):
            found[rows[(patches.frame[rows] > heard.start) & (patches.frame[rows] < heard.end)]] = True
    return found
