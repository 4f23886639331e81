"""Copies of pictures: PDQ for what was recompressed, resized or flipped, keypoints for what was cropped, turned, framed
or captioned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import faiss
import numpy as np

from index.hashes import HashIndex
from moderation.matches import Match, best_first
from moderation.overlay import Mirrored, Overlay, Shape, overlay

PDQ_BITS = 256
PDQ_DISTANCE = 31  # of 256 bits, at most, as Meta's Hasher-Matcher-Actioner has it
PDQ_QUALITY = 50  # below, a hash says little
VOTES = 3  # nearest descriptors that each of a picture's may name
LEAST_VOTES = 4
CANDIDATES = 8  # exemplars that are compared in full
ASKED = 200  # of a picture's descriptors that name exemplars
LIST_LENGTH = 256  # descriptors a list of the index
PROBES = 8
FLAT_UNTIL = 20_000  # descriptors; below, all are compared
LEAST_PAIRS = 10  # keypoints that agree: different pictures reach 6
EVEN_PAIRS, EVEN = 7, 0.8  # that are enough where the map hardly squeezes: by chance, those reach 5
LEAST_COVERED = 0.015  # share of either picture that they span: a stamp in a corner is no copy
ENOUGH_PAIRS = 40.0  # at which a score reaches two thirds


@dataclass(frozen=True)
class PictureHashes:
    """What a picture is found by: PDQ of its eight turns and mirrorings, uint8 (8, 32), the first its own, with the
    quality; its keypoints."""

    pdq: np.ndarray
    quality: int
    shape: Shape


@dataclass
class PictureBank:
    """Exemplars' pictures, under ids of the caller's. An addition is found by the next `match`."""

    ids: list[str] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._hashes = HashIndex(PDQ_BITS, PDQ_DISTANCE)
        self._descriptors: faiss.Index | None = None
        self._owner = np.empty(0, np.int64)
        self._indexed = 0

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, exemplar_id: str, hashes: PictureHashes) -> None:
        number = len(self.ids)
        self.ids.append(exemplar_id)
        self.shapes.append(hashes.shape)
        if hashes.quality >= PDQ_QUALITY:
            self._hashes.add(hashes.pdq[:1], [number])

    def match(self, hashes: PictureHashes, distance: int = PDQ_DISTANCE) -> list[Match]:
        """The exemplars that the picture is a copy of, the surest first; hashes may differ in `distance` bits."""
        near = [m for m in self._by_hash(hashes) if m.distance is None or m.distance <= distance]
        return best_first([*near, *self._by_keypoints(hashes)])

    def _by_hash(self, hashes: PictureHashes) -> list[Match]:
        if hashes.quality < PDQ_QUALITY or not len(self._hashes):
            return []
        hits = self._hashes.search(hashes.pdq)
        nearest: dict[int, int] = {}
        for turn in range(len(hashes.pdq)):
            for number, distance in hits.of(turn):
                nearest[number] = min(distance, nearest.get(number, PDQ_BITS))
        return [Match(self.ids[n], "image", "hash", 1 - d / (PDQ_BITS / 2), distance=d) for n, d in nearest.items()]

    def _by_keypoints(self, hashes: PictureHashes) -> list[Match]:
        best: dict[int, float] = {}
        for shape in (hashes.shape, Mirrored.of(hashes.shape)):
            for number in self._candidates(shape):
                laid = overlay(self.shapes[number], shape)
                if laid and _is_copy(laid):
                    best[number] = max(best.get(number, 0.0), laid.pairs / (laid.pairs + ENOUGH_PAIRS / 2))
        return [Match(self.ids[n], "image", "fingerprint", score) for n, score in best.items()]

    def _candidates(self, shape: Shape) -> list[int]:
        """The exemplars that most descriptors name."""
        self._settle()
        if self._descriptors is None or not len(self._owner) or not len(shape.descriptors):
            return []
        every = len(shape.descriptors)
        asked = shape.descriptors[np.linspace(0, every - 1, min(ASKED, every)).astype(int)]  # coarse and fine
        _, rows = self._descriptors.search(_unit(asked), min(VOTES, len(self._owner)))
        # Each descriptor names an exemplar once.
        named = np.where(rows >= 0, self._owner[rows], -1)
        named.sort(axis=1)
        named = named[np.concatenate([np.ones((len(named), 1), bool), np.diff(named, axis=1) > 0], axis=1)]
        votes = np.bincount(named[named >= 0], minlength=len(self.ids))
        order = np.argsort(-votes, kind="stable")[:CANDIDATES]
        return [int(n) for n in order if votes[n] >= LEAST_VOTES]

    def _settle(self) -> None:
        """Indexes what was added; all anew when it has become a half more."""
        if self._indexed == len(self.ids):
            return
        fresh = range(self._indexed, len(self.ids))
        vectors = _stacked([self.shapes[n] for n in fresh])
        owner = np.repeat(np.array(fresh, np.int64), [len(self.shapes[n].descriptors) for n in fresh])
        trained = self._descriptors
        if trained is not None and (len(self._owner) + len(owner) <= FLAT_UNTIL or len(owner) < len(self._owner) / 2):
            trained.add(vectors)
            self._owner = np.concatenate([self._owner, owner])
        else:
            every = _stacked(self.shapes)
            self._descriptors = _index(every)
            self._owner = np.repeat(np.arange(len(self.shapes)), [len(s.descriptors) for s in self.shapes])
        self._indexed = len(self.ids)


def _is_copy(laid: Overlay) -> bool:
    enough = EVEN_PAIRS if laid.evenness >= EVEN else LEAST_PAIRS
    return laid.pairs >= enough and max(laid.covered, laid.covers) >= LEAST_COVERED


def _unit(descriptors: np.ndarray) -> np.ndarray:
    return descriptors.astype(np.float32) / 512


def _stacked(shapes: Sequence[Shape]) -> np.ndarray:
    found = [_unit(shape.descriptors) for shape in shapes]
    return np.concatenate(found) if found else np.empty((0, 128), np.float32)


def _index(vectors: np.ndarray) -> faiss.Index:
    dim = vectors.shape[1]
    if len(vectors) <= FLAT_UNTIL:
        found: faiss.Index = faiss.IndexFlatIP(dim)
    else:
        lists = len(vectors) // LIST_LENGTH
        graph = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
        byte = faiss.ScalarQuantizer.QT_8bit
        found = faiss.IndexIVFScalarQuantizer(graph, dim, lists, byte, faiss.METRIC_INNER_PRODUCT, False)
        found.nprobe = PROBES
        found.train(vectors[np.random.default_rng(0).choice(len(vectors), min(len(vectors), 40 * lists), False)])
    found.add(vectors)
    return found
