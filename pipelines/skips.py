"""Skip markers over a store's catalogue: what is known of its repeats is kept in the store, a run adds what is new."""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.contracts import CREATED, EVENT, WORK_KEY
from core.features import CONTENT, FINGERPRINT, SEGMENTS, SKIPS, SPEECH
from core.keys import REMOVED, work_key
from core.storage import Storage
from core.tables import Tables, decode, encode, now_us, read_beside, rows_to_table
from core.threads import one_algebra_thread
from pipelines.context import Run, newest_catalog

if TYPE_CHECKING:
    import numpy as np

    from pipelines.skip_folder import FolderSkips
    from skips.decide import Music
    from skips.detect import Detector, Known, Recording
    from skips.evidence import Agreement
    from skips.markers import Marker
    from skips.patch_index import PatchIndex

FOLDER = "skips"
CURRENT = f"{FOLDER}/current.json"
EVENTS = "evidence"  # folder of player events
SAID = f"{FOLDER}/said.parquet"  # pipelines.skip_words
STATE_VERSION = 1  # raised when what is kept can no longer be read; then everything is found anew
MARKER_FIELDS = ("kind", "start_s", "end_s", "confidence", "occurrences", "motif_id", "action", "source")


def step(run: Run) -> dict[str, Any]:
    """Takes in new and replaced audio, withdraws what is gone, and commits the markers that changed."""
    started = time.perf_counter()
    one_algebra_thread()
    detector, gone, fresh = _changes(run)
    if gone:
        detector.remove(gone)
    if fresh:
        run.progress("skips", 0, len(fresh))
        detector.add(fresh, lambda done, total: run.progress("skips", done, 0))
    if gone or fresh:
        save(run.storage, detector.known)
    markers, agreed = _decided(run, detector.known)
    changed = _commit(run, detector.known, markers)
    summary = {
        "episodes": len(markers),
        "markers": sum(map(len, markers.values())),
        "motifs": sum(bool(m.occurrences) for m in detector.known.motifs),
        "new": len(fresh),
        "withdrawn": len(gone),
        "changed": changed,
        "evidence": None if agreed is None else asdict(agreed),
        "seconds": time.perf_counter() - started,
    }
    run.write_json("skips.json", summary)
    return summary


def _changes(run: Run) -> tuple[Detector, set[int], list[Recording]]:
    """The detector as it was left, the numbers of recordings that are gone or replaced, and the new ones."""
    from embedders.fingerprint import patches
    from skips.detect import Detector, Recording

    known = load(run.storage)
    described = _described(run.tables)
    heard = run.tables.latest(FINGERPRINT, ["audio_sha256", "duration_s"]).to_pylist()
    alive = {row["content_id"]: row for row in heard if row[WORK_KEY] != REMOVED and row["content_id"] in described}
    gone: set[int] = set()
    present: set[str] = set()
    for number, recording in list(known.recordings.items()):
        row = alive.get(recording.content_id)
        if row is None or row["audio_sha256"] != recording.audio_sha256:
            gone.add(number)
            continue
        present.add(recording.content_id)
        known.recordings[number] = replace(recording, **described[recording.content_id])
    number = known.next_number
    fresh = []
    for content_id in sorted(set(alive) - present, key=lambda c: (described[c]["show"], described[c]["order"])):
        row = alive[content_id]
        about = described[content_id]
        fresh.append(Recording(number, content_id, row["audio_sha256"], row["duration_s"], **about))
        number += 1
    frames = Frames(run.tables, known)
    for recording in fresh:
        frames.ids[recording.number] = recording.content_id
    return Detector(frames, patches, known), gone, fresh


def _described(tables: Tables) -> dict[str, dict[str, Any]]:
    """Show, order in it, title and kind of every content that is not removed."""
    rows = tables.latest(CONTENT, ["kind", "title", "show_id", "published_at"]).to_pylist()
    rows = [row for row in rows if row[WORK_KEY] != REMOVED]
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

        rows = read_fingerprint(self.tables, [self.ids[number]], ["frames", "frame_count"]).to_pylist()
        return np.frombuffer(zlib.decompress(rows[0]["frames"]), np.uint8).reshape(rows[0]["frame_count"], -1)


