"""Building a FAISS index of unit-norm vectors: chosen, tuned and measured before anybody sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import EarmarkError, IndexUnavailable, StorageError
from index.choice import FLAT_ROWS, TRAINING_ROWS_A_LIST, Choice
from index.gpu import candidates, empty, filled_on_gpu, on_device, takes_gpu
from index.measure import Quality, Sample
from index.parameters import part
from index.shards import Merged, Sharding, sharded
from index.vectors import ArrayVectors, Subset, Vectors

EF_CONSTRUCTION = 80
SAMPLE_QUERIES = 1000
LEAST_TRAINING_ROWS = 20_000
RESIDENT_UNKNOWN = 1.0  # bytes a vector of a make that was asked for: a guess that refuses nothing
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


def check_vectors(vectors: Vectors, ids: np.ndarray, dim: int) -> None:
    """Raises `EarmarkError` unless there are vectors, of `dim` dimensions, finite, of unit norm, with distinct ids."""
    if vectors.dim != dim:
        raise EarmarkError(f"index: vectors have {vectors.dim} dimensions, the model makes {dim}")
    if not vectors.count:
        raise EarmarkError("index: there are no vectors to build from")
    distinct = len(np.unique(ids))
    if len(ids) != vectors.count or distinct != len(ids):
        raise EarmarkError(f"index: {len(ids)} ids for {vectors.count} vectors, {distinct} of them distinct")
    wrong, first = 0, -1
    for start, block in vectors.blocks():
        norms = np.linalg.norm(block, axis=1)
        # NaN and infinity fail this comparison as well as zero vectors do.
        found = np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE))
        wrong, first = wrong + len(found), start + int(found[0]) if first < 0 and len(found) else first
    if wrong:
        raise EarmarkError(f"index: {wrong} vectors are not finite and of unit norm, the first is row {first}")


def build(
    vectors: Vectors | np.ndarray,
    *,
    factory: str | None = None,
    memory_bytes: float | None = None,
    target_recall: float = 0.95,
    gate: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    sharding: Sharding | None = None,
    scratch: Path | None = None,
) -> Built:
    """Builds the first of `candidates` that finds enough, or `factory` (a FAISS factory string).

    `vectors`: unit norm. A sample is held out, because vectors that an index holds find themselves and flatter it; half
    of it finds the cheapest search parameters that reach `target_recall` at 10, the other half measures them; then it
    is added too. An index that only just misses its target is good enough where its recall reaches `gate` (0.02 less,
    unless told). With `sharding` the rest is built in shards by processes of their own, in the folder `scratch`, and
    merged. Raises `IndexUnavailable` where nothing finds enough, `StorageError` where shards cannot be written.
    """
    source: Vectors = ArrayVectors(vectors) if isinstance(vectors, np.ndarray) else vectors
    count, dim = source.count, source.dim
    gate = target_recall - GATE_BELOW_TARGET if gate is None else gate
    rng = np.random.default_rng(seed)
    held = np.zeros(count, bool)
    held[rng.permutation(count)[: min(SAMPLE_QUERIES, count // 10)]] = True
    kept, out = np.flatnonzero(~held), np.flatnonzero(held)
    base = Subset(source, kept)
    queries = source.take(out if len(out) else np.arange(min(count, SAMPLE_QUERIES)))
    sample = Sample(base, queries)
    refused: list[str] = []
    failures: list[EarmarkError] = []
    if factory is None and count <= FLAT_ROWS:
        sharding = None  # too few to be worth it
    for choice in _tried(factory, count, dim, memory_bytes, device, sharding):
        merged: Merged | None = None
        try:
            if sharding is None or scratch is None:
                made = filled(choice.factory, base, seed, device)
            else:
                merged = _in_shards(scratch, choice, base, sharding, len(out), seed)
                made = merged.index
            searched = on_device(made, device)
        except EarmarkError as error:
            # A disk that is full, or a process that died, says nothing of the choice.
            if factory or isinstance(error, StorageError):
                raise
            refused.append(str(error))
            failures.append(error)
            continue
        parameters = sample.tune(searched, target_recall)
        quality = sample.quality(searched, parameters)
        if quality.recall["10"] >= gate:
            if len(out):
                (merged or made).add(queries)
            return Built(made, np.concatenate([kept, out]), choice, parameters, quality, refused)
        refused.append(f"{choice.factory} reached {quality.recall['10']:.3f}")
    if len(failures) == len(refused) and failures:
        # Nothing was built, so nothing was measured: what the first choice lacked is the reason.
        raise type(failures[0])(f"no index could be built: {'; '.join(refused)}")
    raise IndexUnavailable(f"recall@10 is below the gate of {gate:.3f}: {'; '.join(refused)}")


def filled(factory: str, rows: Vectors, seed: int = 0, device: str = "cpu") -> Any:
    """A trained index that holds `rows`. Raises `EarmarkError` for a factory string that FAISS does not take."""
    made = _empty(factory, rows.dim)
    chosen = _training_rows(made, rows, seed)
    if device == "cuda" and takes_gpu(made):
        return filled_on_gpu(made, rows, chosen)
    _train(made, factory, rows, chosen)
    for _, block in rows.blocks():
        made.add(block)
    return made


def _in_shards(scratch: Path, choice: Choice, rows: Vectors, sharding: Sharding, more: int, seed: int) -> Any:
    size = sharding.rows_a_shard(choice, rows.count, rows.dim)

    def trained() -> Any:
        made = _empty(choice.factory, rows.dim)
        chosen = _training_rows(made, rows, seed, sharding)
        _train(made, choice.factory, rows, chosen)
        return made

    return sharded(scratch, choice.factory, rows, sharding, size, more, trained)


def _tried(
    factory: str | None, count: int, dim: int, memory_bytes: float | None, device: str, sharding: Sharding | None
) -> list[Choice]:
    if factory:
        return [Choice(factory, "asked for by factory string", 0.0, RESIDENT_UNKNOWN)]
    found = candidates(count, dim, memory_bytes=memory_bytes, device=device)
    return found if sharding is None else [one for one in found if one.factory.startswith("IVF")]


def _empty(factory: str, dim: int) -> Any:
    try:
        made = empty(factory, dim)
    except RuntimeError as error:
        raise EarmarkError(f"index: FAISS does not take the factory string {factory!r} for {dim} dimensions") from error
    graph = part(made, "IndexHNSW")
    if graph is not None:
        graph.hnsw.efConstruction = EF_CONSTRUCTION
    return made


def _training_rows(made: Any, rows: Vectors, seed: int, sharding: Sharding | None = None) -> np.ndarray:
    ivf = part(made, "IndexIVF")
    lists = 0 if ivf is None else ivf.nlist
    enough = max(LEAST_TRAINING_ROWS, TRAINING_ROWS_A_LIST * lists)
    if sharding is not None:
        enough = sharding.training_rows(min(enough, rows.count), lists, rows.dim)
    if enough >= rows.count:
        return np.arange(rows.count)
    return np.sort(np.random.default_rng(seed).choice(rows.count, enough, replace=False))


def _train(made: Any, factory: str, rows: Vectors, chosen: np.ndarray) -> None:
    if not made.is_trained:
        try:
            made.train(rows.take(chosen))
        except RuntimeError as error:
            raise EarmarkError(f"index: {factory} cannot be trained on {rows.count} vectors") from error
