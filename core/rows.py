"""Rows of chosen contents out of a view's parts: the keys of all parts are read once, and then only the row groups that
have a wanted row.

Ask for many contents in the order of the parts (`LatestRows.ordered`): each row group is then decoded once, because the
groups that were used last are kept, up to a limit of bytes. Any other order gives the same rows at a higher cost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from core.contracts import CREATED, EVENT, WORK_KEY
from core.features import View
from core.ids import Ids, id_list
from core.tables import Tables, check_keys, reading

KEPT_BYTES = 32 << 20  # of decoded row groups that are kept for the next read


class _Parts:
    """The parts of a view as they are when this is made, and their row groups."""

    def __init__(self, tables: Tables, view: View, columns: Sequence[str], kept_bytes: int) -> None:
        from pyarrow import dataset

        filesystem, root = tables.storage.arrow()
        paths = [f"{root}/{part.path}" for part in tables.parts(view)]
        self.view, self._kept_bytes = view, kept_bytes
        self.columns = list(dict.fromkeys([view.entity, *columns, WORK_KEY]))
        self._dataset = (
            dataset.dataset(paths, schema=view.schema, filesystem=filesystem, format="parquet") if paths else None
        )
        self._name = f"a part of {view.name} in {tables.storage.uri}"
        self._kept: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()  # by part and row group, the last used last
        self._kept_now = 0  # bytes
        self._starts: dict[int, np.ndarray] = {}

    @cached_property
    def fragments(self) -> list[Any]:
        return [] if self._dataset is None else list(self._dataset.get_fragments())

    def located(self, names: Sequence[str]) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        """Some columns of all rows in the order of the parts, and of each row its part and its place in the part."""
        if self._dataset is None:
            nothing = np.empty(0, np.int64)
            return self.view.schema.empty_table().select(names), nothing, nothing
        with reading(self._name):
            rows = self._dataset.to_table(columns=list(names))
            counts = np.array([fragment.metadata.num_rows for fragment in self.fragments], np.int64)
        check_keys(rows, self.view, self._name)
        part = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(rows.num_rows) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, part, place

    def starts(self, part: int) -> np.ndarray:
        """The places in a part at which its row groups begin, and its end."""
        if part not in self._starts:  # a merged part may have a row group for each content
            self._starts[part] = np.cumsum([0, *(group.num_rows for group in self.fragments[part].row_groups)])
        return self._starts[part]

    def take(self, part: np.ndarray, place: np.ndarray) -> pa.Table:
        """The rows at these places, in their order."""
        empty = self.view.schema.empty_table().select(self.columns)
        if not len(part):
            return empty
        pieces, order = [empty], []
        for number in np.unique(part):
            own = np.flatnonzero(part == number)
            starts = self.starts(int(number))
            groups = np.searchsorted(starts, place[own], side="right") - 1
            for group in np.unique(groups):
                chosen = own[groups == group]
                table = self._group(int(number), int(group))
                pieces.append(table.take(pa.array(place[chosen] - starts[group])))
                order.append(chosen)
        back = np.empty(len(part), np.int64)
        back[np.concatenate(order)] = np.arange(len(part))
        return pa.concat_tables(pieces).take(pa.array(back))

    def _group(self, part: int, group: int) -> pa.Table:
        found = self._kept.pop((part, group), None)
        if found is None:
            found = self._decoded(part, group)
            self._kept_now += found.nbytes
        self._kept[part, group] = found
        while len(self._kept) > 1 and self._kept_now > self._kept_bytes:
            self._kept_now -= self._kept.popitem(last=False)[1].nbytes
        return found

    def _decoded(self, part: int, group: int) -> pa.Table:
        with reading(self._name):
            fragment = self.fragments[part].subset(row_group_ids=[group])
            return fragment.to_table(schema=self.view.schema, columns=self.columns, use_threads=False)


class LatestRows:
    """The latest row of every content of a view, as the store is when this is made. `keys` are the rows' keys of work
    by content, tombstones included. `columns` are read beside the content's id and the key of work."""

    def __init__(self, tables: Tables, view: View, columns: Sequence[str] = (), kept_bytes: int = KEPT_BYTES) -> None:
        self._parts = _Parts(tables, view, columns, kept_bytes)
        rows, part, place = self._parts.located([view.entity, EVENT, CREATED, WORK_KEY])
        latest = _latest(rows, view.entity)
        self._part, self._place = part[latest], place[latest]
        chosen = rows.select([view.entity, WORK_KEY]).take(pa.array(latest))
        contents = chosen[view.entity].to_pylist()
        self._number = {content_id: number for number, content_id in enumerate(contents)}
        self.keys: Mapping[str, str] = dict(zip(contents, chosen[WORK_KEY].to_pylist(), strict=True))

    def ordered(self, content_ids: Ids) -> list[str]:
        """Those that have a row, in the order in which their rows stand in the store."""
        return sorted((c for c in id_list(content_ids) if c in self._number), key=self._number.__getitem__)

    def read(self, content_ids: Ids) -> pa.Table:
        """The rows of these contents, in the given order; contents without a row are left out."""
        numbers = np.array([self._number[c] for c in id_list(content_ids) if c in self._number], np.int64)
        return self._parts.take(self._part[numbers], self._place[numbers])

    @property
    def row_bytes(self) -> float:
        """Bytes of a row in the store's largest part, before compression: about what a row takes in memory."""
        most = max(self._parts.fragments, key=lambda fragment: fragment.metadata.num_rows, default=None)
        if most is None or not most.metadata.num_rows:
            return 0.0
        return float(sum(group.total_byte_size for group in most.row_groups) / most.metadata.num_rows)


