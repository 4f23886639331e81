"""Publishing what a run made: Feast's stores, the FAISS indexes, and the release that points at them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.features import MODALITIES, View, embedding_view
from core.keys import digest
from core.location import RELEASE
from core.release import RELEASE_FORMAT
from core.tables import now_us
from pipelines import steps
from pipelines.context import Run, local_root


def current_models(run: Run) -> dict[str, dict[str, Any]]:
    """The model and view of each modality that this run wrote."""
    audio = run.models.audio.finish(steps.frozen_statistics(run))
    models = {}
    for modality, model in (("text", run.models.text), ("audio", audio), ("image", run.models.image)):
        view = embedding_view(modality, model.model_id, model.dim)
        models[modality] = {"model_id": model.model_id, "dim": model.dim, "view": view.name}
    return models


def _views(models: dict[str, dict[str, Any]]) -> dict[str, View]:
    return {m: embedding_view(m, models[m]["model_id"], models[m]["dim"]) for m in MODALITIES if m in models}


def store(run: Run) -> dict[str, Any]:
    """Applies the definitions to Feast and materialises the parts that the online store has not seen."""
    from feature_repo.ledger import up_to_date
    from feature_repo.store import apply

    root = local_root(run.storage)
    models = current_models(run)
    for view in _views(models).values():
        run.tables.ensure(view)
    started = time.perf_counter()
    release = steps.load_release(run) or {"format": RELEASE_FORMAT, "models": {}, "indexes": {}}
    # The new models' views are filled before the services point at them (DESIGN, release).
    apply(root, {**release, "models": models} if not release["models"] else release, extra_models=models)
    applied = time.perf_counter()
    parts = [entry.path for entry in run.storage.entries("offline") if entry.path.endswith(".parquet")]
    written = {} if up_to_date(root, parts) else _materialise(run, root)
    summary = {
        "rows_written": written,
        "apply_seconds": applied - started,
        "materialise_seconds": time.perf_counter() - applied,
    }
    run.write_json("store.json", summary)
    return summary


def _materialise(run: Run, root: Path) -> dict[str, int]:
    from feature_repo.materialise import materialise
    from feature_repo.store import open_store

    # The total is one view's, so a count over all views has none.
    return materialise(open_store(root), progress=lambda view, done, total: run.progress("rows", done, 0))


def index(run: Run) -> dict[str, Any]:
    """Builds and publishes the index of each modality whose vectors changed."""
    from index import publish_vectors

    root = local_root(run.storage)
    summary: dict[str, Any] = {}
    released = (steps.load_release(run) or {"indexes": {}})["indexes"]
    for modality, view in _views(current_models(run)).items():
        rows = run.tables.latest(view, ["embedding"])
        rows = rows.filter(pa.compute.is_valid(rows["embedding"]))
        if not rows.num_rows:
            continue
        started = time.perf_counter()
        model = current_models(run)[modality]
        manifest = publish_vectors(
            root / "indexes",
            view.name,
            rows.select(["content_id", "embedding"]),
            model_id=model["model_id"],
            dim=model["dim"],
            source=digest(sorted(zip(rows["content_id"].to_pylist(), rows["work_key"].to_pylist(), strict=True))),
            target_recall=run.config.index_recall,
            pinned={entry["version"] for entry in released.values()},
        )
        summary[modality] = {
            "name": view.name,
            "version": manifest.version,
            "count": manifest.count,
            "factory": manifest.factory,
            "recall": manifest.recall,
            "seconds": time.perf_counter() - started,
        }
    run.write_json("index.json", summary)
    return summary


def release(run: Run) -> dict[str, Any]:
    """Points the feature services and the readers at what this run published, in one switch."""
    from feature_repo.store import apply
    from pipelines.summary import tidy

    built = run.read_json("index.json")
    record = {
        "format": RELEASE_FORMAT,
        "models": current_models(run),
        "indexes": {m: {"name": i["name"], "version": i["version"]} for m, i in built.items()},
    }
    before = steps.load_release(run)
    if before is None or {k: before.get(k) for k in record} != record:
        apply(local_root(run.storage), record)
        run.storage.write(RELEASE, _json({**record, "run_id": run.run_id, "released": now_us().isoformat()}))
    tidy(run)
    return record


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value, indent=1).encode()
