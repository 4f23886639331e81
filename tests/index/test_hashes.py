"""Hashes within a distance: against a comparison of all with all, whatever the hashes are like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from index import hash_tables
from index import hashes as hash_index
from index.hash_tables import WIDEST, masks, slices
from index.hashes import HashIndex


def random_hashes(count: int, seed: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng((5, seed)).integers(0, 256, (count, size), dtype=np.uint8)


def flipped(hashes: np.ndarray, bits: int, seed: int) -> np.ndarray:
    """Copies with exactly so many bits turned over."""
    rng = np.random.default_rng((6, seed))
    found = np.unpackbits(hashes, axis=1)
    for row in found:
        row[rng.choice(found.shape[1], bits, replace=False)] ^= 1
    return np.packbits(found, axis=1)


def all_with_all(hashes: np.ndarray, numbers: np.ndarray, queries: np.ndarray, radius: int) -> list[list[tuple]]:
    """(number, distance) of each query's matches, the slow way."""
    found = []
    for query in queries:
        far = np.unpackbits(hashes ^ query, axis=1).sum(axis=1)
        near = np.flatnonzero(far <= radius)
        found.append(sorted(((int(numbers[i]), int(far[i])) for i in near), key=lambda m: (m[1], m[0])))
    return found


def assert_exact(
    index: HashIndex, hashes: np.ndarray, numbers: np.ndarray, queries: np.ndarray, threads: int = 1
) -> int:
    hits = index.search(queries, threads)
    expected = all_with_all(hashes, numbers, queries, index.radius)
    assert [hits.of(i) for i in range(len(queries))] == expected
    return sum(map(len, expected))


