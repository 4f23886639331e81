"""The offline store through Feast's own door."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    OnDemandFeatureView,
    PushSource,
    RequestSource,
    ValueType,
)
from feast.data_source import PushMode
from feast.errors import (
    EntityTimestampInferenceException,
    RequestDataNotFoundInEntityDfException,
    SavedDatasetLocationAlreadyExists,
)
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.transformation.pandas_transformation import PandasTransformation
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

from core.contracts import WORK_KEY_TAG
from core.errors import ConfigError, StorageError
from feature_repo.plugins.offline import EarmarkOfflineStore, EarmarkOfflineStoreConfig, size_bytes

TYPE = "feature_repo.plugins.offline.EarmarkOfflineStore"
T0 = datetime(2026, 1, 1, tzinfo=UTC)
US = pa.timestamp("us", "UTC")
EPOCH_DAY = timedelta(days=1)


def day(number: float) -> datetime:
    return T0 + timedelta(days=number)


TRACK_SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        ("plays", pa.int64()),
        ("liked", pa.bool_()),
        ("score", pa.float32()),
        ("title", pa.string()),
        ("vector", pa.list_(pa.float32())),
        ("tags", pa.list_(pa.string())),
        ("seen_at", US),
        pa.field("event_timestamp", US, nullable=False),
        pa.field("created_timestamp", US, nullable=False),
        pa.field("work_key", pa.string(), nullable=False),
    ]
)


def track(name: str, event: float, created: float | None = None, **features: Any) -> dict[str, Any]:
    blank = dict.fromkeys(TRACK_SCHEMA.names)
    times = {"event_timestamp": day(event), "created_timestamp": day(event if created is None else created)}
    return blank | {"track_id": name, "work_key": "k"} | times | features


BIG = 2**53 + 1  # no float64 holds it
TRACKS = [
    track("a", 1, plays=BIG, liked=True, score=0.5, title="one", vector=[1.0, 2.0], tags=["x", None], seen_at=day(9)),
    track("a", 3, plays=None, liked=None, score=None, title="nul\0 🎧", vector=None, tags=[], seen_at=None),
    track("b", 2, created=5, plays=1, title="late", vector=[3.0, 4.0]),
    track("b", 2, created=4, plays=2, title="early"),
    track("c", -700, plays=7, title="two years ago", tags=None),
    track("gone", 1, plays=3),
    {**track("gone", 2), "work_key": "removed"},
]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with views over part files, applied once."""
    root = tmp_path_factory.mktemp("repo")
    write_parts(root)
    configure(root)
    FeatureStore(repo_path=str(root)).apply(definitions(root))
    return root


def write_parts(root: Path) -> None:
    folder = root / "offline" / "tracks"
    for number, rows in enumerate((TRACKS[:3], TRACKS[3:])):
        path = folder / f"date=2026-01-0{number + 1}" / f"part-{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, TRACK_SCHEMA), path)
    (folder / "date=1970-01-01").mkdir()
    pq.write_table(TRACK_SCHEMA.empty_table(), folder / "date=1970-01-01" / "part-empty.parquet")
    plays = pa.table(
        {
            "track": ["a", "a", "b"],
            "market": pa.array([1, 2, 1], pa.int32()),
            "ts": pa.array([day(1), day(1), day(1)], US),
            "n": pa.array([10, 20, 30]),
        }
    )
    pq.write_table(plays, root / "plays.parquet")
    world = pa.table({"event_timestamp": pa.array([day(0), day(2)], US), "temperature": [1.5, 2.5]})
    pq.write_table(world, root / "world.parquet")
    pq.write_table(TRACK_SCHEMA.empty_table(), root / "nothing.parquet")


def configure(root: Path, **options: Any) -> None:
    text = {
        "project": "test",
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{root / 'registry.db'}"},
        "offline_store": {"type": TYPE, **options},
        "online_store": {"type": "sqlite", "path": str(root / "online.db")},
        "entity_key_serialization_version": 3,
    }
    (root / "feature_store.yaml").write_text(yaml.safe_dump(text))


TRACK_FIELDS = [
    Field(name="plays", dtype=Int64),
    Field(name="liked", dtype=Bool),
    Field(name="score", dtype=Float32),
    Field(name="title", dtype=String),
    Field(name="vector", dtype=Array(Float32)),
    Field(name="tags", dtype=Array(String)),
    Field(name="seen_at", dtype=UnixTimestamp),
]
SUM = """\
def total(inputs):
    import pandas
    return pandas.DataFrame({"boosted": inputs["plays"].astype("float64") + inputs["boost"]})
"""


