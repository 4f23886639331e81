"""Skips of a bare folder of audio: a file is an episode, a subfolder a show. No store, no run before it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.config import MediaLimits
from core.errors import CatalogError
from core.items import is_fatal, pool_of, reason_of, scratch_folder
from core.threads import one_algebra_thread
from pipelines.skip_catalog import natural
from skips.detect import Detector, Recording
from skips.markers import MarkedEpisode, Marker
from skips.words import Sentence, captions

MAX_CAPTIONS_BYTES = 16 * 1024**2
# Pictures, words and captions lie beside the audio that they belong to.
COMPANIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".txt", ".lrc", ".vtt", ".srt"})
Told = Callable[[str, int, int], None]  # label, done since the last call, items in all


@dataclass
class Aside:
    """The entries of a folder that are not read: those that cannot be reached, each with its reason, and the numbers of
    other files by their ending."""

    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass
class FolderSkips:
    """The result for a folder: its episodes in order, the files that could not be read with their reasons, the curves
    under the pictures by content id, repeats inside music, and files that were accepted although they end early, each
    with how it ends."""

    episodes: list[MarkedEpisode]
    failures: list[tuple[str, str]]
    similarities: dict[str, np.ndarray] = field(default_factory=dict)
    repeats: list[dict[str, object]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)  # other files by their ending
    truncated: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Heard:
    path: Path
    audio_sha256: str
    duration_s: float
    frames: Path
    silences: list[tuple[float, float, bool]]
    truncated: str = ""


def skip_folder(
    folder: Path,
    *,
    music: bool = False,
    curves: bool = False,
    workers: int | None = None,
    accept_truncated: bool = False,
    limits: MediaLimits = MediaLimits(),  # noqa: B008
    told: Told = lambda label, done, total: None,
) -> FolderSkips:
    """Finds what repeats in the audio files of `folder` and marks what can be skipped.

    Captions beside a file (`.vtt`, `.srt`, of its name) tell what is said: phrases weigh in kinds, and ads that hosts
    read are found. With `music`, the files are tracks: what repeats in and over them is told, nothing is marked. With
    `curves`, the likeness of each moment to what it repeats comes along. A file that cannot be read is a failure, the
    rest goes on. Raises `CatalogError` for a folder that is none or holds no audio.
    """
    from embedders.fingerprint import patches
    from skips.cues import kind_cues
    from skips.decide import decide, repeats
    from skips.similarity import similarity

    one_algebra_thread()
    folder = folder.expanduser().absolute()
    aside = Aside()
    files = audio_files(folder, aside)
    if not files:
        raise CatalogError(f"the folder {folder} holds no audio files{instead(aside)}")
    with scratch_folder("earmark-skips-") as scratch:  # for frames: a large catalogue need not fit into memory
        heard, failures = _hear_all(files, scratch, workers or os.cpu_count() or 1, limits, accept_truncated, told)
        failures = sorted([*aside.unreadable, *failures])
        recordings = [
            Recording(
                number,
                one.path.relative_to(folder).as_posix(),
                one.audio_sha256,
                one.duration_s,
                _show(one.path, folder),
                number,
                str(one.path),
                one.path.stem,
                "track" if music else "episode",
            )
            for number, one in enumerate(heard)
        ]
        detector = Detector(lambda number: np.load(heard[number].frames, mmap_mode="r"), patches)
        # Episodes of the very same bytes are one recording: copies would bear each other witness.
        first: dict[str, int] = {}
        alone = [r for r in recordings if music or first.setdefault(r.audio_sha256, r.number) == r.number]
        told("compare", 0, len(alone))
        detector.add(alone, lambda done, total: told("compare", done, 0))
        said: dict[int, list[Sentence]] = {}
        for r in () if music else recordings:
            number = first.get(r.audio_sha256, r.number)  # captions may lie beside any copy
            if number not in said and (own := spoken(heard[r.number].path)):
                said[number] = own
        markers = decide(
            detector.known,
            {n: one.silences for n, one in enumerate(heard)},
            lambda recording, *span: kind_cues(said.get(recording.number, ()), *span),
            host_read=_host_read(said),
        )
        heard_as = {r.number: first.get(r.audio_sha256, r.number) for r in recordings}
        episodes = []
        for r in recordings:
            found_in = tuple(markers.get(heard_as[r.number], ()))
            bound = r.audio_sha256, r.duration_s, found_in
            episodes.append(MarkedEpisode(r.content_id, r.path, *bound, r.show, r.title))
        found = FolderSkips(episodes, [(p.relative_to(folder).as_posix(), reason) for p, reason in failures])
        found.left_out = dict(sorted(aside.left_out.items()))
        found.truncated = [
            (r.content_id, one.truncated) for r, one in zip(recordings, heard, strict=True) if one.truncated
        ]
        if curves:
            curves_of = {r.number: similarity(detector, r.number) for r in alone}
            found.similarities = {r.content_id: curves_of[heard_as[r.number]] for r in recordings}
        if music:
            found.repeats = repeats(detector.known)
    return found


def audio_files(folder: Path, aside: Aside | None = None) -> list[Path]:
    """The audio files under a folder, in the order that people count; hidden ones are left out."""
    from catalog.folder import AUDIO
    from catalog.walk import ending

    return files_under(folder, lambda path: ending(path.name) in AUDIO, aside)


def files_under(folder: Path, wanted: Callable[[Path], object], aside: Aside | None = None) -> list[Path]:
    """The files under a folder that are wanted, in the order that people count; hidden ones are left out. Links are
    followed, each folder is read once. What cannot be reached and what is not wanted goes to `aside`. Raises
    `CatalogError`."""
    from catalog.walk import ending, walk

    if not folder.is_dir():
        raise CatalogError(f"{folder} is not a folder")
    tree = walk(folder, outside=True)
    found: list[Path] = []
    aside = aside if aside is not None else Aside()
    aside.left_out.update(tree.left_out)
    aside.unreadable += [(p.path, f"{p.reason}: {p.detail}") for p in tree.problems]
    for home, names in tree.folders:
        for name in names:
            if wanted(Path(name)):
                found.append(home / name)
            elif ending(name) not in COMPANIONS:
                aside.left_out[ending(name)] += 1
    return sorted(found, key=lambda path: natural(path.relative_to(folder).as_posix()))


def instead(aside: Aside) -> str:
    """What a folder without a wanted file holds instead."""
    from catalog.walk import shown_endings

    reached = f" that can be reached ({aside.unreadable[0][1]})" if aside.unreadable else ""
    return reached + (f"; {shown_endings(aside.left_out)} left out" if aside.left_out else "")


def spoken(path: Path) -> list[Sentence]:
    """What the captions beside an audio file say; [] where there are none, or none that can be read."""
    from catalog.encoding import decode_text

    for beside in (path.with_suffix(".vtt"), path.with_suffix(".srt"), Path(f"{path}.vtt"), Path(f"{path}.srt")):
        try:
            if beside.is_file() and beside.stat().st_size <= MAX_CAPTIONS_BYTES:
                return captions(decode_text(beside.read_bytes()))
        except OSError:
            continue
        except Exception as error:  # captions of another kind say nothing; the episode is marked by its sound
            if is_fatal(error):
                raise
    return []


def _host_read(said: dict[int, list[Sentence]]) -> dict[int, list[Marker]]:
    if not said:
        return {}
    from embedders.registry import load_profile
    from pipelines.skip_words import host_read_ads

    model = load_profile("bundled", device="cpu", options={}).text
    found: dict[int, list[Marker]] = {}
    for number, own in said.items():
        try:
            found[number] = host_read_ads(model, own)
        except Exception as error:  # the episode is marked by its sound
            if is_fatal(error):
                raise
    return found


def _show(path: Path, folder: Path) -> str:
    parent = path.parent.relative_to(folder).as_posix()
    return folder.name if parent == "." else parent


def _hear_all(
    files: list[Path], scratch: Path, workers: int, limits: MediaLimits, accept_truncated: bool, told: Told
) -> tuple[list[_Heard], list[tuple[Path, str]]]:
    """Decodes every file once, side by side."""
    heard: list[_Heard] = []
    failures: list[tuple[Path, str]] = []
    told("listen", 0, len(files))
    with pool_of(workers) as pool:
        for (_, path), result in pool.each(
            lambda item: _hear(item[1], scratch / f"{item[0]}.npy", limits, accept_truncated), enumerate(files)
        ):
            if isinstance(result, _Heard):
                heard.append(result)
            elif isinstance(result, OSError) and Path(str(result.filename)).is_relative_to(scratch):
                raise result  # the scratch folder is no file of the catalogue
            else:
                failures.append((path, ": ".join(reason_of(result))))
            told("listen", 1, 0)
    return heard, failures


def _hear(path: Path, frames_path: Path, limits: MediaLimits, accept_truncated: bool) -> _Heard:
    from catalog.identity import sha256_of
    from catalog.isolated import decode_audio
    from embedders.fingerprint import frames
    from skips.silence import silences

    audio = decode_audio(path, limits, accept_truncated=accept_truncated)
    found = frames(audio.samples)
    np.save(frames_path, found, allow_pickle=False)
    silent = silences(found, audio.samples)
    return _Heard(path, sha256_of(path), audio.duration_s, frames_path, silent, audio.truncated)
