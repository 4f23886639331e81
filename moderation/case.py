"""A decision as it was recorded. The fields that a scan or a list needs are attributes; the decision itself and its
record are parsed when they are first used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from moderation.audit import Record
from moderation.decisions import Decision

Key = tuple[str, str, str]  # content, policy, modality
# What is kept of a decision in a snapshot, by name: all but the record, which stays in the chain.
COLUMNS = (
    "case_id",
    "number",
    "at",
    "content_id",
    "policy_id",
    "modality",
    "by",
    "supersedes",
    "tier",
    "action",
    "cited",
    "sha256",
    "text_hash",
    "payload",
    "decision",
)


@dataclass(frozen=True)
class Case:
    """`by` is "machine" or the reviewer whose verdict made it; `supersedes` is the case that stood before, "" without
    one. `tier`, `action` and `cited`, the ids of the exemplars, are the decision's; `sha256`, `text_hash` and `payload`
    are those of the evidence. `number` is the record's in the audit."""

    case_id: str
    number: int
    at: str
    content_id: str
    policy_id: str
    modality: str
    by: str
    supersedes: str
    tier: str
    action: str
    cited: tuple[str, ...]
    sha256: str
    text_hash: str
    payload: str
    _decision: str | Mapping[str, Any] = field(repr=False, compare=False)  # JSON, or what it says
    _record: Callable[[], Record] = field(repr=False, compare=False)

    @property
    def key(self) -> Key:
        return self.content_id, self.policy_id, self.modality

    @cached_property
    def decision(self) -> Decision:
        fields = json.loads(self._decision) if isinstance(self._decision, str) else self._decision
        return Decision.from_dict(fields)

    @cached_property
    def record(self) -> Record:
        """The record of the audit. Raises `StorageError` where it cannot be read."""
        return self._record()

    @classmethod
    def of(cls, record: Record) -> Case:
        """The case of a record of the kind `decision`."""
        body = record.body
        decision, evidence = body["decision"], body["evidence"]
        return cls(
            record.record_id,
            record.number,
            record.at,
            body["content_id"],
            decision["policy_id"],
            decision["modality"],
            body["by"],
            body["supersedes"],
            decision["tier"],
            decision["action"],
            tuple(c["exemplar_id"] for c in decision["cited"]),
            evidence["sha256"],
            evidence["text_hash"],
            evidence["payload"],
            decision,
            lambda: record,
        )

    @classmethod
    def kept(cls, values: Sequence[Any], record: Callable[[], Record]) -> Case:
        """The case of the values of `COLUMNS`, in their order."""
        named = dict(zip(COLUMNS, values, strict=True))
        named["cited"] = tuple(named["cited"])
        return cls(_decision=named.pop("decision"), _record=record, **named)

    def to_keep(self) -> dict[str, Any]:
        """The values of `COLUMNS`."""
        said = self._decision if isinstance(self._decision, str) else json.dumps(self._decision, ensure_ascii=False)
        return {**{name: getattr(self, name) for name in COLUMNS[:-1]}, "decision": said}