def definitions(root: Path) -> list[Any]:
    track_entity = Entity(name="track_id", join_keys=["track_id"], value_type=ValueType.STRING)
    market = Entity(name="market", join_keys=["market"], value_type=ValueType.INT32)
    parts = FileSource(
        name="tracks_parts",
        path="offline/tracks/*/part-*.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        tags={WORK_KEY_TAG: "work_key"},
    )
    tracks = FeatureView(
        name="tracks",
        entities=[track_entity],
        ttl=timedelta(0),
        schema=[Field(name="track_id", dtype=String), *TRACK_FIELDS],
        source=PushSource(name="track_push", batch_source=parts),
    )
    mapped = FileSource(
        name="plays",
        path=str(root / "plays.parquet"),
        timestamp_field="event_timestamp",
        field_mapping={"ts": "event_timestamp", "track": "track_id", "n": "count"},
    )
    plays = FeatureView(
        name="plays",
        entities=[track_entity, market],
        ttl=timedelta(days=1),
        schema=[
            Field(name="track_id", dtype=String),
            Field(name="market", dtype=Int32),
            Field(name="count", dtype=Int64),
        ],
        source=mapped,
    )
    world = FeatureView(
        name="world",
        entities=[],
        schema=[Field(name="temperature", dtype=Float64)],
        source=FileSource(name="world", path="world.parquet", timestamp_field="event_timestamp"),
    )
    empty = FeatureView(
        name="empty",
        entities=[track_entity],
        schema=[Field(name="track_id", dtype=String), *TRACK_FIELDS],
        source=FileSource(name="nothing", path="nothing.parquet", timestamp_field="event_timestamp"),
    )
    inferred = FeatureView(
        name="inferred",
        entities=[track_entity],
        source=FileSource(
            name="inferred_parts",
            path="offline/tracks",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
            tags={WORK_KEY_TAG: "work_key"},
        ),
    )
    names: dict[str, Any] = {}
    exec(SUM, names)
    boosted = OnDemandFeatureView(
        name="boosted",
        sources=[tracks[["plays"]], RequestSource(name="asked", schema=[Field(name="boost", dtype=Float64)])],
        schema=[Field(name="boosted", dtype=Float64)],
        feature_transformation=PandasTransformation(udf=names["total"], udf_string=SUM),
        mode="pandas",
    )
    aliased = FeatureService(name="aliased", features=[tracks[["title"]].with_name("now")])
    return [track_entity, market, tracks, plays, world, empty, inferred, boosted, aliased]


@pytest.fixture(scope="module")
def store(repo: Path) -> FeatureStore:
    return FeatureStore(repo_path=str(repo))


@pytest.fixture
def own(tmp_path: Path) -> FeatureStore:
    """A repository to change."""
    write_parts(tmp_path)
    configure(tmp_path)
    made = FeatureStore(repo_path=str(tmp_path))
    made.apply(definitions(tmp_path))
    return made


def entities(*rows: tuple[Any, ...], names: tuple[str, ...] = ("track_id", "event_timestamp")) -> pd.DataFrame:
    return pd.DataFrame([dict(zip(names, row, strict=True)) for row in rows], columns=list(names))


def ask(store: FeatureStore, rows: Any, *features: str, **options: Any) -> pa.Table:
    return store.get_historical_features(entity_df=rows, features=list(features), **options).to_arrow()


ROWS = [("b", day(9)), ("a", day(2)), ("nobody", day(9)), ("a", day(9)), ("a", day(2)), ("a", day(0)), ("c", day(9))]


def test_order_duplicates_nulls_and_types(store: FeatureStore) -> None:
    features = [f"tracks:{field.name}" for field in TRACK_FIELDS]
    found = ask(store, entities(*ROWS), *features)
    assert found["track_id"].to_pylist() == [row[0] for row in ROWS]
    assert found["event_timestamp"].to_pylist() == [row[1] for row in ROWS]
    assert found["plays"].to_pylist() == [1, BIG, None, None, BIG, None, 7]
    assert found["liked"].to_pylist() == [None, True, None, None, True, None, None]
    assert found["title"].to_pylist() == ["late", "one", None, "nul\0 🎧", "one", None, "two years ago"]
    assert found["vector"].to_pylist() == [[3.0, 4.0], [1.0, 2.0], None, None, [1.0, 2.0], None, None]
    assert found["tags"].to_pylist() == [None, ["x", None], None, [], ["x", None], None, None]
    assert found["seen_at"].to_pylist() == [None, day(9), None, None, day(9), None, None]
    kinds = {field.name: field.type for field in found.schema}
    assert kinds["plays"] == pa.int64() and kinds["liked"] == pa.bool_() and kinds["score"] == pa.float32()
    assert kinds["seen_at"] == US and kinds["vector"] == pa.list_(pa.float32())
    found.validate(full=True)


