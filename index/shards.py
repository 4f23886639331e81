"""Building an index in shards: trained once on a sample, filled by processes of their own, merged.

Codes that only rank again lie in one file, where each process writes its own part: they are never in memory together.
What a killed build finished is found again by the next one of the same vectors.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError, EarmarkError, StorageError
from index.choice import Choice
from index.parameters import concrete, part, read_index
from index.vectors import BLOCK_ROWS, Vectors

ROWS_A_SHARD = 1_000_000
LEAST_ROWS = 50_000
LEAST_TRAINING_ROWS_A_LIST = 39  # of k-means: FAISS warns below
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sharding:
    """How an index larger than memory is built: by `processes` at once, within `memory_bytes` for all of them and what
    is merged, so shards are as large as that allows, of `rows` at most. `progress` is told rows done and rows in all.
    """

    processes: int = 2
    rows: int = ROWS_A_SHARD
    memory_bytes: float | None = None
    progress: Callable[[int, int], Any] | None = None

    def rows_a_shard(self, choice: Choice, count: int, dim: int) -> int:
        """Raises `ConfigError` where not even small shards fit beside what is merged."""
        most = min(self.rows, -(-count // self.processes))
        if self.memory_bytes is None:
            return most
        blocks = 3 * BLOCK_ROWS * dim * 4  # read, being added, being coded
        left = self.memory_bytes - count * choice.resident - self.processes * blocks
        rows = int(min(most, left / self.processes / choice.resident)) if left > 0 else 0
        if rows < min(LEAST_ROWS, count):
            least = count * choice.resident + self.processes * (blocks + LEAST_ROWS * choice.resident)
            raise ConfigError(
                f"index: building {choice.factory} of {count} vectors takes {least / 2**20:.0f} MiB, and "
                f"{self.memory_bytes / 2**20:.0f} MiB are allowed; fewer processes take less"
            )
        return rows

    def training_rows(self, wanted: int, lists: int, dim: int) -> int:
        """Raises `ConfigError` where too few vectors fit into the memory to train so many lists."""
        most = wanted if self.memory_bytes is None else min(wanted, int(self.memory_bytes / 3 / (4 * dim)))
        if most < min(wanted, LEAST_TRAINING_ROWS_A_LIST * lists):
            raise ConfigError(f"index: {lists} lists cannot be trained within {self.memory_bytes or 0:.0f} bytes")
        return most


def sharded(
    folder: Path, factory: str, rows: Vectors, sharding: Sharding, shard_rows: int, more: int, train: Callable[[], Any]
) -> Merged:
    """An index of `rows` on one that `train` gives, empty. What is not finished lies in `folder`, as large as the
    index. `more`: rows that may be added to it.

    Raises `EarmarkError` for a make that is no inverted lists, `StorageError` where a process dies or the disk is full.
    """

    home = folder / "".join(letter if letter.isalnum() else "-" for letter in factory)
    home.mkdir(parents=True, exist_ok=True)
    trained = home / "trained.faiss"
    if not trained.exists():
        empty = train()
        if part(empty, "IndexIVF") is None:
            raise EarmarkError(f"index: {factory} is not of lists; only these are built in shards")
        _write(empty, trained)
    bounds = list(range(0, rows.count, shard_rows)) + [rows.count]
    _allocate(home, _width(read_index(trained)), rows.count + more)
    todo = {n: (a, b) for n, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False)) if not _shard(home, n).exists()}
    done = rows.count - sum(b - a for a, b in todo.values())
    threads = max(1, (os.cpu_count() or 1) // sharding.processes)
    with ProcessPoolExecutor(sharding.processes, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(fill, home, n, a, rows.part(a, b), threads): b - a for n, (a, b) in todo.items()}
        try:
            for future in as_completed(futures):
                future.result()
                done += futures[future]
                if sharding.progress:
                    sharding.progress(done, rows.count)
        except BrokenProcessPool as error:
            raise StorageError("a process that builds a shard died, perhaps for want of memory") from error
        except OSError as error:
            raise StorageError(f"a shard cannot be written: {error}") from error
        finally:
            for future in futures:
                future.cancel()
    return Merged(home, bounds)


def fill(home: Path, number: int, first: int, rows: Vectors, threads: int) -> None:
    """Builds one shard, of rows that begin at row `first` of the index; may run on any machine that sees `home`."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = read_index(home / "trained.faiss")
    refine, base = _refine(index), _lists(index)
    codes = _codes(home, _width(index))
    for start, block in rows.blocks():
        base.add(block)
        if refine is not None:
            codes[first + start : first + start + len(block)] = refine.sa_encode(block)
    if refine is not None:
        codes.flush()
    _write(base, _shard(home, number))