def read_fingerprint(tables: Tables, content_ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """The latest fingerprint rows of some contents; only their row groups are read."""
    return read_beside(tables, FINGERPRINT, content_ids, columns)


def _silences(tables: Tables, known: Known) -> dict[int, list[tuple[float, float, bool]]]:
    columns = ["silence_start_s", "silence_end_s", "silence_steady"]
    rows = {row["content_id"]: row for row in tables.latest(FINGERPRINT, columns).to_pylist()}
    found = {}
    for number, recording in known.recordings.items():
        row = rows[recording.content_id]
        found[number] = list(zip(*(row[name] or [] for name in columns), strict=True))
    return found


def _decided(run: Run, known: Known) -> tuple[dict[int, Sequence[Marker]], Agreement | None]:
    """The markers of all episodes, weighed by what listeners did where the store has their events; and how well
    confidence foretells events that were left out."""
    from pipelines.skip_words import said
    from skips.decide import decide
    from skips.evidence import agreement, weighed
    from skips.markers import MarkedEpisode

    spoken = said(run)
    silent = _silences(run.tables, known)
    markers = decide(known, silent, spoken.cues, _music(run.tables), spoken.host_read(known))
    events = stored_events(run.storage)
    if events is None:
        return dict(markers), None
    about = known.recordings
    episodes = [
        MarkedEpisode(about[n].content_id, "", about[n].audio_sha256, about[n].duration_s, tuple(found))
        for n, found in markers.items()
    ]
    counted = weighed(episodes, events)
    return {n: e.markers for n, e in zip(markers, counted, strict=True)}, agreement(episodes, events)


def stored_events(storage: Storage) -> pa.Table | None:
    """The player events that the store has been given; None where it has none."""
    parts = [decode(storage.read(entry.path)) for entry in storage.entries(EVENTS)]
    return pa.concat_tables(parts) if parts else None


def add_events(run: Run, events: pa.Table) -> dict[str, Any]:
    """Keeps a table of player events and weighs the markers by it; online they change with the next run. The same
    table again changes nothing. Raises `CatalogError` as `skips.evidence.checked` does."""
    from skips.evidence import checked

    data = encode(checked(events))
    run.storage.write(f"{EVENTS}/{hashlib.sha256(data).hexdigest()[:16]}.parquet", data)
    known = load(run.storage)
    markers, agreed = _decided(run, known)
    changed = _commit(run, known, markers)
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


def _commit(run: Run, known: Known, markers: Mapping[int, Sequence[Marker]]) -> int:
    """Commits the rows of episodes whose markers are others than those in the store; returns how many."""
    from skips.markers import ALGORITHM

    latest = run.tables.latest(SKIPS, [])
    keys = dict(zip(latest["content_id"].to_pylist(), latest[WORK_KEY].to_pylist(), strict=True))
    created = now_us()
    rows, current = [], set()
    for number, found in markers.items():
        recording = known.recordings[number]
        current.add(recording.content_id)
        features = {
            "audio_sha256": recording.audio_sha256,
            "audio_duration_s": recording.duration_s,
            "algorithm": ALGORITHM,
            **{f"marker_{name}": [getattr(m, name) for m in found] for name in MARKER_FIELDS},
        }
        key = work_key("skips", 1, ALGORITHM, {name: _rounded(value) for name, value in features.items()})
        if keys.get(recording.content_id) != key:
            stamp = {EVENT: created, CREATED: created, WORK_KEY: key}
            rows.append({"content_id": recording.content_id, **features, **stamp})
    # Of audio that can no longer be read, nothing is known.
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
    about = {row["content_id"]: row for row in run.tables.latest(CONTENT, ["title", "show_id"]).to_pylist()}
    paths = _paths(run)
    episodes = []
    for row in rows:
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
                own.get("show_id") or "",
                own.get("title") or "",
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
        found.similarities = {r.content_id: similarity(detector, n) for n, r in known.recordings.items()}
    return found


def _paths(run: Run) -> dict[str, str]:
    """Audio files by content, as the newest run had them; a URI stays one."""
    folder = newest_catalog(run.storage)
    try:
        source = Path(json.loads(run.storage.read(f"{folder}/run.json"))["source"])
        rows = decode(run.storage.read(f"{folder}/catalog.parquet"), ["content_id", "audio_uri"]).to_pylist()
    except (FileNotFoundError, KeyError):
        return {}
    root = source if source.is_dir() else source.parent
    return {r["content_id"]: _located(root, r["audio_uri"]) for r in rows if r["audio_uri"]}


def _located(root: Path, uri: str) -> str:
    return uri if "://" in uri else str(root / uri)


def forget(run: Run, content_ids: Iterable[str], erase: bool = False) -> None:
    """Withdraws the support of removed contents at once. With `erase` their sound goes as well: the clips of motifs
    are taken from other occurrences, and a motif that has none is forgotten."""
    known = load(run.storage)
    gone = {n for n, r in known.recordings.items() if r.content_id in set(content_ids)}
    ids = {n: r.content_id for n, r in known.recordings.items()}
    from embedders.fingerprint import patches
    from skips.detect import Detector
    from skips.motifs import clipped_anew

    frames = Frames(run.tables, known)
    frames.ids = ids
    detector = Detector(frames, patches, known)
    if gone:
        detector.remove(gone)
    if erase:
        alive = set(known.recordings)
        kept = []
        for motif in known.motifs:
            if motif.source in alive or clipped_anew(motif, detector.sounds):
                kept.append(motif)
        known.motifs[:] = kept
        detector.rebuild()
    if gone or erase:
        save(run.storage, known)
        _commit(run, known, _decided(run, known)[0])


def save(storage: Storage, known: Known) -> None:
    """Writes everything anew but unchanged index parts, and points at it; what nothing points at goes afterwards."""
    from skips.tables import motifs_to_tables, part_to_bytes, recordings_to_table

    stamp = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    files: dict[str, Any] = {}
    motifs, occurrences = motifs_to_tables(known.motifs)
    tables = (("recordings", recordings_to_table(known.recordings)), ("motifs", motifs), ("occurrences", occurrences))
    for name, table in tables:
        files[name] = f"{FOLDER}/{stamp}-{name}.parquet"
        storage.write(files[name], encode(table))
    indexes = [*known.parts, *([known.bank] if known.bank is not None else [])]
    for number, part in enumerate(indexes):
        if not part.stored:
            part.stored = (f"{FOLDER}/{stamp}-{number}.faiss", f"{FOLDER}/{stamp}-{number}-rows.parquet")
            for path, data in zip(part.stored, part_to_bytes(part), strict=True):
                storage.write(path, data)
    files["parts"] = [list(part.stored) for part in known.parts]
    files["bank"] = None if known.bank is None else list(known.bank.stored)
    pointer = {"version": STATE_VERSION, "next_number": known.next_number, "banked": known.banked, **files}
    storage.write(CURRENT, json.dumps(pointer, indent=1).encode())
    held = {CURRENT, SAID, *(files[name] for name, _ in tables), *(path for part in indexes for path in part.stored)}
    for entry in storage.entries(FOLDER):
        if entry.path not in held:
            storage.delete(entry.path)


def load(storage: Storage) -> Known:
    """What is known of the store's repeats; nothing, before the first run and after a change of format."""
    from skips.detect import Known
    from skips.tables import motifs_from_tables, part_from_bytes, recordings_from_table

    try:
        pointer = json.loads(storage.read(CURRENT))
    except FileNotFoundError:
        return Known()
    if pointer["version"] != STATE_VERSION:
        return Known(next_number=pointer["next_number"])
    recordings, motifs, occurrences = (
        decode(storage.read(pointer[n])) for n in ("recordings", "motifs", "occurrences")
    )

    def stored(paths: Sequence[str]) -> PatchIndex:
        part = part_from_bytes(*(storage.read(path) for path in paths))
        part.stored = tuple(paths)
        return part

    return Known(
        recordings_from_table(recordings),
        motifs_from_tables(motifs, occurrences),
        [stored(pair) for pair in pointer["parts"]],
        pointer["next_number"],
        stored(pointer["bank"]) if pointer.get("bank") else None,
        pointer.get("banked", 0),
    )
