"""Arguments that take several ids or paths: one rule for every function that takes them.

A single string is one id. Taken for a sequence of one-letter ids, `delete("a1")` would delete nothing and look done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pyarrow as pa

from core.errors import WrongType

Ids = str | Iterable[str]


def id_list(given: Ids, kind: str = "content ids") -> list[str]:
    """The ids, in their order, with repetitions. A single string is one id; lists, sets, NumPy and Arrow arrays and
    anything else that yields strings are several. Raises `WrongType` for bytes, numbers, null and anything else."""
    return [_text(value, kind) for value in _values(given, kind)]


def one_id(given: object, kind: str = "content id") -> str:
    """A single id. Raises `WrongType` for a value that is not text."""
    return _text(given.as_py() if isinstance(given, pa.Scalar) else given, kind)


def key_list(given: Ids | Iterable[str | None], kind: str = "content ids") -> list[str | None]:
    """`id_list` for reads: a null key stays null, and is answered as a key that is not there."""
    return [None if value is None else _text(value, kind) for value in _values(given, kind)]


def _text(value: object, kind: str) -> str:
    if not isinstance(value, str):
        raise WrongType(f"{kind}: an id is text, not {value!r}")
    return str.__str__(value)  # what a text is, also where an enumeration shows it by its name


def _values(given: object, kind: str) -> list[object]:
    if isinstance(given, str):
        return [given]
    if isinstance(given, pa.Scalar):
        return _values(given.as_py(), kind)
    values = given.to_pylist() if isinstance(given, (pa.Array, pa.ChunkedArray)) else given
    if isinstance(values, (bytes, bytearray, memoryview, PathLike)) or not isinstance(values, Iterable):
        raise WrongType(f"{kind}: give one id as text or several in a list, not {given!r}")
    dimensions = getattr(values, "ndim", 1)
    if dimensions != 1:  # of a pandas frame one would get the names of its columns
        raise WrongType(f"{kind}: an array of ids has one dimension, not {dimensions}")
    if isinstance(values, np.ndarray):
        values = values.tolist()
    return [value.as_py() if isinstance(value, pa.Scalar) else value for value in values]


def some_of(ids: Sequence[str], most: int = 10) -> str:
    """Ids for a message, the first of them where there are many."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(map(repr, ids[:most])) + more


def path_list(given: Iterable[str | PathLike[str]], kind: str = "paths") -> list[Path]:
    """Paths of a list. Raises `WrongType` for a single path, which could mean a file or a folder of files."""
    if isinstance(given, (str, bytes, PathLike)):
        raise WrongType(f"{kind}: give a list of paths, such as [{str(given)!r}], not one path")
    if not isinstance(given, Iterable):
        raise WrongType(f"{kind}: give a list of paths, not {type(given).__name__}")
    values = list(given)
    for value in values:
        if not isinstance(value, (str, PathLike)):
            raise WrongType(f"{kind}: {value!r} is not a path")
    return [Path(value) for value in values]
