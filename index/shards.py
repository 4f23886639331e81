"""Building an index in shards: trained once on a sample, filled by processes of their own, merged.

Codes that only rank again lie in one file, where each process writes its own part: they are never in memory together.
What a killed build finished is found again by the next one of the same vectors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError, EarmarkError, StorageError
from index.choice import Choice
from index.parameters import concrete, read_index
from index.vectors import BLOCK_ROWS, Vectors
from index.workers import Workers

ROWS_A_SHARD = 1_000_000
LEAST_ROWS = 50_000
LEAST_TRAINING_ROWS_A_LIST = 39  # of k-means: FAISS warns below


@dataclass(frozen=True)
class Sharding:
    """How an index larger than memory is built: by `processes` at once, within `memory_bytes` for all of them and what
    is merged, so shards are as large as that allows, of `rows` at most. `progress` is told rows done and rows in all.
    """

    processes: int = 2
    rows: int = ROWS_A_SHARD
    memory_bytes: float | None = None
    progress: Callable[[int, int], Any] | None = None

    def __post_init__(self) -> None:
        if self.processes < 1 or self.rows < 1:
            raise ConfigError(f"index: {self.processes} processes and shards of {self.rows} rows cannot build anything")

    def rows_a_shard(self, choice: Choice, count: int, dim: int) -> int:
        """Raises `ConfigError` where not even small shards fit beside what is merged."""
        most = min(self.rows, -(-count // self.processes))
        if self.memory_bytes is None:
            return most
        blocks = 3 * min(BLOCK_ROWS, most) * dim * 4  # read, being added, being coded
        left = self.memory_bytes - count * choice.resident - self.processes * blocks
        rows = int(min(most, left / self.processes / choice.resident)) if left > 0 else 0
        least = min(LEAST_ROWS, most)  # a shard may be small because there are few rows: that is no lack of memory
        if rows < least:
            needed = count * choice.resident + self.processes * (blocks + least * choice.resident)
            raise ConfigError(
                f"index: building {choice.factory} of {count} vectors takes "
                f"{_above(needed, self.memory_bytes)} MiB, and "
                f"{self.memory_bytes // 2**20:.0f} MiB are allowed; fewer processes take less"
            )
        return rows

    def training_rows(self, wanted: int, lists: int, dim: int) -> int:
        """Raises `ConfigError` where too few vectors fit into the memory to train so many lists."""
        most = wanted if self.memory_bytes is None else min(wanted, int(self.memory_bytes / 3 / (4 * dim)))
        if most < min(wanted, LEAST_TRAINING_ROWS_A_LIST * lists):
            needed = 3 * 4 * dim * min(wanted, LEAST_TRAINING_ROWS_A_LIST * lists)
            raise ConfigError(
                f"index: {lists} lists cannot be trained: that takes {_above(needed, self.memory_bytes)} MiB, and "
                f"{(self.memory_bytes or 0) // 2**20:.0f} MiB are allowed"
            )
        return most


def _above(needed_bytes: float, allowed_bytes: float | None) -> int:
    """MiB that are needed, rounded, and always more than what reads as allowed."""
    return max(round(needed_bytes / 2**20), int((allowed_bytes or 0) // 2**20) + 1)


def sharded(
    folder: Path, factory: str, rows: Vectors, sharding: Sharding, shard_rows: int, more: int, train: Callable[[], Any]
) -> Merged:
    """An index of `rows` on one that `train` gives, empty. What is not finished lies in `folder`, as large as the
    index. `more`: rows that may be added to it.

    Raises `EarmarkError` for a make that cannot be merged, `StorageError` where a process dies or the disk is full.
    """
    home = folder / "".join(letter if letter.isalnum() else "-" for letter in factory)
    trained = home / "trained.faiss"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not trained.exists():
            empty = train()
            _check_make(empty, factory)
            _write(empty, trained)
        _allocate(home, _width(read_index(trained)), rows.count + more)
    except OSError as error:
        raise StorageError(f"the shards of the index cannot be written: {error}") from error
    bounds = [*range(0, rows.count, shard_rows), rows.count]
    spans = list(zip(bounds, bounds[1:], strict=False))
    todo = [span for span in spans if not _shard(home, *span).exists()]
    done = rows.count - sum(last - first for first, last in todo)
    threads = max(1, (os.cpu_count() or 1) // sharding.processes)
    with Workers() as workers, ThreadPoolExecutor(sharding.processes) as pool:
        jobs = {pool.submit(workers.run, (home, a, b, rows.part(a, b), threads)): b - a for a, b in todo}
        try:
            for job in as_completed(jobs):
                job.result()
                done += jobs[job]
                if sharding.progress:
                    sharding.progress(done, rows.count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            workers.kill()
            raise
    return Merged(home, spans)


def fill(home: Path, first: int, last: int, rows: Vectors, threads: int) -> None:
    """Builds one shard, of rows `first` to `last` of the index; may run on any machine that sees `home`."""
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
    _write(base, _shard(home, first, last))


class Merged:
    """What shards became: an index whose codes that rank again stay in their file."""

    def __init__(self, home: Path, spans: Sequence[tuple[int, int]]) -> None:
        """Raises `StorageError` where a shard does not hold what it should."""

        self._home = home
        self.index: Any = read_index(home / "trained.faiss")
        base = _lists(self.index)
        for first, last in spans:
            shard = read_index(_shard(home, first, last))
            if shard.ntotal != last - first:
                _shard(home, first, last).unlink()
                raise StorageError(f"a shard has {shard.ntotal} rows instead of {last - first}; build again")
            _merge(base, concrete(shard), first)
        _clear_ends(base)
        self._show(spans[-1][1])
        held = sum(base.invlists.list_size(number) for number in range(base.nlist))
        if not held == base.ntotal == self.index.ntotal:
            raise StorageError(f"shards of {self.index.ntotal} rows became {base.ntotal}, {held} of them in lists")

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


def _clear_ends(base: Any) -> None:
    """Makes the places of the last blocks zero that no row has yet: FAISS adds a row's bits to those that are there,
    and what merging leaves there is any."""
    import faiss as typed

    faiss: Any = typed
    lists = faiss.downcast_InvertedLists(base.invlists)
    if not isinstance(lists, faiss.BlockInvertedLists):
        return
    nothing = np.zeros(lists.packer.code_size, np.uint8)
    for number in range(base.nlist):
        length = lists.list_size(number)
        if length % lists.n_per_block:
            start = length // lists.n_per_block * lists.block_size
            block = faiss.rev_swig_ptr(lists.get_codes(number), start + lists.block_size)[None, start:]
            for place in range(length % lists.n_per_block, lists.n_per_block):
                lists.packer.pack_1(nothing, place, block)


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


def _check_make(index: Any, factory: str) -> None:
    import faiss

    refine, base = _refine(index), _lists(index)
    if not isinstance(base, faiss.IndexIVF) or not (refine is None or isinstance(refine, faiss.IndexFlatCodes)):
        raise EarmarkError(f"index: {factory} is not of lists alone, or ranked again; only these are built in shards")


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
            os.posix_fallocate(file.fileno(), 0, width * rows)  # a full disk is told now, and not by a signal later


def _codes(home: Path, width: int) -> Any:
    path = home / "codes.bin"
    if not width:
        return np.empty((0, 0), np.uint8)
    return np.memmap(path, np.uint8, "r+", shape=(path.stat().st_size // width, width))


def _shard(home: Path, first: int, last: int) -> Path:
    return home / f"shard-{first}-{last}.faiss"


def _write(index: Any, path: Path) -> None:
    import faiss

    aside = path.with_suffix(f".{os.getpid()}.part")
    try:
        faiss.write_index(index, str(aside))
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
    except RuntimeError as error:
        raise StorageError(f"cannot write {path.name} of the index: {error}") from error
    os.rename(aside, path)
