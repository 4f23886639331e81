"""A folder of media as a catalogue: one content per file; metadata from tags and from the files beside it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog.cache import FileCache
from catalog.dates import tag_date
from catalog.encoding import decode_text
from catalog.lyrics import plain_lyrics
from catalog.names import content_ids
from catalog.rows import Rejected, printable
from catalog.sources import COVER
from catalog.tags import TAGS_VERSION, read_tags
from catalog.walk import Tree, ending, walk, why

# Endings of the containers that `catalog.container.FORMATS` allows; of a video, the first audio stream is read.
AUDIO = frozenset(
    f".{name}"
    for names in (
        "mp3 mp2 mp1 mpga aac adts flac",
        "m4a m4b m4r mp4 m4v mov qt 3gp 3g2 f4a",
        "ogg oga ogv ogx opus spx",
        "wav wave bwf w64 aif aiff aifc",
        "mka mkv webm weba",
    )
    for name in names.split()
)
IMAGES = (".jpg", ".jpeg", ".png", ".webp")
FOLDER_COVERS = ("cover", "folder", "front")
DESCRIPTION, LYRICS = ".txt", ".lrc"
MAX_SIDECAR_BYTES = 4 << 20


@dataclass(frozen=True)
class _Home:
    """A folder's files by name, and the companions of its audio by (lower-case stem, ending)."""

    path: Path
    names: list[str]
    companions: dict[tuple[str, str], str]

    def beside(self, stem: str, *endings: str) -> str | None:
        """The file of the same stem with one of the endings; the one in the same spelling first."""
        for suffix in endings:
            exact = f"{stem}{suffix}"
            name = exact if exact in self.names else self.companions.get((stem.lower(), suffix))
            if name is not None:
                return name
        return None

    @property
    def cover(self) -> str | None:
        return next((n for stem in FOLDER_COVERS if (n := self.beside(stem, *IMAGES)) is not None), None)


def read_folder(
    root: Path, cache: FileCache | None = None
) -> tuple[list[tuple[str, dict[str, Any]]], list[Rejected], dict[str, int]]:
    """Raw rows of the audio files under `root`, the entries that cannot be read, and the files left out by ending.

    The id is the relative path (`catalog.names`), `updated_at` the file's modification time. A picture or a `.txt` of
    the same stem is the cover or the description, an `.lrc` the lyrics; `cover.jpg` and the like are the cover of a
    folder, and an embedded picture comes before that. Hidden files are left out.
    """
    cache = cache if cache is not None else FileCache()
    tree = walk(root)
    rejected, paths = _rejected(root, tree)
    homes = [_home(path, names) for path, names in tree.folders]
    audio = []
    for home in homes:
        for name in home.names:
            if ending(name) not in AUDIO:
                continue
            relative = (home.path / name).relative_to(root).as_posix()
            if _is_unicode(relative):
                audio.append((home, name, relative))
            else:
                shown = printable(relative)
                detail = f"the file name {shown} is not valid UTF-8; rename it"
                rejected.append(Rejected(shown, "invalid_utf8", detail))
    ids = content_ids([*paths, *(relative for _, _, relative in audio)])
    rejected += [Rejected(ids[path], reason, detail, has_id) for path, (reason, detail, has_id) in paths.items()]
    rows: list[tuple[str, dict[str, Any]]] = []
    used: set[tuple[Path, str]] = set()
    real_root = os.path.realpath(root)
    for home, name, relative in audio:
        try:
            row, companions = _row(root, home, name, relative, ids[relative], cache, real_root)
        except OSError as error:
            detail = f"{Path(os.fsdecode(error.filename or name)).name} cannot be read: {why(error)}"
            rejected.append(Rejected(ids[relative], "unreadable", printable(detail), has_id=True))
        except (OverflowError, ValueError) as error:
            detail = f"the modification time of {name} is not in the years 1 to 9999: {error}"
            rejected.append(Rejected(ids[relative], "bad_timestamp", printable(detail), has_id=True))
        else:
            rows.append((f"file {printable(relative)}", row))
            used |= {(home.path, companion) for companion in companions}
    return rows, rejected, dict(sorted((tree.left_out + _unused(homes, used)).items()))


