"""Markers as data: what is kept, what is rounded, and that JSON holds it."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skips.markers import ACTIONS, ALGORITHM, KINDS, SOURCES, MarkedEpisode, Marker, to_json

EPISODE = MarkedEpisode(
    "ep-1",
    "/podcasts/ep 1.mp3",
    "ab" * 32,
    1800.12345,
    (
        Marker("intro", 0.0004, 29.9996, 0.91249, 12, "m1", "auto"),
        Marker("silence", 100.0, 103.5, 0.95, action="auto", source="silence"),
    ),
    show="A show",
    title="One",
)


def test_a_marker_lasts_from_its_start_to_its_end() -> None:
    assert Marker("ad", 12.5, 42.75, 0.5).duration_s == 30.25


def test_a_marker_says_little_until_it_is_told_more() -> None:
    # The careful choice is the default: nothing is skipped unasked, and no motif is claimed.
    marker = Marker("ad", 1.0, 2.0, 0.5)
    assert (marker.action, marker.occurrences, marker.motif_id, marker.source) == ("ask", 1, "", "repeat")
    assert marker.action in ACTIONS and marker.source in SOURCES and marker.kind in KINDS


def test_markers_cannot_be_changed_behind_a_players_back() -> None:
    with pytest.raises(FrozenInstanceError):
        EPISODE.markers[0].end_s = 3.0  # type: ignore[misc]


def test_the_dictionary_has_times_to_the_millisecond_and_everything_of_a_marker() -> None:
    assert EPISODE.to_dict() == {
        "path": "/podcasts/ep 1.mp3",
        "audio_sha256": "ab" * 32,
        "duration_s": 1800.123,
        "markers": [
            {
                "kind": "intro",
                "start_s": 0.0,
                "end_s": 30.0,
                "confidence": 0.912,
                "occurrences": 12,
                "motif_id": "m1",
                "action": "auto",
                "source": "repeat",
            },
            {
                "kind": "silence",
                "start_s": 100.0,
                "end_s": 103.5,
                "confidence": 0.95,
                "occurrences": 1,
                "motif_id": "",
                "action": "auto",
                "source": "silence",
            },
        ],
    }


def test_episodes_keep_their_order_in_json() -> None:
    other = MarkedEpisode("ep-0", "/z.mp3", "cd" * 32, 60.0, ())
    found = json.loads(json.dumps(to_json([EPISODE, other])))
    assert [e["path"] for e in found["episodes"]] == ["/podcasts/ep 1.mp3", "/z.mp3"]
    assert found["episodes"][1]["markers"] == []
    assert to_json([]) == {"episodes": []}


def test_an_episode_names_the_rules_that_marked_it() -> None:
    assert EPISODE.algorithm == ALGORITHM


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1), st.integers(1, 10**6))
def test_rounding_moves_no_number_by_more_than_half_a_millisecond(
    start: float, end: float, confidence: float, occurrences: int
) -> None:
    marker = Marker("ad", start, end, confidence, occurrences)
    row = json.loads(json.dumps(MarkedEpisode("a", "", "", 1e5, (marker,)).to_dict()))["markers"][0]
    for name, value in (("start_s", start), ("end_s", end), ("confidence", confidence)):
        assert abs(row[name] - value) <= 0.0005 + 1e-9
    assert row["occurrences"] == occurrences  # a count stays a whole number
