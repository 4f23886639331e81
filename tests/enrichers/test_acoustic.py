from __future__ import annotations

import numpy as np
import pytest

from catalog.media import SAMPLE_RATE, Audio
from enrichers.acoustic import AcousticEnricher, tempo


def clicks(bpm: float, seconds: float) -> np.ndarray:
    samples = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    burst = np.random.default_rng(0).standard_normal(400) * np.exp(-np.arange(400) / 80)
    for beat in np.arange(0, seconds - 0.1, 60 / bpm):
        at = int(beat * SAMPLE_RATE)
        samples[at : at + 400] += 0.5 * burst
    return samples


@pytest.mark.parametrize("bpm", [90.0, 120.0, 140.0])
def test_the_tempo_of_clicks(bpm: float) -> None:
    found = tempo(clicks(bpm, 20))
    assert found is not None
    assert min(abs(found / (bpm * octave) - 1) for octave in (0.5, 1, 2)) < 0.03


def test_no_beat_no_tempo() -> None:
    t = np.arange(SAMPLE_RATE * 10) / SAMPLE_RATE
    assert tempo((0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)) is None
    assert tempo(np.zeros(SAMPLE_RATE * 10, np.float32)) is None
    assert tempo(clicks(120, 3)) is None


def test_the_row_says_what_the_file_is() -> None:
    row = AcousticEnricher().enrich([Audio(clicks(120, 5), 5.0, 44_100, 2)])[0]
    assert (row["duration_s"], row["source_sample_rate_hz"], row["source_channels"]) == (5.0, 44_100, 2)
    assert 0 < row["silence_ratio"] < 1
