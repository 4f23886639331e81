"""Feast on Spark: the suite of the embedded offline store, both stores side by side, and the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import BatchFeatureView, FeatureStore, FeatureView, Field, FileSource
from feast.types import Array, Float32, Int64, String

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
    pytest.skip("Spark needs Java: no `java` on the path and no JAVA_HOME", allow_module_level=True)

from core.errors import ConfigError, StorageError
from tests.feature_repo import test_redis
from tests.feature_repo.plugins import test_offline
from tests.feature_repo.plugins.offline_suite import (
    EMBEDDED,
    ENTITIES,
    FEATURES,
    ITEM_SCHEMA,
    World,
    build,
    spark_options,
    spark_profile,
)
from tests.feature_repo.plugins.test_column_types import COLUMNS, KEYS, T0, open_store, same
from tests.feature_repo.plugins.test_column_types import write as write_columns
from tests.feature_repo.plugins.test_offline import BIG, ROWS, TRACK_FIELDS, TRACKS, US, ask, day, entities

pytestmark = pytest.mark.slow
SPARK = spark_profile()
globals().update(SPARK.cases())

START, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
ENGINES = {
    "local": "feature_repo.plugins.engine.EarmarkEngine",
    "spark": "feature_repo.plugins.spark.engine.EarmarkSparkEngine",
    "feast": "spark.engine",
}


@pytest.fixture(scope="module", autouse=True)
def profile() -> Iterator[None]:
    with SPARK.in_place():
        yield
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is not None:
        session.stop()


def tracks(root: Path) -> FeatureStore:
    test_offline.write_parts(root)
    return build(SPARK, root, test_offline.definitions(root))


@pytest.fixture(scope="module")
def store(profile: None, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return tracks(tmp_path_factory.mktemp("tracks"))


@pytest.fixture
def own(profile: None, tmp_path: Path) -> FeatureStore:
    return tracks(tmp_path)


def session(store: FeatureStore) -> Any:
    from feature_repo.plugins.spark.session import session_of

    return session_of(store.config.offline_store)


@pytest.fixture(scope="module")
def pair(profile: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, FeatureStore, Path]:
    """The same files under both profiles."""
    root = tmp_path_factory.mktemp("world")
    world = World(3)
    world.write(root)
    made = [build(p, root / p.name, world.definitions(p, root)) for p in (EMBEDDED, SPARK)]
    return made[0], made[1], root


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """Equal in names, types, order and every value."""
    assert found.column_names == expected.column_names
    for name in expected.column_names:
        assert found[name].type == expected[name].type, name
        assert found[name].to_pylist() == expected[name].to_pylist(), name


@pytest.mark.parametrize("by_created", [False, True])
@pytest.mark.parametrize("full_names", [False, True])
def test_the_same_rows_as_the_embedded_store(pair: Any, by_created: bool, full_names: bool) -> None:
    embedded, spark, _ = pair
    frame = World(int(by_created)).entities(700)
    options = {"filter_by_created_timestamp": by_created, "full_feature_names": full_names}
    expected = ask(embedded, frame, *FEATURES, **options)
    assert_same(ask(spark, frame, *FEATURES, **options), expected)
    for name in expected.column_names[4:]:  # the question was worth asking
        assert 0.05 < expected[name].null_count / expected.num_rows < 0.98, name


def test_the_same_frames_as_the_embedded_store(pair: Any) -> None:
    embedded, spark, _ = pair
    frame = World(5).entities(50)
    one, other = (s.get_historical_features(frame, FEATURES).to_df() for s in (embedded, spark))
    pd.testing.assert_frame_equal(other, one)


@pytest.mark.parametrize("latest", [False, True])
def test_the_same_rows_when_a_view_is_read(pair: Any, latest: bool) -> None:
    embedded, spark, _ = pair
    method = "pull_latest_from_table_or_query" if latest else "pull_all_from_table_or_query"
    found = []
    for store in (embedded, spark):
        view = store.get_feature_view("items")
        names = ITEM_SCHEMA.names[1:7]
        options = (["content_id"], names, "event_timestamp", "created_timestamp", day(1), day(8))
        read = getattr(store._get_provider().offline_store, method)(store.config, view.batch_source, *options)
        found.append(read.to_arrow())
    assert_same(found[1], found[0])
    assert found[0].num_rows > (100 if latest else 1000)


@pytest.fixture(scope="module")
def differing(profile: None, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store on Spark over files that differ in their types, in a folder whose name is a pattern to others."""
    root = tmp_path_factory.mktemp("what? {a} [2020] %20 #1 *")
    parts = [{n: c[at] for n, c in COLUMNS.items() if c[at] is not None} for at in (1, 2)]
    write_columns(root / "view", parts)
    return open_store(root, {name: c[0] for name, c in COLUMNS.items()}, **spark_options(root))


