"""Feast's retrieval job over our Spark queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from feast import FileSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkRetrievalJob
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SavedDatasetSparkStorage
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession

from core.errors import ConfigError
from feature_repo.plugins.pandas_frames import exact_frame
from feature_repo.plugins.sources import locate
from feature_repo.plugins.spark.frames import is_parquet, uri_of
from feature_repo.plugins.spark.queries import SparkQuery
from feature_repo.plugins.spark.session import spark_errors


class EarmarkSparkRetrievalJob(SparkRetrievalJob):
    """Runs its query when asked for rows, each time anew. Entity rows keep their order.

    `to_spark_df` leaves the rows in Spark; `to_arrow` and `to_df` bring them to the driver as Arrow, never through
    pandas, which would make floats of integers with nulls. It makes no temporary views.
    """

    def __init__(
        self,
        session: SparkSession,
        query: SparkQuery,
        config: Any,
        on_demand: Sequence[Any] = (),
        full_feature_names: bool = False,
        metadata: Callable[[], RetrievalMetadata] | None = None,
    ) -> None:
        super().__init__(session, "", full_feature_names, config, list(on_demand))
        self._plan = query
        self._told = metadata
        self._metadata: RetrievalMetadata | None = None

    @property
    def metadata(self) -> RetrievalMetadata | None:
        if self._metadata is None and self._told:
            self._metadata = self._told()  # a query of entity rows must run to tell its bounds
        return self._metadata

    def to_spark_df(self) -> DataFrame:
        return self._plan.frame()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._plan.table()

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return exact_frame(self._plan.table())

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> Any:
        """The rows as a pandas frame with every value exact; see `exact_frame`."""
        return exact_frame(self.to_arrow(validation_reference=validation_reference, timeout=timeout))

    def persist(self, storage: Any, allow_overwrite: bool | None = False, timeout: int | None = None) -> None:
        """Writes the rows from Spark into a folder of Parquet files, in their order. Raises Feast's error where
        something is there and may not be overwritten, `StorageError` where Spark fails.

        `storage`: Feast's `SavedDatasetFileStorage`, or its Spark storage. The first is the one to take: Feast cannot
        read a dataset back that lies under the path of the second.
        """
        files = _files(storage)
        if files is None:
            super().persist(storage, allow_overwrite, timeout)
            return
        if self.on_demand_feature_views:
            raise ConfigError("a dataset with on-demand features is not saved by Spark; take to_arrow() and write that")
        repo = str(self._config.repo_path)
        place = locate(files, repo)
        there = place.filesystem.get_file_info(place.path).type != fs.FileType.NotFound
        if there and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=files.path)
        with spark_errors(f"saving the dataset to {files.path}"):
            self.to_spark_df().write.mode("overwrite").parquet(uri_of(files, repo))

    def to_remote_storage(self) -> list[str]:
        """Writes the rows as Parquet under the staging location; returns the files. Raises `ConfigError`."""
        if not self.supports_remote_storage_export():
            raise ConfigError("to_remote_storage needs a staging_location in the offline store's configuration")
        return sorted(path for path in super().to_remote_storage() if path.endswith(".parquet"))


def _files(storage: Any) -> FileSource | None:
    """Where a storage of Parquet files points; None for every other, whose rows are written Feast's own way."""
    if isinstance(storage, SavedDatasetSparkStorage):
        options = storage.spark_options
        plain = options.path and options.file_format in (None, "", "parquet") and not options.table_format
        return FileSource(path=options.path) if plain else None
    source = storage.to_data_source()
    return source if is_parquet(source) else None
