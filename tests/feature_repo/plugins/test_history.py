from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ConfigError, StorageError
from feature_repo.plugins.entities import TableEntities
from feature_repo.plugins.gather import gather
from feature_repo.plugins.history import Budget, Join, locate
from feature_repo.plugins.parquet import read_layout
from feature_repo.plugins.queries import HistoryQuery, ViewPlan
from feature_repo.plugins.sources import resolve

T0 = datetime(2026, 1, 1, tzinfo=UTC)
PLENTY = Budget(1 << 30)
NOTHING = Budget(0, memory_limit="64MB")  # everything spills
US = pa.timestamp("us", "UTC")


def at(minutes: float | None) -> datetime | None:
    return None if minutes is None else T0 + timedelta(minutes=minutes)


def reference(
    rows: list[dict[str, Any]],
    entities: list[dict[str, Any]],
    keys: list[tuple[str, str]],
    ttl: timedelta | None,
    by_created: bool,
) -> list[int]:
    """For each entity row the number of the feature row it sees, or -1: the definition, word by word."""
    found = []
    for entity in entities:
        best, best_order = -1, None
        for number, row in enumerate(rows):
            if any(row[own] is None or row[own] != entity[column] for own, column in keys):
                continue
            if row["event"] is None or entity["event_timestamp"] is None:
                continue
            if row["event"] > entity["event_timestamp"]:
                continue
            if ttl and row["event"] < entity["event_timestamp"] - ttl:
                continue
            if by_created and (row["created"] is None or row["created"] > entity["event_timestamp"]):
                continue
            order = (row["event"], row["created"] or datetime.min.replace(tzinfo=UTC), number)
            if best_order is None or order > best_order:
                best, best_order = number, order
        found.append(best)
    return found


def write(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema, files: int) -> FileSource:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.parquet"):
        old.unlink()
    bounds = np.linspace(0, len(rows), files + 1).astype(int)
    for number, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False)):
        pq.write_table(pa.Table.from_pylist(rows[a:b], schema), folder / f"part-{number:03d}.parquet", row_group_size=7)
    return FileSource(path=str(folder), timestamp_field="event", created_timestamp_column="created")


SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("shard", pa.int32()),
        ("event", US),
        ("created", US),
        ("number", pa.int64()),
        ("word", pa.string()),
        ("flag", pa.bool_()),
        ("vector", pa.list_(pa.float32())),
        ("tags", pa.list_(pa.string())),
        ("when", US),
    ]
)
minutes = st.one_of(st.none(), st.integers(0, 12))
names = st.one_of(st.none(), st.sampled_from(["a", "b", "", "long name 🎧", "nul\0inside"]))
feature_row = st.fixed_dictionaries(
    {
        "name": names,
        "shard": st.one_of(st.none(), st.integers(-1, 1)),
        "event": minutes.map(at),
        "created": minutes.map(at),
        "number": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        "word": st.one_of(st.none(), st.sampled_from(["", "x", "ü\0🎧"])),
        "flag": st.one_of(st.none(), st.booleans()),
        "vector": st.one_of(st.none(), st.lists(st.integers(0, 9).map(float), min_size=2, max_size=2)),
        "tags": st.one_of(st.none(), st.lists(st.one_of(st.none(), st.sampled_from(["p", "q"])), max_size=3)),
        "when": minutes.map(at),
    }
)
entity_row = st.fixed_dictionaries(
    {"who": names, "shard": st.one_of(st.none(), st.integers(-1, 1)), "event_timestamp": minutes.map(at)}
)
ENTITY_SCHEMA = pa.schema([("who", pa.string()), ("shard", pa.int64()), ("event_timestamp", US)])
KEYS: list[list[tuple[str, str]]] = [[], [("name", "who")], [("shard", "shard")], [("name", "who"), ("shard", "shard")]]
FEATURES = ["number", "word", "flag", "vector", "tags", "when"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(feature_row, max_size=25),
    entities=st.lists(entity_row, max_size=12),
    keys=st.sampled_from(KEYS),
    ttl=st.one_of(st.none(), st.integers(0, 6)),
    by_created=st.booleans(),
    files=st.integers(1, 3),
)
def test_the_join_is_the_definition(
    tmp_path: Path, rows: Any, entities: Any, keys: Any, ttl: int | None, by_created: bool, files: int
) -> None:
    life = None if ttl is None else timedelta(minutes=ttl)
    layout = read_layout(resolve(write(tmp_path / "view", rows, SCHEMA, files), None))
    table = pa.Table.from_pylist(entities, ENTITY_SCHEMA)
    join = Join("view", tuple(keys), "event", "created", life, by_created)
    index = locate(layout, join, table, "event_timestamp", PLENTY)
    expected = reference(rows, entities, keys, life, by_created)
    assert index.tolist() == expected
    found = gather(layout, index, FEATURES)
    for name in FEATURES:
        assert found[name].to_pylist() == [None if i < 0 else rows[i][name] for i in expected], name
        found[name].validate(full=True)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(feature_row, min_size=1, max_size=25),
    entities=st.lists(entity_row, min_size=1, max_size=12),
    keys=st.sampled_from(KEYS),
    ttl=st.one_of(st.none(), st.integers(0, 6)),
    by_created=st.booleans(),
)
def test_spilling_finds_the_same_rows(
    tmp_path: Path, rows: Any, entities: Any, keys: Any, ttl: int | None, by_created: bool
) -> None:
    life = None if ttl is None else timedelta(minutes=ttl)
    layout = read_layout(resolve(write(tmp_path / "view", rows, SCHEMA, 2), None))
    table = pa.Table.from_pylist(entities, ENTITY_SCHEMA)
    join = Join("view", tuple(keys), "event", "created", life, by_created)
    index = locate(layout, join, table, "event_timestamp", NOTHING)
    assert index.tolist() == reference(rows, entities, keys, life, by_created)


