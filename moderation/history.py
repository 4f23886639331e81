"""The state of the audit without reading all of it again: a snapshot, and the later records of the chain.

A snapshot is a table of the decisions as `moderation.case` needs them and of all other records unchanged. It is a
cache: it can be rebuilt from the chain at any time. Its SHA-256 is itself a record of the chain, so that a snapshot
that was changed or replaced is not used. That record must follow the last record of the snapshot without a gap or a
change. `verify_snapshot` and `Audit.verify`, which read everything, find changes further back in the chain.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa

from core.errors import StorageError
from core.storage import Conflict
from core.tables import decode, encode
from moderation import decisions
from moderation.audit import Audit, Entry, Head, Record, line_of, record_of
from moderation.case import COLUMNS, Case

KIND = "snapshot"  # of record
VERSION = 1  # raised when the contents of a snapshot change
FOLDER = "moderation/snapshots"
NEWEST = f"{FOLDER}/newest.json"
# A new snapshot is made after so many records, if they are at least this share of all: the cost of writing snapshots is
# then proportional to the records appended.
LEAST_RECORDS, LEAST_SHARE = 1_000, 0.1
BLOCKS_IN_MEMORY = 8  # of decisions whose whole records are asked for
_TYPES = {"number": pa.int64(), "cited": pa.list_(pa.string()), "decision": pa.large_string()}
ROWS = pa.schema(
    [
        ("kind", pa.string()),
        ("block", pa.int64()),
        ("line", pa.large_string()),  # the record as the chain has it; null of decisions, which have the columns below
        *((name, _TYPES.get(name, pa.string())) for name in COLUMNS),
    ]
)
DESCRIBED = b"earmark.snapshot"  # key of the file's metadata
log = logging.getLogger(__name__)


class History:
    """The records of a chain, as far as it went when this was made or last `refresh`ed."""

    def __init__(self, audit: Audit, whole: bool = False) -> None:
        """With `whole`, no snapshot is used."""
        self.audit = audit
        self.head = Head()
        self.cases: list[Case] = []
        self._others: dict[str, list[Record]] = defaultdict(list)
        self._rows = ROWS.empty_table()  # of the snapshot
        self._tail: list[tuple[int, Record]] = []
        self._block = 0
        self._whole_block = lru_cache(BLOCKS_IN_MEMORY)(audit.block)
        if whole:
            self.refresh()
        else:
            self._begin()

    def of(self, *kinds: str) -> Iterator[Record]:
        """The records of some kinds but decisions, in order of the chain for each."""
        for kind in kinds:
            yield from self._others[kind]

    @property
    def kinds(self) -> list[str]:
        return list(self._others)

    def refresh(self) -> None:
        """Reads what was appended since."""
        for block, records in self.audit.blocks(self._block):
            self._take(block, records)

    def appended(self, block: int, records: list[Record]) -> None:
        """Learns of a block that was just appended. One that others' blocks come before waits for `refresh`."""
        if block == self._block + 1:
            self._take(block, records)

    def keep(self, least: int = LEAST_RECORDS, share: float = LEAST_SHARE) -> bool:
        """Makes a snapshot where enough was appended since the last one; returns whether it did."""
        self.refresh()
        if len(self._tail) < max(least, share * self.head.number):
            return False
        head, block, storage = self.head, self._block, self.audit.storage
        before = storage.read_tagged(NEWEST)
        older = [entry.path for entry in storage.entries(FOLDER) if entry.path != NEWEST]
        rows = pa.concat_tables([self._rows, _rows_of(self._tail)])
        data = encode(
            rows.replace_schema_metadata(
                {DESCRIBED: json.dumps({"version": VERSION, "head": str(head), "block": block})}
            )
        )
        sha256 = hashlib.sha256(data).hexdigest()
        storage.write(_path(sha256), data)
        body = {"sha256": sha256, "at": str(head), "version": VERSION}
        (record,) = self.audit.append([Entry(KIND, body)])
        newest = json.dumps({"sha256": sha256, "record": record.number}).encode()
        try:
            storage.replace_if(NEWEST, newest, before[1] if before else None)
        except Conflict:
            return False  # another process made one meanwhile; the next snapshot deletes this file
        for path in older:  # and not what another process wrote since, which `NEWEST` may be about to name
            if path != _path(sha256):
                storage.delete(path)
        self.refresh()
        self._rows, self._tail = rows, [(b, r) for b, r in self._tail if r.number > head.number]
        return True

    def _begin(self) -> None:
        """Takes the newest snapshot, or without a good one everything."""
        found = _newest(self.audit)
        if isinstance(found, str):
            log.warning("%s; the audit is read whole", found)
        elif found is not None:
            rows, head, block, sha256 = found
            tail = list(self.audit.blocks(block))
            wrong = _unattested(sha256, head, tail)
            if not wrong:
                self._rows, self.head, self._block = rows, head, block
                self._restore()
                for number, records in tail:
                    self._take(number, records)
                return
            log.warning("%s; the audit is read whole", wrong)
        self.refresh()

    def _restore(self) -> None:
        made = self._rows.filter(pa.compute.equal(self._rows["kind"], decisions.KIND))
        values = zip(*(made[name].to_pylist() for name in COLUMNS), strict=True)
        for own, block in zip(values, made["block"].to_pylist(), strict=True):
            self.cases.append(Case.kept(own, partial(self._record, block, own[0])))
        others = self._rows.filter(pa.compute.is_valid(self._rows["line"]))
        for line in others["line"].to_pylist():
            record = record_of(line)
            self._others[record.kind].append(record)

    def _record(self, block: int, case_id: str) -> Record:
        for record in self._whole_block(block):
            if record.record_id == case_id:
                return record
        raise StorageError(f"decision {case_id} is not in block {block} of the audit")

    def _take(self, block: int, records: list[Record]) -> None:
        self._block, self.head = block, records[-1].head
        for record in records:
            self._tail.append((block, record))
            if record.kind == decisions.KIND:
                self.cases.append(Case.of(record))
            else:
                self._others[record.kind].append(record)


