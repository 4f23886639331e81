"""Columns of files as the types that the embedded store reads them as (`column_types`), in Spark's expressions."""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_type

from core.errors import ConfigError
from feature_repo.plugins.column_types import EPOCH_LIMITS, PER_SECOND

# Parquet's unsigned integers as Spark reads them.
UNSIGNED: dict[pa.DataType, T.DataType] = {
    pa.uint8(): T.ShortType(),
    pa.uint16(): T.IntegerType(),
    pa.uint32(): T.LongType(),
    pa.uint64(): T.DecimalType(20, 0),
}
EXACT_IN_DOUBLE = 2**53


def spark_type(name: str, kind: pa.DataType) -> T.DataType:
    """Spark's type of a Parquet column. Raises `ConfigError` for one that it cannot read."""
    if kind in UNSIGNED:
        return UNSIGNED[kind]
    if pa.types.is_timestamp(kind):
        if kind.unit == "ns":
            raise ConfigError(f"column {name!r} has nanoseconds, which Spark does not read; write it in microseconds")
        return T.TimestampType()  # without a zone it is UTC, as the session is
    if pa.types.is_list(kind):
        return T.ArrayType(spark_type(name, kind.value_type))
    try:
        return from_arrow_type(kind)
    except Exception as error:  # pyspark raises several of its own
        raise ConfigError(f"column {name!r} is {kind}, which Spark does not read") from error


def converted(found: Column, have: pa.DataType, kind: pa.DataType, what: str) -> Column:
    """A column of type `have` as `kind`. A value that `kind` cannot hold exactly fails the job, naming `what`."""
    if have == kind or pa.types.is_null(kind):
        return found
    wanted = spark_type(what, kind)
    if pa.types.is_list(have) and pa.types.is_list(kind):
        return F.transform(found, lambda item: converted(item, have.value_type, kind.value_type, what))
    if pa.types.is_timestamp(kind):
        number = pa.types.is_integer(have) or pa.types.is_floating(have)
        return _since_epoch(found, pa.types.is_integer(have)) if number else found.cast(wanted)

    def exact(condition: Column, value: Column) -> Column:
        message = F.concat(F.lit(f"{what} is {have} and cannot be read as {kind}: "), found.cast("string"))
        return F.when(condition, value).when(found.isNotNull(), F.raise_error(message))

    if pa.types.is_floating(have) and (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        found = F.when(~F.isnan(found), found)
    if pa.types.is_boolean(kind):
        return exact(found.isin(0, 1), found == 1)
    if pa.types.is_floating(have) and pa.types.is_integer(kind):
        return exact(F.floor(found) == found, found.try_cast(wanted))
    if pa.types.is_integer(have) and pa.types.is_floating(kind):
        return exact(F.abs(found) <= EXACT_IN_DOUBLE, found.cast(wanted))
    return found.cast(wanted)


def _since_epoch(found: Column, is_whole: bool) -> Column:
    """Numbers since 1970 as instants, by the same magnitudes as `column_types`."""
    micros = found * (10**6 // PER_SECOND[0])
    for limit, per_second in zip(EPOCH_LIMITS, PER_SECOND[1:], strict=True):
        if per_second <= 10**6:
            scaled = found * (10**6 // per_second)
        else:  # the quotient of whole numbers, which `/` would compute in floating point
            divisor = F.lit(per_second // 10**6)
            scaled = F.call_function("div", found, divisor) if is_whole else F.floor(found / divisor)
        micros = F.when(F.abs(found) >= limit, scaled).otherwise(micros)
    return F.timestamp_micros(F.when(~F.isnan(found.cast("double")), F.round(micros)).cast("bigint"))
