from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from core.config import Config
from core.errors import ConfigError
from core.storage import open_storage
from pipelines.context import newest_catalog, run_ids
from pipelines.graph import STEPS
from pipelines.kubeflow import compile_pipeline, run_locally
from tests.pipelines.conftest import make_shelf, visible


@pytest.mark.slow
def test_the_yaml_is_strict_and_stable(tmp_path: Path) -> None:
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    for name in ("one.yaml", "two.yaml"):
        compile_pipeline(tmp_path / name, image="registry.example/earmark:1")
    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()
    spec = next(iter(yaml.safe_load_all((tmp_path / "one.yaml").read_text())))
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    images = {e.container.image for e in _executors(parsed.deployment_spec)}
    assert images == {"registry.example/earmark:1"}
    assert {"source", "store", "options"} == set(spec["root"]["inputDefinitions"]["parameters"])
    # The backend fills in the run's id where it is the argument of a task: every task has it, and no parameter does.
    components = [spec["root"], *spec["components"].values()]
    tasks = [task for one in components for task in one.get("dag", {}).get("tasks", {}).values()]
    containers = [task for task in tasks if "executorLabel" in spec["components"][task["componentRef"]["name"]]]
    given = [task["inputs"]["parameters"]["run_id"] for task in containers]
    assert len(given) == len(STEPS) + 2
    assert all(one == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}} for one in given)


def _executors(deployment: object) -> list[object]:
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    config = pipeline_spec_pb2.PipelineDeploymentConfig()
    json_format.ParseDict(json_format.MessageToDict(deployment), config)  # type: ignore[arg-type]
    return list(config.executors.values())


@pytest.mark.slow
def test_the_local_kubeflow_run_equals_the_in_process_run(tmp_path: Path) -> None:
    from pipelines.inprocess import run_catalog

    shelf = make_shelf(tmp_path / "catalog", sounds=3, texts=2)
    config = Config(device="cpu", shard_items=2, text_shard_items=3)
    run_catalog(shelf.source, str(tmp_path / "process"), config)
    run_id = run_locally(shelf.source, str(tmp_path / "kubeflow"), config=config)
    assert visible(tmp_path / "kubeflow") == visible(tmp_path / "process")
    storage = open_storage(tmp_path / "kubeflow")
    assert json.loads(storage.read("release.json"))["run_id"] == run_id
    assert run_ids(storage) == [run_id] and "{{" not in run_id
    from core import lease

    assert lease.current(storage) is None


def test_a_run_whose_id_was_not_filled_in_is_not_opened(tmp_path: Path) -> None:
    from pipelines.tasks import begin

    with pytest.raises(ConfigError, match="did not fill in the run's id"):
        begin("{{$.pipeline_job_uuid}}", "c.csv", str(tmp_path / "store"), "{}", "{}")
    assert not (tmp_path / "store").exists()


def test_runs_of_a_cluster_are_in_the_order_of_time(tmp_path: Path) -> None:
    """Their ids are not; a run of one process, from before its start was recorded, has the time in its id."""
    storage = open_storage(tmp_path)
    for run_id, started in (("ffff", "20260601T120000000000"), ("0000", "20260603T120000000000"), ("8888", None)):
        storage.write(f"runs/{run_id}/run.json", json.dumps({"started": started} if started else {}).encode())
        storage.write(f"runs/{run_id}/catalog.parquet", b"")
    storage.write("runs/20260602T120000-abcdef/run.json", b"{}")
    assert run_ids(storage) == ["ffff", "20260602T120000-abcdef", "0000", "8888"]
    storage.delete("runs/8888/catalog.parquet")
    assert newest_catalog(storage) == "runs/0000"


def test_the_graph_is_in_order() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert set(step.needs) <= seen, step.name
        seen.add(step.name)
