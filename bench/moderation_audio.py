"""Ten seconds of a banned recording found inside something longer, changed as people change it, beside Chromaprint."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from bench import effects
from bench.episodes import in_processes
from bench.frame import Benchmark, Row
from bench.skip_peers import POINT_S, candidates, fingerprint, shared
from bench.sources import RATE, Sources, Split, Track, level, read, sources
from core.threads import one_algebra_thread
from evaluation.intervals import clopper_pearson

SEEDS = {"test": 11, "tune": 3}
EXEMPLARS, QUICK_EXEMPLARS = 60, 6
EXEMPLAR_S, EXCERPT_S, AROUND_S = 20.0, 10.0, 10.0
POSITION_S = 0.2  # that a match may be off
CODED = ("opus-16k", "mp3-32k")  # the two worst of the nine; WAV for the others
DRAWS = 2_000  # of the bootstrap
OVER_DB = -3.0  # a voice under what it covers throughout

Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]  # excerpt, a voice as long → excerpt


def _over(excerpt: np.ndarray, voice: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Somebody speaks over all of it."""
    quieter = level(voice[: len(excerpt)], -20.0) * np.float32(10 ** (OVER_DB / 20))
    return level(excerpt, -20.0) + quieter


def _noisy(snr_db: float, excerpt: np.ndarray, voice: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rms = float(np.sqrt(np.mean(np.square(excerpt))))
    return excerpt + np.float32(rms * 10 ** (-snr_db / 20)) * effects.noise(len(excerpt), rng)


CHANGES: dict[str, Change] = {
    "none": lambda x, voice, rng: x,
    "gain": lambda x, voice, rng: effects.gain(x, rng),
    "fade": lambda x, voice, rng: effects.fade(x, rng),
    "voiceover": lambda x, voice, rng: effects.voiceover(x, voice, rng),
    "recorded over": _over,
    "speed": lambda x, voice, rng: effects.speed(x, rng),
    "tempo": lambda x, voice, rng: effects.tempo(x, rng),
    "eq": lambda x, voice, rng: effects.eq(x, rng),
    "noise10": partial(_noisy, 10.0),
    "noise20": partial(_noisy, 20.0),
}


@dataclass
class _Side:
    """What one of both means found: whether, how far off, and which exemplars it named that are not there."""

    hits: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    off_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, name: str, own: str, truth: tuple[float, float], found: list[tuple[str, float, float]]) -> None:
        """`found` are (exemplar, start_s, exemplar_start_s); a match begins anywhere in the excerpt, so that what
        counts is the offset between both."""
        offsets = [abs((start - there) - (truth[0] - truth[1])) for e, start, there in found if e == own]
        near = min(offsets, default=np.inf)
        self.hits[name].append(near < np.inf)
        if near < np.inf:
            self.off_s.append(float(near))
        self.wrong += [f"{e} in {own} ({name})" for e, _, _ in found if e != own]


def run(quick: bool, split: Split = "test") -> list[Row]:
    one_algebra_thread()
    with in_processes(2) as mapped:
        given = sources(split, quick, mapped)
    rng = np.random.default_rng(SEEDS[split])
    tracks = [t for t in given.tracks if any(b - a >= EXEMPLAR_S for a, b in t.fresh)]
    order = rng.permutation(len(tracks))[: QUICK_EXEMPLARS if quick else EXEMPLARS]
    chosen = [tracks[i] for i in order]
    with tempfile.TemporaryDirectory() as scratch:
        ours, peer, pairs = _measured(chosen, given, Path(scratch), rng)
    return _rows(ours, peer, pairs, len(chosen))


