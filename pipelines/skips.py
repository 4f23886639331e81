"""Skip markers over a store's catalogue: what is known of its repeats is kept in the store, a run adds what is new."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import StorageError
from core.features import SEGMENTS, SKIPS, SPEECH
from core.ids import Ids, id_list
from core.keys import REMOVED, work_key
from core.storage import read_json
from core.tables import Tables, decode, now_us, rows_to_table
from core.threads import one_algebra_thread
from pipelines.context import Run, newest_catalog
from pipelines.skip_catalog import Frames, alive, bearer, bearers, described, silences
from pipelines.skip_events import erase_events, keep_events, stored_events
from pipelines.skip_state import load, save

if TYPE_CHECKING:
    from pipelines.skip_folder import FolderSkips
    from skips.decide import Music
    from skips.detect import Detector, Known, Recording
    from skips.evidence import Agreement
    from skips.markers import MarkedEpisode

MARKER_FIELDS = ("kind", "start_s", "end_s", "confidence", "occurrences", "motif_id", "action", "source")


def step(run: Run) -> dict[str, Any]:
    """Takes in new and replaced audio, withdraws what is gone, and commits the markers that changed."""
    started = time.perf_counter()
    one_algebra_thread()
    detector, changes = _changes(run)
    if changes.gone:
        detector.remove(changes.gone)
    if changes.fresh:
        run.progress("skips", 0, len(changes.fresh))
        detector.add(changes.fresh, lambda done, total: run.progress("skips", done, 0))
    if changes.gone or changes.fresh or changes.moved:
        save(run.storage, detector.known)
    episodes, agreed = _decided(run, detector.known, bearers(run.tables))
    changed = _commit(run, episodes)
    summary = {
        "episodes": len(episodes),
        "markers": sum(len(e.markers) for e in episodes),
        "motifs": sum(bool(m.occurrences) for m in detector.known.motifs),
        "new": len(changes.fresh),
        "withdrawn": len(changes.gone),
        "changed": changed,
        "evidence": None if agreed is None else asdict(agreed),
        "seconds": time.perf_counter() - started,
    }
    run.write_json("skips.json", summary)
    return summary


@dataclass
class _Changes:
    """The numbers of recordings that are gone or replaced, the new ones, and whether any stands for another content, or
    for one that is said to be something else."""

    gone: set[int] = field(default_factory=set)
    fresh: list[Recording] = field(default_factory=list)
    moved: bool = False


def _changes(run: Run) -> tuple[Detector, _Changes]:
    """The detector as it was left, and what changed since. Episodes of the very same audio are one recording: copies
    would bear each other witness."""
    from embedders.fingerprint import patches
    from skips.detect import Detector, Recording

    known, found = load(run.storage), _Changes()
    about = described(run.tables)
    heard, bearing = alive(run.tables, about), bearers(run.tables)
    taken: set[str] = set()

    def sound(content_id: str) -> str:
        return content_id if about[content_id]["kind"] == "track" else heard[content_id]["audio_sha256"]

    for number, recording in list(known.recordings.items()):
        content_id = bearer(recording, bearing, heard)
        if content_id is None or sound(content_id) in taken:
            found.gone.add(number)
            continue
        taken.add(sound(content_id))
        known.recordings[number] = replace(recording, content_id=content_id, **about[content_id])
        found.moved |= known.recordings[number] != recording
    for content_id in (c for c in about if c in heard):
        if sound(content_id) not in taken:
            taken.add(sound(content_id))
            number = known.next_number + len(found.fresh)
            own = heard[content_id]
            found.fresh.append(
                Recording(number, content_id, own["audio_sha256"], own["duration_s"], **about[content_id])
            )
    frames = Frames(run.tables, known)
    frames.ids |= {recording.number: recording.content_id for recording in found.fresh}
    return Detector(frames, patches, known), found


def _decided(
    run: Run, known: Known, bearing: Mapping[str, Sequence[str]]
) -> tuple[list[MarkedEpisode], Agreement | None]:
    """All episodes with their markers, weighed by what listeners did where the store has their events; and how well
    confidence foretells events that were left out."""
    from pipelines.skip_words import said
    from skips.decide import decide
    from skips.evidence import agreement, weighed
    from skips.markers import MarkedEpisode

    spoken = said(run)
    markers = decide(known, silences(run.tables, known), spoken.cues, _music(run.tables), spoken.host_read(known))
    episodes = []
    for number, found in markers.items():
        recording = known.recordings[number]
        for content_id in bearing.get(recording.audio_sha256, ()):
            bound = recording.audio_sha256, recording.duration_s, tuple(found)
            episodes.append(MarkedEpisode(content_id, "", *bound))
    events = stored_events(run.storage)
    if events is None:
        return episodes, None
    return weighed(episodes, events), agreement(episodes, events)


def add_events(run: Run, events: pa.Table) -> dict[str, Any]:
    """Keeps a table of player events and weighs the markers by it; online they change with the next run. Events that
    the store has already change nothing. Call it under the writer's lease. Raises `CatalogError` as
    `skips.events.checked` does."""
    keep_events(run.storage, events)
    known = load(run.storage)
    episodes, agreed = _decided(run, known, bearers(run.tables))
    changed = _commit(run, episodes) if known.recordings else 0  # else the next run finds everything anew
    return {"changed": changed, "evidence": None if agreed is None else asdict(agreed)}


def _music(tables: Tables) -> Music:
    """Tells the share of music in a span, from the segments that the speech stage found."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    latest = tables.latest(SPEECH, [])
    keys = dict(zip(latest["content_id"].to_pylist(), latest[WORK_KEY].to_pylist(), strict=True))
    for row in tables.read(SEGMENTS, ["content_id", "start_s", "end_s", "label", WORK_KEY]).to_pylist():
        if row["label"] == "music" and keys.get(row["content_id"]) == row[WORK_KEY]:
            spans[row["content_id"]].append((row["start_s"], row["end_s"]))

    def share(recording: Recording, start_s: float, end_s: float) -> float | None:
        if keys.get(recording.content_id, REMOVED) == REMOVED:
            return None
        common = sum(max(0.0, min(e, end_s) - max(s, start_s)) for s, e in spans.get(recording.content_id, ()))
        return min(1.0, common / max(end_s - start_s, 1e-3))

    return share


