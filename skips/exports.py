"""Markers in the forms that players read: Podcasting 2.0 chapters, WebVTT, edit decision lists."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from core.errors import BadItem
from core.storage import LocalStorage
from skips.markers import MarkedEpisode, Marker

TITLES = {
    "intro": "Intro",
    "outro": "Outro",
    "ad": "Advertisement",
    "jingle": "Jingle",
    "recap": "Recap",
    "silence": "Silence",
}
SKIP_SCENE = 3  # Kodi: a commercial break, skipped once, and reachable by seeking back
LEAST_PART_S = 1.0  # of content between two markers that is worth a chapter
LONGEST_NAME = 240  # bytes that a disk has for a file's name, less those of a suffix
NAME_BYTES = 100  # of an exported file's name, before its hash


def chapters_json(episode: MarkedEpisode) -> str:
    """Chapters as JSON, application/json+chapters.

    https://github.com/Podcastindex-org/podcast-namespace/blob/main/chapters/jsonChapters.md (version 1.2.0): chapters
    by start; a silence is no entry of the table of contents, and what lies between markers is a numbered part.
    """
    _finite(episode)
    chapters: list[dict[str, object]] = []
    part, at = 0, 0.0

    def content(until: float) -> None:
        nonlocal part
        if until - at >= LEAST_PART_S:
            part += 1
            chapters.append({"startTime": round(at, 3), "endTime": round(until, 3), "title": f"Part {part}"})

    for marker in episode.markers:
        content(marker.start_s)
        chapter: dict[str, object] = {
            "startTime": round(marker.start_s, 3),
            "endTime": round(marker.end_s, 3),
            "title": TITLES.get(marker.kind, marker.kind),
        }
        if marker.kind == "silence":
            chapter["toc"] = False
        chapters.append(chapter)
        at = max(at, marker.end_s)  # a marker may lie in the one before
    content(episode.duration_s)
    title = {"title": episode.title} if episode.title else {}
    return json.dumps({"version": "1.2.0", **title, "chapters": chapters}, indent=1, ensure_ascii=False) + "\n"


def webvtt(episode: MarkedEpisode) -> str:
    """A metadata track, text/vtt: a cue a marker, whose payload is the marker as JSON.

    https://www.w3.org/TR/webvtt1/ (section 1.7, metadata). A payload must not hold "-->" nor an empty line: JSON in one
    line has none, and ">" is escaped.
    """
    _finite(episode)
    lines = ["WEBVTT", "", f"NOTE audio_sha256 {episode.audio_sha256}, {episode.algorithm}", ""]
    for number, (marker, row) in enumerate(zip(episode.markers, episode.to_dict()["markers"], strict=True), 1):
        payload = json.dumps(row, ensure_ascii=True).replace(">", "\\u003e")
        lines += [f"{number}", f"{clock(marker.start_s)} --> {clock(marker.end_s)}", payload, ""]
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """`hh:mm:ss.mmm`."""
    ms = _ms(seconds)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000:03}"


def edl(episode: MarkedEpisode, actions: Sequence[str] = ("auto",)) -> str:
    """An edit decision list as MPlayer, Kodi and Jellyfin read it: start, end and what to do (3: a commercial break),
    separated by tabs; only what may be skipped unasked. https://kodi.wiki/view/Edit_decision_list

    What overlaps or touches is one row: Kodi refuses a row that begins at the millisecond at which another ends.
    """
    _finite(episode)
    rows: list[list[int]] = []  # milliseconds
    for start, end in sorted((_ms(m.start_s), _ms(m.end_s)) for m in episode.markers if m.action in actions):
        if rows and start <= rows[-1][1]:
            rows[-1][1] = max(rows[-1][1], end)
        elif start < end:
            rows.append([start, end])
    return "".join(f"{start / 1000:.3f}\t{end / 1000:.3f}\t{SKIP_SCENE}\n" for start, end in rows)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _finite(episode: MarkedEpisode) -> None:
    """Raises `BadItem` where a time is NaN or infinite: no format can say that."""
    times = (episode.duration_s, *(t for m in episode.markers for t in (m.start_s, m.end_s)))
    if not all(map(math.isfinite, times)):
        raise BadItem("not_finite", f"{episode.content_id!r} has a time that is not finite and cannot be exported")


FORMATS: dict[str, tuple[str, Callable[[MarkedEpisode], str]]] = {
    "chapters": (".chapters.json", chapters_json),
    "webvtt": (".skips.vtt", webvtt),
    "edl": (".edl", edl),
}


def file_name(content_id: str) -> str:
    """A file name for an id: its readable part, and a hash of it where that is not the whole id, so that no two ids
    share a name, on any disk."""
    plain = re.sub(r"[^\w.-]+", "_", content_id, flags=re.ASCII).strip("._-") or "episode"
    # An id may be a path whose name is no UTF-8: Python holds its bytes as surrogates.
    digest = hashlib.sha256(content_id.encode(errors="surrogatepass")).hexdigest()[:10]
    return f"{plain.encode()[:NAME_BYTES].decode(errors='ignore')}-{digest}"


def write_exports(
    episodes: Sequence[MarkedEpisode], folder: Path, formats: Sequence[str], *, as_files: bool = False
) -> list[Path]:
    """Writes every episode in every format under `folder`, each file whole or not at all; returns the paths. With
    `as_files`, ids are paths of files, and an export has its file's place and name but the suffix, as players look for
    it; of two files that differ in nothing else, each keeps its own."""
    storage = LocalStorage(folder)
    written = []
    ids = [episode.content_id for episode in episodes]
    names = _beside(ids) if as_files else list(map(file_name, ids))
    for episode, name in zip(episodes, names, strict=True):
        for form in formats:
            suffix, export = FORMATS[form]
            relative = f"{name}{suffix}"
            storage.write(relative, export(episode).encode(errors="replace"))
            written.append(folder / relative)
    return written


def _beside(paths: Sequence[str]) -> list[str]:
    """Names for exports of files: theirs without the suffix; with it, where another file has the same; and a name as of
    an id where that is another's, or too long for a disk."""
    stems = [PurePosixPath(path).with_suffix("").as_posix() for path in paths]
    count = Counter(map(str.casefold, stems))
    names = [stem if count[stem.casefold()] == 1 else path for stem, path in zip(stems, paths, strict=True)]
    count = Counter(map(str.casefold, names))
    return [
        name
        if count[name.casefold()] == 1 and len(os.fsencode(PurePosixPath(name).name)) <= LONGEST_NAME
        else (PurePosixPath(path).parent / file_name(path)).as_posix()
        for name, path in zip(names, paths, strict=True)
    ]


def total_s(markers: Iterable[Marker], actions: Sequence[str] = ("auto", "ask")) -> float:
    """Seconds that markers cover."""
    return sum(m.duration_s for m in markers if m.action in actions)
