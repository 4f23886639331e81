"""The peers of skip detection on made-up fingerprints, and the long catalogue that costs are measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.episodes import Episode, Show
from bench.long_catalogue import EPISODE_S, SHOW, LongCatalogue
from bench.skip_peers import POINT_S, candidates, chromaprint_pairs, intro_skipper, shared
from skips.frames import FRAME_S


def points(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)


def flipped(found: np.ndarray, bits: int, seed: int) -> np.ndarray:
    """With so many bits of every point turned over."""
    rng = np.random.default_rng(seed)
    out = found.copy()
    for row in range(len(out)):
        for bit in rng.choice(32, bits, replace=False):
            out[row] ^= np.uint32(1 << int(bit))
    return out


def episodes(folder: Path, prints: list[np.ndarray]) -> list[Episode]:
    """Episodes whose points are already known."""
    made = []
    for number, found in enumerate(prints):
        path = folder / f"{number}.mp3"
        np.save(path.with_name(f".{path.name}.chromaprint.npy"), found)
        made.append(Episode(path, "show", number, len(found) * POINT_S, "mp3", *[()] * 7))
    return made


def test_candidates_are_those_of_comparing_everything() -> None:
    one, other = points(60, 1), points(50, 2)
    other[10:25] = one[30:45]
    other[40] = one[3]  # alone on its shift
    other[45:48] = other[0:3]  # within one recording
    expected = set()
    prints = [one, other]
    for a in range(2):
        for b in range(a, 2):
            tally: dict[int, int] = {}
            for i, p in enumerate(prints[a]):
                for j, q in enumerate(prints[b]):
                    if p == q and (a < b or j > i):
                        tally[j - i] = tally.get(j - i, 0) + 1
            expected |= {(a, b, shift) for shift, count in tally.items() if count >= 2}
    assert set(candidates(prints)) == expected == {(0, 1, -20), (1, 1, 45)}


def test_what_two_share_is_found_although_bits_differ() -> None:
    one, other = points(400, 3), points(300, 4)
    other[50:170] = flipped(one[200:320], 4, 5)
    ((start, end),) = shared(one, other, -150)
    # Points are smoothed over 16 of them.
    assert start == pytest.approx(200, abs=8) and end == pytest.approx(320, abs=8)
    assert shared(one, points(300, 6), -150) == []


def test_intro_skipper_finds_an_intro_and_credits_to_a_second(tmp_path: Path) -> None:
    intro, credits = points(200, 10), points(260, 11)
    prints = []
    for n in range(3):
        body = points(6_000, 20 + n)
        body[100 + 40 * n : 300 + 40 * n] = flipped(intro, 1, n)
        body[-300:-40] = flipped(credits, 1, 50 + n)
        prints.append(body)
    found = intro_skipper(Show("show", False, tuple(episodes(tmp_path, prints))))
    for n, markers in enumerate(found.values()):
        assert [m.kind for m in markers] == ["intro", "outro"]
        assert markers[0].start_s == pytest.approx((100 + 40 * n) * POINT_S, abs=1)
        assert markers[0].end_s == pytest.approx((300 + 40 * n) * POINT_S, abs=1)
        assert markers[1].start_s == pytest.approx(5_700 * POINT_S, abs=1)


def test_all_pairs_find_spots_anywhere(tmp_path: Path) -> None:
    ad = points(160, 30)
    prints = []
    for n in range(3):
        body = points(3_000, 40 + n)
        body[1_000 + 300 * n : 1_160 + 300 * n] = ad
        prints.append(body)
    for n, markers in enumerate(chromaprint_pairs(episodes(tmp_path, prints)).values()):
        (marker,) = markers
        assert marker.action == "auto"
        assert marker.start_s == pytest.approx((1_000 + 300 * n) * POINT_S, abs=2)
        assert marker.end_s == pytest.approx((1_160 + 300 * n) * POINT_S, abs=2)


def test_a_long_catalogue_is_the_same_again_and_shares_what_it_should(tmp_path: Path) -> None:
    real = [np.random.default_rng(n).integers(60, 200, (4_000, 32), np.uint8) for n in range(2)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (LongCatalogue(real, tmp_path / name) for name in ("one", "two"))
    made = one.make([0, 1, SHOW])
    two.make([SHOW])
    np.testing.assert_array_equal(one.load(SHOW), two.load(SHOW))
    assert [r.show for r in made] == ["show-0", "show-0", "show-1"]
    assert len(one.load(0)) == int(EPISODE_S / FRAME_S)
    # The intro is heard in both episodes of the show: the best alignment of their beginnings has 18 s alike.
    a, b = (np.diff(one.load(n)[:1_800].astype(int)) for n in (0, 1))
    alike = []
    for shift in range(-850, 851):
        count = len(a) - abs(shift)
        apart = a[max(0, -shift) :][:count] - b[max(0, shift) :][:count]
        alike.append(int((np.abs(apart).mean(axis=1) < 8).sum()))
    assert max(alike) == pytest.approx(18 / FRAME_S, rel=0.1)
