"""Compaction: many small part files of a view become few of a good size.

A merged part is published first and says in its footer which parts it replaces; the online store's ledger learns that
its rows are known; the replaced parts are retired last, after a while in which readers that had listed them can finish.
Readers take one of rows that are equal in key, event and created time, so what stands twice in between is seen once.
A process may die between any two steps: the footers tell the next one what is left to do.

Left out are the tables with several rows a content (words, segments): their rows have no key of their own, so that a
row which stands twice could not be told from two rows, neither by a reader in between nor here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import ConfigError, StorageError
from core.features import SHOW, View
from core.keys import digest
from core.storage import Entry
from core.tables import now_us
from pipelines import quarantine, removal
from pipelines.context import Run
from pipelines.merge import merge

MB = 1_000_000
MAX_ROWS = 4_000_000  # rows of a merged part: their keys are in memory together, about 100 bytes each
FOLD = 4  # a part joins when it is at most so many times the others that join: no byte is rewritten at every compaction
NAME = "-compact-"
REPLACES, PUBLISHED = "earmark.replaces", "earmark.published"  # keys of the footer: JSON list of paths; epoch seconds


@dataclass(frozen=True)
class Limits:
    """What is worth compacting. Parts below half of `target_bytes` are small; a view with `min_parts` of them that are
    worth it is compacted into parts of about `target_bytes`. Replaced parts stay `grace_s` seconds for their readers.
    """

    min_parts: int = 8
    target_bytes: int = 128 * MB
    grace_s: float = 900.0

    def __post_init__(self) -> None:
        if self.min_parts < 2 or self.target_bytes < 1 or self.grace_s < 0:
            raise ConfigError("compaction takes 2 parts or more, a target size above 0 and a grace of 0 or more")


def compact(run: Run, limits: Limits | None = None) -> dict[str, Any]:
    """Compacts every view of the store that has enough small parts; call it under the writer lease.

    Returns by view what became of its parts, how many were retired, and how many wait to be. Repeat it to finish what
    a killed one began. Raises `StorageError`, after which the store answers as before.
    """
    started = time.perf_counter()
    job = _Job(run, limits or Limits())
    views = [*removal.stored_views(run.storage), *([SHOW] if run.tables.parts(SHOW) else [])]
    found: dict[str, Any] = {}
    retired = waiting = 0
    run.progress("views", 0, len(views))
    for view in sorted(views, key=lambda view: view.folder):
        gone, kept = job.retire(view)
        merged = [job.publish(view, group) for group in job.groups(view)]
        if merged:
            found[view.name] = {name: sum(part[name] for part in merged) for name in merged[0]}
            more, kept = job.retire(view)
            gone += more
        retired, waiting = retired + gone, waiting + kept
        run.progress("views", 1, 0)
    quarantine.compact(run.storage, now_us())
    removal.compact_log(run.storage, now_us())
    return {"views": found, "retired": retired, "waiting": waiting, "seconds": time.perf_counter() - started}


def stage(run: Run) -> dict[str, Any]:
    """The last step of a run: compaction with the usual limits."""
    summary = compact(run)
    run.write_json("compact.json", summary)
    return summary


class _Job:
    def __init__(self, run: Run, limits: Limits) -> None:
        self._tables, self._storage, self._limits = run.tables, run.storage, limits

    def groups(self, view: View) -> Iterator[list[Entry]]:
        """The parts that become one each, by path, which is the order of their creation."""
        parts = self._tables.parts(view)
        busy: set[str] = set()  # replaced, or not yet alone with what it replaced
        for part in parts:
            left = self._replaced(part, parts)[0] if NAME in part.path else []
            busy.update([part.path, *left] if left else [])
        small = [p for p in parts if p.path not in busy and p.size_bytes < self._limits.target_bytes / 2]
        small.sort(key=lambda part: part.size_bytes)
        while len(small) >= self._limits.min_parts and small[-1].size_bytes > FOLD * _size(small[:-1]):
            small.pop()
        if len(small) < self._limits.min_parts:
            return
        group: list[Entry] = []
        rows = 0
        for part in sorted(small, key=lambda part: part.path):
            own = self._footer(part.path).num_rows
            if group and (_size(group) + part.size_bytes > self._limits.target_bytes or rows + own > MAX_ROWS):
                yield from [group] if len(group) > 1 else []
                group, rows = [], 0
            group, rows = [*group, part], rows + own
        yield from [group] if len(group) > 1 else []

    def publish(self, view: View, group: Sequence[Entry]) -> dict[str, int]:
        """Merges the parts of a group, commits the new part and tells the online store of it; returns numbers."""
        from feature_repo.plugins.parquet import read_layout
        from feature_repo.plugins.sources import Part, Parts

        filesystem, root = self._storage.arrow()
        files = [Part(f"{root}/{part.path}", part.size_bytes) for part in group]
        paths = [part.path for part in group]
        footer = {REPLACES: json.dumps(paths), PUBLISHED: str(time.time())}
        made = merge(read_layout(Parts(filesystem, files, f"{root}/{view.folder}")), view, footer)
        folder = f"{view.folder}/date={made.created:%Y-%m-%d}"
        path = f"{folder}/part-{made.created:%Y%m%dT%H%M%S%f}{NAME}{digest(paths)[:12]}.parquet"
        self._storage.write(path, made.data)
        self._note(view, paths, path)
        return {
            "parts_before": len(group),
            "parts_after": 1,
            "bytes_before": _size(group),
            "bytes_after": len(made.data),
            "rows": made.rows,
            "duplicates": made.duplicates,
        }

    def retire(self, view: View) -> tuple[int, int]:
        """Deletes parts whose replacement has been there for long enough; returns how many it deleted, and how many
        wait for the time to pass."""
        parts = self._tables.parts(view)
        gone = kept = 0
        for part in parts:
            left, published = self._replaced(part, parts) if NAME in part.path else ([], 0.0)
            if not left:
                continue
            self._note(view, left, part.path)  # in case that the process died before it
            if time.time() - published < self._limits.grace_s:
                kept += len(left)
                continue
            for path in left:
                self._storage.delete(path)
            gone += len(left)
        return gone, kept

    def _replaced(self, part: Entry, parts: Sequence[Entry]) -> tuple[list[str], float]:
        """(the parts that `part` replaces and that are still there, when it was published in epoch seconds)."""
        told = self._footer(part.path).metadata or {}
        there = {other.path for other in parts}
        replaced = json.loads(told.get(REPLACES.encode(), b"[]"))
        return [path for path in replaced if path in there], float(told.get(PUBLISHED.encode(), b"0"))

    def _footer(self, path: str) -> pq.FileMetaData:
        filesystem, root = self._storage.arrow()
        try:
            with filesystem.open_input_file(f"{root}/{path}") as file:
                return pq.ParquetFile(file).metadata
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{path} in {self._storage.uri} cannot be read as Parquet: {error}") from error

    def _note(self, view: View, before: Sequence[str], after: str) -> None:
        """Tells the online store's ledger that the rows of `after` are known where those of `before` are, so that they
        are not materialised again (they would change nothing, and cost time)."""
        from feature_repo.ledger import up_to_date

        root = getattr(self._storage, "root", None)
        if root is None or view.room != "offline" or up_to_date(root, [after]):
            return
        feast_view = self._served.get(view.name)
        if feast_view is not None:
            self._engine.note_compaction(feast_view, [str(root / path) for path in before], str(root / after))

    @cached_property
    def _engine(self) -> Any:
        """Feast's engine over this store where it is Earmark's, else None. Opening Feast takes seconds."""
        from feature_repo.store import FOLDER, open_store

        root = self._storage.root  # type: ignore[attr-defined]
        if not (root / FOLDER / "feature_store.yaml").is_file():
            return None
        from feature_repo.plugins.engine import EarmarkEngine

        self._store = open_store(root)
        engine = self._store._get_provider().batch_engine
        return engine if isinstance(engine, EarmarkEngine) else None

    @cached_property
    def _served(self) -> dict[str, Any]:
        """The views that the engine materialises, by name."""
        if self._engine is None:
            return {}
        return {view.name: view for view in self._store.list_feature_views() if self._engine.takes(view)}


def _size(parts: Sequence[Entry]) -> int:
    return sum(part.size_bytes for part in parts)
