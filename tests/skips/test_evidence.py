"""What listeners did, against markers: each rule by hand, confidences as fractions, and tables that cannot be read."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import CatalogError
from skips.events import EVENTS, checked
from skips.evidence import PRIOR, agreement, says, weighed
from skips.markers import MarkedEpisode, Marker

SHA = "ab" * 32
AD = Marker("ad", 100.0, 160.0, 0.6, 3, "m", "auto")


def marked(*markers: Marker, content_id: str = "ep") -> MarkedEpisode:
    return MarkedEpisode(content_id, "/ep.mp3", SHA, 3600.0, markers)


def event(kind: str, start: float, end: float, listener: str | None = None, sha: str | None = None) -> dict[str, Any]:
    row = {"content_id": "ep", "event": kind, "from_s": start, "to_s": end}
    return row | {"listener": listener, "audio_sha256": sha}


def events(*rows: dict[str, Any]) -> pa.Table:
    return checked(pa.Table.from_pylist(list(rows), schema=EVENTS))


SKIP, UNDO, PLAY = event("skip", 100, 160), event("undo", 160, 100), event("play", 0, 600)


@pytest.mark.parametrize(
    ("kind", "start", "end", "expected"),
    [
        ("skip", 100, 160, 1),
        ("seek", 95, 170, 1),  # five seconds early, ten late: still about it
        ("skip", 94, 160, 0),  # it leaves from the talk before
        ("skip", 106, 160, 0),  # it leaves from inside
        ("skip", 100, 154, 0),  # it arrives inside
        ("skip", 100, 171, 0),  # it arrives in the talk behind
        ("skip", 0, 3600, 0),
        ("skip", 160, 100, 0),  # a skip does not go back
        ("undo", 160, 100, -1),
        ("seek", 165, 120, -1),  # back into it
        ("seek", 165, 160, 0),  # back to its end only
        ("seek", 200, 100, 0),  # from far behind
        ("undo", 150, 100, 0),  # from inside: nothing of it was skipped
        ("undo", 160, 94, 0),  # back to the talk before
        ("play", 0, 600, -1),
        ("play", 100, 154, -1),  # nine tenths
        ("play", 100, 153.9, 0),
        ("play", 160, 600, 0),
        ("play", 600, 0, 0),  # backwards
    ],
)
def test_an_event_speaks_for_or_against_a_marker_or_about_something_else(
    kind: str, start: float, end: float, expected: int
) -> None:
    assert says(event(kind, start, end), AD) == expected


def test_of_a_short_marker_no_more_than_half_is_an_edge() -> None:
    jingle = Marker("jingle", 100.0, 104.0, 0.9, 9, "j", "auto")
    assert says(event("skip", 102, 104), jingle) == 1
    assert says(event("skip", 102.1, 104), jingle) == 0
    assert says(event("skip", 100, 101.9), jingle) == 0


def test_confidence_is_the_mean_of_a_beta_distribution() -> None:
    # (10 * 0.6 + 3) / (10 + 3 + 1) = 9 / 14.
    (found,) = weighed([marked(AD)], events(SKIP, SKIP, SKIP, UNDO))
    assert found.markers[0].confidence == pytest.approx(9 / 14)
    assert found.markers[0].action == "auto"


def test_a_marker_that_listeners_doubt_is_asked_about() -> None:
    # (10 * 0.6 + 0) / (10 + 3) = 6 / 13 < 1 / 2.
    (found,) = weighed([marked(AD)], events(UNDO, PLAY, PLAY))
    assert found.markers[0].confidence == pytest.approx(6 / 13)
    assert found.markers[0].action == "ask"
    # Two of them leave it at exactly 6 / 12, which is no doubt yet.
    assert weighed([marked(AD)], events(UNDO, PLAY))[0].markers[0].action == "auto"


def test_nothing_is_skipped_unasked_because_of_listeners() -> None:
    asked = Marker("ad", 100.0, 160.0, 0.6, 2, "m", "ask")
    (found,) = weighed([marked(asked)], events(*[SKIP] * 100))
    assert found.markers[0].confidence > 0.95 and found.markers[0].action == "ask"


def test_events_of_other_audio_or_other_content_change_nothing() -> None:
    other = {**SKIP, "content_id": "another"}
    for row in (event("skip", 100, 160, sha="cd" * 32), other, event("skip", 500, 560)):
        assert weighed([marked(AD)], events(row)) == [marked(AD)]
    assert weighed([marked(AD)], events(event("skip", 100, 160, sha=SHA))) != [marked(AD)]
    assert weighed([marked(AD), marked(content_id="empty")], events()) == [marked(AD), marked(content_id="empty")]
    assert weighed([], events(SKIP)) == []


def test_each_event_counts_for_every_marker_that_it_is_about() -> None:
    # Playing all of an episode speaks against both of two markers, one within the other.
    inner = Marker("jingle", 110.0, 114.0, 0.8, 5, "j", "auto")
    (found,) = weighed([marked(AD, inner)], events(PLAY))
    assert [m.confidence for m in found.markers] == [pytest.approx(6 / 11), pytest.approx(8 / 11)]


ROWS = st.lists(
    st.builds(
        event, st.sampled_from(["skip", "seek", "undo", "play"]), st.sampled_from([0.0, 99.0, 102.0, 130.0, 161.0]),
        st.sampled_from([99.0, 120.0, 158.0, 165.0, 600.0]), st.sampled_from([None, "", "ann", "bob", "cem"]),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(ROWS, st.floats(0, 1))
def test_confidence_is_between_what_it_was_and_what_listeners_say(rows: list[dict[str, Any]], before: float) -> None:
    marker = Marker("ad", 100.0, 160.0, before, 3, "m", "auto")
    told = [s for row in rows if (s := says(row, marker))]
    (found,) = weighed([marked(marker)], events(*rows))
    after = found.markers[0].confidence
    assert 0 <= after <= 1
    if not told:
        assert found == marked(marker)
    else:
        share = told.count(1) / len(told)
        assert min(before, share) - 1e-9 <= after <= max(before, share) + 1e-9
        assert after == pytest.approx((PRIOR * before + told.count(1)) / (PRIOR + len(told)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(ROWS, st.sampled_from([0.2, 0.45, 0.5, 0.55, 0.9]))
def test_agreement_agrees_with_a_loop(rows: list[dict[str, Any]], confidence: float) -> None:
    marker = Marker("ad", 100.0, 160.0, confidence, 3, "m", "auto")
    # A listener is on one side; events without one go to the sides by turns.
    left_out = [zlib.crc32(r["listener"].encode()) % 2 if r["listener"] else n % 2 for n, r in enumerate(rows)]
    kept = [says(r, marker) for r, out in zip(rows, left_out, strict=True) if not out]
    tried = [s for r, out in zip(rows, left_out, strict=True) if out and (s := says(r, marker))]
    after = (PRIOR * confidence + kept.count(1)) / (PRIOR + kept.count(1) + kept.count(-1))
    found = agreement([marked(marker)], events(*rows))
    assert found.events == len(tried)
    if not tried:
        assert found.before is None and found.after is None and found.interval == (0.0, 1.0)
        return
    assert found.after is not None
    assert found.before == pytest.approx(tried.count(1 if confidence >= 0.5 else -1) / len(tried))
    assert found.after == pytest.approx(tried.count(1 if after >= 0.5 else -1) / len(tried))
    low, high = found.interval
    assert -1e-9 <= low <= found.after <= high + 1e-9 and high <= 1 + 1e-9


def test_the_interval_is_wilsons() -> None:
    # Eight of ten: 0.490 to 0.943, as in textbooks (Brown, Cai and DasGupta, 2001, equation 4, at z = 1.96). Events
    # without a listener are left out by turns, beginning with the second.
    rows = [row for n in range(10) for row in (event("skip", 0, 5), SKIP if n < 8 else UNDO)]
    found = agreement([marked(AD)], events(*rows))
    assert (found.events, found.before, found.after) == (10, 0.8, 0.8)
    assert found.interval == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


def test_a_table_gets_the_columns_and_types_that_are_expected() -> None:
    loose = pa.table({"to_s": [160], "from_s": ["100.5"], "event": ["skip"], "content_id": [7], "more": [None]})
    (row,) = checked(loose).to_pylist()
    assert row == {
        "content_id": "7",
        "event": "skip",
        "from_s": 100.5,
        "to_s": 160.0,
        "listener": None,
        "audio_sha256": None,
    }
    assert checked(EVENTS.empty_table()).num_rows == 0
    assert checked(EVENTS.empty_table()).schema.names == EVENTS.names


GOOD: dict[str, list[Any]] = {
    "content_id": ["a", "b"],
    "event": ["skip", "undo"],
    "from_s": [1.0, 2.0],
    "to_s": [3.0, 0.0],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"from_s": ["1.0", "soon"]}, "from_s cannot be read as double.*soon"),
        ({"from_s": [[1.0], [2.0]]}, "from_s cannot be read as double"),
        ({"content_id": [{"id": 1}, {"id": 2}]}, "content_id cannot be read as string"),
        ({"event": ["skip", "skipped"]}, "row 2 of the events: 'skipped' is none of skip, seek, undo, play"),
        ({"event": ["skip", ""]}, "row 2 of the events: ''"),
        ({"content_id": [None, "b"]}, "row 1 of the events lacks a value"),
        ({"to_s": [3.0, None]}, "row 2 of the events lacks a value"),
        ({"to_s": [math.nan, 0.0]}, "row 1 of the events: its times are not finite"),
        ({"from_s": [1.0, -math.inf]}, "row 2 of the events: its times are not finite"),
    ],
)
def test_a_wrong_value_is_named_by_its_column_or_row(change: dict[str, list[Any]], message: str) -> None:
    checked(pa.table(GOOD))
    with pytest.raises(CatalogError, match=message):
        checked(pa.table(GOOD | change))


def test_a_table_without_a_column_or_with_two_of_it_is_refused() -> None:
    with pytest.raises(CatalogError, match="no column from_s; there is content_id, event, to_s"):
        checked(pa.table(GOOD).drop(["from_s"]))
    with pytest.raises(CatalogError, match="no column content_id, event, from_s, to_s"):
        checked(pa.table({}))
    with pytest.raises(CatalogError, match="more than one column event"):
        checked(pa.table(GOOD).append_column("event", pa.array(["play", "play"])))


BREAK = [Marker("ad", 100.0, 130.0, 0.6, 3, "a", "auto"), Marker("ad", 130.5, 160.0, 0.6, 3, "b", "auto")]


@pytest.mark.parametrize(
    ("kind", "start", "end", "expected"),
    [
        ("skip", 100, 160, [1, 1]),  # over the whole break
        ("skip", 100, 130, [1, 0]),
        ("skip", 131, 160, [0, 1]),
        ("skip", 90, 160, [0, 0]),  # it leaves from the talk before
        ("skip", 100, 139, [1, 0]),  # it arrives so soon behind the first that it is still about it
        ("skip", 100, 171, [0, 0]),  # it arrives in the talk behind
        ("undo", 160, 100, [-1, -1]),
        ("undo", 160, 127, [0, -1]),  # only what was wanted back
        ("undo", 130, 100, [-1, 0]),
        ("play", 90, 170, [-1, -1]),
    ],
)
def test_a_jump_over_a_break_speaks_for_each_ad_of_it(kind: str, start: float, end: float, expected: list[int]) -> None:
    told = event(kind, start, end)
    assert [says(told, marker, BREAK) for marker in BREAK] == expected
    (found,) = weighed([marked(*BREAK)], events(told))
    moved = [(after.confidence > 0.6) - (after.confidence < 0.6) for after in found.markers]
    assert moved == expected


def test_markers_apart_are_no_break() -> None:
    apart = [BREAK[0], replace(BREAK[1], start_s=135.0)]
    (found,) = weighed([marked(*apart)], events(event("skip", 100, 160)))
    assert [m.confidence for m in found.markers] == [0.6, 0.6]