def test_files_that_differ_in_types(differing: FeatureStore) -> None:
    frame = pd.DataFrame({"content_id": KEYS, "event_timestamp": [T0] * len(KEYS)})
    job = differing.get_historical_features(frame, [f"view:{name}" for name in COLUMNS])
    found = job.to_arrow()
    for name, (_, _, _, right) in COLUMNS.items():
        assert same(found[name].to_pylist(), right), name
    assert job.to_df()["plays"].tolist() == [BIG, pd.NA, 7, pd.NA]


def test_a_value_that_does_not_fit_is_named(differing: FeatureStore, tmp_path: Path) -> None:
    write_columns(tmp_path / "view", [{"x": pa.array([BIG, 1])}, {"x": pa.array([1.5, 2.0])}])
    store = open_store(tmp_path, {"x": Int64}, **spark_options(tmp_path))
    frame = pd.DataFrame({"content_id": KEYS, "event_timestamp": [T0] * len(KEYS)})
    with pytest.raises(StorageError, match="column 'x' .* is double and cannot be read as int64: 1.5"):
        store.get_historical_features(frame, ["view:x"]).to_arrow()


def test_folders_and_other_times(differing: FeatureStore, tmp_path: Path) -> None:
    """Event times as text and as numbers in two files, and a column that folders give."""
    seconds = int(T0.timestamp())
    for market, at in (("a%2Fb c", [T0.isoformat()]), ("SE", [seconds * 1000]), ("__HIVE_DEFAULT_PARTITION__", [T0])):
        folder = tmp_path / "view" / f"market={market}"
        folder.mkdir(parents=True)
        keys = pa.table({"content_id": [market[0]], "x": [1], "at": at})
        pq.write_table(keys, folder / "rows.parquet")
    source = FileSource(path=str(tmp_path / "view"), timestamp_field="at")
    store = open_store(tmp_path, {"market": String}, source, **spark_options(tmp_path))
    frame = pd.DataFrame({"content_id": ["a", "S", "_"], "event_timestamp": [T0] * 3})
    found = store.get_historical_features(frame, ["view:market"]).to_arrow()
    assert found["market"].to_pylist() == ["a/b c", "SE", None]
    for number in range(2):  # several files in one folder: each row is read once
        pq.write_table(keys, tmp_path / "view" / "market=SE" / f"more-{number}.parquet")
    offline, view = store._get_provider().offline_store, store.get_feature_view("view")
    options = (["content_id"], ["market", "x"], "at", None, T0, T0)
    rows = offline.pull_all_from_table_or_query(store.config, view.batch_source, *options).to_arrow()
    assert sorted(rows["content_id"].to_pylist()) == ["S", "_", "_", "_", "a"]
    early = frame.assign(event_timestamp=T0 - timedelta(microseconds=1))
    assert store.get_historical_features(early, ["view:market"]).to_arrow()["market"].null_count == 3


def test_definitions_of_the_embedded_profile(pair: Any, tmp_path: Path) -> None:
    """The Spark store reads the embedded profile's `FileSource` too: two profiles may share a registry."""
    embedded, _, root = pair
    store = build(SPARK, tmp_path / "files", World(3).definitions(EMBEDDED, root))
    frame = World(8).entities(100)
    assert_same(ask(store, frame, *FEATURES), ask(embedded, frame, *FEATURES))


