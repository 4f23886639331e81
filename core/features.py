"""The feature views as data: names, types and meaning of every feature, one place for all rooms.

`enrichers` fill these views, `feature_repo` declares them to Feast, the feature dictionary is generated from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from core.contracts import CREATED, EVENT, TIMESTAMP, VECTOR, WORK_KEY
from core.names import path_name

CONTENT_ENTITY = "content_id"
SHOW_ENTITY = "show_id"


@dataclass(frozen=True)
class Feature:
    """One column of a view. `description` says the unit and the range."""

    name: str
    type: pa.DataType
    description: str


@dataclass(frozen=True)
class View:
    """A Feast feature view: one row a key and version, stored under `offline/<name>/`."""

    name: str
    entity: str
    features: tuple[Feature, ...]
    description: str
    stable_name: str | None = None  # what feature services call it, where `name` carries a model
    room: str = "offline"  # folder of the store: "offline" is Feast's, "beside" holds what Feast does not see
    group_rows: int = 65_536  # rows of a row group of its parts: few where rows are large and read one by one

    def __post_init__(self) -> None:
        path_name(self.name, "the view")

    @property
    def folder(self) -> str:
        """Where the view's parts lie, relative to the store."""
        return f"{self.room}/{self.name}"

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of an offline part: key, features, event and created timestamps, work key."""
        return pa.schema(
            [
                pa.field(self.entity, pa.string(), nullable=False),
                *(pa.field(f.name, f.type) for f in self.features),
                pa.field(EVENT, TIMESTAMP, nullable=False),
                pa.field(CREATED, TIMESTAMP, nullable=False),
                pa.field(WORK_KEY, pa.string(), nullable=False),
            ]
        )


def _view(name: str, description: str, *features: tuple[str, pa.DataType, str], entity: str = CONTENT_ENTITY) -> View:
    return View(name, entity, tuple(Feature(*f) for f in features), description)


F32, I64, STR, BOOL = pa.float32(), pa.int64(), pa.string(), pa.bool_()
STRINGS = pa.list_(pa.field("element", STR))

CONTENT = _view(
    "content",
    "What the catalogue says of a content.",
    ("kind", STR, "track, episode or chapter"),
    ("title", STR, "title as catalogued"),
    ("show_id", STR, "show, album or book the content belongs to; null where it stands alone"),
    ("declared_language", STR, "language as catalogued (BCP 47), not detected"),
    ("explicit", BOOL, "explicit flag as catalogued; null where unknown"),
    ("published_at", TIMESTAMP, "publication time, UTC"),
    ("has_audio", BOOL, "the catalogue names an audio file"),
    ("has_image", BOOL, "the catalogue names a cover, or the audio file embeds one"),
)

ACOUSTIC = _view(
    "acoustic",
    "Measurements of the decoded audio.",
    ("duration_s", F32, "decoded duration in seconds"),
    ("source_sample_rate_hz", I64, "sample rate of the file"),
    ("source_channels", I64, "channels of the file"),
    ("loudness_lufs", F32, "integrated loudness, LUFS (EBU R128, ITU-R BS.1770-4); null below the -70 LUFS gate"),
    ("loudness_range_lu", F32, "loudness range, LU (EBU Tech 3342)"),
    ("true_peak_dbtp", F32, "true peak, dBTP, 4x oversampled (ITU-R BS.1770-4 annex 2); null for digital silence"),
    ("tempo_bpm", F32, "beats per minute; null where no beat was found"),
    ("silence_ratio", F32, "share of 100 ms blocks below -50 dBFS, 0 to 1"),
    ("truncated", BOOL, "the file's bytes end early and what is there was accepted; null in rows of earlier versions"),
)

SPEECH = _view(
    "speech",
    "Who sounds when, and the words of what is mostly speech.",
    ("speech_ratio", F32, "share of the duration with speech, 0 to 1"),
    ("music_ratio", F32, "share of the duration with music, 0 to 1"),
    ("transcript", STR, "words heard, where speech is at least half of the content and English; else null"),
    ("transcript_language", STR, "language of the transcript (ISO 639-1); null without one"),
    (
        "transcript_reason",
        STR,
        "why there is no transcript: little_speech, declared_language (another than English), not_english, "
        "partly_not_english or no_words; null with one",
    ),
    ("transcript_confidence", F32, "mean word probability, 0 to 1"),
    ("transcript_word_count", I64, "words in the transcript"),
    ("speaking_rate_wpm", F32, "words a minute of speech"),
)

TEXT_SIGNALS = _view(
    "text_signals",
    "Language and statistics of title, description and lyrics or transcript.",
    ("language", STR, "detected language (ISO 639-1); null where the text is too short to tell"),
    ("language_confidence", F32, "confidence of the detector, 0 to 1"),
    ("char_count", I64, "characters (code points)"),
    ("word_count", I64, "words"),
    ("sentence_count", I64, "sentences"),
    ("mean_word_chars", F32, "mean characters a word"),
    ("lexical_diversity", F32, "different words over words, 0 to 1"),
    ("profanity_score", F32, "highest probability of offence over the text's passages, 0 to 1 (English)"),
)

VISUAL = _view(
    "visual",
    "Measurements of the cover.",
    ("width_px", I64, "width in pixels"),
    ("height_px", I64, "height in pixels"),
    ("dominant_colours", STRINGS, "up to five colours as #rrggbb, largest share first"),
    ("dominant_colour_shares", VECTOR, "their shares of the picture, summing to 1"),
    ("nsfw_score", F32, "probability of unsafe content, 0 to 1 (open_nsfw)"),
    ("pdq_hash", STR, "PDQ perceptual hash, 64 hexadecimal digits"),
    ("pdq_quality", I64, "PDQ quality, 0 to 100; below 50 the hash says little"),
    ("cover_text", STR, "text read on the cover; null where none was found"),
    ("cover_text_confidence", F32, "mean confidence of the read lines, 0 to 1"),
)

SHOW = _view(
    "show_profile",
    "A show, album or book as the sum of its contents; known from the moment it was computed.",
    ("content_count", I64, "contents of the show that are not removed"),
    ("total_duration_s", F32, "sum of the known durations in seconds"),
    ("mean_duration_s", F32, "mean of the known durations in seconds"),
    ("mean_loudness_lufs", F32, "mean integrated loudness of its contents, LUFS"),
    ("mean_speech_ratio", F32, "mean speech ratio of its contents, 0 to 1"),
    ("explicit_ratio", F32, "share of contents flagged explicit, of those that say"),
    ("latest_published_at", TIMESTAMP, "latest publication time among its contents"),
    entity=SHOW_ENTITY,
)

FLOATS = pa.list_(pa.field("element", F32))
INTS = pa.list_(pa.field("element", I64))

SKIPS = _view(
    "skips",
    "What a listener can skip: parallel lists, one entry a marker, by start; known from the moment it was found.",
    ("audio_sha256", STR, "SHA-256 of the audio file that the markers hold for; a player applies them to no other"),
    ("audio_duration_s", F32, "decoded duration of that file in seconds"),
    ("algorithm", STR, "version of the algorithm that found them"),
    ("marker_kind", STRINGS, "intro, outro, ad, jingle, recap or silence"),
    ("marker_start_s", FLOATS, "start in seconds"),
    ("marker_end_s", FLOATS, "end in seconds"),
    ("marker_confidence", FLOATS, "confidence, 0 to 1"),
    ("marker_occurrences", INTS, "how often it is heard over the catalogue; 1 for silence and host-read ads"),
    ("marker_motif_id", STRINGS, "the motif that recurs; empty for silence and host-read ads"),
    ("marker_action", STRINGS, "auto: skip it; ask: offer to"),
    ("marker_source", STRINGS, "how it was found: repeat, silence or transcript"),
)

BOOLS = pa.list_(pa.field("element", BOOL))

MODERATION = _view(
    "moderation",
    "What was decided of a content: parallel lists, one entry a policy and medium that something speaks against; known "
    "from the moment it was decided.",
    ("action", STR, "the severest action that is taken: none, flag, review, restrict or remove"),
    ("policy", STRINGS, "id of the policy"),
    ("policy_action", STRINGS, "what its ladder asks for"),
    ("policy_enforced", BOOLS, "whether that is taken, or only recorded"),
    ("policy_score", FLOATS, "calibrated probability, 0 to 1; the raw score where nothing calibrates it"),
    ("policy_calibrated", BOOLS, "whether the score is a probability"),
    ("policy_tier", STRINGS, "how it was seen: exact, hash, fingerprint, embedding, classifier or people"),
    ("policy_exemplar", STRINGS, "the surest exemplar; empty where none is cited"),
    ("policy_start_s", FLOATS, "where in the audio the match begins, in seconds; -1 where it has no place"),
    ("policy_end_s", FLOATS, "where it ends"),
    ("decision_id", STRINGS, "the record of the audit"),
)

FAMILIES = (CONTENT, ACOUSTIC, SPEECH, TEXT_SIGNALS, VISUAL, SKIPS, MODERATION, SHOW)
MODALITIES = ("text", "audio", "image")


def embedding_view(modality: str, model_id: str, dim: int) -> View:
    """The view of one model's vectors: `<modality>__<model>`, called `<modality>` by the feature services."""
    slug = re.sub(r"[^a-z0-9]+", "_", model_id.lower()).strip("_")
    feature = Feature("embedding", VECTOR, f"unit-norm float32 vector of {dim} dimensions by {model_id}")
    return View(
        f"{modality}__{slug}", CONTENT_ENTITY, (feature,), f"{modality} embedding by {model_id}", stable_name=modality
    )


