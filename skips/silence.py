"""Silence: stretches far below the recording's loud moments, to the fingerprint's bands and to the ear."""

from __future__ import annotations

import numpy as np
import scipy.fft

from skips.frames import FRAME_S, STEP_DB

BELOW_DB = 40.0  # under the 95th percentile of the recording's level
INAUDIBLE = 60  # steps of a frame's bytes, -66 dBFS: silence in any recording
LEAST_S = 2.0
EDGE = 2  # frames at both ends that the sound before and after still reaches
STEADY_DB = 6.0  # between the 5th and the 95th percentile of its level: silence is steady
PEAK_DB = 8.0  # of a band over the median band: what is quiet, unsteady and has a peak is quiet music
HOP, WINDOW = 512, 2048  # samples between frames, and of one
FLOOR_DB = -96.0  # of a frame's bytes
RATE = HOP / FRAME_S
BLOCK = 256  # frames that are transformed together
SPARE_DB = 6.0  # a window's middle may be that much louder than its mean, and weighting may add to it


def silences(frames: np.ndarray, samples: np.ndarray) -> list[tuple[float, float, bool]]:
    """(start, end, steady) of the silent stretches of a recording: seconds, and whether the level stays where it is.
    A recording that is silent throughout has one.

    `frames` are its frames, uint8 (n, bands), `samples` what they were made of, mono float32 at `RATE`. The bands leave
    out bass and treble, so what they take for silence is listened to.
    """
    if not len(frames):
        return []
    power = 10 ** (frames.astype(np.float32) * (STEP_DB / 10))
    level = 10 * np.log10(power.mean(axis=1))
    loud = float(np.percentile(level, 95))
    quiet = level < max(loud - BELOW_DB, INAUDIBLE * STEP_DB)
    if found := _runs(quiet):
        _listen(quiet, found, samples)
    told = []
    for first, last in _runs(quiet):
        start, end = max(0.0, (first - 0.5) * FRAME_S), (last - 0.5) * FRAME_S
        inner = slice(first + EDGE, max(last - EDGE, first + EDGE + 1))
        low, high = np.percentile(level[inner], (5, 95))
        steady = bool(high - low < STEADY_DB)
        bands = 10 * np.log10(power[inner].mean(axis=0))
        if steady or bands.max() - np.median(bands) < PEAK_DB:
            told.append((float(start), float(end), steady))
    return told


def _runs(quiet: np.ndarray) -> list[tuple[int, int]]:
    """The runs of quiet frames that last long enough."""
    turns = np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]]))
    edges = zip(np.flatnonzero(turns == 1).tolist(), np.flatnonzero(turns == -1).tolist(), strict=True)
    return [(a, b) for a, b in edges if (b - 0.5) * FRAME_S - max(0.0, (a - 0.5) * FRAME_S) >= LEAST_S]


def _listen(quiet: np.ndarray, runs: list[tuple[int, int]], samples: np.ndarray) -> None:
    """Takes out of `quiet` the frames of runs in which something can be heard, by the A-weighted level."""
    levels = _levels(samples)
    limit = max(float(np.percentile(levels, 95)) - BELOW_DB, INAUDIBLE * STEP_DB + FLOOR_DB)
    loud = levels > limit - SPARE_DB
    at = np.concatenate([first + np.flatnonzero(loud[first:last]) for first, last in runs])
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    weights = (_a_weights() * (2 / (WINDOW * np.sum(window**2)))).astype(np.float32)
    for first in range(0, len(at), BLOCK):
        some = at[first : first + BLOCK]
        index = some[:, None] * HOP - WINDOW // 2 + np.arange(WINDOW)
        inside = (index >= 0) & (index < len(samples))
        pieces = np.where(inside, samples[np.clip(index, 0, len(samples) - 1)], np.float32(0))
        spectrum = scipy.fft.rfft(pieces * window, overwrite_x=True)
        power = (spectrum.real**2 + spectrum.imag**2) @ weights
        quiet[some] = power < 10 ** (limit / 10)


def _levels(samples: np.ndarray) -> np.ndarray:
    """dBFS of every frame, unweighted, without what does not move; float (n,)."""
    hops = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    power = np.einsum("ij,ij->i", hops, hops) / HOP - hops.mean(axis=1) ** 2
    padded = np.pad(power, 2)
    mean = (padded[:-3] + padded[1:-2] + padded[2:-1] + padded[3:]) / 4
    return 10 * np.log10(np.maximum(mean, 1e-12))


def _a_weights() -> np.ndarray:
    """What power of each bin counts to the ear: the A-weighting of IEC 61672-1, annex E, 1 at 1 kHz; float (bins,)."""
    squared = np.linspace(0, RATE / 2, WINDOW // 2 + 1) ** 2
    inner = np.sqrt((squared + 107.7**2) * (squared + 737.9**2))
    amplitude = 12194.0**2 * squared**2 / ((squared + 20.6**2) * inner * (squared + 12194.0**2))
    return np.asarray((amplitude * 10 ** (2.0 / 20)) ** 2)