def test_entity_rows_as_arrow_as_sql_and_as_a_frame(store: FeatureStore, tmp_path: Path) -> None:
    frame = entities(*ROWS).assign(label=range(len(ROWS)))
    expected = ask(store, frame, "tracks:title", "tracks:vector")
    table = pa.Table.from_pandas(frame)
    path = tmp_path / "rows.parquet"
    pq.write_table(table.set_column(1, "event_timestamp", table["event_timestamp"].cast(US)), path)
    sql = f"SELECT * FROM parquet.`{path}` ORDER BY label;"
    for rows in (table, sql, session(store).sql(sql.rstrip(";"))):
        job = store.get_historical_features(rows, ["tracks:title", "tracks:vector"])
        assert job.to_arrow().to_pylist() == expected.to_pylist()
        assert job.metadata is not None
        assert (job.metadata.min_event_timestamp, job.metadata.max_event_timestamp) == (day(0), day(9))
        assert sorted(job.metadata.keys) == ["label", "track_id"]
    with pytest.raises(ConfigError, match="failed on the query of entity rows"):
        ask(store, "SELECT * FROM nowhere", "tracks:title")
    with pytest.raises(ConfigError, match="failed on the query of entity rows"):
        ask(store, "SELECT 'a' AS track_id, 'soon' AS event_timestamp", "tracks:title")
    with pytest.raises(ConfigError, match="int32, not a time"):
        ask(store, "SELECT 'a' AS track_id, 1 AS event_timestamp", "tracks:title")


def test_a_query_that_never_answers_twice_the_same(store: FeatureStore) -> None:
    """Rows are numbered once: a second evaluation would give the features of one row to another."""
    sql = (
        "SELECT explode(shuffle(array('a', 'b', 'c'))) AS track_id, TIMESTAMP '2026-01-03 00:00:00' AS event_timestamp"
    )
    found = ask(store, " UNION ALL ".join([sql] * 20), "tracks:title")
    titles = {"a": "one", "b": "late", "c": "two years ago"}
    assert found["title"].to_pylist() == [titles[key] for key in found["track_id"].to_pylist()]


def test_rows_that_stay_in_spark(store: FeatureStore) -> None:
    """`to_spark_df` has the same rows in the same order, and nothing is left in the session's catalogue."""
    features = [f"tracks:{field.name}" for field in TRACK_FIELDS]
    job: Any = store.get_historical_features(entities(*ROWS).assign(label=pd.Categorical(list("gfedcba"))), features)
    frame = job.to_spark_df()
    assert frame.columns == job.to_arrow().column_names
    rows = [row.asDict() for row in frame.collect()]
    assert [row["title"] for row in rows] == ["late", "one", None, "nul\0 🎧", "one", None, "two years ago"]
    assert [row["plays"] for row in rows] == [1, BIG, None, None, BIG, None, 7]
    assert [row["label"] for row in rows] == list("gfedcba")
    assert session(store).catalog.listTables() == []


def test_on_demand_views(store: FeatureStore) -> None:
    rows = entities(*[(*row, 0.5) for row in ROWS], names=("track_id", "event_timestamp", "boost"))
    found = ask(store, rows, "tracks:title", "boosted:boosted")
    expected = [1.5, BIG + 0.5, None, None, BIG + 0.5, None, 7.5]
    assert [None if v is None or np.isnan(v) else v for v in found["boosted"].to_pylist()] == expected


def test_no_entity_rows(store: FeatureStore) -> None:
    found = ask(store, entities(*ROWS).iloc[:0], "tracks:title", "tracks:vector", "tracks:plays")
    assert found.num_rows == 0 and found.column_names[-3:] == ["title", "vector", "plays"]
    assert found["vector"].type == pa.list_(pa.float32())


def test_keys_of_other_types(store: FeatureStore) -> None:
    """A pandas frame makes floats of integers with nulls; a string is no number."""
    names = ("track_id", "market", "event_timestamp")
    rows = entities(("a", 1.0, day(1)), ("a", None, day(1)), ("a", 1.5, day(1)), ("a", 2.0, day(1)), names=names)
    assert ask(store, rows, "plays:count")["count"].to_pylist() == [10, None, None, 20]
    assert ask(store, rows.assign(market=None), "plays:count")["count"].to_pylist() == [None] * 4
    with pytest.raises(ConfigError, match="is string in the entity rows but int32"):
        ask(store, rows.assign(market=["1", "2", "3", "4"]), "plays:count")
    with pytest.raises(ConfigError, match="no column 'market'"):
        ask(store, rows.drop(columns=["market"]), "plays:count")


