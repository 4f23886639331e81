"""Loading a published version: its checksums first, its files mapped and not read, whatever format wrote them."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import IndexUnavailable
from core.tables import decode
from index.manifest import Manifest
from index.parameters import concrete, part

INDEX_FILE, IDS_FILE = "index.faiss", "ids.parquet"
METADATA_FILE, REMOVED_FILE = "metadata.parquet", "removed.parquet"
BLOCK_ROWS = 16_384
_mapping = threading.Lock()


@dataclass(frozen=True)
class Loaded:
    """A version in memory: row i of `ids` (id, content_id, window) is what the FAISS index calls i."""

    manifest: Manifest
    faiss_index: Any
    ids: pa.Table

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """What the index holds of some rows, float32 (rows, dim): decoded from its codes, so as near to what went in as
        these are."""
        if not rows.size:
            return np.empty((0, self.manifest.dim), np.float32)
        ivf = part(self.faiss_index, "IndexIVF")
        if ivf is not None and part(self.faiss_index, "IndexRefine") is None and ivf.direct_map.no():
            with _mapping:
                ivf.make_direct_map()
        found: np.ndarray = self.faiss_index.reconstruct_batch(np.ascontiguousarray(rows, np.int64))
        return found


def load(folder: Path, manifest: Manifest) -> Loaded:
    """The version of a manifest. Raises `IndexUnavailable` where a file is damaged."""
    import faiss

    home = folder / manifest.name / manifest.version
    where = f"the index {manifest.name} version {manifest.version}"
    if not intact(folder, manifest):
        raise IndexUnavailable(f"a file of {where} is damaged; publish it again")
    try:
        index = faiss.read_index(str(home / INDEX_FILE), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
        ids = decode((home / IDS_FILE).read_bytes())
    except (RuntimeError, OSError, pa.ArrowException) as error:
        raise IndexUnavailable(f"{where} cannot be read: {error}") from error
    if manifest.format == 1:
        index, ids = _unmapped(index, ids)
    if (index.ntotal, index.d) != (ids.num_rows, manifest.dim) or ids.num_rows != manifest.count:
        raise IndexUnavailable(
            f"{where} does not fit together: {index.ntotal} vectors of {index.d} dimensions, {ids.num_rows} ids, and a "
            f"manifest of {manifest.count} and {manifest.dim}"
        )
    return Loaded(manifest, index, ids)


def load_metadata(folder: Path, manifest: Manifest) -> pa.Table | None:
    """What contents may be filtered by, None where nothing was published with them. The checksum is `load`'s work."""
    path = folder / manifest.name / manifest.version / METADATA_FILE
    return decode(path.read_bytes()) if METADATA_FILE in manifest.files else None


def _unmapped(index: Any, ids: pa.Table) -> tuple[Any, pa.Table]:
    """Format 1: an `IndexIDMap2` over the index, whose map says which id a row is."""
    import faiss

    found = concrete(index)
    numbers = faiss.vector_to_array(found.id_map)
    order = np.argsort(ids["id"].to_numpy())
    rows = order[np.searchsorted(ids["id"].to_numpy()[order], numbers)]
    inner = faiss.clone_index(found.index)  # the map owns what it maps
    return inner, ids.take(rows)


def intact(folder: Path, manifest: Manifest) -> bool:
    """Whether every file of the version has the checksum of its manifest."""
    home = folder / manifest.name / manifest.version
    return all((home / file).is_file() and sha256(home / file) == want for file, want in manifest.files.items())


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
