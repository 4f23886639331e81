"""Near-duplicates of a store's contents, by one of their vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.contracts import WORK_KEY
from core.errors import IndexUnavailable
from core.features import CONTENT
from core.keys import REMOVED
from pipelines.context import Run, local_root
from pipelines.quarantine import reasons
from pipelines.steps import load_release


def duplicates(
    run: Run,
    *,
    by: str = "audio",
    score: float = 0.95,
    quarantined: bool = False,
    progress: Callable[[int, int], Any] | None = None,
) -> pa.Table:
    """Contents whose vectors of the modality `by` are nearer than a cosine of `score`, in groups: `group` (the least
    content id), `size`, `content_id`, `title`, `kind`, `show_id`, `quarantine` (why it is there, or null). Removed
    contents are left out, and those in quarantine unless `quarantined`.

    Raises `IndexUnavailable` where there is no such index, `EarmarkError` for a score that is no cosine above 0."""
    from index import duplicate_groups, open_index

    release = load_release(run) or {"models": {}, "indexes": {}}
    if by not in release["indexes"]:
        raise IndexUnavailable(f"the store {run.storage.uri} has no {by} index: no content has a vector of it")
    entry = release["indexes"][by]
    searcher = open_index(
        local_root(run.storage) / "indexes",
        entry["name"],
        version=entry["version"],
        expect_model=release["models"][by]["model_id"],
    )
    found = duplicate_groups(searcher, score, progress)
    about = run.tables.latest(CONTENT, ["title", "kind", "show_id"])
    about = about.filter(pc.not_equal(about[WORK_KEY], REMOVED)).select(["content_id", "title", "kind", "show_id"])
    held = reasons(run.storage)
    about = about.append_column("quarantine", pa.array(map(held.get, about["content_id"].to_pylist()), pa.string()))
    if not quarantined:
        about = about.filter(pc.is_null(about["quarantine"]))
    found = found.filter(pc.is_in(found["content_id"], value_set=about["content_id"].combine_chunks()))
    # Without the removed, a group is smaller, and may be called after another.
    groups = found.group_by("group").aggregate([("content_id", "min"), ("content_id", "count")])
    named = {row["group"]: (row["content_id_min"], row["content_id_count"]) for row in groups.to_pylist()}
    new = [named[group] for group in found["group"].to_pylist()]
    found = found.set_column(1, "group", pa.array([group for group, _ in new], pa.string()))
    found = found.set_column(2, "size", pa.array([size for _, size in new], pa.int32()))
    found = found.filter(pc.greater(found["size"], 1))
    joined = found.join(about, "content_id", join_type="left outer")
    return joined.select(["group", "size", "content_id", "title", "kind", "show_id", "quarantine"]).sort_by(
        [("group", "ascending"), ("content_id", "ascending")]
    )
