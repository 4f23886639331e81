"""From pairs of recordings that agree to motifs: what recurs, where it begins and ends, and where it is heard.

Each recording's stretches are voted by the pairs that name them (`skips.stretches`); stretches that pairs link are one
motif. One occurrence is the motif's template. Its edges are where the evidence of all other occurrences together turns,
and are projected onto each of them, which mends those that a fade or a voice blurs.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter1d

from skips.frames import (
    FRAME_S,
    NEAR,
    Extent,
    Line,
    Sound,
    Sounds,
    agreement,
    best_run,
    edge,
    extent,
    lined_up,
    monotonous,
)
from skips.join import Chain
from skips.overlaps import by_recording, kept_apart, outside
from skips.stretches import REST_S, Stretch, stretches

LEAST_S = 3.5  # of a stretch: shorter ones are phrases
SPLIT_S = 8.0  # a chain that long may be two
DEPTH = 3  # how often a chain is cut
SURE = 60.0  # nats of a pair
FITS = ((0.62, 1.5), (0.5, 2.3))  # mean likeness of a pair and its nats a frame: less of one asks for more of the other
WHOLE = 0.85  # share of a motif from which an occurrence counts as all of it
WHOLE_SURE = 1.1  # nats a frame that all of a motif needs: phrases in one voice reach .8
PART_SURE, PART_LIKENESS = 2.0, 0.72  # what a part needs: phrases are parts of something, too
LINKED = 0.5  # share of the shorter of two stretches that a pair must hold to link them
SURELY = 31  # frames, 1 s, over which another sound is told from a blurred one
JURY = 24  # occurrences that an edge is sought with
MARGIN = 96  # frames around a motif that its clip has, 3 s
EDGE = 94  # frames around a template that the jury hears, 3 s
MISSING = 78  # frames that must be lacking before an occurrence counts as a part, 2.5 s
DIFFERENT = -1.6  # nats a frame below which a stretch is another sound


@dataclass(frozen=True)
class Pair:
    """Frames `start` to `end` of recording `a`, and where `line` takes them in `b`, are one sound."""

    a: int
    b: int
    start: float
    end: float
    line: Line
    score: float
    sure: float

    def side(self, which: int) -> tuple[int, float, float]:
        """Recording, first and last frame of a side."""
        if which == 0:
            return self.a, self.start, self.end
        return self.b, float(self.line(self.start)), float(self.line(self.end))


def agree(found: Sequence[Chain], sounds: Sounds) -> list[Pair]:
    """The chains whose recordings agree frame by frame, and how far. What a chain holds beyond that is tried by itself:
    two spots one after the other in both recordings make one chain, though one may play faster."""
    pairs = []
    waiting = [(chain, 0, -np.inf, np.inf) for chain in found]
    while waiting:
        chain, depth, low, high = waiting.pop()
        one, other = sounds[chain.a], sounds[chain.b]
        line = lined_up(one, other, chain.first, chain.last, Line(1.0, chain.offset))
        far = extent(one, other, line, chain.first, chain.last, low, high) if line else None
        middle = (chain.first + chain.last) / 2
        if line and far and _sure(far):
            if far.end - far.start >= LEAST_S / FRAME_S:
                pairs.append(Pair(chain.a, chain.b, far.start, far.end, line, far.score, far.sure))
            cuts = [(low, far.start), (far.end, high)]
        else:
            cuts = [(low, middle), (middle, high)] if chain.last - chain.first > SPLIT_S / FRAME_S else []
        if depth < DEPTH:
            waiting += [(piece, depth + 1, *cut) for cut in cuts if (piece := chain.between(*cut))]
    return pairs


def _sure(far: Extent) -> bool:
    rate = far.sure / (far.end - far.start)
    return far.sure >= SURE and any(far.score >= score and rate >= least for score, least in FITS)


@dataclass(frozen=True)
class Occurrence:
    """Where a motif is heard: frames `start` to `end` of a recording play `part` (shares) of it, on `line` from the
    frames of its clip. `score` is the mean likeness of movement, `sure` the evidence in nats."""

    recording: int
    start: float
    end: float
    line: Line
    score: float
    sure: float
    part: tuple[float, float] = (0.0, 1.0)

    def covers(self, other: Occurrence, share: float = 0.5) -> bool:
        """Whether the two overlap by more than a share of the shorter one."""
        if self.recording != other.recording:
            return False
        common = min(self.end, other.end) - max(self.start, other.start)
        return common > share * min(self.end - self.start, other.end - other.start)


@dataclass
class Motif:
    """What recurs: frames `start` to `end` of `clip`, a piece of the recording `source` with some seconds around it,
    and its occurrences. `motif_id` stays when recordings come and go; `settled` is how many occurrences it had when it
    was last looked at as a whole."""

    clip: Sound
    start: float
    end: float
    source: int
    occurrences: list[Occurrence]
    motif_id: str = ""
    settled: int = 0

    def __post_init__(self) -> None:
        self.settled = self.settled or len(self.occurrences)
        self.motif_id = self.motif_id or hashlib.sha256(self.clip.frames.tobytes()).hexdigest()[:16]

    @property
    def duration_s(self) -> float:
        return (self.end - self.start) * FRAME_S


def clipped_anew(motif: Motif, sounds: Sounds) -> bool:
    """Takes the clip from another whole occurrence than its source, which is to be forgotten; False where there is
    none. The name and all lines stay right."""
    whole = [o for o in motif.occurrences if o.recording != motif.source and o.part[1] - o.part[0] > 0.95]
    if not whole:
        return False
    best = max(whole, key=lambda o: o.score)
    sound = sounds[best.recording]
    low, high = max(0, int(best.start) - MARGIN), min(len(sound), int(best.end) + MARGIN)
    back = best.line.inverse().later(low)  # from the new clip's frames to the old one's
    ahead = back.inverse()
    motif.clip = Sound(sound.frames[low:high].copy(), sound.loud)
    motif.start, motif.end = max(0.0, float(ahead(motif.start))), min(high - low - 1.0, float(ahead(motif.end)))
    motif.source = best.recording
    motif.occurrences = [replace(o, line=back.then(o.line)) for o in motif.occurrences]
    return True


def motifs(pairs: Sequence[Pair], sounds: Sounds) -> list[Motif]:
    """The motifs that the pairs make, with at least two occurrences each. What pairs share beyond these is tried again
    by itself: a recap behind the intro, in the two episodes that have both."""
    found = _motifs(pairs, sounds)
    heard, whole = by_recording(found), set(map(id, pairs))
    for motif in _motifs([p for p in outside(pairs, heard, REST_S / FRAME_S) if id(p) not in whole], sounds):
        kept_apart(motif, heard)
        if len(motif.occurrences) > 1:
            found.append(motif)
    for motif in found:
        motif.settled = len(motif.occurrences)
    return found


def _motifs(pairs: Sequence[Pair], sounds: Sounds) -> list[Motif]:
    found = stretches(pairs)
    links = _links(pairs, found)
    made = []
    waiting = _groups(range(len(found)), links)
    while waiting:
        group = waiting.pop()
        if len(group) < 2:
            continue
        motif, others = _motif(group, found, links, sounds)
        if len(motif.occurrences) > 1 and not monotonous(motif.clip.movement[int(motif.start) : int(motif.end)]):
            made.append(motif)
        # Two ads that begin with the same bars hang together by these; what is no part of the one may be the other.
        if len(others) < len(group):
            waiting += _groups(others, links)
    return made


Links = dict[int, list[tuple[int, Line, float]]]  # stretch → (other stretch, line to it, score)


def _links(pairs: Sequence[Pair], found: Sequence[Stretch]) -> Links:
    """Stretches that a pair joins: what it says of one lies for the most part in the other, and is most of either."""
    by_recording: dict[int, list[int]] = defaultdict(list)
    for number, stretch in enumerate(found):
        by_recording[stretch.recording].append(number)
    links: Links = defaultdict(list)
    for pair in pairs:
        for x in by_recording[pair.a]:
            first, last = max(pair.start, found[x].start), min(pair.end, found[x].end)
            if last - first < 0.5 * min(found[x].end - found[x].start, pair.end - pair.start):
                continue
            start, end = float(pair.line(first)), float(pair.line(last))
            for y in by_recording[pair.b]:
                common = min(end, found[y].end) - max(start, found[y].start)
                shorter = min(found[x].end - found[x].start, found[y].end - found[y].start)
                if x != y and common > max(0.8 * (end - start), LINKED * shorter):
                    links[x].append((y, pair.line, pair.score))
                    links[y].append((x, pair.line.inverse(), pair.score))
    return links


def _groups(among: Sequence[int], links: Links) -> list[list[int]]:
    """Those of some stretches that are connected with each other."""
    left = set(among)
    groups = []
    for first in among:
        if first not in left:
            continue
        left.remove(first)
        group, waiting = [first], deque([first])
        while waiting:
            for other, _, _ in links.get(waiting.popleft(), ()):
                if other in left:
                    left.remove(other)
                    group.append(other)
                    waiting.append(other)
        groups.append(group)
    return groups


def _motif(group: list[int], found: Sequence[Stretch], links: Links, sounds: Sounds) -> tuple[Motif, list[int]]:
    """Makes one occurrence the template, finds its edges with the others, and takes them to each. Also returns the
    stretches that do not hold what the template plays."""
    longest = np.quantile([found[i].end - found[i].start for i in group], 0.75)

    def worth(i: int) -> tuple[bool, int, float]:
        scores = [score for _, _, score in links[i]]
        return found[i].end - found[i].start > 0.8 * longest, found[i].support, sum(scores) / len(scores)

    best = max(group, key=worth)
    template = found[best]
    lines = _lines(best, links)
    own = sounds[template.recording]
    exact: dict[int, Line] = {}
    for i in group:
        if i == best:
            continue
        back = lines[i].inverse()
        first = max(template.start, float(back(found[i].start)))
        last = min(template.end, float(back(found[i].end)))
        better = lined_up(own, sounds[found[i].recording], first, last, lines[i])
        exact[i] = better or lines[i]
    jury = sorted(exact, key=lambda i: -(found[i].end - found[i].start))[:JURY]
    start, end = _edges(template, [(sounds[found[i].recording], exact[i]) for i in jury], own)
    low, high = max(0, int(start) - MARGIN), min(len(own), int(end) + MARGIN)
    motif = Motif(Sound(own.frames[low:high].copy(), own.loud), start - low, end - low, template.recording, [])
    others = []
    for i, line in exact.items():
        heard = occurrence(motif, sounds[found[i].recording], found[i].recording, line.later(low))
        if heard is not None and holds(heard):
            motif.occurrences.append(heard)
        else:
            others.append(i)
    if motif.occurrences:
        score = float(np.mean([o.score for o in motif.occurrences]))
        sure = float(np.mean([o.sure for o in motif.occurrences]))
        motif.occurrences.append(Occurrence(template.recording, start, end, Line(1.0, float(low)), score, sure))
    motif.occurrences.sort(key=lambda o: (o.recording, o.start))
    return motif, others


def _lines(first: int, links: Links) -> dict[int, Line]:
    """Lines from a stretch to all that it is linked with, over the fewest pairs."""
    lines = {first: Line(1.0, 0.0)}
    waiting = deque([first])
    while waiting:
        here = waiting.popleft()
        for other, line, _ in sorted(links.get(here, ()), key=lambda link: -link[2]):
            if other not in lines:
                lines[other] = lines[here].then(line)
                waiting.append(other)
    return lines


def _edges(template: Stretch, others: list[tuple[Sound, Line]], own: Sound) -> tuple[float, float]:
    """First and last frame of the template, where the evidence of all others together turns."""
    low, high = int(template.start) - EDGE, int(template.end) + EDGE + 1
    broad, sharp, denied = np.zeros((3, high - low))
    for other, line in others:
        both = agreement(own, other, line, low, high)
        # What one of them lacks is not shared.
        for total, own_evidence in ((broad, both.broad), (sharp, both.sharp)):
            gain = np.full(high - low, -1.0)
            gain[both.at - low] = own_evidence
            total += gain
            if total is broad:
                denied += uniform_filter1d(gain, SURELY) < DIFFERENT
    # Where half of them clearly play something else, two spots stand side by side now and then.
    apart = (len(others) > 1) & (2 * denied >= len(others))
    broad[apart], sharp[apart] = DIFFERENT, DIFFERENT
    start, end = best_run(broad)
    if end - start < LEAST_S / FRAME_S / 2:
        return template.start, template.end
    near = min(NEAR, (end - start) // 4)
    return max(low + edge(sharp, start, -1, near) - 0.5, 0.0), low + edge(sharp, end, 1, near) - 0.5


def occurrence(motif: Motif, sound: Sound, recording: int, line: Line) -> Occurrence | None:
    """The motif in a recording on a line from its clip; only a part of it where the rest is clearly another sound."""
    both = agreement(motif.clip, sound, line, int(np.ceil(motif.start)), int(motif.end) + 1)
    at, gain, sharp = both.at, both.broad, both.sharp
    first, last = best_run(gain)
    if last <= first:
        return None
    start, end = motif.start, motif.end
    if at[first] - motif.start > MISSING and (first == 0 or gain[:first].mean() < DIFFERENT):
        start = at[min(edge(sharp, first, -1), len(at) - 1)] - 0.5
    if motif.end - at[last - 1] > MISSING and (last == len(at) or gain[last:].mean() < DIFFERENT):
        end = at[max(edge(sharp, last, 1) - 1, 0)] + 0.5
    if end - start < LEAST_S / FRAME_S / 2:
        return None
    length = motif.end - motif.start
    part = (float((start - motif.start) / length), float((end - motif.start) / length))
    low, high = max(0.0, float(line(start))), min(len(sound) - 1.0, float(line(end)))
    score, sure = float(both.moved[first:last].mean()), float(gain[first:last].sum())
    return Occurrence(recording, low, high, line, score, sure, part)


def holds(heard: Occurrence) -> bool:
    """Whether an occurrence is sure enough."""
    rate = heard.sure / (heard.end - heard.start)
    if heard.part[1] - heard.part[0] >= WHOLE:
        return heard.sure >= SURE and rate >= WHOLE_SURE
    return heard.sure >= SURE and rate >= PART_SURE and heard.score >= PART_LIKENESS
