"""What the log of live changes does to the vectors, ids and metadata of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.ids import SCHEMA
from index.log import DELETE, PUT, Reader, Record

REMOVED = pa.schema([("content_id", pa.string()), ("number", pa.int64()), ("live", pa.bool_())])


@dataclass(frozen=True)
class Changes:
    """The last record of each content since a version, and what is deleted for good: content → number of the record."""

    records: dict[str, Record]
    last: int
    deleted: dict[str, int]
    next_id: int = 0  # after every id that the log ever gave

    @classmethod
    def since(
        cls, home: Path, merged: int, deleted: Mapping[str, int], removed: Mapping[str, int], model_id: str
    ) -> Changes:
        """Of the log in `home`, after the record of number `merged`; of contents that were `removed` from the version,
        after theirs. Vectors of another model than `model_id` are passed over. Raises `IndexUnavailable` for a damaged
        log."""
        records: dict[str, Record] = {}
        gone, last, next_id = dict(deleted), merged, 0
        for record in Reader(home, merged).read():
            last = record.number
            next_id = max(next_id, *(number + 1 for number in record.ids)) if record.ids else next_id
            if record.op == PUT and record.model_id != model_id:
                continue
            if record.number <= removed.get(record.content_id, -1):
                continue  # `removed` came later; what was deleted before it is among `deleted`, by who removed it
            records[record.content_id] = record
            if record.op == DELETE:
                gone[record.content_id] = record.number
            else:
                gone.pop(record.content_id, None)
        return cls(records, last, gone, next_id)

    @property
    def touched(self) -> pa.Array:
        """Contents of which nothing that a build is given counts."""
        return pa.array(sorted({*self.records, *self.deleted}), pa.string())

    def rows(self, dim: int) -> tuple[pa.Array, np.ndarray, np.ndarray]:
        """(content ids, vectors, windows) that were put: text, float32 (rows, dim) and int32."""
        puts = self.puts
        names = pa.array([one.content_id for one in puts for _ in one.windows], pa.string())
        vectors = [np.empty((0, dim), np.float32), *(np.asarray(one.vectors) for one in puts)]
        windows = np.array([window for one in puts for window in one.windows], np.int32)
        return names, np.concatenate(vectors), windows

    def over_ids(self, ids: pa.Table | None, next_id: int) -> tuple[pa.Table | None, int]:
        """Known ids (id, content_id, window) with those that the log gave out. One that somebody else gave to another
        row meanwhile is left out, so that the row gets a new one."""
        next_id = max(next_id, self.next_id)
        rows = [
            (number, one.content_id, window)
            for one in self.puts
            for number, window in zip(one.ids, one.windows, strict=True)
        ]
        if not rows:
            return ids, next_id
        own = pa.table(
            [pa.array(c, f.type) for c, f in zip(zip(*rows, strict=True), SCHEMA, strict=True)], schema=SCHEMA
        )
        if ids is None:
            return own, next_id
        # What is known has the last word, of an id as of a row.
        taken = own.filter(pc.is_in(own["id"], value_set=ids["id"].combine_chunks()))
        own = own.filter(pc.invert(pc.is_in(own["id"], value_set=taken["id"].combine_chunks())))
        return pa.concat_tables([ids.select(SCHEMA.names), own.cast(ids.schema)]), next_id

    def over_metadata(self, metadata: pa.Table | None) -> pa.Table | None:
        """Metadata with what the changed contents brought along."""
        if metadata is None or not self.records:
            return metadata
        out = pa.array(sorted(self.records), pa.string())
        kept = metadata.filter(pc.invert(pc.is_in(metadata["content_id"].cast(pa.string()), value_set=out)))
        puts = self.puts
        columns = [
            pa.array([one.content_id for one in puts], pa.string()).cast(field.type)
            if field.name == "content_id"
            else column([(one.about or {}).get(field.name) for one in puts], field)
            for field in metadata.schema
        ]
        return pa.concat_tables([kept, pa.table(columns, schema=metadata.schema)])

    @property
    def puts(self) -> list[Record]:
        """The contents whose last record is a put."""
        return [record for record in self.records.values() if record.op == PUT]


def removed_table(live: Mapping[str, int], by_remove: Mapping[str, int]) -> pa.Table:
    """Contents that were deleted live, and such as were removed from the published index, as `removals` reads them."""
    rows = [{"content_id": c, "number": n, "live": True} for c, n in live.items()]
    rows += [{"content_id": c, "number": n, "live": False} for c, n in by_remove.items()]
    return pa.Table.from_pylist(rows, schema=REMOVED)


def column(values: list[object], field: pa.Field) -> pa.Array:
    """Values, from the log perhaps, where times are text, as a column; null where one does not fit."""
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([fitting(one, field) for one in values], field.type)


def fitting(value: object, field: pa.Field) -> object:
    """The value as the field has it, None where it does not fit."""
    for made in (lambda: pa.scalar(value, field.type), lambda: pa.scalar(str(value)).cast(field.type)):
        try:
            return None if value is None else made().as_py()
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
    return None
