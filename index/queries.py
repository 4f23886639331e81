"""What may be asked of anything that can be searched."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import EarmarkError, WrongType
from core.ids import Ids, id_list

UNLIKE_WEIGHT = 0.5
FIRST_DEPTH = 64  # contents that `above` asks for first
UNIT_TOLERANCE = 1e-6  # of a squared norm in float32: rounding, which dividing by the norm would not lessen


class Queries(ABC):
    """All that follows from nearest neighbours and from what is held of a content."""

    @abstractmethod
    def search(self, vectors: np.ndarray, k: int, exclude: Ids = (), where: pc.Expression | None = None) -> pa.Table:
        """The k contents nearest each vector by cosine: columns `query`, `content_id`, `score`, best first."""

    @abstractmethod
    def vectors(self, content_id: str) -> np.ndarray:
        """What is held of a content, float32 (windows, dim). Raises `NotFound`."""

    @abstractmethod
    def checked(self, vectors: np.ndarray) -> np.ndarray:
        """Queries as float32 (queries, dim) of unit norm. Raises `EarmarkError` for what cannot be searched for."""

    @abstractmethod
    def _compared(self, vectors: np.ndarray, score: float, where: pc.Expression | None) -> pa.Table:
        """`above`, by comparing checked vectors with every stored one."""

    def above(
        self, vectors: np.ndarray, score: float, where: pc.Expression | None = None, *, exact: bool = False
    ) -> pa.Table:
        """Every content that is as near to a vector as `score` or nearer; columns and errors as of `search`.

        Where the index is approximate (`manifest.factory` is not `Flat`), so is the answer: the lower the score, the
        more contents are missed. With `exact`, each query is compared with every vector as the index stores it, at the
        cost of reading all of them; nothing is missed then.
        """
        vectors = self.checked(vectors)
        score = checked_score(score)
        if exact:
            return self._compared(vectors, score, where)
        results = []
        for query in vectors:
            k = FIRST_DEPTH
            while True:
                found = self.search(query[None], k, where=where)
                scores = np.asarray(found["score"])
                if len(scores) < k or scores[-1] < score:
                    break
                k *= 4
            results.append(found.filter(pa.array(scores >= score)))
        numbers = [pa.array(np.full(part.num_rows, n), pa.int32()) for n, part in enumerate(results)]
        parts = [part.set_column(0, "query", n) for part, n in zip(results, numbers, strict=True)]
        return pa.concat_tables(parts) if parts else self.search(vectors, 1)

    def similar(self, like: Ids, k: int, unlike: Ids = (), where: pc.Expression | None = None) -> pa.Table:
        """The k contents nearest the mean of those that are liked, away from half the mean of the others (Rocchio's
        feedback), none of them among the answers. A single string is one content. Raises `NotFound` for a content that
        is not in the index."""
        liked, disliked = id_list(like), id_list(unlike)
        if not liked:
            raise EarmarkError("similar: name one content at least that is liked")
        wanted = np.mean([self.vectors(one).mean(axis=0) for one in liked], axis=0)
        if disliked:
            wanted = wanted - UNLIKE_WEIGHT * np.mean([self.vectors(one).mean(axis=0) for one in disliked], axis=0)
        length = np.linalg.norm(wanted)
        if length < 1e-6:
            raise EarmarkError("similar: what is liked and what is not cancel each other")
        return self.search(wanted[None] / length, k, exclude={*liked, *disliked}, where=where)


def unit_queries(given: Any, dim: int) -> np.ndarray:
    """Query vectors, (dim,) or (queries, dim), as float32 (queries, dim) of unit norm, so that scores are cosines.

    Raises `WrongType` for a value that is not an array of real numbers, and `EarmarkError` for another shape or a
    vector that is zero or not finite.
    """
    array = numbers(given, "query vectors")
    if array.ndim not in (1, 2):
        raise EarmarkError(f"index: queries have shape {array.shape}; give ({dim},) or (queries, {dim})")
    if array.shape[-1] != dim:
        raise EarmarkError(f"index: query has {array.shape[-1]} dimensions, the index {dim}")
    array = array.reshape(-1, dim)
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(array, np.float32)
        squares = np.einsum("ij,ij->i", vectors, vectors)
    if (np.abs(squares - 1) <= UNIT_TOLERANCE).all():
        return vectors
    wide = np.asarray(array, np.float64)
    peaks = np.abs(wide).max(axis=1, keepdims=True)  # NaN where a value is
    for problem, wrong in (("values that are not finite", ~np.isfinite(peaks[:, 0])), ("norm zero", peaks[:, 0] == 0)):
        if wrong.any():
            raise EarmarkError(f"index: query {int(np.argmax(wrong))} has {problem}; it has no direction to search in")
    scaled = wide / peaks  # squares of large and of tiny values stay in range
    return np.ascontiguousarray(scaled / np.linalg.norm(scaled, axis=1, keepdims=True), np.float32)


def numbers(given: Any, kind: str) -> np.ndarray:
    """`given` as an array of real numbers. Raises `WrongType`."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # the last of tensors that have a gradient
        raise WrongType(f"index: {kind} are not an array of numbers: {error}") from error
    if array.dtype.kind not in "fiu":
        raise WrongType(f"index: {kind} must be real numbers, not {array.dtype}")
    return array


def checked_count(k: Any) -> int:
    """The number of contents to find, of any integer type; it may exceed the size of the index. Raises `WrongType` for
    a value that is not an integer, `EarmarkError` for one below 1."""
    try:
        count = None if isinstance(k, (bool, np.bool_)) else operator.index(k)
    except TypeError:
        count = None
    if count is None:
        raise WrongType(f"index: k must be a whole number of contents, not {k!r}")
    if count < 1:
        raise EarmarkError(f"index: k is {count}, but must be at least 1")
    return count


def checked_score(score: Any) -> float:
    """A minimum score, a finite real number of any type. Raises `EarmarkError` for anything else."""
    given = score.as_py() if isinstance(score, pa.Scalar) else score
    try:
        found = math.nan if isinstance(given, (str, bytes)) else float(given)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise EarmarkError(f"index: the minimum score must be a finite number, not {score!r:.80}")
    return found