def _commit(run: Run, episodes: Sequence[MarkedEpisode]) -> int:
    """Commits the rows of episodes whose markers are others than those in the store; returns how many."""
    latest = run.tables.latest(SKIPS, [])
    keys = dict(zip(latest["content_id"].to_pylist(), latest[WORK_KEY].to_pylist(), strict=True))
    created = now_us()
    rows = []
    for episode in episodes:
        features = {
            "audio_sha256": episode.audio_sha256,
            "audio_duration_s": episode.duration_s,
            "algorithm": episode.algorithm,
            **{f"marker_{name}": [getattr(m, name) for m in episode.markers] for name in MARKER_FIELDS},
        }
        key = work_key("skips", 1, episode.algorithm, {name: _rounded(value) for name, value in features.items()})
        if keys.get(episode.content_id) != key:
            stamp = {EVENT: created, CREATED: created, WORK_KEY: key}
            rows.append({"content_id": episode.content_id, **features, **stamp})
    current = {episode.content_id for episode in episodes}
    # What was removed, or names no audio any more. Of audio that cannot be read the old markers stay, bound to the old.
    empty = {EVENT: created, CREATED: created, WORK_KEY: REMOVED}
    rows += [{"content_id": c, **empty} for c, key in keys.items() if c not in current and key != REMOVED]
    if rows:
        run.tables.commit(SKIPS, rows_to_table(SKIPS, rows), created, "skips")
    return len(rows)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 3) if isinstance(value, float) else value


