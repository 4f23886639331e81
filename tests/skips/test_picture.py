"""The picture of an episode, read back as XML: where things are drawn, and that no text breaks it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skips.markers import KINDS, MarkedEpisode, Marker
from skips.picture import COLOURS, described, escape, hms, timeline_svg, told

SVG = "{http://www.w3.org/2000/svg}"
LEFT, RIGHT = 12, 948  # the picture is 960 wide, with 12 at both sides
INTRO = Marker("intro", 0.0, 30.0, 0.91, 5, "m1", "auto")
AD = Marker("ad", 300.0, 330.0, 0.6, 2, "m2", "ask")


def marked(*markers: Marker, duration_s: float = 600.0, title: str = "One") -> MarkedEpisode:
    return MarkedEpisode("ep", "/ep.mp3", "ab" * 32, duration_s, markers, title=title)


def drawn(episode: MarkedEpisode, similarity: np.ndarray | None = None, hop_s: float = 0.5) -> ET.Element:
    return ET.fromstring(timeline_svg(episode, similarity, hop_s))


def boxes(picture: ET.Element) -> list[tuple[float, float, str]]:
    """(left, width, fill) of the markers' rectangles."""
    rects = [r for g in picture.findall(f"{SVG}g") for r in g.findall(f"{SVG}rect")]
    return [(float(r.attrib["x"]), float(r.attrib["width"]), r.attrib["fill"]) for r in rects]


def curve(picture: ET.Element) -> list[tuple[float, float]]:
    """The points of the curve's path."""
    (path,) = [p for p in picture.iter(f"{SVG}path") if p.attrib.get("class") == "curve"]
    assert re.fullmatch(r"M[\d.,]+( L[\d.,]+)* Z", path.attrib["d"])
    return [(float(a), float(b)) for a, b in re.findall(r"[ML]([\d.]+),([\d.]+)", path.attrib["d"])]


def test_markers_are_drawn_to_scale() -> None:
    # 936 pixels for 600 seconds are 1.56 a second: 30 s are 46.8 wide, 300 s are at 12 + 468.
    assert boxes(drawn(marked(INTRO, AD))) == [
        (12.0, 46.8, COLOURS["intro"]),
        (480.0, 46.8, COLOURS["ad"]),
        (480.0, 46.8, "url(#ask)"),  # hatched: not to be skipped unasked
    ]


def test_the_hatching_has_a_name_of_its_own_where_it_is_asked_for() -> None:
    picture = ET.fromstring(timeline_svg(marked(AD), pattern="ask7"))
    assert [p.attrib["id"] for p in picture.iter(f"{SVG}pattern")] == ["ask7"]
    assert {r.attrib["fill"] for r in picture.iter(f"{SVG}rect") if "url" in r.attrib.get("fill", "")} == {"url(#ask7)"}


def test_a_jingle_in_six_hours_can_be_seen() -> None:
    ((_, width, _),) = boxes(drawn(marked(Marker("jingle", 9000, 9003, 0.9, 9, "j", "auto"), duration_s=21_600)))
    assert width == 2.0


def test_what_lies_outside_the_episode_is_drawn_at_its_edge() -> None:
    for left, width, _ in boxes(drawn(marked(Marker("ad", -5, 30, 0.5), Marker("outro", 590, 900, 0.5)))):
        assert left >= LEFT and left + width <= RIGHT + 0.01
    assert len(boxes(drawn(marked(INTRO, Marker("ad", 10, 20, 0.5, action="auto"))))) == 2  # one in another


def test_an_episode_without_length_or_markers_still_has_a_picture() -> None:
    picture = drawn(marked(duration_s=0.0))
    assert boxes(picture) == []
    assert picture.findtext(f"{SVG}desc") == "No markers."


@pytest.mark.parametrize(
    "title", ['<script>alert("x")</script>', "Tom & 'Jerry' <b>", "]]> &amp; url(#ask)", "é 日本 \U0001f600"]
)
def test_a_title_is_text_whatever_it_holds(title: str) -> None:
    picture = drawn(marked(AD, title=title))
    assert picture.findtext(f"{SVG}title") == title
    assert [t.text for t in picture.iter(f"{SVG}text")][0] == title
    assert not list(picture.iter(f"{SVG}script")) and not list(picture.iter(f"{SVG}b"))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(), min_size=1, max_size=120))
