"""What a store holds, as numbers."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from core import lease
from core.contracts import CREATED, EVENT, WORK_KEY
from core.features import SHOW
from core.keys import REMOVED
from pipelines import quarantine, removal
from pipelines.context import Run
from pipelines.steps import load_release
from pipelines.unfinished import unfinished


def status(run: Run) -> dict[str, Any]:
    """Views with their keys, rows and parts, the release, the writer, the run that did not end (if one did not) and the
    size of the quarantine."""
    views = []
    for view in [*removal.stored_views(run.storage), SHOW]:
        latest = run.tables.latest(view, [])
        removed = pc.sum(pc.equal(latest[WORK_KEY], REMOVED)).as_py() or 0
        parts = run.tables.parts(view)
        # Distinct, because compaction leaves what it replaced for a while.
        versions = [view.entity, EVENT, CREATED]
        rows = run.tables.read(view, versions).group_by(versions).aggregate([]).num_rows
        views.append(
            {
                "view": view.name,
                "contents": latest.num_rows - removed,
                "removed": removed,
                "rows": rows,
                "parts": len(parts),
            }
        )
    release = load_release(run) or {}
    holder, left = lease.current(run.storage), unfinished(run.storage)
    return {
        "store": run.storage.uri,
        "released": release.get("released"),
        "models": release.get("models", {}),
        "indexes": release.get("indexes", {}),
        "writer": str(holder) if holder else None,
        "unfinished": None if left is None else left.to_dict(),
        "quarantine": quarantine.open_rows(run.storage).num_rows,
        "views": sorted(views, key=lambda v: str(v["view"])),
    }
