"""Silence: stretches far below the recording's loud moments."""

from __future__ import annotations

import numpy as np

from skips.frames import FRAME_S, STEP_DB

BELOW_DB = 40.0  # under the 95th percentile of the recording's level
INAUDIBLE = 60  # steps of a frame's bytes, -66 dBFS: silence in any recording
LEAST_S = 2.0
EDGE = 2  # frames at both ends that the sound before and after still reaches
STEADY_DB = 6.0  # between the 5th and the 95th percentile of its level: silence is steady
PEAK_DB = 8.0  # of a band over the median band: what is quiet, unsteady and has a peak is quiet music


def silences(frames: np.ndarray) -> list[tuple[float, float, bool]]:
    """(start, end, steady) of the silent stretches of a recording's frames, uint8 (n, bands): seconds, and whether the
    level stays where it is. A recording that is silent throughout has one."""
    if not len(frames):
        return []
    power = 10 ** (frames.astype(np.float32) * (STEP_DB / 10))
    level = 10 * np.log10(power.mean(axis=1))
    loud = float(np.percentile(level, 95))
    quiet = level < max(loud - BELOW_DB, INAUDIBLE * STEP_DB)
    turns = np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]]))
    found = []
    for first, last in zip(np.flatnonzero(turns == 1), np.flatnonzero(turns == -1), strict=True):
        start, end = max(0.0, (first - 0.5) * FRAME_S), (last - 0.5) * FRAME_S
        if end - start < LEAST_S:
            continue
        inner = slice(first + EDGE, max(last - EDGE, first + EDGE + 1))
        low, high = np.percentile(level[inner], (5, 95))
        steady = bool(high - low < STEADY_DB)
        bands = 10 * np.log10(power[inner].mean(axis=0))
        if steady or bands.max() - np.median(bands) < PEAK_DB:
            found.append((float(start), float(end), steady))
    return found
