"""Scores of vectors: the plane between two clouds, a classifier's log-odds, and both in a decision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.storage import open_storage
from embedders.fingerprint import patches
from moderation.banks import Bank
from moderation.evidence import Evidence
from moderation.exemplars import Exemplars
from moderation.judge import Judge
from moderation.likeness import FEATURE_WEIGHT, PLANE_FROM, PLANE_WEIGHT, Plane, log_odds
from moderation.policies import shipped_policies

POLICY = next(p for p in shipped_policies() if p.id == "abusive-language")


def cloud(count: int, seed: int, towards: int) -> np.ndarray:
    """Unit vectors of eight dimensions that differ in all, and lean towards one."""
    found = np.random.default_rng(seed).standard_normal((count, 8))
    found[:, towards] += 1.5
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_plane_is_what_gradient_descent_finds() -> None:
    """Ridge regression of +1 and -1 by a thousand small steps, each side weighing the same."""
    positive, negative = cloud(60, 1, 0), cloud(300, 2, 1)
    plane = Plane.between(positive, negative)
    assert plane is not None
    middle = (positive.mean(axis=0) + negative.mean(axis=0)) / 2
    slow = np.zeros(8)
    for _ in range(4_000):
        gap = [(side - middle) @ slow - truth for side, truth in ((positive, 1), (negative, -1))]
        slope = sum((side - middle).T @ g / (2 * len(side)) for side, g in zip((positive, negative), gap, strict=True))
        slow -= 0.5 * (slope + 1e-4 * slow)
    assert plane.direction == pytest.approx(slow, abs=1e-3)
    assert np.mean(plane.side(cloud(500, 3, 0)) > 0) > 0.8 > 0.2 > np.mean(plane.side(cloud(500, 4, 1)) > 0)


def test_few_exemplars_make_no_plane() -> None:
    assert Plane.between(cloud(PLANE_FROM - 1, 1, 0), cloud(99, 2, 1)) is None
    assert Plane.between(cloud(99, 1, 0), np.empty((0, 0))) is None
    assert Plane.between(cloud(PLANE_FROM, 1, 0), cloud(PLANE_FROM, 2, 1)) is not None


def test_log_odds_are_never_certain() -> None:
    assert log_odds(np.array([0.5, 0.0, 1.0])) == pytest.approx([0.0, -np.log(999), np.log(999)])


def test_a_decision_adds_the_plane_and_the_classifier_to_the_margin(tmp_path: Path) -> None:
    store = Exemplars(open_storage(str(tmp_path)))
    sides = {"abusive-language": cloud(40, 1, 0), "acceptable-language": cloud(30, 2, 1)}
    for bank, vectors in sides.items():
        for number, vector in enumerate(vectors.astype(np.float32)):
            store.add(bank, "text", {"text": f"{bank} {number}"}, {"vector": vector}, name=str(number), state="active")
    judge = Judge(POLICY, "text", Bank("text", store.every(), store.arrays, patches))
    asked = cloud(1, 9, 0)[0].astype(np.float32)
    found = judge.decide("content", Evidence("text", arrays={"vector": asked}))
    assert found is not None
    margin = np.subtract(*(np.sort(side @ asked)[-10:].mean() for side in sides.values()))
    plane = Plane.between(*sides.values())
    assert plane is not None and abs(plane.side(asked[None])[0]) > 0.1
    assert found.raw == pytest.approx(margin + PLANE_WEIGHT * plane.side(asked[None])[0], abs=1e-5)
    rude = Evidence("text", arrays={"vector": asked}, scores={POLICY.feature: 0.9})
    more = judge.decide("content", rude)
    assert more is not None and more.raw - found.raw == pytest.approx(FEATURE_WEIGHT * np.log(9), abs=1e-6)
    without = replace(judge, policy=replace(POLICY, feature=""))
    same = without.decide("content", rude)
    assert same is not None and same.raw == found.raw
