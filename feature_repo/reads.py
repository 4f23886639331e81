"""Reading features: online for a request, point-in-time for a training set."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import ConfigError, StorageError
from core.ids import Ids, key_list
from feature_repo.faults import registry_faults
from feature_repo.plugins.entities import TIME, TableEntities
from feature_repo.plugins.online.reader import OnlineReader
from feature_repo.plugins.online.response import FastReads


def online_features(
    store: Any, content_ids: Ids, service: str = "recommender", request: Mapping[str, Any] | None = None
) -> pa.Table:
    """The service's features of these contents, in their order: `content_id` and `<view>__<feature>` columns, null
    where there is no value. A single string is one id. `request` gives an on-demand service its inputs, a list of one
    value an id each.

    Any number of threads may read from one store.
    """
    keys = key_list(content_ids)
    chosen = _service(store, service)
    if not request and isinstance(store._get_provider().online_store, FastReads):
        return OnlineReader(store, chosen).read({"content_id": pa.array(keys, pa.string())}).table
    rows: list[dict[str, Any]] = [{"content_id": content_id} for content_id in keys]
    for name, values in (request or {}).items():
        for row, value in zip(rows, values, strict=True):
            row[name] = [float(v) for v in value]  # Feast refuses lists that mix integers and floats
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = store.get_online_features(features=chosen, entity_rows=rows, full_feature_names=True)
    found = answer.to_dict()
    names = ["content_id", *(name for name in found if name != "content_id")]
    return pa.table({name: pa.array(found[name]) for name in names})


def features_of(root: Path, content_ids: Ids, service: str = "recommender") -> pa.Table:
    """`online_features` of the store in the folder `root`, without importing Feast where that is possible. Raises what
    `open_store` and `online_features` raise."""
    from feature_repo.served import read_online, save_services
    from feature_repo.store import open_store

    found = read_online(root, key_list(content_ids), service)
    if found is None:
        store = open_store(root)
        found = online_features(store, content_ids, service)
        with contextlib.suppress(StorageError):  # a store that may only be read answers all the same
            save_services(store, root)
    return found


def training_set(store: Any, entities: Any, service: str = "recommender") -> pa.Table:
    """Point-in-time join: the service's features as they were known at each row's `event_timestamp`.

    `entities`: an Arrow table, a pandas or a Polars frame with `content_id` and `event_timestamp` (naive is taken as
    UTC); other columns pass through. The rows keep their order. Raises `ConfigError` for a missing column.
    """
    names = entities.column_names if isinstance(entities, pa.Table) else entities.columns
    for column in ("content_id", TIME):
        if column not in names:
            raise ConfigError(f"the entity rows have no column {column!r}")
    rows = TableEntities.of(entities)
    if rows is None:
        raise ConfigError(f"entity rows are an Arrow table or a data frame, not {type(entities).__name__}")
    table = rows.table()
    times = pc.cast(table[TIME], pa.timestamp("us", "UTC"), safe=False)
    table = table.set_column(table.column_names.index(TIME), TIME, times)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return store.get_historical_features(
            entity_df=table, features=_service(store, service), full_feature_names=True
        ).to_arrow()


def _service(store: Any, name: str) -> Any:
    """The feature service, from Feast's registry. Raises `StorageError` where the registry is damaged or lacks it."""
    with registry_faults(Path(str(store.repo_path)).parent):
        return store.get_feature_service(name, allow_cache=True)
