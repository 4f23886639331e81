"""Earmark's offline store for Feast: Parquet part files, joined point-in-time by keys first and features after.

In `feature_store.yaml`: `offline_store: {type: feature_repo.plugins.offline.EarmarkOfflineStore}`. What is not here
(monitoring, logging) is Feast's DuckDB store's, and so are sources that are no Parquet files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from feast import FeatureView, FileSource
from feast.data_format import ParquetFormat
from feast.errors import RequestDataNotFoundInEntityDfException
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.utils import compute_non_entity_date_range
from pydantic import PositiveInt, StrictStr, field_validator

from core.errors import ConfigError
from feature_repo.plugins.column_types import arrow_types, plain_type
from feature_repo.plugins.entities import TIME, Entities, QueryEntities, Settings, TableEntities
from feature_repo.plugins.history import Budget, Join
from feature_repo.plugins.jobs import EarmarkRetrievalJob, Surroundings
from feature_repo.plugins.logs import write_logs
from feature_repo.plugins.parquet import read_layout
from feature_repo.plugins.push import push_rows
from feature_repo.plugins.queries import HistoryQuery, PullQuery, ViewPlan, in_force_until
from feature_repo.plugins.sources import Parts, resolve, work_key_column

_SIZE = re.compile(r"([0-9.]+)\s*([kmgt]?i?b)", re.IGNORECASE)
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def size_bytes(text: str) -> int:
    """Bytes of a size such as `512MB` or `4GiB`. Raises `ConfigError`."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"{text!r} is no size of memory; write it like 512MB or 4GiB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


class EarmarkOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """`memory_limit`: what the keys of a join may hold before the join spills to `temp_directory` (default: a quarter
    of the machine's memory). `batch_rows`: entity rows joined at a time where a result is streamed."""

    type: StrictStr = "feature_repo.plugins.offline.EarmarkOfflineStore"
    memory_limit: str | None = None
    temp_directory: str | None = None
    batch_rows: PositiveInt = 262_144

    @field_validator("memory_limit")
    @classmethod
    def _is_size(cls, value: str | None) -> str | None:
        if value is not None:
            size_bytes(value)
        return value

    @property
    def budget(self) -> Budget:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = size_bytes(self.memory_limit) if self.memory_limit else memory // 4
        return Budget(limit, self.memory_limit, self.temp_directory)


