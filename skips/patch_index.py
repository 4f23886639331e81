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

    def add(self, more: Patches, alive: np.ndarray | None = None) -> None:
        """Takes in more patches. Lists are learnt anew whenever they have become twice as long; rows of recordings that
        are not `alive`, bool by number, are then left out."""
        if not len(more):
            return
        self.stored = ()
        learnt = self.index.nlist * LIST_LENGTH if isinstance(self.index, faiss.IndexIVF) else FLAT_UNTIL / 2
        if len(self) + len(more) > 2 * learnt:
            whole = Patches.join([self.patches(alive), more])
            self.index, self.recording, self.frame = index_of(whole.vectors), whole.recording, whole.frame
            return
        if isinstance(self.index, faiss.IndexIVF):
            _place(self.index, more.vectors)
        else:
            self.index.add(more.vectors)
        self.recording = np.concatenate([self.recording, more.recording])
        self.frame = np.concatenate([self.frame, more.frame])

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


def index_of(vectors: np.ndarray, seed: int = 0) -> faiss.Index:
    """A FAISS index by inner product over `vectors`, float32 (n, dim), one byte a component.

    Lists have the same length at any size, and a graph finds the lists of a query, so that a query costs next to the
    same whether the index holds ten hours or a thousand.
    """
    dim = vectors.shape[1]
    if len(vectors) <= FLAT_UNTIL:
        flat = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        flat.train(_bounds(dim))
        flat.add(vectors)
        return flat
    lists = len(vectors) // LIST_LENGTH
    graph = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efSearch = PLACED
    learning = np.random.default_rng(seed).choice(len(vectors), min(len(vectors), LEARNT * lists), replace=False)
    clustering = faiss.Clustering(dim, lists)
    clustering.niter, clustering.spherical, clustering.seed = 4, True, seed + 1
    clustering.min_points_per_centroid = 1
    clustering.train(np.ascontiguousarray(vectors[np.sort(learning)]), graph)
    found = faiss.IndexIVFScalarQuantizer(
        graph, dim, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
    )
    found.train(_bounds(dim))
    found.nprobe = PROBES
    _place(found, vectors)
    return found


def _bounds(dim: int) -> np.ndarray:
    """What the bytes are learnt from: they must hold whatever comes later."""
    return np.full((2, dim), REACH, np.float32) * np.array([[-1], [1]], np.float32)


def _place(index: faiss.IndexIVF, vectors: np.ndarray) -> None:
    """Adds vectors. To place one, the nearest list or the next best will do, so the graph looks at less."""
    graph = cast(Any, faiss.downcast_index(index.quantizer)).hnsw
    graph.efSearch = PLACED
    index.add(vectors)
    graph.efSearch = 4 * PROBES
