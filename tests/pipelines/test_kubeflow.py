from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from core.config import Config
from core.storage import open_storage
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
    assert {"source", "store", "options"} <= set(spec["root"]["inputDefinitions"]["parameters"])


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
    run_locally(shelf.source, str(tmp_path / "kubeflow"), config=config)
    assert visible(tmp_path / "kubeflow") == visible(tmp_path / "process")
    storage = open_storage(tmp_path / "kubeflow")
    assert storage.read("release.json")
    from core import lease

    assert lease.current(storage) is None


def test_the_graph_is_in_order() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert set(step.needs) <= seen, step.name
        seen.add(step.name)
