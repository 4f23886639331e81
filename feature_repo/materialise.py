"""Materialising a store: what its online store has not seen yet is written, whatever its event time.

The work is the engine's (`feature_repo.plugins.engine`); Feast's own `feast materialize` commands come to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import pyarrow as pa

from core.errors import ConfigError, EarmarkError
from core.features import CONTENT_ENTITY
from core.ids import Ids, id_list
from feature_repo.plugins.engine import EarmarkEngine, failures
from feature_repo.plugins.online.response import FastReads
from feature_repo.plugins.online.views import plan_view

Progress = Callable[[str, int, int], None]


def unseen(store: Any) -> bool:
    """Whether there are parts that no materialisation has seen."""
    engine = _engine(store)
    return any(engine.unseen(view) for view in _views(store, engine))


def materialise(
    store: Any, progress: Progress | None = None, *, again: bool = False, views: Collection[str] | None = None
) -> dict[str, int]:
    """Writes new rows online, or all rows if `again`, of all views or of those named; returns the number of rows
    written for each view that had any to write. `progress` receives the view, the number of rows done since its last
    call, and their total.

    Repeat it to resume: what is online already is not written twice. A view that fails does not stop the others; the
    error is raised at the end. Raises `StorageError`, `ConfigError`.
    """
    engine = _engine(store)
    written: dict[str, int] = {}
    failed: list[tuple[str, Exception]] = []
    for view in _views(store, engine):
        if views is not None and view.name not in views:
            continue
        steps = _Steps(view.name, progress)
        try:
            if again or engine.unseen(view):
                written[view.name] = engine.materialise(view, again=again, expect=steps.expect, progress=steps.advance)
        except EarmarkError as error:
            failed.append((view.name, error))
    if failed:
        raise failures(failed)
    return written


def remove_online(store: Any, content_ids: Ids) -> None:
    """Deletes the online rows of these contents from every view of contents. Raises `StorageError`."""
    content_ids = id_list(content_ids)
    online = store._get_provider().online_store
    if not isinstance(online, FastReads):
        raise ConfigError(f"removal is not written for the online store {type(online).__name__}")
    if not content_ids:
        return
    for view in store.list_feature_views():
        if [column.name for column in view.entity_columns] == [CONTENT_ENTITY]:
            plan = plan_view(store.config, view)
            keys = plan.entity_keys([pa.array(content_ids, pa.string())], online.key_suffix(store.config))
            online.forget(store.config, plan, keys)


class _Steps:
    """Ties the engine's counts to the view that they are of."""

    def __init__(self, view: str, progress: Progress | None) -> None:
        self._view, self._progress, self._total = view, progress, 0

    def expect(self, rows: int) -> None:
        self._total = rows

    def advance(self, rows: int) -> None:
        if self._progress:
            self._progress(self._view, rows, self._total)


def _engine(store: Any) -> EarmarkEngine:
    engine = store._get_provider().batch_engine
    if not isinstance(engine, EarmarkEngine):
        raise ConfigError(f"the repository's batch_engine is {type(engine).__name__}; run earmark on it to renew it")
    return engine


def _views(store: Any, engine: EarmarkEngine) -> Iterator[Any]:
    return (view for view in store.list_feature_views() if engine.takes(view))
