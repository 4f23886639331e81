"""Episodes of real sound: music for what recurs, sounds of their own between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from skips.markers import Marker

RATE = 16_000


@cache
def music(number: int, start_s: float, seconds: float) -> np.ndarray:
    """A stretch of one of the packaged tracks, mono float32."""
    from immich_memories_music import tracks_dir

    from cli.demo.sound import resample

    path = sorted(tracks_dir().rglob("*.opus"))[number]
    samples = resample(*soundfile.read(path, dtype="float32"))
    found = samples[int(start_s * RATE) : int((start_s + seconds) * RATE)]
    assert len(found) == int(seconds * RATE), path
    return found


def talk(seconds: float, seed: int) -> np.ndarray:
    """Sound that never repeats: syllables of three gliding tones and a breath, mono float32."""
    rng = np.random.default_rng((91, seed))
    made = []
    left = int(seconds * RATE)
    while left > 0:
        count = min(left, int(rng.uniform(0.08, 0.3) * RATE))
        t = np.arange(count) / RATE
        tones = sum(
            rng.uniform(0.3, 1) * np.sin(2 * np.pi * (rng.uniform(150, 3500) * t + rng.uniform(-900, 900) * t**2))
            for _ in range(3)
        )
        envelope = np.hanning(count + 2)[1:-1] ** 0.5
        made.append(0.1 * rng.uniform(0.4, 1) * envelope * tones + 0.01 * rng.standard_normal(count))
        left -= count
    return np.concatenate(made).astype(np.float32)


@dataclass(frozen=True)
class Spots:
    """What recurs in the tests: a signature tune of 12 s and a spot of 9 s."""

    intro: np.ndarray
    ad: np.ndarray


def spots() -> Spots:
    return Spots(music(0, 4, 12), music(9, 6, 9))


def laid_out(seed: int, *pieces: float | np.ndarray) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Samples of an episode of talk (so many seconds) and of given sounds, and from when to when the sounds are."""
    made, spans, at = [], [], 0
    for place, piece in enumerate(pieces):
        samples = piece if isinstance(piece, np.ndarray) else talk(piece, 100 * seed + place)
        if isinstance(piece, np.ndarray):
            spans.append((at / RATE, (at + len(samples)) / RATE))
        made.append(samples)
        at += len(samples)
    return np.concatenate(made), spans


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(samples, -1, 1), rate, subtype="PCM_16")
    return path


def assert_marked(markers: Sequence[Marker], spans: Sequence[tuple[float, float]], within_s: float = 0.15) -> None:
    """The markers are these spans, to `within_s`, and no others."""
    found = [(m.start_s, m.end_s) for m in markers]
    assert len(found) == len(spans), f"{found} against {list(spans)}"
    for (start, end), (first, last) in zip(found, spans, strict=True):
        assert abs(start - first) <= within_s and abs(end - last) <= within_s, f"{found} against {list(spans)}"
