"""What the stores and the engine need to know of a feature view, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import ConfigError, StorageError
from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.values import KINDS, Block, Kind, Writer, _numbers, _texts, kind_of

# Types that an entity key can have, and feast.ValueType's numbers for them, which stand in the key's bytes.
KEY_TYPES = {"BYTES": 1, "STRING": 2, "INT32": 3, "INT64": 4, "UNIX_TIMESTAMP": 8}
UNKNOWN_CREATED = int(np.iinfo(np.int64).min)  # microseconds: no created timestamp is known


@dataclass(frozen=True)
class ViewPlan:
    """A feature view as its online rows see it. `name` is the name under which it is stored (with the version, where
    Feast keeps several); `ttl_us` is 0 where rows do not age."""

    name: str
    project: str
    join_keys: tuple[str, ...]
    key_types: tuple[str, ...]
    features: tuple[str, ...]
    kinds: tuple[Kind, ...]
    ttl_us: int
    stored: int  # features that a stored row has, where `features` are some of them
    prepared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # what a store works out once

    @cached_property
    def key_prefix(self) -> bytes:
        """What every entity key of the view begins with: the number of join keys and their names, sorted."""
        parts = [_little(len(self.join_keys))]
        for name in sorted(self.join_keys):
            held = name.encode()
            parts += [_little(KEY_TYPES["STRING"]), _little(len(held)), held]
        return b"".join(parts)

    def entity_keys(self, columns: Sequence[pa.Array], suffix: bytes = b"") -> Block:
        """Serialized entity keys (version 3) of rows, given the join keys' columns in the order of `join_keys`; one
        column in the block. Raises `StorageError` for a null or a value of another type."""
        prepared: dict[str, tuple[Any, ...]] = {}
        rows = len(columns[0])
        if any(len(column) != rows for column in columns):  # the kernels would write beyond their arrays
            raise StorageError(f"the join keys of {self.name!r} are of different lengths: {[len(c) for c in columns]}")
        room = rows * (len(self.key_prefix) + len(suffix))
        for name, kind, column in zip(self.join_keys, self.key_types, columns, strict=True):
            prepared[name] = _prepare_key(name, kind, column)
        parts = Writer(len(prepared), rows, sum(p[-1] for p in prepared.values()))
        for name in sorted(prepared):
            encoder, *arguments, _ = prepared[name]
            parts.next(encoder, *arguments)
        block = parts.block()
        whole = Writer(1, rows, room + block.data.size)
        prefix, tail = (np.frombuffer(b, np.uint8) for b in (self.key_prefix, suffix))
        whole.next(kernels.join, prefix, tail, block.data, block.starts, block.lengths)
        return whole.block()

    def select(self, features: Sequence[str]) -> ViewPlan:
        """The same with some of the features, in the given order. Raises `ConfigError` for one that is not there."""
        kinds = dict(zip(self.features, self.kinds, strict=True))
        missing = [name for name in features if name not in kinds]
        if missing:
            raise ConfigError(f"feature view {self.name!r} has no feature {missing[0]!r}")
        chosen = tuple(kinds[name] for name in features)
        return ViewPlan(
            self.name, self.project, self.join_keys, self.key_types, tuple(features), chosen, self.ttl_us, self.stored
        )


def plan_view(config: Any, view: Any) -> ViewPlan:
    """The plan of a Feast feature view under a repo's configuration. Raises `ConfigError` for what is not written."""
    from feast.infra.online_stores.helpers import compute_versioned_name

    if config.entity_key_serialization_version != 3:
        raise ConfigError("Earmark's stores need entity_key_serialization_version: 3")
    columns = {column.name: column.dtype.to_value_type().name for column in view.entity_columns}
    unknown = [name for name, kind in columns.items() if kind not in KEY_TYPES]
    if unknown:
        raise ConfigError(f"feature view {view.name!r}: a join key of type {columns[unknown[0]]} is not supported")
    return ViewPlan(
        name=compute_versioned_name(view, config.registry.enable_online_feature_view_versioning),
        project=config.project,
        join_keys=tuple(columns),
        key_types=tuple(columns.values()),
        features=tuple(f.name for f in view.features),
        kinds=tuple(kind_of(f) for f in view.features),
        ttl_us=int(view.ttl.total_seconds() * 1_000_000) if view.ttl else 0,
        stored=len(view.features),
    )


def _prepare_key(name: str, kind: str, column: pa.Array) -> tuple[Any, ...]:
    """(encoder, its arguments …, bytes at most) of one join key."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if column.null_count:
        raise StorageError(f"join key {name!r} is null in {column.null_count} of {len(column)} rows")
    wanted = KINDS[kind]
    try:
        if column.type != wanted.arrow:
            column = column.cast(wanted.arrow)
    except pa.ArrowException as error:
        raise StorageError(f"join key {name!r} is declared {kind.lower()} and does not fit: {error}") from error
    if wanted.way == "texts":
        offsets, data = _texts(column)
        room = int(offsets[-1] - offsets[0]) + 8 * len(column)
        return kernels.encode_key_texts, offsets, data, KEY_TYPES[kind], room
    width = 4 if kind == "INT32" else 8
    return kernels.encode_key_ints, _numbers(column, wanted), width, KEY_TYPES[kind], 16 * len(column)


def micros(column: pa.Array) -> np.ndarray:
    """Microseconds since 1970 of a timestamp column, int64; naive is UTC. Nulls are `UNKNOWN_CREATED`."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us"))
    if column.type.unit != "us":
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    numbers = column.cast(pa.int64())
    return np.asarray(pc.fill_null(numbers, UNKNOWN_CREATED) if numbers.null_count else numbers)


def _little(number: int) -> bytes:
    return number.to_bytes(4, "little")