@pytest.mark.slow
@pytest.mark.parametrize("by_created", [False, True])
def test_spilling_at_size(tmp_path: Path, by_created: bool) -> None:
    """Two million feature rows under a limit that they do not fit in: both ways give the same rows."""
    rng = np.random.default_rng(7)
    count, keys = 2_000_000, 200_000
    event = rng.integers(0, 1_000, count) * 1_000_000
    rows = pa.table(
        {
            "name": pa.array(rng.integers(0, keys, count)),
            "event": pa.array(event, US),
            "created": pa.array(event + rng.integers(-5, 5, count) * 1_000_000, US),
        }
    )
    (tmp_path / "view").mkdir()
    pq.write_table(rows, tmp_path / "view" / "a.parquet")
    layout = read_layout(resolve(FileSource(path=str(tmp_path / "view"), timestamp_field="event"), None))
    entities = pa.table(
        {
            "who": pa.array(rng.integers(0, keys + 10, 100_000)),
            "event_timestamp": pa.array(rng.integers(-10, 1_010, 100_000) * 1_000_000, US),
        }
    )
    join = Join("view", (("name", "who"),), "event", "created", timedelta(seconds=300), by_created)
    limit = Budget(0, memory_limit="100MB", temp_directory=str(tmp_path / "spill"))
    spilled = locate(layout, join, entities, "event_timestamp", limit)
    assert (locate(layout, join, entities, "event_timestamp", PLENTY) == spilled).all()
    assert (spilled >= 0).mean() > 0.5


def one_view(tmp_path: Path, rows: pa.Table, entities: pa.Table, **changed: Any) -> pa.Table:
    """The features `value` of `rows` for `entities`, both with a key `k`."""
    (tmp_path / "one").mkdir(exist_ok=True)
    pq.write_table(rows, tmp_path / "one" / "a.parquet")
    source = FileSource(path=str(tmp_path / "one"), timestamp_field="event")
    options = {"ttl": None, "by_created": False, "created": None} | changed
    join = Join(view="one", keys=(("k", "k"),), event="event", **options)
    query = HistoryQuery(TableEntities(entities), (ViewPlan(source, join, (("value", "value"),)),), ".", PLENTY)
    return query.table()