def raw_view(modality: str, model_id: str, dim: int) -> View:
    """Vectors of a network before the catalogue's statistics standardise them; kept beside Feast's views."""
    slug = re.sub(r"[^a-z0-9]+", "_", model_id.lower()).strip("_")
    feature = Feature("vector", VECTOR, f"raw float32 vector of {dim} dimensions by {model_id}")
    return View(f"{modality}_raw__{slug}", CONTENT_ENTITY, (feature,), f"raw vectors by {model_id}", room="beside")


SEGMENTS = View(
    "segments",
    CONTENT_ENTITY,
    (
        Feature("start_s", F32, "start in seconds"),
        Feature("end_s", F32, "end in seconds"),
        Feature("label", STR, "speech or music"),
    ),
    "Speech and music segments, several rows a content.",
    room="beside",
)
WORDS = View(
    "words",
    CONTENT_ENTITY,
    (
        Feature("start_s", F32, "start in seconds"),
        Feature("end_s", F32, "end in seconds"),
        Feature("word", STR, "the word as heard"),
        Feature("probability", F32, "the transcriber's probability, 0 to 1"),
    ),
    "Words of a transcript with their times, several rows a content.",
    room="beside",
)
FINGERPRINT = View(
    "fingerprint",
    CONTENT_ENTITY,
    (
        Feature("audio_sha256", STR, "SHA-256 of the audio file"),
        Feature("duration_s", pa.float64(), "decoded duration in seconds"),
        Feature("frames", pa.binary(), "log-band frames, uint8, one row of 32 every 32 ms, deflated"),
        Feature("frame_count", I64, "number of frames"),
        Feature("silence_start_s", FLOATS, "starts of silent stretches in seconds"),
        Feature("silence_end_s", FLOATS, "their ends in seconds"),
        Feature("silence_steady", pa.list_(pa.field("element", BOOL)), "whether their level stays where it is"),
    ),
    "What the audio sounds like at each moment, to find what repeats.",
    room="beside",
    group_rows=1,
)
KEYPOINTS = View(
    "keypoints",
    CONTENT_ENTITY,
    (
        Feature("image_sha256", STR, "SHA-256 of the picture's file"),
        Feature("pdq", pa.binary(), "PDQ of its eight turns and mirrorings, 32 bytes each, its own first"),
        Feature("pdq_quality", I64, "PDQ quality, 0 to 100"),
        Feature("points", pa.binary(), "keypoints (x, y), float32, one row each, coarse ones first"),
        Feature("descriptors", pa.binary(), "their descriptors, uint8, 128 a row"),
        Feature("width", I64, "width in pixels of the form that the keypoints lie in"),
        Feature("height", I64, "its height"),
    ),
    "What a picture is recognised by when it was edited.",
    room="beside",
    group_rows=64,
)
PASSAGES = View(
    "passages",
    CONTENT_ENTITY,
    (
        Feature("first", INTS, "where each passage begins, in characters of title, description and text"),
        Feature("last", INTS, "where it ends"),
        Feature("vectors", pa.binary(), "their unit vectors, float16, one row each"),
        Feature("model_id", STR, "the text model that made them"),
        Feature("text_sha256", STR, "SHA-256 of title, description and text as they were read"),
        Feature("said_hash", STR, "hash of the letters of what was given or transcribed; empty without any"),
    ),
    "What each passage of a text means, so that one among a thousand is found.",
    room="beside",
    group_rows=64,
)
VOICES = View(
    "voices",
    CONTENT_ENTITY,
    (
        Feature("start_s", FLOATS, "starts of spoken passages in seconds"),
        Feature("end_s", FLOATS, "their ends in seconds"),
        Feature("vectors", pa.binary(), "unit vectors of whose voice it is, float16, 256 a row"),
        Feature("audio_sha256", STR, "SHA-256 of the audio file"),
    ),
    "Whose voice is heard when. Only where the configuration asks for `voices`.",
    room="beside",
    group_rows=64,
)
SIDE_TABLES = {view.name: view for view in (SEGMENTS, WORDS)}
