"""Calibrations and thresholds: on data whose probabilities are known, by hand, and as often wrong as they may be."""

from __future__ import annotations

import json

import numpy as np
import pytest

from core.errors import ConfigError
from moderation.calibration import Calibration, calibration_error, fit, held_out, threshold


def drawn(count: int, seed: int, slope: float = 8.0, middle: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels that are positive with a chance of 1 / (1 + exp(-slope * (score - middle)))."""
    rng = np.random.default_rng((21, seed))
    scores = rng.random(count)
    return scores, rng.random(count) < 1 / (1 + np.exp(-slope * (scores - middle)))


@pytest.mark.parametrize(("count", "method"), [(300, "logistic"), (6_000, "isotonic")])
def test_the_true_probabilities_are_found(count: int, method: str) -> None:
    made = fit(*drawn(count, 1))
    assert made.method == method
    at = np.array([0.2, 0.4, 0.5, 0.6, 0.8])
    assert made(at) == pytest.approx(1 / (1 + np.exp(-8 * (at - 0.5))), abs=0.08)
    assert made.error < 0.05
    assert made.positives + made.negatives == count


@pytest.mark.parametrize("count", [60, 6_000])
def test_a_higher_score_never_means_less_and_nothing_is_certain(count: int) -> None:
    for scores, labels in (drawn(count, 2), drawn(count, 3, slope=-4.0), drawn(count, 4, slope=500.0)):
        made = fit(scores, labels)
        found = made(np.linspace(-1, 2, 300))
        assert (np.diff(found) >= 0).all()
        assert found.min() > 0 and found.max() < 1 or count == 60


def test_it_is_kept_as_plain_json() -> None:
    for count in (60, 6_000):
        made = fit(*drawn(count, 5))
        again = Calibration.from_dict(json.loads(json.dumps(made.to_dict())))
        assert again == made and again.version == made.version
        at = np.random.default_rng(0).random(50)
        assert (again(at) == made(at)).all()
    assert fit(*drawn(60, 5)).version != fit(*drawn(60, 6)).version


@pytest.mark.parametrize(
    "change",
    [
        {"method": "magic"},
        {"scores": [0.5, 0.5]},
        {"scores": ["a", "b"]},
        {"scores": [0.1]},
        {"more": 1},
    ],
)
def test_what_is_no_calibration_is_refused(change: dict) -> None:
    plain = {"method": "isotonic", "positives": 9, "negatives": 9, "error": 0.0}
    plain |= {"scores": [0.1, 0.9], "probabilities": [0.2, 0.8], "slope": 0.0, "intercept": 0.0}
    assert Calibration.from_dict(plain)([0.5])[0] == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="no calibration"):
        Calibration.from_dict({**plain, **change})


def test_too_few_labels_are_no_calibration() -> None:
    with pytest.raises(ConfigError, match="4 positive and 40 negative labels; a calibration needs 5 of each"):
        fit(np.linspace(0, 1, 44), [True] * 4 + [False] * 40)
    with pytest.raises(ConfigError, match="finite"):
        fit([0.1, float("nan")], [True, False])


def test_a_label_has_no_part_in_its_own_probability() -> None:
    scores, labels = drawn(200, 7)
    before = held_out(scores, labels)
    # Turning one label over moves the others' probabilities, not its own.
    turned = labels.copy()
    turned[17] = not turned[17]
    groups = [str(n) for n in range(200)]
    assert held_out(scores, labels, groups)[17] == held_out(scores, turned, groups)[17]
    assert before.shape == (200,)


def test_calibration_error_by_hand() -> None:
    # Two bins: .2 where half are positive, .8 where all are: (2 * .3 + 2 * .2) / 4.
    found = calibration_error(np.array([0.2, 0.2, 0.8, 0.8]), np.array([True, False, True, True]), bins=2)
    assert found == pytest.approx(0.25)


def test_the_lowest_threshold_that_is_proven() -> None:
    # 1,000 labels: the upper half all positive, below that none. At .95 / 20 and a target of .9, ranks 50 to 500 pass:
    # .9 ** 57 < .0025 holds from 57 on; of rank 550, 500 are right: 500 / 550 = .909, whose bound is below .9.
    probabilities = np.linspace(1, 0, 1_000)
    found = threshold(probabilities, np.arange(1_000) < 500, 0.9)
    assert (found.value, found.right, found.chosen, found.lacking) == (probabilities[499], 500, 500, 0)
    assert found.bound == pytest.approx(0.0025 ** (1 / 500))


def test_too_few_labels_say_how_many_are_missing() -> None:
    # log(.0025) / log(.95) = 116.8: 117 right ones are needed, 30 are there.
    found = threshold(np.linspace(1, 0, 60), np.arange(60) < 30, 0.95)
    assert found.value is None
    assert found.lacking == 117 - found.right
    assert found.right == 30
    # And with the missing ones, it is proven.
    enough = threshold(np.linspace(1, 0, 20 * 117), np.arange(20 * 117) < 117, 0.95)
    assert enough.value is not None


def test_equal_probabilities_are_above_the_threshold_together() -> None:
    probabilities = np.array([0.9] * 400 + [0.1] * 400)
    labels = np.array([True] * 395 + [False] * 405)
    found = threshold(probabilities, labels, 0.95)
    assert (found.value, found.right, found.chosen) == (0.9, 395, 400)


def test_a_threshold_is_wrong_no_more_often_than_it_may_be() -> None:
    """Where precision is just short of the target at every threshold, five in a hundred draws may pass."""
    rng = np.random.default_rng(8)
    passed = sum(threshold(rng.random(400), rng.random(400) < 0.9, 0.9).value is not None for _ in range(600))
    assert passed <= 600 * 0.05 + 3 * np.sqrt(600 * 0.05 * 0.95)