def test_full_names_and_aliases(store: FeatureStore) -> None:
    rows = entities(*ROWS[:2])
    assert ask(store, rows, "tracks:title", full_feature_names=True).column_names[-1] == "tracks__title"
    job = store.get_historical_features(rows, store.get_feature_service("aliased"), full_feature_names=True)
    assert job.to_arrow()["now__title"].to_pylist() == ["late", "one"]
    assert job.full_feature_names


def test_created_and_event_time(store: FeatureStore) -> None:
    """b's two rows are of one event; the later created wins, unless it was not there yet."""
    rows = entities(("b", day(3)), ("b", day(4)), ("b", day(5)))
    assert ask(store, rows, "tracks:plays")["plays"].to_pylist() == [1, 1, 1]
    found = ask(store, rows, "tracks:plays", filter_by_created_timestamp=True)
    assert found["plays"].to_pylist() == [None, 2, 1]


def test_tombstones_hide_what_was(store: FeatureStore) -> None:
    rows = entities(("gone", day(1.5)), ("gone", day(2)))
    assert ask(store, rows, "tracks:plays")["plays"].to_pylist() == [3, None]


def test_several_keys_field_mapping_ttl_and_views(store: FeatureStore) -> None:
    names = ("event_timestamp", "market", "track_id", "label")
    rows = entities(
        (day(1.5), 2, "a", "p"), (day(2), 1, "a", "q"), (day(2.1), 1, "a", "r"), (day(1.5), 3, "a", "s"), names=names
    )
    found = ask(store, rows, "plays:count", "tracks:title", "world:temperature")
    assert found["count"].to_pylist() == [20, 10, None, None], "the TTL of a day is inclusive"
    assert found["title"].to_pylist() == ["one"] * 4
    assert found["temperature"].to_pylist() == [1.5, 2.5, 2.5, 1.5], "a view without entities has one history"
    assert found.column_names == [*names, "count", "title", "temperature"]


def test_join_key_map(own: FeatureStore) -> None:
    tracks = own.get_feature_view("tracks")
    view = tracks[["title"]].with_name("first").with_join_key_map({"track_id": "one"})
    other = tracks[["title"]].with_name("second").with_join_key_map({"track_id": "two"})
    own.apply(FeatureService(name="pair", features=[view, other]))
    rows = entities(("a", "b", day(2)), ("c", "a", day(2)), names=("one", "two", "event_timestamp"))
    found = own.get_historical_features(rows, own.get_feature_service("pair"), full_feature_names=True).to_arrow()
    assert found["first__title"].to_pylist() == ["one", "two years ago"]
    assert found["second__title"].to_pylist() == ["late", "one"]


@pytest.mark.parametrize("shift", [None, "UTC", "America/New_York", "Asia/Kolkata"])
def test_zones_of_entity_times(store: FeatureStore, shift: str | None) -> None:
    rows = entities(("a", day(1)), ("a", day(1) - timedelta(microseconds=1)))
    times = pd.to_datetime(rows["event_timestamp"], utc=True)
    rows["event_timestamp"] = times.dt.tz_convert(shift) if shift else times.dt.tz_localize(None)
    assert ask(store, rows, "tracks:title")["title"].to_pylist() == ["one", None]
    rows["event_timestamp"] = [str(t) for t in rows["event_timestamp"]]
    assert ask(store, rows, "tracks:title")["title"].to_pylist() == ["one", None]