def test_paths_that_look_like_patterns(own: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "offline" / "tracks" / "date=2026-01-01").rename(
        tmp_path / "offline" / "tracks" / "{a,b} [c] 100%25 #é"
    )
    assert ask(own, entities(*ROWS[:2]), "tracks:title")["title"].to_pylist() == ["late", "one"]


def test_times_as_older_spark_writes_them(own: FeatureStore, tmp_path: Path) -> None:
    for path in (tmp_path / "offline" / "tracks").rglob("part-*.parquet"):
        pq.write_table(pq.read_table(path, partitioning=None), path, use_deprecated_int96_timestamps=True)
    found = ask(own, entities(*ROWS), "tracks:title", "tracks:seen_at")
    assert found["title"].to_pylist() == ["late", "one", None, "nul\0 🎧", "one", None, "two years ago"]
    assert found["seen_at"].type == US and found["seen_at"].to_pylist()[1] == day(9)
    pq.write_table(pa.table({"track_id": ["a"], "at": pa.array([1], pa.timestamp("ns"))}), tmp_path / "fine.parquet")
    fine = SPARK.source(str(tmp_path / "fine.parquet"), timestamp_field="at")
    with pytest.raises(ConfigError, match="'at' has nanoseconds, which Spark does not read"):
        options = ([], ["track_id"], "at", None, day(-1), day(1))
        own._get_provider().offline_store.pull_latest_from_table_or_query(own.config, fine, *options).to_arrow()


def test_tables_of_the_session(own: FeatureStore) -> None:
    """A source may also be a table or a query of Spark's catalogue."""
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    rows = pa.table({"content_id": ["a", "a", "b"], "n": [1, 2, None], "at": pa.array([day(1), day(2), day(1)], US)})
    spark = session(own)
    spark.createDataFrame(rows).createOrReplaceTempView("counted")
    try:
        for name, place in {"by_table": {"table": "counted"}, "by_query": {"query": "SELECT * FROM counted"}}.items():
            schema = [Field(name="content_id", dtype=String), Field(name="n", dtype=Int64)]
            source = SparkSource(name=name, timestamp_field="at", **place)
            own.apply([ENTITIES[0], FeatureView(name=name, entities=[ENTITIES[0]], schema=schema, source=source)])
            asked = entities(("b", day(3)), ("a", day(3)), ("a", day(1)), names=("content_id", "event_timestamp"))
            assert ask(own, asked, f"{name}:n")["n"].to_pylist() == [None, 2, 1]
    finally:
        spark.catalog.dropTempView("counted")


def test_threads_share_a_session(store: FeatureStore) -> None:
    found: dict[int, Any] = {}

    def read(number: int) -> None:
        found[number] = ask(store, entities(*ROWS[number:]), "tracks:title")["title"].to_pylist()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = ["late", "one", None, "nul\0 🎧", "one", None, "two years ago"]
    assert found == {number: whole[number:] for number in range(4)}


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_repo.spark import spark_settings

    small = spark_settings(tmp_path)["offline_store"]["spark_conf"]
    assert small["spark.master"] == "local[2]" and small["spark.sql.shuffle.partitions"] == "2"
    monkeypatch.setenv("EARMARK_SPARK_MASTER", "spark://host:7077")
    monkeypatch.setenv("EARMARK_SPARK_MEMORY", "8g")
    large = spark_settings(tmp_path)["offline_store"]["spark_conf"]
    assert large["spark.master"] == "spark://host:7077" and large["spark.driver.memory"] == "8g"
    assert "spark.sql.shuffle.partitions" not in large and large["spark.sql.session.timeZone"] == "UTC"