class Merged:
    """What shards became: an index whose codes that rank again stay in their file."""

    def __init__(self, home: Path, bounds: Sequence[int]) -> None:

        self._home = home
        self.index: Any = read_index(home / "trained.faiss")
        base = _lists(self.index)
        for number, first in enumerate(bounds[:-1]):
            owner = read_index(_shard(home, number))
            _merge(base, concrete(owner), first)
        self._show(bounds[-1])

    def add(self, vectors: np.ndarray) -> None:
        """Adds vectors, float32 (n, dim): as many as `sharded` was told of."""
        refine = _refine(self.index)
        if refine is None:
            self.index.add(vectors)
            return
        first, codes = refine.ntotal, _codes(self._home, _width(self.index))
        codes[first : first + len(vectors)] = refine.sa_encode(vectors)
        codes.flush()
        _lists(self.index).add(vectors)
        self._show(first + len(vectors))

    def _show(self, count: int) -> None:
        """Lets the index look at codes in their file instead of holding them."""
        import faiss as typed

        faiss: Any = typed
        refine = _refine(self.index)
        self.index.ntotal = concrete(self.index).ntotal = count
        if refine is None:
            return
        # FAISS wants an owner of what is looked at: an index that is mapped has one.
        donor, file = faiss.IndexFlat(1), self._home / "donor.faiss"
        donor.add(np.ones((1, 1), np.float32))
        faiss.write_index(donor, str(file))
        mapped = read_index(file, mapped=True)
        codes = _codes(self._home, _width(self.index))
        owner = concrete(mapped).codes.owner
        refine.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(codes), count * codes.shape[1], owner)
        refine.ntotal = count
        self.index.referenced_objects = [codes, mapped]  # they live as long as the index


def _merge(base: Any, other: Any, first: int) -> None:
    """`base.merge_from(other, first)`, and not where FAISS 1.15 writes beyond what it has: `BlockInvertedLists` takes a
    list whose length is a multiple of the bytes, not the rows, of a block for one that it may copy blocks behind."""
    import faiss as typed

    faiss: Any = typed

    into, added = (faiss.downcast_InvertedLists(one.invlists) for one in (base, other))
    waiting = []
    for number in range(base.nlist if isinstance(into, faiss.BlockInvertedLists) else 0):
        length, more = into.list_size(number), added.list_size(number)
        if not length or length % into.block_size or not more:
            continue
        # Its last row steps aside: behind those that are added, or until they are.
        row, code = _last(into, number)
        into.resize(number, length - 1)
        if more % into.block_size:
            _append(added, number, row - first, code)
        else:
            waiting.append((number, row, code))
    base.merge_from(other, first)
    for number, row, code in waiting:
        _append(into, number, row, code)
        base.ntotal += 1


def _last(lists: Any, number: int) -> tuple[int, np.ndarray]:
    """(label, code) of the last row of a list."""
    import faiss

    place = lists.list_size(number) - 1
    blocks = faiss.rev_swig_ptr(lists.get_codes(number), (place // lists.n_per_block + 1) * lists.block_size)
    code = lists.packer.unpack_1(blocks.reshape(-1, lists.block_size), place)
    return int(faiss.rev_swig_ptr(lists.get_ids(number), place + 1)[place]), code


def _append(lists: Any, number: int, row: int, code: np.ndarray) -> None:
    import faiss

    block, label = np.zeros((1, lists.block_size), np.uint8), np.array([row], np.int64)
    lists.packer.pack_1(code, 0, block)
    lists.add_entries(number, 1, faiss.swig_ptr(label), faiss.swig_ptr(block))


def _lists(index: Any) -> Any:
    found = concrete(index)
    refined = _refine(index) is not None
    return concrete(found.base_index) if refined else found


def _refine(index: Any) -> Any:
    import faiss

    found = concrete(index)
    return concrete(found.refine_index) if isinstance(found, faiss.IndexRefine) else None


def _width(index: Any) -> int:
    refine = _refine(index)
    return 0 if refine is None else int(refine.sa_code_size())


def _allocate(home: Path, width: int, rows: int) -> None:
    path = home / "codes.bin"
    if width and (not path.exists() or path.stat().st_size != width * rows):
        with open(path, "wb") as file:
            file.truncate(width * rows)


def _codes(home: Path, width: int) -> Any:
    path = home / "codes.bin"
    if not width:
        return np.empty((0, 0), np.uint8)
    return np.memmap(path, np.uint8, "r+", shape=(path.stat().st_size // width, width))


def _shard(home: Path, number: int) -> Path:
    return home / f"shard-{number:05d}.faiss"


def _write(index: Any, path: Path) -> None:
    import faiss

    aside = path.with_suffix(".part")
    try:
        faiss.write_index(index, str(aside))
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
    except RuntimeError as error:
        raise StorageError(f"cannot write {path.name} of the index: {error}") from error
    os.rename(aside, path)
