"""Arrow tables as pandas frames without loss: pandas' own conversion turns integers with nulls into floating point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


def exact_frame(table: pa.Table) -> pd.DataFrame:
    """The table as a frame. Integers with nulls have pandas' nullable integer types (a null is `pd.NA`); lists of
    integers with nulls are object arrays (a null is None). Everything else is as `pyarrow.Table.to_pandas` makes it.
    """
    frame = table.to_pandas()
    for at, column in enumerate(table.columns):
        series = _exact(column)
        if series is not None:
            frame.isetitem(at, series)
    return frame


def _exact(column: pa.ChunkedArray) -> pd.Series | None:
    """None where pandas' own conversion keeps every value."""
    if pa.types.is_dictionary(column.type):
        return None  # becomes a categorical, which keeps its categories' type
    if column.type in NULLABLE:
        return column.to_pandas(types_mapper=NULLABLE.get) if column.null_count else None
    if _is_list(column.type) and _loses(column):
        return pd.Series([_objects(value) for value in column.to_pylist()], dtype="object")
    return None


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _loses(column: pa.ChunkedArray) -> bool:
    """Whether the innermost values of lists are integers and some are null."""
    kind = column.type
    while _is_list(kind):
        kind = kind.value_type
    if kind not in NULLABLE:
        return False
    chunks = list(column.chunks)
    while chunks and _is_list(chunks[0].type):
        chunks = [chunk.flatten() for chunk in chunks]
    return any(chunk.null_count for chunk in chunks)


def _objects(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    made = np.empty(len(value), dtype="object")
    for at, item in enumerate(value):
        made[at] = _objects(item)
    return made