def test_spark_without_java(tmp_path: Path) -> None:
    code = """if True:
        from feature_repo.plugins.spark.session import session_of
        from feature_repo.plugins.spark.store import EarmarkSparkOfflineStoreConfig
        session_of(EarmarkSparkOfflineStoreConfig(spark_conf={"spark.master": "local[1]"}))
    """
    environment = os.environ | {"JAVA_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "ConfigError: Spark does not start" in done.stderr, done.stderr
    assert "it needs Java 17 or later" in done.stderr


redis = test_redis.redis  # a server, as a fixture


def online(store: FeatureStore, engine: str, tmp_path: Path, redis: str | None = None) -> FeatureStore:
    """The same repository and registry with an engine and an online store of its own."""
    import yaml

    root = Path(str(store.repo_path))
    text = yaml.safe_load((root / "feature_store.yaml").read_text())
    text["batch_engine"] = {"type": ENGINES[engine]}
    text["online_store"]["path"] = str(tmp_path / f"{engine}.db")
    if redis:
        kind = "feature_repo.plugins.online.redis_store.EarmarkRedisOnlineStore"
        text["online_store"] = {"type": kind, "connection_string": redis}
    folder = tmp_path / f"{engine}{redis or ''}"
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(text))
    made = FeatureStore(repo_path=str(folder))
    views = [made.get_feature_view(name) for name in ("items", "vectors")]
    made._get_provider().update_infra(made.config.project, [], views, [], [], False)
    return made


def ties(root: Path) -> set[str]:
    """Keys whose latest row is not the only one of its event and created time."""
    found: set[str] = set()
    for view in ("items", "vectors"):
        parts = [
            pq.read_table(path, partitioning=None) for path in sorted((root / "offline" / view).rglob("*.parquet"))
        ]
        rows = pa.concat_tables(part.select(["content_id", "event_timestamp", "created_timestamp"]) for part in parts)
        for key, group in rows.to_pandas().groupby("content_id"):
            last = group.sort_values(["event_timestamp", "created_timestamp"]).iloc[-2:, 1:]
            if len(last) == 2 and last.iloc[0].equals(last.iloc[1]):
                found.add(str(key))
    return found


def served(store: FeatureStore) -> dict[str, Any]:
    rows = [{"content_id": key} for key in [*World(3).keys, "nobody"]]
    return store.get_online_features(FEATURES[:6] + ["vectors:embedding"], rows).to_dict()


def test_engines_write_the_same_rows(pair: Any, tmp_path: Path) -> None:
    """Ours in the process, ours on Spark, and Feast's Spark engine with our online store."""
    embedded, spark, root = pair
    found = {}
    for engine, store in {"local": embedded, "spark": spark, "feast": spark}.items():
        made = online(store, engine, tmp_path)
        made.materialize(START, END, feature_views=["items", "vectors"])
        found[engine] = served(made)
    assert found["spark"] == found["local"]
    assert sum(title is not None for title in found["spark"]["title"]) > 80
    # Feast's takes any of the rows that are equal in event and created time, and makes floats of integers beside nulls.
    tied = ties(root)
    known = [n for n, key in enumerate(World(3).keys) if key not in tied]
    assert len(known) > 20
    for name, values in found["feast"].items():
        kind = (lambda v: v if v is None else float(v)) if name == "plays" else (lambda v: v)
        assert [kind(values[n]) for n in known] == [kind(found["local"][name][n]) for n in known], name


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs Debian's redis-server")
def test_workers_write_to_redis(pair: Any, tmp_path: Path, redis: str) -> None:
    embedded, spark, _ = pair
    found = []
    for store, engine, server in ((embedded, "local", None), (spark, "spark", redis)):
        made = online(store, engine, tmp_path, server)
        made.materialize(START, END, feature_views=["items", "vectors"])
        found.append(served(made))
    assert found[1] == found[0]


@pytest.fixture
def materialised(own: FeatureStore) -> tuple[FeatureStore, Any, Any]:
    """A store, its engine on Spark, and its view of tracks, written online."""
    engine, view = own._get_provider().batch_engine, own.get_feature_view("tracks")
    assert engine.materialise(view) == 4  # a, b, c, and that one is gone
    return own, engine, view


def titles(store: FeatureStore, *keys: str) -> list[Any]:
    return store.get_online_features(["tracks:title"], [{"track_id": key} for key in keys]).to_dict()["title"]


