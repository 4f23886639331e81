"""What a step of a run works with: the store, the configuration, the models, the run's own files."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from core.config import Config, build
from core.errors import NotFound, StorageError
from core.extras import require
from core.location import store_folder
from core.names import path_name
from core.storage import Storage, open_storage, read_json
from core.tables import Tables
from core.threads import one_algebra_thread

STARTED_FORMAT = "%Y%m%dT%H%M%S%f"  # begins as the ids of runs in one process do
Progress = Callable[[str, int, int], None]  # (label, items done since the last call, items in all; 0: not known)


def no_progress(label: str, done: int, total: int) -> None:
    """The progress of a run that nobody watches."""


@dataclass
class Run:
    """One run on one store. Everything that outlives a step goes through `storage`, so that the steps of a run may be
    calls in one process or containers on a cluster."""

    storage: Storage
    run_id: str
    source: str
    config: Config
    options: dict[str, Any] = field(default_factory=dict)
    progress: Progress = no_progress

    def __post_init__(self) -> None:
        path_name(self.run_id, "the run id")

    @property
    def folder(self) -> str:
        return f"runs/{self.run_id}"

    @cached_property
    def tables(self) -> Tables:
        return Tables(self.storage)

    @cached_property
    def models(self) -> Any:
        """The embedders of the configured profile; their weights load on first use."""
        from embedders.registry import load_profile

        return load_profile(self.config.profile, device=self.config.device, options=self.config.models)

    @cached_property
    def enrichers(self) -> dict[str, Any]:
        """The enrichers by view name; their weights load on first use."""
        from enrichers.registry import load_enrichers

        return load_enrichers(device=self.config.device)

    @cached_property
    def resolver(self) -> Any:
        """Opens the catalogue's URIs as local files, under the limits."""
        from catalog.sources import Resolver

        root = Path(self.source) if "://" not in self.source else None
        if root is not None and not root.is_dir():
            root = root.parent
        return Resolver(root, allow_hosts=self.config.allow_hosts, limits=self.config.limits)

    def save(self) -> None:
        """Writes what another process needs to take part in this run."""
        started = f"{datetime.now(UTC):{STARTED_FORMAT}}"
        record = {
            "source": self.source,
            "config": self.config.to_dict(),
            "options": self.options,
            "started": started,
        }
        self.write_json("run.json", record)

    @classmethod
    def load(cls, store: str, run_id: str, progress: Progress = no_progress) -> Run:
        """The run that `save` wrote. Raises `NotFound`."""
        storage = open_storage(store)
        path_name(run_id, "the run id")
        try:
            record = read_json(storage, f"runs/{run_id}/run.json")
        except FileNotFoundError as error:
            raise NotFound(f"run {run_id} is not in the store {storage.uri}") from error
        return cls(storage, run_id, record["source"], build(Config, record["config"]), record["options"], progress)

    def write_json(self, name: str, value: Any) -> None:
        self.storage.write(f"{self.folder}/{name}", json.dumps(value, indent=1, default=str).encode())

    def read_json(self, name: str) -> Any:
        return read_json(self.storage, f"{self.folder}/{name}")


def require_extras(config: Config) -> None:
    """Raises `MissingExtra` where a run with this configuration needs an extra that is not installed."""
    from feature_repo.store import REDIS_VARIABLE, profile_name, require_parts

    models = ["bundled", "hub"] if config.profile == "hub" else ["bundled"]  # segments and transcripts are bundled's
    require([*models, *(["voices"] if config.voices else [])], "enriching a catalogue")
    require_parts(profile_name(), REDIS_VARIABLE in os.environ)


def newest_catalog(storage: Storage) -> str | None:
    """The folder of the newest run that still has its catalogue (`catalog.parquet`); runs keep only the newest."""
    found = {e.path.split("/")[1] for e in storage.entries("runs") if e.path.endswith("/catalog.parquet")}
    newest = by_start(storage, found)[-1:]
    return f"runs/{newest[0]}" if newest else None


def run_ids(storage: Storage) -> list[str]:
    """The runs that the store has files of, oldest first."""
    return by_start(storage, {entry.path.split("/")[1] for entry in storage.entries("runs")})


def by_start(storage: Storage, runs: Iterable[str]) -> list[str]:
    """Ids of runs, oldest first. The start of a cluster's run is read from its record, because its id does not give it;
    the ids of other runs begin with their start."""

    def started(run_id: str) -> tuple[str, str]:
        with contextlib.suppress(FileNotFoundError, StorageError):
            return str(read_json(storage, f"runs/{run_id}/run.json").get("started", run_id)), run_id
        return run_id, run_id

    return sorted(runs, key=started)


def local_root(storage: Storage) -> Path:
    """The store's folder, for Feast's embedded profile and FAISS, which work on files of a disk. Raises
    `ConfigError` for a store on S3."""
    root = getattr(storage, "root", None)
    return Path(root) if root is not None else store_folder(storage.uri)


_torch_lock = threading.Lock()


def one_thread_per_model() -> None:
    """Items run side by side, so a model that also spread over the cores would fight the others for them."""
    one_algebra_thread()
    with _torch_lock:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        import torch

        torch.set_num_threads(1)
