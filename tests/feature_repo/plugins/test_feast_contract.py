"""What Feast expects of any offline store, online store and engine, asked of ours through Feast's own API.

The expected values are worked out here by slow and plain code. `GAPS` lists what a store does not do, with the reason;
such a case must fail, so that a gap that closes is noticed. A small core runs always, the rest with `make test-all`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
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
    FeatureNameCollisionError,
    FeatureServiceNotFoundException,
    FeatureViewNotFoundException,
    RequestDataNotFoundInEntityDfException,
)
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.transformation.pandas_transformation import PandasTransformation
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

from tests.feature_repo.plugins.online.conftest import REDIS, SQLITE
from tests.feature_repo.plugins.online.world import Redis, has_redis
from tests.feature_repo.plugins.test_column_types import open_store, write

exhaustive = pytest.mark.exhaustive
needs_redis = pytest.mark.skipif(not has_redis(), reason="needs redis-server (Debian's package of that name)")
STORES = ["sqlite", pytest.param("redis", marks=[needs_redis, exhaustive])]
US = pa.timestamp("us", "UTC")
T0 = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, LAST = T0 - timedelta(days=1), T0 + timedelta(days=30)

# (online store or "any", case) → why Earmark differs. A case is a test's name, with its parameter where it has some.
GAPS: dict[tuple[str, str], str] = {
    ("any", "test_types[Int64-list-nulls]"): "a null within a list of numbers has no form in Feast's Value message",
    ("any", "test_types[Bool-list-nulls]"): "a null within a list of booleans has no form in Feast's Value message",
}


@pytest.fixture(autouse=True)
def gap(request: pytest.FixtureRequest) -> None:
    call = getattr(request.node, "callspec", None)
    name = call.params.get("online", "any") if call else "any"
    case = request.node.name.replace(f"[{name}-", "[").replace(f"[{name}]", "")
    reason = GAPS.get((name, case)) or GAPS.get(("any", case))
    if reason:
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))


def hour(number: float) -> datetime:
    return T0 + timedelta(hours=number)


class Shop:
    """A repository: random histories of tracks (text key), listeners (number key) and of both, and a history without
    a key. `rows` are the rows of each view."""

    def __init__(self, root: Path, online: dict[str, Any], project: str = "shop") -> None:
        self.root = root
        self.rows: dict[str, list[dict[str, Any]]] = {}
        rng = np.random.default_rng(5)
        times = [(hour(float(e)), hour(float(e + c))) for e, c in rng.integers(0, 20, (300, 2))]
        tracks = [
            {"track_id": f"t{rng.integers(0, 12)}", "plays": int(rng.integers(0, 9)) or None, "title": f"title {n}"}
            for n in range(80)
        ]
        listeners = [{"listener": int(rng.integers(0, 9)), "hours": float(n)} for n in range(80)]
        both = [
            {"track_id": f"t{rng.integers(0, 4)}", "listener": int(rng.integers(0, 4)), "rating": n} for n in range(120)
        ]
        world = [{"temperature": n / 2} for n in range(6)]
        for name, rows in {"tracks": tracks, "listeners": listeners, "both": both, "world": world}.items():
            stamped = [r | {"at": e, "made": c} for r, (e, c) in zip(rows, times, strict=False)]
            # At a full tie any row would do; one answer is wanted here.
            keys = [tuple(v for k, v in r.items() if k in ("track_id", "listener", "at", "made")) for r in stamped]
            self.rows[name] = list(dict(zip(keys, stamped, strict=True)).values())
            pq.write_table(self._table(name, self.rows[name]), root / f"{name}.parquet")
        settings = {
            "project": project,
            "provider": "local",
            "registry": {"registry_type": "sql", "path": f"sqlite:///{root / 'registry.db'}"},
            "offline_store": {"type": "feature_repo.plugins.offline.EarmarkOfflineStore"},
            "online_store": online,
            "batch_engine": {"type": "feature_repo.plugins.engine.EarmarkEngine"},
            "entity_key_serialization_version": 3,
        }
        (root / "feature_store.yaml").write_text(yaml.safe_dump(settings))
        self.store = FeatureStore(repo_path=str(root))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.store.apply(self._objects())

    def _table(self, name: str, rows: list[dict[str, Any]]) -> pa.Table:
        table = pa.Table.from_pylist(rows)
        for column in ("at", "made"):
            table = table.set_column(table.column_names.index(column), column, table[column].cast(US))
        return table.rename_columns(["heard" if c == "hours" else c for c in table.column_names])

    def _objects(self) -> list[Any]:
        track = Entity(name="track", join_keys=["track_id"], value_type=ValueType.STRING)
        listener = Entity(name="listener", join_keys=["listener"], value_type=ValueType.INT64)
        source = {n: self._source(n) for n in self.rows}
        keys = {"track_id": Field(name="track_id", dtype=String), "listener": Field(name="listener", dtype=Int64)}

        def view(name: str, entities: list[Entity], ttl_hours: int, fields: dict[str, Any], batch: Any) -> FeatureView:
            schema = [keys[entity.join_key] for entity in entities]
            schema += [Field(name=field, dtype=kind) for field, kind in fields.items()]
            return FeatureView(
                name=name,
                entities=entities,
                ttl=timedelta(hours=ttl_hours),
                schema=schema,
                source=batch,
                tags={"t": name},
            )

        tracks = view(
            "tracks", [track], 0, {"plays": Int64, "title": String}, PushSource(name="p", batch_source=source["tracks"])
        )
        listeners = view("listeners", [listener], 0, {"hours": Float64}, source["listeners"])
        both = view("both", [track, listener], 5, {"rating": Int64}, source["both"])
        world = view("world", [], 0, {"temperature": Float64}, source["world"])
        asked = RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])
        scaled = OnDemandFeatureView(
            name="scaled",
            sources=[listeners, asked],
            schema=[Field(name="scaled_hours", dtype=Float64)],
            feature_transformation=PandasTransformation(udf=scale, udf_string=SCALE),
            mode="pandas",
        )
        logs = LoggingConfig(destination=FileLoggingDestination(path=str(self.root / "new" / "logs")))
        service = FeatureService(name="everything", features=[tracks, listeners, both, world], logging_config=logs)
        renamed = FeatureService(name="renamed", features=[tracks[["title"]].with_name("song")])
        return [track, listener, tracks, listeners, both, world, scaled, service, renamed]

    def _source(self, name: str) -> FileSource:
        mapping = {"heard": "hours"} if name == "listeners" else {}
        return FileSource(
            name=f"{name}_rows",
            path=f"{name}.parquet",
            timestamp_field="at",
            created_timestamp_column="made",
            field_mapping=mapping,
        )

    def seen(self, view: str, key: dict[str, Any], time: datetime, field: str, ttl_hours: float = 0) -> Any:
        """The value that a row sees, by reading all of them."""
        rows = [r for r in self.rows[view] if all(r[k] == v for k, v in key.items()) and r["at"] <= time]
        if ttl_hours:
            rows = [r for r in rows if r["at"] >= time - timedelta(hours=ttl_hours)]
        return max(rows, key=lambda r: (r["at"], r["made"]))[field] if rows else None


SCALE = """\
def scale(inputs):
    import pandas
    return pandas.DataFrame({"scaled_hours": inputs["hours"].astype("float64") * inputs["factor"]})
