"""Building a FAISS index of unit-norm vectors: chosen, tuned and measured before anybody sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import EarmarkError, IndexUnavailable
from index.choice import TRAINING_ROWS_A_LIST, Choice, choices
from index.measure import Quality, Sample
from index.parameters import part

EF_CONSTRUCTION = 80
SAMPLE_QUERIES = 1000
LEAST_TRAINING_ROWS = 20_000
BLOCK_ROWS = 65_536
NORM_TOLERANCE = 1e-3
GATE_BELOW_TARGET = 0.02


@dataclass(frozen=True)
class Built:
    """A FAISS index whose row i is row `order[i]` of the vectors that went in, and how it came to be.

    `refused` says of each earlier choice what it reached.
    """

    faiss_index: Any
    order: np.ndarray
    choice: Choice
    parameters: dict[str, int]
    quality: Quality
    refused: list[str]


def check_vectors(vectors: np.ndarray, ids: np.ndarray, dim: int) -> None:
    """Raises `EarmarkError` unless `vectors` is float32 (n, dim), n > 0, finite, of unit norm, and ids are distinct."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise EarmarkError(f"index: vectors have shape {vectors.shape}, the model makes {dim} dimensions")
    if not len(vectors):
        raise EarmarkError("index: there are no vectors to build from")
    if len(ids) != len(vectors) or len(np.unique(ids)) != len(ids):
        raise EarmarkError(f"index: {len(ids)} ids for {len(vectors)} vectors, {len(np.unique(ids))} of them distinct")
    wrong, first = 0, -1
    for start in range(0, len(vectors), BLOCK_ROWS):
        norms = np.linalg.norm(vectors[start : start + BLOCK_ROWS], axis=1)
        # NaN and infinity fail this comparison as well as zero vectors do.
        found = np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE))
        wrong, first = wrong + len(found), start + int(found[0]) if first < 0 and len(found) else first
    if wrong:
        raise EarmarkError(f"index: {wrong} vectors are not finite and of unit norm, the first is row {first}")


def build(
    vectors: np.ndarray,
    *,
    factory: str | None = None,
    memory_bytes: float | None = None,
    target_recall: float = 0.95,
    gate: float | None = None,
    seed: int = 0,
) -> Built:
    """Builds the first of `choices` that finds enough, or `factory` (a FAISS factory string).

    `vectors`: float32 (n, d) of unit norm, in memory or mapped. A sample is held out, because vectors that an index
    holds find themselves and flatter it; half of it finds the cheapest search parameters that reach `target_recall` at
    10, the other half measures them; then it is added too. An index that only just misses its target is good enough
    where its recall reaches `gate` (0.02 less, unless told). Raises `IndexUnavailable` where nothing does.
    """
    count, dim = vectors.shape
    gate = target_recall - GATE_BELOW_TARGET if gate is None else gate
    rng = np.random.default_rng(seed)
    held = np.zeros(count, bool)
    held[rng.permutation(count)[: min(SAMPLE_QUERIES, count // 10)]] = True
    order = np.concatenate([np.flatnonzero(~held), np.flatnonzero(held)])
    base = _Rows(vectors, order[: count - int(held.sum())])
    queries = np.ascontiguousarray(vectors[held] if held.any() else vectors[:SAMPLE_QUERIES], np.float32)
    sample = Sample(base, queries)  # type: ignore[arg-type]
    tried = [Choice(factory, "asked for by factory string", 0.0)] if factory else []
    refused: list[str] = []
    for choice in tried or choices(count, dim, memory_bytes=memory_bytes):
        try:
            made = filled(choice.factory, base, seed)
        except EarmarkError as error:
            if factory:
                raise
            refused.append(str(error))
            continue
        parameters = sample.tune(made, target_recall)
        quality = sample.quality(made, parameters)
        if quality.recall["10"] >= gate:
            if held.any():
                made.add(queries)
            return Built(made, order, choice, parameters, quality, refused)
        refused.append(f"{choice.factory} reached {quality.recall['10']:.3f}")
    raise IndexUnavailable(f"recall@10 is below the gate of {gate:.3f}: {'; '.join(refused)}")


def filled(factory: str, rows: Any, seed: int = 0) -> Any:
    """A trained index that holds `rows`, float32 (n, d). Raises `EarmarkError` for a factory string that FAISS does not
    take."""
    import faiss

    rng = np.random.default_rng(seed)
    dim = rows[:1].shape[1]
    try:
        made = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise EarmarkError(f"index: FAISS does not take the factory string {factory!r} for {dim} dimensions") from error
    graph, ivf = part(made, "IndexHNSW"), part(made, "IndexIVF")
    if graph is not None:
        graph.hnsw.efConstruction = EF_CONSTRUCTION
    if not made.is_trained:
        enough = max(LEAST_TRAINING_ROWS, TRAINING_ROWS_A_LIST * (ivf.nlist if ivf is not None else 0))
        chosen = np.arange(len(rows))
        if enough < len(rows):
            chosen = np.sort(rng.choice(len(rows), enough, replace=False))
        try:
            made.train(rows[chosen])
        except RuntimeError as error:
            raise EarmarkError(f"index: {factory} cannot be trained on {len(rows)} vectors") from error
    for first in range(0, len(rows), BLOCK_ROWS):
        made.add(rows[first : first + BLOCK_ROWS])
    return made


class _Rows:
    """Some rows of an array in an order of their own, copied only where they are looked at."""

    def __init__(self, vectors: np.ndarray, order: np.ndarray) -> None:
        self._vectors, self._order = vectors, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, which: Any) -> np.ndarray:
        return np.ascontiguousarray(self._vectors[self._order[which]], np.float32)
