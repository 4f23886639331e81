"""Rows of part files for an online store: those in force, the latest of each key, encoded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.feature_view import DUMMY_ENTITY_ID

from core.keys import REMOVED
from feature_repo.ledger import identity
from feature_repo.plugins.column_types import arrow_types
from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.definition import Definition, define
from feature_repo.plugins.online.rows import Rows, encode_rows
from feature_repo.plugins.online.views import UNKNOWN_CREATED, ViewPlan, micros, plan_view
from feature_repo.plugins.parquet import Group, Layout
from feature_repo.plugins.sources import Parts, work_key_column

BATCH_BYTES = 8 << 20  # of columns decoded and encoded at a time
EVER_US = (int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max))
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A view's plan, its definition and the names of its columns in the files. Rows whose event time (microseconds) is
    not within `span_us`, both ends inclusive, are left out."""

    plan: ViewPlan
    definition: Definition
    keys: tuple[str, ...]
    features: tuple[str, ...]
    event: str
    created: str | None
    suffix: bytes
    mark: str | None  # Earmark's own column in the files, which marks removed rows
    declared: Mapping[str, pa.DataType]  # the view's types of its columns
    span_us: tuple[int, int] = EVER_US

    @property
    def times(self) -> tuple[str, ...]:
        """The columns of event and created times in the files."""
        return (self.event, self.created) if self.created else (self.event,)


def work_of(config: Any, view: Any, suffix: bytes, span_us: tuple[int, int] = EVER_US) -> Work:
    """The work for a Feast feature view; `suffix` ends the store's keys, `span_us`: first and last event time."""
    source, plan = view.batch_source, plan_view(config, view)
    own = {new: old for old, new in (source.field_mapping or {}).items()}
    return Work(
        plan=plan,
        definition=define(config, view),
        keys=tuple(own.get(name, name) for name in plan.join_keys if name != DUMMY_ENTITY_ID),
        features=tuple(own.get(name, name) for name in plan.features),
        event=own.get(source.timestamp_field, source.timestamp_field),
        created=own.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        suffix=suffix,
        mark=work_key_column(source, config.repo_path),
        declared={own.get(name, name): kind for name, kind in arrow_types([*view.entity_columns, *view.features])},
        span_us=span_us,
    )


def identities(parts: Parts) -> list[str]:
    """The ledger's name of each part file, which changes with the file's size and modification time."""
    infos = parts.filesystem.get_file_info([part.path for part in parts.files])
    return [identity(part.path, info.size, info.mtime_ns or 0) for part, info in zip(parts.files, infos, strict=True)]


def windows(layout: Layout, rows: int) -> Iterator[tuple[list[Group], list[int]]]:
    """Row groups in order, about `rows` rows at a time, and the files that each window completes."""
    window: list[Group] = []
    for number, group in enumerate(layout.groups):
        window.append(group)
        following = layout.groups[number + 1] if number + 1 < len(layout.groups) else None
        if following is None or sum(g.rows for g in window) + following.rows > rows:
            files = sorted({g.file for g in window})
            yield window, [f for f in files if following is None or f != following.file]
            window = []


def batches(layout: Layout, window: Sequence[Group], work: Work) -> Iterator[tuple[Rows | None, int]]:
    """(the rows of a piece of the window that are the latest of their key within it, encoded; rows read)."""
    keep = latest(layout, window, work)
    mark = work.mark if work.mark in layout.names else None
    names = [*work.keys, *work.times, *work.features, *([mark] if mark else [])]
    types = layout.types(names, work.declared, work.times)
    at = 0
    for group in window:
        for _, batch in layout.batches(group, types, _batch_rows(layout, group)):
            chosen, count = keep[at : at + batch.num_rows], batch.num_rows
            at += count
            if not chosen.all():
                batch = batch.filter(pa.array(chosen))
            yield (encode(batch, work, mark) if batch.num_rows else None), count


def encode(batch: pa.RecordBatch, work: Work, mark: str | None) -> Rows:
    """A batch of the files' rows as the bytes that an online store writes; `mark` is the column of removed rows."""
    removed = np.asarray(pc.fill_null(pc.equal(batch[mark], REMOVED), False)) if mark else None
    return encode_rows(
        work.plan,
        _keys(batch, work),
        batch[work.event],
        batch[work.created] if work.created else None,
        [batch[name] for name in work.features],
        removed,
        work.suffix,
    )


