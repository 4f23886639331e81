"""Whose the rows of an index are, in files that are mapped: to open a version costs neither time nor memory."""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.ids import SCHEMA

ROWS_FILE, CONTENTS_FILE = "rows.arrow", "contents.arrow"
SHORT_BYTES = 2**31 - 1  # of text that offsets of 32 bits reach


@dataclass(frozen=True)
class Members:
    """Row i is FAISS's label i; contents are numbered in the order of their ids.

    `contents`: distinct ids, in order; `first`, `last` (int64): where a content's rows lie in `by_content` (int64), all
    rows by content and window. `content_of` (int32), `windows` (int32) and `ids` (int64) are by row.
    """

    contents: pa.Array
    first: np.ndarray
    last: np.ndarray
    content_of: np.ndarray
    windows: np.ndarray
    ids: np.ndarray
    by_content: np.ndarray

    @classmethod
    def of(cls, content_ids: Any, windows: np.ndarray, ids: np.ndarray) -> Members:
        """Of rows in order: Arrow text, int32 and int64, of one length."""
        is_long = content_ids.nbytes > SHORT_BYTES
        names = content_ids.cast(pa.large_string() if is_long else pa.string())
        contents = pc.unique(names)
        contents = contents.take(pc.sort_indices(contents))
        content_of = np.asarray(pc.index_in(names, contents)).astype(np.int32)
        by_content = np.lexsort((windows, content_of))
        counts = np.bincount(content_of, minlength=len(contents)).astype(np.int64)
        last = np.cumsum(counts)
        return cls(contents, last - counts, last, content_of, windows.astype(np.int32), ids, by_content)

    @classmethod
    def open(cls, folder: Path) -> Members:
        """Maps the files that `write` wrote. Raises `OSError` and `pa.ArrowException`."""
        rows, contents = mapped(folder / ROWS_FILE), mapped(folder / CONTENTS_FILE)
        by_row = (rows[name].to_numpy() for name in ("content", "window", "id", "by_content"))
        first, last = (contents[name].to_numpy() for name in ("first", "last"))
        return cls(_whole(contents["content_id"]), first, last, *by_row)

    def write(self, folder: Path) -> None:
        rows = {"content": self.content_of, "window": self.windows, "id": self.ids, "by_content": self.by_content}
        write_mapped(folder / ROWS_FILE, pa.table(rows))
        write_mapped(
            folder / CONTENTS_FILE, pa.table({"content_id": self.contents, "first": self.first, "last": self.last})
        )

    def take(self, rows: np.ndarray) -> Members:
        """Of some rows, which are numbered anew."""
        names = self.contents.take(pa.array(self.content_of[rows]))
        return Members.of(names, self.windows[rows], self.ids[rows])

    def table(self) -> pa.Table:
        """id, content_id and window of each row."""
        each = self.contents.nbytes / max(1, len(self.contents))
        contents = self.contents.cast(pa.large_string()) if each * len(self) > SHORT_BYTES else self.contents
        names = contents.take(pa.array(self.content_of))
        return pa.table([pa.array(self.ids), names, pa.array(self.windows)], names=SCHEMA.names)

    def number_of(self, content_id: str) -> int | None:
        """The content's number, None where it has no row. Contents are in order, so a few looks find it."""
        low = bisect_left(range(len(self.contents)), content_id, key=lambda n: self.contents[n].as_py())
        return low if low < len(self.contents) and self.contents[low].as_py() == content_id else None

    def rows_of(self, number: int) -> np.ndarray:
        """Rows of a content, in the order of its windows."""
        return self.by_content[self.first[number] : self.last[number]]

    def __len__(self) -> int:
        return len(self.ids)


def write_mapped(path: Path, table: pa.Table) -> None:
    """Writes a table as `mapped` reads it, through to the disk."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    with open(path, "rb") as written:
        os.fsync(written.fileno())


def mapped(path: Path) -> pa.Table:
    """A table that lies in its file; columns are of one piece."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