def test_entity_rows_as_arrow_and_as_sql(store: FeatureStore, tmp_path: Path) -> None:
    frame = entities(*ROWS).assign(label=range(len(ROWS)))
    expected = ask(store, frame, "tracks:title", "tracks:vector")
    table = pa.Table.from_pandas(frame)
    pq.write_table(table, tmp_path / "rows.parquet")
    sql = f"SELECT * FROM '{tmp_path}/rows.parquet' ORDER BY label;"
    for rows in (table, sql):
        found = ask(store, rows, "tracks:title", "tracks:vector")
        assert found.to_pylist() == expected.to_pylist()
        job = store.get_historical_features(rows, ["tracks:title"])
        assert job.metadata is not None
        assert (job.metadata.min_event_timestamp, job.metadata.max_event_timestamp) == (day(0), day(9))
        assert sorted(job.metadata.keys) == ["label", "track_id"] and job.metadata.features == ["tracks:title"]
    with pytest.raises(ConfigError, match="query of entity rows failed"):
        ask(store, "SELECT * FROM nowhere", "tracks:title")
    with pytest.raises(EntityTimestampInferenceException):
        ask(store, "SELECT 'a' AS track_id", "tracks:title")
    with pytest.raises(ConfigError, match="not a time|is no time"):
        ask(store, "SELECT 'a' AS track_id, 'soon' AS event_timestamp", "tracks:title")
    with pytest.raises(ConfigError, match="not dict"):
        ask(store, {"track_id": ["a"]}, "tracks:title")


@pytest.mark.parametrize(
    "tail",
    [
        "",
        ";",
        " ; ",
        "-- a comment",
        " -- a; comment\n;",
        "; -- a comment",
        "/* one */",
        "\n;;\n-- more",
        ";\n/* a;\nb */ ",
    ],
)
def test_queries_may_end_in_anything(store: FeatureStore, tail: str) -> None:
    sql = f"SELECT 'a' AS track_id, 'é;--' AS x, TIMESTAMPTZ '2026-01-03 00:00Z' AS event_timestamp{tail}"
    job = store.get_historical_features(sql, ["tracks:title"])
    assert job.to_arrow()["title"].to_pylist() == ["one"]
    assert job.metadata is not None and job.metadata.min_event_timestamp == day(2)


def test_queries_of_several_statements_and_of_none(store: FeatureStore) -> None:
    made = "CREATE TEMP TABLE asked AS SELECT 'a' AS track_id, DATE '2026-01-03' AS event_timestamp; FROM asked -- all"
    assert ask(store, made, "tracks:title")["title"].to_pylist() == ["one"]
    for nothing in ("", "-- a comment alone", ";"):
        with pytest.raises(ConfigError, match="query of entity rows"):
            ask(store, nothing, "tracks:title")


def test_entity_rows_of_other_libraries(store: FeatureStore) -> None:
    """Whatever hands over its columns by Arrow's stream interface, as Polars does, or by the interchange protocol."""
    import duckdb
    import ibis

    expected = ask(store, entities(*ROWS), "tracks:title")
    table = pa.Table.from_pandas(entities(*ROWS))
    views = table.set_column(0, "track_id", table["track_id"].cast(pa.string_view()))

    class Stream:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return views.__arrow_c_stream__(requested_schema)

    class Interchange:
        def __dataframe__(self, **options: Any) -> Any:
            return table.__dataframe__(**options)

    for rows in (Stream(), Interchange(), ibis.memtable(table), duckdb.from_arrow(table)):
        found = ask(store, rows, "tracks:title")
        assert found["title"].to_pylist() == expected["title"].to_pylist()
        assert found["track_id"].to_pylist() == expected["track_id"].to_pylist()


def test_logs_of_features(own: FeatureStore) -> None:
    """The folder of the logs need not exist, and may be partitioned; a relative path starts at the repository."""
    from feast.feature_logging import LoggingConfig
    from feast.infra.offline_stores.file_source import FileLoggingDestination

    root = Path(str(own.repo_path))
    columns = {"tracks__title": ["one", "two"], "market": ["SE", "NO"]}
    rows = pa.table(columns | {"__log_timestamp": pa.array([T0, T0], US)})
    pq.write_table(rows, root / "spooled.parquet")
    for name, partition_by in (("new/logs", None), (str(root / "by [1]"), ["market"])):
        destination = FileLoggingDestination(path=name, partition_by=partition_by)
        service = FeatureService(
            name=name.rsplit("/", 1)[-1],
            features=[own.get_feature_view("tracks")[["title"]]],
            logging_config=LoggingConfig(destination=destination),
        )
        own.apply(service)
        for logs in (rows, root / "spooled.parquet"):
            own.write_logged_features(logs, own.get_feature_service(service.name))
        options = ([], ["tracks__title", "market"], "__log_timestamp")
        read = own._get_provider().offline_store.pull_all_from_table_or_query
        found = read(own.config, destination.to_data_source(), *options, start_date=day(-1), end_date=day(1)).to_arrow()
        assert sorted(found["tracks__title"].to_pylist()) == ["one", "one", "two", "two"]
        assert sorted(found["market"].to_pylist()) == ["NO", "NO", "SE", "SE"]


