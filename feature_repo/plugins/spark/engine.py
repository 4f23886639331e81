"""Materialisation by part files with Spark: it reads and reduces the rows, and its workers write them online.

The ledger, and what is new by it, are `feature_repo.plugins.engine`'s: both engines go on from where the other stopped.
In `feature_store.yaml`: `batch_engine: {type: feature_repo.plugins.spark.engine.EarmarkSparkEngine}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from feast import FeatureView
from feast.infra.common.serde import SerializedArtifacts
from feast.infra.compute_engines.spark.compute import SparkComputeEngine, SparkComputeEngineConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from pydantic import NonNegativeInt, PositiveInt, StrictStr
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from core.errors import ConfigError
from feature_repo.plugins.engine import EarmarkEngine, Progress
from feature_repo.plugins.online.response import FastReads
from feature_repo.plugins.parquet import Layout
from feature_repo.plugins.part_rows import EVER_US, Work, encode
from feature_repo.plugins.sources import Parts, resolve
from feature_repo.plugins.spark.frames import as_files, column, is_parquet, read_layout_frame
from feature_repo.plugins.spark.queries import latest_rows
from feature_repo.plugins.spark.session import is_local, session_of, spark_errors

WRITE_ROWS = 4_096  # rows that a worker encodes and writes at a time


class EarmarkSparkEngineConfig(SparkComputeEngineConfig):
    """Feast's own options. The session is the offline store's, so `spark_conf` belongs there."""

    type: StrictStr = "feature_repo.plugins.spark.engine.EarmarkSparkEngine"  # type: ignore[assignment]
    partitions: NonNegativeInt = 0
    """Workers' tasks that write to Redis at the same time; 0 leaves it to Spark. SQLite has one writer."""
    write_rows: PositiveInt = WRITE_ROWS


class EarmarkSparkEngine(EarmarkEngine):
    """Earmark's engine for views over Parquet files, with Spark doing the work; other views go Feast's way on Spark."""

    def __init__(
        self,
        partitions: int = 0,
        write_rows: int = WRITE_ROWS,
        spark_conf: dict[str, str] | None = None,
        staging_location: str | None = None,
        region: str | None = None,
        **named: Any,
    ) -> None:
        super().__init__(**named)
        self._partitions, self._write_rows = partitions, write_rows

    @cached_property
    def _feast(self) -> SparkComputeEngine:
        return SparkComputeEngine(
            repo_config=self.repo_config, offline_store=self.offline_store, online_store=self.online_store
        )

    def _materialize_as_feast(self, registry: Any, task: Any, **named: Any) -> Any:
        session_of(self.repo_config.offline_store)  # Feast's engine would start one without the session's settings
        return self._feast._materialize_one(registry, task, **named)

    def get_historical_features(self, registry: Any, task: Any) -> Any:
        session_of(self.repo_config.offline_store)
        return self._feast.get_historical_features(registry, task)

    def takes(self, view: Any) -> bool:
        plain = type(view) is FeatureView and not getattr(view, "feature_transformation", None)
        return plain and is_parquet(view.batch_source) and isinstance(self.online_store, FastReads)

    def _parts(self, view: Any) -> Parts:
        return resolve(as_files(view.batch_source), self.repo_config.repo_path)

    def _write(
        self,
        layout: Layout,
        view: Any,
        work: Work,
        equal: bool,
        note: Callable[..., None] | None,
        progress: Progress | None,
    ) -> int:
        """In one job of Spark: the parts enter the ledger together when it is done. A job that is repeated after a
        failure finds the rows that it wrote online and leaves them."""
        written = 0
        if layout.rows:
            mark = work.mark if work.mark in layout.names else None
            wanted = [*work.keys, *work.times, *work.features, *([mark] if mark else [])]
            session = session_of(self.repo_config.offline_store)
            source = read_layout_frame(session, layout, wanted, work.declared, work.times)
            latest = latest_rows(_within(source.frame, work), work.keys, work.event, work.created)
            latest = self._spread(latest.select(*(column(name) for name in source.types)), is_local(session))
            written = self._send(latest, view, _Writer.of(self.repo_config, view, work, mark, equal, self._write_rows))
        if progress:
            progress(layout.rows)
        if note:
            note(range(len(layout.parts.files)))
        return written

    def _spread(self, rows: DataFrame, local: bool) -> DataFrame:
        """The rows in as many partitions as may write at a time."""
        if isinstance(self.online_store, SqliteOnlineStore):
            if not local:
                raise ConfigError("workers of a Spark cluster cannot write this machine's SQLite file; use Redis")
            return rows.repartition(1)  # one process writes at a time; two would wait for each other's lock
        return rows.repartition(self._partitions) if self._partitions else rows

    def _send(self, rows: DataFrame, view: Any, writer: _Writer) -> int:
        with spark_errors(f"materialising {view.name}"):
            written = rows.mapInArrow(writer, "written bigint").agg(F.sum("written")).collect()[0][0]
        return int(written or 0)


def _within(rows: DataFrame, work: Work) -> DataFrame:
    """The rows whose event time is in the span."""
    for bound, is_first in zip(work.span_us, (True, False), strict=True):
        if bound not in EVER_US:
            time = F.timestamp_micros(F.lit(bound))
            rows = rows.where(column(work.event) >= time if is_first else column(work.event) <= time)
    return rows


@dataclass(frozen=True)
class _Writer:
    """What a worker of Spark runs on its rows; it travels there and opens its own connection."""

    artifacts: SerializedArtifacts
    work: Work
    mark: str | None
    equal: bool
    rows: int

    @classmethod
    def of(cls, config: Any, view: Any, work: Work, mark: str | None, equal: bool, rows: int) -> _Writer:
        return cls(SerializedArtifacts.serialize(view, config), work, mark, equal, rows)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _, store, _, config = self.artifacts.unserialize()
        written = 0
        for batch in batches:
            for start in range(0, batch.num_rows, self.rows):
                rows = encode(batch.slice(start, self.rows), self.work, self.mark)
                written += store.write_rows(config, self.work.plan, rows, again=self.equal)
        yield pa.RecordBatch.from_pydict({"written": pa.array([written], pa.int64())})
