"""What moderation looks at in a store: the evidence of every content, by medium, read when it is needed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from core.contracts import WORK_KEY
from core.features import FAMILIES, FINGERPRINT, KEYPOINTS, SPEECH, embedding_view
from core.keys import REMOVED, digest
from core.tables import decode, read_beside
from moderation.evidence import Evidence
from moderation.policies import Policy
from moderation.texts import text_hash
from pipelines.context import Run, newest_catalog

READ_AT_ONCE = 64  # contents whose arrays are read together


class StoreMedia:
    """The evidence of a store's contents. `keys` has, by modality, what changes when a content's evidence does."""

    def __init__(self, run: Run, policies: Sequence[Policy]) -> None:
        self.run = run
        text = run.models.text
        self._text_view, self._text_model = embedding_view("text", text.model_id, text.dim), text.model_id
        views = {"audio": FINGERPRINT, "image": KEYPOINTS, "text": self._text_view}
        self.scores = {m: self._scores(m, policies) for m in views}
        self._given: dict[str, str] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, str]] = {}
        for modality, view in views.items():
            latest = run.tables.latest(view, [])
            keys = dict(zip(latest["content_id"].to_pylist(), latest[WORK_KEY].to_pylist(), strict=True))
            scores = self.scores[modality]
            self.keys[modality] = {
                c: digest([key, sorted(scores.get(c, {}).items())]) for c, key in keys.items() if key != REMOVED
            }

    def evidence(self, modality: str, content_ids: Iterable[str]) -> Iterable[tuple[str, Evidence]]:
        """(content, evidence), in order; arrays are read some contents at a time."""
        wanted = list(content_ids)
        for first in range(0, len(wanted), READ_AT_ONCE):
            some = wanted[first : first + READ_AT_ONCE]
            read = getattr(self, f"_{modality}")(some)
            for content_id in some:
                if content_id in read:
                    yield content_id, read[content_id]

    def _scores(self, modality: str, policies: Sequence[Policy]) -> dict[str, dict[str, float]]:
        """Classifiers' scores by content and feature."""
        found: dict[str, dict[str, float]] = {}
        for feature in {p.feature for p in policies if p.feature and modality in p.modalities}:
            name, column = feature.split(".")
            view = next((v for v in FAMILIES if v.name == name), None)
            if view is None or column not in view.schema.names:
                continue
            for row in self.run.tables.latest(view, [column]).to_pylist():
                if row[column] is not None:
                    found.setdefault(row["content_id"], {})[feature] = float(row[column])
        return found

    def _audio(self, content_ids: Sequence[str]) -> Mapping[str, Evidence]:
        columns = ["audio_sha256", "frames", "frame_count"]
        return {
            row["content_id"]: Evidence(
                "audio",
                row["audio_sha256"],
                {"frames": np.frombuffer(zlib.decompress(row["frames"]), np.uint8).reshape(row["frame_count"], -1)},
                scores=self.scores["audio"].get(row["content_id"], {}),
            )
            for row in read_beside(self.run.tables, FINGERPRINT, content_ids, columns).to_pylist()
        }

    def _image(self, content_ids: Sequence[str]) -> Mapping[str, Evidence]:
        rows = read_beside(self.run.tables, KEYPOINTS, content_ids, [f.name for f in KEYPOINTS.features]).to_pylist()
        return {
            row["content_id"]: Evidence(
                "image",
                row["image_sha256"],
                picture_arrays(row),
                scores=self.scores["image"].get(row["content_id"], {}),
            )
            for row in rows
        }

    def words(self, content_id: str) -> str:
        """A content's text as the models read it: title, description, and what is given or was transcribed."""
        from catalog.media import Text

        if not self._rows:
            self._rows = {row["content_id"]: row for row in self._catalogue()}
        row = self._rows.get(content_id, {"title": "", "description": None, "text": None})
        body = row["text"] or self._transcripts().get(content_id)
        return Text(row["title"], row["description"], body).full

    def _text(self, content_ids: Sequence[str]) -> Mapping[str, Evidence]:
        wanted = set(content_ids)
        if not self._given:
            self._given = {**self._transcripts(), **self._catalogued()}
        rows = self.run.tables.latest(self._text_view).to_pylist()
        return {
            row["content_id"]: Evidence(
                "text",
                arrays={"vector": np.asarray(row["embedding"], np.float32)},
                text_hash=text_hash(self._given.get(row["content_id"], "")),
                scores=self.scores["text"].get(row["content_id"], {}),
                model_id=self._text_model,
            )
            for row in rows
            if row["content_id"] in wanted
        }

    def _transcripts(self) -> dict[str, str]:
        rows = self.run.tables.latest(SPEECH, ["transcript"]).to_pylist()
        return {row["content_id"]: row["transcript"] for row in rows if row["transcript"]}

    def _catalogued(self) -> dict[str, str]:
        return {row["content_id"]: row["text"] for row in self._catalogue() if row["text"]}

    def _catalogue(self) -> list[dict[str, Any]]:
        folder = newest_catalog(self.run.storage)
        if folder is None:
            return []
        columns = ["content_id", "title", "description", "text"]
        return decode(self.run.storage.read(f"{folder}/catalog.parquet"), columns).to_pylist()


def picture_arrays(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of evidence from a row of the view `keypoints`."""
    return {
        "pdq": np.frombuffer(row["pdq"], np.uint8).reshape(8, 32),
        "quality": np.array(row["pdq_quality"]),
        "points": np.frombuffer(row["points"], np.float32).reshape(-1, 2),
        "descriptors": np.frombuffer(row["descriptors"], np.uint8).reshape(-1, 128),
        "size": np.array([row["width"], row["height"]]),
    }
