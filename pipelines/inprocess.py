"""The in-process runner: the graph's steps one after another in this process, parallel inside a step."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core import lease
from core.config import Config
from core.errors import CatalogError
from core.location import check_new_store
from core.storage import LocalStorage, open_storage
from feature_repo.store import check_online
from pipelines import removal
from pipelines.context import Progress, Run, local_root, no_progress, require_extras
from pipelines.graph import STEPS
from pipelines.summary import summarise


def new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


def run_catalog(
    source: str,
    store: str,
    config: Config,
    *,
    prune: bool = False,
    verify: bool = False,
    retry: bool = False,
    refit: bool = False,
    wait_s: float = 0.0,
    progress: Progress = no_progress,
    on_wait: Callable[[lease.Holder], None] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Enriches the catalogue `source` into `store`; returns the run's summary.

    Rerun the same call to resume a run that was killed. Raises `StoreBusy` where another run writes to the store and
    does not end within `wait_s` seconds, `CatalogError` and `ConfigError` before any work.
    """
    if "://" not in source:
        path = Path(source).expanduser().absolute()
        if not path.exists():
            raise CatalogError(f"the catalogue {source} does not exist")
        source = str(path)
    require_extras(config)
    storage = open_storage(store)
    check_new_store(local_root(storage))  # a place that cannot hold a store is refused before any work
    check_online(local_root(storage))
    options = {"prune": prune, "verify": verify, "retry": retry, "refit": refit}
    run = Run(storage, new_run_id(), source, config, options, progress)
    seconds: dict[str, float] = {}
    with lease.hold(storage, run.run_id, wait_s=wait_s, on_wait=on_wait):
        if isinstance(storage, LocalStorage):
            storage.sweep()
        removal.finish(run)
        run.save()
        results: dict[str, Any] = {}
        for step in STEPS:
            if on_step:
                on_step(step.title)
            started = time.perf_counter()
            if step.over:
                results[step.name] = [step.call(run, item) for item in results[step.over]]
            else:
                results[step.name] = step.call(run)
            seconds[step.name] = time.perf_counter() - started
        summary = summarise(run, seconds)
        run.write_json("summary.json", summary)
    return summary
