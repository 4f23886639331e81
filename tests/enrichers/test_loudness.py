"""Loudness against the signals of EBU Tech 3341 and 3342, and against pyloudnorm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.audio import decode_audio
from enrichers.loudness import LoudnessMeter

RATE = 48_000


def sine(level_dbfs: float, seconds: float, hz: float = 1000.0, rate: int = RATE) -> np.ndarray:
    """Stereo sine of that peak level, as Tech 3341 states its test signals."""
    t = np.arange(int(seconds * rate)) / rate
    mono = 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hz * t)
    return np.stack([mono, mono], 1).astype(np.float32)


def measure(samples: np.ndarray, rate: int = RATE, block: int = 65_536) -> dict[str, Any]:
    meter = LoudnessMeter()
    meter.start(rate, samples.shape[1])
    for at in range(0, len(samples), block):
        meter.hear(samples[at : at + block])
    return meter.figures()


@pytest.mark.parametrize(
    ("parts", "lufs"),
    [
        ([(-23, 20)], -23.0),  # Tech 3341 case 1
        ([(-33, 20)], -33.0),  # case 2
        ([(-36, 10), (-23, 60), (-36, 10)], -23.0),  # case 3
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23.0),  # case 4
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23.0),  # case 5
    ],
)
def test_integrated_loudness_of_tech_3341(parts: list[tuple[float, float]], lufs: float) -> None:
    samples = np.concatenate([sine(level, seconds) for level, seconds in parts])
    assert measure(samples)["loudness_lufs"] == pytest.approx(lufs, abs=0.1)


@pytest.mark.parametrize(
    ("parts", "lu"),
    [
        ([(-20, 20), (-30, 20)], 10.0),  # Tech 3342 case 1
        ([(-20, 20), (-15, 20)], 5.0),  # case 2
        ([(-40, 20), (-20, 20)], 20.0),  # case 3
        ([(-50, 20), (-35, 20), (-20, 20), (-35, 20), (-50, 20)], 15.0),  # case 4
    ],
)
def test_loudness_range_of_tech_3342(parts: list[tuple[float, float]], lu: float) -> None:
    samples = np.concatenate([sine(level, seconds) for level, seconds in parts])
    assert measure(samples)["loudness_range_lu"] == pytest.approx(lu, abs=1.0)


@pytest.mark.parametrize("phase_deg", [0.0, 45.0, 60.0, 67.5])
def test_true_peak_lies_between_the_samples(phase_deg: float) -> None:
    """A sine at a quarter of the sample rate: its samples miss its crest (Tech 3341 cases 15 to 18)."""
    n = np.arange(RATE)
    mono = 0.5 * np.sin(2 * np.pi * n / 4 + np.deg2rad(phase_deg))
    # The standard fades in and out; a hard edge would ring on its own.
    fade = np.minimum(1, np.minimum(n, n[::-1]) / 4_800)
    found = measure((mono * fade)[:, None].astype(np.float32))["true_peak_dbtp"]
    assert -6.0 - 0.4 <= found <= -6.0 + 0.2


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_agrees_with_pyloudnorm(rate: int, channels: int) -> None:
    import pyloudnorm

    rng = np.random.default_rng(rate + channels)
    noise = rng.standard_normal((rate * 12, channels)) * np.linspace(0.001, 0.2, rate * 12)[:, None]
    samples = noise.astype(np.float32)
    expected = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(samples.astype(np.float64))
    assert measure(samples, rate)["loudness_lufs"] == pytest.approx(expected, abs=0.05)


def test_the_blocks_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal((RATE * 5, 2))).astype(np.float32)
    one, two = measure(samples), measure(samples, block=1_111)
    assert one == pytest.approx(two, abs=1e-6)


def test_silence_and_shortness() -> None:
    silent = measure(np.zeros((RATE * 5, 2), np.float32))
    assert silent == {
        "loudness_lufs": None,
        "loudness_range_lu": None,
        "true_peak_dbtp": None,
        "silence_ratio": 1.0,
    }
    half = np.concatenate([sine(-20, 2), np.zeros((2 * RATE, 2), np.float32)])
    assert measure(half)["silence_ratio"] == pytest.approx(0.5, abs=0.03)
    assert measure(sine(-20, 0.2))["loudness_lufs"] is None  # shorter than a gating block


def test_hears_the_native_rate_through_the_decoder(tmp_path: Path) -> None:
    import soundfile

    # 10 kHz is lost at 16 kHz: only the native rate can measure it.
    soundfile.write(tmp_path / "high.wav", sine(-23, 5, hz=10_000), RATE)
    meter = LoudnessMeter()
    decode_audio(tmp_path / "high.wav", listeners=[meter])
    assert meter.figures()["loudness_lufs"] > -23
