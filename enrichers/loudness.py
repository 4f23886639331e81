"""Loudness by EBU R128: integrated loudness, loudness range, true peak, and the share of silence, as a listener of the
one decode.

Sources: ITU-R BS.1770-4 (K-weighting, gating, true peak), EBU Tech 3342 (loudness range). A filter of FFmpeg measures
the same, but PyAV does not hand out the numbers that it writes into its frames' metadata.
"""

from __future__ import annotations

from typing import Any

import numpy as np

STEP_S = 0.1  # energies are kept in steps of 100 ms
GATE_STEPS = 4  # a gating block: 400 ms, overlapping by 75 %
RANGE_STEPS = 30  # a short-term block of the loudness range: 3 s
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
RANGE_GATE_LU = -20.0
SILENCE_DBFS = -50.0
OFFSET_LUFS = -0.691
OVERSAMPLING = 4
TAPS = 12  # a phase of the oversampling filter, as in BS.1770-4 annex 2
SURROUND_GAIN = 1.41  # channels 4 and 5 of a 5.1 or 7.1 layout; channel 3 is the LFE, which does not count


def _shelf(rate: int) -> list[float]:
    """First stage of K-weighting, a high shelf, at any sample rate."""
    k = np.tan(np.pi * 1681.974450955533 / rate)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    top = [(high + band * k / q + k * k) / a0, 2 * (k * k - high) / a0, (high - band * k / q + k * k) / a0]
    return [*top, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]


def _highpass(rate: int) -> list[float]:
    """Second stage of K-weighting."""
    k = np.tan(np.pi * 38.13547087602444 / rate)
    q = 0.5003270373238773
    a0 = 1 + k / q + k * k
    return [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]


def _oversampler() -> np.ndarray:
    """Windowed sinc for 4× interpolation, TAPS taps a phase, unit gain."""
    from scipy.signal import firwin

    return firwin(OVERSAMPLING * TAPS + 1, 1 / OVERSAMPLING, window=("kaiser", 5.0)) * OVERSAMPLING


class LoudnessMeter:
    """Hears the native-rate audio block by block; the figures do not depend on how it was cut. Memory is 16 bytes a
    tenth of a second."""

    name = "loudness"

    def __init__(self) -> None:
        self._energies: list[np.ndarray] = []  # weighted mean square of each step
        self._levels: list[np.ndarray] = []  # unweighted
        self.true_peak = 0.0

    def start(self, sample_rate: int, channels: int) -> None:
        self._step = round(sample_rate * STEP_S)
        self._sections = np.array([_shelf(sample_rate), _highpass(sample_rate)])
        self._state = np.zeros((2, 2, channels))
        gains = np.ones(channels)
        if channels >= 6:
            gains[3], gains[4:6] = 0.0, SURROUND_GAIN
        self._gains = gains
        self._rest_energy = np.zeros(0)
        self._rest_level = np.zeros(0)
        self._tail = np.zeros((TAPS, channels), np.float32)
        self._filter = _oversampler().astype(np.float32) if sample_rate < 96_000 else None
        self._bound = float(np.abs(self._filter).sum()) if self._filter is not None else 1.0

    def hear(self, block: np.ndarray) -> None:
        from scipy.signal import sosfilt

        weighted, self._state = sosfilt(self._sections, block, axis=0, zi=self._state)
        self._rest_energy = self._steps(self._rest_energy, np.square(weighted) @ self._gains, self._energies)
        level = np.square(block, dtype=np.float64).mean(axis=1)
        self._rest_level = self._steps(self._rest_level, level, self._levels)
        self._peak(block)

    def _steps(self, rest: np.ndarray, power: np.ndarray, out: list[np.ndarray]) -> np.ndarray:
        power = np.concatenate([rest, power])
        whole = len(power) // self._step * self._step
        if whole:
            out.append(power[:whole].reshape(-1, self._step).mean(axis=1))
        return power[whole:]

    def _peak(self, block: np.ndarray) -> None:
        from scipy.signal import upfirdn

        joined = np.concatenate([self._tail, block])
        self._tail = joined[-TAPS:]
        highest = float(np.abs(joined).max())
        self.true_peak = max(self.true_peak, float(np.abs(block).max()))
        # No interpolated value exceeds the filter's absolute sum times the highest sample: quiet blocks are skipped.
        if self._filter is not None and highest * self._bound > self.true_peak:
            between = upfirdn(self._filter, joined, up=OVERSAMPLING, axis=0)
            edge = OVERSAMPLING * TAPS
            self.true_peak = max(self.true_peak, float(np.abs(between[edge:-edge]).max(initial=0.0)))

    def figures(self) -> dict[str, Any]:
        """loudness_lufs, loudness_range_lu, true_peak_dbtp (None where undefined) and silence_ratio."""
        energies = np.concatenate(self._energies) if self._energies else np.zeros(0)
        levels = np.concatenate([*self._levels, [self._rest_level.mean()] if len(self._rest_level) else []])
        quiet = levels < 10 ** (SILENCE_DBFS / 10)
        return {
            "loudness_lufs": integrated(energies),
            "loudness_range_lu": loudness_range(energies),
            "true_peak_dbtp": 20 * float(np.log10(self.true_peak)) if self.true_peak > 0 else None,
            "silence_ratio": float(quiet.mean()) if len(quiet) else 1.0,
        }


def _blocks(energies: np.ndarray, steps: int) -> np.ndarray:
    """Mean energies of overlapping blocks of so many steps."""
    if len(energies) < steps:
        return np.zeros(0)
    sums = np.cumsum(np.concatenate([[0.0], energies]))
    return np.maximum(sums[steps:] - sums[:-steps], 0) / steps


def _lufs(energy: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return OFFSET_LUFS + 10 * np.log10(energy)


def integrated(energies: np.ndarray) -> float | None:
    """Gated loudness of 100 ms energies, LUFS; None where nothing passes the absolute gate."""
    blocks = _blocks(energies, GATE_STEPS)
    blocks = blocks[_lufs(blocks) > ABSOLUTE_GATE_LUFS]
    if not len(blocks):
        return None
    gate = float(_lufs(blocks.mean())) + RELATIVE_GATE_LU
    return float(_lufs(blocks[_lufs(blocks) > gate].mean()))


def loudness_range(energies: np.ndarray) -> float | None:
    """Spread between the 10th and 95th percentile of short-term loudness, LU; None below 3 s or the gate."""
    blocks = _blocks(energies, RANGE_STEPS)
    blocks = blocks[_lufs(blocks) > ABSOLUTE_GATE_LUFS]
    if not len(blocks):
        return None
    loud = _lufs(blocks)
    loud = loud[loud > float(_lufs(blocks.mean())) + RANGE_GATE_LU]
    low, high = np.percentile(loud, [10, 95])
    return float(high - low)
