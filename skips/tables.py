"""What is known of a catalogue's repeats as tables and bytes, and back."""

from __future__ import annotations

import io
from collections import defaultdict
from dataclasses import asdict

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skips.detect import Recording
from skips.frames import Line, Sound
from skips.motifs import Motif, Occurrence
from skips.patch_index import PatchIndex

RECORDINGS = pa.schema(
    [
        pa.field("number", pa.int32(), nullable=False),
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("audio_sha256", pa.string(), nullable=False),
        pa.field("duration_s", pa.float64(), nullable=False),
        pa.field("show", pa.string(), nullable=False),
        pa.field("order", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
    ]
)
MOTIFS = pa.schema(
    [
        pa.field("motif_id", pa.string(), nullable=False),
        pa.field("clip", pa.binary(), nullable=False),  # frames, uint8, row by row
        pa.field("bands", pa.int32(), nullable=False),
        pa.field("loud", pa.float64(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),  # frames of the clip
        pa.field("end", pa.float64(), nullable=False),
        pa.field("source", pa.int32(), nullable=False),  # number of the recording that the clip is from
        pa.field("settled", pa.int32(), nullable=False),
    ]
)
OCCURRENCES = pa.schema(
    [
        pa.field("motif_id", pa.string(), nullable=False),
        pa.field("recording", pa.int32(), nullable=False),
        *(
            pa.field(name, pa.float64(), nullable=False)
            for name in ("start", "end", "scale", "shift", "score", "sure", "part_start", "part_end")
        ),
    ]
)


def recordings_to_table(recordings: dict[int, Recording]) -> pa.Table:
    return pa.Table.from_pylist([asdict(r) for _, r in sorted(recordings.items())], schema=RECORDINGS)


def recordings_from_table(table: pa.Table) -> dict[int, Recording]:
    return {row["number"]: Recording(**row) for row in table.to_pylist()}


def motifs_to_tables(motifs: list[Motif]) -> tuple[pa.Table, pa.Table]:
    """Motifs and their occurrences."""
    rows = [
        {
            "motif_id": m.motif_id,
            "clip": m.clip.frames.tobytes(),
            "bands": m.clip.frames.shape[1],
            "loud": m.clip.loud,
            "start": m.start,
            "end": m.end,
            "source": m.source,
            "settled": m.settled,
        }
        for m in motifs
    ]
    heard = [
        {
            "motif_id": m.motif_id,
            "recording": o.recording,
            "start": o.start,
            "end": o.end,
            "scale": o.line.scale,
            "shift": o.line.shift,
            "score": o.score,
            "sure": o.sure,
            "part_start": o.part[0],
            "part_end": o.part[1],
        }
        for m in motifs
        for o in m.occurrences
    ]
    return pa.Table.from_pylist(rows, schema=MOTIFS), pa.Table.from_pylist(heard, schema=OCCURRENCES)


def motifs_from_tables(motifs: pa.Table, occurrences: pa.Table) -> list[Motif]:
    heard: dict[str, list[Occurrence]] = defaultdict(list)
    for o in occurrences.to_pylist():
        line, part = Line(o["scale"], o["shift"]), (o["part_start"], o["part_end"])
        heard[o["motif_id"]].append(Occurrence(o["recording"], o["start"], o["end"], line, o["score"], o["sure"], part))
    found = []
    for m in motifs.to_pylist():
        frames = np.frombuffer(m["clip"], np.uint8).reshape(-1, m["bands"])
        clip = Sound(frames, m["loud"])
        found.append(
            Motif(clip, m["start"], m["end"], m["source"], heard[m["motif_id"]], m["motif_id"], m.get("settled", 0))
        )
    return found


def part_to_bytes(part: PatchIndex) -> tuple[bytes, bytes]:
    """The FAISS index, and whose and when its rows are (Parquet)."""
    sink = io.BytesIO()
    rows = pa.table({"recording": pa.array(part.recording, pa.int32()), "frame": pa.array(part.frame, pa.int32())})
    pq.write_table(rows, sink, compression="zstd")
    return faiss.serialize_index(part.index).tobytes(), sink.getvalue()


def part_from_bytes(index: bytes, rows: bytes) -> PatchIndex:
    table = pq.read_table(io.BytesIO(rows), use_threads=False)
    found = faiss.deserialize_index(np.frombuffer(index, np.uint8))
    return PatchIndex(found, table["recording"].to_numpy().copy(), table["frame"].to_numpy().copy())
