"""A folder of media as a catalogue: a content a file, said by its tags and by what lies beside it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog.cache import FileCache
from catalog.rows import Rejected, printable
from catalog.sources import COVER
from catalog.tags import read_tags, tag_date
from core.errors import CatalogError

AUDIO = {".mp3", ".m4a", ".m4b", ".aac", ".ogg", ".oga", ".opus", ".flac", ".wav"}
IMAGES = (".jpg", ".jpeg", ".png", ".webp")
FOLDER_COVERS = ("cover", "folder", "front")
MAX_SIDECAR_BYTES = 4 << 20


def read_folder(root: Path, cache: FileCache | None = None) -> tuple[list[tuple[str, dict[str, Any]]], list[Rejected]]:
    """Raw rows of the audio files under `root`, and the files whose names cannot be ids.

    The id is the relative path (NFC, `/`), `updated_at` the file's modification time. A picture or a `.txt` of the same
    stem is the cover or the description, `cover.jpg` and the like the cover of a folder, an embedded picture comes
    before that. Hidden files are left out, and links that lead outside.
    """
    if not os.access(root, os.R_OK | os.X_OK):
        raise CatalogError(f"the folder {root} cannot be read")
    cache = cache if cache is not None else FileCache()
    rows: list[tuple[str, dict[str, Any]]] = []
    rejected: list[Rejected] = []
    for folder, names in _folders(root):
        stems = _pictures(names)
        for name in names:
            path = folder / name
            if path.suffix.lower() not in AUDIO:
                continue
            relative = path.relative_to(root).as_posix()
            try:
                relative.encode("utf-8")
            except UnicodeEncodeError:
                shown = printable(relative)
                rejected.append(Rejected(shown, "invalid_utf8", f"the file name {shown} is not valid UTF-8"))
                continue
            content_id = unicodedata.normalize("NFC", relative)
            rows.append((f"file {printable(relative)}", _row(root, path, relative, content_id, names, stems, cache)))
    return rows, rejected


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    real = os.path.realpath(root)
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        kept = []
        for name in sorted(names):
            inside = os.path.realpath(os.path.join(folder, name)).startswith(real + os.sep)
            if not name.startswith(".") and inside:
                kept.append(name)
        yield Path(folder), kept


def _pictures(names: list[str]) -> dict[str, str]:
    """Picture files by lower-case stem."""
    found: dict[str, str] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in IMAGES:
            found.setdefault(stem.lower(), name)
    return found


def _row(
    root: Path,
    path: Path,
    relative: str,
    content_id: str,
    names: list[str],
    pictures: dict[str, str],
    cache: FileCache,
) -> dict[str, Any]:
    status = path.stat()
    tags = cache.tags(relative, status.st_size, status.st_mtime_ns)
    if tags is None:
        tags = read_tags(path)
        cache.remember_tags(relative, status.st_size, status.st_mtime_ns, tags)
    genre = (tags.get("genre") or "").lower()
    kind = "episode" if "podcast" in genre else "chapter" if "audiobook" in genre else "track"
    description = tags.get("description")
    if f"{path.stem}.txt" in names:
        sidecar = path.with_suffix(".txt")
        if sidecar.stat().st_size <= MAX_SIDECAR_BYTES:
            description = sidecar.read_bytes().decode("utf-8", "replace").strip() or description
    image: str | None
    own = pictures.get(path.stem.lower())
    shared = next((pictures[name] for name in FOLDER_COVERS if name in pictures), None)
    if own is not None:
        image = (path.parent / own).relative_to(root).as_posix()
    elif tags["has_cover"]:
        image = f"{relative}{COVER}"
    else:
        image = (path.parent / shared).relative_to(root).as_posix() if shared else None
    return {
        "content_id": content_id,
        "kind": kind,
        "title": tags.get("title") or path.stem,
        "updated_at": datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC),
        "show_id": tags.get("album"),
        "description": description,
        "text": tags.get("lyrics"),
        "language": tags.get("language"),
        "audio_uri": relative,
        "image_uri": image,
        "published_at": tag_date(tags.get("date")),
    }
