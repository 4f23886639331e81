"""Patches of recordings in a FAISS index that grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import faiss
import numpy as np

LIST_LENGTH = 256  # vectors a list, whatever their number: what a query scans does not grow
PROBES = 6
PLACED, LEARNT = 12, 24  # what the graph looks at to place a vector; vectors a list that lists are learnt from
REACH = 0.75  # that no component of a patch's unit vector goes beyond; they reach .62
BRIEF = 16_000  # vectors to which all are compared exactly, in blocks, for less than a search among lists costs
FLAT_UNTIL = 4_000  # vectors; below, everything is compared with everything


GONE = -1  # whose a row is that was forgotten


@dataclass(frozen=True)
class Patches:
    """Unit vectors, float32 (n, dim), of recordings: `recording` and `frame`, int32 (n,), say whose and when."""

    vectors: np.ndarray
    recording: np.ndarray
    frame: np.ndarray

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def join(cls, parts: Sequence[Patches], dim: int = 64) -> Patches:
        if not parts:
            return cls(np.empty((0, dim), np.float32), np.empty(0, np.int32), np.empty(0, np.int32))
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("vectors", "recording", "frame")))

    def take(self, which: np.ndarray) -> Patches:
        return Patches(self.vectors[which], self.recording[which], self.frame[which])


@dataclass
class PatchIndex:
    """A FAISS index over patches, by inner product and one byte a component; `recording` and `frame`, int32 (n,), say
    whose and when each row is."""

    index: faiss.Index
    recording: np.ndarray
    frame: np.ndarray
    stored: tuple[str, ...] = ()  # where it was saved as it is

    def __len__(self) -> int:
        return len(self.recording)

    @classmethod
    def over(cls, patches: Patches) -> PatchIndex:
        return cls(index_of(patches.vectors), patches.recording, patches.frame)

    @classmethod
    def briefly(cls, patches: Patches) -> PatchIndex:
        """Of some that are asked about once and then forgotten: exactly, and at a few thousand four times as fast as
        one byte a component is."""
        if len(patches) > BRIEF:
            return cls.over(patches)
        flat = faiss.IndexFlatIP(patches.vectors.shape[1])
        flat.add(np.ascontiguousarray(patches.vectors, np.float32))
        return cls(flat, patches.recording, patches.frame)

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines of the nearest `k` of each vector, float32 (n, k), and their rows, int64 (n, k); -1 where there are
        fewer."""
        index, k = cast(Any, self.index), min(k, len(self))
        if not isinstance(self.index, faiss.IndexIVF):
            return cast(tuple[np.ndarray, np.ndarray], index.search(vectors, k))
        near, lists = index.quantizer.search(vectors, index.nprobe)
        # Vectors with one list follow each other, which then is in the cache: an eighth less.
        order = np.argsort(lists[:, 0], kind="stable")
        asked, lists, near = (np.ascontiguousarray(some[order]) for some in (vectors, lists, near))
        alike, rows = np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
        alike[order], rows[order] = index.search_preassigned(asked, k, lists, near)
        return alike, rows

    def add(self, more: Patches, alive: np.ndarray | None = None) -> None:
        """Takes in more patches. Once lists are twice as long as they should be they are split; rows of recordings that
        are not `alive`, bool by number, are then left out."""
        if not len(more):
            return
        self.stored = ()
        room = self.index.nlist * LIST_LENGTH if isinstance(self.index, faiss.IndexIVF) else FLAT_UNTIL / 2
        if len(self) + len(more) > 2 * room:
            self._make_room(more, alive)
        if isinstance(self.index, faiss.IndexIVF):
            _place(self.index, more.vectors)
        else:
            self.index.add(more.vectors)
        self.recording = np.concatenate([self.recording, more.recording])
        self.frame = np.concatenate([self.frame, more.frame])

    def _make_room(self, more: Patches, alive: np.ndarray | None) -> None:
        """More lists for what is there, without the dead. Lists are split where they lie; but where most is yet to
        come, the little that is there says nothing of it, and lists are learnt from all."""
        keep = np.ones(len(self), bool) if alive is None else alive[self.recording]
        if isinstance(self.index, faiss.IndexIVF) and len(more) <= len(self):
            self.index = split(self.index, keep)
        else:
            learning = np.concatenate([self.patches().vectors[keep], more.vectors])
            self.index = index_of(learning, filled=int(keep.sum()))
        self.recording, self.frame = self.recording[keep], self.frame[keep]

    def forget(self, rows: np.ndarray) -> None:
        """Makes rows nobody's. They go when lists are learnt anew or the part is taken in by another; `alive` arrays
        must end with False for them."""
        self.recording[rows] = GONE
        self.stored = ()

    def patches(self, alive: np.ndarray | None = None) -> Patches:
        """Its patches as the index has them, to eight bits; of recordings that are `alive`, if that is given."""
        if isinstance(self.index, faiss.IndexIVF):
            self.index.make_direct_map()
        vectors = self.index.reconstruct_n(0, len(self)) if len(self) else np.empty((0, self.index.d))
        if isinstance(self.index, faiss.IndexIVF):
            self.index.make_direct_map(False)
        whole = Patches(np.ascontiguousarray(vectors, np.float32), self.recording, self.frame)
        return whole if alive is None else whole.take(alive[self.recording])