def _measured(chosen: list[Track], given: Sources, folder: Path, rng: np.random.Generator) -> tuple[_Side, _Side, int]:
    from catalog.audio import decode_audio
    from embedders.fingerprint import frames, patches
    from moderation.sounds import SoundBank

    bank, prints = SoundBank(patches), {}
    samples = {t.name: _stretch(t) for t in chosen}
    for number, (name, sound) in enumerate(samples.items()):
        path = folder / f"exemplar-{number}.wav"
        effects.encode(sound, path, effects.CODINGS[6])
        bank.add(name, frames(decode_audio(path).samples))
        prints[name] = fingerprint(path)
    ours, peer, asked = _Side(), _Side(), 0
    codings = {c.name: c for c in effects.CODINGS}
    for number, (name, sound) in enumerate(samples.items()):
        for change, apply in CHANGES.items():
            for coding in CODED if change == "none" else ("wav",):
                at = float(rng.uniform(0, EXEMPLAR_S - EXCERPT_S))
                excerpt = sound[int(at * RATE) : int((at + EXCERPT_S) * RATE)]
                before, after, voice = (_speech(given, s, rng) for s in (AROUND_S, AROUND_S, EXCERPT_S + 1))
                changed = apply(excerpt, voice, rng).astype(np.float32)
                path = folder / f"{number}-{change}-{coding}{codings[coding].suffix}".replace(" ", "-")
                effects.encode(np.concatenate([before, changed, after]), path, codings[coding])
                truth = (len(before) / RATE, at)
                label = coding if change == "none" else change
                started = time.perf_counter()
                heard = bank.match(frames(decode_audio(path).samples))
                ours.seconds.append(time.perf_counter() - started)
                ours.add(label, name, truth, [(m.exemplar, m.start_s or 0.0, m.exemplar_start_s or 0.0) for m in heard])
                peer.add(label, name, truth, _by_chromaprint(prints, fingerprint(path)))
                asked += 1
        # What surrounds it, and the next track, have nothing of any exemplar but that one's.
        alone = folder / f"{number}-alone.wav"
        effects.encode(_speech(given, 30.0, rng), alone, effects.CODINGS[6])
        ours.wrong += [f"{m.exemplar} in speech" for m in bank.match(frames(decode_audio(alone).samples))]
        peer.wrong += [f"{e} in speech" for e, _, _ in _by_chromaprint(prints, fingerprint(alone))]
    return ours, peer, asked * (len(chosen) - 1) + len(chosen) ** 2


def _stretch(track: Track) -> np.ndarray:
    """Float32 at `RATE`: the first stretch of a track that is long enough and repeats nothing."""
    start, _ = next((a, b) for a, b in track.fresh if b - a >= EXEMPLAR_S)
    samples = np.load(track.samples, mmap_mode="r")[int(start * RATE) : int((start + EXEMPLAR_S) * RATE)]
    return samples.astype(np.float32) / np.float32(32768)


def _speech(given: Sources, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Recorded voices one after another, with short pauses."""
    parts: list[np.ndarray] = []
    count = 0
    while count < seconds * RATE:
        path = given.prompts[int(rng.integers(len(given.prompts)))]
        parts += [level(read(path), -20.0), np.zeros(RATE // 5, np.float32)]
        count += sum(map(len, parts[-2:]))
    return np.concatenate(parts)[: int(seconds * RATE)]


def _by_chromaprint(prints: dict[str, np.ndarray], own: np.ndarray) -> list[tuple[str, float, float]]:
    names = list(prints)
    found = []
    for a, b, shift in candidates([*prints.values(), own]):
        if b != len(names) or a == b:
            continue
        for start, _ in shared(prints[names[a]], own, shift):
            found.append((names[a], (start + shift) * POINT_S, start * POINT_S))
    return found


def _rows(ours: _Side, peer: _Side, pairs: int, exemplars: int) -> list[Row]:
    low, high = _interval(ours)
    rows = [
        _row("recall", _mean(ours), _mean(peer), f"{exemplars} exemplars; [{low:.3f}, {high:.3f}] over these"),
        _row(
            "position_within_200_ms",
            float(np.mean(np.array(ours.off_s) <= POSITION_S)),
            float(np.mean(np.array(peer.off_s) <= POSITION_S)) if peer.off_s else 0.0,
            f"of what was found; the median is off by {statistics.median(ours.off_s) * 1000:.0f} ms",
        ),
    ]
    _, bound = clopper_pearson(len(ours.wrong), pairs)
    told = f"; {ours.wrong[0]}" if ours.wrong else ""
    rows.append(
        Row(
            "false_matches",
            len(ours.wrong),
            len(peer.wrong),
            None,
            "",
            "Chromaprint",
            note=f"of {pairs:,} pairs: {bound:.1e} of them at most (95 %){told}",
        )
    )
    rows += [_row(f"recall: {n}", float(np.mean(h)), float(np.mean(peer.hits[n]))) for n, h in ours.hits.items()]
    seconds = statistics.median(ours.seconds)
    rows.append(Row("match_s", seconds, None, None, "s", note="30 s of audio, decoded and matched with all exemplars"))
    return rows


def _row(name: str, ours: float, peer: float, note: str = "") -> Row:
    return Row(name, ours, peer, 1.0, "", "Chromaprint", "all", higher_is_better=True, note=note)


def _mean(side: _Side) -> float:
    return float(np.mean([hit for hits in side.hits.values() for hit in hits]))


def _interval(side: _Side) -> tuple[float, float]:
    """95 % by bootstrap over exemplars, whose excerpts stay together."""
    table = np.array(list(side.hits.values()), float).mean(axis=0)
    rng = np.random.default_rng(0)
    means = table[rng.integers(0, len(table), (DRAWS, len(table)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


BENCHMARK = Benchmark("moderation-audio", "ten seconds of recordings found inside longer ones", run)
