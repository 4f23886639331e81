"""How one picture lies in another: keypoints made up on a known map, and those of real pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from embedders.keypoints import MOST, keypoints
from moderation.overlay import Mirrored, overlay


@dataclass(frozen=True)
class Made:
    points: np.ndarray
    descriptors: np.ndarray
    width: int = 400
    height: int = 300


def made(count: int, seed: int) -> Made:
    rng = np.random.default_rng((31, seed))
    vectors = rng.random((count, 128)) ** 4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = rng.uniform(0, 1, (count, 2)) * (400, 300)
    return Made(points.astype(np.float32), np.clip(512 * vectors, 0, 255).astype(np.uint8))


def moved(shape: Made, matrix: np.ndarray, keep: int, seed: int) -> Made:
    """Its first `keep` keypoints elsewhere, among others."""
    other = made(len(shape.points), 1_000 + seed)
    points = other.points.copy()
    points[:keep] = shape.points[:keep] @ matrix[:, :2].T + matrix[:, 2]
    descriptors = other.descriptors.copy()
    descriptors[:keep] = shape.descriptors[:keep]
    return Made(points.astype(np.float32), descriptors)


MAPS = {
    "same": np.array([[1.0, 0, 0], [0, 1, 0]]),
    "half as large": np.array([[0.5, 0, 40], [0, 0.5, 20]]),
    "turned": np.array([[0.94, -0.34, 60], [0.34, 0.94, -20]]),
    "sheared": np.array([[1.1, 0.2, -10], [0.0, 0.9, 5]]),
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("keep", [12, 60])
def test_the_map_and_the_pairs_are_found(name: str, keep: int) -> None:
    one = made(150, 1)
    found = overlay(one, moved(one, MAPS[name], keep, 1))
    assert found is not None
    assert keep - 1 <= found.pairs <= keep + 1
    assert found.map == pytest.approx(MAPS[name], abs=0.05)


def test_unrelated_keypoints_agree_on_nothing() -> None:
    for seed in range(20):
        found = overlay(made(150, seed), made(150, 500 + seed))
        assert found is None or found.pairs < 8


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[-1.0, 0, 400], [0, 1, 0]]),  # a mirror: asked for with `Mirrored`
        np.array([[1.0, 0, 0], [0, 0.05, 0]]),  # all on one line
        np.array([[0.02, 0, 0], [0, 0.02, 0]]),  # all in one place
    ],
)
def test_maps_that_no_edit_makes_are_refused(matrix: np.ndarray) -> None:
    one = made(150, 2)
    found = overlay(one, moved(one, matrix, 100, 2))
    assert found is None or found.pairs < 40


def test_pictures_with_nothing_in_them() -> None:
    empty = Made(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    assert overlay(empty, made(50, 3)) is None
    assert overlay(made(50, 3), empty) is None
    assert len(Mirrored.of(empty).points) == 0


def photograph() -> np.ndarray:
    from skimage.data import astronaut

    return np.asarray(astronaut())


def test_a_mirror_image_needs_no_second_look() -> None:
    picture = photograph()
    seen, computed = keypoints(np.ascontiguousarray(picture[:, ::-1])), Mirrored.of(keypoints(picture))
    distance = np.linalg.norm(computed.points[:, None] - seen.points[None], axis=2)
    alike = computed.descriptors.astype(float) @ seen.descriptors.T.astype(float) / 512**2
    best = np.where(distance < 1.0, alike, 0).max(axis=1)
    assert np.mean(best > 0.97) > 0.8


def test_keypoints_are_spread_bounded_and_of_a_form() -> None:
    found = keypoints(photograph())
    assert 200 < len(found) <= MOST
    assert (found.width, found.height) == (512, 512)
    assert found.points.min() >= 0 and found.points.max() <= 512
    norms = np.linalg.norm(found.descriptors.astype(float) / 512, axis=1)
    assert np.median(norms) == pytest.approx(1, abs=0.02)
    quarters = np.histogram2d(*found.points.T, bins=2)[0]
    assert quarters.min() > 20
    # 200 by 52: the form is 512 by 52 / 200 * 512.
    small = keypoints(photograph()[:200, ::10].copy())
    assert (small.width, small.height) == (133, 512)


def test_a_flat_picture_has_none() -> None:
    assert len(keypoints(np.full((60, 80, 3), 128, np.uint8))) == 0
    assert len(keypoints(np.zeros((1, 1, 3), np.uint8))) == 0
