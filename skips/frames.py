"""Two recordings compared moment by moment: how they line up, how far they agree, where exactly that begins and ends.

Frames are those of the fingerprint (uint8, (n, bands), half decibels); what is compared is insensitive to gain.
Likeness is turned into evidence by the log-likelihood ratio of "the same sound" to "two different ones", taken from the
tuning episodes (`bench.episodes`), so that sums over time mean something and a boundary is where the sum peaks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import uniform_filter1d

from core.running_mean import less_running_mean
from skips.products import products

FRAME_S = 0.032  # seconds between frames
STEP_DB = 0.5  # of a frame's bytes
RANGE_DB = 45.0  # under a recording's loud moments, copies keep noise of their own
MEAN_FRAMES = 63  # of the running mean, 2 s
NOISE = 8.0  # dB² a frame: keeps the likeness of next to nothing with next to nothing at zero
SMOOTHED, SHARP, SLOW = 5, 3, 63  # frames over which likeness is taken: of movement, of shape, of movement at length
HELD_FRAMES = 3_500_000  # of recordings in memory, 31 hours, 1.3 GB in all three forms
STILL_DB = (0.7, 1.7)  # root mean square between which movement begins to count

# Log-likelihood ratios of likeness, (likeness, ratio): movement over 5 frames, shape over 3.
MOVEMENT = ((0.0, -3.0), (0.23, -2.6), (0.43, -1.65), (0.53, -1.0), (0.63, -0.2), (0.73, 1.0), (0.83, 2.5), (0.9, 3.0))
SHAPE = ((0.43, -3.0), (0.53, -2.8), (0.63, -2.1), (0.73, -0.9), (0.83, 0.6), (0.93, 3.0))


def loudness(frames: np.ndarray) -> float:
    """The level of a recording's loud moments, in steps of a frame's bytes: the 95th percentile of frames' means."""
    return float(np.percentile(frames.mean(axis=1), 95)) if len(frames) else 0.0


class Sound:
    """A recording's frames, uint8 (n, bands), in the two forms that are compared; each is made when first needed.
    `loud` is the level of the recording's loud moments, which a clip of it takes along."""

    def __init__(self, frames: np.ndarray, loud: float | None = None) -> None:
        self.frames = frames
        self.loud = loudness(frames) if loud is None else loud

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def _floor(self) -> float:
        return max(0.0, self.loud - RANGE_DB / STEP_DB)

    @cached_property
    def movement(self) -> np.ndarray:
        """float32 (n, bands): dB less the running mean; blind to gain and equalisation, blurred at edges."""
        return less_running_mean(self.frames, self._floor, MEAN_FRAMES, STEP_DB)

    @cached_property
    def shape(self) -> np.ndarray:
        """float32 (n, bands): dB less the frame's own mean; sharp at edges."""
        raised = np.maximum(self.frames, np.uint8(self._floor)).astype(np.float32) * np.float32(STEP_DB)
        return raised - raised.mean(axis=1, keepdims=True)


class Sounds:
    """Recordings by number. The least used are dropped from memory when all have over `keep` frames."""

    def __init__(self, load: Callable[[int], np.ndarray], keep: int = HELD_FRAMES) -> None:
        self._load, self._keep = load, keep
        self._held: OrderedDict[int, Sound] = OrderedDict()
        self._frames = 0

    def __getitem__(self, number: int) -> Sound:
        found = self._held.get(number)
        if found is None:
            found = self._held[number] = Sound(self._load(number))
            self._frames += len(found)
            while self._frames > self._keep and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._frames -= len(dropped)
        else:
            self._held.move_to_end(number)
        return found


@dataclass(frozen=True)
class Line:
    """How the frames of one recording map to another's: `scale * frame + shift`."""

    scale: float
    shift: float

    def __call__(self, at: np.ndarray | float) -> np.ndarray | float:
        return self.scale * at + self.shift

    def inverse(self) -> Line:
        return Line(1 / self.scale, -self.shift / self.scale)

    def later(self, frames: float) -> Line:
        """The line from a clip that begins so many frames later."""
        return Line(self.scale, self.shift + self.scale * frames)

    def then(self, other: Line) -> Line:
        return Line(other.scale * self.scale, other.scale * self.shift + other.shift)


