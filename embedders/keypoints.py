"""Where a picture has corners and blobs, and what they look like: these find a picture in another one that was cropped,
turned, framed, captioned or photographed from a screen, which whole-picture hashes do not.

Keypoints and descriptors are SIFT's (Lowe, Distinctive Image Features from Scale-Invariant Keypoints, IJCV 2004) with
the square root of Arandjelović and Zisserman (Three Things Everyone Should Know to Improve Object Retrieval, CVPR
2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

KEYPOINTS_ID = "rootsift-1"  # raised when the same picture may get other keypoints
SIDE = 512  # pixels of the longer side in which keypoints are sought
MOST = 400  # keypoints of a picture, half of them coarse where there are so many
COARSE = 8.0  # pixels across
FAINT = 0.002  # contrast from which a spot counts: pictures of the night have no better ones
CELLS = 6  # the picture is cut into so many squares a side, none of which may have more than its share
DIM = 128


@dataclass(frozen=True)
class Keypoints:
    """Of one picture: `points` (x, y) in pixels of its form of `SIDE`, float32 (n, 2); unit descriptors in bytes,
    uint8 (n, 128), `512 * value`; the form's width and height."""

    points: np.ndarray
    descriptors: np.ndarray
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.points)


def keypoints(pixels: np.ndarray) -> Keypoints:
    """The strongest keypoints, spread over the picture. `pixels` is uint8 RGB (height, width, 3)."""
    import cv2

    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale != 1:
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    sift = cv2.SIFT_create(contrastThreshold=FAINT)  # type: ignore[attr-defined]
    found = sift.detect(grey, None)
    chosen = _chosen(found, size) if found else np.empty(0, int)
    kept, descriptors = sift.compute(grey, [found[i] for i in chosen]) if len(chosen) else ((), None)
    if descriptors is None:
        return Keypoints(np.empty((0, 2), np.float32), np.empty((0, DIM), np.uint8), *size)
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
    points = np.array([k.pt for k in kept], np.float32)
    return Keypoints(points, np.clip(512 * root + 0.5, 0, 255).astype(np.uint8), *size)


def _chosen(found: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    """Which keypoints are kept: the strongest, coarse ones first. What is coarse survives blurring and small copies,
    though what is fine is stronger."""
    points = np.array([k.pt for k in found], np.float32)
    response, across = (np.array([getattr(k, name) for k in found]) for name in ("response", "size"))
    coarse = np.flatnonzero(across >= COARSE)
    coarse = coarse[_spread(points[coarse], response[coarse], size, MOST // 2)]
    fine = np.flatnonzero(across < COARSE)
    return np.concatenate([coarse, fine[_spread(points[fine], response[fine], size, MOST - len(coarse))]])


def _spread(points: np.ndarray, response: np.ndarray, size: tuple[int, int], most: int) -> np.ndarray:
    """The strongest `most`, but of no square more than four times its share: a crop must keep enough."""
    square = np.minimum((points * CELLS / np.array(size)).astype(int), CELLS - 1) @ np.array([1, CELLS])
    order = np.argsort(-response, kind="stable")
    rank = np.empty(len(order), int)
    seen = np.zeros(CELLS * CELLS, int)
    for i in order:
        rank[i] = seen[square[i]]
        seen[square[i]] += 1
    kept = order[rank[order] < max(1, 4 * most // CELLS**2)]
    return kept[:most]