def verify_snapshot(audit: Audit) -> list[str]:
    """The faults of the newest snapshot, as messages: compares it with the whole chain. Empty without a snapshot of
    this version."""
    found = _newest(audit)
    if found is None or isinstance(found, str):
        return [found] if found else []
    rows, head, block, sha256 = found
    try:
        chain = list(audit.blocks())
        wrong = _unattested(sha256, head, [(number, records) for number, records in chain if number > block])
        told = [(number, record) for number, records in chain if number <= block for record in records]
    except StorageError:
        return []  # `Audit.verify` says what is wrong with the chain
    if wrong:
        return [wrong]
    return (
        []
        if _rows_of(told).equals(rows.replace_schema_metadata(None))
        else ["the snapshot of the audit differs from the audit"]
    )


def _newest(audit: Audit) -> tuple[pa.Table, Head, int, str] | str | None:
    """The newest snapshot, the head and the block up to which it goes, and its SHA-256; or what is wrong with it, in
    words; None without one, or with one of another version."""
    for _ in range(2):  # whoever makes another deletes this one
        try:
            sha256 = str(json.loads(audit.storage.read(NEWEST))["sha256"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return f"{NEWEST} cannot be read"
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            return f"{NEWEST} names no snapshot"
        try:
            data = audit.storage.read(_path(sha256))
        except FileNotFoundError:
            continue
        if hashlib.sha256(data).hexdigest() != sha256:
            return f"the snapshot {sha256[:12]} of the audit was changed"
        try:
            rows = decode(data)
            told = json.loads((rows.schema.metadata or {})[DESCRIBED])
            if told["version"] != VERSION:
                return None
            return rows.cast(ROWS), Head.parse(told["head"]), int(told["block"]), sha256
        except Exception as error:  # whatever a file that we did not write may raise
            return f"the snapshot {sha256[:12]} of the audit cannot be read: {error}"
    return "the snapshot of the audit is gone"


def _unattested(sha256: str, head: Head, tail: Sequence[tuple[int, Sequence[Record]]]) -> str:
    """Why a snapshot as of `head` must not be used, as a message: no later record attests to it, or the later records
    do not follow it. "" for a valid one."""
    last = head
    for record in (record for _, records in tail for record in records):
        if wrong := record.wrong(last):
            return f"the records after the snapshot do not follow it: {wrong[0]}"
        if record.kind == KIND and record.body.get("sha256") == sha256 and record.body.get("at") == str(head):
            return ""
        last = record.head
    return f"no record of the audit attests to its snapshot {sha256[:12]}"


def _rows_of(records: Sequence[tuple[int, Record]]) -> pa.Table:
    """Records, each with its block, as rows of a snapshot."""
    rows: list[dict[str, Any]] = []
    for block, record in records:
        row: dict[str, Any] = {"kind": record.kind, "block": block}
        decided = record.kind == decisions.KIND
        rows.append({**row, **(Case.of(record).to_keep() if decided else {"line": line_of(record)})})
    return pa.Table.from_pylist(rows, schema=ROWS)


def _path(sha256: str) -> str:
    return f"{FOLDER}/{sha256}.parquet"
