"""Point-in-time joins: Earmark's offline store, stock Feast's, and the best that we could write by hand.

All three start from the same pandas frame and end with an Arrow table. The hand-written ways keep no order of the
entity rows and know one view and one key; whichever of them is faster is the limit.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.frame import Benchmark, Row, cost

OURS = "feature_repo.plugins.offline.EarmarkOfflineStore"
STOCK = "duckdb"
START_US = 1_700_000_000_000_000
STEP_US = 3_600_000_000
SCALARS = 24
DIMENSIONS = 512
SMALL = "small"  # folder of a tiny case beside one whose memory is measured
US = pa.timestamp("us", "UTC")
PEER = "stock Feast's duckdb store"
LIMIT = "DuckDB ASOF and pyarrow, by hand"


class Case:
    """Feature rows of `keys` keys in `versions` versions each, and entity rows at random keys and times."""

    weighs = False  # whether memory is measured

    def __init__(self, name: str, entities: int, keys: int, versions: int, vector: bool) -> None:
        self.name, self.entities, self.keys, self.versions, self.vector = name, entities, keys, versions, vector

    @property
    def features(self) -> list[str]:
        return ["embedding"] if self.vector else [f"f{n:02d}" for n in range(SCALARS)]

    def build(self, root: Path) -> None:
        """Writes the feature file, the entity rows and an applied repository for each of the two stores."""
        rng = np.random.default_rng(17)
        file = root / "view" / "date=2026-01-01" / "part-0.parquet"
        file.parent.mkdir(parents=True)
        sink: Any = None
        for rows in np.array_split(rng.permutation(self.keys * self.versions), max(1, self.keys * self.versions >> 16)):
            key, version = rows % self.keys, rows // self.keys
            event = START_US + version * STEP_US + rng.integers(0, STEP_US, len(rows))
            columns: dict[str, Any] = {
                "track_id": pa.array([f"track-{k:012d}" for k in key]),
                "event_timestamp": pa.array(event, US),
                "created_timestamp": pa.array(event + 1_000_000, US),
            }
            if self.vector:
                values = rng.standard_normal(len(rows) * DIMENSIONS, np.float32)
                offsets = np.arange(0, len(values) + 1, DIMENSIONS, dtype=np.int32)
                columns["embedding"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
            else:
                columns |= {name: pa.array(rng.standard_normal(len(rows), np.float32)) for name in self.features}
            table = pa.table(columns)
            sink = sink or pq.ParquetWriter(file, table.schema, compression="zstd", use_dictionary=["track_id"])
            sink.write_table(table)
        sink.close()
        key = rng.integers(0, self.keys, self.entities)
        times = START_US + rng.integers(0, self.versions * STEP_US, self.entities)
        asked = pa.table(
            {"track_id": [f"track-{k:012d}" for k in key], "event_timestamp": pa.array(times, US)}
        ).append_column("label", pa.array(rng.standard_normal(self.entities, np.float32)))
        pq.write_table(asked, root / "entities.parquet")
        for kind in (OURS, STOCK):
            self._apply(root, kind)

    def _apply(self, root: Path, kind: str) -> None:
        import yaml
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
        from feast.types import Array, Float32, String

        home = repo(root, kind)
        home.mkdir()
        settings = {
            "project": "bench",
            "provider": "local",
            "registry": str(home / "registry.db"),
            "offline_store": {"type": kind},
            "online_store": {"type": "sqlite", "path": str(home / "online.db")},
            "entity_key_serialization_version": 3,
        }
        (home / "feature_store.yaml").write_text(yaml.safe_dump(settings))
        entity = Entity(name="track_id", join_keys=["track_id"], value_type=ValueType.STRING)
        kinds: Any = Array(Float32) if self.vector else Float32
        view = FeatureView(
            name="view",
            entities=[entity],
            ttl=timedelta(0),
            schema=[Field(name="track_id", dtype=String), *(Field(name=n, dtype=kinds) for n in self.features)],
            source=FileSource(
                path=str(root / "view" / "*" / "part-*.parquet"),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )
        FeatureStore(repo_path=str(home)).apply([entity, view])

    def sides(self, root: Path, only: str = "") -> dict[str, Callable[[], Any]]:
        """Each side's call, ready to run; with `only`, that side alone, so that nothing else is loaded."""
        frame = pq.read_table(root / "entities.parquet").to_pandas()
        made: dict[str, Callable[[], Callable[[], Any]]] = {
            "ours": lambda: through_feast(root, OURS, frame, self.features),
            "stock": lambda: through_feast(root, STOCK, frame, self.features),
            "gather": lambda: lambda: keys_then_gather(root, frame, self.features),
            "statement": lambda: lambda: one_statement(root, frame, self.features),
        }
        return {name: make() for name, make in made.items() if not only or name == only}


def repo(root: Path, kind: str) -> Path:
    return root / ("ours" if kind == OURS else "stock")


def through_feast(root: Path, kind: str, frame: Any, features: list[str]) -> Callable[[], Any]:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(repo(root, kind)))

    def call() -> pa.Table:
        return store.get_historical_features(frame, [f"view:{name}" for name in features]).to_arrow()

    return call


