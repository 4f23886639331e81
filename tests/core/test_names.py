"""Names that become paths, and paths below a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError, EarmarkError, WrongType
from core.features import embedding_view
from core.names import path_name, relative_path
from core.storage import LocalStorage
from pipelines.context import Run

OUTSIDE = [
    "",
    ".",
    "..",
    "../evil",
    "a/../../evil",
    "a/b",
    "/etc",
    "a\\b",
    "a\0",
    "a\nb",
    ".hidden",
    "x" * 201,
    "\udcff",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="the index name"):
        path_name(name, "the index name")


@pytest.mark.parametrize("name", ["audio__clap", "20260601T120000-a1b2c3", "Épisodes d'été", "a..b", "x" * 200])
def test_a_plain_name_passes(name: str) -> None:
    assert path_name(name, "the index name") == name


@pytest.mark.parametrize("name", [None, b"a", 3, Path("a")])
def test_a_name_is_text(name: object) -> None:
    with pytest.raises(WrongType):
        path_name(name, "the index name")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../evil", "a/../../evil", "a//b", "a/./b", "a\0"])
def test_no_method_of_a_storage_leaves_its_folder(tmp_path: Path, path: str) -> None:
    storage = LocalStorage(tmp_path / "store")
    (tmp_path / "evil").write_bytes(b"untouched")
    with pytest.raises(ConfigError):
        relative_path(path)
    for call in (
        lambda: storage.write(path, b"x"),
        lambda: storage.replace_if(path, b"x", None),
        lambda: storage.read(path),
        lambda: storage.read_tagged(path),
        lambda: storage.delete(path),
        lambda: storage.local_path(path),
    ):
        with pytest.raises(ConfigError):
            call()
    if path:  # the empty prefix lists the whole store
        with pytest.raises(ConfigError):
            storage.entries(f"../{path}")
    assert (tmp_path / "evil").read_bytes() == b"untouched"
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "evil"]


def test_a_run_id_and_a_shard_stay_in_the_store(tmp_path: Path) -> None:
    from core.config import Config
    from pipelines.plan import read_shard

    storage = LocalStorage(tmp_path)
    with pytest.raises(ConfigError, match="the run id"):
        Run(storage, "../../evil", "", Config())
    with pytest.raises(ConfigError, match="the run id"):
        Run.load(str(tmp_path), "../../evil")
    with pytest.raises(ConfigError, match="the shard"):
        read_shard(Run(storage, "r", "", Config()), "../../evil")


def test_a_part_and_a_view_stay_in_the_store(tmp_path: Path) -> None:
    from core.features import CONTENT, View
    from core.tables import Tables, now_us

    with pytest.raises(ConfigError, match="the part"):
        Tables(LocalStorage(tmp_path)).commit(CONTENT, CONTENT.schema.empty_table(), now_us(), "../../evil")
    with pytest.raises(ConfigError, match="the view"):
        View("../evil", "content_id", (), "")
    assert embedding_view("text", "../../evil", 3).name == "text__evil"


def test_an_index_stays_in_its_folder(tmp_path: Path) -> None:
    import numpy as np
    import pyarrow as pa

    from index import LiveIndex, Server, open_index, publish_vectors, remove

    rows = pa.table({"content_id": ["a"], "embedding": [np.ones(1, np.float32)]})
    home = tmp_path / "indexes"
    for call in (
        lambda name: publish_vectors(home, name, rows, model_id="m", dim=1, source="s"),
        lambda name: remove(home, name, ["a"]),
        lambda name: open_index(home, name),
        lambda name: open_index(home, "a", version=name),
        lambda name: LiveIndex(home, name, write=True),
        lambda name: Server(home, name),
    ):
        for name in ("a/../../evil", "..", "/tmp/evil", ".staging-x"):
            with pytest.raises(EarmarkError, match="cannot be part of a path"):
                call(name)
    assert list(tmp_path.iterdir()) == []
