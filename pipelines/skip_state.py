"""What a store knows of its repeats, as files that a pointer names: whoever reads finds one state, whole."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.storage import Storage, read_json
from core.tables import encode, read_table

if TYPE_CHECKING:
    from skips.detect import Known
    from skips.patch_index import PatchIndex

FOLDER = "skips"
CURRENT = f"{FOLDER}/current.json"
SAID = f"{FOLDER}/said.parquet"  # pipelines.skip_words
STATE_VERSION = (
    2  # raised when what is kept can no longer be read, or was found by other rules; then everything is found anew
)


def save(storage: Storage, known: Known) -> None:
    """Writes everything anew but unchanged index parts, and points at it; what nothing points at goes afterwards."""
    from embedders.fingerprint import FINGERPRINT_ID
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
    pointer = {
        "version": STATE_VERSION,
        "fingerprint": FINGERPRINT_ID,
        "next_number": known.next_number,
        "banked": known.banked,
        **files,
    }
    storage.write(CURRENT, json.dumps(pointer, indent=1).encode())
    held = {CURRENT, SAID, *(files[name] for name, _ in tables), *(path for part in indexes for path in part.stored)}
    for entry in storage.entries(FOLDER):
        if entry.path not in held:
            storage.delete(entry.path)


def load(storage: Storage) -> Known:
    """What is known of the store's repeats; nothing, before the first run and after a change of format or fingerprint.
    Another process may write it anew meanwhile."""
    from skips.detect import Known

    pointer = _pointer(storage)
    while pointer is not None:
        try:
            return _known(storage, pointer)
        except FileNotFoundError:
            newer = _pointer(storage)
            if newer == pointer:
                raise
            pointer = newer
    return Known()


def _pointer(storage: Storage) -> dict[str, Any] | None:
    try:
        return dict(read_json(storage, CURRENT))
    except FileNotFoundError:
        return None


def _known(storage: Storage, pointer: dict[str, Any]) -> Known:
    from embedders.fingerprint import FINGERPRINT_ID
    from skips.detect import Known
    from skips.tables import motifs_from_tables, part_from_bytes, recordings_from_table

    if pointer["version"] != STATE_VERSION or pointer["fingerprint"] != FINGERPRINT_ID:
        return Known(next_number=pointer["next_number"])
    recordings, motifs, occurrences = (read_table(storage, pointer[n]) for n in ("recordings", "motifs", "occurrences"))

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