def _keys(rows: pa.Table | pa.RecordBatch, work: Work) -> list[Any]:
    """The join keys' columns; a view without entities has one key, which Feast writes as the empty string."""
    return [rows[name] for name in work.keys] or [pa.array([""] * rows.num_rows, pa.string())]


def latest(layout: Layout, window: Sequence[Group], work: Work) -> np.ndarray:
    """Which rows of the window are the latest of their key by event, then created time (bool). A row without a key or
    without an event time is left out with a warning."""
    types = layout.types([*work.keys, *work.times], work.declared, work.times)
    pieces = [b for group in window for _, b in layout.batches(group, types, 1 << 17)]
    table = pa.Table.from_batches(pieces)
    valid = np.ones(table.num_rows, bool)
    for name in (*work.keys, work.event):
        if table[name].null_count:
            valid &= np.asarray(table[name].is_valid())
    if not valid.all():
        count = int((~valid).sum())
        log.warning("%s: %d rows without a join key or an event time are left out", work.plan.name, count)
    event = micros(table[work.event])
    if work.span_us != EVER_US:
        valid &= (event >= work.span_us[0]) & (event <= work.span_us[1])
    if not valid.all():
        table, event = table.filter(pa.array(valid)), event[valid]
    created = micros(table[work.created]) if work.created else np.full(table.num_rows, UNKNOWN_CREATED)
    keys = [column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in _keys(table, work)]
    column = keys[0] if len(keys) == 1 else _joined(work.plan, keys)
    coded = column.dictionary_encode()
    best = np.full(len(coded.dictionary), -1, np.int64)
    if best.size == table.num_rows:  # every key once
        return valid
    kernels.newest(np.asarray(coded.indices), event, created, best)
    keep = np.zeros(valid.size, bool)
    keep[np.flatnonzero(valid)[best]] = True
    return keep


def _joined(plan: ViewPlan, keys: Sequence[pa.Array]) -> pa.Array:
    """Several join keys as one column of their serialized bytes."""
    block = plan.entity_keys(keys)
    offsets = np.concatenate([block.starts[0], [block.data.size]])
    buffers = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(np.ascontiguousarray(block.data))]
    return pa.Array.from_buffers(pa.large_binary(), block.rows, buffers)


def _batch_rows(layout: Layout, group: Group) -> int:
    """Rows of a batch, so that its columns take about `BATCH_BYTES`."""
    size = layout.footers[group.file].row_group(group.number).total_byte_size
    return max(256, min(65_536, BATCH_BYTES * group.rows // max(size, 1)))


def due_times(layout: Layout, work: Work) -> dict[int, int]:
    """Of the files that have rows later than the span, by number: the earliest event time of those, microseconds."""
    until_us = work.span_us[1]
    found: dict[int, int] = {}
    types = layout.types([work.event], work.declared, work.times) if layout.groups else {}
    for group in layout.groups:
        if _is_before(layout, group, work.event, until_us):
            continue
        for _, batch in layout.batches(group, types, 1 << 17):
            column = batch[work.event]
            event = micros(column.drop_null() if column.null_count else column)
            later = event[event > until_us]
            if later.size:
                found[group.file] = min(found.get(group.file, EVER_US[1]), int(later.min()))
    return found


def _is_before(layout: Layout, group: Group, column: str, until_us: int) -> bool:
    """Whether the footer says that no row of the group is later than `until_us`. False where it says nothing."""
    at = layout.schemas[group.file].get_field_index(column)
    kind = layout.schemas[group.file].field(at).type if at >= 0 else None
    if kind is None or not pa.types.is_timestamp(kind):
        return False
    found = layout.footers[group.file].row_group(group.number)
    for number in range(found.num_columns):
        chunk = found.column(number)
        if chunk.path_in_schema == column:
            if not chunk.is_stats_set or not chunk.statistics.has_min_max:
                return False
            latest = pa.array([chunk.statistics.max]).cast(pa.timestamp("us", kind.tz))
            return bool(micros(latest)[0] <= until_us)
    return False