def _rejected(root: Path, tree: Tree) -> tuple[list[Rejected], dict[str, tuple[str, str, bool]]]:
    """The entries that cannot be read: those without a valid name as rejected rows, the others by relative path as
    (reason, detail, whether they are one content)."""
    rejected, paths = [], {}
    for problem in tree.problems:
        relative = problem.path.relative_to(root).as_posix()
        detail = printable(f"{problem.path.name}: {problem.detail}", limit=400)
        if _is_unicode(relative):
            paths[relative] = problem.reason, detail, ending(problem.path.name) in AUDIO
        else:
            rejected.append(Rejected(printable(relative), problem.reason, detail))
    return rejected, paths


def _home(path: Path, names: list[str]) -> _Home:
    companions: dict[tuple[str, str], str] = {}
    for name in names:
        companions.setdefault((os.path.splitext(name)[0].lower(), ending(name)), name)
    return _Home(path, names, companions)


def _unused(homes: list[_Home], used: set[tuple[Path, str]]) -> Counter[str]:
    """Endings of the files that are neither audio nor used by a content beside them."""
    left_out: Counter[str] = Counter()
    for home in homes:
        cover = home.cover
        for name in home.names:
            if ending(name) not in AUDIO and name != cover and (home.path, name) not in used:
                left_out[printable(ending(name))] += 1
    return left_out


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _row(
    root: Path, home: _Home, name: str, relative: str, content_id: str, cache: FileCache, real_root: str
) -> tuple[dict[str, Any], list[str]]:
    """The row of one file, and the names of the files beside it that belong to it. Raises `OSError` for what cannot
    be read."""
    path = home.path / name
    status = path.stat()
    cached = f"{real_root}/{relative}"  # two catalogues of one store may have files of one name
    tags = cache.tags(cached, status.st_size, status.st_mtime_ns)
    if tags is None or tags.get("version") != TAGS_VERSION:
        with path.open("rb"):  # a file that may not be read now must not be remembered as one without tags
            tags = {**read_tags(path), "version": TAGS_VERSION}
        cache.remember_tags(cached, status.st_size, status.st_mtime_ns, tags)
    genre = (tags.get("genre") or "").lower()
    kind = tags.get("kind") or ("episode" if "podcast" in genre else "chapter" if "audiobook" in genre else "track")
    description, lyrics = tags.get("description"), tags.get("lyrics")
    companions = []
    if (text := home.beside(path.stem, DESCRIPTION)) is not None and _fits(home.path / text):
        companions.append(text)
        description = _read_text(home.path / text) or description
    if (text := home.beside(path.stem, LYRICS)) is not None and _fits(home.path / text):
        companions.append(text)
        lyrics = lyrics or plain_lyrics(_read_text(home.path / text))
    picture = home.beside(path.stem, *IMAGES)
    if picture is not None:
        companions.append(picture)
    cover = home.cover
    # The path of a picture whose name is not valid Unicode cannot stand in a row.
    image = next((n for n in (picture, None if tags["has_cover"] else cover) if n is not None and _is_unicode(n)), None)
    if image is not None:
        image_uri: str | None = (home.path / image).relative_to(root).as_posix()
    else:
        image_uri = f"{relative}{COVER}" if tags["has_cover"] else None
    return {
        "content_id": content_id,
        "kind": kind,
        "title": tags.get("title") or " ".join(path.stem.split()) or name,
        "updated_at": datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC),
        "show_id": tags.get("album"),
        "description": description,
        "text": lyrics,
        "language": tags.get("language"),
        "audio_uri": relative,
        "image_uri": image_uri,
        "published_at": tag_date(tags.get("date")),
    }, companions


def _fits(path: Path) -> bool:
    return path.stat().st_size <= MAX_SIDECAR_BYTES


def _read_text(path: Path) -> str:
    return decode_text(path.read_bytes()).replace("\0", " ").strip()
