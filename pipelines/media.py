"""What moderation looks at in a store: the evidence of every content, by medium, read when it is needed."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from core.contracts import WORK_KEY
from core.features import FAMILIES, FINGERPRINT, KEYPOINTS, PASSAGES, SPEECH, VOICES, WORDS, View, embedding_view
from core.ids import Ids, id_list
from core.keys import REMOVED, digest
from core.rows import LatestRows, RowsOf
from core.tables import decode
from moderation.evidence import Evidence, part_arrays
from moderation.policies import Policy
from moderation.texts import text_hash, words_sha256
from pipelines.context import Run, newest_catalog

READ_BYTES = 32 << 20  # of arrays that are read together, about
LEAST_AT_ONCE, MOST_AT_ONCE = 16, 4_096  # contents
VIEWS = {"audio": (FINGERPRINT, VOICES), "image": (KEYPOINTS,)}
# Read of a view that is not read whole.
COLUMNS = {FINGERPRINT.name: ("audio_sha256", "frames", "frame_count"), SPEECH.name: ("transcript",)}


class StoreMedia:
    """The evidence of a store's contents. `keys` has, by modality, what changes when a content's evidence does."""

    def __init__(self, run: Run, policies: Sequence[Policy]) -> None:
        self.run = run
        text = run.models.text
        self._text_view, self.text_model = embedding_view("text", text.model_id, text.dim), text.model_id
        self._views: dict[str, tuple[View, ...]] = {**VIEWS, "text": (self._text_view, PASSAGES)}
        self._rows: dict[str, LatestRows] = {}
        self.scores = {m: self._scores(m, policies) for m in self._views}
        self.keys: dict[str, dict[str, str]] = {}
        for modality, (view, *more) in self._views.items():
            further = [self._latest(other).keys for other in more]
            scores = self.scores[modality]
            self.keys[modality] = {
                c: digest([key, *(keys.get(c) for keys in further), sorted(scores.get(c, {}).items())])
                for c, key in self._latest(view).keys.items()
                if key != REMOVED
            }

    @property
    def voiced(self) -> bool:
        """Whether anything keeps whose voices are heard."""
        return bool(self.run.tables.parts(VOICES))

    def _latest(self, view: View) -> LatestRows:
        """The rows of a view as the store had them when they were first asked for."""
        if view.name not in self._rows:
            columns = COLUMNS.get(view.name, [feature.name for feature in view.features])
            self._rows[view.name] = LatestRows(self.run.tables, view, columns)
        return self._rows[view.name]

    def evidence(self, modality: str, content_ids: Ids) -> Iterable[tuple[str, Evidence]]:
        """(content, evidence), in the order in which the store has them, so that each part is read once; arrays are
        read some contents at a time, `READ_BYTES` or so."""
        wanted = self._latest(self._views[modality][0]).ordered(id_list(content_ids))
        row_bytes = sum(self._latest(view).row_bytes for view in self._views[modality])
        at_once = min(max(int(READ_BYTES / max(row_bytes, 1.0)), LEAST_AT_ONCE), MOST_AT_ONCE)
        for first in range(0, len(wanted), at_once):
            some = wanted[first : first + at_once]
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
        heard = {(row["content_id"], row["audio_sha256"]): row for row in self._beside(VOICES, content_ids)}
        return {
            row["content_id"]: Evidence(
                "audio",
                row["audio_sha256"],
                {
                    "frames": np.frombuffer(zlib.decompress(row["frames"]), np.uint8).reshape(row["frame_count"], -1),
                    # Voices of a file that was replaced since say nothing of the new one.
                    **_voice_arrays(heard.get((row["content_id"], row["audio_sha256"]))),
                },
                scores=self.scores["audio"].get(row["content_id"], {}),
            )
            for row in self._beside(FINGERPRINT, content_ids)
        }

    def _beside(self, view: View, content_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The latest rows of a view that may have none, without the removed."""
        return [row for row in self._latest(view).read(content_ids).to_pylist() if row[WORK_KEY] != REMOVED]

    def _image(self, content_ids: Sequence[str]) -> Mapping[str, Evidence]:
        return {
            row["content_id"]: Evidence(
                "image",
                row["image_sha256"],
                picture_arrays(row),
                scores=self.scores["image"].get(row["content_id"], {}),
            )
            for row in self._beside(KEYPOINTS, content_ids)
        }

    def words(self, content_id: str) -> str:
        """A content's text as the models read it: title, description, and what is given or was transcribed. What the
        newest run's catalogue does not have, or what was erased with it, has no title and no given text."""
        from catalog.media import Text

        row = self._catalogue.get(content_id, {"title": "", "description": None, "text": None})
        body = row["text"] or self._transcripts([content_id]).get(content_id)
        return Text(row["title"], row["description"], body).full

    def passage(self, content_id: str, first: int, last: int, sha256: str) -> str | None:
        """The words that a decision on the text with a hash is about; None where the text is another by now."""
        text = self.words(content_id)
        return text[first:last] if words_sha256(text) == sha256 else None

    def _text(self, content_ids: Sequence[str]) -> Mapping[str, Evidence]:
        cut = {row["content_id"]: row for row in self._beside(PASSAGES, content_ids)}
        times = self._times(cut)
        found = {}
        for row in self._beside(self._text_view, content_ids):
            content_id = row["content_id"]
            own = cut.get(content_id, {})
            if not own.get("text_sha256"):
                continue  # of which text the vector is, the next run tells: what was decided stands until then
            # Passages by another model are not compared with the whole's.
            vectors, spans = _parts(own, PASSAGES) if own.get("model_id") == self.text_model else NO_PARTS
            found[content_id] = Evidence(
                "text",
                own["text_sha256"],
                part_arrays(vectors, spans, row["embedding"], times.get(content_id)),
                text_hash=own["said_hash"],
                scores=self.scores["text"].get(content_id, {}),
                model_id=self.text_model,
            )
        return found

    def _times(self, cut: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """When passages of transcripts are heard, float32 (n, 2) seconds, by content: of those whose text is what was
        transcribed."""
        spoken = self._transcripts(list(cut))
        heard = [c for c, said in spoken.items() if text_hash(said) == cut[c]["said_hash"]]
        if not heard:
            return {}
        words: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in self._words.read(heard).to_pylist():
            if row[WORK_KEY] == self._latest(SPEECH).keys[row["content_id"]]:
                words[row["content_id"]].append((row["start_s"], row["end_s"]))
        return {c: _heard(spoken[c], _parts(cut[c], PASSAGES)[1], np.array(words[c])) for c in heard if words[c]}

    def _transcripts(self, content_ids: Sequence[str]) -> dict[str, str]:
        rows = self._latest(SPEECH).read(content_ids).to_pylist()
        return {row["content_id"]: row["transcript"] for row in rows if row["transcript"]}

    @cached_property
    def _words(self) -> RowsOf:
        return RowsOf(self.run.tables, WORDS, ["start_s", "end_s"])

    @cached_property
    def _catalogue(self) -> dict[str, dict[str, Any]]:
        folder = newest_catalog(self.run.storage)
        if folder is None:
            return {}
        columns = ["content_id", "title", "description", "text"]
        rows = decode(self.run.storage.read(f"{folder}/catalog.parquet"), columns).to_pylist()
        return {row["content_id"]: row for row in rows}


NO_PARTS = np.empty((0, 0), np.float16), np.empty((0, 2))


def _parts(row: Mapping[str, Any], view: View) -> tuple[np.ndarray, np.ndarray]:
    """Vectors, float16 (n, dim), and spans, (n, 2), of a row of `PASSAGES` or `VOICES`."""
    first, last = (row[feature.name] for feature in view.features[:2])
    if not first:  # nobody speaks
        return NO_PARTS
    return np.frombuffer(row["vectors"], np.float16).reshape(len(first), -1), np.array([first, last]).T


def _voice_arrays(row: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    return part_arrays(*_parts(row, VOICES)) if row else {}


def _heard(transcript: str, spans: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The seconds of passages, from `words`, (n, 2) seconds, of the transcript that the last passage ends with. What
    stands before it, a title, is heard nowhere: NaN."""
    begins = spans[-1, 1] - len(transcript.rstrip())
    starts = np.array([match.start() for match in re.finditer(r"\S+", transcript)]) + begins
    # Words of the model and words between spaces are one to one but for a few.
    share = len(words) / max(len(starts), 1)
    first, last = (np.searchsorted(starts, spans[:, side]) for side in (0, 1))
    first, last = (first * share).astype(int), np.ceil(last * share).astype(int) - 1
    first, last = np.clip(first, 0, len(words) - 1), np.clip(last, 0, len(words) - 1)
    found = np.stack([words[first, 0], words[np.maximum(first, last), 1]], axis=1)
    found[spans[:, 1] <= begins] = np.nan
    return found.astype(np.float32)


def picture_arrays(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of evidence from a row of the view `keypoints`."""
    return {
        "pdq": np.frombuffer(row["pdq"], np.uint8).reshape(8, 32),
        "quality": np.array(row["pdq_quality"]),
        "points": np.frombuffer(row["points"], np.float32).reshape(-1, 2),
        "descriptors": np.frombuffer(row["descriptors"], np.uint8).reshape(-1, 128),
        "size": np.array([row["width"], row["height"]]),
    }
