"""A run that was interrupted: which one, how far it came, and the command that resumes it."""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import asdict, dataclass
from typing import Any

from core import lease
from core.config import Config
from core.location import RUNS
from core.release import read_release
from core.storage import Storage
from pipelines.context import by_start

# A file that a step leaves in the run's folder → what has then been done, in the order of the graph.
DONE = (
    ("read.json", "the catalogue was read"),
    ("audio.json", "audio and pictures were enriched"),
    ("shows.json", "the shows were profiled"),
    ("skips.json", "skip markers were made"),
    ("moderation.json", "moderation was decided"),
    ("store.json", "Feast's stores were written"),
    ("index.json", "the indexes were built"),
)


@dataclass(frozen=True)
class Unfinished:
    """The newest run of a store, if it did not end. `running`: a live process is working on it."""

    run_id: str
    source: str
    running: bool
    contents: int | None
    shards: int
    shards_done: int
    last_done: str
    resume: str

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        contents = "" if self.contents is None else f" of {self.contents} contents"
        shards = f"; {self.shards_done} of {self.shards} shards are committed" if self.shards else ""
        return f"run {self.run_id}{contents} from {self.source}: {self.last_done}{shards}"


def unfinished(storage: Storage) -> Unfinished | None:
    """The newest run of the store where it began and did not end, else None. Runs that other commands make (a scan, a
    removal) leave no such record."""
    paths = [entry.path for entry in storage.entries(RUNS)]
    runs = by_start(storage, (path.split("/")[1] for path in paths if path.endswith("/run.json")))
    if not runs:
        return None
    folder = f"{RUNS}/{runs[-1]}"
    # On a cluster no step writes the summary: there the release names the run.
    if f"{folder}/summary.json" in paths or (read_release(storage) or {}).get("run_id") == runs[-1]:
        return None
    record = _json(storage, f"{folder}/run.json")
    own = {path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")}
    done = [text for name, text in DONE if name in own]
    holder = lease.current(storage)
    finished_shards = sum(name.startswith("metrics/") for name in own)
    return Unfinished(
        run_id=runs[-1],
        source=str(record.get("source", "")),
        running=holder is not None and holder.run_id == runs[-1],
        contents=_json(storage, f"{folder}/read.json").get("contents"),
        shards=sum(name.startswith("shards/") for name in own) + finished_shards,
        shards_done=finished_shards,
        last_done=done[-1] if done else "nothing was done yet",
        resume=_resume(storage, record),
    )


def _resume(storage: Storage, record: dict[str, Any]) -> str:
    """The command that goes on with the run that `record` describes, with the options that it was given."""
    words = ["earmark", "run", shlex.quote(str(record.get("source", ""))), "--store", shlex.quote(storage.uri)]
    usual = Config().to_dict()
    changed = {name: value for name, value in (record.get("config") or {}).items() if value != usual.get(name)}
    for name in ("profile", "device", "workers", "timezone"):
        if changed.pop(name, None) is not None:
            words += [f"--{name}", shlex.quote(str(record["config"][name]))]
    if any(json.loads(json.dumps(usual.get(name))) != value for name, value in changed.items()):
        words += ["--config", "FILE"]  # its settings are known, its name is not
    return " ".join([*words, *(f"--{name}" for name, value in (record.get("options") or {}).items() if value is True)])


def _json(storage: Storage, path: str) -> dict[str, Any]:
    """The object at `path`, empty where there is none or a killed writer left none that can be read."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = json.loads(storage.read(path))
        if isinstance(found, dict):
            return found
    return {}
