"""Catalogues in fingerprint frames, made up: every frame is known, so every answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from embedders.fingerprint import patches
from skips.detect import Detector, Known, Recording
from skips.frames import FRAME_S
from skips.motifs import Motif

BANDS = 32
SYLLABLE = 7  # frames for which a made-up sound keeps its spectrum, about a fifth of a second


def frames_of(seconds: float) -> int:
    return round(seconds / FRAME_S)


def sound(seconds: float, seed: int) -> np.ndarray:
    """Frames uint8 (n, bands) of a sound of its own: spectra at random, one after another."""
    rng = np.random.default_rng((77, seed))
    count = frames_of(seconds)
    spectra = rng.normal(130, 22, (count // SYLLABLE + 2, BANDS))
    at = np.arange(count) / SYLLABLE
    low, share = at.astype(int), (at % 1)[:, None] ** 3
    return np.clip(spectra[low] * (1 - share) + spectra[low + 1] * share, 0, 255).astype(np.uint8)


def noisy(frames: np.ndarray, seed: int, gain: float = 0.0, spread: float = 3.0) -> np.ndarray:
    """The same with noise of `spread` and `gain`, in steps of half a decibel."""
    noise = np.random.default_rng((78, seed)).normal(gain, spread, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def faster(frames: np.ndarray, by: float) -> np.ndarray:
    """Played faster by a share, pitch kept."""
    at = np.arange(0, len(frames) - 1, 1 + by)
    low, share = at.astype(int), (at % 1)[:, None]
    return np.rint(frames[low] * (1 - share) + frames[np.minimum(low + 1, len(frames) - 1)] * share).astype(np.uint8)


def over(frames: np.ndarray, other: np.ndarray, first: int) -> np.ndarray:
    """`frames` with `other` mixed in from a frame on: powers add."""
    mixed = frames.astype(np.float64)
    span = slice(first, first + len(other))
    mixed[span] = 20 * np.log10(10 ** (mixed[span] / 20) + 10 ** (other / 20.0))
    return np.clip(mixed, 0, 255).astype(np.uint8)


@dataclass
class Catalogue:
    """Episodes laid out piece by piece; `spans` tells where named pieces lie: name → (episode, first frame, last)."""

    episodes: list[np.ndarray] = field(default_factory=list)
    spans: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)

    def add(self, *pieces: float | tuple[str, np.ndarray]) -> None:
        """An episode of talk (so many seconds of a sound of its own) and of named pieces."""
        number, made, at = len(self.episodes), [], 0
        for place, piece in enumerate(pieces):
            if isinstance(piece, tuple):
                name, frames = piece
                self.spans.setdefault(name, []).append((number, at, at + len(frames)))
            else:
                frames = sound(piece, 1_000 + 100 * number + place)
            made.append(frames)
            at += len(frames)
        self.episodes.append(np.concatenate(made))

    def load(self, number: int) -> np.ndarray:
        return self.episodes[number]

    def recordings(self, numbers: Sequence[int] | None = None, show: str = "show") -> list[Recording]:
        chosen = range(len(self.episodes)) if numbers is None else numbers
        return [Recording(n, f"episode {n}", "", len(self.episodes[n]) * FRAME_S, show, n) for n in chosen]

    def detector(self, known: Known | None = None) -> Detector:
        return Detector(self.load, patches, known)


def spans(motif: Motif) -> list[tuple[int, float, float]]:
    return sorted((o.recording, o.start, o.end) for o in motif.occurrences)


def assert_found(catalogue: Catalogue, known: Known, name: str, within: float = 4.0) -> Motif:
    """Some motif is heard exactly where the piece `name` lies, to `within` frames."""
    truth = sorted(catalogue.spans[name])
    for motif in known.motifs:
        found = spans(motif)
        if [f[0] for f in found] == [t[0] for t in truth] and all(
            abs(f[1] - t[1]) <= within and abs(f[2] - t[2]) <= within for f, t in zip(found, truth, strict=True)
        ):
            return motif
    raise AssertionError(f"{name} is at {truth}, found were {[spans(m) for m in known.motifs]}")


def heard_frames(known: Known, number: int) -> set[int]:
    """The frames of an episode in which some motif is heard."""
    return {
        frame
        for motif in known.motifs
        for episode, start, end in spans(motif)
        if episode == number
        for frame in range(round(start), round(end))
    }


def assert_covered(catalogue: Catalogue, known: Known, names: Sequence[str], within: int = 8) -> None:
    """Motifs are heard in all frames of the pieces `names`, and nowhere else, to `within` frames an episode."""
    for number in range(len(catalogue.episodes)):
        truth = {f for name in names for n, a, b in catalogue.spans[name] if n == number for f in range(a, b)}
        assert len(truth ^ heard_frames(known, number)) <= within, number
