"""The steps of a run: each reads what it needs from the store, commits what it made and returns a small summary."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import CatalogError, StorageError
from core.features import ACOUSTIC, CONTENT, MODERATION, SHOW, SKIPS, SPEECH, embedding_view, raw_view
from core.keys import REMOVED, digest, work_key
from core.release import read_release
from core.tables import decode, encode, now_us, query, rows_to_table
from pipelines import quarantine, removal
from pipelines.context import Run
from pipelines.plan import Candidate, Pending, cut_shards, pending
from pipelines.quarantine import Failure
from pipelines.stages import (
    WHOLE_FILES,
    Stage,
    audio_key,
    content_key,
    content_stage,
    image_key,
    media_stages,
    text_key,
    text_stages,
)

MIN_FIT = 16  # contents with audio below which the shipped statistics standardise instead of the catalogue's
FINISH_ROWS = 16_384  # vectors a part when raw vectors are standardised
FILE_CACHE = "cache/files.parquet"
EXAMPLES = 3  # contents or rows that a summary names where it counts many


def read(run: Run) -> list[str]:
    """Reads the catalogue, prunes, quarantines what cannot be a content, and plans the shards with media."""
    from catalog.identity import FileCache
    from catalog.read import read_catalog
    from catalog.walk import shown_endings

    started = time.perf_counter()
    known = _optional_table(run, FILE_CACHE)
    cache = FileCache() if known is None else FileCache.from_table(known)
    catalog = read_catalog(run.source, timezone=run.config.timezone, file_cache=cache)
    if not catalog.table.num_rows and not catalog.rejected:
        left_out = f"; {shown_endings(catalog.left_out)} left out" if catalog.left_out else ""
        raise CatalogError(f"the catalogue {run.source} holds no contents{left_out}")
    now = now_us()
    blocked = removal.blocked(run.storage)
    keep = [content_id not in blocked for content_id in catalog.table["content_id"].to_pylist()]
    table = catalog.table.filter(pa.array(keep, pa.bool_()))
    run.storage.write(f"{run.folder}/catalog.parquet", encode(table))
    gone = removal.unlisted(run, catalog.listed)
    # A row without a readable id may stand for any content, so nothing is known to be missing.
    prunes = bool(run.options.get("prune")) and not catalog.unidentified
    if prunes:
        removal.prune(run, gone)

    rows = table.to_pylist()
    media_stages_ = media_stages(run)
    for stage in [content_stage(), *media_stages_, *text_stages(run)]:
        run.tables.ensure(stage.view)
    for view in (SHOW, SKIPS, MODERATION):
        run.tables.ensure(view)
    candidates, sizes = _media_candidates(run, rows, media_stages_, cache)
    if cache.changed:
        run.storage.write(FILE_CACHE, encode(cache.to_table()))
    rejected = [
        Failure(r.content_id, "catalogue", digest([r.reason, r.detail]), r.reason, r.detail) for r in catalog.rejected
    ]
    _reconcile_rejections(run, rejected, candidates, rows, now)
    work: list[Pending] = []
    for stage in [content_stage(), *media_stages_]:
        work += pending(run, stage, candidates.get(stage.name, []), now)
    run.progress("media", 0, len({item.position for item in work}))
    shards = cut_shards(run, "media", table, work, run.config.shard_items, sizes)
    run.write_json(
        "read.json",
        {
            "contents": table.num_rows,
            "kinds": {k: int(n) for k, n in _counts(table["kind"])},
            "rejected": len(rejected),
            "blocked": len(keep) - sum(keep),
            "pruned": len(gone) if prunes else 0,
            "not_listed": 0 if prunes else len(gone),
            "not_listed_examples": [] if prunes else gone[:EXAMPLES],
            "prune_withheld": [r.detail for r in catalog.unidentified[:EXAMPLES]] if run.options.get("prune") else [],
            "left_out": catalog.left_out,
            "pending": {s.name: sum(w.stage == s.name for w in work) for s in [content_stage(), *media_stages_]},
            "seconds": time.perf_counter() - started,
        },
    )
    return shards


def _media_candidates(
    run: Run, rows: list[dict[str, Any]], stages: list[Stage], cache: Any
) -> tuple[dict[str, list[Candidate]], dict[int, int]]:
    """Candidates by stage, and the bytes of media by row."""
    from catalog.identity import identify

    uris = sorted({uri for row in rows for uri in (row["audio_uri"], row["image_uri"]) if uri})
    found = identify(uris, run.resolver, cache, verify=bool(run.options.get("verify")))
    candidates: dict[str, list[Candidate]] = {}
    sizes: dict[int, int] = {}

    def add(stage: Stage, position: int, row: dict[str, Any], key: str, made_of: str = "") -> None:
        made_of, declared = made_of or key, stage.declared_input(row)
        work = stage.key(made_of if declared is None else digest([made_of, declared]))
        candidate = Candidate(position, row["content_id"], row["updated_at"], key, work)
        candidates.setdefault(stage.name, []).append(candidate)

    content = content_stage()
    for position, row in enumerate(rows):
        add(content, position, row, content_key(row))
        for modality, uri in (("audio", row["audio_uri"]), ("image", row["image_uri"])):
            if not uri:
                continue
            identity = found[uri]
            # What cannot be opened has its reason for an identity: when the file comes back, the key changes.
            known = getattr(identity, "media_hash", None)
            if known is None:
                known = f"unreadable {getattr(identity, 'reason', 'file')}"
            keyed = audio_key if modality == "audio" else image_key
            key = keyed(known)
            # Markers and copies hold for a file's very bytes, so for them new tags are a new file.
            whole = keyed(getattr(identity, "sha256", known))
            sizes[position] = sizes.get(position, 0) + int(getattr(identity, "size", 0) or 0)
            for stage in stages:
                if stage.modality == modality:
                    add(stage, position, row, key, whole if stage.view in WHOLE_FILES else "")
    return candidates, sizes


def _reconcile_rejections(
    run: Run, rejected: list[Failure], candidates: dict[str, list[Candidate]], rows: list[dict[str, Any]], now: Any
) -> None:
    """Records new rejections of catalogue rows and closes what no longer applies."""
    open_now = quarantine.open_keys(run.storage)
    gone = {f.content_id for f in rejected}
    healed = [key for key in open_now if key[1] == "catalogue" and key[0] not in gone]
    has = {m: {r["content_id"] for r in rows if r[f"{m}_uri"]} for m in ("audio", "image")}
    listed = {row["content_id"] for row in rows}
    modality = {stage.name: stage.modality for stage in media_stages(run)}
    for content_id, stage in open_now:
        needs = modality.get(stage, stage)
        if content_id in listed and needs in has and content_id not in has[needs]:
            healed.append((content_id, stage))
    fresh = [f for f in rejected if open_now.get((f.content_id, f.stage)) != f.key or run.options.get("retry")]
    quarantine.record(run.storage, now, f"catalogue-{run.run_id}", fresh, healed)


def audio(run: Run) -> dict[str, Any]:
    """Freezes the catalogue's statistics once and turns pending raw vectors into embeddings."""
    started = time.perf_counter()
    raw = run.models.audio.raw
    raw_view_ = raw_view("audio", raw.model_id, raw.dim)
    vectors = run.tables.latest(raw_view_, ["vector"])
    vectors = vectors.filter(pa.compute.is_valid(vectors["vector"]))
    model = run.models.audio.finish(_statistics(run, vectors))
    view = embedding_view("audio", model.model_id, model.dim)
    run.tables.ensure(view)
    keys = [work_key("audio", 1, model.model_id, {"raw": key}) for key in vectors[WORK_KEY].to_pylist()]
    known = run.tables.latest(view, [])
    due = query(
        f"SELECT v.* EXCLUDE ({WORK_KEY}, key), key AS {WORK_KEY} FROM vectors v "
        f"LEFT JOIN known k USING (content_id) WHERE k.{WORK_KEY} IS NULL OR k.{WORK_KEY} <> v.key "
        f"OR k.{EVENT} < v.{EVENT} ORDER BY content_id",
        vectors=vectors.append_column("key", pa.array(keys, pa.string())),
        known=known,
    )
    for start in range(0, due.num_rows, FINISH_ROWS):
        block = due.slice(start, FINISH_ROWS)
        created = now_us()
        finished = model.apply(_matrix(block["vector"], model.dim if raw.dim is None else raw.dim))
        rows = pa.table(
            {
                "content_id": block["content_id"],
                "embedding": _vectors(finished),
                EVENT: block[EVENT],
                CREATED: pa.array([created] * block.num_rows, view.schema.field(CREATED).type),
                WORK_KEY: block[WORK_KEY],
            }
        )
        run.tables.commit(view, rows, created, f"audio-{start // FINISH_ROWS:06d}")
    summary = {"model_id": model.model_id, "embedded": due.num_rows, "seconds": time.perf_counter() - started}
    run.write_json("audio.json", summary)
    return summary