"""
_names: dict[str, Any] = {}
exec(SCALE, _names)  # Feast stores the text, and runs that
scale = _names["scale"]


def settings_of(name: str, root: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    if name == "sqlite":
        return {"type": SQLITE, "path": str(root / "online.db")}
    server = request.getfixturevalue("server")
    return {"type": REDIS, "connection_string": f"127.0.0.1:{server.port}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    started = Redis(tmp_path_factory.mktemp("server")).start()
    yield started
    started.kill()


@pytest.fixture(scope="module", params=STORES)
def online(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shop(online: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Materialised, and not changed by tests."""
    root = tmp_path_factory.mktemp("shop")
    made = Shop(root, settings_of(online, root, request))
    made.store.materialize(FIRST, LAST)
    return made


def asked_rows(count: int, seed: int = 11) -> pd.DataFrame:
    """Entity rows with unknown keys, null keys, repeats and times before every row."""
    rng = np.random.default_rng(seed)
    tracks = [None if rng.random() < 0.1 else f"t{rng.integers(0, 14)}" for _ in range(count)]
    frame = pd.DataFrame(
        {
            "track_id": tracks,
            "label": rng.random(count),
            "listener": rng.integers(0, 10, count),
            "event_timestamp": [hour(float(h)) for h in rng.integers(-3, 30, count)],
            "factor": rng.random(count),
        }
    )
    return pd.concat([frame, frame.head(5)], ignore_index=True)


def values(frame: pd.DataFrame, name: str) -> list[Any]:
    return [None if pd.isna(value) else value for value in frame[name]]


EVERYTHING = ["tracks:plays", "tracks:title", "listeners:hours", "both:rating", "world:temperature"]
TTL_HOURS = {"both": 5}
KEYS = {"tracks": ["track_id"], "listeners": ["listener"], "both": ["track_id", "listener"], "world": []}


