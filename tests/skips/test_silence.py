"""Silence in made-up frames."""

from __future__ import annotations

import numpy as np
import pytest

from skips.frames import FRAME_S
from skips.silence import silences
from tests.skips.catalogue import sound


def pause(seconds: float, level: int = 20, ripple: int = 0) -> np.ndarray:
    count = round(seconds / FRAME_S)
    wave = ripple * (np.arange(count) // 10 % 2)
    return (np.full((count, 32), level) + wave[:, None]).astype(np.uint8)


def test_a_pause_is_found_to_a_frame() -> None:
    frames = np.concatenate([sound(10, 1), pause(3.0), sound(12, 2)])
    ((start, end, steady),) = silences(frames)
    assert (start, end) == (pytest.approx(10.0, abs=1.5 * FRAME_S), pytest.approx(13.0, abs=1.5 * FRAME_S))
    assert steady


def test_what_is_short_or_not_so_quiet_is_none() -> None:
    assert silences(np.concatenate([sound(10, 1), pause(1.9), sound(12, 2)])) == []
    # 25 dB under the loud moments somebody may be whispering.
    loud = int(np.percentile(sound(10, 1).mean(axis=1), 95))
    assert silences(np.concatenate([sound(10, 1), pause(4.0, level=loud - 50), sound(12, 2)])) == []


def test_unsteady_quiet_is_told_so_and_quiet_music_is_none() -> None:
    ((_, _, steady),) = silences(np.concatenate([sound(10, 1), pause(4.0, level=8, ripple=20), sound(12, 2)]))
    assert not steady
    tune = pause(4.0, level=4, ripple=20)
    tune[:, 7] += 40  # 20 dB over the other bands
    assert silences(np.concatenate([sound(10, 1), tune, sound(12, 2)])) == []


def test_only_silence_is_one_silence_and_nothing_is_none() -> None:
    ((start, end, steady),) = silences(np.zeros((500, 32), np.uint8))
    assert (start, end, steady) == (0.0, pytest.approx(500 * FRAME_S, abs=FRAME_S), True)
    assert silences(np.zeros((0, 32), np.uint8)) == []
    assert silences(np.zeros((10, 32), np.uint8)) == []