def frozen_statistics(run: Run) -> Any:
    """The statistics that standardise this store's raw audio vectors: frozen here, or the shipped ones; None for a
    model that needs none."""
    source = run.models.audio
    if not source.needs_statistics:
        return None
    from embedders import standardise

    try:
        return standardise.Statistics.from_bytes(run.storage.read(_statistics_path(run)))
    except FileNotFoundError:
        return standardise.default_statistics()


def _statistics_path(run: Run) -> str:
    return f"models/{digest(run.models.audio.raw.model_id)}/statistics.json"


def _statistics(run: Run, vectors: pa.Table) -> Any:
    """The frozen statistics of the raw model in this store; fitted on what is there the first time (or on request)."""
    source = run.models.audio
    if not source.needs_statistics:
        return None
    from embedders import standardise

    path = _statistics_path(run)
    if not run.options.get("refit"):
        try:
            return standardise.Statistics.from_bytes(run.storage.read(path))
        except FileNotFoundError:
            pass
    if vectors.num_rows >= MIN_FIT:
        statistics = standardise.fit(_matrix(vectors["vector"], source.raw.dim), source.raw.model_id)
    else:
        statistics = standardise.default_statistics()
    if vectors.num_rows:  # a catalogue without audio leaves the choice to the first one with some
        run.storage.write(path, statistics.to_bytes())
    return statistics