@pytest.mark.parametrize("full_names", [False, True])
def test_history_is_point_in_time(shop: Shop, full_names: bool) -> None:
    rows = asked_rows(60)
    found = shop.store.get_historical_features(rows, EVERYTHING, full_feature_names=full_names).to_df()
    assert found["label"].tolist() == rows["label"].tolist(), "the rows keep their order and columns"
    for reference in EVERYTHING:
        view, field = reference.split(":")
        right = [
            shop.seen(view, {k: row[k] for k in KEYS[view]}, row["event_timestamp"], field, TTL_HOURS.get(view, 0))
            for row in rows.to_dict("records")
        ]
        assert values(found, f"{view}__{field}" if full_names else field) == right, reference
        assert len({str(v) for v in right}) > 3, "the question was worth asking"


@exhaustive
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", None])
def test_history_in_any_zone(shop: Shop, zone: str | None) -> None:
    rows = asked_rows(20)
    expected = shop.store.get_historical_features(rows, EVERYTHING[:2]).to_df()
    times = rows["event_timestamp"].dt.tz_convert(zone or "UTC")
    moved = rows.assign(event_timestamp=times if zone else times.dt.tz_localize(None))
    found = shop.store.get_historical_features(moved, EVERYTHING[:2]).to_df()
    assert values(found, "title") == values(expected, "title")


@exhaustive
def test_history_of_a_service_and_an_alias(shop: Shop) -> None:
    rows = asked_rows(20)
    whole = shop.store.get_historical_features(rows, shop.store.get_feature_service("everything")).to_df()
    by_name = shop.store.get_historical_features(rows, EVERYTHING).to_df()
    for reference in EVERYTHING:
        assert values(whole, reference.split(":")[1]) == values(by_name, reference.split(":")[1])
    service = shop.store.get_feature_service("renamed")
    named = shop.store.get_historical_features(rows, service, full_feature_names=True).to_df()
    assert values(named, "song__title") == values(by_name, "title")


def test_history_of_an_on_demand_view(shop: Shop) -> None:
    rows = asked_rows(20)
    found = shop.store.get_historical_features(rows, ["listeners:hours", "scaled:scaled_hours"]).to_df()
    right = [None if h is None else h * f for h, f in zip(values(found, "hours"), rows["factor"], strict=True)]
    assert values(found, "scaled_hours") == right
    with pytest.raises(RequestDataNotFoundInEntityDfException):
        shop.store.get_historical_features(rows.drop(columns="factor"), ["scaled:scaled_hours"])


@exhaustive
def test_history_refuses_names_that_collide(shop: Shop) -> None:
    view = shop.store.get_feature_view("tracks")
    shop.store.apply(FeatureService(name="twice", features=[view[["title"]].with_name(n) for n in ("one", "other")]))
    service = shop.store.get_feature_service("twice")
    with pytest.raises(FeatureNameCollisionError):
        shop.store.get_historical_features(asked_rows(3), service)
    with pytest.raises(FeatureViewNotFoundException):
        shop.store.get_historical_features(asked_rows(3), ["nothing:title"])


@exhaustive
def test_history_of_a_span(shop: Shop) -> None:
    found = shop.store.get_historical_features(features=["tracks:title"], start_date=hour(3), end_date=hour(9)).to_df()
    right = {(r["track_id"], r["at"]) for r in shop.rows["tracks"] if hour(3) <= r["at"] <= hour(9)}
    assert set(zip(found["track_id"], found["event_timestamp"], strict=True)) == right


