"""Matches: one an exemplar and place, by the cheapest tier."""

from __future__ import annotations

from moderation.matches import Match, best_first


def test_the_cheapest_tier_wins_and_then_the_score() -> None:
    found = best_first(
        [
            Match("a", "image", "fingerprint", 0.9),
            Match("a", "image", "hash", 0.8, distance=20),
            Match("b", "image", "fingerprint", 0.7),
            Match("b", "image", "fingerprint", 0.95),
            Match("c", "image", "exact", 1.0),
        ]
    )
    assert [(m.exemplar, m.tier, m.score) for m in found] == [
        ("c", "exact", 1.0),
        ("a", "hash", 0.8),
        ("b", "fingerprint", 0.95),
    ]


def test_an_exemplar_heard_twice_is_two_matches() -> None:
    found = best_first([Match("a", "audio", "fingerprint", 0.9, at, at + 5, 0.0) for at in (30.0, 10.0)])
    assert [m.start_s for m in found] == [10.0, 30.0]


def test_the_form_for_json() -> None:
    assert Match("a", "audio", "fingerprint", 0.98765, 1.23456, 9.87654, 0.0).to_dict() == {
        "exemplar": "a",
        "modality": "audio",
        "tier": "fingerprint",
        "score": 0.9877,
        "start_s": 1.235,
        "end_s": 9.877,
        "exemplar_start_s": 0.0,
    }
    assert Match("a", "image", "hash", 1.0, distance=0).to_dict()["start_s"] is None