def plan_text(run: Run) -> list[str]:
    """Plans the shards of text, once the transcripts are known."""
    table = decode(run.storage.read(f"{run.folder}/catalog.parquet"))
    speech = run.tables.latest(SPEECH, ["transcript"])
    transcripts = {
        content_id: (text, key)
        for content_id, text, key in zip(
            *(speech[name].to_pylist() for name in ("content_id", "transcript", WORK_KEY)), strict=True
        )
        if text
    }
    rows, body = table.to_pylist(), []
    stages = text_stages(run)
    candidates: dict[str, list[Candidate]] = {stage.name: [] for stage in stages}
    for position, row in enumerate(rows):
        text, key = transcripts.get(row["content_id"], (None, None)) if row["audio_uri"] else (None, None)
        media_key = text_key(row, key)
        for stage in stages:
            candidates[stage.name].append(
                Candidate(position, row["content_id"], row["updated_at"], media_key, stage.key(media_key))
            )
        body.append(row["text"] or text)
    now = now_us()
    work = [item for stage in stages for item in pending(run, stage, candidates[stage.name], now)]
    run.progress("text", 0, len({item.position for item in work}))
    table = table.set_column(
        table.schema.get_field_index("text"), table.schema.field("text"), pa.array(body, pa.string())
    )
    return cut_shards(run, "text", table, work, run.config.text_shard_items)


def shows(run: Run) -> dict[str, Any]:
    """Profiles of the shows whose contents changed, known from now."""
    started = time.perf_counter()
    profile = query(
        f"""
        WITH alive AS (SELECT * FROM content WHERE {WORK_KEY} <> '{REMOVED}' AND show_id IS NOT NULL)
        SELECT c.show_id, count(*) AS content_count, sum(a.duration_s)::FLOAT AS total_duration_s,
            avg(a.duration_s)::FLOAT AS mean_duration_s, avg(a.loudness_lufs)::FLOAT AS mean_loudness_lufs,
            avg(s.speech_ratio)::FLOAT AS mean_speech_ratio, avg(c.explicit::INT)::FLOAT AS explicit_ratio,
            max(c.published_at) AS latest_published_at
        FROM (SELECT * FROM alive ORDER BY content_id) c
        LEFT JOIN acoustic a USING (content_id) LEFT JOIN speech s USING (content_id)
        GROUP BY c.show_id ORDER BY c.show_id
        """,
        content=run.tables.latest(CONTENT),
        acoustic=run.tables.latest(ACOUSTIC),
        speech=run.tables.latest(SPEECH, ["speech_ratio"]),
    ).to_pylist()
    known = run.tables.latest(SHOW, [])
    keys = dict(zip(known["show_id"].to_pylist(), known[WORK_KEY].to_pylist(), strict=True))
    created = now_us()
    rows = []
    for row in profile:
        # Sums of floats depend on the order of threads in the last bits; a profile is new when it differs visibly.
        key = work_key("shows", 1, "none", {k: round(v, 3) if isinstance(v, float) else str(v) for k, v in row.items()})
        if keys.get(row["show_id"]) != key:
            rows.append({**row, EVENT: created, CREATED: created, WORK_KEY: key})
    empty = {EVENT: created, CREATED: created, WORK_KEY: REMOVED}
    present = {row["show_id"] for row in profile}
    rows += [{"show_id": s, **empty} for s, key in keys.items() if s not in present and key != REMOVED]
    if rows:
        run.tables.commit(SHOW, rows_to_table(SHOW, rows), created, "shows")
    summary = {"shows": len(profile), "changed": len(rows), "seconds": time.perf_counter() - started}
    run.write_json("shows.json", summary)
    return summary


def _matrix(column: pa.ChunkedArray, dim: int) -> Any:
    import numpy as np

    flat = pa.compute.list_flatten(column)
    flat = flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat
    return np.ascontiguousarray(flat.to_numpy(zero_copy_only=False).reshape(-1, dim), dtype=np.float32)


def _vectors(matrix: Any) -> pa.Array:
    import numpy as np

    rows, dim = matrix.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * dim)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(matrix, np.float32).reshape(-1)))


def _optional_table(run: Run, path: str) -> pa.Table | None:
    """A cache, which is made again where it is missing or damaged."""
    try:
        return decode(run.storage.read(path))
    except (FileNotFoundError, StorageError):
        return None


def _counts(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    return [(str(c["values"]), c["counts"]) for c in pa.compute.value_counts(column).to_pylist()]


def load_release(run: Run) -> dict[str, Any] | None:
    """The store's active release: models, views and index versions; None before the first."""
    return read_release(run.storage)