class EarmarkOfflineStore(DuckDBOfflineStore):
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
        """The features as each entity row saw them. `entity_df`: a pandas or Polars frame, an Arrow table, a DuckDB
        query, or None for every key and time of the first view from `start_date` to `end_date`, both inclusive.

        Raises `ConfigError` for entity rows that cannot be joined; what concerns files is raised when rows are asked
        for.
        """
        if any(not is_parquet(view.batch_source) for view in feature_views):
            return DuckDBOfflineStore.get_historical_features(
                config, feature_views, feature_refs, entity_df, registry, project, full_feature_names,
                filter_by_created_timestamp,
            )  # fmt: skip
        plans = tuple(
            view_plan(view, feature_refs, full_feature_names, filter_by_created_timestamp) for view in feature_views
        )
        if entity_df is None:
            start_date, end_date = compute_non_entity_date_range(feature_views, start_date, end_date)
            entities: Entities = _seen(config, plans[0], start_date, end_date)
        else:
            entities = _entities(entity_df, config.offline_store)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        for view in on_demand:
            for name in view.get_request_data_schema():
                if name not in entities.names:
                    raise RequestDataNotFoundInEntityDfException(feature_name=name, feature_view_name=view.name)

        def metadata() -> RetrievalMetadata:
            keys = [name for name in entities.names if name != entities.time]
            return RetrievalMetadata(list(feature_refs), keys, *entities.bounds())

        query = HistoryQuery(entities, plans, str(config.repo_path), config.offline_store.budget)
        return EarmarkRetrievalJob(query, _around(config), on_demand, full_feature_names, metadata)

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
        """The latest row of each key with start <= event <= end, none later than the present, in file order: it is what
        Feast materialises."""
        end_date = in_force_until(end_date)
        if not is_parquet(data_source):
            return DuckDBOfflineStore.pull_latest_from_table_or_query(
                config, data_source, join_key_columns, feature_name_columns, timestamp_field,
                created_timestamp_column, start_date, end_date,
            )  # fmt: skip
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
        """All rows with start <= event <= end, in file order."""
        if not is_parquet(data_source):
            return DuckDBOfflineStore.pull_all_from_table_or_query(
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
        """Adds the rows as one new part; older files stay as they are. Raises `ConfigError` naming a column that does
        not fit."""
        source = feature_view.batch_source
        if not is_parquet(source):
            DuckDBOfflineStore.offline_write_batch(config, feature_view, table, progress)
            return
        push_rows(source, str(config.repo_path), table)
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(config: Any, data: Any, source: Any, logging_config: Any, registry: Any) -> None:
        """Adds logged rows (an Arrow table, or the path of Parquet files) to the folder of their destination, which is
        made where it does not exist."""
        write_logs(data, logging_config.destination, str(config.repo_path))

    def validate_data_source(self, config: Any, data_source: Any) -> None:
        """Raises `StorageError` where there are no files, `ConfigError` where they lack the source's times."""
        if not is_parquet(data_source):
            super().validate_data_source(config, data_source)
            return
        names = [name for name, _ in _columns(config, data_source)]
        own = {mapped: name for name, mapped in data_source.field_mapping.items()}
        for column in filter(None, (data_source.timestamp_field, data_source.created_timestamp_column)):
            if own.get(column, column) not in names:
                raise ConfigError(f"source {data_source.name} has no column {column!r}; it has {', '.join(names)}")

    def get_table_column_names_and_types_from_data_source(
        self, config: Any, data_source: Any
    ) -> Iterable[tuple[str, str]]:
        """Columns of the newest file, from its footer. A column of Earmark's own (`WORK_KEY_TAG`) is left out: it is
        no feature, and `push` fills it in."""
        if not is_parquet(data_source):
            return super().get_table_column_names_and_types_from_data_source(config, data_source)
        mark = work_key_column(data_source, config.repo_path)
        return [(name, kind) for name, kind in _columns(config, data_source) if name != mark]


def is_parquet(source: Any) -> bool:
    if not isinstance(source, FileSource):
        return False
    return source.file_format is None or isinstance(source.file_format, ParquetFormat)


def view_plan(view: Any, feature_refs: Sequence[str], full_names: bool, by_created: bool) -> ViewPlan:
    """How a view is read: Feast names keys, times and features after the source's field mapping; files before it."""
    source = view.batch_source
    own = {mapped: name for name, mapped in source.field_mapping.items()}
    prefix, shown = f"{view.projection.name_to_use()}:", view.projection.name_alias or view.name
    features = dict.fromkeys(ref.removeprefix(prefix) for ref in feature_refs if ref.startswith(prefix))
    keys = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
    mapped = view.projection.join_key_map or {}
    created = source.created_timestamp_column or None
    join = Join(
        view=shown,
        keys=tuple((own.get(key, key), mapped.get(key, key)) for key in keys),
        event=own.get(source.timestamp_field, source.timestamp_field),
        created=own.get(created, created) if created else None,
        ttl=view.ttl,
        by_created=by_created,
        declared={own.get(name, name): kind for name, kind in arrow_types([*view.entity_columns, *view.features])},
    )
    return ViewPlan(
        source, join, tuple((own.get(name, name), f"{shown}__{name}" if full_names else name) for name in features)
    )


def _entities(rows: Any, store: EarmarkOfflineStoreConfig) -> Entities:
    if isinstance(rows, str):
        return QueryEntities(rows, Settings(store.memory_limit, store.temp_directory))
    table = TableEntities.of(rows)
    if table is None:
        raise ConfigError(
            f"entity rows are a pandas or Polars frame, an Arrow table or a SQL query, not {type(rows).__name__}"
        )
    return table


def _seen(config: Any, plan: ViewPlan, start: datetime, end: datetime) -> TableEntities:
    """Every distinct key and time of a view in a span of time, as entity rows in the order of the files."""
    keys = tuple(own for own, _ in plan.join.keys)
    columns = tuple(dict.fromkeys((*keys, plan.join.event)))
    found = PullQuery(plan.source, keys, columns, plan.join.event, None, start, end, False, str(config.repo_path))
    rows = found.table().rename_columns([*(column for _, column in plan.join.keys), TIME])
    return TableEntities(rows.group_by(rows.column_names, use_threads=False).aggregate([]))


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
    query = PullQuery(source, tuple(keys), columns, event, created or None, start, end, latest, str(config.repo_path))
    return EarmarkRetrievalJob(query, _around(config))


def _around(config: Any) -> Surroundings:
    store = config.offline_store
    return Surroundings(
        str(config.repo_path), store.batch_rows, store.staging_location, store.staging_location_endpoint_override
    )


def _columns(config: Any, source: Any) -> list[tuple[str, str]]:
    parts = resolve(source, config.repo_path)
    newest = read_layout(Parts(parts.filesystem, parts.files[-1:], parts.uri))
    return [(field.name, str(plain_type(field.type))) for field in newest.schemas[0]]
