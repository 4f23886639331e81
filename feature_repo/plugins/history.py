"""The point-in-time join, on keys and times alone: which feature row does each entity row see?

Semantics: among a view's rows with the entity row's key, not later than its time, not older than the TTL (both ends
inclusive), the latest by (event, created); at a full tie the later in file order. Feature columns are read afterwards,
and only where a row was chosen (`gather`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.compiled import njit
from core.errors import ConfigError
from feature_repo.plugins.keys import NOTHING, Keys, check_families, frozen
from feature_repo.plugins.parquet import Group, Layout, each

NEVER = np.iinfo(np.int64).min  # tick of a null time
SCAN_ROWS = 131_072  # feature rows whose keys are decoded at a time
ROW_BYTES = 4 + 3 * 8  # of a feature row in memory: key number, event, created, row number


@dataclass(frozen=True)
class Join:
    """How one view is joined. Column names are the source's own."""

    view: str
    keys: tuple[tuple[str, str], ...]  # (the view's key column, the entity rows' column)
    event: str
    created: str | None
    ttl: timedelta | None
    by_created: bool  # see only what was created by the entity row's time
    declared: Mapping[str, pa.DataType] = field(default_factory=dict)  # the view's types of some columns

    @property
    def times(self) -> tuple[str, ...]:
        """The columns of event and created times."""
        return (self.event, self.created) if self.created else (self.event,)


@dataclass(frozen=True)
class Budget:
    """What the join may hold in memory before it spills."""

    bytes: int
    memory_limit: str | None = None  # DuckDB's own, for what it does not spill
    temp_directory: str | None = None


@dataclass
class Rows:
    """Feature rows that some entity row may see: parallel arrays, in file order."""

    codes: np.ndarray  # int32
    event: np.ndarray  # int64 ticks
    created: np.ndarray  # int64 ticks
    rows: np.ndarray  # int64, the layout's row numbers


def locate(layout: Layout, join: Join, entities: pa.Table, time: str, budget: Budget) -> np.ndarray:
    """(n,) int64: for each entity row the number of the feature row it sees, -1 where there is none.

    Raises `ConfigError` for a missing column or keys of types that cannot be equal, `StorageError` for damaged files.
    """
    for _, column in join.keys:
        if column not in entities.column_names:
            raise ConfigError(f"the entity rows have no column {column!r}, the join key of view {join.view}")
    types = layout.types([*join.times, *(own for own, _ in join.keys)], join.declared, join.times)
    for own, column in join.keys:
        check_families(column, join.view, entities[column].type, types[own])
    unit = join_unit(entities[time], [types[name] for name in join.times])
    times = ticks(entities[time], unit)
    keys = Keys([entities[c] for _, c in join.keys], [types[own] for own, _ in join.keys], entities.num_rows)
    codes = np.where(times == NEVER, NOTHING, keys.codes)
    if not layout.rows or not (codes >= 0).any():
        return np.full(entities.num_rows, -1, np.int64)
    ttl = ttl_ticks(join.ttl, unit)
    seen = times[codes >= 0]
    window = (max(int(seen.min()) - ttl, NEVER + 1) if ttl else NEVER + 1, int(seen.max()))
    scan = _Scan(layout, join, types, keys, unit, window)
    if layout.rows * ROW_BYTES > budget.bytes:
        from feature_repo.plugins.spill import locate_spilling

        return locate_spilling(scan, codes, times, ttl, join.by_created and join.created is not None, budget)
    return find(scan.all(), keys.count, codes, times, ttl, join.by_created and join.created is not None)


@dataclass(frozen=True)
class _Scan:
    """Reads keys and times of the feature rows that some entity row may see."""

    layout: Layout
    join: Join
    types: dict[str, pa.DataType]
    keys: Keys
    unit: str
    window: tuple[int, int]  # ticks, inclusive: no entity row sees an event outside

    def of(self, group: Group) -> Iterator[Rows]:
        """Rows of one row group, in pieces."""
        for first, batch in self.layout.batches(group, self.types, SCAN_ROWS):
            event = ticks(batch[self.join.event], self.unit)
            codes = self.keys.lookup([batch[own] for own, _ in self.join.keys], batch.num_rows)
            created = ticks(batch[self.join.created], self.unit) if self.join.created else np.zeros_like(event)
            kept = np.flatnonzero((codes >= 0) & (event >= self.window[0]) & (event <= self.window[1]))
            if len(kept) == len(codes):
                yield Rows(codes, event, created, np.arange(first, first + len(codes)))
            else:
                yield Rows(codes[kept], event[kept], created[kept], kept + first)

    def all(self) -> Rows:
        pieces = [piece for found in each(lambda group: list(self.of(group)), self.layout.groups) for piece in found]
        fields = ("codes", "event", "created", "rows")
        return Rows(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in fields))


def find(rows: Rows, keys: int, codes: np.ndarray, times: np.ndarray, ttl: int, by_created: bool) -> np.ndarray:
    """The join of `locate` in memory: feature rows in histories a key, then a binary search an entity row."""
    starts, event, created, numbers = _histories(rows.codes, rows.event, rows.created, rows.rows, keys)
    found = np.empty(len(codes), np.int64)
    half = len(codes) // 2 if len(codes) > 50_000 else 0
    bounds = [(0, half), (half, len(codes))] if half else [(0, len(codes))]

    def search(bound: tuple[int, int]) -> None:
        a, b = bound
        _search(starts, event, created, numbers, codes[a:b], frozen(times[a:b]), ttl, by_created, found[a:b])

    list(each(search, bounds))
    return found


