"""Columns of any name and stores in any folder: no name of a user's is taken for a pattern, for SQL or for ours."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from feast import FeatureStore, FeatureView, Field, FileSource, PushSource
from feast.data_source import PushMode
from feast.types import Int64, String

from core.features import CONTENT
from feature_repo.plugins.sources import append, resolve, work_key_column
from feature_repo.spark import parts_glob
from feature_repo.store import registry_file, registry_url, settings_text
from tests.feature_repo.plugins.test_column_types import T0, US, open_store

FOLDERS = ["[2020]", "a*b", "*", "what?", "{a,b}", "100%41", "50% [x] é #1", "'q' \"d\"", "[[]2020]", "[!a]", "$HOME"]
ROWS = pa.table({"k": ["a", "b"]})


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("form", ["relative glob", "glob", "escaped glob", "folder", "file"])
def test_folders_are_no_patterns(tmp_path: Path, name: str, form: str) -> None:
    """Beside the folder lie others that its name would match as a pattern."""
    root = tmp_path / name
    for other in ("2", "axb", "whatx", "a", "b", "[2020]"):
        decoy = tmp_path / other / "view" / "date=2026-01-01"
        decoy.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"k": ["decoy"]}), decoy / "part-0.parquet")
    part = root / "view" / "date=2026-01-01" / "part-0.parquet"
    part.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(ROWS, part)
    paths = {
        "relative glob": "view/*/part-*.parquet",
        "glob": str(root / "view" / "*" / "part-*.parquet"),
        "escaped glob": parts_glob(root, CONTENT).replace(CONTENT.folder, "view"),
        "folder": str(root / "view"),
        "file": str(part),
    }
    source = FileSource(path=paths[form], timestamp_field="at")
    assert [found.path for found in resolve(source, root).files] == [str(part)]
    added = append(source, root, ROWS)
    assert Path(added).is_relative_to(root) and len(resolve(source, root).files) == (1 if form == "file" else 2)
    assert (pq.read_table(added, partitioning=None).num_rows) == (4 if form == "file" else 2)


@pytest.mark.parametrize("name", FOLDERS)
def test_registries_in_any_folder(tmp_path: Path, name: str) -> None:
    database = tmp_path / name / "registry.db"
    assert registry_file(registry_url(database)) == database
    settings: dict[str, Any] = {"path": str(database), "number": 60, "deep": {"url": registry_url(database)}}
    assert yaml.safe_load(os.path.expandvars(settings_text(settings))) == settings


NAMES = [
    "select", "order by", 'quo"te', "back`tick", "a b", "a.b", "a", "A", "Plays", "plays", "_row", "row", "rank",
    "_rank", "code", "event", "created", "at", "time", "seen", "entities", "ranked", "rows", "found", "number", "k0",
    "f0_0", "work_key", "_earmark_path", "_earmark_number", "_earmark_time", "_earmark_rank", "created_timestamp",
    "feature_name", "value", "entity_key", "event_ts", "created_ts", "vector_value", "entity_row_unique_id",
    "__index_level_0__", "é 🎧", "%s", ":x", "{}", "--", ";", "'", "null", "None", "1", "", " ",
]  # fmt: skip


def named_store(root: Path) -> FeatureStore:
    """A view whose features have all the names, each with its own values."""
    columns = {name: [f"{n} a", f"{n} b"] for n, name in enumerate(NAMES) if name}
    columns["work_key"] = ["removed", "removed"]
    rows = pa.table({"content_id": ["a", "b"], "moment": pa.array([T0, T0], US), **columns})
    pq.write_table(rows, root / "rows.parquet")
    source = FileSource(path="rows.parquet", timestamp_field="moment")
    return open_store(root, {name: String for name in columns}, source)


def test_columns_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = named_store(tmp_path)
    own = pq.read_table(tmp_path / "rows.parquet").drop_columns(["moment"]).to_pylist()
    names = [name for name in NAMES if name]
    features = [f"view:{name}" for name in names]
    entity = pd.DataFrame({"content_id": ["b", "a"], "event_timestamp": [T0, T0]})
    found = store.get_historical_features(entity, features).to_arrow()
    assert found.drop_columns(["event_timestamp"]).to_pylist() == [own[1], own[0]]
    store.config.offline_store.memory_limit = "1B"  # the join spills, which is DuckDB's work
    monkeypatch.setattr("feature_repo.plugins.spill.connect", spill_connect)
    assert store.get_historical_features(entity, features).to_arrow().equals(found)
    store.materialize(T0 - timedelta(days=1), T0 + timedelta(days=1))
    answer = store.get_online_features(features, {"content_id": ["a", "b"]}).to_dict()
    assert [answer[name] for name in names] == [[row[name] for row in own] for name in names]


def spill_connect(memory_limit: str | None = None, temp_directory: str | None = None) -> Any:
    import duckdb

    return duckdb.connect()


def test_a_work_key_of_ones_own(tmp_path: Path) -> None:
    """A column that is called as Earmark's, declared or not, hides no row and is pushed like any other."""
    folder = tmp_path / "offline" / "view"
    folder.mkdir(parents=True)
    rows = {"content_id": ["a", "b"], "work_key": ["removed", "k"], "plays": [1, 2]}
    times = {"event_timestamp": pa.array([T0, T0], US)}
    pq.write_table(pa.table(rows | times), folder / "part-0.parquet")
    source = FileSource(name="own", path=str(folder), timestamp_field="event_timestamp")
    assert work_key_column(source, tmp_path) is None
    store = open_store(tmp_path, {"plays": Int64}, PushSource(name="pushes", batch_source=source))
    declared = FeatureView(
        name="declared",
        entities=[store.get_entity("content_id")],
        ttl=timedelta(0),
        schema=[Field(name="content_id", dtype=String), Field(name="work_key", dtype=String)],
        source=source,
    )
    store.apply(declared)
    later = T0 + timedelta(days=1)
    frame = pd.DataFrame({"content_id": ["c"], "work_key": ["removed"], "plays": [3], "event_timestamp": [later]})
    store.push("pushes", frame, to=PushMode.OFFLINE)
    store.materialize(T0 - timedelta(days=1), later)
    features = ["view:plays", "declared:work_key"]
    answer = store.get_online_features(features, {"content_id": ["a", "b", "c"]}).to_dict()
    assert answer["plays"] == [1, 2, 3] and answer["work_key"] == ["removed", "k", "removed"]
    entity = pd.DataFrame({"content_id": ["a", "c"], "event_timestamp": [later, later]})
    found = store.get_historical_features(entity, features).to_arrow()
    assert found["plays"].to_pylist() == [1, 3] and found["work_key"].to_pylist() == ["removed", "removed"]


def test_stores_of_earlier_versions_keep_their_marks(tmp_path: Path) -> None:
    """Their registries have no tag: what lies in the store around the repository is Earmark's."""
    (tmp_path / "feast").mkdir()
    path = str(tmp_path / "offline" / "content" / "*" / "part-*.parquet")
    source = FileSource(name="content_parts", path=path, timestamp_field="event_timestamp")
    assert work_key_column(source, tmp_path / "feast") is None
    (tmp_path / "release.json").write_text("{}")
    assert work_key_column(source, tmp_path / "feast") == "work_key"
    other = FileSource(name="own", path=str(tmp_path / "mine.parquet"), timestamp_field="event_timestamp")
    assert work_key_column(other, tmp_path / "feast") is None