def test_no_entity_rows_at_all(store: FeatureStore) -> None:
    found = ask(store, entities(*ROWS).iloc[:0], "tracks:title", "tracks:vector", "tracks:plays")
    assert found.num_rows == 0 and found.column_names[-3:] == ["title", "vector", "plays"]
    job = store.get_historical_features(entities(*ROWS).iloc[:0], ["tracks:title"])
    assert [batch.num_rows for batch in job.to_arrow_batches()] in ([], [0])


def test_no_feature_rows_at_all(store: FeatureStore) -> None:
    found = ask(store, entities(*ROWS), "empty:title", "empty:vector", "empty:plays")
    assert found["title"].null_count == found["vector"].null_count == found["plays"].null_count == len(ROWS)


def test_a_span_of_time_instead_of_rows(store: FeatureStore) -> None:
    """Every key and time of the first view in the span, both ends inclusive, once."""
    found = store.get_historical_features(
        features=["tracks:title", "world:temperature"], start_date=day(1), end_date=day(2)
    ).to_arrow()
    assert found["track_id"].to_pylist() == ["a", "b", "gone", "gone"]
    assert found["title"].to_pylist() == ["one", "late", None, None]
    assert found["temperature"].to_pylist() == [1.5, 2.5, 1.5, 2.5]


def test_on_demand_views_in_one_piece_and_in_batches(store: FeatureStore) -> None:
    rows = entities(*[(*row, 0.5) for row in ROWS], names=("track_id", "event_timestamp", "boost"))
    job = store.get_historical_features(rows, ["tracks:title", "boosted:boosted"])
    expected = [1.5, BIG + 0.5, None, None, BIG + 0.5, None, 7.5]
    assert [None if v is None or np.isnan(v) else v for v in job.to_arrow()["boosted"].to_pylist()] == expected
    batched = job.to_arrow_batches(2).read_all()  # type: ignore[attr-defined]
    assert batched["boosted"].type == pa.float64()
    assert batched["title"].to_pylist() == job.to_arrow()["title"].to_pylist()
    assert batched["boosted"].to_pylist()[0] == 1.5
    with pytest.raises(RequestDataNotFoundInEntityDfException):
        ask(store, pa.Table.from_pandas(entities(*ROWS)), "boosted:boosted")


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_are_the_whole(store: FeatureStore, tmp_path: Path, size: int) -> None:
    features = ["tracks:title", "tracks:vector", "tracks:plays", "world:temperature"]
    frame = entities(*ROWS)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "rows.parquet")
    whole = ask(store, frame, *features)
    for rows in (frame, f"SELECT * FROM '{tmp_path}/rows.parquet'"):
        job: Any = store.get_historical_features(rows, features)
        batches = list(job.to_arrow_batches(size))
        assert max(batch.num_rows for batch in batches) <= size
        assert pa.Table.from_batches(batches).to_pylist() == whole.to_pylist()