def likeness(products: np.ndarray, bands: int, over: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the products of two rows of frames (`skips.products`), float32 (3, n), each taken over `over` frames: the
    normalised correlation, float32 (n,), and how much there is to compare, the larger of both root mean squares in
    dB."""
    if over > 1:
        products = uniform_filter1d(products, over, axis=1)
    cross, power, power_ = products[0], np.maximum(products[1], 0), np.maximum(products[2], 0)
    like = cross / (np.sqrt(power * power_) + NOISE)
    return like.astype(np.float32), np.sqrt(np.maximum(power, power_) / bands)


def self_likeness(form: np.ndarray, lags: range = range(6, 41)) -> float:
    """The largest mean likeness of rows of frames (n, bands) and those `lags` frames later: near 1 for what repeats
    every fifth of a second to second all along."""
    powers = np.einsum("ij,ij->i", form, form)
    found = [0.0]
    for lag in lags:
        if lag < len(form):
            cross = np.einsum("ij,ij->i", form[:-lag], form[lag:])
            found.append(float(np.mean(cross / (np.sqrt(powers[:-lag] * powers[lag:]) + NOISE))))
    return max(found)


MONOTONOUS = 0.8  # self-likeness within a second from which a stretch is a beat or a ringing: spots reach .57
HUMMING, HUMMING_DB = 0.5, 3.5  # and from which it is a hum, where it moves less than that: spots move over 4 dB


def monotonous(movement: np.ndarray) -> bool:
    """Whether a stretch of movement (n, bands) is alike all along: nothing then tells one place in it from another, nor
    it from the same hum or beat elsewhere."""
    least = HUMMING if np.sqrt(np.mean(movement**2)) < HUMMING_DB else MONOTONOUS
    return self_likeness(movement) > least


def evidence(like: np.ndarray, table: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Log-likelihood ratios, nats a frame."""
    at, ratio = np.array(table).T
    return np.interp(like, at, ratio)


# Movement over two seconds: speech over a spot halves the likeness, but chance never comes near that for so long.
SLOWLY = ((0.1, -3.0), (0.3, 0.0), (0.5, 2.0), (0.7, 3.0))

ANCHOR, ANCHOR_HOP, REACH = 64, 40, 9  # frames: of an anchor, between two, and searched to both sides
STEEP = 0.03  # copies are at most so much faster or slower
LIKE = 0.35  # an anchor that fits worse says nothing


def lined_up(one: Sound, other: Sound, first: float, last: float, guess: Line) -> Line | None:
    """The line on which `other` plays what `one` plays from frame `first` to `last`, to a fraction of a frame.

    `guess` must be right to `REACH` frames. Windows of two seconds are moved until they fit best; the line goes through
    the best fits (Theil and Sen's estimator, which half of them may spoil). None where nothing fits.
    """
    middle = (first + last) / 2
    half = max((last - first) / 2 - ANCHOR / 2, 0)
    count = int(2 * half / ANCHOR_HOP) + 1
    places = np.linspace(middle - half, middle + half, count) if count > 1 else np.array([middle])
    at = np.rint(places).astype(np.int64)
    there = np.rint(np.asarray(guess(at.astype(np.float64)))).astype(np.int64)
    inside = (at >= ANCHOR // 2) & (at <= len(one) - ANCHOR // 2)
    inside &= (there >= ANCHOR // 2 + REACH) & (there <= len(other) - ANCHOR // 2 - REACH)
    at, there = at[inside], there[inside]
    if not len(at):
        return None
    a = one.movement[at[:, None] + np.arange(-ANCHOR // 2, ANCHOR // 2)]
    b = other.movement[there[:, None] + np.arange(-ANCHOR // 2 - REACH, ANCHOR // 2 + REACH)]
    # A window is one run of numbers, and the next one begins a frame later: nothing is copied to move it.
    length = ANCHOR * a.shape[2]
    moved = np.lib.stride_tricks.as_strided(b, (len(b), 2 * REACH + 1, length), b.strides)
    cross = np.einsum("nsk,nk->ns", moved, a.reshape(len(a), length))
    power = np.cumsum(np.einsum("nwf,nwf->nw", b, b), axis=1, dtype=np.float64)
    power[:, ANCHOR:] -= power[:, :-ANCHOR].copy()
    power = power[:, ANCHOR - 1 :]
    own = np.einsum("nwf,nwf->n", a, a)[:, None]
    fits = cross / (np.sqrt(own * power) + NOISE * ANCHOR)
    best = fits.argmax(axis=1)
    rows = np.arange(len(at))
    good = fits[rows, best] > LIKE
    if not good.any():
        return None
    at, there, best, fits, rows = at[good], there[good], best[good], fits[good], np.arange(int(good.sum()))
    # A parabola through the three best values finds the peak between frames.
    inner = np.clip(best, 1, 2 * REACH - 1)
    left, top, right = (fits[rows, inner + k] for k in (-1, 0, 1))
    bend = left - 2 * top + right
    peak = np.where(bend < -1e-6, (left - right) / (2 * np.minimum(bend, -1e-6)), 0.0)
    found = there + inner - REACH + np.clip(peak, -1, 1)
    scale = _slope(at.astype(np.float64), found)
    return Line(scale, float(np.median(found - scale * at)))


def _slope(at: np.ndarray, found: np.ndarray) -> float:
    """The median slope between anchors that are far apart; 1 where they are too few to tell."""
    if len(at) < 4 or at[-1] - at[0] < 150:
        return 1.0
    i, j = np.triu_indices(len(at), k=max(1, len(at) // 3))
    slope = float(np.median((found[j] - found[i]) / (at[j] - at[i])))
    if abs(slope - 1) < 0.0015:  # less than the anchors can tell
        return 1.0
    return float(np.clip(slope, 1 - STEEP, 1 + STEEP))


@dataclass(frozen=True)
class Extent:
    """How far two recordings agree: frames `start` to `end` of the first; `score` is the mean likeness of movement in
    between, `sure` the sum of evidence (nats)."""

    start: float
    end: float
    score: float
    sure: float


@dataclass(frozen=True)
class Agreement:
    """Two recordings side by side: frames `at` of the first, the likeness of movement, and the evidence (nats a frame)
    that both play the same sound: `broad` to find a stretch with, `sharp` to find its edges."""

    at: np.ndarray
    moved: np.ndarray
    broad: np.ndarray
    sharp: np.ndarray


def agreement(one: Sound, other: Sound, line: Line, first: int, last: int) -> Agreement:
    """How frames `first` to `last` of `one` agree with those of `other` on `line`, where both have them."""
    at = np.arange(max(first, 0), min(last, len(one)))
    there = np.asarray(line(at.astype(np.float64)))
    inside = (there >= 0) & (there <= len(other) - 1)
    at, there = at[inside], there[inside]
    if len(at) < 2:
        nothing = np.empty(0)
        return Agreement(at[:0], nothing, nothing, nothing)
    bands = one.movement.shape[1]
    moves = products(one.movement, at, other.movement, there)
    moved, moving = likeness(moves, bands, SMOOTHED)
    slowly, _ = likeness(moves, bands, SLOW)
    shaped, shapely = likeness(products(one.shape, at, other.shape, there), bands, SHARP)
    sharp = evidence(shaped, SHAPE) * _counts(shapely)
    weight = _counts(moving)
    quick = weight * evidence(moved, MOVEMENT) + (1 - weight) * sharp
    return Agreement(at, moved, np.maximum(quick, evidence(slowly, SLOWLY)), sharp)


def _counts(rms: np.ndarray) -> np.ndarray:
    """How much likeness counts, 0 to 1: that of stillness with stillness says nothing."""
    low, high = STILL_DB
    return np.clip((rms - low) / (high - low), 0, 1)


def best_run(gain: np.ndarray) -> tuple[int, int]:
    """The run (start, end) with the largest sum (Kadane)."""
    sums = np.concatenate([[0.0], np.cumsum(gain)])
    least = np.minimum.accumulate(sums)
    end = int(np.argmax(sums - least))
    return int(np.argmin(sums[: end + 1])), end


EXTENSION = 940  # frames that an agreement may go on beyond what was found by search, 30 s
NEAR = 47  # frames around an edge in which it is sought exactly, 1.5 s


def extent(
    one: Sound, other: Sound, line: Line, first: float, last: float, low: float = -np.inf, high: float = np.inf
) -> Extent | None:
    """How far the two agree around frames `first` to `last` of `one`, not beyond `low` and `high`; None if nowhere."""
    both = agreement(one, other, line, int(max(first - EXTENSION, low)), int(min(last + EXTENSION, high)))
    start, end = best_run(both.broad)
    if end <= start:
        return None
    sure, score = float(both.broad[start:end].sum()), float(both.moved[start:end].mean())
    start, end = edge(both.sharp, start, -1), edge(both.sharp, end, 1)
    if end <= start:
        return None
    return Extent(float(both.at[start]) - 0.5, float(both.at[end - 1]) + 0.5, score, sure)


def edge(gain: np.ndarray, near: int, side: int, reach: int = NEAR) -> int:
    """The position within `reach` of `near` that parts evidence for from evidence against: `side` -1 is a start, 1 an
    end."""
    low, high = max(0, near - reach), min(len(gain), near + reach)
    sums = np.concatenate([[0.0], np.cumsum(gain[low:high])])
    return low + int(np.argmax(sums) if side > 0 else np.argmin(sums))
