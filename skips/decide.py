"""From motifs, silence and words to the markers of every episode."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from skips.detect import Known, Recording
from skips.frames import FRAME_S
from skips.hostread import CUED
from skips.kinds import Heard, kind_of, recapped
from skips.markers import Marker
from skips.motifs import Motif, Occurrence
from skips.versions import versions

AUTO_OCCURRENCES = 3  # of a motif that may be skipped unasked
AUTO_LIKENESS = 0.6  # of an occurrence that may
LEAST_S = 3.0
LONGEST_S, LONGEST_SHARE = 240.0, 0.5  # of an episode: what repeats for longer is an episode that was published twice
SHY_S = 0.032  # by which markers stop short of both edges: rather hear an ad's end than miss a word
SILENCE_S = 2.0
Cues = Callable[[Recording, float, float], Mapping[str, float]]
Music = Callable[[Recording, float, float], float | None]


def no_cues(recording: Recording, start_s: float, end_s: float) -> Mapping[str, float]:
    """The cues of episodes without a transcript."""
    return {}


def no_music(recording: Recording, start_s: float, end_s: float) -> float | None:
    """The share of music where nobody measured it."""
    return None


def decide(
    known: Known,
    silences: Mapping[int, Sequence[tuple[float, float, bool]]],
    cues: Cues = no_cues,
    music: Music = no_music,
    host_read: Mapping[int, Sequence[Marker]] | None = None,
) -> dict[int, list[Marker]]:
    """The markers of every episode, by recording number, ordered and disjoint.

    `silences` are (start, end, steady) by recording, `cues` and `music` tell of a span what is said and how much of it
    is music, `host_read` are the ads that the transcript shows. Tracks get none: what repeats in music is music.
    """
    sizes = Counter(r.show for r in known.recordings.values() if r.kind != "track")
    same = versions(known, silences)
    told = [(motif, heard) for motif in known.motifs if (heard := _heard(motif, known, same, cues, music))]
    kinds: dict[str, list[str]] = {}
    intros: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for motif, heard in told:
        kind, _ = kind_of(heard, sizes)
        kinds[motif.motif_id] = [kind] * len(heard)
        if kind == "intro" and len(heard) > 2:
            for h in heard:
                intros[h.recording].append((h.start_s, h.end_s))
    found: dict[int, list[Marker]] = defaultdict(list)
    for motif, heard in told:
        names = recapped(heard, intros) or kinds[motif.motif_id]
        count = support(motif, known, same)
        # What is heard twice is a repeat by chance half as surely as what is heard three times.
        repeated = 1 - 0.5 ** (count - 1)
        for h, name, occurrence in zip(heard, names, _occurrences(motif, known), strict=True):
            if not name or not LEAST_S <= h.end_s - h.start_s <= min(LONGEST_S, LONGEST_SHARE * h.episode_s):
                continue
            auto = count >= AUTO_OCCURRENCES and name != "recap" and occurrence.score >= AUTO_LIKENESS
            confidence = repeated * min(1.0, max(0.0, occurrence.score)) ** 0.25
            action = "auto" if auto else "ask"
            marker = Marker(name, h.start_s, h.end_s, float(confidence), count, motif.motif_id, action, "repeat")
            found[h.recording].append(marker)
    return {
        number: ordered(
            found[number],
            silences.get(number, ()),
            (host_read or {}).get(number, ()),
            recording.duration_s,
            partial(_names_an_ad, cues, recording),
        )
        for number, recording in known.recordings.items()
        if recording.kind != "track"
    }


def support(motif: Motif, known: Known, same: Mapping[int, int]) -> int:
    """How often a motif is heard; parts of it count as what they are of the whole, and of versions of one episode
    (`skips.versions`) that which has it most often."""
    shares: dict[int, float] = defaultdict(float)
    for o in _occurrences(motif, known):
        shares[o.recording] += o.part[1] - o.part[0]
    most: dict[int, float] = defaultdict(float)
    for recording, share in shares.items():
        most[same[recording]] = max(most[same[recording]], share)
    return max(1, round(sum(most.values())))


def _names_an_ad(cues: Cues, recording: Recording, start_s: float, end_s: float) -> bool:
    return cues(recording, start_s, end_s).get("ad", 0.0) >= CUED


def _occurrences(motif: Motif, known: Known) -> list[Occurrence]:
    return [o for o in motif.occurrences if known.recordings[o.recording].kind != "track"]


def _heard(motif: Motif, known: Known, same: Mapping[int, int], cues: Cues, music: Music) -> list[Heard]:
    """A motif's occurrences in episodes; none unless it is heard in two of them that are not versions of one."""
    places = _occurrences(motif, known)
    if len({same[o.recording] for o in places}) < 2:
        return []
    found = []
    for o in places:
        r = known.recordings[o.recording]
        start, end = o.start * FRAME_S + SHY_S, min(o.end * FRAME_S, r.duration_s) - SHY_S
        found.append(
            Heard(r.number, r.show, r.order, start, end, r.duration_s, cues(r, start, end), music(r, start, end))
        )
    return found