@pytest.mark.parametrize("name", ["set.parquet", "set"])
def test_saved_datasets(own: FeatureStore, name: str, tmp_path: Path) -> None:
    job = own.get_historical_features(entities(*ROWS), ["tracks:title", "tracks:plays"])
    storage = SavedDatasetFileStorage(str(tmp_path / name))
    own.create_saved_dataset(job, "kept", storage)
    found = own.get_saved_dataset("kept").to_arrow()
    assert found["title"].to_pylist() == job.to_arrow()["title"].to_pylist()
    assert found["plays"].to_pylist() == job.to_arrow()["plays"].to_pylist()
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        own.create_saved_dataset(job, "again", storage)
    fewer = own.get_historical_features(entities(*ROWS[:2]), ["tracks:title", "tracks:plays"])
    own.create_saved_dataset(fewer, "kept", storage, allow_overwrite=True)
    assert own.get_saved_dataset("kept").to_df()["title"].tolist() == ["late", "one"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_dataset_that_fails_leaves_nothing(own: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "plays.parquet").write_bytes(b"PAR1 and no more")
    rows = entities(("a", 1, day(1)), names=("track_id", "market", "event_timestamp"))
    job = own.get_historical_features(rows, ["plays:count"])
    with pytest.raises(StorageError, match="plays.parquet cannot be read"):
        job.persist(SavedDatasetFileStorage(str(tmp_path / "kept")))
    assert not (tmp_path / "kept").exists() and not list(tmp_path.glob(".tmp-*"))


def test_export_to_a_staging_location(own: FeatureStore, tmp_path: Path) -> None:
    job = own.get_historical_features(entities(*ROWS), ["tracks:title"])
    assert not job.supports_remote_storage_export()
    configure(tmp_path, staging_location=str(tmp_path / "staged"))
    job = FeatureStore(repo_path=str(tmp_path)).get_historical_features(entities(*ROWS), ["tracks:title"])
    assert job.supports_remote_storage_export()
    paths = job.to_remote_storage()
    assert pa.concat_tables([pq.read_table(p) for p in paths])["title"].to_pylist()[:2] == ["late", "one"]


def pull(store: FeatureStore, latest: bool, start: Any = None, end: Any = None, **changed: Any) -> pa.Table:
    options: dict[str, Any] = {
        "config": store.config,
        "data_source": store.get_feature_view("tracks").batch_source,
        "join_key_columns": ["track_id"],
        "feature_name_columns": ["title", "plays", "vector"],
        "timestamp_field": "event_timestamp",
        "created_timestamp_column": "created_timestamp",
        "start_date": start,
        "end_date": end,
    } | changed
    method = "pull_latest_from_table_or_query" if latest else "pull_all_from_table_or_query"
    return getattr(EarmarkOfflineStore, method)(**options).to_arrow()


def test_pulling_the_latest(store: FeatureStore) -> None:
    found = pull(store, True, day(-1000), day(100))
    assert dict(zip(found["track_id"].to_pylist(), found["title"].to_pylist(), strict=True)) == {
        "a": "nul\0 🎧",
        "b": "late",
        "c": "two years ago",
        "gone": None,
    }
    assert found.column_names == ["track_id", "title", "plays", "vector", "event_timestamp", "created_timestamp"]
    assert pull(store, True, day(1), day(1))["track_id"].to_pylist() == ["a", "gone"], "both ends are inclusive"
    zone = datetime.fromisoformat("2026-01-01T19:00:00-05:00")  # day(1)
    assert pull(store, True, zone, zone)["track_id"].to_pylist() == ["a", "gone"]
    assert pull(store, True, day(50), day(60)).num_rows == 0
    none = pull(store, True, day(-1000), day(100), join_key_columns=[])
    assert none["title"].to_pylist() == ["nul\0 🎧"] and none["__dummy_id"].to_pylist() == [""]


def test_pulling_all(store: FeatureStore) -> None:
    found = pull(store, False)
    assert found["track_id"].to_pylist() == [row["track_id"] for row in TRACKS]
    assert found["plays"].to_pylist() == [row["plays"] for row in TRACKS]
    found = pull(store, False, day(2).replace(tzinfo=None), day(3))
    assert found["track_id"].to_pylist() == ["a", "b", "b", "gone"], "a time without a zone is UTC"


def test_materialising_reads_through_it(own: FeatureStore) -> None:
    own.materialize(day(-1000), day(100), feature_views=["tracks"])
    found = own.get_online_features(["tracks:title", "tracks:plays"], [{"track_id": "b"}]).to_dict()
    assert found["title"] == ["late"] and found["plays"] == [1]


def push_frame(**changed: Any) -> pd.DataFrame:
    row = {
        "track_id": "new",
        "plays": 5,
        "liked": True,
        "score": 0.25,
        "title": "pushed 🎧",
        "vector": [5.0, 6.0],
        "tags": ["t"],
        "seen_at": pd.Timestamp(day(8)),
        "event_timestamp": pd.Timestamp("2026-01-09 00:00:00.000000001"),  # naive, and finer than the files
        "created_timestamp": pd.Timestamp(day(8)),
    } | changed
    return pd.DataFrame([row], index=pd.Index([7], name="some index"))


def parts_of(store: FeatureStore) -> dict[Path, tuple[int, int]]:
    folder = Path(str(store.repo_path)) / "offline"
    return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}


