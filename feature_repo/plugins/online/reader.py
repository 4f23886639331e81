"""Online features as columns: one call, one round trip, Arrow out, embeddings as one matrix."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import ConfigError, StorageError, WrongType
from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.entity_keys import FEW, Keys, arrow_of
from feature_repo.plugins.online.response import PRESENT, FastReads, statuses
from feature_repo.plugins.online.rows import Found
from feature_repo.plugins.online.values import Block, decode
from feature_repo.plugins.online.views import ViewPlan, plan_view


class OnlineFeatures:
    """The answer to a read. What is asked of it is decoded then: a model that takes two matrices pays for two."""

    def __init__(self, given: Mapping[str, Any], request: Request, found: Sequence[Found]) -> None:
        self._given, self._request, self._found = given, request, found
        self._now_us = time.time_ns() // 1000

    @cached_property
    def table(self) -> pa.Table:
        """The join keys and a column a feature, null where there is no value."""
        columns: dict[str, Any] = {name: arrow_of(values) for name, values in self._given.items()}
        for name, (number, c) in self._request.places.items():
            columns[name] = decode(self._values(number, c), self._request.steps[number].plan.kinds[c])
        return pa.table(columns)

    @cached_property
    def status(self) -> dict[str, np.ndarray]:
        """Of each feature's values whether they are there: uint8, feast.serving.FieldStatus."""
        return {name: row for step, states in zip(self._request.steps, self._states, strict=True)
                for name, row in zip(step.columns, states, strict=True)}  # fmt: skip

    @cached_property
    def event_us(self) -> dict[str, np.ndarray]:
        """When the rows of each view came into force: int64 microseconds, 0 where there is none."""
        steps = self._request.steps
        return {s.view: np.where(f.found, f.event_us, 0) for s, f in zip(steps, self._found, strict=True)}

    def matrix(self, name: str, dim: int | None = None) -> np.ndarray:
        """A feature that holds lists of one length as a C-contiguous float32 (rows, dim) matrix; rows without a value
        are NaN. `dim` is checked, and needed where no row has a value.

        Raises `ConfigError` for a feature that is not there or holds something else, `StorageError` where lengths
        differ.
        """
        number, c = self._place(name)
        kind = self._request.steps[number].plan.kinds[c]
        if kind.way != "fixed_lists" or kind.width != 4:
            raise ConfigError(f"{name!r} is {kind.arrow}, not lists of float32")
        block = self._values(number, c)
        width = kernels.list_width(block.data, block.starts[0], block.lengths[0], kind.field)
        if width == kernels.NONE:
            width = dim or 0
        if width == kernels.ODD or dim not in (None, width):
            return self._odd_matrix(decode(block, kind), name, dim)
        whole = np.empty((block.rows, width), np.float32)
        kernels.decode_matrix(block.data, block.starts[0], block.lengths[0], whole)
        return whole

    @staticmethod
    def _odd_matrix(column: pa.ListArray, name: str, dim: int | None) -> np.ndarray:
        """`matrix` of lists that were written by others, or that are not of one length."""
        valid = np.asarray(column.is_valid())
        lengths = np.diff(np.asarray(column.offsets))[valid]
        told = sorted({int(n) for n in lengths})
        width = told[0] if told else dim or 0
        if len(told) > 1 or dim not in (None, width):
            raise StorageError(f"{name!r} holds vectors of {', '.join(map(str, told))} dimensions")
        whole = np.full((len(column), width), np.nan, np.float32)
        if width:
            whole[valid] = np.asarray(column.flatten()).reshape(-1, width)
        return whole

    def numbers(self, names: Sequence[str] | None = None) -> np.ndarray:
        """Numeric scalars (all of the answer's, or the named ones) as a float32 (rows, features) matrix, NaN where
        there is no value. Booleans are 0 and 1, timestamps seconds. Raises `ConfigError` for one that is no number."""
        wanted = tuple(self._request.numeric if names is None else names)
        rows = self._found[0].event_us.size
        out = np.empty((rows, len(wanted)), np.float32)
        at = 0
        for number, columns, tags in self._request.runs(wanted):
            block = self._values(number, columns)
            part = out[:, at : at + len(tags)]
            if not kernels.decode_numbers(block.data, block.starts, block.lengths, tags, part):
                for c, name in enumerate(wanted[at : at + len(tags)]):
                    column = self.table[name]
                    if pa.types.is_timestamp(column.type) or pa.types.is_boolean(column.type):
                        column = column.cast(pa.int64())
                    part[:, c] = column.cast(pa.float32(), safe=False).to_numpy()
            at += len(tags)
        return out

    @cached_property
    def _states(self) -> list[np.ndarray]:
        steps = self._request.steps
        return [statuses(s.plan, f, self._now_us) for s, f in zip(steps, self._found, strict=True)]

    def _place(self, name: str) -> tuple[int, int]:
        if name not in self._request.places:
            raise ConfigError(f"there is no feature {name!r} in the answer; it has {', '.join(self._request.places)}")
        return self._request.places[name]

    def _values(self, number: int, columns: int | slice | np.ndarray) -> Block:
        """Columns of a view's values; what is older than the view's TTL is not given out."""
        block = self._found[number].values
        chosen = slice(columns, columns + 1) if isinstance(columns, int) else columns
        lengths = block.lengths[chosen]
        if self._request.steps[number].plan.ttl_us:
            lengths = np.where(self._states[number][chosen] == PRESENT, lengths, -1).astype(np.int32)
        return Block(block.data, block.starts[chosen], lengths)


@dataclass(frozen=True)
class Step:
    """One view of a request: where its keys come from and what its columns are called."""

    plan: ViewPlan
    asked_keys: tuple[str, ...]
    columns: tuple[str, ...]
    view: str

    @cached_property
    def asks(self) -> tuple[Any, ...]:
        """What is the same for views that have the same keys."""
        return self.asked_keys, self.plan.join_keys, self.plan.key_types


