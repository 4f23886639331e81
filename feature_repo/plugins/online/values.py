"""Arrow columns ↔ Feast's `Value` bytes, without a Python object a value.

The bytes are those of Feast's own writers (tests compare them), so that its readers read what is written here and the
reverse. Null, and a scalar NaN, is an empty value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import StorageError
from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.messages import converted, decode_messages, message_type, parse, serialized, write_all

_NO_NULLS = np.empty(0, bool)
_SECONDS = pa.timestamp("s", tz="UTC")
TOO_MUCH = "a column of this read is larger than Arrow holds in one array (2^31 bytes or elements); read fewer contents"
NULL_SECONDS = np.iinfo(np.int64).min  # what Feast writes for a timestamp that is null


@dataclass(frozen=True)
class Kind:
    """How a Feast type is written: its field in the `Value` message, its Arrow type, its way of encoding (`floats`,
    `ints`, `texts`, the same of lists, or `messages`, which Feast converts) and, of packed elements, their width in
    bytes. `value_type` is the name of Feast's type where Feast converts it."""

    field: int
    arrow: pa.DataType
    way: str
    width: int = 0
    value_type: str = ""

    @property
    def tag(self) -> int:
        """The tag byte of a scalar."""
        wire = {"floats": kernels.FIXED32 if self.width == 4 else kernels.FIXED64, "texts": kernels.BYTES}
        return self.field << 3 | wire.get(self.way, kernels.VARINT)


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind))


# By the name of feast.ValueType, so that this module does not import Feast.
KINDS = {
    "BYTES": Kind(1, pa.binary(), "texts"),
    "STRING": Kind(2, pa.string(), "texts"),
    "INT32": Kind(3, pa.int32(), "ints"),
    "INT64": Kind(4, pa.int64(), "ints"),
    "DOUBLE": Kind(5, pa.float64(), "floats", 8),
    "FLOAT": Kind(6, pa.float32(), "floats", 4),
    "BOOL": Kind(7, pa.bool_(), "ints"),
    "UNIX_TIMESTAMP": Kind(8, _SECONDS, "ints"),
    "BYTES_LIST": Kind(11, _list(pa.binary()), "text_lists"),
    "STRING_LIST": Kind(12, _list(pa.string()), "text_lists"),
    "INT32_LIST": Kind(13, _list(pa.int32()), "int_lists"),
    "INT64_LIST": Kind(14, _list(pa.int64()), "int_lists"),
    "DOUBLE_LIST": Kind(15, _list(pa.float64()), "fixed_lists", 8),
    "FLOAT_LIST": Kind(16, _list(pa.float32()), "fixed_lists", 4),
    "BOOL_LIST": Kind(17, _list(pa.bool_()), "fixed_lists", 1),
    "UNIX_TIMESTAMP_LIST": Kind(18, _list(_SECONDS), "int_lists"),
}


def kind_of(field: Any) -> Kind:
    """The kind of a Feast `Field`."""
    name = field.dtype.to_value_type().name
    if name in ("IMAGE_BYTES", "PDF_BYTES"):  # names of what the bytes mean; they are written as bytes
        name = "BYTES"
    if name in KINDS:
        return KINDS[name]
    return Kind(0, message_type(field.dtype), "messages", value_type=name)


class Block(NamedTuple):
    """Encoded columns: `data` uint8; `starts` int64 and `lengths` int32 of shape (columns, rows)."""

    data: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @property
    def rows(self) -> int:
        return int(self.starts.shape[1])

    def column(self, number: int) -> Block:
        return Block(self.data, self.starts[number : number + 1], self.lengths[number : number + 1])

    def columns(self, numbers: Sequence[int]) -> Block:
        return Block(self.data, self.starts[list(numbers)], self.lengths[list(numbers)])

    def values(self, number: int) -> list[bytes | None]:
        """One column as Python bytes, None where there is nothing."""
        whole = np.ascontiguousarray(self.data).data
        return [
            None if n < 0 else bytes(whole[s : s + n])
            for s, n in zip(self.starts[number].tolist(), self.lengths[number].tolist(), strict=True)
        ]


def block_of(columns: Sequence[Sequence[bytes | None]]) -> Block:
    """Python bytes as a block; None is nothing."""
    flat = [value or b"" for column in columns for value in column]
    shape = (len(columns), len(columns[0]) if columns else 0)
    lengths = np.array([-1 if v is None else len(v) for column in columns for v in column], np.int32).reshape(shape)
    ends = np.cumsum(np.maximum(lengths.ravel(), 0), dtype=np.int64)
    starts = (ends - np.maximum(lengths.ravel(), 0)).reshape(shape)
    return Block(np.frombuffer(b"".join(flat), np.uint8), starts, lengths)


class Writer:
    """Collects encoded columns of `rows` rows into a block."""

    def __init__(self, columns: int, rows: int, room: int) -> None:
        self.data = np.empty(room, np.uint8)
        self.starts = np.empty((columns, rows), np.int64)
        self.lengths = np.empty((columns, rows), np.int32)
        self._at = 0
        self._column = 0

    def next(self, encoder: Any, *arguments: Any) -> None:
        """Appends a column by one of the kernels' encoders."""
        place = (self.data, self._at, self.starts[self._column], self.lengths[self._column])
        self._at = encoder(*arguments, *place)
        self._column += 1

    def block(self) -> Block:
        return Block(self.data[: self._at], self.starts, self.lengths)


