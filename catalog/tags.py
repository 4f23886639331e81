"""Tags and embedded covers of audio files, read by mutagen."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PICTURE_FRONT_COVER = 3  # picture type of ID3 and FLAC

_EASY = {  # what mutagen's "easy" interface calls it → what we call it
    "title": "title",
    "album": "album",
    "genre": "genre",
    "date": "date",
    "language": "language",
}
_LONG = {
    "description": ("description", "comment", "COMM", "\xa9cmt", "desc", "ldes"),
    "lyrics": ("lyrics", "unsyncedlyrics", "USLT", "\xa9lyr"),
}


def read_tags(path: Path) -> dict[str, Any]:
    """What the file says of itself: any of title, album, genre, date, language, description, lyrics (text), and
    `has_cover`. A file whose tags cannot be read says nothing: whether it is audio is for the decoder to find out."""
    import mutagen

    found: dict[str, Any] = {"has_cover": False}
    with contextlib.suppress(Exception):  # mutagen raises many kinds of error on damaged files
        easy = mutagen.File(path, easy=True)
        for theirs, ours in _EASY.items():
            text = _text((easy.tags or {}).get(theirs)) if easy is not None else None
            if text:
                found[ours] = text
    with contextlib.suppress(Exception):
        full = mutagen.File(path)
        if full is not None and full.tags is not None:
            for ours, names in _LONG.items():
                text = next(filter(None, (_long(full.tags, name) for name in names)), None)
                if text:
                    found[ours] = text
    found["has_cover"] = embedded_cover(path) is not None
    return found


def embedded_cover(path: Path) -> bytes | None:
    """The bytes of the embedded front cover (else of the first picture), or None."""
    import mutagen

    with contextlib.suppress(Exception):
        audio = mutagen.File(path)
        if audio is None:
            return None
        pictures = [(p.type, bytes(p.data)) for p in getattr(audio, "pictures", ())]
        tags = audio.tags if audio.tags is not None else {}
        if hasattr(tags, "getall"):
            pictures += [(p.type, bytes(p.data)) for p in tags.getall("APIC")]
        elif "covr" in tags:
            pictures += [(PICTURE_FRONT_COVER, bytes(p)) for p in tags["covr"]]
        elif "metadata_block_picture" in tags:
            from mutagen.flac import Picture

            for block in tags["metadata_block_picture"]:
                picture = Picture(base64.b64decode(block))
                pictures.append((picture.type, bytes(picture.data)))
        pictures.sort(key=lambda picture: picture[0] != PICTURE_FRONT_COVER)
        return pictures[0][1] if pictures and pictures[0][1] else None
    return None


def tag_date(text: str | None) -> datetime | None:
    """A tag's date (`2021`, `2021-05`, `2021-05-04`, ISO 8601) as UTC; None for anything else."""
    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d", "%Y-%m", "%Y"):
        with contextlib.suppress(ValueError, TypeError):
            return datetime.strptime(str(text).strip(), form).replace(tzinfo=UTC)
    return None


def _text(value: Any) -> str | None:
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    text = str(value).replace("\0", " ").strip() if value is not None else ""
    return text or None


def _long(tags: Any, name: str) -> str | None:
    """A long text by its tag: ID3 frames carry theirs in `text`, the others in lists."""
    if hasattr(tags, "getall"):
        frames = tags.getall(name) if len(name) == 4 else []
        return _text(frames[0].text) if frames else None
    return _text(tags.get(name)) if name in tags else None
