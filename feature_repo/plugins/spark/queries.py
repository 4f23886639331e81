"""The point-in-time join and the reading of one source, as Spark plans.

Same semantics as `feature_repo.plugins.history`: among a view's rows with the entity row's key, not later than its
time, not older than the TTL (both ends inclusive), the latest by (event, created), at a full tie the later in file
order. Entity rows and feature rows of a key are sorted together by time and read once, so a key with a long history
costs its length and not its square, as Feast's own join of every earlier version does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from core.errors import ConfigError
from feature_repo.plugins.history import Join, ttl_ticks
from feature_repo.plugins.keys import check_families, family
from feature_repo.plugins.queries import ViewPlan, micros
from feature_repo.plugins.spark.frames import PATH, PLACE, Source, collect, column, read
from feature_repo.plugins.spark.rows import NUMBER, TIME, EntityRows


class SparkQuery(Protocol):
    """An answer as a DataFrame, or collected."""

    def frame(self) -> DataFrame: ...

    def table(self) -> pa.Table: ...


@dataclass(frozen=True)
class HistoryQuery:
    """Entity rows in their order and multiplicity, with the features that each of them saw."""

    session: SparkSession
    entities: EntityRows
    views: tuple[ViewPlan, ...]
    repo_path: str

    def __post_init__(self) -> None:
        taken = list(self.entities.types)
        for view in self.views:
            for _, name in view.features:
                if name in taken:
                    raise ConfigError(
                        f"feature {name!r} of view {view.join.view} has the name of another column of the result; "
                        "ask for full_feature_names, or rename the entity rows' column"
                    )
                taken.append(name)

    @property
    def _names(self) -> list[str]:
        return [name for view in self.views for _, name in view.features]

    def frame(self) -> DataFrame:
        features, _ = self._features()
        together = self.entities.whole().join(features, NUMBER).orderBy(NUMBER).drop(NUMBER)
        return together.toDF(*self.entities.types, *self._names)

    def table(self) -> pa.Table:
        features, types = self._features()
        return self.entities.table(features, self._names, types)

    def _features(self) -> tuple[DataFrame, list[pa.DataType]]:
        """`NUMBER` and the features of all views side by side, and the features' types."""
        frames, types = [], []
        for at, view in enumerate(self.views):
            source = read(
                self.session, view.source, self.repo_path, _columns(view), view.join.declared, view.join.times
            )
            frames.append(self._seen(view, source, f"f{at}_"))
            types += [source.types[own] for own, _ in view.features]
        together = frames[0] if frames else self.entities.keyed([]).select(NUMBER)
        for frame in frames[1:]:
            together = together.join(frame, NUMBER)
        return together, types

    def _seen(self, view: ViewPlan, source: Source, prefix: str) -> DataFrame:
        """`NUMBER` of every entity row and the features that it saw of one view, called `<prefix>0`, `<prefix>1` …"""
        join, found = view.join, source.frame
        rows, keys = self._keyed(join, source)
        event = F.unix_micros(column(join.event).cast("timestamp"))
        created = F.unix_micros(column(join.created).cast("timestamp")) if join.created else F.lit(None).cast("bigint")
        at = F.greatest(event, created) if join.by_created and join.created else event
        kinds = [(own, source.types[own]) for own, _ in join.keys]
        known = [_key(own, kind, kind).alias(key) for (own, kind), key in zip(kinds, keys, strict=True)]
        features = [column(own).alias(f"{prefix}{n}") for n, (own, _) in enumerate(view.features)]
        history = self._window(found, join).select(
            *known,
            at.alias(TIME),
            F.struct(event.alias("event"), created.alias("created"), PATH, PLACE).alias("order"),
            F.struct(event.alias("event"), *features).alias("found"),
        )
        if join.by_created and join.created:  # greatest() overlooks a null
            history = history.where(F.col("order.created").isNotNull())
        history = history.where(F.col(TIME).isNotNull())
        for key in keys:
            history = history.where(F.col(key).isNotNull())
        if keys:
            history = history.join(rows.select(*keys).distinct(), keys, "left_semi")
        nothing = {name: F.lit(None).cast(history.schema[name].dataType) for name in ("order", "found")}
        both = rows.withColumns(nothing).unionByName(history.withColumn(NUMBER, F.lit(None).cast("bigint")))
        # At one instant the features come before the entity rows that see them.
        span = Window.partitionBy(*keys).orderBy(F.col(TIME), F.col(NUMBER).asc_nulls_first())
        latest = F.max_by("found", "order").over(span.rowsBetween(Window.unboundedPreceding, Window.currentRow))
        seen = both.withColumn("found", latest).where(F.col(NUMBER).isNotNull())
        ttl = ttl_ticks(join.ttl, "us")
        fresh = F.col("found.event") >= F.col(TIME) - ttl if ttl else F.lit(True)
        names = [f"{prefix}{n}" for n in range(len(features))]
        return seen.select(NUMBER, *(F.when(fresh, F.col(f"found.{name}")).alias(name) for name in names))

    def _keyed(self, join: Join, source: Source) -> tuple[DataFrame, list[str]]:
        """Entity rows as `NUMBER`, `TIME` and their keys in types that compare; the keys' names in it."""
        chosen = []
        for at, (own, name) in enumerate(join.keys):
            if name not in self.entities.types:
                raise ConfigError(f"the entity rows have no column {name!r}, the join key of view {join.view}")
            check_families(name, join.view, self.entities.types[name], source.types[own])
            chosen.append(_key(name, self.entities.types[name], source.types[own]).alias(f"k{at}"))
        rows = self.entities.keyed(list(dict.fromkeys(name for _, name in join.keys)))
        return rows.select(NUMBER, TIME, *chosen), [f"k{at}" for at in range(len(chosen))]

    def _window(self, found: DataFrame, join: Join) -> DataFrame:
        """Feature rows that some entity row may see by its time: Spark skips the row groups of all others."""
        low, high = self.entities.bounds()
        if low is None or high is None:
            return found.where(F.lit(False))
        event = column(join.event)
        found = found.where(event <= F.timestamp_micros(F.lit(micros(high))))
        if join.ttl:
            found = found.where(event >= F.timestamp_micros(F.lit(micros(low) - ttl_ticks(join.ttl, "us"))))
        return found