class Prepared(NamedTuple):
    """A column ready for its encoder: the kernel, its arguments, and the most bytes that it can write."""

    encoder: Any
    arguments: tuple[Any, ...]
    room: int


def encode(columns: Sequence[pa.Array], kinds: Sequence[Kind], names: Sequence[str] = ()) -> Block:
    """The columns' values as a block of shape (columns, rows). Raises `StorageError` for a value that does not fit its
    declared type."""
    if len({len(column) for column in columns}) > 1:  # the kernels would write beyond their arrays
        raise StorageError(f"the columns are of different lengths: {[len(column) for column in columns]}")
    prepared = []
    for number, (column, kind) in enumerate(zip(columns, kinds, strict=True)):
        name = names[number] if number < len(names) else str(number)
        try:
            prepared.append(prepare(column, kind))
        except (pa.ArrowException, ValueError) as error:
            raise StorageError(f"column {name!r} cannot be written as {kind.arrow}: {error}") from error
    writer = Writer(len(columns), len(columns[0]) if columns else 0, sum(p.room for p in prepared))
    for one in prepared:
        writer.next(one.encoder, *one.arguments)
    return writer.block()


def prepare(column: pa.Array, kind: Kind) -> Prepared:
    """Casts a column to its kind and takes it apart into the arrays that the encoder reads."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    rows = len(column)
    if kind.way == "messages":
        values = serialized(column, kind.value_type)
        return Prepared(write_all, (values,), sum(map(len, values)))
    if kind.way.endswith("lists"):
        return _prepare_lists(column, kind)
    column = column if column.type == kind.arrow else _cast(column, kind.arrow)
    valid = _valid(column)
    if kind.way == "floats":
        return Prepared(kernels.encode_floats, (numbers_of(column, kind), valid, kind.tag), rows * (1 + kind.width))
    if kind.way == "ints":
        return Prepared(kernels.encode_ints, (numbers_of(column, kind), valid, kind.tag), rows * 11)
    offsets, data = texts_of(column)
    room = int(offsets[-1] - offsets[0]) + rows * 11
    return Prepared(kernels.encode_texts, (offsets, data, valid, kind.tag), room)


def _prepare_lists(column: pa.Array, kind: Kind) -> Prepared:
    if pa.types.is_timestamp(kind.arrow.value_type) and column.type != kind.arrow:
        column = column.cast(_list(column.type.value_type))
        floored = _cast(column.values, kind.arrow.value_type)
        column = pa.ListArray.from_arrays(column.offsets, floored, mask=column.is_null() if column.null_count else None)
    if column.type != kind.arrow:
        column = column.cast(kind.arrow)
    rows, valid = len(column), _valid(column)
    offsets = np.asarray(column.offsets)
    first, last = (int(offsets[0]), int(offsets[-1])) if rows else (0, 0)
    items = column.values
    used = items.slice(first, last - first)
    if used.null_count:
        if kind.way == "text_lists":
            items = pc.fill_null(items, "" if pa.types.is_string(items.type) else b"")
        elif pa.types.is_floating(items.type):
            items = pc.fill_null(items, float("nan"))
        else:
            raise ValueError(f"a list holds a null, which Feast's {items.type} lists cannot say")
    if kind.way == "text_lists":
        inner, data = texts_of(items)
        room = int(inner[last] - inner[first]) + (last - first) * 11 + rows * 13
        return Prepared(kernels.encode_text_lists, (offsets, inner, data, valid, kind.field), room)
    numbers = numbers_of(items, kind)
    if kind.way == "int_lists":
        room = (last - first) * 10 + rows * 24
        return Prepared(kernels.encode_int_lists, (offsets, numbers, valid, kind.field), room)
    room = (last - first) * kind.width + rows * 24
    raw = numbers.view(np.uint8)
    return Prepared(kernels.encode_fixed_lists, (offsets, raw, kind.width, valid, kind.field), room)


def _cast(column: pa.Array, to: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(to):
        if pa.types.is_integer(column.type):  # seconds, as Feast takes them
            return column.cast(pa.int64()).cast(to)
        if not pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us"))
        if column.type.tz is None:
            column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))
        # Feast keeps whole seconds: the second that holds the instant, before 1970 too.
        return pc.floor_temporal(column, unit="second").cast(to)
    if pa.types.is_float32(to) and pa.types.is_float64(column.type):
        return column.cast(to, safe=False)
    return column.cast(to)


def _valid(column: pa.Array) -> np.ndarray:
    return np.asarray(column.is_valid()) if column.null_count else _NO_NULLS


def numbers_of(column: pa.Array, kind: Kind) -> np.ndarray:
    """The values as the array that the encoder reads: floats as they are, booleans of lists as bytes, else int64."""
    if pa.types.is_boolean(column.type):
        found = np.asarray(column.fill_null(False) if column.null_count else column)
        return found.view(np.uint8) if kind.way == "fixed_lists" else found.astype(np.int64)
    if pa.types.is_timestamp(column.type) or pa.types.is_int32(column.type):
        column = column.cast(pa.int64())
    if not len(column):
        return np.empty(0, column.type.to_pandas_dtype())
    # The values' buffer, whatever stands in it under nulls.
    buffer = np.frombuffer(column.buffers()[1], column.type.to_pandas_dtype())
    return buffer[column.offset : column.offset + len(column)]


def texts_of(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (rows + 1) and bytes of a string or binary array."""
    _, offsets, data = column.buffers()
    if offsets is None or not len(column):
        return np.zeros(len(column) + 1, np.int32), np.empty(0, np.uint8)
    found = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return found, np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)


