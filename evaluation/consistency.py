"""Whether an online store says what the offline store says, of a sample of keys of one view.

Functions of two tables. What online stores cannot keep is not held against them: floats are compared as float32,
instants by their whole seconds (Feast's `Value` has no fractions), and NaN is null (Feast's scalars have no NaN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.contracts import EVENT, WORK_KEY
from core.errors import ConfigError
from core.keys import REMOVED
from evaluation.intervals import wilson

EXAMPLES = 5  # keys shown of each kind of disagreement
SECOND_US = 1_000_000

# Kinds of disagreement: a row has one.
MISSING = "missing"  # offline has a row, online none
STALE = "stale"  # the online row's event is older
AHEAD = "ahead"  # the online row's event is newer, as after a push to the online store alone
DIFFERENT = "different"  # of the same event, with another value
NOT_REMOVED = "not_removed"  # offline says that the key was removed, online has a row as late as that
KINDS = (MISSING, STALE, AHEAD, DIFFERENT, NOT_REMOVED)


@dataclass(frozen=True)
class Agreement:
    """How far the two stores agree on `sampled` keys of a view that has `population` (0: not known). `low` and `high`
    bound the share that agrees over all keys, with 95 % confidence; they are the share where all keys were looked at.
    """

    view: str
    sampled: int
    population: int
    agree: int
    low: float
    high: float
    kinds: dict[str, int]
    features: dict[str, int] = field(default_factory=dict)  # rows of kind `different` by feature, of those that differ
    examples: dict[str, list[str]] = field(default_factory=dict)  # up to `EXAMPLES` keys of each kind

    @property
    def share(self) -> float | None:
        """Share of the sample that agrees, 0 to 1; None of an empty sample."""
        return self.agree / self.sampled if self.sampled else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "view": self.view,
            "sampled": self.sampled,
            "population": self.population,
            "agree": self.agree,
            "share": self.share,
            "interval": [self.low, self.high],
            "disagree": self.kinds,
            "features": self.features,
            "examples": self.examples,
        }


def compare(
    view: str,
    key: str,
    features: Sequence[str],
    online: pa.Table,
    offline: pa.Table,
    *,
    population: int = 0,
    ttl_us: int = 0,
    now_us: int = 0,
) -> Agreement:
    """Compares the rows of `offline`, one a key, with those of `online` of the same keys, in any order.

    Both have `key`, the `features` and `event_timestamp`; in `online` a null event means that there is no row. A
    `work_key` in `offline` tells tombstones. Rows older than `ttl_us` microseconds at `now_us` (since 1970) may be
    there or not; 0: rows do not age. Raises `ConfigError` where a key stands twice.
    """
    keys = offline[key].combine_chunks()
    if len(pc.unique(keys)) != len(keys):
        raise ConfigError(f"view {view!r}: a key stands twice in the sample; give the latest row of each key")
    place = pc.index_in(keys, value_set=online[key].combine_chunks())
    online = online.take(place)  # a key that is not there becomes a row of nulls
    ours, theirs = _seconds(online[EVENT]), _seconds(offline[EVENT])
    present = np.asarray(online[EVENT].is_valid())
    removed = np.zeros(len(keys), bool)
    if WORK_KEY in offline.column_names:
        removed = np.asarray(pc.fill_null(pc.equal(offline[WORK_KEY], REMOVED), False))
    oldest = now_us // SECOND_US - ttl_us // SECOND_US if ttl_us else np.iinfo(np.int64).min
    expired = theirs < oldest  # then an online row that is no newer is given to nobody

    found = {
        MISSING: ~present & ~removed & ~expired,
        STALE: present & (ours < theirs) & ~expired,
        AHEAD: present & (ours > theirs),
        NOT_REMOVED: present & removed & (ours == theirs) & ~expired,
    }
    same = np.flatnonzero(present & ~removed & ~expired & (ours == theirs))
    differing = np.zeros(len(same), bool)
    by_feature: dict[str, int] = {}
    for name in features:
        unlike = ~equal_values(online[name].take(pa.array(same)), offline[name].take(pa.array(same)))
        differing |= unlike
        if unlike.any():
            by_feature[name] = int(unlike.sum())
    found[DIFFERENT] = np.zeros(len(keys), bool)
    found[DIFFERENT][same[differing]] = True

    agree = len(keys) - int(sum(mask.sum() for mask in found.values()))
    everything = 0 < population <= len(keys)
    return Agreement(
        view,
        len(keys),
        population,
        agree,
        *((agree / len(keys),) * 2 if everything else wilson(agree, len(keys))),
        kinds={kind: int(found[kind].sum()) for kind in KINDS if found[kind].any()},
        features=by_feature,
        examples={
            kind: [str(keys[int(i)].as_py()) for i in np.flatnonzero(found[kind])[:EXAMPLES]]
            for kind in KINDS
            if found[kind].any()
        },
    )


def equal_values(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    """Row by row, whether two columns hold the same (bool): floats bit for bit as float32, instants by whole seconds,
    lists element by element, everything else exactly. Null equals null, and a scalar NaN is null."""
    first, second = _whole(one), _whole(other)
    if _is_list(first.type) and _is_list(second.type):
        return _equal_lists(first, second)
    valid, valid_too = np.asarray(first.is_valid()), np.asarray(second.is_valid())
    if pa.types.is_floating(first.type) and pa.types.is_floating(second.type):
        bits, bits_too = _bits(first), _bits(second)
        valid, valid_too = valid & (bits != _NAN), valid_too & (bits_too != _NAN)
        alike = bits == bits_too
    elif pa.types.is_timestamp(first.type) and pa.types.is_timestamp(second.type):
        # Values before 1970 are cut towards it where they are written, not down as events are.
        alike = np.trunc(_micros(first) / SECOND_US) == np.trunc(_micros(second) / SECOND_US)
    else:
        alike = np.asarray(pc.fill_null(pc.equal(first, second), False))
    return np.where(valid & valid_too, alike, valid == valid_too)


def _equal_lists(first: pa.Array, second: pa.Array) -> np.ndarray:
    """A null list equals a null list and no empty one."""
    valid, valid_too = np.asarray(first.is_valid()), np.asarray(second.is_valid())
    sizes = np.asarray(pc.fill_null(pc.list_value_length(first), 0))
    alike = (valid == valid_too) & (sizes == np.asarray(pc.fill_null(pc.list_value_length(second), 0)))
    filled = np.flatnonzero(alike & valid & (sizes > 0))
    if filled.size:
        rows = pa.array(filled)
        elements = equal_values(pc.list_flatten(first.take(rows)), pc.list_flatten(second.take(rows)))
        starts = np.concatenate([[0], np.cumsum(sizes[filled])[:-1]])
        alike[filled] = np.logical_and.reduceat(elements, starts)
    return alike


_NAN = np.uint32(0x7FC00000)


def _bits(column: pa.Array) -> np.ndarray:
    """The bits of the float32 values, every NaN and null as one NaN."""
    numbers = np.array(column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False), np.float32)
    bits = numbers.view(np.uint32)
    bits[np.isnan(numbers)] = _NAN
    return bits


def _seconds(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Whole seconds since 1970 of instants, rounded down; nulls as 0."""
    return _micros(column) // SECOND_US


def _micros(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    ticks = _whole(column).cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
    return np.asarray(pc.fill_null(ticks, 0))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
