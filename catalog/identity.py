"""Which version of a file is this: by size and time, by its bytes, and by its sound alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from catalog.cache import FileCache, FileIdentity
from catalog.isolated import media_hash
from catalog.sources import Resolver, split_cover
from core.errors import BadItem
from core.items import pool_of, reason_of

__all__ = ["FileCache", "FileIdentity", "identify", "media_hash", "sha256_of"]

HASH_THREADS = 4


def identify(
    uris: Iterable[str],
    resolver: Resolver,
    cache: FileCache | None = None,
    verify: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, FileIdentity | BadItem]:
    """The identity of every URI, or the `BadItem` that says why it has none; in the order given, each URI once.

    A file whose size and modification time are those in `cache` is not opened, unless `verify` asks to hash it again.
    What is learnt goes into `cache`. `progress` is called with (done, total).
    """
    wanted = list(dict.fromkeys(uris))
    cache = cache if cache is not None else FileCache()
    found: dict[str, FileIdentity | BadItem] = {}

    def one(uri: str) -> FileIdentity | BadItem:
        try:
            return _identity(uri, resolver, cache, verify)
        except BadItem as error:
            return error

    # SHA-256 and BLAKE3 release the interpreter lock.
    with pool_of(HASH_THREADS) as pool:
        for done, (uri, result) in enumerate(pool.each(one, wanted), 1):
            found[uri] = BadItem(*reason_of(result)) if isinstance(result, Exception) else result
            if progress is not None:
                progress(done, len(wanted))
    return found


def _identity(uri: str, resolver: Resolver, cache: FileCache, verify: bool) -> FileIdentity:
    status = resolver.stat(uri)
    name = uri if "://" in uri else f"{resolver.root}/{uri}"  # two catalogues of one store may have files of one name
    if status is not None and not verify:
        known = cache.identity(name, *status)
        if known is not None:
            return known
    with resolver.open(uri) as path:
        digest = sha256_of(path)
        # A cover is its own bytes; its size and time are the audio file's, which is what a rerun can look up cheaply.
        media = digest if split_cover(uri)[1] else media_hash(path) or digest
        size, mtime_ns = status if status is not None else (path.stat().st_size, 0)
    identity = FileIdentity(size, mtime_ns, digest, media)
    if status is not None:
        cache.remember(name, identity)
    return identity


def sha256_of(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
