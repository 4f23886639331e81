"""How much a content is like what breaks a policy and like what only looks so, by vectors.

Two views of the same exemplars: the nearest ones, which can be shown, and the plane between all of either side, which
says what tells the sides apart even where no exemplar is near.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

NEAREST = 10  # exemplars of each side whose likeness makes a score
PLANE_FROM = 20  # exemplars of either side; of fewer, a plane would be that of chance
RIDGE = 1e-4  # added to variances of unit vectors, which are about 1 / dim
PLANE_WEIGHT = 0.2  # beside the margin: set on `bench.abuse`, as the next, where .1 to 1 differ little
FEATURE_WEIGHT = 0.02  # of a classifier's log-odds beside the margin
KNOWN_WEIGHT = 0.03  # of those of a classifier of vectors that ships
SURE = 1e-3  # a classifier's score is not taken for surer than this


@dataclass(frozen=True)
class Likeness:
    """Cosines, float32 (1 + parts, exemplars): of a content as a whole first, then of its parts."""

    exemplars: Sequence[str]
    cosine: np.ndarray

    def margins(self, positive: Collection[str], negative: Collection[str]) -> np.ndarray:
        """Of the whole and of each part, float64 (n,): the mean cosine of the `NEAREST` positive exemplars less that of
        the nearest negative ones, in [-1, 1]; a side that is empty counts 0."""
        return nearest_mean(self._of(positive)) - nearest_mean(self._of(negative))

    def nearest(self, row: int, among: Collection[str]) -> list[tuple[str, float]]:
        """The nearest of some exemplars to the whole (row 0) or a part, the likest first."""
        found = [(e, float(v)) for e, v in zip(self.exemplars, self.cosine[row], strict=True) if e in among]
        return sorted(found, key=lambda f: (-f[1], f[0]))[:NEAREST]

    def best(self, among: Collection[str]) -> np.ndarray:
        """Of the whole and of each part the cosine with the nearest of some exemplars, (n,); -1 of none."""
        return np.asarray(self._of(among).max(axis=1, initial=-1.0))

    def ranked(self) -> list[tuple[str, float]]:
        """Every exemplar with the cosine of what is likest to it, the whole or a part, the likest first."""
        found = zip(self.exemplars, self.cosine.max(axis=0).tolist(), strict=True)
        return sorted(found, key=lambda f: (-f[1], f[0]))

    def _of(self, side: Collection[str]) -> np.ndarray:
        return self.cosine[:, [e in side for e in self.exemplars]]


def nearest_mean(cosine: np.ndarray) -> np.ndarray:
    """The mean of the `NEAREST` largest of each row of (n, exemplars), float64 (n,); 0 of none."""
    if not cosine.shape[1]:
        return np.zeros(len(cosine))
    count = min(NEAREST, cosine.shape[1])
    best = np.partition(cosine, cosine.shape[1] - count, axis=1)[:, -count:]
    return np.asarray(np.sort(best, axis=1).astype(np.float64).mean(axis=1))


@dataclass(frozen=True)
class Plane:
    """The plane between two sides of unit vectors: `side` is about 1 on the positive one and -1 on the other.

    Ridge regression on the two sides, which weigh the same (Fisher's linear discriminant with shrinkage): in closed
    form, so that it is the same wherever a decision is made again.
    """

    direction: np.ndarray
    middle: np.ndarray

    @classmethod
    def between(cls, positive: np.ndarray, negative: np.ndarray) -> Plane | None:
        """Of vectors (n, dim) and (m, dim); None where either are under `PLANE_FROM`."""
        if min(len(positive), len(negative)) < PLANE_FROM:
            return None
        sides = [np.asarray(side, np.float64) for side in (positive, negative)]
        means = [side.mean(axis=0) for side in sides]
        middle = (means[0] + means[1]) / 2
        spread = sum((side - middle).T @ (side - middle) / (2 * len(side)) for side in sides)
        pull = (means[0] - means[1]) / 2
        return cls(np.linalg.solve(spread + RIDGE * np.eye(len(middle)), pull), middle)

    def side(self, vectors: np.ndarray) -> np.ndarray:
        """float64 (n,) of vectors (n, dim)."""
        return np.asarray((np.asarray(vectors, np.float64) - self.middle) @ self.direction)


def log_odds(score: float | np.ndarray) -> np.ndarray:
    """Of a classifier's probability, kept from certainty."""
    kept = np.clip(np.asarray(score, np.float64), SURE, 1 - SURE)
    return np.asarray(np.log(kept / (1 - kept)))
