"""The record of what was decided: append-only, each record chained to the one before by its hash, so that whoever kept
a head of the chain sees any record that was changed, lost, moved or cut off.

Records lie in blocks, an object an append, whose numbers follow each other; a block is created only where none is yet,
so that any number of processes may write. Personal text stands beside the chain, which holds its salted hash: it can be
erased, and the chain stays whole.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError, NotFound, StorageError
from core.ids import Ids, id_list
from core.storage import Conflict, Storage

if TYPE_CHECKING:
    from moderation.history import History

FOLDER = "moderation/audit"
BLOCKS, PERSONAL, HINT = f"{FOLDER}/blocks", f"{FOLDER}/personal", f"{FOLDER}/newest.json"
START = "0" * 64  # what the first record is chained to
TRIES = 1_000  # appends that lost the race before one gives up


@dataclass(frozen=True)
class Head:
    """The end of a chain: its last record's number, from 1 (0: there is none), and hash. `str` is what is kept
    elsewhere and given to `verify`."""

    number: int = 0
    hash: str = START

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Raises `ConfigError`."""
        number, _, digest = text.strip().partition(":")
        if not number.isdigit() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ConfigError(f"{text!r} is no head of a chain; one looks like 12:{'0f' * 4}…")
        return cls(int(number), digest)


@dataclass(frozen=True)
class Entry:
    """What is appended: a kind of record, its body (JSON), and personal text by name."""

    kind: str
    body: Mapping[str, Any]
    personal: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One link: `number` from 1, `record_id`, the time, what was appended, and the chain's hashes."""

    number: int
    record_id: str
    at: str
    kind: str
    body: dict[str, Any]
    personal: dict[str, str]  # name → HMAC-SHA-256 of the text under a salt that stands beside it
    previous: str
    hash: str

    @property
    def head(self) -> Head:
        return Head(self.number, self.hash)

    def wrong(self, before: Head) -> list[str]:
        """Why this record cannot follow `before`: one message for each fault."""
        problems = []
        if self.number != before.number + 1:
            problems.append(f"record {self.number} follows record {before.number}")
        if self.previous != before.hash:
            problems.append(f"record {self.number} is not chained to the one before it")
        if self.hash != _hash(self.sealed()):
            problems.append(f"record {self.number} was changed")
        return problems

    def sealed(self) -> dict[str, Any]:
        """What the hash is over."""
        return {
            "number": self.number,
            "record_id": self.record_id,
            "at": self.at,
            "kind": self.kind,
            "body": self.body,
            "personal": self.personal,
            "previous": self.previous,
        }


@dataclass(frozen=True)
class Report:
    """What a check found: the head, and what is wrong, in words, at which record."""

    head: Head
    records: int
    erased: int
    problems: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return not self.problems


