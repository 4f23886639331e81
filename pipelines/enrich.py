"""Enriching one shard: decode each medium once, run every pending stage on it, commit.

Items run side by side in threads (decoders and models release the GIL), each model on one thread. On a GPU the items
of a batch go to the device together while the next batch is being decoded.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import BadItem
from core.features import SIDE_TABLES, View
from core.items import Pool, is_fatal, pool_of, reason_of
from core.tables import now_us, rows_to_table
from pipelines import quarantine
from pipelines.context import Run, one_thread_per_model
from pipelines.plan import read_shard
from pipelines.quarantine import Failure
from pipelines.stages import WHOLE_FILES, Row, Stage, content_stage, media_stages, text_stages

MODALITIES = ("none", "audio", "image", "text")  # in the order in which a shard goes through them
BATCH_ITEMS = {"none": 4096, "audio": 1, "image": 4, "text": 64}
GPU_BATCH_ITEMS = {"none": 4096, "audio": 1, "image": 64, "text": 256}


@dataclass
class Metrics:
    """What a shard cost: seconds of work (summed over threads) and items by activity."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    items: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, activity: str, seconds: float, items: int = 0) -> None:
        with self._lock:
            self.seconds[activity] += seconds
            self.items[activity] += items

    def to_dict(self) -> dict[str, Any]:
        return {"seconds": dict(self.seconds), "items": dict(self.items)}


