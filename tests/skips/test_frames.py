"""Two recordings side by side: lines, likeness, extents and edges, on made-up sounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter1d

from skips.frames import (
    FRAME_S,
    MEAN_FRAMES,
    STEP_DB,
    Line,
    Sound,
    Sounds,
    best_run,
    edge,
    evidence,
    extent,
    likeness,
    lined_up,
    loudness,
    self_likeness,
)
from skips.join import Hits, chains, hits
from skips.patch_index import Patches, PatchIndex
from skips.products import products
from tests.skips.catalogue import faster, noisy, over, sound

scales = st.floats(0.9, 1.1)
shifts = st.floats(-1e4, 1e4)


@given(scales, shifts, scales, shifts, st.floats(0, 1e5))
def test_lines_compose_and_invert(a: float, b: float, c: float, d: float, at: float) -> None:
    one, other = Line(a, b), Line(c, d)
    assert one.then(other)(at) == pytest.approx(other(one(at)), abs=1e-4)
    assert one.inverse()(one(at)) == pytest.approx(at, abs=1e-4)
    assert one.later(at)(0.0) == pytest.approx(one(at), abs=1e-4)


def test_likeness_by_hand() -> None:
    one = np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)
    other = np.array([[3.0, 4.0], [2.0, 0.0]], np.float32)
    like, rms = likeness(products(one, np.arange(2), other, np.array([0.0, 1.0])), 2, over=1)
    # 25 / (25 + 8) of the same, 0 of the orthogonal; 5 / √2 and 2 / √2 dB.
    assert like == pytest.approx([25 / 33, 0.0])
    assert rms == pytest.approx([5 / 2**0.5, 2 / 2**0.5])


def test_evidence_lies_between_the_points_of_its_table() -> None:
    table = ((0.2, -2.0), (0.6, 2.0))
    assert evidence(np.array([0.0, 0.2, 0.3, 0.6, 1.0]), table) == pytest.approx([-2, -2, -1, 2, 2])


def test_rows_between_frames() -> None:
    form = np.array([[0.0], [10.0], [20.0]], np.float32)
    ones = np.ones((3, 1), np.float32)
    # Beyond the end, the last row.
    found = products(ones, np.array([0, 1, 2, 2]), form, np.array([0.25, 1.5, 2.0, 7.0]))
    assert found[0] == pytest.approx([2.5, 15.0, 20.0, 20.0])
    assert found[1] == pytest.approx(1) and found[2] == pytest.approx([6.25, 225.0, 400.0, 400.0])
    assert products(ones, np.arange(0), form, np.empty(0)).shape == (3, 0)


def test_products_are_those_of_rows_that_were_copied() -> None:
    rng = np.random.default_rng(5)
    one, other = (rng.normal(0, 4, (300, 32)).astype(np.float32) for _ in range(2))
    at, there = np.arange(20, 250), np.arange(20, 250) * 1.02 + 3.7
    low = np.floor(there).astype(np.int64)
    share = (there - low)[:, None]
    mine, theirs = one[at].astype(np.float64), other[low] * (1 - share) + other[low + 1] * share
    expected = np.stack([(a * b).sum(axis=1) for a, b in ((mine, theirs), (mine, mine), (theirs, theirs))])
    assert products(one, at, other, there) == pytest.approx(expected, rel=1e-4, abs=1e-2)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_the_best_run_is_the_best_of_all_runs(gains: list[float]) -> None:
    start, end = best_run(np.array(gains))
    best = max(sum(gains[i:j]) for i in range(len(gains) + 1) for j in range(i, len(gains) + 1))
    assert sum(gains[start:end]) == pytest.approx(best)


def test_an_edge_is_where_evidence_turns() -> None:
    gain = np.array([-1.0] * 20 + [2.0] * 30 + [-1.0] * 20)
    assert (edge(gain, 25, -1, reach=10), edge(gain, 45, 1, reach=10)) == (20, 50)


@pytest.mark.parametrize("by", [0.0, 0.02, -0.02])
def test_copies_are_lined_up_to_a_fraction_of_a_frame(by: float) -> None:
    spot = sound(15, 1)
    one = Sound(np.concatenate([sound(20, 2), spot, sound(20, 3)]))
    other = Sound(np.concatenate([sound(33, 4), noisy(faster(spot, by + 1e-12), 5, gain=10), sound(20, 6)]))
    first, there = len(sound(20, 2)), len(sound(33, 4))
    middle = first + len(spot) / 2
    guess = Line(1.0, there + len(spot) / 2 / (1 + by) - middle + 3)  # three frames off
    line = lined_up(one, other, first, first + len(spot), guess)
    assert line is not None
    for share in (0.1, 0.5, 0.9):
        at = first + share * len(spot)
        assert line(at) == pytest.approx(there + share * len(spot) / (1 + by), abs=0.8)


def test_nothing_lines_up_with_another_sound() -> None:
    line = lined_up(Sound(sound(20, 7)), Sound(sound(20, 8)), 100, 500, Line(1.0, 0.0))
    assert line is None or extent(Sound(sound(20, 7)), Sound(sound(20, 8)), line, 100, 500) is None


def test_an_extent_ends_where_copies_part_and_not_where_somebody_speaks() -> None:
    spot = sound(20, 10)
    before, after = sound(25, 11), sound(25, 12)
    one = Sound(np.concatenate([before, spot, after]))
    spoken = over(noisy(spot, 13), sound(4, 14), 250)
    other = Sound(np.concatenate([sound(25, 15), spoken, sound(25, 16)]))
    first = len(before)
    # Found by search only at its beginning.
    far = extent(one, other, Line(1.0, 0.0), first + 20, first + 100)
    assert far is not None
    assert (far.start, far.end) == (pytest.approx(first, abs=2.5), pytest.approx(first + len(spot), abs=2.5))
    # Not beyond where it may not look.
    cut = extent(one, other, Line(1.0, 0.0), first + 20, first + 100, high=first + 300)
    assert cut is not None and cut.end <= first + 300.5


def test_loudness_is_that_of_loud_moments() -> None:
    quiet, loud = np.full((95, 32), 40, np.uint8), np.full((5, 32), 140, np.uint8)
    assert 40 <= loudness(np.concatenate([quiet, loud])) <= 140
    assert loudness(np.concatenate([quiet[:80], np.repeat(loud, 4, axis=0)])) == 140
    assert loudness(np.empty((0, 32), np.uint8)) == 0.0


def test_few_sounds_are_held_and_the_last_ones_are() -> None:
    loaded = []

    def load(number: int) -> np.ndarray:
        loaded.append(number)
        return np.zeros((4, 32), np.uint8)

    sounds = Sounds(load, keep=8)  # two of them
    for number in (1, 2, 1, 3, 1, 2):
        sounds[number]
    assert loaded == [1, 2, 3, 2]  # 2 was the least used when 3 came


def vectors(count: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, 64)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def test_hits_stand_once_and_leave_out_neighbours() -> None:
    held = vectors(6, 1)
    # Recording 0 at frames 0, 100, 1,000 and recording 1 at 50, 60, 70; the same vector at 0@0, 0@100, 0@1000 and 1@50.
    held[1] = held[2] = held[3] = held[0]
    recording = np.array([0, 0, 0, 1, 1, 1], np.int32)
    patches = Patches(held, recording, np.array([0, 100, 1_000, 50, 60, 70], np.int32))
    found = hits(PatchIndex.over(patches), patches)
    pairs = set(zip(found.a.tolist(), found.at_a.tolist(), found.b.tolist(), found.at_b.tolist(), strict=True))
    # 100 frames are 3.2 s, too near; 900 are 28.8 s.
    assert pairs == {(0, 0, 0, 1_000), (0, 100, 0, 1_000), (0, 0, 1, 50), (0, 100, 1, 50), (0, 1_000, 1, 50)}


def line_of(a: int, b: int, start: float, end: float, offset: float) -> list[tuple[int, int, float, float]]:
    return [(a, b, t / FRAME_S, (t + offset) / FRAME_S) for t in np.arange(start, end, 0.5)]


def hits_of(rows: list[tuple[int, int, float, float]]) -> Hits:
    a, b, at, there = np.array(rows).T
    to = np.int32
    return Hits(a.astype(to), b.astype(to), at.astype(to), there.astype(to), np.ones(len(rows), np.float32))


def test_chains_by_hand() -> None:
    rows = [
        *line_of(0, 1, 10, 16, 100),  # a spot
        *line_of(0, 1, 24, 30, 100),  # its rest, 8 s of speech later: one chain
        *line_of(0, 1, 60, 66, 100),  # another, half a minute later
        *line_of(0, 1, 10, 16, 140),  # elsewhere in the same two
        *line_of(0, 2, 10, 11, 5),  # two hits are none
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    found = chains(hits_of([rows[i] for i in order]))
    spans = sorted((c.a, c.b, round(2 * c.first * FRAME_S) / 2, round(2 * c.last * FRAME_S) / 2) for c in found)
    assert spans == [(0, 1, 10, 15.5), (0, 1, 10, 29.5), (0, 1, 60, 65.5)]


def test_self_likeness_is_that_of_the_best_lag() -> None:
    rng = np.random.default_rng(3)
    once = rng.normal(0, 5, (400, 32)).astype(np.float32)
    assert self_likeness(once) < 0.1
    beat = np.tile(rng.normal(0, 5, (17, 32)), (20, 1)).astype(np.float32)  # every 17 frames
    assert self_likeness(beat) == pytest.approx(1, abs=0.02)
    assert self_likeness(beat, range(6, 17)) < 0.3
    assert self_likeness(np.zeros((100, 32), np.float32)) == 0
    assert self_likeness(once[:5]) == 0


@pytest.mark.parametrize("count", [0, 1, 5, 62, 63, 64, 500])
def test_movement_is_what_differs_from_the_running_mean_of_two_seconds(count: int) -> None:
    """Against scipy's filter, which mirrors what lies beyond the ends as well."""
    found = np.random.default_rng(count).integers(0, 255, (count, 32)).astype(np.uint8)
    sound = Sound(found, loud=120.0)
    raised = np.maximum(found, 30).astype(np.float64) * STEP_DB  # 45 dB under the loud moments
    expected = raised - uniform_filter1d(raised, MEAN_FRAMES, axis=0) if count else raised
    assert sound.movement.dtype == np.float32 and sound.movement.shape == (count, 32)
    np.testing.assert_allclose(sound.movement, expected, atol=2e-5)


def test_the_rooms_agree_on_what_a_frame_is() -> None:
    """Skips may not import what makes frames, so both say it."""
    from catalog.media import SAMPLE_RATE
    from embedders import fingerprint
    from pipelines import stages
    from skips import detect, frames, silence

    assert frames.FRAME_S == fingerprint.FRAME_S and frames.STEP_DB == fingerprint.STEP_DB
    assert (silence.HOP, silence.WINDOW) == (fingerprint.HOP, fingerprint.WINDOW)
    assert silence.RATE == SAMPLE_RATE and silence.FLOOR_DB == fingerprint.FLOOR_DB
    assert detect.HOP == fingerprint.PATCH_HOP
    assert stages.FINGERPRINT_ID == fingerprint.FINGERPRINT_ID
