"""From the plan of a show to its encoded episodes, and to what is true about each of them, to the sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench import effects
from bench.episodes import Episode, Segment, Sentence, Show
from bench.schedule import BED_DB, EpisodePlan, Excerpt, Item, Place, Recap, ShowPlan, Silence, Spot, Talk
from bench.schedule import Music as MusicItem
from bench.sources import RATE, SPEECH_DBFS, Voice, level, prompt, sentence, speak

FLOOR_DBFS = -72.0  # of the noise that every episode has: 50 dB below its speech
Said = list[tuple[int, int, str]]  # start, end (samples), words


def music(excerpt: Excerpt, dbfs: float, fade_s: float = 0.05) -> np.ndarray:
    """A stretch of a track at so many dBFS, its ends faded."""
    whole = np.load(excerpt.track.samples, mmap_mode="r")
    cut = whole[round(excerpt.start_s * RATE) : round(excerpt.end_s * RATE)].astype(np.float32) / 32_767
    cut = level(cut, dbfs)
    ramp = min(int(fade_s * RATE), len(cut) // 2)
    cut[:ramp] *= np.linspace(0, 1, ramp, dtype=np.float32)
    cut[-ramp:] *= np.linspace(1, 0, ramp, dtype=np.float32)
    return cut


def render_spot(spot: Spot, folder: Path) -> str:
    """Makes a spot once for all its occurrences: `<motif>.npy` and its words."""
    gap = np.zeros(int(0.25 * RATE), np.float32)
    voiced: list[np.ndarray] = []
    said: Said = []
    used: list[str] = []
    at = 0
    room = spot.seconds - (2.0 if spot.music else 0.0)
    recorded = list(spot.prompts)
    for number in range(len(recorded) + len(spot.lines)):
        # A line first (who speaks, who pays), then real voices, then as many more lines as there is room for.
        path = recorded[number - bool(spot.lines)] if 0 <= number - bool(spot.lines) < len(recorded) else ""
        text = "" if path else spot.lines[number if not number else number - len(recorded)]
        samples = prompt(Path(path)) if path else speak(text, spot.voice, spot.pitch)
        if spot.music and at and at + len(samples) > room * RATE:
            continue
        if at >= room * RATE:
            break
        if path:
            used.append(path)
        else:
            said.append((at, at + len(samples), text))
        voiced += [samples, gap]
        at += len(samples) + len(gap)
    voice = np.concatenate(voiced[:-1]) if voiced else np.zeros(0, np.float32)
    if spot.music is None:  # speech alone is cut off where the spot ends
        mixed = voice[: int(spot.seconds * RATE)]
        ramp = min(RATE // 50, len(mixed))
        mixed[-ramp:] *= np.linspace(1, 0, ramp, dtype=np.float32)
        said = [(a, b, t) for a, b, t in said if b <= len(mixed)]
    else:
        mixed = music(spot.music, SPEECH_DBFS)
        start = min(int(1.5 * RATE), max(0, len(mixed) - len(voice)))
        voice = voice[: len(mixed) - start]
        mixed[start : start + len(voice)] = mixed[start : start + len(voice)] * np.float32(0.3) + voice
        said = [(a + start, min(b + start, len(mixed)), t) for a, b, t in said]
    np.save(folder / f"{spot.motif}.npy", level(mixed, SPEECH_DBFS))
    about = {
        "said": said,
        "voices": [spot.voice.name] if said else [],
        "prompts": used,
        "tracks": [spot.music.track.name] if spot.music else [],
    }
    (folder / f"{spot.motif}.json").write_text(json.dumps(about))
    return spot.motif


class _Mix:
    """An episode that grows piece by piece, with everything that is known about it."""

    def __init__(self, show: ShowPlan, plan: EpisodePlan, folder: Path) -> None:
        self.show, self.plan, self.folder = show, plan, folder
        self.rng = np.random.default_rng(plan.seed)
        self.pieces: list[np.ndarray] = []
        self.length = 0
        self.truth: list[Segment] = []
        self.negatives: list[Segment] = []
        self.music: list[Segment] = []
        self.transcript: list[Sentence] = []
        self.noises: list[tuple[int, int, float]] = []
        self.silences: list[tuple[int, int]] = []
        self.voices: set[str] = set()
        self.prompts: set[str] = set()
        self.tracks: set[str] = set()
        self.teaser: np.ndarray | None = None

    def append(self, samples: np.ndarray) -> tuple[int, int]:
        start = self.length
        self.pieces.append(samples)
        self.length += len(samples)
        return start, self.length

    def parted(self, before: Item, item: Item) -> bool:
        """Whether there is a gap between two items: never at a silence or before a tight spot, always between other
        spots, else every other time. Were every spot set in quiet, its quiet would recur with it."""
        if isinstance(item, Silence) or isinstance(before, Silence) or (isinstance(item, Place) and item.tight):
            return False
        return (isinstance(item, Place) and isinstance(before, Place)) or bool(self.rng.random() < 0.5)

    def gap(self) -> None:
        self.append(np.zeros(int(self.rng.uniform(0.1, 0.6) * RATE), np.float32))

    def say(self, voice: Voice) -> tuple[np.ndarray, str]:
        """A sentence that nobody said before, a little higher or lower, faster or slower each time."""
        text = sentence(self.show.words, self.rng)
        self.voices.add(voice.name)
        return speak(text, voice, float(self.rng.uniform(-0.4, 0.4)), float(self.rng.uniform(0.94, 1.06))), text

    def speech(self, seconds: float, prompts: tuple[str, ...] = ()) -> tuple[np.ndarray, Said]:
        """At least so many seconds of turns between the show's voices, with real prompts among them."""
        parts: list[np.ndarray] = []
        said: Said = []
        at, turn, speaker = 0, 0, int(self.rng.integers(len(self.show.voices)))
        waiting = list(prompts)
        while at < seconds * RATE:
            text = ""
            if waiting and at > seconds * RATE * 0.3:
                path = waiting.pop()
                samples = prompt(Path(path))
                self.prompts.add(path)
            else:
                if turn == 0:
                    turn, speaker = int(self.rng.integers(2, 6)), 1 - speaker
                samples, text = self.say(self.show.voices[speaker])
                turn -= 1
            if text:
                said.append((at, at + len(samples), text))
            pause = np.zeros(int(self.rng.uniform(0.15, 0.7) * RATE), np.float32)
            parts += [samples, pause]
            at += len(samples) + len(pause)
        whole = np.concatenate(parts[:-1])
        return whole, said

    def tell(self, start: int, said: Said) -> None:
        self.transcript += [Sentence((start + a) / RATE, (start + b) / RATE, t) for a, b, t in said]

    def talk(self, item: Talk) -> None:
        samples, said = self.speech(item.seconds, item.prompts)
        if item.bed is not None:
            bed = music(item.bed, SPEECH_DBFS + BED_DB, fade_s=1.0)
            begin = min(int((3.0 if item.shared else 2.0) * RATE), max(0, len(samples) - len(bed)))
            bed = bed[: len(samples) - begin]
            samples[begin : begin + len(bed)] += bed
            at = (self.length + begin) / RATE, (self.length + begin + len(bed)) / RATE
            self.tracks.add(item.bed.track.name)
            if item.shared:
                self.negatives.append(Segment("bed", *at, item.shared))
            else:
                self.music.append(Segment("bed", *at, item.bed.track.name))
        start, _ = self.append(samples)
        self.tell(start, said)
        if self.plan.teaser_s and self.teaser is None and self.truth and item.bed is None and not item.prompts:
            self.choose_teaser(samples, start, said)

    def choose_teaser(self, samples: np.ndarray, start: int, said: Said) -> None:
        """Whole sentences, about as long as the plan wants, that the next episode quotes."""
        fitting = [(a, b) for a, b, _ in said if b <= self.plan.teaser_s * RATE]
        if not fitting or fitting[-1][1] < self.plan.teaser_s * RATE * 0.6:
            return
        end = fitting[-1][1]
        self.teaser = samples[:end].copy()
        motif = f"{self.show.name}-recap-{self.plan.number + 1}"
        self.negatives.append(Segment("recap-source", start / RATE, (start + end) / RATE, motif))

    def place(self, item: Place) -> None:
        spot = np.load(self.folder / "spots" / f"{item.spot}.npy")
        about = json.loads((self.folder / "spots" / f"{item.spot}.json").read_text())
        for mine, its in ((self.voices, "voices"), (self.prompts, "prompts"), (self.tracks, "tracks")):
            mine.update(about[its])
        first, last = (round(share * len(spot)) for share in item.part)
        samples = spot[first:last].copy()
        if item.part != (0.0, 1.0):
            ramp = RATE // 100
            samples[:ramp] *= np.linspace(0, 1, ramp, dtype=np.float32)
            samples[-ramp:] *= np.linspace(1, 0, ramp, dtype=np.float32)
        # Always in this order: what bends time first, what covers the sound later, the level last.
        functions: dict[str, Any] = {name: getattr(effects, name) for name in ("speed", "tempo", "eq", "fade", "gain")}
        for name in ("speed", "tempo", "eq", "voiceover", "fade", "gain"):
            if name not in item.perturbations:
                continue
            if name == "voiceover":
                over, _ = self.speech(min(0.6 * len(samples) / RATE, 15.0))
                samples = effects.voiceover(samples, over, self.rng)
            else:
                samples = functions[name](samples, self.rng)
        start, end = self.append(samples)
        scale = len(samples) / (last - first)
        for a, b, text in about["said"]:
            if first <= a and b <= last:
                self.tell(start, [(round((a - first) * scale), round((b - first) * scale), text)])
        self.noises += [(start, end, float(p[5:])) for p in item.perturbations if p.startswith("noise")]
        self.truth.append(Segment(item.kind, start / RATE, end / RATE, item.spot, item.perturbations, item.part))

    def build(self, teaser: np.ndarray | None) -> np.ndarray:
        """All the plan's items one after another; `teaser` is what a recap quotes."""
        before: Item | None = None
        for item in self.plan.items:
            if before is not None and self.parted(before, item):
                self.gap()
            if isinstance(item, Talk):
                self.talk(item)
            elif isinstance(item, Place):
                self.place(item)
            elif isinstance(item, MusicItem):
                start, end = self.append(music(item.excerpt, SPEECH_DBFS, fade_s=0.5))
                self.music.append(Segment("music", start / RATE, end / RATE, item.excerpt.track.name))
                self.tracks.add(item.excerpt.track.name)
            elif isinstance(item, Silence):
                start, end = self.append(np.zeros(int(item.seconds * RATE), np.float32))
                self.silences.append((start, end))
                self.truth.append(Segment("silence", start / RATE, end / RATE))
            elif isinstance(item, Recap) and teaser is not None:
                start, end = self.append(teaser)
                motif = f"{self.show.name}-recap-{self.plan.number}"
                self.truth.append(Segment("recap", start / RATE, end / RATE, motif))
            before = item
        mixed = np.concatenate(self.pieces)
        self.pieces.clear()
        for start, end, snr_db in self.noises:
            low = max((b for _, b in self.silences if b <= start), default=0)
            high = min((a for a, _ in self.silences if a >= end), default=len(mixed))
            effects.add_noise(mixed, start, end, snr_db, (low, high), self.rng)
        mixed += self.rng.standard_normal(len(mixed), dtype=np.float32) * np.float32(10 ** (FLOOR_DBFS / 20))
        return mixed / max(np.float32(1.0), np.float32(np.abs(mixed).max() / 0.97))


def render_show(plan: ShowPlan, folder: Path) -> Show:
    """Renders and encodes a show's episodes below `folder`, where its spots already lie."""
    (folder / plan.name).mkdir(exist_ok=True)
    episodes = []
    teaser: np.ndarray | None = None
    for episode in plan.episodes:
        mix = _Mix(plan, episode, folder)
        samples = mix.build(teaser)
        teaser = mix.teaser
        path = folder / plan.name / f"episode-{episode.number + 1:02}{episode.coding.suffix}"
        effects.encode(samples, path, episode.coding)
        episodes.append(
            Episode(
                path,
                plan.name,
                episode.number,
                len(samples) / RATE,
                episode.coding.name,
                tuple(mix.truth),
                tuple(mix.negatives),
                tuple(mix.music),
                tuple(mix.transcript),
                tuple(sorted(mix.voices)),
                tuple(sorted(mix.prompts)),
                tuple(sorted(mix.tracks)),
            )
        )
    return Show(plan.name, plan.control, tuple(episodes))
