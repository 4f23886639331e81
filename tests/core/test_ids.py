"""One rule for arguments that take several ids: a string is one, what is no text is refused."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from core.errors import EarmarkError, WrongType
from core.ids import id_list, key_list, one_id, path_list, some_of


class Named(str, Enum):  # noqa: UP042  shown by its name, unlike a `StrEnum`
    FIRST = "a1"


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ("item-700", ["item-700"]),
        (np.str_("a1"), ["a1"]),
        (pa.scalar("a1"), ["a1"]),
        ("", [""]),
        ([], []),
        (["b", "a", "b"], ["b", "a", "b"]),
        (("a",), ["a"]),
        ({"a": 1}, ["a"]),
        (iter(["a", "b"]), ["a", "b"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["a", "b"], object), ["a", "b"]),
        (pa.array(["a", "b"]), ["a", "b"]),
        (pa.chunked_array([["a"], ["b"]]), ["a", "b"]),
        (list(pa.array(["a", "b"])), ["a", "b"]),
        (pa.array(["a", "a"]).dictionary_encode(), ["a", "a"]),
        (pd.Series(["a", "b"]), ["a", "b"]),
        (Named.FIRST, ["a1"]),
        ([Named.FIRST], ["a1"]),
    ],
)
def test_ids(given: object, ids: list[str]) -> None:
    assert id_list(given) == ids  # type: ignore[arg-type]
    assert all(type(one) is str for one in id_list(ids))


@pytest.mark.parametrize(
    "given",
    [
        *(b"a1", bytearray(b"a"), [b"a1"], 5, [5], None, [None], [["a"]], Path("a"), np.array("a"), np.eye(2)),
        pd.DataFrame({"a1": ["a1"]}),  # whose values, taken one by one, are the names of its columns
        pa.table({"a1": ["a1"]}),
    ],
)
def test_what_are_no_ids(given: object) -> None:
    with pytest.raises(WrongType, match="shows") as raised:
        id_list(given, "shows")  # type: ignore[arg-type]
    assert isinstance(raised.value, TypeError) and isinstance(raised.value, EarmarkError)


def test_a_read_takes_a_null_key() -> None:
    assert key_list(["a", None]) == ["a", None] and key_list(pa.array(["a", None])) == ["a", None]


def test_paths() -> None:
    assert path_list(["a", Path("b")]) == [Path("a"), Path("b")]
    for lone in ("a", Path("a"), b"a"):
        with pytest.raises(WrongType, match="give a list of paths"):
            path_list(lone)  # type: ignore[arg-type]
    with pytest.raises(WrongType, match="5 is not a path"):
        path_list([5])  # type: ignore[list-item]


def test_ids_in_a_message() -> None:
    assert some_of(["a", "b"]) == "'a', 'b'" and some_of([str(n) for n in range(12)]).endswith("'9' and 2 more")


def test_a_single_id() -> None:
    assert one_id("a") == one_id(np.str_("a")) == one_id(pa.scalar("a")) == "a"
    for wrong in (b"a", ["a"], None, 5, pa.scalar(5)):
        with pytest.raises(WrongType, match="an id is text"):
            one_id(wrong)
