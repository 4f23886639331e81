"""Exports against the formats' own rules: readers written from the specifications, and Chromium's for WebVTT."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BadItem
from skips.exports import FORMATS, NAME_BYTES, chapters_json, clock, edl, file_name, total_s, webvtt, write_exports
from skips.markers import MarkedEpisode, Marker
from tests.skips.browser import BROWSER, told_by

INTRO = Marker("intro", 10.0, 40.0, 0.9, 5, "m1", "auto")
SILENCE = Marker("silence", 300.25, 304.5, 0.95, action="auto", source="silence")
AD = Marker("ad", 3700.0, 3760.1234, 0.7, 2, "m2", "ask")


def marked(*markers: Marker, duration_s: float = 7200.0, content_id: str = "ep", title: str = "") -> MarkedEpisode:
    return MarkedEpisode(content_id, "/ep.mp3", "ab" * 32, duration_s, markers, title=title)


EPISODE = marked(INTRO, SILENCE, AD, title='Tea & "toast" --> <b>')
SECONDS = st.integers(0, 4_000).map(lambda tenths: tenths / 10)
SPANS = st.lists(st.tuples(SECONDS, SECONDS, st.sampled_from(("auto", "ask"))), max_size=12)


def spans_of(drawn: list[tuple[float, float, str]]) -> tuple[Marker, ...]:
    markers = [Marker("ad", min(a, b), max(a, b), 0.5, action=action) for a, b, action in drawn]
    return tuple(sorted(markers, key=lambda m: m.start_s))


def check_chapters(document: str) -> list[dict[str, object]]:
    """The rules of jsonChapters.md, version 1.2; returns the chapters."""
    found = json.loads(document, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(found["version"], str) and isinstance(found["chapters"], list)
    assert set(found) <= {"version", "chapters", "author", "title", "podcastName", "description", "fileName"}
    for chapter in found["chapters"]:
        assert isinstance(chapter["startTime"], int | float)
        assert set(chapter) <= {"startTime", "endTime", "title", "img", "url", "toc", "location"}
        assert isinstance(chapter["endTime"], int | float) and isinstance(chapter["title"], str)
        assert isinstance(chapter.get("toc", True), bool)
    starts = [chapter["startTime"] for chapter in found["chapters"]]
    assert starts == sorted(starts)  # "assumed to be in ascending order"
    return found["chapters"]


def read_webvtt(document: str) -> list[tuple[str, float, float, str]]:
    """A strict reader of the grammar in section 4 of https://www.w3.org/TR/webvtt1/: (id, start, end, payload)."""
    blocks = re.split(r"\n\n+", document.rstrip("\n"))
    assert re.fullmatch(r"WEBVTT([ \t][^\n]*)?", blocks[0])
    cues = []
    for block in blocks[1:]:
        lines = block.split("\n")
        if re.fullmatch(r"NOTE([ \t].*)?", lines[0]):
            assert "-->" not in block
            continue
        name, timings, *payload = lines
        stamp = r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3})"
        match = re.fullmatch(rf"{stamp}[ \t]+-->[ \t]+{stamp}", timings)
        assert match and "-->" not in name and "-->" not in "".join(payload)
        start, end = (
            int(h or 0) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000
            for h, m, s, ms in (match.groups()[:4], match.groups()[4:])
        )
        assert start < end  # "must be greater than the start time offset"
        cues.append((name, start, end, "\n".join(payload)))
    assert len({name for name, *_ in cues}) == len(cues)
    return cues


def read_edl(document: str) -> list[tuple[int, int]]:
    """What Kodi keeps, in milliseconds: its reader (xbmc/cores/VideoPlayer/Edl.cpp) refuses a row that begins below 0,
    does not last, touches another row at either end or is around one."""
    kept: list[tuple[int, int]] = []
    for line in document.splitlines():
        start, end, action = line.split()
        assert action == "3"  # a commercial break: skipped once, reachable by seeking back
        row = round(float(start) * 1000), round(float(end) * 1000)
        assert 0 <= row[0] < row[1], "Kodi refuses it"
        for other in kept:
            assert row[0] > other[1] or row[1] < other[0], "Kodi refuses what touches another row"
        kept.append(row)
    return kept


