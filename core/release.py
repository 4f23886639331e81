"""The release: the small file that names the models, views and index versions of a store that readers use."""

from __future__ import annotations

import json
from typing import Any

from core.errors import StorageError
from core.location import RELEASE
from core.storage import Storage

RELEASE_FORMAT = 1


def read_release(storage: Storage) -> dict[str, Any] | None:
    """The store's active release; None before the first. Raises `StorageError` for a damaged or foreign file."""
    try:
        data = storage.read(RELEASE)
    except FileNotFoundError:
        return None
    return parse_release(data, storage.uri)


def parse_release(data: bytes, uri: str) -> dict[str, Any]:
    """The release in the file `release.json` of the store at `uri`. Raises `StorageError`."""
    try:
        release = json.loads(data)
        whole = (
            all(isinstance(release[part], dict) for part in ("models", "indexes"))
            and all({"model_id", "dim"} <= model.keys() for model in release["models"].values())
            and all({"name", "version"} <= index.keys() for index in release["indexes"].values())
            and isinstance(release.get("format", RELEASE_FORMAT), int)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise StorageError(
            f"{RELEASE} in {uri} is damaged, or not a file of Earmark's. If this is a store, move that file away and "
            "run earmark on its catalogue: what is enriched stays, and the release is written again"
        )
    if release.get("format", RELEASE_FORMAT) > RELEASE_FORMAT:
        raise StorageError(
            f"the store {uri} was released by a newer version of Earmark (format {release['format']}, this version "
            f"reads {RELEASE_FORMAT}): use that version"
        )
    found: dict[str, Any] = release
    return found
