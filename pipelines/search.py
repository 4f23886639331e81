"""Similarity search over a store: a content, words, a sound or a picture → the contents most like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from core.contracts import WORK_KEY
from core.errors import BadItem, ConfigError, IndexUnavailable, NotFound
from core.features import CONTENT, embedding_view
from core.keys import REMOVED
from pipelines.context import Run, local_root
from pipelines.quarantine import reasons
from pipelines.steps import frozen_statistics, load_release


def search(
    run: Run,
    *,
    content_id: str | None = None,
    text: str | None = None,
    audio: Path | None = None,
    image: Path | None = None,
    by: str | None = None,
    k: int = 10,
    where: Any = None,
    quarantined: bool = False,
) -> dict[str, Any]:
    """The `k` contents nearest by cosine to exactly one query, from the index of the active release; `where` is an
    Arrow expression over the content view's features that they must fulfil.

    Contents in quarantine are left out unless `quarantined`: their titles and descriptions would find files that
    cannot be played.

    Returns `modality`, `query`, `hits` (content_id, score, title, kind, show_id, and quarantine: why the content is
    there, or None), best first, without the query itself, and `left_out`, how many contents in quarantine were not
    looked at. Raises `NotFound`, `IndexUnavailable`, and `ConfigError` for a query file that cannot be read.
    """
    release = load_release(run) or {"models": {}, "indexes": {}}
    try:
        if content_id is not None:
            modality, vector = _stored_vector(run, release, content_id, by)
        elif text is not None:
            modality, vector = by or "text", _of_words(run, text, by)
        elif audio is not None:
            from catalog.isolated import decode_audio

            listeners: list[Any] = getattr(run.models.audio.raw, "listeners", list)()
            raw = run.models.audio.raw.embed([decode_audio(audio, limits=run.config.limits, listeners=listeners)])
            modality, vector = "audio", run.models.audio.finish(frozen_statistics(run)).apply(raw)
        elif image is not None:
            from catalog.isolated import decode_picture

            modality, vector = "image", run.models.image.embed([decode_picture(image, limits=run.config.limits)])
        else:
            raise ConfigError("search needs a content id, a text, an audio file or an image")
    except BadItem as error:
        raise ConfigError(f"the query cannot be read: {error.detail}") from error
    if modality not in release["indexes"]:
        raise IndexUnavailable(f"the store {run.storage.uri} has no {modality} index: no content has a vector of it")
    from index import open_index

    model = release["models"][modality]
    rows = run.tables.latest(CONTENT, [feature.name for feature in CONTENT.features])
    about = _contents(rows)
    searcher = open_index(
        local_root(run.storage) / "indexes",
        release["indexes"][modality]["name"],
        version=release["indexes"][modality]["version"],
        expect_model=model["model_id"],
        metadata=rows,
    )
    hidden = {c for c, known in about.items() if known is None} | ({content_id} if content_id else set())
    held = {c: reason for c, reason in reasons(run.storage).items() if about.get(c) is not None}
    if not quarantined:
        hidden |= held.keys()
    found = searcher.search(vector, k, exclude=hidden, where=where)
    hits = [
        {
            "content_id": c,
            "score": float(s),
            **(about.get(c) or {"title": None, "kind": None, "show_id": None}),
            "quarantine": held.get(c),
        }
        for c, s in zip(found["content_id"].to_pylist(), found["score"].to_pylist(), strict=True)
    ]
    left_out = 0 if quarantined else len(held.keys() - {content_id})
    return {
        "modality": modality,
        "query": content_id or text or str(audio or image),
        "hits": hits,
        "left_out": left_out,
    }


def _of_words(run: Run, text: str, by: str | None) -> Any:
    """The vector of words, in the space of texts or, by a model's text tower, in that of sounds or pictures."""
    if by in ("audio", "image"):
        model = run.models.audio.raw if by == "audio" else run.models.image
        if not hasattr(model, "embed_text"):
            raise ConfigError(
                f"the {by} model {model.model_id} has no text tower, so words cannot find {by}; "
                "the hub profile's CLAP and CLIP have one"
            )
        return model.embed_text([text])
    from catalog.media import Text
    from embedders.text import for_queries

    return for_queries(run.models.text).embed([Text(title=text)])


def _stored_vector(run: Run, release: dict[str, Any], content_id: str, by: str | None) -> tuple[str, Any]:
    import numpy as np

    from core.rows import LatestRows

    for modality in [by] if by else ["audio", "text", "image"]:
        if modality not in release["models"]:
            continue
        model = release["models"][modality]
        view = embedding_view(modality, model["model_id"], model["dim"])
        row = LatestRows(run.tables, view, ["embedding"]).read([content_id])  # one row group, not all vectors
        if row.num_rows and row["embedding"][0].is_valid:
            return modality, np.asarray([row["embedding"][0].as_py()], np.float32)
    if by:
        raise NotFound(f"{content_id!r} has no {by} embedding in the store {run.storage.uri}")
    raise NotFound(f"{content_id!r} is not in the store {run.storage.uri}")


def _contents(rows: pa.Table) -> dict[str, dict[str, Any] | None]:
    """What people call each content; None for a removed one, which an index may hold until it is published again."""
    names = ["content_id", WORK_KEY, "title", "kind", "show_id"]
    return {
        row["content_id"]: None
        if row[WORK_KEY] == REMOVED
        else {name: row[name] for name in ("title", "kind", "show_id")}
        for row in rows.select(names).to_pylist()
    }
