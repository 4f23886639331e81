"""Online features as columns: one call, one round trip, Arrow out, embeddings as one matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import ConfigError, StorageError
from feature_repo.plugins.online.response import PRESENT, FastReads, statuses
from feature_repo.plugins.online.rows import Found
from feature_repo.plugins.online.values import Block, decode
from feature_repo.plugins.online.views import ViewPlan, plan_view


@dataclass
class OnlineFeatures:
    """The answer to a read. `table` has the join keys and a column a feature, null where there is no value; `status`
    says of each feature's values whether they are there (uint8, feast.serving.FieldStatus), `event_us` when the rows of
    each view came into force (int64 microseconds, 0 where there is none)."""

    table: pa.Table
    status: dict[str, np.ndarray]
    event_us: dict[str, np.ndarray]

    def matrix(self, name: str, dim: int | None = None) -> np.ndarray:
        """A feature that holds lists of one length as a C-contiguous float32 (rows, dim) matrix: a view of the column,
        where every row has a value; else rows without one are NaN. `dim` is needed where no row has one.

        Raises `ConfigError` for a feature that is not there or holds something else, `StorageError` where lengths
        differ.
        """
        if name not in self.status:
            raise ConfigError(f"there is no feature {name!r} in the answer; there are {', '.join(self.status)}")
        column = self.table[name].combine_chunks()
        if not pa.types.is_list(column.type) or not pa.types.is_float32(column.type.value_type):
            raise ConfigError(f"{name!r} is {column.type}, not lists of float32")
        sizes = np.diff(np.asarray(column.offsets))
        valid = np.asarray(column.is_valid())
        lengths = np.unique(sizes[valid])
        if lengths.size > 1 or (dim is not None and lengths.size and lengths[0] != dim):
            raise StorageError(f"{name!r} holds vectors of {', '.join(map(str, lengths))} dimensions")
        width = int(lengths[0]) if lengths.size else dim or 0
        values = np.asarray(column.values)[int(column.offsets[0].as_py()) :] if len(column) else np.empty(0, np.float32)
        if valid.all():
            return values[: len(column) * width].reshape(len(column), width)
        whole = np.full((len(column), width), np.nan, np.float32)
        if width:
            whole[valid] = values[: int(valid.sum()) * width].reshape(-1, width)
        return whole


@dataclass(frozen=True)
class _Step:
    """One view of a request: where its keys come from and what its columns are called."""

    plan: ViewPlan
    asked_keys: tuple[str, ...]
    columns: tuple[str, ...]
    view: str


@dataclass
class OnlineReader:
    """Reads the features of a feature service or of references from a Feast store whose online store is Earmark's.

    It may be used from many threads. What a service means is looked up in Feast's registry cache, so that a changed
    service is seen when that cache is renewed. Raises `ConfigError` for another online store, or for a service with
    on-demand views (use `get_online_features` for those).
    """

    store: Any
    features: Any
    full_feature_names: bool = True
    _known: tuple[Any, list[_Step]] | None = field(default=None, repr=False)

    def read(self, entities: Mapping[str, Sequence[Any] | pa.Array]) -> OnlineFeatures:
        """The features of each row of `entities` (join key → values), in order. Raises `StorageError`, and
        `ConfigError` for a join key that is missing."""
        online = self.store._get_provider().online_store
        if not isinstance(online, FastReads):
            raise ConfigError(f"{type(online).__name__} has no batched reads; use get_online_features")
        steps, config = self._steps(), self.store.config
        given = {name: _column(values) for name, values in entities.items()}
        keys: list[Block] = []
        made: dict[tuple[Any, ...], Block] = {}
        suffix = online.key_suffix(config)
        for step in steps:
            missing = [name for name in step.asked_keys if name not in given and name != _DUMMY]
            if missing:
                raise ConfigError(f"view {step.view!r} needs the join key {missing[0]!r}")
            same = (step.asked_keys, step.plan.join_keys, step.plan.key_types)
            if same not in made:
                rows = len(next(iter(given.values())))
                columns = [given[n] if n in given else pa.array([""] * rows) for n in step.asked_keys]
                made[same] = step.plan.entity_keys(columns, suffix)
            keys.append(made[same])
        found = online.read_rows(config, [step.plan for step in steps], keys)
        return _answer(given, steps, found)

    def _steps(self) -> list[_Step]:
        from feast.feature_service import FeatureService
        from feast.utils import _get_cached_request_context

        features = self.features
        if isinstance(features, str):
            features = self.store.get_feature_service(features, allow_cache=True)
        context = _get_cached_request_context(
            self.store.registry, self.store.project, features, self.full_feature_names
        )
        grouped, on_demand = context[5], context[1]
        if self._known and self._known[0] is grouped:
            return self._known[1]
        if on_demand:
            name = features.name if isinstance(features, FeatureService) else ", ".join(features)
            raise ConfigError(f"{name} holds on-demand views; use get_online_features for it")
        steps = [self._step(table, requested) for table, requested in grouped]
        self._known = (grouped, steps)
        return steps

    def _step(self, table: Any, requested: Sequence[str]) -> _Step:
        plan = plan_view(self.store.config, table).select(requested)
        name = table.projection.name_to_use()
        return _Step(
            plan=plan,
            asked_keys=tuple(table.projection.join_key_map.get(key, key) for key in plan.join_keys),
            columns=tuple(f"{name}__{feature}" if self.full_feature_names else feature for feature in requested),
            view=name,
        )


_DUMMY = "__dummy_id"  # Feast's join key of a view without entities; its value is the empty string


def _column(values: Sequence[Any] | pa.Array) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values)


def _answer(given: Mapping[str, pa.Array], steps: Sequence[_Step], found: Sequence[Found]) -> OnlineFeatures:
    columns: dict[str, Any] = dict(given)
    status: dict[str, np.ndarray] = {}
    events: dict[str, np.ndarray] = {}
    for step, rows in zip(steps, found, strict=True):
        states = statuses(step.plan, rows)
        events[step.view] = np.where(rows.found, rows.event_us, 0)
        for c, (name, kind) in enumerate(zip(step.columns, step.plan.kinds, strict=True)):
            one = rows.values.column(c)
            if step.plan.ttl_us:  # what is too old is not given out
                one = Block(one.data, one.starts, np.where(states[c] == PRESENT, one.lengths, -1).astype(np.int32))
            columns[name], status[name] = decode(one, kind), states[c]
    return OnlineFeatures(pa.table(columns), status, events)
