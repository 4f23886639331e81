"""From raw scores to probabilities, and from labels to the score at which one may act.

A calibration is fitted per policy and modality: logistic (Platt, 1999) on few labels, isotonic (Zadrozny and Elkan,
KDD 2002) on many. A threshold is the lowest of a grid whose precision is proven: the lower Clopper-Pearson bound
reaches the target, at a confidence that holds for all thresholds of the grid together (Bonferroni).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.errors import ConfigError
from evaluation.intervals import clopper_pearson, trials_needed

ISOTONIC_FROM = 200  # labels of the rarer kind; below, steps would be noise
LEAST_OF_A_KIND = 5  # labels: below, nothing is fitted
GRID = 20  # thresholds that are tried
CONFIDENCE = 0.95
BINS = 10  # of the calibration error
FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """A monotonic map of scores to probabilities: straight between `scores` and `probabilities` for `isotonic`, else
    1 / (1 + exp(-(slope * score + intercept))). `positives` and `negatives` are the labels it was fitted on; `error` is
    its expected calibration error on labels that were left out."""

    method: str
    positives: int
    negatives: int
    error: float
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    slope: float = 0.0
    intercept: float = 0.0

    def __call__(self, scores: np.ndarray | Sequence[float]) -> np.ndarray:
        """Probabilities, float64 (n,)."""
        raw = np.asarray(scores, np.float64)
        if self.method == "isotonic":
            return np.interp(raw, self.scores, self.probabilities)
        return 1 / (1 + np.exp(-np.clip(self.slope * raw + self.intercept, -500, 500)))

    @property
    def version(self) -> str:
        """Names everything that shapes a probability."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Raises `ConfigError` for what is none."""
        try:
            made = cls(**{**values, **{n: tuple(map(float, values[n])) for n in ("scores", "probabilities")}})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"this is no calibration: {error}") from error
        steps = list(zip(made.scores, made.scores[1:], strict=False))
        if made.method not in ("isotonic", "logistic") or len(made.scores) != len(made.probabilities):
            raise ConfigError(f"this is no calibration: method {made.method!r}, {len(made.scores)} scores")
        if any(b <= a for a, b in steps) or (made.method == "isotonic" and not made.scores):
            raise ConfigError("this is no calibration: its scores must rise")
        return made


@dataclass(frozen=True)
class Threshold:
    """The least probability at which a policy may act by itself: of `chosen` labels at or above it `right` are
    positive, and the precision is `bound` at least. `value` is None where that is not proven; `lacking` is how many
    labels above the threshold are missing then, all of them right."""

    value: float | None
    target: float
    bound: float
    right: int
    chosen: int
    lacking: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit(scores: Sequence[float], labels: Sequence[bool], groups: Sequence[str] | None = None) -> Calibration:
    """A calibration of labelled scores. `groups` are the sources of the labels: the error is measured on sources that
    were left out. Raises `ConfigError` where there are too few of a kind."""
    raw, truth = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if len(raw) != len(truth) or not np.isfinite(raw).all():
        raise ConfigError(f"{len(raw)} scores, which must be finite, for {len(truth)} labels")
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < LEAST_OF_A_KIND:
        raise ConfigError(
            f"{positives} positive and {negatives} negative labels; a calibration needs {LEAST_OF_A_KIND} of each"
        )
    method = "isotonic" if min(positives, negatives) >= ISOTONIC_FROM else "logistic"
    out = held_out(raw, truth, groups, method)
    return Calibration(method, positives, negatives, calibration_error(out, truth), **_fitted(raw, truth, method))


def held_out(
    scores: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None = None, method: str = "logistic"
) -> np.ndarray:
    """Each label's probability by a fit without it and without its group, float64 (n,)."""
    from sklearn.model_selection import GroupKFold, StratifiedKFold

    found = np.full(len(scores), labels.mean())
    kinds = len(set(groups)) if groups is not None else 0
    if kinds >= FOLDS:
        parts = GroupKFold(FOLDS).split(scores, labels, groups)
    else:
        folds = min(FOLDS, int(labels.sum()), int((~labels).sum()))
        parts = StratifiedKFold(folds, shuffle=True, random_state=0).split(scores, labels)
    for train, test in parts:
        if 0 < labels[train].sum() < len(train):
            part = Calibration(method, 0, 0, 0.0, **_fitted(scores[train], labels[train], method))
            found[test] = part(scores[test])
    return found


def _fitted(scores: np.ndarray, labels: np.ndarray, method: str) -> dict[str, Any]:
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        # One more of each kind keeps the ends from 0 and 1, which no number of labels proves.
        ends = np.concatenate([scores, [scores.min(), scores.max()]])
        made = IsotonicRegression(out_of_bounds="clip").fit(ends, np.concatenate([labels, [1.0, 0.0]]))
        at, value = np.asarray(made.X_thresholds_, float), np.asarray(made.y_thresholds_, float)
        keep = np.concatenate([[True], np.diff(at) > 0])
        return {"scores": tuple(at[keep].tolist()), "probabilities": tuple(value[keep].tolist())}
    from sklearn.linear_model import LogisticRegression

    # Scores are standardised, so that the weak prior means the same whatever their unit.
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    made = LogisticRegression(C=10.0).fit(((scores - centre) / spread)[:, None], labels)
    slope = max(float(made.coef_[0, 0]), 0.0) / spread  # a score that rises never means less
    return {"slope": slope, "intercept": float(made.intercept_[0]) - slope * centre}


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error: how far the mean probability is from the share of positives, over bins of as many
    labels each (Naeini et al., AAAI 2015, with equal counts)."""
    order = np.argsort(probabilities, kind="stable")
    parts = [p for p in np.array_split(order, min(bins, len(order))) if len(p)]
    off = [len(p) * abs(float(probabilities[p].mean()) - float(labels[p].mean())) for p in parts]
    return sum(off) / max(len(order), 1)


def threshold(
    probabilities: np.ndarray, labels: np.ndarray, target: float, confidence: float = CONFIDENCE, grid: int = GRID
) -> Threshold:
    """The lowest threshold of a grid whose precision is proven to reach `target`. Probabilities must come from labels
    that did not make the calibration (`held_out`)."""
    order = np.argsort(-probabilities, kind="stable")
    ranked, truth = probabilities[order], np.asarray(labels, bool)[order]
    each = 1 - (1 - confidence) / grid
    needed = trials_needed(target, each)
    best: Threshold | None = None
    nearest = Threshold(None, target, 0.0, 0, 0, needed)
    # The grid is of ranks, laid before any label is looked at.
    for rank in np.unique(np.linspace(len(ranked) / grid, len(ranked), grid).round().astype(int)):
        if rank < 1:
            continue
        chosen = int(np.searchsorted(-ranked, -ranked[rank - 1], side="right"))  # ties come along
        right = int(truth[:chosen].sum())
        bound, _ = clopper_pearson(right, chosen, each)
        if bound >= target:
            best = Threshold(float(ranked[rank - 1]), target, bound, right, chosen, 0)
        elif bound > nearest.bound:
            nearest = Threshold(None, target, bound, right, chosen, max(needed - right, 1))
    return best or nearest
