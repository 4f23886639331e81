"""What transcripts tell of skips: sentences with their times, phrases, and the ads that hosts read.

Made once a transcript and kept beside what is known of repeats, since a run looks at every episode's words.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.contracts import WORK_KEY
from core.errors import StorageError
from core.features import SPEECH, WORDS
from core.items import is_fatal, reason_of
from core.keys import REMOVED
from core.tables import decode, encode
from pipelines.context import Run
from pipelines.skip_state import SAID
from skips.cues import kind_cues
from skips.detect import Known, Recording
from skips.markers import Marker
from skips.sentences import sentences
from skips.words import Sentence

log = logging.getLogger(__name__)
SAID_VERSION = 2  # raised when other sentences or ads may be found
SENTENCE = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())])
AD = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("confidence", pa.float64())])
SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string()),
        pa.field("key", pa.string()),
        pa.field("sentences", pa.list_(SENTENCE)),
        pa.field("ads", pa.list_(AD)),
    ]
)


@dataclass
class Said:
    """Sentences and host-read ads by content."""

    sentences: dict[str, list[Sentence]] = field(default_factory=dict)
    ads: dict[str, list[Marker]] = field(default_factory=dict)

    def cues(self, recording: Recording, start_s: float, end_s: float) -> Mapping[str, float]:
        """The phrases' evidence by kind in a span of a recording."""
        said = self.sentences.get(recording.content_id)
        return kind_cues(said, start_s, end_s) if said else {}

    def host_read(self, known: Known) -> dict[int, list[Marker]]:
        """The ads by recording."""
        return {n: self.ads[r.content_id] for n, r in known.recordings.items() if self.ads.get(r.content_id)}


def said(run: Run) -> Said:
    """What the store's transcripts say; only new ones are worked on."""
    spoken = run.tables.latest(SPEECH, ["transcript"])
    spoken = spoken.filter(pc.and_(pc.is_valid(spoken["transcript"]), pc.not_equal(spoken[WORK_KEY], REMOVED)))
    model = run.models.text.model_id
    pairs = zip(spoken["content_id"].to_pylist(), spoken[WORK_KEY].to_pylist(), strict=True)
    wanted = {content_id: f"{SAID_VERSION} {model} {key}" for content_id, key in pairs}
    try:
        rows = decode(run.storage.read(SAID)).to_pylist()
    except (FileNotFoundError, StorageError):  # a cache: it is made again
        rows = []
    kept = {row["content_id"]: row for row in rows if wanted.get(row["content_id"]) == row["key"]}
    due = sorted(set(wanted) - set(kept))
    if due:
        keys = dict(zip(spoken["content_id"].to_pylist(), spoken[WORK_KEY].to_pylist(), strict=True))
        for content_id, words in _words(run, due, keys).items():
            try:
                found = sentences(words)
                ads = [
                    {"start_s": a.start_s, "end_s": a.end_s, "confidence": a.confidence}
                    for a in host_read_ads(run.models.text, found)
                ]
            except Exception as error:
                if is_fatal(error):
                    raise
                # The episode is marked by its sound alone; the next run looks at its words again.
                log.warning("the words of %s say nothing of skips: %s", content_id, ": ".join(reason_of(error)))
                continue
            plain = [{"start_s": s.start_s, "end_s": s.end_s, "text": s.text} for s in found]
            kept[content_id] = {
                "content_id": content_id,
                "key": wanted[content_id],
                "sentences": plain,
                "ads": ads,
            }
    if due or len(kept) != len(rows):
        ordered = [kept[content_id] for content_id in sorted(kept)]
        run.storage.write(SAID, encode(pa.Table.from_pylist(ordered, schema=SCHEMA)))
    return Said(
        {c: [Sentence(**s) for s in row["sentences"]] for c, row in kept.items()},
        {
            c: [Marker("ad", a["start_s"], a["end_s"], a["confidence"], 1, "", "ask", "transcript") for a in row["ads"]]
            for c, row in kept.items()
        },
    )


def _words(run: Run, content_ids: list[str], keys: Mapping[str, str]) -> dict[str, pa.Table]:
    """The words of the latest transcripts of these contents, with their times."""
    words = run.tables.read(WORDS, ["content_id", "start_s", "end_s", "word", WORK_KEY])
    words = words.filter(pc.is_in(words["content_id"], value_set=pa.array(content_ids, pa.string())))
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in words.to_pylist():
        if keys[row["content_id"]] == row[WORK_KEY]:
            grouped[row["content_id"]].append(row)
    schema = pa.schema([("start_s", pa.float64()), ("end_s", pa.float64()), ("word", pa.string())])
    return {c: pa.Table.from_pylist(grouped[c], schema=schema) for c in content_ids}


def host_read_ads(model: Any, found: list[Sentence]) -> list[Marker]:
    """The ads that hosts read in a transcript, by a text model; none where it is not the model that the classifier was
    fitted on."""
    import numpy as np

    from catalog.media import Text
    from skips.hostread import host_read, shipped

    if not found or model.model_id != shipped().model_id:
        return []
    vectors = np.asarray(model.embed([Text(s.text) for s in found]), np.float32)
    return host_read(found, vectors, model.model_id)
