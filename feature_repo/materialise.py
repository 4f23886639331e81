"""Materialising by part files: what the online store has not seen yet is written, whatever its event time.

Feast's own incremental materialisation filters on event time and so misses old, late and recomputed rows. Here a ledger
remembers the parts that were written; the keys that occur in new parts get their latest row over all parts, so an older
row can never replace a newer one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import ConfigError, StorageError
from core.features import FAMILIES, View, embedding_view
from core.keys import REMOVED
from core.storage import LocalStorage
from core.tables import Tables, latest_rows

BATCH_ROWS = 2_000  # rows turned into Feast's protocol buffers at a time
LEDGER = "feast/materialised.json"

Progress = Callable[[str, int, int], None]


def applied_views(store: Any) -> list[View]:
    """The views of the registry as `core.features` knows them."""
    families = {view.name: view for view in FAMILIES}
    found = []
    for feast_view in store.list_feature_views():
        if feast_view.name in families:
            found.append(families[feast_view.name])
        elif "__" in feast_view.name:
            view = embedding_view(feast_view.name.split("__")[0], "", 0)
            found.append(View(feast_view.name, view.entity, view.features, ""))
    return found


def unseen(root: Path, tables: Tables) -> bool:
    """Whether there are parts that no materialisation has seen."""
    ledger = _ledger(LocalStorage(root))
    seen = {path for paths in ledger.values() for path in paths}
    return any(e.path not in seen for e in tables.storage.entries("offline") if e.path.endswith(".parquet"))


def materialise(store: Any, root: Path, progress: Progress | None = None) -> dict[str, int]:
    """Writes what is new online; returns rows written by view. Repeat it to resume: the ledger is written after the
    rows, and writing them again changes nothing. Raises `StorageError`."""
    storage = LocalStorage(root)
    tables = Tables(storage)
    ledger = _ledger(storage)
    written = {}
    for view in applied_views(store):
        parts = [part.path for part in tables.parts(view)]
        new = [path for path in parts if path not in set(ledger.get(view.name, ()))]
        if not new:
            continue
        keys = pc.unique(tables.read(view, [view.entity], new)[view.entity])
        rows = _latest(tables, view, keys)
        dead = pc.equal(rows[WORK_KEY], REMOVED)
        _forget(store, view, rows.filter(dead)[view.entity].to_pylist())
        alive = rows.filter(pc.invert(dead))
        _write(store, view, alive, progress)
        written[view.name] = alive.num_rows
        ledger[view.name] = parts
        storage.write(LEDGER, json.dumps(ledger).encode())
    return written


def _latest(tables: Tables, view: View, keys: pa.Array) -> pa.Table:
    """The latest row of each key, over all parts."""
    order = tables.read(view, [view.entity, EVENT, CREATED])
    if len(keys) == len(pc.unique(order[view.entity])):
        return tables.latest(view)
    from pyarrow import dataset

    filesystem, root = tables.storage.arrow()
    paths = [f"{root}/{part.path}" for part in tables.parts(view)]
    found = dataset.dataset(paths, schema=view.schema, filesystem=filesystem, format="parquet")
    chosen = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    return latest_rows(found.to_table(filter=pc.field(view.entity).isin(chosen)), view.entity)


def _write(store: Any, view: View, rows: pa.Table, progress: Progress | None) -> None:
    from feast.utils import _convert_arrow_to_proto

    feast_view = store.get_feature_view(view.name)
    keys = {column.name: column.dtype.to_value_type() for column in feast_view.entity_columns}
    provider = store._get_provider()
    for start in range(0, rows.num_rows, BATCH_ROWS):
        batch = rows.slice(start, BATCH_ROWS).combine_chunks()
        # Feast reads times as naive UTC; its converters make floats of nullable integers unless they see Arrow.
        for name in (EVENT, CREATED):
            column = pc.cast(batch[name], pa.timestamp("us"))
            batch = batch.set_column(batch.schema.get_field_index(name), name, column)
        try:
            protos = _convert_arrow_to_proto(batch.combine_chunks(), feast_view, keys)
            _unstamp(store, view, batch[view.entity].to_pylist())
            provider.online_write_batch(store.config, feast_view, protos, None)
        except OSError as error:
            raise StorageError(f"cannot write {view.name} to the online store: {error}") from error
        if progress:
            progress(view.name, batch.num_rows, rows.num_rows)


def remove_online(store: Any, content_ids: Sequence[str]) -> None:
    """Deletes the online rows of these contents from every view of contents."""
    for view in applied_views(store):
        if view.entity == "content_id":
            _forget(store, view, content_ids)


def _forget(store: Any, view: View, keys: Iterable[str]) -> None:
    keys = list(keys)
    if not keys:
        return
    from feast.infra.online_stores.sqlite import SqliteOnlineStore
    from feast.infra.online_stores.sqlite import _table_id as table_id

    online = store._get_provider().online_store
    feast_view = store.get_feature_view(view.name)
    entity_keys = [_entity_key(view.entity, key) for key in keys]
    if isinstance(online, SqliteOnlineStore):
        connection = online._get_conn(store.config)
        name = table_id(store.config.project, feast_view).replace('"', '""')
        with connection:
            connection.executemany(f'DELETE FROM "{name}" WHERE entity_key = ?', [(key,) for key in entity_keys])
        return
    from feast.infra.online_stores.helpers import _mmh3

    if not _is_redis(online):
        raise ConfigError(f"removal is not written for the online store {type(online).__name__}")
    fields = [f"_ts:{view.name}", *(_mmh3(f"{view.name}:{feature.name}") for feature in view.features)]
    _delete_fields(store, entity_keys, fields)


def _unstamp(store: Any, view: View, keys: Sequence[str]) -> None:
    """Forgets the event times that Redis holds of these keys: it drops a row of an equal instant, such as one computed
    again. The rows to be written are the latest already."""
    if _is_redis(store._get_provider().online_store):
        _delete_fields(store, [_entity_key(view.entity, key) for key in keys], [f"_ts:{view.name}"])


def _is_redis(online: Any) -> bool:
    return any(kind.__name__ == "RedisOnlineStore" for kind in type(online).__mro__)  # without importing redis


def _delete_fields(store: Any, entity_keys: Sequence[bytes], fields: Sequence[str | bytes]) -> None:
    client = store._get_provider().online_store._get_client(store.config.online_store)
    project = store.config.project.encode()
    with client.pipeline(transaction=False) as pipeline:
        for key in entity_keys:
            pipeline.hdel(key + project, *fields)
        pipeline.execute()


def _entity_key(entity: str, value: str) -> bytes:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    proto = EntityKey(join_keys=[entity], entity_values=[Value(string_val=value)])
    return bytes(serialize_entity_key(proto, entity_key_serialization_version=3))


def _ledger(storage: LocalStorage) -> dict[str, list[str]]:
    try:
        return dict(json.loads(storage.read(LEDGER)))
    except FileNotFoundError:
        return {}