def decode(block: Block, kind: Kind) -> pa.Array:
    """A column of `Value` bytes as an Arrow array of `kind.arrow`, null where there is nothing or null. Bytes in
    another encoding than ours go through the protobuf library. Raises `StorageError` for what it cannot read or is of
    another type."""
    if kind.way == "messages":
        return decode_messages(block.values(0), kind.arrow)
    data, starts, lengths = block.data, block.starts[0], block.lengths[0]
    rows = starts.size
    valid = np.empty(rows, bool)
    if kind.way == "floats":
        values = np.zeros(rows, np.float32 if kind.width == 4 else np.float64)
        odd = kernels.decode_floats(data, starts, lengths, kind.tag, values.view(np.uint8), kind.width, valid)
        return _odd(block, kind) if odd >= 0 else _array(values, valid, kind.arrow)
    if kind.way == "ints":
        values = np.zeros(rows, np.int64)
        odd = kernels.decode_ints(data, starts, lengths, kind.tag, values, valid)
        if odd >= 0:
            return _odd(block, kind)
        if pa.types.is_timestamp(kind.arrow):
            valid &= values != NULL_SECONDS
        elif pa.types.is_boolean(kind.arrow):
            values = values.astype(bool)
        elif pa.types.is_int32(kind.arrow):
            values = values.astype(np.int32)
        return _array(values, valid, kind.arrow)
    if kind.way == "texts":
        begin, offsets = np.empty(rows, np.int64), np.empty(rows + 1, np.int32)
        odd = kernels.text_spans(data, starts, lengths, kind.tag, begin, offsets, valid)
        if odd == kernels.TOO_MANY:
            raise StorageError(TOO_MUCH)
        if odd >= 0:
            return _odd(block, kind)
        held = np.empty(int(offsets[-1]), np.uint8)
        kernels.gather_spans(data, begin, offsets, 1, held)
        buffers = [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(held)]
        return pa.Array.from_buffers(kind.arrow, rows, buffers)
    if kind.way == "fixed_lists" and kind.width > 1:
        found = float_lists(block, kind)
        return _odd(block, kind) if found is None else found
    return _odd(block, kind)  # short lists of texts and integers: the library reads them


def float_lists(block: Block, kind: Kind) -> pa.ListArray | None:
    """Lists of float32 or float64; None where some are encoded in another way."""
    rows = block.rows
    begin, offsets, valid = np.empty(rows, np.int64), np.empty(rows + 1, np.int32), np.empty(rows, bool)
    odd = kernels.list_spans(
        block.data, block.starts[0], block.lengths[0], kind.field, kind.width, begin, offsets, valid
    )
    if odd == kernels.TOO_MANY:
        raise StorageError(TOO_MUCH)
    if odd >= 0:
        return None
    items = np.empty(int(offsets[-1]), np.float32 if kind.width == 4 else np.float64)
    kernels.gather_spans(block.data, begin, offsets, kind.width, items.view(np.uint8))
    child = pa.Array.from_buffers(kind.arrow.value_type, items.size, [None, pa.py_buffer(items)])
    return pa.Array.from_buffers(kind.arrow, rows, [_bitmap(valid), pa.py_buffer(offsets)], children=[child])


def _array(values: np.ndarray, valid: np.ndarray, kind: pa.DataType) -> pa.Array:
    if values.dtype == bool:
        return pa.array(values, kind, mask=~valid)
    return pa.Array.from_buffers(kind, values.size, [_bitmap(valid), pa.py_buffer(values)])


def _bitmap(valid: np.ndarray) -> pa.Buffer | None:
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _odd(block: Block, kind: Kind) -> pa.Array:
    """The same by the protobuf library, a value at a time."""
    from feast.protos.feast.types.Value_pb2 import Value

    name = Value.DESCRIPTOR.fields_by_number[kind.field].name
    found: list[Any] = []
    for data in block.values(0):
        value = parse(data)
        present = value.WhichOneof("val")
        if present in (None, "null_val"):
            found.append(None)
        elif present != name:
            found.append(converted(value, name))  # numbers of another width
        else:
            one = getattr(value, name)
            found.append(list(one.val) if kind.way.endswith("lists") else one)
    if pa.types.is_timestamp(kind.arrow):
        found = [None if one == NULL_SECONDS else one for one in found]
    return pa.array(found, kind.arrow)
