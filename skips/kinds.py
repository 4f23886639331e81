"""What a motif is: intro, outro, ad, jingle or recap, from where it is heard, how long it is, how often, in how many
shows, and what is said in it.

Every piece of evidence adds to a kind's log-odds, so that none decides alone; the weights were set on the tuning
episodes. A recap is told from the rest by order: what an episode says early was heard in an earlier one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MOTIF_KINDS = ("intro", "outro", "ad", "jingle")
EARLY_S, EARLY_SHARE = 100.0, 0.2  # an intro begins before both
LATE_S, LATE_SHARE = 150.0, 0.2  # an outro ends after both
JINGLE_S = 9.0  # a jingle is shorter
RECAP_S = (6.0, 60.0)  # a recap lasts
RECAP_BEFORE_S = 120.0  # a recap begins before
AFTER_INTRO_S = 8.0  # or this soon after an intro
MOVED_S = 60.0  # a recap's source stands elsewhere
CUE = 2.5  # weight of words


@dataclass(frozen=True)
class Heard:
    """An occurrence, as kinds see it: seconds, in an episode of a show. `order` sorts a show's episodes; `cues` are the
    words' evidence by kind, 0 to 1; `music` is the share of music, None where unknown."""

    recording: int
    show: str
    order: int
    start_s: float
    end_s: float
    episode_s: float
    cues: Mapping[str, float]
    music: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds from its end to the episode's."""
        return max(0.0, self.episode_s - self.end_s)


def kind_of(heard: Sequence[Heard], sizes: Mapping[str, int]) -> tuple[str, float]:
    """The kind of a motif heard here, and its probability among the kinds. `sizes` are shows' numbers of episodes."""
    odds = dict.fromkeys(MOTIF_KINDS, 0.0)
    shows = len({h.show for h in heard})
    by_recording = Counter(h.recording for h in heard)
    duration = float(np.median([h.end_s - h.start_s for h in heard]))
    early = float(np.mean([h.start_s < min(EARLY_S, EARLY_SHARE * h.episode_s) for h in heard]))
    late = float(np.mean([h.left_s < min(LATE_S, LATE_SHARE * h.episode_s) for h in heard]))
    often = float(np.mean([n > 1 for n in by_recording.values()]))
    share = len(by_recording) / max(1, sum(sizes.get(s, 0) for s in {h.show for h in heard}))
    starts, ends = np.array([h.start_s for h in heard]), np.array([h.left_s for h in heard])

    odds["intro"] += 5 * early - 2.5 + (0.7 if share > 0.6 else -0.3) + (0.5 if np.ptp(starts) < 40 else -0.5)
    odds["outro"] += 5 * late - 2.5 + (0.7 if share > 0.6 else -0.3) + (0.5 if np.ptp(ends) < 60 else -0.5)
    # Ads are what different shows share, and what stands now here, now there.
    odds["ad"] += (3.0 if shows > 1 else 0.0) + 1.5 * (1 - max(early, late)) + (0.5 if share < 0.6 else 0.0)
    odds["jingle"] += 2.0 * often + 1.0 * (1 - max(early, late))
    for kind in ("intro", "outro"):
        odds[kind] -= 4.0 if shows > 1 else 0.0
        odds[kind] -= 2.0 * often
    odds["jingle"] -= 2.0 if shows > 1 else 0.0
    length = math.log(max(duration, 0.5) / JINGLE_S)
    odds["jingle"] += max(-4.0, min(2.0, -5 * length))
    odds["ad"] += max(-2.0, min(0.5, 3 * length))
    for kind in MOTIF_KINDS:
        odds[kind] += CUE * float(np.mean([h.cues.get(kind, 0.0) for h in heard]))
    music = [h.music for h in heard if h.music is not None]
    if music:
        odds["jingle"] += float(np.mean(music)) - 0.5
    best = max(odds, key=lambda kind: odds[kind])
    return best, 1 / sum(math.exp(v - odds[best]) for v in odds.values())


def recapped(heard: Sequence[Heard], intros: Mapping[int, Sequence[tuple[float, float]]]) -> list[str] | None:
    """For the few occurrences of what may be a recap: "recap" for those that quote, "" for what they quote; None if it
    is none. `intros` are the spans of intros by recording."""
    if not 2 <= len(heard) <= 3 or len({h.show for h in heard}) > 1 or len({h.recording for h in heard}) != len(heard):
        return None
    ordered = sorted(heard, key=lambda h: h.order)
    first = ordered[0]
    quotes = []
    for later in ordered[1:]:
        near_intro = any(abs(later.start_s - end) < AFTER_INTRO_S for _, end in intros.get(later.recording, ()))
        before = later.start_s < min(RECAP_BEFORE_S, 0.25 * later.episode_s)
        long = RECAP_S[0] <= later.end_s - later.start_s <= RECAP_S[1]
        elsewhere = abs(first.start_s - later.start_s) > MOVED_S
        said = later.cues.get("recap", 0.0) > 0.5
        if not (long and (said or (before and (near_intro or elsewhere)))):
            return None
        quotes.append(later.recording)
    return ["recap" if h.recording in quotes else "" for h in heard]
