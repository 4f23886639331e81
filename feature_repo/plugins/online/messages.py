"""Values of Feast's rarer types (maps, structs, JSON, sets, UUIDs, decimals, nested lists).

Feast itself converts each value to a message, so the bytes and the accepted values are Feast's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import StorageError

# The fields of the `Value` message whose numbers can be exchanged where nothing is lost.
NUMBERS = ("int32_val", "int64_val", "double_val", "float_val")
NUMBER_LISTS = ("int32_list_val", "int64_list_val", "double_list_val", "float_list_val")


def message_type(dtype: Any) -> pa.DataType:
    """The Arrow type that `OnlineReader` returns for a feature of this Feast type."""
    from feast.types import from_feast_to_pyarrow_type

    try:
        return from_feast_to_pyarrow_type(dtype)
    except ValueError:  # types that Feast does not map to Arrow are returned as JSON
        return pa.string()


def serialized(column: pa.Array, value_type: str) -> list[bytes]:
    """The values as Feast writes them. Raises `ValueError` for what Feast cannot convert."""
    from feast.type_map import python_values_to_proto_values
    from feast.value_type import ValueType

    try:
        # Feast takes dictionaries for maps, and Arrow hands out pairs unless it is asked.
        plain = column.to_pylist(maps_as_pydicts="strict") if _has_maps(column.type) else column.to_numpy(False)
        values = python_values_to_proto_values(plain, ValueType[value_type])
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"Feast cannot convert it: {error}") from error
    return [value.SerializeToString() for value in values]


def _has_maps(kind: pa.DataType) -> bool:
    return pa.types.is_map(kind) or any(_has_maps(kind.field(number).type) for number in range(kind.num_fields))


def write_all(values: Sequence[bytes], out: np.ndarray, at: int, starts: np.ndarray, lengths: np.ndarray) -> int:
    """An encoder (see `values.Writer`) of values that are bytes already."""
    for row, value in enumerate(values):
        end = at + len(value)
        out[at:end] = np.frombuffer(value, np.uint8)
        starts[row], lengths[row] = at, len(value)
        at = end
    return at


def decode_messages(values: Sequence[bytes | None], arrow: pa.DataType) -> pa.Array:
    """Messages as an Arrow array of the type; null where there is nothing. Raises `StorageError`."""
    plain = [_plain(parse(data), arrow) for data in values]
    try:
        return pa.array(plain, arrow)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise StorageError(f"a value in the online store does not fit {arrow}: {error}") from error


def parse(data: bytes | None) -> Any:
    """A `Value` message. Raises `StorageError` for damaged bytes."""
    from feast.protos.feast.types.Value_pb2 import Value
    from google.protobuf.message import DecodeError

    try:
        return Value.FromString(data or b"")
    except DecodeError as error:
        raise StorageError(f"a value in the online store is damaged: {error}") from error


def _plain(message: Any, arrow: pa.DataType) -> Any:
    """The message as a Python value that Arrow accepts."""
    from feast.type_map import feast_value_type_to_python_type

    name = message.WhichOneof("val")
    if name in (None, "null_val"):
        return None
    if name in ("json_val", "uuid_val", "time_uuid_val", "decimal_val"):
        return getattr(message, name)
    if name.startswith(("json_list", "uuid_list", "time_uuid_list", "decimal_list")) or name.endswith("uuid_set_val"):
        return list(getattr(message, name).val)
    value = feast_value_type_to_python_type(message)
    return _fit(value, arrow)


def _fit(value: Any, arrow: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_map(arrow):
        return [(key, _fit(item, arrow.item_type)) for key, item in value.items()]
    if pa.types.is_struct(arrow):
        return {field.name: _fit(value.get(field.name), field.type) for field in arrow}
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        return [_fit(item, arrow.value_type) for item in value]
    if (pa.types.is_string(arrow) or pa.types.is_large_string(arrow)) and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, default=_jsonable) if _is_nested(value) else str(value)
    return value


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | set | bool)


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, set) else str(value)


def converted(message: Any, name: str) -> Any:
    """The number of a message that has another field than `name`, where that loses nothing but digits of a float:
    Feast writes whatever number it is given. Raises `StorageError`."""
    found = message.WhichOneof("val")
    value = getattr(message, found)
    try:
        if found in NUMBERS:
            return _number(value, name)
        if found in NUMBER_LISTS and name in NUMBER_LISTS:
            return [_number(one, name.replace("_list", "")) for one in value.val]
    except ValueError:
        pass
    raise StorageError(
        f"a value in the online store is of type {found}, where {name} is declared; materialise or push it again"
    )


def _number(value: float, name: str) -> float:
    """The number as the value of another field. Raises `ValueError` where it does not fit."""
    if name in ("float_val", "double_val"):
        return float(value)
    bits = {"int32_val": 31, "int64_val": 63}.get(name)
    if bits is None or not -(1 << bits) <= value < 1 << bits or int(value) != value:
        raise ValueError(f"{value} does not fit {name}")
    return int(value)
