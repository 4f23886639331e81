"""A show's report: read as HTML, and looked at and clicked in Chromium."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest

from skips.markers import MarkedEpisode, Marker
from skips.report import show_report
from tests.skips.browser import BROWSER, parsed, told_by

HOSTILE = "</title><script>window.hit=1</script><img src=x onerror=hit=1> & \"quotes\" 'too' url(#ask) \x1b"
SEEN = HOSTILE.replace("\x1b", "\ufffd")
MOTIF = "0123456789abcdef"
INTRO = Marker("intro", 1.0, 31.0, 0.95, 7, MOTIF, "auto")
AD = Marker("ad", 100.0, 190.5, 0.72, 2, "<i>motif</i>", "ask")
SILENCE = Marker("silence", 200.0, 203.0, 0.95, action="auto", source="silence")


def marked(
    content_id: str, *markers: Marker, path: str = "", title: str = "", duration_s: float = 1800.0
) -> MarkedEpisode:
    return MarkedEpisode(content_id, path, "ab" * 32, duration_s, markers, show="A show", title=title)


EPISODES = [
    marked("one", INTRO, AD, SILENCE, path='/pod casts/a "b" <c> #1?.mp3', title=HOSTILE),
    marked("two", Marker("intro", 3.0, 35.0, 0.95, 7, MOTIF, "auto"), path="s3://bucket/two.mp3"),
    marked("three"),
]


def cells(html: str) -> list[str]:
    return [text for _, text in parsed(html).of("td")]


def test_the_page_sums_up_what_may_be_skipped() -> None:
    # 30 + 32 + 3 seconds unasked are 1.08 minutes, 90.5 on request are 1.51; three half hours are 1.5.
    (summary, *_) = parsed(show_report("A show", EPISODES, {}, 0.5)).of("p")
    assert summary[1] == "3 episodes, 1.5 hours. 1.1 minutes may be skipped unasked, 1.5 more on request."


def test_a_table_counts_the_kinds() -> None:
    found = cells(show_report("A show", EPISODES, {}, 0.5))
    # Kind, markers, unasked, minutes.
    assert found[:12] == ["Intro", "2", "2", "1.0", "Advertisement", "1", "0", "1.5", "Silence", "1", "1", "0.1"]


def test_what_recurs_is_listed_once_with_links_to_its_episodes() -> None:
    page = parsed(show_report("A show", EPISODES, {}, 0.5))
    # The median of 30 and 32 seconds; heard seven times over the catalogue; in episodes 1 and 2 of this show.
    assert [t for _, t in page.of("td")][12:16] == ["Intro", "", "31.0 s", "7"]
    assert [(a["href"], a["title"], text) for a, text in page.of("a")][:2] == [
        ("#e0", "0:01", "1"),
        ("#e1", "0:03", "2"),
    ]
    assert [t for _, t in page.of("code")][:2] == ["01234567", "<i>motif"]
    ids = [a["id"] for a, _ in page.of("section")]
    assert ids == ["e0", "e1", "e2"]


def test_a_row_tells_all_of_a_marker() -> None:
    found = cells(show_report("A show", [EPISODES[0]], {}, 0.5))
    assert found[-8:] == ["Silence", "3:20.0", "3:23.0", "0.95", "", "auto", "silence", ""]
    assert found[-16:-8] == ["Advertisement", "1:40.0", "3:10.5", "0.72", "2", "ask", "repeat", ""]


def test_text_from_files_is_text_in_the_page() -> None:
    page = parsed(show_report(HOSTILE, EPISODES, {}, 0.5))
    assert page.title == f"Skips: {SEEN}"
    assert [text for _, text in page.of("h1")] == [SEEN]
    assert page.of("h2")[1][1] == f"1. {SEEN}"
    assert len(page.of("script")) == 1 and not page.of("img") and not page.of("i")
    assert page.of("title")[1][1] == SEEN  # of the picture, where nothing is rewritten either


def test_only_a_file_of_this_machine_can_be_listened_to() -> None:
    page = parsed(show_report("A show", EPISODES, {}, 0.5))
    ((player, _),) = page.of("audio")
    url = urlsplit(player["src"])
    assert url.scheme == "file" and not url.query and not url.fragment
    assert unquote_to_bytes(url.path).decode() == EPISODES[0].path
    # Three seconds before each marker.
    assert [button["data-at"] for button, _ in page.of("button")] == ["-2.00", "97.00", "197.00"]


def test_a_file_name_that_is_no_text_keeps_its_bytes() -> None:
    path = os.fsdecode(b"/podcasts/caf\xe9.mp3")
    html = show_report("A show", [marked("odd", INTRO, path=path, title=Path(path).stem)], {}, 0.5)
    ((player, _),) = parsed(html.encode().decode()).of("audio")
    assert unquote_to_bytes(urlsplit(player["src"]).path) == b"/podcasts/caf\xe9.mp3"
    assert [text for _, text in parsed(html).of("h2")][-1] == "1. caf\ufffd"


def test_each_picture_has_a_hatching_of_its_own() -> None:
    html = show_report("A show", [EPISODES[0], EPISODES[0]], {}, 0.5)
    page = parsed(html)
    assert [a["id"] for a, _ in page.of("pattern")] == ["ask0", "ask1"]
    fills = [a["fill"] for a, _ in page.of("rect") if a.get("fill", "").startswith("url(")]
    assert sorted(fills) == ["url(#ask0)", "url(#ask0)", "url(#ask1)", "url(#ask1)"]
    every = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(every) == len(set(every))


def test_curves_are_drawn_for_the_episodes_that_have_one() -> None:
    page = parsed(show_report("A show", EPISODES, {"two": np.ones(10, np.float32)}, 0.5))
    assert len([a for a, _ in page.of("path") if a.get("class") == "curve"]) == 1


def test_a_show_where_nothing_was_found_says_so() -> None:
    for episodes in ([], [EPISODES[2]]):
        html = show_report("", episodes, {}, 0.5)
        assert "Nothing was found that a listener could skip." in [text for _, text in parsed(html).of("p")]
        assert parsed(html).title == "Skips: episodes without a show"
        assert not parsed(html).of("table")


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = parsed(show_report("A show", EPISODES, {}, 0.5))
    assert not page.of("link")
    links = [v for _, a, _ in page.elements for k, v in a.items() if k in ("src", "href", "xlink:href")]
    assert all(link.startswith(("file:///", "#")) for link in links)


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_chromium_shows_the_page_and_plays_from_before_a_marker(tmp_path: Path, wav: Callable[..., Path]) -> None:
    file = wav('a "b" <c> #1?.wav', seconds=12.0)
    markers = (Marker("ad", 5.0, 11.0, 0.7, 2, MOTIF), Marker("intro", 1.0, 3.0, 0.9, 3, MOTIF, "auto"))
    html = show_report(
        HOSTILE, [marked("two"), marked("one", *markers, path=str(file), title=HOSTILE, duration_s=12.0)], {}, 0.5
    )
    # Clicks every button and notes where its player stands; measures the picture and what a script in a title did.
    probe = (
        "<script>addEventListener('load',async()=>{const a=document.querySelector('audio');"
        "await new Promise(r=>{a.onloadedmetadata=r;a.onerror=r;a.preload='auto';a.load()});const at=[];"
        "for(const b of document.querySelectorAll('button')){b.click();a.pause();at.push(a.currentTime)}"
        "const boxes=[...document.querySelectorAll('svg')].map(s=>s.getBoundingClientRect());"
        "const heads=[...document.querySelectorAll('h1')].map(h=>h.textContent);"
        "tell([Math.round(a.duration),at,boxes.every(b=>b.width>300&&b.height>40),typeof hit,heads])"
        "})</script></body>"
    )
    told = told_by(html.replace("</body>", probe), tmp_path)
    assert told == [12, [2, 0], True, "undefined", [SEEN]]
