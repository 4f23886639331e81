"""Logged features: adds Parquet files to the folder of a logging destination."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast.infra.offline_stores.file_source import FileLoggingDestination
from pyarrow import dataset

from core.errors import ConfigError, StorageError
from feature_repo.plugins.sources import locate


def write_logs(data: pa.Table | Path, destination: Any, repo_path: str) -> None:
    """Adds rows (a table, or Parquet files in `data`) to the destination's folder, in folders `<column>=<value>` where
    it is partitioned; a relative path starts at `repo_path`. Raises `ConfigError`, `StorageError`."""
    if not isinstance(destination, FileLoggingDestination):
        raise ConfigError(f"logged features go to a FileLoggingDestination, not a {type(destination).__name__}")
    place = locate(destination.to_data_source(), repo_path)
    try:
        rows = data if isinstance(data, pa.Table) else pq.read_table(data)
        missing = [name for name in destination.partition_by or () if name not in rows.column_names]
        if missing:
            raise ConfigError(f"logged rows have no column {missing[0]!r}, by which their destination is partitioned")
        dataset.write_dataset(
            rows,
            place.path,
            filesystem=place.filesystem,
            format="parquet",
            basename_template=f"{uuid.uuid4().hex}-{{i}}.parquet",
            partitioning=destination.partition_by or None,
            partitioning_flavor="hive" if destination.partition_by else None,
            existing_data_behavior="overwrite_or_ignore",  # names are new, so nothing is overwritten
            create_dir=True,
        )
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"cannot write logged features to {destination.path}: {error}") from error