def test_the_engine_keeps_the_ledger(materialised: Any) -> None:
    """Only new parts are read, whatever their event time; an older row never replaces a newer one."""
    store, engine, view = materialised
    assert titles(store, "a", "b", "c", "gone") == ["nul\0 🎧", "late", "two years ago", None]
    assert not engine.unseen(view) and engine.materialise(view) == 0
    new = [
        test_offline.track("a", 0, title="older than what is there"),
        test_offline.track("old", -9000, title="of another century"),
        test_offline.track("b", 2, created=6, title="computed again"),
        {**test_offline.track("c", 1), "work_key": "removed"},
        {**test_offline.track("a", 0, title="not yet"), "event_timestamp": datetime.now(UTC) + timedelta(days=1)},
    ]
    path = Path(str(store.repo_path)) / "offline" / "tracks" / "date=2026-01-09" / "part-9.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(new, test_offline.TRACK_SCHEMA), path)
    assert engine.unseen(view)
    assert engine.materialise(view) == 3  # but for the first and the last
    expected = ["nul\0 🎧", "of another century", "computed again", None]
    assert titles(store, "a", "old", "b", "c") == expected
    # The engine in the process goes on from the same ledger.
    from feature_repo.plugins.engine import EarmarkEngine

    parts = {"repo_config": store.config, "online_store": engine.online_store, "offline_store": engine.offline_store}
    local = EarmarkEngine(**parts)
    assert not local.takes(view), "a SparkSource is the Spark engine's"
    assert not engine.unseen(view) and not local.unseen(view)
    assert engine.materialise(view, again=True) >= 4 and titles(store, "a", "old", "b", "c") == expected


