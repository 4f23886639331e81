"""How far the online store says what the offline store says: a sample of every view's keys, read from both.

Offline is read from the part files themselves, not through the code that materialises them, so that a fault there
shows. Keys are drawn from the part files: rows whose key exists online alone (pushed there and nowhere else) cannot be
enumerated and are not seen.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.contracts import CREATED, EVENT, TIMESTAMP, WORK_KEY
from core.errors import ConfigError, StorageError
from core.features import FAMILIES, View, embedding_view
from core.storage import LocalStorage
from core.tables import Tables, latest_rows
from evaluation.consistency import Agreement, compare
from pipelines.context import Progress, no_progress

SAMPLE = 1000  # keys of each view: the share is known to about ±3 % at worst, ±0.4 % where nearly all agree
NOT_FOUND = 3  # feast.serving.FieldStatus


def consistency(
    root: Path,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    views: Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Compares `sample` keys of each view that Feast serves from the store in the folder `root` (or of the named
    `views`), drawn without replacement by `seed`.

    Returns the agreement by view (`evaluation.consistency.Agreement` as a dict), and over all views. While a run
    materialises, rows on their way count as disagreements. Raises `NotFound` where there is no Feast repository,
    `ConfigError` for a sample below 1, a view that is not served or an online store that is not Earmark's.
    """
    from feature_repo.faults import MEND, registry_faults
    from feature_repo.store import open_store

    if sample < 1:
        raise ConfigError(f"a sample of {sample} keys says nothing; take 1 or more")
    started = time.perf_counter()
    store, tables = open_store(root), Tables(LocalStorage(root))
    with registry_faults(root):
        served = _served(store)
    if not served:
        raise StorageError(f"Feast's registry in {root} has no feature view; {MEND}")
    _check_views(views, served)
    names = list(views or served)
    progress("views", 0, len(names))
    found = []
    for name in names:
        found.append(_agreement(store, tables, served[name], sample, seed))
        progress("views", 1, 0)
    total, agree = sum(one.sampled for one in found), sum(one.agree for one in found)
    return {
        "store": str(root),
        "sample": sample,
        "seed": seed,
        "views": [one.to_dict() for one in found],
        "sampled": total,
        "agree": agree,
        "share": agree / total if total else None,
        "seconds": time.perf_counter() - started,
    }


def repair(root: Path, views: Sequence[str] | None = None, progress: Progress = no_progress) -> dict[str, int]:
    """Materialises every row of the store in the folder `root` again, of all views or of those named, whatever its
    ledger lists: this restores rows that the online store lost. Returns the number of rows written, by view. Raises
    `NotFound`, `ConfigError` for a view that is not served, `StorageError`."""
    from feature_repo.faults import registry_faults
    from feature_repo.materialise import materialise
    from feature_repo.store import open_store

    with registry_faults(root):
        store = open_store(root)
        _check_views(views, sorted(view.name for view in store.list_feature_views()))
        return materialise(store, progress, again=True, views=views)


def _check_views(asked: Sequence[str] | None, served: Collection[str]) -> None:
    unknown = sorted(set(asked or ()) - set(served))
    if unknown:
        raise ConfigError(f"Feast serves no view {unknown[0]!r} of this store; it serves {', '.join(served)}")


def _served(store: Any) -> dict[str, View]:
    """The applied views whose rows Earmark keeps, by name, with the features that Feast knows of."""
    families = {view.name: view for view in FAMILIES}
    found = {}
    for feast_view in sorted(store.list_feature_views(), key=lambda view: view.name):
        name = feast_view.name
        if name not in families and "__" not in name:
            continue  # somebody's own view over other files
        view = families.get(name) or embedding_view(name.split("__")[0], "", 0)
        applied = {feature.name for feature in feast_view.features}  # fewer in a store of an earlier version
        features = tuple(feature for feature in view.features if feature.name in applied)
        found[name] = View(name, view.entity, features, view.description)
    return found


def _agreement(store: Any, tables: Tables, view: View, sample: int, seed: int) -> Agreement:
    rows = tables.read(view, [view.entity, EVENT])
    every = pc.unique(rows.filter(_in_force())[view.entity])
    keys = _draw(every, sample, seed)
    features = [feature.name for feature in view.features]
    ttl = store.get_feature_view(view.name).ttl
    offline = _latest(tables, view, keys)
    # The offline rows first: what a run publishes in between makes a row ahead, which is harmless, and not stale.
    online = _online(store, view, keys)
    now_us, ttl_us = time.time_ns() // 1000, int(ttl.total_seconds() * 1_000_000) if ttl else 0
    return compare(
        view.name,
        view.entity,
        features,
        online,
        offline,
        population=len(every),
        ttl_us=ttl_us,
        now_us=now_us,
    )


def _draw(keys: pa.Array, sample: int, seed: int) -> pa.Array:
    """Some of the keys, sorted before they are drawn: the same seed gives the same keys whatever the order of files."""
    keys = keys.take(pc.sort_indices(keys))
    if len(keys) <= sample:
        return keys
    chosen = np.random.default_rng(seed).choice(len(keys), sample, replace=False)
    return keys.take(pa.array(np.sort(chosen)))


def _latest(tables: Tables, view: View, keys: pa.Array) -> pa.Table:
    """The latest row of each key over all parts, tombstones included."""
    from pyarrow import dataset

    filesystem, root = tables.storage.arrow()
    paths = [f"{root}/{part.path}" for part in tables.parts(view)]
    if not paths:
        return view.schema.empty_table()
    rows = dataset.dataset(paths, schema=view.schema, filesystem=filesystem, format="parquet")
    names = [view.entity, *(f.name for f in view.features), EVENT, CREATED, WORK_KEY]
    return latest_rows(rows.to_table(columns=names, filter=pc.field(view.entity).isin(keys) & _in_force()), view.entity)


def _in_force() -> pc.Expression:
    """Rows that are not dated in the future: the online store holds those back."""
    return pc.field(EVENT) <= pc.scalar(datetime.now(UTC)).cast(TIMESTAMP)


def _online(store: Any, view: View, keys: pa.Array) -> pa.Table:
    """The online rows of these keys; the event time is null where there is none."""
    from feature_repo.plugins.online.reader import OnlineReader

    references = [f"{view.name}:{feature.name}" for feature in view.features]
    answer = OnlineReader(store, references, full_feature_names=False).read({view.entity: keys})
    there = np.zeros(len(keys), bool)
    for status in answer.status.values():
        there |= status != NOT_FOUND
    event = pa.array(answer.event_us[view.name], pa.int64(), mask=~there).cast(TIMESTAMP)
    return answer.table.append_column(EVENT, event)
