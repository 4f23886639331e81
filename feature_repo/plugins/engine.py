"""Materialisation by part files: what the online store has not seen is written, whatever its event time.

`feast materialize` and `materialize-incremental` both do this with `batch_engine: {type: …EarmarkEngine}`; their range
of event times is not a filter here, because old, late and recomputed rows would never arrive. The online store keeps
the ledger of parts beside its rows. `--disable-event-timestamp` writes everything anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.common.materialization_job import MaterializationJobStatus
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.offline_stores.file_source import FileSource
from pydantic import StrictStr

from core.keys import REMOVED
from feature_repo.ledger import identity
from feature_repo.plugins.column_types import arrow_types
from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.response import FastReads
from feature_repo.plugins.online.rows import Rows, encode_rows
from feature_repo.plugins.online.views import UNKNOWN_CREATED, ViewPlan, micros, plan_view
from feature_repo.plugins.parquet import Group, Layout, read_layout
from feature_repo.plugins.sources import Parts, resolve, work_key_column

WINDOW_ROWS = 1_000_000  # rows whose keys are compared at a time: about 100 MB
BATCH_BYTES = 8 << 20  # of columns decoded and encoded at a time
Progress = Callable[[int], Any]
log = logging.getLogger(__name__)


class EarmarkEngineConfig(LocalComputeEngineConfig):
    """Options of the engine."""

    type: StrictStr = "feature_repo.plugins.engine.EarmarkEngine"  # type: ignore[assignment]
    window_rows: int = WINDOW_ROWS
    """Rows whose keys are held in memory at a time; the peak of memory depends on it and not on the number of rows."""


class EarmarkEngine(LocalComputeEngine):
    """Feast's compute engine for views over Parquet files and Earmark's online stores; others go Feast's own way."""

    def __init__(self, window_rows: int = WINDOW_ROWS, **named: Any) -> None:
        named.pop("type", None)
        super().__init__(**named)
        self._window_rows = window_rows

    def _materialize_one(self, registry: Any, task: Any, **named: Any) -> LocalMaterializationJob:
        view = task.feature_view
        if not self.takes(view):
            return super()._materialize_one(registry, task, **named)
        job_id = f"{view.name}-{task.start_time}-{task.end_time}"
        try:
            with _Bar(task.tqdm_builder) as bar:
                self.materialise(view, again=task.disable_event_timestamp, expect=bar.expect, progress=bar.advance)
        except Exception as error:
            return LocalMaterializationJob(job_id, MaterializationJobStatus.ERROR, error)
        return LocalMaterializationJob(job_id, MaterializationJobStatus.SUCCEEDED)

    def takes(self, view: Any) -> bool:
        """Whether this engine materialises the view itself: rows of Parquet files, as they are."""
        plain = type(view) is FeatureView and not getattr(view, "feature_transformation", None)
        return plain and isinstance(view.batch_source, FileSource) and isinstance(self.online_store, FastReads)

    def materialise(
        self,
        view: Any,
        *,
        again: bool = False,
        expect: Progress | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Writes the rows of parts that the online store has not seen, or of all parts `again`; returns how many rows
        it wrote. `expect` is told the number of rows to look at, `progress` of each some that are done.

        Repeat it to resume: a part enters the ledger when its rows are online, and what is online already is not
        written twice. Raises `StorageError`, `ConfigError`.
        """
        config, store = self.repo_config, self.online_store
        work = _work(config, view, store.key_suffix(config))
        parts = resolve(view.batch_source, config.repo_path)
        names = _identities(parts)
        seen = store.ledger(config, work.plan)
        new = [n for n, name in enumerate(names) if again or name not in seen]
        gone = sorted(seen - set(names))
        if not new:
            if gone:
                store.note(config, work.plan, [], gone)
            return 0
        layout = read_layout(Parts(parts.filesystem, [parts.files[n] for n in new], parts.uri))
        if expect:
            expect(layout.rows)
        written = 0
        empty = {n for n in range(len(new))} - {group.file for group in layout.groups}
        for window, done in _windows(layout, self._window_rows):
            for rows, read in _ahead(_batches(layout, window, work)):
                if rows is not None:
                    written += store.write_rows(config, work.plan, rows, again=again)
                if progress:
                    progress(read)
            store.note(config, work.plan, [names[new[n]] for n in done])
        store.note(config, work.plan, [names[new[n]] for n in sorted(empty)], gone)
        return written

    def unseen(self, view: Any) -> bool:
        """Whether the view has parts that the online store has not seen."""
        config = self.repo_config
        names = _identities(resolve(view.batch_source, config.repo_path))
        return not set(names) <= self.online_store.ledger(config, plan_view(config, view))

    def note_compaction(self, view: Any, before: Sequence[str], after: str) -> None:
        """Takes the part `after` for seen where all the parts `before` that it replaces were."""
        config, plan = self.repo_config, plan_view(self.repo_config, view)
        names = {name.rsplit("|", 2)[0]: name for name in _identities(resolve(view.batch_source, config.repo_path))}
        seen = self.online_store.ledger(config, plan)
        if after in names and all(path in names and names[path] in seen for path in before):
            self.online_store.note(config, plan, [names[after]])


@dataclass(frozen=True)
class _Work:
    """A view's plan and the names of its columns in the files."""

    plan: ViewPlan
    keys: tuple[str, ...]
    features: tuple[str, ...]
    event: str
    created: str | None
    suffix: bytes
    mark: str | None  # Earmark's own column of the files, which marks removed rows
    declared: Mapping[str, pa.DataType]  # the view's types of its columns

    @property
    def times(self) -> tuple[str, ...]:
        return (self.event, self.created) if self.created else (self.event,)


def _work(config: Any, view: Any, suffix: bytes) -> _Work:
    source, plan = view.batch_source, plan_view(config, view)
    own = {new: old for old, new in (source.field_mapping or {}).items()}
    return _Work(
        plan=plan,
        keys=tuple(own.get(name, name) for name in plan.join_keys if name != DUMMY_ENTITY_ID),
        features=tuple(own.get(name, name) for name in plan.features),
        event=own.get(source.timestamp_field, source.timestamp_field),
        created=own.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        suffix=suffix,
        mark=work_key_column(source, config.repo_path),
        declared={own.get(name, name): kind for name, kind in arrow_types([*view.entity_columns, *view.features])},
    )


def _identities(parts: Parts) -> list[str]:
    infos = parts.filesystem.get_file_info([part.path for part in parts.files])
    return [identity(part.path, info.size, info.mtime_ns or 0) for part, info in zip(parts.files, infos, strict=True)]


def _windows(layout: Layout, rows: int) -> Iterator[tuple[list[Group], list[int]]]:
    """Row groups in order, about `rows` rows at a time, and the files that each window completes."""
    window: list[Group] = []
    for number, group in enumerate(layout.groups):
        window.append(group)
        following = layout.groups[number + 1] if number + 1 < len(layout.groups) else None
        if following is None or sum(g.rows for g in window) + following.rows > rows:
            files = sorted({g.file for g in window})
            yield window, [f for f in files if following is None or f != following.file]
            window = []


def _batches(layout: Layout, window: Sequence[Group], work: _Work) -> Iterator[tuple[Rows | None, int]]:
    """(the rows of a piece of the window that are the latest of their key within it, encoded; rows read)."""
    keep = _latest(layout, window, work)
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
            yield (_encode(batch, work, mark) if batch.num_rows else None), count


def _encode(batch: pa.RecordBatch, work: _Work, mark: str | None) -> Rows:
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


def _keys(rows: pa.Table | pa.RecordBatch, work: _Work) -> list[Any]:
    """The join keys' columns; a view without entities has one key, which Feast writes as the empty string."""
    return [rows[name] for name in work.keys] or [pa.array([""] * rows.num_rows, pa.string())]


def _latest(layout: Layout, window: Sequence[Group], work: _Work) -> np.ndarray:
    """Which rows of the window are the latest of their key by event, then created time (bool). A row without a key or
    without an event time is nobody's, and said so."""
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
        table = table.filter(pa.array(valid))
    event = micros(table[work.event])
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


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, the next one made in a thread while the present one is used: Arrow and the kernels leave the
    interpreter alone, so reading and encoding run while Redis is at work."""
    with ThreadPoolExecutor(1, thread_name_prefix="earmark-encode") as pool:
        end = object()
        following = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item


class _Bar:
    """Feast's progress bar, made when the number of rows is known."""

    def __init__(self, builder: Callable[[int], Any] | None) -> None:
        self._builder, self._bar = builder, None

    def expect(self, rows: int) -> None:
        self._bar = self._builder(rows) if self._builder else None

    def advance(self, rows: int) -> None:
        if self._bar is not None:
            self._bar.update(rows)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