def test_a_failed_job_is_done_again(own: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_repo.plugins.spark.engine import EarmarkSparkEngine

    engine, view = own._get_provider().batch_engine, own.get_feature_view("tracks")
    real = EarmarkSparkEngine._send

    def dies_after(self: Any, *arguments: Any) -> int:
        real(self, *arguments)
        raise StorageError("the machine is gone")

    monkeypatch.setattr(EarmarkSparkEngine, "_send", dies_after)
    with pytest.raises(StorageError, match="is gone"):
        engine.materialise(view)
    assert engine.unseen(view)
    monkeypatch.undo()
    assert engine.materialise(view) == 0, "what was written before is not written twice"
    assert not engine.unseen(view) and titles(own, "b") == ["late"]


TWICE = """\
def twice(df):
    from pyspark.sql import functions as F
    return df.withColumn("twice", F.col("plays") * 2)
"""


def test_transformations_in_spark(own: FeatureStore) -> None:
    """Batch feature views go Feast's way, from our files into our online store."""
    names: dict[str, Any] = {}
    exec(TWICE, names)
    track = own.get_entity("track_id")
    view = BatchFeatureView(
        name="twice",
        mode="python",
        entities=[track],
        ttl=timedelta(0),
        schema=[Field(name="track_id", dtype=String), Field(name="twice", dtype=Int64)],
        source=own.get_feature_view("tracks").batch_source,
        udf=names["twice"],
        udf_string=TWICE,
        online=True,
    )
    own.apply([track, view])
    own.materialize(START, END, feature_views=["twice"])
    found = own.get_online_features(["twice:twice"], [{"track_id": key} for key in "abc"]).to_dict()
    assert found["twice"] == [None, 2, 14]


def test_progress_is_told(own: FeatureStore) -> None:
    engine, view = own._get_provider().batch_engine, own.get_feature_view("tracks")
    told: list[int] = []
    engine.materialise(view, expect=told.append, progress=told.append)
    assert told == [len(TRACKS)] * 2


def test_a_store_under_both_profiles(profile: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is applied, read and materialised in one profile, then switched to the other."""
    from core.contracts import CREATED, EVENT, WORK_KEY
    from core.features import ACOUSTIC, CONTENT, FAMILIES, embedding_view
    from core.storage import open_storage
    from core.tables import Tables, rows_to_table
    from feature_repo.materialise import materialise, unseen
    from feature_repo.reads import online_features, training_set
    from feature_repo.store import apply, open_store

    tables = Tables(open_storage(tmp_path))
    vectors = embedding_view("text", "model", 3)
    for view in (*FAMILIES, vectors):
        tables.ensure(view)
    names = [f"song {n} é" for n in range(30)]
    for day_number, hertz in ((1, 44_100), (2, None)):
        key = {EVENT: day(day_number), CREATED: day(day_number + 1), WORK_KEY: f"k{day_number}"}
        for view, features in (
            (CONTENT, {"title": f"title {day_number}", "explicit": None, "published_at": day(0)}),
            (ACOUSTIC, {"duration_s": 1.5, "source_sample_rate_hz": hertz}),
            (vectors, {"embedding": [1.0, day_number, 0.25]}),
        ):
            rows = [{"content_id": name, **key, **features} for name in names[: 20 * day_number]]
            tables.commit(view, rows_to_table(view, rows), day(day_number), "test")
    release = {"models": {"text": {"model_id": "model", "dim": 3, "view": vectors.name}}}
    asked = pd.DataFrame({"content_id": [*names[::-1], "nobody"], "event_timestamp": day(2)})
    asked["label"] = range(len(asked))
    found = {}
    for name in ("spark", "embedded", "spark"):
        monkeypatch.setenv("EARMARK_FEAST_PROFILE", name)
        assert apply(tmp_path, release)
        store = open_store(tmp_path)
        if not found:
            assert materialise(store)["content"] == len(names)
        assert not unseen(store), "the ledger is one for both"
        answers = training_set(store, asked), online_features(store, names)
        assert_same(answers[0], found.setdefault(0, answers[0]))
        assert_same(answers[1], found.setdefault(1, answers[1]))
    assert found[0]["content__title"].to_pylist() == ["title 2"] * 30 + [None]
    assert found[0]["text__embedding"].to_pylist()[0] == [1.0, 2.0, 0.25]
    assert found[1]["acoustic__source_sample_rate_hz"].null_count == 30


def test_columns_of_every_kind(profile: None, tmp_path: Path) -> None:
    """Types that Spark has under other names, or not at all, come back as the embedded store has them."""
    from feast.types import Bytes, UnixTimestamp

    naive = day(1).replace(tzinfo=None)
    rows = pa.table(
        {
            "content_id": ["a", "b"],
            "at": pa.array([naive] * 2, pa.timestamp("us")),
            "seen": pa.array([naive, None], pa.timestamp("ms")),
            "day": pa.array([20_000, None], pa.date32()),
            "small": pa.array([1, 255], pa.uint8()),
            "big": pa.array([2**63 + 5, None], pa.uint64()),
            "raw": pa.array([b"\0x", None], pa.binary()),
            "fixed": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
            "coded": pa.array(["x", None]).dictionary_encode(),
            "nothing": pa.nulls(2),
        }
    )
    pq.write_table(rows, tmp_path / "kinds.parquet")
    kinds = {"seen": UnixTimestamp, "day": UnixTimestamp, "raw": Bytes, "coded": String, "nothing": String}
    fields = [Field(name=n, dtype=kinds.get(n, Int64)) for n in rows.column_names[2:] if n != "fixed"]
    fields += [Field(name="content_id", dtype=String), Field(name="fixed", dtype=Array(Float32))]
    found = []
    for chosen in (EMBEDDED, SPARK):
        source = chosen.source(name="kinds", path=str(tmp_path / "kinds.parquet"), timestamp_field="at")
        view = FeatureView(name="kinds", entities=[ENTITIES[0]], schema=fields, source=source)
        store = build(chosen, tmp_path / chosen.name, [ENTITIES[0], view])
        asked = entities(("b", day(1)), ("a", day(1)), ("a", day(0)), names=("content_id", "event_timestamp"))
        found.append(ask(store, asked, *(f"kinds:{n}" for n in rows.column_names[2:])))
    assert_same(found[1], found[0])
    assert found[1]["fixed"].to_pylist() == [None, [1.0, 2.0], None]


def test_errors_name_the_file(own: FeatureStore, tmp_path: Path) -> None:
    """A file that is damaged behind its footer is Spark's to find."""
    part = tmp_path / "plays.parquet"
    data = part.read_bytes()
    part.write_bytes(data[:4] + b"\xff" * 200 + data[204:])
    rows = entities(("a", 1, day(1)), names=("track_id", "market", "event_timestamp"))
    with pytest.raises(StorageError, match="plays.parquet"):
        ask(own, rows, "plays:count")
