"""From motifs to markers: by hand, and over made-up catalogues."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skips.decide import SHY_S, decide, ordered, repeats, support
from skips.detect import Known, Recording
from skips.frames import FRAME_S
from skips.markers import Marker
from skips.similarity import HOP_S, similarity
from skips.versions import versions
from tests.skips.catalogue import Catalogue, frames_of, noisy, sound

AD, INTRO = sound(15, 2), sound(20, 1)


def a_show(count: int) -> Catalogue:
    catalogue = Catalogue()
    for n in range(count):
        catalogue.add(15 + n, ("intro", noisy(INTRO, n)), 70 + 9 * n, ("ad", noisy(AD, 10 + n)), 110)
    return catalogue


@pytest.mark.parametrize(("count", "action"), [(2, "ask"), (3, "auto"), (5, "auto")])
def test_three_times_is_skipped_and_twice_is_asked(count: int, action: str) -> None:
    catalogue = a_show(count)
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    markers = decide(detector.known, {})
    assert list(markers) == list(range(count))
    for n, found in markers.items():
        assert [(m.kind, m.action, m.occurrences, m.source) for m in found] == [
            ("intro", action, count, "repeat"),
            ("ad", action, count, "repeat"),
        ]
        for marker, name in zip(found, ("intro", "ad"), strict=True):
            _, first, last = catalogue.spans[name][n]
            # A little inside: rather hear an ad's end than miss a word.
            assert marker.start_s == pytest.approx(first * FRAME_S + SHY_S, abs=0.1)
            assert marker.end_s == pytest.approx(last * FRAME_S - SHY_S, abs=0.1)
            assert 0 < marker.confidence < 1
    if count == 2:
        assert all(m.confidence < 0.5 for found in markers.values() for m in found)


def test_support_counts_parts_as_parts() -> None:
    catalogue = a_show(3)
    half = len(AD) // 2
    catalogue.add(40, ("first", noisy(AD, 90)[:half]), 60, ("second", noisy(AD, 91)[half:]), 60)
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    ad = max(detector.known.motifs, key=lambda m: len(m.occurrences))
    assert len(ad.occurrences) == 5
    assert support(ad, detector.known, {n: n for n in range(4)}) == 4
    # Of two versions of one episode, what is said in both is said once.
    assert support(ad, detector.known, {0: 0, 1: 0, 2: 2, 3: 3}) == 3


def test_what_repeats_in_one_episode_alone_is_no_marker() -> None:
    catalogue = Catalogue()
    catalogue.add(20, ("ad", noisy(AD, 1)), 60, ("ad", noisy(AD, 2)), 60, ("ad", noisy(AD, 3)), 60)
    catalogue.add(200)
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    assert len(detector.known.motifs) == 1
    assert decide(detector.known, {}) == {0: [], 1: []}


@pytest.mark.parametrize("count", [2, 3, 6])
def test_an_episode_that_was_published_twice_is_not_skipped_whole(count: int) -> None:
    catalogue = Catalogue()
    for n in range(count):
        catalogue.add(("all", noisy(sound(300, 5), n)))
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    assert not any(decide(detector.known, {}).values())


def shas(catalogue: Catalogue, *names: str) -> list[Recording]:
    return [replace(r, audio_sha256=name) for r, name in zip(catalogue.recordings(), names, strict=True)]


def test_a_file_that_lies_there_twice_is_one_witness() -> None:
    catalogue = a_show(2)
    catalogue.episodes.append(catalogue.episodes[1])
    detector = catalogue.detector()
    detector.add(shas(catalogue, "a", "b", "b"))
    for found in decide(detector.known, {}).values():
        assert [(m.kind, m.action, m.occurrences) for m in found] == [("intro", "ask", 2), ("ad", "ask", 2)]


def test_what_only_copies_share_is_no_marker_however_it_is_cut() -> None:
    """Silence cuts what copies share into stretches that are short enough for spots."""
    talk, pause = [sound(20, 60 + n) for n in range(3)], np.zeros((frames_of(40), 32), np.uint8)
    whole = np.concatenate([talk[0], pause, talk[1], pause, talk[2]])
    silent = [(20.0, 60.0, True), (80.0, 120.0, True)]
    for shown in (["a"] * 4, ["a", "b", "c", "d"]):  # the same bytes, and the same sound
        catalogue = Catalogue()
        for n in range(4):
            catalogue.add(("all", whole if shown[n] == "a" else noisy(whole, n)))
        detector = catalogue.detector()
        detector.add(shas(catalogue, *shown))
        assert len(detector.known.motifs) >= 1
        for found in decide(detector.known, {n: silent for n in range(4)}).values():
            assert {m.kind for m in found} == {"silence"}


def test_an_episode_with_other_ads_put_in_is_no_witness_of_itself() -> None:
    """Three listeners' versions of one episode, and two other episodes: the ads count, the episode is not marked."""
    parts, ads = [sound(50, 70 + n) for n in range(3)], [sound(20 + 9 * n, 80 + n) for n in range(2)]
    catalogue = Catalogue()
    for n in range(3):
        middle = [("ad", noisy(AD, n))] if n == 2 else [(f"own {n}", ads[n])]
        catalogue.add(*[("part", noisy(parts[0], n)), *middle, ("part", noisy(parts[1], 10 + n)), ("part", parts[2])])
    catalogue.add(40, ("ad", noisy(AD, 20)), 60)
    catalogue.add(60, ("ad", noisy(AD, 21)), 50)
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    found = decide(detector.known, {})
    assert versions(detector.known, {}) == {0: 0, 1: 0, 2: 0, 3: 3, 4: 4}
    assert found[0] == found[1] == []
    for n in (2, 3, 4):
        assert [(m.kind, m.occurrences, m.action) for m in found[n]] == [("ad", 3, "auto")]


