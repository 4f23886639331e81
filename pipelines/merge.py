"""Several Parquet parts of a view as one, in bounded memory: the keys of all rows, the features a piece at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.contracts import CREATED, EVENT
from core.features import View
from core.tables import ROW_GROUP_ROWS
from feature_repo.plugins.parquet import Group, Layout, plain_type

ROW_GROUP_BYTES = 32 << 20  # of decoded columns, where rows are so wide that ROW_GROUP_ROWS of them would be more
BATCH_BYTES = 8 << 20  # decoded at a time
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Merged:
    """The merged part: its Parquet bytes, its rows, how many duplicates it leaves out, and the newest created time."""

    data: bytes
    rows: int
    duplicates: int
    created: datetime


def merge(layout: Layout, view: View, metadata: Mapping[str, str]) -> Merged:
    """All rows of `layout` in file order, but for duplicates; `metadata` is written into the file's footer.

    Rows are duplicates where key, event and created time are equal. Readers take the last of them in file order, so
    that one stays. Columns that some files lack are null there; a column that `view` does not have stays. Raises
    `StorageError` for a damaged file and for columns that cannot agree.
    """
    keep, created = _keep(layout, view)
    schema = _schema(layout, view)
    strings = [field.name for field in schema if pa.types.is_string(field.type)]
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink, schema.with_metadata(dict(metadata)), compression="zstd", use_dictionary=strings
    ) as writer:
        for table in _row_groups(layout, schema, keep):
            writer.write_table(
                table.replace_schema_metadata(writer.schema.metadata),
                row_group_size=min(ROW_GROUP_ROWS, view.group_rows),
            )
    return Merged(sink.getvalue(), int(keep.sum()), int(keep.size - keep.sum()), created)


def _keep(layout: Layout, view: View) -> tuple[np.ndarray, datetime]:
    """Which rows stay (bool), and the newest created time (1970 where there is no row)."""
    types = layout.types([view.entity, EVENT, CREATED])
    pieces = [batch for group in layout.groups for _, batch in layout.batches(group, types, 1 << 17)]
    table = pa.Table.from_batches(pieces, pa.schema(list(types.items())))
    keys = table[view.entity].combine_chunks().dictionary_encode().indices
    columns = [_micros(table[CREATED]), _micros(table[EVENT]), np.asarray(pc.fill_null(keys, -1))]
    order = np.lexsort(columns)  # stable: equal rows stay in file order
    last = np.ones(table.num_rows, bool)
    if table.num_rows:
        last[:-1] = np.any([column[order[1:]] != column[order[:-1]] for column in columns], axis=0)
    keep = np.empty(table.num_rows, bool)
    keep[order] = last
    keep |= columns[2] < 0  # a row without a key duplicates nobody's
    return keep, EPOCH + timedelta(microseconds=int(columns[0].max(initial=0)))


def _micros(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    ticks = whole.cast(pa.timestamp("us", tz=whole.type.tz), safe=False).cast(pa.int64())
    return np.asarray(pc.fill_null(ticks, np.iinfo(np.int64).min))


def _schema(layout: Layout, view: View) -> pa.Schema:
    """The view's own columns as it declares them, then what files have beside them."""
    names = [n for n in view.schema.names if n in layout.names] + [
        n for n in layout.names if n not in view.schema.names
    ]
    fields = []
    for name, kind in layout.types(names).items():
        if name in view.schema.names and plain_type(view.schema.field(name).type) == kind:
            kind = view.schema.field(name).type
        lacking = any(name not in schema.names or schema.field(name).nullable for schema in layout.schemas)
        fields.append(pa.field(name, kind, nullable=lacking))
    return pa.schema(fields)


def _row_groups(layout: Layout, schema: pa.Schema, keep: np.ndarray) -> Iterator[pa.Table]:
    """The rows that stay, as tables that make a row group each."""
    types = layout.types(schema.names)
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for group in layout.groups:
        for first, batch in layout.batches(group, types, _batch_rows(layout, group)):
            chosen = keep[first : first + batch.num_rows]
            batch = batch if chosen.all() else batch.filter(pa.array(chosen))
            if held and (rows + batch.num_rows > ROW_GROUP_ROWS or size + batch.nbytes > ROW_GROUP_BYTES):
                yield pa.Table.from_batches(held).cast(schema)
                held, rows, size = [], 0, 0
            held.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
    if rows:
        yield pa.Table.from_batches(held).cast(schema)


def _batch_rows(layout: Layout, group: Group) -> int:
    size = layout.footers[group.file].row_group(group.number).total_byte_size
    return max(256, min(ROW_GROUP_ROWS, BATCH_BYTES * group.rows // max(size, 1)))