def stored_skips(run: Run, *, music: bool = False, curves: bool = False) -> FolderSkips:
    """The markers of the store's episodes as they were last found; with `music`, what repeats in and over its tracks;
    with `curves`, the likeness under the pictures."""
    from embedders.fingerprint import patches
    from pipelines.skip_folder import FolderSkips
    from skips.decide import repeats
    from skips.detect import Detector
    from skips.markers import MarkedEpisode, Marker
    from skips.similarity import similarity

    columns = [f"marker_{name}" for name in MARKER_FIELDS]
    rows = run.tables.latest(SKIPS, ["audio_sha256", "audio_duration_s", "algorithm", *columns]).to_pylist()
    about, paths = described(run.tables), _paths(run)
    place = {content_id: number for number, content_id in enumerate(about)}
    episodes = []
    for row in sorted(rows, key=lambda row: place.get(row["content_id"], len(place))):
        if row[WORK_KEY] == REMOVED:
            continue
        content_id = row["content_id"]
        own = about.get(content_id, {})
        markers = tuple(Marker(*values) for values in zip(*(row[name] for name in columns), strict=True))
        episodes.append(
            MarkedEpisode(
                content_id,
                paths.get(content_id, content_id),
                row["audio_sha256"],
                row["audio_duration_s"],
                markers,
                own.get("show", ""),
                own.get("title", ""),
                row["algorithm"],
            )
        )
    found = FolderSkips(episodes, [])
    if not (music or curves):
        return found
    known = load(run.storage)
    if music:
        found.repeats = repeats(known)
    if curves:
        detector = Detector(Frames(run.tables, known), patches, known)
        bearing = bearers(run.tables)
        for number, recording in known.recordings.items():
            curve = similarity(detector, number)
            found.similarities |= dict.fromkeys(bearing.get(recording.audio_sha256, ()), curve)
    return found


def _paths(run: Run) -> dict[str, str]:
    """Audio files by content, as the newest run had them; a URI stays one."""
    folder = newest_catalog(run.storage)
    try:
        source = Path(read_json(run.storage, f"{folder}/run.json")["source"])
        rows = decode(run.storage.read(f"{folder}/catalog.parquet"), ["content_id", "audio_uri"]).to_pylist()
    except (FileNotFoundError, KeyError, StorageError):
        return {}
    root = source if source.is_dir() else source.parent
    return {r["content_id"]: _located(root, r["audio_uri"]) for r in rows if r["audio_uri"]}


def _located(root: Path, uri: str) -> str:
    return uri if "://" in uri else str(root / uri)


def forget(run: Run, content_ids: Ids, erase: bool = False) -> None:
    """Withdraws the support of removed contents at once. With `erase` their sound goes as well, and what listeners did
    to them: the clips of motifs are taken from other occurrences, and a motif that has none is forgotten."""
    from embedders.fingerprint import patches
    from skips.detect import Detector
    from skips.motifs import clipped_anew

    ids = set(id_list(content_ids))
    known, bearing = load(run.storage), bearers(run.tables, without=ids)
    gone: set[int] = set()
    moved = False
    for number, recording in list(known.recordings.items()):
        if recording.content_id in ids:
            others = bearing.get(recording.audio_sha256, ())
            if others and recording.kind != "track":
                known.recordings[number] = replace(recording, content_id=others[0])
                moved = True
            else:
                gone.add(number)
    detector = Detector(Frames(run.tables, known), patches, known)
    if gone:
        detector.remove(gone)
    if erase:
        erase_events(run.storage, ids)
        alive = set(known.recordings)
        kept = []
        for motif in known.motifs:
            if motif.source in alive or clipped_anew(motif, detector.sounds):
                kept.append(motif)
        known.motifs[:] = kept
        detector.rebuild()
    if gone or moved or erase:
        save(run.storage, known)
        if known.recordings:  # else the next run finds everything anew
            _commit(run, _decided(run, known, bearing)[0])
