"""The graph of steps, declared once for every runner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core import lease
from core.errors import ConfigError
from core.location import check_new_store
from core.storage import open_storage
from pipelines import compaction, enrich, moderate, publish, skips, steps
from pipelines.context import Progress, Run, local_root, no_progress, require_extras


@dataclass(frozen=True)
class Step:
    """A node of the graph. With `over`, it runs once for each item of the list that that step returned, side by side
    where the runner can; otherwise once. It starts when the steps in `after` (and `over`) have ended."""

    name: str
    call: Callable[..., Any]
    after: tuple[str, ...] = ()
    over: str | None = None
    gpu: bool = False  # runs models: give it an accelerator where there is one
    title: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.after, *((self.over,) if self.over else ()))


STEPS = (
    Step("read", steps.read, title="read the catalogue and plan"),
    Step("media", enrich.run_shard, over="read", gpu=True, title="decode and enrich audio and pictures"),
    Step("audio", steps.audio, after=("media",), title="standardise audio embeddings"),
    Step("plan_text", steps.plan_text, after=("media",), title="plan the text"),
    Step("text", enrich.run_shard, over="plan_text", gpu=True, title="enrich text and transcripts"),
    Step("shows", steps.shows, after=("media",), title="profile the shows"),
    Step("skips", skips.step, after=("media",), title="find what repeats, mark what can be skipped"),
    Step("moderate", moderate.step, after=("text",), title="match with the banks, decide under the policies"),
    Step(
        "store",
        publish.store,
        after=("audio", "text", "shows", "skips", "moderate"),
        title="apply to Feast and materialise",
    ),
    Step("index", publish.index, after=("audio", "text"), title="build the indexes"),
    Step("release", publish.release, after=("store", "index"), title="switch the release"),
    Step("compact", compaction.stage, after=("release",), title="compact small parts"),
)
BY_NAME = {step.name: step for step in STEPS}

CLUSTER_LEASE_S = 3600.0  # outlasts the start of a container; every step renews it while it works


def run_step(store: str, run_id: str, name: str, item: str | None = None, progress: Progress = no_progress) -> Any:
    """Runs one step of a run that `begin` opened: what a container on a cluster does."""
    if name not in BY_NAME:
        raise ConfigError(f"step {name!r} is not known; the steps are {', '.join(BY_NAME)}")
    run = Run.load(store, run_id, progress)
    step = BY_NAME[name]
    with lease.hold_for_step(run.storage, run_id, ttl_s=CLUSTER_LEASE_S):
        return step.call(run, item) if step.over else step.call(run)


def begin(run: Run) -> None:
    """Opens a run whose steps are separate processes: takes the lease for it and writes its configuration."""
    require_extras(run.config)
    check_new_store(local_root(run.storage))
    lease.acquire(run.storage, run.run_id, ttl_s=CLUSTER_LEASE_S, bound_to_process=False)
    run.save()


def end(store: str, run_id: str) -> None:
    """Closes a run, even one that could not be opened, and releases its lease."""
    lease.release(open_storage(store), run_id)
