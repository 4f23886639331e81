"""How a picture lies in another: pairs of keypoints that look alike and agree on one affine map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

RATIO = 0.85  # of the distance to the second nearest, at most (Lowe's test)
AWAY = 6.0  # pixels that a keypoint may be off the map
FLAT = 0.2  # a map may not squeeze a picture more than that
SIZES = 0.1, 10.0  # nor change its size more


class Shape(Protocol):
    """A picture's keypoints (`embedders.keypoints`): `points` (x, y), float32 (n, 2), in pixels of a form `width` by
    `height`; unit descriptors in bytes, uint8 (n, dim), `512 * value`."""

    @property
    def points(self) -> np.ndarray: ...
    @property
    def descriptors(self) -> np.ndarray: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


@dataclass(frozen=True)
class Mirrored:
    """The keypoints of a picture's mirror image, without looking at it again: a descriptor is four rows of four columns
    of eight directions, of which a mirror turns the rows and the directions round (Guo, Zhao and Li, MIFT, 2010)."""

    points: np.ndarray
    descriptors: np.ndarray
    width: int
    height: int

    @classmethod
    def of(cls, shape: Shape) -> Mirrored:
        points = shape.points.copy()
        points[:, 0] = shape.width - 1 - points[:, 0]
        cells = shape.descriptors.reshape(-1, 4, 4, 8)[:, ::-1, :, -np.arange(8) % 8]
        return cls(points, np.ascontiguousarray(cells.reshape(-1, 128)), shape.width, shape.height)


@dataclass(frozen=True)
class Overlay:
    """How a picture lies in another: `pairs` of keypoints agree on `map`, float64 (2, 3), pixels to pixels. They span
    the share `covered` of the first picture's area and `covers` of the other's."""

    pairs: int
    map: np.ndarray
    covered: float
    covers: float

    @property
    def evenness(self) -> float:
        """How nearly the map is a turn and a change of size: the smaller over the larger of its stretches, 1 of a
        similarity."""
        large, small = np.linalg.svd(self.map[:, :2], compute_uv=False)
        return float(small / large)


def overlay(one: Shape, other: Shape) -> Overlay | None:
    """How picture `one` lies in `other`; None where fewer than four pairs agree."""
    pairs = _paired(one.descriptors, other.descriptors)
    return _overlay_of(one, other, pairs) if len(pairs) >= 4 else None


def _paired(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """int64 (n, 2): each other's nearest, clearly nearer than the second."""
    if len(one) < 2 or len(other) < 2:
        return np.empty((0, 2), np.int64)
    alike = one.astype(np.float32) @ other.astype(np.float32).T / 512**2
    best = alike.argmax(axis=1)
    rows = np.arange(len(one))
    first = alike[rows, best]
    second = np.partition(alike, -2, axis=1)[:, -2]
    mutual = alike.argmax(axis=0)[best] == rows
    # Distances of unit vectors: 2 - 2 * cosine.
    clear = np.maximum(1 - first, 0) < RATIO**2 * np.maximum(1 - second, 1e-6)
    good = mutual & clear
    return np.stack([rows[good], best[good]], axis=1)


def _overlay_of(one: Shape, other: Shape, pairs: np.ndarray) -> Overlay | None:
    """The map on which most of `pairs`, int64 (n, 2), agree."""
    import cv2

    here, there = one.points[pairs[:, 0]], other.points[pairs[:, 1]]
    # Several keypoints of one place, one an orientation, are one witness.
    _, single = np.unique(np.round(np.concatenate([here, there], axis=1)), axis=0, return_index=True)
    here, there = here[single], there[single]
    if len(here) < 4:
        return None
    cv2.setRNGSeed(0)
    found, inside = cv2.estimateAffine2D(
        here, there, method=cv2.RANSAC, ransacReprojThreshold=AWAY, maxIters=2_000, confidence=0.999, refineIters=10
    )
    if found is None or not _plausible(found):
        return None
    kept = inside.ravel().astype(bool)
    return Overlay(
        int(kept.sum()),
        found,
        _area(here[kept]) / (one.width * one.height),
        _area(there[kept]) / (other.width * other.height),
    )


def _plausible(found: np.ndarray) -> bool:
    large, small = np.linalg.svd(found[:, :2], compute_uv=False)
    return bool(SIZES[0] < small and large < SIZES[1] and small / large > FLAT and np.linalg.det(found[:, :2]) > 0)


def _area(points: np.ndarray) -> float:
    import cv2

    return float(cv2.contourArea(cv2.convexHull(points.astype(np.float32)))) if len(points) > 2 else 0.0
