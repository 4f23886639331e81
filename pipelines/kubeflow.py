"""The Kubeflow runner: the same graph as a KFP pipeline of a few large steps."""

# kfp reads the annotations of component functions as types, so they must not be postponed to strings here.
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import ConfigError
from core.extras import require
from pipelines.context import require_extras
from pipelines.graph import STEPS

IMAGE = "earmark:latest"
PIPELINE_NAME = "earmark"
SHARD_RETRIES = 2
PARALLEL_SHARDS = 8


def build_pipeline(
    image: str = IMAGE, *, config: Config | None = None, volume: str | None = None, gpus: int = 0
) -> Any:
    """The KFP pipeline function of the graph.

    Its parameters are `source` (the catalogue), `store` and `options` (JSON of prune, verify, retry, refit); the id of
    the run is the backend's. `volume`
    names a PersistentVolumeClaim mounted at /data in every step; `gpus` are asked for by the steps that run models.
    """
    require(["kubeflow"], "a Kubeflow pipeline")
    from kfp import dsl

    component = dsl.component(base_image=image, install_kfp_package=False)

    @component
    def begin(run_id: str, source: str, store: str, config: str, options: str) -> str:
        from pipelines.tasks import begin

        return begin(run_id, source, store, config, options)

    @component
    def plan(store: str, run_id: str, step: str, after: list) -> list:  # type: ignore[type-arg]
        from pipelines.tasks import plan

        return plan(store, run_id, step)

    @component
    def work(store: str, run_id: str, step: str, item: str, after: list) -> str:  # type: ignore[type-arg]
        from pipelines.tasks import work

        return work(store, run_id, step, item)

    @component
    def finish(store: str, run_id: str) -> str:
        from pipelines.tasks import finish

        return finish(store, run_id)

    settings = json.dumps((config or Config()).to_dict())

    def dress(task: Any, gpu: bool = False) -> Any:
        task.set_caching_options(False)  # what is done stands in the store's ledger, not in a cache
        if volume:
            from kfp import kubernetes

            kubernetes.mount_pvc(task, pvc_name=volume, mount_path="/data")
        if gpu and gpus:
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
        return task

    @dsl.pipeline(name=PIPELINE_NAME, description="Enrich a catalogue into Feast and FAISS")
    def earmark(source: str, store: str, options: str = "{}") -> None:
        # The backend fills this in where it is the argument of a task, and not where it is a parameter's default.
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        last = dress(finish(store=store, run_id=run_id))
        with dsl.ExitHandler(last):
            first = dress(begin(run_id=run_id, source=source, store=store, config=settings, options=options))
            done: dict[str, Any] = {}
            outputs: dict[str, Any] = {}
            planners = {step.over for step in STEPS if step.over}
            for step in STEPS:
                # The compiler writes into a Collected, so each consumer has its own. A fan-out can be waited for only
                # through what it collected; one is enough for each step here.
                waits = [dsl.Collected(outputs[name]) for name in step.after if name in outputs]
                if step.over:
                    with dsl.ParallelFor(done[step.over].output, parallelism=PARALLEL_SHARDS) as item:
                        task = dress(work(store=store, run_id=run_id, step=step.name, item=item, after=[]), step.gpu)
                        task.set_retry(SHARD_RETRIES)
                    outputs[step.name] = task.output
                    continue
                make = plan if step.name in planners else work
                extra = {} if make is plan else {"item": ""}
                task = dress(make(store=store, run_id=run_id, step=step.name, after=waits[0] if waits else [], **extra))
                task.set_retry(SHARD_RETRIES)
                task.after(first, *(done[name] for name in step.after if name in done))
                done[step.name] = task

    return earmark


def compile_pipeline(path: Path, **choices: Any) -> None:
    """Writes the pipeline's YAML. Raises `ConfigError` where kfp is missing."""
    pipeline = build_pipeline(**choices)
    from kfp import compiler

    compiler.Compiler().compile(pipeline, str(path))


def run_locally(source: str, store: str, *, config: Config | None = None, options: dict[str, Any] | None = None) -> str:
    """Runs the pipeline with kfp's local subprocess runner, in a child process (kfp wraps `print` and log handlers);
    returns the run's id. For trying the graph, and for tests."""
    require(["kubeflow"], "a Kubeflow pipeline")
    require_extras(config or Config())
    request = {
        "source": source,
        "store": store,
        "config": (config or Config()).to_dict(),
        "options": json.dumps(options or {}),
    }
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.tasks", json.dumps(request)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise ConfigError(f"the local Kubeflow run failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout.strip().splitlines()[-1]
