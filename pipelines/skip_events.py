"""What listeners did, as a store keeps it: a file a table that it was given."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from core.ids import Ids, id_list
from core.storage import Storage
from core.tables import decode, encode

FOLDER = "evidence"


def stored_events(storage: Storage) -> pa.Table | None:
    """The player events that the store has been given; None where it has none."""
    parts = [decode(storage.read(entry.path)) for entry in storage.entries(FOLDER)]
    return pa.concat_tables(parts) if parts else None


def keep_events(storage: Storage, events: pa.Table) -> None:
    """Keeps those of a table's events that the store does not have yet. Raises `CatalogError` as `skips.events.checked`
    does."""
    from skips.events import beyond, checked

    events, held = checked(events), stored_events(storage)
    fresh = events if held is None else beyond(events, held)
    if len(fresh):
        data, before = encode(fresh), 0 if held is None else len(held)
        # The same rows may be new twice: each file has a name of its own.
        name = hashlib.sha256(f"{before} ".encode() + data).hexdigest()[:16]
        storage.write(f"{FOLDER}/{name}.parquet", data)


def erase_events(storage: Storage, content_ids: Ids) -> None:
    """Erases what listeners did to some contents."""
    ids = pa.array(sorted(id_list(content_ids)), pa.string())
    for entry in storage.entries(FOLDER):
        events = decode(storage.read(entry.path))
        theirs = pc.is_in(events["content_id"], value_set=ids)
        if not pc.any(theirs).as_py():
            continue
        if pc.all(theirs).as_py():
            storage.delete(entry.path)
        else:
            storage.write(entry.path, encode(events.filter(pc.invert(theirs))))
