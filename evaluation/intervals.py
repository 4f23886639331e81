"""Confidence bounds of a share that was counted."""

from __future__ import annotations

import math

from scipy.stats import beta

Z_95 = 1.959963984540054  # standard normal quantile at 0.975


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The bounds of a share, each of which the true one passes with a chance of `1 - confidence` at most (one-sided).

    Clopper and Pearson, The Use of Confidence or Fiducial Limits, Biometrika 1934. Without trials, (0, 1).
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials")
    miss = 1 - confidence
    low = float(beta.ppf(miss, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - miss, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def trials_needed(share: float, confidence: float = 0.95) -> int:
    """How many trials must all be hits before the lower bound reaches `share`: its power of that is the miss."""
    if share <= 0:
        return 0
    if share >= 1:
        raise ValueError("no number of trials proves a share of 1")
    return math.ceil(math.log(1 - confidence) / math.log(share) - 1e-12)


def wilson(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, eq. 5); (0, 1) without trials.

    It takes what was sampled from for endless: of a sample that is much of it, it is too wide, never too narrow.
    """
    if not trials:
        return 0.0, 1.0
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At the ends the formula gives 0 and 1 but for rounding.
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half
