"""Earmark's offline store on Spark: the rows of `feature_repo.plugins.offline` for the same entity rows.

In `feature_store.yaml`: `offline_store: {type: feature_repo.plugins.spark.store.EarmarkSparkOfflineStore}`. Sources are
Feast's `SparkSource` of any kind, or the `FileSource` that the embedded profile has. Batch feature views, whose
transformation runs in Spark, and monitoring are Feast's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from feast import FeatureView, FileSource
from feast.errors import RequestDataNotFoundInEntityDfException
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkOfflineStore, SparkOfflineStoreConfig
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.utils import compute_non_entity_date_range
from pydantic import StrictStr

from core.errors import ConfigError
from feature_repo.plugins.column_types import plain_type
from feature_repo.plugins.logs import write_logs
from feature_repo.plugins.offline import view_plan
from feature_repo.plugins.parquet import read_layout
from feature_repo.plugins.push import push_rows
from feature_repo.plugins.queries import in_force_until
from feature_repo.plugins.sources import Parts, resolve, work_key_column
from feature_repo.plugins.spark.conversion import spark_type
from feature_repo.plugins.spark.frames import as_files, is_parquet
from feature_repo.plugins.spark.jobs import EarmarkSparkRetrievalJob
from feature_repo.plugins.spark.queries import HistoryQuery, PullQuery, seen_in_span
from feature_repo.plugins.spark.rows import EntityRows, FrameRows, rows_of
from feature_repo.plugins.spark.session import session_of


class EarmarkSparkOfflineStoreConfig(SparkOfflineStoreConfig):
    """Feast's own options: `spark_conf`, `staging_location` (of `to_remote_storage` alone), `region`."""

    type: StrictStr = "feature_repo.plugins.spark.store.EarmarkSparkOfflineStore"


class EarmarkSparkOfflineStore(SparkOfflineStore):
    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The features as each entity row saw them. `entity_df`: a pandas frame, an Arrow table, a Spark DataFrame, a
        query in Spark's SQL, or None for every key and time of the first view from `start_date` to `end_date`, both
        inclusive.

        Raises `ConfigError` for entity rows that cannot be joined; what concerns files is raised when rows are asked
        for.
        """
        if not all(_is_ours(view) for view in feature_views):
            return SparkOfflineStore.get_historical_features(
                config, feature_views, feature_refs, entity_df, registry, project, full_feature_names,
                filter_by_created_timestamp, start_date=start_date, end_date=end_date,
            )  # fmt: skip
        session, repo = session_of(config.offline_store), str(config.repo_path)
        plans = tuple(
            view_plan(view, feature_refs, full_feature_names, filter_by_created_timestamp) for view in feature_views
        )
        if entity_df is None:
            start_date, end_date = compute_non_entity_date_range(feature_views, start_date, end_date)
            entities: EntityRows = FrameRows(seen_in_span(session, plans[0], start_date, end_date, repo))
        else:
            entities = rows_of(session, entity_df)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        for view in on_demand:
            for name in view.get_request_data_schema():
                if name not in entities.types:
                    raise RequestDataNotFoundInEntityDfException(feature_name=name, feature_view_name=view.name)

        def metadata() -> RetrievalMetadata:
            keys = [name for name in entities.types if name != entities.time]
            return RetrievalMetadata(list(feature_refs), keys, *entities.bounds())

        query = HistoryQuery(session, entities, plans, repo)
        return EarmarkSparkRetrievalJob(session, query, config, on_demand, full_feature_names, metadata)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None,
        end_date: datetime | None,
    ) -> RetrievalJob:
        """The latest row of each key with start <= event <= end, none later than the present, in file order when it is
        collected."""
        end_date = in_force_until(end_date)
        return _pull(
            config, data_source, join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column,
            start_date, end_date, latest=True,
        )  # fmt: skip

    @staticmethod
    def pull_all_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows with start <= event <= end, in file order when they are collected. Without names of features: all
        columns, which is how Feast asks for the input of a transformation."""
        if not _is_read(data_source):
            return SparkOfflineStore.pull_all_from_table_or_query(
                config, data_source, join_key_columns, feature_name_columns, timestamp_field,
                created_timestamp_column, start_date, end_date,
            )  # fmt: skip
        return _pull(
            config, data_source, join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column,
            start_date, end_date, latest=False,
        )  # fmt: skip

    @staticmethod
    def offline_write_batch(
        config: Any, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Adds the rows as one new part; older files stay as they are, and no Spark job is run for it. Raises
        `ConfigError` naming a column that does not fit."""
        source = feature_view.batch_source
        if not is_parquet(source):
            SparkOfflineStore.offline_write_batch(config, feature_view, table, progress)
            return
        push_rows(as_files(source), str(config.repo_path), table)
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(config: Any, data: Any, source: Any, logging_config: Any, registry: Any) -> None:
        """As the embedded store does; no Spark job is run for it."""
        write_logs(data, logging_config.destination, str(config.repo_path))

    def validate_data_source(self, config: Any, data_source: Any) -> None:
        """Raises `StorageError` where there are no files, `ConfigError` where they lack the source's times. Needs no
        session for files."""
        if not is_parquet(data_source):
            super().validate_data_source(config, data_source)
            return
        names = list(_types(config, data_source))
        own = {mapped: name for name, mapped in data_source.field_mapping.items()}
        for column in filter(None, (data_source.timestamp_field, data_source.created_timestamp_column)):
            if own.get(column, column) not in names:
                raise ConfigError(f"source {data_source.name} has no column {column!r}; it has {', '.join(names)}")

    def get_table_column_names_and_types_from_data_source(
        self, config: Any, data_source: Any
    ) -> Iterable[tuple[str, str]]:
        """Columns of the newest file and the types that the source's own kind gives them, from the footer. A
        column of Earmark's own is left out: it is no feature, and `push` fills it in."""
        if not is_parquet(data_source):
            return super().get_table_column_names_and_types_from_data_source(config, data_source)
        mark = work_key_column(as_files(data_source), config.repo_path)
        types = {name: kind for name, kind in _types(config, data_source).items() if name != mark}
        if isinstance(data_source, FileSource):
            return [(name, str(kind)) for name, kind in types.items()]
        return [(name, spark_type(name, kind).simpleString()) for name, kind in types.items()]


def _is_ours(view: Any) -> bool:
    transformed = getattr(view, "feature_transformation", None) or getattr(view, "aggregations", None)
    return type(view) is FeatureView and not transformed and _is_read(view.batch_source)


def _is_read(source: Any) -> bool:
    return isinstance(source, SparkSource) or is_parquet(source)


def _types(config: Any, source: Any) -> dict[str, pa.DataType]:
    parts = resolve(as_files(source), config.repo_path)
    newest = read_layout(Parts(parts.filesystem, parts.files[-1:], parts.uri))
    return {field.name: plain_type(field.type) for field in newest.schemas[0]}


def _pull(
    config: Any,
    source: Any,
    keys: Sequence[str],
    features: Sequence[str],
    event: str,
    created: str | None,
    start: datetime | None,
    end: datetime | None,
    latest: bool,
) -> RetrievalJob:
    columns = tuple(dict.fromkeys([*keys, *features, event, *([created] if created else [])]))
    if not features and not latest:
        columns = ()
    session = session_of(config.offline_store)
    query = PullQuery(
        session, source, tuple(keys), columns, event, created or None, start, end, latest, str(config.repo_path)
    )
    return EarmarkSparkRetrievalJob(session, query, config)
