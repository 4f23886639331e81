"""Caption files, as WebVTT's specification and SubRip's habits have them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skips.exports import clock
from skips.words import Sentence, captions

WEBVTT = """WEBVTT - Episode 7
Kind: captions

STYLE
::cue { color: red }

NOTE
Nothing of a comment is said.

intro
00:01.000 --> 00:04.250 align:start position:0%
<v Roger Bingham>We are in <i>New York</i> City

01:00:00.500 --> 01:00:02.000
Fish &amp; chips, 3 &lt; 4,
and a <00:00:01.000>second line

00:05.000 --> 00:06.000

"""
SUBRIP = """1
00:00:01,000 --> 00:00:04,250
We are in New York City

2
01:00:00,500  -->  01:00:02,000
<font color="red">Fish &amp; chips</font>
"""


def test_a_webvtt_file_gives_its_cues_without_markup() -> None:
    # By hand after https://www.w3.org/TR/webvtt1/: hours are optional, tags and settings are no words, "&amp;" is "&".
    assert captions(WEBVTT) == [
        Sentence(1.0, 4.25, "We are in New York City"),
        Sentence(3600.5, 3602.0, "Fish & chips, 3 < 4, and a second line"),
    ]


def test_a_subrip_file_has_commas_in_its_times() -> None:
    assert captions(SUBRIP) == [
        Sentence(1.0, 4.25, "We are in New York City"),
        Sentence(3600.5, 3602.0, "Fish & chips"),
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("file", [WEBVTT, SUBRIP])
def test_every_line_ending_that_the_specification_allows_is_read(file: str, ending: str) -> None:
    assert captions(file.replace("\n", ending)) == captions(file) != []


def test_a_byte_order_mark_changes_nothing() -> None:
    assert captions("\ufeff" + WEBVTT) == captions(WEBVTT)
    assert captions("\ufeff" + SUBRIP) == captions(SUBRIP)


def test_cues_come_in_the_order_of_time() -> None:
    file = "WEBVTT\n\n00:09.000 --> 00:10.000\nlast\n\n00:01.000 --> 00:02.000\nfirst\n"
    assert [s.text for s in captions(file)] == ["first", "last"]


@pytest.mark.parametrize(
    "file",
    [
        "",
        "WEBVTT",
        "no captions\n\nat all --> here",
        "1\n00:00:01 --> 00:00:02\nno milliseconds",
        "1\nnan --> inf\nno times",
        "1\n00:00:05,000 --> 00:00:04,000\nit ends before it starts",
        "1\n00:00:01,000 --> 00:00:04,000\n<b></b>\n",
        "\x00\x01\x02",
    ],
)
def test_a_file_without_a_usable_cue_has_no_sentences(file: str) -> None:
    assert captions(file) == []


def test_one_bad_cue_does_not_spoil_the_rest() -> None:
    assert captions("1\n00:00:0x,000 --> 00:00:04,000\nbad\n\n" + SUBRIP) == captions(SUBRIP)


CUES = st.lists(
    st.tuples(st.integers(0, 10**8), st.integers(1, 10**5), st.text("abcdefgh <>&\"'", min_size=1, max_size=30)),
    max_size=8,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(CUES)
def test_what_is_written_by_the_rules_is_read_back(cues: list[tuple[int, int, str]]) -> None:
    said = [(start / 1000, (start + length) / 1000, " ".join(text.split())) for start, length, text in cues]
    blocks = []
    for start, end, text in said:
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{clock(start)} --> {clock(end)}\n{escaped}\n")
    found = captions("WEBVTT\n\n" + "\n".join(blocks))
    expected = sorted((cue for cue in said if cue[2]), key=lambda cue: cue[0])
    assert [s.text for s in found] == [text for _, _, text in expected]
    for sentence, (start, end, _) in zip(found, expected, strict=True):
        assert sentence.start_s == pytest.approx(start, abs=1e-6)
        assert sentence.end_s == pytest.approx(end, abs=1e-6)