@exhaustive
def test_saved_datasets_and_validation(shop: Shop) -> None:
    from feast.dqm.errors import ValidationFailed
    from feast.dqm.profilers.profiler import Profile, Profiler, ValidationReport

    class Bounds(Profile):
        def __init__(self, low: float, high: float) -> None:
            self.low, self.high = low, high

        def validate(self, df: pd.DataFrame) -> ValidationReport:
            return Report([f"{v}" for v in df["hours"].dropna() if not self.low <= v <= self.high])

        def to_proto(self) -> Any:
            raise NotImplementedError

    class Report(ValidationReport):
        def __init__(self, outside: list[str]) -> None:
            self.outside = outside

        @property
        def is_success(self) -> bool:
            return not self.outside

        @property
        def errors(self) -> list[Any]:
            return self.outside

    class BoundsProfiler(Profiler):
        def analyze_dataset(self, df: pd.DataFrame) -> Profile:
            return Bounds(df["hours"].min(), df["hours"].max())

        def to_proto(self) -> Any:
            raise NotImplementedError

    rows = asked_rows(30)
    job = shop.store.get_historical_features(rows, EVERYTHING)
    storage = SavedDatasetFileStorage(path=str(shop.root / "saved.parquet"))
    saved = shop.store.create_saved_dataset(job, "saved", storage, allow_overwrite=True)
    read = shop.store.get_saved_dataset("saved").to_df()
    assert len(read) == len(rows) and set(saved.features) == set(EVERYTHING)
    assert values(read.sort_values("hours"), "hours") == values(job.to_df().sort_values("hours"), "hours")
    reference = saved.as_reference(name="bounds", profiler=BoundsProfiler())
    shop.store.get_historical_features(rows, EVERYTHING).to_df(validation_reference=reference)
    profile = Bounds(-1, 0)
    reference._profile = profile
    with pytest.raises(ValidationFailed):
        shop.store.get_historical_features(rows, EVERYTHING).to_df(validation_reference=reference)


@exhaustive
def test_logged_features(shop: Shop) -> None:
    service = shop.store.get_feature_service("everything")
    rows = asked_rows(10)
    logs = shop.store.get_historical_features(rows, service, full_feature_names=True).to_arrow()
    for _ in range(2):
        shop.store.write_logged_features(logs, service)
    stored = pq.read_table(shop.root / "new" / "logs")
    assert stored.num_rows == 2 * logs.num_rows and "tracks__title" in stored.column_names


