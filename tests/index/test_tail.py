"""The nearest rows of a tail against comparing them all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from index.tail import CODED_FROM, Tail
from tests.index.test_choice import clustered


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def make(kind: str, count: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim))
    if kind == "far from the origin":
        rows[:, 0] += 20
    elif kind == "single dimensions":
        rows = np.eye(dim)[rng.integers(0, dim, count)] * rng.choice([-1, 1], (count, 1))
    elif kind == "one dimension is large":
        rows *= np.geomspace(1, 1000, dim)
    elif kind == "all equal":
        rows[:] = rows[0]
    elif kind == "clusters":
        rows = rng.standard_normal((5, dim))[rng.integers(0, 5, count)] + 0.5 * rows
    return unit(rows)


def best(tail: Tail, query: np.ndarray, k: int, floor: float, hidden: np.ndarray) -> list[tuple[float, int]]:
    """Slow, obviously right: the k best contents and whoever equals the last."""
    scores: dict[int, float] = {}
    for row in range(tail.count):
        content = int(tail.content_of[row])
        if not tail.dead[row] and not hidden[content]:
            scores[content] = max(scores.get(content, -np.inf), float(tail.matrix[row] @ query))
    ranked = sorted(((score, content) for content, score in scores.items() if score >= floor), reverse=True)
    return ranked[:k]


@pytest.mark.parametrize("kind", ["normal", "far from the origin", "single dimensions", "one dimension is large",
                                  "all equal", "clusters"])  # fmt: skip
@pytest.mark.parametrize("dim", [5, 64, 100, 384])
def test_the_best_are_found(kind: str, dim: int) -> None:
    """With several rows a content, some dead, some hidden, above a floor or not, by codes and without."""
    rng = np.random.default_rng(dim)
    rows = make(kind, 3200, dim, 1)
    for count in (CODED_FROM - 200, 3000):
        tail, at, number = Tail(dim), 0, 0
        while at < count:
            size = int(rng.integers(1, 200 if number % 9 == 0 else 4))
            tail = tail.put(number if rng.random() < 0.8 else int(rng.integers(0, number + 1)), rows[at : at + size])
            at, number = at + size, number + 1
        assert (len(tail.codes.bits) > 0) == (count > CODED_FROM)
        for number_of_gone in rng.integers(0, number, 20):
            tail = tail.without(int(number_of_gone))
        tail = replace(tail, contents=[str(n) for n in range(number)])
        hidden = rng.random(number) < 0.1
        for query in [*make(kind, 5, dim, 2), *rows[:2], -rows[0]]:
            for k in (1, 10, 200, number + 5):
                nobody = np.zeros(number, bool)
                for out, given in ((hidden, hidden), (nobody, np.empty(0, bool))):
                    for floor in (-np.inf, float(np.quantile(rows @ query, 0.99))):
                        numbers, scores = tail.nearest(query, k, floor, given)
                        right = best(tail, query, k, floor - 1e-6, out)
                        got = sorted(zip(scores.tolist(), numbers.tolist(), strict=True), reverse=True)
                        assert len(set(numbers.tolist())) == len(numbers)
                        least = sum(score > floor + 1e-6 for score, _ in right)
                        assert least <= len(got) and (len(right) == k or len(got) <= len(right))
                        np.testing.assert_allclose(
                            [s for s, _ in got[:least]], [s for s, _ in right[:least]], atol=2e-6
                        )
                        if len(got) > k:  # no more than those that equal the last
                            assert {s for s, _ in got[k:]} == {got[k - 1][0]}


def test_equal_scores_at_the_end_are_all_given() -> None:
    rows = clustered(700, seed=1)
    rows[100:140] = rows[0]
    tail = Tail(rows.shape[1])
    for number, row in enumerate(rows):
        tail = tail.put(number, row[None])
    tail = replace(tail, contents=[str(n) for n in range(700)])
    assert sorted(tail.nearest(rows[0], 5)[0].tolist()) == [0, *range(100, 140)]


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e3, 1e18])
def test_queries_of_any_length(scale: float) -> None:
    rows = clustered(2000, seed=1)
    tail = replace(Tail(rows.shape[1]).put(0, rows[:1]), contents=[str(n) for n in range(2000)])
    for number in range(1, 2000):
        tail = tail.put(number, rows[number : number + 1])
    for query in clustered(20, seed=2):
        numbers, scores = tail.nearest(np.float32(scale) * query, 10)
        right = np.sort(rows @ query)[::-1][:10]
        np.testing.assert_allclose(np.sort(scores)[::-1][:10], right * np.float32(scale), rtol=1e-4)


def test_a_snapshot_stays_as_it_was() -> None:
    rows = clustered(4000, seed=3)
    tail = Tail(rows.shape[1])
    for number in range(600):
        tail = tail.put(number, rows[number : number + 1])
    before = replace(tail, contents=[str(n) for n in range(600)])
    answers = [before.nearest(query, 7) for query in rows[-20:]]
    for number in range(600, 3000):
        tail = tail.put(number % 900, rows[number : number + 1])
    assert replace(tail.compacted(), contents=before.contents).count < 1000
    for query, (numbers, scores) in zip(rows[-20:], answers, strict=True):
        again = before.nearest(query, 7)
        np.testing.assert_array_equal(again[0], numbers)
        np.testing.assert_array_equal(again[1], scores)


def test_a_row_with_the_signs_of_the_query_is_not_passed_over() -> None:
    """Rotated, rows and query are as flat as can be: what the query's levels lose has the signs of the row."""
    from index.onebit import _rotate, signs

    dim, rng = 64, np.random.default_rng(0)
    flips = signs(dim)
    rotation = np.eye(dim, dtype=np.float32)
    for row in rotation:
        _rotate(row, flips)
    flat = rng.choice([-1.0, 1.0], (300, dim)) @ rotation.astype(np.float64).T
    flat = (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)
    decoys = flat[:1] + 0.2 * rng.standard_normal((400, dim)) / np.sqrt(dim)
    decoys = (decoys / np.linalg.norm(decoys, axis=1, keepdims=True)).astype(np.float32)
    rows = np.concatenate([flat[1:], -flat[1:], decoys, flat[:1]])
    tail = Tail(dim)
    for number, row in enumerate(rows):
        tail = tail.put(number, row[None])
    tail = replace(tail, contents=[str(n) for n in range(len(rows))])
    numbers, scores = tail.nearest(flat[0], 1)
    assert numbers[0] == len(rows) - 1 and scores[0] > 0.999
