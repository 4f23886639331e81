"""What a caller puts into an index that serves, checked before anything of it is written. All raise `EarmarkError` and
say which content it is about."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.contracts import MAX_ID_BYTES, id_problem
from core.errors import EarmarkError, WrongType
from index.build import NORM_TOLERANCE
from index.changes import fitting
from index.queries import numbers


def check_ids(content_ids: pa.ChunkedArray) -> None:
    """Raises `EarmarkError` for texts that cannot be content ids."""
    given = pc.unique(content_ids)
    size = pc.binary_length(given)
    odd = pc.or_(pc.or_(pc.less(size, 1), pc.greater(size, MAX_ID_BYTES)), pc.match_substring_regex(given, r"\p{Cc}"))
    bad = given.filter(odd)
    if len(bad):
        first = bad[0].as_py()
        more = f" ({len(bad)} such ids)" if len(bad) > 1 else ""
        raise EarmarkError(f"index: {first!r:.80} cannot be a content id: {id_problem(first)}{more}")


def checked_content(given: Any) -> tuple[Any, Any, Any, Any]:
    """The four parts of what is put: content id, vectors, about, windows. Raises `WrongType` for anything else."""
    if not isinstance(given, (tuple, list)) or len(given) != 4:
        raise WrongType(
            f"index: put_many takes (content id, vectors, about, windows) of each content, not {given!r:.80}"
        )
    content_id, vectors, about, windows = given
    return content_id, vectors, about, windows


def checked_rows(content_id: str, given: np.ndarray, dim: int) -> np.ndarray:
    """Vectors of a content as float32 (n, dim)."""
    problem = id_problem(content_id) if isinstance(content_id, str) else "it is no text"
    if problem:
        raise EarmarkError(f"index: {content_id!r:.80} cannot be a content id: {problem}")
    with np.errstate(over="ignore"):
        vectors = np.array(np.atleast_2d(numbers(given, f"vectors of {content_id!r}")), np.float32, order="C")
    if vectors.ndim != 2 or vectors.shape[1] != dim or not len(vectors):
        raise EarmarkError(f"index: {content_id!r} has vectors of shape {np.shape(given)}, the index {dim} dimensions")
    if not (np.abs(np.linalg.norm(vectors, axis=1) - 1) <= NORM_TOLERANCE).all():
        raise EarmarkError(f"index: vectors of {content_id!r} are not finite and of unit norm")
    return vectors


def checked_about(content_id: str, about: Mapping[str, Any] | None, schema: pa.Schema | None) -> dict[str, Any] | None:
    """`about` as it will be read from the log: values must be such that the columns of `schema` can hold them."""
    if about is None:
        return None
    try:
        about = json.loads(json.dumps(dict(about), default=str))
    except (TypeError, ValueError) as error:
        raise EarmarkError(f"index: what is said about {content_id!r} is no JSON: {error}") from error
    for field in schema or ():
        value = about.get(field.name)
        if value is not None and fitting(value, field) is None:
            raise EarmarkError(f"index: {field.name!r} of {content_id!r} is no {field.type}: {value!r}")
    return dict(about)


def checked_windows(content_id: str, count: int, windows: Sequence[int] | None) -> tuple[int, ...]:
    """The windows that `count` vectors are of: 0 to `count - 1` unless they are given."""
    try:
        chosen = tuple(range(count) if windows is None else map(operator.index, windows))
    except TypeError as error:
        raise EarmarkError(f"index: windows of {content_id!r} are no whole numbers: {windows!r}") from error
    if len(chosen) != count or len(set(chosen)) != len(chosen):
        raise EarmarkError(f"index: {content_id!r} has {count} vectors and windows {chosen}")
    if not all(0 <= window < 2**31 for window in chosen):
        raise EarmarkError(f"index: windows of {content_id!r} are numbers from 0 to 2^31 - 1: {chosen}")
    return chosen
