"""Silence: in made-up frames, and in sound that the fingerprint's bands do not hear."""

from __future__ import annotations

import numpy as np
import pytest

from embedders.fingerprint import frames as frames_of
from skips.frames import FRAME_S
from skips.silence import HOP, RATE, silences
from tests.skips.audio import talk
from tests.skips.catalogue import sound


def pause(seconds: float, level: int = 20, ripple: int = 0) -> np.ndarray:
    count = round(seconds / FRAME_S)
    wave = ripple * (np.arange(count) // 10 % 2)
    return (np.full((count, 32), level) + wave[:, None]).astype(np.uint8)


def found_in(frames: np.ndarray) -> list[tuple[float, float, bool]]:
    """The silences of frames whose samples nobody hears."""
    return silences(frames, np.zeros(len(frames) * HOP, np.float32))


def test_a_pause_is_found_to_a_frame() -> None:
    frames = np.concatenate([sound(10, 1), pause(3.0), sound(12, 2)])
    ((start, end, steady),) = found_in(frames)
    assert (start, end) == (pytest.approx(10.0, abs=1.5 * FRAME_S), pytest.approx(13.0, abs=1.5 * FRAME_S))
    assert steady


def test_what_is_short_or_not_so_quiet_is_none() -> None:
    assert found_in(np.concatenate([sound(10, 1), pause(1.9), sound(12, 2)])) == []
    # 25 dB under the loud moments somebody may be whispering.
    loud = int(np.percentile(sound(10, 1).mean(axis=1), 95))
    assert found_in(np.concatenate([sound(10, 1), pause(4.0, level=loud - 50), sound(12, 2)])) == []


def test_unsteady_quiet_is_told_so_and_quiet_music_is_none() -> None:
    ((_, _, steady),) = found_in(np.concatenate([sound(10, 1), pause(4.0, level=8, ripple=20), sound(12, 2)]))
    assert not steady
    tune = pause(4.0, level=4, ripple=20)
    tune[:, 7] += 40  # 20 dB over the other bands
    assert found_in(np.concatenate([sound(10, 1), tune, sound(12, 2)])) == []


def test_only_silence_is_one_silence_and_nothing_is_none() -> None:
    ((start, end, steady),) = found_in(np.zeros((500, 32), np.uint8))
    assert (start, end, steady) == (0.0, pytest.approx(500 * FRAME_S, abs=FRAME_S), True)
    assert found_in(np.zeros((0, 32), np.uint8)) == []
    assert found_in(np.zeros((10, 32), np.uint8)) == []


def tone(hertz: float, seconds: float, dbfs: float = -6.0) -> np.ndarray:
    at = np.arange(int(seconds * RATE)) / RATE
    return (10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * at)).astype(np.float32)


@pytest.mark.parametrize("hertz", [50, 80, 120, 1_000, 4_200, 7_000])
def test_a_tone_is_no_silence_whatever_its_pitch(hertz: float) -> None:
    samples = tone(hertz, 20)
    assert silences(frames_of(samples), samples) == []


def test_bass_between_talk_is_no_silence_and_the_pause_behind_it_is() -> None:
    samples = np.concatenate([talk(8, 1), tone(80, 10), np.zeros(int(4 * RATE), np.float32), talk(8, 2)])
    ((start, end, steady),) = silences(frames_of(samples), samples)
    assert (start, end) == (pytest.approx(18.0, abs=0.15), pytest.approx(22.0, abs=0.15)) and steady


@pytest.mark.parametrize(
    ("what", "is_silent"),
    [
        (np.full(int(5 * RATE), 0.3, np.float32), True),  # an offset moves nothing
        (tone(50, 5, -50.0), True),  # the ear is 30 dB less sensitive to mains hum
        (tone(50, 5, -20.0), False),
        (tone(5_000, 5, -50.0), False),  # and most to this
    ],
)
def test_what_an_ear_hears_decides(what: np.ndarray, is_silent: bool) -> None:
    edge = np.linspace(0, what[0], 800, dtype=np.float32)  # no click
    samples = np.concatenate([talk(10, 3), edge, what, edge[::-1], talk(10, 4)])
    assert bool(silences(frames_of(samples), samples)) is is_silent


def test_the_weights_are_those_of_the_standard() -> None:
    """IEC 61672-1, table 2: -30.2 dB at 50 Hz, -19.1 at 100, -8.6 at 250, 0 at 1 kHz, +1.2 at 2, +0.6 at 5."""
    from skips.silence import WINDOW, _a_weights

    frequency = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    found = np.interp([50, 100, 250, 1_000, 2_000, 5_000], frequency, 10 * np.log10(np.maximum(_a_weights(), 1e-20)))
    assert found == pytest.approx([-30.2, -19.1, -8.6, 0.0, 1.2, 0.6], abs=0.15)
