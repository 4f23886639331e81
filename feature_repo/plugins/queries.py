"""What a retrieval job runs: the point-in-time join of several views, or the rows of one source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL

from core.compiled import njit
from core.errors import ConfigError
from feature_repo.plugins.entities import Entities
from feature_repo.plugins.gather import gather
from feature_repo.plugins.history import NEVER, Budget, Join, join_unit, locate, ticks
from feature_repo.plugins.keys import Keys
from feature_repo.plugins.parquet import Layout, each, read_layout
from feature_repo.plugins.sources import resolve

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def in_force_until(end: datetime | None) -> datetime:
    """The end of a span of event times, or the present where that is earlier: later rows are not in force."""
    now = datetime.now(UTC)
    if end is None:
        return now
    return min(now, end if end.tzinfo else end.replace(tzinfo=UTC))


class Query(Protocol):
    """Answers as tables of one schema."""

    def table(self) -> pa.Table: ...

    def tables(self, rows: int) -> Iterator[pa.Table]:
        """The answer in tables of at most `rows` rows; at least one."""
        ...


@dataclass(frozen=True)
class ViewPlan:
    """One view of a point-in-time join: its source, how it is joined, and (source column, result column) pairs."""

    source: Any
    join: Join
    features: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class HistoryQuery:
    """Entity rows in their order and multiplicity, with the features that each of them saw."""

    entities: Entities
    views: tuple[ViewPlan, ...]
    repo_path: str
    budget: Budget

    def __post_init__(self) -> None:
        taken = list(self.entities.names)
        for view in self.views:
            for _, name in view.features:
                if name in taken:
                    raise ConfigError(
                        f"feature {name!r} of view {view.join.view} has the name of another column of the result; "
                        "ask for full_feature_names, or rename the entity rows' column"
                    )
                taken.append(name)

    def _layouts(self) -> list[Layout]:
        """One reading of the footers for all views over the same files."""
        known: dict[Any, Layout] = {}
        for view in self.views:
            if view.source not in known:
                known[view.source] = read_layout(resolve(view.source, self.repo_path))
        return [known[view.source] for view in self.views]

    def table(self) -> pa.Table:
        layouts, rows = self._layouts(), self.entities.table()
        return self._joined(layouts, rows, [self._locate(x, v, rows) for x, v in zip(layouts, self.views, strict=True)])

    def tables(self, rows: int) -> Iterator[pa.Table]:
        layouts = self._layouts()
        for chunk in self.entities.chunks(rows):
            indexes = [self._locate(x, v, chunk) for x, v in zip(layouts, self.views, strict=True)]
            yield self._joined(layouts, chunk, indexes)

    def _locate(self, layout: Layout, view: ViewPlan, rows: pa.Table) -> np.ndarray:
        return locate(layout, view.join, rows, self.entities.time, self.budget)

    def _joined(self, layouts: Sequence[Layout], rows: pa.Table, indexes: Sequence[np.ndarray]) -> pa.Table:
        for layout, view, index in zip(layouts, self.views, indexes, strict=True):
            own_names = list(dict.fromkeys(own for own, _ in view.features))
            found = gather(layout, index, own_names, view.join.declared, view.join.times)
            for own, name in view.features:
                rows = rows.append_column(name, found[own])
        return rows


@dataclass(frozen=True)
class PullQuery:
    """Rows of a source whose time lies in [start, end], in file order; with `latest`, of each key the latest alone
    (rows whose key has a null belong to nobody and are left out). Without keys there is one latest row."""

    source: Any
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    event: str
    created: str | None
    start: datetime | None
    end: datetime | None
    latest: bool
    repo_path: str

    @property
    def _times(self) -> tuple[str, ...]:
        return (self.event, self.created) if self.created else (self.event,)

    def table(self) -> pa.Table:
        layout = read_layout(resolve(self.source, self.repo_path))
        return self._rows(layout, self._index(layout))

    def tables(self, rows: int) -> Iterator[pa.Table]:
        layout = read_layout(resolve(self.source, self.repo_path))
        index = self._index(layout)
        for start in range(0, max(len(index), 1), rows):
            yield self._rows(layout, index[start : start + rows])

    def _rows(self, layout: Layout, index: np.ndarray) -> pa.Table:
        columns = gather(layout, index, self.columns, times=self._times)
        if self.latest and not self.keys:  # the key that Feast gives the row of a view without entities
            columns[DUMMY_ENTITY_ID] = pa.chunked_array([pa.array([DUMMY_ENTITY_VAL] * len(index), pa.string())])
        return pa.table(columns)

    def _index(self, layout: Layout) -> np.ndarray:
        """Numbers of the rows asked for, ascending."""
        names = [*self._times, *(self.keys if self.latest else ())]
        types = layout.types(names, times=self._times)
        if not layout.rows:
            return np.empty(0, np.int64)
        unit = join_unit(pa.chunked_array([], pa.timestamp("us")), [types[name] for name in self._times])
        low, high = span(self.start, self.end, unit)

        def scan(group: Any) -> list[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
            found = []
            for first, batch in layout.batches(group, types, 1 << 17):
                event = ticks(batch[self.event], unit)
                kept = np.flatnonzero((event >= low) & (event <= high))
                found.append((batch.take(pa.array(kept)), event[kept], kept + first))
            return found

        pieces = [piece for group in each(scan, layout.groups) for piece in group]
        numbers = np.concatenate([rows for _, _, rows in pieces])
        if not self.latest:
            return numbers
        rows = pa.Table.from_batches([batch for batch, _, _ in pieces])
        event = np.concatenate([times for _, times, _ in pieces])
        created = ticks(rows[self.created], unit) if self.created else np.zeros_like(event)
        keys = Keys([rows[name] for name in self.keys], [types[name] for name in self.keys], rows.num_rows)
        last = _last(keys.codes, event, np.array(created), keys.count)
        return np.sort(numbers[last[last >= 0]])


def span(start: datetime | None, end: datetime | None, unit: str) -> tuple[int, int]:
    """Inclusive ticks of a span of time, open where None; without a zone a time is UTC."""
    per = 1000 if unit == "ns" else 1
    edge = np.iinfo(np.int64).max
    low = micros(start) * per if start else NEVER + 1
    high = micros(end) * per if end else edge
    return max(low, int(NEVER) + 1), min(high, int(edge))


def micros(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


@njit(nogil=True)
def _last(codes, event, created, keys):  # type: ignore[no-untyped-def]
    """(keys,) position of the latest row of each key by (event, created), the later of equals; -1 for none."""
    last = np.full(keys, -1, np.int64)
    for i in range(len(codes)):
        code = codes[i]
        if code < 0:
            continue
        best = last[code]
        if best < 0 or event[i] > event[best] or (event[i] == event[best] and created[i] >= created[best]):
            last[code] = i
    return last