class Audit:
    """The chain of a store."""

    def __init__(self, storage: Storage, whole: bool = False) -> None:
        """With `whole`, the chain's `history` is read from its beginning, whatever snapshots there are."""
        self.storage, self._whole = storage, whole

    def append(self, entries: Sequence[Entry]) -> list[Record]:
        """Appends records, together or not at all. Raises `ConfigError` for a body that is not JSON."""
        if not entries:
            return []
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        drafts = [self._draft(entry, at) for entry in entries]
        block, head = self._newest()
        for _ in range(TRIES):
            records = []
            for draft in drafts:
                sealed = {**draft, "number": head.number + 1, "previous": head.hash}
                records.append(Record(**sealed, hash=_hash(sealed)))
                head = records[-1].head
            data = b"".join(_line(record) for record in records)
            try:
                self.storage.replace_if(_path(block + 1), data, None)
            except Conflict:
                block, head = self._newest(block)
                continue
            self.storage.write(HINT, json.dumps({"block": block + 1}).encode())
            if "history" in self.__dict__:
                self.history.appended(block + 1, records)
            return records
        raise StorageError(f"the audit in {FOLDER} is written to by too many at once")

    def head(self) -> Head:
        return self._newest()[1]

    @cached_property
    def history(self) -> History:
        """The records of the chain; those that a snapshot covers come from the snapshot."""
        from moderation.history import History

        return History(self, self._whole)

    def records(self) -> Iterator[Record]:
        """Every record in order, from the chain itself. Raises `StorageError` at one that cannot be read; `verify` says
        what is wrong."""
        for _, records in self.blocks():
            yield from records

    def blocks(self, after: int = 0) -> Iterator[tuple[int, list[Record]]]:
        """The blocks that follow a block, by number, with their records. Raises `StorageError`."""
        for block in self._blocks():
            if block > after:
                yield block, _parsed(self.storage.read(_path(block)), block)

    def block(self, number: int) -> list[Record]:
        """The records of a block. Raises `StorageError` where it cannot be read."""
        data = self._block(number)
        if data is None:
            raise StorageError(f"block {number} of the audit is missing")
        return _parsed(data, number)

    def find(self, record_id: str) -> Record:
        """Raises `NotFound`."""
        for record in self.records():
            if record.record_id == record_id:
                return record
        raise NotFound(f"there is no decision {record_id!r} in the audit")

    def personal(self, record: Record) -> dict[str, str | None]:
        """The personal text of a record by name; None where it was erased."""
        held = self._beside(record.record_id)
        return {name: (held.get(name) or {}).get("text") for name in record.personal}

    def erase(self, record_ids: Ids) -> int:
        """Erases the personal text of records, and its salt; returns of how many. The chain stays whole."""
        erased = 0
        for record_id in id_list(record_ids, "record ids"):
            if self._beside(record_id):
                now = datetime.now(UTC).isoformat(timespec="seconds")
                self.storage.write(_beside_path(record_id), json.dumps({"erased_at": now}).encode())
                erased += 1
        return erased

    def verify(self, head: Head | None = None) -> Report:
        """Checks every hash; with a `head` that was kept elsewhere, also that nothing was cut off or made anew."""
        problems: list[str] = []
        last, count, erased = Head(), 0, 0
        blocks = self._blocks()
        if blocks != list(range(1, len(blocks) + 1)):
            lacking = sorted(set(range(1, (blocks or [0])[-1] + 1)) - set(blocks))
            problems.append(f"blocks are lost: {', '.join(map(str, lacking[:5]))}")
        seen = head is None or head.number == 0
        for block in blocks:
            try:
                records = _parsed(self.storage.read(_path(block)), block)
            except (StorageError, FileNotFoundError) as error:
                problems.append(str(error))
                continue
            for record in records:
                problems += record.wrong(last)
                said, gone = self._wrong_beside(record)
                problems, erased = problems + said, erased + gone
                if head is not None and record.number == head.number:
                    seen = True
                    if record.hash != head.hash:
                        problems.append(f"record {record.number} is not the one whose head was kept")
                last, count = record.head, count + 1
        if not seen and head is not None:
            problems.append(f"record {head.number}, whose head was kept, is gone: the chain ends at {last.number}")
        return Report(last, count, erased, tuple(problems))

    def _draft(self, entry: Entry, at: str) -> dict[str, Any]:
        record_id = uuid.uuid4().hex
        beside = {name: {"salt": secrets.token_hex(16), "text": text} for name, text in entry.personal.items()}
        draft: dict[str, Any] = {"record_id": record_id, "at": at, "kind": entry.kind}
        try:
            draft["body"] = json.loads(_canonical(entry.body))  # as it will be read
        except (TypeError, ValueError) as error:
            raise ConfigError(f"a record of {entry.kind} is no JSON: {error}") from error
        draft["personal"] = {name: _salted(**held) for name, held in beside.items()}
        if beside:  # before the record: what nothing refers to does no harm
            self.storage.write(_beside_path(record_id), json.dumps(beside, ensure_ascii=False).encode())
        return draft

    def _newest(self, least: int = 0) -> tuple[int, Head]:
        """The last block and its head. The hint may be behind, never ahead."""
        try:
            hint = int(json.loads(self.storage.read(HINT))["block"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            hint = (self._blocks() or [0])[-1]
        block = max(hint, least)
        data = self._block(block)
        if data is None and block:
            block = (self._blocks() or [0])[-1]
            data = self._block(block)
        while (later := self._block(block + 1)) is not None:
            block, data = block + 1, later
        if data is None:
            return 0, Head()
        lines = data.rstrip(b"\n").rsplit(b"\n", 1)
        return block, _parsed(lines[-1] + b"\n", block)[-1].head

    def _block(self, number: int) -> bytes | None:
        try:
            return self.storage.read(_path(number)) if number else None
        except FileNotFoundError:
            return None

    def _blocks(self) -> list[int]:
        names = [entry.path.rsplit("/", 1)[1] for entry in self.storage.entries(BLOCKS)]
        return sorted(int(name[:-6]) for name in names if re.fullmatch(r"\d+\.jsonl", name, re.ASCII))

    def _beside(self, record_id: str) -> dict[str, Any]:
        try:
            held = json.loads(self.storage.read(_beside_path(record_id)))
        except (FileNotFoundError, ValueError):
            return {}
        return {} if "erased_at" in held else dict(held)

    def _wrong_beside(self, record: Record) -> tuple[list[str], bool]:
        if not record.personal:
            return [], False
        held = self._beside(record.record_id)
        if not held:
            return [], True
        bad = [name for name, digest in record.personal.items() if _salted(**held.get(name, _NONE)) != digest]
        return [f"the personal text {name} of record {record.number} was changed" for name in bad], False


_NONE = {"salt": "", "text": ""}


def _path(block: int) -> str:
    return f"{BLOCKS}/{block:012d}.jsonl"


def _beside_path(record_id: str) -> str:
    return f"{PERSONAL}/{record_id}.json"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _hash(sealed: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(sealed).encode()).hexdigest()


def _salted(salt: str, text: str) -> str:
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()


def line_of(record: Record) -> str:
    """A record as its line in a block."""
    return _canonical({**record.sealed(), "hash": record.hash})


def record_of(line: str) -> Record:
    """The record of a line that `line_of` made. Raises `ValueError`, `TypeError`."""
    return Record(**json.loads(line))


def _line(record: Record) -> bytes:
    return line_of(record).encode() + b"\n"


def _parsed(data: bytes, block: int) -> list[Record]:
    try:
        found = [Record(**json.loads(line)) for line in data.split(b"\n") if line]
    except (ValueError, TypeError) as error:
        raise StorageError(f"block {block} of the audit cannot be read: {error}") from error
    if not found:
        raise StorageError(f"block {block} of the audit is empty")
    if b"".join(map(_line, found)) != data:  # digits or spaces that mean the same to a reader
        raise StorageError(f"block {block} of the audit is not as it was written")
    return found