class ShardResult:
    """Rows and failures of a shard as they come in from the threads."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = defaultdict(list)
        self.side: dict[tuple[str, str], list[Row]] = defaultdict(list)
        self.failures: list[Failure] = []
        self.decoded: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def add(self, stage: Stage, item: Row, work: Row, features: Row) -> None:
        fixed = {"content_id": item["content_id"], EVENT: work["event"], WORK_KEY: work["key"]}
        side = features.pop("_side", {})
        with self._lock:
            self.rows[stage.name].append({**features, **fixed})
            for name, rows in side.items():
                self.side[stage.name, name] += [{**row, **fixed} for row in rows]

    def copy(self) -> ShardResult:
        """The state now; threads that are still at work add nothing to it."""
        made = ShardResult()
        with self._lock:
            made.rows.update({name: list(rows) for name, rows in self.rows.items()})
            made.side.update({name: list(rows) for name, rows in self.side.items()})
            made.failures, made.decoded = list(self.failures), set(self.decoded)
        return made

    def fail(self, item: Row, stage: str, key: str, error: Exception) -> None:
        reason, detail = reason_of(error)
        with self._lock:
            self.failures.append(Failure(item["content_id"], stage, key, reason, detail))


def run_shard(run: Run, shard: str) -> dict[str, Any]:
    """Enriches the contents of one shard and commits their rows; returns counts and seconds."""
    items = read_shard(run, shard)
    metrics, result = Metrics(), ShardResult()
    if items:
        text_only = shard.startswith("text")
        stages = text_stages(run) if text_only else [content_stage(), *media_stages(run)]
        if {work["stage"] for item in items for work in item["work"]} - {"content"}:
            one_thread_per_model()
        label = "text" if text_only else "media"
        modality_of = {stage.name: stage.modality for stage in stages}
        last = {i["content_id"]: max(MODALITIES.index(modality_of[w["stage"]]) for w in i["work"]) for i in items}
        waiting = {(item["content_id"], row["stage"]): row for item in items for row in item["quarantine"]}
        try:
            with pool_of(run.config.threads) as pool:
                for number, modality in enumerate(MODALITIES):
                    chosen = {s.name: s for s in stages if s.modality == modality}
                    todo = [item for item in items if any(work["stage"] in chosen for work in item["work"])]

                    def finished(batch: list[Row], number: int = number) -> None:
                        run.progress(label, sum(last[item["content_id"]] == number for item in batch), 0)

                    if todo:
                        _run_modality(run, pool, modality, chosen, todo, result, metrics, finished)
        except KeyboardInterrupt:
            _commit(run, shard, stages, result.copy(), metrics, waiting)  # what is done need not be done again
            raise
        _commit(run, shard, stages, result, metrics, waiting)
    summary = {**metrics.to_dict(), "failures": len(result.failures)}
    run.write_json(f"metrics/{shard}.json", summary)
    run.storage.delete(f"{run.folder}/shards/{shard}.parquet")
    return {"shard": shard, "contents": len(items), "failures": len(result.failures)}


def _run_modality(
    run: Run,
    pool: Pool,
    modality: str,
    stages: dict[str, Stage],
    items: list[Row],
    result: ShardResult,
    metrics: Metrics,
    finished: Callable[[list[Row]], None],
) -> None:
    gpu = modality in ("image", "text") and run.config.device != "cpu" and _on_gpu(run)
    size = (GPU_BATCH_ITEMS if gpu else BATCH_ITEMS)[modality]
    if modality == "text":  # texts of like length waste no padding
        items = sorted(items, key=lambda i: (len(i["text"] or ""), i["content_id"]))
    batches = [items[start : start + size] for start in range(0, len(items), size)]

    def compute(batch: list[Row], media: dict[str, Any]) -> None:
        for stage in stages.values():
            _run_stage(stage, batch, media, result, metrics)
        finished(batch)

    def read(batch: list[Row]) -> dict[str, Any]:
        return _read_batch(run, modality, stages, batch, result, metrics)

    if gpu:
        ahead: Future[dict[str, Any]] | None = None
        for number, batch in enumerate(batches):
            media = ahead.result() if ahead else read(batch)
            ahead = pool.submit(read, batches[number + 1]) if number + 1 < len(batches) else None
            compute(batch, media)
        return
    for done in [pool.submit(lambda b=batch: compute(b, read(b))) for batch in batches]:  # type: ignore[misc]
        done.result()


def _read_batch(
    run: Run, modality: str, stages: dict[str, Stage], batch: list[Row], result: ShardResult, metrics: Metrics
) -> dict[str, Any]:
    """content_id → decoded medium; what cannot be read is a failure of the modality."""
    media: dict[str, Any] = {}
    started = time.perf_counter()
    for item in batch:
        work = [w for w in item["work"] if w["stage"] in stages]
        try:
            media[item["content_id"]] = _READERS[modality](run, item, [stages[w["stage"]] for w in work])
            result.decoded.add((item["content_id"], modality))
        except Exception as error:
            if is_fatal(error):
                raise
            result.fail(item, modality, work[0]["media_key"], error)
    metrics.add(f"read {modality}", time.perf_counter() - started, len(batch))
    return media


def _run_stage(stage: Stage, batch: list[Row], media: dict[str, Any], result: ShardResult, metrics: Metrics) -> None:
    todo = [
        (item, work)
        for item in batch
        if item["content_id"] in media
        for work in item["work"]
        if work["stage"] == stage.name
    ]
    started = time.perf_counter()
    _attempt(stage, todo, media, result)
    metrics.add(stage.name, time.perf_counter() - started, len(todo))


def _attempt(stage: Stage, todo: Sequence[tuple[Row, Row]], media: dict[str, Any], result: ShardResult) -> None:
    """Runs a stage on a batch; a batch that fails is tried item by item, so that one bad item costs only itself."""
    if not todo:
        return
    try:
        rows = stage.run([media[item["content_id"]] for item, _ in todo])
    except Exception as error:
        if is_fatal(error):
            raise
        if len(todo) == 1:
            item, work = todo[0]
            result.fail(item, stage.name, work["key"], error)
            return
        for single in todo:
            _attempt(stage, [single], media, result)
        return
    for (item, work), features in zip(todo, rows, strict=True):
        result.add(stage, item, work, features)


def _commit(
    run: Run,
    shard: str,
    stages: Iterable[Stage],
    result: ShardResult,
    metrics: Metrics,
    waiting: quarantine.Known,
) -> None:
    """Commits what a shard made; `waiting` are its items that were in quarantine when it was planned."""
    started = time.perf_counter()
    created = now_us()
    views: list[tuple[View, pa.Table]] = []
    sides: dict[str, list[pa.Table]] = defaultdict(list)
    for stage in stages:
        table, beside = _tables(stage, result, created)
        if table is not None:
            views.append((stage.view, table))
        for name, rows in beside.items():
            sides[name].append(rows)
    # What stands beside a view is committed before it: the view's row says that the work is done.
    for name, tables in sorted(sides.items()):
        run.tables.commit(SIDE_TABLES[name], pa.concat_tables(tables), created, shard)
    for view, table in views:
        run.tables.commit(view, table, created, shard)
    done = {(row["content_id"], name) for name, rows in result.rows.items() for row in rows} | result.decoded
    failed = {(failure.content_id, failure.stage) for failure in result.failures}
    healed = sorted((done - failed) & set(waiting))
    quarantine.record(run.storage, created, shard, result.failures, healed, waiting)
    metrics.add("write", time.perf_counter() - started, sum(map(len, result.rows.values())))


def _tables(stage: Stage, result: ShardResult, created: datetime) -> tuple[pa.Table | None, dict[str, pa.Table]]:
    """A stage's rows and those beside them, by name. A content with a value that no column takes, such as half a
    character, is a failure of that content."""
    rows = sorted(result.rows.get(stage.name, ()), key=lambda row: row["content_id"])
    beside = {name: rows for (own, name), rows in sorted(result.side.items()) if own == stage.name}
    parts = [(stage.view, rows), *((SIDE_TABLES[name], more) for name, more in beside.items())]
    bad: dict[str, Exception] = {}
    for view, some in parts:
        bad |= _misfits(view, some, created)
    if bad:
        for row in rows:
            if row["content_id"] in bad:
                result.fail(row, stage.name, row[WORK_KEY], bad[row["content_id"]])
        rows = result.rows[stage.name] = [row for row in rows if row["content_id"] not in bad]
        beside = {name: [row for row in more if row["content_id"] not in bad] for name, more in beside.items()}
    table = _stamped(stage.view, rows, created) if rows else None
    return table, {name: _stamped(SIDE_TABLES[name], more, created) for name, more in beside.items() if more}


def _misfits(view: View, rows: Sequence[Row], created: datetime) -> dict[str, Exception]:
    """The error by content, of rows that cannot be a row of the view."""
    try:
        _stamped(view, rows, created)
    except Exception as error:
        if is_fatal(error):
            raise
        bad: dict[str, Exception] = {}
        for row in rows:
            try:
                _stamped(view, [row], created)
            except Exception as own:
                bad[row["content_id"]] = own
        return bad
    return {}


def _stamped(view: View, rows: Sequence[Row], created: datetime) -> pa.Table:
    return rows_to_table(view, [{**row, CREATED: created} for row in rows])


def _on_gpu(run: Run) -> bool:
    from embedders.registry import resolve_device

    return resolve_device(run.config.device) != "cpu"


def _read_audio(run: Run, item: Row, stages: list[Stage]) -> Any:
    from catalog.isolated import decode_audio

    listeners = [listener for stage in stages for listener in stage.listeners()]
    with run.resolver.open(item["audio_uri"]) as path:
        audio = decode_audio(path, run.config.limits, listeners, accept_truncated=run.config.accept_truncated)
        return _hashed(replace(audio, language=item["language"]), path, stages)


def _read_image(run: Run, item: Row, stages: list[Stage]) -> Any:
    from catalog.isolated import decode_picture

    with run.resolver.open(item["image_uri"]) as path:
        return _hashed(decode_picture(path, limits=run.config.limits), path, stages)


def _hashed(medium: Any, path: Path, stages: list[Stage]) -> Any:
    """With the hash of its file, where that is wanted."""
    from catalog.identity import sha256_of

    wanted = any(stage.view in WHOLE_FILES for stage in stages)
    return replace(medium, sha256=sha256_of(path)) if wanted else medium


def _read_text(run: Run, item: Row, stages: list[Stage]) -> Any:
    from catalog.media import Text

    text = Text(item["title"], item["description"], item["text"], item["language"])
    if len(text.full) > run.config.limits.max_text_chars:
        raise BadItem("too_long", f"{len(text.full)} characters; at most {run.config.limits.max_text_chars} are read")
    return text


_READERS: dict[str, Callable[[Run, Row, list[Stage]], Any]] = {
    "none": lambda run, item, stages: item,
    "audio": _read_audio,
    "image": _read_image,
    "text": _read_text,
}
