"""Feast's servers over a store: its user interface, and the registry over gRPC."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from feast import FeatureStore
from feast.types import Int64, String

from tests.feature_repo.plugins.test_column_types import open_store, write

FEAST = [str(Path(sys.executable).with_name("feast"))]
START_LIMIT_S = 120.0  # of a process on a busy machine


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root = tmp_path_factory.mktemp("served")
    write(root / "view", [{"plays": [1, 2], "title": ["one", "two"]}])
    return open_store(root, {"plays": Int64, "title": String})


@pytest.fixture(scope="module")
def servers(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Ports of `feast ui` and `feast serve_registry`, which start side by side."""
    logs = tmp_path_factory.mktemp("logs")
    ports = free_port(), free_port()
    with (
        serving(store, ["ui", "--host", "127.0.0.1", "--port", str(ports[0])], logs / "ui"),
        serving(store, ["serve_registry", "--port", str(ports[1])], logs / "registry"),
    ):
        yield ports


@contextlib.contextmanager
def serving(store: FeatureStore, command: list[str], log: Path) -> Iterator[None]:
    environment = os.environ | {"FEAST_USAGE": "False"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*FEAST, *command], cwd=str(store.repo_path), stdout=output, stderr=output, env=environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield
    except Exception as error:
        raise AssertionError(f"feast {command[0]} (status {process.poll()}):\n{log.read_text()[-3000:]}") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def until(answers: Callable[[], Any], *expected: type[Exception]) -> Any:
    """The first answer that is no error. Raises the last error after `START_LIMIT_S`."""
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            return answers()
        except expected:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_the_user_interface(servers: tuple[int, int]) -> None:
    base = f"http://127.0.0.1:{servers[0]}"
    page = until(lambda: httpx.get(base, follow_redirects=True).raise_for_status(), httpx.HTTPError)
    assert "<html" in page.text and "Feast" in page.text
    views = httpx.get(f"{base}/api/v1/feature_views", params={"project": "types"}).raise_for_status().json()
    assert [view["spec"]["name"] for view in views["featureViews"]] == ["view"]


def test_the_registry(servers: tuple[int, int], store: FeatureStore, tmp_path: Path) -> None:
    """A store whose registry is the server reads the definitions that were applied."""
    import grpc

    settings = yaml.safe_load((Path(str(store.repo_path)) / "feature_store.yaml").read_text())
    settings["registry"] = {"registry_type": "remote", "path": f"localhost:{servers[1]}"}
    (tmp_path / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    remote = FeatureStore(repo_path=str(tmp_path))
    view = until(lambda: remote.get_feature_view("view"), grpc.RpcError, ConnectionError, OSError)
    assert sorted(field.name for field in view.features) == ["plays", "title"]
    assert [entity.name for entity in remote.list_entities()] == ["content_id"]
