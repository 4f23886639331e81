"""Agreement of two small tables, every kind of disagreement worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core.contracts import EVENT, TIMESTAMP, VECTOR, WORK_KEY
from core.errors import ConfigError
from core.keys import REMOVED
from evaluation.consistency import Agreement, compare, equal_values
from evaluation.intervals import wilson

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("loud", pa.float32()), (EVENT, TIMESTAMP)])


def rows(*values: tuple[str, str | None, float | None, datetime | None]) -> pa.Table:
    return pa.table(list(map(list, zip(*values, strict=True))), schema=SCHEMA)


def marked(table: pa.Table, *keys: str) -> pa.Table:
    return table.append_column(WORK_KEY, pa.array(keys, pa.string()))


def agreement(online: pa.Table, offline: pa.Table, **named: Any) -> Agreement:
    return compare("view", "id", ["title", "loud"], online, offline, **named)


def test_all_agree_in_any_order() -> None:
    offline = rows(("a", "one", 1.5, NOON), ("b", None, None, NOON), ("c", "", -0.5, NOON))
    found = agreement(offline.take([2, 0, 1]), offline)
    assert (found.sampled, found.agree, found.share) == (3, 3, 1.0)
    assert not found.kinds and not found.features and not found.examples


def test_every_kind_of_disagreement() -> None:
    second = timedelta(seconds=1)
    offline = marked(
        rows(
            ("missing", "t", 1.0, NOON),
            ("no row at all", "t", 1.0, NOON),
            ("stale", "t", 1.0, NOON),
            ("ahead", "t", 1.0, NOON),
            ("title", "t", 1.0, NOON),
            ("both", "t", 1.0, NOON),
            ("lost", "t", None, NOON),
            ("removed", None, None, NOON),
            ("removed too", None, None, NOON),
            ("still there", None, None, NOON),
            ("not yet gone", None, None, NOON),
            ("same", "t", 1.0, NOON),
        ),
        *["key"] * 7,
        *[REMOVED] * 4,
        "key",
    )
    online = rows(
        ("missing", None, None, None),
        ("stale", "other", 2.0, NOON - second),
        ("ahead", "other", 2.0, NOON + second),
        ("title", "T", 1.0, NOON),
        ("both", "T", 1.5, NOON),
        ("lost", "t", 1.0, NOON),
        ("removed", None, None, None),
        ("still there", "t", 1.0, NOON),
        ("not yet gone", "t", 1.0, NOON - second),
        ("same", "t", 1.0, NOON),
    )
    found = agreement(online, offline)
    assert found.kinds == {"missing": 2, "stale": 2, "ahead": 1, "different": 3, "not_removed": 1}
    assert found.features == {"title": 2, "loud": 2}
    assert found.examples == {
        "missing": ["missing", "no row at all"],
        "stale": ["stale", "not yet gone"],
        "ahead": ["ahead"],
        "different": ["title", "both", "lost"],
        "not_removed": ["still there"],
    }
    assert (found.sampled, found.agree) == (12, 3)
    assert found.to_dict()["share"] == 0.25


def test_an_online_event_has_whole_seconds() -> None:
    offline = rows(("a", "t", 1.0, NOON + timedelta(microseconds=999_999)))
    assert agreement(rows(("a", "t", 1.0, NOON)), offline).agree == 1


def test_a_row_beyond_its_ttl_may_be_gone() -> None:
    hour = timedelta(hours=1)
    offline = rows(("old", "t", 1.0, NOON - 3 * hour), ("old too", "t", 1.0, NOON - 3 * hour), ("new", "t", 1.0, NOON))
    # The reader gives no values of an expired row.
    online = rows(("old too", None, None, NOON - 3 * hour), ("new", "t", 1.0, NOON))
    now = int(NOON.timestamp()) * 1_000_000
    assert agreement(online, offline, ttl_us=2 * 3600 * 1_000_000, now_us=now).agree == 3
    assert agreement(online, offline, ttl_us=4 * 3600 * 1_000_000, now_us=now).kinds == {"missing": 1, "different": 1}
    assert agreement(online, offline).kinds == {"missing": 1, "different": 1}


def test_examples_are_few() -> None:
    offline = rows(*((f"{n}", "t", 1.0, NOON) for n in range(9)))
    assert agreement(offline.slice(0, 0), offline).examples == {"missing": ["0", "1", "2", "3", "4"]}


def test_an_empty_sample_says_nothing() -> None:
    empty = SCHEMA.empty_table()
    found = agreement(empty, empty)
    assert found.share is None and (found.low, found.high) == (0.0, 1.0)


def test_of_all_keys_the_share_is_known() -> None:
    offline = rows(*((f"{n}", "t", 1.0, NOON) for n in range(4)))
    found = agreement(offline.slice(1), offline, population=4)
    assert (found.low, found.share, found.high) == (0.75, 0.75, 0.75)
    found = agreement(offline.slice(1), offline, population=5)
    assert (found.low, found.high) == wilson(3, 4)
    empty = SCHEMA.empty_table()
    assert agreement(empty, empty, population=0).share is None


def test_a_key_stands_once() -> None:
    twice = rows(("a", "t", 1.0, NOON), ("a", "t", 1.0, NOON))
    with pytest.raises(ConfigError, match="twice"):
        agreement(twice, twice)


def alike(one: list[Any], other: list[Any], kind: pa.DataType, other_kind: pa.DataType | None = None) -> list[bool]:
    first, second = pa.chunked_array([pa.array(one, kind)]), pa.chunked_array([pa.array(other, other_kind or kind)])
    return list(equal_values(first, second).tolist())


def test_floats_are_equal_to_the_last_bit() -> None:
    nan, up = float("nan"), float(np.nextafter(np.float32(1), np.float32(2)))
    one = [1.0, 1.0, nan, nan, None, 0.0, 0.0]
    other = [1.0, up, nan, None, None, -0.0, None]
    assert alike(one, other, pa.float32()) == [True, False, True, True, True, False, False]
    assert alike([0.1], [0.1], pa.float32(), pa.float64()) == [True], "what float32 makes of a float64"


def test_exact_types() -> None:
    big = 2**53 + 1
    assert alike([big, big, None, 0], [big, big - 1, None, None], pa.int64()) == [True, False, True, False]
    assert alike(["é", "e", None, ""], ["é", "E", None, None], pa.string()) == [True, False, True, False]
    assert alike([True, True, None], [True, False, False], pa.bool_()) == [True, False, False]


def test_instants_are_equal_to_the_second() -> None:
    micros = [NOON + timedelta(microseconds=700_000), NOON, NOON, None]
    seconds = [NOON, NOON + timedelta(seconds=1), None, None]
    assert alike(micros, seconds, TIMESTAMP, pa.timestamp("s", "UTC")) == [True, False, False, True]
    # Feast cuts what lies before 1970 towards it.
    assert alike([-1_500_000], [-1], TIMESTAMP, pa.timestamp("s", "UTC")) == [True]


def test_lists_are_equal_element_by_element() -> None:
    one = [[1, 2], [], None, [1, 2], [1, 2, 3], None, [float("nan"), 1], [4]]
    other = [[1, 2], [], None, [1, 3], [1, 2], [], [float("nan"), 1], [4]]
    expected = [True, True, True, False, False, False, True, True]
    assert alike(one, other, VECTOR) == expected
    assert alike([["a", "b"], ["a"], [None]], [["a", "b"], ["b"], [None]], pa.list_(pa.string())) == [True, False, True]
    # A slice: offsets that do not begin at 0.
    column = pa.chunked_array([pa.array([[9.0], [1.0, 2.0], [3.0]], VECTOR)]).slice(1)
    assert equal_values(column, pa.chunked_array([pa.array([[1.0, 2.0], [4.0]], VECTOR)])).tolist() == [True, False]


def test_wilson_by_hand() -> None:
    # 8 of 10 with z = 1.96: centre (0.8 + 0.19208) / 1.38416, half width 1.96 / 1.38416 * sqrt(0.016 + 0.009604).
    low, high = wilson(8, 10, z=1.96)
    assert low == pytest.approx(0.716738 - 0.226578, abs=1e-5) and high == pytest.approx(0.716738 + 0.226578, abs=1e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (5, 10), (999, 1000), (1000, 1000), (0, 37)])
def test_wilson_against_scipy(successes: int, trials: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)
