"""Files of one source that differ in their types: values come out exactly, or the error says which one does not."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

from core.errors import StorageError
from feature_repo.plugins.column_types import as_times, common_type, convert, read_type
from feature_repo.plugins.pandas_frames import exact_frame

US = pa.timestamp("us", "UTC")
BIG = 2**53 + 1  # no float64 holds it
T0 = datetime(2026, 1, 1, tzinfo=UTC)
NAN = float("nan")
NAN_TEXT = "not a number"  # NaN is not equal to itself

# Column: declared type, first file, second file, what is right. Rows: a and b are in the first file, c and d in the
# second.
COLUMNS: dict[str, tuple[Any, pa.Array, pa.Array | None, list[Any]]] = {
    "plays": (Int64, pa.array([BIG, None]), pa.array([7.0, NAN]), [BIG, None, 7, None]),
    "always_float": (Int64, pa.array([2.0**53, NAN]), pa.array([-1.0, None]), [2**53, None, -1, None]),
    "narrow": (Int64, pa.array([1, None], pa.int32()), pa.array([BIG, -5]), [1, None, BIG, -5]),
    "unsigned": (Int64, pa.array([2**62 + 1, None], pa.uint64()), pa.array([-3, BIG]), [2**62 + 1, None, -3, BIG]),
    "small": (Int32, pa.array([5, None], pa.int16()), pa.array([NAN, 9.0], pa.float32()), [5, None, None, 9]),
    "flag": (Bool, pa.array([True, None]), pa.array([0.0, NAN]), [True, None, False, None]),
    "title": (
        String,
        pa.array(["one", None]).dictionary_encode(),
        pa.array(["three", "vier ü"], pa.large_string()),
        ["one", None, "three", "vier ü"],
    ),
    "seen": (
        UnixTimestamp,
        pa.array([datetime(2026, 1, 2), None], pa.timestamp("ms")),
        pa.array([datetime(2026, 1, 3, 0, 0, 0, 7, UTC), None], US),
        [datetime(2026, 1, 2, tzinfo=UTC), None, datetime(2026, 1, 3, 0, 0, 0, 7, UTC), None],
    ),
    "released": (
        UnixTimestamp,
        pa.array([date(2026, 1, 2), None]),
        pa.array([T0, None], US),
        [datetime(2026, 1, 2, tzinfo=UTC), None, T0, None],
    ),
    "vector": (
        Array(Float32),
        pa.array([[0.5, 1.5], None], pa.list_(pa.float64())),
        pa.array([[2.5, 3.5], [4.5, 5.5]], pa.list_(pa.float32(), 2)),
        [[0.5, 1.5], None, [2.5, 3.5], [4.5, 5.5]],
    ),
    "counts": (
        Array(Int64),
        pa.array([[BIG, None], None]),
        pa.array([[NAN, 3.0], []], pa.list_(pa.float64())),
        [[BIG, None], None, [None, 3], []],
    ),
    "late": (Int64, pa.array([1, BIG]), None, [1, BIG, None, None]),
    "early": (Float64, pa.array([None, None]), pa.array([0.5, NAN]), [None, None, 0.5, NAN]),
    "nothing": (Int64, pa.array([None, None]), pa.array([None, None]), [None] * 4),
    "score": (Float64, pa.array([1, None]), pa.array([0.5, None]), [1.0, None, 0.5, None]),
}
KEYS = ["a", "b", "c", "d"]


def times(count: int) -> dict[str, pa.Array]:
    return {"event_timestamp": pa.array([T0] * count, US), "created_timestamp": pa.array([T0] * count, US)}


def write(folder: Path, parts: list[dict[str, Any]], keys: list[list[Any]] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, columns in enumerate(parts):
        own = keys[number] if keys else KEYS[2 * number : 2 * number + 2]
        rows = {"content_id": own, **columns, **times(len(own))}
        pq.write_table(pa.table(rows), folder / f"part-{number}.parquet")


def open_store(
    root: Path, fields: dict[str, Any], source: Any = None, key: Any = ValueType.STRING, **changes: Any
) -> FeatureStore:
    """A store with one view over `root/view`, applied."""
    settings = {
        "project": "types",
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{root / 'registry.db'}"},
        "offline_store": {"type": "feature_repo.plugins.offline.EarmarkOfflineStore"},
        "online_store": {
            "type": "feature_repo.plugins.online.sqlite_store.EarmarkSqliteOnlineStore",
            "path": str(root / "online.db"),
        },
        "batch_engine": {"type": "feature_repo.plugins.engine.EarmarkEngine"},
        "entity_key_serialization_version": 3,
    } | changes
    (root / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    entity = Entity(name="content_id", join_keys=["content_id"], value_type=key)
    source = source or FileSource(
        name="parts",
        path=str(root / "view"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    schema = [Field(name="content_id", dtype=Int64 if key == ValueType.INT64 else String)]
    schema += [Field(name=name, dtype=kind) for name, kind in fields.items()]
    view = FeatureView(name="view", entities=[entity], ttl=timedelta(0), schema=schema, source=source)
    made = FeatureStore(repo_path=str(root))
    made.apply([entity, view])
    return made


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root = tmp_path_factory.mktemp("mixed")
    parts = [{n: c[at] for n, c in COLUMNS.items() if c[at] is not None} for at in (1, 2)]
    write(root / "view", parts)
    return open_store(root, {name: column[0] for name, column in COLUMNS.items()})


def asked(store: FeatureStore, keys: list[Any], *features: str) -> Any:
    rows = pd.DataFrame({"content_id": keys, "event_timestamp": [T0] * len(keys)})
    return store.get_historical_features(rows, [f"view:{name}" for name in features])


def same(found: list[Any], right: list[Any]) -> bool:
    return [NAN_TEXT if v != v else v for v in found] == [NAN_TEXT if v != v else v for v in right]


def test_history_of_files_that_differ(mixed: FeatureStore) -> None:
    job = asked(mixed, KEYS, *COLUMNS)
    whole = job.to_arrow()
    streamed = job.to_arrow_batches(batch_rows=3).read_all()
    for name, (_, _, _, right) in COLUMNS.items():
        assert same(whole[name].to_pylist(), right), name
        assert same(streamed[name].to_pylist(), right), name
    kinds = {field.name: field.type for field in whole.schema}
    assert kinds["plays"] == kinds["always_float"] == kinds["narrow"] == kinds["nothing"] == pa.int64()
    assert kinds["small"] == pa.int32() and kinds["flag"] == pa.bool_() and kinds["title"] == pa.string()
    assert kinds["counts"] == pa.list_(pa.int64()) and kinds["seen"] == kinds["released"] == US


def test_frames_keep_integers(mixed: FeatureStore) -> None:
    frame = asked(mixed, [*KEYS, "unknown"], *COLUMNS).to_df()
    for name in ("plays", "always_float", "narrow", "unsigned", "late", "nothing"):
        assert frame[name].dtype == pd.Int64Dtype(), name
        values = [None if pd.isna(value) else int(value) for value in frame[name]]
        assert values == [*COLUMNS[name][3], None], name
    assert frame["small"].dtype == pd.Int32Dtype()
    assert frame["flag"].tolist() == [True, None, False, None, None]
    assert [None if v is None else v.tolist() for v in frame["counts"]] == [[BIG, None], None, [None, 3], [], None]
    assert asked(mixed, ["a"], "plays").to_df()["plays"].dtype == np.int64, "without a null it is NumPy's own type"


def test_online_is_offline(mixed: FeatureStore) -> None:
    online = [name for name in COLUMNS if name != "counts"]  # Feast's lists online cannot say null
    mixed.apply(
        FeatureView(
            name="online",
            entities=[mixed.get_entity("content_id")],
            ttl=timedelta(0),
            schema=[Field(name="content_id", dtype=String), *(Field(name=n, dtype=COLUMNS[n][0]) for n in online)],
            source=mixed.get_data_source("parts"),
        )
    )
    mixed.materialize(T0 - timedelta(days=1), T0 + timedelta(days=1), feature_views=["online"])
    names = [name for name in online if name not in ("seen", "released", "early")]
    answer = mixed.get_online_features([f"online:{name}" for name in names], {"content_id": KEYS}).to_dict()
    for name in names:
        assert answer[name] == COLUMNS[name][3], name


def test_frames_of_every_kind() -> None:
    table = pa.table(
        {
            "u": pa.array([2**64 - 1, None], pa.uint64()),
            "nested": pa.array([[[BIG, None]], None]),
            "fixed": pa.array([[BIG, None], None], pa.list_(pa.int64(), 2)),
            "decimal": pa.array([Decimal("1.5"), None]),
            "float": pa.array([0.5, None]),
            "struct": pa.array([{"n": BIG, "m": None}, None], pa.struct([("n", pa.int64()), ("m", pa.int64())])),
            "empty": pa.array([[], None], pa.list_(pa.int64())),
        }
    )
    frame = exact_frame(table)
    assert frame["u"].tolist() == [2**64 - 1, pd.NA]
    assert frame["nested"][0][0].tolist() == [BIG, None] and frame["nested"][1] is None
    assert frame["fixed"][0].tolist() == [BIG, None]
    assert frame["decimal"].tolist() == [Decimal("1.5"), None]
    assert frame["float"].dtype == np.float64 and frame["struct"][0] == {"n": BIG, "m": None}
    assert len(frame["empty"][0]) == 0
    assert exact_frame(table.slice(0, 0)).shape == (0, 7)
    assert exact_frame(pa.table({})).shape == (0, 0)


@pytest.mark.parametrize(
    ("declared", "parts", "message"),
    [
        (
            Int64,
            [pa.array([BIG, 1]), pa.array([1.5, 2.0])],
            "'x' of .*part-1.parquet is double .* read as int64: .*1.5",
        ),
        (Int64, [pa.array([float("inf")] * 2)], "'x' of .*part-0.parquet is double and cannot be read as int64"),
        (Int64, [pa.array([2**63, 1], pa.uint64()), pa.array([-1, 1])], "part-0.parquet is uint64 .* as int64"),
        (Bool, [pa.array([True, False]), pa.array([2, 1])], "part-1.parquet is int64 .* bool: 2 is neither true"),
        (Float64, [pa.array([BIG, 1]), pa.array([0.5, 2.0])], "'x' of .*part-0.parquet is int64 .* as double"),
        (Int64, [pa.array([1, 2]), pa.array(["1", "2"])], "int64 in .*part-0.parquet, string in .*part-1.parquet"),
    ],
)
def test_what_does_not_fit_says_where(tmp_path: Path, declared: Any, parts: list[pa.Array], message: str) -> None:
    """The column, the file and the two types are named; the file is not called damaged."""
    write(tmp_path / "view", [{"x": values} for values in parts])
    store = open_store(tmp_path, {"x": declared})
    for read in (
        lambda: asked(store, KEYS, "x").to_arrow(),
        lambda: store.materialize(T0 - timedelta(days=1), T0 + timedelta(days=1)),
    ):
        with pytest.raises(StorageError, match=message) as raised:
            read()
        assert "damaged" not in str(raised.value)


def test_keys_of_files_that_differ(tmp_path: Path) -> None:
    """A join key that pandas wrote as floating point still equals the integer."""
    write(tmp_path / "view", [{"x": pa.array([1, 2])}, {"x": pa.array([3, 4])}], [[BIG, 5], [6.0, NAN]])
    store = open_store(tmp_path, {"x": Int64}, key=ValueType.INT64)
    assert asked(store, [6, BIG, 2**53], "x").to_arrow()["x"].to_pylist() == [3, 1, None]
    store.materialize(T0 - timedelta(days=1), T0 + timedelta(days=1))
    assert store.get_online_features(["view:x"], {"content_id": [BIG, 6, 5]}).to_dict()["x"] == [1, 3, 2]


def test_types_without_a_declaration() -> None:
    assert read_type([pa.int64(), pa.float64()]) == pa.float64()
    assert read_type([pa.null(), pa.int32(), pa.int64()]) == pa.int64()
    assert read_type([pa.null()]) == pa.null()
    assert common_type([pa.decimal128(10, 2), pa.decimal128(12, 4)]) == pa.decimal128(12, 4)
    assert read_type([pa.int64()], pa.float64()) == pa.int64(), "files that agree keep their type"
    with pytest.raises(pa.ArrowException):
        read_type([pa.string(), pa.int64()])


def test_lists_of_slices_are_converted() -> None:
    lists = pa.array([[1.0, 2.0], None, [NAN], [], [4.0]], pa.list_(pa.float64())).slice(1, 4)
    assert convert(lists, pa.list_(pa.int64())).to_pylist() == [None, [None], [], [4]]


# The same instant, 2026-02-03T04:05:06.000007Z, in every form that sources have.
INSTANT = datetime(2026, 2, 3, 4, 5, 6, 7, UTC)
SECONDS = 1_770_091_506


@pytest.mark.parametrize(
    ("values", "right"),
    [
        (pa.array(["2026-02-03T04:05:06.000007Z", None]), INSTANT),
        (pa.array(["2026-02-03 04:05:06.000007", None]), INSTANT),
        (pa.array(["2026-02-03T05:05:06.000007+01:00", None]), INSTANT),
        (pa.array(["2026-02-03", None], pa.large_string()), datetime(2026, 2, 3, tzinfo=UTC)),
        (pa.array([SECONDS, None]), INSTANT.replace(microsecond=0)),
        (pa.array([SECONDS, None], pa.int32()), INSTANT.replace(microsecond=0)),
        (pa.array([SECONDS * 1000, None]), INSTANT.replace(microsecond=0)),
        (pa.array([SECONDS * 10**6 + 7, None]), INSTANT),
        (pa.array([SECONDS * 10**9 + 7999, None]), INSTANT),
        (pa.array([SECONDS + 0.5, NAN]), INSTANT.replace(microsecond=500_000)),
        (pa.array([-86400, None]), datetime(1969, 12, 31, tzinfo=UTC)),
        (pa.array([date(2026, 2, 3), None]), datetime(2026, 2, 3, tzinfo=UTC)),
    ],
)
def test_times_of_every_form(values: pa.Array, right: datetime) -> None:
    assert as_times(values).to_pylist() == [right, None]


@pytest.mark.parametrize("form", ["text", "seconds", "milliseconds", "date"])
def test_sources_with_other_times(tmp_path: Path, form: str) -> None:
    """Event and created times as text or numbers: history, the latest row and online are those of timestamps."""
    days = [T0 + timedelta(days=n) for n in range(3)]
    forms = {
        "text": [day.isoformat() for day in days],
        "seconds": [int(day.timestamp()) for day in days],
        "milliseconds": [int(day.timestamp()) * 1000 for day in days],
        "date": [day.date() for day in days],
    }
    rows = {"content_id": ["a", "a", "b"], "x": [1, 2, 3], "at": forms[form], "made": forms[form]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    source = FileSource(path="rows.parquet", timestamp_field="at", created_timestamp_column="made")
    store = open_store(tmp_path, {"x": Int64}, source)
    entity = pd.DataFrame({"content_id": ["a", "a", "b"], "event_timestamp": [days[0], days[1], days[1]]})
    assert store.get_historical_features(entity, ["view:x"]).to_arrow()["x"].to_pylist() == [1, 2, None]
    store.materialize(T0 - timedelta(days=1), days[2])
    assert store.get_online_features(["view:x"], {"content_id": ["a", "b"]}).to_dict()["x"] == [2, 3]


def test_a_text_that_is_no_time(tmp_path: Path) -> None:
    rows = {"content_id": ["a"], "x": [1], "at": ["yesterday"]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    store = open_store(tmp_path, {"x": Int64}, FileSource(path="rows.parquet", timestamp_field="at"))
    entity = pd.DataFrame({"content_id": ["a"], "event_timestamp": [T0]})
    with pytest.raises(StorageError, match="column 'at' of .*rows.parquet is string .* not a time .*yesterday"):
        store.get_historical_features(entity, ["view:x"]).to_arrow()


@pytest.mark.parametrize("path", ["view", "view/*/*/*.parquet", "view/**/*.parquet"])
def test_columns_of_folders(tmp_path: Path, path: str) -> None:
    """Hive's partition columns: as a feature, as a part of the key's row, and as the event time."""
    for market, day, keys in (("SE", "2026-01-01", ["a"]), ("a%2Fb c", "2026-01-02", ["a", "b"])):
        folder = tmp_path / "view" / f"market={market}" / f"day={day}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"content_id": keys, "x": list(range(len(keys)))}), folder / "rows.parquet")
    source = FileSource(path=path, timestamp_field="day")
    store = open_store(tmp_path, {"x": Int64, "market": String}, source)
    days = [T0, T0 + timedelta(days=1)]
    entity = pd.DataFrame({"content_id": ["a", "a", "b", "b"], "event_timestamp": days * 2})
    found = store.get_historical_features(entity, ["view:x", "view:market"]).to_arrow()
    assert found["market"].to_pylist() == ["SE", "a/b c", None, "a/b c"]
    assert found["x"].to_pylist() == [0, 0, None, 1]
    store.materialize(T0 - timedelta(days=1), T0 + timedelta(days=2))
    assert store.get_online_features(["view:market"], {"content_id": ["a"]}).to_dict()["market"] == ["a/b c"]