class RowsOf:
    """All rows of a content in a table that has many of each, as the store is when this is made."""

    def __init__(self, tables: Tables, view: View, columns: Sequence[str], kept_bytes: int = KEPT_BYTES) -> None:
        self._parts = _Parts(tables, view, columns, kept_bytes)
        rows, part, place = self._parts.located([view.entity])
        codes = _codes(rows[view.entity])
        # Rows of a content stand together: what is kept are the beginnings of such runs.
        begins = np.ones(len(codes), bool)
        begins[1:] = (codes[1:] != codes[:-1]) | (part[1:] != part[:-1])
        first = np.flatnonzero(begins)
        self._part, self._first = part[first], place[first]
        self._count = np.diff([*first, len(codes)])
        self._runs: dict[str, list[int]] = {}
        for run, content_id in enumerate(rows[view.entity].take(pa.array(first)).to_pylist()):
            self._runs.setdefault(content_id, []).append(run)

    def read(self, content_ids: Ids) -> pa.Table:
        """The rows of these contents, of each in the order of the store."""
        runs = np.array([run for c in id_list(content_ids) for run in self._runs.get(c, ())], np.int64)
        counts = self._count[runs]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._parts.take(np.repeat(self._part[runs], counts), np.repeat(self._first[runs], counts) + within)


def _latest(rows: pa.Table, key: str) -> np.ndarray:
    """The rows that are the latest of their key, ascending: the later event wins, at equal event the later created, of
    equal rows the last."""
    codes = _codes(rows[key])
    if not len(codes):
        return codes
    event, created = (np.asarray(rows[name].combine_chunks().cast(pa.int64())) for name in (EVENT, CREATED))
    order = np.lexsort([np.arange(len(codes)), created, event, codes])
    last = np.ones(len(order), bool)
    last[:-1] = codes[order[1:]] != codes[order[:-1]]
    return np.sort(order[last])


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """A number for each value, equal for equal values."""
    if not len(column):
        return np.empty(0, np.int64)
    whole = column.combine_chunks()
    return np.asarray(whole.dictionary_encode().indices, np.int64)
