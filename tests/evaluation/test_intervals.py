"""Exact bounds: against sums of the binomial distribution."""

from __future__ import annotations

import math

import pytest

from evaluation.intervals import clopper_pearson, trials_needed


def at_least(hits: int, trials: int, share: float) -> float:
    return sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(hits, trials + 1))


@pytest.mark.parametrize(("hits", "trials"), [(1, 1), (9, 10), (5, 10), (48, 50), (1, 30), (299, 300)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.9975])
def test_the_bounds_are_where_the_tail_is_the_miss(hits: int, trials: int, confidence: float) -> None:
    low, high = clopper_pearson(hits, trials, confidence)
    assert at_least(hits, trials, low) == pytest.approx(1 - confidence, rel=1e-6)
    if hits < trials:
        assert 1 - at_least(hits + 1, trials, high) == pytest.approx(1 - confidence, rel=1e-6)
    else:
        assert high == 1


def test_nothing_is_known_without_trials() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert clopper_pearson(0, 20)[0] == 0.0


def test_trials_needed_by_hand() -> None:
    # .95 ** 59 = .0485, .95 ** 58 = .0510; .99 ** 299 = .0495, .99 ** 298 = .0500 and a bit.
    assert trials_needed(0.95) == 59
    assert trials_needed(0.99) == 299
    assert clopper_pearson(59, 59)[0] >= 0.95 > clopper_pearson(58, 58)[0]
    assert trials_needed(0.0) == 0


@pytest.mark.parametrize(("hits", "trials"), [(-1, 3), (4, 3)])
def test_what_is_no_count_is_refused(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match="hits of"):
        clopper_pearson(hits, trials)
    with pytest.raises(ValueError, match="share of 1"):
        trials_needed(1.0)
