"""What a recording sounds like at each moment, in a form that survives copying: log-band frames for exact times, and
patches of two seconds for search.

Gain, equalisation and slow fades add a constant to each log band, so frames less their running mean are what copies
share; the two-dimensional cosine transform of a patch keeps its slow changes, which codecs and noise leave alone.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
import scipy.fft

from catalog.media import SAMPLE_RATE
from core.running_mean import less_running_mean

WINDOW = 2048  # samples of a frame, 128 ms
HOP = 512  # samples between frames, 32 ms
FRAME_S = HOP / SAMPLE_RATE
BANDS = 32
LOW_HZ, HIGH_HZ = 180.0, 3_700.0  # below, rooms and telephones differ; above, codecs do
USED = slice(int(LOW_HZ * WINDOW / SAMPLE_RATE), int(HIGH_HZ * WINDOW / SAMPLE_RATE) + 2)  # bins of the spectrum
FLOOR_DB, STEP_DB = -96.0, 0.5  # of a frame's bytes: 0 is the floor, 255 is 31.5 dB over full scale
BLOCK = 256  # frames that are transformed together, so that they stay in the cache


@cache
def _bank() -> np.ndarray:
    """Triangular bands, logarithmically spaced, as a float32 matrix (bins of `USED`, BANDS); columns sum to 1, and the
    window's power is taken out: white noise of 0 dBFS gives 0 dB in every band."""
    frequency = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)[USED]
    edge = np.geomspace(LOW_HZ, HIGH_HZ, BANDS + 2)
    up = (frequency[:, None] - edge[:-2]) / (edge[1:-1] - edge[:-2])
    down = (edge[2:] - frequency[:, None]) / (edge[2:] - edge[1:-1])
    bank = np.clip(np.minimum(up, down), 0, None)
    bank /= bank.sum(axis=0)
    return (bank / float(np.sum(_window() ** 2))).astype(np.float32)


@cache
def _window() -> np.ndarray:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


def frames(samples: np.ndarray) -> np.ndarray:
    """Log power of 32 bands every 32 ms as uint8 (n, 32): `FLOOR_DB + STEP_DB * value` dBFS.

    `samples` is mono float32 (n,) at 16 kHz. Frame t is centred at `t * FRAME_S` seconds; there are
    `len(samples) // HOP + 1`. Beyond the ends lies silence.
    """
    samples = np.asarray(samples, np.float32)
    count = len(samples) // HOP + 1
    found = np.empty((count, BANDS), np.uint8)
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        start, stop = first * HOP - WINDOW // 2, (last - 1) * HOP + WINDOW // 2
        piece = samples[max(start, 0) : stop]
        if start < 0 or stop > len(samples):
            piece = np.pad(piece, (max(-start, 0), max(stop - len(samples), 0)))
        windows = np.lib.stride_tricks.sliding_window_view(piece, WINDOW)[::HOP]
        spectrum = scipy.fft.rfft(windows * _window(), overwrite_x=True)[:, USED]
        power = (spectrum.real**2 + spectrum.imag**2) @ _bank()
        level = 10 * np.log10(power + 10 ** (FLOOR_DB / 10))
        found[first:last] = np.clip((level - FLOOR_DB) / STEP_DB + 0.5, 0, 255)
    return found


FINGERPRINT_ID = "log-band-patches-1"  # names everything that shapes a vector; the projection's hash is in its file
PATCH = 80  # frames of a patch, 2.56 s
DIM = 64
PATCH_HOP = 6  # frames between stored patches, 192 ms
RANGE_DB = 30.0  # below a recording's loud moments by more than this, its copies keep noise of their own
MEAN = 63  # frames of the running mean, 2 s
TIME_TERMS, BAND_TERMS = 11, 20  # of the cosine transform
QUIET_RMS_DB = 1.0  # a patch that moves less than this is silence or a steady tone: it would match any other


def levelled(found: np.ndarray, loud: float | None = None) -> np.ndarray:
    """float32 (n, 32): frames (uint8) in dB, cut off `RANGE_DB` under the loud moments, less their running mean.

    `loud` is the level of those in steps of the bytes; without it, the 95th percentile of these frames' means."""
    if not len(found):
        return np.empty((0, BANDS), np.float32)
    loud = float(np.percentile(found.mean(axis=1), 95)) if loud is None else loud
    return less_running_mean(found, loud - RANGE_DB / STEP_DB, MEAN, STEP_DB)


def _cosines(length: int, terms: int) -> np.ndarray:
    """The first rows of the orthonormal DCT-II, (terms, length); the zeroth is a factor too large, which cancels."""
    phase = np.pi * np.arange(terms)[:, None] * (np.arange(length) + 0.5) / length
    return np.cos(phase) * np.sqrt(2 / length)


@cache
def transform() -> np.ndarray:
    """float32 (PATCH * BANDS, TIME_TERMS * BAND_TERMS): a flattened patch to its windowed cosine transform."""
    times = _cosines(PATCH, TIME_TERMS) * np.hanning(PATCH + 2)[1:-1]
    both = np.einsum("kt,lb->tbkl", times, _cosines(BANDS, BAND_TERMS))
    return np.ascontiguousarray(both.reshape(PATCH * BANDS, TIME_TERMS * BAND_TERMS), np.float32)


@cache
def _projection() -> np.ndarray:
    """The transform, and then what tells a copy from another recording (`bench.fingerprint_train` learnt it)."""
    with resources.files("embedders").joinpath("data/fingerprint.npy").open("rb") as stored:
        learnt = np.load(stored, allow_pickle=False).astype(np.float32)
    return np.ascontiguousarray(transform() @ learnt)


def patches(found: np.ndarray, hop: int = PATCH_HOP, loud: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the patches around every `hop`-th frame: float32 (m, 64), and those frames' numbers, int32 (m,).

    `found` are frames, uint8 (n, 32). Patches in which next to nothing moves are left out. Cosines of patches of the
    same sound are around .8 when codecs, noise and speech went over one of them; of others, around 0.
    """
    flat = levelled(found, loud)
    at = np.arange(PATCH // 2, len(flat) - PATCH // 2 + 1, hop, dtype=np.int32)
    if not len(at):
        return np.empty((0, DIM), np.float32), np.empty(0, np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(flat, PATCH, axis=0)[::hop]
    vectors, moves = np.empty((len(at), DIM), np.float32), np.empty(len(at), np.float32)
    for first in range(0, len(at), BLOCK):
        block = np.ascontiguousarray(windows[first : first + BLOCK].transpose(0, 2, 1)).reshape(-1, PATCH * BANDS)
        moves[first : first + BLOCK] = np.sqrt(np.einsum("ij,ij->i", block, block) / block.shape[1])
        vectors[first : first + BLOCK] = block @ _projection()
    norms = np.linalg.norm(vectors, axis=1)
    heard = (moves > QUIET_RMS_DB) & (norms > 0)
    return np.ascontiguousarray(vectors[heard] / norms[heard, None]), at[heard]
