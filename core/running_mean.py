"""Frames of sound less their running mean, in one compiled pass."""

from __future__ import annotations

import numpy as np

from core.compiled import njit


def less_running_mean(frames: np.ndarray, floor: float, over: int, step: float) -> np.ndarray:
    """Frames, uint8 (n, bands), raised to `floor`, less their mean over `over` frames (an odd number), times `step`:
    float32 (n, bands). Beyond the ends they are mirrored."""
    found = np.empty(frames.shape, np.float32)
    if len(frames):
        _pass(np.ascontiguousarray(frames), np.uint8(max(0.0, floor)), over, np.float32(step), found)
    return found


@njit(nogil=True)
def _pass(frames, floor, over, step, out):  # type: ignore[no-untyped-def]
    """Sums are of integers, so that nothing is lost on the way."""
    count, bands = frames.shape
    half = over // 2
    sums = np.zeros(bands, np.int32)
    for i in range(-half, half + 1):
        for b in range(bands):
            sums[b] += max(frames[_mirrored(i, count), b], floor)
    share = step / np.float32(over)
    for i in range(count):
        for b in range(bands):
            out[i, b] = step * max(frames[i, b], floor) - share * sums[b]
        comes, goes = _mirrored(i + half + 1, count), _mirrored(i - half, count)
        for b in range(bands):
            sums[b] += np.int32(max(frames[comes, b], floor)) - np.int32(max(frames[goes, b], floor))


@njit(nogil=True, inline="always")
def _mirrored(i, count):  # type: ignore[no-untyped-def]
    i %= 2 * count
    return i if i < count else 2 * count - 1 - i
