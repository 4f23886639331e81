"""Frames of two recordings multiplied side by side, in one compiled pass."""

from __future__ import annotations

import numpy as np

from core.compiled import njit


def products(one: np.ndarray, at: np.ndarray, other: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Of rows `at`, int64 (n,), of `one` and of those of `other` at fractional frames `there`, float64 (n,), linearly
    interpolated (beyond its ends, its last row): their products with each other, of the first with itself and of the
    second with itself, summed over bands, float32 (3, n). `one` and `other` are float32 (frames, bands)."""
    found = np.empty((3, len(at)), np.float32)
    if len(at):
        low = np.clip(np.floor(there).astype(np.int64), 0, len(other) - 2)
        share = np.clip(there - low, 0, 1).astype(np.float32)
        _pass(one, at, other, low, share, found)
    return found


@njit(nogil=True, fastmath=True)
def _pass(one, at, other, low, share, out):  # type: ignore[no-untyped-def]
    """No row is copied: two recordings of an hour would be gigabytes."""
    bands = one.shape[1]
    for i in range(len(at)):
        mine, here, part = at[i], low[i], share[i]
        rest = np.float32(1) - part
        cross, power, power_ = np.float32(0), np.float32(0), np.float32(0)
        for b in range(bands):
            a = one[mine, b]
            c = other[here, b] * rest + other[here + 1, b] * part
            cross += a * c
            power += a * a
            power_ += c * c
        out[0, i], out[1, i], out[2, i] = cross, power, power_
