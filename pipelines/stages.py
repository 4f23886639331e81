"""The stages: what is computed of one content, from which inputs, into which view."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from core.contracts import CONTENT_SCHEMA
from core.features import (
    ACOUSTIC,
    CONTENT,
    FINGERPRINT,
    KEYPOINTS,
    PASSAGES,
    SPEECH,
    TEXT_SIGNALS,
    VISUAL,
    VOICES,
    View,
    embedding_view,
    raw_view,
)
from core.keys import digest, work_key
from core.languages import declared_english
from pipelines.context import Run

Row = dict[str, Any]
Modality = Literal["none", "audio", "image", "text"]

# Raised when reading or decoding hands other samples, pixels or words to the models than before.
MEDIA_VERSION = 1
# Those of embedders.fingerprint, embedders.keypoints and embedders.voice, which are not imported to plan.
FINGERPRINT_ID, KEYPOINTS_ID, VOICE_ID = "log-band-patches-1", "rootsift-1", "resemblyzer-39373b86-1"
WHOLE_FILES = (FINGERPRINT, KEYPOINTS, VOICES)  # of these views, rows hold for the very bytes of a file
TEXT_FIELDS = ("title", "description", "text", "language")


@dataclass(frozen=True)
class Stage:
    """One computation on one content.

    `run` takes a batch of decoded media (catalogue rows for modality "none") and returns a row of features for each;
    everything that shapes them is in `model_id` and `version`, so they are part of the key of work. So is
    `declared_input`: what the rows depend on of the catalogue's own statements, None where they do not.
    """

    name: str
    modality: Modality
    view: View
    model_id: str
    version: int
    run: Callable[[Sequence[Any]], list[Row]]
    listeners: Callable[[], list[Any]] = list
    declared_input: Callable[[Row], str | None] = lambda row: None

    def key(self, media_key: str) -> str:
        """The key of work for media of that key."""
        return work_key(self.name, self.version, self.model_id, {"media": media_key})


def content_stage() -> Stage:
    """Copies the catalogue's own statements into their view."""

    def run(batch: Sequence[Row]) -> list[Row]:
        return [
            {
                **row,
                "declared_language": row["language"],
                "has_audio": row["audio_uri"] is not None,
                "has_image": row["image_uri"] is not None,
            }
            for row in batch
        ]

    return Stage("content", "none", CONTENT, "none", 1, run)


def fingerprint_stage() -> Stage:
    """Keeps what audio sounds like at each moment, for the skips to be found over the catalogue."""

    def run(batch: Sequence[Any]) -> list[Row]:
        from embedders.fingerprint import frames
        from skips.silence import silences

        rows = []
        for audio in batch:
            found = frames(audio.samples)
            silent = silences(found, audio.samples)
            rows.append(
                {
                    "audio_sha256": audio.sha256,
                    "duration_s": audio.duration_s,
                    "frames": zlib.compress(found.tobytes(), 1),
                    "frame_count": len(found),
                    "silence_start_s": [start for start, _, _ in silent],
                    "silence_end_s": [end for _, end, _ in silent],
                    "silence_steady": [steady for _, _, steady in silent],
                }
            )
        return rows

    return Stage("fingerprint", "audio", FINGERPRINT, FINGERPRINT_ID, 2, run)


def keypoints_stage() -> Stage:
    """Keeps what pictures are recognised by, for copies to be found over the catalogue."""

    def run(batch: Sequence[Any]) -> list[Row]:
        from embedders.keypoints import keypoints
        from embedders.pdq import pdq

        rows = []
        for picture in batch:
            hashes, quality = pdq(picture.pixels)
            found = keypoints(picture.pixels)
            rows.append(
                {
                    "image_sha256": picture.sha256,
                    "pdq": hashes.tobytes(),
                    "pdq_quality": quality,
                    "points": found.points.tobytes(),
                    "descriptors": found.descriptors.tobytes(),
                    "width": found.width,
                    "height": found.height,
                }
            )
        return rows

    return Stage("keypoints", "image", KEYPOINTS, f"{KEYPOINTS_ID}+pdq", 1, run)