ASOF = """
    SELECT e.*, {columns} FROM entities e ASOF LEFT JOIN {features} f
    ON e.track_id = f.track_id AND e.event_timestamp >= f.event_timestamp
"""


def _connect(frame: Any) -> Any:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("entities", pa.Table.from_pandas(frame, preserve_index=False))
    return connection


def one_statement(root: Path, frame: Any, features: list[str]) -> pa.Table:
    """The whole join in one statement of DuckDB."""
    files = f"read_parquet('{root}/view/*/part-*.parquet')"
    with _connect(frame) as connection:
        sql = ASOF.format(columns=", ".join(f"f.{name}" for name in features), features=files)
        return connection.sql(sql).to_arrow_table()


def keys_then_gather(root: Path, frame: Any, features: list[str]) -> pa.Table:
    """DuckDB joins keys and times; pyarrow reads the feature columns and takes the rows."""
    path = str(next((root / "view").glob("*/part-*.parquet")))
    with _connect(frame) as connection:
        columns = "track_id, event_timestamp, file_row_number AS row"
        numbered = f"(SELECT {columns} FROM read_parquet('{path}', file_row_number=true))"
        joined = connection.sql(ASOF.format(columns="f.row", features=numbered)).to_arrow_table()
    found = pq.read_table(path, columns=features, partitioning=None).take(joined["row"])
    result = joined.drop_columns(["row"])
    for name in features:
        result = result.append_column(name, found[name])
    return result


def measure(case: Case, root: Path, rounds: int, stock_rounds: int) -> list[Row]:
    """CPU and wall of every side, in turn, and what memory ours and the limit take."""
    import statistics

    sides = case.sides(root)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    with quiet():
        check(sides)
        for number in range(rounds):
            for name, call in sides.items():
                if name != "stock" or number < stock_rounds:
                    times[name].append(cost(call))
    rows = []
    for at, unit in enumerate(("CPU s", "wall s")):
        middle = {name: statistics.median(found[at] for found in all_) for name, all_ in times.items()}
        best = min(("gather", "statement"), key=lambda name: middle[name])
        note = "the limit is " + {"gather": "ASOF on keys, then gather", "statement": "one ASOF statement"}[best]
        rows.append(
            Row(f"{case.name} {unit[:4].strip()}", middle["ours"], middle["stock"], middle[best], unit, PEER, LIMIT,
                note=note)
        )  # fmt: skip
        if at == 1 and case.weighs:
            peak = {name: child_peak(case, root, name) for name in ("ours", best)}
            rows.append(Row(f"{case.name} memory", peak["ours"], None, peak[best], "MiB", "", LIMIT, note=note))
    return rows


def check(sides: dict[str, Callable[[], pa.Table]]) -> None:
    """All sides answer the same, and are warm afterwards. Raises `AssertionError`."""
    seen = {}
    for name, call in sides.items():
        found = call()
        column = found.column(found.num_columns - 1)
        values = column.combine_chunks()
        flat = values.flatten() if pa.types.is_list(values.type) else values
        total = np.nansum(flat.to_numpy(zero_copy_only=False).astype(np.float64))
        seen[name] = (found.num_rows, column.null_count, round(float(total), 2))
    assert len({value[:2] for value in seen.values()}) == 1, seen
    assert max(v[2] for v in seen.values()) - min(v[2] for v in seen.values()) < 1, seen


def child_peak(case: Case, root: Path, side: str) -> float:
    """MiB that one call takes at its peak, in a process of its own, over what the process held before it."""
    about = [case.name, case.entities, case.keys, case.versions, case.vector]
    command = [sys.executable, "-m", "bench.feast_history", json.dumps(about), str(root), side]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def child(about: str, root: str, side: str) -> None:
    case = Case(*json.loads(about))
    call, small = case.sides(Path(root), side)[side], case.sides(Path(root) / SMALL, side)[side]
    with quiet():
        small()  # libraries and compiled kernels are not the join's
    Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the peak so far
    before = status("VmRSS")
    with quiet():
        kept = call()
    assert kept.num_rows
    print((status("VmHWM") - before) / 1024)


def status(name: str) -> int:
    """KiB of a figure that Linux keeps of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


@contextlib.contextmanager
def quiet() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def run(quick: bool) -> list[Row]:
    if quick:
        cases = [
            Case("100k-24-scalars", 100_000, 33_333, 3, False),
            Case("10k-512d", 10_000, 3_333, 3, True),
            Case("10k-512d-100-versions", 10_000, 300, 100, True),
        ]
    else:
        cases = [
            Case("1M-24-scalars", 1_000_000, 333_333, 3, False),
            Case("100k-512d", 100_000, 33_333, 3, True),
            Case("100k-512d-100-versions", 100_000, 3_000, 100, True),
        ]
    cases[-1].weighs = True
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory() as scratch:
            case.build(Path(scratch))
            if case.weighs:
                Case("small", 100, 100, 2, case.vector).build(Path(scratch) / SMALL)
            rows += measure(case, Path(scratch), 3 if quick else 5, 1 if quick or case.versions > 10 else 3)
    return rows


BENCHMARK = Benchmark("feast-history", "point-in-time joins by our offline store, stock Feast's and by hand", run)

if __name__ == "__main__":
    child(*sys.argv[1:])