@pytest.fixture
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables from few codes on, so that small tests see them."""
    monkeypatch.setattr(hash_index, "SCANNED", 256)
    monkeypatch.setattr(hash_tables, "SCAN", 1.0)
    monkeypatch.setattr(hash_tables, "ROOM", 8)


@pytest.mark.parametrize("radius", [0, 1, 15, 31, 47])
@pytest.mark.parametrize("threads", [1, 3])
def test_random_hashes(small_tables: None, radius: int, threads: int) -> None:
    hashes = random_hashes(5_000, 1)
    queries = np.concatenate(
        [flipped(hashes[n : n + 20], n, n) for n in (0, 1, 15, 16, 30, 31, 32, 47, 48)] + [random_hashes(20, 2)]
    )
    index = HashIndex(256, radius)
    index.add(hashes, np.arange(5_000) * 7)
    assert index._parts and len(index._parts[0].widths)
    least = 20 * sum(n <= radius for n in (0, 1, 15, 16, 30, 31, 32, 47))
    assert assert_exact(index, hashes, np.arange(5_000) * 7, queries, threads) >= least


def test_clusters_of_near_copies(small_tables: None) -> None:
    seeds = random_hashes(10, 3)
    hashes = np.concatenate([flipped(np.repeat(seeds[n : n + 1], 200, axis=0), 2 * n, n) for n in range(10)])
    index = HashIndex()
    index.add(hashes, np.arange(len(hashes)))
    assert assert_exact(index, hashes, np.arange(len(hashes)), flipped(seeds, 9, 1)) > 1_000


@pytest.mark.parametrize("varied", [1, 2, 4])
def test_hashes_that_are_alike_but_for_some_bytes(small_tables: None, varied: int) -> None:
    """Their buckets hold everything; all are compared then, and none twice."""
    hashes = np.full((3_000, 32), 0x5A, np.uint8)
    hashes[:, :varied] = random_hashes(3_000, 4, varied)
    index = HashIndex()
    index.add(hashes, np.arange(3_000))
    assert assert_exact(index, hashes, np.arange(3_000), hashes[:5]) > 100


def test_the_same_hash_many_times(small_tables: None) -> None:
    hashes = np.repeat(random_hashes(1, 5), 2_000, axis=0)
    index = HashIndex()
    index.add(hashes, np.arange(2_000))
    assert assert_exact(index, hashes, np.arange(2_000), hashes[:3]) == 6_000


@pytest.mark.parametrize("bits", [64, 128, 512])
def test_other_lengths(small_tables: None, bits: int) -> None:
    hashes = random_hashes(2_000, 6, bits // 8)
    index = HashIndex(bits, bits // 8)
    index.add(hashes, np.arange(2_000))
    assert assert_exact(index, hashes, np.arange(2_000), flipped(hashes[:50], bits // 8, 2)) >= 50


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "again"]), st.integers(1, 400)), min_size=1, max_size=12))
def test_what_is_added_is_found_and_what_is_removed_is_not(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hash_index, "SCANNED", 256)
        patch.setattr(hash_tables, "SCAN", 1.0)
        every, alive, removed, number = {}, [], [], 0
        index = HashIndex(64, 7)
        for step, (what, count) in enumerate(steps):
            if what == "add":
                for n, row in enumerate(random_hashes(count, 100 + step, 8)):
                    every[number + n] = row
                fresh = list(range(number, number + count))
                number += count
            elif what == "again":
                fresh, removed = removed[:count], removed[count:]
            else:
                gone, alive = alive[:count], alive[count:]
                removed += gone
                index.remove(gone)
                fresh = []
            if fresh:
                index.add(np.stack([every[n] for n in fresh]), fresh)
                alive = alive + fresh
            assert len(index) == len(alive)
            if alive:
                hashes = np.stack([every[n] for n in alive])
                queries = flipped(np.stack([every[n] for n in list(every)[:30]]), 5, step)
                assert_exact(index, hashes, np.array(alive), queries)


@given(st.integers(1, 8), st.integers(0, 63), st.sampled_from([10, 1_000, 100_000, 10_000_000]), st.randoms())
def test_codes_within_the_radius_agree_in_some_slice(words: int, radius: int, codes: int, random: object) -> None:
    bits = 64 * words
    widths, shares = slices(bits, min(radius, bits - 1), codes)
    assert len(widths) == 0 or widths.max() <= WIDEST
    assert widths.sum() <= bits
    if not len(widths):
        return
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    owner = np.repeat(np.arange(len(widths)), widths)
    for _ in range(20):
        # The worst case spreads the differing bits evenly; begin with that and mix in chance.
        turned = rng.permutation(bits)[: min(radius, bits - 1)]
        per_slice = np.bincount(owner[turned[turned < len(owner)]], minlength=len(widths))
        assert (per_slice <= shares).any()
    evenly = np.arange(min(radius, bits - 1)) % len(widths)
    assert (np.bincount(evenly, minlength=len(widths)) <= shares).any()


def test_masks_by_hand() -> None:
    assert masks(3, 0).tolist() == [0]
    assert masks(3, 1).tolist() == [0, 1, 2, 4]
    assert masks(3, 2).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert len(masks(23, 2)) == 1 + 23 + 23 * 22 // 2


def test_few_are_compared_one_by_one_and_many_looked_up() -> None:
    assert len(slices(256, 31, 1_000)[0]) == 0
    widths, shares = slices(256, 31, 10_000_000)
    # 31 = 2 · 11 + 9: two bits in one of ten slices, or one bit in the last.
    assert sorted(widths.tolist()) == [23] * 8 + [24] * 3
    assert shares.tolist() == [2] * 10 + [1]


def test_nothing_is_nothing() -> None:
    index = HashIndex()
    assert index.search(random_hashes(2, 7)).of(1) == []
    assert len(index.search(np.empty((0, 32), np.uint8)).numbers) == 0
    index.add(np.empty((0, 32), np.uint8), [])
    assert len(index) == 0


def test_what_is_no_hash_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 64"):
        HashIndex(100, 5)
    with pytest.raises(ConfigError, match="uint8"):
        HashIndex().add(np.zeros((2, 31), np.uint8), [1, 2])
    with pytest.raises(ConfigError, match="2 hashes come with 1 numbers"):
        HashIndex().add(np.zeros((2, 32), np.uint8), [1])
