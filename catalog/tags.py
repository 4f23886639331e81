"""Tags and embedded covers of audio files, read by mutagen; of containers that it does not know, by FFmpeg."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catalog.lyrics import plain_lyrics
from catalog.tag_fields import Comment, Fields, from_ape, from_container, from_id3, from_mp4, from_vorbis, is_prose

PICTURE_FRONT_COVER = 3  # picture type of ID3 and FLAC
TAGS_VERSION = 2  # of what `read_tags` makes of a file; remembered tags of another version are read again


def read_tags(path: Path) -> dict[str, Any]:
    """What a file's tags hold: any of title, album, genre, date, language, description, lyrics (text), kind, and
    `has_cover`. A file whose tags cannot be read has none: whether it is audio is for the decoder to find out."""
    fields = list(_fields(path))
    found: dict[str, Any] = {"has_cover": embedded_cover(path) is not None}
    for name in ("title", "album", "genre", "date", "language", "kind"):
        value = next((text for f in fields for text in getattr(f, name) if text), None)
        if value:
            found[name] = value
    language = found.get("language")
    described = [comment for f in fields for comment in f.descriptions]
    comments = [comment for f in fields for comment in f.comments]
    description = _longest(described, language) or _longest(comments, language)
    if description:
        found["description"] = description
    lyrics = next(filter(None, (plain_lyrics(text) for f in fields for text in f.lyrics)), None)
    if lyrics:
        found["lyrics"] = lyrics
    return found


def _longest(comments: list[Comment], language: str | None) -> str | None:
    """The longest comment that is prose, of those in the file's language where there are any."""
    prose = [comment for comment in comments if is_prose(comment)]
    own = [c for c in prose if language and c.language and c.language[:2].lower() == language[:2].lower()]
    return max((c.text for c in own or prose), key=len, default=None)


def _fields(path: Path) -> Iterator[Fields]:
    """The tags of a file, in order of precedence. Each kind is read separately: mutagen raises many kinds of error on
    damaged files, and one damaged tag must not hide another."""
    import mutagen
    from mutagen.apev2 import APEv2
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4Tags

    tags: Any = None
    with contextlib.suppress(Exception):
        tags = getattr(mutagen.File(path), "tags", None)
    found: list[Fields] = []
    if tags is None:
        with contextlib.suppress(Exception):
            tags = ID3(path)  # before frames of AAC, or of sound that is damaged
    with contextlib.suppress(Exception):
        if isinstance(tags, ID3):
            found.append(from_id3(tags))
        elif isinstance(tags, MP4Tags):
            found.append(from_mp4(tags))
        elif isinstance(tags, APEv2):
            found.append(from_ape(tags))
        elif tags:
            found.append(from_vorbis(tags))
    if not isinstance(tags, APEv2):
        with contextlib.suppress(Exception):
            found.append(from_ape(APEv2(path)))
    if not any(f.title or f.album for f in found):
        with contextlib.suppress(Exception):
            found.append(from_container(path))
    yield from found


def embedded_cover(path: Path) -> bytes | None:
    """The bytes of the embedded front cover (else of the first picture), or None."""
    import mutagen
    from mutagen.apev2 import APEv2

    with contextlib.suppress(Exception):
        audio = mutagen.File(path)
        pictures = [(p.type, bytes(p.data)) for p in getattr(audio, "pictures", ())]
        tags = getattr(audio, "tags", None)
        if tags is None:
            tags = APEv2(path)
        if hasattr(tags, "getall"):
            pictures += [(p.type, bytes(p.data)) for p in tags.getall("APIC")]
        elif "covr" in tags:
            pictures += [(PICTURE_FRONT_COVER, bytes(p)) for p in tags["covr"]]
        elif "metadata_block_picture" in tags:
            from mutagen.flac import Picture

            for block in tags["metadata_block_picture"]:
                picture = Picture(base64.b64decode(block))
                pictures.append((picture.type, bytes(picture.data)))
        elif "Cover Art (Front)" in tags:  # a file name, a zero byte, the picture
            pictures.append((PICTURE_FRONT_COVER, bytes(tags["Cover Art (Front)"].value).partition(b"\0")[2]))
        pictures.sort(key=lambda picture: picture[0] != PICTURE_FRONT_COVER)
        return pictures[0][1] if pictures and pictures[0][1] else None
    return None
