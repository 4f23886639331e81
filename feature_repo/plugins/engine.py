"""Materialisation by part files: what the online store has not seen is written, whatever its event time.

`feast materialize-incremental` does this with `batch_engine: {type: …EarmarkEngine}`, and holds back what is dated in
the future. `feast materialize START END` writes the rows of that window, which does not touch the ledger of parts; with
`--disable-event-timestamp` it writes everything anew. The online store keeps the ledger beside its rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from feast import FeatureView
from feast.infra.common.materialization_job import MaterializationJobStatus
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.offline_stores.file_source import FileSource
from pydantic import StrictStr

from core.errors import ConfigError, EarmarkError, StorageError
from feature_repo.plugins.online.definition import define
from feature_repo.plugins.online.pending import now_us
from feature_repo.plugins.online.response import FastReads
from feature_repo.plugins.online.rows import micros_of
from feature_repo.plugins.online.views import plan_view
from feature_repo.plugins.parquet import Layout, read_layout
from feature_repo.plugins.part_rows import EVER_US, Work, batches, due_times, identities, windows, work_of
from feature_repo.plugins.sources import Parts, resolve

WINDOW_ROWS = 1_000_000  # rows whose keys are compared at a time: about 100 MB
Progress = Callable[[int], Any]


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

    @property
    def supports_batch(self) -> bool:
        """Feast then passes all views in one call, so that a view that fails does not stop the later ones."""
        return True

    def materialize(self, registry: Any, tasks: Any, **named: Any) -> list[Any]:
        """Feast's call: a job a task. Feast raises the error of the first that failed, which names all that did."""
        jobs = super().materialize(registry, tasks, **named)
        names = [task.feature_view.name for task in (tasks if isinstance(tasks, list) else [tasks])]
        failed = [(name, job) for name, job in zip(names, jobs, strict=True) if job.error() is not None]
        errors = [(name, job.error()) for name, job in failed]
        if len(failed) > 1 or (failed and isinstance(errors[0][1], EarmarkError)):
            error, first = failures(errors), failed[0][1]
            jobs[jobs.index(first)] = LocalMaterializationJob(first.job_id(), MaterializationJobStatus.ERROR, error)
        return jobs

    def _materialize_one(self, registry: Any, task: Any, **named: Any) -> Any:
        view = task.feature_view
        job_id = f"{view.name}-{task.start_time}-{task.end_time}"
        try:
            if not self.takes(view):
                return self._materialize_as_feast(registry, task, **named)
            with _Bar(task.tqdm_builder) as bar:
                self.materialise(view, expect=bar.expect, progress=bar.advance, **_extent(task))
        except Exception as error:
            error.add_note(f"while materialising the feature view {view.name}")
            return LocalMaterializationJob(job_id, MaterializationJobStatus.ERROR, error)
        return LocalMaterializationJob(job_id, MaterializationJobStatus.SUCCEEDED)

    def _materialize_as_feast(self, registry: Any, task: Any, **named: Any) -> Any:
        return super()._materialize_one(registry, task, **named)

    def takes(self, view: Any) -> bool:
        """Whether this engine materialises the view itself: rows of Parquet files, as they are."""
        plain = type(view) is FeatureView and not getattr(view, "feature_transformation", None)
        return plain and isinstance(view.batch_source, FileSource) and isinstance(self.online_store, FastReads)

    def materialise(
        self,
        view: Any,
        *,
        again: bool = False,
        between: tuple[datetime, datetime] | None = None,
        until: datetime | None = None,
        expect: Progress | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Writes the rows of parts that the online store has not seen, or of all parts `again`, up to the time `until`
        or the present, whichever is earlier; returns how many rows it wrote. With `between`, the rows of all parts
        within that window, both ends inclusive, whether they are online or not. `expect` is called with the number of
        rows to look at, `progress` with each some that are done.

        Repeat it to resume: a part enters the ledger when its rows are online, and what is online already is not
        written twice. A part with rows that are later is read again when their time has come. Raises `StorageError`,
        `ConfigError`.
        """
        config, store = self.repo_config, self.online_store
        span_us = _span(between, until)
        work = work_of(config, view, store.key_suffix(config), span_us)
        parts = self._parts(view)
        names = identities(parts)
        written = store.promote(config, work.plan, min(span_us[1], now_us()))
        ledger = store.ledger(config, work.plan)
        seen = set() if again or between else ledger.seen(work.definition, span_us[1])
        new = [n for n, name in enumerate(names) if name not in seen]
        gone = sorted(set(ledger.parts) - set(names))
        is_whole = ledger.is_whole
        if ledger.definition != work.definition:
            # Rows of the same times may be online that another definition read, until all parts are read anew.
            is_whole = ledger.definition is None
            store.begin(config, work.plan, work.definition, is_whole)
        if not new:
            if gone:
                store.note(config, work.plan, work.definition, {}, gone)
            if not is_whole:
                self._note_if_whole(work, names)
            return written
        layout = read_layout(Parts(parts.filesystem, [parts.files[n] for n in new], parts.uri))
        if expect:
            expect(layout.rows)
        note = None if between else self._noting(layout, work, [names[n] for n in new])
        equal = again or between is not None or not is_whole
        written += self._write(layout, view, work, equal, note, progress)
        if note:
            note([], gone)
            if not is_whole:
                self._note_if_whole(work, names)
        return written

    def _note_if_whole(self, work: Work, names: Sequence[str]) -> None:
        """Notes that all rows are online as the definition reads them, unless a part has rows in force that an earlier
        end of the materialisation left out: until they are read anew, what is online of them is another definition's.
        """
        config, store = self.repo_config, self.online_store
        if set(names) <= store.ledger(config, work.plan).seen(work.definition, now_us()):
            store.begin(config, work.plan, work.definition, True)

    def _parts(self, view: Any) -> Parts:
        return resolve(view.batch_source, self.repo_config.repo_path)

    def _noting(self, layout: Layout, work: Work, names: Sequence[str]) -> Callable[..., None]:
        """A function that enters files, by number, in the ledger, and at its first call those without rows."""
        due = due_times(layout, work)
        empty = set(range(len(names))) - {group.file for group in layout.groups}

        def note(files: Sequence[int], gone: Sequence[str] = ()) -> None:
            done = {names[n]: due.get(n) for n in (*files, *sorted(empty))}
            empty.clear()
            if done or gone:
                self.online_store.note(self.repo_config, work.plan, work.definition, done, gone)

        return note

    def _write(
        self,
        layout: Layout,
        view: Any,
        work: Work,
        equal: bool,
        note: Callable[..., None] | None,
        progress: Progress | None,
    ) -> int:
        """Writes the latest row of each key of the span; returns how many rows replaced what was online. A row of the
        same times as the one online is written where `equal`."""
        written = 0
        for window, done in windows(layout, self._window_rows):
            for rows, read in _ahead(batches(layout, window, work)):
                if rows is not None:
                    written += self.online_store.write_rows(self.repo_config, work.plan, rows, again=equal)
                if progress:
                    progress(read)
            if note:
                note(done)
        return written

    def unseen(self, view: Any) -> bool:
        """Whether the view has rows in force that the online store has not seen."""
        config, plan = self.repo_config, plan_view(self.repo_config, view)
        ledger = self.online_store.ledger(config, plan)
        seen = ledger.seen(define(config, view), now_us())
        return not set(identities(self._parts(view))) <= seen or self.online_store.has_due(config, plan)

    def note_compaction(self, view: Any, before: Sequence[str], after: str) -> None:
        """Takes the part `after` for seen where all the parts `before` that it replaces were."""
        config, plan, definition = self.repo_config, plan_view(self.repo_config, view), define(self.repo_config, view)
        names = {name.rsplit("|", 2)[0]: name for name in identities(self._parts(view))}
        ledger = self.online_store.ledger(config, plan)
        known = [ledger.parts.get(names.get(path, "")) for path in before]
        if after in names and all(one and one[0] == definition.digest for one in known):
            due = min((one[1] for one in known if one and one[1] is not None), default=None)
            self.online_store.note(config, plan, definition, {names[after]: due})


def failures(errors: Sequence[tuple[str, BaseException]]) -> EarmarkError:
    """One error for the views of the given names that could not be materialised."""
    first = errors[0][1]
    if len(errors) == 1:
        kind = ConfigError if isinstance(first, ConfigError) else StorageError
        combined: EarmarkError = kind(f"feature view {errors[0][0]!r} could not be materialised: {first}")
    else:
        reasons = "; ".join(f"{name}: {error}" for name, error in errors)
        combined = StorageError(f"{len(errors)} feature views could not be materialised, the others were: {reasons}")
    combined.__cause__ = first
    return combined


def _extent(task: Any) -> dict[str, Any]:
    """The arguments of `materialise` for a task of Feast: which rows of the view it asks for."""
    if task.disable_event_timestamp:
        return {"again": True}
    if _is_incremental():
        return {"until": task.end_time}
    return {"between": (task.start_time, task.end_time)}


def _is_incremental() -> bool:
    """Whether `materialize_incremental` is being called. Feast creates the same task for it, with an invented start, as
    for `materialize` with a window: only the caller distinguishes the two."""
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if (
            frame.f_code.co_name == "materialize_incremental"
            and frame.f_globals.get("__name__") == "feast.feature_store"
        ):
            return True
    return False


def _span(between: tuple[datetime, datetime] | None, until: datetime | None) -> tuple[int, int]:
    """First and last event time, in microseconds, of the rows to write: none is later than the present."""
    now = now_us()
    if between:
        return micros_of(between[0]), min(now, micros_of(between[1]))
    return EVER_US[0], min(now, micros_of(until)) if until else now


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
