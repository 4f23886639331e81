"""Data contracts as Arrow schemas: what a catalogue row is and what every offline row carries."""

from __future__ import annotations

import unicodedata

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.field("element", pa.float32()))

KINDS = ("track", "episode", "chapter")
MAX_ID_BYTES = 512

CONTENT_SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("updated_at", TIMESTAMP, nullable=False),
        pa.field("show_id", pa.string()),
        pa.field("description", pa.string()),
        pa.field("text", pa.string()),
        pa.field("language", pa.string()),
        pa.field("explicit", pa.bool_()),
        pa.field("audio_uri", pa.string()),
        pa.field("image_uri", pa.string()),
        pa.field("published_at", TIMESTAMP),
    ]
)
REQUIRED_COLUMNS = tuple(f.name for f in CONTENT_SCHEMA if not f.nullable)

# Columns that every offline row carries beside its features. `work_key` makes the data its own ledger (core/keys.py).
EVENT = "event_timestamp"
CREATED = "created_timestamp"
WORK_KEY_TAG = "earmark.work_key"  # of a Feast source: the column of Earmark's that its files have
WORK_KEY = "work_key"

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("first_seen", TIMESTAMP, nullable=False),
        pa.field("last_seen", TIMESTAMP, nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field(WORK_KEY, pa.string(), nullable=False),
    ]
)


def id_problem(content_id: str) -> str | None:
    """Why `content_id` cannot be an id, or None: 1–512 UTF-8 bytes, no control characters, no lone surrogates."""
    try:
        size = len(content_id.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is not valid Unicode (a lone surrogate)"
    if not 1 <= size <= MAX_ID_BYTES:
        return f"it has {size} UTF-8 bytes; 1 to {MAX_ID_BYTES} are allowed"
    if any(unicodedata.category(char) == "Cc" for char in content_id):
        return "it contains control characters"
    return None