def join_unit(entity_times: pa.ChunkedArray, kinds: Sequence[pa.DataType]) -> str:
    """The unit in which times compare exactly: microseconds, or nanoseconds where a side has finer times than that.

    Flooring nanoseconds would let an entity row see a feature of the same microsecond that comes after it.
    """
    if any(pa.types.is_timestamp(kind) and kind.unit == "ns" for kind in kinds):
        return "ns"
    if pa.types.is_timestamp(entity_times.type) and entity_times.type.unit == "ns":
        for chunk in entity_times.chunks:
            values = pc.fill_null(pc.cast(chunk, pa.int64()), 0).to_numpy(zero_copy_only=False)
            if (values % 1000).any():
                return "ns"
    return "us"


def ticks(column: pa.Array | pa.ChunkedArray, unit: str) -> np.ndarray:
    """(n,) int64 instants since 1970 UTC in `unit`; a time without a zone is UTC. Null is `NEVER`, and what lies
    beyond the unit's range is its end. Raises `ConfigError` for a column that holds no times."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_null(column.type):
        return np.full(len(column), NEVER, np.int64)
    if pa.types.is_date(column.type):
        column = pc.cast(column, pa.timestamp("s"))
    if not pa.types.is_timestamp(column.type):
        raise ConfigError(f"a column of times is {column.type}, not a timestamp or a date")
    raw = pc.cast(column, pa.int64())
    values: np.ndarray = (pc.fill_null(raw, NEVER) if raw.null_count else raw).to_numpy(zero_copy_only=False)
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    own, wanted = per[column.type.unit], per[unit]
    if own == wanted:
        return values
    null = values == NEVER if raw.null_count else None
    if wanted > own:
        factor = wanted // own
        edge = np.iinfo(np.int64).max // factor
        values = np.clip(values, -edge, edge) * factor
    else:
        values = values // (own // wanted)
    if null is not None:
        values[null] = NEVER
    return values


def ttl_ticks(ttl: timedelta | None, unit: str) -> int:
    """A time to live in ticks; 0 is for ever, as in Feast."""
    return 0 if not ttl else (ttl // timedelta(microseconds=1)) * (1000 if unit == "ns" else 1)


@njit(nogil=True)
def _histories(codes, event, created, rows, keys):  # type: ignore[no-untyped-def]
    """Rows by key, then by (event, created), ties in file order. `starts` (keys+1,) bounds each key's rows."""
    starts = np.zeros(keys + 1, np.int64)
    for code in codes:
        starts[code + 1] += 1
    for key in range(keys):
        starts[key + 1] += starts[key]
    fill = starts[:-1].copy()
    by_event, by_created = np.empty(len(codes), np.int64), np.empty(len(codes), np.int64)
    numbers = np.empty(len(codes), np.int64)
    for i in range(len(codes)):
        at = fill[codes[i]]
        fill[codes[i]] += 1
        by_event[at], by_created[at], numbers[at] = event[i], created[i], rows[i]
    for key in range(keys):
        start, stop = starts[key], starts[key + 1]
        if stop - start > 64 and not _sorted(by_event, by_created, start, stop):
            order = np.argsort(by_created[start:stop], kind="mergesort")
            order = order[np.argsort(by_event[start:stop][order], kind="mergesort")]
            by_event[start:stop] = by_event[start:stop][order]
            by_created[start:stop] = by_created[start:stop][order]
            numbers[start:stop] = numbers[start:stop][order]
            continue
        for i in range(start + 1, stop):  # insertion: histories are short, and mostly in order
            e, c, r = by_event[i], by_created[i], numbers[i]
            j = i - 1
            while j >= start and (by_event[j] > e or (by_event[j] == e and by_created[j] > c)):
                by_event[j + 1], by_created[j + 1], numbers[j + 1] = by_event[j], by_created[j], numbers[j]
                j -= 1
            by_event[j + 1], by_created[j + 1], numbers[j + 1] = e, c, r
    return starts, by_event, by_created, numbers


@njit(nogil=True)
def _sorted(event, created, start, stop):  # type: ignore[no-untyped-def]
    for i in range(start + 1, stop):
        if event[i - 1] > event[i] or (event[i - 1] == event[i] and created[i - 1] > created[i]):
            return False
    return True


@njit(nogil=True)
def _search(starts, event, created, numbers, codes, times, ttl, by_created, found):  # type: ignore[no-untyped-def]
    for i in range(len(codes)):
        found[i] = -1
        code = codes[i]
        if code < 0:
            continue
        time = times[i]
        low, high = starts[code], starts[code + 1]
        start = low
        while low < high:  # the first row later than the entity row
            middle = (low + high) // 2
            if event[middle] <= time:
                low = middle + 1
            else:
                high = middle
        at = low - 1
        if by_created:
            while at >= start and (created[at] > time or created[at] == NEVER):
                at -= 1
        if at >= start and (ttl == 0 or event[at] >= time - ttl):
            found[i] = numbers[at]
