"""What a store's audio is to skip detection: contents in the order of their shows, the hash of what was heard of each,
its frames and its silences."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from core.contracts import EVENT, WORK_KEY
from core.features import CONTENT, FINGERPRINT
from core.keys import REMOVED
from core.rows import LatestRows
from core.tables import Tables

if TYPE_CHECKING:
    import numpy as np

    from skips.detect import Known, Recording


def described(tables: Tables) -> dict[str, dict[str, Any]]:
    """Show, order in it, title and kind of every content that is not removed and has audio, in the order of shows and
    their episodes."""
    rows = tables.latest(CONTENT, ["kind", "title", "show_id", "published_at", "has_audio"]).to_pylist()
    rows = [row for row in rows if row[WORK_KEY] != REMOVED and row["has_audio"]]
    rows.sort(key=lambda r: (r["show_id"] or "", r["published_at"] or r[EVENT], natural(r["content_id"])))
    return {
        row["content_id"]: {
            "show": row["show_id"] or "",
            "order": order,
            "title": row["title"] or "",
            "kind": row["kind"] or "episode",
        }
        for order, row in enumerate(rows)
    }


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts "episode 10" after "episode 9"."""
    return tuple((int(part), "") if part.isdigit() else (-1, part.casefold()) for part in re.split(r"(\d+)", text))


class Frames:
    """Frames of recordings by number, read from the store when they are needed."""

    def __init__(self, tables: Tables, known: Known) -> None:
        self.tables = tables
        self.ids = {number: recording.content_id for number, recording in known.recordings.items()}

    def __call__(self, number: int) -> np.ndarray:
        import numpy as np

        (row,) = self._rows.read([self.ids[number]]).to_pylist()
        return np.frombuffer(zlib.decompress(row["frames"]), np.uint8).reshape(row["frame_count"], -1)

    @cached_property
    def _rows(self) -> LatestRows:
        # Frames that were read are kept by `skips.frames.Sounds`, not twice.
        return LatestRows(self.tables, FINGERPRINT, ["frames", "frame_count"], kept_bytes=0)


def silences(tables: Tables, known: Known) -> dict[int, list[tuple[float, float, bool]]]:
    columns = ["silence_start_s", "silence_end_s", "silence_steady"]
    rows = {row["content_id"]: row for row in tables.latest(FINGERPRINT, columns).to_pylist()}
    found = {}
    for number, recording in known.recordings.items():
        row = rows[recording.content_id]
        found[number] = list(zip(*(row[name] or [] for name in columns), strict=True))
    return found


def alive(tables: Tables, about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The hash and the length of the audio of contents that are described, as it was last heard."""
    heard = tables.latest(FINGERPRINT, ["audio_sha256", "duration_s"]).to_pylist()
    return {row["content_id"]: row for row in heard if row[WORK_KEY] != REMOVED and row["content_id"] in about}


def bearers(tables: Tables, without: Container[str] = ()) -> dict[str, list[str]]:
    """Hash of audio → the episodes that have it."""
    about = described(tables)
    heard = alive(tables, about)
    found: dict[str, list[str]] = defaultdict(list)
    for content_id, own in about.items():
        if content_id in heard and own["kind"] != "track" and content_id not in without:
            found[heard[content_id]["audio_sha256"]].append(content_id)
    return found


def bearer(
    recording: Recording, bearing: Mapping[str, Sequence[str]], heard: Mapping[str, dict[str, Any]]
) -> str | None:
    """The content that a recording stands for: its own, or another that has the same audio; None without any."""
    own = heard.get(recording.content_id)
    if own is not None and own["audio_sha256"] == recording.audio_sha256:
        return recording.content_id
    others = bearing.get(recording.audio_sha256, ()) if recording.kind != "track" else ()
    return next(iter(others), None)