class Request:
    """What a set of features means: the views to read, and where each column is found."""

    def __init__(self, steps: list[Step], order: Sequence[str]) -> None:
        self.steps, self.plans = steps, [step.plan for step in steps]
        places = {name: (n, c) for n, step in enumerate(steps) for c, name in enumerate(step.columns)}
        self.places = {name: places[name] for name in order}
        kinds = {name: steps[n].plan.kinds[c] for name, (n, c) in self.places.items()}
        self.numeric = [name for name, kind in kinds.items() if kind.way in ("floats", "ints")]
        self._runs: dict[tuple[str, ...], list[tuple[int, slice | np.ndarray, np.ndarray]]] = {}

    def runs(self, names: tuple[str, ...]) -> list[tuple[int, slice | np.ndarray, np.ndarray]]:
        """(view, its columns, their tag bytes) of stretches of `names` that lie in one view. Raises `ConfigError`."""
        if names not in self._runs:
            wrong = [name for name in names if name not in self.numeric]
            if wrong:
                raise ConfigError(f"{wrong[0]!r} is no number of this answer; there are {', '.join(self.numeric)}")
            found: list[tuple[int, slice | np.ndarray, np.ndarray]] = []
            for number, group in groupby((self.places[name] for name in names), key=lambda place: place[0]):
                columns = np.array([c for _, c in group])
                tags = np.array([self.steps[number].plan.kinds[c].tag for c in columns], np.uint8)
                joined = columns[-1] - columns[0] == len(columns) - 1 and (np.diff(columns) == 1).all()
                place = slice(int(columns[0]), int(columns[-1]) + 1) if joined else columns
                found.append((number, place, tags))
            self._runs[names] = found
        return self._runs[names]


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
    _known: tuple[Any, Any, Request] | None = field(default=None, repr=False)

    def read(self, entities: Mapping[str, Sequence[Any] | pa.Array]) -> OnlineFeatures:
        """The features of each row of `entities` (join key → values), in order. Raises `StorageError`, and
        `ConfigError` for a join key that is missing."""
        online = self.store._get_provider().online_store
        if not isinstance(online, FastReads):
            raise ConfigError(f"{type(online).__name__} has no batched reads; use get_online_features")
        request, config = self.request(), self.store.config
        given = {name: _kept(values) for name, values in entities.items()}
        lengths = {len(values) for values in given.values()}
        if len(lengths) > 1:
            told = ", ".join(f"{name}: {len(values)}" for name, values in given.items())
            raise ConfigError(f"the join keys are of different lengths ({told})")
        rows = lengths.pop() if lengths else 1
        keys: list[Keys] = []
        made: dict[tuple[Any, ...], Keys] = {}
        suffix = online.key_suffix(config)
        for step in request.steps:
            if step.asks not in made:
                columns = []
                for name in step.asked_keys:
                    if name not in given and name != _DUMMY:
                        raise ConfigError(f"view {step.view!r} needs the join key {name!r}")
                    columns.append(given[name] if name in given else [""] * rows)
                made[step.asks] = step.plan.key_layout.keys(columns, suffix)
            keys.append(made[step.asks])
        return OnlineFeatures(given, request, online.read_rows(config, request.plans, keys))

    def request(self) -> Request:
        """What the features mean, worked out again when Feast's registry cache was renewed or they are others."""
        registry = self.store.registry
        features = self.features
        asked = (tuple(features) if isinstance(features, list) else features, self.full_feature_names)
        if (
            self._known
            and self._known[0] is _renewed(registry)
            and self._known[1] == asked
            and registry.is_cache_valid()
        ):
            return self._known[2]
        from feast.feature_service import FeatureService
        from feast.utils import _get_cached_request_context

        if isinstance(features, str):
            features = self.store.get_feature_service(features, allow_cache=True)
        context = _get_cached_request_context(registry, self.store.project, features, self.full_feature_names)
        grouped, on_demand = context[5], context[1]
        if on_demand:
            name = features.name if isinstance(features, FeatureService) else ", ".join(features)
            raise ConfigError(f"{name} holds on-demand views; use get_online_features for it")
        # Feast groups the features by sets, which have no order of their own: the request's is kept here.
        order = [self._column(*ref.rsplit(":", 1)) for ref in context[0]]
        request = Request([self._step(table, sorted(requested)) for table, requested in grouped], order)
        self._known = None if _renewed(registry) is None else (_renewed(registry), asked, request)
        return request

    def _column(self, view: str, feature: str) -> str:
        return f"{view}__{feature}" if self.full_feature_names else feature

    def _step(self, table: Any, requested: Sequence[str]) -> Step:
        plan = plan_view(self.store.config, table).select(requested)
        name = table.projection.name_to_use()
        return Step(
            plan=plan,
            asked_keys=tuple(table.projection.join_key_map.get(key, key) for key in plan.join_keys),
            columns=tuple(self._column(name, feature) for feature in requested),
            view=name,
        )


def _renewed(registry: Any) -> Any:
    """When the registry's cache was made, None where it keeps none."""
    return getattr(registry, "cached_registry_proto_created", None)


_DUMMY = "__dummy_id"  # Feast's join key of a view without entities; its value is the empty string


def _kept(values: Any) -> Any:
    """Few values as a list, which the caller cannot change under the answer, many as an Arrow array."""
    if isinstance(values, str):
        return [values]  # one key, and not one a letter
    if isinstance(values, bytes):
        raise WrongType(f"a join key takes one value as text or several in a list, not {values!r}")
    if isinstance(values, list | tuple) and len(values) <= FEW:
        return list(values)
    return arrow_of(values)
