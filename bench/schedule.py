"""The plan of synthetic shows: which spot lies where, out of which sources, and what happens to it. No sound is made
here; the same sources and seed give the same plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import cycle

import numpy as np

from bench.effects import CODINGS, PERTURBATIONS, Coding
from bench.sources import Sources, Split, Track, Voice, sentence

# Episodes of each regular show, and of each control.
SIZES: dict[tuple[Split, bool], tuple[tuple[int, ...], tuple[int, ...]]] = {
    ("test", False): ((8, 8, 6, 6, 5, 5, 5, 4, 4, 3, 3, 3, 2, 2), (3, 3, 3)),
    ("tune", False): ((6, 5, 4, 3, 2), (3,)),
    ("test", True): ((4, 3, 2), (3,)),
    ("tune", True): ((4, 3, 2), (3,)),
}
AD_COUNTS = (2, 2, 3, 3, 4, 5, 6, 8, 12)  # how often an ad occurs over all shows
CLEAN_SHARE = 0.3  # of occurrences that nothing happens to
SPLIT_SHARE = 0.1  # of the ad breaks that have a spot which occurs whole often enough
BED_DB = -12.0  # of a bed, to the speech over it


@dataclass(frozen=True)
class Excerpt:
    track: Track
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Spot:
    """What recurs: lines or prompts, over music or not; `seconds` is what it should last."""

    motif: str
    kind: str
    seconds: float
    music: Excerpt | None
    lines: tuple[str, ...]
    voice: Voice
    pitch: float
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """A spot in an episode; `tight` leaves no gap before it."""

    spot: str
    kind: str
    perturbations: tuple[str, ...] = ()
    part: tuple[float, float] = (0.0, 1.0)
    tight: bool = False


@dataclass(frozen=True)
class Talk:
    seconds: float
    bed: Excerpt | None = None
    shared: str = ""  # the name of a bed that other episodes have too
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Music:
    excerpt: Excerpt


@dataclass(frozen=True)
class Silence:
    seconds: float


@dataclass(frozen=True)
class Recap:
    """A quotation from the episode before."""


Item = Place | Talk | Music | Silence | Recap


@dataclass(frozen=True)
class EpisodePlan:
    number: int
    coding: Coding
    items: tuple[Item, ...]
    teaser_s: float  # seconds that the next episode's recap will quote; 0 without one
    seed: tuple[int, ...]

    @property
    def places(self) -> list[Place]:
        return [item for item in self.items if isinstance(item, Place)]


@dataclass(frozen=True)
class ShowPlan:
    name: str
    control: bool
    voices: tuple[Voice, ...]
    words: tuple[str, ...] = field(repr=False)
    episodes: tuple[EpisodePlan, ...]


@dataclass(frozen=True)
class Plan:
    spots: tuple[Spot, ...]
    shows: tuple[ShowPlan, ...]


class _Reel:
    """Music of several tracks, cut off from their fresh stretches in turn; nothing is given out twice."""

    def __init__(self, tracks: Iterable[Track]) -> None:
        self.left = [(t, list(t.fresh)) for t in tracks]

    def cut(self, seconds: float) -> Excerpt | None:
        for number, (track, spans) in enumerate(self.left):
            for k, (start, end) in enumerate(spans):
                if end - start >= seconds:
                    spans[k] = (start + seconds + 1.0, end)
                    self.left.append(self.left.pop(number))
                    return Excerpt(track, start, start + seconds)
        return None


class _Scheduler:
    def __init__(self, found: Sources, seed: int, quick: bool) -> None:
        self.found, self.quick = found, quick
        self.base = (seed, int(quick), 0 if found.split == "tune" else 1)
        self.rng = np.random.default_rng(self.base)
        sizes, controls = SIZES[found.split, quick]
        self.sizes = [*sizes, *controls]
        self.regular = len(sizes)
        tracks = list(found.tracks)
        self.rng.shuffle(tracks)  # type: ignore[arg-type]
        # Tracks of spots and of bodies are different ones; an episode's body has a track to itself, if one is left.
        share = round(len(tracks) * (0.6 if quick else 0.45))
        self.reel = _Reel(tracks[:share])
        self.bodies = tracks[share:]
        self.prompts = [str(p) for p in found.prompts]
        self.rng.shuffle(self.prompts)
        self.counts: Counter[str] = Counter()  # of ads
        self.spots: list[Spot] = []
        self.neighbours: set[tuple[str, str]] = set()
        self.codings = 0
        self.titles = [self.named(2) for _ in self.sizes]
        self.hosts = [(self.voice(), self.voice()) for _ in self.sizes]
        self.frame_s = (8.0, 12.0) if quick else (10.0, 25.0)  # of an intro or outro
        self.ad_s = (8.0, 15.0) if quick else (15.0, 40.0)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def voice(self) -> Voice:
        """espeak-ng three times out of four: flite takes six times as long."""
        engine = "espeak-ng" if self.chance(0.75) else "flite"
        fitting = [v for v in self.found.voices if v.engine == engine]
        return fitting[int(self.rng.integers(len(fitting)))]

    def named(self, count: int) -> str:
        """An invented name."""
        words = self.found.words
        return " ".join(words[int(i)].capitalize() for i in self.rng.integers(len(words), size=count))

    def spot(self, motif: str, kind: str, seconds: float, music: float, lines: list[str], real: float = 0.0) -> str:
        """Adds a spot: with music by that chance (and where there is some), spoken by a real voice by the chance
        `real`; without music it speaks for all of its seconds."""
        excerpt = self.reel.cut(seconds) if self.chance(music) else None
        prompts: tuple[str, ...] = ()
        if self.chance(real) and len(self.prompts) >= 2:
            prompts = tuple(self.prompts.pop() for _ in range(min(len(self.prompts), int(seconds / 5) + 1)))
        if not excerpt and not lines:
            lines = [f"{self.named(2)}."]
        wanted = 0 if kind == "jingle" and excerpt else int(seconds / 2) + 1
        more = [sentence(self.found.words, self.rng) for _ in range(wanted)]
        pitch = self.uniform(-1, 1)
        self.spots.append(Spot(motif, kind, seconds, excerpt, (*lines, *more), self.voice(), pitch, prompts))
        return motif

    def plan(self) -> Plan:
        names = [f"show-{n + 1:02}" for n in range(len(self.sizes))]
        frames = self.frames(names[: self.regular])
        # Ads per break of every regular episode; the last "break" lies behind the outro.
        dealt = self.deal([[self.breaks() for _ in range(size)] for size in self.sizes[: self.regular]])
        planned = [self.show(n, names[n], frames[n], dealt[n]) for n in range(self.regular)]
        planned += [self.control(n, names[n], self.sizes[n]) for n in range(self.regular, len(self.sizes))]
        return Plan(tuple(self.spots), tuple(planned))

    def frames(self, names: list[str]) -> list[list[str]]:
        """Intro, outro and jingles of each show. They are made before the ads and the jingles first, since those need
        music most."""
        jingles = []
        for name, title, size in zip(names, self.titles, self.sizes, strict=False):
            said = [f"{title}."] if self.chance(0.3) else []
            count = 2 if size >= 4 and not self.quick and self.chance(0.6) else 1
            jingles.append(
                [self.spot(f"{name}-jingle-{k + 1}", "jingle", self.uniform(5, 8), 1.0, said) for k in range(count)]
            )
        found = []
        for name, title, own in zip(names, self.titles, jingles, strict=False):
            welcome = [f"Welcome to {title}, with {self.named(2)}."] if self.chance(0.7) else []
            intro = self.spot(f"{name}-intro", "intro", self.uniform(*self.frame_s), 1.0, welcome)
            goodbye = [f"That was {title}. Goodbye."]
            outro = self.spot(f"{name}-outro", "outro", self.uniform(*self.frame_s), 0.9, goodbye)
            found.append([intro, outro, *own])
        return found

    def breaks(self) -> list[int]:
        inside = 2 if self.quick else int(self.rng.integers(2, 5))
        return [*(int(self.rng.integers(1, 3)) for _ in range(inside)), int(self.chance(0.3))]

    def deal(self, layout: list[list[list[int]]]) -> list[list[list[list[str]]]]:
        """Ads for the breaks [show][episode][break]: each ad in as many different episodes as its count says."""
        free = {(s, e): sum(breaks) for s, show in enumerate(layout) for e, breaks in enumerate(show)}
        given: dict[tuple[int, int], list[str]] = {at: [] for at in free}
        spare_s = sum(end - start for _, spans in self.reel.left for start, end in spans) * 0.7
        ads_s = sum(free.values()) / np.mean(AD_COUNTS) * sum(self.ad_s) / 2
        share = min(0.6, float(spare_s / ads_s))
        number = 0
        while True:
            open_ = [at for at, left in free.items() if left]
            if len(open_) < 2:
                break
            count = min(int(self.rng.choice(AD_COUNTS)), len(open_))
            seconds = self.uniform(*self.ad_s)
            brand, code = self.named(1), self.named(1)
            lines = [f"This is sponsored by {brand} {self.named(2)}.", f"Use promo code {code} at {brand} dot example."]
            motif = self.spot(f"ad-{(number := number + 1):02}", "ad", seconds, share, lines, real=0.3)
            # Those with the most room first, so that none is left with many slots; ties by chance.
            self.rng.shuffle(open_)
            for at in sorted(open_, key=lambda at: -free[at])[:count]:
                given[at].append(motif)
                free[at] -= 1
        dealt: list[list[list[list[str]]]] = []
        for s, show in enumerate(layout):
            dealt.append([])
            for e, breaks in enumerate(show):
                ads = given[s, e]
                self.rng.shuffle(ads)
                dealt[-1].append([[ads.pop() for _ in range(min(n, len(ads)))] for n in breaks])
        self.counts = Counter(ad for ads in dealt for e in ads for b in e for ad in b)
        return dealt

    def perturbations(self) -> tuple[str, ...]:
        if self.chance(CLEAN_SHARE):
            return ()
        first = str(self.rng.choice(PERTURBATIONS))
        if self.chance(0.6):
            return (first,)
        clashing = {"speed": "tempo", "tempo": "speed", "noise10": "noise20", "noise20": "noise10"}
        second = str(self.rng.choice([p for p in PERTURBATIONS if p not in (first, clashing.get(first))]))
        return (first, second)

    def place(self, motif: str, kind: str) -> Place:
        return Place(motif, kind, self.perturbations())

    def show(self, number: int, name: str, frame: list[str], dealt: list[list[list[str]]]) -> ShowPlan:
        intro, outro, *owned = frame
        jingles = cycle(owned)  # in turn, so that each is heard twice at least
        cold, recap = self.chance(0.5), number % 5 == 1
        shared = None
        if number % 4 == 0 and self.bodies:
            reel = _Reel([self.bodies.pop()])
            cuts = (reel.cut(s) for s in ((10.0,) if self.quick else (40.0, 20.0, 10.0)))
            shared = next((cut for cut in cuts if cut), None)
        episodes = []
        for e, breaks in enumerate(dealt):
            body = _Reel([self.bodies.pop()] if self.bodies and self.chance(0.7) else [])
            items: list[Item] = [Talk(self.uniform(8, 25))] if cold else []
            items.append(self.place(intro, "intro"))
            if recap and e:
                items.append(Recap())
            inside, after = self.parts(breaks[:-1]), breaks[-1]
            heard = {p.spot for b in inside for p in b if isinstance(p, Place)}
            spots_s = sum(spot.seconds for spot in self.spots if spot.motif in heard)
            total = self.uniform(150, 195) if self.quick else self.uniform(8, 20) * 60
            section_s = max(20.0, (total - spots_s - sum(self.frame_s)) / (len(inside) + 1))
            for k, places in enumerate([*inside, None]):
                bed = shared if k == e % (len(inside) + 1) else None
                items += self.section(section_s, body, bed, f"{name}-bed", quiet=k == 0)
                if places is not None:
                    if k == 0 or self.chance(0.5):
                        items.append(self.place(next(jingles), "jingle"))
                    items += places
                    if self.chance(0.3):
                        items.append(self.place(next(jingles), "jingle"))
            items.append(self.place(outro, "outro"))
            items += [self.place(ad, "ad") for ad in after]
            teaser_s = self.uniform(8, 12) if self.quick else self.uniform(12, 20)
            teaser_s *= recap and e + 1 < len(dealt)
            episodes.append(self.episode(number, e, items, teaser_s))
        return ShowPlan(name, False, self.hosts[number], self.found.words, tuple(episodes))

    def parts(self, breaks: list[list[str]]) -> list[list[Item]]:
        """The items of an episode's ad breaks of one or two ads: back to back or with gaps, and now and then a spot in
        two parts, on both sides of the other spot or in two breaks."""
        out: list[list[Item]] = []
        carried: list[Item] = []
        for k, ads in enumerate(breaks):
            long = [ad for ad in ads if self.counts[ad] >= 4]
            if long and self.chance(SPLIT_SHARE) and (len(ads) > 1 or k + 1 < len(breaks)):
                whole = self.place(long[0], "ad")
                self.counts[whole.spot] -= 2
                cut = self.uniform(0.4, 0.6)
                marked = replace(whole, perturbations=(*whole.perturbations, "split"))
                first, second = replace(marked, part=(0.0, cut)), replace(marked, part=(cut, 1.0))
                others = [self.place(ad, "ad") for ad in ads if ad != whole.spot]
                if others and (k + 1 == len(breaks) or self.chance(0.5)):
                    out.append([*carried, first, *others, second])
                    carried = []
                else:
                    out.append([*carried, *others, first])
                    carried = [second]
            else:
                out.append([*carried, *self.beside(ads)])
                carried = []
        return out

    def beside(self, ads: list[str]) -> list[Item]:
        """An ad, or two: back to back or with a gap, in an order in which they never stood side by side, or else with
        talk between them. Always together, two spots would be one: no detector could tell them apart."""
        if len(ads) < 2:
            return [self.place(ad, "ad") for ad in ads]
        order = next((o for o in (ads, ads[::-1]) if (o[0], o[1]) not in self.neighbours), None)
        first, second = (self.place(ad, "ad") for ad in order or ads)
        if order is None:
            return [first, Talk(5.0), second]
        self.neighbours.add((order[0], order[1]))
        if self.chance(0.3):
            return [first, second]
        first = replace(first, perturbations=(*first.perturbations, "back-to-back"))
        return [first, replace(second, perturbations=(*second.perturbations, "back-to-back"), tight=True)]

    def section(self, seconds: float, body: _Reel, shared: Excerpt | None, bed: str, quiet: bool) -> list[Item]:
        """So many seconds of talk, with music of the body's track between and beneath it, and silence here or there."""
        items: list[Item] = []
        left = seconds
        if shared is not None:
            # Speech begins before the bed and goes on after it.
            length = shared.end_s - shared.start_s
            items += [Talk(length + 6.0, shared, bed)]
            left -= length + 6.0
        if quiet and self.chance(0.6):
            pause = self.uniform(2.2, 5.0)
            items += [Talk(self.uniform(6, 15)), Silence(pause)]
            left -= pause + 10
        while left > 8 or not items or isinstance(items[-1], Silence):
            length = min(max(left, 6.0), self.uniform(20, 45) if self.quick else self.uniform(30, 90))
            beneath = body.cut(min(length - 4, 30.0)) if self.chance(0.3) and length > 14 else None
            real = min(2, len(self.prompts) // 40) if self.chance(0.5) else 0  # fewer as they run out
            items.append(Talk(length, beneath, "", tuple(self.prompts.pop() for _ in range(real))))
            left -= length
            if left > 20 and self.chance(0.4) and (piece := body.cut(self.uniform(6, 8 if self.quick else 25))):
                items.append(Music(piece))
                left -= piece.end_s - piece.start_s
        return items

    def control(self, number: int, name: str, size: int) -> ShowPlan:
        """A show in which nothing recurs and nothing is silent."""
        episodes = []
        for e in range(size):
            body = _Reel([self.bodies.pop()] if self.bodies else [])
            total = self.uniform(150, 195) if self.quick else self.uniform(8, 20) * 60
            episodes.append(self.episode(number, e, self.section(total, body, None, "", quiet=False), 0.0))
        return ShowPlan(name, True, self.hosts[number], self.found.words, tuple(episodes))

    def episode(self, show: int, number: int, items: list[Item], teaser_s: float) -> EpisodePlan:
        coding = CODINGS[self.codings % len(CODINGS)]
        self.codings += 1
        return EpisodePlan(number, coding, tuple(items), teaser_s, (*self.base, show, number))


def schedule(found: Sources, seed: int, quick: bool) -> Plan:
    """The plan of all shows of one side of the split."""
    return _Scheduler(found, seed, quick).plan()
