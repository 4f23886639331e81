"""Loading a published version: its checksums first, its files mapped and not read, whatever format wrote them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import IndexUnavailable
from core.tables import decode
from index.gpu import on_device
from index.manifest import Manifest
from index.members import CONTENTS_FILE, ROWS_FILE, Members, mapped
from index.parameters import concrete, part, read_index
from index.places import version_home
from index.vectors import Span, Vectors

INDEX_FILE, METADATA_FILE, REMOVED_FILE = "index.faiss", "metadata.arrow", "removed.parquet"
IDS_FILE, OLD_METADATA_FILE = "ids.parquet", "metadata.parquet"  # of formats before 3
NUMBER = "__content"  # the column of the metadata that numbers contents
BLOCK_ROWS = 16_384
_mapping = threading.Lock()


@dataclass(frozen=True)
class Loaded:
    """A version in memory: row i of `members` is what the FAISS index calls i. Its vectors, decoded, are `Vectors`."""

    manifest: Manifest
    faiss_index: Any
    members: Members

    @property
    def count(self) -> int:
        return self.manifest.count

    @property
    def dim(self) -> int:
        return self.manifest.dim

    def take(self, rows: np.ndarray) -> np.ndarray:
        """What the index holds of some rows, float32 (rows, dim): decoded from its codes, so as near to what went in as
        these are."""
        if not rows.size:
            return np.empty((0, self.manifest.dim), np.float32)
        ivf = part(self.faiss_index, "IndexIVF")
        if ivf is not None and part(self.faiss_index, "IndexRefine") is None:
            with _mapping:  # FAISS says that there is a map before it is whole
                if ivf.direct_map.no():
                    ivf.make_direct_map()
        found: np.ndarray = self.faiss_index.reconstruct_batch(np.ascontiguousarray(rows, np.int64))
        return found

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        last = self.count if last is None else last
        for start in range(first, last, BLOCK_ROWS):
            yield start, self.take(np.arange(start, min(start + BLOCK_ROWS, last)))

    def part(self, first: int, last: int) -> Vectors:
        return Span(self, first, last)


def load(folder: Path, manifest: Manifest, device: str = "cpu") -> Loaded:
    """The version of a manifest, on the card for `device` "cuda" (and for "auto" where there is one). Raises
    `IndexUnavailable` where a file is damaged."""
    home = version_home(folder, manifest.name, manifest.version)
    where = f"the index {manifest.name} version {manifest.version}"
    if not intact(folder, manifest):
        raise IndexUnavailable(f"a file of {where} is damaged; publish it again")
    try:
        index = read_index(home / INDEX_FILE, mapped=True)
    except (RuntimeError, OSError) as error:
        raise IndexUnavailable(f"{where} cannot be read: {error}") from error
    members = _members(home, manifest)
    if manifest.format == 1:
        index, members = _unmapped(index, members)
    if (index.ntotal, index.d) != (len(members), manifest.dim) or len(members) != manifest.count:
        raise IndexUnavailable(
            f"{where} does not fit together: {index.ntotal} vectors of {index.d} dimensions, {len(members)} ids, and a "
            f"manifest of {manifest.count} and {manifest.dim}"
        )
    return Loaded(manifest, on_device(index, device), members)


def emptied(folder: Path, manifest: Manifest) -> Any:
    """The trained index of a version without its rows, to be added to: what is added again becomes the same bytes."""
    index = read_index(version_home(folder, manifest.name, manifest.version) / INDEX_FILE)
    if manifest.format == 1:
        index, _ = _unmapped(index, load_members(folder, manifest))
    index.reset()
    return index


def load_members(folder: Path, manifest: Manifest) -> Members:
    """Whose the rows of a version are, after their checksums. Raises `IndexUnavailable`."""
    home = version_home(folder, manifest.name, manifest.version)
    if not intact(folder, manifest, (IDS_FILE, ROWS_FILE, CONTENTS_FILE)):
        raise IndexUnavailable(f"the ids of the index {manifest.name} version {manifest.version} are damaged")
    return _members(home, manifest)


def _members(home: Path, manifest: Manifest) -> Members:
    try:
        if manifest.format >= 3:
            return Members.open(home)
        ids = decode((home / IDS_FILE).read_bytes())
        return Members.of(ids["content_id"], ids["window"].to_numpy(), ids["id"].to_numpy())
    except (OSError, KeyError, pa.ArrowException) as error:
        raise IndexUnavailable(f"the ids of the index {manifest.name} cannot be read: {error}") from error


def load_metadata(folder: Path, manifest: Manifest) -> pa.Table | None:
    """What contents may be filtered by, None where nothing was published with them: `align`ed to the contents of the
    version. The checksum is `load`'s work."""
    home = version_home(folder, manifest.name, manifest.version)
    if METADATA_FILE in manifest.files:
        return mapped(home / METADATA_FILE)
    if OLD_METADATA_FILE in manifest.files:
        return align(decode((home / OLD_METADATA_FILE).read_bytes()), _members(home, manifest).contents)
    return None


def align(metadata: pa.Table, contents: pa.Array) -> pa.Table:
    """The metadata of the contents that are in an index, in their order, their numbers in the column `NUMBER`; of a
    content that stands twice, the first."""
    given = metadata.drop_columns([NUMBER]) if NUMBER in metadata.column_names else metadata
    numbers = pc.index_in(given["content_id"].cast(contents.type), contents)
    given = given.append_column(NUMBER, numbers).filter(pc.is_valid(numbers))
    _, first = np.unique(np.asarray(given[NUMBER]), return_index=True)
    return given.take(pa.array(first))


def completed(metadata: pa.Table, contents: pa.Array) -> pa.Table:
    """Aligned metadata, with a row of nulls for each content without any, as for contents that were put live."""
    missing = np.setdiff1d(np.arange(len(contents)), np.asarray(metadata[NUMBER]))
    if not missing.size:
        return metadata
    own = {"content_id": contents.take(pa.array(missing)), NUMBER: pa.array(missing)}
    columns = [
        own[field.name].cast(field.type) if field.name in own else pa.nulls(missing.size, field.type)
        for field in metadata.schema
    ]
    return pa.concat_tables([metadata, pa.table(columns, schema=metadata.schema)])


def _unmapped(index: Any, members: Members) -> tuple[Any, Members]:
    """Format 1: an `IndexIDMap2` over the index, whose map says which id a row is."""
    import faiss

    found = concrete(index)
    numbers = faiss.vector_to_array(found.id_map)
    order = np.argsort(members.ids)
    rows = order[np.searchsorted(members.ids[order], numbers)]
    inner = faiss.clone_index(found.index)  # the map owns what it maps
    return inner, members.take(rows)


def intact(folder: Path, manifest: Manifest, only: Collection[str] | None = None) -> bool:
    """Whether every file of the version, or those named of them, has the checksum of its manifest."""
    home = version_home(folder, manifest.name, manifest.version)
    files = [(home / name, want) for name, want in manifest.files.items() if only is None or name in only]
    return all(path.is_file() and sha256(path) == want for path, want in files)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
