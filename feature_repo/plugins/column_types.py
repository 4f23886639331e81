"""Types of a source's columns: the one that a column is read as, and the conversion to it, which is exact or an error.

Files of one source need not agree. pandas writes an integer column with nulls as floating point with NaN, an older file
may have a narrower type, and event times may be text or a number since 1970. The type that the feature view declares
decides; without a declaration it is the type that holds the values of all files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

INSTANT = pa.timestamp("us", "UTC")
# Numbers since 1970 are seconds, and from these magnitudes on milliseconds, microseconds and nanoseconds. Read as
# seconds, the first is in the year 5138.
EPOCH_LIMITS = (10**11, 10**14, 10**17)
PER_SECOND = (1, 10**3, 10**6, 10**9)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without the layouts that mean the same: dictionaries, large and view strings, lists of fixed size."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type))
    return kind


def common_type(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """The type that holds the values of all `kinds`, which are plain. Raises `pyarrow.ArrowException`."""
    times = [kind for kind in kinds if pa.types.is_timestamp(kind)]
    if len({kind.tz for kind in times}) > 1:  # a time without a zone is UTC (DESIGN, time)
        kinds = [pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) else kind for kind in kinds]
    schemas = [pa.schema([("column", kind)]) for kind in kinds]
    return plain_type(pa.unify_schemas(schemas, promote_options="permissive").field(0).type)


def read_type(kinds: Sequence[pa.DataType], declared: pa.DataType | None = None, is_time: bool = False) -> pa.DataType:
    """The type to read a column as whose files have the plain types `kinds`.

    `declared` is the feature view's type. `is_time` marks the columns of event and created times, which are read as
    instants whatever they are stored as. Raises `pyarrow.ArrowException` for types that do not fit together.
    """
    kinds = [kind for kind in kinds if not pa.types.is_null(kind)]
    if is_time:
        return _time_type(kinds)
    if not kinds:
        return pa.null() if declared is None else plain_type(declared)
    return (_declared_type(kinds, plain_type(declared)) if declared is not None else None) or common_type(kinds)


def _time_type(kinds: Sequence[pa.DataType]) -> pa.DataType:
    stamps = [kind for kind in kinds if pa.types.is_timestamp(kind)]
    if stamps and len(stamps) == len(kinds):
        return common_type(stamps)
    for kind in kinds:
        if not any(test(kind) for test in _READ_AS_TIME):
            raise pa.ArrowTypeError(f"{kind} is not a time")
    return pa.timestamp("ns", "UTC") if any(kind.unit == "ns" for kind in stamps) else INSTANT


_READ_AS_TIME: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_string,
    pa.types.is_integer,
    pa.types.is_floating,
)


def _declared_type(kinds: Sequence[pa.DataType], declared: pa.DataType) -> pa.DataType | None:
    """The declared type where it decides over what the files have; None where the files' own types may stay."""
    if pa.types.is_list(declared) and all(pa.types.is_list(kind) for kind in kinds):
        return pa.list_(read_type([kind.value_type for kind in kinds], declared.value_type))
    numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds)
    if pa.types.is_integer(declared) and numbers and any(pa.types.is_floating(kind) for kind in kinds):
        return common_type([declared, *(kind for kind in kinds if pa.types.is_integer(kind))])
    if pa.types.is_boolean(declared) and any(not pa.types.is_boolean(kind) for kind in kinds):
        rest = [kind for kind in kinds if not pa.types.is_boolean(kind)]
        if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in rest):
            return declared
    texts = all(pa.types.is_string(kind) or pa.types.is_binary(kind) for kind in kinds)
    if pa.types.is_string(declared) and texts and len(kinds) > 1:
        return declared
    dated = all(pa.types.is_timestamp(kind) or pa.types.is_date(kind) for kind in kinds)
    if pa.types.is_timestamp(declared) and dated and any(pa.types.is_date(kind) for kind in kinds):
        return _time_type(kinds)
    return None


def convert(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """The column as `kind`, a type of `read_type`. NaN is null in integers and booleans.

    Raises `pyarrow.ArrowException` naming a value that `kind` cannot hold exactly.
    """
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if column.type == kind:
        return column
    if pa.types.is_list(kind) and _is_list(column.type):
        return _convert_list(column, kind)
    if pa.types.is_timestamp(kind):
        return as_times(column, kind)
    if pa.types.is_floating(column.type) and (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_boolean(kind) and not pa.types.is_boolean(column.type):
        numbers = pc.cast(column, pa.int64())
        other = pc.filter(numbers, pc.invert(pc.is_in(numbers, pa.array([0, 1, None], pa.int64()))))
        if len(other):
            raise pa.ArrowInvalid(f"{other[0]} is neither true (1) nor false (0)")
        return pc.cast(numbers, kind)
    return pc.cast(column, kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _convert_list(column: pa.Array, kind: pa.DataType) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if ends[-1] >= 2**31:
        raise pa.ArrowInvalid("a piece of a file has more than 2**31 - 1 values of lists")
    values = convert(column.flatten(), kind.value_type)  # those of null lists are left out
    mask = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), values, type=kind, mask=mask)


def as_times(column: Any, kind: pa.DataType = INSTANT) -> Any:
    """Times of any form as `kind`: timestamps, dates, ISO 8601 text, numbers since 1970 (see `EPOCH_LIMITS`).

    A time without a zone is UTC. Raises `pyarrow.ArrowException`.
    """
    if pa.types.is_date(column.type):
        return pc.cast(pc.cast(column, pa.timestamp("s")), kind)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pc.cast(_parsed(column), kind)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return pc.cast(_since_epoch(column), kind)
    return pc.cast(column, kind)


def _parsed(column: Any) -> pa.Array:
    import pandas as pd

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    try:
        parsed = pd.to_datetime(pd.Series(column.to_pylist(), dtype="object"), utc=True, format="ISO8601")
    except ValueError as error:
        raise pa.ArrowInvalid(f"not a time in ISO 8601: {str(error).split(', at position')[0]}") from error
    return pa.array(parsed, from_pandas=True)


def _since_epoch(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_floating(column.type):
        values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
        valid = np.isfinite(values)
        if (~valid & ~np.isnan(values)).any():
            raise pa.ArrowInvalid("an infinite number is not a time")
        values = np.where(valid, values, 0.0)
    else:
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        values = pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(zero_copy_only=False)
    scale = np.array(PER_SECOND)[np.searchsorted(EPOCH_LIMITS, np.abs(values), side="right")]
    whole = np.floor_divide(values, scale).astype(np.int64)
    rest = (
        np.rint((values - whole * scale) * (10**6 / scale))
        if values.dtype.kind == "f"
        else ((values - whole * scale) * 10**6 // scale)
    )
    return pa.array(whole * 10**6 + rest.astype(np.int64), INSTANT, mask=~valid)


def differing(kinds: dict[pa.DataType, str]) -> str:
    """Types and a file of each, for a message."""
    return ", ".join(f"{kind} in {path}" for kind, path in kinds.items())


def arrow_types(fields: Sequence[Any]) -> Iterator[tuple[str, pa.DataType]]:
    """Name and Arrow type of Feast fields; a type that Arrow has no one type for is left out."""
    from feast.types import from_feast_to_pyarrow_type

    for field in fields:
        try:
            yield field.name, plain_type(from_feast_to_pyarrow_type(field.dtype))
        except (ValueError, AssertionError):
            continue