def _columns(view: ViewPlan) -> list[str]:
    join = view.join
    names = [*(own for own, _ in join.keys), *join.times]
    return list(dict.fromkeys([*names, *(own for own, _ in view.features)]))


def _key(name: str, kind: pa.DataType, feature: pa.DataType) -> Column:
    """A key column as values that compare with those of a view whose key is of type `feature`: null equals nothing."""
    found = column(name)
    if pa.types.is_null(kind) or pa.types.is_null(feature):
        return F.lit(None).cast("string")
    if family(feature) == "bytes":
        return found.cast("string")
    if family(feature) == "floats":
        number = found.cast("double")
        return F.when(~F.isnan(number), number)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return F.unix_micros(found.cast("timestamp"))
    if pa.types.is_floating(kind):  # a pandas frame turns integers with nulls into floats
        return F.when(F.floor(found) == found, found.try_cast("bigint"))
    return found.try_cast("bigint")


@dataclass(frozen=True)
class PullQuery:
    """Rows of a source whose time lies in [start, end], in file order; with `latest`, of each key the latest alone
    (rows whose key has a null belong to nobody and are left out). Without keys there is one latest row.

    Columns are asked for by the source's names and come under the names that its field mapping gives them: Feast's
    nodes on Spark expect it so."""

    session: SparkSession
    source: Any
    keys: tuple[str, ...]
    columns: tuple[str, ...]  # all of them where empty
    event: str
    created: str | None
    start: datetime | None
    end: datetime | None
    latest: bool
    repo_path: str

    def frame(self) -> DataFrame:
        found, types = self._rows()
        return self._named(found, types)

    def table(self) -> pa.Table:
        found, types = self._rows()
        names = [self.source.field_mapping.get(name, name) for name in types]
        kinds = list(types.values())
        if self._is_dummy:
            names, kinds = [*names, DUMMY_ENTITY_ID], [*kinds, pa.string()]
        return collect(self._named(found.orderBy(PATH, PLACE), types), names, kinds, f"reading {self.source.name}")

    @property
    def _is_dummy(self) -> bool:
        return self.latest and not self.keys

    def _named(self, found: DataFrame, types: dict[str, pa.DataType]) -> DataFrame:
        mapping = self.source.field_mapping
        named = [column(name).alias(mapping.get(name, name)) for name in types]
        if self._is_dummy:  # the key that Feast gives the row of a view without entities
            named.append(F.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))
        return found.select(*named)

    def _rows(self) -> tuple[DataFrame, dict[str, pa.DataType]]:
        times = (self.event, self.created) if self.created else (self.event,)
        source = read(self.session, self.source, self.repo_path, self.columns or None, times=times)
        found, event = source.frame, column(self.event)
        found = found.where(event.isNotNull())
        if self.start:
            found = found.where(event >= F.timestamp_micros(F.lit(micros(self.start))))
        if self.end:
            found = found.where(event <= F.timestamp_micros(F.lit(micros(self.end))))
        if self.latest:
            found = latest_rows(found, self.keys, self.event, self.created)
        return found, source.types


def latest_rows(found: DataFrame, keys: Sequence[str], event: str, created: str | None) -> DataFrame:
    """The latest row of each key by (event, created, file order); rows without a key or an event time are nobody's."""
    for name in (*keys, event):
        found = found.where(column(name).isNotNull())
    order = [column(name).desc_nulls_last() for name in (event, *([created] if created else []), PATH, PLACE)]
    window = Window.partitionBy(*(column(name) for name in keys)).orderBy(*order)
    rank = "_earmark_rank"
    return found.withColumn(rank, F.row_number().over(window)).where(F.col(rank) == 1).drop(rank)


def seen_in_span(session: SparkSession, plan: ViewPlan, start: datetime, end: datetime, repo_path: str) -> DataFrame:
    """Every distinct key and time of a view in a span of time, both ends inclusive, in the order of the files: the
    keys under the view's names and `event_timestamp`."""
    keys, event = [own for own, _ in plan.join.keys], plan.join.event
    pull = PullQuery(session, plan.source, tuple(keys), (*keys, event), event, None, start, end, False, repo_path)
    found, _ = pull._rows()
    named = [column(own).alias(name) for own, name in plan.join.keys]
    rows = found.select(*named, column(event).alias("event_timestamp"), F.struct(PATH, PLACE).alias("_earmark_first"))
    names = [name for _, name in plan.join.keys] + ["event_timestamp"]
    grouped = rows.groupBy(*(column(name) for name in names)).agg(F.min("_earmark_first").alias("_earmark_first"))
    return grouped.orderBy("_earmark_first").drop("_earmark_first")