def test_tracks_say_nothing_of_how_many_episodes_there_are() -> None:
    """Early in two of three episodes, and in all there are: an intro by a hair. Among many it would be an ad."""
    catalogue = Catalogue()
    for n, start in enumerate((12, 14, 80)):
        catalogue.add(start, ("intro", noisy(INTRO, n)), 190)
    for n in range(12):
        catalogue.add(20 + n % 7)

    def kinds(others: str) -> list[str]:
        detector = catalogue.detector()
        detector.add([replace(r, kind=others if r.number > 2 else "episode") for r in catalogue.recordings()])
        return [m.kind for m in decide(detector.known, {})[1]]

    assert kinds("track") == ["intro"] and kinds("episode") == ["ad"]


@pytest.mark.parametrize("trailer", ["spots and a word", "the intro alone", "the intro and silence"])
def test_a_trailer_that_lies_in_every_episode_takes_no_markers_from_them(trailer: str) -> None:
    catalogue = a_show(4)
    before = decide(known_of(catalogue), {})
    intro = ("intro", noisy(INTRO, 50))
    pieces = {
        "spots and a word": [intro, 6.0, ("ad", noisy(AD, 51))],
        "the intro alone": [intro],
        "the intro and silence": [intro, ("nothing", np.zeros((frames_of(60), 32), np.uint8))],
    }[trailer]
    catalogue.add(*pieces)
    known = known_of(catalogue)
    silent = {4: [(20.0, 80.0, True)]} if "silence" in trailer else {}
    assert versions(known, silent) == {n: n for n in range(5)}
    found = decide(known, silent)
    for n in range(4):
        assert [(m.kind, m.action) for m in found[n]] == [(m.kind, m.action) for m in before[n]]
        assert found[n][0].occurrences == 5


def test_a_teaser_of_one_episode_is_a_part_of_it() -> None:
    catalogue = a_show(2)
    own = sound(40, 300)
    catalogue.add(20, ("own", noisy(own, 1)), ("intro", noisy(INTRO, 60)), 80)
    catalogue.add(("own", noisy(own, 2)), 5)
    known = known_of(catalogue)
    assert versions(known, {}) == {0: 0, 1: 1, 2: 2, 3: 2}
    found = decide(known, {})
    assert found[3] == [] and [m.kind for m in found[2]] == ["intro"]


def known_of(catalogue: Catalogue) -> Known:
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    return detector.known