def test_chapters_are_the_markers_and_numbered_parts_between_them() -> None:
    found = check_chapters(chapters_json(EPISODE))
    assert [(c["startTime"], c["endTime"], c["title"], c.get("toc")) for c in found] == [
        (0, 10, "Part 1", None),
        (10, 40, "Intro", None),
        (40, 300.25, "Part 2", None),
        (300.25, 304.5, "Silence", False),
        (304.5, 3700, "Part 3", None),
        (3700, 3760.123, "Advertisement", None),
        (3760.123, 7200, "Part 4", None),
    ]
    assert json.loads(chapters_json(EPISODE))["title"] == 'Tea & "toast" --> <b>'


def test_less_than_a_second_between_markers_is_no_chapter() -> None:
    found = check_chapters(
        chapters_json(marked(Marker("ad", 0.9, 30, 0.5), Marker("ad", 30.99, 59.5, 0.5), duration_s=60))
    )
    assert [c["title"] for c in found] == ["Advertisement", "Advertisement"]


def test_an_episode_without_markers_is_one_part() -> None:
    assert check_chapters(chapters_json(marked(duration_s=60))) == [{"startTime": 0, "endTime": 60, "title": "Part 1"}]
    assert read_webvtt(webvtt(marked())) == []
    assert edl(marked()) == ""


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SPANS)
def test_parts_are_the_time_that_no_marker_covers_even_where_markers_overlap(
    drawn: list[tuple[float, float, str]],
) -> None:
    markers = spans_of(drawn)
    found = check_chapters(chapters_json(marked(*markers, duration_s=400.0)))
    parts = [(c["startTime"], c["endTime"]) for c in found if str(c["title"]).startswith("Part")]
    # The slow way: look at the middle of every tenth of a second.
    free = [not any(m.start_s < (n + 0.5) / 10 < m.end_s for m in markers) for n in range(4_000)]
    turns = [n for n in range(4_001) if (n < 4_000 and free[n]) != (n > 0 and free[n - 1])]
    runs = list(zip(turns[::2], turns[1::2], strict=True))
    # A marker without length cuts a part in two; a run is then several parts, and short ones are left out.
    if all(m.duration_s for m in markers):
        assert parts == [(a / 10, b / 10) for a, b in runs if b - a >= 10]
    for start, end in parts:
        assert any(a / 10 <= start < end <= b / 10 for a, b in runs)


def test_webvtt_is_a_cue_a_marker_with_the_marker_as_json() -> None:
    cues = read_webvtt(webvtt(EPISODE))
    assert [cue[:3] for cue in cues] == [("1", 10, 40), ("2", 300.25, 304.5), ("3", 3700, 3760.123)]
    assert [json.loads(cue[3]) for cue in cues] == EPISODE.to_dict()["markers"]
    assert "ab" * 32 in webvtt(EPISODE).split("\n\n")[1]


def test_no_text_of_a_marker_can_break_out_of_its_cue() -> None:
    hostile = Marker("ad", 1, 2, 0.5, 2, "a --> b\n\n2\n00:00:00.000 --> 00:00:09.000\nwrong")
    ((_, start, end, payload),) = read_webvtt(webvtt(marked(hostile)))
    assert (start, end, json.loads(payload)["motif_id"]) == (1, 2, hostile.motif_id)


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_chromium_reads_the_same_cues(tmp_path: Path) -> None:
    script = (
        "const t=document.querySelector('track');t.track.mode='hidden';"
        "t.onload=()=>{tell([...t.track.cues].map(c=>[c.id,c.startTime,c.endTime,c.text]))};"
        f"t.src='data:text/vtt;charset=utf-8,'+encodeURIComponent({json.dumps(webvtt(EPISODE))});"
    )
    page = f"<html><body><audio><track kind=metadata default></audio><script>{script}</script></body></html>"
    assert told_by(page, tmp_path) == [list(cue) for cue in read_webvtt(webvtt(EPISODE))]


def test_a_clock_carries_what_rounds_up() -> None:
    # The last two by hand: 359,999.9996 s is 100 hours to the millisecond.
    assert [clock(s) for s in (0, 0.0004, 59.9996, 3661.5, 359_999.9996)] == [
        "00:00:00.000",
        "00:00:00.000",
        "00:01:00.000",
        "01:01:01.500",
        "100:00:00.000",
    ]