def voices_stage(run: Run) -> Stage:
    """Keeps whose voice is heard when, for policies on voices."""
    speech = run.enrichers[SPEECH.name]
    encoder: list[Any] = []

    def one(audio: Any) -> Row:
        from embedders.voice import VoiceEncoder

        if not encoder:
            encoder.append(VoiceEncoder(run.config.device))
        vectors, spans = encoder[0].passages(audio.samples, speech.spoken(audio))
        starts, ends = spans.T.tolist()
        held = vectors.astype(np.float16).tobytes()
        return {"start_s": starts, "end_s": ends, "vectors": held, "audio_sha256": audio.sha256}

    model_id = f"{VOICE_ID}+{speech.model_id.split('+')[0]}"
    return Stage("voices", "audio", VOICES, model_id, 2, lambda batch: list(map(one, batch)))


def passages_stage(model: Any) -> Stage:
    """Keeps what each passage of a text means, for policies on what is said."""

    def run(batch: Sequence[Any]) -> list[Row]:
        from moderation.texts import text_hash, words_sha256

        rows = []
        for text, (vectors, spans) in zip(batch, model.passages(batch), strict=True):
            first, last = spans.T.tolist()
            rows.append(
                {
                    "first": first,
                    "last": last,
                    "vectors": vectors.astype(np.float16).tobytes(),
                    "model_id": model.model_id,
                    "text_sha256": words_sha256(text.full),
                    "said_hash": text_hash(text.body or ""),
                }
            )
        return rows

    return Stage("passages", "text", PASSAGES, model.model_id, 2, run)


def media_stages(run: Run) -> list[Stage]:
    """The stages over audio and pictures."""
    audio, image = run.models.audio.raw, run.models.image
    return [
        _embed("audio_raw", "audio", raw_view("audio", audio.model_id, audio.dim), audio, "vector"),
        _enrich("acoustic", run.enrichers[ACOUSTIC.name]),
        replace(_enrich("speech", run.enrichers[SPEECH.name]), declared_input=declared_speech),
        fingerprint_stage(),
        _embed("image", "image", embedding_view("image", image.model_id, image.dim), image, "embedding"),
        _enrich("visual", run.enrichers[VISUAL.name]),
        keypoints_stage(),
        *([voices_stage(run)] if run.config.voices else []),
    ]


def text_stages(run: Run) -> list[Stage]:
    """The stages over text, which wait for the transcripts."""
    text = run.models.text
    return [
        _embed("text", "text", embedding_view("text", text.model_id, text.dim), text, "embedding"),
        _enrich("text_signals", run.enrichers[TEXT_SIGNALS.name]),
        passages_stage(text),
    ]


def _embed(name: str, modality: Modality, view: View, embedder: Any, feature: str) -> Stage:
    return Stage(
        name,
        modality,
        view,
        embedder.model_id,
        1,
        lambda batch: [{feature: vector} for vector in embedder.embed(batch)],
        getattr(embedder, "listeners", list),
    )


def _enrich(name: str, enricher: Any) -> Stage:
    return Stage(
        name, enricher.modality, enricher.view, enricher.model_id, enricher.version, enricher.enrich, enricher.listeners
    )


def content_key(row: Row) -> str:
    """Key of everything the catalogue says of a content but its version's time."""
    return digest([[name, str(row[name])] for name in CONTENT_SCHEMA.names if name not in ("updated_at", "text")])


def declared_speech(row: Row) -> str | None:
    """The part of the declared language that the transcript depends on; another name of the same language is equal."""
    return {True: "english", False: "another language", None: None}[declared_english(row["language"])]


def audio_key(identity: Any) -> str:
    """Key of an audio file: its packets, so that new tags are not new audio."""
    return digest(["audio", MEDIA_VERSION, identity])


def image_key(identity: Any) -> str:
    return digest(["image", MEDIA_VERSION, identity])


def text_key(row: Row, transcript_key: str | None) -> str:
    """Key of a content's text; the transcript counts only where no text was given."""
    given = [row[name] for name in TEXT_FIELDS]
    return digest(["text", MEDIA_VERSION, given, None if row["text"] else transcript_key])
