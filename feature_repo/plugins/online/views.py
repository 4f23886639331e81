"""What the stores and the engine need to know of a feature view, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import ConfigError
from feature_repo.plugins.online.entity_keys import KEY_TYPES, KeyLayout
from feature_repo.plugins.online.values import Block, Kind, kind_of

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
    whole: ViewPlan | None = field(default=None, compare=False, repr=False)  # with all features

    @cached_property
    def key_layout(self) -> KeyLayout:
        return KeyLayout(self.name, self.join_keys, self.key_types)

    def entity_keys(self, columns: Sequence[pa.Array], suffix: bytes = b"") -> Block:
        """Serialized entity keys of rows, given the join keys' columns in the order of `join_keys`; one column in the
        block. Raises `StorageError` for a null or a value of another type."""
        return self.key_layout.block(columns, suffix)

    def select(self, features: Sequence[str]) -> ViewPlan:
        """The same with some of the features, in the given order. Raises `ConfigError` for one that is not there."""
        kinds = dict(zip(self.features, self.kinds, strict=True))
        missing = [name for name in features if name not in kinds]
        if missing:
            raise ConfigError(f"feature view {self.name!r} has no feature {missing[0]!r}")
        chosen = tuple(kinds[name] for name in features)
        return replace(self, features=tuple(features), kinds=chosen, prepared={}, whole=self.whole or self)


def plan_view(config: Any, view: Any) -> ViewPlan:
    """The plan of a Feast feature view under a repo's configuration. Raises `ConfigError` for what is not written."""
    from feast.infra.online_stores.helpers import compute_versioned_name

    if config.entity_key_serialization_version != 3:
        raise ConfigError("Earmark's stores need entity_key_serialization_version: 3")
    columns = {column.name: column.dtype.to_value_type().name for column in view.entity_columns}
    unknown = [name for name, kind in columns.items() if kind not in KEY_TYPES]
    if unknown:
        raise ConfigError(f"feature view {view.name!r}: a join key of type {columns[unknown[0]]} is not supported")
    ttl = getattr(view, "ttl", None)  # on-demand views have none
    return ViewPlan(
        name=compute_versioned_name(view, config.registry.enable_online_feature_view_versioning),
        project=config.project,
        join_keys=tuple(columns),
        key_types=tuple(columns.values()),
        features=tuple(f.name for f in view.features),
        kinds=tuple(kind_of(f) for f in view.features),
        ttl_us=int(ttl.total_seconds() * 1_000_000) if ttl else 0,
        stored=len(view.features),
    )


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
