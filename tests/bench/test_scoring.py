"""Scores of skip markers, on examples that were worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.episodes import Segment
from bench.scoring import Judged, Marker, ious, matched, score, wrong_s


def true(start: float, end: float, kind: str = "ad", motif: str = "a", *perturbations: str) -> Segment:
    return Segment(kind, start, end, motif, perturbations)


def mark(start: float, end: float, kind: str = "ad", action: str = "auto") -> Marker:
    return Marker(kind, start, end, action)


def test_intersection_over_union() -> None:
    found = ious([true(0, 10), true(20, 30)], [mark(5, 15), mark(0, 10), mark(40, 50)])
    assert found == pytest.approx(np.array([[5 / 15, 1, 0], [0, 0, 0]]))


def test_a_marker_matches_one_segment_at_most() -> None:
    # The long marker overlaps both halves by half of its own length; it can be one of them, not both.
    truth = [true(0, 10), true(10, 20)]
    assert len(matched(truth, [mark(0, 20)], 0.5)) == 1
    assert matched(truth, [mark(0, 20)], 0.51) == []
    assert matched([], [mark(0, 1)], 0.5) == [] == matched(truth, [], 0.5)


def test_more_matches_go_before_better_ones() -> None:
    # IoU of truth 0: 1.0 with marker 0, .6 with marker 1; of truth 1: .6 with marker 0, nothing with marker 1.
    # Greedy would take the perfect pair and lose the other.
    truth = [true(10, 20), true(14, 20)]
    found = [mark(10, 20), mark(10, 16)]
    assert ious(truth, found) == pytest.approx(np.array([[1.0, 0.6], [0.6, 2 / 10]]))
    assert sorted(matched(truth, found, 0.5)) == [(0, 1), (1, 0)]
    assert matched(truth, found, 0.75) == [(0, 0)]


def test_wrongly_skipped_seconds() -> None:
    truth = [true(10, 20), true(20, 30)]
    assert wrong_s(truth, [mark(8, 31)]) == pytest.approx(3)  # 2 before and 1 after
    assert wrong_s(truth, [mark(8, 12), mark(6, 11)]) == pytest.approx(4)  # overlapping markers skip once
    assert wrong_s(truth, [mark(0, 100, action="ask")]) == 0
    assert wrong_s([], [mark(0, 5)]) == 5


@pytest.fixture
def judged() -> list[Judged]:
    one = [
        true(0, 10, "intro", "i"),
        true(100, 120, "ad", "a", "gain"),
        true(200, 206, "jingle", "j", "gain", "eq"),
        Segment("silence", 300, 303),
    ]
    found = [
        mark(0.1, 10, "intro"),  # IoU .99
        mark(102, 114, "jingle"),  # IoU .6, wrong kind
        mark(299, 303, "silence"),  # IoU .75; one second too early
        mark(400, 405, "ad", "ask"),  # nothing there
    ]
    two = [true(50, 70, "ad", "a")]
    return [
        Judged("show-1", 1800, one, found, "flac"),
        Judged("show-2", 1800, two, [], "opus-16k"),
        Judged("control", 3600, [], [mark(10, 11)], "flac"),
    ]


def test_numbers_worked_out_by_hand(judged: list[Judged]) -> None:
    got = score(judged, {"i": 3, "a": 2, "j": 5})
    # 5 segments, 5 markers; 3 matches at .5, 2 at .75.
    assert got.precision == pytest.approx({0.5: 3 / 5, 0.75: 2 / 5})
    assert got.recall == pytest.approx({0.5: 3 / 5, 0.75: 2 / 5})
    assert got.f1 == pytest.approx({0.5: 0.6, 0.75: 0.4})
    assert sorted(got.start_errors_s) == pytest.approx([0.1, 1, 2])
    assert sorted(got.end_errors_s) == pytest.approx([0, 0, 6])
    assert got.boundary_median_s == pytest.approx((0.1 + 1) / 2)  # of 0, 0, .1, 1, 2, 6
    assert got.boundary_p90_s == pytest.approx(4)  # halfway between 2 and 6
    assert got.wrong_s_per_hour == pytest.approx((1 + 1) / 2)  # two seconds in two hours
    assert got.kind_accuracy == pytest.approx(2 / 3)
    assert got.recall_by_kind == {"ad": (0.5, 2), "intro": (1, 1), "jingle": (0, 1), "silence": (1, 1)}
    assert got.recall_by_occurrences == {"2": (0.5, 2), "3": (1, 1), "3+": (0.5, 2)}
    assert got.recall_by_perturbation == {"eq": (0, 1), "gain": (0.5, 2), "none": (0.5, 2)}
    assert got.recall_by_coding == {"flac": (0.75, 4), "opus-16k": (0, 1)}
    assert (got.control_autos, got.episodes, got.hours) == (1, 3, 2)


def test_intervals_hold_the_value_and_follow_the_seed(judged: list[Judged]) -> None:
    got = score(judged, {})
    low, high = got.f1_interval[0.5]
    # The best that can be drawn is show-1 with show-1 (6 / 8); the worst has no match at all.
    assert low == 0 and 0.6 <= high <= 0.75
    assert got.f1_interval == score(judged, {}).f1_interval
    same = [Judged(f"s{k}", 60, [true(0, 10)], [mark(0, 10)]) for k in range(5)]
    assert score(same, {}).f1_interval[0.75] == (1, 1) == score(same, {}).kind_interval


def test_nothing_to_count_is_not_a_number() -> None:
    got = score([Judged("control", 60, [], [])], {})
    assert math.isnan(got.f1[0.5]) and math.isnan(got.boundary_median_s) and math.isnan(got.kind_interval[0])
    assert got.wrong_s_per_hour == 0 and got.control_autos == 0
