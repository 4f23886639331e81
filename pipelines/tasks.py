"""What the containers of the Kubeflow pipeline call: one line each in a component, the work here."""

from __future__ import annotations

import json
import sys
from typing import Any

from core.config import Config, build
from core.errors import ConfigError
from core.storage import open_storage
from pipelines import graph
from pipelines.context import Run, run_ids


def begin(run_id: str, source: str, store: str, config: str, options: str) -> str:
    """Opens the run under its id. Raises `ConfigError` if the backend did not replace the placeholder of the id."""
    if "{{" in run_id:
        raise ConfigError(f"the pipeline's backend did not fill in the run's id: it is still {run_id}")
    run = Run(open_storage(store), run_id, source, build(Config, json.loads(config)), json.loads(options))
    graph.begin(run)
    return run_id


def plan(store: str, run_id: str, step: str) -> list[str]:
    """Runs a planning step; returns the shards to fan out over."""
    shards: list[str] = graph.run_step(store, run_id, step)
    return shards


def work(store: str, run_id: str, step: str, item: str) -> str:
    """Runs a step, on one shard where `item` names one; returns its summary as JSON."""
    return json.dumps(graph.run_step(store, run_id, step, item or None), default=str)


def finish(store: str, run_id: str) -> str:
    """Closes the run, whether it ended well or not."""
    graph.end(store, run_id)
    return run_id


def main(request: dict[str, Any]) -> None:
    """Runs the pipeline in this process's kfp.local; prints the run's id last."""
    from kfp import local

    from pipelines.kubeflow import build_pipeline

    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root="kfp", raise_on_error=True)
    pipeline = build_pipeline(config=build(Config, request["config"]))
    storage = open_storage(request["store"])
    before = set(run_ids(storage))
    pipeline(source=request["source"], store=request["store"], options=request["options"])
    run_id = next(one for one in reversed(run_ids(storage)) if one not in before)
    sys.stdout.write(f"\n{run_id}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
