"""The fingerprint against a slower one written out, and against what copies do to sound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal

from catalog.media import SAMPLE_RATE
from embedders.fingerprint import (
    BANDS,
    DIM,
    FLOOR_DB,
    FRAME_S,
    HIGH_HZ,
    HOP,
    LOW_HZ,
    STEP_DB,
    WINDOW,
    frames,
    levelled,
    patches,
    transform,
)


def noise(seconds: float, seed: int, level: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE)) * level).astype(np.float32)


def music(seconds: float, seed: int) -> np.ndarray:
    """Three voices of changing notes, five a second, with overtones."""
    rng = np.random.default_rng(seed)
    count, note = round(seconds * SAMPLE_RATE), SAMPLE_RATE // 5
    out = np.zeros(count)
    for _ in range(3):
        pitch = np.repeat(110 * 2 ** (rng.integers(0, 36, count // note + 1) / 12), note)[:count]
        phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        swell = np.repeat(rng.uniform(0.2, 1, count // note + 1), note)[:count]
        out += swell * sum(np.sin(k * phase) / k for k in range(1, 8))
    return (0.08 * out).astype(np.float32)


def slow_frame(samples: np.ndarray, t: int) -> list[int]:
    """Frame `t` by the definition, one frequency and one band at a time."""
    padded = np.concatenate([np.zeros(WINDOW), samples.astype(np.float64), np.zeros(WINDOW)])
    piece = padded[WINDOW + t * HOP - WINDOW // 2 :][:WINDOW]
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / WINDOW) for n in range(WINDOW)]
    power = np.abs(np.fft.fft(piece * window)[: WINDOW // 2 + 1]) ** 2 / sum(w * w for w in window)
    edges = [LOW_HZ * (HIGH_HZ / LOW_HZ) ** (k / (BANDS + 1)) for k in range(BANDS + 2)]
    values = []
    for band in range(BANDS):
        low, middle, high = edges[band : band + 3]
        weights = []
        for k in range(WINDOW // 2 + 1):
            hz = k * SAMPLE_RATE / WINDOW
            weights.append(max(0.0, min((hz - low) / (middle - low), (high - hz) / (high - middle))))
        level = 10 * math.log10(sum(w * p for w, p in zip(weights, power, strict=True)) / sum(weights) + 10**-9.6)
        values.append(int(min(255, max(0, (level - FLOOR_DB) / STEP_DB + 0.5))))
    return values


@pytest.mark.parametrize("t", [0, 1, 17, 62])
def test_frames_are_as_defined(t: int) -> None:
    samples = music(2.0, 1)
    found = frames(samples)
    assert found.shape == (len(samples) // HOP + 1, BANDS) and found.dtype == np.uint8
    assert np.abs(found[t].astype(int) - slow_frame(samples, t)).max() <= 1  # float32 may round the other way


def test_white_noise_of_full_scale_is_at_zero_decibels() -> None:
    level = FLOOR_DB + STEP_DB * frames(noise(20.0, 0, level=1.0)).astype(float)
    power = 10 * np.log10((10 ** (level / 10)).mean(axis=0))
    assert power == pytest.approx(np.zeros(BANDS), abs=0.5)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 2_047, 2_048, 131_072, 131_073])
def test_lengths(length: int) -> None:
    found = frames(noise(10, 3)[:length])
    assert found.shape == (length // HOP + 1, BANDS)
    # Where a block of frames ends makes no difference.
    whole = frames(noise(10, 3))
    settled = max(0, (length - WINDOW // 2) // HOP)
    np.testing.assert_array_equal(found[:settled], whole[:settled])


def test_silence_is_the_floor_and_clipping_is_no_overflow() -> None:
    assert not frames(np.zeros(20_000, np.float32)).any()
    assert frames(np.full(20_000, 1e4, np.float32)).max() <= 255
    square = np.sign(np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
    assert frames(1e6 * square).max() == 255


def test_a_constant_offset_changes_nothing() -> None:
    samples = music(3.0, 4)
    np.testing.assert_array_equal(frames(samples + np.float32(0.3))[4:-4], frames(samples)[4:-4])


def test_gain_is_a_constant_in_every_band() -> None:
    loud, soft = (frames(gain * music(4.0, 5)).astype(int) for gain in (1.0, 0.25))
    heard = soft.min(axis=1) > 60
    # A quarter is 12.04 dB, 24 steps.
    assert np.abs(loud[heard] - soft[heard] - 24).max() <= 1


def test_the_transform_is_a_cosine_transform() -> None:
    found = np.random.default_rng(6).standard_normal((80, BANDS))
    windowed = found * np.hanning(82)[1:-1, None]
    expected = np.array(
        [
            [
                sum(
                    windowed[t, b] * math.cos(math.pi * k * (t + 0.5) / 80) * math.cos(math.pi * m * (b + 0.5) / BANDS)
                    for t in range(80)
                    for b in range(BANDS)
                )
                for m in (0, 1, 19)
            ]
            for k in (0, 1, 10)
        ]
    ) * (2 / math.sqrt(80 * BANDS))
    whole = (found.reshape(-1) @ transform()).reshape(11, 20)
    assert whole[np.ix_([0, 1, 10], [0, 1, 19])] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_levels_less_their_running_mean() -> None:
    found = frames(music(6.0, 7))
    raised = np.maximum(found, 0).astype(float) * STEP_DB
    middle = 90
    expected = raised[middle] - raised[middle - 31 : middle + 32].mean(axis=0)
    assert levelled(found, loud=0.0)[middle] == pytest.approx(expected, abs=1e-3)


def test_patches_are_unit_vectors_at_their_frames() -> None:
    found = frames(music(10.0, 8))
    vectors, at = patches(found)
    assert vectors.shape == (len(at), DIM) and vectors.dtype == np.float32 and at.dtype == np.int32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(at)), abs=1e-5)
    assert set(np.diff(at)) == {6} and at[0] == 40
    # A patch depends on its own frames and on the second around them, so a hop of one has the same ones among others.
    every, everywhere = patches(found, hop=1)
    rows = np.searchsorted(everywhere, at)
    np.testing.assert_allclose(every[rows], vectors, atol=1e-5)


@pytest.mark.parametrize(
    "quiet",
    [
        np.zeros(5 * SAMPLE_RATE, np.float32),
        0.3 * np.sin(2 * np.pi * 1_000 * np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32),
        np.zeros(100, np.float32),
    ],
    ids=["silence", "tone", "next to nothing"],
)
def test_what_does_not_move_has_no_patches(quiet: np.ndarray) -> None:
    vectors, at = patches(frames(quiet))
    # The tone's beginning and end are events, its middle is none.
    assert not ((at * FRAME_S > 2.5) & (at * FRAME_S < len(quiet) / SAMPLE_RATE - 2.5)).any()
    assert np.isfinite(vectors).all()


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    (a, at), (b, there) = patches(frames(one)), patches(frames(other))
    _, rows, rows_ = np.intersect1d(at, there, return_indices=True)
    found: np.ndarray = np.einsum("ij,ij->i", a[rows], b[rows_])
    return found


def test_copies_are_near_and_others_are_far() -> None:
    plain = music(20.0, 9)
    low = scipy.signal.sosfilt(scipy.signal.butter(2, 2_000, fs=SAMPLE_RATE, output="sos"), plain).astype(np.float32)
    copies = {
        "gain": 0.3 * plain,
        "equalised": low,
        "clipped": np.clip(2 * plain, -0.3, 0.3),
        "noise at 10 dB": plain + noise(20.0, 10, level=float(np.std(plain)) * 10**-0.5),
        "fade": plain * np.linspace(1, 0.1, len(plain), dtype=np.float32),
    }
    # The cosine that decides a hit is .6 (skips.join).
    for name, copy in copies.items():
        assert np.median(cosines(plain, copy)) > 0.7, name
    for seed in range(20, 25):
        assert np.quantile(cosines(plain, music(20.0, seed)), 0.99) < 0.6