def test_any_title_makes_a_picture_that_xml_can_hold(title: str) -> None:
    # Tags of audio files do hold control characters; a parser refuses a picture with one.
    svg = timeline_svg(marked(title=title)).encode()
    found = ET.fromstring(svg).findtext(f"{SVG}title")
    allowed = [
        c if c in "\t\n\r" or c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff" else "\ufffd"
        for c in title
    ]
    # A parser makes every line break a line feed.
    assert found == "".join(allowed).replace("\r\n", "\n").replace("\r", "\n")


def test_escaped_text_fits_an_attribute_too() -> None:
    assert escape('<a href="x">&\'\x00\ud800') == "&lt;a href=&quot;x&quot;&gt;&amp;&#x27;\ufffd\ufffd"


def test_a_long_title_is_cut_in_sight_and_whole_in_the_description() -> None:
    picture = drawn(marked(title="x" * 200))
    assert picture.findtext(f"{SVG}title") == "x" * 200
    assert [t.text for t in picture.iter(f"{SVG}text")][0] == "x" * 89 + "…"


def test_the_curve_has_one_point_a_value_where_they_fit() -> None:
    # Half a second each: 1.56 pixels a second; the band is 40 high and stands on y = 114.
    points = curve(drawn(marked(), np.array([0.0, 0.5, 1.0, 2.0, -1.0], np.float32)))
    assert points == [(12, 114), (12, 114), (12.78, 94), (13.56, 74), (14.34, 74), (15.12, 114), (15.9, 114)]


def test_the_curve_keeps_the_peak_of_every_pixel() -> None:
    # 7,200 values on 936 pixels: eight a point (7200 / 936 rounded up), 900 points.
    values = np.random.default_rng(5).random(7200).astype(np.float32)
    points = curve(drawn(marked(duration_s=3600.0), values))[1:-1]
    assert len(points) == 900
    for n, (x, y) in enumerate(points):
        assert x == pytest.approx(12 + 936 * (n * 8 * 0.5) / 3600, abs=0.006)
        assert y == pytest.approx(114 - 40 * max(values[n * 8 : n * 8 + 8].tolist()), abs=0.006)


def test_an_empty_curve_is_not_drawn() -> None:
    assert not list(drawn(marked(), np.empty(0, np.float32)).iter(f"{SVG}path"))


def test_the_axis_has_at_most_a_dozen_steps_and_ends_in_the_picture() -> None:
    for duration in (0.3, 6, 59, 600, 3599, 21_600, 100_000):
        ticks = [line for line in drawn(marked(duration_s=duration)).iter(f"{SVG}line")][1:]
        assert 2 <= len(ticks) <= 14 or duration < 0.5
        assert all(LEFT <= float(t.attrib["x1"]) <= RIGHT for t in ticks)
    labels = [t.text for t in drawn(marked()).iter(f"{SVG}text")][1:]
    assert labels == ["0:00", "1:00", "2:00", "3:00", "4:00", "5:00", "6:00", "7:00", "8:00", "9:00", "10:00"]


def test_every_kind_has_a_colour_and_a_place_in_the_legend() -> None:
    markers = [Marker(kind, n * 60.0, n * 60 + 3.0, 0.9, action="auto") for n, kind in enumerate(KINDS)]
    found = [t.text for t in drawn(marked(*markers)).iter(f"{SVG}text")]
    assert {"Intro", "Outro", "Advertisement", "Jingle", "Recap", "Silence"} <= set(found)
    assert "ask first" not in found and "ask first" in [t.text for t in drawn(marked(AD)).iter(f"{SVG}text")]
    assert len(set(COLOURS.values())) == len(KINDS)


def test_times_are_written_as_people_say_them() -> None:
    assert [hms(s) for s in (0, 59.4, 59.6, 3599.6, 3661)] == ["0:00", "0:59", "1:00", "1:00:00", "1:01:01"]
    assert [hms(s, True) for s in (0, 59.96, 75.25, 3661.04)] == ["0:00.0", "1:00.0", "1:15.2", "1:01:01.0"]


def test_the_picture_says_in_words_what_it_shows() -> None:
    assert described(marked(INTRO, AD)) == "Intro 0:00 to 0:30; Advertisement 5:00 to 5:30."
    assert told(AD) == "Advertisement, 5:00.0 to 5:30.0, confidence 0.60, heard 2 times, ask"
    assert "heard" not in told(Marker("silence", 1, 4, 0.95))