def online_rows(shop: Shop, features: Any, rows: Sequence[dict[str, Any]], **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = shop.store.get_online_features(features, list(rows), **options).to_dict()
    return found


PAIRS = [{"track_id": f"t{t}", "listener": n} for t, n in ((0, 0), (1, 3), (11, 8), (99, 1), (2, 77), (0, 0))]


def test_online_is_the_latest(shop: Shop) -> None:
    """Of every view, in the order asked, repeats and unknown keys included. A row that is older than its TTL, which
    stock Feast serves, is null, as it is offline."""
    found = online_rows(shop, [*EVERYTHING[:3], "both:rating"], PAIRS)
    for reference in [*EVERYTHING[:3], "both:rating"]:
        view, field = reference.split(":")
        now, ttl = datetime.now(UTC), TTL_HOURS.get(view, 0)
        right = [shop.seen(view, {k: row[k] for k in KEYS[view]}, now, field, ttl) for row in PAIRS]
        assert found[field] == right, reference


@exhaustive
def test_online_without_an_entity(shop: Shop) -> None:
    found = online_rows(shop, ["tracks:title", "world:temperature"], PAIRS)
    assert found["temperature"] == [shop.seen("world", {}, LAST, "temperature")] * len(PAIRS)


@exhaustive
def test_online_names_services_and_on_demand(shop: Shop) -> None:
    names = online_rows(shop, ["tracks:title"], PAIRS[:2], full_feature_names=True)
    assert set(names) == {"track_id", "tracks__title"} or set(names) == {"track_id", "listener", "tracks__title"}
    service = online_rows(shop, shop.store.get_feature_service("renamed"), PAIRS[:2], full_feature_names=True)
    assert service["song__title"] == names["tracks__title"]
    rows = [{"listener": n, "factor": 2.0} for n in range(3)]
    scaled = online_rows(shop, ["listeners:hours", "scaled:scaled_hours"], rows)
    assert scaled["scaled_hours"] == [None if h is None else 2 * h for h in scaled["hours"]]


@exhaustive
def test_online_and_offline_agree(shop: Shop) -> None:
    rows = pd.DataFrame(PAIRS).assign(event_timestamp=LAST)
    history = shop.store.get_historical_features(rows, EVERYTHING[:3]).to_df()
    found = online_rows(shop, EVERYTHING[:3], PAIRS)
    for name in ("plays", "title", "hours"):
        assert found[name] == values(history, name), name


@pytest.fixture
def own(online: str, request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    """A repository to change, not materialised, of a project of its own."""
    return Shop(tmp_path, settings_of(online, tmp_path, request), project=f"own_{tmp_path.name}")


@exhaustive
@pytest.mark.parametrize("to", [PushMode.ONLINE, PushMode.OFFLINE, PushMode.ONLINE_AND_OFFLINE])
def test_push(own: Shop, to: PushMode) -> None:
    frame = pd.DataFrame({"track_id": ["new"], "plays": [7], "title": ["pushed"], "at": [LAST], "made": [LAST]})
    key = [{"track_id": "new"}]
    rows = pd.DataFrame({"track_id": ["new", "new"], "event_timestamp": [LAST, LAST - timedelta(seconds=1)]})
    own.store.push("p", frame, to=to)
    expected = ["pushed"] if to != PushMode.OFFLINE else [None]
    assert online_rows(own, ["tracks:title"], key)["title"] == expected
    history = own.store.get_historical_features(rows, ["tracks:title"]).to_df()
    assert values(history, "title") == (["pushed", None] if to != PushMode.ONLINE else [None, None])


@exhaustive
def test_write_to_each_store(own: Shop) -> None:
    frame = pd.DataFrame({"listener": [500], "hours": [1.5], "at": [hour(2)], "made": [hour(2)]})
    own.store.write_to_online_store("listeners", frame)
    assert online_rows(own, ["listeners:hours"], [{"listener": 500}])["hours"] == [1.5]
    own.store.write_to_offline_store(
        "listeners", frame.rename(columns={"hours": "heard"})[["listener", "heard", "at", "made"]]
    )
    rows = pd.DataFrame({"listener": [500], "event_timestamp": [hour(3)]})
    assert values(own.store.get_historical_features(rows, ["listeners:hours"]).to_df(), "hours") == [1.5]


@exhaustive
def test_the_registry(own: Shop) -> None:
    store = own.store
    assert {view.name for view in store.list_feature_views()} == {"tracks", "listeners", "both", "world"}
    assert [view.name for view in store.list_on_demand_feature_views()] == ["scaled"]
    assert {e.name for e in store.list_entities()} >= {"track", "listener"}
    assert [v.name for v in store.list_feature_views(tags={"t": "both"})] == ["both"]
    view = store.get_feature_view("listeners")
    view.description = "how long they listen"
    store.apply(view)
    assert FeatureStore(repo_path=str(own.root)).get_feature_view("listeners").description == "how long they listen"
    store.delete_feature_service("everything")
    with pytest.raises(FeatureServiceNotFoundException):
        store.get_feature_service("everything")
    store.delete_feature_view("world")
    with pytest.raises(FeatureViewNotFoundException):
        store.get_feature_view("world")
    store.teardown()


@exhaustive
def test_incremental_materialisation(own: Shop) -> None:
    own.store.materialize_incremental(LAST)
    assert online_rows(own, ["tracks:title"], PAIRS[:3])["title"] == [
        own.seen("tracks", {"track_id": row["track_id"]}, LAST, "title") for row in PAIRS[:3]
    ]
    assert own.store.get_feature_view("tracks").most_recent_end_time is not None


MOMENT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
TYPES: dict[str, tuple[Any, list[Any]]] = {
    "Int32": (Int32, [1, -(2**31), 2**31 - 1]),
    "Int64": (Int64, [2**53 + 1, -(2**63), 0]),
    "Float32": (Float32, [0.5, -1.5, 0.0]),
    "Float64": (Float64, [0.1, 1e300, -0.0]),
    "String": (String, ["é 🎧", "", "x"]),
    "Bytes": (Bytes, [b"\x00\xff", b"", b"x"]),
    "Bool": (Bool, [True, False, True]),
    "UnixTimestamp": (UnixTimestamp, [MOMENT, MOMENT, T0]),
}


@exhaustive
@pytest.mark.parametrize("nulls", ["whole", "nulls"])
@pytest.mark.parametrize("form", ["scalar", "list"])
@pytest.mark.parametrize("name", TYPES)
def test_types(tmp_path: Path, name: str, form: str, nulls: str) -> None:
    """Every type through both stores, in the type that is declared."""
    kind, some = TYPES[name]
    column: list[Any] = [[v, v] for v in some] if form == "list" else list(some)
    if nulls == "nulls":
        column[1] = [some[0], None] if form == "list" and name in ("Int64", "Bool") else None
    arrow = {"UnixTimestamp": US, "Int32": pa.int32(), "Float32": pa.float32()}.get(name)
    typed = pa.array(column, (pa.list_(arrow) if form == "list" else arrow) if arrow else None)
    write(tmp_path / "view", [{"x": typed}], [["a", "b", "c"]])
    store = open_store(tmp_path, {"x": Array(kind) if form == "list" else kind})
    entity = pd.DataFrame({"content_id": ["a", "b", "c"], "event_timestamp": [T0] * 3})
    assert store.get_historical_features(entity, ["view:x"]).to_arrow()["x"].to_pylist() == column
    store.materialize(FIRST, LAST)
    found = store.get_online_features(["view:x"], {"content_id": ["a", "b", "c"]}).to_dict()["x"]
    assert found == column