def ordered(
    repeated: Sequence[Marker],
    silent: Sequence[tuple[float, float, bool]],
    host_read: Sequence[Marker],
    duration_s: float,
    cued: Callable[[float, float], bool] = lambda start_s, end_s: True,
) -> list[Marker]:
    """An episode's markers without overlap and within its audio: repeats before silence, silence before words, the most
    heard first. `cued` tells whether words between two times name an ad: what repeats leave of one that a host reads
    may have none."""
    kept: list[Marker] = []
    for marker in sorted(repeated, key=lambda m: (m.action != "auto", -m.occurrences, m.start_s)):
        kept += _outside(marker, kept, LEAST_S)
    for start, end, steady in silent:
        action, confidence = ("auto", 0.95) if steady else ("ask", 0.6)
        kept += _outside(
            Marker("silence", start, min(end, duration_s), confidence, 1, "", action, "silence"), kept, SILENCE_S
        )
    for marker in host_read:
        if marker.start_s < duration_s:  # captions may be of a longer cut
            inside = replace(marker, end_s=min(marker.end_s, duration_s))
            left = _outside(inside, kept, LEAST_S)
            kept += [piece for piece in left if piece == marker or cued(piece.start_s, piece.end_s)]
    return sorted(kept, key=lambda m: m.start_s)


def _outside(marker: Marker, kept: Sequence[Marker], least_s: float) -> list[Marker]:
    """The longest piece of a marker that no other covers, if it is long enough and most of it."""
    pieces = [(marker.start_s, marker.end_s)]
    for other in kept:
        pieces = [
            piece
            for start, end in pieces
            for piece in ((start, min(end, other.start_s)), (max(start, other.end_s), end))
            if piece[1] > piece[0]
        ]
    if not pieces:
        return []
    start, end = max(pieces, key=lambda p: p[1] - p[0])
    if end - start < least_s or end - start < 0.5 * marker.duration_s:
        return []
    return [replace(marker, start_s=start, end_s=end)]


def repeats(known: Known) -> list[dict[str, object]]:
    """What repeats in and over tracks, longest first: a chorus, a sample. `places` are where: content id, seconds.
    It is told, never skipped."""
    found: list[dict[str, object]] = []
    for motif in known.motifs:
        places = [o for o in motif.occurrences if known.recordings[o.recording].kind == "track"]
        if len(places) < 2:
            continue
        found.append(
            {
                "motif_id": motif.motif_id,
                "duration_s": round(motif.duration_s, 3),
                "tracks": len({o.recording for o in places}),
                "places": [
                    {
                        "content_id": known.recordings[o.recording].content_id,
                        "start_s": round(o.start * FRAME_S, 3),
                        "end_s": round(o.end * FRAME_S, 3),
                        "likeness": round(o.score, 3),
                    }
                    for o in places
                ],
            }
        )
    return sorted(found, key=lambda row: -float(str(row["duration_s"])))
