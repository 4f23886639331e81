"""Feast's own answers to online reads, built from the stored bytes: no message object a value is made on the way."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.plugins.online import kernels
from feature_repo.plugins.online.entity_keys import Keys
from feature_repo.plugins.online.rows import Found
from feature_repo.plugins.online.values import KINDS, Block
from feature_repo.plugins.online.views import ViewPlan, plan_view

KEPT_PLANS = 256
PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 3, 4  # feast.serving.FieldStatus


def statuses(plan: ViewPlan, found: Found, now_us: int | None = None) -> np.ndarray:
    """Status of each value, uint8 of shape (features, rows): NOT_FOUND where there is no row or no such field in it,
    OUTSIDE_MAX_AGE where the row is older than the view's TTL."""
    present = found.found & (found.values.lengths >= 0)
    result = np.where(present, PRESENT, NOT_FOUND).astype(np.uint8)
    if plan.ttl_us:
        now = time.time_ns() // 1000 if now_us is None else now_us
        result[present & (now - found.event_us > plan.ttl_us)] = OUTSIDE_MAX_AGE
    return result


class FastReads(ABC):
    """The reading half of an online store, over `read_rows`. To be mixed in before the Feast class."""

    @abstractmethod
    def read_rows(self, config: Any, plans: Sequence[ViewPlan], keys: Sequence[Keys]) -> list[Found]:
        """The rows of each view's keys. Raises `StorageError`."""

    @abstractmethod
    def forget(self, config: Any, plan: ViewPlan, keys: Block) -> None:
        """Takes the rows of these keys (one column) away. Raises `StorageError`."""

    def key_suffix(self, config: Any) -> bytes:
        """What follows the serialized entity key."""
        return b""

    def online_read(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        """Feast's row-wise read; a row older than the view's TTL is as good as none."""
        from feast.infra.key_encoding_utils import serialize_entity_key
        from feast.protos.feast.types.Value_pb2 import Value

        plan = plan_view(config, table)
        plan = plan.select(requested_features) if requested_features else plan
        suffix = self.key_suffix(config)
        keys = [serialize_entity_key(k, entity_key_serialization_version=3) + suffix for k in entity_keys]
        if not keys:
            return []
        found = self.read_rows(config, [plan], [Keys(keys)])[0]
        present = statuses(plan, found) == PRESENT
        columns = [found.values.values(number) for number in range(len(plan.features))]
        answer: list[tuple[datetime | None, dict[str, Any] | None]] = []
        for row, event in enumerate(found.event_us.tolist()):
            held = {
                name: Value.FromString(columns[c][row] or b"")
                for c, name in enumerate(plan.features)
                if present[c, row]
            }
            answer.append((datetime.fromtimestamp(event / 1e6, UTC), held) if held else (None, None))
        return answer

    async def online_read_async(self, *arguments: Any, **named: Any) -> Any:
        return await asyncio.to_thread(self.online_read, *arguments, **named)

    async def online_write_batch_async(self, config: Any, table: Any, data: Any, progress: Any) -> None:
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)  # type: ignore[attr-defined]

    async def _read_features_per_fv_async(self, *arguments: Any, **named: Any) -> None:
        await asyncio.to_thread(self._read_features_per_fv, *arguments, **named)

    def _planned(self, config: Any, table: Any, requested: tuple[str, ...]) -> ViewPlan:
        """The plan of a request's view. Feast keeps what a request means, and with it the view, until its registry
        cache is renewed; for so long the plan is kept too."""
        held: dict[Any, tuple[Any, ViewPlan]] = self.__dict__.setdefault("_plans", {})
        found = held.get((id(table), requested))
        if found is None or found[0] is not table:
            if len(held) > KEPT_PLANS:
                held.clear()
            found = held[(id(table), requested)] = table, plan_view(config, table).select(requested)
        return found[1]

    def _read_features_per_fv(
        self,
        config: Any,
        grouped_refs: Any,
        join_key_values: dict[str, list[Any]],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Feast's hook between resolving a request and answering it: all views in one round trip."""
        plans, keys = [], []
        for table, requested in grouped_refs:
            plan = self._planned(config, table, tuple(requested))
            plans.append(plan)
            keys.append(plan.key_layout.keys(_key_columns(table, plan, join_key_values), self.key_suffix(config)))
        if not plans:
            return
        for (table, _), plan, found in zip(grouped_refs, plans, self.read_rows(config, plans, keys), strict=True):
            _add_view(online_features_response, table, plan, found, full_feature_names)
            if include_feature_view_version_metadata:
                _add_version(online_features_response, table)


def _key_columns(table: Any, plan: ViewPlan, join_key_values: dict[str, list[Any]]) -> list[Any]:
    """The request's join keys as columns. Raises `KeyError` for one that is missing, as Feast does."""
    columns: list[Any] = []
    for name, kind in zip(plan.join_keys, plan.key_types, strict=True):
        asked = table.projection.join_key_map.get(name, name)
        if asked not in join_key_values:
            raise KeyError(f"Missing join key values for keys: [{asked!r}]")
        given = [(value, value.WhichOneof("val")) for value in join_key_values[asked]]
        values = [getattr(value, field) if field else None for value, field in given]
        columns.append(values or pa.array([], KINDS[kind].arrow))
    return columns


def _add_view(response: Any, table: Any, plan: ViewPlan, found: Found, full_feature_names: bool) -> None:
    naming = "full response names" if full_feature_names else "response names"
    if naming not in plan.prepared:
        name = table.projection.name_to_use()
        plan.prepared[naming] = [f"{name}__{f}" if full_feature_names else f for f in plan.features]
    response.metadata.feature_names.val.extend(plan.prepared[naming])
    event_us = np.where(found.found, found.event_us, 0)
    # Merging appends to a repeated field.
    response.MergeFromString(kernels.feature_vectors(*found.values, statuses(plan, found), event_us).data)


def _add_version(response: Any, table: Any) -> None:
    name = table.projection.name_alias or table.projection.name
    if all(held.name != name for held in response.metadata.feature_view_metadata):
        added = response.metadata.feature_view_metadata.add()
        added.name, added.version = name, getattr(table, "current_version_number", 0) or 0