def times(*values: int, unit: str = "us", tz: str | None = "UTC") -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp(unit, tz))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("entity_unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("tz", [None, "UTC", "America/New_York"])
def test_units_and_zones(tmp_path: Path, unit: str, entity_unit: str, tz: str | None) -> None:
    """Stored values are UTC instants whatever the zone is called."""
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    rows = pa.table(
        {"k": ["a", "a"], "event": times(100 * per[unit], 200 * per[unit], unit=unit, tz=tz), "value": [1, 2]}
    )
    asked = [99, 100, 199, 200, 300]
    entities = pa.table(
        {
            "k": ["a"] * 5,
            "event_timestamp": times(*(t * per[entity_unit] for t in asked), unit=entity_unit, tz=tz),
        }
    )
    found = one_view(tmp_path, rows, entities, ttl=timedelta(seconds=100))
    assert found["value"].to_pylist() == [None, 1, 1, 2, 2]


def test_nanoseconds_do_not_leak(tmp_path: Path) -> None:
    """Times of one microsecond compare exactly, whichever side has the nanoseconds."""
    rows = pa.table({"k": ["a"] * 2, "event": times(1_000_100, 1_000_900, unit="ns"), "value": [1, 2]})
    entities = pa.table({"k": ["a"] * 3, "event_timestamp": times(1_000_050, 1_000_500, 1_000_900, unit="ns")})
    assert one_view(tmp_path, rows, entities)["value"].to_pylist() == [None, 1, 2]
    coarse = pa.table({"k": ["a"], "event": times(1_000, unit="us"), "value": [1]})
    entities = pa.table({"k": ["a"] * 2, "event_timestamp": times(2_000_000, 2_000_001, unit="ns")})
    found = one_view(tmp_path, coarse, entities, ttl=timedelta(microseconds=1_000))
    assert found["value"].to_pylist() == [1, None]


def test_times_beyond_nanoseconds(tmp_path: Path) -> None:
    far = times(253_402_300_799_000_000, -62_135_596_800_000_000)  # the years 9999 and 1
    rows = pa.table({"k": ["a", "a"], "event": times(5, -5, unit="ns"), "value": [1, 2]})
    entities = pa.table({"k": ["a", "a"], "event_timestamp": far})
    assert one_view(tmp_path, rows, entities)["value"].to_pylist() == [1, None]


def test_old_events_are_seen_without_a_ttl(tmp_path: Path) -> None:
    rows = pa.table({"k": ["a"], "event": times(-(10**15)), "value": [1]})  # the year 1938
    entities = pa.table({"k": ["a"], "event_timestamp": times(10**15)})
    assert one_view(tmp_path, rows, entities)["value"].to_pylist() == [1]


def test_key_types(tmp_path: Path) -> None:
    def joined(own: pa.Array, asked: pa.Array) -> list[Any]:
        rows = pa.table({"k": own, "event": times(*range(len(own))), "value": list(range(len(own)))})
        entities = pa.table({"k": asked, "event_timestamp": times(*[99] * len(asked))})
        return one_view(tmp_path, rows, entities)["value"].to_pylist()

    assert joined(pa.array([1, 2], pa.int32()), pa.array([2, None, 1], pa.int64())) == [1, None, 0]
    # pandas makes floats of integers with nulls
    assert joined(pa.array([1, 2**53], pa.int64()), pa.array([1.0, None, 2.0**53, 1.5])) == [0, None, 1, None]
    assert joined(pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c"], pa.large_string())) == [1, None]
    assert joined(pa.array(["a", "b"], pa.large_string()), pa.array(["b", "a"]).dictionary_encode()) == [1, 0]
    assert joined(pa.array([True, False]), pa.array([False, None])) == [1, None]
    assert joined(pa.array([b"x", b"\0"]), pa.array([b"\0", b""])) == [1, None]
    assert joined(pa.array([0.0, float("nan")]), pa.array([-0.0, float("nan")])) == [0, None]
    assert joined(pa.array([2**63], pa.uint64()), pa.array([-(2**63)], pa.int64())) == [None]
    assert joined(pa.array(["a"]), pa.nulls(2)) == [None, None]
    assert joined(pa.array(["e\u0301"]), pa.array(["\u00e9"])) == [None], "ids are compared as they are, not normalised"
    with pytest.raises(ConfigError, match="'k' is int64 in the entity rows but string"):
        joined(pa.array(["1"]), pa.array([1]))


def test_many_keys_that_look_alike(tmp_path: Path) -> None:
    """Ids that share long prefixes, and every length around the eight bytes that are hashed at a time."""
    ids = [f"{'x' * n}{i}" for n in range(20) for i in range(500)]
    rng = np.random.default_rng(3)
    shuffled = [ids[i] for i in rng.permutation(len(ids))]
    rows = pa.table({"k": shuffled, "event": times(*[0] * len(ids)), "value": shuffled})
    entities = pa.table({"k": [*ids, "x", ""], "event_timestamp": times(*[1] * (len(ids) + 2))})
    assert one_view(tmp_path, rows, entities)["value"].to_pylist() == [*ids, None, None]


def test_long_histories_out_of_order(tmp_path: Path) -> None:
    """Histories of more than 64 rows are sorted another way."""
    rng = np.random.default_rng(5)
    rows = [
        {"name": name, "event": at(int(rng.integers(0, 60))), "created": at(int(rng.integers(0, 60))), "number": n}
        for n, name in enumerate(["a"] * 700 + ["b"] * 300)
    ]
    rng.shuffle(rows)  # type: ignore[arg-type]
    entities = [{"who": "ab"[i % 2], "event_timestamp": at(i % 70)} for i in range(200)]
    layout = read_layout(resolve(write(tmp_path / "view", rows, SCHEMA, 3), None))
    for by_created in (False, True):
        join = Join("view", (("name", "who"),), "event", "created", None, by_created)
        table = pa.Table.from_pylist(entities, ENTITY_SCHEMA)
        index = locate(layout, join, table, "event_timestamp", PLENTY)
        assert index.tolist() == reference(rows, entities, [("name", "who")], None, by_created)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    rows = pa.table({"k": ["a"], "event": times(0), "value": [1]})
    with pytest.raises(ConfigError, match="no column 'k', the join key of view one"):
        one_view(tmp_path, rows, pa.table({"event_timestamp": times(1)}))
    with pytest.raises(StorageError, match="no file of .* has a column 'value'"):
        one_view(tmp_path, rows.drop_columns(["value"]), pa.table({"k": ["a"], "event_timestamp": times(1)}))
    with pytest.raises(ConfigError, match="'value' of view one has the name of another column"):
        one_view(tmp_path, rows, pa.table({"k": ["a"], "value": [1], "event_timestamp": times(1)}))


def vectors(layout_folder: Path, table: pa.Table, index: list[int]) -> pa.ChunkedArray:
    layout_folder.mkdir(exist_ok=True)
    pq.write_table(table, layout_folder / "a.parquet", row_group_size=2)
    layout = read_layout(resolve(FileSource(path=str(layout_folder), timestamp_field="event"), None))
    found = gather(layout, np.array(index, np.int64), ["v"])["v"]
    found.validate(full=True)
    return found


def test_vectors_of_one_length_and_of_several(tmp_path: Path) -> None:
    index = [3, -1, 0, 0, 2, 1]
    for values in (
        [[1.0, 2.0], [3.0, 4.0], None, [5.0, 6.0]],
        [[1.0, 2.0], [3.0], None, []],
        [None, None, None, None],
        [[], [], [], []],
        [[1.0, None], [3.0, 4.0], None, [5.0, 6.0]],
    ):
        for kind in (pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float64())):
            found = vectors(tmp_path / "v", pa.table({"v": pa.array(values, kind)}), index)
            assert found.to_pylist() == [None if i < 0 else values[i] for i in index]
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0], None, [5.0, 6.0]], pa.list_(pa.float32(), 2))
    found = vectors(tmp_path / "v", pa.table({"v": fixed}), index)
    assert found.to_pylist() == [[5.0, 6.0], None, [1.0, 2.0], [1.0, 2.0], None, [3.0, 4.0]]
    assert len(found.chunk(0).values) == 8, "nothing lies behind the nulls"


def test_vectors_past_what_one_array_can_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_repo.plugins.gather.LIST_VALUES", 5)
    values = [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]]
    index = [3, -1, 0, 1, 2, 0, 3]
    found = vectors(tmp_path / "v", pa.table({"v": pa.array(values, pa.list_(pa.float32()))}), index)
    assert found.to_pylist() == [None if i < 0 else values[i] for i in index]
    assert found.num_chunks == 4


def test_text_past_what_one_array_can_point_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_repo.plugins.gather.TEXT_BYTES", 2_000)
    values = ["a" * 1_000, None, "b" * 1_000, "c"]
    index = [2, -1, 0, 1, 3, 0, 2] * 400
    found = vectors(tmp_path / "v", pa.table({"v": values}), index)
    assert found.to_pylist() == [None if i < 0 else values[i] for i in index]
    assert found.num_chunks > 1
