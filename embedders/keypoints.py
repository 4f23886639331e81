"""Where a picture has corners and blobs, and what they look like: these find a picture in another one that was cropped,
turned, framed, captioned or photographed from a screen, which whole-picture hashes do not.

Keypoints and descriptors are SIFT's (Lowe, Distinctive Image Features from Scale-Invariant Keypoints, IJCV 2004) with
the square root of Arandjelović and Zisserman (Three Things Everyone Should Know to Improve Object Retrieval, CVPR
2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEYPOINTS_ID = "rootsift-1"  # raised when the same picture may get other keypoints
SIDE = 512  # pixels of the longer side in which keypoints are sought
MOST = 400  # keypoints of a picture, half of them coarse where there are so many
COARSE = 8.0  # pixels across
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

    sift = cv2.SIFT_create(nfeatures=4 * MOST, contrastThreshold=0.01)  # type: ignore[attr-defined]
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale != 1:
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    found, descriptors = sift.detectAndCompute(grey, None)
    if not found or descriptors is None:
        return Keypoints(np.empty((0, 2), np.float32), np.empty((0, DIM), np.uint8), *size)
    points = np.array([k.pt for k in found], np.float32)
    response, width_of = (np.array([getattr(k, name) for k in found]) for name in ("response", "size"))
    coarse = width_of >= COARSE
    # What is coarse survives blurring and small copies, though what is fine is stronger.
    chosen = np.concatenate(
        [
            np.flatnonzero(part)[_spread(points[part], response[part], size, most)]
            for part, most in ((coarse, MOST // 2), (~coarse, MOST - min(MOST // 2, int(coarse.sum()))))
        ]
    )
    root = np.sqrt(descriptors[chosen] / np.maximum(descriptors[chosen].sum(axis=1, keepdims=True), 1e-6))
    return Keypoints(points[chosen], np.clip(512 * root + 0.5, 0, 255).astype(np.uint8), *size)


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