def test_a_push_costs_what_is_pushed(own: FeatureStore) -> None:
    before = parts_of(own)
    own.push("track_push", push_frame(), to=PushMode.ONLINE_AND_OFFLINE)
    after = parts_of(own)
    (added,) = set(after) - set(before)
    assert all(after[path] == stamp for path, stamp in before.items())
    table = pq.read_table(added, partitioning=None)
    assert table.schema == TRACK_SCHEMA and table.num_rows == 1
    assert table["work_key"].to_pylist() == ["pushed"] and table["event_timestamp"].to_pylist() == [day(8)]
    found = ask(own, entities(("new", day(8)), ("a", day(2))), "tracks:title", "tracks:vector")
    assert found["title"].to_pylist() == ["pushed 🎧", "one"] and found["vector"].to_pylist()[0] == [5.0, 6.0]
    assert own.get_online_features(["tracks:title"], [{"track_id": "new"}]).to_dict()["title"] == ["pushed 🎧"]


def test_pushes_that_do_not_fit(own: FeatureStore) -> None:
    before = parts_of(own)
    with pytest.raises(ValueError, match="missing_expected_columns.*title"):
        own.push("track_push", push_frame().drop(columns=["title"]), to=PushMode.OFFLINE)
    with pytest.raises(ConfigError, match="'plays' is string and cannot become int64"):
        own.push("track_push", push_frame(plays="many"), to=PushMode.OFFLINE)
    with pytest.raises(ConfigError, match="'plays' is double and cannot become int64"):
        own.push("track_push", push_frame(plays=0.5), to=PushMode.OFFLINE)
    with pytest.raises(ConfigError, match="'track_id' has nulls"):
        own.push("track_push", push_frame(track_id=None), to=PushMode.OFFLINE)
    assert parts_of(own) == before
    own.push("track_push", push_frame(plays=np.nan, vector=None, title=None), to=PushMode.OFFLINE)
    found = ask(own, entities(("new", day(9))), "tracks:plays", "tracks:vector", "tracks:title")
    assert found.drop_columns(["track_id", "event_timestamp"]).to_pylist() == [
        {"plays": None, "vector": None, "title": None}
    ]


def test_writing_with_a_field_mapping(own: FeatureStore, tmp_path: Path) -> None:
    frame = pd.DataFrame({"track": ["z"], "market": [1], "ts": [pd.Timestamp(day(4))], "n": [99]})
    own.write_to_offline_store("plays", frame)
    rows = entities(("z", 1, day(4)), ("b", 1, day(1)), names=("track_id", "market", "event_timestamp"))
    assert ask(own, rows, "plays:count")["count"].to_pylist() == [99, 30]


KILLED = """
import os, signal, sys
from feast import FeatureStore
import core.storage
sys.path.insert(0, {tests!r})
from tests.feature_repo.plugins.test_offline import push_frame
from feast.data_source import PushMode
def dies(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
core.storage.os.replace = dies
FeatureStore(repo_path={repo!r}).push("track_push", push_frame(), to=PushMode.OFFLINE)
"""


@pytest.mark.slow
def test_a_push_killed_halfway_is_not_seen(own: FeatureStore) -> None:
    before = parts_of(own)
    home = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(tests=home, repo=str(own.repo_path))], cwd=home, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (left,) = set(parts_of(own)) - set(before)
    assert left.name.startswith(".tmp-")
    assert ask(own, entities(("new", day(9)), ("a", day(2))), "tracks:title")["title"].to_pylist() == [None, "one"]


def test_names_and_types_for_feast_s_inference(store: FeatureStore) -> None:
    view = store.get_feature_view("inferred")
    assert {f.name: f.dtype for f in view.features} == {f.name: f.dtype for f in TRACK_FIELDS}
    assert ask(store, entities(("a", day(2))), "inferred:title")["title"].to_pylist() == ["one"]


def test_validating_a_source(store: FeatureStore) -> None:
    provider = store._get_provider()
    provider.validate_data_source(store.config, store.get_feature_view("tracks").batch_source)
    bad = FileSource(path="offline/tracks", timestamp_field="when")
    with pytest.raises(ConfigError, match="no column 'when'"):
        provider.validate_data_source(store.config, bad)
    with pytest.raises(StorageError, match="does not exist"):
        provider.validate_data_source(store.config, FileSource(path="gone", timestamp_field="when"))


def test_damaged_and_missing_files(own: FeatureStore, tmp_path: Path) -> None:
    part = next((tmp_path / "offline").rglob("part-1.parquet"))
    part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(StorageError, match="part-1.parquet cannot be read as Parquet"):
        ask(own, entities(*ROWS), "tracks:title")
    for path in (tmp_path / "offline").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(StorageError, match="no file matches"):
        ask(own, entities(*ROWS), "tracks:title")


