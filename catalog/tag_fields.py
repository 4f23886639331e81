"""Maps tags to the fields of a catalogue row: ID3, MP4, Vorbis comments, APEv2 and other containers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.legacy import repaired

# Comments in which programs keep numbers of their own, by the start of their description.
TECHNICAL = (
    "itun",
    "songs-db_",
    "musicmatch_",
    "replaygain",
    "mp3gain",
    "cddb",
    "discid",
    "acoustid",
    "serato",
    "traktor",
)
# Sound check (groups of 8 hexadecimal digits), gapless playback, and disc identifiers, where the description was lost.
_TECHNICAL_TEXT = re.compile(r"\s*(?:[0-9A-Fa-f]{8}(?:\s+|\Z)){2,}|\s*[0-9A-Fa-f]{8}\+\d+")
LYRICS_CONTENT = (1, 2)  # SYLT: lyrics, transcription; the others are chords, names of pictures, events
STIK_AUDIOBOOK, STIK_PODCAST = 2, 21  # MP4's media kind, as iTunes writes it


@dataclass(frozen=True)
class Comment:
    """A comment with the language it states, a code of ISO 639 or "", and what it says it is about."""

    text: str
    language: str = ""
    about: str = ""


@dataclass
class Fields:
    """The candidates of every field, the preferred first."""

    title: list[str] = field(default_factory=list)
    album: list[str] = field(default_factory=list)
    genre: list[str] = field(default_factory=list)
    date: list[str] = field(default_factory=list)
    language: list[str] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    lyrics: list[str] = field(default_factory=list)
    descriptions: list[Comment] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)


def is_prose(comment: Comment) -> bool:
    """Whether a person wrote a comment: it has letters, and no program writes such a value."""
    technical = comment.about.lower().startswith(TECHNICAL) or _TECHNICAL_TEXT.match(comment.text)
    return not technical and any(char.isalpha() for char in comment.text)


def from_id3(tags: Any) -> Fields:
    """ID3v1 and ID3v2. Frames that say Latin-1 are often in another code page."""
    latin = [text for frame in tags.values() if getattr(frame, "encoding", None) == 0 for text in _texts(frame)]
    anew = dict(zip(latin, repaired(latin), strict=True))

    def texts(*names: str) -> list[str]:
        frames = [frame for name in names for frame in tags.getall(name)]
        return _clean(anew.get(text, text) for frame in frames for text in _texts(frame))

    def comments(name: str) -> list[Comment]:
        return [
            Comment(text, _language(getattr(frame, "lang", "")), getattr(frame, "desc", ""))
            for frame in tags.getall(name)
            for text in _clean(anew.get(text, text) for text in _texts(frame))
        ]

    genres = [genre for frame in tags.getall("TCON") for genre in frame.genres]
    genres = _clean(anew.get(genre, genre) for genre in genres)
    podcast = bool(tags.getall("PCST") or tags.getall("WFED") or tags.getall("TGID"))
    return Fields(
        title=texts("TIT2"),
        album=texts("TALB"),
        genre=[", ".join(genres)],
        date=texts("TDRC", "TDRL", "TXXX:DATE", "TDOR"),
        language=texts("TLAN"),
        kind=["episode"] if podcast else [],
        lyrics=[*texts("USLT", "TXXX:LYRICS", "TXXX:UNSYNCEDLYRICS"), *_timed_lyrics(tags)],
        descriptions=comments("TDES"),
        comments=comments("COMM"),
    )


def from_mp4(tags: Any) -> Fields:
    """The atoms that iTunes writes."""
    stik = [int(value) for value in tags.get("stik", ())]
    podcast = bool(tags.get("pcst")) or STIK_PODCAST in stik
    return _by_name(
        tags.get,
        title=["\xa9nam"],
        album=["\xa9alb"],
        genre=["\xa9gen"],
        date=["\xa9day"],
        language=["----:com.apple.iTunes:LANGUAGE"],
        lyrics=["\xa9lyr"],
        descriptions=["ldes", "desc"],
        comments=["\xa9cmt"],
        kind=["episode"] if podcast else ["chapter"] if STIK_AUDIOBOOK in stik else [],
    )


def from_vorbis(tags: Any) -> Fields:
    """Vorbis comments, and other tags of plain names."""
    return _by_name(
        tags.get,
        title=["title"],
        album=["album"],
        genre=["genre"],
        date=["date", "releasedate", "year", "originaldate"],
        language=["language"],
        lyrics=["lyrics", "unsyncedlyrics", "unsynced lyrics", "syncedlyrics"],
        descriptions=["description", "podcastdesc", "longdescription"],
        comments=["comment", "summary", "synopsis"],
        kind=["episode"] if _is_set(tags, "podcast", "podcasturl") else [],
    )


def from_ape(tags: Any) -> Fields:
    """APEv2, whose names are not case-sensitive; its values may be lists."""
    return _by_name(
        lambda name: list(tags[name]) if name in tags and tags[name].kind == 0 else None,
        title=["Title"],
        album=["Album"],
        genre=["Genre"],
        date=["Year", "Record Date", "Date"],
        language=["Language"],
        lyrics=["Lyrics", "Unsyncedlyrics", "Unsynced Lyrics"],
        descriptions=["Description", "Abstract"],
        comments=["Comment"],
        kind=["episode"] if _is_set(tags, "Podcast", "PodcastURL") else [],
    )


def from_container(path: Path) -> Fields:
    """What FFmpeg finds in containers that mutagen does not read: Matroska, WebM, and WAV with an INFO list."""
    from catalog.isolated import metadata

    tags = metadata(path)
    if tags.get("language") == "und":  # Matroska's word for an undetermined language
        del tags["language"]
    fields = from_vorbis(tags)
    fields.date += _clean([tags.get("date_released", "")])
    return fields


def _by_name(get: Callable[[str], Any], kind: list[str], **names: list[str]) -> Fields:
    """Fields from a tag that gives its values by name."""
    found: dict[str, Any] = {"kind": kind}
    for ours, theirs in names.items():
        texts = [text for name in theirs for text in _clean(_as_list(get(name)))]
        if ours in ("descriptions", "comments"):
            found[ours] = [Comment(text) for text in texts]
        else:
            found[ours] = [", ".join(texts)] if ours == "genre" else texts
    return Fields(**found)


def _is_set(tags: Any, *names: str) -> bool:
    """Whether a tag has a value other than no."""
    values = [text for name in names if name in tags for text in _clean(_as_list(tags[name]))]
    return any(text.lower() not in ("0", "false", "no") for text in values)


def _texts(frame: Any) -> list[str]:
    """The texts of an ID3 frame; USLT has one, text frames a list, others none."""
    text = getattr(frame, "text", None)
    if isinstance(text, str):
        return [text]
    if not isinstance(text, list) or any(isinstance(part, tuple) for part in text):
        return []
    return [str(part) for part in text]


def _timed_lyrics(tags: Any) -> list[str]:
    """The words of SYLT frames, whose (text, time) pairs are lines, or syllables with the line breaks among them."""
    found = []
    for frame in tags.getall("SYLT"):
        if frame.type in LYRICS_CONTENT:
            parts = [part for part, _ in frame.text]
            found.append(("" if any("\n" in part for part in parts) else "\n").join(parts))
    return _clean(found)


def _language(code: Any) -> str:
    """A stated language; "" for XXX, which ID3 writes for an unknown one, and for what is no code."""
    code = str(code)
    return code if code.isalpha() and code.lower() not in ("xxx", "und") else ""


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _clean(texts: Iterable[Any]) -> list[str]:
    """Texts without zero bytes, lone surrogates and outer spaces; those of bytes are UTF-8."""
    found = []
    for text in texts:
        plain = bytes(text).decode("utf-8", "replace") if isinstance(text, (bytes, bytearray)) else str(text)
        plain = plain.replace("\0", " ").encode("utf-8", "replace").decode("utf-8").strip()
        if plain:
            found.append(plain)
    return found
