"""A catalogue of any length, in fingerprint frames, out of a few real hours.

Every second of an episode is a random second of a real one, its bands moved up or down a little, so that two episodes
share nothing for longer than that; what is to repeat, intros, outros, jingles and ads, are whole stretches of the real
hours, played with a little noise and another gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skips.detect import Recording
from skips.frames import FRAME_S

EPISODE_S = 1_800.0
SHOW = 20  # episodes of a show
SECOND = round(1.0 / FRAME_S)
FRESH_ADS, LIVE_ADS, HEARD_ADS = 3, 60, 4  # new with each show, on the air at a time, in an episode
FRAME_SPOTS_S = (18.0, 22.0, 6.5, 7.0)  # intro, outro and two jingles of a show
NOISE = 3.0  # steps of half a decibel


class LongCatalogue:
    """Makes episodes by number, always the same, and keeps their frames in a folder. `real` are frames of real
    episodes, uint8 (n, bands)."""

    def __init__(self, real: Sequence[np.ndarray], folder: Path, seed: int = 0) -> None:
        self.real, self.folder, self.seed = np.concatenate(real), folder, seed

    def load(self, number: int) -> np.ndarray:
        found: np.ndarray = np.load(self.folder / f"{number}.npy", mmap_mode="r")
        return found

    def make(self, numbers: Sequence[int]) -> list[Recording]:
        """Makes episodes, each with its show's intro, outro and jingles and with some of the ads on the air."""
        made = []
        for number in numbers:
            np.save(self.folder / f"{number}.npy", self._episode(number))
            show, order = divmod(number, SHOW)
            made.append(Recording(number, f"episode-{number}", "", EPISODE_S, f"show-{show}", order))
        return made

    def _episode(self, number: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, 1, number))
        show = number // SHOW
        count = int(EPISODE_S / FRAME_S)
        seconds = rng.integers(0, len(self.real) - SECOND, count // SECOND + 1)
        rows = (seconds[:, None] + np.arange(SECOND)).ravel()[:count]
        frames = np.roll(self.real[rows], int(rng.integers(-3, 4)), axis=1)
        newest = FRESH_ADS * (show + 1)
        ads = rng.choice(np.arange(max(0, newest - LIVE_ADS), newest), min(HEARD_ADS, newest), replace=False)
        intro, outro, *jingles = (self._spot((2, show, k), s) for k, s in enumerate(FRAME_SPOTS_S))
        spots = [jingles[0], *(self._spot((3, int(ad)), 10.0 + 5 * (ad % 5)) for ad in ads), jingles[1]]
        self._play(frames, intro, int(rng.integers(100, 900)), rng)
        self._play(frames, outro, count - len(outro) - int(rng.integers(100, 900)), rng)
        for place, spot in zip(np.linspace(4_000, count - 6_000, len(spots)).astype(int), spots, strict=True):
            self._play(frames, spot, int(place + rng.integers(-800, 800)), rng)
        return frames

    def _spot(self, name: tuple[int, ...], seconds: float) -> np.ndarray:
        rng = np.random.default_rng((self.seed, *name))
        length = int(seconds / FRAME_S)
        first = int(rng.integers(0, len(self.real) - length))
        # Spots that happen to be cut from one place differ by direction and by band.
        spot = np.roll(self.real[first : first + length], int(rng.integers(-6, 7)), axis=1)
        return spot[:: int(rng.choice([-1, 1]))]

    def _play(self, frames: np.ndarray, spot: np.ndarray, at: int, rng: np.random.Generator) -> None:
        noisy = spot + rng.normal(float(rng.uniform(-12, 12)), NOISE, spot.shape)
        frames[at : at + len(spot)] = np.clip(noisy, 0, 255).astype(np.uint8)