def test_a_sample_that_two_tracks_share_is_told() -> None:
    sample = sound(11, 41)
    catalogue = Catalogue()
    catalogue.add(20, ("sample", noisy(sample, 1)), 30)
    catalogue.add(35, ("sample", noisy(sample, 2)), 20)
    catalogue.add(80)
    detector = catalogue.detector()
    detector.add([replace(r, kind="track") for r in catalogue.recordings()])
    (told,) = repeats(detector.known)
    assert told["tracks"] == 2 and told["duration_s"] == pytest.approx(11, abs=0.2)
    assert {p["content_id"] for p in told["places"]} == {"episode 0", "episode 1"}  # type: ignore[attr-defined]


def test_tracks_are_told_and_not_marked() -> None:
    chorus = sound(12, 40)
    catalogue = Catalogue()
    catalogue.add(20, ("chorus", noisy(chorus, 1)), 30, ("chorus", noisy(chorus, 2)), 20)
    catalogue.add(90)
    detector = catalogue.detector()
    detector.add([replace(r, kind="track") for r in catalogue.recordings()])
    assert decide(detector.known, {}) == {}
    (told,) = repeats(detector.known)
    assert told["tracks"] == 1 and told["duration_s"] == pytest.approx(12, abs=0.2)
    assert [p["content_id"] for p in told["places"]] == ["episode 0"] * 2  # type: ignore[attr-defined]


def test_the_curve_is_high_in_spots_and_low_elsewhere() -> None:
    catalogue = a_show(3)
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    curve = similarity(detector, 1)
    _, first, last = catalogue.spans["ad"][1]
    inside = curve[int(first * FRAME_S / HOP_S) + 3 : int(last * FRAME_S / HOP_S) - 3]
    assert inside.min() > 0.6
    assert curve[: int(10 / HOP_S)].max() == 0.0


def marker(kind: str, start: float, end: float, occurrences: int = 3, action: str = "auto") -> Marker:
    return Marker(kind, start, end, 0.9, occurrences, kind, action)


def test_markers_do_not_overlap() -> None:
    found = ordered(
        [marker("ad", 10, 40), marker("jingle", 35, 44, occurrences=9), marker("outro", 36, 43, 2, "ask")],
        [(42.0, 50.0, True), (60.0, 70.0, False)],
        [Marker("ad", 65, 90, 0.8, 1, "", "ask", "transcript"), Marker("ad", 20, 33, 0.8, 1, "", "ask", "transcript")],
        duration_s=69.5,
    )
    assert [(m.kind, m.start_s, m.end_s, m.action) for m in found] == [
        ("ad", 10, 35, "auto"),  # the jingle is heard more often
        ("jingle", 35, 44, "auto"),
        ("silence", 44, 50, "auto"),
        ("silence", 60, 69.5, "ask"),  # to the end of the audio
        # Nothing is marked beyond its end, whatever captions of another cut say.
    ]


def test_what_a_spot_leaves_of_a_host_read_ad_must_name_an_ad_itself() -> None:
    read = Marker("ad", 46, 111, 0.8, 1, "", "ask", "transcript")

    def shown(cued_from: float) -> list[tuple[float, float]]:
        found = ordered([marker("ad", 60, 73)], [], [read], 200.0, lambda start, end: start <= cued_from < end)
        return [(m.start_s, m.end_s) for m in found]

    assert shown(50.0) == [(60, 73)]  # "sponsored by" stands before the spot: the rest is talk
    assert shown(80.0) == [(60, 73), (73, 111)]
    # Where nothing was cut off, the words were looked at already.
    whole = ordered([], [], [read], 200.0, lambda start, end: False)
    assert [(m.start_s, m.end_s) for m in whole] == [(46, 111)]


def test_little_is_left_of_a_marker_and_it_is_dropped() -> None:
    found = ordered([marker("jingle", 0, 20, 9), marker("ad", 10, 28)], [(18.0, 22.5, True)], [], 100.0)
    assert [(m.kind, m.start_s, m.end_s) for m in found] == [("jingle", 0, 20), ("silence", 20, 22.5)]