def test_an_edit_list_holds_only_what_may_be_skipped_unasked() -> None:
    assert edl(EPISODE) == "10.000\t40.000\t3\n300.250\t304.500\t3\n"
    assert read_edl(edl(EPISODE, ("auto", "ask"))) == [(10_000, 40_000), (300_250, 304_500), (3_700_000, 3_760_123)]


def test_markers_that_touch_are_one_row_of_an_edit_list() -> None:
    touching = marked(
        INTRO, Marker("ad", 40.0004, 70.0, 0.9, 5, "m2", "auto"), Marker("ad", 71.0, 72.0, 0.9, action="auto")
    )
    assert edl(touching) == "10.000\t70.000\t3\n71.000\t72.000\t3\n"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SPANS)
def test_kodi_keeps_every_row_and_skips_exactly_what_is_marked(drawn: list[tuple[float, float, str]]) -> None:
    markers = spans_of(drawn)
    rows = read_edl(edl(marked(*markers)))
    for n in range(4_000):
        at = n * 100 + 50  # the middle of a tenth of a second, in ms
        expected = any(m.action == "auto" and m.start_s * 1000 < at < m.end_s * 1000 for m in markers)
        assert any(start < at < end for start, end in rows) == expected


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_times_that_are_no_numbers_are_refused_by_name(name: str, bad: float) -> None:
    for episode in (marked(Marker("ad", 1.0, bad, 0.5, action="auto")), marked(duration_s=bad)):
        with pytest.raises(BadItem, match="'ep'.*not finite"):
            FORMATS[name][1](episode)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(), max_size=300))
def test_a_file_name_is_plain_short_and_stays_in_its_folder(content_id: str) -> None:
    name = file_name(content_id)
    assert re.fullmatch(r"\w[\w.-]*", name, flags=re.ASCII) and ".." not in name[:2]
    assert len(name) <= NAME_BYTES + 11
    assert Path("/out", name).parent == Path("/out")


def test_ids_that_differ_a_little_have_names_that_differ_on_any_disk() -> None:
    ids = ["a/b", "a_b", "A_B", "a\\b", "a:b", "a\x00b", "a\nb", "../a_b", "a_b.", "é", "è", "", "a" * 200, "a" * 201]
    assert len({file_name(i).casefold() for i in ids}) == len(ids)
    assert file_name("a\x00\n/é b") == "a_b-" + hashlib.sha256("a\x00\n/é b".encode()).hexdigest()[:10]


def test_files_are_written_for_ids_of_any_kind(tmp_path: Path) -> None:
    # A name of a file that is no UTF-8, as Python reads it from a disk.
    odd = os.fsdecode(b"caf\xe9/../one.mp3")
    episodes = [marked(INTRO, content_id=odd, title=odd), marked(AD, content_id="../../etc/passwd")]
    paths = write_exports(episodes, tmp_path / "out", list(FORMATS))
    assert len(paths) == 6 and sorted(paths) == sorted((tmp_path / "out").iterdir())
    assert {"".join(p.suffixes[-2:]) for p in paths} >= {".chapters.json", ".skips.vtt"}
    by_suffix = {p.suffix: p.read_text() for p in paths[:3]}
    assert by_suffix[".edl"] == "10.000\t40.000\t3\n"
    assert check_chapters(by_suffix[".json"])[1]["title"] == "Intro"
    assert read_webvtt(by_suffix[".vtt"])[0][:3] == ("1", 10, 40)


def test_seconds_are_counted_by_action() -> None:
    assert total_s(EPISODE.markers, ("auto",)) == 34.25
    assert total_s(EPISODE.markers) == pytest.approx(94.3734)
    assert total_s([]) == 0


def test_exports_beside_files_never_fall_on_one_path(tmp_path: Path) -> None:
    long = "l" * 245
    ids = ["x.mp3", "x.wav", "x.mp3.wav", "X.ogg", "show/one.mp3", f"{long}.mp3", "two.opus"]
    episodes = [marked(INTRO, content_id=i) for i in ids]
    paths = write_exports(episodes, tmp_path, list(FORMATS), as_files=True)
    assert len({str(path).casefold() for path in paths}) == len(ids) * len(FORMATS)
    assert all(path.is_file() for path in paths)
    names = {path.relative_to(tmp_path).as_posix() for path in paths}
    assert {"show/one.edl", "two.edl", "two.chapters.json", "X.ogg.edl", "x.wav.edl"} <= names
