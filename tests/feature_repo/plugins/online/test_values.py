"""`Value` bytes against Feast's own converter, which is slow and makes a message of each value."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import StorageError
from feature_repo.plugins.online.values import KINDS, Block, block_of, decode, encode
from feature_repo.plugins.online.views import ViewPlan

INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63) + 1, 2**63 - 1)
FLOAT = st.floats(width=32, allow_nan=False)
TEXT = st.text(max_size=200)
TIMES = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))
ONE: dict[str, st.SearchStrategy[Any]] = {
    "BYTES": st.binary(min_size=1, max_size=200),  # Feast takes a column of nothing but empty bytes for nulls
    "STRING": TEXT,
    "INT32": INT32,
    "INT64": INT64,
    "DOUBLE": st.floats(allow_nan=False),
    "FLOAT": FLOAT,
    "BOOL": st.booleans(),
    "UNIX_TIMESTAMP": TIMES,
}
EVERY = {**ONE, **{f"{name}_LIST": st.lists(values, max_size=40) for name, values in ONE.items()}}


def test_every_kind_is_tried() -> None:
    assert set(EVERY) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_bytes_are_feast_s_and_come_back(name: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | EVERY[name], min_size=1, max_size=12))
    kind = KINDS[name]
    column = pa.array(values, kind.arrow)
    if len(values) > 3:  # a slice has an offset into its buffers
        column, values = column[2:], values[2:]
    block = encode([column], [kind])
    expected = [v.SerializeToString() for v in python_values_to_proto_values(values, ValueType[name])]
    assert block.values(0) == expected
    assert decode(block, kind).to_pylist() == values


def test_what_is_not_there_is_null_and_nan_is_null() -> None:
    kind = KINDS["FLOAT"]
    assert encode([pa.array([float("nan"), 1.0], pa.float32())], [kind]).values(0)[0] == b""
    assert decode(block_of([[None, b"", Value(float_val=2).SerializeToString()]]), kind).to_pylist() == [None, None, 2]


def test_other_people_s_encodings_are_read() -> None:
    unpacked = b"\x82\x01\x0a\x0d" + np.float32(1.5).tobytes() + b"\x0d" + np.float32(2.5).tobytes()
    assert decode(block_of([[unpacked]]), KINDS["FLOAT_LIST"]).to_pylist() == [[1.5, 2.5]]
    assert decode(block_of([[Value(null_val=0).SerializeToString()]]), KINDS["STRING"]).to_pylist() == [None]


def test_damage_and_other_types_are_said() -> None:
    with pytest.raises(StorageError, match="damaged"):
        decode(block_of([[b"\x12\xff"]]), KINDS["STRING"])
    with pytest.raises(StorageError, match="type int64_val, where string_val is declared"):
        decode(block_of([[Value(int64_val=1).SerializeToString()]]), KINDS["STRING"])
    with pytest.raises(StorageError, match="'plays' cannot be written as int32"):
        encode([pa.array([2**40])], [KINDS["INT32"]], ["plays"])
    with pytest.raises(StorageError, match="a list holds a null"):
        encode([pa.array([[1, None]])], [KINDS["INT64_LIST"]], ["counts"])


@pytest.mark.parametrize("kind", ["STRING", "FLOAT_LIST"])
def test_more_than_arrow_holds_is_refused(kind: str) -> None:
    """Rows that all point at the same megabyte; their offsets would not fit 32 bits."""
    one: Any = "x" * 2**20 if kind == "STRING" else [1.0] * 2**18
    block = encode([pa.array([one], KINDS[kind].arrow)], [KINDS[kind]])
    times = 2**11 if kind == "STRING" else 2**13
    many = Block(block.data, np.repeat(block.starts, times, axis=1), np.repeat(block.lengths, times, axis=1))
    with pytest.raises(StorageError, match="read fewer contents"):
        decode(many, KINDS[kind])


def test_times_are_the_second_that_holds_them() -> None:
    kind = KINDS["UNIX_TIMESTAMP"]
    times = pa.array([-1, 1_999_999, 0], pa.timestamp("us"))
    values = [Value.FromString(v or b"").unix_timestamp_val for v in encode([times], [kind]).values(0)]
    assert values == [-1, 1, 0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_entity_keys_are_feast_s(data: st.DataObject) -> None:
    kinds = ["STRING", "INT32", "INT64", "BYTES"]
    names = data.draw(st.lists(st.text("abcü_", min_size=1, max_size=6), min_size=1, max_size=3, unique=True))
    types = [data.draw(st.sampled_from(kinds)) for _ in names]
    rows = data.draw(st.lists(st.tuples(*(ONE[t] for t in types)), min_size=1, max_size=5))
    plan = ViewPlan("view", "project", tuple(names), tuple(types), (), (), 0, 0)
    columns = [pa.array([r[n] for r in rows], KINDS[t].arrow) for n, t in enumerate(types)]
    expected = []
    for one in rows:
        protos = [python_values_to_proto_values([v], ValueType[t])[0] for v, t in zip(one, types, strict=True)]
        key = EntityKey(join_keys=names, entity_values=protos)
        expected.append(serialize_entity_key(key, entity_key_serialization_version=3) + b"project")
    assert plan.entity_keys(columns, b"project").values(0) == expected
    # Reads make few keys in another way.
    few = plan.key_layout.keys([[r[n] for r in rows] for n in range(len(types))], b"project")
    assert few.values == expected
    assert few.block.values(0) == expected


@pytest.mark.parametrize(("kind", "value"), [("INT32", 2**31), ("INT64", 2**63), ("STRING", "\ud800")])
def test_a_key_that_does_not_fit_is_refused_of_few_too(kind: str, value: Any) -> None:
    layout = ViewPlan("view", "project", ("content_id",), (kind,), (), (), 0, 0).key_layout
    with pytest.raises((StorageError, pa.ArrowException, UnicodeEncodeError, OverflowError)):
        layout.keys([[value]])


def test_a_key_of_another_type_is_cast_of_few_too() -> None:
    layout = ViewPlan("view", "project", ("n",), ("INT64",), (), (), 0, 0).key_layout
    assert layout.keys([[True]]).values == layout.keys([[1]]).values == layout.keys([np.array([1])]).values


def test_a_null_key_is_refused() -> None:
    plan = ViewPlan("view", "project", ("content_id",), ("STRING",), (), (), 0, 0)
    with pytest.raises(StorageError, match="'content_id' is null in 1 of 2 rows"):
        plan.entity_keys([pa.array(["a", None])])