def test_threads_share_a_store(store: FeatureStore) -> None:
    """Stock Feast's history calls fail when several threads share its connection."""
    rng = np.random.default_rng(1)
    wrong: list[Any] = []
    start = threading.Barrier(8)

    def read(rows: pd.DataFrame, expected: list[Any]) -> None:
        try:
            start.wait()
            for _ in range(5):
                found = ask(store, rows, "tracks:title", "world:temperature")["title"].to_pylist()
                if found != expected:
                    wrong.append(found)
        except Exception as error:
            wrong.append(error)

    once = dict(zip(ROWS, ask(store, entities(*ROWS), "tracks:title")["title"].to_pylist(), strict=True))
    threads = []
    for _ in range(8):
        chosen = [ROWS[i] for i in rng.permutation(len(ROWS))]
        threads.append(threading.Thread(target=read, args=(entities(*chosen), [once[row] for row in chosen])))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_configuration(tmp_path: Path) -> None:
    made = EarmarkOfflineStoreConfig(memory_limit="2GiB", temp_directory="/x", batch_rows=10)
    assert made.budget.bytes == 2 << 30 and made.budget.temp_directory == "/x"
    assert size_bytes("512MB") == 512_000_000 and size_bytes("1.5 kb") == 1_500
    assert EarmarkOfflineStoreConfig().budget.bytes > 1 << 28
    with pytest.raises(ConfigError, match="no size of memory"):
        EarmarkOfflineStoreConfig(memory_limit="plenty")


@pytest.mark.slow
@pytest.mark.parametrize("by_created", [False, True])
def test_the_same_as_stock_feast_where_it_is_right(own: FeatureStore, tmp_path: Path, by_created: bool) -> None:
    """A history of 3,000 rows and 2,000 entity rows, joined by both stores; stock's rows are put in order."""
    rng = np.random.default_rng(9)
    names = [f"t{i}" for i in range(300)]
    seconds = rng.permutation(np.arange(3_000) * 60)
    event = pa.array((seconds + 1_700_000_000) * 1_000_000).cast(US)
    created = pc.add(event, pa.array(rng.integers(0, 7_200, 3_000) * 1_000_000).cast(pa.duration("us")))
    rows = pa.table(
        {
            "track": rng.choice(names, 3_000),
            "market": pa.array(rng.integers(0, 3, 3_000), pa.int32()),
            "ts": event,
            "made": created,
            "n": pa.array(rng.integers(0, 100, 3_000)),
            "word": rng.choice(["x", "y", "z"], 3_000),
        }
    )
    pq.write_table(rows, tmp_path / "many.parquet")
    source = FileSource(
        name="many", path=str(tmp_path / "many.parquet"), timestamp_field="ts", created_timestamp_column="made"
    )
    keys = [Entity(name="track", join_keys=["track"], value_type=ValueType.STRING)]
    keys.append(Entity(name="place", join_keys=["market"], value_type=ValueType.INT32))
    view = FeatureView(
        name="many",
        entities=keys,
        ttl=timedelta(hours=20),
        source=source,
        schema=[Field(name="n", dtype=Int64), Field(name="word", dtype=String)],
    )
    own.apply([*keys, view])
    asked = pd.DataFrame(
        {
            "track": rng.choice([*names, "nobody"], 2_000),
            "market": rng.integers(0, 4, 2_000),
            "event_timestamp": pd.to_datetime(rng.integers(0, 200_000, 2_000) + 1_700_000_000, unit="s", utc=True),
            "row": range(2_000),
        }
    )
    features = ["many:n", "many:word"]
    ours = ask(own, asked, *features, filter_by_created_timestamp=by_created)
    assert ours["row"].to_pylist() == list(range(2_000))
    config = yaml.safe_load((tmp_path / "feature_store.yaml").read_text())
    config["offline_store"] = {"type": "duckdb"}
    (tmp_path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock = ask(FeatureStore(repo_path=str(tmp_path)), asked, *features, filter_by_created_timestamp=by_created)
    stock = stock.sort_by("row")
    assert 0.05 < pc.mean(pc.cast(ours["n"].is_valid(), pa.float32())).as_py() < 0.95
    for name in ("n", "word"):
        assert ours[name].to_pylist() == stock[name].to_pylist()
