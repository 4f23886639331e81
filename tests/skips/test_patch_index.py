"""An index over patches: what it finds, as it grows, and what it forgets."""

from __future__ import annotations

import numpy as np
import pytest

from skips.patch_index import FLAT_UNTIL, LIST_LENGTH, Patches, PatchIndex
from skips.tables import part_from_bytes, part_to_bytes


def vectors(count: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, 64)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def patches(first: int, last: int) -> Patches:
    """Rows `first` to `last` of one endless sequence; a recording has a thousand."""
    number = np.arange(first, last, dtype=np.int32)
    return Patches(vectors(last, 2)[first:], number // 1_000, number % 1_000)


def asked(count: int) -> np.ndarray:
    """The first vectors with some noise."""
    found = vectors(count, 2) + 0.05 * vectors(count, 3)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def found(index: PatchIndex, count: int) -> float:
    """The share of the first vectors that are found."""
    _, rows = index.search(asked(count), 1)
    return float(np.mean(index.recording[rows[:, 0]] * 1_000 + index.frame[rows[:, 0]] == np.arange(count)))


def test_a_large_index_finds_nearly_what_a_flat_one_does() -> None:
    assert found(PatchIndex.over(patches(0, FLAT_UNTIL)), 300) == 1
    assert found(PatchIndex.over(patches(0, 30_000)), 300) > 0.95


@pytest.mark.parametrize("step", [700, 9_000])
def test_what_grew_finds_as_much_as_what_was_made_at_once(step: int) -> None:
    index = PatchIndex.over(patches(0, 500))
    for first in range(500, 30_000, step):
        index.add(patches(first, min(first + step, 30_000)))
        if len(index) > FLAT_UNTIL:
            assert len(index) <= 2 * LIST_LENGTH * (index.index.nlist + 1)  # no list has become long
    assert len(index) == index.index.ntotal == 30_000
    assert found(index, 300) > 0.95


def test_the_dead_are_left_out_when_lists_are_learnt_anew() -> None:
    index = PatchIndex.over(patches(0, 6_000))
    alive = np.ones(20, bool)
    alive[2] = False
    index.add(patches(6_000, 7_000), alive)
    assert 2 in index.recording  # nothing was learnt yet
    index.add(patches(7_000, 20_000), alive)
    assert 2 not in index.recording and len(index) == 19_000


def test_patches_come_back_to_eight_bits_and_leave_the_index_as_it_was() -> None:
    for count in (900, 6_000):
        index = PatchIndex.over(patches(0, count))
        before = part_to_bytes(index)
        again = index.patches(np.arange(7) != 0)
        assert again.recording.min() == 1 and len(again) == max(0, count - 1_000) if count > 1_000 else not len(again)
        assert np.abs(index.patches().vectors - vectors(count, 2)).max() < 0.006
        assert part_to_bytes(index) == before


def test_adding_to_what_was_stored_goes_on_as_before() -> None:
    index = PatchIndex.over(patches(0, 6_000))
    index.stored = ("there",)
    index.add(patches(0, 0))
    assert index.stored  # nothing came, so the file is still right
    again = part_from_bytes(*part_to_bytes(index))
    for side in (index, again):
        side.add(patches(6_000, 9_000))
        assert not side.stored
    queries = asked(200)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(index.index.search(queries, 5), again.index.search(queries, 5), strict=True)
    )


@pytest.mark.parametrize("count", [0, 700, 20_000])
def test_a_brief_index_finds_what_is_nearest(count: int) -> None:
    some = patches(0, count)
    index = PatchIndex.briefly(some)
    assert len(index) == index.index.ntotal == count
    if count:
        nearest = np.argmax(asked(200) @ some.vectors.T, axis=1)
        _, rows = index.search(asked(200), 1)
        assert np.mean(rows[:, 0] == nearest) >= (1 if count < 1_000 else 0.95)


def test_what_is_all_the_same_is_split_as_well() -> None:
    """A tone for ten hours is one vector, which no plane parts: 18,000 of them here are not one list for ever."""
    same = np.repeat(vectors(1, 4), 3_000, axis=0)
    number = np.zeros(3_000, np.int32)
    index = PatchIndex.over(patches(0, 6_000))
    for _ in range(6):
        index.add(Patches(same, number, number))
    lists = index.index.invlists
    assert index.index.ntotal == len(index) == 24_000
    assert max(lists.list_size(n) for n in range(index.index.nlist)) < 12_000
    alike, rows = index.index.search(same[:1], 32)
    assert (rows >= 0).all() and np.allclose(alike, 1, atol=0.02)