def index_of(vectors: np.ndarray, seed: int = 0, filled: int | None = None) -> faiss.Index:
    """A FAISS index by inner product over `vectors`, float32 (n, dim), one byte a component. The first `filled` are put
    in, all of them unless that is told; from the others it but learns.

    Lists have the same length at any size, and a graph finds the lists of a query, so that a query costs next to the
    same whether the index holds ten hours or a thousand.
    """
    dim = vectors.shape[1]
    if len(vectors) <= FLAT_UNTIL:
        flat = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        flat.train(_bounds(dim))
        flat.add(vectors[:filled])
        return flat
    lists = len(vectors) // LIST_LENGTH
    graph = _graph(dim)
    learning = np.random.default_rng(seed).choice(len(vectors), min(len(vectors), LEARNT * lists), replace=False)
    clustering = faiss.Clustering(dim, lists)
    clustering.niter, clustering.spherical, clustering.seed = 4, True, seed + 1
    clustering.min_points_per_centroid = 1
    clustering.train(np.ascontiguousarray(vectors[np.sort(learning)]), graph)
    made = _lists(graph)
    _place(made, vectors[:filled])
    return made


def split(index: Any, keep: np.ndarray) -> faiss.IndexIVFScalarQuantizer:
    """The same index with every list cut into lists of about `LIST_LENGTH`, by 2-means of what it holds. `keep`, bool
    (n,), says which rows stay; they are numbered anew, in their order.

    No vector is sought a place for among all lists, which would cost ten times as much or more. Where two lists meet,
    a vector may end in the second best one.
    """
    ids_of, codes_of, centres = [], [], []
    number = np.cumsum(keep) - 1
    for place in range(index.nlist):
        rows, codes = _entries(index.invlists, place)
        alive = keep[rows]
        rows, codes = rows[alive], codes[alive]
        vectors = index.sq.decode(codes)
        for part in _parted(vectors, place):
            ids_of.append(number[rows[part]])
            codes_of.append(codes[part])
            centres.append(vectors[part].mean(axis=0))
    graph = _graph(index.d)
    graph.add(np.stack(centres) / np.linalg.norm(centres, axis=1, keepdims=True))
    made: Any = _lists(graph)
    for place, (ids, codes) in enumerate(zip(ids_of, codes_of, strict=True)):
        made.invlists.add_entries(place, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
    made.ntotal = int(keep.sum())
    return made


def _parted(vectors: np.ndarray, seed: int) -> list[np.ndarray]:
    """Row numbers of vectors, in parts that are no longer than one and a half lists; none of nothing."""
    parts, waiting = [], [np.arange(len(vectors))] if len(vectors) else []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= 1.5 * LIST_LENGTH:
            parts.append(rows)
            continue
        side = _two_means(vectors[rows], seed)
        waiting += [rows[side], rows[~side]]
    return parts


def _two_means(vectors: np.ndarray, seed: int, rounds: int = 6) -> np.ndarray:
    """bool (n,): which of two clusters by inner product vectors are in; neither is less than a quarter of them.

    The clusters lie on two sides of a plane through their middle, so that one direction is all that is learnt.
    """
    count = len(vectors)
    middle = vectors - vectors.mean(axis=0)
    direction = middle[np.random.default_rng(seed).integers(count)]
    for _ in range(rounds):
        along = middle @ direction
        above = int(np.clip((along > 0).sum(), count // 4, count - count // 4))
        side = np.zeros(count, bool)
        side[np.argpartition(along, count - above)[count - above :]] = True
        direction = vectors[side].mean(axis=0) - vectors[~side].mean(axis=0)
    return side


def _entries(lists: Any, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers, int64 (n,), and codes, uint8 (n, bytes), of one list."""
    count, size = lists.list_size(place), lists.code_size
    ids = faiss.rev_swig_ptr(lists.get_ids(place), count).copy()
    return ids, faiss.rev_swig_ptr(lists.get_codes(place), count * size).reshape(count, size).copy()


def _graph(dim: int) -> faiss.IndexHNSWFlat:
    graph = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efSearch = PLACED
    return graph


def _lists(graph: faiss.IndexHNSWFlat) -> faiss.IndexIVFScalarQuantizer:
    """Empty lists around the centres that are in a graph."""
    made = faiss.IndexIVFScalarQuantizer(
        graph, graph.d, graph.ntotal, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
    )
    made.train(_bounds(graph.d))
    made.nprobe = PROBES
    graph.hnsw.efSearch = 4 * PROBES
    return made


def _bounds(dim: int) -> np.ndarray:
    """What the bytes are learnt from: they must hold whatever comes later."""
    return np.full((2, dim), REACH, np.float32) * np.array([[-1], [1]], np.float32)


def _place(index: faiss.IndexIVF, vectors: np.ndarray) -> None:
    """Adds vectors. To place one, the nearest list or the next best will do, so the graph looks at less."""
    graph = cast(Any, faiss.downcast_index(index.quantizer)).hnsw
    graph.efSearch = PLACED
    index.add(vectors)
    graph.efSearch = 4 * PROBES
